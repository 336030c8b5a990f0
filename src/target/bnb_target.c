/* Targets for bitsandbytes: a Hugging Face folder as save_pretrained of a 4-bit or 8-bit model writes it (notes of
 * the format: transformers' quantizers and bitsandbytes.functional.QuantState, versions 5 and 0.50).
 *
 * Every linear layer's matrix is replaced, by the name of its module, whatever the architecture:
 *   4 bit  P.weight U8 [n/2, 1], .absmax, .quant_map, .quant_state.bitsandbytes__nf4 (JSON), with double
 *          quantization also .nested_absmax and .nested_quant_map
 *   8 bit  P.weight I8 [out, in], P.SCB F32 [out], P.weight_format U8 [] = 0
 * Embeddings, the output layer, norms and biases stay as they are. */
#include "target/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/json_edit.h"
#include "base/text.h"
#include "target/hf_folder_out.h"

#define LONGEST_OFFSET "-1.2345678901234567e-123" /* no f32's repr is longer */

/* Modules that are no nn.Linear, or that transformers leaves alone, by parts of their names. */
static bool is_linear(const char *name, uint32_t n_dims)
{
    static const char *const not_linear[] = {
        "embed",
        "wte.",
        "wpe.",
        "norm",
        "ln_",
        "lm_head.",
        "output_layer.",
        "embed_out.",
        "score.",
        "conv1d",
        "rotary",
        "mlp.gate.weight",
        "block_sparse_moe.gate.weight",
        "router",
    };
    if (n_dims != 2 || !tms_ends_with(name, ".weight")) return false;
    for (size_t i = 0; i < sizeof not_linear / sizeof *not_linear; i++)
        if (strstr(name, not_linear[i])) return false;
    return true;
}

static bool is_float(enum tms_type type)
{
    return tms_is_plain_float(type) || type == TMS_F8_E4M3;
}

/* The torch type that a weight has before it is quantized: FP8 with scales is loaded as bfloat16. */
static const char *original_dtype(enum tms_type type)
{
    return type == TMS_F8_E4M3 ? "bfloat16" : tms_torch_dtype_name(type);
}

void tms_bnb_quant_state(struct tms_buf *out, const struct tms_spec *spec, const struct tms_tensor *tensor,
                         const float *offset)
{
    tms_buf_printf(out, "{\"quant_type\": \"%s\", \"blocksize\": %u, \"dtype\": \"%s\", \"shape\": [%llu, %llu]",
                   spec->kind == TMS_BNB_NF4 ? "nf4" : "fp4", spec->block_size, original_dtype(tensor->type),
                   (unsigned long long)tensor->rows, (unsigned long long)tensor->cols);
    if (offset) {
        char repr[32];
        tms_json_repr(repr, (double)*offset);
        tms_buf_printf(out, ", \"nested_blocksize\": %u, \"nested_dtype\": \"float32\", \"nested_offset\": %s",
                       TMS_BNB_NESTED_BLOCK, repr);
    }
    tms_buf_text(out, "}");
}

/* ---- tensors ---- */

struct plan {
    struct tms_target *t;
    struct tms_error *err;
};

static struct tms_out_tensor *add_part(struct plan *p, const char *base, const char *suffix, enum tms_type type,
                                       uint32_t n_dims, const uint64_t *shape, const void *contents)
{
    char name[TMS_ST_MAX_NAME + 64];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    struct tms_out_tensor *out = tms_target_add_out(p->t, name, type, n_dims, shape);
    if (!out) return NULL;
    out->is_scale = true;
    out->contents = contents;
    return out;
}

static tms_status add_bnb4(struct plan *p, size_t index)
{
    struct tms_target *t = p->t;
    const struct tms_tensor *tensor = &t->source->tensors[index];
    const char *name = tensor->name;
    bool nested = t->spec.double_quant;
    uint64_t n_blocks = (tensor->n_elems + t->spec.block_size - 1) / t->spec.block_size;
    uint64_t packed[2] = {(tensor->n_elems + 1) / 2, 1};
    uint64_t n_nested = (n_blocks + TMS_BNB_NESTED_BLOCK - 1) / TMS_BNB_NESTED_BLOCK;
    uint64_t sixteen = 16, all = 256;
    struct tms_buf state = {0};
    struct tms_out_tensor *out = tms_target_add_out(t, name, TMS_U8, 2, packed);
    struct tms_route *route = out ? tms_target_add_route(t, index, TMS_ROUTE_BNB4, t->n_outs - 1) : NULL;
    if (!route) goto no_memory;
    size_t r = t->n_routes - 1;
    if (!add_part(p, name, ".absmax", nested ? TMS_U8 : TMS_F32, 1, &n_blocks, NULL)) goto no_memory;
    t->routes[r].absmax = t->n_outs - 1;
    if (!add_part(p, name, ".quant_map", TMS_F32, 1, &sixteen, tms_bnb_map(t->spec.kind))) goto no_memory;
    if (nested) {
        if (!add_part(p, name, ".nested_absmax", TMS_F32, 1, &n_nested, NULL)) goto no_memory;
        t->routes[r].nested_absmax = t->n_outs - 1;
        if (!add_part(p, name, ".nested_quant_map", TMS_F32, 1, &all, tms_bnb_dynamic_map)) goto no_memory;
    }
    /* With double quantization the JSON holds a number that is known at the end: plan for the longest. */
    const float probe = 0;
    tms_bnb_quant_state(&state, &t->spec, tensor, nested ? &probe : NULL);
    if (state.failed) goto no_memory;
    uint64_t length = state.n + (nested ? sizeof LONGEST_OFFSET - sizeof "0.0" : 0);
    char *text = nested ? NULL : tms_arena_strndup(&t->arena, (const char *)state.data, state.n);
    tms_buf_free(&state);
    if (!nested && !text) goto no_memory;
    out = add_part(p, name,
                   t->spec.kind == TMS_BNB_NF4 ? ".quant_state.bitsandbytes__nf4" : ".quant_state.bitsandbytes__fp4",
                   TMS_U8, 1, &length, text);
    if (!out) goto no_memory;
    out->late = nested;
    if (nested) t->routes[r].quant_state = t->n_outs - 1;
    t->n_quantized++;
    return TMS_OK;
no_memory:
    tms_buf_free(&state);
    return tms_fail_memory(p->err, sizeof *out);
}

static tms_status add_int8(struct plan *p, size_t index)
{
    static const uint8_t row_format = 0; /* weight_format "row" */
    struct tms_target *t = p->t;
    const struct tms_tensor *tensor = &t->source->tensors[index];
    char module[TMS_ST_MAX_NAME + 1];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(tensor->name) - strlen("weight")), tensor->name);
    if (!tms_target_add_out(t, tensor->name, TMS_I8, 2, tensor->shape)) return tms_fail_memory(p->err, 0);
    struct tms_route *route = tms_target_add_route(t, index, TMS_ROUTE_INT8, t->n_outs - 1);
    if (!route || !add_part(p, module, "SCB", TMS_F32, 1, &tensor->rows, NULL)) return tms_fail_memory(p->err, 0);
    route->absmax = t->n_outs - 1;
    if (!add_part(p, module, "weight_format", TMS_U8, 0, NULL, &row_format)) return tms_fail_memory(p->err, 0);
    t->n_quantized++;
    return TMS_OK;
}

static tms_status add_tensor(struct plan *p, size_t index)
{
    struct tms_target *t = p->t;
    const struct tms_source *s = t->source;
    const struct tms_tensor *tensor = &s->tensors[index];
    const char *file = s->n_files ? s->files[tensor->file]->path : s->path;
    if (tensor->is_scale || tms_arch_ignores(tensor->name)) return TMS_OK;
    if (s->config.tied && strcmp(tensor->name, "lm_head.weight") == 0) return TMS_OK; /* tied: stored once */
    if (is_linear(tensor->name, tensor->n_dims) && is_float(tensor->type))
        return t->spec.dialect == TMS_DIALECT_BNB8 ? add_int8(p, index) : add_bnb4(p, index);
    if (!tms_st_dtype_name(tensor->type))
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s': type %s cannot be stored in safetensors", file,
                        tensor->name, tms_codec(tensor->type)->name);
    if (tms_codec(tensor->type)->block_bytes == 0)
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot copy", file, tensor->name,
                        tms_codec(tensor->type)->name);
    if (t->spec.double_quant && tensor->type == TMS_BOOL)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: tensor '%s' of type bool cannot stand beside double quantization; "
                        "take the type without :dq",
                        file, tensor->name);
    /* FP8 that is no linear layer loses its scales: store the values. */
    bool widen = tensor->scale != TMS_NO_SCALE;
    enum tms_type type = widen ? TMS_BF16 : tensor->type;
    if (!tms_target_add_out(t, tensor->name, type, tensor->n_dims, tensor->shape)) return tms_fail_memory(p->err, 0);
    struct tms_route *route = tms_target_add_route(t, index, widen ? TMS_ROUTE_CODEC : TMS_ROUTE_COPY, t->n_outs - 1);
    if (!route) return tms_fail_memory(p->err, 0);
    route->codec = tms_codec(type);
    t->n_kept++;
    return TMS_OK;
}

/* ---- config.json ---- */

static json_t *quantization_config(const struct tms_target *t)
{
    const struct tms_source *s = t->source;
    bool four = t->spec.dialect == TMS_DIALECT_BNB4, nf4 = four && t->spec.kind == TMS_BNB_NF4;
    /* nf4 computes in the model's own type; fp4 and int8 keep the library's defaults. */
    const char *compute = "float32";
    if (nf4 && s->config.dtype != TMS_TYPE_NONE && tms_torch_dtype_name(s->config.dtype))
        compute = tms_torch_dtype_name(s->config.dtype);
    return json_pack("{s:b, s:b, s:s, s:s, s:s, s:b, s:b, s:b, s:n, s:f, s:b, s:b, s:s}", "_load_in_4bit", four,
                     "_load_in_8bit", !four, "bnb_4bit_compute_dtype", compute, "bnb_4bit_quant_storage", "uint8",
                     "bnb_4bit_quant_type", nf4 ? "nf4" : "fp4", "bnb_4bit_use_double_quant", t->spec.double_quant,
                     "llm_int8_enable_fp32_cpu_offload", 0, "llm_int8_has_fp16_weight", 0, "llm_int8_skip_modules",
                     "llm_int8_threshold", 6.0, "load_in_4bit", four, "load_in_8bit", !four, "quant_method",
                     "bitsandbytes");
}

static tms_status make_config(struct tms_target *t, struct tms_error *err)
{
    char *text = NULL;
    size_t n = 0;
    json_t *q = quantization_config(t);
    tms_status status = q ? tms_hf_out_source_config(t, &text, &n, err) : tms_fail_memory(err, 256);
    struct tms_buf *edited = tms_made_files_add(&t->side_files, "config.json");
    if (status == TMS_OK && !tms_json_set_member(edited, text, n, "quantization_config", q))
        status = tms_fail_memory(err, n);
    json_decref(q);
    free(text);
    return status;
}

tms_status tms_target_plan_bnb(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err)
{
    const struct tms_source *s = t->source;
    struct plan p = {.t = t, .err = err};
    tms_status status = TMS_OK;
    if (s->kind == TMS_SOURCE_GGUF)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s writes a Hugging Face folder, and from a GGUF file that is not supported yet; give the "
                        "Hugging Face folder, or make one (--to hf:bf16)",
                        s->path, t->spec.name);
    if (!s->has_config)
        return tms_fail(err, TMS_EINPUT, "%s: %s needs the whole folder (config.json), not one shard", s->path,
                        t->spec.name);
    if (s->config.quant_method[0] && strcmp(s->config.quant_method, "fp8") != 0)
        return tms_fail(err, TMS_EINPUT, "%s: its weights are quantized already (%s); give the original", s->path,
                        s->config.quant_method);
    if (strcmp(s->config.model_type, "gpt2") == 0)
        return tms_fail(err, TMS_EINPUT,
                        "%s: GPT-2 stores its layers transposed (Conv1D), which %s does not support here", s->path,
                        t->spec.name);
    for (size_t i = 0; i < s->n_tensors && status == TMS_OK; i++)
        status = add_tensor(&p, s->kind == TMS_SOURCE_CONFIG ? i : s->by_name[i]);
    if (status != TMS_OK) return status;
    if (t->n_quantized == 0)
        return tms_fail(err, TMS_EINPUT, "%s: has no linear layers that %s could quantize", s->path, t->spec.name);
    if (!options->preview) status = make_config(t, err);
    return status == TMS_OK ? tms_hf_out_lay_out(t, options->user->max_shard_bytes, err) : status;
}

/* Targets for bitsandbytes: a Hugging Face folder as save_pretrained of a 4-bit or 8-bit model writes it (notes of
 * the format: transformers' quantizers and bitsandbytes.functional.QuantState, versions 5 and 0.50).
 *
 * Every linear layer's matrix is replaced, by the name of its module, whatever the architecture:
 *   4 bit  P.weight U8 [n/2, 1], .absmax, .quant_map, .quant_state.bitsandbytes__nf4 (JSON), with double
 *          quantization also .nested_absmax and .nested_quant_map
 *   8 bit  P.weight I8 [out, in], P.SCB F32 [out], P.weight_format U8 [] = 0
 * Embeddings, the output layer, norms and biases stay as they are. From a GGUF file the result is that of the plain
 * folder which hf_target.c makes of it (bfloat16, or the float type that most of its weights have). */
#include "target/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/json_edit.h"
#include "base/text.h"
#include "model/restore.h"
#include "target/hf_folder_out.h"

#define LONGEST_OFFSET "-1.2345678901234567e-123" /* no f32's repr is longer */

/* transformers 5 keeps the experts of a mixture in one tensor, which bitsandbytes does not quantize, and cannot load
 * quantized ones. "shared_experts" are ordinary layers. */
#define EXPERTS ".experts."

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
        EXPERTS,
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
                         uint64_t n_parts, enum tms_type dtype, const float *offset)
{
    if (dtype == TMS_TYPE_NONE) dtype = tensor->type;
    tms_buf_printf(out, "{\"quant_type\": \"%s\", \"blocksize\": %u, \"dtype\": \"%s\", \"shape\": [%llu, %llu]",
                   spec->kind == TMS_BNB_NF4 ? "nf4" : "fp4", spec->block_size, original_dtype(dtype),
                   (unsigned long long)(tensor->rows / n_parts), (unsigned long long)tensor->cols);
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
    enum tms_type dtype; /* from GGUF: of the plain folder in between; TMS_TYPE_NONE: every tensor has its own */
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

static void set_way(const struct plan *p, struct tms_route *route, const struct tms_restored_tensor *from)
{
    route->through = p->dtype;
    route->part = from->part;
    route->n_parts = from->n_parts;
    route->turn = from->turn;
}

static tms_status add_bnb4(struct plan *p, const struct tms_restored_tensor *from)
{
    struct tms_target *t = p->t;
    const struct tms_tensor *tensor = &t->source->tensors[from->source];
    const char *name = from->name;
    bool nested = t->spec.double_quant;
    uint64_t n = tensor->n_elems / from->n_parts, n_blocks = (n + t->spec.block_size - 1) / t->spec.block_size;
    uint64_t packed[2] = {(n + 1) / 2, 1};
    uint64_t n_nested = (n_blocks + TMS_BNB_NESTED_BLOCK - 1) / TMS_BNB_NESTED_BLOCK;
    uint64_t sixteen = 16, all = 256;
    struct tms_buf state = {0};
    struct tms_out_tensor *out = tms_target_add_out(t, name, TMS_U8, 2, packed);
    struct tms_route *route = out ? tms_target_add_route(t, from->source, TMS_ROUTE_BNB4, t->n_outs - 1) : NULL;
    if (!route) goto no_memory;
    set_way(p, route, from);
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
    tms_bnb_quant_state(&state, &t->spec, tensor, from->n_parts, p->dtype, nested ? &probe : NULL);
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

static tms_status add_int8(struct plan *p, const struct tms_restored_tensor *from)
{
    static const uint8_t row_format = 0; /* weight_format "row" */
    struct tms_target *t = p->t;
    char module[TMS_ST_MAX_NAME + 1];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(from->name) - strlen("weight")), from->name);
    if (!tms_target_add_out(t, from->name, TMS_I8, 2, from->shape)) return tms_fail_memory(p->err, 0);
    struct tms_route *route = tms_target_add_route(t, from->source, TMS_ROUTE_INT8, t->n_outs - 1);
    if (!route || !add_part(p, module, "SCB", TMS_F32, 1, from->shape, NULL)) return tms_fail_memory(p->err, 0);
    set_way(p, route, from);
    route->absmax = t->n_outs - 1;
    if (!add_part(p, module, "weight_format", TMS_U8, 0, NULL, &row_format)) return tms_fail_memory(p->err, 0);
    t->n_quantized++;
    return TMS_OK;
}

static tms_status add_quantized(struct plan *p, const struct tms_restored_tensor *from)
{
    return p->t->spec.dialect == TMS_DIALECT_BNB8 ? add_int8(p, from) : add_bnb4(p, from);
}

static tms_status add_kept(struct plan *p, const struct tms_restored_tensor *from, enum tms_type type, bool same)
{
    struct tms_target *t = p->t;
    if (!tms_target_add_out(t, from->name, type, from->n_dims, from->shape)) return tms_fail_memory(p->err, 0);
    struct tms_route *route =
        tms_target_add_route(t, from->source, same ? TMS_ROUTE_COPY : TMS_ROUTE_CODEC, t->n_outs - 1);
    if (!route) return tms_fail_memory(p->err, 0);
    route->codec = tms_codec(type);
    route->part = from->part;
    route->n_parts = from->n_parts;
    route->turn = from->turn;
    t->n_kept++;
    return TMS_OK;
}

static tms_status add_tensor(struct plan *p, size_t index)
{
    struct tms_target *t = p->t;
    const struct tms_source *s = t->source;
    const struct tms_tensor *tensor = &s->tensors[index];
    struct tms_restored_tensor from = {.name = tensor->name, .source = index, .n_parts = 1, .turn = tms_turn_none(0)};
    const char *file = s->n_files ? s->files[tensor->file]->path : s->path;
    from.n_dims = tms_source_shape(tensor, from.shape);
    if (tensor->is_scale || tms_arch_ignores(tensor->name)) return TMS_OK;
    if (s->config.tied && strcmp(tensor->name, "lm_head.weight") == 0) return TMS_OK; /* tied: stored once */
    bool spare = s->arch && tms_arch_is_spare(s->arch, &s->config, tensor->name);     /* layers that are not loaded */
    if (!spare && is_linear(tensor->name, tensor->n_dims) && is_float(tensor->type)) return add_quantized(p, &from);
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
    return add_kept(p, &from, widen ? TMS_BF16 : tensor->type, !widen);
}

/* ---- from GGUF: the same as from the plain folder that --to hf:TYPE makes of it ---- */

/* The type of that folder: the one that most weights have, or bfloat16 if they are quantized. */
static enum tms_type plain_type(const struct tms_source *s)
{
    static const enum tms_type types[] = {TMS_F16, TMS_F32};
    uint64_t n_all = 0, n[2] = {0, 0};
    for (size_t i = 0; i < s->n_tensors; i++) {
        n_all += s->tensors[i].n_elems;
        for (size_t k = 0; k < 2; k++) n[k] += s->tensors[i].type == types[k] ? s->tensors[i].n_elems : 0;
    }
    for (size_t k = 0; k < 2; k++)
        if (n[k] > n_all / 2) return types[k];
    return TMS_BF16;
}

static tms_status add_gguf_tensors(struct plan *p, const struct tms_config *config,
                                   const struct tms_target_options *options)
{
    struct tms_target *t = p->t;
    struct tms_restored_tensor *tensors = NULL;
    size_t n = 0;
    tms_status status = tms_restore_tensors(&tensors, &n, t->source, config, &t->arena, p->err);
    for (size_t i = 0; i < n && status == TMS_OK; i++) {
        const struct tms_tensor *tensor = &t->source->tensors[tensors[i].source];
        bool linear = is_linear(tensors[i].name, tensors[i].n_dims);
        bool bias = tms_ends_with(tensors[i].name, ".e_score_correction_bias"); /* float32 in every folder */
        enum tms_type type = bias ? TMS_F32 : p->dtype;
        if (!tms_turn_is_dense(&tensors[i].turn))
            status = tms_fail(p->err, TMS_EINPUT,
                              "%s: tensor '%s' is half of '%s', which %s cannot write from GGUF; make a folder first "
                              "(--to hf:bf16) and quantize that",
                              t->source->path, tensor->name, tensors[i].name, t->spec.name);
        if (status != TMS_OK) break;
        if (linear && !tms_is_plain_float(tensor->type)) status = tms_target_quantize_again(t, tensor, options, p->err);
        if (status == TMS_OK && linear)
            status = add_quantized(p, &tensors[i]);
        else if (status == TMS_OK)
            status = add_kept(p, &tensors[i], type, tensor->type == type && tensors[i].turn.kind == TMS_TURN_NONE);
    }
    free(tensors);
    return status;
}

/* ---- config.json ---- */

static json_t *quantization_config(const struct tms_target *t, enum tms_type dtype)
{
    bool four = t->spec.dialect == TMS_DIALECT_BNB4, nf4 = four && t->spec.kind == TMS_BNB_NF4;
    /* nf4 computes in the model's own type; fp4 and int8 keep the library's defaults. */
    const char *compute = "float32";
    if (nf4 && dtype != TMS_TYPE_NONE && tms_torch_dtype_name(dtype)) compute = tms_torch_dtype_name(dtype);
    return json_pack("{s:b, s:b, s:s, s:s, s:s, s:b, s:b, s:b, s:n, s:f, s:b, s:b, s:s}", "_load_in_4bit", four,
                     "_load_in_8bit", !four, "bnb_4bit_compute_dtype", compute, "bnb_4bit_quant_storage", "uint8",
                     "bnb_4bit_quant_type", nf4 ? "nf4" : "fp4", "bnb_4bit_use_double_quant", t->spec.double_quant,
                     "llm_int8_enable_fp32_cpu_offload", 0, "llm_int8_has_fp16_weight", 0, "llm_int8_skip_modules",
                     "llm_int8_threshold", 6.0, "load_in_4bit", four, "load_in_8bit", !four, "quant_method",
                     "bitsandbytes");
}

/* `text` with the key quantization_config, into `out`. */
static tms_status put_config(const struct tms_target *t, struct tms_buf *out, enum tms_type dtype, const char *text,
                             size_t n, struct tms_error *err)
{
    json_t *q = quantization_config(t, dtype);
    bool ok = q && tms_json_set_member(out, text, n, "quantization_config", q);
    json_decref(q);
    return ok ? TMS_OK : tms_fail_memory(err, n);
}

static tms_status make_config(struct tms_target *t, struct tms_error *err)
{
    char *text = NULL;
    size_t n = 0;
    tms_status status = tms_hf_out_source_config(t, &text, &n, err);
    if (status == TMS_OK)
        status =
            put_config(t, tms_made_files_add(&t->side_files, "config.json"), t->source->config.dtype, text, n, err);
    free(text);
    return status;
}

/* The files of the plain folder; its config.json gets one key more. */
static tms_status restore_files(struct plan *p, const struct tms_config *config,
                                const struct tms_restore_options *options)
{
    struct tms_made_files *files = &p->t->side_files;
    tms_status status = tms_restore_config(files, p->t->source, config, options, p->err);
    for (size_t i = 0; i < files->n && status == TMS_OK; i++) {
        struct tms_buf plain = files->items[i].bytes;
        if (strcmp(files->items[i].name, "config.json") != 0) continue;
        files->items[i].bytes = (struct tms_buf){0};
        status = put_config(p->t, &files->items[i].bytes, p->dtype, (const char *)plain.data, plain.n, p->err);
        tms_buf_free(&plain);
    }
    return status == TMS_OK ? tms_restore_tokenizer(files, p->t->source, config, options, p->err) : status;
}

static tms_status plan_from_gguf(struct plan *p, const struct tms_target_options *options)
{
    const struct tms_source *s = p->t->source;
    struct tms_config config;
    p->dtype = plain_type(s);
    const struct tms_restore_options ro = {
        .dtype = p->dtype, .pre = options->user->pre, .warn = options->warn, .warn_ctx = options->warn_ctx};
    if (!s->arch)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: architecture '%s' cannot be written as a Hugging Face folder yet; known are %s", s->path,
                        tms_source_arch_name(s), tms_arch_known());
    tms_status status = tms_restore_numbers(&config, s, &ro, p->err);
    if (status == TMS_OK) status = add_gguf_tensors(p, &config, options);
    if (status == TMS_OK) tms_target_warn_of_again(p->t, options);
    return status == TMS_OK && !options->preview ? restore_files(p, &config, &ro) : status;
}

static tms_status plan_from_folder(struct plan *p, const struct tms_target_options *options)
{
    struct tms_target *t = p->t;
    const struct tms_source *s = t->source;
    tms_status status = TMS_OK;
    if (!s->has_config)
        return tms_fail(p->err, TMS_EINPUT, "%s: %s needs the whole folder (config.json), not one shard", s->path,
                        t->spec.name);
    if (s->config.quant_method[0] && strcmp(s->config.quant_method, "fp8") != 0)
        return tms_fail(p->err, TMS_EINPUT, "%s: its weights are quantized already (%s); give the original", s->path,
                        s->config.quant_method);
    if (strcmp(s->config.model_type, "gpt2") == 0)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: GPT-2 stores its layers transposed (Conv1D), which %s does not support here", s->path,
                        t->spec.name);
    for (size_t i = 0; i < s->n_tensors && status == TMS_OK; i++)
        status = add_tensor(p, s->kind == TMS_SOURCE_CONFIG ? i : s->by_name[i]);
    return status == TMS_OK && !options->preview ? make_config(t, p->err) : status;
}

static void warn_of_experts(const struct tms_target *t, const struct tms_target_options *options)
{
    bool any = false;
    char line[200];
    for (size_t i = 0; i < t->n_outs && !any; i++) any = strstr(t->outs[i].name, EXPERTS) != NULL;
    if (!any || !options->warn) return;
    snprintf(line, sizeof line,
             "%s: experts stay as they are: transformers keeps them in one tensor that bitsandbytes does not quantize",
             t->spec.name);
    options->warn(options->warn_ctx, line);
}

tms_status tms_target_plan_bnb(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err)
{
    struct plan p = {.t = t, .err = err, .dtype = TMS_TYPE_NONE};
    tms_status status =
        t->source->kind == TMS_SOURCE_GGUF ? plan_from_gguf(&p, options) : plan_from_folder(&p, options);
    if (status == TMS_OK && t->n_quantized == 0)
        status =
            tms_fail(err, TMS_EINPUT, "%s: has no linear layers that %s could quantize", t->source->path, t->spec.name);
    if (status == TMS_OK) warn_of_experts(t, options);
    return status == TMS_OK ? tms_hf_out_lay_out(t, options, err) : status;
}

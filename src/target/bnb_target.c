/* Folders for bitsandbytes, as save_pretrained of a 4-bit or 8-bit model writes them (notes of the format:
 * transformers' quantizers and bitsandbytes.functional.QuantState, versions 5 and 0.50).
 *
 *   4 bit  P.weight U8 [n/2, 1], .absmax, .quant_map, .quant_state.bitsandbytes__nf4 (JSON), with double quantization
 *          also .nested_absmax and .nested_quant_map
 *   8 bit  P.weight I8 [out, in], P.SCB F32 [out], P.weight_format U8 [] = 0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "target/linear_target.h"

#define LONGEST_OFFSET "-1.2345678901234567e-123" /* no f32's repr is longer */

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

static tms_status add_bnb4(struct tms_linear_plan *p, const struct tms_restored_tensor *from)
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
    tms_linear_set_way(p, route, from);
    size_t r = t->n_routes - 1;
    if (!tms_linear_add_part(p, name, ".absmax", nested ? TMS_U8 : TMS_F32, 1, &n_blocks, NULL)) goto no_memory;
    t->routes[r].absmax = t->n_outs - 1;
    if (!tms_linear_add_part(p, name, ".quant_map", TMS_F32, 1, &sixteen, tms_bnb_map(t->spec.kind))) goto no_memory;
    if (nested) {
        if (!tms_linear_add_part(p, name, ".nested_absmax", TMS_F32, 1, &n_nested, NULL)) goto no_memory;
        t->routes[r].nested_absmax = t->n_outs - 1;
        if (!tms_linear_add_part(p, name, ".nested_quant_map", TMS_F32, 1, &all, tms_bnb_dynamic_map)) goto no_memory;
    }
    /* With double quantization the JSON holds a number that is known at the end: plan for the longest. */
    const float probe = 0;
    tms_bnb_quant_state(&state, &t->spec, tensor, from->n_parts,
                        tensor->packed ? tms_linear_dtype(p, tensor) : p->dtype, nested ? &probe : NULL);
    if (state.failed) goto no_memory;
    uint64_t length = state.n + (nested ? sizeof LONGEST_OFFSET - sizeof "0.0" : 0);
    char *text = nested ? NULL : tms_arena_strndup(&t->arena, (const char *)state.data, state.n);
    tms_buf_free(&state);
    if (!nested && !text) goto no_memory;
    out = tms_linear_add_part(
        p, name, t->spec.kind == TMS_BNB_NF4 ? ".quant_state.bitsandbytes__nf4" : ".quant_state.bitsandbytes__fp4",
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

static tms_status add_int8(struct tms_linear_plan *p, const struct tms_restored_tensor *from)
{
    static const uint8_t row_format = 0; /* weight_format "row" */
    struct tms_target *t = p->t;
    char module[TMS_ST_MAX_NAME + 1];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(from->name) - strlen("weight")), from->name);
    if (!tms_target_add_out(t, from->name, TMS_I8, 2, from->shape)) return tms_fail_memory(p->err, 0);
    struct tms_route *route = tms_target_add_route(t, from->source, TMS_ROUTE_INT8, t->n_outs - 1);
    if (!route || !tms_linear_add_part(p, module, "SCB", TMS_F32, 1, from->shape, NULL))
        return tms_fail_memory(p->err, 0);
    tms_linear_set_way(p, route, from);
    route->absmax = t->n_outs - 1;
    if (!tms_linear_add_part(p, module, "weight_format", TMS_U8, 0, NULL, &row_format))
        return tms_fail_memory(p->err, 0);
    t->n_quantized++;
    return TMS_OK;
}

static tms_status add(struct tms_linear_plan *p, const struct tms_restored_tensor *from, bool *fits)
{
    *fits = true;
    return p->t->spec.dialect == TMS_DIALECT_BNB8 ? add_int8(p, from) : add_bnb4(p, from);
}

/* ---- config.json ---- */

static json_t *quantization_config(struct tms_linear_plan *p, enum tms_type dtype)
{
    const struct tms_target *t = p->t;
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

/* transformers 5 keeps the experts of a mixture in one tensor, which bitsandbytes does not quantize, and cannot load
 * quantized ones. */
static void warn_of_experts(const struct tms_target *t, const struct tms_target_options *options)
{
    bool any = false;
    char line[200];
    for (size_t i = 0; i < t->n_outs && !any; i++) any = tms_linear_is_expert(t->outs[i].name);
    if (!any || !options->warn) return;
    snprintf(line, sizeof line,
             "%s: experts stay as they are: transformers keeps them in one tensor that bitsandbytes does not quantize",
             t->spec.name);
    options->warn(options->warn_ctx, line);
}

tms_status tms_target_plan_bnb(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err)
{
    static const struct tms_linear_dialect dialect = {
        .add = add, .config = quantization_config, .config_dtype = TMS_TYPE_NONE, .leaves = tms_linear_is_expert};
    struct tms_linear_plan p = {.t = t, .options = options, .err = err, .dtype = TMS_TYPE_NONE};
    tms_status status = tms_linear_plan(&p, &dialect);
    if (status == TMS_OK) warn_of_experts(t, options);
    return status;
}

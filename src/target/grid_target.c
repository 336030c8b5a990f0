/* Folders for GPTQ, AWQ and compressed-tensors, as GPTQModel 7.7, AutoAWQ 0.2.9 and llm-compressor 0.14 (with
 * compressed-tensors 0.20) write them. With P the module of a linear layer of [out, in], b bits, G groups:
 *
 *   GPTQ   P.qweight I32 [in * b / 32, out], P.qzeros I32 [G, out * b / 32], P.scales F16 [G, out], P.g_idx I32 [in];
 *          its bias becomes F16; quantize_config.json says the same as config.json
 *   AWQ    P.qweight I32 [in, out / 8], P.qzeros I32 [G, out / 8], P.scales F16 [G, out]; the whole model becomes F16
 *   wNa16  P.weight_packed I32 [out, ceil(in * b / 32)], P.weight_scale [out, G], P.weight_shape I64 [2],
 *          asymmetric also P.weight_zero_point I32 [ceil(out * b / 32), G]
 *   w8a8   P.weight I8 [out, in], P.weight_scale [out, 1]
 *   fp8    P.weight F8_E4M3 [out, in], P.weight_scale: [out, 1], [1], or of blocks of 128 x 128
 *   nvfp4a16, mxfp4a16  P.weight_packed U8 [out, in / 2], P.weight_scale F8_E4M3 or U8 [out, G], the former also
 *          P.weight_global_scale F32 [1], which q, k, v (and gate, up) share
 * Scales of compressed-tensors have the model's type. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/numbers.h"
#include "base/text.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/grid_route.h"
#include "target/linear_target.h"

struct own {
    bool any_order;       /* a layer has its groups in an order of its own */
    uint32_t *groups;     /* the last g_idx that was made */
    uint64_t cols, group; /* for which */
};

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* ---- does it fit, does it move ---- */

static bool fits(const struct tms_grid_spec *s, uint64_t rows, uint64_t cols)
{
    uint64_t group = s->group ? s->group : cols;
    if (rows == 0 || cols == 0) return false;
    switch (s->scheme) {
    case TMS_SCHEME_GPTQ: return rows % 32 == 0 && cols % 32 == 0; /* the last group may be shorter */
    case TMS_SCHEME_AWQ: return rows % 32 == 0 && cols % 32 == 0 && cols % group == 0;
    case TMS_SCHEME_WORDS:
    case TMS_SCHEME_NVFP4:
    case TMS_SCHEME_MXFP4: return cols % group == 0;
    case TMS_SCHEME_INT8:
    case TMS_SCHEME_FP8: return true;
    }
    return false;
}

/* Every zero point in the middle if the target stores none, every scale an f16 if it stores those. */
static tms_status same_points(struct tms_linear_plan *p, const struct tms_packed_grid *from, bool *same)
{
    const struct tms_source *s = p->t->source;
    const struct tms_grid_spec *to = &p->t->spec.grid;
    const bool middle = !to->asymmetric && from->grid.has_zeros, f16 = to->scheme <= TMS_SCHEME_AWQ;
    const uint64_t groups = tms_grid_groups(&from->grid), step = tms_packed_grid_unit_rows(from);
    float *scales = tms_calloc(step * groups, sizeof *scales);
    uint8_t *zeros = tms_calloc(step * groups, 1);
    tms_status status = scales && zeros ? TMS_OK : tms_fail_memory(p->err, step * groups * 5);
    *same = true;
    for (uint64_t row = 0; row < from->grid.rows && status == TMS_OK && *same && (middle || f16); row += step) {
        uint64_t n = from->grid.rows - row < step ? from->grid.rows - row : step;
        status = tms_packed_grid_scales(s, from, row, n, scales, from->grid.has_zeros ? zeros : NULL, p->err);
        for (uint64_t i = 0; i < n * groups && status == TMS_OK; i++) {
            if (middle && zeros[i] != tms_grid_middle(&from->grid)) *same = false;
            if (f16 && !(tms_f16_to_f32(tms_f32_to_f16(scales[i])) == scales[i])) *same = false;
        }
    }
    free(scales);
    free(zeros);
    return status;
}

/* The integers of one format are those of another: GPTQ, AWQ and compressed-tensors of the same width and groups. */
static tms_status moves(struct tms_linear_plan *p, const struct tms_restored_tensor *from, bool *yes)
{
    const struct tms_grid_spec *to = &p->t->spec.grid;
    const struct tms_tensor *tensor = &p->t->source->tensors[from->source];
    const struct tms_packed_grid *g = tensor->packed ? tensor->packed->grid : NULL;
    *yes = !fits(to, from->shape[0], from->shape[1]); /* it will stay: decoding loses nothing */
    if (*yes) return TMS_OK;
    if (!g || to->scheme > TMS_SCHEME_INT8 || g->grid.values != TMS_GRID_INT || g->grid.scale_rows != 1) return TMS_OK;
    uint64_t group = to->group && to->group < g->grid.cols ? to->group : g->grid.cols;
    if (g->grid.bits != to->bits || g->grid.group != group) return TMS_OK;
    if (g->grid.layout == TMS_GRID_BYTES && g->grid.bits != 8) return TMS_OK;
    if (g->grid.group_of && to->scheme != TMS_SCHEME_GPTQ) return TMS_OK;
    return same_points(p, g, yes);
}

/* ---- tensors ---- */

/* q, k, v and gate, up are one matrix to vLLM: their NVFP4 scale is one. The layers that share lie close together. */
static float *shared_amax(struct tms_linear_plan *p, const char *name)
{
    static const char *const sets[][3] = {
        {".q_proj.", ".k_proj.", ".v_proj."}, {".gate_proj.", ".up_proj.", NULL}, {".w1.", ".w3.", NULL}};
    struct tms_target *t = p->t;
    for (size_t set = 0; set < 3; set++)
        for (size_t i = 0; i < 3 && sets[set][i]; i++) {
            const char *at = strstr(name, sets[set][i]);
            if (!at) continue;
            for (size_t r = t->n_routes, near = 0; r > 0 && near < 48; r--, near++) {
                const struct tms_route *other = &t->routes[r - 1];
                const char *other_name = t->outs[other->out].name;
                if (!other->grid || strncmp(other_name, name, (size_t)(at - name)) != 0) continue;
                for (size_t k = 0; k < 3 && sets[set][k]; k++)
                    if (strncmp(other_name + (at - name), sets[set][k], strlen(sets[set][k])) == 0)
                        return other->grid->amax;
            }
        }
    return tms_arena_alloc(&t->arena, sizeof(float));
}

/* column / group, or the source's own order. */
static const uint32_t *group_numbers(struct tms_linear_plan *p, const struct tms_grid *grid)
{
    struct own *own = p->own;
    if (grid->group_of) {
        own->any_order = true;
        return grid->group_of;
    }
    if (own->groups && own->cols == grid->cols && own->group == grid->group) return own->groups;
    own->groups = tms_arena_alloc(&p->t->arena, (size_t)grid->cols * sizeof *own->groups);
    own->cols = grid->cols;
    own->group = grid->group;
    for (uint64_t i = 0; i < grid->cols && own->groups; i++) own->groups[i] = (uint32_t)(i / grid->group);
    return own->groups;
}

static void set_grid(struct tms_grid_route *route, const struct tms_grid_spec *s,
                     const struct tms_restored_tensor *from, enum tms_type dtype)
{
    struct tms_grid *g = &route->grid;
    *route = (struct tms_grid_route){.scales = TMS_NO_OUT, .zeros = TMS_NO_OUT, .global = TMS_NO_OUT};
    *g = (struct tms_grid){.layout = TMS_GRID_STREAM,
                           .bits = s->bits,
                           .rows = from->shape[0],
                           .cols = from->shape[1],
                           .group = s->group && s->group < from->shape[1] ? s->group : from->shape[1],
                           .scale_rows = 1};
    route->rounding = (struct tms_rounding){.rule = TMS_RULE_CT, .dtype = dtype, .symmetric = !s->asymmetric};
    route->scale_type = dtype;
    route->v1 = s->v1;
    switch (s->scheme) {
    case TMS_SCHEME_GPTQ:
        g->layout = TMS_GRID_GPTQ;
        g->has_zeros = true;
        route->rounding.rule = TMS_RULE_GPTQ;
        route->scale_type = TMS_F16;
        break;
    case TMS_SCHEME_AWQ:
        g->layout = TMS_GRID_AWQ;
        g->has_zeros = true;
        route->rounding.rule = TMS_RULE_AWQ;
        route->scale_type = TMS_F16;
        break;
    case TMS_SCHEME_WORDS: g->has_zeros = s->asymmetric; break;
    case TMS_SCHEME_INT8: g->layout = TMS_GRID_BYTES; break;
    case TMS_SCHEME_FP8:
        g->layout = TMS_GRID_BYTES;
        g->values = TMS_GRID_E4M3;
        if (s->fp8 == TMS_FP8_TENSOR) g->scale_rows = g->rows;
        if (s->fp8 == TMS_FP8_BLOCK) g->scale_rows = 128;
        if (s->fp8 == TMS_FP8_BLOCK && g->cols > 128) g->group = 128;
        break;
    case TMS_SCHEME_NVFP4:
        g->values = TMS_GRID_E2M1;
        route->rounding.scales = TMS_SCALES_NVFP4;
        route->scale_type = TMS_F8_E4M3;
        break;
    case TMS_SCHEME_MXFP4:
        g->values = TMS_GRID_E2M1;
        route->rounding.scales = TMS_SCALES_MX;
        route->scale_type = TMS_F8_E8M0;
        break;
    }
    g->row_bytes = g->layout == TMS_GRID_BYTES  ? g->cols
                   : g->values == TMS_GRID_E2M1 ? g->cols / 2
                                                : tms_grid_stream_bytes(g->cols, g->bits);
}

/* Adds a part, and notes its index. */
static bool part(struct tms_linear_plan *p, const char *module, const char *name, enum tms_type type, uint32_t n_dims,
                 uint64_t d0, uint64_t d1, const void *contents, size_t *index)
{
    const uint64_t shape[2] = {d0, d1};
    if (!tms_linear_add_part(p, module, name, type, n_dims, shape, contents)) return false;
    if (index) *index = p->t->n_outs - 1;
    return true;
}

/* The tensor of codes comes first; what belongs to it goes into the same shard. */
static bool add_codes(struct tms_linear_plan *p, const char *module, const struct tms_grid *g)
{
    const enum tms_scheme scheme = p->t->spec.grid.scheme;
    const char *name = "weight_packed";
    enum tms_type type = TMS_I32;
    uint64_t shape[2] = {g->rows, g->row_bytes / 4};
    char full[TMS_ST_MAX_NAME + 64];
    if (scheme == TMS_SCHEME_GPTQ || scheme == TMS_SCHEME_AWQ) {
        name = "qweight";
        shape[0] = scheme == TMS_SCHEME_GPTQ ? g->cols * g->bits / 32 : g->cols;
        shape[1] = scheme == TMS_SCHEME_GPTQ ? g->rows : g->rows / 8;
    } else if (g->layout == TMS_GRID_BYTES) {
        name = "weight";
        type = g->values == TMS_GRID_INT ? TMS_I8 : TMS_F8_E4M3;
        shape[1] = g->cols;
    } else if (g->values == TMS_GRID_E2M1) {
        type = TMS_U8;
        shape[1] = g->cols / 2;
    }
    snprintf(full, sizeof full, "%s%s", module, name);
    return tms_target_add_out(p->t, full, type, 2, shape) != NULL;
}

static bool add_parts(struct tms_linear_plan *p, const char *module, struct tms_grid_route *route)
{
    const struct tms_grid *g = &route->grid;
    const uint64_t groups = tms_grid_groups(g);
    const enum tms_scheme scheme = p->t->spec.grid.scheme;
    if (!tms_grid_row_major(g)) {
        const uint32_t *order = scheme == TMS_SCHEME_GPTQ ? group_numbers(p, g) : NULL;
        if (scheme == TMS_SCHEME_GPTQ && (!order || !part(p, module, "g_idx", TMS_I32, 1, g->cols, 0, order, NULL)))
            return false;
        return part(p, module, "qzeros", TMS_I32, 2, groups, g->rows * g->bits / 32, NULL, &route->zeros) &&
               part(p, module, "scales", TMS_F16, 2, groups, g->rows, NULL, &route->scales);
    }
    enum tms_type type = route->scale_type == TMS_F8_E8M0 ? TMS_U8 : route->scale_type;
    bool one = scheme == TMS_SCHEME_FP8 && p->t->spec.grid.fp8 == TMS_FP8_TENSOR;
    if (!part(p, module, "weight_scale", type, one ? 1 : 2, one ? 1 : tms_grid_scale_rows(g), groups, NULL,
              &route->scales))
        return false;
    if (route->rounding.scales == TMS_SCALES_NVFP4 &&
        !part(p, module, "weight_global_scale", TMS_F32, 1, 1, 0, NULL, &route->global))
        return false;
    if (g->has_zeros && !part(p, module, "weight_zero_point", TMS_I32, 2, divide_up(g->rows * g->bits, 32), groups,
                              NULL, &route->zeros))
        return false;
    if (scheme != TMS_SCHEME_WORDS) return true;
    int64_t *shape = tms_arena_alloc(&p->t->arena, 2 * sizeof *shape);
    if (!shape) return false;
    shape[0] = (int64_t)g->rows;
    shape[1] = (int64_t)g->cols;
    return part(p, module, "weight_shape", TMS_I64, 1, 2, 0, shape, NULL);
}

static tms_status add(struct tms_linear_plan *p, const struct tms_restored_tensor *from, bool *fit)
{
    struct tms_target *t = p->t;
    const struct tms_tensor *tensor = &t->source->tensors[from->source];
    const struct tms_grid_spec *spec = &t->spec.grid;
    char module[TMS_ST_MAX_NAME + 1];
    bool move = false;
    *fit = fits(spec, from->shape[0], from->shape[1]);
    if (!*fit) return TMS_OK;
    tms_status status = tensor->packed ? moves(p, from, &move) : TMS_OK;
    if (status != TMS_OK) return status;
    enum tms_type dtype = tms_linear_dtype(p, tensor);
    if (dtype == TMS_F64) dtype = TMS_F32;
    snprintf(module, sizeof module, "%.*s", (int)(strlen(from->name) - strlen("weight")), from->name);
    struct tms_grid_route *grid = tms_arena_alloc(&t->arena, sizeof *grid);
    if (!grid) return tms_fail_memory(p->err, sizeof *grid);
    set_grid(grid, spec, from, dtype);
    if (move) {
        const struct tms_packed_grid *source = tensor->packed->grid;
        enum tms_type stored = t->source->tensors[source->scales].type;
        grid->moves = true;
        grid->grid.group_of = source->grid.group_of;
        if (tms_grid_row_major(&grid->grid)) grid->scale_type = stored;
    }
    if (spec->act_order && !move) {
        grid->order = tms_arena_alloc(&t->arena, (size_t)grid->grid.cols * sizeof *grid->order);
        if (!grid->order) return tms_fail_memory(p->err, grid->grid.cols * sizeof *grid->order);
        for (uint64_t i = 0; i < grid->grid.cols; i++) grid->order[i] = (uint32_t)(i / grid->grid.group);
        grid->grid.group_of = grid->order;
    }
    if (grid->rounding.scales == TMS_SCALES_NVFP4) {
        grid->amax = shared_amax(p, from->name);
        if (!grid->amax) return tms_fail_memory(p->err, sizeof(float));
    } else if (spec->scheme == TMS_SCHEME_FP8 && spec->fp8 == TMS_FP8_TENSOR) {
        grid->amax = tms_arena_alloc(&t->arena, sizeof(float));
        if (!grid->amax) return tms_fail_memory(p->err, sizeof(float));
    }
    if (!add_codes(p, module, &grid->grid)) return tms_fail_memory(p->err, sizeof *grid);
    struct tms_route *route = tms_target_add_route(t, from->source, TMS_ROUTE_GRID, t->n_outs - 1);
    if (!route) return tms_fail_memory(p->err, sizeof *route);
    route->grid = grid;
    tms_linear_set_way(p, route, from);
    if (tensor->type == TMS_F8_E4M3 && !tensor->packed) route->through = TMS_BF16;
    if (move) route->through = TMS_TYPE_NONE;
    if (!add_parts(p, module, grid)) return tms_fail_memory(p->err, sizeof *grid);
    t->n_quantized++;
    return TMS_OK;
}

static enum tms_type kept_type(struct tms_linear_plan *p, const char *name, enum tms_type type)
{
    const enum tms_scheme scheme = p->t->spec.grid.scheme;
    if (scheme == TMS_SCHEME_AWQ) return TMS_F16;
    if (scheme != TMS_SCHEME_GPTQ || !tms_ends_with(name, ".bias")) return type;
    char weight[TMS_ST_MAX_NAME + 16];
    snprintf(weight, sizeof weight, "%.*s.weight", (int)(strlen(name) - strlen(".bias")), name);
    return tms_linear_is(weight) ? TMS_F16 : type;
}

/* ---- config.json ---- */

static json_t *group_size(const struct tms_grid_spec *s)
{
    return json_integer(s->group ? (json_int_t)s->group : -1);
}

/* "-:^model\.layers\.0\.mlp\.gate$": patterns of GPTQModel's for layers that are not quantized; json_null if there are
 * none, NULL if memory is short. */
static json_t *left_out(const struct tms_linear_plan *p)
{
    json_t *dynamic = json_object();
    bool ok = dynamic != NULL;
    for (size_t i = 0; i < p->n_kept && ok; i++) {
        struct tms_buf key = {0};
        if (strcmp(p->kept[i], "lm_head") == 0) continue;
        tms_buf_text(&key, "-:^");
        for (const char *c = p->kept[i]; *c; c++) tms_buf_printf(&key, *c == '.' ? "\\." : "%c", *c);
        tms_buf_put(&key, "$", 2);
        ok = !key.failed && json_object_set_new(dynamic, (const char *)key.data, json_object()) == 0;
        tms_buf_free(&key);
    }
    if (ok && json_object_size(dynamic)) return dynamic;
    json_decref(dynamic);
    return ok ? json_null() : NULL;
}

/* The keys in the order of GPTQModel's quantize_config.json. */
static json_t *gptq_config(const struct tms_linear_plan *p)
{
    const struct tms_grid_spec *s = &p->t->spec.grid;
    const struct own *own = p->own;
    const char *format = s->v1 ? "gptq" : "gptq_v2";
    json_t *dynamic = left_out(p);
    if (!dynamic) return NULL;
    if (json_is_null(dynamic)) dynamic = NULL; /* then the key is left out */
    return json_pack("{s:i, s:o, s:b, s:b, s:s, s:s, s:s, s:s, s:s, s:o*, s:{s:[s]}, s:b}", "bits", (int)s->bits,
                     "group_size", group_size(s), "desc_act", own->any_order, "lm_head", 0, "method", "gptq",
                     "quant_method", "gptq", "format", format, "checkpoint_format", format, "pack_dtype", "int32",
                     "dynamic", dynamic, "meta", "quantizer", "tamis:" TAMIS_VERSION, "sym", !s->asymmetric);
}

static json_t *awq_config(const struct tms_linear_plan *p)
{
    const struct tms_grid_spec *s = &p->t->spec.grid;
    json_t *kept = json_array();
    for (size_t i = 0; i < p->n_kept; i++)
        if (strcmp(p->kept[i], "lm_head") != 0) json_array_append_new(kept, json_string(p->kept[i]));
    if (json_array_size(kept) == 0) {
        json_decref(kept);
        kept = json_null();
    }
    return json_pack("{s:i, s:o, s:o, s:s, s:s, s:b}", "bits", 4, "group_size", group_size(s), "modules_to_not_convert",
                     kept, "quant_method", "awq", "version", "gemm", "zero_point", 1);
}

/* 8-bit activations, found as the model runs: for each token, or for groups of 128. */
static json_t *ct_activations(const struct tms_grid_spec *s)
{
    if (s->scheme != TMS_SCHEME_INT8 && s->scheme != TMS_SCHEME_FP8) return json_null();
    bool block = s->scheme == TMS_SCHEME_FP8 && s->fp8 == TMS_FP8_BLOCK;
    return json_pack("{s:b, s:o, s:i, s:s, s:b, s:s}", "dynamic", 1, "group_size",
                     block ? json_integer(128) : json_null(), "num_bits", 8, "strategy", block ? "group" : "token",
                     "symmetric", 1, "type", s->scheme == TMS_SCHEME_INT8 ? "int" : "float");
}

static json_t *ct_weights(const struct tms_grid_spec *s)
{
    const bool small = s->scheme == TMS_SCHEME_NVFP4 || s->scheme == TMS_SCHEME_MXFP4;
    const bool fp8 = s->scheme == TMS_SCHEME_FP8;
    static const char *const of_fp8[] = {"channel", "tensor", "block"};
    const char *strategy = s->scheme == TMS_SCHEME_NVFP4 ? "tensor_group"
                           : fp8                         ? of_fp8[s->fp8]
                           : s->group                    ? "group"
                                                         : "channel";
    const char *scale = s->scheme == TMS_SCHEME_NVFP4   ? "torch.float8_e4m3fn"
                        : s->scheme == TMS_SCHEME_MXFP4 ? "torch.uint8"
                                                        : NULL;
    json_t *block = fp8 && s->fp8 == TMS_FP8_BLOCK ? json_pack("[i, i]", 128, 128) : NULL;
    return json_pack("{s:o*, s:b, s:o, s:i, s:s, s:s*, s:s, s:b, s:s}", "block_structure", block, "dynamic", 0,
                     "group_size", s->group ? json_integer((json_int_t)s->group) : json_null(), "num_bits",
                     (int)s->bits, "observer", "memoryless_minmax", "scale_dtype", scale, "strategy", strategy,
                     "symmetric", !s->asymmetric, "type", small || fp8 ? "float" : "int");
}

static json_t *ct_config(const struct tms_linear_plan *p)
{
    static const char *const formats[] = {
        [TMS_SCHEME_WORDS] = "pack-quantized",       [TMS_SCHEME_INT8] = "int-quantized",
        [TMS_SCHEME_FP8] = "float-quantized",        [TMS_SCHEME_NVFP4] = "nvfp4-pack-quantized",
        [TMS_SCHEME_MXFP4] = "mxfp4-pack-quantized",
    };
    const struct tms_grid_spec *s = &p->t->spec.grid;
    const char *format = formats[s->scheme];
    json_t *ignore = json_pack("[s]", "lm_head");
    for (size_t i = 0; i < p->n_kept; i++)
        if (strcmp(p->kept[i], "lm_head") != 0) json_array_append_new(ignore, json_string(p->kept[i]));
    return json_pack("{s:{s:{s:s, s:o, s:n, s:[s], s:o}}, s:s, s:n, s:o, s:n, s:n, s:s, s:s, s:{}, s:{}, s:s}",
                     "config_groups", "group_0", "format", format, "input_activations", ct_activations(s),
                     "output_activations", "targets", "Linear", "weights", ct_weights(s), "format", format,
                     "global_compression_ratio", "ignore", ignore, "kv_cache_scheme", "moe_sparsity_config",
                     "quant_method", "compressed-tensors", "quantization_status", "compressed", "sparsity_config",
                     "transform_config", "version", "0.20.0");
}

static json_t *config(struct tms_linear_plan *p, enum tms_type dtype)
{
    (void)dtype;
    if (p->t->spec.grid.scheme == TMS_SCHEME_AWQ) return awq_config(p);
    if (p->t->spec.grid.scheme != TMS_SCHEME_GPTQ) return ct_config(p);
    json_t *q = gptq_config(p);
    char *text = q ? json_dumps(q, JSON_INDENT(2)) : NULL;
    struct tms_buf *file = text ? tms_made_files_add(&p->t->side_files, "quantize_config.json") : NULL;
    if (file) tms_buf_text(file, text);
    free(text);
    if (file && !file->failed) return q;
    json_decref(q);
    return NULL;
}

/* One number for each token: no reader has it quantized. */
static bool leaves(const char *name)
{
    return strstr(name, ".shared_expert_gate.") != NULL;
}

tms_status tms_target_plan_grid(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err)
{
    const bool awq = t->spec.grid.scheme == TMS_SCHEME_AWQ;
    const struct tms_linear_dialect dialect = {.add = add,
                                               .moves = moves,
                                               .leaves = leaves,
                                               .kept_type = kept_type,
                                               .config = config,
                                               .config_dtype = awq ? TMS_F16 : TMS_TYPE_NONE};
    struct own own = {0};
    struct tms_linear_plan p = {.t = t, .options = options, .err = err, .dtype = TMS_TYPE_NONE, .own = &own};
    return tms_linear_plan(&p, &dialect);
}

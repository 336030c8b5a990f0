/* See packed.h. */
#include "model/packed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "model/packed_grid.h"

static const char *file_of(const struct tms_source *s, const struct tms_tensor *t)
{
    return s->files[t->file]->path;
}

/* The tensor "NAME SUFFIX"; NULL if there is none. */
static const struct tms_tensor *part_of(const struct tms_source *s, const char *name, const char *suffix)
{
    char text[TMS_ST_MAX_NAME + 64];
    snprintf(text, sizeof text, "%s%s", name, suffix);
    return tms_source_find(s, text);
}

/* A part must have the type and the number of elements that the others ask for. */
static tms_status expect_part(const struct tms_source *s, const struct tms_tensor *part, enum tms_type type, uint64_t n,
                              struct tms_error *err)
{
    if (part->type == type && part->n_elems == n) return TMS_OK;
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': expected %s [%llu], as its weight's quant_state says",
                    file_of(s, part), part->name, tms_codec(type)->name, (unsigned long long)n);
}

static tms_status read_part(const struct tms_source *s, const struct tms_tensor *part, void *to, struct tms_error *err)
{
    return tms_file_read(s->files[part->file], to, part->bytes, part->offset, err);
}

/* ---- four bits ---- */

static tms_status bad_state(const struct tms_source *s, const struct tms_tensor *state, const char *problem,
                            struct tms_error *err)
{
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': %s", file_of(s, state), state->name, problem);
}

/* The parts of double quantization. */
static tms_status find_nested(const struct tms_source *s, const struct tms_tensor *state, const json_t *json,
                              const char *name, uint64_t n_blocks, struct tms_packed *packed, struct tms_error *err)
{
    const struct tms_tensor *absmax = part_of(s, name, ".nested_absmax"), *map = part_of(s, name, ".nested_quant_map");
    json_int_t block = json_integer_value(json_object_get(json, "nested_blocksize"));
    const json_t *offset = json_object_get(json, "nested_offset");
    if (!absmax || !map) return bad_state(s, state, "nested_absmax or nested_quant_map of its weight is missing", err);
    if (block < 1 || block > 1 << 20 || !json_is_number(offset))
        return bad_state(s, state, "nested_blocksize or nested_offset is missing or no number that makes sense", err);
    packed->nested = true;
    packed->nested_block = (uint32_t)block;
    packed->nested_offset = (float)json_number_value(offset);
    packed->nested_absmax = (size_t)(absmax - s->tensors);
    uint64_t n_nested = (n_blocks + (uint64_t)block - 1) / (uint64_t)block;
    tms_status status = expect_part(s, absmax, TMS_F32, n_nested, err);
    if (status == TMS_OK) status = expect_part(s, map, TMS_F32, 256, err);
    if (status == TMS_OK) status = read_part(s, map, packed->nested_map, err);
    return status;
}

static tms_status take_state(struct tms_source *s, const struct tms_tensor *state, const json_t *json, const char *name,
                             struct tms_tensor *weight, struct tms_error *err)
{
    json_int_t rows = 0, cols = 0, block = json_integer_value(json_object_get(json, "blocksize"));
    uint64_t n = 0;
    json_error_t problem;
    json_t *shape = json_object_get(json, "shape");
    bool ok = shape && json_unpack_ex(shape, &problem, 0, "[I,I]", &rows, &cols) == 0 && rows > 0 && cols > 0 &&
              tms_mul_u64((uint64_t)rows, (uint64_t)cols, &n) && n / 2 + n % 2 == weight->bytes;
    if (!ok)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': its shape does not fit the %llu bytes of '%s'",
                        file_of(s, state), state->name, (unsigned long long)weight->bytes, name);
    weight->n_weights = n;
    const struct tms_tensor *absmax = part_of(s, name, ".absmax"), *map = part_of(s, name, ".quant_map");
    if (!absmax || !map) return TMS_OK; /* cannot be decoded; a shard may be missing */
    if (block < 1 || !tms_bnb_block_size_ok((uint64_t)block))
        return bad_state(s, state, "its blocksize is none of 32, 64, … 4096", err);
    struct tms_packed *packed = tms_arena_alloc(&s->arena, sizeof *packed);
    if (!packed) return tms_fail_memory(err, sizeof *packed);
    *packed = (struct tms_packed){.shape = {(uint64_t)rows, (uint64_t)cols},
                                  .kind = tms_ends_with(state->name, "__fp4") ? TMS_BNB_FP4 : TMS_BNB_NF4,
                                  .block_size = (uint32_t)block,
                                  .absmax = (size_t)(absmax - s->tensors)};
    uint64_t n_blocks = (n + (uint64_t)block - 1) / (uint64_t)block;
    bool nested = absmax->type == TMS_U8;
    tms_status status = expect_part(s, absmax, nested ? TMS_U8 : TMS_F32, n_blocks, err);
    if (status == TMS_OK) status = expect_part(s, map, TMS_F32, 16, err);
    if (status == TMS_OK) status = read_part(s, map, packed->map, err);
    if (status == TMS_OK && nested) status = find_nested(s, state, json, name, n_blocks, packed, err);
    if (status == TMS_OK) weight->packed = packed;
    return status;
}

static tms_status find_four_bits(struct tms_source *s, struct tms_tensor *state, const char *marker,
                                 struct tms_error *err)
{
    char text[1024], name[TMS_ST_MAX_NAME + 1];
    json_t *json = NULL;
    snprintf(name, sizeof name, "%.*s", (int)(marker - state->name), state->name);
    const struct tms_tensor *weight = tms_source_find(s, name);
    state->is_scale = true;
    if (state->type != TMS_U8 || state->bytes >= sizeof text || !weight)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is no quant_state of bitsandbytes", file_of(s, state),
                        state->name);
    tms_status status = read_part(s, state, text, err);
    if (status == TMS_OK) status = tms_json_parse(&json, text, (size_t)state->bytes, state->name, err);
    if (status == TMS_OK) status = take_state(s, state, json, name, &s->tensors[weight - s->tensors], err);
    json_decref(json);
    return status;
}

/* ---- eight bits ---- */

static tms_status find_eight_bits(struct tms_source *s, struct tms_tensor *weight, struct tms_error *err)
{
    char module[TMS_ST_MAX_NAME + 1];
    uint8_t format = 0;
    snprintf(module, sizeof module, "%.*s", (int)(strlen(weight->name) - strlen("weight")), weight->name);
    const struct tms_tensor *scb = part_of(s, module, "SCB"), *layout = part_of(s, module, "weight_format");
    if (!scb) return TMS_OK;
    tms_status status = expect_part(s, scb, TMS_F32, weight->rows, err);
    if (status == TMS_OK && layout) status = expect_part(s, layout, TMS_U8, 1, err);
    if (status == TMS_OK && layout) status = read_part(s, layout, &format, err);
    if (status == TMS_OK && format != 0)
        status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s': layout %u is not supported, only 0 (rows)",
                          file_of(s, layout), layout->name, (unsigned)format);
    if (status != TMS_OK) return status;
    struct tms_packed *packed = tms_arena_alloc(&s->arena, sizeof *packed);
    if (!packed) return tms_fail_memory(err, sizeof *packed);
    *packed =
        (struct tms_packed){.eight = true, .shape = {weight->rows, weight->cols}, .absmax = (size_t)(scb - s->tensors)};
    weight->packed = packed;
    return TMS_OK;
}

tms_status tms_packed_find(struct tms_source *source, struct tms_error *err)
{
    static const char *const parts[] = {
        ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map",
        ".SCB",           ".weight_format"};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < source->n_tensors && status == TMS_OK; i++) {
        struct tms_tensor *t = &source->tensors[i];
        const char *marker = strstr(t->name, ".quant_state.bitsandbytes__");
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) t->is_scale |= tms_ends_with(t->name, parts[k]);
        if (marker)
            status = find_four_bits(source, t, marker, err);
        else if (t->type == TMS_I8 && t->n_dims == 2 && tms_ends_with(t->name, ".weight"))
            status = find_eight_bits(source, t, err);
    }
    return status;
}

/* ---- values ---- */

tms_status tms_packed_scales(const struct tms_source *s, const struct tms_packed *p, uint64_t first, uint64_t n,
                             float *absmax, struct tms_error *err)
{
    const struct tms_tensor *t = &s->tensors[p->absmax];
    if (!p->nested) return tms_file_read(s->files[t->file], absmax, n * sizeof *absmax, t->offset + first * 4, err);
    const struct tms_tensor *above = &s->tensors[p->nested_absmax];
    uint64_t first_nested = first / p->nested_block, n_nested = (first + n - 1) / p->nested_block - first_nested + 1;
    uint8_t *codes = tms_calloc(n, 1);
    float *nested = tms_calloc(n_nested, sizeof *nested);
    tms_status status = codes && nested ? TMS_OK : tms_fail_memory(err, n + n_nested * 4);
    if (status == TMS_OK) status = tms_file_read(s->files[t->file], codes, n, t->offset + first, err);
    if (status == TMS_OK)
        status = tms_file_read(s->files[above->file], nested, n_nested * 4, above->offset + first_nested * 4, err);
    for (uint64_t i = 0; i < n && status == TMS_OK; i++) {
        const float *scale = nested + ((first + i) / p->nested_block - first_nested);
        tms_bnb_decode_absmax(p->nested_map, p->nested_block, codes + i, scale, p->nested_offset, absmax + i, 1);
    }
    free(codes);
    free(nested);
    return status;
}

tms_status tms_packed_read(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first, uint64_t n,
                           void *raw, float *out, struct tms_error *err)
{
    const struct tms_packed *p = tensor->packed;
    if (p->grid) return tms_packed_grid_read(source, tensor, first, n, raw, out, err);
    const struct tms_file *file = source->files[tensor->file];
    uint64_t per_scale = p->eight ? p->shape[1] : p->block_size;
    if (n == 0) return TMS_OK;
    uint64_t first_scale = first / per_scale, n_scales = (n + per_scale - 1) / per_scale;
    float *scales = tms_calloc(n_scales, sizeof *scales);
    tms_status status =
        scales ? tms_packed_scales(source, p, first_scale, n_scales, scales, err) : tms_fail_memory(err, n_scales * 4);
    if (status == TMS_OK && p->eight) {
        status = tms_file_read(file, raw, n, tensor->offset + first, err);
        for (uint64_t row = 0; row < n_scales && status == TMS_OK; row++)
            tms_bnb_decode_int8((const int8_t *)raw + row * per_scale, scales[row], out + row * per_scale, per_scale);
    } else if (status == TMS_OK) {
        status = tms_file_read(file, raw, n / 2 + n % 2, tensor->offset + first / 2, err);
        if (status == TMS_OK) tms_bnb_decode4(p->map, p->block_size, raw, scales, out, n);
    }
    free(scales);
    return status;
}

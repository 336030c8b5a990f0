/* See grid_route.h. */
#include "target/grid_route.h"

#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/target.h"

uint64_t tms_grid_route_unit_rows(const struct tms_grid_route *route)
{
    const struct tms_grid *g = &route->grid;
    uint64_t rows = g->scale_rows > 1 && !route->amax ? g->scale_rows : 32; /* blocks: multiples of 32 */
    return rows < g->rows ? rows : g->rows;
}

static uint64_t count_scales(const struct tms_grid *grid)
{
    return tms_grid_scale_rows(grid) * tms_grid_groups(grid);
}

/* For the whole tensor, known before the first range. */
static bool has_one_scale(const struct tms_grid_route *route)
{
    return route->amax && route->rounding.scales == TMS_SCALES_FLOAT;
}

tms_status tms_grid_route_begin(struct tms_grid_route *route, struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    const uint64_t n = count_scales(g), n_codes = tms_grid_row_major(g) ? 0 : tms_grid_code_bytes(g, g->rows);
    if (route->scale_values) return TMS_OK;
    if (g->has_zeros) route->zero_values = tms_calloc(n, 1);
    if (n_codes) route->codes = tms_calloc(n_codes, 1);
    if (route->amax) {
        route->rounding.amax = *route->amax;
        route->rounding.global = tms_nvfp4_global(*route->amax, route->rounding.dtype);
    }
    float *scales = tms_calloc(n, sizeof *scales);
    if (!scales || (g->has_zeros && !route->zero_values) || (n_codes && !route->codes)) {
        free(scales);
        return tms_fail_memory(err, n * 5 + n_codes);
    }
    if (has_one_scale(route)) scales[0] = tms_grid_tensor_scale(g, &route->rounding);
    route->scale_values = scales;
    return TMS_OK;
}

void tms_grid_route_end(struct tms_grid_route *route)
{
    free(route->scale_values);
    free(route->zero_values);
    free(route->codes);
    route->scale_values = NULL;
    route->zero_values = NULL;
    route->codes = NULL;
}

/* The source's own; one that has no zero points stands for the middle. */
static tms_status move_codes(struct tms_grid_route *route, const struct tms_source *source,
                             const struct tms_tensor *tensor, uint64_t row, uint64_t n_rows, const void *raw,
                             uint8_t *codes, struct tms_error *err)
{
    const struct tms_packed_grid *from = tensor->packed->grid;
    const uint64_t groups = tms_grid_groups(&route->grid);
    struct tms_grid part = from->grid;
    uint8_t *own = NULL, *zeros = route->zero_values ? route->zero_values + row * groups : NULL;
    if (from->grid.has_zeros && !zeros) zeros = own = tms_calloc(n_rows, groups); /* all in the middle: moves() saw */
    if (from->grid.has_zeros && !zeros) return tms_fail_memory(err, n_rows * groups);
    part.rows = n_rows;
    tms_grid_unpack(&part, raw, 0, n_rows, 0, part.cols, codes, (size_t)part.cols);
    if (!from->grid.has_zeros && zeros) memset(zeros, tms_grid_middle(&route->grid), n_rows * groups);
    tms_status status =
        tms_packed_grid_scales(source, from, row, n_rows, route->scale_values + row * groups, zeros, err);
    free(own);
    return status;
}

/* What a method chose (calibrated.h). */
static tms_status read_made(struct tms_grid_route *route, uint64_t row, uint64_t n_rows, uint8_t *codes,
                            struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    const uint64_t groups = tms_grid_groups(g), n = n_rows * groups, behind = g->rows * g->cols;
    struct tms_file file;
    tms_status status = tms_file_open(&file, route->made, err);
    if (status != TMS_OK) return status;
    status = tms_file_read(&file, codes, n_rows * g->cols, row * g->cols, err);
    if (status == TMS_OK)
        status = tms_file_read(&file, route->scale_values + row * groups, n * sizeof(float),
                               behind + row * groups * sizeof(float), err);
    if (status == TMS_OK && route->zero_values)
        status = tms_file_read(&file, route->zero_values + row * groups, n,
                               behind + g->rows * groups * sizeof(float) + row * groups, err);
    tms_file_close(&file);
    return status;
}

tms_status tms_grid_route_encode(struct tms_grid_route *route, const struct tms_source *source,
                                 const struct tms_tensor *tensor, uint64_t row, uint64_t n_rows, const float *x,
                                 const void *raw, uint8_t *codes, uint8_t *room, const uint8_t **packed, float *back,
                                 struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    struct tms_grid part = *g;
    const uint64_t groups = tms_grid_groups(g);
    const bool one = has_one_scale(route);
    tms_status status = TMS_OK;
    part.rows = n_rows;
    if (one) { /* it is known already, and other threads read it */
        float scale;
        tms_grid_round(g, &route->rounding, x, row, n_rows, &scale, NULL, codes);
    } else if (route->made) {
        status = read_made(route, row, n_rows, codes, err);
    } else if (route->moves) {
        status = move_codes(route, source, tensor, row, n_rows, raw, codes, err);
    } else {
        tms_grid_round(g, &route->rounding, x, row, n_rows, route->scale_values, route->zero_values, codes);
    }
    if (status != TMS_OK) return status;
    if (tms_grid_row_major(g)) {
        memset(room, 0, n_rows * g->row_bytes);
        tms_grid_pack(&part, codes, 0, n_rows, room);
        *packed = room;
    } else {
        tms_grid_pack(g, codes, row, n_rows, route->codes);
        *packed = NULL;
    }
    /* What a reader will see: scales as they are stored. */
    uint64_t first = one ? 0 : row / g->scale_rows * groups, n = count_scales(&part);
    const struct tms_codec *codec = tms_codec(route->scale_type);
    float *scales = tms_calloc(n, sizeof *scales);
    uint8_t *stored = tms_calloc(n, 4);
    if (scales && stored) {
        codec->encode(route->scale_values + first, stored, n);
        codec->decode(stored, scales, n);
        for (uint64_t i = 0; i < n && route->global != TMS_NO_OUT; i++) scales[i] /= route->rounding.global;
        tms_grid_apply(&part, scales, route->zero_values ? route->zero_values + first : NULL, 0, n_rows, 0, g->cols,
                       codes, (size_t)g->cols, back, (size_t)g->cols);
    } else {
        status = tms_fail_memory(err, n * 8);
    }
    free(scales);
    free(stored);
    return status;
}

/* ---- what was kept ---- */

static tms_status put_scales(struct tms_grid_route *route, tms_put_fn put, void *ctx, struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    const uint64_t n = count_scales(g), groups = tms_grid_groups(g);
    const struct tms_codec *codec = tms_codec(route->scale_type);
    const uint64_t bytes = tms_codec_bytes(codec, n);
    float *turned = tms_grid_row_major(g) ? NULL : tms_calloc(n, sizeof *turned);
    uint8_t *stored = tms_calloc(bytes, 1);
    tms_status status = stored && (turned || tms_grid_row_major(g)) ? TMS_OK : tms_fail_memory(err, bytes + n * 4);
    for (uint64_t r = 0; r < g->rows && status == TMS_OK && turned; r++)
        for (uint64_t k = 0; k < groups; k++) turned[k * g->rows + r] = route->scale_values[r * groups + k];
    if (status == TMS_OK) {
        codec->encode(turned ? turned : route->scale_values, stored, n);
        status = put(ctx, route->scales, stored, bytes, err);
    }
    free(turned);
    free(stored);
    return status;
}

static tms_status put_zeros(struct tms_grid_route *route, tms_put_fn put, void *ctx, struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    const uint64_t groups = tms_grid_groups(g);
    const uint64_t bytes = g->layout == TMS_GRID_STREAM ? tms_grid_stream_bytes(g->rows, g->bits) * groups
                                                        : g->rows * g->bits / 8 * groups;
    uint8_t *stored = tms_calloc(bytes, 1);
    if (!stored) return tms_fail_memory(err, bytes);
    if (g->layout == TMS_GRID_GPTQ)
        tms_gptq_pack_zeros(route->zero_values, g->rows, groups, g->bits, route->v1, stored);
    else if (g->layout == TMS_GRID_AWQ)
        tms_awq_pack_zeros(route->zero_values, g->rows, groups, stored);
    else
        tms_ct_pack_zeros(route->zero_values, g->rows, groups, g->bits, stored);
    tms_status status = put(ctx, route->zeros, stored, bytes, err);
    free(stored);
    return status;
}

tms_status tms_grid_route_finish(struct tms_grid_route *route, size_t codes, tms_put_fn put, void *ctx,
                                 struct tms_error *err)
{
    tms_status status = put_scales(route, put, ctx, err);
    if (status == TMS_OK && route->zeros != TMS_NO_OUT) status = put_zeros(route, put, ctx, err);
    if (status == TMS_OK && route->codes)
        status = put(ctx, codes, route->codes, tms_grid_code_bytes(&route->grid, route->grid.rows), err);
    if (status == TMS_OK && route->global != TMS_NO_OUT)
        status = put(ctx, route->global, &route->rounding.global, sizeof route->rounding.global, err);
    tms_grid_route_end(route);
    return status;
}

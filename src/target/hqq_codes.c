/* See hqq_codes.h. */
#include "target/hqq_codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/numbers.h"
#include "method/affine.h"
#include "method/block_grids.h"
#include "method/hqq.h"
#include "target/grid_route.h"

#define SPARSE 0.7 /* HQQ's p */

enum { ELEMS = 32 /* of Q4_1 and Q5_1 */ };

static bool fits(const struct tms_route *route)
{
    if (route->kind == TMS_ROUTE_CODEC)
        return !route->moves && !route->fold && (route->codec->id == TMS_Q4_1 || route->codec->id == TMS_Q5_1) &&
               tms_turn_is_dense(&route->turn);
    if (route->kind != TMS_ROUTE_GRID || route->grid->moves) return false;
    const struct tms_grid *g = &route->grid->grid;
    return g->values == TMS_GRID_INT && g->scale_rows == 1 && g->has_zeros && !g->group_of &&
           !route->grid->rounding.symmetric && g->cols % g->group == 0;
}

/* The values of a route as the output has them. */
static tms_status read_values(const struct tms_target *t, const struct tms_route *route, float **out, uint64_t *n,
                              struct tms_error *err)
{
    const struct tms_tensor *tensor = &t->source->tensors[route->source];
    const uint64_t all = tensor->packed ? tensor->n_weights : tensor->n_elems;
    const uint64_t part = route->n_parts > 1 ? all / route->n_parts : all;
    float *values = tms_calloc(part, sizeof *values), *turned = NULL;
    void *raw = tms_calloc(tms_source_raw_bytes(tensor, part), 1);
    tms_status status = values && raw ? TMS_OK : tms_fail_memory(err, part * 8);
    *n = part;
    if (status == TMS_OK)
        status =
            tms_source_read(t->source, tensor, route->n_parts > 1 ? route->part * part : 0, part, raw, values, err);
    free(raw);
    if (status == TMS_OK && route->turn.kind != TMS_TURN_NONE) {
        turned = tms_calloc(part, sizeof *turned);
        if (!turned) status = tms_fail_memory(err, part * sizeof *turned);
        if (turned) *n = tms_turn_values(&route->turn, values, part, turned);
    }
    if (status == TMS_OK && route->through != TMS_TYPE_NONE && route->through != tensor->type) {
        const struct tms_codec *codec = tms_codec(route->through);
        float *from = turned ? turned : values;
        for (uint64_t i = 0; i < *n; i++) {
            uint8_t bytes[8];
            codec->encode(&from[i], bytes, 1);
            codec->decode(bytes, &from[i], 1);
        }
    }
    if (status == TMS_OK) *out = turned ? turned : values;
    if (status != TMS_OK || turned) free(values);
    return status;
}

static float as_stored(enum tms_type type, float x)
{
    uint8_t bytes[8];
    tms_codec(type)->encode(&x, bytes, 1);
    tms_codec(type)->decode(bytes, &x, 1);
    return x;
}

/* Codes nearest to w, and the values that they stand for. */
static void nearest_codes(const float *w, size_t n, float scale, float zero, float top, uint8_t *codes, float *values)
{
    for (size_t i = 0; i < n; i++) {
        float code = rintf(w[i] / scale + zero);
        code = code > 0 ? code : 0;
        codes[i] = (uint8_t)(code < top ? code : top);
        values[i] = ((float)codes[i] - zero) * scale;
    }
}

/* ---- one matrix: its groups, after HQQ ---- */

struct groups {
    const struct tms_route *route;
    const float *w;
    uint8_t *codes, *zeros; /* zeros: of folders */
    float *scales, *real;   /* HQQ's */
    size_t n, size;
    float top;
    uint8_t *blocks; /* of GGUF */
};

enum { GROUPS = 64 /* of a job */ };

/* The integers on either side of HQQ's zero point, and the plain grid, whose range holds 0: groups that lie to one side
 * of it have no zero point among the codes. */
static void settle_integers(const struct groups *all, size_t g, float *room)
{
    const float *w = all->w + g * all->size, below = floorf(all->real[g]);
    const struct tms_affine plain = {.bits = all->route->grid->grid.bits};
    uint8_t *codes = all->codes + g * all->size;
    float scale = as_stored(all->route->grid->scale_type, all->scales[g]), scales[3] = {scale, scale},
          zeros[3] = {below, below + 1};
    double least = HUGE_VAL;
    int best = 2;
    tms_affine_fit(&plain, w, all->size, &scale, &zeros[2]);
    scales[2] = as_stored(all->route->grid->scale_type, scale);
    for (int k = 0; k < 3; k++) {
        if (!(scales[k] > 0) || !isfinite(scales[k])) continue;
        zeros[k] = fminf(fmaxf(zeros[k], 0), all->top);
        nearest_codes(w, all->size, scales[k], zeros[k], all->top, codes, room);
        const double error = tms_distance_to_power(w, room, all->size, SPARSE);
        if (error < least) least = error, best = k;
    }
    nearest_codes(w, all->size, scales[best], zeros[best], all->top, codes, room);
    all->zeros[g] = (uint8_t)zeros[best];
    all->scales[g] = scales[best];
}

/* A group without a range has no scale: its minimum is its value. */
static void settle_block(const struct groups *all, size_t g, float *room)
{
    const struct tms_codec *codec = all->route->codec;
    const struct tms_block_grid *grid = tms_block_grid(codec->id);
    uint8_t *block = all->blocks + g * codec->block_bytes, codes[ELEMS];
    const float *w = all->w + g * ELEMS;
    bool flat = true;
    for (size_t i = 1; i < ELEMS; i++) flat &= w[i] == w[0];
    const uint16_t d = flat ? 0 : tms_f32_to_f16(all->scales[g]);
    const uint16_t m = tms_f32_to_f16(flat ? w[0] : -all->real[g] * all->scales[g]);
    const float step = tms_f16_to_f32(d), least = tms_f16_to_f32(m);
    memcpy(block, &d, 2);
    memcpy(block + 2, &m, 2);
    memset(codes, 0, sizeof codes);
    if (step > 0) nearest_codes(w, ELEMS, step, -least / step, all->top, codes, room);
    grid->put(block, codes);
}

static tms_status settle_groups(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct groups *all = ctx;
    float *room = tms_calloc(2 * (uint64_t)all->size, sizeof *room);
    (void)worker;
    if (!room) return tms_fail_memory(err, 2 * (uint64_t)all->size * sizeof *room);
    for (size_t g = index * GROUPS; g < (index + 1) * GROUPS && g < all->n; g++)
        if (all->blocks)
            settle_block(all, g, room);
        else
            settle_integers(all, g, room);
    free(room);
    return TMS_OK;
}

/* w: all values of a route; `out`: what the pipeline will read, n_out bytes. */
static tms_status make_codes(const struct tms_route *route, const float *w, uint64_t n, uint8_t *out,
                             struct tms_pool *pool, struct tms_error *err)
{
    const struct tms_grid *g = route->grid ? &route->grid->grid : NULL;
    const unsigned bits = g ? g->bits : route->codec->id == TMS_Q4_1 ? 4 : 5;
    struct groups all = {
        .route = route, .w = w, .size = g ? (size_t)g->group : ELEMS, .top = (float)((1u << bits) - 1)};
    all.n = (size_t)(n / all.size);
    const struct tms_hqq_options options = {.bits = bits, .group = all.size};
    all.scales = tms_calloc(2 * (uint64_t)all.n, sizeof *all.scales);
    uint8_t *codes = tms_calloc(n, 1);
    tms_status status = all.scales && codes ? TMS_OK : tms_fail_memory(err, n + 8 * (uint64_t)all.n);
    all.real = all.scales + all.n;
    all.codes = codes;
    if (g)
        all.codes = out, all.zeros = out + n + all.n * sizeof(float);
    else
        all.blocks = out;
    if (status == TMS_OK) status = tms_hqq(w, (size_t)n, &options, codes, all.scales, all.real, pool, err);
    if (status == TMS_OK) status = tms_pool_run(pool, (all.n + GROUPS - 1) / GROUPS, settle_groups, &all, err);
    if (status == TMS_OK && g) memcpy(out + n, all.scales, all.n * sizeof(float));
    free(all.scales);
    free(codes);
    return status;
}

/* ---- all ---- */

static tms_status write_codes(const char *path, const uint8_t *bytes, uint64_t n, struct tms_error *err)
{
    struct tms_output *output = NULL;
    tms_status status = tms_output_create(&output, path, n, err);
    if (status == TMS_OK) status = tms_output_write(output, bytes, n, 0, err);
    if (status == TMS_OK) return tms_output_commit(output, err);
    tms_output_discard(output);
    return status;
}

static tms_status make_route(struct tms_target *t, struct tms_route *route, const char *work, struct tms_pool *pool,
                             struct tms_error *err)
{
    float *w = NULL;
    uint64_t n = 0;
    const char *path = tms_arena_printf(&t->arena, "%s/codes-%06zu", work, (size_t)(route - t->routes));
    tms_status status = path ? read_values(t, route, &w, &n, err) : tms_fail_memory(err, 256);
    if (status != TMS_OK || tms_first_nonfinite(w, n) < n) { /* the pipeline will name it */
        free(w);
        return status;
    }
    const uint64_t size = route->grid ? route->grid->grid.group : ELEMS;
    const uint64_t bytes = route->grid ? n + n / size * 5 : tms_codec_bytes(route->codec, n);
    uint8_t *out = tms_calloc(bytes, 1);
    status = out ? make_codes(route, w, n, out, pool, err) : tms_fail_memory(err, bytes);
    if (status == TMS_OK) status = write_codes(path, out, bytes, err);
    if (status == TMS_OK) *(route->grid ? &route->grid->made : &route->made) = path;
    free(out);
    free(w);
    return status;
}

tms_status tms_hqq_codes_make(struct tms_target *t, const char *work, struct tms_pool *pool,
                              const struct tms_quantize_options *options, struct tms_error *err)
{
    struct tms_progress progress = {.what = "rounding"};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < t->n_routes; i++) progress.total += fits(&t->routes[i]);
    if (progress.total == 0)
        return tms_fail(err, TMS_EUSAGE,
                        "%s: method hqq is for grids with zero points: awq, gptq:asym, wNa16:asym, q4_1, q5_1",
                        t->spec.name);
    for (size_t i = 0; i < t->n_routes && status == TMS_OK; i++) {
        if (!fits(&t->routes[i])) continue;
        if (tms_cancelled()) return tms_fail(err, TMS_ECANCELLED, "interrupted");
        status = make_route(t, &t->routes[i], work, pool, err);
        progress.done++;
        if (options->progress) options->progress(options->progress_ctx, &progress);
    }
    return status;
}

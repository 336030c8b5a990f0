/* See linear.h. */
#include "engine/linear.h"

#include "base/mem.h"
#include "engine/int8.h"
#include "engine/kernels/coded.h"
#include "engine/kernels/dots.h"
#include "engine/kernels/halves.h"

#include <stdlib.h>
#include <string.h>

#define TILE   40 /* rows of a job: a multiple of the kernels' 5 */
#define MANY   8  /* tokens from which on rounded products go by tiles */
#define FEW    5  /* rows decoded at a time when there are few tokens: they stay in the first-level cache */
#define CODED  16 /* rows of integers that stay there */
#define STRIDE (TMS_DOT_PIECE + 16) /* rows of a tile must not all fall into the same sets of the cache */

struct run {
    const struct tms_linear_job *jobs;
    size_t n_jobs;
    float *scratch;
    const struct tms_int8_input *int8; /* the input of all jobs, or NULL */
};

/* Rows of a job of the pool. */
static uint64_t tile_rows(const struct tms_linear_job *job)
{
    if (!job->rounded) return TILE;
    return job->n < MANY ? 64 : TMS_ROUNDED_TILE;
}

static uint64_t tiles_of(const struct tms_linear_job *job)
{
    return (job->weight->rows + tile_rows(job) - 1) / tile_rows(job);
}

/* ---- the fast mode ---- */

void tms_linear_fast_free(struct tms_linear_fast *fast)
{
    free(fast->units);
    *fast = (struct tms_linear_fast){0};
}

/* The table's row for a weight that can be multiplied with rounded inputs, or NULL. */
static const struct tms_rounded_codec *rounded_codec(const struct tms_weight *w)
{
    if (w->tensor->packed || w->tensor->scale != TMS_NO_SCALE) return NULL;
    return tms_rounded_codec(w->tensor->type);
}

/* With many tokens, what it takes to decode a tile to floats no longer matters. */
static bool is_coded(const struct tms_linear_job *job)
{
    return job->n < MANY && job->outlier <= 0 && tms_weight_is_coded(job->weight);
}

static bool rounds(const struct tms_linear_job *job)
{
    return is_coded(job) || (rounded_codec(job->weight) && (job->n < MANY || tms_rounded_tiles()));
}

struct rounding {
    const struct tms_linear_job *job;
    struct tms_rounded_unit *units;
};

static tms_status round_input(void *ctx, size_t row, unsigned worker, struct tms_error *err)
{
    const struct rounding *r = ctx;
    const size_t cols = (size_t)r->job->weight->cols;
    (void)worker, (void)err;
    tms_round_row(r->job->x + row * r->job->x_stride, cols, r->units + row * tms_units(cols));
    return TMS_OK;
}

/* Rounds the inputs; jobs of the same input follow each other, and share it. */
static tms_status round_inputs(struct tms_pool *pool, struct tms_linear_job *jobs, size_t n_jobs,
                               struct tms_linear_fast *fast, struct tms_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < n_jobs; i++) n += jobs[i].n * tms_units(jobs[i].weight->cols);
    if (n > fast->room) {
        tms_linear_fast_free(fast);
        fast->units = aligned_alloc(64, n * sizeof *fast->units);
        if (!fast->units) return tms_fail_memory(err, n * sizeof *fast->units);
        fast->room = n;
    }
    struct rounding next = {NULL, fast->units};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < n_jobs && status == TMS_OK; i++) {
        const struct tms_linear_job *last = next.job;
        if (!rounds(&jobs[i])) continue;
        if (last && last->x == jobs[i].x && last->n == jobs[i].n && last->weight->cols == jobs[i].weight->cols) {
            jobs[i].rounded = last->rounded;
            continue;
        }
        jobs[i].rounded = next.units;
        next.job = &jobs[i];
        if (jobs[i].n < MANY)
            for (size_t row = 0; row < jobs[i].n; row++) round_input(&next, row, 0, NULL);
        else
            status = tms_pool_run(pool, jobs[i].n, round_input, &next, err);
        next.units += jobs[i].n * tms_units(jobs[i].weight->cols);
    }
    return status;
}

/* Scratch memory is larger by far than what is made of it here. */
static void *aligned(float *scratch)
{
    return (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
}

/* Rows [first, end) of y = x wT. */
static void multiply_rounded(const struct tms_linear_job *job, uint64_t first, uint64_t end, void *scratch)
{
    const struct tms_weight *w = job->weight;
    const struct tms_rounded_codec *codec = rounded_codec(w);
    const size_t row_bytes = (size_t)tms_codec_bytes(tms_codec(w->tensor->type), w->cols), units = tms_units(w->cols);
    const uint8_t *rows = w->data + (w->first_row + first) * row_bytes;
    float *y = job->y + first;
    size_t n_rows = (size_t)(end - first);
    if (job->n >= MANY) {
        tms_rounded_tile(codec, rows, row_bytes, n_rows, w->cols, job->rounded, units, job->n, y, job->y_stride,
                         scratch);
        return;
    }
    for (size_t i = 0; i < job->n; i++)
        tms_rounded_rows(codec, rows, row_bytes, n_rows, w->cols, job->rounded + i * units, y + i * job->y_stride);
}

/* Working memory of multiply_coded: fits TMS_LINEAR_SCRATCH. */
struct coded {
    _Alignas(64) int16_t values[TMS_WEIGHT_CODES];
    float scales[TMS_WEIGHT_CODES / TMS_CODED_BLOCK];
    uint8_t codes[TMS_WEIGHT_CODES];
    float lanes[MANY][CODED][TMS_CODED_LANES];
};
_Static_assert(sizeof(struct coded) + 64 <= TMS_LINEAR_SCRATCH * sizeof(float), "scratch memory of linear layers");

static void multiply_coded(const struct tms_linear_job *job, uint64_t first, uint64_t end, struct coded *room)
{
    const struct tms_weight *w = job->weight;
    const size_t units = tms_units(w->cols);
    /* Whole rows, where they are stored so: memory is read from its beginning to its end then. */
    size_t at_once = TMS_WEIGHT_CODES / CODED, rows = CODED;
    if (tms_weight_is_row_major(w)) {
        at_once = units * TMS_UNIT < TMS_WEIGHT_CODES ? units * TMS_UNIT : TMS_WEIGHT_CODES;
        rows = TMS_WEIGHT_CODES / at_once < CODED ? TMS_WEIGHT_CODES / at_once : CODED;
    }
    for (uint64_t row = first; row < end; row += rows) {
        uint64_t n_rows = end - row < rows ? end - row : rows;
        memset(room->lanes, 0, job->n * sizeof *room->lanes);
        for (uint64_t col = 0; col < w->cols; col += at_once) {
            uint64_t n_cols = w->cols - col < at_once ? w->cols - col : at_once;
            tms_weight_codes(w, row, n_rows, col, n_cols, room->values, room->scales, at_once, room->codes);
            for (size_t i = 0; i < job->n; i++)
                tms_coded_rows(room->values, room->scales, at_once, (size_t)n_rows,
                               job->rounded + i * units + col / TMS_UNIT, tms_units(n_cols), room->lanes[i][0]);
        }
        for (size_t i = 0; i < job->n; i++)
            for (uint64_t r = 0; r < n_rows; r++)
                job->y[i * job->y_stride + row + r] = tms_coded_sum(room->lanes[i][r]);
    }
}

/* True for weights whose stored floats can be multiplied as they are. */
static bool stored_floats(const struct tms_weight *w)
{
    return !w->tensor->packed && w->tensor->scale == TMS_NO_SCALE && tms_halves_fit(w->tensor->type);
}

static tms_status tile_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct run *run = ctx;
    const struct tms_linear_job *job = run->jobs;
    (void)err;
    while (index >= tiles_of(job)) index -= (size_t)tiles_of(job++);
    const struct tms_weight *w = job->weight;
    float *tile = run->scratch + worker * (size_t)TMS_LINEAR_SCRATCH;
    uint64_t n_tile = tile_rows(job), first = index * n_tile, end = first + n_tile < w->rows ? first + n_tile : w->rows;
    uint64_t step = job->n < 16 ? FEW : TILE, row = first;
    if (job->rounded && is_coded(job)) {
        multiply_coded(job, first, end, aligned(tile));
        row = end;
    } else if (job->rounded) {
        multiply_rounded(job, first, end, aligned(tile));
        row = end;
    } else if (stored_floats(w) && job->n < MANY) {
        const uint8_t *rows = w->data + tms_codec_bytes(tms_codec(w->tensor->type), (w->first_row + first) * w->cols);
        for (size_t i = 0; i < job->n; i++)
            tms_halves_rows(w->tensor->type, rows, (size_t)(end - first), (size_t)w->cols, job->x + i * job->x_stride,
                            job->y + i * job->y_stride + first);
        row = end;
    } else if (run->int8 && tms_int8_fits(w)) {
        tms_int8_rows(run->int8, job->x, job->x_stride, w, first, end, job->y, job->y_stride);
        row = end;
    }
    for (; row < end; row += step) {
        uint64_t n_rows = end - row < step ? end - row : step;
        for (uint64_t col = 0; col < w->cols; col += TMS_DOT_PIECE) {
            uint64_t n_cols = w->cols - col < TMS_DOT_PIECE ? w->cols - col : TMS_DOT_PIECE;
            tms_weight_tile(w, row, n_rows, col, n_cols, tile, STRIDE);
            tms_dots(job->x + col, job->x_stride, job->n, tile, STRIDE, (size_t)n_rows, tms_padded((size_t)n_cols),
                     job->y + row, job->y_stride, col > 0);
        }
    }
    for (size_t i = 0; job->bias && i < job->n; i++)
        for (row = first; row < end; row++) job->y[i * job->y_stride + row] += job->bias[row];
    return TMS_OK;
}

tms_status tms_linear_run(struct tms_pool *pool, struct tms_linear_job *jobs, size_t n_jobs, float *scratch,
                          struct tms_linear_fast *fast, struct tms_error *err)
{
    struct run run = {jobs, n_jobs, scratch, NULL};
    struct tms_int8_input int8 = {0};
    tms_status status = TMS_OK;
    uint64_t n = 0;
    for (size_t i = 0; i < n_jobs; i++) {
        if (run.int8 || jobs[i].outlier <= 0 || !tms_int8_fits(jobs[i].weight)) continue;
        run.int8 = &int8;
        status = tms_int8_split(&int8, pool, jobs[i].x, jobs[i].x_stride, jobs[i].n, (size_t)jobs[i].weight->cols,
                                jobs[i].outlier, err);
    }
    if (status == TMS_OK && fast) status = round_inputs(pool, jobs, n_jobs, fast, err);
    for (size_t i = 0; i < n_jobs; i++) n += tiles_of(&jobs[i]);
    if (status == TMS_OK) status = tms_pool_run(pool, (size_t)n, tile_job, &run, err);
    tms_int8_free(&int8);
    return status;
}

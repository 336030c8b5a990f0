/* See linear.h. */
#include "engine/linear.h"

#include "engine/int8.h"
#include "engine/kernels/dots.h"

#define TILE   40 /* rows of a job: a multiple of the kernels' 5 */
#define FEW    5  /* rows decoded at a time when there are few tokens: they stay in the first-level cache */
#define STRIDE (TMS_DOT_PIECE + 16) /* rows of a tile must not all fall into the same sets of the cache */

struct run {
    const struct tms_linear_job *jobs;
    size_t n_jobs;
    float *scratch;
    const struct tms_int8_input *int8; /* the input of all jobs, or NULL */
};

static uint64_t tiles_of(const struct tms_linear_job *job)
{
    return (job->weight->rows + TILE - 1) / TILE;
}

static tms_status tile_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct run *run = ctx;
    const struct tms_linear_job *job = run->jobs;
    (void)err;
    while (index >= tiles_of(job)) index -= (size_t)tiles_of(job++);
    const struct tms_weight *w = job->weight;
    float *tile = run->scratch + worker * (size_t)TMS_LINEAR_SCRATCH;
    uint64_t first = index * (uint64_t)TILE, end = first + TILE < w->rows ? first + TILE : w->rows;
    uint64_t step = job->n < 16 ? FEW : TILE, row = first;
    if (run->int8 && tms_int8_fits(w)) {
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

tms_status tms_linear_run(struct tms_pool *pool, const struct tms_linear_job *jobs, size_t n_jobs, float *scratch,
                          struct tms_error *err)
{
    struct run run = {jobs, n_jobs, scratch, NULL};
    struct tms_int8_input int8 = {0};
    tms_status status = TMS_OK;
    uint64_t n = 0;
    for (size_t i = 0; i < n_jobs; i++) {
        n += tiles_of(&jobs[i]);
        if (run.int8 || jobs[i].outlier <= 0 || !tms_int8_fits(jobs[i].weight)) continue;
        run.int8 = &int8;
        status = tms_int8_split(&int8, pool, jobs[i].x, jobs[i].x_stride, jobs[i].n, (size_t)jobs[i].weight->cols,
                                jobs[i].outlier, err);
    }
    if (status == TMS_OK) status = tms_pool_run(pool, (size_t)n, tile_job, &run, err);
    tms_int8_free(&int8);
    return status;
}

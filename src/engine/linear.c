/* See linear.h. */
#include "engine/linear.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/dots.h"

#define TILE   40 /* rows of a job: a multiple of the kernels' 5 */
#define FEW    5  /* rows decoded at a time when there are few tokens: they stay in the first-level cache */
#define STRIDE (TMS_DOT_PIECE + 16) /* rows of a tile must not all fall into the same sets of the cache */

struct run {
    const struct tms_linear_job *jobs;
    size_t n_jobs;
    float *scratch;
};

static uint64_t tiles_of(const struct tms_linear_job *job)
{
    return (job->weight->rows + TILE - 1) / TILE;
}

/* LLM.int8 (Dettmers et al. 2022), as bitsandbytes computes it: columns in which any token of the pass reaches the
 * threshold are multiplied as they are; of the others, each token is rounded to 8 bits with its own scale, and the
 * products of integers are exact. */
static bool is_outlier(const struct tms_linear_job *job, uint64_t col)
{
    for (size_t i = 0; i < job->n; i++)
        if (fabsf(job->x[i * job->x_stride + col]) >= job->outlier) return true;
    return false;
}

static void int8_rows(const struct tms_linear_job *job, uint64_t first, uint64_t end, int8_t *codes, uint8_t *outlier)
{
    const struct tms_weight *w = job->weight;
    for (uint64_t c = 0; c < w->cols; c++) outlier[c] = is_outlier(job, c);
    for (size_t i = 0; i < job->n; i++) {
        const float *x = job->x + i * job->x_stride;
        float top = 0;
        for (uint64_t c = 0; c < w->cols; c++)
            if (!outlier[c] && fabsf(x[c]) > top) top = fabsf(x[c]);
        float inverse = top > 0 ? 127.0f / top : 0;
        for (uint64_t c = 0; c < w->cols; c++) codes[c] = outlier[c] ? 0 : (int8_t)rintf(x[c] * inverse);
        for (uint64_t row = first; row < end; row++) {
            const int8_t *weights = (const int8_t *)w->data + row * w->cols;
            int64_t sum = 0;
            for (uint64_t c = 0; c < w->cols; c += 4096) { /* 4096 * 127^2 fits 32 bits */
                int32_t part = 0;
                for (uint64_t k = c; k < w->cols && k < c + 4096; k++) part += codes[k] * weights[k];
                sum += part;
            }
            float scale = w->scales[row] * (1.0f / 127.0f), exact = 0;
            for (uint64_t c = 0; c < w->cols; c++)
                if (outlier[c]) exact = fmaf(x[c], (float)weights[c] * scale, exact);
            job->y[i * job->y_stride + row] = (float)sum * (top / 127.0f) * scale + exact;
        }
    }
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
    uint64_t step = job->n < 16 ? FEW : TILE;
    const struct tms_packed *packed = w->tensor->packed;
    bool int8 = job->outlier > 0 && packed && packed->eight && 2 * w->cols <= TMS_LINEAR_SCRATCH * sizeof *tile;
    if (int8) {
        int8_rows(job, first, end, (int8_t *)tile, (uint8_t *)tile + w->cols);
        first = end; /* no rows are left for what follows but their bias */
    }
    for (uint64_t row = first; row < end; row += step) {
        uint64_t n_rows = end - row < step ? end - row : step;
        for (uint64_t col = 0; col < w->cols; col += TMS_DOT_PIECE) {
            uint64_t n_cols = w->cols - col < TMS_DOT_PIECE ? w->cols - col : TMS_DOT_PIECE;
            tms_weight_tile(w, row, n_rows, col, n_cols, tile, STRIDE);
            tms_dots(job->x + col, job->x_stride, job->n, tile, STRIDE, (size_t)n_rows, tms_padded((size_t)n_cols),
                     job->y + row, job->y_stride, col > 0);
        }
    }
    for (size_t i = 0; job->bias && i < job->n; i++)
        for (uint64_t row = index * (uint64_t)TILE; row < end; row++) job->y[i * job->y_stride + row] += job->bias[row];
    return TMS_OK;
}

tms_status tms_linear_run(struct tms_pool *pool, const struct tms_linear_job *jobs, size_t n_jobs, float *scratch,
                          struct tms_error *err)
{
    struct run run = {jobs, n_jobs, scratch};
    uint64_t n = 0;
    for (size_t i = 0; i < n_jobs; i++) n += tiles_of(&jobs[i]);
    return tms_pool_run(pool, (size_t)n, tile_job, &run, err);
}

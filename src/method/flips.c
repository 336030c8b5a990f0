/* See flips.h. */
#include "method/flips.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/kernels/dots.h"

enum { ROWS = 16 /* of a job */ };

struct work {
    const float *w;
    float *q;
    size_t n_rows;
    const struct tms_hessian *hessian;
    const struct tms_flips *flips;
    float added;     /* to the diagonal */
    size_t *changed; /* [n_rows] */
    double *gains;   /* [n_rows] */
};

/* g[j] += change * h[j] */
TMS_INLINE void follow_body(float *restrict g, const float *restrict h, float change, size_t n)
{
    for (size_t j = 0; j < n; j++) g[j] += change * h[j];
}
TMS_BY_CPU(static, follow, (float *restrict g, const float *restrict h, float change, size_t n), (g, h, change, n))

static void improve_row(const struct work *work, size_t row, float *g)
{
    const struct tms_hessian *hessian = work->hessian;
    const size_t n = hessian->n;
    const float *w = work->w + row * n;
    float *q = work->q + row * n;
    const int n_sweeps = work->flips->n_sweeps > 0 ? work->flips->n_sweeps : 10;
    for (int sweep = 0; sweep < n_sweeps; sweep++) {
        size_t changed = 0;
        for (size_t i = 0; i < n; i++) {
            const float *h = hessian->h + i * hessian->ld;
            const double curve = (double)h[i] + (double)work->added;
            if (!(curve > 0)) continue;
            const double slope = (double)g[i] + (double)work->added * ((double)q[i] - (double)w[i]);
            const float to = work->flips->nearest(work->flips->ctx, row, i, (float)((double)q[i] - slope / curve));
            const double change = (double)to - (double)q[i], lost = change * (2 * slope + change * curve);
            /* Only what rounding errors do not explain: otherwise two values could change places for ever. */
            if (!(lost < -1e-6 * change * change * curve)) continue;
            follow(g, h, (float)change, n);
            q[i] = to;
            work->gains[row] -= lost;
            changed++;
        }
        work->changed[row] += changed;
        if (changed == 0) break;
    }
}

static tms_status improve_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker;
    const struct work *work = ctx;
    const struct tms_hessian *hessian = work->hessian;
    const size_t n = hessian->n, ld = hessian->ld, first = index * ROWS;
    const size_t n_rows = work->n_rows - first < ROWS ? work->n_rows - first : ROWS;
    float *e = tms_calloc(2 * ROWS * (uint64_t)ld, sizeof *e), *g = e + ROWS * ld;
    if (!e) return tms_fail_memory(err, 2 * ROWS * (uint64_t)ld * sizeof *e);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n; c++) e[r * ld + c] = work->q[(first + r) * n + c] - work->w[(first + r) * n + c];
    for (size_t k = 0, padded = tms_padded(n); k < padded; k += TMS_DOT_PIECE)
        tms_dots(e + k, ld, n_rows, hessian->h + k, ld, n, padded - k < TMS_DOT_PIECE ? padded - k : TMS_DOT_PIECE, g,
                 ld, k > 0);
    for (size_t r = 0; r < n_rows; r++) improve_row(work, first + r, g + r * ld);
    free(e);
    return TMS_OK;
}

tms_status tms_flips(const float *w, float *q, size_t n_rows, const struct tms_hessian *hessian,
                     const struct tms_flips *flips, size_t *n_changed, double *gain, struct tms_pool *pool,
                     struct tms_error *err)
{
    double sum = 0;
    for (size_t i = 0; i < hessian->n; i++) sum += (double)hessian->h[i * hessian->ld + i];
    struct work work = {.w = w,
                        .q = q,
                        .n_rows = n_rows,
                        .hessian = hessian,
                        .flips = flips,
                        .added = (float)(flips->damp * (sum / (double)hessian->n))};
    work.changed = tms_calloc(n_rows, sizeof *work.changed);
    work.gains = tms_calloc(n_rows, sizeof *work.gains);
    tms_status status = TMS_OK;
    if (!work.changed || !work.gains) {
        status = tms_fail_memory(err, n_rows * (sizeof *work.changed + sizeof *work.gains));
        goto done;
    }
    status = tms_pool_run(pool, (n_rows + ROWS - 1) / ROWS, improve_rows, &work, err);
    if (status != TMS_OK) goto done;
    if (n_changed) *n_changed = 0;
    if (gain) *gain = 0;
    for (size_t r = 0; r < n_rows; r++) {
        if (n_changed) *n_changed += work.changed[r];
        if (gain) *gain += work.gains[r];
    }
done:
    free(work.changed);
    free(work.gains);
    return status;
}

struct affine_grid {
    const struct tms_gptq_result *result;
    float top;
};

static float code_of(const struct affine_grid *grid, size_t row, size_t col, float value)
{
    const size_t at = row * grid->result->n_groups + grid->result->g_idx[col];
    return tms_affine_code(value, grid->result->scales[at], grid->result->zeros[at], grid->top);
}

static float nearest(void *ctx, size_t row, size_t col, float target)
{
    const struct affine_grid *grid = ctx;
    const size_t at = row * grid->result->n_groups + grid->result->g_idx[col];
    return grid->result->scales[at] * (code_of(grid, row, col, target) - grid->result->zeros[at]);
}

tms_status tms_gptq_flips(struct tms_gptq_result *result, const float *w, unsigned bits,
                          const struct tms_hessian *hessian, double damp, int n_sweeps, size_t *n_changed,
                          struct tms_pool *pool, struct tms_error *err)
{
    const size_t n = result->n_rows * result->n_cols;
    float *q = tms_calloc(n, sizeof *q);
    if (!q) return tms_fail_memory(err, n * sizeof *q);
    tms_gptq_decode(result, q);
    struct affine_grid grid = {result, (float)((1u << bits) - 1)};
    struct tms_flips flips = {.nearest = nearest, .ctx = &grid, .damp = damp, .n_sweeps = n_sweeps};
    tms_status status = tms_flips(w, q, result->n_rows, hessian, &flips, n_changed, NULL, pool, err);
    if (status == TMS_OK)
        for (size_t i = 0; i < n; i++)
            result->codes[i] = (uint8_t)code_of(&grid, i / result->n_cols, i % result->n_cols, q[i]);
    free(q);
    return status;
}

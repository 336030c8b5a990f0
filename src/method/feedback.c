/* See feedback.h. */
#include "method/feedback.h"

#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "engine/kernels/dots.h"

enum {
    LANES = TMS_FEEDBACK_ROWS,
    BLOCK = TMS_FEEDBACK_BLOCK,
    MOST_TILES = 4, /* of a job: 128 rows, so that U is read once for all of them */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct run {
    const float *w, *u;
    size_t ldw, ldu, n_rows, n_cols, ld; /* ld: of copies */
    size_t rows_per_job;
    const struct tms_grid *grid;
    double *losses; /* [n_rows] */
};

/* Where one tile is in one block. */
struct tile {
    float now[BLOCK * LANES];     /* [column][row]: the weights with all feedback so far */
    float decoded[BLOCK * LANES]; /* the same of what was decided */
    double losses[LANES];
};

/* Column i of the block was decided: error[row] = (w - q) / U[i][i] goes to the columns behind it. u: row i of U from
 * the block's first column on. */
TMS_INLINE void spread_body(float *restrict now, const float *restrict decoded, const float *restrict u, size_t i,
                            size_t n, float *restrict error, double *restrict losses)
{
    const float d = u[i];
    for (size_t r = 0; r < LANES; r++) {
        error[r] = (now[i * LANES + r] - decoded[i * LANES + r]) / d;
        losses[r] += (double)error[r] * (double)error[r];
    }
    for (size_t j = i + 1; j < n; j++)
        for (size_t r = 0; r < LANES; r++) now[j * LANES + r] -= error[r] * u[j];
}
TMS_BY_CPU(static, spread,
           (float *restrict now, const float *restrict decoded, const float *restrict u, size_t i, size_t n,
            float *restrict error, double *restrict losses),
           (now, decoded, u, i, n, error, losses))

/* The weights that a group is fitted to: rows of w, or for what has had feedback in this block, of the tile. */
static void fit_group(const struct run *run, const struct tile *tile, const float *w, size_t row, size_t n_rows,
                      size_t block, size_t first)
{
    const struct tms_grid *grid = run->grid;
    const size_t n = least(grid->group, run->n_cols - first);
    if (grid->stale || first == block) {
        grid->fit(grid->ctx, row, n_rows, first, n, w + first, run->ld);
        return;
    }
    float rows[LANES * BLOCK];
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n; c++) rows[r * BLOCK + c] = tile->now[(first - block + c) * LANES + r];
    grid->fit(grid->ctx, row, n_rows, first, n, rows, BLOCK);
}

/* One block of columns of at most 32 rows; errors [n_rows][BLOCK] get minus the errors. */
static void round_block(const struct run *run, struct tile *tile, const float *w, size_t row, size_t n_rows,
                        size_t block, float *errors)
{
    const struct tms_grid *grid = run->grid;
    const size_t n = least(BLOCK, run->n_cols - block);
    memset(tile->now, 0, sizeof tile->now);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n; c++) tile->now[c * LANES + r] = w[r * run->ld + block + c];
    for (size_t i = 0; i < n; i++) {
        if (grid->group > 0 && (block + i) % grid->group == 0) fit_group(run, tile, w, row, n_rows, block, block + i);
        if (i % grid->step == 0)
            grid->decide(grid->ctx, row, n_rows, block + i, tile->now + i * LANES, tile->decoded + i * LANES);
        float error[LANES];
        spread(tile->now, tile->decoded, run->u + (block + i) * run->ldu + block, i, n, error, tile->losses);
        for (size_t r = 0; r < n_rows; r++) errors[r * BLOCK + i] = -error[r];
    }
}

static tms_status round_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker;
    const struct run *run = ctx;
    const size_t first = index * run->rows_per_job, n_rows = least(run->rows_per_job, run->n_rows - first);
    const size_t copied = n_rows * run->ld, n_errors = n_rows * BLOCK;
    struct tile *tile = tms_calloc(1, sizeof *tile);
    float *w = tms_calloc((uint64_t)copied + n_errors, sizeof *w);
    tms_status status = TMS_OK;
    if (!tile || !w) {
        status = tms_fail_memory(err, (copied + n_errors) * sizeof *w);
        goto done;
    }
    float *errors = w + copied;
    for (size_t r = 0; r < n_rows; r++)
        memcpy(w + r * run->ld, run->w + (first + r) * run->ldw, run->n_cols * sizeof *w);
    for (size_t block = 0; block < run->n_cols; block += BLOCK) {
        for (size_t r = 0; r < n_rows; r += LANES) {
            const size_t count = least(LANES, n_rows - r);
            memset(tile->losses, 0, sizeof tile->losses);
            round_block(run, tile, w + r * run->ld, first + r, count, block, errors + r * BLOCK);
            for (size_t k = 0; k < count; k++) run->losses[first + r + k] += tile->losses[k];
        }
        const size_t behind = block + BLOCK;
        if (behind < run->n_cols)
            tms_weighted_sums(errors, BLOCK, n_rows, run->u + block * run->ldu + behind, run->ldu, BLOCK,
                              tms_padded(run->n_cols - behind), w + behind, run->ld);
    }
done:
    free(w);
    free(tile);
    return status;
}

tms_status tms_feedback(const float *w, size_t ldw, size_t n_rows, size_t n_cols, const float *u, size_t ldu,
                        const struct tms_grid *grid, double *loss, struct tms_pool *pool, struct tms_error *err)
{
    const size_t group = grid->group, step = grid->step;
    if (step == 0 || BLOCK % step != 0 || n_cols % step != 0 || (group > 0 && group % step != 0))
        return tms_fail(err, TMS_EUSAGE, "steps of %zu columns do not fit groups of %zu in rows of %zu", step, group,
                        n_cols);
    if (group > 0 && !grid->stale && BLOCK % group != 0 && group % BLOCK != 0)
        return tms_fail(err, TMS_EUSAGE, "groups of %zu columns do not fit blocks of %d", group, (int)BLOCK);
    double *losses = tms_calloc(n_rows, sizeof *losses);
    if (!losses) return tms_fail_memory(err, n_rows * sizeof *losses);
    const size_t tiles = (n_rows + LANES - 1) / LANES;
    /* Enough jobs for all threads, big enough to share U. */
    size_t per_job = tiles / (4 * tms_pool_threads(pool));
    per_job = per_job < 1 ? 1 : least(per_job, MOST_TILES);
    struct run run = {.w = w,
                      .u = u,
                      .ldw = ldw,
                      .ldu = ldu,
                      .n_rows = n_rows,
                      .n_cols = n_cols,
                      .ld = tms_row_stride(n_cols),
                      .rows_per_job = per_job * LANES,
                      .grid = grid,
                      .losses = losses};
    tms_status status = tms_pool_run(pool, (tiles + per_job - 1) / per_job, round_rows, &run, err);
    if (status == TMS_OK && loss) {
        double sum = 0;
        for (size_t r = 0; r < n_rows; r++) sum += losses[r];
        *loss = sum / 2;
    }
    free(losses);
    return status;
}

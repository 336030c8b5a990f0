/* See cholesky.h. */
#include "method/cholesky.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernels/dots.h"

enum {
    BLOCK = 64,   /* on the diagonal: a multiple of 16 */
    ROWS = 64,    /* that one job works on */
    COLUMNS = 256 /* the same, where jobs cut columns; a multiple of 16 */
};

size_t tms_square_stride(size_t n)
{
    return tms_row_stride(n);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct work {
    float *a;
    size_t n, ld, at, width;      /* the block on the diagonal begins at `at` */
    double exact[BLOCK * BLOCK];  /* its factor, then the inverse of that, lower */
    float inverse[BLOCK * BLOCK]; /* the latter rounded; zeros above the diagonal and beyond width */
    float *copy;                  /* [BLOCK][ld] */
    float *transposed;            /* [n][ld] */
};

/* The lower factor of the block, in f64. False: not positive definite. */
static bool factor_block(struct work *work)
{
    const size_t w = work->width;
    double *l = work->exact;
    for (size_t i = 0; i < w; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = work->a[(work->at + i) * work->ld + work->at + j];
            for (size_t k = 0; k < j; k++) sum -= l[i * BLOCK + k] * l[j * BLOCK + k];
            if (j < i) {
                l[i * BLOCK + j] = sum / l[j * BLOCK + j];
            } else {
                /* 1e-30: what divides by it later must stay finite in f32 */
                if (!(sum > 1e-30) || !(sum < HUGE_VAL)) return false;
                l[i * BLOCK + i] = sqrt(sum);
            }
        }
    }
    for (size_t i = 0; i < w; i++) {
        float *row = work->a + (work->at + i) * work->ld + work->at;
        for (size_t j = 0; j < w; j++) row[j] = j <= i ? (float)l[i * BLOCK + j] : 0;
    }
    return true;
}

static void load_block(struct work *work)
{
    for (size_t i = 0; i < work->width; i++)
        for (size_t j = 0; j <= i; j++) work->exact[i * BLOCK + j] = work->a[(work->at + i) * work->ld + work->at + j];
}

/* exact becomes its inverse, column by column. */
static void invert_block(struct work *work)
{
    const size_t w = work->width;
    double *l = work->exact, column[BLOCK];
    memset(work->inverse, 0, sizeof work->inverse);
    for (size_t j = 0; j < w; j++) {
        for (size_t i = j; i < w; i++) {
            double sum = i == j ? 1 : 0;
            for (size_t k = j; k < i; k++) sum -= l[i * BLOCK + k] * column[k];
            column[i] = sum / l[i * BLOCK + i];
        }
        for (size_t i = j; i < w; i++) work->inverse[i * BLOCK + j] = (float)column[i];
    }
}

/* Rows from `at` on: their columns in the block lose what the columns before it explain. */
static tms_status subtract_known(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    struct work *work = ctx;
    const size_t first = work->at + index * ROWS, n_rows = least(ROWS, work->n - first);
    const float *rows = work->a + first * work->ld, *block = work->a + work->at * work->ld;
    float sums[ROWS * BLOCK] = {0};
    for (size_t k = 0; k < work->at; k += TMS_DOT_PIECE)
        tms_dots(rows + k, work->ld, n_rows, block + k, work->ld, work->width, least(TMS_DOT_PIECE, work->at - k), sums,
                 BLOCK, k > 0);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < work->width; j++) work->a[(first + i) * work->ld + work->at + j] -= sums[i * BLOCK + j];
    return TMS_OK;
}

/* Rows behind the block (which is then whole): times the inverse of its factor, transposed. */
static tms_status divide_by_block(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    struct work *work = ctx;
    const size_t first = work->at + BLOCK + index * ROWS, n_rows = least(ROWS, work->n - first);
    float *rows = work->a + first * work->ld + work->at, before[ROWS * BLOCK];
    for (size_t i = 0; i < n_rows; i++) memcpy(before + i * BLOCK, rows + i * work->ld, BLOCK * sizeof *before);
    tms_dots(before, BLOCK, n_rows, work->inverse, BLOCK, BLOCK, BLOCK, rows, work->ld, false);
    return TMS_OK;
}

static tms_status work_create(struct work **out, float *a, size_t n, size_t ld, struct tms_error *err)
{
    struct work *work = tms_calloc(1, sizeof *work);
    if (!work) return tms_fail_memory(err, sizeof *work);
    work->a = a, work->n = n, work->ld = ld;
    *out = work;
    return TMS_OK;
}

static size_t jobs_of(size_t n, size_t per_job)
{
    return (n + per_job - 1) / per_job;
}

tms_status tms_cholesky(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err)
{
    struct work *work = NULL;
    tms_status status = work_create(&work, a, n, ld, err);
    if (status != TMS_OK) return status;
    for (size_t at = 0; at < n && status == TMS_OK; at += BLOCK) {
        work->at = at, work->width = least(BLOCK, n - at);
        if (at > 0) status = tms_pool_run(pool, jobs_of(n - at, ROWS), subtract_known, work, err);
        if (status == TMS_OK && !factor_block(work))
            status = tms_fail(err, TMS_EINPUT, "a matrix of %zu columns is not positive definite (columns %zu to %zu)",
                              n, at, at + work->width - 1);
        if (status == TMS_OK && at + BLOCK < n) {
            invert_block(work);
            status = tms_pool_run(pool, jobs_of(n - at - BLOCK, ROWS), divide_by_block, work, err);
        }
    }
    for (size_t i = 0; i < n && status == TMS_OK; i++) memset(a + i * ld + i + 1, 0, (ld - i - 1) * sizeof *a);
    free(work);
    return status;
}

/* Columns c … of the rows of the block: -inverse(L_ii) * (L[i][c …] * M[c …][c …]). M has zeros above its diagonal. */
static tms_status invert_columns(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    struct work *work = ctx;
    const size_t c = index * COLUMNS, n_c = least(COLUMNS, work->at - c);
    float sums[BLOCK * COLUMNS];
    memset(sums, 0, sizeof sums);
    tms_weighted_sums(work->copy + c, work->ld, work->width, work->a + c * work->ld + c, work->ld, work->at - c, n_c,
                      sums, COLUMNS);
    float *rows = work->a + work->at * work->ld + c;
    for (size_t i = 0; i < work->width; i++) memset(rows + i * work->ld, 0, n_c * sizeof *rows);
    tms_weighted_sums(work->inverse, BLOCK, work->width, sums, COLUMNS, work->width, n_c, rows, work->ld);
    for (size_t i = 0; i < work->width; i++)
        for (size_t j = 0; j < n_c; j++) rows[i * work->ld + j] = -rows[i * work->ld + j];
    return TMS_OK;
}

tms_status tms_lower_inverse(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err)
{
    struct work *work = NULL;
    tms_status status = work_create(&work, a, n, ld, err);
    if (status != TMS_OK) return status;
    work->copy = tms_calloc(ld, BLOCK * sizeof *work->copy);
    if (!work->copy) status = tms_fail_memory(err, ld * BLOCK * sizeof *work->copy);
    for (size_t at = 0; at < n && status == TMS_OK; at += BLOCK) {
        work->at = at, work->width = least(BLOCK, n - at);
        load_block(work);
        invert_block(work);
        for (size_t i = 0; i < work->width; i++)
            memcpy(work->copy + i * ld, a + (at + i) * ld, at * sizeof *work->copy);
        if (at > 0) status = tms_pool_run(pool, jobs_of(at, COLUMNS), invert_columns, work, err);
        for (size_t i = 0; i < work->width; i++)
            memcpy(a + (at + i) * ld + at, work->inverse + i * BLOCK, work->width * sizeof *a);
    }
    free(work->copy);
    free(work);
    return status;
}

/* Rows of Mᵀ M from those of Mᵀ, whose rows begin with zeros. */
static tms_status multiply_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    struct work *work = ctx;
    const size_t first = index * ROWS, n_rows = least(ROWS, work->n - first), padded = tms_padded(work->n);
    for (size_t k = first / 16 * 16; k < padded; k += TMS_DOT_PIECE)
        tms_dots(work->transposed + first * work->ld + k, work->ld, n_rows, work->transposed + k, work->ld, work->n,
                 least(TMS_DOT_PIECE, padded - k), work->a + first * work->ld, work->ld, k > first / 16 * 16);
    return TMS_OK;
}

tms_status tms_positive_inverse(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err)
{
    struct work *work = NULL;
    tms_status status = work_create(&work, a, n, ld, err);
    if (status != TMS_OK) return status;
    work->transposed = tms_calloc((uint64_t)n * ld, sizeof *work->transposed);
    if (!work->transposed) status = tms_fail_memory(err, (uint64_t)n * ld * sizeof *work->transposed);
    if (status == TMS_OK) status = tms_cholesky(a, n, ld, pool, err);
    if (status == TMS_OK) status = tms_lower_inverse(a, n, ld, pool, err);
    if (status == TMS_OK) {
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j <= i; j++) work->transposed[j * ld + i] = a[i * ld + j];
        status = tms_pool_run(pool, jobs_of(n, ROWS), multiply_rows, work, err);
        /* Both halves are the same sums but for where their pieces begin: one is kept. */
        for (size_t i = 0; i < n && status == TMS_OK; i++)
            for (size_t j = 0; j < i; j++) a[i * ld + j] = a[j * ld + i];
    }
    free(work->transposed);
    free(work);
    return status;
}

/* Rows and columns in reverse order. */
static void reverse(float *a, size_t n, size_t ld)
{
    for (size_t i = 0; i < n / 2; i++) {
        float *up = a + i * ld, *down = a + (n - 1 - i) * ld;
        for (size_t j = 0; j < n; j++) {
            float swap = up[j];
            up[j] = down[n - 1 - j];
            down[n - 1 - j] = swap;
        }
    }
    if (n % 2) {
        float *middle = a + n / 2 * ld;
        for (size_t j = 0; j < n / 2; j++) {
            float swap = middle[j];
            middle[j] = middle[n - 1 - j];
            middle[n - 1 - j] = swap;
        }
    }
}

tms_status tms_inverse_factor(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err)
{
    reverse(a, n, ld);
    tms_status status = tms_cholesky(a, n, ld, pool, err);
    if (status == TMS_OK) status = tms_lower_inverse(a, n, ld, pool, err);
    if (status == TMS_OK) reverse(a, n, ld);
    return status;
}

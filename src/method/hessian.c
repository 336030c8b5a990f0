/* See hessian.h. */
#include "method/hessian.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/numbers.h"
#include "engine/kernels/dots.h"
#include "method/cholesky.h"

enum {
    PANEL = 512,       /* tokens that are summed at once */
    STRIDE = 512 + 16, /* of the panel's rows (see tms_row_stride) */
    TILE = 120,        /* a multiple of the kernels' 5 */
    STRIP = 30,        /* rows of a tile on the diagonal that stop at it together */
    ROWS = 16          /* of a job of tms_hessian_error */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static tms_status create(struct tms_hessian **out, size_t n, struct tms_error *err)
{
    if (n == 0) return tms_fail(err, TMS_EUSAGE, "a Hessian of no columns");
    struct tms_hessian *made = tms_calloc(1, sizeof *made);
    if (!made) return tms_fail_memory(err, sizeof *made);
    made->n = n, made->ld = tms_square_stride(n);
    made->h = tms_calloc_lines((uint64_t)n * made->ld, sizeof *made->h);
    if (!made->h) {
        tms_hessian_free(made);
        return tms_fail_memory(err, (uint64_t)n * tms_square_stride(n) * sizeof *made->h);
    }
    *out = made;
    return TMS_OK;
}

tms_status tms_hessian_create(struct tms_hessian **out, size_t n, struct tms_error *err)
{
    struct tms_hessian *made;
    tms_status status = create(&made, n, err);
    if (status != TMS_OK) return status;
    made->panel = tms_calloc_lines(n, STRIDE * sizeof *made->panel);
    if (!made->panel) {
        tms_hessian_free(made);
        return tms_fail_memory(err, (uint64_t)n * STRIDE * sizeof *made->panel);
    }
    *out = made;
    return TMS_OK;
}

tms_status tms_hessian_from(struct tms_hessian **out, const float *entries, size_t n, struct tms_error *err)
{
    struct tms_hessian *made;
    tms_status status = create(&made, n, err);
    if (status != TMS_OK) return status;
    for (size_t i = 0; i < n; i++) memcpy(made->h + i * made->ld, entries + i * n, n * sizeof *entries);
    *out = made;
    return TMS_OK;
}

void tms_hessian_free(struct tms_hessian *hessian)
{
    if (!hessian) return;
    free(hessian->panel);
    free(hessian->h);
    free(hessian);
}

struct adding {
    struct tms_hessian *hessian;
    const float *x;
    size_t ldx, n_tokens;
};

/* Channels 16 i … of the new tokens go into the panel. */
static tms_status transpose(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    const struct adding *adding = ctx;
    struct tms_hessian *hessian = adding->hessian;
    const size_t first = index * 16, end = least(first + 16, hessian->n);
    for (size_t t0 = 0; t0 < adding->n_tokens; t0 += 16)
        for (size_t c = first; c < end; c++)
            for (size_t t = t0; t < least(t0 + 16, adding->n_tokens); t++)
                hessian->panel[c * STRIDE + hessian->n_waiting + t] = adding->x[t * adding->ldx + c];
    return TMS_OK;
}

/* Tile number `index` of the lower triangle, counted by rows of tiles. */
static tms_status add_tile(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    struct tms_hessian *hessian = ctx;
    size_t row = (size_t)((sqrt(8.0 * (double)index + 1) - 1) / 2);
    while (row * (row + 1) / 2 > index) row--;
    while ((row + 1) * (row + 2) / 2 <= index) row++;
    const size_t end = least((row + 1) * TILE, hessian->n), j = (index - row * (row + 1) / 2) * TILE;
    const size_t step = j == row * TILE ? STRIP : TILE;
    for (size_t i = row * TILE; i < end; i += step) {
        const size_t n_rows = least(step, end - i), n_cols = least(TILE, i + n_rows - j);
        tms_dots(hessian->panel + i * STRIDE, STRIDE, n_rows, hessian->panel + j * STRIDE, STRIDE, n_cols,
                 tms_padded(hessian->n_waiting), hessian->h + i * hessian->ld + j, hessian->ld, true);
    }
    return TMS_OK;
}

static tms_status flush(struct tms_hessian *hessian, struct tms_pool *pool, struct tms_error *err)
{
    const size_t tiles = (hessian->n + TILE - 1) / TILE;
    tms_status status = tms_pool_run(pool, tiles * (tiles + 1) / 2, add_tile, hessian, err);
    if (status != TMS_OK) return status;
    memset(hessian->panel, 0, hessian->n * STRIDE * sizeof *hessian->panel);
    hessian->n_waiting = 0;
    return TMS_OK;
}

tms_status tms_hessian_add(struct tms_hessian *hessian, const float *x, size_t ldx, size_t n_tokens,
                           struct tms_pool *pool, struct tms_error *err)
{
    if (!hessian->panel) return tms_fail(err, TMS_EUSAGE, "a finished Hessian takes no more tokens");
    for (size_t t = 0; t < n_tokens; t++) {
        size_t bad = tms_first_nonfinite(x + t * ldx, hessian->n);
        if (bad < hessian->n)
            return tms_fail(err, TMS_EINPUT, "the input of token %zu is not finite in channel %zu", t, bad);
    }
    for (size_t t = 0; t < n_tokens;) {
        struct adding adding = {hessian, x + t * ldx, ldx, least(n_tokens - t, PANEL - hessian->n_waiting)};
        tms_status status = tms_pool_run(pool, (hessian->n + 15) / 16, transpose, &adding, err);
        if (status != TMS_OK) return status;
        hessian->n_waiting += adding.n_tokens;
        hessian->n_tokens += adding.n_tokens;
        t += adding.n_tokens;
        if (hessian->n_waiting == PANEL) {
            status = flush(hessian, pool, err);
            if (status != TMS_OK) return status;
        }
    }
    return TMS_OK;
}

tms_status tms_hessian_finish(struct tms_hessian *hessian, struct tms_pool *pool, struct tms_error *err)
{
    if (!hessian->panel) return TMS_OK;
    if (hessian->n_waiting > 0) {
        tms_status status = flush(hessian, pool, err);
        if (status != TMS_OK) return status;
    }
    const float factor = hessian->n_tokens > 0 ? (float)(2 / (double)hessian->n_tokens) : 0;
    const size_t n = hessian->n, ld = hessian->ld;
    float *h = hessian->h;
    /* In tiles, as rows and columns are written at once. */
    for (size_t i0 = 0; i0 < n; i0 += TILE)
        for (size_t j0 = 0; j0 <= i0; j0 += TILE)
            for (size_t i = i0; i < least(i0 + TILE, n); i++)
                for (size_t j = j0; j < least(j0 + TILE, i + 1); j++)
                    h[j * ld + i] = h[i * ld + j] = h[i * ld + j] * factor;
    free(hessian->panel);
    hessian->panel = NULL;
    return TMS_OK;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

tms_status tms_hessian_shrink(struct tms_hessian *hessian, double share, double of_median, struct tms_error *err)
{
    const size_t n = hessian->n, step = hessian->ld + 1;
    size_t n_used = 0;
    double sum = 0;
    if (hessian->shrunk) return TMS_OK;
    float *used = tms_calloc(n, sizeof *used);
    if (!used) return tms_fail_memory(err, n * sizeof *used);
    for (size_t i = 0; i < n; i++) {
        sum += (double)hessian->h[i * step];
        if (hessian->h[i * step] > 0) used[n_used++] = hessian->h[i * step];
    }
    qsort(used, n_used, sizeof *used, by_size);
    const double more = n_used ? of_median * (double)used[n_used / 2] : 0;
    for (size_t i = 0; i < n; i++) {
        float *entry = &hessian->h[i * step];
        *entry = (float)(*entry > 0 ? (double)*entry * (1 + share) + more : 1e-6 * sum / (double)n);
    }
    hessian->shrunk = true;
    free(used);
    return TMS_OK;
}

uint64_t tms_hessian_packed(size_t n)
{
    return (uint64_t)n * (n + 1) / 2;
}

void tms_hessian_pack_rows(const struct tms_hessian *hessian, size_t first, size_t end, float *triangle)
{
    for (size_t i = first; i < end; i++) {
        memcpy(triangle, hessian->h + i * hessian->ld, (i + 1) * sizeof *triangle);
        triangle += i + 1;
    }
}

void tms_hessian_pack(const struct tms_hessian *hessian, float *triangle)
{
    tms_hessian_pack_rows(hessian, 0, hessian->n, triangle);
}

tms_status tms_hessian_empty(struct tms_hessian **out, size_t n, struct tms_error *err)
{
    return create(out, n, err);
}

void tms_hessian_unpack_rows(struct tms_hessian *hessian, size_t first, size_t end, const float *triangle)
{
    for (size_t i = first; i < end; i++)
        for (size_t j = 0; j <= i; j++) hessian->h[i * hessian->ld + j] = hessian->h[j * hessian->ld + i] = *triangle++;
}

tms_status tms_hessian_unpack(struct tms_hessian **out, const float *triangle, size_t n, struct tms_error *err)
{
    tms_status status = create(out, n, err);
    if (status == TMS_OK) tms_hessian_unpack_rows(*out, 0, n, triangle);
    return status;
}

struct measuring {
    const struct tms_hessian *hessian;
    const float *a, *b;
    size_t n_rows;
    double *errors; /* [n_rows] */
};

static tms_status measure_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker;
    const struct measuring *measuring = ctx;
    const struct tms_hessian *hessian = measuring->hessian;
    const size_t first = index * ROWS, n_rows = least(ROWS, measuring->n_rows - first), n = hessian->n;
    const size_t ld = hessian->ld;
    float *difference = tms_calloc(2 * ROWS * (uint64_t)ld, sizeof *difference);
    if (!difference) return tms_fail_memory(err, 2 * ROWS * (uint64_t)ld * sizeof *difference);
    float *product = difference + ROWS * ld;
    for (size_t i = 0; i < n_rows; i++)
        for (size_t c = 0; c < n; c++)
            difference[i * ld + c] = measuring->a[(first + i) * n + c] - measuring->b[(first + i) * n + c];
    for (size_t k = 0; k < tms_padded(n); k += TMS_DOT_PIECE)
        tms_dots(difference + k, ld, n_rows, hessian->h + k, ld, n, least(TMS_DOT_PIECE, tms_padded(n) - k), product,
                 ld, k > 0);
    for (size_t i = 0; i < n_rows; i++) {
        double sum = 0;
        for (size_t c = 0; c < n; c++) sum += (double)difference[i * ld + c] * (double)product[i * ld + c];
        measuring->errors[first + i] = sum;
    }
    free(difference);
    return TMS_OK;
}

tms_status tms_hessian_error(const struct tms_hessian *hessian, const float *a, const float *b, size_t n_rows,
                             double *error, struct tms_pool *pool, struct tms_error *err)
{
    double *errors = tms_calloc(n_rows, sizeof *errors);
    if (!errors) return tms_fail_memory(err, n_rows * sizeof *errors);
    struct measuring measuring = {hessian, a, b, n_rows, errors};
    tms_status status = tms_pool_run(pool, (n_rows + ROWS - 1) / ROWS, measure_rows, &measuring, err);
    if (status == TMS_OK) {
        double sum = 0;
        for (size_t i = 0; i < n_rows; i++) sum += errors[i];
        *error = sum;
    }
    free(errors);
    return status;
}

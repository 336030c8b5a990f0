/* See fold_search.h. */
#include "target/fold_search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "method/affine.h"
#include "target/grid_route.h"

enum { ROWS = 8 /* of a job */ };

void tms_fold_importance(const struct tms_hessian *hessian, float *importance)
{
    double sum = 0;
    for (size_t i = 0; i < hessian->n; i++) {
        importance[i] = hessian->h[i * hessian->ld + i];
        sum += (double)importance[i];
    }
    const float least = sum > 0 ? (float)(1e-6 * sum / (double)hessian->n) : 1; /* encoders divide by their sum */
    for (size_t i = 0; i < hessian->n; i++) importance[i] = importance[i] > least ? importance[i] : least;
}

/* As GPTQ will find a group's parameters, nearly: its norm is 2.4, which takes ten times as long. */
static void round_affine(const struct tms_grid_route *route, const float *rows, size_t n_rows, size_t n_cols,
                         float *out)
{
    const struct tms_affine affine = {.bits = route->grid.bits, .symmetric = route->rounding.symmetric, .norm = 2};
    const float top = (float)((1u << affine.bits) - 1);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t first = 0; first < n_cols; first += (size_t)route->grid.group) {
            const float *w = rows + r * n_cols + first;
            const size_t n = n_cols - first < route->grid.group ? n_cols - first : (size_t)route->grid.group;
            float scale, zero;
            tms_affine_fit(&affine, w, n, &scale, &zero);
            for (size_t i = 0; i < n; i++)
                out[r * n_cols + first + i] = scale * (tms_affine_code(w[i], scale, zero, top) - zero);
        }
}

static tms_status round_grid(const struct tms_grid_route *route, const float *rows, size_t n_rows, size_t n_cols,
                             float *out, struct tms_error *err)
{
    struct tms_grid part = route->grid;
    part.rows = n_rows;
    const uint64_t n = n_rows * tms_grid_groups(&part), n_codes = (uint64_t)n_rows * n_cols;
    float *scales = tms_calloc(n, sizeof *scales);
    uint8_t *codes = tms_calloc(n + n_codes, 1), *zeros = codes ? codes + n_codes : NULL;
    if (!scales || !codes) {
        free(scales);
        free(codes);
        return tms_fail_memory(err, n * 5 + n_codes);
    }
    if (!part.has_zeros) zeros = NULL;
    tms_grid_round(&part, &route->rounding, rows, 0, n_rows, scales, zeros, codes);
    tms_grid_apply(&part, scales, zeros, 0, n_rows, 0, n_cols, codes, n_cols, out, n_cols);
    free(scales);
    free(codes);
    return TMS_OK;
}

tms_status tms_fold_round(const struct tms_route *route, const float *rows, size_t n_rows, size_t n_cols,
                          const float *importance, uint8_t *codes, float *out, struct tms_error *err)
{
    if (route->kind == TMS_ROUTE_GRID) return round_grid(route->grid, rows, n_rows, n_cols, out, err);
    if (importance && route->codec->encode_weighted)
        route->codec->encode_weighted(rows, importance, codes, n_rows, n_cols);
    else
        route->codec->encode(rows, codes, n_rows * n_cols);
    route->codec->decode(codes, out, n_rows * n_cols);
    return TMS_OK;
}

struct trial {
    const struct tms_fold_reader *reader;
    const float *scales, *importance; /* [n_cols] */
    float *out;                       /* [n_rows][n_cols]: rounded and scaled back */
};

static tms_status try_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct trial *t = ctx;
    const struct tms_fold_reader *reader = t->reader;
    const size_t n = reader->n_cols, first = index * ROWS;
    const size_t n_rows = reader->n_rows - first < ROWS ? reader->n_rows - first : ROWS, n_values = n_rows * n;
    const float *w = reader->rows + first * n;
    float *scaled = tms_calloc(2 * (uint64_t)n_values, sizeof *scaled), *out = t->out + first * n;
    tms_status status = scaled ? TMS_OK : tms_fail_memory(err, 2 * (uint64_t)n_values * sizeof *scaled);
    (void)worker;
    if (status != TMS_OK) return status;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n; c++) scaled[r * n + c] = w[r * n + c] * t->scales[c];
    if (reader->route->kind == TMS_ROUTE_GRID && reader->cost)
        round_affine(reader->route->grid, scaled, n_rows, n, out);
    else /* blocks are at most as long as their values */
        status =
            tms_fold_round(reader->route, scaled, n_rows, n, t->importance, (uint8_t *)(scaled + n_values), out, err);
    for (size_t r = 0; r < n_rows && status == TMS_OK; r++)
        for (size_t c = 0; c < n; c++) out[r * n + c] /= t->scales[c];
    free(scaled);
    return status;
}

/* The error of a reader under some scales. */
static tms_status error_of(struct trial *t, double *error, struct tms_pool *pool, struct tms_error *err)
{
    const struct tms_fold_reader *reader = t->reader;
    const size_t n = reader->n_cols;
    tms_status status = tms_pool_run(pool, (reader->n_rows + ROWS - 1) / ROWS, try_rows, t, err);
    if (status != TMS_OK) return status;
    if (!reader->cost)
        return tms_hessian_error(reader->hessian, reader->rows, t->out, reader->n_rows, error, pool, err);
    *error = 0;
    for (size_t r = 0; r < reader->n_rows; r++) {
        double sum = 0;
        for (size_t c = 0; c < n; c++) {
            const double d = (double)(reader->rows[r * n + c] - t->out[r * n + c]);
            sum += d * d * (double)reader->cost[c];
        }
        *error += sum;
    }
    return TMS_OK;
}

/* Adds a reader's errors under all candidates, as parts of its output. */
static tms_status add_errors(const struct tms_fold_reader *reader, const float *candidates, size_t n, size_t n_scales,
                             const uint32_t *of, double *errors, struct tms_pool *pool, struct tms_error *err)
{
    const uint64_t n_values = (uint64_t)reader->n_rows * reader->n_cols, n_floats = n_values + 3 * reader->n_cols;
    float *out = tms_calloc(n_floats, sizeof *out);
    if (!out) return tms_fail_memory(err, n_floats * sizeof *out);
    float *scales = out + n_values, *importance = scales + reader->n_cols, *unscaled = importance + reader->n_cols;
    double whole = 0;
    tms_status status = tms_hessian_error(reader->hessian, reader->rows, out, reader->n_rows, &whole, pool, err);
    tms_fold_importance(reader->hessian, unscaled);
    for (size_t k = 0; k < n && status == TMS_OK; k++) {
        double error = 0;
        for (size_t c = 0; c < reader->n_cols; c++) {
            scales[c] = candidates[k * n_scales + (of ? of[c] : c)];
            importance[c] = (reader->cost ? reader->cost[c] : unscaled[c]) / (scales[c] * scales[c]);
        }
        struct trial trial = {reader, scales, importance, out};
        status = error_of(&trial, &error, pool, err);
        errors[k] += whole > 0 ? reader->share * error / whole : 0;
    }
    free(out);
    return status;
}

tms_status tms_fold_search(size_t *best, const struct tms_fold_reader *readers, size_t n_readers,
                           const float *candidates, size_t n, size_t n_scales, const uint32_t *of,
                           struct tms_pool *pool, struct tms_error *err)
{
    double *errors = tms_calloc(n, sizeof *errors);
    tms_status status = errors ? TMS_OK : tms_fail_memory(err, n * sizeof *errors);
    size_t found = n;
    for (size_t i = 0; i < n_readers && status == TMS_OK; i++)
        status = add_errors(&readers[i], candidates, n, n_scales, of, errors, pool, err);
    for (size_t k = 0; k < n && status == TMS_OK; k++)
        if (isfinite(errors[k]) && (found == n || errors[k] < errors[found])) found = k;
    if (status == TMS_OK && found == n) status = tms_fail(err, TMS_EINPUT, "no scales give a finite error");
    if (status == TMS_OK) *best = found;
    free(errors);
    return status;
}

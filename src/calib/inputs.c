/* See inputs.h. */
#include "calib/inputs.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/numbers.h"

enum tms_linear tms_input_owner(enum tms_linear linear)
{
    switch (linear) {
    case TMS_LINEAR_K:
    case TMS_LINEAR_V: return TMS_LINEAR_Q;
    case TMS_LINEAR_UP: return TMS_LINEAR_GATE;
    case TMS_LINEAR_Q_A: return TMS_LINEAR_KV_A;
    case TMS_LINEAR_SHARED_SWITCH:
    case TMS_LINEAR_SHARED_GATE:
    case TMS_LINEAR_SHARED_UP: return TMS_LINEAR_ROUTER;
    case TMS_LINEAR_EXPERT_UP: return TMS_LINEAR_EXPERT_GATE;
    default: return linear;
    }
}

static tms_status make_input(struct tms_input *in, size_t cols, size_t parts, const struct tms_inputs *wanted,
                             struct tms_error *err)
{
    uint64_t n = (uint64_t)cols * parts;
    in->cols = cols;
    in->parts = parts;
    in->counts = tms_calloc(parts, sizeof *in->counts);
    in->squares = tms_calloc(n, sizeof *in->squares);
    in->magnitudes = tms_calloc(n, sizeof *in->magnitudes);
    in->lows = tms_calloc(n, sizeof *in->lows);
    in->highs = tms_calloc(n, sizeof *in->highs);
    if (wanted->hessians) in->hessians = tms_calloc(parts, sizeof(struct tms_hessian *));
    if (wanted->histograms) in->histogram = tms_calloc(1, sizeof *in->histogram);
    if (!in->counts || !in->squares || !in->magnitudes || !in->lows || !in->highs ||
        (wanted->hessians && !in->hessians) || (wanted->histograms && !in->histogram))
        return tms_fail_memory(err, n * 24);
    return TMS_OK;
}

struct sums {
    struct tms_input *in;
    const struct tms_tap *tap;
    size_t part;
};

#define COLUMNS 64 /* of a job */

/* Sums of columns, row after row: n rows of x [n][ldx], n_cols <= COLUMNS. */
TMS_INLINE void add_rows_body(const float *restrict x, size_t ldx, size_t n, size_t n_cols, double *restrict squares,
                              double *restrict magnitudes, float *restrict lows, float *restrict highs)
{
    for (size_t row = 0; row < n; row++)
        for (size_t c = 0; c < n_cols; c++) {
            const float v = x[row * ldx + c];
            squares[c] += (double)v * (double)v;
            magnitudes[c] += fabs((double)v);
            lows[c] = v < lows[c] ? v : lows[c];
            highs[c] = v > highs[c] ? v : highs[c];
        }
}
TMS_BY_CPU(static, add_rows,
           (const float *restrict x, size_t ldx, size_t n, size_t n_cols, double *restrict squares,
            double *restrict magnitudes, float *restrict lows, float *restrict highs),
           (x, ldx, n, n_cols, squares, magnitudes, lows, highs))

static tms_status sum_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct sums *s = ctx;
    const struct tms_tap *tap = s->tap;
    size_t first = index * COLUMNS, end = first + COLUMNS < s->in->cols ? first + COLUMNS : s->in->cols;
    size_t at = s->part * s->in->cols + first;
    float *lows = s->in->lows + at, *highs = s->in->highs + at;
    (void)worker, (void)err;
    for (size_t c = 0; c < end - first && s->in->counts[s->part] == 0; c++) {
        lows[c] = INFINITY;
        highs[c] = -INFINITY;
    }
    add_rows(tap->x + first, tap->stride, tap->n, end - first, s->in->squares + at, s->in->magnitudes + at, lows,
             highs);
    return TMS_OK;
}

/* Counts do not depend on the order in which values come, so each job fills one of its own. */
#define HISTOGRAM_ROWS 64

struct counting {
    const struct tms_tap *tap;
    struct tms_histogram *of_workers;
};

static tms_status count_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct counting *c = ctx;
    size_t first = index * HISTOGRAM_ROWS;
    size_t end = first + HISTOGRAM_ROWS < c->tap->n ? first + HISTOGRAM_ROWS : c->tap->n;
    (void)err;
    for (size_t row = first; row < end; row++)
        tms_histogram_add(&c->of_workers[worker], c->tap->x + row * c->tap->stride, (size_t)c->tap->cols);
    return TMS_OK;
}

static tms_status add_histogram(struct tms_inputs *inputs, struct tms_histogram *histogram, const struct tms_tap *tap,
                                struct tms_error *err)
{
    size_t n_workers = tms_pool_threads(inputs->pool);
    struct counting c = {tap, tms_calloc(n_workers, sizeof *histogram)};
    if (!c.of_workers) return tms_fail_memory(err, n_workers * sizeof *histogram);
    tms_status status = tms_pool_run(inputs->pool, (tap->n + HISTOGRAM_ROWS - 1) / HISTOGRAM_ROWS, count_job, &c, err);
    for (size_t i = 0; i < n_workers && status == TMS_OK; i++) tms_histogram_merge(histogram, &c.of_workers[i]);
    free(c.of_workers);
    return status;
}

static tms_status add_sums(struct tms_inputs *inputs, struct tms_input *in, const struct tms_tap *tap, size_t part,
                           struct tms_error *err)
{
    struct sums s = {in, tap, part};
    tms_status status = tms_pool_run(inputs->pool, (in->cols + COLUMNS - 1) / COLUMNS, sum_job, &s, err);
    in->counts[part] += tap->n;
    return status == TMS_OK && in->histogram ? add_histogram(inputs, in->histogram, tap, err) : status;
}

static tms_status check(const struct tms_inputs *inputs, const struct tms_tap *tap, struct tms_error *err)
{
    for (size_t i = 0; i < tap->n; i++) {
        const float *x = tap->x + i * tap->stride;
        size_t bad = tms_first_nonfinite(x, (size_t)tap->cols);
        if (bad < tap->cols)
            return tms_fail(err, TMS_EINPUT,
                            "%s: layer %llu: value %zu of the input of a linear layer is %g, no finite number",
                            inputs->model, (unsigned long long)tap->layer, bad, (double)x[bad]);
    }
    return TMS_OK;
}

tms_status tms_inputs_add(void *ctx, const struct tms_tap *tap, struct tms_error *err)
{
    struct tms_inputs *inputs = ctx;
    struct tms_input *in = &inputs->layer.of[tap->linear];
    if (tms_input_owner(tap->linear) != tap->linear || tap->n == 0) return TMS_OK;
    tms_status status = check(inputs, tap, err);
    if (status == TMS_OK && !in->cols)
        status = make_input(in, (size_t)tap->cols, tap->expert >= 0 ? inputs->n_experts : 1, inputs, err);
    if (status != TMS_OK) return status;
    const size_t part = tap->expert >= 0 ? (size_t)tap->expert : 0;
    if (inputs->first_expert == 0) status = add_sums(inputs, in, tap, part, err);
    if (status != TMS_OK || !in->hessians || part < inputs->first_expert || part >= inputs->end_expert) return status;
    struct tms_hessian **hessian = &in->hessians[part];
    if (!*hessian) status = tms_hessian_create(hessian, in->cols, err);
    return status == TMS_OK ? tms_hessian_add(*hessian, tap->x, tap->stride, tap->n, inputs->pool, err) : status;
}

tms_status tms_inputs_finish(struct tms_inputs *inputs, struct tms_error *err)
{
    tms_status status = TMS_OK;
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        const struct tms_input *in = &inputs->layer.of[i];
        for (size_t k = 0; in->hessians && k < in->parts && status == TMS_OK; k++)
            if (in->hessians[k]) status = tms_hessian_finish(in->hessians[k], inputs->pool, err);
    }
    return status;
}

uint64_t tms_inputs_bytes(const struct tms_inputs *inputs, const struct tms_net *net, uint64_t n_layers,
                          size_t experts_at_once)
{
    const uint64_t sums = 24,
                   waiting = 528 * 4; /* of a column: four sums; tokens that wait for a Hessian (hessian.c) */
    uint64_t most = 0;
    for (uint64_t layer = 0; layer <= n_layers; layer++) {
        struct tms_net_matrix m;
        uint64_t bytes = 0;
        for (size_t at = 0; tms_net_matrix(net, layer, &at, &m);) {
            if (tms_input_owner(m.linear) != m.linear) continue;
            bytes += m.cols * sums;
            if (inputs->hessians && m.expert < (int)experts_at_once) bytes += m.cols * ((m.cols + 32) * 4 + waiting);
            if (inputs->histograms) bytes += sizeof(struct tms_histogram);
        }
        if (bytes > most) most = bytes;
    }
    return most + (inputs->histograms ? tms_pool_threads(inputs->pool) * sizeof(struct tms_histogram) : 0);
}

void tms_inputs_drop_hessians(struct tms_inputs *inputs)
{
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        struct tms_input *in = &inputs->layer.of[i];
        for (size_t k = 0; in->hessians && k < in->parts; k++) {
            tms_hessian_free(in->hessians[k]);
            in->hessians[k] = NULL;
        }
    }
}

void tms_inputs_clear(struct tms_inputs *inputs)
{
    tms_inputs_drop_hessians(inputs);
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        struct tms_input *in = &inputs->layer.of[i];
        free(in->counts);
        free(in->squares);
        free(in->magnitudes);
        free(in->lows);
        free(in->highs);
        free(in->histogram);
        free(in->hessians);
        *in = (struct tms_input){0};
    }
}

/* See inputs.h. */
#include "calib/inputs.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

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

static tms_status make_input(struct tms_input *in, size_t cols, size_t parts, bool hessian, struct tms_error *err)
{
    uint64_t n = (uint64_t)cols * parts, square = 0;
    bool fits = !hessian || tms_mul_u64(n, cols, &square);
    in->cols = cols;
    in->parts = parts;
    in->counts = tms_calloc(parts, sizeof *in->counts);
    in->squares = tms_calloc(n, sizeof *in->squares);
    in->magnitudes = tms_calloc(n, sizeof *in->magnitudes);
    in->lows = tms_calloc(n, sizeof *in->lows);
    in->highs = tms_calloc(n, sizeof *in->highs);
    if (hessian && fits) in->hessian = tms_calloc(square, sizeof *in->hessian);
    if (!in->counts || !in->squares || !in->magnitudes || !in->lows || !in->highs || (hessian && !in->hessian))
        return tms_fail_memory(err, n * 24 + square * 4);
    return TMS_OK;
}

struct sums {
    struct tms_input *in;
    const struct tms_tap *tap;
    size_t part;
};

#define COLUMNS 64 /* of a job */

static tms_status sum_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct sums *s = ctx;
    const struct tms_tap *tap = s->tap;
    size_t first = index * COLUMNS, end = first + COLUMNS < s->in->cols ? first + COLUMNS : s->in->cols;
    size_t at = s->part * s->in->cols;
    double *squares = s->in->squares + at, *magnitudes = s->in->magnitudes + at;
    float *lows = s->in->lows + at, *highs = s->in->highs + at;
    bool begins = s->in->counts[s->part] == 0;
    (void)worker, (void)err;
    for (size_t c = first; c < end && begins; c++) {
        lows[c] = INFINITY;
        highs[c] = -INFINITY;
    }
    for (size_t row = 0; row < tap->n; row++) {
        const float *x = tap->x + row * tap->stride;
        for (size_t c = first; c < end; c++) {
            squares[c] += (double)x[c] * (double)x[c];
            magnitudes[c] += fabs((double)x[c]);
            lows[c] = x[c] < lows[c] ? x[c] : lows[c];
            highs[c] = x[c] > highs[c] ? x[c] : highs[c];
        }
    }
    return TMS_OK;
}

tms_status tms_inputs_add(void *ctx, const struct tms_tap *tap, struct tms_error *err)
{
    struct tms_inputs *inputs = ctx;
    struct tms_input *in = &inputs->layer.of[tap->linear];
    if (tms_input_owner(tap->linear) != tap->linear || tap->n == 0) return TMS_OK;
    if (!in->cols) {
        tms_status status =
            make_input(in, (size_t)tap->cols, tap->expert >= 0 ? inputs->n_experts : 1, inputs->hessians, err);
        if (status != TMS_OK) return status;
    }
    struct sums s = {in, tap, tap->expert >= 0 ? (size_t)tap->expert : 0};
    tms_status status = tms_pool_run(inputs->pool, (in->cols + COLUMNS - 1) / COLUMNS, sum_job, &s, err);
    in->counts[s.part] += tap->n;
    return status;
}

void tms_inputs_clear(struct tms_inputs *inputs)
{
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        struct tms_input *in = &inputs->layer.of[i];
        free(in->counts);
        free(in->squares);
        free(in->magnitudes);
        free(in->lows);
        free(in->highs);
        free(in->hessian);
        *in = (struct tms_input){0};
    }
}

/* See hqq.h. */
#include "method/hqq.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/numbers.h"
#include "method/power.h"

enum { GROUPS = 256 /* of a job */ };

struct work {
    const float *w;
    size_t n_groups, group;
    float top;
    float *inverse, *zeros; /* of each group: codes per unit, zero */
    double *errors;         /* sum of |w - w_q| of each job */
};

TMS_INLINE float code_of(float w, float inverse, float zero, float top)
{
    float code = rintf(w * inverse + zero);
    code = code > 0 ? code : 0;
    return code < top ? code : top;
}

/* One step of one group. Returns the new zero; adds to sum the errors with the old one. */
TMS_INLINE void step_body(const float *restrict w, size_t n, float inverse, float top, float *restrict zero,
                          double *restrict sum)
{
    enum { LANES = 8 };
    double zeros[LANES] = {0}, errors[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        const size_t count = n - i < LANES ? n - i : LANES;
        for (size_t l = 0; l < count; l++) {
            const float code = code_of(w[i + l], inverse, *zero, top), d = w[i + l] - (code - *zero) / inverse;
            const float magnitude = fabsf(d);
            float e = magnitude - (float)tms_power((double)magnitude, -0.3) / 10;
            e = e > 0 ? e : 0;
            errors[l] += (double)magnitude;
            zeros[l] += (double)(code - (w[i + l] - (d < 0 ? -e : e)) * inverse);
        }
    }
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) zeros[l] += zeros[l + half], errors[l] += errors[l + half];
    *zero = (float)(zeros[0] / (double)n);
    *sum += errors[0];
}
TMS_BY_CPU(static, step,
           (const float *restrict w, size_t n, float inverse, float top, float *restrict zero, double *restrict sum),
           (w, n, inverse, top, zero, sum))

static tms_status step_groups(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    struct work *work = ctx;
    const size_t first = index * GROUPS, end = first + GROUPS < work->n_groups ? first + GROUPS : work->n_groups;
    work->errors[index] = 0;
    for (size_t g = first; g < end; g++)
        step(work->w + g * work->group, work->group, work->inverse[g], work->top, &work->zeros[g],
             &work->errors[index]);
    return TMS_OK;
}

tms_status tms_hqq(const float *w, size_t n, const struct tms_hqq_options *options, uint8_t *codes, float *scales,
                   float *zeros, struct tms_pool *pool, struct tms_error *err)
{
    const size_t group = options->group;
    if (options->bits < 1 || options->bits > 8)
        return tms_fail(err, TMS_EUSAGE, "HQQ with %u bits: 1 to 8 are possible", options->bits);
    if (group == 0 || n % group != 0)
        return tms_fail(err, TMS_EUSAGE, "groups of %zu do not divide %zu weights", group, n);
    const size_t bad = tms_first_nonfinite(w, n);
    if (bad < n) return tms_fail(err, TMS_EINPUT, "weight %zu is not finite", bad);
    const size_t n_groups = n / group, n_jobs = (n_groups + GROUPS - 1) / GROUPS;
    struct work work = {w, n_groups, group, (float)((1u << options->bits) - 1), scales, zeros, NULL};
    work.errors = tms_calloc(n_jobs, sizeof *work.errors);
    if (!work.errors) return tms_fail_memory(err, n_jobs * sizeof *work.errors);
    for (size_t g = 0; g < n_groups; g++) {
        float low = w[g * group], high = low;
        for (size_t i = g * group; i < (g + 1) * group; i++) {
            low = w[i] < low ? w[i] : low;
            high = w[i] > high ? w[i] : high;
        }
        float inverse = high - low <= 1e-4f ? 1 : work.top / (high - low);
        inverse = inverse < 2e4f ? inverse : 2e4f;
        scales[g] = inverse;
        zeros[g] = -low * inverse;
        if (options->round_zero) zeros[g] = rintf(zeros[g]);
    }
    tms_status status = TMS_OK;
    double best = HUGE_VAL;
    for (int k = 0; k < (options->n_steps > 0 ? options->n_steps : 20); k++) {
        status = tms_pool_run(pool, n_jobs, step_groups, &work, err);
        if (status != TMS_OK) goto done;
        double sum = 0;
        for (size_t j = 0; j < n_jobs; j++) sum += work.errors[j];
        if (!(sum < best)) break;
        best = sum;
    }
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t i = g * group; i < (g + 1) * group; i++)
            codes[i] = (uint8_t)code_of(w[i], scales[g], zeros[g], work.top);
        scales[g] = 1 / scales[g];
    }
done:
    free(work.errors);
    return status;
}

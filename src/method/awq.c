/* See awq.h. */
#include "method/awq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/numbers.h"
#include "method/power.h"

enum { ROWS = 16 /* of a job */, MOST_STEPS = 10 /* of the clip search */ };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- rounding ---- */

static float narrow(float x, bool half)
{
    return half ? tms_f16_to_f32(tms_f32_to_f16(x)) : x;
}

static float clamped(float x, float top)
{
    x = x > 0 ? x : 0;
    return x < top ? x : top;
}

TMS_INLINE void round_group_body(float *w, size_t n, float scale, float zero, float top)
{
    for (size_t i = 0; i < n; i++) {
        float code = rintf(w[i] / scale) + zero;
        code = code > 0 ? code : 0;
        code = code < top ? code : top;
        w[i] = (code - zero) * scale;
    }
}
TMS_BY_CPU(static, round_group, (float *w, size_t n, float scale, float zero, float top), (w, n, scale, zero, top))

static void parameters(const float *w, size_t n, float top, bool half, float *scale, float *zero)
{
    float low = w[0], high = w[0];
    for (size_t i = 1; i < n; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    const float range = narrow(high - low, half), smallest = narrow(1e-5f, half);
    *scale = narrow((range > smallest ? range : smallest) / top, half);
    *zero = clamped(-rintf(narrow(low / *scale, half)), top);
}

void tms_awq_round(float *w, size_t n_rows, size_t n_cols, size_t group, unsigned bits, bool half, uint8_t *codes,
                   float *scales, uint8_t *zeros)
{
    if (group == 0) group = n_cols;
    const float top = (float)((1u << bits) - 1);
    for (size_t at = 0, g = 0; at < n_rows * n_cols; g++) {
        const size_t n = least(group, n_cols - at % n_cols);
        float scale, zero;
        parameters(w + at, n, top, half, &scale, &zero);
        if (scales) scales[g] = scale;
        if (zeros) zeros[g] = (uint8_t)zero;
        if (half || codes) {
            const float low = narrow(zero * scale, half);
            for (size_t i = at; i < at + n; i++) {
                w[i] = narrow((clamped(rintf(narrow(w[i] / scale, half)) + zero, top) - zero) * scale, half);
                /* Found again from the rounded weight, as AutoAWQ's packer does. */
                if (codes) codes[i] = (uint8_t)clamped(rintf(narrow(narrow(w[i] + low, half) / scale, half)), top);
            }
        } else {
            round_group(w + at, n, scale, zero, top);
        }
        at += n;
    }
}

/* ---- scales ---- */

void tms_awq_weight_mean(const struct tms_awq_layer *layers, size_t n_layers, size_t n_cols, size_t group, float *mean)
{
    if (group == 0) group = n_cols;
    for (size_t first = 0; first < n_cols; first += group) {
        const size_t n = least(group, n_cols - first);
        for (size_t c = first; c < first + n; c++) mean[c] = 0;
        size_t n_rows = 0;
        for (size_t l = 0; l < n_layers; l++) {
            for (size_t r = 0; r < layers[l].n_rows; r++) {
                const float *w = layers[l].w + r * n_cols + first;
                float largest = 0;
                for (size_t c = 0; c < n; c++) largest = fabsf(w[c]) > largest ? fabsf(w[c]) : largest;
                for (size_t c = 0; c < n; c++) mean[first + c] += fabsf(w[c]) / (largest + 1e-6f);
            }
            n_rows += layers[l].n_rows;
        }
        for (size_t c = first; c < first + n; c++) mean[c] /= (float)n_rows;
    }
}

void tms_awq_scales_at(double ratio, const float *input_mean, const float *weight_mean, bool no_duo, size_t n,
                       float *scales)
{
    float low = HUGE_VALF, high = 0;
    for (size_t c = 0; c < n; c++) {
        /* A power of 0 is 1, of 0 too. */
        const float of_inputs = ratio == 0 ? 1 : (float)tms_power((double)input_mean[c], ratio);
        float s = of_inputs;
        if (!no_duo) s = of_inputs / ((float)tms_power((double)weight_mean[c], 1 - ratio) + 1e-4f);
        s = s > 1e-4f ? s : 1e-4f;
        low = s < low ? s : low;
        high = s > high ? s : high;
        scales[c] = s;
    }
    const float middle = sqrtf(high * low);
    for (size_t c = 0; c < n; c++) {
        scales[c] /= middle;
        if (!isfinite(scales[c])) scales[c] = 1;
    }
}

struct trial {
    const struct tms_awq_layer *layer;
    float *to;
    const float *scales;
    size_t n_cols;
    const struct tms_awq_options *options;
};

/* Rows scaled, rounded, scaled back. */
static tms_status try_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    const struct trial *trial = ctx;
    const size_t first = index * ROWS, n_cols = trial->n_cols, n_rows = least(ROWS, trial->layer->n_rows - first);
    const float *w = trial->layer->w + first * n_cols;
    float *to = trial->to + first * n_cols;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_cols; c++) to[r * n_cols + c] = w[r * n_cols + c] * trial->scales[c];
    tms_awq_round(to, n_rows, n_cols, trial->options->group, trial->options->bits, false, NULL, NULL, NULL);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_cols; c++) to[r * n_cols + c] /= trial->scales[c];
    return TMS_OK;
}

/* Mean squared error of all outputs. */
static tms_status loss_from_hessian(const struct tms_awq_layer *layers, size_t n_layers, float *const *weights,
                                    const struct tms_hessian *hessian, double *loss, struct tms_pool *pool,
                                    struct tms_error *err)
{
    double sum = 0;
    size_t n_rows = 0;
    for (size_t l = 0; l < n_layers; l++) {
        double error;
        tms_status status = tms_hessian_error(hessian, layers[l].w, weights[l], layers[l].n_rows, &error, pool, err);
        if (status != TMS_OK) return status;
        sum += error / 2;
        n_rows += layers[l].n_rows;
    }
    *loss = sum / (double)n_rows;
    return TMS_OK;
}

void tms_awq_scales_free(struct tms_awq_scales *scales)
{
    free(scales->scales);
    *scales = (struct tms_awq_scales){0};
}

static tms_status check(const struct tms_awq_options *options, size_t n_cols, const struct tms_hessian *hessian,
                        bool needed, struct tms_error *err)
{
    if (options->bits < 1 || options->bits > 8)
        return tms_fail(err, TMS_EUSAGE, "AWQ with %u bits: 1 to 8 are possible", options->bits);
    if (options->group > 0 && n_cols % options->group != 0)
        return tms_fail(err, TMS_EUSAGE, "groups of %zu do not divide rows of %zu", options->group, n_cols);
    if (needed && (!hessian || hessian->n != n_cols))
        return tms_fail(err, TMS_EUSAGE, "AWQ of rows of %zu needs the Hessian of their input", n_cols);
    return TMS_OK;
}

tms_status tms_awq_search(struct tms_awq_scales *out, const struct tms_awq_layer *layers, size_t n_layers,
                          const float *input_mean, size_t n_cols, const struct tms_hessian *hessian,
                          const struct tms_awq_options *options, tms_awq_loss_fn loss, void *ctx, struct tms_pool *pool,
                          struct tms_error *err)
{
    tms_status status = check(options, n_cols, hessian, loss == NULL, err);
    if (status != TMS_OK) return status;
    if (n_layers == 0) return tms_fail(err, TMS_EUSAGE, "AWQ of no layers");
    uint64_t n_weights = 0;
    for (size_t l = 0; l < n_layers; l++) n_weights += (uint64_t)layers[l].n_rows * n_cols;
    struct tms_awq_scales found = {.n_cols = n_cols, .ratio = -1};
    found.scales = tms_calloc(n_cols, sizeof *found.scales);
    float *means = tms_calloc(2 * (uint64_t)n_cols, sizeof *means);
    float **weights = tms_calloc(n_layers, sizeof *weights), *all = tms_calloc(n_weights, sizeof *all);
    if (!found.scales || !means || !weights || !all) {
        status = tms_fail_memory(err, (n_weights + 3 * (uint64_t)n_cols) * sizeof *all);
        goto done;
    }
    float *scales = means + n_cols;
    weights[0] = all;
    for (size_t l = 1; l < n_layers; l++) weights[l] = weights[l - 1] + layers[l - 1].n_rows * n_cols;
    tms_awq_weight_mean(layers, n_layers, n_cols, options->group, means);
    double best = HUGE_VAL;
    for (int k = 0; k < TMS_AWQ_RATIOS; k++) {
        const double ratio = (double)k / TMS_AWQ_RATIOS;
        tms_awq_scales_at(ratio, input_mean, means, options->no_duo, n_cols, scales);
        for (size_t l = 0; l < n_layers; l++) {
            struct trial trial = {&layers[l], weights[l], scales, n_cols, options};
            status = tms_pool_run(pool, (layers[l].n_rows + ROWS - 1) / ROWS, try_rows, &trial, err);
            if (status != TMS_OK) goto done;
        }
        status = loss ? loss(ctx, weights, &found.losses[k], err)
                      : loss_from_hessian(layers, n_layers, weights, hessian, &found.losses[k], pool, err);
        if (status != TMS_OK) goto done;
        if (found.losses[k] < best) {
            best = found.losses[k];
            found.ratio = ratio;
            memcpy(found.scales, scales, n_cols * sizeof *scales);
        }
    }
    if (found.ratio < 0) status = tms_fail(err, TMS_EINPUT, "no ratio of AWQ's search gives a finite error");
done:
    free(means);
    free(weights);
    free(all);
    if (status == TMS_OK)
        *out = found;
    else
        tms_awq_scales_free(&found);
    return status;
}

/* ---- clipping ---- */

struct clipping {
    const float *w;
    size_t n_rows, n_cols, group;
    const struct tms_hessian *hessian;
    unsigned bits;
    float *limits;
};

/* d H dᵀ of one group; products are summed in f32 over rows of H, in f64 over them. */
TMS_INLINE void square_of_body(const float *restrict h, size_t ld, const float *restrict d, size_t n,
                               double *restrict sum)
{
    enum { LANES = 16 };
    for (size_t i = 0; i < n; i++) {
        float lanes[LANES] = {0};
        size_t j = 0;
        for (; j + LANES <= n; j += LANES)
            for (size_t l = 0; l < LANES; l++) lanes[l] += h[i * ld + j + l] * d[j + l];
        for (size_t l = 0; j + l < n; l++) lanes[l] += h[i * ld + j + l] * d[j + l];
        for (size_t half = LANES / 2; half > 0; half /= 2)
            for (size_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
        *sum += (double)d[i] * (double)lanes[0];
    }
}
TMS_BY_CPU(static, square_of,
           (const float *restrict h, size_t ld, const float *restrict d, size_t n, double *restrict sum),
           (h, ld, d, n, sum))

static tms_status clip_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker;
    const struct clipping *clipping = ctx;
    const struct tms_hessian *hessian = clipping->hessian;
    const size_t group = clipping->group, n_groups = clipping->n_cols / group;
    const size_t first = index * ROWS, n_rows = least(ROWS, clipping->n_rows - first);
    float *tried = tms_calloc(group, sizeof *tried);
    if (!tried) return tms_fail_memory(err, group * sizeof *tried);
    for (size_t g = 0; g < n_groups; g++)
        for (size_t r = first; r < first + n_rows; r++) {
            const float *w = clipping->w + r * clipping->n_cols + g * group;
            float largest = 0;
            for (size_t c = 0; c < group; c++) largest = fabsf(w[c]) > largest ? fabsf(w[c]) : largest;
            double best = HUGE_VAL;
            float *limit = &clipping->limits[r * n_groups + g];
            *limit = largest;
            for (int k = 0; k < MOST_STEPS; k++) {
                const float to = largest * (float)(1 - k / 20.0);
                for (size_t c = 0; c < group; c++) tried[c] = w[c] < -to ? -to : w[c] > to ? to : w[c];
                tms_awq_round(tried, 1, group, group, clipping->bits, false, NULL, NULL, NULL);
                for (size_t c = 0; c < group; c++) tried[c] -= w[c];
                double error = 0;
                square_of(hessian->h + g * group * hessian->ld + g * group, hessian->ld, tried, group, &error);
                if (error < best) best = error, *limit = to;
            }
        }
    free(tried);
    return TMS_OK;
}

tms_status tms_awq_clip(const float *w, size_t n_rows, size_t n_cols, const struct tms_hessian *hessian,
                        const struct tms_awq_options *options, float *limits, struct tms_pool *pool,
                        struct tms_error *err)
{
    tms_status status = check(options, n_cols, hessian, true, err);
    if (status != TMS_OK) return status;
    struct clipping clipping = {w,       n_rows,        n_cols, options->group > 0 ? options->group : n_cols,
                                hessian, options->bits, limits};
    return tms_pool_run(pool, (n_rows + ROWS - 1) / ROWS, clip_rows, &clipping, err);
}

/* ---- applying ---- */

void tms_awq_scale_columns(float *w, size_t n_rows, size_t n_cols, const float *scales)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_cols; c++) w[r * n_cols + c] *= scales[c];
}

void tms_awq_divide_rows(float *w, float *bias, size_t n_rows, size_t n_cols, const float *scales, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const size_t r = n_rows - n + k;
        for (size_t c = 0; c < n_cols; c++) w[r * n_cols + c] /= scales[k];
        if (bias) bias[r] /= scales[k];
    }
}

void tms_awq_divide_norm(float *weight, float *bias, const float *scales, size_t n, bool plus_one)
{
    for (size_t c = 0; c < n; c++) {
        weight[c] = plus_one ? (weight[c] + 1) / scales[c] - 1 : weight[c] / scales[c];
        if (bias) bias[c] /= scales[c];
    }
}

void tms_awq_scale_hessian(struct tms_hessian *hessian, const float *scales)
{
    for (size_t i = 0; i < hessian->n; i++)
        for (size_t j = 0; j < hessian->n; j++) hessian->h[i * hessian->ld + j] /= scales[i] * scales[j];
}

void tms_awq_clamp(float *w, size_t n_rows, size_t n_cols, size_t group, const float *limits)
{
    if (group == 0) group = n_cols;
    const size_t n_groups = (n_cols + group - 1) / group;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_cols; c++) {
            const float to = limits[r * n_groups + c / group];
            float *x = &w[r * n_cols + c];
            *x = *x < -to ? -to : *x > to ? to : *x;
        }
}

/* See affine.h. */
#include "method/affine.h"

#include "method/power.h"

enum { LANES = 8, MOST = 256 /* weights that are rounded at once */ };

TMS_INLINE void add_powers_body(const float *restrict a, const float *restrict b, size_t n, double p,
                                double *restrict sums)
{
    if (p == 2) {
        for (size_t i = 0; i + LANES <= n; i += LANES)
            for (size_t l = 0; l < LANES; l++) {
                double d = (double)(a[i + l] - b[i + l]);
                sums[l] += d * d;
            }
    } else {
        for (size_t i = 0; i + LANES <= n; i += LANES)
            for (size_t l = 0; l < LANES; l++) sums[l] += tms_power((double)(a[i + l] - b[i + l]), p);
    }
    for (size_t i = n / LANES * LANES; i < n; i++) {
        double d = (double)(a[i] - b[i]);
        sums[i % LANES] += p == 2 ? d * d : tms_power(d, p);
    }
}
TMS_BY_CPU(static, add_powers,
           (const float *restrict a, const float *restrict b, size_t n, double p, double *restrict sums),
           (a, b, n, p, sums))

TMS_INLINE void add_weighted_body(const float *restrict a, const float *restrict b, const float *restrict weights,
                                  size_t n, double *restrict sums)
{
    for (size_t i = 0; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) {
            double d = (double)(a[i + l] - b[i + l]);
            sums[l] += (double)weights[i + l] * (d * d);
        }
    for (size_t i = n / LANES * LANES; i < n; i++) {
        double d = (double)(a[i] - b[i]);
        sums[i % LANES] += (double)weights[i] * (d * d);
    }
}
TMS_BY_CPU(static, add_weighted,
           (const float *restrict a, const float *restrict b, const float *restrict weights, size_t n,
            double *restrict sums),
           (a, b, weights, n, sums))

static double add_lanes(const double *sums)
{
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

double tms_distance_to_power(const float *a, const float *b, size_t n, double p)
{
    double sums[LANES] = {0};
    add_powers(a, b, n, p, sums);
    return add_lanes(sums);
}

TMS_INLINE void round_all_body(const float *restrict w, size_t n, float scale, float zero, float top,
                               float *restrict rounded)
{
    for (size_t i = 0; i < n; i++) rounded[i] = scale * (tms_affine_code(w[i], scale, zero, top) - zero);
}
TMS_BY_CPU(static, round_all,
           (const float *restrict w, size_t n, float scale, float zero, float top, float *restrict rounded),
           (w, n, scale, zero, top, rounded))

static double error_of(const struct tms_affine *affine, const float *w, size_t n, float scale, float zero, double norm)
{
    const float top = (float)((1u << affine->bits) - 1);
    float rounded[MOST];
    double sums[LANES] = {0};
    for (size_t i = 0; i < n; i += MOST) {
        const size_t count = n - i < MOST ? n - i : MOST;
        round_all(w + i, count, scale, zero, top, rounded);
        if (affine->weights)
            add_weighted(rounded, w + i, affine->weights + i, count, sums);
        else
            add_powers(rounded, w + i, count, norm, sums);
    }
    return add_lanes(sums);
}

static float zero_for(const struct tms_affine *affine, float low, float scale)
{
    return affine->symmetric ? (float)(1u << (affine->bits - 1)) : rintf(-low / scale);
}

void tms_affine_fit(const struct tms_affine *affine, const float *w, size_t n, float *scale, float *zero)
{
    const float top = (float)((1u << affine->bits) - 1);
    float low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    if (affine->symmetric) {
        high = -low > high ? -low : high;
        if (low < 0) low = -high;
    }
    if (low == 0 && high == 0) low = -1, high = 1;
    *scale = (high - low) / top;
    *zero = zero_for(affine, low, *scale);
    if (affine->norm > 0) {
        /* With four codes a wrong zero costs most: the other neighbour of -low / scale is tried as well. */
        const bool both = affine->bits == 2 && !affine->symmetric;
        double best = HUGE_VAL;
        for (int i = 0; i < 80; i++) {
            const float share = (float)(1 - i / 100.0), from = share * low;
            const float tried = (share * high - from) / top, nearest = zero_for(affine, from, tried);
            const float below = floorf(-from / tried), above = ceilf(-from / tried);
            for (int k = 0; k < (both ? 2 : 1); k++) {
                const float tried_zero = k == 0 ? nearest : nearest == below ? above : below;
                const double error = error_of(affine, w, n, tried, tried_zero, (double)affine->norm);
                if (error < best) best = error, *scale = tried, *zero = tried_zero;
            }
        }
    }
}

/* Powers that are the same bits on every machine, which libm's are not. */
#ifndef TMS_METHOD_POWER_H
#define TMS_METHOD_POWER_H

#include <stdint.h>
#include <string.h>

#include "base/cpu.h"

/* |x|^p = 2^(p log2 |x|), x an f32 as f64 (so never subnormal): log2 of the mantissa m in [0.7, 1.42) by the series of
 * atanh in s = (m - 1) / (m + 1), |s| < 0.18; 2^r, |r| <= 1/2, by Taylor's. Good to about 1e-11. */
TMS_INLINE double tms_power(double x, double p)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0x7fffffffffffffffu;
    /* Mantissas from 1.414 on count as below 1. */
    const uint64_t shifted = bits + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
    const int64_t exponent = (int64_t)(shifted >> 52) - 1023;
    const uint64_t mantissa = bits - ((uint64_t)exponent << 52);
    double m;
    memcpy(&m, &mantissa, sizeof m);
    const double s = (m - 1) / (m + 1), z = s * s;
    double sum = 1.0 / 13;
    sum = sum * z + 1.0 / 11;
    sum = sum * z + 1.0 / 9;
    sum = sum * z + 1.0 / 7;
    sum = sum * z + 1.0 / 5;
    sum = sum * z + 1.0 / 3;
    sum = sum * z + 1;
    double t = p * ((double)exponent + s * sum * 2.8853900817779268 /* 2 / ln 2 */);
    t = t < -1000 ? -1000 : t;
    t = t > 1000 ? 1000 : t;
    const double rounded = t + 0x1.8p52, r = (t - (rounded - 0x1.8p52)) * 0.69314718055994531;
    double e = 1.0 / 3628800;
    e = e * r + 1.0 / 362880;
    e = e * r + 1.0 / 40320;
    e = e * r + 1.0 / 5040;
    e = e * r + 1.0 / 720;
    e = e * r + 1.0 / 120;
    e = e * r + 1.0 / 24;
    e = e * r + 1.0 / 6;
    e = e * r + 1.0 / 2;
    e = e * r + 1;
    e = e * r + 1;
    uint64_t shift, result;
    memcpy(&shift, &rounded, sizeof shift);
    memcpy(&result, &e, sizeof result);
    result += shift << 52;
    memcpy(&e, &result, sizeof e);
    return bits == 0 ? 0 : e;
}

#endif

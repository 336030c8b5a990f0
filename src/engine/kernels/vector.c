/* See vector.h. */
#include "engine/kernels/vector.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/cpu.h"
#include "engine/kernels/dots.h"

/* e^x = 2^n e^r with n = round(x log2 e), |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite), e^r by its Taylor
 * polynomial to r^7, whose error is below a quarter of an ulp there. */
TMS_INLINE float exp_of(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    float v = x < -86.6f ? -86.6f : x;
    v = v > 88.7f ? 88.7f : v;
    float shifted = fmaf(v, 1.44269504f, magic);
    float n = shifted - magic;
    float r = fmaf(n, -0.693359375f, v);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = fmaf(r, 1.0f / 5040, 1.0f / 720);
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* n is -125 … 128; 2^(n - 1) is a normal number for all of them. */
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    uint32_t exponent = (bits - 0x4b400000u + 126u) << 23;
    float power;
    memcpy(&power, &exponent, sizeof power);
    float y = p * power * 2.0f;
    return x < -86.6f ? 0.0f : y;
}

TMS_INLINE void tms_exps_body(const float *x, float shift, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = exp_of(x[i] - shift);
}
TMS_BY_CPU(, tms_exps, (const float *x, float shift, float *y, size_t n), (x, shift, y, n))

TMS_INLINE void tms_swiglu_body(const float *restrict x, float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] *= x[i] / (1.0f + exp_of(-x[i]));
}
TMS_BY_CPU(, tms_swiglu, (const float *x, float *y, size_t n), (x, y, n))

/* tanh u = 2 / (1 + e^-2u) - 1, so 0.5 x (1 + tanh u) = x / (1 + e^-2u) */
TMS_INLINE void tms_geglu_body(const float *restrict x, float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float u = 0.7978845608f * fmaf(0.044715f * x[i] * x[i], x[i], x[i]);
        y[i] *= x[i] / (1.0f + exp_of(-2.0f * u));
    }
}
TMS_BY_CPU(, tms_geglu, (const float *x, float *y, size_t n), (x, y, n))

TMS_INLINE void tms_soft_cap_body(float *x, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = cap * (2.0f / (1.0f + exp_of(-2.0f * (x[i] / cap))) - 1.0f);
}
TMS_BY_CPU(, tms_soft_cap, (float *x, float cap, size_t n), (x, cap, n))

TMS_INLINE void tms_sigmoid_body(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = 1.0f / (1.0f + exp_of(-x[i]));
}
TMS_BY_CPU(, tms_sigmoid, (float *x, size_t n), (x, n))

TMS_INLINE void tms_add_scaled_body(const float *restrict x, float factor, float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = fmaf(factor, x[i], y[i]);
}
TMS_BY_CPU(, tms_add_scaled, (const float *x, float factor, float *y, size_t n), (x, factor, y, n))

TMS_INLINE void norm_body(const float *x, const float *weight, float factor, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = weight[i] * (x[i] * factor);
}
TMS_BY_CPU(static, norm, (const float *x, const float *weight, float factor, float *y, size_t n),
           (x, weight, factor, y, n))

void tms_rms_norm(const float *x, const float *weight, float eps, float *y, size_t n)
{
    float mean = tms_dot(x, x, n) / (float)n;
    norm(x, weight, 1.0f / sqrtf(mean + eps), y, n);
}

TMS_INLINE void tms_add_body(const float *restrict x, float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}
TMS_BY_CPU(, tms_add, (const float *x, float *y, size_t n), (x, y, n))

TMS_INLINE void tms_scale_body(float *y, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] *= factor;
}
TMS_BY_CPU(, tms_scale, (float *y, float factor, size_t n), (y, factor, n))

TMS_INLINE void tms_hadamard_body(float *x, size_t n, size_t block)
{
    float factor = 1.0f / sqrtf((float)block);
    for (size_t h = 1; h < block; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}
TMS_BY_CPU(, tms_hadamard, (float *x, size_t n, size_t block), (x, n, block))

TMS_INLINE void sum_body(const float *x, size_t n, float *out)
{
    float lanes[16] = {0};
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t l = 0; l < 16; l++) lanes[l] += x[i + l];
    for (size_t l = 0; i + l < n; l++) lanes[l] += x[i + l];
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
    *out = lanes[0];
}
TMS_BY_CPU(static, sum, (const float *x, size_t n, float *out), (x, n, out))

float tms_sum(const float *x, size_t n)
{
    float out;
    sum(x, n, &out);
    return out;
}

/* Types with one value per block: floats of all sizes, and integers (which are only read). */
#include "codec/rows.h"

void tms_f32_encode(const float *x, void *blocks, size_t n)
{
    memcpy(blocks, x, n * sizeof *x);
}

void tms_f32_decode(const void *blocks, float *x, size_t n)
{
    memcpy(x, blocks, n * sizeof *x);
}

void tms_f64_encode(const float *x, void *blocks, size_t n)
{
    uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++) {
        double v = x[i];
        memcpy(p + i * sizeof v, &v, sizeof v);
    }
}

void tms_f16_encode(const float *x, void *blocks, size_t n)
{
    tms_f32_to_f16_n(x, blocks, n);
}

void tms_f16_decode(const void *blocks, float *x, size_t n)
{
    tms_f16_to_f32_n(blocks, x, n);
}

void tms_bf16_encode(const float *x, void *blocks, size_t n)
{
    tms_f32_to_bf16_n(x, blocks, n);
}

void tms_bf16_decode(const void *blocks, float *x, size_t n)
{
    tms_bf16_to_f32_n(blocks, x, n);
}

void tms_f8_e4m3_encode(const float *x, void *blocks, size_t n)
{
    tms_f32_to_e4m3_n(x, blocks, n);
}

void tms_f8_e4m3_decode(const void *blocks, float *x, size_t n)
{
    tms_e4m3_to_f32_n(blocks, x, n);
}

void tms_f8_e5m2_encode(const float *x, void *blocks, size_t n)
{
    tms_f32_to_e5m2_n(x, blocks, n);
}

void tms_f8_e5m2_decode(const void *blocks, float *x, size_t n)
{
    tms_e5m2_to_f32_n(blocks, x, n);
}

void tms_f8_e8m0_encode(const float *x, void *blocks, size_t n)
{
    tms_f32_to_e8m0_n(x, blocks, n);
}

void tms_f8_e8m0_decode(const void *blocks, float *x, size_t n)
{
    tms_e8m0_to_f32_n(blocks, x, n);
}

/* The FNUZ formats (AMD CDNA 3, ONNX): one more of bias, no infinity, and 0x80, which would be -0, is the only NaN.
 * e4m3: bias 8, largest 240; e5m2: bias 16, largest 57344. */
TMS_INLINE float widen_fnuz(uint8_t b, int fraction_bits, float least, uint32_t exponent)
{
    uint32_t m = b & 0x7f, sign = (uint32_t)(b & 0x80) << 24;
    uint32_t subnormal = tms_f32_bits((float)(int32_t)m * least);
    uint32_t normal = (m << (23 - fraction_bits)) + (exponent << 23);
    uint32_t is_subnormal = 0u - (m >> fraction_bits == 0), is_nan = 0u - (b == 0x80);
    uint32_t u = sign | (subnormal & is_subnormal) | (normal & ~is_subnormal); /* no branches: so it is vectorized */
    return tms_f32_from_bits((0x7fc00000 & is_nan) | (u & ~is_nan));
}

TMS_INLINE void tms_f8_e4m3fnuz_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++) x[i] = widen_fnuz(p[i], 3, 0x1p-10f, 119);
}
TMS_BY_CPU(extern, tms_f8_e4m3fnuz_decode, (const void *blocks, float *x, size_t n), (blocks, x, n))

TMS_INLINE void tms_f8_e5m2fnuz_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++) x[i] = widen_fnuz(p[i], 2, 0x1p-17f, 111);
}
TMS_BY_CPU(extern, tms_f8_e5m2fnuz_decode, (const void *blocks, float *x, size_t n), (blocks, x, n))

#define DECODE_NUMBERS(name, type)                                                                                     \
    void tms_##name##_decode(const void *blocks, float *x, size_t n)                                                   \
    {                                                                                                                  \
        const uint8_t *p = blocks;                                                                                     \
        for (size_t i = 0; i < n; i++) {                                                                               \
            type v;                                                                                                    \
            memcpy(&v, p + i * sizeof v, sizeof v);                                                                    \
            x[i] = (float)v;                                                                                           \
        }                                                                                                              \
    }

DECODE_NUMBERS(f64, double)
DECODE_NUMBERS(i8, int8_t)
DECODE_NUMBERS(i16, int16_t)
DECODE_NUMBERS(i32, int32_t)
DECODE_NUMBERS(i64, int64_t)
DECODE_NUMBERS(u8, uint8_t)
DECODE_NUMBERS(u16, uint16_t)
DECODE_NUMBERS(u32, uint32_t)
DECODE_NUMBERS(u64, uint64_t)

void tms_bool_decode(const void *blocks, float *x, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++) x[i] = p[i] != 0;
}

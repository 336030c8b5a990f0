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
void tms_f8_e4m3fnuz_decode(const void *blocks, float *x, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++) {
        uint32_t m = p[i] & 0x7f, sign = (uint32_t)(p[i] & 0x80) << 24;
        uint32_t u = m < 8 ? tms_f32_bits((float)m * 0x1p-10f) : (m << 20) + (119u << 23);
        x[i] = tms_f32_from_bits(p[i] == 0x80 ? 0x7fc00000 : sign | u);
    }
}

void tms_f8_e5m2fnuz_decode(const void *blocks, float *x, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i++) {
        uint32_t m = p[i] & 0x7f, sign = (uint32_t)(p[i] & 0x80) << 24;
        uint32_t u = m < 4 ? tms_f32_bits((float)m * 0x1p-17f) : (m << 21) + (111u << 23);
        x[i] = tms_f32_from_bits(p[i] == 0x80 ? 0x7fc00000 : sign | u);
    }
}

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

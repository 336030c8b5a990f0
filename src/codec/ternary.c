/* ggml's types with one scale and one bit, two bits or one base-3 digit per weight.
 *
 * type   block  x =               d            codes
 * tq1_0  256    d * (q - 1)       largest |x|  q = 0 … 2, five to a byte as base-3 digits
 * tq2_0  256    d * (q - 1)       largest |x|  q = 0 … 2 (3 can be read), two bits
 * q1_0   128    d or -d           mean of |x|  one bit: x >= 0
 * q2_0   64     d * (q - 1)       largest |x|  as tq2_0, but consecutive weights share a byte
 *
 * q = 1 + x / d rounded to nearest, halves away from zero; codes are found with d as f32, which is then stored as f16.
 * Source: ggml 0.25, whose bytes the encoders reproduce. */
#include <assert.h>
#include <float.h>

#include "base/cpu.h"
#include "codec/ordered_sums.h"
#include "codec/rows.h"

struct tq1_0 {
    uint8_t q[48], last[4], d[2];
};
struct tq2_0 {
    uint8_t q[64], d[2];
};
struct q1_0 {
    uint8_t d[2], bits[16];
};
struct q2_0 {
    uint8_t d[2], q[16];
};
static_assert(sizeof(struct tq1_0) == 54, "tq1_0");
static_assert(sizeof(struct tq2_0) == 66, "tq2_0");
static_assert(sizeof(struct q1_0) == 18, "q1_0");
static_assert(sizeof(struct q2_0) == 18, "q2_0");

/* The largest |x|, of bits (see legacy.c). */
TMS_INLINE float largest_magnitude(const float *restrict x, int n)
{
    uint32_t largest = 0;
    for (int i = 0; i < n; i++) {
        uint32_t u = tms_f32_bits(x[i]) & 0x7fffffff;
        largest = u > largest ? u : largest;
    }
    return tms_f32_from_bits(largest);
}

/* 1 / d, or 0 where d is zero or so small that 1 / d overflows: every code is 1 then. (ggml multiplies by infinity and
 * converts the result to an integer, which C leaves undefined.) */
TMS_INLINE float inverse_of(float d)
{
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    return inverse > FLT_MAX ? 0.0f : inverse;
}

/* |x * inverse| is at most 1 but for rounding. */
TMS_INLINE uint8_t ternary_code(float x, float inverse)
{
    float v = x * inverse;
    return (uint8_t)(1 + (v >= 0.5f) - (v <= -0.5f));
}

/* ---- tq1_0 ---- */

/* n_bytes bytes, 16 or 32, of five digits each: byte i has weights i, i + n_bytes, …, the first most significant. The
 * number v < 243 is stored as v * 256 / 243, rounded up: a fraction whose digits multiplication by 3 brings out. */
TMS_INLINE void pack_digits(const float *restrict x, float inverse, int n_bytes, uint8_t *restrict q)
{
    for (int i = 0; i < n_bytes; i++) {
        unsigned v = 0;
        for (int k = 0; k < 5; k++) v = v * 3 + ternary_code(x[i + k * n_bytes], inverse);
        q[i] = (uint8_t)((v * 256 + 242) / 243);
    }
}

TMS_INLINE float digit(uint8_t fraction, int power)
{
    return (float)((uint8_t)(fraction * power) * 3 >> 8) - 1;
}

TMS_INLINE void unpack_digits(const uint8_t *restrict q, float d, int n_bytes, int n_digits, float *restrict x)
{
    for (int k = 0, power = 1; k < n_digits; k++, power *= 3)
        for (int i = 0; i < n_bytes; i++) x[k * n_bytes + i] = digit(q[i], power) * d;
}

TMS_INLINE void tms_tq1_0_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct tq1_0 *b = blocks;
    for (size_t s = 0; s < n / 256; s++, x += 256) {
        float d = largest_magnitude(x, 256), inverse = inverse_of(d);
        tms_store_f16(b[s].d, d);
        pack_digits(x, inverse, 32, b[s].q);
        pack_digits(x + 160, inverse, 16, b[s].q + 32);
        for (int i = 0; i < 4; i++) {
            unsigned v = 0;
            for (int k = 0; k < 4; k++) v = v * 3 + ternary_code(x[240 + i + 4 * k], inverse);
            b[s].last[i] = (uint8_t)((v * 3 * 256 + 242) / 243);
        }
    }
}

TMS_INLINE void tms_tq1_0_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct tq1_0 *b = blocks;
    for (size_t s = 0; s < n / 256; s++, x += 256) {
        float d = tms_load_f16(b[s].d);
        unpack_digits(b[s].q, d, 32, 5, x);
        unpack_digits(b[s].q + 32, d, 16, 5, x + 160);
        unpack_digits(b[s].last, d, 4, 4, x + 240);
    }
}

/* ---- tq2_0 ---- */

TMS_INLINE void tms_tq2_0_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct tq2_0 *b = blocks;
    for (size_t s = 0; s < n / 256; s++) {
        float d = largest_magnitude(x, 256), inverse = inverse_of(d);
        tms_store_f16(b[s].d, d);
        for (int half = 0; half < 2; half++, x += 128)
            for (int i = 0; i < 32; i++) {
                unsigned v = 0;
                for (int k = 0; k < 4; k++) v |= (unsigned)ternary_code(x[i + 32 * k], inverse) << 2 * k;
                b[s].q[32 * half + i] = (uint8_t)v;
            }
    }
}

TMS_INLINE void tms_tq2_0_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct tq2_0 *b = blocks;
    for (size_t s = 0; s < n / 256; s++) {
        float d = tms_load_f16(b[s].d);
        for (int half = 0; half < 2; half++, x += 128)
            for (int k = 0; k < 4; k++)
                for (int i = 0; i < 32; i++) x[32 * k + i] = (float)((int)(b[s].q[32 * half + i] >> 2 * k & 3) - 1) * d;
    }
}

/* ---- q1_0 ---- */

TMS_INLINE void tms_q1_0_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    enum { TOGETHER = 8 };
    struct q1_0 *b = blocks;
    float sums[TOGETHER];
    for (size_t s = 0; s < n / 128; s++, x += 128) {
        if (s % TOGETHER == 0) {
            size_t left = n / 128 - s;
            tms_ordered_sums_of_magnitudes(x, 128, left < TOGETHER ? left : TOGETHER, sums);
        }
        tms_store_f16(b[s].d, sums[s % TOGETHER] / 128);
        for (int word = 0; word < 4; word++) {
            uint32_t bits = 0;
            for (int i = 0; i < 32; i++) bits |= (uint32_t)(x[32 * word + i] >= 0) << i;
            memcpy(b[s].bits + 4 * word, &bits, sizeof bits);
        }
    }
}

TMS_INLINE void tms_q1_0_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q1_0 *b = blocks;
    for (size_t s = 0; s < n / 128; s++, x += 128) {
        uint32_t d = tms_f32_bits(tms_load_f16(b[s].d));
        for (int word = 0; word < 4; word++) {
            uint32_t bits;
            memcpy(&bits, b[s].bits + 4 * word, sizeof bits);
            /* A clear bit turns the sign of d over. */
            for (int i = 0; i < 32; i++) x[32 * word + i] = tms_f32_from_bits(d ^ (~bits >> i & 1) << 31);
        }
    }
}

/* ---- q2_0 ---- */

TMS_INLINE void tms_q2_0_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q2_0 *b = blocks;
    for (size_t s = 0; s < n / 64; s++, x += 64) {
        float d = largest_magnitude(x, 64), inverse = inverse_of(d);
        tms_store_f16(b[s].d, d);
        for (int word = 0; word < 4; word++) {
            uint32_t bits = 0;
            for (int i = 0; i < 16; i++) bits |= (uint32_t)ternary_code(x[16 * word + i], inverse) << 2 * i;
            memcpy(b[s].q + 4 * word, &bits, sizeof bits);
        }
    }
}

static void q2_0_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q2_0 *b = blocks;
    for (size_t s = 0; s < n / 64; s++, x += 64) {
        float d = tms_load_f16(b[s].d);
        for (int word = 0; word < 4; word++) {
            uint32_t bits;
            memcpy(&bits, b[s].q + 4 * word, sizeof bits);
            for (int i = 0; i < 16; i++) x[16 * word + i] = (float)((int)(bits >> 2 * i & 3) - 1) * d;
        }
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

/* A word has sixteen weights: each lane shifts it to its own. */
TMS_TARGET_AVX512 static void q2_0_decode_16(const void *blocks, float *x, size_t n)
{
    const struct q2_0 *b = blocks;
    const __m512i shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for (size_t s = 0; s < n / 64; s++) {
        const __m512 d = _mm512_set1_ps(tms_load_f16(b[s].d));
        for (int i = 0; i < 16; i += 4, x += 16) {
            int32_t bits;
            memcpy(&bits, b[s].q + i, sizeof bits);
            __m512i q = _mm512_and_si512(_mm512_srlv_epi32(_mm512_set1_epi32(bits), shifts), _mm512_set1_epi32(3));
            q = _mm512_sub_epi32(q, _mm512_set1_epi32(1));
            _mm512_storeu_ps(x, _mm512_mul_ps(_mm512_cvtepi32_ps(q), d));
        }
    }
}

TMS_TARGET_AVX2 static void q2_0_decode_8(const void *blocks, float *x, size_t n)
{
    const struct q2_0 *b = blocks;
    const __m256i shifts = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    for (size_t s = 0; s < n / 64; s++) {
        const __m256 d = _mm256_set1_ps(tms_load_f16(b[s].d));
        for (int i = 0; i < 16; i += 2, x += 8) {
            uint16_t bits;
            memcpy(&bits, b[s].q + i, sizeof bits);
            __m256i q = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(bits), shifts), _mm256_set1_epi32(3));
            q = _mm256_sub_epi32(q, _mm256_set1_epi32(1));
            _mm256_storeu_ps(x, _mm256_mul_ps(_mm256_cvtepi32_ps(q), d));
        }
    }
}
#endif

#define ROW_FUNCTIONS(name)                                                                                            \
    TMS_BY_CPU(extern, tms_##name##_encode, (const float *x, void *blocks, size_t n), (x, blocks, n))                  \
    TMS_BY_CPU(extern, tms_##name##_decode, (const void *blocks, float *x, size_t n), (blocks, x, n))

ROW_FUNCTIONS(tq1_0)
ROW_FUNCTIONS(tq2_0)
ROW_FUNCTIONS(q1_0)
TMS_BY_CPU(extern, tms_q2_0_encode, (const float *x, void *blocks, size_t n), (x, blocks, n))
TMS_DECODER_BY_LANES(q2_0)

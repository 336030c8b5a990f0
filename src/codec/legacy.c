/* ggml's blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.
 *
 * q4_0, q5_0   x = d * (q - 8), d * (q - 16); d such that the weight of largest magnitude has q = 0
 * q4_1, q5_1   x = d * q + m; m is the smallest weight
 * q8_0         x = d * q, -127 <= q <= 127
 *
 * d and m are f16 in the block, but the codes are found with the f32 values before that rounding. Codes of four bits
 * lie as ggml has them: byte j holds weight j in its low and weight j + 16 in its high nibble; the fifth bit of weight
 * j is bit j of a 32-bit word. */
#include "base/cpu.h"
#include "codec/legacy_blocks.h"
#include "codec/rows.h"

/* v in [low, high]; NaN gives low. Where 1/d has overflowed (weights below 2^-120 or so) v may be anything, and an
 * integer conversion must not see it. */
TMS_INLINE float within(float v, float low, float high)
{
    v = v > low ? v : low;
    return v < high ? v : high;
}

/* The largest |x|: of bits, since their order is that of magnitudes and integer reductions may be reordered. */
TMS_INLINE float largest_magnitude(const float *restrict x)
{
    uint32_t largest = 0;
    for (int i = 0; i < BLOCK; i++) {
        uint32_t u = tms_f32_bits(x[i]) & 0x7fffffff;
        largest = u > largest ? u : largest;
    }
    return tms_f32_from_bits(largest);
}

/* The weight of largest magnitude with its sign; of several, the first. */
TMS_INLINE float largest_signed(const float *restrict x)
{
    float magnitude = largest_magnitude(x);
    uint32_t positive = 0, negative = 0;
    for (int i = 0; i < BLOCK; i++) {
        positive |= x[i] == magnitude;
        negative |= x[i] == -magnitude;
    }
    if (!negative) return magnitude;
    if (!positive) return -magnitude;
    for (int i = 0; i < BLOCK; i++) {
        if (x[i] == magnitude) return magnitude;
        if (x[i] == -magnitude) return -magnitude;
    }
    return magnitude;
}

/* Order-preserving map of floats to signed integers (its own inverse on the bits), for reductions as above. */
TMS_INLINE int32_t ordered(int32_t bits)
{
    return bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1);
}

TMS_INLINE void smallest_and_largest(const float *restrict x, float *restrict smallest, float *restrict largest)
{
    int32_t low = INT32_MAX, high = INT32_MIN;
    for (int i = 0; i < BLOCK; i++) {
        int32_t u = ordered((int32_t)tms_f32_bits(x[i]));
        low = u < low ? u : low;
        high = u > high ? u : high;
    }
    *smallest = tms_f32_from_bits((uint32_t)ordered(low));
    *largest = tms_f32_from_bits((uint32_t)ordered(high));
    /* -0 sorts before 0 here, but a comparison of floats keeps whichever comes first; m stores its sign. */
    if (*smallest == 0)
        for (int i = 0; i < BLOCK; i++)
            if (x[i] == 0) {
                *smallest = x[i];
                break;
            }
}

TMS_INLINE void unpack_nibbles(const uint8_t *restrict low, int32_t *restrict q)
{
    for (int j = 0; j < 16; j++) {
        q[j] = low[j] & 15;
        q[j + 16] = low[j] >> 4;
    }
}

TMS_INLINE void unpack_fifth_bits(const uint8_t *restrict high, int32_t *restrict q)
{
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    for (int j = 0; j < BLOCK; j++) q[j] |= (int32_t)(bits >> j & 1) << 4;
}

/* q = floor(x / d + half the range + 0.5), so ties go up; half is 8 or 16. Returns d. */
TMS_INLINE float symmetric_codes(const float *restrict x, float half, uint8_t *restrict q)
{
    float d = largest_signed(x) / -half;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    for (int j = 0; j < BLOCK; j++) q[j] = (uint8_t)(int32_t)within(x[j] * inverse + (half + 0.5f), 0, 2 * half - 1);
    return d;
}

/* q = floor((x - m) / d + 0.5), 0 … top. Returns d. */
TMS_INLINE float offset_codes(const float *restrict x, float top, float *restrict m, uint8_t *restrict q)
{
    float smallest, largest;
    smallest_and_largest(x, &smallest, &largest);
    float d = (largest - smallest) / top;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    for (int j = 0; j < BLOCK; j++) q[j] = (uint8_t)(int32_t)within((x[j] - smallest) * inverse + 0.5f, 0, top);
    *m = smallest;
    return d;
}

static void q4_0_encode_scalar(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q4_0 *b = blocks;
    uint8_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        tms_store_f16(b[i].d, symmetric_codes(x + i * BLOCK, 8, q));
        pack_nibbles(q, b[i].low);
    }
}

static void q4_0_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q4_0 *b = blocks;
    int32_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        float d = tms_load_f16(b[i].d);
        unpack_nibbles(b[i].low, q);
        for (int j = 0; j < BLOCK; j++) x[i * BLOCK + (size_t)j] = (float)(q[j] - 8) * d;
    }
}

static void q4_1_encode_scalar(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q4_1 *b = blocks;
    uint8_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        float m;
        tms_store_f16(b[i].d, offset_codes(x + i * BLOCK, 15, &m, q));
        tms_store_f16(b[i].m, m);
        pack_nibbles(q, b[i].low);
    }
}

static void q4_1_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q4_1 *b = blocks;
    int32_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        float d = tms_load_f16(b[i].d), m = tms_load_f16(b[i].m);
        unpack_nibbles(b[i].low, q);
        for (int j = 0; j < BLOCK; j++) x[i * BLOCK + (size_t)j] = (float)q[j] * d + m;
    }
}

static void q5_0_encode_scalar(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q5_0 *b = blocks;
    uint8_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        tms_store_f16(b[i].d, symmetric_codes(x + i * BLOCK, 16, q));
        pack_nibbles(q, b[i].low);
        pack_fifth_bits(q, b[i].high);
    }
}

static void q5_0_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q5_0 *b = blocks;
    int32_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        float d = tms_load_f16(b[i].d);
        unpack_nibbles(b[i].low, q);
        unpack_fifth_bits(b[i].high, q);
        for (int j = 0; j < BLOCK; j++) x[i * BLOCK + (size_t)j] = (float)(q[j] - 16) * d;
    }
}

static void q5_1_encode_scalar(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q5_1 *b = blocks;
    uint8_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        float m;
        tms_store_f16(b[i].d, offset_codes(x + i * BLOCK, 31, &m, q));
        tms_store_f16(b[i].m, m);
        pack_nibbles(q, b[i].low);
        pack_fifth_bits(q, b[i].high);
    }
}

static void q5_1_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q5_1 *b = blocks;
    int32_t q[BLOCK];
    for (size_t i = 0; i < n / BLOCK; i++) {
        float d = tms_load_f16(b[i].d), m = tms_load_f16(b[i].m);
        unpack_nibbles(b[i].low, q);
        unpack_fifth_bits(b[i].high, q);
        for (int j = 0; j < BLOCK; j++) x[i * BLOCK + (size_t)j] = (float)q[j] * d + m;
    }
}

/* v rounded half away from zero, as roundf does, and kept within ±127 like `within`: compilers vectorize neither. Cuts
 * |v| after adding the largest float below 0.5. (Compared with roundf for every |v| <= 128.) */
TMS_INLINE int32_t round_away(float v)
{
    uint32_t magnitude = tms_f32_bits(v) & 0x7fffffff;
    magnitude = magnitude < 0x42fe0000 ? magnitude : 0x42fe0000; /* 127 */
    int32_t cut = (int32_t)(tms_f32_from_bits(magnitude) + 0x1.fffffep-2f);
    int32_t sign = (int32_t)tms_f32_bits(v) >> 31;
    return (cut ^ sign) - sign;
}

TMS_INLINE void tms_q8_0_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q8_0 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++) {
        const float *restrict row = x + i * BLOCK;
        float d = largest_magnitude(row) / 127.0f;
        float inverse = d != 0 ? 1.0f / d : 0.0f;
        tms_store_f16(b[i].d, d);
        for (int j = 0; j < BLOCK; j++) b[i].q[j] = (int8_t)round_away(row[j] * inverse);
    }
}

static void q8_0_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q8_0 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++) {
        float d = tms_load_f16(b[i].d);
        for (int j = 0; j < BLOCK; j++) x[i * BLOCK + (size_t)j] = (float)b[i].q[j] * d;
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#include "codec/transpose.h"

#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/lanes.h"
#include "codec/legacy_encode_body.h"
#include "codec/decode_lanes.h"
#include "codec/legacy_decode_body.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/lanes.h"
#include "codec/legacy_encode_body.h"
#include "codec/decode_lanes.h"
#include "codec/legacy_decode_body.h"
#include "codec/lanes_end.h"
#endif

#define ROW_FUNCTIONS(name)                                                                                            \
    TMS_BY_LANES(tms_##name##_encode, name##_encode, (const float *x, void *blocks, size_t n), (x, blocks, n))         \
    TMS_DECODER_BY_LANES(name)

ROW_FUNCTIONS(q4_0)
ROW_FUNCTIONS(q4_1)
ROW_FUNCTIONS(q5_0)
ROW_FUNCTIONS(q5_1)
TMS_BY_CPU(extern, tms_q8_0_encode, (const float *x, void *blocks, size_t n), (x, blocks, n))
TMS_DECODER_BY_LANES(q8_0)

/* ggml's K-quants: super-blocks of 256 weights, cut into blocks of 16 or 32 with small integer scales.
 *
 * type  block  weight                                   bits of q, scale, min   bytes
 * q2_k  16     d * scale * q - dmin * min               2, 4, 4                 84
 * q3_k  16     d * (scale - 32) * (q - 4)               3, 6                    110
 * q4_k  32     d * scale * q - dmin * min               4, 6, 6                 144
 * q5_k  32     d * scale * q - dmin * min               5, 6, 6                 176
 * q6_k  16     d * scale * (q - 32), scale signed       6, 8                    210
 * q8_k  256    d * q, q signed                          8                       292 (activations only)
 *
 * Encoding goes in three steps: a search finds a scale (and minimum) for every block (k_search.h); these are rounded to
 * integers times d (and dmin), which are f16; then every weight is rounded again with what is really stored. A block
 * whose stored scale is zero keeps the codes of the search. */
#include <assert.h>
#include <math.h>

#include "codec/k_search.h"
#include "codec/rows.h"

enum { SUPER = 256 };

struct q2_k {
    uint8_t scales[16]; /* scale in the low nibble, min in the high one */
    uint8_t q[64];
    uint8_t d[2], dmin[2];
};
struct q3_k {
    uint8_t high[32]; /* bit b of byte i: the third bit of weight 32 b + i */
    uint8_t q[64];
    uint8_t scales[12];
    uint8_t d[2];
};
struct q4_k {
    uint8_t d[2], dmin[2], scales[12], q[128];
};
struct q5_k {
    uint8_t d[2], dmin[2], scales[12];
    uint8_t high[32]; /* bit b of byte i: the fifth bit of weight 32 b + i */
    uint8_t q[128];
};
struct q6_k {
    uint8_t low[128], high[64];
    int8_t scales[16];
    uint8_t d[2];
};
struct q8_k {
    uint8_t d[4]; /* f32 */
    int8_t q[256];
    uint8_t sums[16][2]; /* of 16 codes each */
};
static_assert(sizeof(struct q2_k) == 84, "q2_k");
static_assert(sizeof(struct q3_k) == 110, "q3_k");
static_assert(sizeof(struct q4_k) == 144, "q4_k");
static_assert(sizeof(struct q5_k) == 176, "q5_k");
static_assert(sizeof(struct q6_k) == 210, "q6_k");
static_assert(sizeof(struct q8_k) == 292, "q8_k");

/* Codes 0 … top of one block with the stored scale d and minimum m. */
TMS_INLINE void round_affine(const float *restrict x, int n, float d, float m, int top, uint8_t *restrict codes)
{
    for (int i = 0; i < n; i++) codes[i] = (uint8_t)tms_clamp(tms_nearest((x[i] + m) / d), 0, top);
}

/* Codes 0 … 2 half - 1 of one block of 16 with the stored scale d. */
TMS_INLINE void round_symmetric(const float *restrict x, float d, int half, uint8_t *restrict codes)
{
    for (int i = 0; i < 16; i++) codes[i] = (uint8_t)(half + tms_clamp(tms_nearest(x[i] / d), -half, half - 1));
}

/* Two-bit codes: byte i of each half super-block has weights i, i + 32, i + 64, i + 96, the first lowest. */
TMS_INLINE void pack_pairs(const uint8_t *restrict codes, uint8_t *restrict q)
{
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *c = codes + 128 * half + i;
            q[32 * half + i] = (uint8_t)((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
        }
}

/* Four-bit codes: byte i of each quarter has weights i and i + 32. */
TMS_INLINE void pack_nibbles(const uint8_t *restrict codes, uint8_t *restrict q)
{
    for (int quarter = 0; quarter < 4; quarter++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *c = codes + 64 * quarter + i;
            q[32 * quarter + i] = (uint8_t)((c[0] & 15) | (c[32] & 15) << 4);
        }
}

/* Eight scales and eight minimums of six bits in twelve bytes: those of blocks 0 … 3 fill the low six bits of bytes
 * 0 … 3 and 4 … 7; of blocks 4 … 7 the low nibbles share bytes 8 … 11 and the top two bits sit above the former. */
TMS_INLINE void pack_six_bits(const uint8_t *restrict scales, const uint8_t *restrict mins, uint8_t *restrict packed)
{
    for (int j = 0; j < 4; j++) {
        packed[j] = (uint8_t)((scales[j] & 63) | (scales[j + 4] >> 4 & 3) << 6);
        packed[j + 4] = (uint8_t)((mins[j] & 63) | (mins[j + 4] >> 4 & 3) << 6);
        packed[j + 8] = (uint8_t)((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
    }
}

TMS_INLINE void unpack_six_bits(const uint8_t *restrict packed, uint8_t *restrict scales, uint8_t *restrict mins)
{
    for (int j = 0; j < 4; j++) {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = (uint8_t)((packed[j + 8] & 15) | packed[j] >> 6 << 4);
        mins[j + 4] = (uint8_t)(packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4);
    }
}

/* The largest of n scales, 0 if none is positive. */
TMS_INLINE float largest_of(const float *restrict v, int n)
{
    float found = 0;
    for (int i = 0; i < n; i++) found = v[i] > found ? v[i] : found;
    return found;
}

/* The scale of largest magnitude, the first of several. */
TMS_INLINE float largest_signed_of(const float *restrict v, int n)
{
    float found = 0, magnitude = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(v[i]) > magnitude) {
            magnitude = fabsf(v[i]);
            found = v[i];
        }
    return found;
}

/* ---- q2_k ---- */

static const struct tms_affine_rule q2_k_rule = {
    .block = 16, .top = 3, .first = -0.5f, .step = 0.1f, .last = 15, .absolute = true};

TMS_INLINE void tms_q2_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q2_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float scales[16], mins[16];
        uint8_t codes[SUPER];
        tms_k_affine(&q2_k_rule, x, 16, scales, mins, codes);
        float max_scale = largest_of(scales, 16), max_min = largest_of(mins, 16);
        float scale_inverse = max_scale > 0 ? 15 / max_scale : 0, min_inverse = max_min > 0 ? 15 / max_min : 0;
        tms_store_f16(b[s].d, max_scale / 15);
        tms_store_f16(b[s].dmin, max_min / 15);
        float d = tms_load_f16(b[s].d), dmin = tms_load_f16(b[s].dmin);
        for (int j = 0; j < 16; j++) {
            /* Both are in 0 … 15, but for a scale that rounding errors made negative: its bits run into the minimum's,
             * as in ggml. */
            unsigned scale = (unsigned)tms_nearest(scale_inverse * scales[j]);
            unsigned min = (unsigned)tms_nearest(min_inverse * mins[j]);
            b[s].scales[j] = (uint8_t)(scale | min << 4);
            float step = d * (float)(b[s].scales[j] & 15);
            float low = dmin * (float)(b[s].scales[j] >> 4);
            if (step != 0) round_affine(x + 16 * j, 16, step, low, 3, codes + 16 * j);
        }
        pack_pairs(codes, b[s].q);
    }
}

TMS_INLINE void tms_q2_k_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q2_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float d = tms_load_f16(b[s].d), dmin = tms_load_f16(b[s].dmin);
        for (int j = 0; j < 16; j++) {
            float step = d * (float)(b[s].scales[j] & 15), min = dmin * (float)(b[s].scales[j] >> 4);
            const uint8_t *q = b[s].q + 32 * (j / 8) + 16 * (j % 2);
            int shift = 2 * (j / 2 % 4);
            for (int i = 0; i < 16; i++) x[16 * j + i] = step * (float)(q[i] >> shift & 3) - min;
        }
    }
}

/* ---- q3_k ---- */

/* Sixteen scales of six bits: the low nibbles of scales j and j + 8 share byte j, the top bits of scales j, j + 4,
 * j + 8 and j + 12 share byte 8 + j. */
TMS_INLINE void pack_q3_scales(const uint8_t *restrict scales, uint8_t *restrict packed)
{
    for (int j = 0; j < 8; j++) packed[j] = (uint8_t)((scales[j] & 15) | (scales[j + 8] & 15) << 4);
    for (int j = 0; j < 4; j++)
        packed[8 + j] =
            (uint8_t)(scales[j] >> 4 | scales[j + 4] >> 4 << 2 | scales[j + 8] >> 4 << 4 | scales[j + 12] >> 4 << 6);
}

TMS_INLINE int unpack_q3_scale(const uint8_t *restrict packed, int j)
{
    int low = packed[j % 8] >> 4 * (j / 8) & 15, high = packed[8 + j % 4] >> 2 * (j / 4) & 3;
    return (low | high << 4) - 32;
}

TMS_INLINE void tms_q3_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q3_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float scales[16];
        uint8_t codes[SUPER], packed[16] = {0};
        tms_k_symmetric_by_moves(x, 16, scales, codes);
        float max_scale = largest_signed_of(scales, 16);
        float inverse = 0, d = 0;
        if (max_scale != 0) {
            inverse = -32 / max_scale;
            d = 1 / inverse;
            for (int j = 0; j < 16; j++)
                packed[j] = (uint8_t)(32 + tms_clamp(tms_nearest(inverse * scales[j]), -32, 31));
        }
        pack_q3_scales(packed, b[s].scales);
        tms_store_f16(b[s].d, d);
        d = tms_load_f16(b[s].d);
        for (int j = 0; j < 16; j++) {
            float step = d * (float)((int)packed[j] - 32);
            if (step != 0) round_symmetric(x + 16 * j, step, 4, codes + 16 * j);
        }
        pack_pairs(codes, b[s].q);
        memset(b[s].high, 0, sizeof b[s].high);
        for (int i = 0; i < SUPER; i++) b[s].high[i % 32] |= (uint8_t)(codes[i] >> 2 << i / 32);
    }
}

TMS_INLINE void tms_q3_k_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q3_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float d = tms_load_f16(b[s].d);
        for (int j = 0; j < 16; j++) {
            float step = d * (float)unpack_q3_scale(b[s].scales, j);
            const uint8_t *q = b[s].q + 32 * (j / 8) + 16 * (j % 2), *high = b[s].high + 16 * (j % 2);
            int shift = 2 * (j / 2 % 4), bit = j / 2;
            for (int i = 0; i < 16; i++)
                x[16 * j + i] = step * (float)((q[i] >> shift & 3) + 4 * (high[i] >> bit & 1) - 4);
        }
    }
}

/* ---- q4_k, q5_k ---- */

static const struct tms_affine_rule q4_k_rule = {.block = 32, .top = 15, .first = -1, .step = 0.1f, .last = 20};
static const struct tms_affine_rule q5_k_rule = {.block = 32, .top = 31, .first = -0.5f, .step = 0.1f, .last = 15};

/* From the searched scales and minimums of one super-block: d, dmin, the packed integers, and the final codes. */
TMS_INLINE void finish_45(const float *restrict x, const float *restrict scales, const float *restrict mins, int top,
                          uint8_t *restrict d_out, uint8_t *restrict dmin_out, uint8_t *restrict packed,
                          uint8_t *restrict codes)
{
    uint8_t scale[8], min[8];
    float max_scale = largest_of(scales, 8), max_min = largest_of(mins, 8);
    float scale_inverse = max_scale > 0 ? 63 / max_scale : 0, min_inverse = max_min > 0 ? 63 / max_min : 0;
    tms_store_f16(d_out, max_scale / 63);
    tms_store_f16(dmin_out, max_min / 63);
    float d = tms_load_f16(d_out), dmin = tms_load_f16(dmin_out);
    for (int j = 0; j < 8; j++) {
        /* A negative scale wraps to 8 bits before it is clamped, as in ggml. */
        scale[j] = (uint8_t)tms_nearest(scale_inverse * scales[j]);
        min[j] = (uint8_t)tms_nearest(min_inverse * mins[j]);
        if (scale[j] > 63) scale[j] = 63;
        if (min[j] > 63) min[j] = 63;
        float step = d * (float)scale[j];
        if (step != 0) round_affine(x + 32 * j, 32, step, dmin * (float)min[j], top, codes + 32 * j);
    }
    pack_six_bits(scale, min, packed);
}

/* Two super-blocks, sixteen blocks, are searched at a time to fill the widest vectors. */
enum { TOGETHER = 2 };

TMS_INLINE void tms_q4_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q4_k *b = blocks;
    float scales[8 * TOGETHER], mins[8 * TOGETHER];
    uint8_t codes[SUPER * TOGETHER];
    for (size_t s = 0, count; s < n / SUPER; s += count, x += count * SUPER) {
        count = n / SUPER - s < TOGETHER ? n / SUPER - s : TOGETHER;
        tms_k_affine(&q4_k_rule, x, 8 * count, scales, mins, codes);
        for (size_t k = 0; k < count; k++) {
            struct q4_k *to = b + s + k;
            finish_45(x + k * SUPER, scales + 8 * k, mins + 8 * k, 15, to->d, to->dmin, to->scales, codes + k * SUPER);
            pack_nibbles(codes + k * SUPER, to->q);
        }
    }
}

TMS_INLINE void tms_q5_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q5_k *b = blocks;
    float scales[8 * TOGETHER], mins[8 * TOGETHER];
    uint8_t codes[SUPER * TOGETHER];
    for (size_t s = 0, count; s < n / SUPER; s += count, x += count * SUPER) {
        count = n / SUPER - s < TOGETHER ? n / SUPER - s : TOGETHER;
        tms_k_affine(&q5_k_rule, x, 8 * count, scales, mins, codes);
        for (size_t k = 0; k < count; k++) {
            struct q5_k *to = b + s + k;
            const uint8_t *c = codes + k * SUPER;
            finish_45(x + k * SUPER, scales + 8 * k, mins + 8 * k, 31, to->d, to->dmin, to->scales, codes + k * SUPER);
            pack_nibbles(c, to->q);
            memset(to->high, 0, sizeof to->high);
            for (int i = 0; i < SUPER; i++) to->high[i % 32] |= (uint8_t)(c[i] >> 4 << i / 32);
        }
    }
}

TMS_INLINE void tms_q4_k_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q4_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float d = tms_load_f16(b[s].d), dmin = tms_load_f16(b[s].dmin);
        uint8_t scale[8], min[8];
        unpack_six_bits(b[s].scales, scale, min);
        for (int j = 0; j < 8; j++) {
            float step = d * (float)scale[j], low = dmin * (float)min[j];
            const uint8_t *q = b[s].q + 32 * (j / 2);
            int shift = 4 * (j % 2);
            for (int i = 0; i < 32; i++) x[32 * j + i] = step * (float)(q[i] >> shift & 15) - low;
        }
    }
}

TMS_INLINE void tms_q5_k_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q5_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float d = tms_load_f16(b[s].d), dmin = tms_load_f16(b[s].dmin);
        uint8_t scale[8], min[8];
        unpack_six_bits(b[s].scales, scale, min);
        for (int j = 0; j < 8; j++) {
            float step = d * (float)scale[j], low = dmin * (float)min[j];
            const uint8_t *q = b[s].q + 32 * (j / 2);
            int shift = 4 * (j % 2);
            for (int i = 0; i < 32; i++)
                x[32 * j + i] = step * (float)((q[i] >> shift & 15) | (b[s].high[i] >> j & 1) << 4) - low;
        }
    }
}

/* ---- q6_k ---- */

TMS_INLINE void tms_q6_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q6_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float scales[16];
        uint8_t codes[SUPER];
        tms_k_symmetric(32, x, 16, scales, codes);
        float max_scale = largest_signed_of(scales, 16);
        if (fabsf(max_scale) < TMS_K_TINY) {
            memset(&b[s], 0, sizeof b[s]);
            continue;
        }
        float inverse = -128 / max_scale;
        tms_store_f16(b[s].d, 1 / inverse);
        float d = tms_load_f16(b[s].d);
        for (int j = 0; j < 16; j++) {
            b[s].scales[j] = (int8_t)tms_clamp(tms_nearest(inverse * scales[j]), -128, 127);
            float step = d * (float)b[s].scales[j];
            if (step != 0) round_symmetric(x + 16 * j, step, 32, codes + 16 * j);
        }
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 32; i++) {
                const uint8_t *c = codes + 128 * half + i;
                b[s].low[64 * half + i] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
                b[s].low[64 * half + 32 + i] = (uint8_t)((c[32] & 15) | (c[96] & 15) << 4);
                b[s].high[32 * half + i] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
            }
    }
}

TMS_INLINE void tms_q6_k_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q6_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float d = tms_load_f16(b[s].d);
        for (int j = 0; j < 16; j++) {
            float step = d * (float)b[s].scales[j];
            int quarter = j / 2 % 4;
            const uint8_t *low = b[s].low + 64 * (j / 8) + 32 * (quarter % 2) + 16 * (j % 2);
            const uint8_t *high = b[s].high + 32 * (j / 8) + 16 * (j % 2);
            int low_shift = 4 * (quarter / 2), high_shift = 2 * quarter;
            for (int i = 0; i < 16; i++)
                x[16 * j + i] = step * (float)(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
        }
    }
}

/* ---- q8_k ---- */

TMS_INLINE void tms_q8_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q8_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float peak = largest_signed_of(x, SUPER);
        if (peak == 0) {
            memset(&b[s], 0, sizeof b[s]);
            continue;
        }
        float inverse = -127 / peak, d = 1 / inverse;
        memcpy(b[s].d, &d, sizeof d);
        for (int i = 0; i < SUPER; i++) b[s].q[i] = (int8_t)tms_clamp(tms_nearest(inverse * x[i]), -128, 127);
        for (int j = 0; j < 16; j++) {
            int16_t sum = 0;
            for (int i = 0; i < 16; i++) sum = (int16_t)(sum + b[s].q[16 * j + i]);
            memcpy(b[s].sums[j], &sum, sizeof sum);
        }
    }
}

TMS_INLINE void tms_q8_k_decode_body(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q8_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float d;
        memcpy(&d, b[s].d, sizeof d);
        for (int i = 0; i < SUPER; i++) x[i] = d * (float)b[s].q[i];
    }
}

#define ROW_FUNCTIONS(name)                                                                                            \
    TMS_BY_CPU(extern, tms_##name##_encode, (const float *x, void *blocks, size_t n), (x, blocks, n))                  \
    TMS_BY_CPU(extern, tms_##name##_decode, (const void *blocks, float *x, size_t n), (blocks, x, n))

ROW_FUNCTIONS(q2_k)
ROW_FUNCTIONS(q3_k)
ROW_FUNCTIONS(q4_k)
ROW_FUNCTIONS(q5_k)
ROW_FUNCTIONS(q6_k)
ROW_FUNCTIONS(q8_k)

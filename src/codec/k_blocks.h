/* The K-quants' blocks (see k_quants.c for what they mean) and the last step of encoding, which the plain and the
 * weighted encoders share: when d, dmin and the integer scales are in the block, every weight is rounded once more with
 * what is really stored, and the codes are packed. A block of 16 or 32 whose stored scale is zero keeps the codes of
 * the search. */
#ifndef TMS_CODEC_K_BLOCKS_H
#define TMS_CODEC_K_BLOCKS_H

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

/* Codes 0 … top of one block with the stored scale d and minimum m. As 32-bit integers: compilers have no vectors that
 * narrow 16 of them to bytes. */
TMS_INLINE void round_affine(const float *restrict x, int n, float d, float m, int top, int32_t *restrict codes)
{
    for (int i = 0; i < n; i++) codes[i] = tms_clamp(tms_nearest((x[i] + m) / d), 0, top);
}

/* Codes 0 … 2 half - 1 of one block of 16 with the stored scale d. */
TMS_INLINE void round_symmetric(const float *restrict x, float d, int half, int32_t *restrict codes)
{
    for (int i = 0; i < 16; i++) codes[i] = half + tms_clamp(tms_nearest(x[i] / d), -half, half - 1);
}

TMS_INLINE void widen_codes(const uint8_t *restrict codes, int32_t *restrict wide)
{
    for (int i = 0; i < SUPER; i++) wide[i] = codes[i];
}

TMS_INLINE void narrow_codes(const int32_t *restrict wide, uint8_t *restrict codes)
{
    for (int i = 0; i < SUPER; i++) codes[i] = (uint8_t)wide[i];
}

/* Bit k of byte i: bit `bit` of code 32 k + i, the highest one. */
TMS_INLINE void pack_high_bits(const uint8_t *restrict codes, int bit, uint8_t *restrict high)
{
    for (int i = 0; i < 32; i++) {
        unsigned bits = 0;
        for (int k = 0; k < 8; k++) bits |= (unsigned)(codes[32 * k + i] >> bit) << k;
        high[i] = (uint8_t)bits;
    }
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
 * 0 … 3 and 4 … 7; of blocks 4 … 7 the low nibbles share bytes 8 … 11 and the top two bits sit above the former. A
 * number above 63 runs into its neighbours. */
TMS_INLINE void pack_six_bits(const uint8_t *restrict scales, const uint8_t *restrict mins, uint8_t *restrict packed)
{
    for (int j = 0; j < 4; j++) {
        packed[j] = (uint8_t)(scales[j] | scales[j + 4] >> 4 << 6);
        packed[j + 4] = (uint8_t)(mins[j] | mins[j + 4] >> 4 << 6);
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

TMS_INLINE void finish_q2_k(struct q2_k *restrict b, const float *restrict x, uint8_t *restrict codes)
{
    float d = tms_load_f16(b->d), dmin = tms_load_f16(b->dmin);
    int32_t wide[SUPER];
    widen_codes(codes, wide);
    for (int j = 0; j < 16; j++) {
        float step = d * (float)(b->scales[j] & 15);
        float low = dmin * (float)(b->scales[j] >> 4);
        if (step != 0) round_affine(x + 16 * j, 16, step, low, 3, wide + 16 * j);
    }
    narrow_codes(wide, codes);
    pack_pairs(codes, b->q);
}

/* scales: as the block has them, 0 … 63. */
TMS_INLINE void finish_q3_k(struct q3_k *restrict b, const float *restrict x, const uint8_t *restrict scales,
                            uint8_t *restrict codes)
{
    float d = tms_load_f16(b->d);
    pack_q3_scales(scales, b->scales);
    int32_t wide[SUPER];
    widen_codes(codes, wide);
    for (int j = 0; j < 16; j++) {
        float step = d * (float)((int)scales[j] - 32);
        if (step != 0) round_symmetric(x + 16 * j, step, 4, wide + 16 * j);
    }
    narrow_codes(wide, codes);
    pack_pairs(codes, b->q);
    pack_high_bits(codes, 2, b->high);
}

TMS_INLINE void round_with_six_bits(const uint8_t *restrict d_f16, const uint8_t *restrict dmin_f16,
                                    const uint8_t *restrict packed, int top, const float *restrict x,
                                    uint8_t *restrict codes)
{
    float d = tms_load_f16(d_f16), dmin = tms_load_f16(dmin_f16);
    uint8_t scale[8], min[8];
    unpack_six_bits(packed, scale, min);
    int32_t wide[SUPER];
    widen_codes(codes, wide);
    for (int j = 0; j < 8; j++) {
        float step = d * (float)scale[j];
        if (step != 0) round_affine(x + 32 * j, 32, step, dmin * (float)min[j], top, wide + 32 * j);
    }
    narrow_codes(wide, codes);
}

TMS_INLINE void finish_q4_k(struct q4_k *restrict b, const float *restrict x, uint8_t *restrict codes)
{
    round_with_six_bits(b->d, b->dmin, b->scales, 15, x, codes);
    pack_nibbles(codes, b->q);
}

TMS_INLINE void finish_q5_k(struct q5_k *restrict b, const float *restrict x, uint8_t *restrict codes)
{
    round_with_six_bits(b->d, b->dmin, b->scales, 31, x, codes);
    pack_nibbles(codes, b->q);
    pack_high_bits(codes, 4, b->high);
}

/* From the searched scales; for the plain and the weighted search alike. */
TMS_INLINE void finish_q6_k(struct q6_k *restrict b, const float *restrict x, const float *restrict scales,
                            uint8_t *restrict codes)
{
    float max_scale = largest_signed_of(scales, 16);
    if (fabsf(max_scale) < TMS_K_TINY) {
        memset(b, 0, sizeof *b);
        return;
    }
    float inverse = -128 / max_scale;
    tms_store_f16(b->d, 1 / inverse);
    float d = tms_load_f16(b->d);
    int32_t wide[SUPER];
    widen_codes(codes, wide);
    for (int j = 0; j < 16; j++) {
        b->scales[j] = (int8_t)tms_clamp(tms_nearest(inverse * scales[j]), -128, 127);
        float step = d * (float)b->scales[j];
        if (step != 0) round_symmetric(x + 16 * j, step, 32, wide + 16 * j);
    }
    narrow_codes(wide, codes);
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *c = codes + 128 * half + i;
            b->low[64 * half + i] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
            b->low[64 * half + 32 + i] = (uint8_t)((c[32] & 15) | (c[96] & 15) << 4);
            b->high[32 * half + i] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
        }
}

#endif

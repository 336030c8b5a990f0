/* Stored blocks to codes and scales: what decoding is without its last step. Each function takes a unit of 256 weights
 * and gives weight i = scales[i / 16 or i / 32] * codes[i] - mins[the same]; the codecs' own files tell what the bytes
 * mean (codec/legacy.c, k_quants.c, iq*.c, fp4.c, ternary.c). These are the definition; vectors (unpack_lanes.h) give
 * the same. */
#ifndef TMS_ENGINE_KERNELS_UNPACK_H
#define TMS_ENGINE_KERNELS_UNPACK_H

#include <string.h>

#include "base/cpu.h"
#include "base/numbers.h"
#include "codec/iq1_grid.h"
#include "codec/iq_grids.h"

struct unpacked {
    int8_t codes[256];
    float scales[16], mins[16];
};

TMS_INLINE float half_at(const uint8_t *b)
{
    uint16_t h;
    memcpy(&h, b, sizeof h);
    return tms_f16_to_f32(h);
}

TMS_INLINE uint32_t word_at(const uint8_t *b)
{
    uint32_t w;
    memcpy(&w, b, sizeof w);
    return w;
}

static const int8_t iq4_numbers[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t fp4_numbers[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; /* doubled */

/* 16 bytes: low nibbles, then high ones. */
TMS_INLINE void unpack_nibbles(const uint8_t *restrict q, int less, int8_t *restrict codes)
{
    for (int i = 0; i < 16; i++) codes[i] = (int8_t)((q[i] & 15) - less);
    for (int i = 0; i < 16; i++) codes[16 + i] = (int8_t)((q[i] >> 4) - less);
}

TMS_INLINE void look_up_nibbles(const uint8_t *restrict q, const int8_t *restrict table, int n, int8_t *restrict codes)
{
    for (int i = 0; i < n; i++) {
        codes[i] = table[q[i] & 15];
        codes[n + i] = table[q[i] >> 4];
    }
}

/* Adds bit i of `bits`, times `value`, to code i. */
TMS_INLINE void add_bits(uint32_t bits, int value, int8_t *restrict codes)
{
    for (int i = 0; i < 32; i++) codes[i] = (int8_t)(codes[i] + (int)(bits >> i & 1) * value);
}

TMS_INLINE void unpack_q4_0(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++, b += 18) {
        u->scales[j] = half_at(b);
        unpack_nibbles(b + 2, 8, u->codes + 32 * j);
    }
}

TMS_INLINE void unpack_q4_1(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++, b += 20) {
        u->scales[j] = half_at(b);
        u->mins[j] = -half_at(b + 2);
        unpack_nibbles(b + 4, 0, u->codes + 32 * j);
    }
}

TMS_INLINE void unpack_q5_0(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++, b += 22) {
        u->scales[j] = half_at(b);
        unpack_nibbles(b + 6, 16, u->codes + 32 * j);
        add_bits(word_at(b + 2), 16, u->codes + 32 * j);
    }
}

TMS_INLINE void unpack_q5_1(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++, b += 24) {
        u->scales[j] = half_at(b);
        u->mins[j] = -half_at(b + 2);
        unpack_nibbles(b + 8, 0, u->codes + 32 * j);
        add_bits(word_at(b + 4), 16, u->codes + 32 * j);
    }
}

TMS_INLINE void unpack_q8_0(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++, b += 34) {
        u->scales[j] = half_at(b);
        memcpy(u->codes + 32 * j, b + 2, 32);
    }
}

TMS_INLINE void unpack_q8_k(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++) memcpy(u->scales + j, b, 4);
    memcpy(u->codes, b + 4, 256);
}

/* Two-bit codes: byte i of each half has weights i, i + 32, i + 64, i + 96. */
TMS_INLINE void unpack_pairs(const uint8_t *restrict q, int less, int8_t *restrict codes)
{
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) codes[32 * j + i] = (int8_t)((q[32 * (j / 4) + i] >> 2 * (j % 4) & 3) - less);
}

TMS_INLINE void unpack_q2_k(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int j = 0; j < 16; j++) {
        u->scales[j] = d * (float)(b[j] & 15);
        u->mins[j] = dmin * (float)(b[j] >> 4);
    }
    unpack_pairs(b + 16, 0, u->codes);
}

TMS_INLINE void unpack_q3_k(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const uint8_t *restrict s = b + 96;
    const float d = half_at(b + 108);
    for (int j = 0; j < 16; j++)
        u->scales[j] = d * (float)((int)((s[j % 8] >> 4 * (j / 8) & 15) | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32);
    unpack_pairs(b + 32, 4, u->codes);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) u->codes[32 * j + i] = (int8_t)(u->codes[32 * j + i] + 4 * (b[i] >> j & 1));
}

/* Eight scales and minimums of six bits in twelve bytes, to bytes of two words each. */
TMS_INLINE void unpack_six_bits(const uint8_t *packed, uint32_t scales[2], uint32_t mins[2])
{
    const uint32_t a = word_at(packed), b = word_at(packed + 4), c = word_at(packed + 8);
    scales[0] = a & 0x3f3f3f3f;
    mins[0] = b & 0x3f3f3f3f;
    scales[1] = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    mins[1] = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
}

TMS_INLINE void unpack_k_scales(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const float d = half_at(b), dmin = half_at(b + 2);
    uint32_t scales[2], mins[2];
    unpack_six_bits(b + 4, scales, mins);
    for (int j = 0; j < 8; j++) {
        u->scales[j] = d * (float)(scales[j / 4] >> 8 * (j % 4) & 63);
        u->mins[j] = dmin * (float)(mins[j / 4] >> 8 * (j % 4) & 63);
    }
}

TMS_INLINE void unpack_k_nibbles(const uint8_t *restrict q, int8_t *restrict codes)
{
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) codes[32 * j + i] = (int8_t)(q[32 * (j / 2) + i] >> 4 * (j % 2) & 15);
}

TMS_INLINE void unpack_q4_k(const uint8_t *restrict b, struct unpacked *restrict u)
{
    unpack_k_scales(b, u);
    unpack_k_nibbles(b + 16, u->codes);
}

TMS_INLINE void unpack_q5_k(const uint8_t *restrict b, struct unpacked *restrict u)
{
    unpack_k_scales(b, u);
    unpack_k_nibbles(b + 48, u->codes);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) u->codes[32 * j + i] = (int8_t)(u->codes[32 * j + i] + 16 * (b[16 + i] >> j & 1));
}

TMS_INLINE void unpack_q6_k(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const float d = half_at(b + 208);
    for (int j = 0; j < 16; j++) u->scales[j] = d * (float)(int8_t)b[192 + j];
    for (int j = 0; j < 8; j++) {
        const uint8_t *restrict low = b + 64 * (j / 4) + 32 * (j % 2), *restrict high = b + 128 + 32 * (j / 4);
        for (int i = 0; i < 32; i++)
            u->codes[32 * j + i] = (int8_t)((low[i] >> 4 * (j / 2 % 2) & 15) + (high[i] >> 2 * (j % 4) & 3) * 16 - 32);
    }
}

TMS_INLINE void unpack_iq4_nl(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++, b += 18) {
        u->scales[j] = half_at(b);
        look_up_nibbles(b + 2, iq4_numbers, 16, u->codes + 32 * j);
    }
}

TMS_INLINE void unpack_iq4_xs(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const float d = half_at(b);
    for (int j = 0; j < 8; j++) {
        int scale = (int)((word_at(b + 4) >> 4 * j & 15) | (word_at(b) >> 16 >> 2 * j & 3) << 4) - 32;
        u->scales[j] = d * (float)scale;
        look_up_nibbles(b + 8 + 16 * j, iq4_numbers, 16, u->codes + 32 * j);
    }
}

/* Turns code i of eight over where bit i of signs is set. */
TMS_INLINE void turn_eight(unsigned signs, int8_t *codes)
{
    for (int i = 0; i < 8; i++) codes[i] = (int8_t)(signs >> i & 1 ? -codes[i] : codes[i]);
}

/* Group g's seven bits of four times seven, and an eighth that makes their number even. */
TMS_INLINE unsigned even_signs_at(uint32_t sevens, int g)
{
    unsigned seven = sevens >> 7 * g & 127;
    return seven | (unsigned)__builtin_parity(seven) << 7;
}

TMS_INLINE void unpack_iq2_xxs(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ2_XXS);
    const float d = half_at(b);
    for (int j = 0; j < 8; j++) {
        uint32_t signs_scale = word_at(b + 2 + 8 * j + 4);
        u->scales[j] = d * (0.5f + (float)(signs_scale >> 28)) * 0.25f;
        for (int g = 0; g < 4; g++) {
            memcpy(u->codes + 32 * j + 8 * g, values + 8 * b[2 + 8 * j + g], 8);
            turn_eight(even_signs_at(signs_scale, g), u->codes + 32 * j + 8 * g);
        }
    }
}

/* Steps of sixteen blocks: d * (1/2 + scale) / 4. */
TMS_INLINE void unpack_half_steps(const uint8_t *restrict scales, float d, float *restrict steps)
{
    for (int j = 0; j < 16; j++) steps[j] = d * (0.5f + (float)(scales[j / 2] >> 4 * (j % 2) & 15)) * 0.25f;
}

TMS_INLINE void unpack_iq2_xs(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ2_XS);
    unpack_half_steps(b + 66, half_at(b), u->scales);
    for (int g = 0; g < 32; g++) {
        unsigned point = b[2 + 2 * g] | (unsigned)b[3 + 2 * g] << 8;
        memcpy(u->codes + 8 * g, values + (size_t)8 * (point & 511), 8);
        turn_eight(even_signs_at(point >> 9, 0), u->codes + 8 * g);
    }
}

TMS_INLINE void unpack_iq2_s(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ2_S);
    unpack_half_steps(b + 74, half_at(b), u->scales);
    for (int g = 0; g < 32; g++) {
        unsigned point = b[2 + g] | (b[66 + g / 4] >> 2 * (g % 4) & 3u) << 8;
        memcpy(u->codes + 8 * g, values + (size_t)8 * point, 8);
        turn_eight(b[34 + g], u->codes + 8 * g);
    }
}

TMS_INLINE void unpack_iq3_xxs(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ3_XXS);
    const float d = half_at(b);
    for (int j = 0; j < 8; j++) {
        uint32_t signs_scale = word_at(b + 66 + 4 * j);
        u->scales[j] = d * (0.5f + (float)(signs_scale >> 28)) * 0.5f;
        for (int g = 0; g < 8; g++) memcpy(u->codes + 32 * j + 4 * g, values + 4 * b[2 + 8 * j + g], 4);
        for (int g = 0; g < 4; g++) turn_eight(even_signs_at(signs_scale, g), u->codes + 32 * j + 8 * g);
    }
}

TMS_INLINE void unpack_iq3_s(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ3_S);
    const float d = half_at(b);
    for (int j = 0; j < 8; j++) {
        u->scales[j] = d * (float)(1 + 2 * (b[106 + j / 2] >> 4 * (j % 2) & 15));
        for (int g = 0; g < 8; g++) {
            unsigned point = b[2 + 8 * j + g] | (b[66 + j] >> g & 1u) << 8;
            memcpy(u->codes + 32 * j + 4 * g, values + (size_t)4 * point, 4);
        }
        for (int g = 0; g < 4; g++) turn_eight(b[74 + 4 * j + g], u->codes + 32 * j + 8 * g);
    }
}

/* scale * (point + delta), delta = 1/8 or -1/8: eighths of a scale. */
TMS_INLINE void unpack_eighths(const int8_t *restrict point, int delta, int8_t *restrict codes)
{
    for (int i = 0; i < 8; i++) codes[i] = (int8_t)(8 * point[i] + delta);
}

TMS_INLINE void unpack_iq1_s(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const struct tms_iq1_points *points = tms_iq1_points();
    const float d = half_at(b);
    for (int j = 0; j < 8; j++) {
        unsigned high = b[34 + 2 * j] | (unsigned)b[35 + 2 * j] << 8;
        u->scales[j] = d * (float)(2 * (high >> 12 & 7) + 1) * 0.125f;
        for (int g = 0; g < 4; g++)
            unpack_eighths(points->numbers[b[2 + 4 * j + g] | (high >> 3 * g & 7) << 8], high >> 15 ? -1 : 1,
                           u->codes + 32 * j + 8 * g);
    }
}

TMS_INLINE void unpack_iq1_m(const uint8_t *restrict b, struct unpacked *restrict u)
{
    const struct tms_iq1_points *points = tms_iq1_points();
    uint16_t words[4];
    memcpy(words, b + 48, sizeof words);
    const float d = tms_f16_to_f32(
        (uint16_t)(words[0] >> 12 | (words[1] >> 12) << 4 | (words[2] >> 12) << 8 | (words[3] >> 12) << 12));
    for (int j = 0; j < 16; j++) {
        unsigned high = b[32 + j];
        u->scales[j] = d * (float)(2 * (words[j / 4] >> 3 * (j % 4) & 7) + 1) * 0.125f;
        for (int g = 0; g < 2; g++)
            unpack_eighths(points->numbers[b[2 * j + g] | (high >> 4 * g & 7) << 8], high >> (4 * g + 3) & 1 ? -1 : 1,
                           u->codes + 16 * j + 8 * g);
    }
}

TMS_INLINE void unpack_mxfp4(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++, b += 17) {
        u->scales[j] = tms_f32_from_bits(b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23);
        look_up_nibbles(b + 1, fp4_numbers, 16, u->codes + 32 * j);
    }
}

TMS_INLINE void unpack_nvfp4(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 16; j++) {
        const uint8_t *block = b + 36 * (j / 4);
        uint32_t s = block[j % 4], e = s >> 3 & 15, m = s & 7;
        float scale = e ? tms_f32_from_bits((e + 119) << 23 | m << 20) : (float)(int)m * 0x1p-10f;
        u->scales[j] = s == 0x7f ? 0 : scale;
        look_up_nibbles(block + 4 + 8 * (j % 4), fp4_numbers, 8, u->codes + 16 * j);
    }
}

TMS_INLINE void unpack_tq1_0(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++) u->scales[j] = half_at(b + 52);
    int8_t *restrict codes = u->codes;
    for (int k = 0, power = 1; k < 5; k++, power *= 3) {
        for (int i = 0; i < 32; i++) codes[32 * k + i] = (int8_t)(((uint8_t)(b[i] * power) * 3 >> 8) - 1);
        for (int i = 0; i < 16; i++) codes[160 + 16 * k + i] = (int8_t)(((uint8_t)(b[32 + i] * power) * 3 >> 8) - 1);
        for (int i = 0; k < 4 && i < 4; i++)
            codes[240 + 4 * k + i] = (int8_t)(((uint8_t)(b[48 + i] * power) * 3 >> 8) - 1);
    }
}

TMS_INLINE void unpack_tq2_0(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++) u->scales[j] = half_at(b + 64);
    unpack_pairs(b, 1, u->codes);
}

TMS_INLINE void unpack_q1_0(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++) {
        const uint8_t *block = b + 18 * (j / 4);
        u->scales[j] = half_at(block);
        memset(u->codes + 32 * j, -1, 32);
        add_bits(word_at(block + 2 + 4 * (j % 4)), 2, u->codes + 32 * j);
    }
}

TMS_INLINE void unpack_q2_0(const uint8_t *restrict b, struct unpacked *restrict u)
{
    for (int j = 0; j < 8; j++) {
        const uint8_t *block = b + 18 * (j / 2);
        u->scales[j] = half_at(block);
        for (int i = 0; i < 32; i++)
            u->codes[32 * j + i] = (int8_t)((block[2 + 8 * (j % 2) + i / 4] >> 2 * (i % 4) & 3) - 1);
    }
}

#endif

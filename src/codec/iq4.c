/* ggml's IQ4_NL and IQ4_XS: four-bit codes for sixteen uneven numbers (iq4_search.h).
 *
 * type    block  x =                               bytes
 * iq4_nl  32     d * numbers[q]                    18
 * iq4_xs  256    d * (scale - 32) * numbers[q]     136, six-bit scales for every 32 weights
 *
 * Byte i of 16 holds weight i in its low and weight i + 16 in its high nibble. A search finds the scale of every 32
 * weights; codes are then found with the scale as f32 (iq4_xs: with d times its integer). Source: ggml 0.25, whose
 * bytes the encoders reproduce. */
#include <assert.h>
#include <math.h>

#include "codec/iq4_search.h"
#include "codec/k_search.h"
#include "codec/nibbles.h"
#include "codec/ordered_sums.h"
#include "codec/rows.h"

enum { BLOCK = 32, SUPER = 256, TOGETHER = 64 }; /* TOGETHER: blocks of 32 that are searched at once */

struct iq4_nl {
    uint8_t d[2], q[16];
};
struct iq4_xs {
    uint8_t d[2], scales_high[2], scales_low[4], q[128];
};
static_assert(sizeof(struct iq4_nl) == 18, "iq4_nl");
static_assert(sizeof(struct iq4_xs) == 136, "iq4_xs");

/* Codes of 32 weights for the given 1 / scale. */
TMS_INLINE void pack_codes(const float *restrict x, float inverse, uint8_t *restrict q)
{
    uint8_t codes[BLOCK];
    for (int i = 0; i < BLOCK; i++) codes[i] = (uint8_t)tms_iq4_code(inverse * x[i]);
    for (int i = 0; i < 16; i++) q[i] = (uint8_t)(codes[i] | codes[i + 16] << 4);
}

/* The importance of `count` blocks of n weights, from block number `first` of a matrix with n_cols columns on. */
static void spread_importance(const float *weights, size_t n_cols, size_t n, size_t first, size_t count, float *to)
{
    for (size_t b = 0; b < count; b++) memcpy(to + b * n, weights + (first + b) * n % n_cols, n * sizeof *to);
}

/* ---- iq4_nl ---- */

TMS_INLINE void pack_nl_body(const float *restrict x, const float *restrict scales, size_t count, struct iq4_nl *b)
{
    for (size_t i = 0; i < count; i++) {
        tms_store_f16(b[i].d, scales[i]);
        pack_codes(x + BLOCK * i, scales[i] != 0 ? 1 / scales[i] : 0, b[i].q);
    }
}
TMS_BY_CPU(static, pack_nl, (const float *x, const float *scales, size_t count, struct iq4_nl *b),
           (x, scales, count, b))

static void encode_nl(const float *x, const float *weights, struct iq4_nl *b, size_t n_blocks, size_t n_cols)
{
    float scales[TOGETHER], sigma2[TOGETHER], importance[TOGETHER * BLOCK];
    for (size_t s = 0, count; s < n_blocks; s += count, x += count * BLOCK) {
        count = n_blocks - s < TOGETHER ? n_blocks - s : TOGETHER;
        if (weights) {
            spread_importance(weights, n_cols, BLOCK, s, count, importance);
            tms_ordered_sums_of_squares(x, BLOCK, count, sigma2);
            for (size_t i = 0; i < count; i++) sigma2[i] *= 2.0f / BLOCK;
        }
        tms_iq4_scales(x, weights ? importance : NULL, weights ? sigma2 : NULL, count, scales);
        pack_nl(x, scales, count, b + s);
    }
}

void tms_iq4_nl_encode(const float *x, void *blocks, size_t n)
{
    encode_nl(x, NULL, blocks, n / BLOCK, BLOCK);
}

void tms_iq4_nl_encode_weighted(const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols)
{
    encode_nl(x, weights, blocks, n_rows * (n_cols / BLOCK), n_cols);
}

void tms_iq4_nl_decode(const void *blocks, float *x, size_t n)
{
    const struct iq4_nl *b = blocks;
    float scales[2 * TOGETHER];
    for (size_t s = 0, count; s < n / BLOCK; s += count) {
        count = n / BLOCK - s < TOGETHER ? n / BLOCK - s : TOGETHER;
        for (size_t i = 0; i < count; i++) scales[2 * i] = scales[2 * i + 1] = tms_load_f16(b[s + i].d);
        tms_decode_nibbles(b[s].q, sizeof *b, count, tms_iq4_numbers, false, scales, x + BLOCK * s);
    }
}

/* ---- iq4_xs ---- */

TMS_INLINE void pack_xs_body(const float *restrict x, const float *restrict scales, size_t count, struct iq4_xs *b)
{
    for (size_t s = 0; s < count; s++, scales += 8) {
        float peak = 0;
        for (int j = 0; j < 8; j++) peak = fabsf(scales[j]) > fabsf(peak) ? scales[j] : peak;
        float d = -peak / 32, inverse = d != 0 ? 1 / d : 0;
        unsigned low = 0, high = 0;
        for (int j = 0; j < 8; j++, x += BLOCK) {
            int scale = tms_clamp(tms_nearest(inverse * scales[j]), -32, 31);
            float step = d * (float)scale;
            pack_codes(x, step != 0 ? 1 / step : 0, b[s].q + 16 * j);
            low |= ((unsigned)(scale + 32) & 15) << 4 * j;
            high |= ((unsigned)(scale + 32) >> 4) << 2 * j;
        }
        tms_store_f16(b[s].d, d);
        memcpy(b[s].scales_low, &low, sizeof b[s].scales_low);
        memcpy(b[s].scales_high, &high, sizeof b[s].scales_high);
    }
}
TMS_BY_CPU(static, pack_xs, (const float *x, const float *scales, size_t count, struct iq4_xs *b),
           (x, scales, count, b))

static void encode_xs(const float *x, const float *weights, struct iq4_xs *b, size_t n_supers, size_t n_cols)
{
    enum { SUPERS = TOGETHER / 8 };
    float scales[TOGETHER], sums[SUPERS], sigma2[TOGETHER], importance[TOGETHER * BLOCK];
    for (size_t s = 0, count; s < n_supers; s += count, x += count * SUPER) {
        count = n_supers - s < SUPERS ? n_supers - s : SUPERS;
        if (weights) {
            spread_importance(weights, n_cols, SUPER, s, count, importance);
            tms_ordered_sums_of_squares(x, SUPER, count, sums);
            for (size_t i = 0; i < 8 * count; i++) sigma2[i] = sums[i / 8] * (2.0f / SUPER);
        }
        tms_iq4_scales(x, weights ? importance : NULL, weights ? sigma2 : NULL, 8 * count, scales);
        pack_xs(x, scales, count, b + s);
    }
}

void tms_iq4_xs_encode(const float *x, void *blocks, size_t n)
{
    encode_xs(x, NULL, blocks, n / SUPER, SUPER);
}

void tms_iq4_xs_encode_weighted(const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols)
{
    encode_xs(x, weights, blocks, n_rows * (n_cols / SUPER), n_cols);
}

void tms_iq4_xs_decode(const void *blocks, float *x, size_t n)
{
    const struct iq4_xs *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++) {
        float d = tms_load_f16(b[s].d), scales[16];
        uint16_t high;
        memcpy(&high, b[s].scales_high, sizeof high);
        for (int j = 0; j < 8; j++) {
            int scale = (b[s].scales_low[j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4;
            scales[2 * j] = scales[2 * j + 1] = d * (float)(scale - 32);
        }
        tms_decode_nibbles(b[s].q, 16, 8, tms_iq4_numbers, false, scales, x + SUPER * s);
    }
}

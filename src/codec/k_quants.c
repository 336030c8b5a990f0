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
 * integers times d (and dmin), which are f16; then every weight is rounded again with what is really stored
 * (k_blocks.h). */
#include "codec/k_blocks.h"

/* The largest of n scales, 0 if none is positive. */
TMS_INLINE float largest_of(const float *restrict v, int n)
{
    float found = 0;
    for (int i = 0; i < n; i++) found = v[i] > found ? v[i] : found;
    return found;
}

/* Super-blocks that are searched at a time to fill the widest vectors: sixteen blocks of 32, twice sixteen of 16. */
enum { TOGETHER = 4 };

/* ---- q2_k ---- */

static const struct tms_affine_rule q2_k_rule = {
    .block = 16, .top = 3, .first = -0.5f, .step = 0.1f, .last = 15, .absolute = true};

TMS_INLINE void tms_q2_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q2_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float scales[16], mins[16];
        uint8_t codes[SUPER];
        tms_k_affine(&q2_k_rule, x, NULL, 16, scales, mins, codes);
        float max_scale = largest_of(scales, 16), max_min = largest_of(mins, 16);
        float scale_inverse = max_scale > 0 ? 15 / max_scale : 0, min_inverse = max_min > 0 ? 15 / max_min : 0;
        tms_store_f16(b[s].d, max_scale / 15);
        tms_store_f16(b[s].dmin, max_min / 15);
        for (int j = 0; j < 16; j++) {
            /* Both are in 0 … 15, but for a scale that rounding errors made negative: its bits run into the minimum's,
             * as in ggml. */
            unsigned scale = (unsigned)tms_nearest(scale_inverse * scales[j]);
            unsigned min = (unsigned)tms_nearest(min_inverse * mins[j]);
            b[s].scales[j] = (uint8_t)(scale | min << 4);
        }
        finish_q2_k(&b[s], x, codes);
    }
}

static void q2_k_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
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

TMS_INLINE void tms_q3_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q3_k *b = blocks;
    float scales[16 * TOGETHER];
    uint8_t codes[SUPER * TOGETHER];
    for (size_t s = 0, count; s < n / SUPER; s += count, x += count * SUPER) {
        count = n / SUPER - s < TOGETHER ? n / SUPER - s : TOGETHER;
        tms_k_symmetric_by_moves(x, 16 * count, scales, codes);
        for (size_t k = 0; k < count; k++) {
            uint8_t scale[16] = {0};
            float max_scale = largest_signed_of(scales + 16 * k, 16);
            float inverse = 0, d = 0;
            if (max_scale != 0) {
                inverse = -32 / max_scale;
                d = 1 / inverse;
                for (int j = 0; j < 16; j++)
                    scale[j] = (uint8_t)(32 + tms_clamp(tms_nearest(inverse * scales[16 * k + (size_t)j]), -32, 31));
            }
            tms_store_f16(b[s + k].d, d);
            finish_q3_k(&b[s + k], x + k * SUPER, scale, codes + k * SUPER);
        }
    }
}

static void q3_k_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
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

/* From the searched scales and minimums of one super-block: d, dmin and the packed integers. */
TMS_INLINE void store_scales_45(const float *restrict scales, const float *restrict mins, uint8_t *restrict d,
                                uint8_t *restrict dmin, uint8_t *restrict packed)
{
    uint8_t scale[8], min[8];
    float max_scale = largest_of(scales, 8), max_min = largest_of(mins, 8);
    float scale_inverse = max_scale > 0 ? 63 / max_scale : 0, min_inverse = max_min > 0 ? 63 / max_min : 0;
    tms_store_f16(d, max_scale / 63);
    tms_store_f16(dmin, max_min / 63);
    for (int j = 0; j < 8; j++) {
        /* A negative scale wraps to 8 bits before it is clamped, as in ggml. */
        scale[j] = (uint8_t)tms_nearest(scale_inverse * scales[j]);
        min[j] = (uint8_t)tms_nearest(min_inverse * mins[j]);
        if (scale[j] > 63) scale[j] = 63;
        if (min[j] > 63) min[j] = 63;
    }
    pack_six_bits(scale, min, packed);
}

TMS_INLINE void tms_q4_k_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct q4_k *b = blocks;
    float scales[8 * TOGETHER], mins[8 * TOGETHER];
    uint8_t codes[SUPER * TOGETHER];
    for (size_t s = 0, count; s < n / SUPER; s += count, x += count * SUPER) {
        count = n / SUPER - s < TOGETHER ? n / SUPER - s : TOGETHER;
        tms_k_affine(&q4_k_rule, x, NULL, 8 * count, scales, mins, codes);
        for (size_t k = 0; k < count; k++) {
            struct q4_k *to = b + s + k;
            store_scales_45(scales + 8 * k, mins + 8 * k, to->d, to->dmin, to->scales);
            finish_q4_k(to, x + k * SUPER, codes + k * SUPER);
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
        tms_k_affine(&q5_k_rule, x, NULL, 8 * count, scales, mins, codes);
        for (size_t k = 0; k < count; k++) {
            struct q5_k *to = b + s + k;
            store_scales_45(scales + 8 * k, mins + 8 * k, to->d, to->dmin, to->scales);
            finish_q5_k(to, x + k * SUPER, codes + k * SUPER);
        }
    }
}

static void q4_k_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
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

static void q5_k_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
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
        tms_k_symmetric(16, 32, x, NULL, 16, scales, codes);
        finish_q6_k(&b[s], x, scales, codes);
    }
}

static void q6_k_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
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

static void q8_k_decode_scalar(const void *restrict blocks, float *restrict x, size_t n)
{
    const struct q8_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++, x += SUPER) {
        float d;
        memcpy(&d, b[s].d, sizeof d);
        for (int i = 0; i < SUPER; i++) x[i] = d * (float)b[s].q[i];
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/decode_lanes.h"
#include "codec/k_decode_body.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/decode_lanes.h"
#include "codec/k_decode_body.h"
#include "codec/lanes_end.h"
#endif

#define ROW_FUNCTIONS(name)                                                                                            \
    TMS_BY_CPU(extern, tms_##name##_encode, (const float *x, void *blocks, size_t n), (x, blocks, n))                  \
    TMS_DECODER_BY_LANES(name)

ROW_FUNCTIONS(q2_k)
ROW_FUNCTIONS(q3_k)
ROW_FUNCTIONS(q4_k)
ROW_FUNCTIONS(q5_k)
ROW_FUNCTIONS(q6_k)
ROW_FUNCTIONS(q8_k)

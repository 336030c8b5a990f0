/* ggml's IQ3 types: 256 weights in 8 blocks of 32; the magnitudes of every 4 are one point of a codebook.
 *
 * type     points  levels decode to               signs   bytes of 256
 * iq3_xxs     256  4, 12, 20, 28, 36, 44, 52, 62  7 of 8   98    a weight is d * (1/2 + scale) / 2 * value
 * iq3_s       512  1, 3, 5, … 15                  all     110    d * (1 + 2 scale) * value
 *
 * Scales have 4 bits. Where 7 of 8 signs are stored, the last is such that an even number is negative. */
#include <assert.h>

#include "base/cpu.h"
#include "codec/iq_search.h"
#include "codec/rows.h"

struct iq3_xxs {
    uint8_t d[2];
    uint8_t points[64];
    uint8_t signs_scale[8][4]; /* four times 7 bits; the scale on top */
};
struct iq3_s {
    uint8_t d[2];
    uint8_t points[64]; /* the low 8 bits */
    uint8_t high[8];    /* bit g % 8 of byte g / 8: the top bit of point g */
    uint8_t signs[32];
    uint8_t scales[4]; /* of blocks 2 j and, in the high nibble, 2 j + 1 */
};
static_assert(sizeof(struct iq3_xxs) == 98, "iq3_xxs");
static_assert(sizeof(struct iq3_s) == 110, "iq3_s");

static const struct tms_iq_rule iq3_xxs_rule = {.book = TMS_BOOK_IQ3_XXS,
                                                .block = 32,
                                                .top = 7,
                                                .last = 15,
                                                .step = 0.2f,
                                                .even_signs = true,
                                                .refit = TMS_REFIT_OFF_GRID,
                                                .tiny = 1e-8f,
                                                .mean_square = 2};
static const struct tms_iq_rule iq3_s_rule = {.book = TMS_BOOK_IQ3_S,
                                              .block = 32,
                                              .top = 7,
                                              .last = 9,
                                              .step = 0.2f,
                                              .refit = TMS_REFIT_ALL_IF_ANY,
                                              .tiny = 0x1p-149f, /* only zero is below */
                                              .mean_square = 2};

static void encode_iq3_xxs(const float *x, const float *weights, struct iq3_xxs *b)
{
    struct tms_iq_found f;
    uint8_t scales[8];
    tms_iq_search(&iq3_xxs_rule, x, weights, &f);
    memset(b, 0, sizeof *b);
    if (f.largest_scale == 0) return;
    /* 1.0125: ggml's correction for the difference between searched and decoded levels */
    tms_store_f16(b->d, 1.0125f * tms_iq_round_scales(&f, 8, scales));
    for (int g = 0; g < 64; g++) b->points[g] = (uint8_t)TMS_POINT_INDEX(f.points[g]);
    for (int j = 0; j < 8; j++) {
        uint32_t signs_scale = (uint32_t)scales[j] << 28;
        for (int k = 0; k < 4; k++) signs_scale |= (f.signs[4 * j + k] & 127u) << 7 * k;
        memcpy(b->signs_scale[j], &signs_scale, 4);
    }
}

static void encode_iq3_s(const float *x, const float *weights, struct iq3_s *b)
{
    struct tms_iq_found f;
    uint8_t scales[8];
    tms_iq_search(&iq3_s_rule, x, weights, &f);
    memset(b, 0, sizeof *b);
    /* ggml writes points and signs behind those of the last block that was not zero: zero blocks leave their room at
     * the end, and what follows them decodes wrongly. Equal bytes come first here. */
    uint8_t *points = b->points, *signs = b->signs;
    for (int j = 0; j < 8; j++) {
        if (f.zero[j]) continue;
        for (int g = 0; g < 8; g++) {
            uint32_t point = TMS_POINT_INDEX(f.points[8 * j + g]);
            *points++ = (uint8_t)point;
            b->high[j] |= (uint8_t)(point >> 8 << g);
        }
        for (int k = 0; k < 4; k++) *signs++ = f.signs[4 * j + k];
    }
    if (f.largest_scale == 0) return; /* the points of a block with scale 0 stay, as in ggml */
    /* 1.033: as above */
    tms_store_f16(b->d, 1.033f * tms_iq_round_scales(&f, 8, scales));
    for (int j = 0; j < 4; j++) b->scales[j] = (uint8_t)(scales[2 * j] | scales[2 * j + 1] << 4);
}

/* Eight weights: step times the bytes of two points, with signs. */
TMS_INLINE void decode_groups(float step, const uint8_t *restrict first, const uint8_t *restrict second, unsigned signs,
                              float *restrict x)
{
    uint8_t values[8];
    memcpy(values, first, 4);
    memcpy(values + 4, second, 4);
    for (int i = 0; i < 8; i++) {
        uint32_t sign = signs >> i << 31;
        x[i] = tms_f32_from_bits(tms_f32_bits(step * (float)values[i]) ^ sign);
    }
}

static void decode_iq3_xxs_scalar(const struct iq3_xxs *restrict b, float *restrict x, size_t n,
                                  const uint8_t *restrict values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        float d = tms_load_f16(b->d);
        for (int j = 0; j < 8; j++) {
            uint32_t signs_scale;
            memcpy(&signs_scale, b->signs_scale[j], 4);
            float step = d * (0.5f + (float)(signs_scale >> 28)) * 0.5f;
            for (int k = 0; k < 4; k++, x += 8) {
                unsigned seven = signs_scale >> 7 * k & 127, signs = seven | (unsigned)__builtin_parity(seven) << 7;
                const uint8_t *points = b->points + 8 * j + 2 * k;
                decode_groups(step, values + 4 * points[0], values + 4 * points[1], signs, x);
            }
        }
    }
}

static void decode_iq3_s_scalar(const struct iq3_s *restrict b, float *restrict x, size_t n,
                                const uint8_t *restrict values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        float d = tms_load_f16(b->d);
        for (int j = 0; j < 8; j++) {
            float step = d * (float)(1 + 2 * (b->scales[j / 2] >> 4 * (j % 2) & 15));
            for (int k = 0; k < 4; k++, x += 8) {
                const uint8_t *points = b->points + 8 * j + 2 * k;
                unsigned high = (unsigned)b->high[j] >> 2 * k;
                decode_groups(step, values + 4 * (points[0] | (high & 1) << 8),
                              values + 4 * (points[1] | (high >> 1 & 1) << 8), b->signs[4 * j + k], x);
            }
        }
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/decode_lanes.h"
#include "codec/iq_decode_lanes.h"
#include "codec/iq3_decode_body.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/decode_lanes.h"
#include "codec/iq_decode_lanes.h"
#include "codec/iq3_decode_body.h"
#include "codec/lanes_end.h"
#endif

#define ROW_FUNCTIONS(name, book)                                                                                      \
    void tms_##name##_encode(const float *x, void *blocks, size_t n)                                                   \
    {                                                                                                                  \
        struct name *b = blocks;                                                                                       \
        for (size_t i = 0; i < n; i += TMS_IQ_SUPER) encode_##name(x + i, NULL, b++);                                  \
    }                                                                                                                  \
    void tms_##name##_encode_weighted(const float *x, const float *weights, void *blocks, size_t n_rows,               \
                                      size_t n_cols)                                                                   \
    {                                                                                                                  \
        struct name *b = blocks;                                                                                       \
        for (size_t row = 0; row < n_rows; row++)                                                                      \
            for (size_t i = 0; i < n_cols; i += TMS_IQ_SUPER) encode_##name(x + row * n_cols + i, weights + i, b++);   \
    }                                                                                                                  \
    TMS_BY_LANES(tms_##name##_decode, decode_##name, (const void *blocks, float *x, size_t n),                         \
                 (blocks, x, n, tms_iq_values(book)))
ROW_FUNCTIONS(iq3_xxs, TMS_BOOK_IQ3_XXS)
ROW_FUNCTIONS(iq3_s, TMS_BOOK_IQ3_S)

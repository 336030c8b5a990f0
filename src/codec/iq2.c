/* ggml's IQ2 types: 256 weights; the magnitudes of every 8 are one point of a codebook, with levels that decode to 8,
 * 25 or 43 (about 8 times 1, 3.1 and 5.4).
 *
 * type     points  signs   blocks  bytes of 256
 * iq2_xxs     256  7 of 8   8 * 32   66    a weight is d * (1/2 + scale) / 4 * value, with the scale of its block in 4
 * bits iq2_xs      512  7 of 8  16 * 16   74 iq2_s      1024  all     16 * 16   82
 *
 * Where 7 of 8 signs are stored, the last is such that an even number is negative. iq2_xxs and iq2_xs are encoded only
 * with an importance matrix, as in ggml. */
#include <assert.h>

#include "base/cpu.h"
#include "codec/iq_search.h"
#include "codec/rows.h"

struct iq2_xxs {
    uint8_t d[2];
    struct {
        uint8_t points[4];
        uint8_t signs_scale[4]; /* four times 7 bits; the scale on top */
    } blocks[8];
};
struct iq2_xs {
    uint8_t d[2];
    uint8_t points[32][2]; /* 9 bits, and 7 of signs above */
    uint8_t scales[8];     /* of blocks 2 j and, in the high nibble, 2 j + 1 */
};
struct iq2_s {
    uint8_t d[2];
    uint8_t points[32]; /* the low 8 bits */
    uint8_t signs[32];
    uint8_t high[8]; /* bits 2 (g % 4) … of byte g / 4: the top two bits of point g */
    uint8_t scales[8];
};
static_assert(sizeof(struct iq2_xxs) == 66, "iq2_xxs");
static_assert(sizeof(struct iq2_xs) == 74, "iq2_xs");
static_assert(sizeof(struct iq2_s) == 82, "iq2_s");

static const struct tms_iq_rule iq2_xxs_rule = {.book = TMS_BOOK_IQ2_XXS,
                                                .block = 32,
                                                .top = 2,
                                                .last = 6,
                                                .step = 0.1f,
                                                .start_by_fit = true,
                                                .even_signs = true,
                                                .refit = TMS_REFIT_ALL,
                                                .tiny = 1e-15f,
                                                .mean_square = 1};
static const struct tms_iq_rule iq2_xs_rule = {.book = TMS_BOOK_IQ2_XS,
                                               .block = 16,
                                               .top = 2,
                                               .last = 9,
                                               .step = 0.1f,
                                               .even_signs = true,
                                               .refit = TMS_REFIT_OFF_GRID,
                                               .tiny = 1e-15f,
                                               .mean_square = 1};
static const struct tms_iq_rule iq2_s_rule = {.book = TMS_BOOK_IQ2_S,
                                              .block = 16,
                                              .top = 2,
                                              .last = 9,
                                              .step = 0.1f,
                                              .refit = TMS_REFIT_OFF_GRID,
                                              .tiny = 1e-8f,
                                              .mean_square = 2,
                                              .plain_share = 0.25f};

static void encode_iq2_xxs(const float *x, const float *weights, struct iq2_xxs *b)
{
    struct tms_iq_found f;
    uint8_t scales[8];
    tms_iq_search(&iq2_xxs_rule, x, weights, &f);
    memset(b, 0, sizeof *b);
    if (f.largest_scale == 0) return;
    tms_store_f16(b->d, tms_iq_round_scales(&f, 8, scales));
    for (int j = 0; j < 8; j++) {
        uint32_t signs_scale = (uint32_t)scales[j] << 28;
        for (int g = 0; g < 4; g++) {
            b->blocks[j].points[g] = (uint8_t)TMS_POINT_INDEX(f.points[4 * j + g]);
            signs_scale |= (f.signs[4 * j + g] & 127u) << 7 * g;
        }
        memcpy(b->blocks[j].signs_scale, &signs_scale, 4);
    }
}

static void encode_iq2_xs(const float *x, const float *weights, struct iq2_xs *b)
{
    struct tms_iq_found f;
    uint8_t scales[16];
    tms_iq_search(&iq2_xs_rule, x, weights, &f);
    memset(b, 0, sizeof *b);
    if (f.largest_scale == 0) return;
    tms_store_f16(b->d, tms_iq_round_scales(&f, 16, scales));
    for (int g = 0; g < 32; g++) {
        uint16_t point = (uint16_t)(TMS_POINT_INDEX(f.points[g]) | (f.signs[g] & 127u) << 9);
        memcpy(b->points[g], &point, 2);
    }
    for (int j = 0; j < 8; j++) b->scales[j] = (uint8_t)(scales[2 * j] | scales[2 * j + 1] << 4);
}

static void encode_iq2_s(const float *x, const float *weights, struct iq2_s *b)
{
    struct tms_iq_found f;
    uint8_t scales[16];
    tms_iq_search(&iq2_s_rule, x, weights, &f);
    memset(b, 0, sizeof *b);
    for (int g = 0; g < 32; g++) {
        uint32_t point = TMS_POINT_INDEX(f.points[g]);
        b->points[g] = (uint8_t)point;
        b->high[g / 4] |= (uint8_t)(point >> 8 << 2 * (g % 4));
        b->signs[g] = f.signs[g];
    }
    if (f.largest_scale == 0) return; /* the points of a block with scale 0 stay, as in ggml */
    /* 0.9875: ggml's correction for the difference between searched and decoded levels */
    tms_store_f16(b->d, 0.9875f * tms_iq_round_scales(&f, 16, scales));
    for (int j = 0; j < 8; j++) b->scales[j] = (uint8_t)(scales[2 * j] | scales[2 * j + 1] << 4);
}

/* Eight weights: step times the bytes of a point, with signs. */
TMS_INLINE void decode_group(float step, const uint8_t *restrict values, unsigned signs, float *restrict x)
{
    for (int i = 0; i < 8; i++) {
        uint32_t sign = signs >> i << 31;
        x[i] = tms_f32_from_bits(tms_f32_bits(step * (float)values[i]) ^ sign);
    }
}

/* Eight signs of the seven that are stored. */
TMS_INLINE unsigned even_signs(unsigned seven)
{
    return seven | (unsigned)__builtin_parity(seven) << 7;
}

static void decode_iq2_xxs_scalar(const struct iq2_xxs *restrict b, float *restrict x, size_t n,
                                  const uint8_t *restrict values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        float d = tms_load_f16(b->d);
        for (int j = 0; j < 8; j++) {
            uint32_t signs_scale;
            memcpy(&signs_scale, b->blocks[j].signs_scale, 4);
            float step = d * (0.5f + (float)(signs_scale >> 28)) * 0.25f;
            for (int g = 0; g < 4; g++, x += 8)
                decode_group(step, values + 8 * b->blocks[j].points[g], even_signs(signs_scale >> 7 * g & 127), x);
        }
    }
}

static void decode_iq2_xs_scalar(const struct iq2_xs *restrict b, float *restrict x, size_t n,
                                 const uint8_t *restrict values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        float d = tms_load_f16(b->d);
        for (int j = 0; j < 16; j++) {
            float step = d * (0.5f + (float)(b->scales[j / 2] >> 4 * (j % 2) & 15)) * 0.25f;
            for (int g = 2 * j; g < 2 * j + 2; g++, x += 8) {
                uint16_t point;
                memcpy(&point, b->points[g], 2);
                decode_group(step, values + 8 * (point & 511), even_signs(point >> 9), x);
            }
        }
    }
}

static void decode_iq2_s_scalar(const struct iq2_s *restrict b, float *restrict x, size_t n,
                                const uint8_t *restrict values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        float d = tms_load_f16(b->d);
        for (int j = 0; j < 16; j++) {
            float step = d * (0.5f + (float)(b->scales[j / 2] >> 4 * (j % 2) & 15)) * 0.25f;
            for (int g = 2 * j; g < 2 * j + 2; g++, x += 8) {
                unsigned point = b->points[g] | (b->high[g / 4] >> 2 * (g % 4) & 3u) << 8;
                decode_group(step, values + 8 * point, b->signs[g], x);
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
#include "codec/iq2_decode_body.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/decode_lanes.h"
#include "codec/iq_decode_lanes.h"
#include "codec/iq2_decode_body.h"
#include "codec/lanes_end.h"
#endif

#define ROW_FUNCTIONS(name, book)                                                                                      \
    void tms_##name##_encode_weighted(const float *x, const float *weights, void *blocks, size_t n_rows,               \
                                      size_t n_cols)                                                                   \
    {                                                                                                                  \
        struct name *b = blocks;                                                                                       \
        for (size_t row = 0; row < n_rows; row++)                                                                      \
            for (size_t i = 0; i < n_cols; i += TMS_IQ_SUPER) encode_##name(x + row * n_cols + i, weights + i, b++);   \
    }                                                                                                                  \
    TMS_BY_LANES(tms_##name##_decode, decode_##name, (const void *blocks, float *x, size_t n),                         \
                 (blocks, x, n, tms_iq_values(book)))
ROW_FUNCTIONS(iq2_xxs, TMS_BOOK_IQ2_XXS)
ROW_FUNCTIONS(iq2_xs, TMS_BOOK_IQ2_XS)
ROW_FUNCTIONS(iq2_s, TMS_BOOK_IQ2_S)

void tms_iq2_s_encode(const float *x, void *blocks, size_t n)
{
    struct iq2_s *b = blocks;
    for (size_t i = 0; i < n; i += TMS_IQ_SUPER) encode_iq2_s(x + i, NULL, b++);
}

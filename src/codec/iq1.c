/* ggml's IQ1_S and IQ1_M: the signs of 8 weights, or zero, from a codebook of 2048 points (iq1_grid.h).
 *
 * type   block  x =                                      bytes
 * iq1_s  32     d * (2 scale + 1) * (point + delta)      50 for 256 weights
 * iq1_m  16     the same                                 56
 *
 * point is -1, 0 or 1, delta 1/8 or -1/8, its sign stored per block of 32, or per 8 weights; scale has three bits.
 * iq1_search.h tells how they are found. d is f16; the last step stretches it by a factor that ggml found to be good.
 * Source: ggml 0.25, whose bytes the encoders reproduce. It wants importances for iq1_s. */
#include <assert.h>

#include "codec/iq1_grid.h"
#include "codec/iq1_search.h"
#include "codec/k_search.h"
#include "codec/ordered_sums.h"
#include "codec/rows.h"

#include <math.h>

enum { SUPER = 256, TOGETHER = 8, GROUPS = SUPER / 8 }; /* TOGETHER: super-blocks that are searched at once */

struct iq1_s {
    uint8_t d[2], q[32];
    uint8_t high[8][2]; /* three high bits of four points, three of the scale, sign of delta */
};
struct iq1_m {
    uint8_t q[32];
    uint8_t high[16];     /* of two points: three high bits, sign of delta */
    uint8_t scales[4][2]; /* four scales of three bits, four bits of d */
};
static_assert(sizeof(struct iq1_s) == 50, "iq1_s");
static_assert(sizeof(struct iq1_m) == 56, "iq1_m");

/* What the search finds in up to TOGETHER super-blocks. */
struct found {
    float w[TOGETHER * SUPER];
    float scales[TOGETHER * 16];
    uint8_t signs[TOGETHER * 16];
    uint16_t places[TOGETHER * GROUPS], numbers[TOGETHER * GROUPS];
};

/* w = importance * sqrt(sigma2 + x²), or x² without importances; of one super-block. */
TMS_INLINE void weigh_body(const float *restrict x, const float *restrict importance, float sigma2, float *restrict w)
{
    if (importance)
        for (int i = 0; i < SUPER; i++) w[i] = importance[i] * sqrtf(sigma2 + x[i] * x[i]);
    else
        for (int i = 0; i < SUPER; i++) w[i] = x[i] * x[i];
}
TMS_BY_CPU(static, weigh, (const float *x, const float *importance, float sigma2, float *w), (x, importance, sigma2, w))

/* Super-blocks first … first + count - 1 of a matrix; x lies at the first of them. */
static void search(int block, const float *x, const float *weights, size_t first, size_t count, size_t n_cols,
                   struct found *found)
{
    float sums[TOGETHER];
    tms_ordered_sums_of_squares(x, SUPER, count, sums);
    for (size_t s = 0; s < count; s++)
        weigh(x + s * SUPER, weights ? weights + (first + s) * SUPER % n_cols : NULL, 2 * sums[s] / SUPER,
              found->w + s * SUPER);
    size_t n_blocks = count * SUPER / (size_t)block;
    tms_iq1_split(block, x, found->w, n_blocks, found->scales, found->signs, found->places);
    tms_iq1_choose_points(block, x, found->w, n_blocks, found->signs, found->places, found->scales, found->numbers);
}

static float largest_of(const float *v, int n)
{
    float found = 0;
    for (int i = 0; i < n; i++) found = found > v[i] ? found : v[i];
    return found;
}

/* (2 scale + 1) * d nearest to v, for 1 / d. */
static unsigned scale_code(float v, float inverse)
{
    return (unsigned)tms_clamp(tms_nearest(0.5f * (inverse * v - 1)), 0, 7);
}

/* Decodes 8 weights of point `number`: x = scale * (point + delta). */
typedef void put_group(const struct tms_iq1_points *points, int number, float scale, float delta, float *x);

static inline void put_scalar(const struct tms_iq1_points *points, int number, float scale, float delta, float *x)
{
    for (int i = 0; i < 8; i++) x[i] = scale * ((float)points->numbers[number][i] + delta);
}

/* Decodes a row with `decode`, which is compiled for each way to put a group. */
#if defined(__x86_64__)
#include <immintrin.h>

/* Only three values occur in a group; its code says where. */
TMS_TARGET_AVX2 static inline void put_avx2(const struct tms_iq1_points *points, int number, float scale, float delta,
                                            float *x)
{
    __m256 values = _mm256_add_ps(_mm256_setr_ps(-1, 0, 1, 0, -1, 0, 1, 0), _mm256_set1_ps(delta));
    __m256i code = _mm256_set1_epi16((short)points->codes[number]);
    code = _mm256_srlv_epi32(code, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    _mm256_storeu_ps(x, _mm256_permutevar_ps(_mm256_mul_ps(values, _mm256_set1_ps(scale)), code));
}

#define ROW_DECODER(name, decode)                                                                                      \
    TMS_TARGET_AVX2 static void name##_decode_avx2(const void *blocks, float *x, size_t n)                             \
    {                                                                                                                  \
        decode(put_avx2, blocks, x, n);                                                                                \
    }                                                                                                                  \
    void tms_##name##_decode(const void *blocks, float *x, size_t n)                                                   \
    {                                                                                                                  \
        if (tms_cpu_level() >= TMS_CPU_AVX2)                                                                           \
            name##_decode_avx2(blocks, x, n);                                                                          \
        else                                                                                                           \
            decode(put_scalar, blocks, x, n);                                                                          \
    }
#else
#define ROW_DECODER(name, decode)                                                                                      \
    void tms_##name##_decode(const void *blocks, float *x, size_t n)                                                   \
    {                                                                                                                  \
        decode(put_scalar, blocks, x, n);                                                                              \
    }
#endif

/* ---- iq1_s ---- */

static void store_s(const float *scales, const uint8_t *signs, const uint16_t *numbers, struct iq1_s *b)
{
    float largest = largest_of(scales, 8), d = largest / 15, inverse = 1 / d;
    tms_store_f16(b->d, largest != 0 ? d * 1.125f : 0);
    for (int j = 0; j < 8; j++, numbers += 4) {
        unsigned high = 0;
        for (int g = 0; g < 4; g++) {
            b->q[4 * j + g] = (uint8_t)numbers[g];
            high |= (unsigned)numbers[g] >> 8 << 3 * g;
        }
        if (largest != 0) high |= scale_code(scales[j], inverse) << 12 | (unsigned)signs[j] << 15;
        memcpy(b->high[j], &(uint16_t){(uint16_t)high}, sizeof b->high[j]);
    }
}

void tms_iq1_s_encode_weighted(const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols)
{
    struct iq1_s *b = blocks;
    struct found found;
    size_t n = n_rows * (n_cols / SUPER);
    for (size_t s = 0, count; s < n; s += count, x += count * SUPER) {
        count = n - s < TOGETHER ? n - s : TOGETHER;
        search(32, x, weights, s, count, n_cols, &found);
        for (size_t i = 0; i < count; i++)
            store_s(found.scales + 8 * i, found.signs + 8 * i, found.numbers + GROUPS * i, b + s + i);
    }
}

TMS_INLINE void decode_s(put_group *put, const struct iq1_s *restrict b, float *restrict x, size_t n)
{
    const struct tms_iq1_points *points = tms_iq1_points();
    for (size_t s = 0; s < n / SUPER; s++) {
        float d = tms_load_f16(b[s].d);
        for (int j = 0; j < 8; j++) {
            uint16_t high;
            memcpy(&high, b[s].high[j], sizeof high);
            float scale = d * (float)(2 * (high >> 12 & 7) + 1);
            float delta = high >> 15 ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA;
            for (int g = 0; g < 4; g++, x += 8)
                put(points, b[s].q[4 * j + g] | (high >> 3 * g & 7) << 8, scale, delta, x);
        }
    }
}
ROW_DECODER(iq1_s, decode_s)

/* ---- iq1_m ---- */

/* For the scale codes that d and the search gave, the terms of the sums that fit d once more. */
TMS_INLINE void refit_terms_body(const struct tms_iq1_points *restrict points, const float *restrict x,
                                 const float *restrict w, const uint8_t *restrict signs,
                                 const uint16_t *restrict numbers, const uint8_t *restrict codes, float *restrict qx,
                                 float *restrict qq)
{
    for (int g = 0; g < GROUPS; g++) {
        const int8_t *restrict point = points->numbers[numbers[g]];
        int block = g / 2;
        float delta = tms_iq1_delta(16, signs[block], g % 2), scale = (float)(2 * codes[block] + 1);
        for (int i = 8 * g; i < 8 * g + 8; i++) {
            float q = ((float)point[i % 8] + delta) * scale, wq = w[i] * q;
            qx[i] = wq * x[i];
            qq[i] = wq * q;
        }
    }
}
TMS_BY_CPU(static, refit_terms,
           (const struct tms_iq1_points *points, const float *x, const float *w, const uint8_t *signs,
            const uint16_t *numbers, const uint8_t *codes, float *qx, float *qq),
           (points, x, w, signs, numbers, codes, qx, qq))

static void store_m(float d, const uint8_t *codes, const uint8_t *signs, const uint16_t *numbers, struct iq1_m *b)
{
    for (int j = 0; j < 16; j++) {
        b->q[2 * j] = (uint8_t)numbers[2 * j];
        b->q[2 * j + 1] = (uint8_t)numbers[2 * j + 1];
        b->high[j] =
            (uint8_t)(numbers[2 * j] >> 8 | numbers[2 * j + 1] >> 8 << 4 | (signs[j] >> 1) << 3 | (signs[j] & 1) << 7);
    }
    uint16_t half = tms_f32_to_f16(d);
    for (int k = 0; k < 4; k++) {
        unsigned word = (half >> 4 * k & 15u) << 12;
        for (int j = 0; j < 4; j++) word |= (unsigned)codes[4 * k + j] << 3 * j;
        memcpy(b->scales[k], &(uint16_t){(uint16_t)word}, sizeof b->scales[k]);
    }
}

static void encode_m(const float *x, const float *weights, struct iq1_m *b, size_t n, size_t n_cols)
{
    struct found found;
    float d[TOGETHER], largest[TOGETHER], qx[TOGETHER * SUPER], qq[TOGETHER * SUPER], sums_qx[TOGETHER],
        sums_qq[TOGETHER];
    uint8_t codes[TOGETHER * 16];
    for (size_t s = 0, count; s < n; s += count, x += count * SUPER) {
        count = n - s < TOGETHER ? n - s : TOGETHER;
        search(16, x, weights, s, count, n_cols, &found);
        for (size_t i = 0; i < count; i++) {
            largest[i] = largest_of(found.scales + 16 * i, 16);
            d[i] = largest[i] / 15;
            float inverse = 1 / d[i];
            if (largest[i] == 0) memset(found.signs + 16 * i, 0, 16); /* ggml leaves such blocks early */
            for (size_t j = 16 * i; j < 16 * i + 16; j++)
                codes[j] = (uint8_t)(largest[i] != 0 ? scale_code(found.scales[j], inverse) : 0);
            refit_terms(tms_iq1_points(), x + SUPER * i, found.w + SUPER * i, found.signs + 16 * i,
                        found.numbers + GROUPS * i, codes + 16 * i, qx + SUPER * i, qq + SUPER * i);
        }
        tms_ordered_sums(qx, SUPER, count, sums_qx);
        tms_ordered_sums(qq, SUPER, count, sums_qq);
        for (size_t i = 0; i < count; i++) {
            if (largest[i] != 0 && sums_qq[i] > 0) d[i] = sums_qx[i] / sums_qq[i];
            store_m(d[i] * 1.1125f, codes + 16 * i, found.signs + 16 * i, found.numbers + GROUPS * i, b + s + i);
        }
    }
}

void tms_iq1_m_encode(const float *x, void *blocks, size_t n)
{
    encode_m(x, NULL, blocks, n / SUPER, SUPER);
}

void tms_iq1_m_encode_weighted(const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols)
{
    encode_m(x, weights, blocks, n_rows * (n_cols / SUPER), n_cols);
}

TMS_INLINE void decode_m(put_group *put, const struct iq1_m *restrict b, float *restrict x, size_t n)
{
    const struct tms_iq1_points *points = tms_iq1_points();
    for (size_t s = 0; s < n / SUPER; s++) {
        uint16_t words[4];
        memcpy(words, b[s].scales, sizeof words);
        unsigned half = 0;
        for (int k = 0; k < 4; k++) half |= (unsigned)words[k] >> 12 << 4 * k;
        float d = tms_f16_to_f32((uint16_t)half);
        for (int j = 0; j < 16; j++, x += 16) {
            int high = b[s].high[j];
            float scale = d * (float)(2 * (words[j / 4] >> 3 * (j % 4) & 7) + 1);
            put(points, b[s].q[2 * j] | (high & 7) << 8, scale, high & 0x08 ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA, x);
            put(points, b[s].q[2 * j + 1] | (high >> 4 & 7) << 8, scale, high & 0x80 ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA,
                x + 8);
        }
    }
}
ROW_DECODER(iq1_m, decode_m)

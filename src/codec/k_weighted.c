/* The K-quants with importances (k_quants.c has the formats). In place of the plain searches:
 *
 * type             sigma2                       block search                d, dmin and integer scales
 * q2_k             mean square                  affine, 37 candidates       positive, weighted by the blocks' sums
 * q4_k, q5_k       twice the mean square        affine, 37 candidates       positive, weighted by the blocks' sums
 * q3_k             twice the mean square        symmetric, 19 candidates    symmetric, weighted by the blocks' sums
 * q6_k             none: the columns' own       symmetric, 19 candidates    as without importances
 *
 * Mean squares are of the super-block of 256; the formula for importances is in importance.h. The last rounding is that
 * of the plain encoders (k_blocks.h). Source of rules and constants: ggml 0.25. */
#include "codec/importance.h"
#include "codec/k_blocks.h"
#include "codec/ordered_sums.h"

/* Super-blocks that are searched together: their scales fill the widest vectors too. */
enum { TOGETHER = 16 };

static const struct tms_affine_rule q2_k_rule = {.block = 16, .top = 3, .first = -0.9f, .step = 0.05f, .last = 36};
static const struct tms_affine_rule q4_k_rule = {.block = 32, .top = 15, .first = -0.9f, .step = 0.05f, .last = 36};
static const struct tms_affine_rule q5_k_rule = {.block = 32, .top = 31, .first = -0.9f, .step = 0.05f, .last = 36};

/* The importances w[count][256] of super-blocks first … and, per block of `block`, their sums. */
TMS_INLINE void weigh(const float *restrict x, const float *restrict weights, size_t first, size_t count,
                      size_t n_per_row, float factor, size_t block, float *restrict w, float *restrict sums)
{
    float squares[TOGETHER];
    tms_ordered_sums_of_squares(x, SUPER, count, squares);
    for (size_t k = 0; k < count; k++)
        tms_importances(x + k * SUPER, weights + (first + k) % n_per_row * SUPER, factor * squares[k] / SUPER, SUPER,
                        w + k * SUPER);
    tms_ordered_sums(w, block, count * (SUPER / block), sums);
}

/* What the affine types search: for n super-blocks the codes, d and dmin, and the integer scales and minimums. */
struct affine_found {
    float d[2 * TOGETHER];               /* d of all, then dmin of all */
    uint8_t integers[2 * TOGETHER * 16]; /* scales of all blocks, then minimums */
    uint8_t codes[TOGETHER * SUPER];
};

TMS_INLINE void search_affine(const struct tms_affine_rule *rule, int top_scale, const float *restrict x,
                              const float *restrict weights, size_t first, size_t count, size_t n_per_row, float factor,
                              struct affine_found *restrict found)
{
    const size_t per_super = SUPER / (size_t)rule->block, n_blocks = count * per_super;
    float w[TOGETHER * SUPER];
    float sums[2 * TOGETHER * 16], scales[2 * TOGETHER * 16]; /* minimums behind the scales, with the same sums */
    weigh(x, weights, first, count, n_per_row, factor, (size_t)rule->block, w, sums);
    memcpy(sums + n_blocks, sums, n_blocks * sizeof sums[0]);
    tms_k_affine(rule, x, w, n_blocks, scales, scales + n_blocks, found->codes);
    tms_k_positive((int)per_super, top_scale, scales, sums, 2 * count, found->d, found->integers);
}

TMS_INLINE void tms_q2_k_encode_weighted_body(const float *restrict x, const float *restrict weights,
                                              void *restrict blocks, size_t n_rows, size_t n_cols)
{
    struct q2_k *b = blocks;
    struct affine_found found;
    const size_t n = n_rows * (n_cols / SUPER);
    for (size_t s = 0, count; s < n; s += count) {
        count = n - s < TOGETHER ? n - s : TOGETHER;
        search_affine(&q2_k_rule, 15, x + s * SUPER, weights, s, count, n_cols / SUPER, 1, &found);
        for (size_t k = 0; k < count; k++) {
            const uint8_t *scales = found.integers + 16 * k, *mins = scales + 16 * count;
            struct q2_k *to = b + s + k;
            tms_store_f16(to->d, found.d[k]);
            tms_store_f16(to->dmin, found.d[count + k]);
            for (int j = 0; j < 16; j++) to->scales[j] = (uint8_t)(scales[j] | mins[j] << 4);
            finish_q2_k(to, x + (s + k) * SUPER, found.codes + k * SUPER);
        }
    }
}

TMS_INLINE void tms_q4_k_encode_weighted_body(const float *restrict x, const float *restrict weights,
                                              void *restrict blocks, size_t n_rows, size_t n_cols)
{
    struct q4_k *b = blocks;
    struct affine_found found;
    const size_t n = n_rows * (n_cols / SUPER);
    for (size_t s = 0, count; s < n; s += count) {
        count = n - s < TOGETHER ? n - s : TOGETHER;
        search_affine(&q4_k_rule, 63, x + s * SUPER, weights, s, count, n_cols / SUPER, 2, &found);
        for (size_t k = 0; k < count; k++) {
            struct q4_k *to = b + s + k;
            tms_store_f16(to->d, found.d[k]);
            tms_store_f16(to->dmin, found.d[count + k]);
            pack_six_bits(found.integers + 8 * k, found.integers + 8 * (count + k), to->scales);
            finish_q4_k(to, x + (s + k) * SUPER, found.codes + k * SUPER);
        }
    }
}

TMS_INLINE void tms_q5_k_encode_weighted_body(const float *restrict x, const float *restrict weights,
                                              void *restrict blocks, size_t n_rows, size_t n_cols)
{
    struct q5_k *b = blocks;
    struct affine_found found;
    const size_t n = n_rows * (n_cols / SUPER);
    for (size_t s = 0, count; s < n; s += count) {
        count = n - s < TOGETHER ? n - s : TOGETHER;
        search_affine(&q5_k_rule, 63, x + s * SUPER, weights, s, count, n_cols / SUPER, 2, &found);
        for (size_t i = 0; i < 16 * count; i++) /* this type alone bounds what a negative scale wraps to */
            if (found.integers[i] > 63) found.integers[i] = 63;
        for (size_t k = 0; k < count; k++) {
            struct q5_k *to = b + s + k;
            tms_store_f16(to->d, found.d[k]);
            tms_store_f16(to->dmin, found.d[count + k]);
            pack_six_bits(found.integers + 8 * k, found.integers + 8 * (count + k), to->scales);
            finish_q5_k(to, x + (s + k) * SUPER, found.codes + k * SUPER);
        }
    }
}

TMS_INLINE void tms_q3_k_encode_weighted_body(const float *restrict x, const float *restrict weights,
                                              void *restrict blocks, size_t n_rows, size_t n_cols)
{
    struct q3_k *b = blocks;
    float w[TOGETHER * SUPER], sums[TOGETHER * 16], scales[TOGETHER * 16], d[TOGETHER];
    uint8_t codes[TOGETHER * SUPER], integers[TOGETHER * 16];
    const size_t n = n_rows * (n_cols / SUPER);
    for (size_t s = 0, count; s < n; s += count) {
        count = n - s < TOGETHER ? n - s : TOGETHER;
        const float *from = x + s * SUPER;
        weigh(from, weights, s, count, n_cols / SUPER, 2, 16, w, sums);
        tms_k_symmetric(16, 4, from, w, 16 * count, scales, codes);
        tms_k_symmetric(16, 32, scales, sums, count, d, integers);
        for (size_t k = 0; k < count; k++) {
            tms_store_f16(b[s + k].d, d[k]);
            finish_q3_k(&b[s + k], from + k * SUPER, integers + 16 * k, codes + k * SUPER);
        }
    }
}

TMS_INLINE void tms_q6_k_encode_weighted_body(const float *restrict x, const float *restrict weights,
                                              void *restrict blocks, size_t n_rows, size_t n_cols)
{
    struct q6_k *b = blocks;
    const size_t n_per_row = n_cols / SUPER;
    for (size_t s = 0; s < n_rows * n_per_row; s++, x += SUPER) {
        float scales[16];
        uint8_t codes[SUPER];
        tms_k_symmetric(16, 32, x, weights + s % n_per_row * SUPER, 16, scales, codes);
        finish_q6_k(&b[s], x, scales, codes);
    }
}

#define WEIGHTED(name)                                                                                                 \
    TMS_BY_CPU(extern, tms_##name##_encode_weighted,                                                                   \
               (const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols),                     \
               (x, weights, blocks, n_rows, n_cols))

WEIGHTED(q2_k)
WEIGHTED(q3_k)
WEIGHTED(q4_k)
WEIGHTED(q5_k)
WEIGHTED(q6_k)

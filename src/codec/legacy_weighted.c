/* Q4_0, Q4_1, Q5_0 and Q5_1 with importances (legacy.c has the formats; importance.h the formula, with sigma2 the mean
 * square of the whole row). A search finds scale and codes of each block of 32: for q4_0 and q5_0 the symmetric one of
 * Q6_K, for q4_1 and q5_1 the affine one of Q4_K with 37 candidates. The codes are stored as found: no second rounding
 * with the f16 scale. Source of rules and constants: ggml 0.25. */
#include "codec/importance.h"
#include "codec/k_search.h"
#include "codec/legacy_blocks.h"
#include "codec/ordered_sums.h"
#include "codec/rows.h"

/* Rows whose squares are summed together, and blocks that are searched together. */
enum { ROWS = 8, TOGETHER = 64 };

/* Writes d, m (affine types), the fifth bits (codes above 15) and the nibbles; returns the end of the block. */
TMS_INLINE uint8_t *store_block(uint8_t *restrict b, bool affine, bool fifth_bits, float d, float min,
                                const uint8_t *restrict codes)
{
    tms_store_f16(b, d);
    b += 2;
    if (affine) {
        tms_store_f16(b, -min);
        b += 2;
    }
    if (fifth_bits) {
        pack_fifth_bits(codes, b);
        b += 4;
    }
    pack_nibbles(codes, b);
    return b + 16;
}

/* Codes 0 … top; affine: x = d * q + m, else x = d * (q - (top + 1) / 2). */
TMS_INLINE void encode_rows(bool affine, int top, const float *restrict x, const float *restrict weights,
                            uint8_t *restrict b, size_t n_rows, size_t n_cols)
{
    const struct tms_affine_rule rule = {.block = BLOCK, .top = (float)top, .first = -0.9f, .step = 0.05f, .last = 36};
    const size_t per_row = n_cols / BLOCK;
    float sigma2[ROWS], w[TOGETHER * BLOCK], scales[TOGETHER], mins[TOGETHER] = {0};
    uint8_t codes[TOGETHER * BLOCK];
    for (size_t row = 0, rows; row < n_rows; row += rows, x += rows * n_cols) {
        rows = n_rows - row < ROWS ? n_rows - row : ROWS;
        tms_ordered_sums_of_squares(x, n_cols, rows, sigma2);
        for (size_t k = 0; k < rows; k++) sigma2[k] /= (float)n_cols;
        for (size_t first = 0, count; first < rows * per_row; first += count) {
            count = rows * per_row - first < TOGETHER ? rows * per_row - first : TOGETHER;
            const float *from = x + first * BLOCK;
            for (size_t k = 0; k < count; k++)
                tms_importances(from + k * BLOCK, weights + (first + k) % per_row * BLOCK,
                                sigma2[(first + k) / per_row], BLOCK, w + k * BLOCK);
            if (affine)
                tms_k_affine(&rule, from, w, count, scales, mins, codes);
            else
                tms_k_symmetric(BLOCK, (top + 1) / 2, from, w, count, scales, codes);
            for (size_t k = 0; k < count; k++)
                b = store_block(b, affine, top > 15, scales[k], mins[k], codes + k * BLOCK);
        }
    }
}

#define WEIGHTED(name, affine, top)                                                                                    \
    TMS_INLINE void tms_##name##_encode_weighted_body(const float *x, const float *weights, void *blocks,              \
                                                      size_t n_rows, size_t n_cols)                                    \
    {                                                                                                                  \
        encode_rows(affine, top, x, weights, blocks, n_rows, n_cols);                                                  \
    }                                                                                                                  \
    TMS_BY_CPU(extern, tms_##name##_encode_weighted,                                                                   \
               (const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols),                     \
               (x, weights, blocks, n_rows, n_cols))

WEIGHTED(q4_0, false, 15)
WEIGHTED(q4_1, true, 15)
WEIGHTED(q5_0, false, 31)
WEIGHTED(q5_1, true, 31)

/* AWQ's words ("gemm", AutoAWQ 0.2.9): 4 bits, the weight transposed, inputs down, outputs along.
 *
 *   qweight I32 [cols][rows / 8], qzeros I32 [groups][rows / 8]
 * A word holds 8 outputs; nibble k, from the lowest, is output order[k] of them. */
#include "codec/grid.h"

#include <string.h>

#include "base/cpu.h"

/* The nibble of output j of a word. */
static const uint8_t nibble_of[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static uint32_t load(const uint8_t *words, uint64_t i)
{
    uint32_t word;
    memcpy(&word, words + 4 * i, sizeof word);
    return word;
}

TMS_INLINE void unpack_nibble_body(const uint32_t *restrict words, unsigned shift, uint8_t *restrict codes, size_t n)
{
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(words[i] >> shift & 15);
}
TMS_BY_CPU(static, unpack_nibble, (const uint32_t *words, unsigned shift, uint8_t *codes, size_t n),
           (words, shift, codes, n))

void tms_awq_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                    uint64_t n_cols, uint8_t *codes, size_t ld)
{
    enum { COLS = 256, AHEAD = 32 };
    const uint64_t n_words = grid->rows / 8, end = row + n_rows;
    uint32_t words[COLS]; /* of the same eight rows */
    for (uint64_t c = 0; c < n_cols; c += COLS) {
        size_t some = n_cols - c < COLS ? (size_t)(n_cols - c) : COLS;
        for (uint64_t eight = row / 8; eight * 8 < end; eight++) {
            for (size_t i = 0; i < some; i++) {
                __builtin_prefetch((const void *)((uintptr_t)stored + 4 * ((col + c + i + AHEAD) * n_words + eight)));
                words[i] = load(stored, (col + c + i) * n_words + eight);
            }
            for (uint64_t r = eight * 8; r < eight * 8 + 8; r++)
                if (r >= row && r < end) unpack_nibble(words, 4u * nibble_of[r % 8], codes + (r - row) * ld + c, some);
        }
    }
}

/* 8 outputs of one input, `step` codes apart. */
static uint32_t pack_eight(const uint8_t *codes, uint64_t step)
{
    uint32_t word = 0;
    for (unsigned j = 0; j < 8; j++) word |= (uint32_t)codes[j * step] << 4 * nibble_of[j];
    return word;
}

void tms_awq_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored)
{
    const uint64_t n_words = grid->rows / 8;
    for (uint64_t c = 0; c < grid->cols; c++)
        for (uint64_t r = 0; r < n_rows; r += 8) {
            uint32_t word = pack_eight(codes + r * grid->cols + c, grid->cols);
            memcpy(stored + 4 * (c * n_words + (row + r) / 8), &word, sizeof word);
        }
}

void tms_awq_pack_zeros(const uint8_t *zeros, uint64_t rows, uint64_t groups, uint8_t *stored)
{
    for (uint64_t g = 0; g < groups; g++)
        for (uint64_t r = 0; r < rows; r += 8) {
            uint32_t word = pack_eight(zeros + r * groups + g, groups);
            memcpy(stored + 4 * (g * (rows / 8) + r / 8), &word, sizeof word);
        }
}

void tms_awq_unpack_zeros(const uint8_t *stored, uint64_t rows, uint64_t groups, uint8_t *zeros)
{
    for (uint64_t g = 0; g < groups; g++)
        for (uint64_t r = 0; r < rows; r++)
            zeros[r * groups + g] = load(stored, g * (rows / 8) + r / 8) >> 4 * nibble_of[r % 8] & 15;
}

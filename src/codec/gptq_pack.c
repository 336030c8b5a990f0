/* GPTQ's words (GPTQModel 7.7, AutoGPTQ): the weight transposed, inputs down, outputs along.
 *
 *   qweight I32 [cols * bits / 32][rows]: word w of output r holds the codes of inputs 32 w / bits …, lowest bits
 * first; 3-bit codes run on over three words qzeros  I32 [groups][rows * bits / 32] 32 inputs are a whole number of
 * words at every width, and the code works in such steps. */
#include "codec/grid.h"

#include <string.h>

enum { STEP = 32 }; /* inputs */

static uint32_t load(const uint8_t *words, uint64_t i)
{
    uint32_t word;
    memcpy(&word, words + 4 * i, sizeof word);
    return word;
}

/* Words of a few rows are put in order first: then the codes of a row are a stream like any other. */
void tms_gptq_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                     uint64_t n_cols, uint8_t *codes, size_t ld)
{
    enum { ROWS = 16, COLS = 256, WORDS = COLS / STEP * 8, AHEAD = 24 /* rows of words */ };
    const unsigned bits = grid->bits;
    uint8_t streams[ROWS][4 * WORDS];
    for (uint64_t r = 0; r < n_rows; r += ROWS)
        for (uint64_t c = 0; c < n_cols; c += COLS) {
            const uint8_t *words = stored + 4 * ((col + c) / STEP * bits * grid->rows + row + r);
            size_t some_rows = n_rows - r < ROWS ? (size_t)(n_rows - r) : ROWS;
            size_t some_cols = n_cols - c < COLS ? (size_t)(n_cols - c) : COLS;
            for (size_t w = 0; w < (some_cols + STEP - 1) / STEP * bits; w++, words += 4 * grid->rows) {
                /* nothing happens past the end of what is mapped */
                __builtin_prefetch((const void *)((uintptr_t)words + 4 * AHEAD * (uintptr_t)grid->rows));
                for (size_t i = 0; i < some_rows; i++) memcpy(streams[i] + 4 * w, words + 4 * i, 4);
            }
            for (size_t i = 0; i < some_rows; i++)
                tms_bits_unpack(streams[i], bits, codes + (r + i) * ld + c, some_cols);
        }
}

void tms_gptq_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored)
{
    const unsigned bits = grid->bits;
    for (uint64_t c = 0; c < grid->cols; c += STEP) {
        uint8_t *words = stored + 4 * (c / STEP * bits * grid->rows + row);
        for (uint64_t r = 0; r < n_rows; r++) {
            const uint8_t *from = codes + r * grid->cols + c;
            uint64_t waiting = 0; /* bits that fill no word yet */
            unsigned n_bits = 0, w = 0;
            for (unsigned i = 0; i < STEP; i++) {
                waiting |= (uint64_t)from[i] << n_bits;
                n_bits += bits;
                if (n_bits < 32) continue;
                uint32_t word = (uint32_t)waiting;
                memcpy(words + 4 * (w++ * grid->rows + r), &word, sizeof word);
                waiting >>= 32;
                n_bits -= 32;
            }
        }
    }
}

/* The same number in every field of a word. */
static uint32_t ones(unsigned bits)
{
    uint32_t word = 0;
    for (unsigned shift = 0; shift + bits <= 32; shift += bits) word |= 1u << shift;
    return word;
}

void tms_gptq_pack_zeros(const uint8_t *zeros, uint64_t rows, uint64_t groups, unsigned bits, bool v1, uint8_t *stored)
{
    const uint64_t n_words = rows * bits / 32;
    const uint32_t mask = (1u << bits) - 1;
    memset(stored, 0, (size_t)(groups * n_words * 4));
    for (uint64_t g = 0; g < groups; g++) {
        uint8_t *words = stored + 4 * g * n_words;
        for (uint64_t r = 0; r < rows; r++) {
            uint32_t zero = zeros[r * groups + g];
            tms_bits_put(words, 1, bits, r, v1 && 32 % bits ? (zero - 1) & mask : zero);
        }
        for (uint64_t w = 0; w < n_words && v1 && 32 % bits == 0; w++) {
            uint32_t word = load(words, w) - ones(bits);
            memcpy(words + 4 * w, &word, sizeof word);
        }
    }
}

void tms_gptq_unpack_zeros(const uint8_t *stored, uint64_t rows, uint64_t groups, unsigned bits, bool v1,
                           uint8_t *zeros)
{
    const uint64_t n_words = rows * bits / 32, in_word = 32 / bits;
    const uint32_t mask = (1u << bits) - 1;
    for (uint64_t g = 0; g < groups; g++) {
        const uint8_t *words = stored + 4 * g * n_words;
        for (uint64_t r = 0; r < rows; r++) {
            uint32_t zero;
            if (32 % bits) {
                zero = tms_bits_get(words, 1, bits, r) + (v1 ? 1 : 0);
            } else {
                uint32_t word = load(words, r / in_word) + (v1 ? ones(bits) : 0);
                zero = word >> bits * (r % in_word);
            }
            zeros[r * groups + g] = (uint8_t)(zero & mask);
        }
    }
}

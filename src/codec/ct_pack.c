/* The layouts of compressed-tensors: rows stay rows.
 *
 *   weight_packed     I32 [rows][ceil(cols * bits / 32)]: a bit stream along the row (since 0.18; before, 32 / bits
 * codes to a word); U8 [rows][cols / 2] of 4-bit floats, the first in the low nibble: the same stream weight I8 or
 * F8_E4M3 [rows][cols] weight_zero_point I32 [ceil(rows * bits / 32)][groups]: streams down the rows Integers are
 * stored as signed codes plus 2^(bits - 1), in I8 as they are. (compressed-tensors 0.20.) */
#include "codec/grid.h"

#include <string.h>

#include "base/cpu.h"

TMS_INLINE void unpack_bytes_body(const uint8_t *restrict from, uint8_t offset, uint8_t *restrict codes, size_t n)
{
    for (size_t i = 0; i < n; i += 64) {
        const size_t end = i + 64 < n ? i + 64 : n;
        __builtin_prefetch((const void *)((uintptr_t)from + i + 4096)); /* harmless past the end */
        for (size_t k = i; k < end; k++) codes[k] = (uint8_t)(from[k] + offset);
    }
}
TMS_BY_CPU(static, unpack_bytes, (const uint8_t *from, uint8_t offset, uint8_t *codes, size_t n),
           (from, offset, codes, n))

static void unpack_row(const struct tms_grid *grid, const uint8_t *row, uint64_t col, uint64_t n, uint8_t *codes)
{
    const unsigned bits = grid->bits, in_word = 32 / bits;
    if (grid->layout == TMS_GRID_BYTES)
        unpack_bytes(row + col, grid->values == TMS_GRID_INT ? 128 : 0, codes, (size_t)n);
    else if (grid->layout == TMS_GRID_PADDED && 32 % bits)
        for (uint64_t i = 0; i < n; i++)
            codes[i] = (uint8_t)tms_bits_get(row + 4 * ((col + i) / in_word), 1, bits, (col + i) % in_word);
    else /* col is a multiple of 32; rows of MXFP6 end where they end, not with a word */
        tms_bits_unpack(row + col / 8 * bits, bits, codes, (size_t)n);
}

void tms_ct_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                   uint64_t n_cols, uint8_t *codes, size_t ld)
{
    for (uint64_t r = 0; r < n_rows; r++)
        unpack_row(grid, stored + (row + r) * grid->row_bytes, col, n_cols, codes + r * ld);
}

void tms_ct_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored)
{
    const unsigned bits = grid->bits, in_word = 32 / bits;
    for (uint64_t r = 0; r < n_rows; r++) {
        uint8_t *to = stored + (row + r) * grid->row_bytes;
        const uint8_t *from = codes + r * grid->cols;
        if (grid->layout == TMS_GRID_BYTES) {
            uint8_t offset = grid->values == TMS_GRID_INT ? 128 : 0;
            for (uint64_t i = 0; i < grid->cols; i++) to[i] = (uint8_t)(from[i] - offset);
        } else if (bits == 4) {
            uint64_t pairs = grid->cols / 2;
            for (uint64_t i = 0; i < pairs; i++) to[i] = (uint8_t)(from[2 * i] | from[2 * i + 1] << 4);
            if (grid->cols % 2) to[pairs] = from[grid->cols - 1];
        } else if (grid->layout == TMS_GRID_PADDED) {
            for (uint64_t i = 0; i < grid->cols; i++)
                tms_bits_put(to + 4 * (i / in_word), 1, bits, i % in_word, from[i]);
        } else {
            for (uint64_t i = 0; i < grid->cols; i++) {
                uint64_t bit = i * bits, at = bit / 8;
                unsigned shift = bit % 8, two = (unsigned)from[i] << shift;
                to[at] = (uint8_t)(to[at] | two);
                if (shift + bits > 8) to[at + 1] = (uint8_t)(to[at + 1] | two >> 8);
            }
        }
    }
}

void tms_ct_pack_zeros(const uint8_t *zeros, uint64_t rows, uint64_t groups, unsigned bits, uint8_t *stored)
{
    memset(stored, 0, (size_t)(tms_grid_stream_bytes(rows, bits) * groups));
    for (uint64_t g = 0; g < groups; g++)
        for (uint64_t r = 0; r < rows; r++)
            tms_bits_put(stored + 4 * g, (size_t)groups, bits, r, zeros[r * groups + g]);
}

void tms_ct_unpack_zeros(const uint8_t *stored, uint64_t groups, unsigned bits, bool padded, uint64_t row,
                         uint64_t n_rows, uint8_t *zeros)
{
    const uint64_t in_word = 32 / bits;
    for (uint64_t g = 0; g < groups; g++)
        for (uint64_t r = 0; r < n_rows; r++) {
            const uint8_t *words = stored + 4 * g;
            uint64_t i = row + r;
            if (padded) {
                words += 4 * (i / in_word) * groups;
                i %= in_word;
            }
            zeros[r * groups + g] = (uint8_t)tms_bits_get(words, (size_t)groups, bits, i);
        }
}

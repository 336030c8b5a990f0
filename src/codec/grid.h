/* Matrices on a grid: a code for every weight, a scale and perhaps a zero point for every group of columns.
 *
 *   w[r][c] = scale[r][g(c)] * (code[r][c] - zero[r][g(c)])      codes are integers
 *   w[r][c] = scale[r][g(c)] * value(code[r][c])                 codes are small floats
 *
 * That is GPTQ, AWQ and compressed-tensors; they differ in how codes, scales and zero points lie in a file, and in how
 * scales are found by plain rounding. Here a code is one byte, [rows][cols] with rows = outputs; zero points are
 * bytes too, in the same count (0 … 2^bits - 1). Methods that choose better codes hand them over in this form.
 * Layouts: gptq_pack.c, awq_pack.c, ct_pack.c. Plain rounding: grid_round.c. */
#ifndef TMS_CODEC_GRID_H
#define TMS_CODEC_GRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tms_grid_layout {
    TMS_GRID_GPTQ,   /* I32 [cols * bits / 32][rows]: a bit stream down each column of words */
    TMS_GRID_AWQ,    /* I32 [cols][rows / 8]: nibbles of 8 rows in AWQ's order */
    TMS_GRID_STREAM, /* a bit stream along each row, row_bytes long (compressed-tensors) */
    TMS_GRID_PADDED, /* the same with 32 / bits codes to a word and no code in two words (before 0.18) */
    TMS_GRID_BYTES,  /* [rows][cols]: a byte for a code; integers are signed, and 128 less than here */
};

enum tms_grid_values {
    TMS_GRID_INT,
    TMS_GRID_E4M3,
    TMS_GRID_E2M1, /* 4 bits: 0 0.5 1 1.5 2 3 4 6 and their negatives */
    TMS_GRID_E2M3, /* 6 bits, largest 7.5 */
};

struct tms_grid {
    enum tms_grid_layout layout;
    enum tms_grid_values values;
    unsigned bits;
    bool has_zeros; /* zero points are stored; else every one is tms_grid_middle */
    uint64_t rows, cols;
    uint64_t group;           /* columns that share a scale; cols: all of a row */
    uint64_t scale_rows;      /* rows that share a scale: 1, those of a block, or all */
    uint64_t row_bytes;       /* STREAM, PADDED, BYTES */
    const uint32_t *group_of; /* [cols]: the group of each column (activation order), or NULL: column / group */
};

/* Groups in a row; rows of scales. */
uint64_t tms_grid_groups(const struct tms_grid *grid);
uint64_t tms_grid_scale_rows(const struct tms_grid *grid);
/* The zero point of symmetric integers. */
uint8_t tms_grid_middle(const struct tms_grid *grid);
/* True if ranges of rows lie one behind the other in the file. */
bool tms_grid_row_major(const struct tms_grid *grid);
/* Bytes that the codes of so many whole rows take; the caller knows that it fits. */
uint64_t tms_grid_code_bytes(const struct tms_grid *grid, uint64_t n_rows);
/* Bytes of a row: ceil(cols * bits / 32) words, or padded ones. */
uint64_t tms_grid_stream_bytes(uint64_t cols, unsigned bits);
uint64_t tms_grid_padded_bytes(uint64_t cols, unsigned bits);

/* Codes of rows [row, row + n_rows) and columns [col, col + n_cols) of `stored` ([grid->rows][grid->cols] packed) to
 * codes [n_rows][ld]. col is a multiple of 32. */
void tms_grid_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                     uint64_t n_cols, uint8_t *codes, size_t ld);
/* The other way, whole rows: codes [n_rows][cols] into `stored` of all rows. row is a multiple of 32; n_rows too,
 * unless the range ends with the matrix. No two ranges touch the same bytes; stored starts as zeros. */
void tms_grid_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored);

/* Values of codes: a tile as above. scales [scale rows][groups] (and zeros, NULL: the middle) of the whole grid. */
void tms_grid_apply(const struct tms_grid *grid, const float *scales, const uint8_t *zeros, uint64_t row,
                    uint64_t n_rows, uint64_t col, uint64_t n_cols, const uint8_t *codes, size_t ld_codes, float *out,
                    size_t ld);
/* Both: a tile of weights. */
void tms_grid_decode(const struct tms_grid *grid, const uint8_t *stored, const float *scales, const uint8_t *zeros,
                     uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out, size_t ld);

/* ---- layouts ---- */

/* Field i of a little-endian bit stream of 32-bit words that lie `stride` words apart. */
uint32_t tms_bits_get(const void *words, size_t stride, unsigned bits, uint64_t i);
/* n fields of a stream of bytes that begins at one, to a byte each. Reads no byte behind the last field's. */
void tms_bits_unpack(const uint8_t *stream, unsigned bits, uint8_t *fields, size_t n);
/* n codes of 4 bits from bytes of two. */
void tms_pairs_unpack(const uint8_t *pairs, bool high_first, uint8_t *codes, size_t n);
/* ORs it in. */
void tms_bits_put(void *words, size_t stride, unsigned bits, uint64_t i, uint32_t field);

/* GPTQ's zero points, I32 [groups][rows * bits / 32]: bit streams along the rows. v1 stores one less: a subtraction of
 * whole words at 2, 4 and 8 bits, so that a zero point of 0 borrows from its neighbour, and of each field at 3.
 * rows is a multiple of 32; zeros [rows][groups]. */
void tms_gptq_pack_zeros(const uint8_t *zeros, uint64_t rows, uint64_t groups, unsigned bits, bool v1, uint8_t *stored);
void tms_gptq_unpack_zeros(const uint8_t *stored, uint64_t rows, uint64_t groups, unsigned bits, bool v1,
                           uint8_t *zeros);
/* AWQ's, I32 [groups][rows / 8], in the order of its codes. */
void tms_awq_pack_zeros(const uint8_t *zeros, uint64_t rows, uint64_t groups, uint8_t *stored);
void tms_awq_unpack_zeros(const uint8_t *stored, uint64_t rows, uint64_t groups, uint8_t *zeros);
/* compressed-tensors', I32 [ceil(rows * bits / 32)][groups]: bit streams down the rows; `padded`: 32 / bits to a word,
 * [ceil(rows / (32 / bits))][groups]. Unpacking takes rows [row, row + n_rows) of a whole tensor. */
void tms_ct_pack_zeros(const uint8_t *zeros, uint64_t rows, uint64_t groups, unsigned bits, uint8_t *stored);
void tms_ct_unpack_zeros(const uint8_t *stored, uint64_t groups, unsigned bits, bool padded, uint64_t row,
                         uint64_t n_rows, uint8_t *zeros);

void tms_gptq_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                     uint64_t n_cols, uint8_t *codes, size_t ld);
void tms_gptq_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored);
void tms_awq_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                    uint64_t n_cols, uint8_t *codes, size_t ld);
void tms_awq_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored);
void tms_ct_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                   uint64_t n_cols, uint8_t *codes, size_t ld);
void tms_ct_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored);

#endif

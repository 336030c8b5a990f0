/* A stored matrix [rows][cols], or a part of one that begins with a row of it, in memory (mapped or read), of which any
 * tile can be decoded to f32. */
#ifndef TMS_ENGINE_WEIGHT_H
#define TMS_ENGINE_WEIGHT_H

#include "model/packed.h"
#include "model/source.h"

struct tms_weight {
    const struct tms_source *source;
    const struct tms_tensor *tensor;
    uint64_t rows, cols;
    uint64_t first_row;              /* of the tensor (of all its dimensions but the last together) */
    const uint8_t *data;             /* the tensor's stored bytes; NULL while they are not held */
    bool borrows;                    /* data and scales are another part's of the same tensor */
    bool replaced;                   /* by a matrix that is made (tms_net_replace), until it is dropped: */
    const struct tms_tensor *stored; /* its own */
    uint64_t stored_row;
    float *scales; /* owned, if not borrowed; of tensors whose scales are tensors of their own: absmax of each block or
                    * row, or FP8's scales of blocks [ceil(rows / b0)][ceil(cols / b1)] */
};

/* Looks up the shape; TMS_EINPUT if the tensor cannot be decoded. Nothing is read. */
tms_status tms_weight_init(struct tms_weight *out, const struct tms_source *source, const struct tms_tensor *tensor,
                           struct tms_error *err);
/* Takes rows [first, first + n) only: a part of a fused matrix, one expert of a stack. */
void tms_weight_part(struct tms_weight *weight, uint64_t first, uint64_t n);
/* Reads the scales, if there are any (freed with tms_weight_drop). */
tms_status tms_weight_scales(struct tms_weight *weight, struct tms_error *err);
/* Stored bytes, and those that the scales take in memory. */
uint64_t tms_weight_bytes(const struct tms_weight *weight);
/* Forgets data, frees scales. */
void tms_weight_drop(struct tms_weight *weight);

/* Columns [col, col + n_cols) of rows [row, row + n_rows) to out [n_rows][ld]; col is a multiple of 1024, and n_cols is
 * 1024 or ends with the row. What is behind n_cols, up to a multiple of 16, becomes zero. */
void tms_weight_tile(const struct tms_weight *weight, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols,
                     float *out, size_t ld);

/* True for grids, NF4, FP4 and LLM.int8 whose scales belong to whole runs of 16 columns: they can be had as integers
 * (kernels/coded.h). */
bool tms_weight_is_coded(const struct tms_weight *weight);
/* True if codes of a row lie together (not in GPTQ's and AWQ's files). */
bool tms_weight_is_row_major(const struct tms_weight *weight);
/* The same tile as integers [n_rows][ld] and scales [n_rows][ld / 16], zeros behind n_cols. Exact, but for NF4 and FP4,
 * whose values are rounded to 1 / 32767 of the largest. n_rows * n_cols <= TMS_WEIGHT_CODES, codes: room for so many.
 */
enum { TMS_WEIGHT_CODES = 16 * 512 };
void tms_weight_codes(const struct tms_weight *weight, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols,
                      int16_t *values, float *scales, size_t ld, uint8_t *codes);

#endif

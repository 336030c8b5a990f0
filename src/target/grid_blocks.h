/* Codes of GPTQ, AWQ and compressed-tensors as blocks of ggml, without choosing codes anew.
 *
 *   Q4_0  4 bits, all zero points 8, scales that are f16       w = d * (q - 8)              nothing is lost
 *   Q4_1  4 bits, scales that are f16                          w = d * q + m, m = -d * zero  m is rounded to f16
 *   Q8_0  8 bits, all zero points 128, scales that are f16     w = d * (q - 128)            nothing is lost
 * Groups are multiples of 32 columns: every block of a group gets its scale. */
#ifndef TMS_TARGET_GRID_BLOCKS_H
#define TMS_TARGET_GRID_BLOCKS_H

#include "model/source.h"

/* Whether all of the tensor can become blocks of `type`; reads its scales and zero points. */
tms_status tms_grid_becomes_blocks(bool *yes, const struct tms_source *source, const struct tms_tensor *tensor,
                                   enum tms_type type, struct tms_error *err);
/* Rows [row, row + n_rows) from their stored bytes `raw`, to blocks; head_rows: rows of a head that are put from halves
 * to neighbours (heads.h), 0: as they are. */
tms_status tms_grid_to_blocks(const struct tms_source *source, const struct tms_tensor *tensor, enum tms_type type,
                              uint64_t row, uint64_t n_rows, uint64_t head_rows, const void *raw, uint8_t *blocks,
                              struct tms_error *err);

#endif

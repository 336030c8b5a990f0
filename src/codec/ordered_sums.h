/* Sums whose order of additions is part of a format: from 0, element by element, in f32. Many sequences are summed at
 * once, one per lane, so that each keeps its order.
 *
 * x: [n_sequences][n], n a multiple of 8; sums: [n_sequences]. */
#ifndef TMS_CODEC_ORDERED_SUMS_H
#define TMS_CODEC_ORDERED_SUMS_H

#include <stddef.h>

void tms_ordered_sums(const float *x, size_t n, size_t n_sequences, float *sums);
/* Of |x|. */
void tms_ordered_sums_of_magnitudes(const float *x, size_t n, size_t n_sequences, float *sums);
/* Of x * x. */
void tms_ordered_sums_of_squares(const float *x, size_t n, size_t n_sequences, float *sums);

#endif

/* Dot products straight from stored F16, BF16 and F32 weights, for few tokens: what is read from memory is all that
 * costs. The sums are those of dots.h, bit by bit. */
#ifndef TMS_ENGINE_KERNELS_HALVES_H
#define TMS_ENGINE_KERNELS_HALVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tamis/codec.h>

/* True for the three types, where there are vectors for them. */
bool tms_halves_fit(enum tms_type type);

/* y[r] = w[r] . x for n_rows rows of n_cols weights that lie one after the other. */
void tms_halves_rows(enum tms_type type, const uint8_t *rows, size_t n_rows, size_t n_cols, const float *x, float *y);

#endif

/* Dot products of weights that are small integers times a scale, however they are stored, with activations rounded to 8
 * bits (rounded.h): what the fast mode does with the grids of GPTQ, AWQ, compressed-tensors and bitsandbytes.
 *
 * Weights come as integers in 16 bits with a scale for every 16 of them. A row's sum has 16 lanes: lane l takes the
 * products 2 l and 2 l + 1 of every block of 32, whose sum is exact, and adds (scale of the weights * scale of the
 * activations) * sum, fused, block after block. Lanes are added in halves. The bits are the same on every CPU. */
#ifndef TMS_ENGINE_KERNELS_CODED_H
#define TMS_ENGINE_KERNELS_CODED_H

#include "engine/kernels/rounded.h"

enum { TMS_CODED_LANES = 16, TMS_CODED_BLOCK = 16 /* weights with a scale */ };
#define TMS_CODED_MOST 32767 /* the largest magnitude of an integer: two products with 127 stay in 32 bits */

/* Adds the products of n_units * 256 columns to lanes [n_rows][16]. values [n_rows][ld], scales [n_rows][ld / 16]; what
 * is past the end of a row is zero. */
void tms_coded_rows(const int16_t *values, const float *scales, size_t ld, size_t n_rows,
                    const struct tms_rounded_unit *x, size_t n_units, float *lanes);
float tms_coded_sum(const float *lanes);

/* values[i] = codes[i] - zero */
void tms_coded_integers(const uint8_t *codes, int zero, int16_t *values, size_t n);
/* values[i] = (int8_t)codes[i] */
void tms_coded_signed(const uint8_t *codes, int16_t *values, size_t n);
/* values[i] = book[codes[i] & 15] */
void tms_coded_lookup(const int16_t *book, const uint8_t *codes, int16_t *values, size_t n);

#endif

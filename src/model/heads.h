/* The order of rows within attention heads. Hugging Face checkpoints keep the two halves of a head that rotary
 * embedding pairs apart; GGUF files of Llama's family have them as neighbours. A head has `rows` rows (an even number)
 * of `cols` values, x and out hold n values of whole heads; a bias is a matrix with one column. */
#ifndef TMS_MODEL_HEADS_H
#define TMS_MODEL_HEADS_H

#include <stdint.h>

/* Halves to neighbours: row 2i <- i, 2i+1 <- i + rows/2. */
void tms_heads_to_neighbours(const float *x, float *out, uint64_t n, uint64_t rows, uint64_t cols);
/* And back. */
void tms_heads_to_halves(const float *x, float *out, uint64_t n, uint64_t rows, uint64_t cols);

#endif

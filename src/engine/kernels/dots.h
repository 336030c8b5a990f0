/* Dot products of rows with rows, the arithmetic under every linear layer and under attention.
 *
 * Every dot product of n values has one order of sums, whatever the CPU, the number of threads, and the rows around it:
 * the values are cut into pieces of 1024; in a piece, lane l of 16 sums x[i] * y[i] for i = l, l + 16, … with fused
 * multiply-add, beginning at 0; lanes are added in halves (l + 8, l + 4, l + 2, l + 1); pieces are added in order.
 * Pieces also keep rounding errors small: 64 sums in a chain instead of thousands. */
#ifndef TMS_ENGINE_KERNELS_DOTS_H
#define TMS_ENGINE_KERNELS_DOTS_H

#include <stdbool.h>
#include <stddef.h>

#define TMS_DOT_PIECE 1024u

/* The next multiple of 16, to which rows are padded with zeros. */
static inline size_t tms_padded(size_t n)
{
    return (n + 15) / 16 * 16;
}

/* Room from one row to the next: rows a power of two apart would fall into the same sets of the processor's caches. */
static inline size_t tms_row_stride(size_t n)
{
    size_t padded = tms_padded(n);
    return padded % 128 == 0 ? padded + 16 : padded;
}

/* One piece of y = x wT: x [n_x][ldx], w [n_w][ldw], y [n_x][ldy]; y[i][j] = (add ? y[i][j] : 0) + x[i] . w[j] over
 * k <= 1024 values; k is a multiple of 16. */
void tms_dots(const float *x, size_t ldx, size_t n_x, const float *w, size_t ldw, size_t n_w, size_t k, float *y,
              size_t ldy, bool add);

/* x . y over n values (any number; what a padded row gives). */
float tms_dot(const float *x, const float *y, size_t n);

/* acc[i][c] += sum over j < n_v of p[i][j] * v[j][c], in the order of j, fused: p [n_p][ldp], v [n_v][ldv],
 * acc [n_p][lda]; c < n_c, a multiple of 16. */
void tms_weighted_sums(const float *p, size_t ldp, size_t n_p, const float *v, size_t ldv, size_t n_v, size_t n_c,
                       float *acc, size_t lda);

#endif

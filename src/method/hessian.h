/* The Hessian of a linear layer's squared error in its weights, which is the same for all rows:
 *     H = 2 / tokens * sum over tokens of x xᵀ,        x [n] the layer's input
 * (GPTQ, arXiv 2210.17323; scaled as GPTQModel scales it).
 *
 * Sums: products and sums of 512 tokens at a time are f32 fused multiply-add in 16 lanes (32 in a chain); such panels
 * are added to H in f32. f64 sums would cost twice the memory (1.6 GB at n = 14336) and a second pass over it per panel
 * for nothing: over 2^18 tokens 512 additions round to about 2e-6 of an entry's scale, a thousandth of the least
 * damping in use. Tokens wait until a panel is full, so that the bits do not depend on how a caller cuts them, nor on
 * threads or CPU. */
#ifndef TMS_METHOD_HESSIAN_H
#define TMS_METHOD_HESSIAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/threads.h"

struct tms_hessian {
    size_t n, ld;      /* ld: as tms_square_stride, padding columns zero */
    float *h;          /* [n][ld]; until tms_hessian_finish the lower triangle of sums */
    uint64_t n_tokens; /* seen so far */
    float *panel;      /* [n][…]: the waiting tokens, transposed; NULL when finished */
    size_t n_waiting;
    bool shrunk;
};

tms_status tms_hessian_create(struct tms_hessian **out, size_t n, struct tms_error *err);
/* From entries [n][n] (both triangles): finished, to be used at once. */
tms_status tms_hessian_from(struct tms_hessian **out, const float *entries, size_t n, struct tms_error *err);
void tms_hessian_free(struct tms_hessian *hessian);

/* x [n_tokens][ldx]. TMS_EINPUT, naming token and channel, if one is not finite; nothing is then added. */
tms_status tms_hessian_add(struct tms_hessian *hessian, const float *x, size_t ldx, size_t n_tokens,
                           struct tms_pool *pool, struct tms_error *err);
/* The last panel, the factor, the other triangle. Without any token H stays zero. */
tms_status tms_hessian_finish(struct tms_hessian *hessian, struct tms_pool *pool, struct tms_error *err);

/* Damping that knows no outliers, of a finished H and once only: each entry of the diagonal grows by `share` of itself,
 * so that all correlations between channels shrink by the same factor, as those estimated from few tokens should; and
 * by a share of the median, or channels with small inputs would take all corrections and leave the range of their grid.
 * What is usually added, a share of the diagonal's mean, is nothing for the few channels that make the mean and too
 * much for all others. A channel that never had an input gets a millionth of the mean, so that its errors count for
 * nothing.
 */
tms_status tms_hessian_shrink(struct tms_hessian *hessian, double share, double of_median, struct tms_error *err);

/* Half stored: row i has entries 0 … i, n (n + 1) / 2 of them, exactly those of a finished H. */
uint64_t tms_hessian_packed(size_t n);
void tms_hessian_pack(const struct tms_hessian *hessian, float *triangle);
tms_status tms_hessian_unpack(struct tms_hessian **out, const float *triangle, size_t n, struct tms_error *err);
/* The same for rows first … end - 1 alone, so that a file needs no second matrix in memory; a Hessian to be filled so
 * is made by tms_hessian_empty and is zero, finished. */
tms_status tms_hessian_empty(struct tms_hessian **out, size_t n, struct tms_error *err);
void tms_hessian_pack_rows(const struct tms_hessian *hessian, size_t first, size_t end, float *triangle);
void tms_hessian_unpack_rows(struct tms_hessian *hessian, size_t first, size_t end, const float *triangle);

/* tr((A - B) H (A - B)ᵀ) for matrices [n_rows][n]: what the layer's output loses, times 2. Rows of products in f32,
 * everything behind them f64. */
tms_status tms_hessian_error(const struct tms_hessian *hessian, const float *a, const float *b, size_t n_rows,
                             double *error, struct tms_pool *pool, struct tms_error *err);

#endif

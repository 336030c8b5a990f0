/* Factors of symmetric positive definite matrices: what error feedback needs of a Hessian.
 *
 * Matrices are square, f32, row-major: a[i * ld + j], with ld a multiple of 16 that is at least n; the padding columns
 * n … ld - 1 are zero. All work runs in blocks of 64 in a fixed order over the dot products of engine/kernels/dots.h:
 * the same bits for any number of threads and any CPU. A block on the diagonal is factored in f64.
 *
 * GPTQ wants the upper factor U of the inverse, inverse(H) = Uᵀ U. The usual way is three steps: H = L Lᵀ, then the
 * inverse, then its factor. Here it is two: let P reverse the order of rows or columns and P H P = L Lᵀ; then
 * H = R Rᵀ with R = P L P, which is upper triangular, so inverse(H) = inverse(R)ᵀ inverse(R) and
 *     U = P inverse(L) P,
 * half the work, and the condition of H is met once instead of twice. */
#ifndef TMS_METHOD_CHOLESKY_H
#define TMS_METHOD_CHOLESKY_H

#include <stddef.h>

#include "base/error.h"
#include "base/threads.h"

/* ld for n: rows that do not all fall into the same sets of the caches. */
size_t tms_square_stride(size_t n);

/* In place: the lower factor, zeros above the diagonal. Reads only the lower triangle. TMS_EINPUT if a is not positive
 * definite (to working precision) or holds a number that is not finite; a is then spoiled. */
tms_status tms_cholesky(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err);

/* In place: the inverse of a lower triangular matrix with a positive diagonal and zeros above it. */
tms_status tms_lower_inverse(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err);

/* In place: a symmetric positive definite matrix becomes its inverse, both triangles filled. */
tms_status tms_positive_inverse(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err);

/* In place: U with inverse(a) = Uᵀ U, zeros below the diagonal. Reads only the upper triangle. */
tms_status tms_inverse_factor(float *a, size_t n, size_t ld, struct tms_pool *pool, struct tms_error *err);

#endif

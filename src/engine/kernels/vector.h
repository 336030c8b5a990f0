/* Element-wise steps of a layer. Same bits on every CPU: each is one expression with explicit fused multiply-adds, and
 * sums are those of tms_dot. */
#ifndef TMS_ENGINE_KERNELS_VECTOR_H
#define TMS_ENGINE_KERNELS_VECTOR_H

#include <stddef.h>

/* y[i] = e^(x[i] - shift); within 2 units in the last place; 0 below -86.6, capped at e^88.7. NaN stays. */
void tms_exps(const float *x, float shift, float *y, size_t n);

/* The sum of x: lanes of 16, added in halves. */
float tms_sum(const float *x, size_t n);

/* y = x * weight / sqrt(mean(x^2) + eps); x and y may be the same. */
void tms_rms_norm(const float *x, const float *weight, float eps, float *y, size_t n);

/* y[i] = y[i] * x[i] / (1 + e^-x[i]): SwiGLU with x the gate, y the up projection. */
void tms_swiglu(const float *x, float *y, size_t n);

/* y[i] = y[i] * gelu(x[i]), gelu by its tanh formula: x / (1 + e^(-2 sqrt(2 / pi) (x + 0.044715 x^3))). */
void tms_geglu(const float *x, float *y, size_t n);

/* x = cap tanh(x / cap) */
void tms_soft_cap(float *x, float cap, size_t n);

/* x = 1 / (1 + e^-x) */
void tms_sigmoid(float *x, size_t n);

/* y += factor x */
void tms_add_scaled(const float *x, float factor, float *y, size_t n);

/* y += x */
void tms_add(const float *x, float *y, size_t n);

/* y *= factor */
void tms_scale(float *y, float factor, size_t n);

/* x = H x for each block of `block` numbers: the orthonormal Walsh-Hadamard matrix of that many rows, a power of two
 * that divides n; its own inverse. */
void tms_hadamard(float *x, size_t n, size_t block);

#endif

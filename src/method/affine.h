/* Affine grids of integers, as GPTQ files store them: w is about scale * (code - zero), 0 <= code <= 2^bits - 1.
 *
 * Parameters of a group, in f32 (rule and quirks: GPTQ's Quantizer, as GPTQModel 7.7 runs it):
 *     low = min(0, min w), high = max(0, max w);  symmetric: high = max(-low, high), and low = -high only if low < 0
 *     both 0: low = -1, high = 1
 *     scale = (high - low) / (2^bits - 1);   zero = symmetric ? 2^(bits-1) : nearest(-low / scale)
 * With an error norm p > 0 both ends are shrunk by 1 - i / 100, i = 0 … 79, and what makes the sum of |q - w|^p least
 * is taken, of equals the first. */
#ifndef TMS_METHOD_AFFINE_H
#define TMS_METHOD_AFFINE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/cpu.h"

struct tms_affine {
    unsigned bits; /* 2 … 8 */
    bool symmetric;
    float norm; /* 0: the ends as they are; GPTQ's usual norm is 2.4 */
    /* [n] or NULL: with norm 2, what a squared error counts. Importances of columns find better ends than any norm, and
     * squares need a tenth of the time of other powers. */
    const float *weights;
};

void tms_affine_fit(const struct tms_affine *affine, const float *w, size_t n, float *scale, float *zero);

/* The code as a float. NaN gives 0. */
TMS_INLINE float tms_affine_code(float w, float scale, float zero, float top)
{
    float code = rintf(w / scale) + zero;
    code = code > 0 ? code : 0;
    return code < top ? code : top;
}

/* sum of |a - b|^p, p > 0, in eight lanes of f64: the same bits on every machine (libm's pow is not). */
double tms_distance_to_power(const float *a, const float *b, size_t n, double p);

#endif

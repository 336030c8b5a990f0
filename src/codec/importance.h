/* From the importances of columns to those of weights. An importance matrix says how much column c of a tensor counts
 * (the mean square of what is multiplied with it); ggml's weighted encoders then count weight x of it as
 *     importance[c] * sqrt(sigma2 + x²)
 * with sigma2 a multiple of the mean square of the super-block, or for the blocks of 32 of the row. */
#ifndef TMS_CODEC_IMPORTANCE_H
#define TMS_CODEC_IMPORTANCE_H

#include <math.h>
#include <stddef.h>

#include "base/cpu.h"

TMS_INLINE void tms_importances(const float *restrict x, const float *restrict of_columns, float sigma2, size_t n,
                                float *restrict importances)
{
    for (size_t i = 0; i < n; i++) importances[i] = of_columns[i] * sqrtf(sigma2 + x[i] * x[i]);
}

#endif

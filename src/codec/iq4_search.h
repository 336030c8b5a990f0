/* The search for block scales that IQ4_NL and IQ4_XS share, and their sixteen numbers. */
#ifndef TMS_CODEC_IQ4_SEARCH_H
#define TMS_CODEC_IQ4_SEARCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"

/* The numbers that codes stand for, dense around zero; and the middles between them: a value takes the upper of two
 * numbers when it is at or above their middle. (Source: the GGUF format, ggml 0.25. ggml compares the two distances in
 * f32; they are exact near the middle, so that comparing with the middle is the same.) */
extern const int8_t tms_iq4_numbers[16];
extern const float tms_iq4_middles[15];

/* Below this a block counts as zero. */
#define TMS_IQ4_TINY 1e-15f

/* Scales d such that blocks of 32 weights are about d * numbers. The sixteen candidates put the weight of largest
 * magnitude at 127 and at -134 … -120; each is fitted by weighted least squares, and the best fit is taken.
 * importance: [n_blocks][32] and sigma2: [n_blocks] give each x the weight importance * sqrt(sigma2 + x²); both NULL:
 * x². All sums run over the block in order. */
void tms_iq4_scales(const float *x, const float *importance, const float *sigma2, size_t n_blocks, float *scales);

/* How many of the first blocks the vectors of this machine have done (iq4_lanes.c). */
size_t tms_iq4_scales_lanes(const float *x, const float *importance, const float *sigma2, size_t n_blocks,
                            float *scales);

/* The code of v; NaN gives 15. */
TMS_INLINE int tms_iq4_code(float v)
{
    int code = 0;
    for (int k = 0; k < 15; k++) code += !(v < tms_iq4_middles[k]);
    return code;
}

#endif

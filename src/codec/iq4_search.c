/* See iq4_search.h. */
#include "codec/iq4_search.h"

#include <math.h>

const int8_t tms_iq4_numbers[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const float tms_iq4_middles[15] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                   7,       19,     31.5f, 45.5f, 61,  79,     101};

static float scale_of_block(const float *restrict x, const float *restrict importance, float sigma2)
{
    enum { N = 32 };
    float w[N], peak = 0;
    for (int i = 0; i < N; i++) w[i] = importance ? importance[i] * sqrtf(sigma2 + x[i] * x[i]) : x[i] * x[i];
    for (int i = 0; i < N; i++)
        if (fabsf(x[i]) > fabsf(peak)) peak = x[i];
    if (fabsf(peak) < TMS_IQ4_TINY) return 0;

    float scale = 0, best = 0;
    for (int k = -8; k <= 7; k++) {
        /* k = -8 stands for the peak at 127, which is tried first and taken in any case. */
        float inverse = k == -8 ? 1 / (-peak / -127) : ((float)k - 127) / peak;
        float sum_qx = 0, sum_qq = 0;
        for (int i = 0; i < N; i++) {
            float q = tms_iq4_numbers[tms_iq4_code(inverse * x[i])], wq = w[i] * q;
            sum_qx += wq * x[i];
            sum_qq += wq * q;
        }
        if (k == -8)
            scale = sum_qq > 0 ? sum_qx / sum_qq : 0;
        else if (sum_qq > 0 && sum_qx * sum_qx > best * sum_qq)
            scale = sum_qx / sum_qq;
        else
            continue;
        best = scale * sum_qx;
    }
    return scale;
}

void tms_iq4_scales(const float *x, const float *importance, const float *sigma2, size_t n_blocks, float *scales)
{
    for (size_t b = tms_iq4_scales_lanes(x, importance, sigma2, n_blocks, scales); b < n_blocks; b++)
        scales[b] = scale_of_block(x + 32 * b, importance ? importance + 32 * b : NULL, sigma2 ? sigma2[b] : 0);
}

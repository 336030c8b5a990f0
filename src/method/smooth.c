/* See smooth.h. */
#include "method/smooth.h"

#include <math.h>
#include <string.h>

#include "method/power.h"

void tms_smooth_weight_max(const struct tms_awq_layer *layers, size_t n_layers, size_t n_cols, float *largest)
{
    memset(largest, 0, n_cols * sizeof *largest);
    for (size_t l = 0; l < n_layers; l++)
        for (size_t r = 0; r < layers[l].n_rows; r++)
            for (size_t c = 0; c < n_cols; c++) {
                const float magnitude = fabsf(layers[l].w[r * n_cols + c]);
                largest[c] = magnitude > largest[c] ? magnitude : largest[c];
            }
}

void tms_smooth_scales(const float *input_max, const float *weight_max, double strength, size_t n, float *scales)
{
    for (size_t c = 0; c < n; c++) {
        double s = (double)input_max[c];
        if (weight_max[c] > 0)
            s = tms_power((double)input_max[c], strength) / tms_power((double)weight_max[c], 1 - strength);
        /* As floats, so that what is too large for them counts. */
        scales[c] = (float)s;
        if (!(scales[c] >= 1e-5f) || !isfinite(scales[c]) || input_max[c] == 0) scales[c] = 1;
    }
}

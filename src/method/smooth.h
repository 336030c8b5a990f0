/* SmoothQuant (arXiv 2211.10438): moves the difficulty of outlier channels from activations to weights. With x[c] the
 * largest |input| of a channel and w[c] the largest |weight| that reads it,
 *     s[c] = x[c]^strength / w[c]^(1 - strength);
 * inputs are divided by s (in the operation before), columns of weights multiplied. 0.5 is usual, 0.75 … 0.85 for
 * models with strong outliers. Applying it: tms_awq_scale_columns, tms_awq_divide_norm, tms_awq_divide_rows (awq.h). */
#ifndef TMS_METHOD_SMOOTH_H
#define TMS_METHOD_SMOOTH_H

#include "method/awq.h"

/* largest [n_cols]: of all layers that read the input. */
void tms_smooth_weight_max(const struct tms_awq_layer *layers, size_t n_layers, size_t n_cols, float *largest);

/* Channels without weights get s = x, those without inputs, and whatever is not finite or below 1e-5, 1. */
void tms_smooth_scales(const float *input_max, const float *weight_max, double strength, size_t n, float *scales);

#endif

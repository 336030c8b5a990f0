/* AWQ (arXiv 2306.00978), as AutoAWQ 0.2.9 runs it: channels whose inputs are large get finer steps, by scaling them up
 * before rounding; the operation that makes the inputs divides by the same scales.
 *
 * Grids are asymmetric, per group of a row: scale = max(max - min, 1e-5) / (2^bits - 1),
 * zero = clamp(-nearest(min / scale)), code = clamp(nearest(w / scale) + zero). Unlike GPTQ's, [min, max] need not hold
 * 0.
 *
 * Scale search, for layers that read one input: with
 *     x[c] = mean of |input channel c|,   m[c] = mean over all rows of |w| / (max |w| of its group + 1e-6)
 * try the ratios r = k / 20, k = 0 … 19:
 *     s = max(x^r / (m^(1 - r) + 1e-4), 1e-4)       (without duo scaling max(x^r, 1e-4))
 *     s = s / sqrt(max s * min s),  1 where that is no number
 * round w * s, divide by s, and keep the s with the least mean squared error of the module's output.
 *
 * Clip search, per row and group: with a = max |w| try the limits a (1 - k / 20), k = 0 … 9, and keep the one with the
 * least mean squared error of the group's part of the output, rounded with it. That error is d H dᵀ / 2 with H the
 * group's square on the Hessian's diagonal (hessian.h), so that inputs need not be kept. */
#ifndef TMS_METHOD_AWQ_H
#define TMS_METHOD_AWQ_H

#include "method/hessian.h"

enum { TMS_AWQ_RATIOS = 20 };

/* One of the layers that read the same input: [n_rows][n_cols], n_cols common. */
struct tms_awq_layer {
    const float *w;
    size_t n_rows;
};

struct tms_awq_options {
    unsigned bits;
    size_t group; /* divides n_cols; 0: the whole row */
    bool no_duo;  /* scales from inputs alone */
};

/* Error of the module when its layers have these weights, in the order of the layers: [n_rows][n_cols] each, already
 * divided by the scales again, so that the module's input is as ever. */
typedef tms_status (*tms_awq_loss_fn)(void *ctx, float *const *weights, double *loss, struct tms_error *err);

struct tms_awq_scales {
    size_t n_cols;
    float *scales; /* [n_cols], of the best ratio */
    double ratio;
    double losses[TMS_AWQ_RATIOS];
};

/* mean [n_cols]: m above. */
void tms_awq_weight_mean(const struct tms_awq_layer *layers, size_t n_layers, size_t n_cols, size_t group, float *mean);
/* s above. */
void tms_awq_scales_at(double ratio, const float *input_mean, const float *weight_mean, bool no_duo, size_t n,
                       float *scales);

/* loss NULL: the mean squared error of the layers' own outputs, from the Hessian of their input (which is then needed):
 * right for single layers, a good guess for others. TMS_EINPUT if no ratio gives a finite loss. Freed with
 * tms_awq_scales_free. */
tms_status tms_awq_search(struct tms_awq_scales *out, const struct tms_awq_layer *layers, size_t n_layers,
                          const float *input_mean, size_t n_cols, const struct tms_hessian *hessian,
                          const struct tms_awq_options *options, tms_awq_loss_fn loss, void *ctx, struct tms_pool *pool,
                          struct tms_error *err);
void tms_awq_scales_free(struct tms_awq_scales *scales);

/* limits [n_rows][n_groups]. The Hessian is of the inputs that w gets: where scales were applied to w, see
 * tms_awq_scale_hessian. */
tms_status tms_awq_clip(const float *w, size_t n_rows, size_t n_cols, const struct tms_hessian *hessian,
                        const struct tms_awq_options *options, float *limits, struct tms_pool *pool,
                        struct tms_error *err);

/* What applying scales and limits means. */
void tms_awq_scale_columns(float *w, size_t n_rows, size_t n_cols, const float *scales);
/* Rows of the previous layer, the last n of its n_rows (and their biases, unless NULL), are divided. */
void tms_awq_divide_rows(float *w, float *bias, size_t n_rows, size_t n_cols, const float *scales, size_t n);
/* plus_one: norms that store their weight minus 1 (Gemma). bias may be NULL. */
void tms_awq_divide_norm(float *weight, float *bias, const float *scales, size_t n, bool plus_one);
/* Of inputs divided by the scales. */
void tms_awq_scale_hessian(struct tms_hessian *hessian, const float *scales);
void tms_awq_clamp(float *w, size_t n_rows, size_t n_cols, size_t group, const float *limits);

/* Rounds in place. With half, every operation is rounded to f16, as a model in f16 does it; w must be f16 numbers.
 * codes [n_rows][n_cols], scales and zeros [n_rows][n_groups] may be NULL. */
void tms_awq_round(float *w, size_t n_rows, size_t n_cols, size_t group, unsigned bits, bool half, uint8_t *codes,
                   float *scales, uint8_t *zeros);

#endif

/* Observers: which range of real numbers the codes of activations (or weights) should cover.
 *
 * Streaming: a range, a moving average of ranges, a histogram. From a histogram: percentile, least Kullback-Leibler
 * divergence, least mean squared error. On values in memory: the search that shrinks a range by steps for the least
 * sum of |error|^p. A range becomes a grid by tms_int_grid or tms_float_scale. */
#ifndef TMS_METHOD_OBSERVERS_H
#define TMS_METHOD_OBSERVERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tms_range {
    float low, high; /* of what was seen; 0, 0 if n is 0 */
    uint64_t n;
};

/* Min/max. False at a NaN or infinity: nothing is then added. */
bool tms_range_add(struct tms_range *range, const float *x, size_t n);
void tms_range_merge(struct tms_range *range, const struct tms_range *other);

/* Moving average, one step per batch: the first batch's range as it is, then
 *     low = (1 - share) * low + share * min x      and high likewise
 * (0.01 is usual: compressed-tensors' "averaging_constant"). */
bool tms_range_average(struct tms_range *range, const float *x, size_t n, float share);

/* ---- histogram ---- */

enum { TMS_HISTOGRAM_BINS = 4096 };

/* Counts over [-reach, reach), reach a power of two above the largest magnitude so far. When that grows, neighbouring
 * bins are added: so counts do not depend on the order in which values come, and histograms of parts can be merged.
 * Zero-initialize. */
struct tms_histogram {
    double reach; /* 0: nothing seen */
    uint64_t counts[TMS_HISTOGRAM_BINS];
    struct tms_range range;
};

/* False at a NaN or infinity: nothing is then added. */
bool tms_histogram_add(struct tms_histogram *histogram, const float *x, size_t n);
void tms_histogram_merge(struct tms_histogram *histogram, const struct tms_histogram *other);

/* The smallest edge m of a bin such that at least this share of all values has |x| <= m; never beyond the largest |x|.
 */
float tms_histogram_percentile(const struct tms_histogram *histogram, double share);

/* Threshold for |x| by entropy (TensorRT's calibration, Migacz, "8-bit inference with TensorRT", GTC 2017): for every
 * number i of bins of magnitudes, from `levels` to all that are occupied, P is the first i bins with all that lies
 * beyond them added to the last, Q the first i bins merged to `levels` and spread evenly over those that are not empty;
 * the i with the least sum P log(P / Q), both made to sum to 1, gives the threshold. Where Q is 0 and P is not it
 * counts as 1e-4. levels: 128 for 8 bits. */
float tms_histogram_entropy(const struct tms_histogram *histogram, size_t levels);

/* The range with the least mean squared error of a grid of 2^bits codes, clipped values included, if values lie evenly
 * in their bins: sum over bins of density * integral of (x - rounded)². Symmetric: thresholds are the edges of bins.
 * Otherwise the range shrinks, as AMCT's HFMG does, by the side that loses fewer values per step, until a quarter of
 * its bins is left. (Symmetric grids have 2^bits - 1 codes here, -max … max.) */
struct tms_range tms_histogram_least_squares(const struct tms_histogram *histogram, unsigned bits, bool symmetric);

/* ---- ranges and grids ---- */

/* Codes -2^(bits-1) … 2^(bits-1) - 1; x is about (code - zero) * scale. */
struct tms_int_grid {
    float scale;
    int zero, least, most;
};

/* As compressed-tensors does it: low = min(0, low), high = max(0, high);
 * symmetric: scale = max(-low, high) / ((2^bits - 1) / 2), zero = 0; else scale = (high - low) / (2^bits - 1),
 * zero = nearest(least - low / scale), clamped; an empty range gets the scale 2^-23. */
struct tms_int_grid tms_int_grid(float low, float high, unsigned bits, bool symmetric);
/* Clamped, then rounded to nearest, ties to even. */
int tms_int_code(const struct tms_int_grid *grid, float x);
float tms_int_value(const struct tms_int_grid *grid, int code);
/* For formats of small floats: max(-low, high) / largest (448 for E4M3); 2^-23 for an empty range. */
float tms_float_scale(float low, float high, float largest);

/* Shrinks [min, max] of x (0 included) by factors 1 - i * step, i < n_steps, and returns the range with the least
 * sum of |x - rounded|^p on tms_int_grid, of equals the first (compressed-tensors' "mse": step 0.01, 20 steps, p 2.4;
 * GPTQ's: 80 steps). */
struct tms_range tms_shrink_search(const float *x, size_t n, unsigned bits, bool symmetric, double p, double step,
                                   int n_steps);

#endif

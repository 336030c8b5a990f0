/* Flips: coordinate descent on rounding. For a row with weights w, decoded values q and e = q - w, the squared error of
 * the layer's output is e H eᵀ / 2. As a function of one value alone it is a parabola with its least at
 *     t = q[i] - g[i] / H[i][i],      g = e H,
 * so that the best value of a grid is the one nearest to t. Columns are visited in turn, again and again, until no
 * change lowers the error. The error never rises; it may follow any method. */
#ifndef TMS_METHOD_FLIPS_H
#define TMS_METHOD_FLIPS_H

#include "method/gptq.h"

struct tms_flips {
    /* The decoded value nearest to `target` that the format can give weight [row][col], its scales being as they are.
     */
    float (*nearest)(void *ctx, size_t row, size_t col, float target);
    void *ctx;    /* different rows at the same time */
    double damp;  /* times the mean of H's diagonal, added to the diagonal: keeps weights from wandering where the
                   * calibration text says nothing */
    int n_sweeps; /* at most; 0: 10 */
};

/* q [n_rows][n]: improved in place. *n_changed and *gain (how much tr(e (H + damping) eᵀ) has fallen) may be NULL. */
tms_status tms_flips(const float *w, float *q, size_t n_rows, const struct tms_hessian *hessian,
                     const struct tms_flips *flips, size_t *n_changed, double *gain, struct tms_pool *pool,
                     struct tms_error *err);

/* The codes of a GPTQ result (or of any other rounding to such a grid). */
tms_status tms_gptq_flips(struct tms_gptq_result *result, const float *w, unsigned bits,
                          const struct tms_hessian *hessian, double damp, int n_sweeps, size_t *n_changed,
                          struct tms_pool *pool, struct tms_error *err);

#endif

/* Flips (flips.h) for values that come in eights of a codebook: for one eight of a row, all else being as it is, the
 * error through H is a form in eight variables. The candidate is the point of the codebook nearest to the form's least
 * point, distances weighted by the diagonal of H; it is taken if the form, computed in full, says that the error falls.
 * (A second candidate, from the least point of every variable for itself, was tried: it doubles the work for nothing.)
 */
#ifndef TMS_METHOD_EIGHT_FLIPS_H
#define TMS_METHOD_EIGHT_FLIPS_H

#include "method/eights.h"
#include "method/hessian.h"

struct tms_eight_flips {
    const struct tms_eights *eights;
    /* Of column c and row r: steps[c / sub * n_padded + r]; n_padded a multiple of 32. */
    const float *steps, *deltas; /* deltas: of IQ1, likewise; NULL: free */
    size_t sub, n_padded;
    double damp;
    int n_sweeps;
};

/* w [n_rows][n]; words: in the first 4 bytes of 8, [n_rows][n] bytes, improved in place. */
tms_status tms_eight_flips(const float *w, uint8_t *words, size_t n_rows, const struct tms_hessian *hessian,
                           const struct tms_eight_flips *flips, struct tms_pool *pool, struct tms_error *err);

#endif

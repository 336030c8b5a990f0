/* Which scales the input of some matrices should get before these are rounded: of several candidates the one with the
 * least error of the matrices' outputs, each matrix rounded as the target will round it. A matrix is judged by a sample
 * of its rows, so that slow encoders can be asked often. */
#ifndef TMS_TARGET_FOLD_SEARCH_H
#define TMS_TARGET_FOLD_SEARCH_H

#include "method/hessian.h"
#include "target/target.h"

/* A matrix that reads the input. */
struct tms_fold_reader {
    const struct tms_route *route; /* where it goes: CODEC, or GRID with integers */
    const struct tms_hessian *hessian;
    float *cost; /* [n_cols]: error feedback's cost of an error in each column; NULL: plain rounding, whose
                  * error counts through the Hessian */
    float *rows; /* [n_rows][n_cols]: the sample */
    size_t n_rows, n_cols;
    double share; /* how much its error counts, for an output of variance 1 */
};

/* candidates [n][n_scales]; column c of a reader has scale of[c], NULL: c. *best: the index of the first with the least
 * error. TMS_EINPUT if no error is finite. */
tms_status tms_fold_search(size_t *best, const struct tms_fold_reader *readers, size_t n_readers,
                           const float *candidates, size_t n, size_t n_scales, const uint32_t *of,
                           struct tms_pool *pool, struct tms_error *err);

/* Plain rounding of rows [n_rows][n_cols] as a route will store them, weighted by the importance of columns (NULL:
 * none) where the type can do that; back to values in `out`, and blocks in `codes` (room for them; GRID: unused). */
tms_status tms_fold_round(const struct tms_route *route, const float *rows, size_t n_rows, size_t n_cols,
                          const float *importance, uint8_t *codes, float *out, struct tms_error *err);

/* importance [n_cols] from a Hessian's diagonal (inputs' mean square), none zero. */
void tms_fold_importance(const struct tms_hessian *hessian, float *importance);

#endif

/* y = x wT + bias, with the weights decoded tile by tile: a tile of 40 rows and 1024 columns is decoded once for all
 * tokens of the pass, into the cache of the core that uses it. */
#ifndef TMS_ENGINE_LINEAR_H
#define TMS_ENGINE_LINEAR_H

#include "base/threads.h"
#include "engine/weight.h"

/* Floats of scratch memory that one worker needs. */
#define TMS_LINEAR_SCRATCH (40u * (1024u + 16u))

struct tms_linear_job {
    const struct tms_weight *weight;
    const float *bias; /* [rows], or NULL */
    const float *x;    /* [n][x_stride]; zeros from cols up to a multiple of 16 */
    size_t x_stride, n;
    float *y; /* [n][y_stride] */
    size_t y_stride;
    float outlier; /* weights of LLM.int8: its threshold (int8.h); 0: they are decoded like all others */
};

/* Several linear layers of one input at once (q, k and v; gate and up), so that threads wait for each other once.
 * scratch: TMS_LINEAR_SCRATCH floats for each worker. */
tms_status tms_linear_run(struct tms_pool *pool, const struct tms_linear_job *jobs, size_t n_jobs, float *scratch,
                          struct tms_error *err);

#endif

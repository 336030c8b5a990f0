/* y = x wT + bias, with the weights decoded tile by tile: a tile of 40 rows and 1024 columns is decoded once for all
 * tokens of the pass, into the cache of the core that uses it. */
#ifndef TMS_ENGINE_LINEAR_H
#define TMS_ENGINE_LINEAR_H

#include "base/threads.h"
#include "engine/kernels/rounded.h"
#include "engine/weight.h"

/* Floats of scratch memory that one worker needs. */
#define TMS_LINEAR_SCRATCH (40u * (1024u + 16u))

/* The fast mode: inputs rounded to 8 bits, for weights whose type allows it (kernels/rounded.h, kernels/coded.h). Sums
 * of few tokens and of many differ in their order, so the last bits depend on how tokens are cut into passes; never on
 * threads. Zero-initialize; grown as needed, freed with tms_linear_fast_free. */
struct tms_linear_fast {
    struct tms_rounded_unit *units;
    size_t room;
};
void tms_linear_fast_free(struct tms_linear_fast *fast);

struct tms_linear_job {
    const struct tms_weight *weight;
    const float *bias; /* [rows], or NULL */
    const float *x;    /* [n][x_stride]; zeros from cols up to a multiple of 16 */
    size_t x_stride, n;
    float *y; /* [n][y_stride] */
    size_t y_stride;
    const struct tms_rounded_unit *rounded; /* NULL; tms_linear_run sets it in the fast mode */
    float outlier; /* weights of LLM.int8: its threshold (int8.h); 0: they are decoded like all others */
};

/* Several linear layers of one input at once (q, k and v; gate and up), so that threads wait for each other once.
 * scratch: TMS_LINEAR_SCRATCH floats for each worker. fast: NULL for exact results. */
tms_status tms_linear_run(struct tms_pool *pool, struct tms_linear_job *jobs, size_t n_jobs, float *scratch,
                          struct tms_linear_fast *fast, struct tms_error *err);

#endif

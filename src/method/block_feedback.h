/* GPTQ inside GGUF's block types. The loop of feedback.h goes through a matrix; when it gets to a block, the type's own
 * weighted encoder finds the scales in the weights as they are by then, with all feedback of what is on the left. The
 * scales are stored, and from then on the values of the block are what a reader will decode: each weight (with
 * codebooks, each eight) is rounded to the nearest of them, in the order of columns, with feedback to the right.
 * Flips may follow. The result is an ordinary encoded matrix. */
#ifndef TMS_METHOD_BLOCK_FEEDBACK_H
#define TMS_METHOD_BLOCK_FEEDBACK_H

#include <tamis/codec.h>

#include "method/hessian.h"

/* The upper factor of the inverse of a damped Hessian: one for all matrices with the same input. */
struct tms_feedback_factor {
    size_t n, ld;
    float *u;
    double damp; /* that was used */
};
tms_status tms_feedback_factor_create(struct tms_feedback_factor *out, const struct tms_hessian *hessian, double damp,
                                      struct tms_pool *pool, struct tms_error *err);
void tms_feedback_factor_free(struct tms_feedback_factor *factor);

struct tms_block_feedback_options {
    /* Importance of columns for the search of scales [n_cols], as an imatrix has it. NULL: what GPTQ's loss says,
     * 1 / U[i][i]², how much an error counts that the columns behind it cannot repair; on the embedded model that is
     * better by 2 to 3 % of the divergence at two bits. */
    const float *importance;
    /* Sweeps of flips afterwards; 0: none. They need the Hessian. Four do nearly all that any number does. */
    int n_sweeps;
    const struct tms_hessian *hessian;
};

/* Types whose blocks are known here: Q4_0 … Q8_0, Q2_K … Q6_K, IQ1 … IQ4, MXFP4, NVFP4. */
bool tms_block_feedback_knows(enum tms_type type);

/* w [n_rows][factor->n], blocks as tms_codec's encoders fill them. The same bytes for any threads and CPU. *loss may be
 * NULL (see tms_feedback; before flips). TMS_EINPUT for weights that are not finite, TMS_EUSAGE for other types or rows
 * that are no whole number of blocks. */
tms_status tms_block_feedback(void *blocks, enum tms_type type, const float *w, size_t n_rows,
                              const struct tms_feedback_factor *factor,
                              const struct tms_block_feedback_options *options, double *loss, struct tms_pool *pool,
                              struct tms_error *err);

#endif

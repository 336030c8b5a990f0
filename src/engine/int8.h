/* LLM.int8 (Dettmers et al. 2022) as bitsandbytes computes it: columns in which any token of a pass reaches the
 * threshold are multiplied as they are; of the others, each token is rounded to 8 bits with a scale of its own, and the
 * products of integers are exact. Which columns those are depends on the tokens of the pass. */
#ifndef TMS_ENGINE_INT8_H
#define TMS_ENGINE_INT8_H

#include "base/threads.h"
#include "engine/weight.h"

/* The input of a linear layer, in two parts. Zero-initialize. */
struct tms_int8_input {
    size_t n, cols;
    int8_t *codes;    /* [n][cols]; 0 in the columns that stay */
    float *scales;    /* [n]: x = code * scale */
    size_t *outliers; /* [n_outliers]: the columns that stay */
    size_t n_outliers;
};

/* x [n][stride]. Freed with tms_int8_free, also after a failure. */
tms_status tms_int8_split(struct tms_int8_input *out, struct tms_pool *pool, const float *x, size_t stride, size_t n,
                          size_t cols, float threshold, struct tms_error *err);
void tms_int8_free(struct tms_int8_input *input);

/* True for weights of LLM.int8, which codes can be multiplied with. */
bool tms_int8_fits(const struct tms_weight *weight);
/* Rows [first, end) of y = x wT. */
void tms_int8_rows(const struct tms_int8_input *input, const float *x, size_t stride, const struct tms_weight *weight,
                   uint64_t first, uint64_t end, float *y, size_t y_stride);

#endif

/* HQQ, half-quadratic quantization without data (Badri and Shaji, 2023; constants of the hqq package 0.2): finds zero
 * points that make the error sparse, sum |w - w_q|^p with p < 1, because few large errors hurt less than many small.
 *
 * Per group, w is about (code - zero) * scale with a real zero, scale = (max - min) / (2^bits - 1). Two steps repeat,
 * each the exact minimum of its half:
 *     e = shrink(w - w_q),    shrink(d) = sign(d) max(|d| - |d|^(p - 1) / beta, 0),    p = 0.7, beta = 10
 *     zero = mean over the group of (code - (w - e) / scale)
 * at most 20 times, until the mean of |w - w_q| over the whole matrix no longer falls. */
#ifndef TMS_METHOD_HQQ_H
#define TMS_METHOD_HQQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/threads.h"

struct tms_hqq_options {
    unsigned bits;   /* 1 … 8 */
    size_t group;    /* values, a divisor of the number of all; along rows ("axis 1") */
    bool round_zero; /* the first zero is rounded; the package does so at 4 bits */
    int n_steps;     /* 0: 20 */
};

/* w [n], codes [n], scales and zeros [n / group]. TMS_EINPUT for weights that are not finite. */
tms_status tms_hqq(const float *w, size_t n, const struct tms_hqq_options *options, uint8_t *codes, float *scales,
                   float *zeros, struct tms_pool *pool, struct tms_error *err);

#endif

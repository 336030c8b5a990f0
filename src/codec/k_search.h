/* The searches for block scales that the K-quants share.
 *
 * Each takes n_blocks blocks of 16 or 32 consecutive weights and finds, for every block by itself, the codes and the
 * scale that make a weighted squared (or absolute) error small. The scalar code in k_search.c says what the results
 * are; k_lanes.c runs it on eight or sixteen blocks at once, one per lane, with equal results.
 *
 * Source of the rules and constants: ggml 0.25, whose bytes the encoders reproduce. */
#ifndef TMS_CODEC_K_SEARCH_H
#define TMS_CODEC_K_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "base/numbers.h"

/* Below this a block counts as zero. */
#define TMS_K_TINY 1e-15f

/* x is about scale * q - min, 0 <= q <= top, min >= 0. */
struct tms_affine_rule {
    int block; /* 16 or 32 */
    float top;
    float first, step; /* candidate k tries to spread the range over top + first + k * step codes */
    int last;          /* k = 0 … last */
    /* What counts as error where no importances are given: |.| weighted by |x|, in blocks of 16; or squares weighted by
     * |x| + root mean square of the block, in blocks of 32. With importances it is always squares. */
    bool absolute;
};

/* x, importances (or NULL), codes: [n_blocks][block]; scales, mins: [n_blocks]. */
void tms_k_affine(const struct tms_affine_rule *rule, const float *x, const float *importances, size_t n_blocks,
                  float *scales, float *mins, uint8_t *codes);

/* x is about scale * (q - half), 0 <= q < 2 * half, in blocks of 16 or 32; without importances (NULL) these are x². The
 * weight of largest magnitude gets about -half, or half less at most 0.9. Blocks near zero get scale 0 and codes 0. */
void tms_k_symmetric(int block, int half, const float *x, const float *importances, size_t n_blocks, float *scales,
                     uint8_t *codes);

/* As tms_k_symmetric with half = 4, but from one scale, by moving single codes while that lowers the error. */
void tms_k_symmetric_by_moves(const float *x, size_t n_blocks, float *scales, uint8_t *codes);

/* x is about scale * q, 0 <= q <= top, in blocks of 8 or 16: the scales or minimums of a super-block. Where x is
 * negative, against its nature, q wraps to eight bits. Blocks near zero get scale 0 and codes 0. */
void tms_k_positive(int block, int top, const float *x, const float *importances, size_t n_blocks, float *scales,
                    uint8_t *codes);

/* Nearest integer, ties to even, for |v| < 2^22; adding 1.5 * 2^23 leaves it in the low mantissa bits. Beyond that the
 * result is some number in [-2^22, 2^22), the same on every machine, which callers clamp. */
TMS_INLINE int tms_nearest(float v)
{
    return (int)(tms_f32_bits(v + 12582912.0f) & 0x007fffff) - 0x00400000;
}

TMS_INLINE int tms_clamp(int v, int low, int high)
{
    return v < low ? low : v > high ? high : v;
}

#endif

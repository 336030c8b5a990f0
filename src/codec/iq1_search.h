/* The two searches behind IQ1_S and IQ1_M, for blocks of 32 or 16 weights. Weight x of a block becomes
 *     scale * (l - 1 + delta),   l = 0, 1, 2,   delta = 1/8 or -1/8
 * with one sign of delta per block of 32, or per half of a block of 16.
 *
 * First the split: sort the weights; the smallest i1 get level 0, those up to i2 level 1, the others 2. All i1 <= i2
 * and all signs are tried with the scale that fits best. Then every group of 8 levels must become a point of the
 * codebook (iq1_grid.h): where it is none, the nearby point with the least weighted squared error is taken, and the
 * scale fitted again.
 *
 * iq1_search.c says what the results are, iq1_lanes.c has them sooner. All sums are in order, in f32.
 * Source of the rules: ggml 0.25, whose bytes the encoders reproduce. */
#ifndef TMS_CODEC_IQ1_SEARCH_H
#define TMS_CODEC_IQ1_SEARCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"

#define TMS_IQ1_DELTA 0.125f

/* Below this a block counts as zero. */
#define TMS_IQ1_TINY(block) ((block) == 32 ? 1e-12f : 1e-7f)

/* The place of the groups of a block that is zero; its scale is 0, and so are its signs. */
#define TMS_IQ1_NOWHERE 0xffff

/* x, w: values and weights, [n_blocks][block]; block is 32 or 16.
 * signs: block 32: 1 if delta is negative; block 16: 2 for the first half, plus 1 for the second.
 * places: [n_blocks][block / 8]; scales are at least 0. */
void tms_iq1_split(int block, const float *x, const float *w, size_t n_blocks, float *scales, uint8_t *signs,
                   uint16_t *places);
/* The same for the first blocks, with vectors; returns how many. */
size_t tms_iq1_split_lanes(int block, const float *x, const float *w, size_t n_blocks, float *scales, uint8_t *signs,
                           uint16_t *places);

/* Replaces places by numbers of points; those of a block that is zero by point 0. Where a group was no point, scales
 * change. numbers: [n_blocks][block / 8]. */
void tms_iq1_choose_points(int block, const float *x, const float *w, size_t n_blocks, const uint8_t *signs,
                           const uint16_t *places, float *scales, uint16_t *numbers);

/* Which of n points (codes; n is a multiple of TMS_IQ1_LIST) has the least error for 8 weights, the first of several;
 * -1 if no error is finite. */
typedef int tms_iq1_least(const uint16_t *codes, int n, const float *x, const float *w, float scale, float delta);
/* With vectors; NULL if this machine has none. */
tms_iq1_least *tms_iq1_least_lanes(void);

/* l - 1 + delta for l = 0, 1, 2. */
TMS_INLINE float tms_iq1_level(int l, float delta)
{
    return (float)(l - 1) + delta;
}

/* 1/8 or -1/8 for half 0 or 1 of a block. */
TMS_INLINE float tms_iq1_delta(int block, unsigned signs, int half)
{
    unsigned negative = block == 32 ? signs : signs >> (1 - half) & 1;
    return negative ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA;
}

#endif

/* The search for scales and points that the IQ2 and IQ3 types share; iq2.c and iq3.c say what becomes of its results.
 *
 * A block of 16 or 32 weights has one scale; each group of 8 or 4 has one point of a codebook (iq_grids.h), so that a
 * weight is about sign * scale * (2 l + 1). The search tries a range of scales. For each it rounds every weight to a
 * level, takes for groups that are no point the best of the points nearby, and keeps the scale for which the weighted
 * squared error after fitting would be least; then it may choose the points once more for the fitted scale.
 *
 * iq_search.c says what the results are; iq_lanes.c has them sooner.
 * Source of the rules and constants: ggml 0.25, whose bytes the encoders reproduce. */
#ifndef TMS_CODEC_IQ_SEARCH_H
#define TMS_CODEC_IQ_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/iq_grids.h"

enum { TMS_IQ_SUPER = 256, TMS_IQ_MAX_BLOCK = 32, TMS_IQ_MAX_GROUPS = 8 };

/* Which groups of a block are chosen again for the fitted scale. */
enum tms_iq_refit {
    TMS_REFIT_ALL,
    TMS_REFIT_OFF_GRID,   /* those whose levels were no point */
    TMS_REFIT_ALL_IF_ANY, /* all, if one of them was no point */
};

struct tms_iq_rule {
    enum tms_iq_book book;
    int block;         /* weights that share a scale: 16 or 32 */
    int top;           /* levels are 0 … top */
    int last;          /* candidate scales are k = -last … last; */
    float step;        /* for k the largest magnitude of the block is 2 top + 1 + k * step scales */
    bool start_by_fit; /* not the largest magnitude, but top + 1 times a fitted scale */
    bool even_signs;   /* only an even number of signs per 8 weights can be stored */
    enum tms_iq_refit refit;
    float tiny;        /* a block with nothing that reaches this is zero */
    float mean_square; /* this times the mean square of a super-block goes into its weights */
    float plain_share; /* weights without an importance matrix: this times the former, plus x² */
};

/* What is stored of 256 weights. */
struct tms_iq_found {
    float scales[TMS_IQ_SUPER / 16];
    uint32_t points[TMS_IQ_SUPER / 4]; /* one for each group, in order */
    uint8_t signs[TMS_IQ_SUPER / 8];   /* bit i: the sign of weight i of 8 */
    bool zero[TMS_IQ_SUPER / 16];      /* blocks with nothing in them */
    float largest_scale;               /* 0: everything is zero */
};

/* importance: of each of the 256 columns, or NULL. */
void tms_iq_search(const struct tms_iq_rule *rule, const float *x, const float *importance, struct tms_iq_found *found);

/* The scales of n blocks in four bits each, for a step of largest_scale / 31, which is returned. */
float tms_iq_round_scales(const struct tms_iq_found *found, int n, uint8_t *codes);

/* The search in one block. values: magnitudes, negative where the stored sign will be the wrong one; roots: those of
 * the weights. The scale may come out negative. Returns false for a block that is zero, and sets nothing. */
typedef bool tms_iq_block_search(const struct tms_iq_rule *rule, const struct tms_iq_grid *grid, const float *values,
                                 const float *weights, const float *roots, float *scale, uint32_t *points);

#endif

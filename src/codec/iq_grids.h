/* The codebooks of ggml's i-quants, and where to look in them.
 *
 * IQ2 and IQ3 types do not round weights one by one: the magnitudes of a group of 8 (or 4) weights become one point of
 * a fixed list. A coordinate of a point is a level l, which stands for the odd number 2 l + 1 while a scale is searched
 * and for a byte near a multiple of it when a block is decoded.
 *
 * All combinations of levels, points or not, are numbered: the place of a combination is the sum of l_i * levels^i. For
 * each place the grid has the list of points to choose from, those at the smallest (and second and third smallest)
 * distances, ordered by distance and then index; a place that is a point has only itself. */
#ifndef TMS_CODEC_IQ_GRIDS_H
#define TMS_CODEC_IQ_GRIDS_H

#include <stdint.h>

enum tms_iq_book { TMS_BOOK_IQ2_XXS, TMS_BOOK_IQ2_XS, TMS_BOOK_IQ2_S, TMS_BOOK_IQ3_XXS, TMS_BOOK_IQ3_S, TMS_IQ_BOOKS };

/* A point in one word: level i in bits i * bits …, the index from bit 16 on. Point 0 has only levels 0 in every book,
 * so the word 0 is a point. */
#define TMS_POINT_INDEX(point) ((point) >> 16)

struct tms_iq_place {
    uint32_t first; /* of `near` */
    uint16_t count;
    uint16_t on_grid;
};

struct tms_iq_grid {
    int group;  /* coordinates of a point: 8 or 4 */
    int levels; /* 3 or 8 */
    int bits;   /* of a level in a point's word: 2 or 4 */
    int n_points, n_places, n_near;
    const uint32_t *points;
    const struct tms_iq_place *places;
    const uint32_t *near; /* points; 16 words more than n_near may be read */
};

/* What level i of a point stands for, as a number: 2 l + 1. */
static inline float tms_iq_odd(const struct tms_iq_grid *grid, uint32_t point, int i)
{
    return (float)(2 * (point >> grid->bits * i & ((1u << grid->bits) - 1)) + 1);
}

/* The grid of a codebook; built when first asked for, by whichever thread comes first. */
const struct tms_iq_grid *tms_iq_grid(enum tms_iq_book book);

/* The bytes that decode a codebook: [n_points][group]. Also built when first asked for. */
const uint8_t *tms_iq_values(enum tms_iq_book book);

#endif

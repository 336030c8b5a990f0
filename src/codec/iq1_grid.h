/* The codebook of IQ1_S and IQ1_M: 2048 of the 6561 points whose eight coordinates are -1, 0 or 1.
 *
 * Levels 0, 1, 2 stand for -1, 0, 1. A point is written in two ways: as a code, level i in bits 2 i and 2 i + 1; and as
 * a place, the sum of level i times 3^i. Points are numbered in ascending order of either. */
#ifndef TMS_CODEC_IQ1_GRID_H
#define TMS_CODEC_IQ1_GRID_H

#include <stdint.h>

enum {
    TMS_IQ1_POINTS = 2048,
    TMS_IQ1_PLACES = 6561,
    TMS_IQ1_NEAR = 362352, /* entries of all lists together */
    TMS_IQ1_LIST = 16,     /* the length of lists is a multiple of this */
};

struct tms_iq1_points {
    uint16_t codes[TMS_IQ1_POINTS];
    int8_t numbers[TMS_IQ1_POINTS][8]; /* -1, 0, 1 */
};

/* For places that hold no point: the points nearby to choose from, as codes. They are those at the three smallest
 * distances (squared, Euclidean) that occur, by distance and then by number; the last is repeated to fill the list. */
struct tms_iq1_places {
    int16_t number[TMS_IQ1_PLACES]; /* of the point, -1: none */
    uint16_t n_near[TMS_IQ1_PLACES];
    uint32_t first[TMS_IQ1_PLACES]; /* of near; a multiple of TMS_IQ1_LIST */
    uint16_t near[TMS_IQ1_NEAR];
    uint8_t half_place[256]; /* of half a code: four levels */
};

/* Both are made at the first call, whichever thread makes it; the second takes some milliseconds. */
const struct tms_iq1_points *tms_iq1_points(void);
const struct tms_iq1_places *tms_iq1_places(void);

static inline int tms_iq1_number(const struct tms_iq1_places *places, uint16_t code)
{
    return places->number[places->half_place[code & 255] + 81 * places->half_place[code >> 8]];
}

#endif

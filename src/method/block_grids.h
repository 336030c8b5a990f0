/* The grids of block types whose scales are set: what values a weight of an encoded block can still take, and how codes
 * are put into it in place. For rounding with error feedback inside GGUF's types (block_feedback.h).
 *
 * Every `sub` weights of a block have a step and an offset. Types with a number per weight decode to
 * step * number + offset; those with a codebook, in eights, to sign * step * value (two points of 4 or one of 8), IQ1
 * to step * (value + offset), where offset is 1/8 or -1/8. */
#ifndef TMS_METHOD_BLOCK_GRIDS_H
#define TMS_METHOD_BLOCK_GRIDS_H

#include <tamis/codec.h>

#include "codec/iq_grids.h"

struct tms_block_grid {
    enum tms_type type;
    uint32_t sub;
    /* Numbers first … first + count - 1 with codes 0 … count - 1, or, if there are `numbers`, count of them, ascending;
     * codes (NULL: 0 …) are then looked up. Both count 0: a codebook. */
    int first, count;
    const int8_t *numbers;
    const uint8_t *codes;
    enum tms_iq_book book;
    bool even_signs; /* of every eight, an even number is negative */
    bool ternary;    /* the codebook of IQ1, not `book` */
    bool free_delta; /* every eight has its own sign of the offset; `open` then gives none */
    /* Of one block; steps and offsets [block_elems / sub]. */
    void (*open)(const uint8_t *block, float *steps, float *offsets);
    /* codes: a byte per weight, or with a codebook per eight weights a word of 4 bytes in the first of 8: see below. */
    void (*put)(uint8_t *block, const uint8_t *codes);
};

/* Codebook: the point, with points of 4 the second one 12 bits above it, and eight signs from bit 24 on (IQ1: one, that
 * of the offset). */
#define TMS_EIGHT(first, second, signs) ((uint32_t)(first) | (uint32_t)(second) << 12 | (uint32_t)(signs) << 24)

/* NULL for types that have none. */
const struct tms_block_grid *tms_block_grid(enum tms_type type);

/* The rows of the table that block_grids_legacy.c holds. */
extern const struct tms_block_grid tms_legacy_grids[];
extern const size_t tms_n_legacy_grids;

#endif

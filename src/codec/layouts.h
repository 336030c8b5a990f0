/* How every type lies in memory and what reads it: texts for people (`tamis explain`, `tamis types`). */
#ifndef TMS_CODEC_LAYOUTS_H
#define TMS_CODEC_LAYOUTS_H

#include <tamis/tamis.h>

struct tms_layout {
    const char *name; /* of a type of the codec table, or of a format with scales in tensors of their own */
    const char *what, *formula, *readers;
    uint32_t code_bits;               /* of the integer that stands for a weight; 0 if there is none */
    uint32_t group;                   /* weights that share the finest scale; 0 if there is none */
    struct tms_layout_field items[6]; /* in the order of their bytes; the first without bytes ends the list */
    /* formats of bitsandbytes, which have no row in the codec table */
    uint32_t block_elems;
    double bits_per_weight;
};

/* i = 0 … until NULL: in the order of the codec table, then bitsandbytes. */
const struct tms_layout *tms_layout_at(size_t i);

#endif

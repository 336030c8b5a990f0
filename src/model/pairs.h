/* Two models tensor by tensor, whatever each is stored as: which tensor of one is which of the other. */
#ifndef TMS_MODEL_PAIRS_H
#define TMS_MODEL_PAIRS_H

#include "model/source.h"

/* A side that has no such tensor is NULL. */
struct tms_pair {
    const char *name; /* the common one: GGUF's if both are GGUF, else Hugging Face's */
    const struct tms_tensor *tensor[2];
    /* Rows of a head whose halves lie as neighbours (heads.h) and must be put back before comparing; 0: as they are. */
    uint64_t head_rows[2];
};

struct tms_pairs {
    size_t n;
    struct tms_pair *items; /* all of the first model in its order, then those that only the second has */
    struct tms_arena arena; /* owns names */
};

/* Tensors of scales, rotary tables, and between a folder and a GGUF file a second copy of a tied embedding, stand for
 * no weights of their own and are left out. TMS_EINPUT if names cannot be matched. */
tms_status tms_pairs_find(struct tms_pairs *out, const struct tms_source *const models[2], struct tms_error *err);
void tms_pairs_free(struct tms_pairs *pairs);

/* Shapes are equal but for dimensions of 1. */
bool tms_pair_same_shape(const struct tms_pair *pair);
/* n values of one side from `first` on, in Hugging Face's order of rows where the two differ. first and n are multiples
 * of tms_pair_unit. raw: as for tms_source_read; turned: room for n values. */
uint64_t tms_pair_unit(const struct tms_pair *pair);
tms_status tms_pair_read(const struct tms_pair *pair, int side, const struct tms_source *source, uint64_t first,
                         uint64_t n, void *raw, float *turned, float *out, struct tms_error *err);

#endif

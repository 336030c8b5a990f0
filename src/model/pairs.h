/* Two models tensor by tensor, whatever each is stored as: which tensor of one is which of the other.
 *
 * Between a folder and a GGUF file the common form is the folder's, expert by expert; but Gemma's norms are compared as
 * 1 + w, and DeepSeek's kv_b as the two tensors that GGUF has for it, for only that way no bit is lost. */
#ifndef TMS_MODEL_PAIRS_H
#define TMS_MODEL_PAIRS_H

#include "model/source.h"
#include "model/turn.h"

/* One side of a pair: a tensor, or one of n_parts equal parts of it, turned. */
struct tms_piece {
    const char *name;                /* the common one */
    const struct tms_tensor *tensor; /* NULL: the side has no such tensor */
    uint64_t part, n_parts;
    struct tms_turn turn;
    uint32_t n_dims;
    uint64_t shape[TMS_ST_MAX_DIMS]; /* turned, slowest first */
    uint64_t n_values;
};

struct tms_pair {
    const char *name; /* GGUF's if both are GGUF, else Hugging Face's (of kv_b's parts GGUF's) */
    struct tms_piece side[2];
};

struct tms_pairs {
    size_t n;
    struct tms_pair *items; /* all of the first model in its order, then those that only the second has */
    struct tms_arena arena; /* owns names */
};

/* Tensors of scales, rotary tables, and between a folder and a GGUF file a second copy of a tied embedding and layers
 * that are not run, stand for no weights of their own and are left out. TMS_EINPUT if names cannot be matched. */
tms_status tms_pairs_find(struct tms_pairs *out, const struct tms_source *const models[2], struct tms_error *err);
void tms_pairs_free(struct tms_pairs *pairs);

/* Shapes are equal but for dimensions of 1. */
bool tms_pair_same_shape(const struct tms_pair *pair);
/* n values of one side from `first` on, turned. first and n are multiples of tms_pair_unit. raw: room for the stored
 * bytes, turned: for the values, of tms_pair_source_values(n). */
uint64_t tms_pair_unit(const struct tms_pair *pair);
uint64_t tms_pair_source_values(const struct tms_pair *pair, int side, uint64_t n);
tms_status tms_pair_read(const struct tms_pair *pair, int side, const struct tms_source *source, uint64_t first,
                         uint64_t n, void *raw, float *turned, float *out, struct tms_error *err);

#endif

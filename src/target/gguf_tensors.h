/* Parts of gguf_target.c: the tensors that a GGUF file will have, before they get types. */
#ifndef TMS_TARGET_GGUF_TENSORS_H
#define TMS_TARGET_GGUF_TENSORS_H

#include "target/target.h"

/* A tensor of the file. */
struct tms_planned {
    size_t n_parts; /* source tensors that it is made of, one behind the other; 0 for one that tamis makes itself */
    size_t source;  /* index of the only one … */
    const size_t *parts; /* … or of all of them (experts) */
    const char *name;
    const char *old_name; /* before --prune-layers renumbered it: importance weights go by it */
    struct tms_turn turn;
    const float *contents;
    uint32_t n_dims;
    uint64_t shape[TMS_ST_MAX_DIMS];
    enum tms_type type;
    bool fallback;
};

struct tms_gguf_plan {
    struct tms_target *t;
    const struct tms_target_options *options;
    struct tms_error *err;
    struct tms_planned *tensors; /* in the order of the file; free with free */
    size_t n;
    uint32_t n_layers_kept; /* with --prune-layers; else 0 */
};

/* All tensors of the target's source, with names and shapes, in the order of llama.cpp's converter (of the file, if the
 * source is GGUF). TMS_EINPUT if the source cannot become a GGUF file. */
tms_status tms_gguf_plan_tensors(struct tms_gguf_plan *plan);

#endif

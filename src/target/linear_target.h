/* Targets that are Hugging Face folders whose linear layers are quantized, each kind in its dialect's file:
 * bnb_target.c, grid_target.c. What they share: which layers those are, from a folder or from GGUF, and config.json. */
#ifndef TMS_TARGET_LINEAR_TARGET_H
#define TMS_TARGET_LINEAR_TARGET_H

#include "model/restore.h"
#include "target/target.h"

struct tms_linear_plan {
    struct tms_target *t;
    const struct tms_target_options *options;
    struct tms_error *err;
    enum tms_type dtype; /* from GGUF or a quantized folder: of the plain folder in between; TMS_TYPE_NONE: every
                          * tensor has its own */
    const char **kept;   /* modules of linear layers that stay as they are; names in the target's arena */
    size_t n_kept, cap_kept;
    void *own; /* the dialect's */
};

/* A dialect. */
struct tms_linear_dialect {
    /* Adds the stored tensors of a linear layer and its route; *fits = false (and nothing added) if it must stay. */
    tms_status (*add)(struct tms_linear_plan *p, const struct tms_restored_tensor *from, bool *fits);
    /* True if a layer that is quantized already moves without loss, so that no leave is needed. May be NULL. */
    tms_status (*moves)(struct tms_linear_plan *p, const struct tms_restored_tensor *from, bool *moves);
    /* The type of a tensor that stays: that of the source, or another float type. May be NULL. */
    enum tms_type (*kept_type)(struct tms_linear_plan *p, const char *name, enum tms_type type);
    /* config.json's quantization_config; NULL if memory is short. dtype: of the model. */
    json_t *(*config)(struct tms_linear_plan *p, enum tms_type dtype);
    /* True for a linear layer that stays as it is although it fits. */
    bool (*leaves)(const char *name);
    enum tms_type config_dtype; /* what config.json's dtype becomes; TMS_TYPE_NONE: stays */
};

tms_status tms_linear_plan(struct tms_linear_plan *p, const struct tms_linear_dialect *dialect);

/* Appends a tensor that belongs to the weights of another: "BASE SUFFIX". NULL if memory is short. */
struct tms_out_tensor *tms_linear_add_part(struct tms_linear_plan *p, const char *base, const char *suffix,
                                           enum tms_type type, uint32_t n_dims, const uint64_t *shape,
                                           const void *contents);
/* Which part of the source, and through which type and order the values go. */
void tms_linear_set_way(const struct tms_linear_plan *p, struct tms_route *route,
                        const struct tms_restored_tensor *from);
/* True for the name of a linear layer's matrix that is quantized where it fits. */
bool tms_linear_is(const char *name);
/* The same, and those that are left alone: the output layer, routers. */
bool tms_linear_is_module(const char *name, uint32_t n_dims);
/* True for the name of an expert's weight; "shared_experts" are ordinary layers. */
bool tms_linear_is_expert(const char *name);
/* The type that the weights of a source tensor have as a plain folder. */
enum tms_type tms_linear_dtype(const struct tms_linear_plan *p, const struct tms_tensor *tensor);

#endif

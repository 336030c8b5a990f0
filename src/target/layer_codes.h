/* The codes of one layer's matrices, made from the Hessians of their inputs: on the grids of integers (method/gptq.h)
 * and inside GGUF's block types (method/block_feedback.h). Codes go into files, where the pipeline finds them, and take
 * the weights' place in the net. */
#ifndef TMS_TARGET_LAYER_CODES_H
#define TMS_TARGET_LAYER_CODES_H

#include "engine/net.h"
#include "method/block_feedback.h"
#include "method/gptq.h"
#include "target/target.h"

struct tms_layer_codes {
    struct tms_target *t;
    struct tms_pool *pool;
    struct tms_net *net;
    const char *work; /* the folder */
    size_t n_experts;
    bool measures; /* the tap adds up */
    size_t n_feedback, n_unseen;
    /* of the layer at work */
    struct tms_hessian **hessians[TMS_LINEAR_EXPERT_DOWN + 1]; /* [experts] or [1], of inputs' owners */
    /* what the last matrix used of its Hessian: those of one input, which follow one another, share it */
    const struct tms_hessian *prepared_of;
    struct tms_feedback_factor factor; /* for blocks */
    struct tms_gptq_prepared prepared; /* for grids */
    struct tms_tensor *made;           /* [n_made] */
    uint8_t **codes;                   /* [n_made]: rows in the source's order */
    size_t n_made, cap_made, cap_codes;
    uint8_t *chosen; /* for grids: what grid_route.h reads, of the tensor at work */
    uint64_t n_chosen;
};

/* A tap of the net (ctx: the struct): adds to the Hessians while `measures` is set. */
tms_status tms_layer_codes_add(void *ctx, const struct tms_tap *tap, struct tms_error *err);
/* All matrices of a held layer: codes are made, kept in files, and take the weights' place in the net. */
tms_status tms_layer_codes_make(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err);
/* Forgets the layer's; the net must have dropped it before. */
void tms_layer_codes_drop(struct tms_layer_codes *c);
/* Where a route's codes lie; freed by the caller. NULL: memory is short. */
char *tms_layer_codes_path(const struct tms_layer_codes *c, const struct tms_route *route);

#endif

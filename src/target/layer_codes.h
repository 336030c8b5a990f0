/* The codes of one layer's matrices, made from the Hessians of their inputs: on the grids of integers (method/gptq.h)
 * and inside GGUF's block types (method/block_feedback.h). Codes go into files, where the pipeline finds them, and take
 * the weights' place in the net. */
#ifndef TMS_TARGET_LAYER_CODES_H
#define TMS_TARGET_LAYER_CODES_H

#include "calib/stats.h"
#include "engine/net.h"
#include "method/block_feedback.h"
#include "method/gptq.h"
#include "target/target.h"

/* The stages of a layer: what is measured only when the stages before it have their codes. */
enum tms_stage {
    TMS_STAGE_ALL = -1, /* at once */
    TMS_STAGE_QKV,
    TMS_STAGE_LATENTS, /* up from latents */
    TMS_STAGE_O,
    TMS_STAGE_GATE_UP, /* and routers */
    TMS_STAGE_DOWN,
    TMS_STAGES,
};

/* What became of matrices. */
struct tms_codes_report {
    size_t n_feedback, n_unseen; /* with error feedback; reached by too few tokens and rounded plainly */
    size_t n_raised;             /* Hessians whose damping was raised to make them positive definite */
    double most_damp;            /* of any of those */
};

struct tms_layer_codes {
    struct tms_target *t;
    struct tms_pool *pool;
    struct tms_net *net;
    const char *work; /* the folder */
    size_t n_experts;
    bool measures;                  /* the tap adds up */
    enum tms_stage stage;           /* what is measured and made */
    struct tms_codes_report report; /* of all layers */
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
/* All matrices of a held layer (of the stage): codes are made, kept in files, and take the weights' place in the net.
 */
tms_status tms_layer_codes_make(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err);
/* True if the layer has matrices of the stage. */
bool tms_layer_codes_has_stage(const struct tms_layer_codes *c, uint64_t layer, enum tms_stage stage);
/* Instead of a walk: the Hessians of a layer out of statistics. */
tms_status tms_layer_codes_load(struct tms_layer_codes *c, const struct tms_stats *stats, uint64_t layer,
                                struct tms_error *err);
/* Forgets the Hessians alone. */
void tms_layer_codes_drop_hessians(struct tms_layer_codes *c);
/* Forgets the layer's; the net must have dropped it before. */
void tms_layer_codes_drop(struct tms_layer_codes *c);
/* Where a route's codes lie; freed by the caller. NULL: memory is short. */
char *tms_layer_codes_path(const struct tms_layer_codes *c, const struct tms_route *route);

#endif

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
    size_t n_seen, n_unseen; /* rounded by their inputs; reached by too few tokens and rounded plainly */
    size_t n_raised;         /* Hessians whose damping was raised to make them positive definite */
    double most_damp;        /* of any of those */
};

/* Scales that are folded in before rounding. */
enum tms_folds { TMS_FOLDS_NONE, TMS_FOLDS_AWQ, TMS_FOLDS_SMOOTH };

struct tms_layer_codes {
    struct tms_target *t;
    struct tms_pool *pool;
    struct tms_net *net;
    const char *work; /* the folder */
    size_t n_experts;
    size_t n_kv_heads;
    bool feedback;                   /* else plain rounding, weighted by the inputs */
    double damp;                     /* of each entry of a Hessian's diagonal; 0: as the target's codes want it */
    enum tms_folds folds;            /* before that */
    bool measures;                   /* the tap adds up */
    enum tms_stage stage;            /* what is measured and made */
    bool others;                     /* ... what is of no expert, */
    size_t first_expert, end_expert; /* and of these experts */
    struct tms_codes_report report;  /* of all layers */
    size_t n_folded, n_unfolded;     /* places in the model for scales (layer_folds.h): with them, and left out */
    /* of the layer at work */
    struct tms_hessian **hessians[TMS_LINEAR_EXPERT_DOWN + 1]; /* [experts] or [1], of inputs' owners */
    float **largest[TMS_LINEAR_EXPERT_DOWN + 1];               /* likewise, for SmoothQuant: of |x| in each column */
    size_t *folded_sources;                                    /* [n_folded_sources]: tensors that have a fold now */
    size_t n_folded_sources, cap_folded_sources;
    /* what the last matrix used of its Hessian: those of one input, which follow one another, share it */
    const struct tms_hessian *prepared_of;
    struct tms_feedback_factor factor;           /* for blocks */
    struct tms_gptq_prepared prepared;           /* for grids */
    struct tms_tensor *made;                     /* [n_made] */
    uint8_t **codes;                             /* [n_made]: rows in the source's order */
    size_t n_made, cap_made, cap_codes, at_work; /* at_work: the tensor whose codes are being made */
    uint8_t *chosen;                             /* for grids: what grid_route.h reads, of the tensor at work */
    uint64_t n_chosen;
};

/* A tap of the net (ctx: the struct): adds to the Hessians while `measures` is set. */
tms_status tms_layer_codes_add(void *ctx, const struct tms_tap *tap, struct tms_error *err);
/* All matrices of a held layer (of the stage and the experts at work): codes are made, kept in files, and take the
 * weights' place in the net.
 */
tms_status tms_layer_codes_make(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err);
/* True if the layer has matrices of the stage (of experts). */
bool tms_layer_codes_has_stage(const struct tms_layer_codes *c, uint64_t layer, enum tms_stage stage, bool experts);
/* Instead of a walk: the Hessians of a layer out of statistics. */
tms_status tms_layer_codes_load(struct tms_layer_codes *c, const struct tms_stats *stats, uint64_t layer,
                                struct tms_error *err);
/* Forgets the Hessians alone. */
void tms_layer_codes_drop_hessians(struct tms_layer_codes *c);
/* Forgets the layer's; the net must have dropped it before. */
void tms_layer_codes_drop(struct tms_layer_codes *c);
/* Where a route's codes lie; freed by the caller. NULL: memory is short. */
char *tms_layer_codes_path(const struct tms_layer_codes *c, const struct tms_route *route);

/* Bytes of that file for a grid (grid_route.h). */
struct tms_grid_route;
uint64_t tms_layer_codes_grid_bytes(const struct tms_grid_route *route);

/* The route that a stored matrix takes, if its codes are made here; else NULL. */
struct tms_route *tms_layer_codes_route(const struct tms_layer_codes *c, const struct tms_tensor *tensor);
/* Of a matrix's inputs, or NULL if too few tokens reached it; not finished, perhaps. */
struct tms_hessian *tms_layer_codes_hessian(const struct tms_layer_codes *c, const struct tms_net_matrix *m);
/* Largest |x| of the inputs' columns. */
const float *tms_layer_codes_largest(const struct tms_layer_codes *c, const struct tms_net_matrix *m);
/* What an error in each column costs that feedback cannot repair behind it, 1 / U[i][i]²; cost [hessian->n]. */
tms_status tms_layer_codes_cost(struct tms_layer_codes *c, struct tms_hessian *hessian, float *cost,
                                struct tms_error *err);
/* To be called when Hessians have been changed. */
void tms_layer_codes_changed(struct tms_layer_codes *c);
/* Rows of each of the matrices that are stacked in its tensor; of fused ones all. */
uint64_t tms_layer_codes_part_rows(const struct tms_net_matrix *m);

#endif

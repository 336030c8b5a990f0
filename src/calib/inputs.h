/* What a layer's linear inputs look like: sums over the tokens that a calibration run sends through.
 *
 * Sums are f64, and each column's are added in the order of the tokens, so they do not depend on how tokens are cut
 * into passes, nor on threads. */
#ifndef TMS_CALIB_INPUTS_H
#define TMS_CALIB_INPUTS_H

#include "base/threads.h"
#include "engine/net.h"
#include "method/hessian.h"
#include "method/observers.h"

/* One input: of all linear layers that share it. */
struct tms_input {
    size_t cols, parts;              /* parts: experts, else 1 */
    uint64_t *counts;                /* [parts]: tokens */
    double *squares;                 /* [parts][cols]: sum of x^2 */
    double *magnitudes;              /* [parts][cols]: sum of |x| */
    float *lows, *highs;             /* [parts][cols] */
    struct tms_hessian **hessians;   /* [parts], NULL for parts that saw nothing; NULL if they are not wanted */
    struct tms_histogram *histogram; /* of all values, all parts together; NULL if it is not wanted */
};

/* Of one layer (or of the head); indexed by enum tms_linear, experts' kinds included. Layers that share their input
 * with an earlier one have `cols` 0. */
struct tms_layer_inputs {
    struct tms_input of[TMS_LINEAR_EXPERT_DOWN + 1];
};

/* A matrix whose input fewer tokens reached is left to the plain encoder: its Hessian would say more about these tokens
 * than about the matrix. */
#define TMS_LEAST_TOKENS(cols) ((cols) / 16 + 1)

/* The linear layer that is told first of those that see the same input: Q for K and V, and so on. */
enum tms_linear tms_input_owner(enum tms_linear linear);

struct tms_inputs {
    struct tms_pool *pool;
    const char *model; /* for messages */
    size_t n_experts;
    bool hessians, histograms; /* wanted */
    /* Hessians are summed up of these experts only, and of what is of no expert if the first one is among them: where
     * memory is short a layer is walked for some experts after others. All other sums are those of the first walk. */
    size_t first_expert, end_expert;
    struct tms_layer_inputs layer; /* the one that is being walked */
};

/* A tap of the engine (tms_net_tap); ctx: struct tms_inputs. TMS_EINPUT, naming layer and token, for a value that is no
 * finite number. */
tms_status tms_inputs_add(void *ctx, const struct tms_tap *tap, struct tms_error *err);
/* All tokens of the layer were seen: finishes its Hessians. */
tms_status tms_inputs_finish(struct tms_inputs *inputs, struct tms_error *err);
/* Bytes that the layer with most of them needs, from the net's shapes, with Hessians of so many experts. */
uint64_t tms_inputs_bytes(const struct tms_inputs *inputs, const struct tms_net *net, uint64_t n_layers,
                          size_t experts_at_once);
/* Forgets the Hessians alone. */
void tms_inputs_drop_hessians(struct tms_inputs *inputs);
/* Forgets the layer's. */
void tms_inputs_clear(struct tms_inputs *inputs);

#endif

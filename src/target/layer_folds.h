/* Scales between the operations of a layer, as AWQ and SmoothQuant want them, found after its inputs were seen and
 * before its codes are made:
 *     input norm -> Q, K, V (or what reads it in latent attention)      norms of latents -> Q_B, KV_B
 *     V's rows -> O's columns (heads that share a V share its scales)
 *     norm before the feed-forward layer -> gate, up, router, shared and routed experts
 *     up's rows -> down's columns, of each expert
 * Hessians become those of the scaled inputs; the net's norms and biases change at once, matrices when their codes are
 * made. Norms are stored rounded: a norm's scales are those that its stored values stand for. */
#ifndef TMS_TARGET_LAYER_FOLDS_H
#define TMS_TARGET_LAYER_FOLDS_H

#include "target/layer_codes.h"

/* Rows that are looked at together. */
enum { TMS_LAYER_FOLDS_ROWS = 2048 };

/* c->folds says how. *n_folded and *n_left count the places of the layer where scales are now, and where they could not
 * be. The scales are kept in a file. */
tms_status tms_layer_folds_find(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err);
/* Those that an earlier run found. */
tms_status tms_layer_folds_load(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err);

#endif

/* Running one or two models over many sequences of tokens and scoring what they predict.
 *
 * Sequences go through in groups of a few, so that a weight that was decoded serves many tokens. If all weights fit, a
 * group goes through both models, and its logits are scored at once. Else the way is turned round: a few layers are
 * held, all groups go through them, and hidden states wait in memory or in a file without a name; the output layers
 * come last, for both models together. Every result is the same whichever way, because no row of a pass depends on
 * the others beside it. Logits exist for a few rows at a time.
 */
#ifndef TMS_EVAL_WALK_H
#define TMS_EVAL_WALK_H

#include <tamis/tamis.h>

#include "engine/net.h"
#include "eval/softmax.h"

/* Positions first … first + n_scored - 1 are scored: the one at k predicts ids[k + 1]. */
struct tms_sequence {
    const int32_t *ids;
    size_t n, first, n_scored;
};

struct tms_walk {
    struct tms_pool *pool;
    size_t n_nets; /* 1, or 2 with a base behind the model */
    struct tms_net *nets[2];
    const char *names[2]; /* for messages */
    struct tms_cache_options caches[2];
    size_t n_sequences;
    const struct tms_sequence *sequences;
    const char *sequence_name;      /* "window", for messages */
    size_t n_positions;             /* of all sequences */
    struct tms_position *positions; /* [n_positions], sequence after sequence: the result */
    uint64_t ram;                   /* most memory; 0: no limit. If not 0 the nets are bounded */
    uint64_t resident;              /* what the process takes already, positions included */
    tms_eval_progress_fn progress;
    void *progress_ctx;
};

struct tms_walk_group {
    size_t first, n; /* sequences */
    size_t length;   /* tokens of the longest; the others are padded behind their end, which no one sees */
    size_t row;      /* hidden states of the groups before */
    size_t position; /* of the first scored position in walk.positions */
    size_t n_scored;
};

struct tms_walk_plan {
    bool by_layer, on_disk;
    size_t n_groups;
    struct tms_walk_group *groups;
    size_t max_rows, max_scored, max_sequences, max_length; /* of a group */
    size_t n_rows;                                          /* of all groups */
    size_t n_logits;                                        /* rows of logits at a time */
    uint64_t layer_room;                                    /* by layer: bytes for the layers that are held together */
    uint64_t bytes;                                         /* all memory, `resident` included */
};

/* TMS_EINPUT if the limit is too low, with a line that says the least that would do. */
tms_status tms_walk_plan(struct tms_walk_plan *out, const struct tms_walk *walk, struct tms_error *err);
void tms_walk_plan_free(struct tms_walk_plan *plan);
struct tms_cache_shape tms_walk_cache(const struct tms_walk_plan *plan, const struct tms_net_info *info);
tms_status tms_walk_run(const struct tms_walk *walk, const struct tms_walk_plan *plan, struct tms_error *err);

#endif

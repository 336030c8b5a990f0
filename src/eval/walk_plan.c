/* How a walk fits into memory. See walk.h. */
#include "eval/walk.h"

#include <stdlib.h>

#include "base/mem.h"

enum {
    GROUP_TOKENS = 2048,     /* tokens that share a decoded weight: four windows of 512 */
    LOGITS_BYTES = 64 << 20, /* of all models together */
    LEAST_LOGITS = 16,       /* rows */
};

/* Cuts the sequences into groups of at most `tokens` tokens, but at least one sequence each. */
static tms_status make_groups(struct tms_walk_plan *plan, const struct tms_walk *w, size_t tokens,
                              struct tms_error *err)
{
    plan->n_groups = plan->max_rows = plan->max_scored = plan->max_sequences = plan->max_length = plan->n_rows = 0;
    if (!plan->groups) plan->groups = tms_calloc(w->n_sequences, sizeof *plan->groups);
    if (!plan->groups) return tms_fail_memory(err, w->n_sequences * sizeof *plan->groups);
    size_t position = 0;
    for (size_t i = 0; i < w->n_sequences;) {
        struct tms_walk_group g = {.first = i, .row = plan->n_rows, .position = position};
        while (i < w->n_sequences) {
            size_t length = w->sequences[i].n > g.length ? w->sequences[i].n : g.length;
            if (g.n && length * (g.n + 1) > tokens) break;
            g.length = length;
            g.n++;
            g.n_scored += w->sequences[i++].n_scored;
        }
        size_t rows = g.n * g.length;
        plan->n_rows += rows;
        position += g.n_scored;
        if (rows > plan->max_rows) plan->max_rows = rows;
        if (g.n_scored > plan->max_scored) plan->max_scored = g.n_scored;
        if (g.n > plan->max_sequences) plan->max_sequences = g.n;
        if (g.length > plan->max_length) plan->max_length = g.length;
        plan->groups[plan->n_groups++] = g;
    }
    return TMS_OK;
}

/* One layer's, in turn, of the largest group. */
struct tms_cache_shape tms_walk_cache(const struct tms_walk_plan *p, const struct tms_net_info *info)
{
    return tms_net_cache(info, 1, p->max_sequences, p->max_length, p->max_length);
}

/* Bytes of the plan but the layers held together (by layer: with the largest one). */
static uint64_t bytes_of(const struct tms_walk_plan *p, const struct tms_walk *w, uint64_t *largest_layer)
{
    uint64_t heads = 0, layers = 0, largest = 0, caches = 0, logits = 0, working = 0, hidden = 0;
    for (size_t m = 0; m < w->n_nets; m++) {
        struct tms_net_info info;
        tms_net_describe(w->nets[m], &info);
        for (uint64_t i = 0; i < info.n_layers; i++) {
            uint64_t bytes = tms_net_layer_bytes(w->nets[m], i);
            layers += bytes;
            if (bytes > largest) largest = bytes;
        }
        heads += tms_net_layer_bytes(w->nets[m], info.n_layers);
        const struct tms_cache_shape shape = tms_walk_cache(p, &info);
        uint64_t cache = tms_cache_bytes(&w->caches[m], &shape);
        if (cache > caches) caches = cache;
        logits += (uint64_t)p->n_logits * info.vocab * sizeof(float);
        working += tms_net_working_bytes(w->nets[m], p->max_rows);
        hidden += (uint64_t)(p->by_layer && !p->on_disk ? p->n_rows : p->max_rows) * info.stride * sizeof(float);
    }
    uint64_t bytes = w->resident + working + hidden + p->max_rows * sizeof(int32_t) + p->max_scored * sizeof(int32_t);
    *largest_layer = largest;
    if (!p->by_layer) return bytes + layers + heads + caches + logits;
    return bytes + (largest + caches > heads + logits ? largest + caches : heads + logits);
}

/* Tries groups and batches of logits from the usual sizes down; true if one fits. */
static tms_status try_sizes(struct tms_walk_plan *p, const struct tms_walk *w, size_t usual_logits, bool *fits,
                            struct tms_error *err)
{
    uint64_t largest;
    *fits = false;
    for (size_t tokens = GROUP_TOKENS;; tokens /= 2) {
        tms_status status = make_groups(p, w, tokens, err);
        if (status != TMS_OK) return status;
        for (size_t n = usual_logits;; n = n / 2 > LEAST_LOGITS ? n / 2 : LEAST_LOGITS) {
            p->n_logits = n < p->max_scored ? n : p->max_scored;
            p->bytes = bytes_of(p, w, &largest);
            p->layer_room = largest;
            *fits = w->ram == 0 || p->bytes <= w->ram;
            if (*fits || n <= LEAST_LOGITS) break;
        }
        if (*fits || p->max_sequences == 1) return TMS_OK;
    }
}

tms_status tms_walk_plan(struct tms_walk_plan *out, const struct tms_walk *w, struct tms_error *err)
{
    struct tms_walk_plan p = {0};
    struct tms_net_info info;
    bool fits = false;
    tms_net_describe(w->nets[0], &info);
    uint64_t logits = LOGITS_BYTES / (w->n_nets * sizeof(float)) / (info.vocab ? info.vocab : 1);
    if (logits < LEAST_LOGITS) logits = LEAST_LOGITS;
    tms_status status = TMS_OK;
    /* at once; by layer with hidden states in memory; by layer with hidden states on disk */
    for (int way = 0; way < 3 && !fits && status == TMS_OK; way++) {
        p.by_layer = way > 0;
        p.on_disk = way > 1;
        status = try_sizes(&p, w, (size_t)logits, &fits, err);
    }
    if (status == TMS_OK && !fits)
        status = tms_fail(err, TMS_EINPUT,
                          "%s%s%s: a limit of %.1f MB of memory is too low; the least for %ss of %zu tokens is %llu MB",
                          w->names[0], w->n_nets > 1 ? " with base " : "", w->n_nets > 1 ? w->names[1] : "",
                          (double)w->ram / 1e6, w->sequence_name, p.max_length,
                          (unsigned long long)((p.bytes + 999999) / 1000000));
    if (status != TMS_OK) {
        tms_walk_plan_free(&p);
        return status;
    }
    if (p.by_layer) { /* what is left is for more layers at a time */
        p.layer_room += w->ram - p.bytes;
        p.bytes = w->ram;
    }
    *out = p;
    return TMS_OK;
}

void tms_walk_plan_free(struct tms_walk_plan *plan)
{
    free(plan->groups);
    *plan = (struct tms_walk_plan){0};
}

/* See walk.h. */
#include "eval/walk.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "eval/hidden.h"
#include "eval/statistics.h"

struct run {
    const struct tms_walk *walk;
    const struct tms_walk_plan *plan;
    struct tms_net_info info[2];
    struct tms_hidden hidden[2];
    struct tms_cache *cache[2];
    float *logits[2];
    int32_t *ids;     /* [max_rows], of the present group */
    int32_t *targets; /* [max_scored] */
    /* what the caller is told */
    struct tms_running running;
    size_t n_scored; /* sequences */
    double start, told, done, total;
};

/* ---- progress ---- */

/* Work is counted in bytes of weights times rows that go through them. */
static void count_work(struct run *r)
{
    for (size_t m = 0; m < r->walk->n_nets; m++) {
        const struct tms_net *net = r->walk->nets[m];
        for (uint64_t i = 0; i < r->info[m].n_layers; i++)
            r->total += (double)tms_net_layer_bytes(net, i) * (double)r->plan->n_rows;
        r->total += (double)tms_net_layer_bytes(net, r->info[m].n_layers) * (double)r->walk->n_positions;
    }
}

static void tell(struct run *r, double work, bool at_once)
{
    double now = tms_seconds();
    r->done += work;
    if (!r->walk->progress || (!at_once && now < r->told + 0.1)) return;
    double n = (double)r->running.n;
    struct tms_eval_progress p = {.share = r->total > 0 && r->done < r->total ? r->done / r->total : 1,
                                  .seconds = now - r->start,
                                  .n_done = r->n_scored,
                                  .n_total = r->walk->n_sequences,
                                  .mean_kl = n > 0 ? r->running.kl / n : 0,
                                  .mean_nll = n > 0 ? r->running.nll / n : 0};
    r->told = now;
    r->walk->progress(r->walk->progress_ctx, &p);
}

/* ---- layers ---- */

/* Ids of a group; behind the end of a shorter sequence stands token 0, which nothing before it sees. */
static void gather_ids(struct run *r, const struct tms_walk_group *g)
{
    for (size_t s = 0; s < g->n; s++) {
        const struct tms_sequence *q = &r->walk->sequences[g->first + s];
        int32_t *to = r->ids + s * g->length;
        memcpy(to, q->ids, q->n * sizeof *to);
        memset(to + q->n, 0, (g->length - q->n) * sizeof *to);
    }
}

/* Layers [first, first + n) of net m on the hidden states of a group. */
static tms_status run_layers(struct run *r, size_t m, const struct tms_walk_group *g, uint64_t first, uint64_t n,
                             float *hidden, struct tms_error *err)
{
    struct tms_net *net = r->walk->nets[m];
    size_t rows = g->n * g->length;
    struct tms_batch batch = {.n_seqs = g->n, .n = g->length, .start = 0};
    tms_status status = TMS_OK;
    if (first == 0) {
        gather_ids(r, g);
        status = tms_net_embed(net, r->ids, rows, hidden, err);
    }
    for (uint64_t i = first; i < first + n && status == TMS_OK; i++) {
        if (tms_cancelled()) return tms_fail(err, TMS_ECANCELLED, "interrupted");
        status = tms_net_layers(net, i, 1, &batch, r->cache[m], hidden, err);
        tell(r, (double)tms_net_layer_bytes(net, i) * (double)rows, false);
    }
    return status;
}

/* ---- scores ---- */

struct scoring {
    const struct run *run;
    const struct tms_walk_group *group;
    size_t first; /* scored row of the group that logits begin with */
};

static tms_status not_finite(const struct scoring *s, size_t row, bool of_base, size_t token, float value,
                             struct tms_error *err)
{
    const struct tms_walk *w = s->run->walk;
    size_t i = s->group->first;
    while (row >= w->sequences[i].n_scored) row -= w->sequences[i++].n_scored;
    return tms_fail(err, TMS_EINPUT, "%s: %s %zu, position %zu: the logit of token %zu is %g, no finite number",
                    w->names[of_base], w->sequence_name, i + 1, w->sequences[i].first + row, token, (double)value);
}

static tms_status score_row(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct scoring *s = ctx;
    const struct run *r = s->run;
    (void)worker;
    size_t n = (size_t)r->info[0].vocab, row = s->first + index, bad;
    const float *x = r->logits[0] + index * n, *base = r->walk->n_nets > 1 ? r->logits[1] + index * n : NULL;
    bool of_base;
    if (!tms_score_row(x, base, n, r->targets[row], &r->walk->positions[s->group->position + row], &bad, &of_base))
        return not_finite(s, row, of_base, bad, of_base && base ? base[bad] : x[bad], err);
    return TMS_OK;
}

/* Moves the hidden states that are scored to the start of the group's; what they predict goes to r->targets. */
static tms_status gather_scored(struct run *r, size_t m, const struct tms_walk_group *g, float **out,
                                struct tms_error *err)
{
    struct tms_hidden *h = &r->hidden[m];
    float *to;
    size_t n = 0;
    tms_status status = tms_hidden_take(h, g->row, g->n * g->length, false, &to, err);
    for (size_t s = 0; s < g->n && status == TMS_OK; s++) {
        const struct tms_sequence *q = &r->walk->sequences[g->first + s];
        status = tms_hidden_copy(h, g->row + s * g->length + q->first, q->n_scored, to + n * h->stride, err);
        memcpy(r->targets + n, q->ids + q->first + 1, q->n_scored * sizeof *r->targets);
        n += q->n_scored;
    }
    *out = to;
    return status;
}

static tms_status score_group(struct run *r, const struct tms_walk_group *g, struct tms_error *err)
{
    const struct tms_walk *w = r->walk;
    float *hidden[2] = {NULL, NULL};
    size_t n_nets = w->n_nets > 1 ? 2 : 1;
    tms_status status = TMS_OK;
    for (size_t m = 0; m < n_nets && status == TMS_OK; m++) status = gather_scored(r, m, g, &hidden[m], err);
    for (size_t i = 0; i < g->n_scored && status == TMS_OK; i += r->plan->n_logits) {
        size_t n = g->n_scored - i < r->plan->n_logits ? g->n_scored - i : r->plan->n_logits;
        double work = 0;
        for (size_t m = 0; m < n_nets && status == TMS_OK; m++) {
            status = tms_net_logits(w->nets[m], hidden[m] + i * r->hidden[m].stride, n, r->logits[m], err);
            work += (double)tms_net_layer_bytes(w->nets[m], r->info[m].n_layers) * (double)n;
        }
        struct scoring s = {.run = r, .group = g, .first = i};
        if (status == TMS_OK) status = tms_pool_run(w->pool, n, score_row, &s, err);
        if (status == TMS_OK) tms_running_add(&r->running, w->positions + g->position + i, n);
        tell(r, work, false);
    }
    if (status != TMS_OK) return status;
    r->n_scored += g->n;
    tell(r, 0, true);
    return TMS_OK;
}

/* ---- the two ways ---- */

static tms_status walk_at_once(struct run *r, struct tms_error *err)
{
    const struct tms_walk *w = r->walk;
    tms_status status = TMS_OK;
    for (size_t m = 0; m < w->n_nets && status == TMS_OK; m++)
        status = tms_net_hold(w->nets[m], 0, r->info[m].n_layers + 1, err);
    for (size_t i = 0; i < r->plan->n_groups && status == TMS_OK; i++) {
        struct tms_walk_group g = r->plan->groups[i];
        g.row = 0; /* one group's hidden states at a time */
        for (size_t m = 0; m < w->n_nets && status == TMS_OK; m++)
            status = run_layers(r, m, &g, 0, r->info[m].n_layers, r->hidden[m].rows, err);
        if (status == TMS_OK) status = score_group(r, &g, err);
    }
    return status;
}

/* As many layers from `first` on as there is room for, but one at least. */
static uint64_t layers_that_fit(const struct run *r, size_t m, uint64_t first)
{
    uint64_t n = 0, bytes = 0;
    while (first + n < r->info[m].n_layers) {
        bytes += tms_net_layer_bytes(r->walk->nets[m], first + n);
        if (n && bytes > r->plan->layer_room) break;
        n++;
    }
    return n;
}

static tms_status walk_layers(struct run *r, size_t m, struct tms_error *err)
{
    struct tms_net *net = r->walk->nets[m];
    struct tms_hidden *h = &r->hidden[m];
    tms_status status = TMS_OK;
    for (uint64_t first = 0, n; first < r->info[m].n_layers && status == TMS_OK; first += n) {
        n = layers_that_fit(r, m, first);
        status = tms_net_hold(net, first, n, err);
        for (size_t i = 0; i < r->plan->n_groups && status == TMS_OK; i++) {
            const struct tms_walk_group *g = &r->plan->groups[i];
            size_t rows = g->n * g->length;
            float *hidden;
            status = tms_hidden_take(h, g->row, rows, first > 0, &hidden, err);
            if (status == TMS_OK) status = run_layers(r, m, g, first, n, hidden, err);
            if (status == TMS_OK) status = tms_hidden_put(h, g->row, rows, err);
        }
    }
    if (status == TMS_OK) status = tms_net_hold(net, r->info[m].n_layers, 0, err);
    return status;
}

static tms_status walk_by_layer(struct run *r, struct tms_error *err)
{
    const struct tms_walk *w = r->walk;
    tms_status status = TMS_OK;
    for (size_t m = w->n_nets; m-- > 0 && status == TMS_OK;) { /* the base first */
        status = walk_layers(r, m, err);
        tms_cache_free(r->cache[m]);
        r->cache[m] = NULL;
    }
    for (size_t m = 0; m < w->n_nets && status == TMS_OK; m++)
        status = tms_net_hold(w->nets[m], r->info[m].n_layers, 1, err);
    for (size_t i = 0; i < r->plan->n_groups && status == TMS_OK; i++)
        status = score_group(r, &r->plan->groups[i], err);
    return status;
}

static tms_status make_room(struct run *r, struct tms_error *err)
{
    const struct tms_walk *w = r->walk;
    const struct tms_walk_plan *p = r->plan;
    tms_status status = TMS_OK;
    r->ids = tms_calloc(p->max_rows, sizeof *r->ids);
    r->targets = tms_calloc(p->max_scored, sizeof *r->targets);
    if (!r->ids || !r->targets) return tms_fail_memory(err, (p->max_rows + p->max_scored) * sizeof *r->ids);
    for (size_t m = 0; m < w->n_nets && status == TMS_OK; m++) {
        const struct tms_net_info *info = &r->info[m];
        uint64_t n;
        r->logits[m] = tms_mul_u64(p->n_logits, info->vocab, &n) ? tms_calloc(n, sizeof(float)) : NULL;
        if (!r->logits[m]) return tms_fail_memory(err, p->n_logits * info->vocab * sizeof(float));
        status = tms_hidden_create(&r->hidden[m], p->by_layer ? p->n_rows : p->max_rows, p->max_rows, info->stride,
                                   p->on_disk, err);
        const struct tms_cache_shape shape = tms_walk_cache(p, info);
        if (status == TMS_OK) status = tms_cache_create(&r->cache[m], &w->caches[m], &shape, err);
    }
    return status;
}

tms_status tms_walk_run(const struct tms_walk *walk, const struct tms_walk_plan *plan, struct tms_error *err)
{
    struct run r = {.walk = walk, .plan = plan, .hidden = {{.fd = -1}, {.fd = -1}}, .start = tms_seconds()};
    for (size_t m = 0; m < walk->n_nets; m++) tms_net_describe(walk->nets[m], &r.info[m]);
    count_work(&r);
    tms_status status = make_room(&r, err);
    if (status == TMS_OK) status = plan->by_layer ? walk_by_layer(&r, err) : walk_at_once(&r, err);
    for (size_t m = 0; m < walk->n_nets; m++) {
        tms_cache_free(r.cache[m]);
        tms_hidden_free(&r.hidden[m]);
        free(r.logits[m]);
    }
    free(r.targets);
    free(r.ids);
    return status;
}

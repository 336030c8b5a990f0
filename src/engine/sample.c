/* See sample.h. */
#include "engine/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const struct tms_sampling tms_sampling_usual = {
    .repeat_penalty = 1, .repeat_last_n = 64, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .temperature = 0.8};

struct tms_sampler {
    struct tms_sampling o;
    size_t n_vocab;
    uint64_t state; /* of SplitMix64 */
    struct tms_candidate *items;
    /* While one token is chosen, items[0 .. n_heap) is a heap of those that are not in order yet, the best on top, and
     * items[n_heap .. n_items) are the best ones, in order from the end. */
    size_t n_items, n_heap;
    int32_t *recent; /* a ring of the last o.repeat_last_n tokens */
    size_t n_recent, next_recent;
    uint32_t *penalized_in; /* [n_vocab]: the round in which an id was found to be recent */
    uint32_t round;
};

/* e^x for x <= 0, to about one unit of the last place, and the same bits everywhere: x = k ln 2 + r, e^r by its power
 * series (|r| <= 0.35, terms up to r^13 / 13!). */
static double exp_of_negative(double x)
{
    static const double inverse_factorial[] = {
        1,          1,           1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    if (!(x > -708)) return 0;
    double k = floor(x * 1.4426950408889634 + 0.5);
    double r = x - k * 0.69314718036912382 - k * 1.9082149292705877e-10; /* ln 2 in two parts, as in fdlibm */
    double sum = inverse_factorial[13];
    for (int i = 12; i >= 0; i--) sum = sum * r + inverse_factorial[i];
    return ldexp(sum, (int)k);
}

static double draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) / 9007199254740992.0; /* 2^53 */
}

static tms_status check(const struct tms_sampling *o, struct tms_error *err)
{
    if (!(o->temperature >= 0) || !isfinite(o->temperature))
        return tms_fail(err, TMS_EUSAGE, "temperature %g: it is 0 (always the most probable) or larger",
                        o->temperature);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return tms_fail(err, TMS_EUSAGE, "top-p %g: it lies between 0 and 1 (both: off)", o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return tms_fail(err, TMS_EUSAGE, "min-p %g: it lies between 0 (off) and 1", o->min_p);
    if (!(o->repeat_penalty >= 0) || !isfinite(o->repeat_penalty))
        return tms_fail(err, TMS_EUSAGE, "repetition penalty %g: it is a positive number, 1 (or 0) is none",
                        o->repeat_penalty);
    if (o->repeat_last_n > INT32_MAX)
        return tms_fail(err, TMS_EUSAGE, "a repetition penalty over so many tokens is not possible");
    return TMS_OK;
}

tms_status tms_sampler_create(struct tms_sampler **out, const struct tms_sampling *sampling, size_t n_vocab,
                              struct tms_error *err)
{
    tms_status status = check(sampling, err);
    if (status != TMS_OK) return status;
    struct tms_sampler *s = calloc(1, sizeof *s);
    if (!s) return tms_fail_memory(err, sizeof *s);
    s->o = *sampling;
    if (s->o.repeat_penalty == 0) s->o.repeat_penalty = 1;
    if (s->o.repeat_penalty == 1) s->o.repeat_last_n = 0;
    if (s->o.top_p == 0) s->o.top_p = 1;
    s->n_vocab = n_vocab;
    s->state = s->o.seed;
    s->items = tms_calloc(n_vocab + 1, sizeof *s->items);
    s->recent = tms_calloc(s->o.repeat_last_n + 1, sizeof *s->recent);
    s->penalized_in = tms_calloc(s->o.repeat_last_n ? n_vocab : 1, sizeof *s->penalized_in);
    if (!s->items || !s->recent || !s->penalized_in) {
        tms_sampler_free(s);
        return tms_fail_memory(err, n_vocab * sizeof *s->items);
    }
    *out = s;
    return TMS_OK;
}

void tms_sampler_free(struct tms_sampler *s)
{
    if (!s) return;
    free(s->items);
    free(s->recent);
    free(s->penalized_in);
    free(s);
}

void tms_sampler_accept(struct tms_sampler *s, int32_t id)
{
    if (s->o.repeat_last_n == 0 || id < 0 || (size_t)id >= s->n_vocab) return;
    s->recent[s->next_recent] = id;
    s->next_recent = (s->next_recent + 1) % s->o.repeat_last_n;
    if (s->n_recent < s->o.repeat_last_n) s->n_recent++;
}

/* ---- the order of candidates ---------------------------------------------------------------------------------- */

static bool better(const struct tms_candidate *a, const struct tms_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

/* Lets heap[i] sink to its place; the best is on top, or, with `worst_first`, the worst. */
static void sink(struct tms_candidate *heap, size_t n, size_t i, bool worst_first)
{
    struct tms_candidate item = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(&heap[child + 1], &heap[child]) != worst_first) child++;
        if (better(&heap[child], &item) == worst_first) break;
        heap[i] = heap[child];
    }
    heap[i] = item;
}

static void make_heap(struct tms_candidate *heap, size_t n, bool worst_first)
{
    for (size_t i = n / 2; i-- > 0;) sink(heap, n, i, worst_first);
}

/* The i-th best; puts so many in order as that needs. */
static struct tms_candidate *ranked(struct tms_sampler *s, size_t i)
{
    while (s->n_items - s->n_heap <= i) {
        struct tms_candidate best = s->items[0];
        s->items[0] = s->items[--s->n_heap];
        sink(s->items, s->n_heap, 0, false);
        s->items[s->n_heap] = best;
    }
    return &s->items[s->n_items - 1 - i];
}

/* ---- the chain ------------------------------------------------------------------------------------------------- */

/* As llama.cpp and the paper (CTRL, Keskar et al. 2019): away from being chosen, whatever the sign. */
static float penalized(const struct tms_sampler *s, float logit)
{
    double x = logit, by = s->o.repeat_penalty;
    return (float)(x <= 0 ? x * by : x / by);
}

static void mark_recent(struct tms_sampler *s)
{
    if (++s->round == 0) { /* once in 2^32 tokens */
        memset(s->penalized_in, 0, s->n_vocab * sizeof *s->penalized_in);
        s->round = 1;
    }
    for (size_t i = 0; i < s->n_recent; i++) s->penalized_in[s->recent[i]] = s->round;
}

/* Penalty and top-k: fills items with the `top_k` best, in no order, or with all. */
static tms_status gather(struct tms_sampler *s, const float *logits, size_t top_k, struct tms_error *err)
{
    size_t k = top_k && top_k < s->n_vocab ? top_k : s->n_vocab, n = 0;
    bool heap = false;
    if (s->n_recent) mark_recent(s);
    for (size_t i = 0; i < s->n_vocab; i++) {
        float x = logits[i];
        if (!(x < INFINITY))
            return tms_fail(err, TMS_EINPUT, "the logit of token %zu is %s: the weights or the computation are broken",
                            i, isnan(x) ? "NaN" : "infinite");
        if (s->n_recent && s->penalized_in[i] == s->round) x = penalized(s, x);
        struct tms_candidate c = {.id = (int32_t)i, .logit = x};
        if (n < k) {
            s->items[n++] = c;
        } else { /* the worst of the best so far goes; a later id needs a larger logit */
            if (!heap) make_heap(s->items, n, true);
            heap = true;
            if (!better(&c, &s->items[0])) continue;
            s->items[0] = c;
            sink(s->items, n, 0, true);
        }
    }
    make_heap(s->items, n, false);
    s->n_items = s->n_heap = n;
    if (n == 0 || s->items[0].logit == -INFINITY)
        return tms_fail(err, TMS_EINPUT, "no token is possible: %s", n ? "all logits are -inf" : "no vocabulary");
    return TMS_OK;
}

static double weight(const struct tms_candidate *c, float top, double temperature)
{
    return exp_of_negative(((double)c->logit - top) / temperature);
}

/* Top-p and min-p: how many are kept. */
static size_t cut(struct tms_sampler *s)
{
    float top = ranked(s, 0)->logit;
    double mass = 0, sum = 0;
    if (s->o.top_p >= 1 && s->o.min_p <= 0) return s->n_items;
    if (s->o.top_p < 1)
        for (size_t i = 0; i < s->n_items; i++) mass += weight(&s->items[i], top, 1);
    size_t n = 0;
    while (n < s->n_items) {
        double w = weight(ranked(s, n), top, 1); /* its probability by that of the best */
        if (w < s->o.min_p) break;
        n++;
        sum += w;
        if (s->o.top_p < 1 && sum >= s->o.top_p * mass) break;
    }
    return n;
}

/* Everything but the draw. The first *n of the order are kept; their weights at the temperature sum up to *total. */
static tms_status choose_from(struct tms_sampler *s, const float *logits, size_t *n, double *total,
                              struct tms_error *err)
{
    bool greedy = s->o.temperature == 0;
    tms_status status = gather(s, logits, greedy ? 1 : s->o.top_k, err);
    if (status != TMS_OK) return status;
    float top = ranked(s, 0)->logit;
    *n = greedy ? 1 : cut(s);
    *total = 0;
    if (greedy) *total = 1;
    /* the kept are the last ones in the array; if all are kept, most of them stand in a heap, which is an order, too */
    for (size_t i = s->n_items - *n; i < s->n_items && !greedy; i++)
        *total += weight(&s->items[i], top, s->o.temperature);
    return TMS_OK;
}

tms_status tms_sampler_pick(struct tms_sampler *s, const float *logits, int32_t *out, struct tms_error *err)
{
    size_t n, i = 0;
    double total, sum = 0;
    tms_status status = choose_from(s, logits, &n, &total, err);
    if (status != TMS_OK) return status;
    float top = ranked(s, 0)->logit;
    if (n > 1) {
        double u = draw(&s->state) * total;
        while (i + 1 < n && (sum += weight(ranked(s, i), top, s->o.temperature)) <= u) i++;
    }
    *out = ranked(s, i)->id;
    return TMS_OK;
}

tms_status tms_sampler_candidates(struct tms_sampler *s, const float *logits, const struct tms_candidate **out,
                                  size_t *n, struct tms_error *err)
{
    double total;
    tms_status status = choose_from(s, logits, n, &total, err);
    if (status != TMS_OK) return status;
    float top = ranked(s, 0)->logit;
    for (size_t i = 0; i < *n; i++) {
        struct tms_candidate *c = ranked(s, i);
        c->probability = s->o.temperature == 0 ? 1 : weight(c, top, s->o.temperature) / total;
    }
    for (size_t i = 0; i < s->n_items / 2; i++) { /* best first */
        struct tms_candidate c = s->items[i];
        s->items[i] = s->items[s->n_items - 1 - i];
        s->items[s->n_items - 1 - i] = c;
    }
    *out = s->items;
    return TMS_OK;
}

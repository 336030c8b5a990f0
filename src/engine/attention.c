/* See attention.h. */
#include "engine/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernels/dots.h"
#include "engine/kernels/vector.h"

#define KEYS    64   /* a block of keys */
#define SEGMENT 1024 /* positions */
#define ROWS    96   /* queries of all heads of a group that are worked on together */
#define SHARES  4    /* jobs per thread, fewer of which are cut into segments */

/* Queries of one head in a tile. */
static size_t tile_queries(size_t group)
{
    return group >= ROWS ? 1 : ROWS / group;
}

/* What is known of queries after some keys: the largest score, the sum of weights e^(score - max), weighted values. */
struct partial {
    float *max, *total; /* [rows] */
    float *sums;        /* [rows][value_width] */
};

struct tile {
    size_t key_width, value_width; /* padded */
    float *q;                      /* [rows][key_width] */
    float *keys, *kept_keys;       /* [KEYS][key_width]: as the cache has them, as it keeps some in f16 */
    float *values, *kept_values;   /* [KEYS][value_width] */
    float *scores, *kept_scores;   /* [rows][KEYS] */
    struct partial segment, all;
};

static size_t floats_of_tile(size_t rows, size_t key_dim, size_t value_dim, struct tile *tile, float *memory)
{
    size_t keys = tms_padded(key_dim), values = tms_padded(value_dim), n = 0;
    struct tile none;
    if (!tile) tile = &none;
    *tile = (struct tile){.key_width = keys, .value_width = values};
    struct {
        float **at;
        size_t n;
    } parts[] = {{&tile->q, rows * keys},
                 {&tile->keys, KEYS * keys},
                 {&tile->kept_keys, KEYS * keys},
                 {&tile->values, KEYS * values},
                 {&tile->kept_values, KEYS * values},
                 {&tile->scores, rows * KEYS},
                 {&tile->kept_scores, rows * KEYS},
                 {&tile->segment.sums, rows * values},
                 {&tile->segment.max, tms_padded(rows)},
                 {&tile->segment.total, tms_padded(rows)},
                 {&tile->all.sums, rows * values},
                 {&tile->all.max, tms_padded(rows)},
                 {&tile->all.total, tms_padded(rows)}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (memory) *parts[i].at = memory + n;
        n += parts[i].n;
    }
    return n;
}

size_t tms_attention_scratch(size_t n_heads, size_t n_kv_heads, size_t key_dim, size_t value_dim)
{
    size_t group = n_heads / n_kv_heads;
    return floats_of_tile(group * tile_queries(group), key_dim, value_dim, NULL, NULL);
}

/* ---- partial results ---- */

static void clear(struct partial *p, size_t rows, size_t width)
{
    for (size_t r = 0; r < rows; r++) {
        p->max[r] = -INFINITY;
        p->total[r] = 0;
    }
    memset(p->sums, 0, rows * width * sizeof *p->sums);
}

/* Keys of `add` come after those of `to`. */
static void join(struct partial *to, const struct partial *add, size_t rows, size_t width)
{
    for (size_t r = 0; r < rows; r++) {
        if (add->max[r] == -INFINITY) continue; /* sees none of them */
        float top = add->max[r] > to->max[r] ? add->max[r] : to->max[r], before, now;
        tms_exps(&to->max[r], top, &before, 1);
        tms_exps(&add->max[r], top, &now, 1);
        to->max[r] = top;
        to->total[r] = fmaf(add->total[r], now, to->total[r] * before);
        tms_scale(to->sums + r * width, before, width);
        tms_add_scaled(add->sums + r * width, now, to->sums + r * width, width);
    }
}

/* One block of keys for one query: its scores become weights, what was summed so far is corrected. */
static void soften(float *scores, size_t n, float *max, float *total, float *sums, size_t width)
{
    float top = *max;
    for (size_t j = 0; j < n; j++) top = scores[j] > top ? scores[j] : top;
    if (top > *max) {
        float correction;
        tms_exps(max, top, &correction, 1);
        *total *= correction;
        tms_scale(sums, correction, width);
        *max = top;
    }
    tms_exps(scores, top, scores, n);
    *total += tms_sum(scores, n);
}

/* ---- keys of one segment ---- */

struct place {
    size_t seq, kv_head, first, n; /* queries first … first + n - 1 of the pass */
};

static void load_queries(const struct tms_attention *a, const struct place *at, struct tile *t)
{
    const struct tms_cache *cache = a->cache;
    size_t d = cache->key.dim, group = a->n_heads / cache->shape.n_heads, keys = t->key_width;
    /* rows of the tile: query after query, head after head of the group */
    for (size_t r = 0; r < at->n * group; r++) {
        size_t query = at->first + r / group, head = at->kv_head * group + r % group;
        float *to = t->q + r * keys;
        memcpy(to, a->q + (at->seq * a->n + query) * a->q_stride + head * a->q_head, d * sizeof *to);
        memset(to + d, 0, (keys - d) * sizeof *to);
        tms_cache_turn(&cache->key, to);
    }
}

/* A block of keys as a tile looks at it. */
struct block {
    size_t head;                    /* of the cache */
    size_t position, n;             /* of the first key, and how many */
    size_t first_query, last_query; /* positions */
    bool quantized, kept;           /* whether any query sees a key so */
    const float *keys;              /* quantized ones, decoded */
};

static void find_kinds(const struct tms_cache *c, struct block *b)
{
    size_t first = c->options.keep_first, last = c->options.keep_last,
           oldest = b->position > first ? b->position : first;
    b->quantized = oldest < b->position + b->n && oldest + last <= b->last_query;
    b->kept = b->position < first || (last > 0 && b->position + b->n - 1 + last > b->first_query);
}

static void multiply(const struct tile *t, const float *keys, size_t rows, size_t n, float *scores)
{
    size_t width = t->key_width;
    for (size_t k = 0; k < width; k += TMS_DOT_PIECE) {
        size_t piece = width - k < TMS_DOT_PIECE ? width - k : TMS_DOT_PIECE;
        tms_dots(t->q + k, width, rows, keys + k, width, n, piece, scores, KEYS, k > 0);
    }
}

/* Scores of all rows. Where queries see some keys quantized and others kept, both are computed. */
static void score(const struct tms_attention *a, struct block *b, size_t rows, struct tile *t)
{
    if (b->quantized) {
        b->keys = tms_cache_keys(a->cache, b->head, b->position, b->n, t->keys);
        multiply(t, b->keys, rows, b->n, t->scores);
    }
    if (b->kept) {
        tms_cache_kept_keys(a->cache, b->head, b->position, b->n, t->kept_keys);
        multiply(t, t->kept_keys, rows, b->n, b->quantized ? t->kept_scores : t->scores);
    }
}

/* Weighted values of one kind. The values of a latent are the beginnings of the keys that were just read. */
static void add_values(const struct tms_attention *a, const struct block *b, bool kept, const float *weights,
                       size_t rows, struct tile *t)
{
    const struct tms_cache *c = a->cache;
    size_t stride = t->value_width;
    const float *values = t->kept_values;
    if (c->shape.latent) {
        stride = t->key_width;
        values = kept ? t->kept_keys : b->keys;
    } else if (kept) {
        tms_cache_kept_values(c, b->head, b->position, b->n, t->kept_values);
    } else {
        values = tms_cache_values(c, b->head, b->position, b->n, t->values);
    }
    tms_weighted_sums(weights, KEYS, rows, values, stride, b->n, t->value_width, t->segment.sums, t->value_width);
}

static void attend_block(const struct tms_attention *a, struct block *b, size_t group, struct tile *t)
{
    const struct tms_cache *c = a->cache;
    size_t rows = (b->last_query - b->first_query + 1) * group, n = b->n, width = t->value_width;
    bool both = b->quantized && b->kept;
    score(a, b, rows, t);
    for (size_t r = 0; r < rows; r++) {
        float *scores = t->scores + r * KEYS, *kept = t->kept_scores + r * KEYS;
        size_t query = b->first_query + r / group;
        size_t sees = a->window && query + 1 > a->window ? query + 1 - a->window : 0; /* from here on */
        size_t begin = sees > b->position ? sees - b->position : 0;
        size_t end = query + 1 > b->position ? query + 1 - b->position : 0;
        if (end > n) end = n;
        if (begin >= end) {
            memset(scores, 0, n * sizeof *scores);
            memset(kept, 0, n * sizeof *kept);
            continue;
        }
        for (size_t j = begin; both && j < end; j++)
            if (tms_cache_is_kept(c, b->position + j, query)) scores[j] = kept[j];
        tms_scale(scores, a->scale, n);
        if (a->cap > 0) tms_soft_cap(scores, a->cap, n);
        for (size_t j = 0; j < begin; j++) scores[j] = -INFINITY;
        for (size_t j = end; j < n; j++) scores[j] = -INFINITY;
        soften(scores, n, &t->segment.max[r], &t->segment.total[r], t->segment.sums + r * width, width);
        for (size_t j = 0; both && j < n; j++) {
            bool is_kept = tms_cache_is_kept(c, b->position + j, query);
            kept[j] = is_kept ? scores[j] : 0;
            if (is_kept) scores[j] = 0;
        }
    }
    if (b->quantized) add_values(a, b, false, t->scores, rows, t);
    if (b->kept) add_values(a, b, true, both ? t->kept_scores : t->scores, rows, t);
}

/* Positions of the keys that the tile's queries see. */
static void range(const struct tms_attention *a, const struct place *at, size_t *from, size_t *to)
{
    size_t first = a->start + at->first;
    *from = a->window && first + 1 > a->window ? first + 1 - a->window : 0;
    *to = first + at->n;
}

/* t->segment: the queries' results for the keys of one segment. */
static void attend_segment(const struct tms_attention *a, const struct place *at, size_t segment, struct tile *t)
{
    const struct tms_cache *c = a->cache;
    size_t group = a->n_heads / c->shape.n_heads, from, to;
    range(a, at, &from, &to);
    if (from < segment * SEGMENT) from = segment * SEGMENT;
    if (to > (segment + 1) * SEGMENT) to = (segment + 1) * SEGMENT;
    clear(&t->segment, at->n * group, t->value_width);
    for (size_t position = from / KEYS * KEYS; position < to; position += KEYS) {
        struct block b = {.head = tms_cache_head(c, a->layer, a->first_seq + at->seq, at->kv_head),
                          .position = position,
                          .n = to - position < KEYS ? to - position : KEYS,
                          .first_query = a->start + at->first,
                          .last_query = a->start + at->first + at->n - 1};
        find_kinds(c, &b);
        attend_block(a, &b, group, t);
    }
}

static void write_results(const struct tms_attention *a, const struct place *at, const struct partial *p, size_t width)
{
    const struct tms_cache *c = a->cache;
    size_t group = a->n_heads / c->shape.n_heads, n_values = c->value.dim;
    for (size_t r = 0; r < at->n * group; r++) {
        size_t query = at->first + r / group, head = at->kv_head * group + r % group;
        float *to = a->out + (at->seq * a->n + query) * a->out_stride + head * a->out_head;
        for (size_t i = 0; i < n_values; i++) to[i] = p->sums[r * width + i] / p->total[r];
        tms_cache_turn(&c->value, to);
    }
}

/* ---- jobs ---- */

struct work {
    struct tms_attention a;
    size_t n_tiles, segments; /* tiles of a head; segments that exist. One job per tile and segment if > 1 */
    struct partial *partials; /* [places][segments] */
    size_t scratch;           /* floats of a worker */
};

/* Long tiles first: the last queries see most keys. */
static struct place place_of(const struct work *w, size_t index)
{
    const struct tms_attention *a = &w->a;
    size_t n_kv = a->cache->shape.n_heads, tile = tile_queries(a->n_heads / n_kv);
    size_t first = (w->n_tiles - 1 - index % w->n_tiles) * tile, rest = index / w->n_tiles;
    return (struct place){
        .seq = rest / n_kv, .kv_head = rest % n_kv, .first = first, .n = a->n - first < tile ? a->n - first : tile};
}

static struct tile tile_of(const struct work *w, unsigned worker)
{
    const struct tms_cache *c = w->a.cache;
    size_t group = w->a.n_heads / c->shape.n_heads;
    struct tile t;
    floats_of_tile(group * tile_queries(group), c->key.dim, c->value.dim, &t, w->a.scratch + worker * w->scratch);
    return t;
}

static tms_status whole_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct work *w = ctx;
    struct place at = place_of(w, index);
    struct tile t = tile_of(w, worker);
    size_t rows = at.n * (w->a.n_heads / w->a.cache->shape.n_heads), from, to;
    (void)err;
    load_queries(&w->a, &at, &t);
    range(&w->a, &at, &from, &to);
    clear(&t.all, rows, t.value_width);
    for (size_t segment = from / SEGMENT; segment * SEGMENT < to; segment++) {
        attend_segment(&w->a, &at, segment, &t);
        join(&t.all, &t.segment, rows, t.value_width);
    }
    write_results(&w->a, &at, &t.all, t.value_width);
    return TMS_OK;
}

static tms_status segment_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct work *w = ctx;
    struct place at = place_of(w, index / w->segments);
    struct tile t = tile_of(w, worker);
    size_t segment = index % w->segments, from, to;
    (void)err;
    range(&w->a, &at, &from, &to);
    t.segment = w->partials[index];
    if (segment < from / SEGMENT || segment * SEGMENT >= to) {
        clear(&t.segment, at.n * (w->a.n_heads / w->a.cache->shape.n_heads), t.value_width);
        return TMS_OK;
    }
    load_queries(&w->a, &at, &t);
    attend_segment(&w->a, &at, segment, &t);
    return TMS_OK;
}

static tms_status join_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct work *w = ctx;
    struct place at = place_of(w, index);
    struct tile t = tile_of(w, worker);
    size_t rows = at.n * (w->a.n_heads / w->a.cache->shape.n_heads);
    (void)err;
    clear(&t.all, rows, t.value_width);
    for (size_t s = 0; s < w->segments; s++) join(&t.all, &w->partials[index * w->segments + s], rows, t.value_width);
    write_results(&w->a, &at, &t.all, t.value_width);
    return TMS_OK;
}

/* Few queries before many keys: their segments are jobs of their own. */
static tms_status run_by_segments(struct tms_pool *pool, struct work *w, size_t places, struct tms_error *err)
{
    const struct tms_cache *c = w->a.cache;
    size_t group = w->a.n_heads / c->shape.n_heads, tile = tile_queries(group), n = places * w->segments;
    size_t rows = group * (w->a.n < tile ? w->a.n : tile), width = tms_padded(c->value.dim);
    size_t each = rows * (width + 2);
    w->partials = tms_calloc(n, sizeof *w->partials);
    float *memory = tms_calloc(n, each * sizeof *memory);
    tms_status status = w->partials && memory ? TMS_OK : tms_fail_memory(err, n * each * sizeof *memory);
    for (size_t i = 0; i < n && status == TMS_OK; i++) {
        float *at = memory + i * each;
        w->partials[i] = (struct partial){.max = at + rows * width, .total = at + rows * width + rows, .sums = at};
    }
    if (status == TMS_OK) status = tms_pool_run(pool, n, segment_job, w, err);
    if (status == TMS_OK) status = tms_pool_run(pool, places, join_job, w, err);
    free(w->partials);
    free(memory);
    return status;
}

tms_status tms_attention_run(struct tms_pool *pool, const struct tms_attention *a, struct tms_error *err)
{
    const struct tms_cache *c = a->cache;
    size_t n_kv = c->shape.n_heads, tile = tile_queries(a->n_heads / n_kv);
    struct work w = {.a = *a,
                     .n_tiles = (a->n + tile - 1) / tile,
                     .segments = (a->start + a->n + SEGMENT - 1) / SEGMENT,
                     .scratch = tms_attention_scratch(a->n_heads, n_kv, c->key.dim, c->value.dim)};
    size_t places = w.n_tiles * a->n_seqs * n_kv, threads = tms_pool_threads(pool);
    if (threads > 1 && w.segments > 1 && places < SHARES * threads) return run_by_segments(pool, &w, places, err);
    return tms_pool_run(pool, places, whole_job, &w, err);
}

/* See attention.h. */
#include "engine/attention.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/dots.h"
#include "engine/kernels/vector.h"

#define KEYS 64 /* a block of keys */
#define ROWS 96 /* queries of all heads of a group that are worked on together */

/* Queries of one head in a tile. */
static size_t tile_queries(size_t group)
{
    return group >= ROWS ? 1 : ROWS / group;
}

struct tile {
    size_t key_width, value_width; /* padded */
    float *q;                      /* [rows][key_width] */
    float *keys;                   /* [KEYS][key_width] */
    float *values;                 /* [KEYS][value_width] */
    float *scores;                 /* [rows][KEYS] */
    float *sums;                   /* [rows][value_width]: weighted values */
    float *max, *total;            /* [rows] */
    float *piece;                  /* [KEYS][the larger width]: as the cache decodes */
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
                 {&tile->values, KEYS * values},
                 {&tile->scores, rows * KEYS},
                 {&tile->sums, rows * values},
                 {&tile->max, tms_padded(rows)},
                 {&tile->total, tms_padded(rows)},
                 {&tile->piece, KEYS * (keys > values ? keys : values)}};
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

/* n rows of d values of the cache as f32, padded. */
static void load(const struct tms_codec *codec, const uint8_t *from, size_t n, size_t d, size_t width, float *piece,
                 float *to)
{
    if (d == width) {
        codec->decode(from, to, n * d);
        return;
    }
    codec->decode(from, piece, n * d);
    for (size_t j = 0; j < n; j++) {
        memcpy(to + j * width, piece + j * d, d * sizeof *to);
        memset(to + j * width + d, 0, (width - d) * sizeof *to);
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

struct place {
    size_t seq, kv_head, first, n; /* queries first … first + n - 1 of the pass */
};

static void attend(const struct tms_attention *a, const struct place *at, struct tile *t)
{
    const struct tms_cache *cache = a->cache;
    size_t d = cache->key_dim, group = a->n_heads / cache->n_heads, rows = at->n * group;
    size_t n_values = cache->value_dim, keys = t->key_width, values = t->value_width;
    /* rows of the tile: query after query, head after head of the group */
    for (size_t r = 0; r < rows; r++) {
        size_t query = at->first + r / group, head = at->kv_head * group + r % group;
        memcpy(t->q + r * keys, a->q + (at->seq * a->n + query) * a->q_stride + head * a->q_head, d * sizeof *t->q);
        memset(t->q + r * keys + d, 0, (keys - d) * sizeof *t->q);
        t->max[r] = -INFINITY;
        t->total[r] = 0;
    }
    memset(t->sums, 0, rows * values * sizeof *t->sums);
    size_t first_position = a->start + at->first, last_position = first_position + at->n - 1;
    size_t from = a->window && first_position + 1 > a->window ? first_position + 1 - a->window : 0;
    for (size_t block = from / KEYS * KEYS; block <= last_position; block += KEYS) {
        size_t n = last_position + 1 - block < KEYS ? last_position + 1 - block : KEYS;
        size_t seq = a->first_seq + at->seq;
        load(cache->codec, tms_cache_key(cache, a->layer, seq, at->kv_head, block), n, d, keys, t->piece, t->keys);
        load(cache->codec, tms_cache_value(cache, a->layer, seq, at->kv_head, block), n, n_values, values, t->piece,
             t->values);
        for (size_t k = 0; k < keys; k += TMS_DOT_PIECE) {
            size_t piece = keys - k < TMS_DOT_PIECE ? keys - k : TMS_DOT_PIECE;
            tms_dots(t->q + k, keys, rows, t->keys + k, keys, n, piece, t->scores, KEYS, k > 0);
        }
        for (size_t r = 0; r < rows; r++) {
            float *scores = t->scores + r * KEYS;
            size_t position = first_position + r / group;
            size_t sees = a->window && position + 1 > a->window ? position + 1 - a->window : 0; /* from here on */
            size_t begin = sees > block ? sees - block : 0, end = position + 1 > block ? position + 1 - block : 0;
            if (end > n) end = n;
            if (begin >= end) {
                memset(scores, 0, n * sizeof *scores);
                continue;
            }
            tms_scale(scores, a->scale, n);
            if (a->cap > 0) tms_soft_cap(scores, a->cap, n);
            for (size_t j = 0; j < begin; j++) scores[j] = -INFINITY;
            for (size_t j = end; j < n; j++) scores[j] = -INFINITY;
            soften(scores, n, &t->max[r], &t->total[r], t->sums + r * values, values);
        }
        tms_weighted_sums(t->scores, KEYS, rows, t->values, values, n, values, t->sums, values);
    }
    for (size_t r = 0; r < rows; r++) {
        size_t query = at->first + r / group, head = at->kv_head * group + r % group;
        float *to = a->out + (at->seq * a->n + query) * a->out_stride + head * a->out_head;
        for (size_t c = 0; c < n_values; c++) to[c] = t->sums[r * values + c] / t->total[r];
    }
}

static tms_status job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct tms_attention *a = ctx;
    size_t n_kv = a->cache->n_heads, group = a->n_heads / n_kv, tile = tile_queries(group);
    size_t n_tiles = (a->n + tile - 1) / tile;
    /* Long tiles first: the last queries see most keys. */
    size_t first = (n_tiles - 1 - index % n_tiles) * tile, rest = index / n_tiles;
    struct place at = {
        .seq = rest / n_kv, .kv_head = rest % n_kv, .first = first, .n = a->n - first < tile ? a->n - first : tile};
    struct tile t;
    (void)err;
    size_t size = tms_attention_scratch(a->n_heads, n_kv, a->cache->key_dim, a->cache->value_dim);
    floats_of_tile(group * tile, a->cache->key_dim, a->cache->value_dim, &t, a->scratch + worker * size);
    attend(a, &at, &t);
    return TMS_OK;
}

tms_status tms_attention_run(struct tms_pool *pool, const struct tms_attention *a, struct tms_error *err)
{
    size_t tile = tile_queries(a->n_heads / a->cache->n_heads);
    size_t n_tiles = (a->n + tile - 1) / tile;
    struct tms_attention copy = *a;
    return tms_pool_run(pool, n_tiles * a->n_seqs * a->cache->n_heads, job, &copy, err);
}

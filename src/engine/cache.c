/* The memory of a cache. See cache.h. */
#include "engine/cache.h"

#include <stdlib.h>
#include <string.h>

#include <tamis/codec.h>

#include "base/mem.h"
#include "engine/kernels/dots.h"

#define HALF 2 /* bytes of a number that is kept in f16 */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rows and slots of a cache that is not there yet. */
static struct tms_cache layout(const struct tms_cache_options *o, const struct tms_cache_shape *s)
{
    struct tms_cache c = {.options = *o, .shape = *s};
    c.key = tms_cache_row_of(o->type, s->key_dim, s->latent ? s->value_dim : 0);
    c.value = tms_cache_row_of(o->type, s->value_dim, s->latent ? s->value_dim : 0);
    if (s->latent) c.value.bytes = 0;
    if (o->type->exact) c.options.keep_first = c.options.keep_last = 0;
    c.options.keep_first = smaller(c.options.keep_first, INT32_MAX); /* as many positions as a context can have */
    c.options.keep_last = smaller(c.options.keep_last, INT32_MAX);
    c.n_first = smaller(c.options.keep_first, s->capacity);
    if (c.options.keep_last) {
        size_t pass = smaller(s->pass, s->capacity);
        c.ring = c.options.keep_last < s->capacity - pass ? c.options.keep_last + pass : s->capacity;
    }
    return c;
}

static uint64_t rows_bytes(const struct tms_cache_shape *s, uint64_t positions, uint64_t bytes)
{
    uint64_t n = s->n_layers;
    bool fits = tms_mul_u64(n, s->n_seqs, &n) && tms_mul_u64(n, s->n_heads, &n) && tms_mul_u64(n, positions, &n) &&
                tms_mul_u64(n, bytes, &n);
    return fits ? n : UINT64_MAX;
}

struct sizes {
    uint64_t keys, values, kept_keys, kept_values;
};

static uint64_t sizes_of(const struct tms_cache *c, struct sizes *out)
{
    const struct tms_cache_shape *s = &c->shape;
    uint64_t slots = c->n_first + c->ring, n = 0;
    *out = (struct sizes){.keys = rows_bytes(s, s->capacity, c->key.bytes),
                          .values = rows_bytes(s, s->capacity, c->value.bytes),
                          .kept_keys = rows_bytes(s, slots, s->key_dim * HALF),
                          .kept_values = s->latent ? 0 : rows_bytes(s, slots, s->value_dim * HALF)};
    bool fits = tms_add_u64(out->keys, out->values, &n) && tms_add_u64(n, out->kept_keys, &n) &&
                tms_add_u64(n, out->kept_values, &n);
    return fits ? n : UINT64_MAX;
}

tms_status tms_cache_check(const struct tms_cache_options *options, const struct tms_cache_shape *shape,
                           const char *model, struct tms_error *err)
{
    const char *type = options->type->name;
    if (options->type->exact && (options->keep_first || options->keep_last))
        return tms_fail(err, TMS_EUSAGE,
                        "a cache of %s keeps all tokens as they are; keeping some at 16 bits is for "
                        "q8_0, q5_0, q4_0 and c8",
                        type);
    struct tms_cache c = layout(options, shape);
    size_t multiple = 1, n = tms_cache_row_misfit(&c.key, &multiple);
    const char *what = shape->latent ? "part of a latent key" : "key";
    if (n == 0) {
        n = tms_cache_row_misfit(&c.value, &multiple);
        what = "value";
    }
    if (n == 0) return TMS_OK;
    return tms_fail(err, TMS_EINPUT,
                    "%s: a %s has %zu numbers, and a cache of %s takes multiples of %zu; c8, f16 and bf16 take any",
                    model, what, n, type, multiple);
}

uint64_t tms_cache_bytes(const struct tms_cache_options *options, const struct tms_cache_shape *shape)
{
    struct tms_cache c = layout(options, shape);
    struct sizes sizes;
    return sizes_of(&c, &sizes);
}

tms_status tms_cache_create(struct tms_cache **out, const struct tms_cache_options *options,
                            const struct tms_cache_shape *shape, struct tms_error *err)
{
    struct sizes n;
    struct tms_cache *c = calloc(1, sizeof *c);
    if (!c) return tms_fail_memory(err, sizeof *c);
    *c = layout(options, shape);
    c->bytes = sizes_of(c, &n);
    c->keys = tms_calloc(n.keys, 1);
    if (n.values) c->values = tms_calloc(n.values, 1);
    if (n.kept_keys) c->kept_keys = tms_calloc(n.kept_keys, 1);
    if (n.kept_values) c->kept_values = tms_calloc(n.kept_values, 1);
    if (!c->keys || (n.values && !c->values) || (n.kept_keys && !c->kept_keys) || (n.kept_values && !c->kept_values)) {
        uint64_t wanted = c->bytes;
        tms_cache_free(c);
        return tms_fail(err, TMS_EIO, "out of memory (wanted %llu bytes for the cache of %zu positions)",
                        (unsigned long long)wanted, shape->capacity);
    }
    *out = c;
    return TMS_OK;
}

void tms_cache_free(struct tms_cache *cache)
{
    if (!cache) return;
    free(cache->keys);
    free(cache->values);
    free(cache->kept_keys);
    free(cache->kept_values);
    free(cache);
}

/* ---- where rows lie ---- */

static uint8_t *key_at(const struct tms_cache *c, size_t head, size_t position)
{
    return c->keys + (head * c->shape.capacity + position) * c->key.bytes;
}

static uint8_t *value_at(const struct tms_cache *c, size_t head, size_t position)
{
    return c->values + (head * c->shape.capacity + position) * c->value.bytes;
}

static size_t slot_of(const struct tms_cache *c, size_t head, size_t position)
{
    size_t slot = position < c->n_first ? position : c->ring ? c->n_first + position % c->ring : 0;
    return head * (c->n_first + c->ring) + slot;
}

/* Whether a position has a slot at all. */
static bool has_slot(const struct tms_cache *c, size_t position)
{
    return c->ring || position < c->n_first;
}

/* ---- growing, forgetting ---- */

tms_status tms_cache_begin(struct tms_cache *cache, size_t n_seqs, size_t start, size_t n, struct tms_error *err)
{
    const struct tms_cache_shape *s = &cache->shape;
    size_t end = start + n;
    if (end > s->capacity || n_seqs > s->n_seqs || (cache->ring && n > s->pass))
        return tms_fail(err, TMS_EUSAGE, "the cache has room for %zu positions of %zu sequences, not for %zu of %zu",
                        s->capacity, s->n_seqs, end, n_seqs);
    if (start <= cache->n_first) cache->lost = 0; /* nothing in the ring is looked at before it is written again */
    if (end > cache->ring && end - cache->ring > cache->lost) cache->lost = end - cache->ring;
    return TMS_OK;
}

size_t tms_cache_rewind(const struct tms_cache *cache, size_t n)
{
    if (!cache->ring || n <= cache->n_first) return n;
    size_t needed = n > cache->options.keep_last ? n - cache->options.keep_last : 0;
    if (needed < cache->n_first) needed = cache->n_first;
    return needed >= cache->lost ? n : cache->n_first;
}

static void copy_kept(struct tms_cache *to, const struct tms_cache *from, size_t head, size_t position)
{
    size_t keys = from->key.dim * HALF, values = from->value.dim * HALF;
    size_t at = slot_of(to, head, position), was = slot_of(from, head, position);
    memcpy(to->kept_keys + at * keys, from->kept_keys + was * keys, keys);
    if (to->kept_values) memcpy(to->kept_values + at * values, from->kept_values + was * values, values);
}

tms_status tms_cache_grow(struct tms_cache **cache, size_t capacity, size_t n_held, struct tms_error *err)
{
    const struct tms_cache *from = *cache;
    struct tms_cache_shape shape = from->shape;
    struct tms_cache *to = NULL;
    shape.capacity = capacity;
    tms_status status = tms_cache_create(&to, &from->options, &shape, err);
    if (status != TMS_OK) return status;
    size_t n_heads = shape.n_layers * shape.n_seqs * shape.n_heads;
    size_t n_slots = smaller(n_held, from->ring ? n_held : from->n_first);
    for (size_t head = 0; head < n_heads; head++) {
        memcpy(key_at(to, head, 0), key_at(from, head, 0), n_held * from->key.bytes);
        if (from->values) memcpy(value_at(to, head, 0), value_at(from, head, 0), n_held * from->value.bytes);
        for (size_t j = 0; j < n_slots && to->kept_keys; j++)
            if (j < from->n_first || j >= from->lost) copy_kept(to, from, head, j);
    }
    to->lost = from->lost;
    tms_cache_free(*cache);
    *cache = to;
    return TMS_OK;
}

/* ---- writing ---- */

void tms_cache_store(struct tms_cache *cache, size_t head, size_t position, float *key, float *value)
{
    const struct tms_codec *half = tms_codec(TMS_F16);
    tms_cache_turn(&cache->key, key);
    tms_cache_encode(&cache->key, key, key_at(cache, head, position));
    if (cache->values) {
        tms_cache_turn(&cache->value, value);
        tms_cache_encode(&cache->value, value, value_at(cache, head, position));
    }
    if (!has_slot(cache, position)) return;
    size_t slot = slot_of(cache, head, position);
    half->encode(key, cache->kept_keys + slot * cache->key.dim * HALF, cache->key.dim);
    if (cache->kept_values) half->encode(value, cache->kept_values + slot * cache->value.dim * HALF, cache->value.dim);
}

/* ---- reading ---- */

static bool lies_as_floats(const struct tms_cache *c, const struct tms_cache_row *row)
{
    return c->options.type->exact && row->bytes == row->dim * sizeof(float) && row->dim == tms_padded(row->dim);
}

const float *tms_cache_keys(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room)
{
    const uint8_t *from = key_at(cache, head, position);
    if (lies_as_floats(cache, &cache->key)) return (const float *)(const void *)from;
    tms_cache_decode(&cache->key, from, n, room, tms_padded(cache->key.dim));
    return room;
}

const float *tms_cache_values(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room)
{
    const uint8_t *from = value_at(cache, head, position);
    if (lies_as_floats(cache, &cache->value)) return (const float *)(const void *)from;
    tms_cache_decode(&cache->value, from, n, room, tms_padded(cache->value.dim));
    return room;
}

static void read_kept(const struct tms_cache *c, const uint8_t *from, size_t dim, size_t head, size_t position,
                      size_t n, float *room)
{
    const struct tms_codec *half = tms_codec(TMS_F16);
    size_t width = tms_padded(dim);
    for (size_t j = 0; j < n; j++, room += width) {
        size_t at = position + j, known = has_slot(c, at) ? dim : 0;
        if (known) half->decode(from + slot_of(c, head, at) * dim * HALF, room, dim);
        memset(room + known, 0, (width - known) * sizeof *room);
    }
}

void tms_cache_kept_keys(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room)
{
    read_kept(cache, cache->kept_keys, cache->key.dim, head, position, n, room);
}

void tms_cache_kept_values(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room)
{
    read_kept(cache, cache->kept_values, cache->value.dim, head, position, n, room);
}

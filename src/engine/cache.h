/* Keys and values of the tokens seen so far: [layer][sequence][kv head][position][values of a head], in a type of the table of
 * codecs (f32, f16). */
#ifndef TMS_ENGINE_CACHE_H
#define TMS_ENGINE_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include <tamis/codec.h>

#include "base/error.h"

struct tms_cache {
    const struct tms_codec *codec;
    size_t n_layers, n_seqs, n_heads, capacity;
    size_t key_dim, value_dim; /* values of a key, of a value */
    size_t key_bytes, value_bytes;
    uint8_t *keys, *values;
};

/* "f32", "f16"; TMS_EINPUT with the list for other names. */
tms_status tms_cache_type(const char *name, enum tms_type *out, struct tms_error *err);
uint64_t tms_cache_bytes(enum tms_type type, size_t n_layers, size_t n_seqs, size_t n_heads, size_t capacity,
                         size_t key_dim, size_t value_dim);
/* capacity: positions of each sequence. Freed with tms_cache_free. */
tms_status tms_cache_create(struct tms_cache **out, enum tms_type type, size_t n_layers, size_t n_seqs, size_t n_heads,
                            size_t capacity, size_t key_dim, size_t value_dim, struct tms_error *err);
void tms_cache_free(struct tms_cache *cache);

/* Where a key (value) begins; positions follow each other. */
static inline size_t tms_cache_index(const struct tms_cache *c, size_t layer, size_t seq, size_t head, size_t position)
{
    return ((layer * c->n_seqs + seq) * c->n_heads + head) * c->capacity + position;
}

static inline uint8_t *tms_cache_key(const struct tms_cache *c, size_t layer, size_t seq, size_t head, size_t position)
{
    return c->keys + tms_cache_index(c, layer, seq, head, position) * c->key_bytes;
}

static inline uint8_t *tms_cache_value(const struct tms_cache *c, size_t layer, size_t seq, size_t head,
                                       size_t position)
{
    return c->values + tms_cache_index(c, layer, seq, head, position) * c->value_bytes;
}

#endif

/* See cache.h. */
#include "engine/cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* What a cache can be stored as: rows of head_dim values are encoded and decoded by the codec. */
static const enum tms_type types[] = {TMS_F32, TMS_F16};

tms_status tms_cache_type(const char *name, enum tms_type *out, struct tms_error *err)
{
    const struct tms_codec *codec = tms_codec_by_name(name);
    for (size_t i = 0; codec && i < sizeof types / sizeof *types; i++)
        if (codec->id == types[i]) {
            *out = types[i];
            return TMS_OK;
        }
    return tms_fail(err, TMS_EINPUT, "'%s' is no type of cache; there are f32 and f16", name);
}

static bool count_bytes(size_t row_bytes, size_t n_layers, size_t n_seqs, size_t n_heads, size_t capacity,
                        uint64_t *out)
{
    uint64_t n = row_bytes;
    return tms_mul_u64(n, capacity, &n) && tms_mul_u64(n, n_heads, &n) && tms_mul_u64(n, n_seqs, &n) &&
           tms_mul_u64(n, n_layers, out);
}

uint64_t tms_cache_bytes(enum tms_type type, size_t n_layers, size_t n_seqs, size_t n_heads, size_t capacity,
                         size_t key_dim, size_t value_dim)
{
    uint64_t n = tms_codec_bytes(tms_codec(type), key_dim), m = tms_codec_bytes(tms_codec(type), value_dim);
    if (!count_bytes((size_t)(n + m), n_layers, n_seqs, n_heads, capacity, &n)) return UINT64_MAX;
    return n;
}

tms_status tms_cache_create(struct tms_cache **out, enum tms_type type, size_t n_layers, size_t n_seqs, size_t n_heads,
                            size_t capacity, size_t key_dim, size_t value_dim, struct tms_error *err)
{
    const struct tms_codec *codec = tms_codec(type);
    uint64_t n, m;
    struct tms_cache *c = calloc(1, sizeof *c);
    if (!c) return tms_fail_memory(err, sizeof *c);
    *c = (struct tms_cache){.codec = codec,
                            .n_layers = n_layers,
                            .n_seqs = n_seqs,
                            .n_heads = n_heads,
                            .capacity = capacity,
                            .key_dim = key_dim,
                            .value_dim = value_dim,
                            .key_bytes = (size_t)tms_codec_bytes(codec, key_dim),
                            .value_bytes = (size_t)tms_codec_bytes(codec, value_dim)};
    if (!count_bytes(c->key_bytes, n_layers, n_seqs, n_heads, capacity, &n)) n = UINT64_MAX;
    if (!count_bytes(c->value_bytes, n_layers, n_seqs, n_heads, capacity, &m)) m = UINT64_MAX;
    c->keys = tms_calloc(n, 1);
    c->values = tms_calloc(m, 1);
    if (!c->keys || !c->values) {
        tms_cache_free(c);
        return tms_fail(err, TMS_EIO, "out of memory (wanted %llu + %llu bytes for the cache of %zu positions)",
                        (unsigned long long)n, (unsigned long long)m, capacity);
    }
    *out = c;
    return TMS_OK;
}

void tms_cache_free(struct tms_cache *cache)
{
    if (!cache) return;
    free(cache->keys);
    free(cache->values);
    free(cache);
}

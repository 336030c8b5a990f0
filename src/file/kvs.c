/* See kvs.h. */
#include "file/kvs.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} types[TMS_KV_TYPES] = {
    [TMS_KV_U8] = {"u8", 1},       [TMS_KV_I8] = {"i8", 1},     [TMS_KV_U16] = {"u16", 2},
    [TMS_KV_I16] = {"i16", 2},     [TMS_KV_U32] = {"u32", 4},   [TMS_KV_I32] = {"i32", 4},
    [TMS_KV_F32] = {"f32", 4},     [TMS_KV_BOOL] = {"bool", 1}, [TMS_KV_STRING] = {"string", 0},
    [TMS_KV_ARRAY] = {"array", 0}, [TMS_KV_U64] = {"u64", 8},   [TMS_KV_I64] = {"i64", 8},
    [TMS_KV_F64] = {"f64", 8},
};

size_t tms_kv_type_bytes(enum tms_kv_type type)
{
    return (unsigned)type < TMS_KV_TYPES ? types[type].bytes : 0;
}

const char *tms_kv_type_name(enum tms_kv_type type)
{
    return (unsigned)type < TMS_KV_TYPES ? types[type].name : "unknown";
}

void tms_kvs_free(struct tms_kvs *kvs)
{
    for (size_t i = 0; i < kvs->n; i++) {
        free(kvs->items[i].key);
        free(kvs->items[i].bytes);
    }
    free(kvs->items);
    *kvs = (struct tms_kvs){0};
}

static struct tms_kv *find(const struct tms_kvs *kvs, const char *key)
{
    for (size_t i = 0; i < kvs->n; i++)
        if (strcmp(kvs->items[i].key, key) == 0) return &kvs->items[i];
    return NULL;
}

const struct tms_kv *tms_kvs_find(const struct tms_kvs *kvs, const char *key)
{
    return find(kvs, key);
}

void tms_kvs_remove(struct tms_kvs *kvs, const char *key)
{
    struct tms_kv *kv = find(kvs, key);
    if (!kv) return;
    free(kv->key);
    free(kv->bytes);
    size_t behind = kvs->n - (size_t)(kv - kvs->items) - 1;
    memmove(kv, kv + 1, behind * sizeof *kv);
    kvs->n--;
}

/* Puts `value`, whose bytes are still the caller's, under `key`. The bytes may be those of the value replaced. */
static void put(struct tms_kvs *kvs, const char *key, struct tms_kv value)
{
    if (kvs->failed) return;
    uint8_t *bytes = tms_calloc(value.n_bytes + 1, 1);
    struct tms_kv *kv = find(kvs, key);
    char *own_key = kv ? kv->key : strdup(key);
    if (!bytes || !own_key || (!kv && !tms_grow(&kvs->items, &kvs->cap, kvs->n + 1, sizeof *kv))) {
        kvs->failed = true;
        free(bytes);
        if (!kv) free(own_key);
        return;
    }
    if (value.n_bytes) memcpy(bytes, value.bytes, value.n_bytes);
    if (kv)
        free(kv->bytes);
    else
        kv = &kvs->items[kvs->n++];
    value.key = own_key;
    value.bytes = bytes;
    *kv = value;
}

/* `put` only reads the bytes, but struct tms_kv owns what it points to and so has no const. */
static uint8_t *borrow(const void *bytes)
{
    uint8_t *p;
    memcpy(&p, &bytes, sizeof p);
    return p;
}

void tms_kvs_set(struct tms_kvs *kvs, const char *key, enum tms_kv_type type, const void *bytes, size_t n)
{
    put(kvs, key, (struct tms_kv){.type = type, .bytes = borrow(bytes), .n_bytes = n});
}

void tms_kvs_set_array(struct tms_kvs *kvs, const char *key, enum tms_kv_type elem_type, uint64_t count,
                       const void *bytes, size_t n)
{
    put(kvs, key,
        (struct tms_kv){
            .type = TMS_KV_ARRAY, .elem_type = elem_type, .count = count, .bytes = borrow(bytes), .n_bytes = n});
}

void tms_kvs_set_u16(struct tms_kvs *kvs, const char *key, uint16_t v)
{
    uint8_t b[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    tms_kvs_set(kvs, key, TMS_KV_U16, b, sizeof b);
}

static void set_32(struct tms_kvs *kvs, const char *key, enum tms_kv_type type, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    tms_kvs_set(kvs, key, type, b, sizeof b);
}

void tms_kvs_set_u32(struct tms_kvs *kvs, const char *key, uint32_t v)
{
    set_32(kvs, key, TMS_KV_U32, v);
}

void tms_kvs_set_i32(struct tms_kvs *kvs, const char *key, int32_t v)
{
    set_32(kvs, key, TMS_KV_I32, (uint32_t)v);
}

void tms_kvs_set_f32(struct tms_kvs *kvs, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    set_32(kvs, key, TMS_KV_F32, bits);
}

void tms_kvs_set_bool(struct tms_kvs *kvs, const char *key, bool v)
{
    uint8_t b = v;
    tms_kvs_set(kvs, key, TMS_KV_BOOL, &b, 1);
}

void tms_kvs_set_string(struct tms_kvs *kvs, const char *key, const char *text)
{
    tms_kvs_set(kvs, key, TMS_KV_STRING, text, strlen(text));
}

void tms_kvs_copy(struct tms_kvs *to, const struct tms_kvs *from)
{
    if (from->failed) to->failed = true;
    for (size_t i = 0; i < from->n; i++) put(to, from->items[i].key, from->items[i]);
}

void tms_kv_put_string(struct tms_buf *buf, const char *text, size_t n)
{
    tms_buf_u64(buf, n);
    tms_buf_put(buf, text, n);
}

/* The value's bytes as a little-endian number, sign-extended if the type has a sign. */
static uint64_t integer_bits(const struct tms_kv *kv)
{
    uint64_t v = 0;
    for (size_t i = 0; i < kv->n_bytes; i++) v |= (uint64_t)kv->bytes[i] << 8 * i;
    bool has_sign = kv->type == TMS_KV_I8 || kv->type == TMS_KV_I16 || kv->type == TMS_KV_I32;
    if (has_sign && v >> (8 * kv->n_bytes - 1)) v |= ~(uint64_t)0 << 8 * kv->n_bytes;
    return v;
}

static bool is_number(const struct tms_kv *kv)
{
    return kv && tms_kv_type_bytes(kv->type) != 0 && kv->n_bytes == tms_kv_type_bytes(kv->type);
}

bool tms_kv_as_u64(const struct tms_kv *kv, uint64_t *out)
{
    if (!is_number(kv) || kv->type == TMS_KV_F32 || kv->type == TMS_KV_F64) return false;
    uint64_t v = integer_bits(kv);
    bool has_sign = kv->type != TMS_KV_U64;
    if (has_sign && v >> 63) return false;
    *out = kv->type == TMS_KV_BOOL ? v != 0 : v;
    return true;
}

bool tms_kv_as_f64(const struct tms_kv *kv, double *out)
{
    if (!is_number(kv)) return false;
    uint64_t v = integer_bits(kv);
    uint32_t low = (uint32_t)v;
    float f;
    switch (kv->type) {
    case TMS_KV_F32:
        memcpy(&f, &low, sizeof f);
        *out = f;
        break;
    case TMS_KV_F64: memcpy(out, &v, sizeof *out); break;
    case TMS_KV_I8:
    case TMS_KV_I16:
    case TMS_KV_I32:
    case TMS_KV_I64: *out = (double)(int64_t)v; break;
    case TMS_KV_BOOL: *out = v != 0; break;
    default: *out = (double)v;
    }
    return true;
}

const char *tms_kv_as_string(const struct tms_kv *kv)
{
    return kv && kv->type == TMS_KV_STRING ? (const char *)kv->bytes : NULL;
}

void tms_kvs_serialize(const struct tms_kvs *kvs, struct tms_buf *buf)
{
    for (size_t i = 0; i < kvs->n; i++) {
        const struct tms_kv *kv = &kvs->items[i];
        tms_kv_put_string(buf, kv->key, strlen(kv->key));
        tms_buf_u32(buf, kv->type);
        if (kv->type == TMS_KV_STRING) tms_buf_u64(buf, kv->n_bytes);
        if (kv->type == TMS_KV_ARRAY) {
            tms_buf_u32(buf, kv->elem_type);
            tms_buf_u64(buf, kv->count);
        }
        tms_buf_put(buf, kv->bytes, kv->n_bytes);
    }
}

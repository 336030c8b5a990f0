/* The key-value part of a GGUF file: an ordered list of typed values, kept as the bytes that the file holds.
 *
 * Value type ids are GGUF's (specification in ggml/docs/gguf.md). */
#ifndef TMS_FILE_KVS_H
#define TMS_FILE_KVS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

enum tms_kv_type {
    TMS_KV_U8 = 0,
    TMS_KV_I8 = 1,
    TMS_KV_U16 = 2,
    TMS_KV_I16 = 3,
    TMS_KV_U32 = 4,
    TMS_KV_I32 = 5,
    TMS_KV_F32 = 6,
    TMS_KV_BOOL = 7,
    TMS_KV_STRING = 8,
    TMS_KV_ARRAY = 9,
    TMS_KV_U64 = 10,
    TMS_KV_I64 = 11,
    TMS_KV_F64 = 12,
    TMS_KV_TYPES = 13,
};

struct tms_kv {
    char *key;
    enum tms_kv_type type;
    enum tms_kv_type elem_type; /* of an array */
    uint64_t count;             /* of an array */
    uint8_t *bytes;             /* scalar: its little-endian bytes; string: its characters; array: its elements as in
                                 * the file (strings as u64 length + characters); a NUL follows in memory */
    size_t n_bytes;
};

/* Zero-initialize. Setters replace a value in place or append; memory that runs out sets `failed`, to be checked
 * once before use. */
struct tms_kvs {
    struct tms_kv *items;
    size_t n, cap;
    bool failed;
};

void tms_kvs_free(struct tms_kvs *kvs);
const struct tms_kv *tms_kvs_find(const struct tms_kvs *kvs, const char *key);
void tms_kvs_remove(struct tms_kvs *kvs, const char *key);

void tms_kvs_set(struct tms_kvs *kvs, const char *key, enum tms_kv_type type, const void *bytes, size_t n);
void tms_kvs_set_u16(struct tms_kvs *kvs, const char *key, uint16_t v);
void tms_kvs_set_u32(struct tms_kvs *kvs, const char *key, uint32_t v);
void tms_kvs_set_i32(struct tms_kvs *kvs, const char *key, int32_t v);
void tms_kvs_set_f32(struct tms_kvs *kvs, const char *key, float v);
void tms_kvs_set_bool(struct tms_kvs *kvs, const char *key, bool v);
void tms_kvs_set_string(struct tms_kvs *kvs, const char *key, const char *text);
void tms_kvs_set_array(struct tms_kvs *kvs, const char *key, enum tms_kv_type elem_type, uint64_t count,
                       const void *bytes, size_t n);
/* Appends copies of all of `from`. */
void tms_kvs_copy(struct tms_kvs *to, const struct tms_kvs *from);
/* One string element of an array under construction: u64 length + characters. */
void tms_kv_put_string(struct tms_buf *buf, const char *text, size_t n);

/* Bytes of a scalar value type, 0 for strings and arrays. */
size_t tms_kv_type_bytes(enum tms_kv_type type);
/* "u32", "string", … */
const char *tms_kv_type_name(enum tms_kv_type type);
/* Any integer or bool value that is not negative; false otherwise, or if kv is NULL. */
bool tms_kv_as_u64(const struct tms_kv *kv, uint64_t *out);
bool tms_kv_as_f64(const struct tms_kv *kv, double *out);
/* The characters (NUL-terminated) of a string value, else NULL. */
const char *tms_kv_as_string(const struct tms_kv *kv);

/* Appends the whole list as a file holds it (key, type, value, for each) to `buf`. */
void tms_kvs_serialize(const struct tms_kvs *kvs, struct tms_buf *buf);

#endif

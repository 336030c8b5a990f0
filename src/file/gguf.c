/* Reading GGUF files.
 *
 *     "GGUF" | u32 version | u64 tensors | u64 keys
 *     | keys:    string name, i32 type, value
 *     | infos:   string name, u32 dimensions, u64 lengths (fastest first), i32 type, u64 offset into the data
 *     | zeros up to the alignment | data
 *
 * A string is a u64 length and its bytes; an array an i32 type, a u64 count and its elements. The checks are those of
 * ggml/src/gguf.cpp, and beyond them: every count is bounded by the bytes that are left before anything is
 * allocated for it, names and keys hold no control characters, and no tensors overlap. Offsets need not be the exact
 * running sum that llama.cpp demands: aligned and apart is enough. Only the metadata are read, through a buffer. */
#include "file/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "file/sniff.h"
#include "file/utf8.h"

#define MAX_METADATA   (UINT64_C(1) << 30) /* bytes before the data; real files have some 10 MB */
#define MAX_COUNT      (UINT64_C(1) << 30) /* elements of an array, as in ggml */
#define MAX_KEY        65535u              /* bytes, after the specification */
#define MAX_SHARDS     65535u              /* split.count is a u16 */
#define MIN_KV_BYTES   14u                 /* key length, one character, type, one byte */
#define MIN_INFO_BYTES 33u                 /* name length, one character, dimensions, one length, type, offset */
#define BUFFER_BYTES   65536u

/* The metadata of one file as a stream. */
struct reader {
    const struct tms_file *file;
    uint64_t at;  /* of the next byte */
    uint64_t end; /* of what may be read */
    uint64_t buffer_at;
    size_t buffer_n;
    uint8_t *buffer;
    char where[160]; /* what is being read, for messages: "key 'general.name'" */
};

static uint64_t left(const struct reader *r)
{
    return r->end - r->at;
}

static tms_status fail_short(const struct reader *r, uint64_t wanted, struct tms_error *err)
{
    if (r->end < r->file->size)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 ": the metadata go on beyond %" PRIu64 " bytes: the file is damaged",
                        r->file->path, r->where, r->at, MAX_METADATA);
    return tms_fail(err, TMS_EINPUT,
                    "%s: %s at byte %" PRIu64 " needs %" PRIu64 " bytes, but the file has only "
                    "%" PRIu64 " more: it is damaged or cut short, download it again",
                    r->file->path, r->where, r->at, wanted, left(r));
}

static tms_status take(struct reader *r, void *to, uint64_t n, struct tms_error *err)
{
    if (n > left(r)) return fail_short(r, n, err);
    uint8_t *out = to;
    while (n) {
        uint64_t skip = r->at - r->buffer_at;
        if (skip >= r->buffer_n) {
            size_t want = left(r) < BUFFER_BYTES ? (size_t)left(r) : BUFFER_BYTES;
            tms_status status = tms_file_read(r->file, r->buffer, want, r->at, err);
            if (status != TMS_OK) return status;
            r->buffer_at = r->at;
            r->buffer_n = want;
            skip = 0;
        }
        size_t part = r->buffer_n - (size_t)skip;
        if (part > n) part = (size_t)n;
        memcpy(out, r->buffer + skip, part);
        out += part;
        n -= part;
        r->at += part;
    }
    return TMS_OK;
}

static tms_status take_u32(struct reader *r, uint32_t *out, struct tms_error *err)
{
    uint8_t b[4] = {0};
    tms_status status = take(r, b, sizeof b, err);
    if (status == TMS_OK) *out = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return status;
}

static tms_status take_u64(struct reader *r, uint64_t *out, struct tms_error *err)
{
    uint32_t low, high;
    tms_status status = take_u32(r, &low, err);
    if (status == TMS_OK) status = take_u32(r, &high, err);
    if (status == TMS_OK) *out = (uint64_t)high << 32 | low;
    return status;
}

/* n bytes and a NUL behind them, to be freed. */
static tms_status take_bytes(struct reader *r, uint8_t **out, uint64_t n, struct tms_error *err)
{
    if (n > left(r)) return fail_short(r, n, err);
    uint8_t *bytes = malloc((size_t)n + 1);
    if (!bytes) return tms_fail_memory(err, n + 1);
    tms_status status = take(r, bytes, n, err);
    if (status != TMS_OK) {
        free(bytes);
        return status;
    }
    bytes[n] = 0;
    *out = bytes;
    return TMS_OK;
}

/* The name of a key or tensor: at most `max` bytes of UTF-8 without control characters, not empty; to be freed. */
static tms_status take_name(struct reader *r, char **out, uint64_t max, struct tms_error *err)
{
    uint64_t at = r->at, n = 0;
    uint8_t *bytes = NULL;
    tms_status status = take_u64(r, &n, err);
    if (status != TMS_OK) return status;
    if (n == 0 || n > max)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 ": its name has %" PRIu64 " bytes, 1 to %" PRIu64
                        " are allowed: the file is damaged",
                        r->file->path, r->where, at, n, max);
    status = take_bytes(r, &bytes, n, err);
    if (status != TMS_OK || !bytes) return status;
    bool fine = tms_is_utf8((const char *)bytes, (size_t)n);
    for (size_t i = 0; i < n && fine; i++) fine = bytes[i] >= 0x20 && bytes[i] != 0x7f;
    if (!fine) {
        free(bytes);
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 ": its name holds control characters or is not "
                        "UTF-8: the file is damaged",
                        r->file->path, r->where, at);
    }
    *out = (char *)bytes;
    return TMS_OK;
}

/* The elements of an array of strings, kept as they lie in the file. */
static tms_status take_strings(struct reader *r, struct tms_kv *kv, struct tms_error *err)
{
    uint8_t *bytes = NULL;
    size_t n = 0, cap = 0;
    tms_status status = TMS_OK;
    if (kv->count > left(r) / 8) return fail_short(r, kv->count * 8, err);
    if (!tms_grow(&bytes, &cap, (size_t)kv->count * 8 + 1, 1)) return tms_fail_memory(err, kv->count * 8);
    for (uint64_t i = 0; i < kv->count; i++) {
        uint64_t length;
        status = take_u64(r, &length, err);
        if (status != TMS_OK) goto done;
        if (length > left(r)) {
            status = fail_short(r, length, err);
            goto done;
        }
        if (!tms_grow(&bytes, &cap, n + 8 + (size_t)length + 1, 1)) {
            status = tms_fail_memory(err, n + 8 + length);
            goto done;
        }
        for (unsigned b = 0; b < 8; b++) bytes[n++] = (uint8_t)(length >> 8 * b);
        status = take(r, bytes + n, length, err);
        if (status != TMS_OK) goto done;
        n += (size_t)length;
    }
    bytes[n] = 0;
    kv->bytes = bytes;
    kv->n_bytes = n;
    bytes = NULL;
done:
    free(bytes);
    return status;
}

static tms_status take_array(struct reader *r, struct tms_kv *kv, struct tms_error *err)
{
    uint32_t type;
    uint64_t count, at = r->at;
    tms_status status = take_u32(r, &type, err);
    if (status == TMS_OK) status = take_u64(r, &count, err);
    if (status != TMS_OK) return status;
    if (type == TMS_KV_ARRAY)
        return tms_fail(err, TMS_EINPUT, "%s: %s at byte %" PRIu64 " is an array of arrays, which tamis does not read",
                        r->file->path, r->where, at);
    if (type >= TMS_KV_TYPES)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 ": its elements have the unknown type %" PRIu32
                        ": the file is damaged",
                        r->file->path, r->where, at, type);
    if (count > MAX_COUNT)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 ": an array of %" PRIu64 " elements, at most "
                        "%" PRIu64 " are allowed: the file is damaged",
                        r->file->path, r->where, at, count, MAX_COUNT);
    kv->elem_type = (enum tms_kv_type)type;
    kv->count = count;
    if (type == TMS_KV_STRING) return take_strings(r, kv, err);
    uint64_t n = count * tms_kv_type_bytes(kv->elem_type); /* at most 2^33 */
    status = take_bytes(r, &kv->bytes, n, err);
    if (status == TMS_OK) kv->n_bytes = (size_t)n;
    return status;
}

static tms_status take_value(struct reader *r, struct tms_kv *kv, struct tms_error *err)
{
    uint32_t type;
    uint64_t n, at = r->at;
    tms_status status = take_u32(r, &type, err);
    if (status != TMS_OK) return status;
    if (type >= TMS_KV_TYPES)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 " has the unknown type %" PRIu32 ": the file is damaged",
                        r->file->path, r->where, at, type);
    kv->type = (enum tms_kv_type)type;
    if (kv->type == TMS_KV_ARRAY) return take_array(r, kv, err);
    n = tms_kv_type_bytes(kv->type);
    if (kv->type == TMS_KV_STRING) {
        status = take_u64(r, &n, err);
        if (status != TMS_OK) return status;
    }
    status = take_bytes(r, &kv->bytes, n, err);
    if (status == TMS_OK) kv->n_bytes = (size_t)n;
    return status;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(const struct tms_kv *const *)a)->key, (*(const struct tms_kv *const *)b)->key);
}

static tms_status check_keys(const struct tms_file *file, const struct tms_kvs *kvs, struct tms_error *err)
{
    const struct tms_kv **order = tms_calloc(kvs->n, sizeof order[0]);
    if (!order) return tms_fail_memory(err, kvs->n * sizeof order[0]);
    tms_status status = TMS_OK;
    for (size_t i = 0; i < kvs->n; i++) order[i] = &kvs->items[i];
    qsort(order, kvs->n, sizeof order[0], compare_keys);
    for (size_t i = 1; i < kvs->n && status == TMS_OK; i++)
        if (strcmp(order[i - 1]->key, order[i]->key) == 0)
            status = tms_fail(err, TMS_EINPUT, "%s: key '%.100s' comes twice: the file is damaged", file->path,
                              order[i]->key);
    free(order);
    return status;
}

static tms_status read_kvs(struct reader *r, struct tms_kvs *kvs, uint64_t n, struct tms_error *err)
{
    if (n > left(r) / MIN_KV_BYTES)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %" PRIu64 " keys cannot fit into the %" PRIu64
                        " bytes that are left: the file is damaged or cut short",
                        r->file->path, n, left(r));
    for (uint64_t i = 0; i < n; i++) {
        struct tms_kv kv = {0};
        snprintf(r->where, sizeof r->where, "key %" PRIu64 " of %" PRIu64, i + 1, n);
        tms_status status = take_name(r, &kv.key, MAX_KEY, err);
        if (status == TMS_OK) {
            snprintf(r->where, sizeof r->where, "key '%.100s'", kv.key);
            status = take_value(r, &kv, err);
        }
        if (status == TMS_OK && !tms_grow(&kvs->items, &kvs->cap, kvs->n + 1, sizeof kv))
            status = tms_fail_memory(err, (kvs->n + 1) * sizeof kv);
        if (status != TMS_OK) {
            free(kv.key);
            free(kv.bytes);
            return status;
        }
        kvs->items[kvs->n++] = kv;
    }
    return check_keys(r->file, kvs, err);
}

/* One tensor info; the offset in *out is still relative to the data. */
static tms_status read_info(struct reader *r, struct tms_arena *arena, struct tms_gguf_tensor *out,
                            struct tms_error *err)
{
    struct tms_gguf_tensor tensor = {.ne = {1, 1, 1, 1}};
    char *name = NULL;
    char shape[128];
    uint32_t type;
    tms_status status = take_name(r, &name, TMS_GGUF_MAX_NAME, err);
    if (status != TMS_OK || !name) return status;
    tensor.name = tms_arena_strndup(arena, name, strlen(name));
    free(name);
    if (!tensor.name) return tms_fail_memory(err, TMS_GGUF_MAX_NAME);
    snprintf(r->where, sizeof r->where, "tensor '%s'", tensor.name);
    status = take_u32(r, &tensor.n_dims, err);
    if (status != TMS_OK) return status;
    if (tensor.n_dims == 0 || tensor.n_dims > TMS_GGUF_MAX_DIMS)
        return tms_fail(err, TMS_EINPUT,
                        "%s: tensor '%s' has %" PRIu32 " dimensions, 1 to %u are allowed: the file is "
                        "damaged",
                        r->file->path, tensor.name, tensor.n_dims, TMS_GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < tensor.n_dims && status == TMS_OK; i++) status = take_u64(r, &tensor.ne[i], err);
    if (status == TMS_OK) status = take_u32(r, &type, err);
    if (status == TMS_OK) status = take_u64(r, &tensor.offset, err);
    if (status != TMS_OK) return status;
    if (type >= TMS_GGML_TYPES || !tms_codec((enum tms_type)type))
        return tms_fail(err, TMS_EINPUT,
                        "%s: tensor '%s' has type %" PRIu32 ", which no ggml known to tamis has: "
                        "the file is damaged, or newer than tamis",
                        r->file->path, tensor.name, type);
    tensor.type = (enum tms_type)type;
    const char *problem = tms_gguf_tensor_bytes(tensor.type, tensor.n_dims, tensor.ne, &tensor.bytes);
    if (problem)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s', %s, %s: the file is damaged", r->file->path, tensor.name,
                        tms_gguf_shape_text(shape, tensor.type, tensor.n_dims, tensor.ne), problem);
    *out = tensor;
    return TMS_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct tms_gguf_tensor *x = *(const struct tms_gguf_tensor *const *)a;
    const struct tms_gguf_tensor *y = *(const struct tms_gguf_tensor *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Makes the offsets of one file's tensors absolute, and requires that they lie in the file, aligned and apart. */
static tms_status place_tensors(const struct reader *r, struct tms_gguf_tensor *tensors, size_t n, uint32_t alignment,
                                struct tms_error *err)
{
    uint64_t data = tms_align_up(r->at, alignment);
    const struct tms_gguf_tensor **order = tms_calloc(n, sizeof order[0]);
    tms_status status = TMS_OK;
    if (!order) return tms_fail_memory(err, n * sizeof order[0]);
    for (size_t i = 0; i < n; i++) {
        struct tms_gguf_tensor *tensor = &tensors[i];
        uint64_t end;
        if (tensor->offset % alignment) {
            status = tms_fail(err, TMS_EINPUT,
                              "%s: tensor '%s': its offset %" PRIu64 " is no multiple of the "
                              "alignment, %" PRIu32 ": the file is damaged",
                              r->file->path, tensor->name, tensor->offset, alignment);
            goto done;
        }
        if (!tms_add_u64(tensor->offset, data, &tensor->offset) || !tms_add_u64(tensor->offset, tensor->bytes, &end)) {
            status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s': its offset overflows: the file is damaged",
                              r->file->path, tensor->name);
            goto done;
        }
        if (end > r->file->size) {
            status = tms_fail(err, TMS_EINPUT,
                              "%s: tensor '%s' ends at byte %" PRIu64 ", but the file has only "
                              "%" PRIu64 ": it is cut short, download it again",
                              r->file->path, tensor->name, end, r->file->size);
            goto done;
        }
        order[i] = tensor;
    }
    qsort(order, n, sizeof order[0], compare_offsets);
    for (size_t i = 1; i < n; i++) {
        if (order[i - 1]->offset + order[i - 1]->bytes <= order[i]->offset) continue;
        status = tms_fail(err, TMS_EINPUT, "%s: tensors '%s' and '%s' overlap at byte %" PRIu64 ": the file is damaged",
                          r->file->path, order[i - 1]->name, order[i]->name, order[i]->offset);
        goto done;
    }
done:
    free(order);
    return status;
}

/* Magic, version and the two counts. */
static tms_status read_beginning(struct reader *r, uint32_t *version, uint64_t *n_tensors, uint64_t *n_kvs,
                                 struct tms_error *err)
{
    char magic[4] = {0};
    const char *path = r->file->path;
    tms_status status;
    if (r->file->size >= sizeof magic) {
        status = take(r, magic, sizeof magic, err);
        if (status != TMS_OK) return status;
    }
    if (memcmp(magic, "GGUF", 4) != 0) {
        const char *kind = tms_sniff_file(r->file);
        if (kind) return tms_fail(err, TMS_EINPUT, "%s: no GGUF file: it is %s", path, kind);
        return tms_fail(err, TMS_EINPUT, "%s: no GGUF file, or a damaged one: it does not begin with 'GGUF'", path);
    }
    snprintf(r->where, sizeof r->where, "the beginning");
    status = take_u32(r, version, err);
    if (status != TMS_OK) return status;
    if (*version && (*version & 0xffff) == 0)
        return tms_fail(err, TMS_EINPUT,
                        "%s: a big-endian GGUF file (version bytes %08" PRIx32 "); tamis reads "
                        "little-endian ones: turn it round first, with gguf-py's gguf_convert_endian",
                        path, *version);
    if (*version == 1)
        return tms_fail(err, TMS_EINPUT,
                        "%s: GGUF version 1, which tamis does not read: convert the original model "
                        "again",
                        path);
    if (*version != 2 && *version != 3)
        return tms_fail(err, TMS_EINPUT, "%s: GGUF version %" PRIu32 ", tamis reads versions 2 and 3", path, *version);
    status = take_u64(r, n_tensors, err);
    if (status == TMS_OK) status = take_u64(r, n_kvs, err);
    return status;
}

/* One file of `gguf`: its keys go to `kvs`, its tensors behind those that are there. */
static tms_status read_file(struct tms_gguf *gguf, uint32_t number, struct tms_kvs *kvs, struct tms_error *err)
{
    const struct tms_file *file = &gguf->files[number];
    struct reader r = {.file = file, .end = file->size < MAX_METADATA ? file->size : MAX_METADATA};
    uint32_t version = 0, alignment;
    uint64_t n_tensors = 0, n_kvs = 0;
    struct tms_gguf_tensor *tensors;
    tms_status status;
    r.buffer = malloc(BUFFER_BYTES);
    if (!r.buffer) return tms_fail_memory(err, BUFFER_BYTES);
    status = read_beginning(&r, &version, &n_tensors, &n_kvs, err);
    if (status == TMS_OK) status = read_kvs(&r, kvs, n_kvs, err);
    if (status != TMS_OK) goto done;
    alignment = tms_gguf_alignment(kvs);
    if (alignment == 0) {
        status = tms_fail(err, TMS_EINPUT,
                          "%s: key 'general.alignment' is not a u32 power of two up to %u: the file "
                          "is damaged",
                          file->path, TMS_GGUF_MAX_ALIGNMENT);
        goto done;
    }
    if (n_tensors > left(&r) / MIN_INFO_BYTES) {
        status = tms_fail(err, TMS_EINPUT,
                          "%s: %" PRIu64 " tensors cannot fit into the %" PRIu64
                          " bytes that are left: the file is damaged or cut short",
                          file->path, n_tensors, left(&r));
        goto done;
    }
    /* Both are bounded by the sizes of files, far below SIZE_MAX. */
    tensors = realloc(gguf->tensors, (gguf->n_tensors + (size_t)n_tensors + 1) * sizeof tensors[0]);
    if (!tensors) {
        status = tms_fail_memory(err, (gguf->n_tensors + n_tensors) * sizeof tensors[0]);
        goto done;
    }
    gguf->tensors = tensors;
    tensors += gguf->n_tensors;
    for (uint64_t i = 0; i < n_tensors; i++) {
        snprintf(r.where, sizeof r.where, "tensor %" PRIu64 " of %" PRIu64, i + 1, n_tensors);
        status = read_info(&r, &gguf->arena, &tensors[i], err);
        if (status != TMS_OK) goto done;
        tensors[i].file = number;
    }
    status = place_tensors(&r, tensors, (size_t)n_tensors, alignment, err);
    if (status != TMS_OK) goto done;
    gguf->n_tensors += (size_t)n_tensors;
    if (number == 0) {
        gguf->version = version;
        gguf->alignment = alignment;
    }
done:
    free(r.buffer);
    return status;
}

/* ---- splits ---- */

/* A u16 key of a split file; *out is 0 if it is not there. */
static tms_status split_key(const struct tms_file *file, const struct tms_kvs *kvs, const char *key, uint64_t *out,
                            struct tms_error *err)
{
    const struct tms_kv *kv = tms_kvs_find(kvs, key);
    uint64_t value = 0;
    if (kv && (!tms_kv_as_u64(kv, &value) || value > INT32_MAX))
        return tms_fail(err, TMS_EINPUT, "%s: key '%s' is not a count: the file is damaged", file->path, key);
    *out = value;
    return TMS_OK;
}

/* *out becomes "PREFIX.gguf", to be freed, if path is PREFIX-NUMBER-of-COUNT.gguf for a number counted from 1, else
 * NULL. */
static tms_status unsplit_path(char **out, const char *path, unsigned number, unsigned count, struct tms_error *err)
{
    char *suffix = tms_gguf_shard_path("", number, count);
    char *prefix = NULL;
    size_t n = strlen(path), suffix_n;
    if (!suffix) return tms_fail_memory(err, n);
    suffix_n = strlen(suffix);
    bool fits = n > suffix_n && strcmp(path + n - suffix_n, suffix) == 0;
    free(suffix);
    if (fits) {
        prefix = tms_calloc(n + 1, 1);
        if (!prefix) return tms_fail_memory(err, n + 1);
        memcpy(prefix, path, n - suffix_n);
        memcpy(prefix + n - suffix_n, ".gguf", 6);
    }
    *out = prefix;
    return TMS_OK;
}

static tms_status fail_not_first(const struct tms_file *file, unsigned no, unsigned count, struct tms_error *err)
{
    char *prefix = NULL;
    tms_status status = unsplit_path(&prefix, file->path, no, count, err);
    if (status != TMS_OK) return status;
    char *first = tms_gguf_shard_path(prefix ? prefix : "*", 0, count);
    if (first)
        status = tms_fail(err, TMS_EINPUT, "%s: shard %u of %u: give the first one, %s", file->path, no + 1, count,
                          tms_path_base(first));
    else
        status = tms_fail_memory(err, strlen(file->path));
    free(first);
    free(prefix);
    return status;
}

static tms_status check_descriptors(const struct tms_file *file, unsigned count, struct tms_error *err)
{
    struct rlimit limit;
    const unsigned others = 32; /* what the rest of the program may have open */
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return TMS_OK;
    if (count + others <= limit.rlim_cur) return TMS_OK;
    return tms_fail(err, TMS_EIO,
                    "%s: has %u shards, but this process may open only %llu files: raise the limit with "
                    "`ulimit -n %u`",
                    file->path, count, (unsigned long long)limit.rlim_cur, count + others);
}

static tms_status open_shard(struct tms_gguf *gguf, const char *prefix, unsigned no, unsigned count,
                             struct tms_error *err)
{
    struct tms_kvs kvs = {0};
    uint64_t its_no = 0, its_count = 0;
    tms_status status = TMS_OK;
    char *path = tms_gguf_shard_path(prefix, no, count);
    if (!path) return tms_fail_memory(err, strlen(prefix));
    if (!tms_path_exists(path)) {
        status = tms_fail(err, TMS_EINPUT, "%s: shard %u of %u is missing: put all of them into one folder", path,
                          no + 1, count);
        goto done;
    }
    status = tms_file_open(&gguf->files[no], path, err);
    if (status != TMS_OK) goto done;
    gguf->n_files = no + 1;
    status = read_file(gguf, no, &kvs, err);
    if (status == TMS_OK) status = split_key(&gguf->files[no], &kvs, "split.no", &its_no, err);
    if (status == TMS_OK) status = split_key(&gguf->files[no], &kvs, "split.count", &its_count, err);
    if (status == TMS_OK && (its_no != no || its_count != count))
        status = tms_fail(err, TMS_EINPUT,
                          "%s: says it is shard %" PRIu64 " of %" PRIu64 ", not %u of %u as its name "
                          "does: put the right file in its place",
                          path, its_no + 1, its_count, no + 1, count);
done:
    tms_kvs_free(&kvs);
    free(path);
    return status;
}

/* The other shards, if the file that is open is the first of a split. */
static tms_status open_split(struct tms_gguf *gguf, struct tms_error *err)
{
    const char *path = gguf->files[0].path;
    uint64_t no = 0, count = 0, n_tensors = 0;
    char *prefix = NULL;
    struct tms_file *files;
    tms_status status = split_key(&gguf->files[0], &gguf->kvs, "split.count", &count, err);
    if (status == TMS_OK) status = split_key(&gguf->files[0], &gguf->kvs, "split.no", &no, err);
    if (status == TMS_OK) status = split_key(&gguf->files[0], &gguf->kvs, "split.tensors.count", &n_tensors, err);
    if (status != TMS_OK || count <= 1) return status; /* merging leaves a split.count of 0 */
    if (count > MAX_SHARDS || no >= count)
        return tms_fail(err, TMS_EINPUT, "%s: says it is shard %" PRIu64 " of %" PRIu64 ": the file is damaged", path,
                        no + 1, count);
    if (no != 0) return fail_not_first(&gguf->files[0], (unsigned)no, (unsigned)count, err);
    status = unsplit_path(&prefix, path, 0, (unsigned)count, err);
    if (status != TMS_OK) return status;
    if (!prefix)
        return tms_fail(err, TMS_EINPUT,
                        "%s: the first of %" PRIu64 " shards, but its name does not end in "
                        "-00001-of-%05" PRIu64 ".gguf, so the others cannot be found: rename it",
                        path, count, count);
    status = check_descriptors(&gguf->files[0], (unsigned)count, err);
    if (status != TMS_OK) goto done;
    files = realloc(gguf->files, (size_t)count * sizeof files[0]);
    if (!files) {
        status = tms_fail_memory(err, count * sizeof files[0]);
        goto done;
    }
    gguf->files = files;
    for (unsigned i = 1; i < count && status == TMS_OK; i++) status = open_shard(gguf, prefix, i, (unsigned)count, err);
    if (status == TMS_OK && n_tensors != gguf->n_tensors)
        status = tms_fail(err, TMS_EINPUT,
                          "%s: its %" PRIu64 " shards hold %zu tensors, but split.tensors.count says %" PRIu64
                          ": they do not belong together, or one is damaged",
                          gguf->files[0].path, count, gguf->n_tensors, n_tensors);
done:
    free(prefix);
    return status;
}

/* ---- the whole ---- */

static int compare_names(const void *a, const void *b)
{
    const struct tms_gguf_tensor *x = *(const struct tms_gguf_tensor *const *)a;
    const struct tms_gguf_tensor *y = *(const struct tms_gguf_tensor *const *)b;
    return strcmp(x->name, y->name);
}

static tms_status index_names(struct tms_gguf *gguf, struct tms_error *err)
{
    size_t n = gguf->n_tensors;
    gguf->by_name = tms_calloc(n, sizeof gguf->by_name[0]);
    if (!gguf->by_name) return tms_fail_memory(err, n * sizeof gguf->by_name[0]);
    for (size_t i = 0; i < n; i++) gguf->by_name[i] = &gguf->tensors[i];
    qsort(gguf->by_name, n, sizeof gguf->by_name[0], compare_names);
    for (size_t i = 1; i < n; i++) {
        const struct tms_gguf_tensor *a = gguf->by_name[i - 1], *b = gguf->by_name[i];
        if (strcmp(a->name, b->name) != 0) continue;
        if (a->file == b->file)
            return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' comes twice: the file is damaged",
                            gguf->files[a->file].path, a->name);
        return tms_fail(err, TMS_EINPUT,
                        "%s: tensor '%s' is in shards %" PRIu32 " and %" PRIu32 ": they do not belong together",
                        gguf->files[0].path, a->name, (a->file < b->file ? a->file : b->file) + 1,
                        (a->file < b->file ? b->file : a->file) + 1);
    }
    return TMS_OK;
}

tms_status tms_gguf_open(struct tms_gguf **out, const char *path, struct tms_error *err)
{
    struct tms_gguf *gguf = tms_calloc(1, sizeof *gguf);
    tms_status status;
    if (!gguf) return tms_fail_memory(err, sizeof *gguf);
    gguf->files = tms_calloc(1, sizeof gguf->files[0]);
    if (!gguf->files) {
        status = tms_fail_memory(err, sizeof gguf->files[0]);
        goto done;
    }
    status = tms_file_open(&gguf->files[0], path, err);
    if (status != TMS_OK) goto done;
    gguf->n_files = 1;
    status = read_file(gguf, 0, &gguf->kvs, err);
    if (status == TMS_OK) status = open_split(gguf, err);
    if (status == TMS_OK) status = index_names(gguf, err);
    if (status != TMS_OK) goto done;
    *out = gguf;
    gguf = NULL;
done:
    tms_gguf_close(gguf);
    return status;
}

void tms_gguf_close(struct tms_gguf *gguf)
{
    if (!gguf) return;
    for (size_t i = 0; i < gguf->n_files; i++) tms_file_close(&gguf->files[i]);
    free(gguf->files);
    free(gguf->tensors);
    free(gguf->by_name);
    tms_kvs_free(&gguf->kvs);
    tms_arena_free(&gguf->arena);
    free(gguf);
}

const struct tms_gguf_tensor *tms_gguf_find(const struct tms_gguf *gguf, const char *name)
{
    size_t low = 0, high = gguf->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, gguf->by_name[middle]->name);
        if (order == 0) return gguf->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

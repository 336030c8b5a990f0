/* Reading importance matrices.
 *
 * GGUF (llama.cpp since July 2025): general.type "imatrix", imatrix.datasets (strings), imatrix.chunk_count,
 * imatrix.chunk_size (u32); for each weight W two F32 tensors, W.in_sum2 [columns, parts], the sums of squares, and
 * W.counts [1, parts], the tokens that went into them. A part is an expert.
 *     mean = sum / count,   or 1 for the whole part if its count is 0
 *
 * .dat (before that; --output-format dat), little-endian, without a magic:
 *     i32 entries | entries: i32 length, name, i32 calls, i32 n, n f32
 *     | i32 chunks, i32 length, dataset       (not in files of before April 2024)
 *     mean = value / calls,   or the value itself if calls <= 0
 *
 * Source: common/imatrix-loader.cpp, tools/imatrix/imatrix.cpp and tools/quantize/quantize.cpp of llama.cpp. Beyond
 * what these check, every length is bounded by the bytes that are left, names hold no control characters and come once,
 * and no mean is negative. */
#include "calib/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "calib/stats.h"
#include "file/gguf.h"
#include "file/sniff.h"
#include "file/utf8.h"

#define MAX_NAME        255u /* bytes; weights in GGUF files have at most 63 */
#define MIN_ENTRY_BYTES 17u  /* of a .dat file: three numbers, one character, one value */
#define MAX_KEY_TEXT    127u /* bytes: llama.cpp's llama_model_kv_override has room for 128 with the NUL */
#define SUMS            ".in_sum2"
#define COUNTS          ".counts"

/* A line for the warning callback, if there is one; the same macro trick as tms_fail. */
#define warn(imatrix, ...)                                                                                             \
    do {                                                                                                               \
        struct tms_error line_;                                                                                        \
        tms_set_message(&line_, __VA_ARGS__);                                                                          \
        if ((imatrix)->options.warn) (imatrix)->options.warn((imatrix)->options.warn_ctx, line_.message);              \
    } while (0)

static bool holds_one_of(const char *name, const char *const *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(name, parts[i])) return true;
    return false;
}

static bool is_wanted(const struct tms_imatrix_options *options, const char *name)
{
    if (options->n_include) return holds_one_of(name, options->include, options->n_include);
    return !holds_one_of(name, options->exclude, options->n_exclude);
}

/* The entries while they are read. */
struct reading {
    struct tms_imatrix *imatrix;
    size_t cap;
    size_t n_seen; /* those that the lists leave out too */
    const char *last_seen;
};

/* Counts an entry; false if the lists leave it out. */
static bool takes(struct reading *reading, const char *name)
{
    reading->n_seen++;
    reading->last_seen = name;
    return is_wanted(&reading->imatrix->options, name);
}

static tms_status add_entry(struct reading *reading, const struct tms_imatrix_entry *entry, struct tms_error *err)
{
    struct tms_imatrix *imatrix = reading->imatrix;
    if (!tms_grow(&imatrix->entries, &reading->cap, imatrix->n + 1, sizeof *entry))
        return tms_fail_memory(err, (imatrix->n + 1) * sizeof *entry);
    imatrix->entries[imatrix->n++] = *entry;
    return TMS_OK;
}

/* The values lie in the file from `offset` on, in the same order. */
static tms_status check_values(const char *path, const struct tms_imatrix_entry *entry, uint64_t offset,
                               struct tms_error *err)
{
    for (size_t i = 0; i < entry->n_values; i++) {
        const float value = entry->values[i];
        if (isfinite(value) && value >= 0) continue;
        return tms_fail(err, TMS_EINPUT,
                        "%s: entry '%s': value %zu of %zu, at byte %" PRIu64
                        ", is %g, but must be a mean of squares: the "
                        "model met NaN or infinity on its text, or the file is damaged; --exclude-weights leaves the "
                        "entry out",
                        path, entry->name, i, entry->n_values, offset + i * sizeof value, (double)value);
    }
    return TMS_OK;
}

/* ---- .dat ---- */

struct dat {
    struct tms_file file;
    uint64_t at;
    char where[48]; /* what is being read, for messages */
};

static uint64_t left(const struct dat *dat)
{
    return dat->file.size - dat->at;
}

static tms_status take(struct dat *dat, void *to, uint64_t n, struct tms_error *err)
{
    if (n > left(dat))
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 " needs %" PRIu64 " bytes, but the file has only %" PRIu64
                        " more: it is damaged or cut short",
                        dat->file.path, dat->where, dat->at, n, left(dat));
    tms_status status = tms_file_read(&dat->file, to, n, dat->at, err);
    if (status == TMS_OK) dat->at += n;
    return status;
}

static tms_status take_i32(struct dat *dat, int32_t *out, struct tms_error *err)
{
    uint8_t b[4] = {0};
    tms_status status = take(dat, b, sizeof b, err);
    if (status == TMS_OK) *out = (int32_t)(b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
    return status;
}

static tms_status take_name(struct dat *dat, const char **out, struct tms_arena *arena, struct tms_error *err)
{
    char name[MAX_NAME + 1] = {0};
    uint64_t at = dat->at;
    int32_t n = 0;
    tms_status status = take_i32(dat, &n, err);
    if (status != TMS_OK) return status;
    if (n < 1 || n > (int32_t)MAX_NAME)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 ": its name has %" PRId32
                        " bytes, 1 to %u are allowed: the file is damaged, or no importance matrix",
                        dat->file.path, dat->where, at, n, MAX_NAME);
    status = take(dat, name, (uint64_t)n, err);
    if (status != TMS_OK) return status;
    bool fine = tms_is_utf8(name, (size_t)n);
    for (int32_t i = 0; i < n && fine; i++) fine = (unsigned char)name[i] >= 0x20 && name[i] != 0x7f;
    if (!fine)
        return tms_fail(err, TMS_EINPUT,
                        "%s: %s at byte %" PRIu64 ": its name holds control characters or is not UTF-8: the file is "
                        "damaged, or no importance matrix",
                        dat->file.path, dat->where, at);
    *out = tms_arena_strndup(arena, name, (size_t)n);
    return *out ? TMS_OK : tms_fail_memory(err, n);
}

static tms_status read_dat_entry(struct reading *reading, struct dat *dat, struct tms_error *err)
{
    struct tms_imatrix *imatrix = reading->imatrix;
    struct tms_imatrix_entry entry = {.n_counts = 1};
    int32_t n_calls = 0, n_values = 0;
    float *values;
    tms_status status = take_name(dat, &entry.name, &imatrix->arena, err);
    if (status == TMS_OK) status = take_i32(dat, &n_calls, err);
    uint64_t at = dat->at;
    if (status == TMS_OK) status = take_i32(dat, &n_values, err);
    if (status != TMS_OK) return status;
    if (n_values < 1 || (uint64_t)n_values > left(dat) / sizeof values[0])
        return tms_fail(err, TMS_EINPUT,
                        "%s: entry '%s': %" PRId32 " values, says byte %" PRIu64 ", but there is room for 1 to %" PRIu64
                        ": the file is damaged or cut short",
                        dat->file.path, entry.name, n_values, at, left(dat) / sizeof values[0]);
    entry.n_values = (size_t)n_values;
    at = dat->at;
    if (!takes(reading, entry.name)) {
        dat->at += entry.n_values * sizeof values[0];
        return TMS_OK;
    }
    values = tms_arena_alloc(&imatrix->arena, entry.n_values * sizeof values[0]);
    if (!values) return tms_fail_memory(err, entry.n_values * sizeof values[0]);
    status = take(dat, values, entry.n_values * sizeof values[0], err);
    if (status != TMS_OK) return status;
    if (n_calls > 0)
        for (size_t i = 0; i < entry.n_values; i++) values[i] /= (float)n_calls;
    entry.values = values;
    status = check_values(dat->file.path, &entry, at, err);
    return status == TMS_OK ? add_entry(reading, &entry, err) : status;
}

/* What follows the entries: nothing, or the number of chunks and the dataset. */
static tms_status read_dat_end(struct tms_imatrix *imatrix, struct dat *dat, struct tms_error *err)
{
    int32_t n_chunks = 0, n = 0;
    if (left(dat) == 0) return TMS_OK;
    snprintf(dat->where, sizeof dat->where, "the end, after the entries,");
    tms_status status = take_i32(dat, &n_chunks, err);
    if (status == TMS_OK) status = take_i32(dat, &n, err);
    if (status != TMS_OK) return status;
    if (n < 0 || (uint64_t)n > left(dat))
        return tms_fail(err, TMS_EINPUT,
                        "%s: the dataset's name at byte %" PRIu64 " has %" PRId32 " bytes, but the file has %" PRIu64
                        " more: it is damaged or cut short",
                        dat->file.path, dat->at, n, left(dat));
    if (n > 0) {
        imatrix->dataset = tms_arena_alloc(&imatrix->arena, (size_t)n + 1);
        if (!imatrix->dataset) return tms_fail_memory(err, n);
        status = take(dat, imatrix->dataset, (uint64_t)n, err);
        if (status != TMS_OK) return status;
    }
    imatrix->n_chunks = n_chunks;
    if (left(dat))
        warn(imatrix, "%s: ends at byte %" PRIu64 ", but %" PRIu64 " bytes follow, which tamis leaves aside",
             dat->file.path, dat->at, left(dat));
    return TMS_OK;
}

static tms_status read_dat(struct reading *reading, struct dat *dat, struct tms_error *err)
{
    int32_t n_entries = 0;
    snprintf(dat->where, sizeof dat->where, "the number of entries");
    tms_status status = take_i32(dat, &n_entries, err);
    if (status != TMS_OK) return status;
    if (n_entries < 1 || (uint64_t)n_entries > left(dat) / MIN_ENTRY_BYTES) {
        const char *kind = tms_sniff_file(&dat->file); /* not before: 640 entries look like a Python pickle */
        if (kind) return tms_fail(err, TMS_EINPUT, "%s: no importance matrix: it is %s", dat->file.path, kind);
        return tms_fail(err, TMS_EINPUT,
                        "%s: no importance matrix, or a damaged one: it does not begin with 'GGUF', and as a .dat file "
                        "it would have %" PRId32 " entries, but there is room for 1 to %" PRIu64,
                        dat->file.path, n_entries, left(dat) / MIN_ENTRY_BYTES);
    }
    for (int32_t i = 0; i < n_entries && status == TMS_OK; i++) {
        snprintf(dat->where, sizeof dat->where, "entry %" PRId32 " of %" PRId32, i + 1, n_entries);
        status = read_dat_entry(reading, dat, err);
    }
    return status == TMS_OK ? read_dat_end(reading->imatrix, dat, err) : status;
}

/* ---- GGUF ---- */

static tms_status read_gguf_keys(struct tms_imatrix *imatrix, const struct tms_gguf *gguf, struct tms_error *err)
{
    const struct tms_kv *type = tms_kvs_find(&gguf->kvs, "general.type");
    const struct tms_kv *datasets = tms_kvs_find(&gguf->kvs, "imatrix.datasets");
    const struct tms_kv *chunks = tms_kvs_find(&gguf->kvs, "imatrix.chunk_count");
    const struct tms_kv *chunk_size = tms_kvs_find(&gguf->kvs, "imatrix.chunk_size");
    const char *path = gguf->files[0].path;
    const char *text = tms_kv_as_string(type);
    uint64_t n_chunks = 0, n = 0;
    if (text ? strcmp(text, "imatrix") != 0 : type || (!datasets && !chunks && !chunk_size))
        return tms_fail(err, TMS_EINPUT,
                        "%s: a GGUF file, but no importance matrix (its general.type is '%.40s'): give the one that "
                        "llama-imatrix wrote",
                        path, text ? text : "");
    if (!datasets || datasets->type != TMS_KV_ARRAY || datasets->elem_type != TMS_KV_STRING)
        return tms_fail(err, TMS_EINPUT,
                        "%s: key 'imatrix.datasets' is missing or no list of texts: the file is damaged", path);
    if (!chunks || chunks->type != TMS_KV_U32 || !tms_kv_as_u64(chunks, &n_chunks))
        return tms_fail(err, TMS_EINPUT, "%s: key 'imatrix.chunk_count' is missing or no u32: the file is damaged",
                        path);
    if (!chunk_size || chunk_size->type != TMS_KV_U32)
        return tms_fail(err, TMS_EINPUT, "%s: key 'imatrix.chunk_size' is missing or no u32: the file is damaged",
                        path);
    imatrix->n_chunks = n_chunks > INT32_MAX ? 0 : (int32_t)n_chunks;
    if (datasets->count == 0) return TMS_OK;
    for (int b = 7; b >= 0; b--) n = n << 8 | datasets->bytes[b]; /* the reader has seen that the text fits */
    imatrix->dataset = tms_arena_strndup(&imatrix->arena, (const char *)datasets->bytes + 8, (size_t)n);
    return imatrix->dataset ? TMS_OK : tms_fail_memory(err, n);
}

static tms_status read_tensor(const struct tms_gguf *gguf, const struct tms_gguf_tensor *tensor, float **out,
                              struct tms_arena *arena, struct tms_error *err)
{
    float *values = tms_arena_alloc(arena, (size_t)tensor->bytes);
    if (!values) return tms_fail_memory(err, tensor->bytes);
    tms_status status = tms_file_read(&gguf->files[tensor->file], values, tensor->bytes, tensor->offset, err);
    if (status == TMS_OK) *out = values;
    return status;
}

/* Sums become means, in place. */
static tms_status divide(struct tms_imatrix_entry *entry, float *values, const float *counts, const char *path,
                         uint64_t counts_offset, struct tms_error *err)
{
    const size_t n = entry->n_values / entry->n_counts;
    for (size_t part = 0; part < entry->n_counts; part++) {
        if (!isfinite(counts[part]) || counts[part] < 0)
            return tms_fail(err, TMS_EINPUT,
                            "%s: entry '%s': count %zu of %zu, at byte %" PRIu64
                            ", is %g, which is no number of tokens: "
                            "the file is damaged",
                            path, entry->name, part, entry->n_counts, counts_offset + part * sizeof counts[0],
                            (double)counts[part]);
        const float count = roundf(counts[part]); /* llama.cpp keeps counts as integers */
        for (size_t i = 0; i < n; i++) values[part * n + i] = count > 0 ? values[part * n + i] / count : 1;
        entry->n_unseen += !(count > 0);
    }
    return TMS_OK;
}

static void report_unseen(const struct tms_imatrix *imatrix, const struct tms_imatrix_entry *entry)
{
    if (entry->n_unseen == 0) return;
    if (entry->n_counts == 1)
        warn(imatrix, "%s: entry '%s': no token reached it: all its columns weigh the same", imatrix->path,
             entry->name);
    else
        warn(imatrix, "%s: entry '%s': %zu of %zu experts were never seen: all their columns weigh the same",
             imatrix->path, entry->name, entry->n_unseen, entry->n_counts);
}

static tms_status read_gguf_entry(struct reading *reading, const struct tms_gguf *gguf, const char *name,
                                  const struct tms_gguf_tensor *sums, const struct tms_gguf_tensor *counts,
                                  struct tms_error *err)
{
    struct tms_imatrix *imatrix = reading->imatrix;
    const char *path = gguf->files[0].path;
    struct tms_imatrix_entry entry = {.name = name};
    struct tms_arena scratch = {0};
    float *values = NULL, *its_counts = NULL;
    tms_status status;
    if (sums->type != TMS_F32 || counts->type != TMS_F32)
        return tms_fail(err, TMS_EINPUT, "%s: entry '%s': sums and counts must be f32: the file is damaged", path,
                        name);
    entry.n_values = (size_t)(sums->bytes / sizeof values[0]);
    entry.n_counts = (size_t)(counts->bytes / sizeof values[0]);
    if (entry.n_values % entry.n_counts)
        return tms_fail(err, TMS_EINPUT, "%s: entry '%s': %zu counts do not divide %zu sums: the file is damaged", path,
                        name, entry.n_counts, entry.n_values);
    if (!takes(reading, name)) return TMS_OK;
    status = read_tensor(gguf, sums, &values, &imatrix->arena, err);
    if (status == TMS_OK) status = read_tensor(gguf, counts, &its_counts, &scratch, err);
    if (status == TMS_OK) status = divide(&entry, values, its_counts, path, counts->offset, err);
    entry.values = values;
    if (status == TMS_OK) status = check_values(path, &entry, sums->offset, err);
    if (status == TMS_OK) status = add_entry(reading, &entry, err);
    tms_arena_free(&scratch);
    if (status == TMS_OK) report_unseen(imatrix, &entry);
    return status;
}

/* The tensor of the same entry with the other ending. */
static tms_status find_partner(const struct tms_gguf *gguf, const char *name, const char *ending,
                               const struct tms_gguf_tensor **out, struct tms_error *err)
{
    char partner[TMS_GGUF_MAX_NAME + sizeof SUMS];
    snprintf(partner, sizeof partner, "%s%s", name, ending);
    *out = tms_gguf_find(gguf, partner);
    if (*out) return TMS_OK;
    return tms_fail(err, TMS_EINPUT, "%s: entry '%s': there is no tensor '%s': the file is damaged",
                    gguf->files[0].path, name, partner);
}

static tms_status read_gguf(struct reading *reading, const struct tms_gguf *gguf, struct tms_error *err)
{
    tms_status status = read_gguf_keys(reading->imatrix, gguf, err);
    for (size_t i = 0; i < gguf->n_tensors && status == TMS_OK; i++) {
        const struct tms_gguf_tensor *tensor = &gguf->tensors[i], *partner = NULL;
        const bool is_sums = tms_ends_with(tensor->name, SUMS);
        if (!is_sums && !tms_ends_with(tensor->name, COUNTS)) continue; /* newer files hold more, as in_sum */
        const size_t n = strlen(tensor->name) - strlen(is_sums ? SUMS : COUNTS);
        const char *name = tms_arena_strndup(&reading->imatrix->arena, tensor->name, n);
        if (!name) return tms_fail_memory(err, n);
        status = find_partner(gguf, name, is_sums ? COUNTS : SUMS, &partner, err);
        if (status == TMS_OK && is_sums) status = read_gguf_entry(reading, gguf, name, tensor, partner, err);
    }
    if (status == TMS_OK && reading->n_seen == 0)
        status = tms_fail(err, TMS_EINPUT, "%s: an importance matrix without entries: llama-imatrix saw no text",
                          gguf->files[0].path);
    return status;
}

/* ---- statistics of tamis calibrate ---- */

static tms_status read_stats_entry(struct reading *reading, const struct tms_stats *stats, const char *weight,
                                   struct tms_error *err)
{
    struct tms_imatrix *imatrix = reading->imatrix;
    struct tms_stats_input in;
    struct tms_imatrix_entry entry = {0};
    tms_status status = tms_stats_read(stats, weight, &in, err);
    if (status != TMS_OK) return status;
    entry.name = tms_arena_strndup(&imatrix->arena, weight, strlen(weight));
    entry.n_counts = in.parts;
    entry.n_values = in.parts * in.cols;
    float *values = tms_arena_alloc(&imatrix->arena, entry.n_values * sizeof *values);
    if (!entry.name || !values) status = tms_fail_memory(err, entry.n_values * sizeof *values);
    for (size_t i = 0; i < entry.n_values && status == TMS_OK; i++) {
        int64_t tokens = in.counts[i / in.cols];
        float count = (float)tokens;
        values[i] = count > 0 ? (float)in.squares[i] / count : 1;
    }
    for (size_t i = 0; i < in.parts; i++) entry.n_unseen += in.counts[i] == 0;
    tms_stats_drop(&in);
    entry.values = values;
    if (status == TMS_OK) status = add_entry(reading, &entry, err);
    if (status == TMS_OK) report_unseen(imatrix, &entry);
    return status;
}

static tms_status read_stats(struct reading *reading, const char *path, struct tms_error *err)
{
    struct tms_imatrix *imatrix = reading->imatrix;
    struct tms_stats *stats = NULL;
    const char *name, *data;
    json_t *input;
    tms_status status = tms_stats_open(&stats, path, err);
    if (status != TMS_OK) return status;
    data = json_string_value(json_object_get(stats->about, "data"));
    if (data) imatrix->dataset = tms_arena_strndup(&imatrix->arena, data, strlen(data));
    const char *fingerprint = tms_stats_fingerprint(stats), *model = tms_stats_model(stats);
    imatrix->fingerprint = tms_arena_strndup(&imatrix->arena, fingerprint, strlen(fingerprint));
    imatrix->model = tms_arena_strndup(&imatrix->arena, model, strlen(model));
    if (!imatrix->fingerprint || !imatrix->model) status = tms_fail_memory(err, 256);
    json_int_t n_chunks = json_integer_value(json_object_get(stats->about, "sequences"));
    imatrix->n_chunks = n_chunks > INT32_MAX ? 0 : (int32_t)n_chunks;
    json_object_foreach(json_object_get(stats->about, "weights"), name,
                        input) if (status == TMS_OK && takes(reading, name)) status =
        read_stats_entry(reading, stats, name, err);
    if (reading->last_seen)
        reading->last_seen = tms_arena_strndup(&imatrix->arena, reading->last_seen, strlen(reading->last_seen));
    tms_stats_close(stats);
    return status;
}

/* ---- all three ---- */

static int compare_names(const void *a, const void *b)
{
    const struct tms_imatrix_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static tms_status check_lists(const struct tms_imatrix_options *options, struct tms_error *err)
{
    if (options->n_include && options->n_exclude)
        return tms_fail(err, TMS_EUSAGE,
                        "--include-weights and --exclude-weights do not go together: give one of them");
    return TMS_OK;
}

static tms_status finish(const struct reading *reading, struct tms_error *err)
{
    struct tms_imatrix *imatrix = reading->imatrix;
    if (imatrix->n == 0)
        return tms_fail(err, TMS_EUSAGE, "%s: --%s-weights leaves none of its %zu entries; their names are like '%s'",
                        imatrix->path, imatrix->options.n_include ? "include" : "exclude", reading->n_seen,
                        reading->last_seen);
    qsort(imatrix->entries, imatrix->n, sizeof imatrix->entries[0], compare_names);
    for (size_t i = 1; i < imatrix->n; i++)
        if (strcmp(imatrix->entries[i - 1].name, imatrix->entries[i].name) == 0)
            return tms_fail(err, TMS_EINPUT, "%s: entry '%s' comes twice: the file is damaged", imatrix->path,
                            imatrix->entries[i].name);
    return TMS_OK;
}

tms_status tms_imatrix_open(struct tms_imatrix **out, const char *path, const struct tms_imatrix_options *options,
                            struct tms_error *err)
{
    struct tms_imatrix *imatrix = tms_calloc(1, sizeof *imatrix);
    struct reading reading = {.imatrix = imatrix};
    struct tms_gguf *gguf = NULL;
    struct dat dat = {.file = {.fd = -1}};
    char magic[4] = {0};
    tms_status status;
    if (!imatrix) return tms_fail_memory(err, sizeof *imatrix);
    if (options) imatrix->options = *options;
    status = check_lists(&imatrix->options, err);
    if (status != TMS_OK) goto done;
    imatrix->path = tms_arena_strndup(&imatrix->arena, path, strlen(path));
    if (!imatrix->path) {
        status = tms_fail_memory(err, strlen(path));
        goto done;
    }
    status = tms_file_open(&dat.file, path, err);
    if (status == TMS_OK && dat.file.size >= sizeof magic)
        status = tms_file_read(&dat.file, magic, sizeof magic, 0, err);
    if (status != TMS_OK) goto done;
    if (memcmp(magic, "GGUF", sizeof magic) == 0) {
        status = tms_gguf_open(&gguf, path, err);
        if (status == TMS_OK) status = read_gguf(&reading, gguf, err);
    } else if (tms_is_stats(&dat.file)) {
        status = read_stats(&reading, path, err);
    } else {
        status = read_dat(&reading, &dat, err);
    }
    if (status == TMS_OK) status = finish(&reading, err);
    if (status != TMS_OK) goto done;
    *out = imatrix;
    imatrix = NULL;
done:
    tms_gguf_close(gguf);
    tms_file_close(&dat.file);
    tms_imatrix_close(imatrix);
    return status;
}

void tms_imatrix_close(struct tms_imatrix *imatrix)
{
    if (!imatrix) return;
    free(imatrix->entries);
    tms_arena_free(&imatrix->arena);
    free(imatrix);
}

const struct tms_imatrix_entry *tms_imatrix_find(const struct tms_imatrix *imatrix, const char *name)
{
    const struct tms_imatrix_entry key = {.name = name};
    return bsearch(&key, imatrix->entries, imatrix->n, sizeof key, compare_names);
}

tms_status tms_imatrix_values(const struct tms_imatrix *imatrix, const char *name, uint64_t n_cols, uint64_t n_mats,
                              const float **values, struct tms_error *err)
{
    const struct tms_imatrix_entry *entry = tms_imatrix_find(imatrix, name);
    uint64_t n = 0;
    if (!entry) {
        *values = NULL;
        return TMS_OK;
    }
    if (tms_mul_u64(n_cols, n_mats, &n) && n == entry->n_values) {
        *values = entry->values;
        return TMS_OK;
    }
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0) {
        warn(imatrix, "%s: entry '%s' has %zu values, the tensor %" PRIu64 " columns: it is quantized without them",
             imatrix->path, name, entry->n_values, n_cols);
        *values = NULL;
        return TMS_OK;
    }
    return tms_fail(err, TMS_EINPUT,
                    "%s: entry '%s' has %zu values, but the tensor has %" PRIu64 " (%" PRIu64 " columns in %" PRIu64
                    " matrices): the matrix was made from another model",
                    imatrix->path, name, entry->n_values, n, n_cols, n_mats);
}

/* A text of at most MAX_KEY_TEXT bytes; llama-quantize cuts anywhere, which can leave half a character. */
static void set_text(struct tms_kvs *kvs, const char *key, const char *text)
{
    char part[MAX_KEY_TEXT + 1] = {0};
    size_t n = strlen(text);
    if (n > MAX_KEY_TEXT) {
        n = MAX_KEY_TEXT;
        while (n && ((unsigned char)text[n] & 0xc0) == 0x80) n--; /* a continuation byte may not come first behind */
    }
    memcpy(part, text, n);
    tms_kvs_remove(kvs, key); /* llama-quantize appends, whether or not the source has the key */
    tms_kvs_set_string(kvs, key, part);
}

static void set_number(struct tms_kvs *kvs, const char *key, uint32_t number)
{
    tms_kvs_remove(kvs, key);
    tms_kvs_set_u32(kvs, key, number);
}

void tms_imatrix_set_keys(const struct tms_imatrix *imatrix, struct tms_kvs *kvs)
{
    set_text(kvs, "quantize.imatrix.file", imatrix->path);
    if (imatrix->dataset) set_text(kvs, "quantize.imatrix.dataset", imatrix->dataset);
    set_number(kvs, "quantize.imatrix.entries_count", (uint32_t)imatrix->n);
    if (imatrix->n_chunks > 0) set_number(kvs, "quantize.imatrix.chunks_count", (uint32_t)imatrix->n_chunks);
}

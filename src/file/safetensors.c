/* Reading safetensors files.
 *
 *     u64 N | N bytes of JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …} | data
 *
 * Offsets count from the end of the header. The checks are those of the reference (huggingface/safetensors,
 * safetensors/src/tensor.rs, version 0.6), and beyond them: no name or key comes twice, no name holds a NUL. */
#include "file/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "file/sniff.h"

#define LENGTH_FIELD 8u /* bytes of the header's length, in front of it */

/* "[2, 3]" for messages; cut when it does not fit. */
static const char *shape_text(char out[160], const uint64_t *shape, uint32_t n_dims)
{
    size_t n = 0;
    out[n++] = '[';
    for (uint32_t i = 0; i < n_dims && n < 130; i++)
        n += (size_t)snprintf(out + n, 160 - n, "%s%" PRIu64, i ? ", " : "", shape[i]);
    memcpy(out + n, "]", 2);
    return out;
}

static tms_status read_u64(const json_t *json, uint64_t *out)
{
    if (!json_is_integer(json) || json_integer_value(json) < 0) return TMS_EINPUT;
    *out = (uint64_t)json_integer_value(json);
    return TMS_OK;
}

/* Everything about one entry of the header that does not depend on the others. `data_bytes` is the size of the
 * data section. The offset in `out` is still relative to it. */
static tms_status read_entry(struct tms_st_tensor *out, const char *path, const char *name, const json_t *entry,
                             uint64_t data_bytes, struct tms_error *err)
{
    struct tms_st_tensor tensor = {.name = name};
    if (!json_is_object(entry))
        return tms_fail(err, TMS_EINPUT, "%s: header: the entry of tensor '%s' is not an object: the file is damaged",
                        path, name);

    const json_t *dtype = json_object_get(entry, "dtype");
    if (!json_is_string(dtype))
        return tms_fail(err, TMS_EINPUT, "%s: header: tensor '%s' has no dtype: the file is damaged", path, name);
    tensor.type = tms_st_dtype_from_name(json_string_value(dtype));
    if (tensor.type == TMS_TYPE_NONE)
        return tms_fail(err, TMS_EINPUT, "%s: header: tensor '%s' has the dtype '%.40s', which tamis does not know",
                        path, name, json_string_value(dtype));
    const char *type_name = tms_st_dtype_name(tensor.type);

    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return tms_fail(err, TMS_EINPUT, "%s: header: tensor '%s' has no shape: the file is damaged", path, name);
    if (json_array_size(shape) > TMS_ST_MAX_DIMS)
        return tms_fail(err, TMS_EINPUT, "%s: header: tensor '%s' has %zu dimensions, tamis reads at most %u", path,
                        name, json_array_size(shape), TMS_ST_MAX_DIMS);
    tensor.n_dims = (uint32_t)json_array_size(shape);
    tensor.n_elems = 1;
    for (uint32_t i = 0; i < tensor.n_dims; i++) {
        if (read_u64(json_array_get(shape, i), &tensor.shape[i]) != TMS_OK)
            return tms_fail(err, TMS_EINPUT,
                            "%s: header: tensor '%s': dimension %" PRIu32 " of its shape is not a whole number >= 0: "
                            "the file is damaged",
                            path, name, i);
        if (!tms_mul_u64(tensor.n_elems, tensor.shape[i], &tensor.n_elems))
            return tms_fail(err, TMS_EINPUT,
                            "%s: header: tensor '%s': the product of its shape overflows: the file is damaged", path,
                            name);
    }
    char shape_buf[160];
    uint64_t bits;
    if (!tms_mul_u64(tensor.n_elems, tms_st_dtype_bits(tensor.type), &bits))
        return tms_fail(err, TMS_EINPUT, "%s: header: tensor '%s': the size of %s %s overflows: the file is damaged",
                        path, name, type_name, shape_text(shape_buf, tensor.shape, tensor.n_dims));
    if (bits % 8)
        return tms_fail(err, TMS_EINPUT, "%s: header: tensor '%s': %s %s does not fill whole bytes", path, name,
                        type_name, shape_text(shape_buf, tensor.shape, tensor.n_dims));
    tensor.bytes = bits / 8;

    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t end;
    if (json_array_size(offsets) != 2 || read_u64(json_array_get(offsets, 0), &tensor.offset) != TMS_OK ||
        read_u64(json_array_get(offsets, 1), &end) != TMS_OK)
        return tms_fail(err, TMS_EINPUT,
                        "%s: header: tensor '%s': data_offsets are not two whole numbers >= 0: the file is damaged",
                        path, name);
    if (end < tensor.offset)
        return tms_fail(err, TMS_EINPUT,
                        "%s: tensor '%s': data_offsets [%" PRIu64 ", %" PRIu64 "] end before they begin: the file is "
                        "damaged",
                        path, name, tensor.offset, end);
    if (end - tensor.offset != tensor.bytes)
        return tms_fail(err, TMS_EINPUT,
                        "%s: tensor '%s': data_offsets [%" PRIu64 ", %" PRIu64 "] do not match %s %s (%" PRIu64
                        " bytes): the file is damaged",
                        path, name, tensor.offset, end, type_name, shape_text(shape_buf, tensor.shape, tensor.n_dims),
                        tensor.bytes);
    if (end > data_bytes)
        return tms_fail(err, TMS_EINPUT,
                        "%s: tensor '%s': its data end at byte %" PRIu64 " of the data section, which has only %" PRIu64
                        ": the file is cut short, download it again",
                        path, name, end, data_bytes);
    *out = tensor;
    return TMS_OK;
}

static tms_status read_metadata(struct tms_safetensors *st, json_t *metadata, struct tms_error *err)
{
    if (json_is_null(metadata)) return TMS_OK;
    if (!json_is_object(metadata))
        return tms_fail(err, TMS_EINPUT, "%s: header: __metadata__ is not an object: the file is damaged",
                        st->file.path);
    size_t n = json_object_size(metadata);
    st->metadata = tms_arena_alloc(&st->arena, (n ? n : 1) * sizeof st->metadata[0]);
    if (!st->metadata) return tms_fail_memory(err, n * sizeof st->metadata[0]);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return tms_fail(err, TMS_EINPUT, "%s: header: __metadata__ '%.100s' is not a string: the file is damaged",
                            st->file.path, key);
        if (strlen(json_string_value(value)) != json_string_length(value))
            return tms_fail(err, TMS_EINPUT, "%s: header: __metadata__ '%.100s' holds a NUL: the file is damaged",
                            st->file.path, key);
        char *own_key = tms_arena_strndup(&st->arena, key, strlen(key));
        char *own_value = tms_arena_strndup(&st->arena, json_string_value(value), json_string_length(value));
        if (!own_key || !own_value) return tms_fail_memory(err, json_string_length(value));
        st->metadata[st->n_metadata].key = own_key;
        st->metadata[st->n_metadata].value = own_value;
        st->n_metadata++;
    }
    return TMS_OK;
}

/* By place in the file; of empty tensors at one place the one whose entry came first. */
static int compare_places(const void *a, const void *b)
{
    const struct tms_st_tensor *x = *(const struct tms_st_tensor *const *)a;
    const struct tms_st_tensor *y = *(const struct tms_st_tensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int compare_names(const void *a, const void *b)
{
    const struct tms_st_tensor *x = *(const struct tms_st_tensor *const *)a;
    const struct tms_st_tensor *y = *(const struct tms_st_tensor *const *)b;
    return strcmp(x->name, y->name);
}

/* Sorts the tensors by place and requires that they fill the data section: each begins where the one before ends. */
static tms_status place_tensors(struct tms_safetensors *st, const struct tms_st_tensor *entries, uint64_t data_bytes,
                                struct tms_error *err)
{
    size_t n = st->n_tensors;
    const struct tms_st_tensor **order = st->by_name;
    for (size_t i = 0; i < n; i++) order[i] = &entries[i];
    qsort(order, n, sizeof order[0], compare_places);
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        const struct tms_st_tensor *tensor = order[i];
        if (tensor->offset < end)
            return tms_fail(err, TMS_EINPUT,
                            "%s: tensor '%s' begins at byte %" PRIu64 " of the data section, inside tensor '%s', which "
                            "ends at %" PRIu64 ": the file is damaged",
                            st->file.path, tensor->name, tensor->offset, order[i - 1]->name, end);
        if (tensor->offset > end)
            return tms_fail(err, TMS_EINPUT,
                            "%s: tensor '%s' begins at byte %" PRIu64 " of the data section, but %" PRIu64
                            " comes next (a hole): the file is damaged",
                            st->file.path, tensor->name, tensor->offset, end);
        end = tensor->offset + tensor->bytes;
        st->tensors[i] = *tensor;
        st->tensors[i].offset += st->data_offset;
    }
    if (end != data_bytes)
        return tms_fail(err, TMS_EINPUT,
                        "%s: the tensors end at byte %" PRIu64 " of the data section, which has %" PRIu64
                        " (bytes that belong to no tensor): the file is damaged",
                        st->file.path, end, data_bytes);
    for (size_t i = 0; i < n; i++) st->by_name[i] = &st->tensors[i];
    qsort(st->by_name, n, sizeof st->by_name[0], compare_names);
    return TMS_OK;
}

static tms_status read_tensors(struct tms_safetensors *st, json_t *header, struct tms_error *err)
{
    size_t n = json_object_size(header), i = 0;
    uint64_t data_bytes = st->file.size - st->data_offset;
    struct tms_st_tensor *entries = tms_calloc(n ? n : 1, sizeof entries[0]);
    tms_status status = TMS_OK;
    const char *name;
    json_t *entry;
    /* An entry takes some 60 bytes of the header at least, so that these stay in proportion to the file. */
    st->tensors = tms_arena_alloc(&st->arena, (n ? n : 1) * sizeof st->tensors[0]);
    st->by_name = tms_arena_alloc(&st->arena, (n ? n : 1) * sizeof st->by_name[0]);
    if (!entries || !st->tensors || !st->by_name) {
        status = tms_fail_memory(err, n * sizeof entries[0]);
        goto done;
    }
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            status = read_metadata(st, entry, err);
            if (status != TMS_OK) goto done;
            continue;
        }
        size_t length = strlen(name);
        if (length > TMS_ST_MAX_NAME) {
            status = tms_fail(err, TMS_EINPUT,
                              "%s: header: the name of a tensor has %zu bytes, tamis reads at most %u: it begins with "
                              "'%.40s'",
                              st->file.path, length, TMS_ST_MAX_NAME, name);
            goto done;
        }
        const char *own_name = tms_arena_strndup(&st->arena, name, length);
        if (!own_name) {
            status = tms_fail_memory(err, length);
            goto done;
        }
        status = read_entry(&entries[i], st->file.path, own_name, entry, data_bytes, err);
        if (status != TMS_OK) goto done;
        i++;
    }
    st->n_tensors = i;
    status = place_tensors(st, entries, data_bytes, err);
done:
    free(entries);
    return status;
}

/* A file that is no safetensors file: says what it is if that can be told, else `what` is wrong with it. */
static tms_status not_safetensors(const struct tms_file *file, const char *what, struct tms_error *err)
{
    const char *kind = tms_sniff_file(file);
    if (kind) return tms_fail(err, TMS_EINPUT, "%s: no safetensors file: it is %s", file->path, kind);
    return tms_fail(err, TMS_EINPUT, "%s: no safetensors file, or a damaged one: %s", file->path, what);
}

static tms_status read_header(struct tms_safetensors *st, struct tms_error *err)
{
    const struct tms_file *file = &st->file;
    tms_status status;
    json_t *json = NULL;
    char *text = NULL;
    char *where = NULL;
    uint8_t length[LENGTH_FIELD];
    uint64_t n = 0;
    char what[160];

    if (file->size < LENGTH_FIELD) {
        snprintf(what, sizeof what, "it has %" PRIu64 " bytes, the length of the header alone takes 8", file->size);
        return not_safetensors(file, what, err);
    }
    status = tms_file_read(file, length, sizeof length, 0, err);
    if (status != TMS_OK) return status;
    for (unsigned i = 0; i < LENGTH_FIELD; i++) n |= (uint64_t)length[i] << 8 * i;
    if (n > TMS_ST_MAX_HEADER) {
        snprintf(what, sizeof what, "its header would have %" PRIu64 " bytes, the format allows %u", n,
                 TMS_ST_MAX_HEADER);
        return not_safetensors(file, what, err);
    }
    if (n > file->size - LENGTH_FIELD) {
        snprintf(what, sizeof what, "its header would have %" PRIu64 " bytes, the file has only %" PRIu64, n,
                 file->size);
        return not_safetensors(file, what, err);
    }
    text = malloc((size_t)n + 1);
    where = tms_arena_printf(&st->arena, "%s: header", file->path);
    if (!text || !where) {
        status = tms_fail_memory(err, n);
        goto done;
    }
    status = tms_file_read(file, text, n, LENGTH_FIELD, err);
    if (status != TMS_OK) goto done;
    if (n == 0 || text[0] != '{') {
        status = not_safetensors(file, "its header does not begin with '{'", err);
        goto done;
    }
    st->data_offset = LENGTH_FIELD + n;
    status = tms_json_parse(&json, text, (size_t)n, where, err);
    if (status != TMS_OK) goto done;
    status = read_tensors(st, json, err);
done:
    json_decref(json);
    free(text);
    return status;
}

tms_status tms_safetensors_open(struct tms_safetensors **out, const char *path, struct tms_error *err)
{
    struct tms_safetensors *st = tms_calloc(1, sizeof *st);
    if (!st) return tms_fail_memory(err, sizeof *st);
    tms_status status = tms_file_open(&st->file, path, err);
    if (status != TMS_OK) {
        free(st);
        return status;
    }
    status = read_header(st, err);
    if (status == TMS_OK)
        *out = st;
    else
        tms_safetensors_close(st);
    return status;
}

void tms_safetensors_close(struct tms_safetensors *st)
{
    if (!st) return;
    tms_file_close(&st->file);
    tms_arena_free(&st->arena);
    free(st);
}

const struct tms_st_tensor *tms_safetensors_find(const struct tms_safetensors *st, const char *name)
{
    size_t low = 0, high = st->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, st->by_name[middle]->name);
        if (order == 0) return st->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

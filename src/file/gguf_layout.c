/* Where everything goes in a GGUF file that is about to be written, and what shapes a GGUF file can hold.
 *
 *     "GGUF" | u32 3 | u64 tensors | u64 keys | keys | tensor infos | padding | data
 *
 * llama.cpp accepts only offsets that are the padded sum of the sizes before (ggml/src/gguf.cpp), with the same
 * alignment everywhere; so do we write, honouring general.alignment. */
#include "file/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/utf8.h"

uint32_t tms_gguf_alignment(const struct tms_kvs *kvs)
{
    const struct tms_kv *kv = tms_kvs_find(kvs, "general.alignment");
    if (!kv) return TMS_GGUF_ALIGNMENT;
    uint64_t alignment;
    if (kv->type != TMS_KV_U32 || !tms_kv_as_u64(kv, &alignment)) return 0;
    if (alignment > TMS_GGUF_MAX_ALIGNMENT || (alignment & (alignment - 1)) != 0) return 0;
    return (uint32_t)alignment;
}

const char *tms_gguf_tensor_bytes(enum tms_type type, uint32_t n_dims, const uint64_t *ne, uint64_t *bytes)
{
    const struct tms_codec *codec = type < TMS_GGML_TYPES ? tms_codec(type) : NULL;
    if (!codec || codec->block_bytes == 0) return "has a type that GGUF does not know (or no longer)";
    if (n_dims == 0 || n_dims > TMS_GGUF_MAX_DIMS) return "has a number of dimensions that is not 1 to 4";
    uint64_t rows = 1, n_elems, total;
    for (uint32_t i = 0; i < n_dims; i++) {
        if (ne[i] == 0) return "has a dimension of length 0";
        if (i > 0 && !tms_mul_u64(rows, ne[i], &rows)) return "has a shape whose product overflows";
    }
    if (!tms_mul_u64(rows, ne[0], &n_elems) || n_elems > INT64_MAX) return "has a shape whose product overflows";
    if (ne[0] % codec->block_elems) return "has rows that are no multiple of the block of its type";
    uint64_t row_bytes = tms_codec_bytes(codec, ne[0]);
    if (row_bytes == UINT64_MAX || !tms_mul_u64(row_bytes, rows, &total) || total > INT64_MAX)
        return "has a size that overflows";
    *bytes = total;
    return NULL;
}

const char *tms_gguf_shape_text(char out[128], enum tms_type type, uint32_t n_dims, const uint64_t *ne)
{
    const struct tms_codec *codec = type < TMS_GGML_TYPES ? tms_codec(type) : NULL;
    size_t n = (size_t)(codec ? snprintf(out, 128, "%.20s [", codec->name) : snprintf(out, 128, "type %d [", type));
    for (uint32_t i = 0; i < n_dims && i < TMS_GGUF_MAX_DIMS; i++)
        n += (size_t)snprintf(out + n, 128 - n, "%s%" PRIu64, i ? ", " : "", ne[i]);
    memcpy(out + n, "]", 2);
    return out;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static tms_status check_names(const struct tms_gguf_plan_tensor *tensors, size_t n, struct tms_error *err)
{
    const char **names = tms_calloc(n, sizeof names[0]);
    if (!names) return tms_fail_memory(err, n * sizeof names[0]);
    tms_status status = TMS_OK;
    for (size_t i = 0; i < n && status == TMS_OK; i++) {
        size_t length = strlen(tensors[i].name);
        names[i] = tensors[i].name;
        if (length == 0 || length > TMS_GGUF_MAX_NAME || !tms_is_utf8(names[i], length))
            status = tms_fail(err, TMS_EUSAGE,
                              "GGUF layout: '%.100s' cannot be the name of a tensor: it needs 1 to %u "
                              "bytes of UTF-8",
                              names[i], TMS_GGUF_MAX_NAME);
    }
    if (status == TMS_OK) qsort(names, n, sizeof names[0], compare_names);
    for (size_t i = 1; i < n && status == TMS_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = tms_fail(err, TMS_EUSAGE, "GGUF layout: tensor '%s' comes twice", names[i]);
    free(names);
    return status;
}

tms_status tms_gguf_layout(const struct tms_kvs *kvs, struct tms_gguf_plan_tensor *tensors, size_t n,
                           struct tms_buf *header, uint64_t *file_size, struct tms_error *err)
{
    struct tms_buf buf = {0};
    if (kvs->failed) return tms_fail_memory(err, 0);
    uint32_t alignment = tms_gguf_alignment(kvs);
    if (alignment == 0)
        return tms_fail(err, TMS_EUSAGE, "GGUF layout: general.alignment is not a u32 power of two up to %u",
                        TMS_GGUF_MAX_ALIGNMENT);
    tms_status status = check_names(tensors, n, err);
    if (status != TMS_OK) return status;

    uint64_t data = 0; /* bytes of the data section so far, padding included */
    tms_buf_put(&buf, "GGUF", 4);
    tms_buf_u32(&buf, 3);
    tms_buf_u64(&buf, n);
    tms_buf_u64(&buf, kvs->n);
    tms_kvs_serialize(kvs, &buf);
    for (size_t i = 0; i < n; i++) {
        const struct tms_gguf_plan_tensor *tensor = &tensors[i];
        uint64_t bytes;
        char shape[128];
        const char *problem = tms_gguf_tensor_bytes(tensor->type, tensor->n_dims, tensor->ne, &bytes);
        if (problem) {
            status = tms_fail(err, TMS_EUSAGE, "GGUF layout: tensor '%s', %s, %s", tensor->name,
                              tms_gguf_shape_text(shape, tensor->type, tensor->n_dims, tensor->ne), problem);
            goto done;
        }
        tms_kv_put_string(&buf, tensor->name, strlen(tensor->name));
        tms_buf_u32(&buf, tensor->n_dims);
        for (uint32_t d = 0; d < tensor->n_dims; d++) tms_buf_u64(&buf, tensor->ne[d]);
        tms_buf_u32(&buf, tensor->type);
        tms_buf_u64(&buf, data);
        /* Both stay below 2^63, so that neither the padding nor the sum can wrap. */
        if (!tms_add_u64(data, tms_align_up(bytes, alignment), &data) || data > INT64_MAX) {
            status = tms_fail(err, TMS_EUSAGE, "GGUF layout: the sizes of the tensors overflow");
            goto done;
        }
    }
    tms_buf_zeros(&buf, tms_align_up(buf.n, alignment) - buf.n);
    if (buf.failed) {
        status = tms_fail_memory(err, buf.n);
        goto done;
    }
    if (!tms_add_u64(data, buf.n, &data) || data > INT64_MAX) {
        status = tms_fail(err, TMS_EUSAGE, "GGUF layout: the sizes of the tensors overflow");
        goto done;
    }
    uint64_t offset = buf.n;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = 0;
        (void)tms_gguf_tensor_bytes(tensors[i].type, tensors[i].n_dims, tensors[i].ne, &bytes);
        tensors[i].offset = offset;
        tensors[i].bytes = bytes;
        offset += tms_align_up(bytes, alignment);
    }
    tms_buf_free(header);
    *header = buf;
    buf = (struct tms_buf){0};
    *file_size = data;
done:
    tms_buf_free(&buf);
    return status;
}

char *tms_gguf_shard_path(const char *path, unsigned number, unsigned count)
{
    size_t n = strlen(path);
    if (n >= 5 && strcmp(path + n - 5, ".gguf") == 0) n -= 5;
    size_t size = n + 40; /* two numbers of at most 10 digits, and the words around them */
    char *out = malloc(size);
    if (!out) return NULL;
    memcpy(out, path, n);
    snprintf(out + n, size - n, "-%05u-of-%05u.gguf", number + 1, count);
    return out;
}

/* Where everything goes in a safetensors file that is about to be written.
 *
 * The order and the spelling are those of the reference's serializer (huggingface/safetensors,
 * safetensors/src/tensor.rs, version 0.6): types from the widest alignment to the narrowest, names ascending within
 * a type, compact JSON in the order of the data, spaces behind it so that the data begin at a multiple of 8. */
#include "file/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "file/utf8.h"

/* Names compare byte by byte, as Rust compares strings. */
static int compare_tensors(const void *a, const void *b)
{
    const struct tms_st_plan_tensor *x = a, *y = b;
    int x_rank = tms_st_dtype_rank(x->type), y_rank = tms_st_dtype_rank(y->type);
    if (x_rank != y_rank) return x_rank > y_rank ? -1 : 1;
    if (x->last != y->last) return x->last ? 1 : -1;
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static tms_status tensor_bytes(const struct tms_st_plan_tensor *tensor, uint64_t *out, struct tms_error *err)
{
    const char *name = tensor->name;
    if (strcmp(name, "__metadata__") == 0 || strlen(name) > TMS_ST_MAX_NAME || !tms_is_utf8(name, strlen(name)))
        return tms_fail(err, TMS_EUSAGE, "safetensors layout: '%.100s' cannot be the name of a tensor", name);
    if (tms_st_dtype_rank(tensor->type) < 0 || tensor->n_dims > TMS_ST_MAX_DIMS)
        return tms_fail(err, TMS_EUSAGE,
                        "safetensors layout: tensor '%s': safetensors cannot hold type %d in %" PRIu32 " dimensions",
                        name, (int)tensor->type, tensor->n_dims);
    uint64_t bits = tms_st_dtype_bits(tensor->type);
    for (uint32_t i = 0; i < tensor->n_dims; i++)
        if (!tms_mul_u64(bits, tensor->shape[i], &bits))
            return tms_fail(err, TMS_EUSAGE, "safetensors layout: tensor '%s': its size overflows", name);
    if (bits % 8) return tms_fail(err, TMS_EUSAGE, "safetensors layout: tensor '%s' does not fill whole bytes", name);
    *out = bits / 8;
    return TMS_OK;
}

static tms_status check_names(const struct tms_st_plan_tensor *tensors, size_t n, struct tms_error *err)
{
    const char **names = tms_calloc(n ? n : 1, sizeof names[0]);
    if (!names) return tms_fail_memory(err, n * sizeof names[0]);
    tms_status status = TMS_OK;
    for (size_t i = 0; i < n; i++) names[i] = tensors[i].name;
    qsort(names, n, sizeof names[0], compare_names);
    for (size_t i = 1; i < n && status == TMS_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = tms_fail(err, TMS_EUSAGE, "safetensors layout: tensor '%s' comes twice", names[i]);
    free(names);
    return status;
}

/* A JSON string as serde_json writes it: everything but quotes, backslashes and control characters as it is. */
static void put_string(struct tms_buf *buf, const char *text)
{
    tms_buf_text(buf, "\"");
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        switch (*p) {
        case '"': tms_buf_text(buf, "\\\""); break;
        case '\\': tms_buf_text(buf, "\\\\"); break;
        case '\b': tms_buf_text(buf, "\\b"); break;
        case '\f': tms_buf_text(buf, "\\f"); break;
        case '\n': tms_buf_text(buf, "\\n"); break;
        case '\r': tms_buf_text(buf, "\\r"); break;
        case '\t': tms_buf_text(buf, "\\t"); break;
        default:
            if (*p < 0x20)
                tms_buf_printf(buf, "\\u%04x", *p);
            else
                tms_buf_put(buf, p, 1);
        }
    }
    tms_buf_text(buf, "\"");
}

static void put_entry(struct tms_buf *buf, const struct tms_st_plan_tensor *tensor, uint64_t offset)
{
    put_string(buf, tensor->name);
    tms_buf_printf(buf, ":{\"dtype\":\"%s\",\"shape\":[", tms_st_dtype_name(tensor->type));
    for (uint32_t i = 0; i < tensor->n_dims; i++) tms_buf_printf(buf, "%s%" PRIu64, i ? "," : "", tensor->shape[i]);
    tms_buf_printf(buf, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset, offset + tensor->bytes);
}

tms_status tms_st_layout(struct tms_st_plan_tensor *tensors, size_t n, uint64_t min_header, struct tms_buf *header,
                         uint64_t *file_size, struct tms_error *err)
{
    struct tms_buf buf = {0};
    uint64_t total = 0, bytes;
    tms_status status = check_names(tensors, n, err);
    if (status != TMS_OK) return status;
    for (size_t i = 0; i < n; i++) {
        status = tensor_bytes(&tensors[i], &bytes, err);
        if (status != TMS_OK) return status;
        if (!tms_add_u64(total, bytes, &total) || total > INT64_MAX - TMS_ST_MAX_HEADER - 8)
            return tms_fail(err, TMS_EUSAGE, "safetensors layout: the sizes of the tensors overflow");
    }
    if (min_header > TMS_ST_MAX_HEADER)
        return tms_fail(err, TMS_EUSAGE, "safetensors layout: a header of %" PRIu64 " bytes, the format allows %u",
                        min_header, TMS_ST_MAX_HEADER);

    /* Nothing can be wrong from here on but the memory and the header's length. */
    qsort(tensors, n, sizeof tensors[0], compare_tensors);
    tms_buf_u64(&buf, 0);
    tms_buf_text(&buf, "{\"__metadata__\":{\"format\":\"pt\"}");
    total = 0;
    for (size_t i = 0; i < n; i++) {
        struct tms_st_plan_tensor tensor = tensors[i];
        tensor_bytes(&tensor, &tensor.bytes, NULL);
        tms_buf_text(&buf, ",");
        put_entry(&buf, &tensor, total);
        total += tensor.bytes;
    }
    tms_buf_text(&buf, "}");
    while (!buf.failed && (buf.n % 8 || buf.n < min_header)) tms_buf_text(&buf, " ");
    if (buf.failed) {
        status = tms_fail_memory(err, buf.n);
        goto done;
    }
    if (buf.n - 8 > TMS_ST_MAX_HEADER) {
        status = tms_fail(err, TMS_EUSAGE,
                          "safetensors layout: %zu tensors need a header of %zu bytes, the format allows %u: use more "
                          "shards",
                          n, buf.n - 8, TMS_ST_MAX_HEADER);
        goto done;
    }
    for (unsigned i = 0; i < 8; i++) buf.data[i] = (uint8_t)((buf.n - 8) >> 8 * i);
    total = buf.n;
    for (size_t i = 0; i < n; i++) {
        tensor_bytes(&tensors[i], &tensors[i].bytes, NULL);
        tensors[i].offset = total;
        total += tensors[i].bytes;
    }
    tms_buf_free(header);
    *header = buf;
    buf = (struct tms_buf){0};
    *file_size = total;
done:
    tms_buf_free(&buf);
    return status;
}

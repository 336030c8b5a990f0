/* See imatrix_write.h; the formats are described in imatrix.c.
 *
 * In .dat files a value is the mean times the calls, the calls are chunks: tokens / tokens of a chunk, rounded up, of
 * the expert that saw most; experts that saw nothing get 1 for each value (tools/imatrix/imatrix.cpp of llama.cpp). */
#include "calib/imatrix_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "calib/stats.h"
#include "file/gguf.h"

struct writing {
    const struct tms_stats *stats;
    const char **names; /* sorted, borrowed from the JSON */
    size_t n;
    uint64_t chunk; /* tokens */
    uint32_t n_chunks;
    const char *data;
    struct tms_output *output;
    uint64_t at;
    struct tms_error *err;
};

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static tms_status put(struct writing *w, const void *bytes, uint64_t n)
{
    tms_status status = tms_output_write(w->output, bytes, n, w->at, w->err);
    w->at += n;
    return status;
}

static tms_status put_i32(struct writing *w, uint64_t value)
{
    const int32_t v = (int32_t)value;
    return put(w, &v, sizeof v);
}

static uint64_t most_of(const struct tms_stats_input *in)
{
    int64_t most = 0;
    for (size_t i = 0; i < in->parts; i++) most = in->counts[i] > most ? in->counts[i] : most;
    return (uint64_t)most;
}

static tms_status put_dat_entry(struct writing *w, const char *name, const struct tms_stats_input *in)
{
    uint64_t calls = (most_of(in) + w->chunk - 1) / w->chunk;
    size_t n = in->parts * in->cols;
    float *values = tms_calloc(n, sizeof *values);
    if (!values) return tms_fail_memory(w->err, n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        int64_t tokens = in->counts[i / in->cols];
        double count = (double)tokens;
        values[i] = (float)((count > 0 ? in->squares[i] / count : 1) * (double)calls);
    }
    tms_status status = put_i32(w, strlen(name));
    if (status == TMS_OK) status = put(w, name, strlen(name));
    if (status == TMS_OK) status = put_i32(w, calls);
    if (status == TMS_OK) status = put_i32(w, n);
    if (status == TMS_OK) status = put(w, values, n * sizeof *values);
    free(values);
    return status;
}

static tms_status write_dat(struct writing *w)
{
    tms_status status = put_i32(w, w->n);
    for (size_t i = 0; i < w->n && status == TMS_OK; i++) {
        struct tms_stats_input in;
        status = tms_stats_read(w->stats, w->names[i], &in, w->err);
        if (status == TMS_OK) status = put_dat_entry(w, w->names[i], &in);
        tms_stats_drop(&in);
    }
    if (status == TMS_OK) status = put_i32(w, w->n_chunks);
    if (status == TMS_OK) status = put_i32(w, strlen(w->data));
    if (status == TMS_OK) status = put(w, w->data, strlen(w->data));
    return status;
}

/* The two tensors of an entry. */
static tms_status put_gguf_entry(struct writing *w, const struct tms_gguf_plan_tensor *tensors,
                                 const struct tms_stats_input *in)
{
    size_t n = in->parts * in->cols;
    float *values = tms_calloc(n, sizeof *values);
    if (!values) return tms_fail_memory(w->err, n * sizeof *values);
    for (size_t i = 0; i < n; i++) values[i] = (float)in->squares[i];
    w->at = tensors[0].offset;
    tms_status status = put(w, values, n * sizeof *values);
    for (size_t i = 0; i < in->parts; i++) values[i] = (float)in->counts[i];
    w->at = tensors[1].offset;
    if (status == TMS_OK) status = put(w, values, in->parts * sizeof *values);
    free(values);
    return status;
}

static tms_status lay_out(struct writing *w, struct tms_gguf_plan_tensor *plan, struct tms_arena *arena,
                          struct tms_buf *header, uint64_t *size)
{
    struct tms_kvs kvs = {0};
    struct tms_buf dataset = {0};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < w->n && status == TMS_OK; i++) {
        struct tms_stats_input in;
        status = tms_stats_read(w->stats, w->names[i], &in, w->err);
        plan[2 * i] = (struct tms_gguf_plan_tensor){.name = tms_arena_printf(arena, "%s.in_sum2", w->names[i]),
                                                    .type = TMS_F32,
                                                    .n_dims = 2,
                                                    .ne = {in.cols, in.parts}};
        plan[2 * i + 1] = (struct tms_gguf_plan_tensor){.name = tms_arena_printf(arena, "%s.counts", w->names[i]),
                                                        .type = TMS_F32,
                                                        .n_dims = 2,
                                                        .ne = {1, in.parts}};
        if (status == TMS_OK && (!plan[2 * i].name || !plan[2 * i + 1].name)) status = tms_fail_memory(w->err, 256);
        tms_stats_drop(&in);
    }
    tms_kv_put_string(&dataset, w->data, strlen(w->data));
    tms_kvs_set_string(&kvs, "general.type", "imatrix");
    tms_kvs_set_array(&kvs, "imatrix.datasets", TMS_KV_STRING, 1, dataset.data, dataset.n);
    tms_kvs_set_u32(&kvs, "imatrix.chunk_count", w->n_chunks);
    tms_kvs_set_u32(&kvs, "imatrix.chunk_size", (uint32_t)w->chunk);
    if (status == TMS_OK) status = tms_gguf_layout(&kvs, plan, 2 * w->n, header, size, w->err);
    tms_kvs_free(&kvs);
    tms_buf_free(&dataset);
    return status;
}

static tms_status write_gguf(struct writing *w)
{
    struct tms_gguf_plan_tensor *plan = tms_calloc(2 * w->n, sizeof *plan);
    struct tms_arena arena = {0};
    struct tms_buf header = {0};
    uint64_t size = 0;
    tms_status status = plan ? lay_out(w, plan, &arena, &header, &size) : tms_fail_memory(w->err, w->n * sizeof *plan);
    if (status == TMS_OK) status = put(w, header.data, header.n);
    for (size_t i = 0; i < w->n && status == TMS_OK; i++) {
        struct tms_stats_input in;
        status = tms_stats_read(w->stats, w->names[i], &in, w->err);
        if (status == TMS_OK) status = put_gguf_entry(w, &plan[2 * i], &in);
        tms_stats_drop(&in);
    }
    if (status == TMS_OK) status = tms_output_truncate(w->output, size, w->err);
    tms_buf_free(&header);
    tms_arena_free(&arena);
    free(plan);
    return status;
}

tms_status tms_imatrix_write(const char *path, const char *stats_path, bool output, struct tms_error *err)
{
    struct tms_stats *stats = NULL;
    struct writing w = {.err = err};
    const char *name;
    json_t *input;
    tms_status status = tms_stats_open(&stats, stats_path, err);
    if (status != TMS_OK) return status;
    json_t *weights = json_object_get(stats->about, "weights");
    uint64_t tokens = (uint64_t)json_integer_value(json_object_get(stats->about, "tokens"));
    w.stats = stats;
    w.chunk = (uint64_t)json_integer_value(json_object_get(stats->about, "seqlen"));
    w.data = json_string_value(json_object_get(stats->about, "data"));
    w.names = tms_calloc(json_object_size(weights), sizeof *w.names);
    if (!w.names) status = tms_fail_memory(err, json_object_size(weights) * sizeof *w.names);
    if (status == TMS_OK && (!w.data || w.chunk == 0))
        status = tms_fail(err, TMS_EINPUT, "%s: does not say of which text it is", stats_path);
    json_object_foreach(weights, name, input)
    {
        bool of_output = strcmp(name, "output.weight") == 0 || strcmp(name, "token_embd.weight") == 0;
        if (status == TMS_OK && (output || !of_output)) w.names[w.n++] = name;
    }
    if (status == TMS_OK) {
        qsort(w.names, w.n, sizeof *w.names, compare);
        w.n_chunks = (uint32_t)((tokens + w.chunk - 1) / w.chunk);
        status = tms_output_create(&w.output, path, 0, err);
    }
    if (status == TMS_OK) status = tms_ends_with(path, ".dat") ? write_dat(&w) : write_gguf(&w);
    if (status == TMS_OK)
        status = tms_output_commit(w.output, err);
    else
        tms_output_discard(w.output);
    free(w.names);
    tms_stats_close(stats);
    return status;
}

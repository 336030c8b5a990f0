/* See fold.h. */
#include "target/fold.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "target/grid_route.h"

void tms_fold_apply(const struct tms_fold *fold, uint64_t first, uint64_t n, const float *x, float *out)
{
    uint64_t r = first / fold->n_cols, c = first % fold->n_cols;
    for (uint64_t i = 0; i < n; r++, c = 0) {
        const float *columns = fold->columns + r / fold->part_rows * fold->n_cols;
        const float row = fold->rows[r], shift = fold->shift;
        for (; c < fold->n_cols && i < n; c++, i++)
            out[i] = shift != 0 ? (x[i] + shift) / row - shift : x[i] * columns[c] / row;
    }
}

struct tms_fold *tms_fold_of(const struct tms_target *t, size_t source)
{
    for (size_t i = 0; i < t->n_routes; i++)
        if (t->routes[i].source == source) return t->routes[i].fold;
    return NULL;
}

bool tms_fold_can(const struct tms_target *t, size_t source)
{
    bool goes = false;
    for (size_t i = 0; i < t->n_routes; i++) {
        const struct tms_route *route = &t->routes[i];
        if (route->source != source) continue;
        goes = true;
        if (route->kind == TMS_ROUTE_COPY && !tms_is_plain_float(t->source->tensors[source].type)) return false;
        /* amax: found in the values as they are stored */
        if (route->moves || (route->grid && (route->grid->moves || route->grid->amax))) return false;
    }
    return goes;
}

static struct tms_fold *create(struct tms_target *t, uint64_t n_rows, uint64_t n_cols, uint64_t part_rows)
{
    const uint64_t n_columns = n_rows / part_rows * n_cols;
    struct tms_fold *fold = tms_arena_alloc(&t->arena, sizeof *fold);
    float *ones = tms_arena_alloc(&t->arena, (size_t)(n_columns + n_rows) * sizeof *ones);
    if (!fold || !ones) return NULL;
    for (uint64_t i = 0; i < n_columns + n_rows; i++) ones[i] = 1;
    *fold = (struct tms_fold){
        .n_rows = n_rows, .n_cols = n_cols, .part_rows = part_rows, .columns = ones, .rows = ones + n_columns};
    return fold;
}

static void attach(struct tms_target *t, size_t source, struct tms_fold *fold)
{
    for (size_t i = 0; i < t->n_routes; i++) {
        struct tms_route *route = &t->routes[i];
        if (route->source != source) continue;
        route->fold = fold;
        if (route->kind != TMS_ROUTE_COPY) continue;
        route->kind = TMS_ROUTE_CODEC;
        route->codec = tms_codec(t->outs[route->out].type);
    }
}

struct tms_fold *tms_fold_make(struct tms_target *t, size_t source, uint64_t n_rows, uint64_t n_cols,
                               uint64_t part_rows)
{
    struct tms_fold *fold = tms_fold_of(t, source);
    if (fold) return fold;
    fold = create(t, n_rows, n_cols, part_rows);
    if (fold) attach(t, source, fold);
    return fold;
}

/* ---- files: source, rows, columns, rows of a part (u64), shift, columns, rows (f32) ---- */

tms_status tms_folds_save(const struct tms_target *t, const size_t *sources, size_t n, const char *path,
                          struct tms_error *err)
{
    struct tms_buf buf = {0};
    struct tms_output *output = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct tms_fold *fold = tms_fold_of(t, sources[i]);
        tms_buf_u64(&buf, sources[i]);
        tms_buf_u64(&buf, fold->n_rows);
        tms_buf_u64(&buf, fold->n_cols);
        tms_buf_u64(&buf, fold->part_rows);
        tms_buf_put(&buf, &fold->shift, sizeof fold->shift);
        tms_buf_put(&buf, fold->columns, (size_t)(fold->n_rows / fold->part_rows * fold->n_cols) * sizeof(float));
        tms_buf_put(&buf, fold->rows, (size_t)fold->n_rows * sizeof(float));
    }
    tms_status status = buf.failed ? tms_fail_memory(err, buf.n) : tms_output_create(&output, path, buf.n, err);
    if (status == TMS_OK) status = tms_output_write(output, buf.data, buf.n, 0, err);
    if (status == TMS_OK)
        status = tms_output_commit(output, err);
    else
        tms_output_discard(output);
    tms_buf_free(&buf);
    return status;
}

static tms_status load_one(struct tms_target *t, const struct tms_file *file, uint64_t *at, struct tms_error *err)
{
    uint64_t head[4];
    float shift;
    tms_status status = tms_file_read(file, head, sizeof head, *at, err);
    if (status == TMS_OK) status = tms_file_read(file, &shift, sizeof shift, *at + sizeof head, err);
    if (status != TMS_OK) return status;
    const uint64_t source = head[0], n_rows = head[1], n_cols = head[2], part_rows = head[3];
    if (source >= t->source->n_tensors || n_rows == 0 || n_cols == 0 || part_rows == 0 || n_rows % part_rows != 0 ||
        n_cols > t->source->tensors[source].n_weights || n_rows != t->source->tensors[source].n_weights / n_cols)
        return tms_fail(err, TMS_EINPUT, "%s: holds no scales of this model; remove the folder", file->path);
    struct tms_fold *fold = tms_fold_make(t, (size_t)source, n_rows, n_cols, part_rows);
    if (!fold) return tms_fail_memory(err, (n_rows + n_cols) * sizeof(float));
    const uint64_t columns = n_rows / part_rows * n_cols * sizeof(float), rows = n_rows * sizeof(float);
    *at += sizeof head + sizeof shift;
    fold->shift = shift;
    status = tms_file_read(file, fold->columns, columns, *at, err);
    if (status == TMS_OK) status = tms_file_read(file, fold->rows, rows, *at + columns, err);
    *at += columns + rows;
    return status;
}

tms_status tms_folds_load(struct tms_target *t, const char *path, struct tms_error *err)
{
    struct tms_file file;
    tms_status status = tms_file_open(&file, path, err);
    if (status != TMS_OK) return status;
    for (uint64_t at = 0; at < file.size && status == TMS_OK;) status = load_one(t, &file, &at, err);
    tms_file_close(&file);
    return status;
}

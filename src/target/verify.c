/* A file rebuilt from its source and compared: tms_verify of <tamis/tamis.h>.
 *
 * The target is planned as for writing; the pipeline then hands every encoded range to a sink that reads the same range
 * of the file and compares. Order and place of tensors may differ (another program may have written the file): tensors
 * go by their names, keys by theirs, and only `identical` speaks about the rest. */
#include "target/verifying.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/pipeline.h"

void tms_verify_found(struct tms_verifying *v, const char *format, ...)
{
    struct tms_error line;
    char text[sizeof line.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tms_set_message(&line, "%s", text); /* cleans control characters */
    v->result.n_findings++;
    if (v->options->finding) v->options->finding(v->options->finding_ctx, line.message);
}

/* ---- names, types, shapes ---- */

static tms_status match_tensors(struct tms_verifying *v, struct tms_error *err)
{
    const struct tms_target *t = v->target;
    char shape[128];
    bool *known = tms_calloc(v->file->n_tensors, sizeof *known);
    if (!known) return tms_fail_memory(err, v->file->n_tensors);
    for (size_t i = 0; i < t->n_outs; i++) {
        const struct tms_out_tensor *out = &t->outs[i];
        const struct tms_tensor *is = tms_source_find_stored(v->file, out->name);
        if (!is) {
            tms_verify_found(v, "tensor '%s' is missing", out->name);
            continue;
        }
        known[is - v->file->tensors] = true;
        uint64_t ne[TMS_GGUF_MAX_DIMS] = {0};
        const struct tms_packed_grid *grid = is->packed ? is->packed->grid : NULL;
        const uint64_t *is_shape = grid ? grid->stored_shape : is->shape;
        bool same = (grid ? grid->stored_dims : is->n_dims) == out->n_dims || (out->n_dims == 0 && is->n_elems == 1);
        for (uint32_t d = 0; d < out->n_dims && same; d++) same = out->late || is_shape[d] == out->shape[d];
        for (uint32_t d = 0; d < out->n_dims && d < TMS_GGUF_MAX_DIMS; d++) ne[d] = out->shape[out->n_dims - 1 - d];
        if (is->type != out->type || !same)
            tms_verify_found(
                v, "tensor '%s' is %s of %llu bytes, rebuilt it is %s", is->name, tms_codec(is->type)->name,
                (unsigned long long)is->bytes,
                tms_gguf_shape_text(shape, out->type, out->n_dims < TMS_GGUF_MAX_DIMS ? out->n_dims : 0, ne));
        else
            v->compared[i].found = is;
    }
    for (size_t i = 0; i < v->file->n_tensors; i++)
        if (!known[i]) tms_verify_found(v, "tensor '%s' has no source", v->file->tensors[i].name);
    free(known);
    return TMS_OK;
}

/* ---- data ---- */

static tms_status compare_bytes(void *ctx, const struct tms_target *target, size_t out, uint64_t offset,
                                const void *bytes, uint64_t n, struct tms_error *err)
{
    struct tms_verifying *v = ctx;
    struct tms_compared *c = &v->compared[out];
    (void)target;
    if (!c->found || n == 0) return TMS_OK;
    uint64_t there = offset < c->found->bytes ? c->found->bytes - offset : 0, first = n, n_bytes = 0;
    if (there > n) there = n;
    uint8_t *is = malloc(there ? there : 1);
    if (!is) return tms_fail_memory(err, there);
    tms_status status = tms_file_read(v->file->files[c->found->file], is, there, c->found->offset + offset, err);
    if (status == TMS_OK && (there < n || memcmp(is, bytes, n) != 0)) {
        const uint8_t *want = bytes;
        n_bytes = n - there;
        for (uint64_t i = 0; i < there; i++) {
            if (is[i] == want[i]) continue;
            n_bytes++;
            if (i < first) first = i;
        }
        if (first > there) first = there;
    }
    free(is);
    if (status != TMS_OK) return status;
    pthread_mutex_lock(&v->lock);
    v->result.bytes += n;
    if (n_bytes && (c->n_bytes == 0 || offset + first < c->first)) c->first = offset + first;
    c->n_bytes += n_bytes;
    pthread_mutex_unlock(&v->lock);
    return TMS_OK;
}

/* The row and the block, within it, of a byte of an output tensor; returns what a block is called. */
static const char *locate(const struct tms_verifying *v, size_t out, uint64_t byte, uint64_t *row, uint64_t *block)
{
    const struct tms_target *t = v->target;
    const struct tms_out_tensor *o = &t->outs[out];
    const struct tms_codec *codec = tms_codec(o->type);
    for (size_t i = 0; i < t->n_routes; i++) {
        if (t->routes[i].out != out || t->routes[i].kind != TMS_ROUTE_BNB4) continue;
        const struct tms_tensor *source = &t->source->tensors[t->routes[i].source];
        *row = source->cols ? 2 * byte / source->cols : 0;
        *block = 2 * byte / t->spec.block_size;
        return "block";
    }
    uint64_t cols = o->n_dims ? o->shape[o->n_dims - 1] : 1;
    uint64_t index = codec->block_bytes ? byte / codec->block_bytes * codec->block_elems : 0;
    *row = cols ? index / cols : 0;
    *block = cols ? index % cols / codec->block_elems : 0;
    return codec->block_elems > 1 ? "block" : "column";
}

static void report_tensors(struct tms_verifying *v)
{
    const struct tms_target *t = v->target;
    struct tms_verify_result *r = &v->result;
    for (size_t i = 0; i < t->n_outs; i++) {
        const struct tms_compared *c = &v->compared[i];
        uint64_t row, block;
        if (!c->n_bytes) continue;
        uint64_t at = c->found->offset + c->first;
        const char *unit = locate(v, i, c->first, &row, &block);
        tms_verify_found(
            v, "tensor '%s' (%s) row %llu %s %llu: differs at byte %llu of %s; %llu of the tensor's %llu bytes differ",
            t->outs[i].name, tms_codec(t->outs[i].type)->name, (unsigned long long)row, unit, (unsigned long long)block,
            (unsigned long long)at, tms_path_base(v->file->files[c->found->file]->path), (unsigned long long)c->n_bytes,
            (unsigned long long)c->found->bytes);
        if (r->n_differing++ == 0) {
            snprintf(r->tensor, sizeof r->tensor, "%s", t->outs[i].name);
            r->row = row;
            r->block = block;
        }
    }
}

/* ---- the whole ---- */

static tms_status rebuild(struct tms_verifying *v, struct tms_error *err)
{
    struct tms_target_stats stats = {0};
    struct tms_pipeline p = {.source = v->source,
                             .targets = &v->target,
                             .n_targets = 1,
                             .pool = v->pool,
                             .progress = v->options->recipe.progress,
                             .progress_ctx = v->options->recipe.progress_ctx,
                             .sink = compare_bytes,
                             .sink_ctx = v,
                             .stats = &stats};
    tms_status status = tms_pipeline_run(&p, err);
    tms_pipeline_done(&p);
    return status;
}

static tms_status verify(struct tms_verifying *v, const char *file, const char *source, struct tms_error *err)
{
    tms_status status = tms_source_open(&v->file, file, NULL, NULL, err);
    if (status == TMS_OK) status = tms_source_open(&v->source, source, NULL, NULL, err);
    if (status != TMS_OK) return status;
    if (v->file->kind == TMS_SOURCE_CONFIG || v->source->kind == TMS_SOURCE_CONFIG)
        return tms_fail(err, TMS_EINPUT, "%s: holds no weights",
                        v->file->kind == TMS_SOURCE_CONFIG ? v->file->path : v->source->path);
    status = tms_pool_create(&v->pool, v->options->recipe.n_threads, err);
    if (status == TMS_OK) status = tms_verify_plan(v, err);
    if (status != TMS_OK) return status;
    snprintf(v->result.type, sizeof v->result.type, "%s", v->target->spec.name);
    v->result.n_tensors = v->target->n_outs;
    v->compared = tms_calloc(v->target->n_outs, sizeof *v->compared);
    if (!v->compared) return tms_fail_memory(err, v->target->n_outs * sizeof *v->compared);
    status = tms_verify_keys(v, err);
    if (status == TMS_OK) status = match_tensors(v, err);
    if (status == TMS_OK) status = rebuild(v, err);
    if (status == TMS_OK) report_tensors(v);
    if (status == TMS_OK && v->result.n_findings == 0) status = tms_verify_layout(v, err);
    return status;
}

tms_status tms_verify(const char *file, const char *source, const struct tms_verify_options *options,
                      struct tms_verify_result *result, struct tms_error *err)
{
    struct tms_verifying v = {.options = options, .recipe = options->recipe};
    v.recipe.allow_requantize = true; /* it was done already */
    pthread_mutex_init(&v.lock, NULL);
    tms_status status = verify(&v, file, source, err);
    if (status == TMS_OK) *result = v.result;
    pthread_mutex_destroy(&v.lock);
    tms_target_free(v.target);
    tms_imatrix_close(v.imatrix);
    tms_pool_free(v.pool);
    tms_kvs_free(&v.own);
    json_decref(v.told);
    tms_source_close(v.file);
    tms_source_close(v.source);
    tms_arena_free(&v.arena);
    free(v.compared);
    return status;
}

/* Reading back what a pipeline wrote. See pipeline.h. */
#include "base/clock.h"
#include "target/pipeline.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct verify {
    struct tms_pipeline *p;
    struct tms_file *files; /* all files of all targets, opened again */
    size_t *first_file;     /* per target */
    uint8_t **buffers;      /* per thread */
    atomic_ullong bytes_done;
    uint64_t bytes_total, largest;
    double last_report;
};

static tms_status verify_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct verify *v = ctx;
    const struct tms_written *h = &v->p->written[index];
    const struct tms_out_tensor *out = &h->target->outs[h->out];
    size_t k = 0;
    while (v->p->targets[k] != h->target) k++;
    const struct tms_file *file = &v->files[v->first_file[k] + out->file];
    tms_status status = tms_file_read(file, v->buffers[worker], h->bytes, out->offset + h->offset, err);
    if (status == TMS_OK && XXH3_64bits(v->buffers[worker], h->bytes) != h->hash)
        status = tms_fail(err, TMS_ECHECK, "%s: tensor '%s' at byte %llu: what was read back is not what was written",
                          file->path, out->name, (unsigned long long)(out->offset + h->offset));
    unsigned long long done = atomic_fetch_add(&v->bytes_done, h->bytes) + h->bytes;
    double t = tms_seconds();
    if (worker == 0 && v->p->progress && (t - v->last_report >= 0.1 || done == v->bytes_total)) {
        v->last_report = t;
        struct tms_progress progress = {"reading back", done, v->bytes_total};
        v->p->progress(v->p->progress_ctx, &progress);
    }
    return status;
}

/* Path under which a file can be opened before the target has its final name. */
static char *written_path(const struct tms_target *t, size_t file)
{
    if (t->dir) return tms_path_join(tms_output_dir_partial(t->dir), t->files[file].name);
    return strdup(tms_output_partial_path(t->files[file].output));
}

/* The strict readers must accept the files and find the tensors where they were put. */
static tms_status reopen(const struct tms_target *t, const char *path, size_t file, struct tms_error *err)
{
    struct tms_source *s = NULL;
    tms_status status = TMS_OK;
    if (t->folder) {
        struct tms_safetensors *st = NULL;
        status = tms_safetensors_open(&st, path, err);
        for (size_t i = 0; i < t->n_outs && status == TMS_OK; i++) {
            const struct tms_out_tensor *out = &t->outs[i];
            const struct tms_st_tensor *found = out->file == file ? tms_safetensors_find(st, out->name) : NULL;
            if (out->file == file &&
                (!found || found->offset != out->offset || found->bytes != out->bytes || found->type != out->type))
                status = tms_fail(err, TMS_ECHECK, "%s: tensor '%s' is not where it was written", path, out->name);
        }
        tms_safetensors_close(st);
    } else if (file == 0) { /* a split opens with its first file */
        status = tms_source_open(&s, path, NULL, NULL, err);
        for (size_t i = 0; i < t->n_outs && status == TMS_OK; i++) {
            const struct tms_out_tensor *out = &t->outs[i];
            const struct tms_tensor *found = tms_source_find(s, out->name);
            if (!found || found->file != out->file || found->offset != out->offset || found->bytes != out->bytes ||
                found->type != out->type)
                status = tms_fail(err, TMS_ECHECK, "%s: tensor '%s' is not where it was written", path, out->name);
        }
        tms_source_close(s);
    }
    return status;
}

tms_status tms_pipeline_verify(struct tms_pipeline *p, struct tms_error *err)
{
    struct verify v = {.p = p};
    unsigned n_threads = tms_pool_threads(p->pool);
    size_t n_files = 0, at = 0;
    tms_status status = TMS_OK;
    for (size_t k = 0; k < p->n_targets; k++) n_files += p->targets[k]->n_files;
    v.files = tms_calloc(n_files, sizeof *v.files);
    v.first_file = tms_calloc(p->n_targets, sizeof *v.first_file);
    v.buffers = tms_calloc(n_threads, sizeof *v.buffers);
    if (!v.files || !v.first_file || !v.buffers) status = tms_fail_memory(err, n_files * sizeof *v.files);
    for (size_t k = 0; k < p->n_targets && status == TMS_OK; k++) {
        v.first_file[k] = at;
        for (size_t f = 0; f < p->targets[k]->n_files && status == TMS_OK; f++) {
            char *path = written_path(p->targets[k], f);
            status = path ? reopen(p->targets[k], path, f, err) : tms_fail_memory(err, 256);
            if (status == TMS_OK) status = tms_file_open(&v.files[at], path, err);
            if (status == TMS_OK) at++;
            free(path);
        }
    }
    for (size_t i = 0; i < p->n_written; i++) {
        v.bytes_total += p->written[i].bytes;
        if (p->written[i].bytes > v.largest) v.largest = p->written[i].bytes;
    }
    for (unsigned i = 0; i < n_threads && status == TMS_OK; i++) {
        v.buffers[i] = malloc(v.largest ? v.largest : 1);
        if (!v.buffers[i]) status = tms_fail_memory(err, v.largest);
    }
    if (status == TMS_OK) status = tms_pool_run(p->pool, p->n_written, verify_job, &v, err);
    for (size_t k = 0; k < p->n_targets && status == TMS_OK; k++) p->stats[k].verified = true;
    for (unsigned i = 0; v.buffers && i < n_threads; i++) free(v.buffers[i]);
    for (size_t i = 0; i < at; i++) tms_file_close(&v.files[i]);
    free(v.buffers);
    free(v.first_file);
    free(v.files);
    return status;
}

void tms_pipeline_done(struct tms_pipeline *p)
{
    free(p->written);
    p->written = NULL;
    p->n_written = p->cap_written = 0;
}

/* Integrity of a model, before hours of work: tms_check of <tamis/tamis.h>.
 *
 * Containers check themselves when they are opened; here come the folder's other files, what the architecture
 * expects, and every value. */
#include <tamis/tamis.h>

#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "base/threads.h"
#include "base/clock.h"
#include "model/source.h"
#include "model/tokenizer.h"

#define CHECK_VALUES (1u << 18) /* per job, rounded up to whole blocks or rows */

struct check {
    const struct tms_check_options *options;
    const struct tms_source *source;
    struct tms_check_result result;
};

static void finding(void *ctx, const char *line)
{
    struct check *c = ctx;
    c->result.n_findings++;
    if (c->options->finding) c->options->finding(c->options->finding_ctx, line);
}

static void found(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void found(struct check *c, const char *format, ...)
{
    char line[1024];
    struct tms_error e;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    (void)tms_fail(&e, TMS_EINPUT, "%s", line); /* cleans control characters */
    finding(c, e.message);
}

/* ---- the folder ---- */

static void check_pointers(struct check *c)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/";
    const char *dir = c->source->path;
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *entry; (entry = readdir(d));) {
        char head[sizeof lfs - 1];
        size_t length = strlen(entry->d_name);
        char *path = tms_path_join(dir, entry->d_name);
        FILE *f = path && !tms_path_is_dir(path) ? fopen(path, "rb") : NULL;
        bool is_weights = length > 12 && strcmp(entry->d_name + length - 12, ".safetensors") == 0; /* told on opening */
        if (f && !is_weights && fread(head, 1, sizeof head, f) == sizeof head && memcmp(head, lfs, sizeof head) == 0)
            found(c, "%s: is a Git LFS pointer, not the file itself; run `git lfs pull`", path);
        if (f) fclose(f);
        free(path);
    }
    closedir(d);
}

static bool has_file(const char *dir, const char *name)
{
    char *path = tms_path_join(dir, name);
    bool there = path && tms_path_exists(path);
    free(path);
    return there;
}

/* What stands beside each token of a GGUF vocabulary must be as long as it. */
static void check_token_arrays(struct check *c)
{
    static const char *const arrays[] = {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"};
    const struct tms_kvs *kvs = &c->source->gguf->kvs;
    const struct tms_kv *tokens = tms_kvs_find(kvs, "tokenizer.ggml.tokens");
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        const struct tms_kv *kv = tms_kvs_find(kvs, arrays[i]);
        if (kv && kv->count != tokens->count)
            found(c, "%s: key '%s' has %llu elements, there are %llu tokens", c->source->path, arrays[i],
                  (unsigned long long)kv->count, (unsigned long long)tokens->count);
    }
}

static void check_tokenizer(struct check *c)
{
    const struct tms_source *s = c->source;
    if (s->kind == TMS_SOURCE_GGUF) {
        if (!tms_kvs_find(&s->gguf->kvs, "tokenizer.ggml.tokens"))
            found(c, "%s: has no tokenizer (tokenizer.ggml.tokens)", s->path);
        else
            check_token_arrays(c);
        return;
    }
    static const char *const files[] = {"tokenizer.json", "tokenizer.model", "vocab.json",  "tekken.json",
                                        "vocab.txt",      "tiktoken.model",  "spiece.model"};
    bool any = false;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) any |= has_file(s->path, files[i]);
    if (!any) {
        found(c, "%s: has no tokenizer (tokenizer.json or tokenizer.model)", s->path);
        return;
    }
    if (!s->arch) return;
    struct tms_kvs kvs = {0};
    struct tms_error e;
    struct tms_tokenizer_options options = {
        .vocab_size = s->config.vocab, .config = s->config_json, .arch = s->arch->gguf};
    if (tms_tokenizer_export(&kvs, s->path, &options, &e) != TMS_OK) finding(c, e.message);
    tms_kvs_free(&kvs);
}

/* ---- the architecture ---- */

static const char *file_of(const struct tms_source *s, const struct tms_tensor *t)
{
    return s->n_files ? s->files[t->file]->path : s->path;
}

static void check_shape(struct check *c, const struct tms_tensor *t, const struct tms_arch_tensor *row)
{
    uint64_t want[2];
    uint32_t n_dims = tms_arch_shape(&c->source->config, row, want);
    if (t->n_dims == n_dims && t->shape[0] == want[0] && (n_dims == 1 || t->shape[1] == want[1])) return;
    char got[160] = "";
    for (uint32_t d = 0; d < t->n_dims; d++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%llu", d ? ", " : "", (unsigned long long)t->shape[d]);
    if (n_dims == 2)
        found(c, "%s: tensor '%s' has shape [%s], config.json says [%llu, %llu]", file_of(c->source, t), t->name, got,
              (unsigned long long)want[0], (unsigned long long)want[1]);
    else
        found(c, "%s: tensor '%s' has shape [%s], config.json says [%llu]", file_of(c->source, t), t->name, got,
              (unsigned long long)want[0]);
}

static void check_hf_architecture(struct check *c)
{
    const struct tms_source *s = c->source;
    const struct tms_arch_tensor *row;
    int layer, expert;
    if (!s->config.has_shape) {
        found(c, "%s/config.json: lacks numbers that give the shape of a decoder (num_hidden_layers, hidden_size, …)",
              s->path);
        return;
    }
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct tms_tensor *t = &s->tensors[i];
        if (t->is_scale || tms_arch_ignores(t->name) || tms_arch_is_spare(s->arch, &s->config, t->name)) continue;
        row = tms_arch_explain(s->arch, t->name, &layer, &expert);
        bool none = row && row->when >= TMS_DENSE && !tms_arch_has(s->arch, &s->config, row, layer);
        if (!row || none || layer >= (int)s->config.n_layers || expert >= (int)s->config.experts.n)
            found(c, "%s: tensor '%s' is nothing that %s with %llu layers has", file_of(s, t), t->name,
                  tms_source_arch_name(s), (unsigned long long)s->config.n_layers);
        else
            check_shape(c, t, row);
    }
    struct tms_arch_step step = {0};
    while (tms_arch_next(&step, s->arch, &s->config)) {
        char name[128];
        tms_arch_name(name, sizeof name, step.row->hf, step.layer, step.expert);
        if (!tms_source_find(s, name)) found(c, "%s: tensor '%s' is missing", s->path, name);
    }
}

static void check_gguf_architecture(struct check *c)
{
    const struct tms_source *s = c->source;
    uint64_t expected = 0;
    uint32_t file = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct tms_tensor *t = &s->tensors[i];
        int layer;
        if (s->arch && !tms_arch_explain_gguf(s->arch, t->name, &layer) &&
            !tms_arch_kv_part(s->arch, t->name, &layer) && strncmp(t->name, "rope_f", 6) != 0)
            found(c, "%s: tensor '%s' is nothing that %s has", file_of(s, t), t->name, tms_source_arch_name(s));
        if (t->file != file || i == 0) {
            file = t->file;
            expected = t->offset;
        }
        if (t->offset != expected)
            found(c, "%s: tensor '%s' begins at byte %llu, llama.cpp demands %llu", file_of(s, t), t->name,
                  (unsigned long long)t->offset, (unsigned long long)expected);
        expected = tms_align_up(t->offset + t->bytes, s->gguf->alignment);
    }
}

static void check_architecture(struct check *c)
{
    const struct tms_source *s = c->source;
    if (s->kind == TMS_SOURCE_GGUF) {
        check_gguf_architecture(c);
    } else if (s->has_config && (!tms_source_method_known(s) || strcmp(s->config.quant_method, "bitsandbytes") == 0)) {
        return; /* packed tensors have other names and shapes; those on a grid (packed_grid.h) have not */
    } else if (s->has_config && !s->arch) {
        found(c,
              "%s: architecture '%s' is not known to tamis (known: %s); names and shapes of tensors were not checked",
              s->path, tms_source_arch_name(s), tms_arch_known());
    } else if (s->has_config) {
        check_hf_architecture(c);
    }
}

/* ---- the values ---- */

struct value_job {
    size_t tensor;
    uint64_t first, n;
    uint64_t n_bad, first_bad;
    float value;
};

struct scan {
    struct check *check;
    struct value_job *jobs;
    void **raw;
    float **x;
    atomic_ullong bytes_done;
    uint64_t bytes_total;
    double last_report;
};

static tms_status scan_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct scan *scan = ctx;
    struct value_job *job = &scan->jobs[index];
    const struct tms_source *s = scan->check->source;
    const struct tms_tensor *t = &s->tensors[job->tensor];
    const struct tms_check_options *options = scan->check->options;
    float *x = scan->x[worker];
    tms_status status = tms_source_read(s, t, job->first, job->n, scan->raw[worker], x, err);
    if (status != TMS_OK) return status;
    for (uint64_t at = 0; at < job->n;) {
        at += tms_first_nonfinite(x + at, job->n - at);
        if (at >= job->n) break;
        if (job->n_bad++ == 0) {
            job->first_bad = job->first + at;
            job->value = x[at];
        }
        at++;
    }
    unsigned long long bytes = tms_source_raw_bytes(t, job->n);
    unsigned long long done = atomic_fetch_add(&scan->bytes_done, bytes) + bytes;
    if (worker == 0 && options->progress && (tms_seconds() - scan->last_report > 0.1 || done == scan->bytes_total)) {
        scan->last_report = tms_seconds();
        struct tms_progress progress = {"checking", done, scan->bytes_total};
        options->progress(options->progress_ctx, &progress);
    }
    return TMS_OK;
}

static tms_status check_values(struct check *c, struct tms_error *err)
{
    const struct tms_source *s = c->source;
    struct scan scan = {.check = c};
    struct tms_pool *pool = NULL;
    size_t n_jobs = 0, cap = 0;
    uint64_t largest = 0;
    tms_status status = tms_pool_create(&pool, c->options->n_threads, err);
    if (status != TMS_OK) return status;
    unsigned n_threads = tms_pool_threads(pool);
    for (size_t i = 0; i < s->n_tensors && status == TMS_OK; i++) {
        const struct tms_tensor *t = &s->tensors[i];
        if (!tms_source_decodes(t)) {
            c->result.n_unread++;
            continue;
        }
        uint64_t unit = tms_source_unit(t), step = unit >= CHECK_VALUES ? unit : CHECK_VALUES / unit * unit;
        scan.bytes_total += t->bytes;
        for (uint64_t first = 0; first < t->n_weights && status == TMS_OK; first += step) {
            uint64_t rest = t->n_weights - first, n = rest < step ? rest : step;
            if (n > largest) largest = n;
            if (!tms_grow(&scan.jobs, &cap, n_jobs + 1, sizeof *scan.jobs))
                status = tms_fail_memory(err, n_jobs * sizeof *scan.jobs);
            else
                scan.jobs[n_jobs++] = (struct value_job){.tensor = i, .first = first, .n = n};
        }
    }
    scan.raw = tms_calloc(n_threads, sizeof *scan.raw);
    scan.x = tms_calloc(n_threads, sizeof *scan.x);
    if (status == TMS_OK && (!scan.raw || !scan.x)) status = tms_fail_memory(err, n_threads * sizeof *scan.x);
    for (unsigned i = 0; i < n_threads && status == TMS_OK; i++) {
        scan.raw[i] = malloc(largest ? largest * 8 : 1); /* no stored value is wider than F64 */
        scan.x[i] = malloc(largest ? largest * sizeof(float) : 1);
        if (!scan.raw[i] || !scan.x[i]) status = tms_fail_memory(err, largest * 12);
    }
    if (status == TMS_OK) status = tms_pool_run(pool, n_jobs, scan_job, &scan, err);
    /* One line per tensor, in the order of tensors. */
    for (size_t i = 0; i < n_jobs && status == TMS_OK;) {
        const struct tms_tensor *t = &s->tensors[scan.jobs[i].tensor];
        const struct value_job *first = NULL;
        uint64_t n_bad = 0;
        size_t tensor = scan.jobs[i].tensor;
        for (; i < n_jobs && scan.jobs[i].tensor == tensor; i++) {
            if (scan.jobs[i].n_bad && !first) first = &scan.jobs[i];
            n_bad += scan.jobs[i].n_bad;
        }
        if (!first) continue;
        uint64_t shape[TMS_ST_MAX_DIMS];
        uint32_t n_dims = tms_source_shape(t, shape);
        uint64_t cols = n_dims ? shape[n_dims - 1] : 1;
        found(c, "%s: tensor '%s' row %llu column %llu is %s (%llu such value%s in the tensor)", file_of(s, t), t->name,
              (unsigned long long)(first->first_bad / cols), (unsigned long long)(first->first_bad % cols),
              isnan(first->value) ? "NaN"
              : first->value < 0  ? "-infinity"
                                  : "infinity",
              (unsigned long long)n_bad, n_bad == 1 ? "" : "s");
    }
    c->result.bytes = scan.bytes_total;
    for (unsigned i = 0; i < n_threads; i++) {
        if (scan.raw) free(scan.raw[i]);
        if (scan.x) free(scan.x[i]);
    }
    free(scan.raw);
    free(scan.x);
    free(scan.jobs);
    tms_pool_free(pool);
    return status;
}

tms_status tms_check(const char *path, const struct tms_check_options *options, struct tms_check_result *result,
                     struct tms_error *err)
{
    struct check c = {.options = options};
    struct tms_source *source = NULL;
    tms_status status = tms_source_open(&source, path, finding, &c, err);
    if (status != TMS_OK && c.result.n_findings && status == TMS_EINPUT && err) {
        /* some problems were told already; the one that stopped the opening is one more */
        finding(&c, err->message);
        *result = c.result;
        return TMS_OK;
    }
    if (status != TMS_OK) return status;
    c.source = source;
    c.result.n_tensors = source->n_tensors;
    if (source->kind == TMS_SOURCE_HF && source->hf->dir) check_pointers(&c);
    if (source->kind == TMS_SOURCE_GGUF || (source->kind == TMS_SOURCE_HF && source->hf->dir)) check_tokenizer(&c);
    check_architecture(&c);
    if (source->kind != TMS_SOURCE_CONFIG) status = check_values(&c, err);
    tms_source_close(source);
    if (status == TMS_OK) *result = c.result;
    return status;
}

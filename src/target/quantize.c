/* The public entry points that write: open, plan, create outputs, fill, read back, give names. */
#include <tamis/tamis.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "calib/stats.h"
#include "target/calibrated.h"
#include "target/manifest.h"
#include "target/pipeline.h"

struct order {
    struct tms_source *source;
    const struct tms_quantize_options *options;
    size_t n;
    struct tms_target **targets;
    struct tms_target_stats *stats;
    struct tms_result *results;
    struct tms_pool *pool;
    struct tms_imatrix *imatrix;
    bool calibrated;
    struct tms_samples samples;   /* of a method that reads a text */
    struct tms_stats *statistics; /* or of one that was read */
    char *gathered;               /* the file of these, if this run made it */
    /* with --provenance or --manifest */
    struct tms_hashed_files source_files;
    char source_hash[72], imatrix_sha256[65];
    char **recipes; /* [n], JSON */
    struct tms_output *manifest;
};

/* "DIR/NAME-q4_k_m.gguf" or "DIR/NAME-nf4-dq": the model's name, the type in the spelling of --to. */
static char *numbered_path(const char *dir, const char *model, const struct tms_spec *spec)
{
    char name[512], type[sizeof spec->name];
    char *real = realpath(model, NULL);
    snprintf(name, sizeof name - 96, "%s", tms_path_base(real ? real : model));
    free(real);
    char *ending = strrchr(name, '.');
    if (ending && strcasecmp(ending, ".gguf") == 0) {
        *ending = '\0';
        size_t n = strlen(name); /* of a split: NAME-00001-of-00003 */
        if (n > 15 && strncmp(name + n - 15, "-00001-of-", 10) == 0) name[n - 15] = '\0';
    }
    snprintf(type, sizeof type, "%s", spec->name);
    for (char *c = type; *c; c++) {
        if (*c == ':') *c = '-';
        if (spec->dialect == TMS_DIALECT_GGUF && *c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
    }
    size_t used = strlen(name);
    snprintf(name + used, sizeof name - used, "-%s%s", type, spec->dialect == TMS_DIALECT_GGUF ? ".gguf" : "");
    return tms_path_join(dir, name);
}

/* An output must not be one of the files that are read. */
static tms_status protect_source(const struct order *o, const char *path, struct tms_error *err)
{
    bool same = tms_same_file(path, o->source->path);
    for (size_t i = 0; i < o->source->n_files && !same; i++) same = tms_same_file(path, o->source->files[i]->path);
    return same ? tms_fail(err, TMS_EUSAGE, "%s: is the model itself; choose another output", path) : TMS_OK;
}

static tms_status create_outputs(struct order *o, struct tms_target *t, struct tms_error *err)
{
    tms_status status = protect_source(o, t->path, err);
    bool in_dir = t->folder || t->n_files > 1;
    if (status == TMS_OK && t->folder) {
        (void)rmdir(t->path); /* an empty folder may be replaced; any other stays */
        status = tms_output_dir_create(&t->dir, t->path, o->options->force, err);
    } else if (status == TMS_OK && in_dir) {
        status = tms_output_dir_create(&t->dir, t->path, true, err);
    }
    for (size_t f = 0; f < t->n_files && status == TMS_OK; f++) {
        if (!t->folder && in_dir) {
            char *shard = tms_gguf_shard_path(t->path, (unsigned)f, (unsigned)t->n_files);
            if (!shard) return tms_fail_memory(err, strlen(t->path));
            status = protect_source(o, shard, err);
            free(t->files[f].name);
            t->files[f].name = strdup(tms_path_base(shard));
            free(shard);
            if (!t->files[f].name) return tms_fail_memory(err, 256);
        }
        char *path = in_dir ? tms_path_join(tms_output_dir_partial(t->dir), t->files[f].name) : strdup(t->path);
        if (!path) return tms_fail_memory(err, strlen(t->path));
        if (status == TMS_OK) status = tms_output_create(&t->files[f].output, path, t->files[f].size, err);
        free(path);
    }
    return status;
}

/* Inside a folder in the making the files get their names first, so that readers find them. */
static tms_status settle_files(struct tms_target *t, struct tms_error *err)
{
    tms_status status = TMS_OK;
    for (size_t f = 0; f < t->n_files && status == TMS_OK; f++) {
        status = tms_output_commit(t->files[f].output, err);
        t->files[f].output = NULL;
    }
    if (status == TMS_OK && t->folder) status = tms_target_write_side_files(t, tms_output_dir_partial(t->dir), err);
    return status;
}

static tms_status commit(struct tms_target *t, struct tms_error *err)
{
    tms_status status = TMS_OK;
    if (!t->dir) {
        if (t->n_files) status = tms_output_commit(t->files[0].output, err);
        if (t->n_files) t->files[0].output = NULL;
        return status;
    }
    if (t->folder)
        status = tms_output_dir_commit(t->dir, err);
    else
        status = tms_output_dir_scatter(t->dir, err);
    t->dir = NULL;
    return status;
}

static tms_status fill(struct order *o, uint64_t *source_bytes, struct tms_error *err)
{
    struct tms_pipeline p = {.source = o->source,
                             .targets = o->targets,
                             .n_targets = o->n,
                             .pool = o->pool,
                             .progress = o->options->progress,
                             .progress_ctx = o->options->progress_ctx,
                             .stats = o->stats};
    tms_status status = tms_pipeline_run(&p, err);
    for (size_t i = 0; i < o->n && status == TMS_OK; i++)
        if (o->targets[i]->dir) status = settle_files(o->targets[i], err);
    if (status == TMS_OK && !o->options->no_verify) status = tms_pipeline_verify(&p, err);
    /* From here on everything is complete and right: give the names. */
    for (size_t i = 0; i < o->n && status == TMS_OK; i++) status = commit(o->targets[i], err);
    if (source_bytes) *source_bytes = p.source_bytes;
    tms_pipeline_done(&p);
    return status;
}

static tms_status describe(struct order *o, struct tms_error *err)
{
    for (size_t i = 0; i < o->n; i++) {
        const struct tms_target *t = o->targets[i];
        const struct tms_target_stats *stats = &o->stats[i];
        struct tms_result *r = &o->results[i];
        double n = stats->n_values ? (double)stats->n_values : 1;
        r->type = strdup(t->spec.name);
        r->path =
            !t->folder && t->n_files > 1 ? tms_gguf_shard_path(t->path, 0, (unsigned)t->n_files) : strdup(t->path);
        if (!r->type || !r->path) return tms_fail_memory(err, 256);
        r->n_files = t->n_files;
        r->n_tensors = t->n_outs;
        r->n_quantized = t->n_quantized;
        r->n_kept = t->n_kept;
        r->n_fallbacks = t->n_fallbacks;
        r->n_seen = t->n_seen;
        r->n_unseen = t->n_unseen;
        r->n_raised = t->n_raised;
        r->most_damp = t->most_damp;
        r->n_parameters = t->n_parameters;
        for (size_t f = 0; f < t->n_files; f++) r->file_bytes += t->files[f].size;
        for (size_t k = 0; k < t->n_outs; k++) r->tensor_bytes += t->outs[k].bytes;
        r->rms_error = sqrt(stats->squared_error / n);
        r->rms_weight = sqrt(stats->squared_weight / n);
        r->thread_seconds = stats->thread_seconds;
        r->verified = stats->verified;
    }
    return TMS_OK;
}

/* ---- where it comes from ---- */

static bool tells_provenance(const struct order *o)
{
    return o->options->provenance || o->options->manifest;
}

/* Hashes what is read; a dry run has zeros in their place. */
static tms_status hash_inputs(struct order *o, struct tms_error *err)
{
    const struct tms_quantize_options *q = o->options;
    memset(o->imatrix_sha256, '0', 64);
    snprintf(o->source_hash, sizeof o->source_hash, "sha256:%.64s", o->imatrix_sha256);
    o->recipes = tms_calloc(o->n, sizeof *o->recipes);
    if (!o->recipes) return tms_fail_memory(err, o->n * sizeof *o->recipes);
    if (q->dry_run) return TMS_OK;
    tms_status status = tms_hash_source(&o->source_files, o->source, q->manifest != NULL, o->pool, err);
    if (status == TMS_OK) tms_source_hash(o->source_hash, &o->source_files, o->source);
    if (status == TMS_OK && q->imatrix) status = tms_sha256_file(q->imatrix, o->imatrix_sha256, NULL, err);
    if (status == TMS_OK && q->manifest) status = protect_source(o, q->manifest, err);
    if (status == TMS_OK && q->manifest) status = tms_output_create(&o->manifest, q->manifest, 0, err);
    return status;
}

/* The recipe of one output, and the keys that tell it. */
static tms_status tell_recipe(struct order *o, size_t i, const char *type, bool converter, struct tms_kvs *keys,
                              struct tms_error *err)
{
    json_t *recipe = tms_recipe(o->options, type, converter, o->imatrix_sha256);
    o->recipes[i] = recipe ? json_dumps(recipe, JSON_COMPACT) : NULL;
    json_decref(recipe);
    if (!o->recipes[i]) return tms_fail_memory(err, 256);
    tms_provenance_set_keys(keys, o->recipes[i], o->source_hash);
    return keys->failed ? tms_fail_memory(err, 256) : TMS_OK;
}

static tms_status write_manifest(struct order *o, struct tms_error *err)
{
    struct tms_manifest m = {
        .source = o->source, .source_files = &o->source_files, .source_hash = o->source_hash, .pool = o->pool};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < o->n && status == TMS_OK; i++)
        status = tms_manifest_add(&m, o->targets[i], &o->stats[i], o->recipes[i], err);
    if (status == TMS_OK)
        status = tms_manifest_write(&m, o->manifest, err);
    else
        json_decref(m.outputs);
    if (status == TMS_OK) {
        status = tms_output_commit(o->manifest, err);
        o->manifest = NULL;
    }
    return status;
}

/* ---- the whole ---- */

static tms_status plan_one(struct order *o, size_t i, const char *type, const char *out, bool converter,
                           struct tms_error *err)
{
    const struct tms_quantize_options *q = o->options;
    struct tms_target_options to = {.user = q,
                                    .converter = converter,
                                    .imatrix = o->imatrix,
                                    .weights_come = q->dry_run && q->data && !q->sequential,
                                    .warn = i == 0 ? q->warning : NULL, /* once, not once per target */
                                    .warn_ctx = q->warning_ctx};
    struct tms_spec spec;
    to.convert_auto = converter && strcasecmp(type, "auto") == 0;
    tms_status status = tms_spec_parse(&spec, to.convert_auto ? "f16" : type, err);
    if (status != TMS_OK) return status;
    if (converter && spec.dialect == TMS_DIALECT_GGUF && spec.ftype->id != TMS_FTYPE_F32 &&
        spec.ftype->id != TMS_FTYPE_F16 && spec.ftype->id != TMS_FTYPE_BF16 && spec.ftype->id != TMS_FTYPE_Q8_0)
        return tms_fail(err, TMS_EUSAGE,
                        "--outtype '%s': expected f32, f16, bf16, q8_0 or auto; `tamis quantize` writes the others",
                        type);
    if (converter && spec.dialect != TMS_DIALECT_GGUF)
        return tms_fail(err, TMS_EUSAGE, "--outtype '%s' is not a GGUF type; `tamis quantize` writes it", type);
    if (q->vocab_only && spec.dialect != TMS_DIALECT_GGUF)
        return tms_fail(err, TMS_EUSAGE, "%s: only a GGUF file can hold a vocabulary alone", spec.name);
    for (size_t k = 0; k < i; k++)
        if (strcmp(o->targets[k]->spec.name, spec.name) == 0)
            return tms_fail(err, TMS_EUSAGE, "type %s is given twice", spec.name);
    struct tms_kvs keys = {0};
    if (tells_provenance(o)) status = tell_recipe(o, i, to.convert_auto ? "auto" : spec.name, converter, &keys, err);
    if (q->provenance) to.extra = &keys;
    if (status == TMS_OK) status = tms_target_plan(&o->targets[i], o->source, &spec, &to, err);
    tms_kvs_free(&keys);
    if (status != TMS_OK) return status;
    struct tms_target *t = o->targets[i];
    t->path = q->n_types > 1 ? numbered_path(out, o->source->path, &spec) : strdup(out);
    return t->path ? TMS_OK : tms_fail_memory(err, strlen(out));
}

static tms_status make_out_folder(const char *out, struct tms_error *err)
{
    if (tms_path_is_dir(out)) return TMS_OK;
    if (mkdir(out, 0777) != 0)
        return tms_fail(err, TMS_EIO, "%s: the folder cannot be created (does the one above it exist?)", out);
    return TMS_OK;
}

tms_status tms_open_imatrix(struct tms_imatrix **out, const struct tms_quantize_options *options,
                            const struct tms_source *source, struct tms_error *err)
{
    struct tms_imatrix_options io = {.include = options->include_weights,
                                     .n_include = options->n_include_weights,
                                     .exclude = options->exclude_weights,
                                     .n_exclude = options->n_exclude_weights,
                                     /* of --stats the method tells itself what was rarely seen */
                                     .warn = options->imatrix == options->stats ? NULL : options->warning,
                                     .warn_ctx = options->warning_ctx};
    struct tms_imatrix *imatrix = NULL;
    tms_status status = tms_imatrix_open(&imatrix, options->imatrix, &io, err);
    if (status == TMS_OK && imatrix->fingerprint)
        status = tms_stats_check_model(imatrix->path, imatrix->model, imatrix->fingerprint, source, err);
    if (status == TMS_OK)
        *out = imatrix;
    else
        tms_imatrix_close(imatrix);
    return status;
}

/* ---- statistics of a text, once for all types ---- */

static void tell_walk(void *ctx, const struct tms_calibrate_progress *p)
{
    const struct tms_quantize_options *options = ctx;
    const struct tms_progress as = {.what = "calibrating", .done = (uint64_t)(p->share * 1e6), .total = 1000000};
    options->progress(options->progress_ctx, &as);
}

#define ENOUGH_TOKENS 4096

/* KL divergence of pebble in Q4_K_M: 0.0090 by rounding, 0.0124 by gptq from 2,048 tokens, 0.0081 from 4,096. */
static void warn_of_short_text(const struct tms_quantize_options *o, uint64_t n_tokens)
{
    struct tms_error line;
    if (n_tokens >= ENOUGH_TOKENS || !o->warning) return;
    tms_set_message(&line, "%s: %llu tokens are few for a method that reads a text; some ten thousand are usual",
                    o->data, (unsigned long long)n_tokens);
    o->warning(o->warning_ctx, line.message);
}

/* OUT.work.stats: until the outputs have their names, so that a run that was stopped need not read the text again. */
static tms_status gather(struct order *o, const char *model, const char *out, struct tms_error *err)
{
    const struct tms_quantize_options *q = o->options;
    const struct tms_calibrate_options how = {.data = q->data,
                                              .template_name = q->template_name,
                                              .n_samples = q->n_samples,
                                              .length = q->sample_length,
                                              .keep_hessian = true,
                                              .reuse = true,
                                              .ram = q->ram,
                                              .n_threads = q->n_threads,
                                              .progress = q->progress ? tell_walk : NULL,
                                              .progress_ctx = (void *)(uintptr_t)q};
    struct tms_calibrate_result result;
    o->gathered = tms_calloc(strlen(out) + sizeof ".work.stats", 1);
    if (!o->gathered) return tms_fail_memory(err, strlen(out));
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    sprintf(o->gathered, "%.*s.work.stats", (int)n, out);
    tms_status status = tms_calibrate(model, o->gathered, &how, &result, err);
    if (status != TMS_OK) return status;
    warn_of_short_text(q, result.n_tokens);
    tms_calibrate_free(&result);
    status = tms_stats_open(&o->statistics, o->gathered, err);
    if (status != TMS_OK || q->imatrix) return status;
    /* what has no error feedback is weighted by them, too; the file that is named is the text */
    struct tms_quantize_options weighted = *q;
    const char *name = tms_path_base(q->data);
    weighted.imatrix = weighted.stats = o->gathered;
    status = tms_open_imatrix(&o->imatrix, &weighted, o->source, err);
    if (status == TMS_OK) o->imatrix->path = tms_arena_strndup(&o->imatrix->arena, name, strlen(name));
    return status == TMS_OK && !o->imatrix->path ? tms_fail_memory(err, strlen(name)) : status;
}

static tms_status open_stats(struct order *o, struct tms_error *err)
{
    tms_status status = tms_stats_open(&o->statistics, o->options->stats, err);
    return status == TMS_OK ? tms_stats_check_model(o->options->stats, tms_stats_model(o->statistics),
                                                    tms_stats_fingerprint(o->statistics), o->source, err)
                            : status;
}

/* Codes of methods that make them beforehand, target after target. */
static tms_status calibrate(struct order *o, const char *out, struct tms_error *err)
{
    tms_status status = TMS_OK;
    if (o->options->dry_run) return status;
    status = o->n > 1 ? make_out_folder(out, err) : TMS_OK;
    if (status == TMS_OK && tms_method_reads_text(o->options->method) && !o->statistics)
        status = tms_calibrated_samples(&o->samples, o->source, o->options, err);
    if (status == TMS_OK && o->samples.n) warn_of_short_text(o->options, o->samples.n_tokens);
    for (size_t i = 0; i < o->n && status == TMS_OK; i++)
        status = tms_calibrated_make(o->targets[i], o->pool, &o->samples, o->statistics, o->options, err);
    return status;
}

static tms_status write_model(const char *model, const char *out, const struct tms_quantize_options *options,
                              bool converter, struct tms_result **results, double *seconds, uint64_t *source_bytes,
                              struct tms_error *err)
{
    double start = tms_seconds();
    struct tms_quantize_options own = *options;
    if (own.stats && !own.imatrix) own.imatrix = own.stats; /* what has no error feedback is weighted by them, too */
    options = &own;
    struct order o = {.options = options, .n = options->n_types};
    tms_status status;
    if (options->n_types == 0) return tms_fail(err, TMS_EUSAGE, "no type is given (--to TYPE)");
    status = tms_calibrated_check(options, &o.calibrated, err);
    if (status != TMS_OK) return status;
    o.targets = tms_calloc(o.n, sizeof *o.targets);
    o.stats = tms_calloc(o.n, sizeof *o.stats);
    o.results = tms_calloc(o.n, sizeof *o.results);
    status = o.targets && o.stats && o.results ? TMS_OK : tms_fail_memory(err, o.n * sizeof *o.results);
    /* Types are understood before a large model is opened. */
    for (size_t i = 0; i < o.n && status == TMS_OK; i++) {
        struct tms_spec spec = {0};
        if (!(converter && strcasecmp(options->types[i], "auto") == 0))
            status = tms_spec_parse(&spec, options->types[i], err);
        if (status == TMS_OK) status = tms_calibrated_fits(&spec, options->method, err);
    }
    if (status == TMS_OK) status = tms_source_open(&o.source, model, NULL, NULL, err);
    if (status == TMS_OK && o.source->kind == TMS_SOURCE_CONFIG)
        status = tms_fail(err, TMS_EINPUT, "%s: holds no weights; give the folder", model);
    if (status == TMS_OK && options->imatrix) status = tms_open_imatrix(&o.imatrix, options, o.source, err);
    if (status == TMS_OK && options->stats) status = open_stats(&o, err);
    if (status == TMS_OK && tms_method_reads_text(options->method) && options->data && !options->sequential &&
        !options->dry_run)
        status = gather(&o, model, out, err);
    if (status == TMS_OK && !options->dry_run) status = tms_pool_create(&o.pool, options->n_threads, err);
    if (status == TMS_OK && tells_provenance(&o)) status = hash_inputs(&o, err);
    for (size_t i = 0; i < o.n && status == TMS_OK; i++)
        status = plan_one(&o, i, options->types[i], out, converter, err);
    if (status == TMS_OK && o.calibrated) status = calibrate(&o, out, err);
    if (status == TMS_OK && !options->dry_run) {
        bool made = o.n > 1 && !tms_path_is_dir(out);
        status = o.n > 1 ? make_out_folder(out, err) : TMS_OK;
        for (size_t i = 0; i < o.n && status == TMS_OK; i++) status = create_outputs(&o, o.targets[i], err);
        if (status == TMS_OK) status = fill(&o, source_bytes, err);
        for (size_t i = 0; i < o.n && status == TMS_OK && o.calibrated; i++) tms_calibrated_done(o.targets[i]);
        if (status == TMS_OK && o.gathered) (void)unlink(o.gathered);
        if (status == TMS_OK && options->manifest) status = write_manifest(&o, err);
        if (status != TMS_OK) {
            for (size_t i = 0; i < o.n; i++) {
                tms_target_free(o.targets[i]);
                o.targets[i] = NULL;
            }
            if (made) (void)rmdir(out);
        }
    }
    if (status == TMS_OK) status = describe(&o, err);
    tms_pool_free(o.pool);
    for (size_t i = 0; o.targets && i < o.n; i++) tms_target_free(o.targets[i]);
    tms_source_close(o.source);
    tms_imatrix_close(o.imatrix);
    tms_samples_free(&o.samples);
    tms_stats_close(o.statistics);
    free(o.gathered);
    tms_output_discard(o.manifest);
    tms_hashed_files_free(&o.source_files);
    for (size_t i = 0; o.recipes && i < o.n; i++) free(o.recipes[i]);
    free(o.recipes);
    free(o.targets);
    free(o.stats);
    if (status != TMS_OK) {
        tms_results_free(o.results, o.n);
        return status;
    }
    *results = o.results;
    if (seconds) *seconds = tms_seconds() - start;
    return TMS_OK;
}

tms_status tms_quantize(const char *model, const char *out, const struct tms_quantize_options *options,
                        struct tms_result **results, double *seconds, uint64_t *source_bytes, struct tms_error *err)
{
    return write_model(model, out, options, false, results, seconds, source_bytes, err);
}

tms_status tms_convert(const char *model, const char *out, const struct tms_quantize_options *options,
                       struct tms_result **results, double *seconds, uint64_t *source_bytes, struct tms_error *err)
{
    return write_model(model, out, options, true, results, seconds, source_bytes, err);
}

void tms_results_free(struct tms_result *results, size_t n)
{
    for (size_t i = 0; results && i < n; i++) {
        free(results[i].type);
        free(results[i].path);
    }
    free(results);
}

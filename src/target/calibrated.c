/* See calibrated.h. */
#include "target/calibrated.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/mem.h"
#include "calib/inputs.h"
#include "calib/layers.h"
#include "target/grid_route.h"
#include "target/hqq_codes.h"
#include "target/layer_folds.h"

struct run {
    struct tms_target *t;
    const struct tms_quantize_options *options;
    struct tms_net *net;
    struct tms_net_info info;
    struct tms_layers layers;
    char *work;
    struct tms_layer_codes codes;
};

/* ---- options ---- */

static const struct method {
    const char *name;
    bool reads_text, feedback;
    enum tms_folds folds;
} methods[] = {
    {"rtn", false, false, TMS_FOLDS_NONE},         {"search", false, false, TMS_FOLDS_NONE},
    {"gptq", true, true, TMS_FOLDS_NONE},          {"awq", true, false, TMS_FOLDS_AWQ},
    {"awq+gptq", true, true, TMS_FOLDS_AWQ},       {"smooth", true, false, TMS_FOLDS_SMOOTH},
    {"smooth+gptq", true, true, TMS_FOLDS_SMOOTH}, {"hqq", false, false, TMS_FOLDS_NONE},
};

static const struct method *method_named(const char *name)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(name ? name : "rtn", methods[i].name) == 0) return &methods[i];
    return NULL;
}

static bool is_hqq(const struct method *method)
{
    return strcmp(method->name, "hqq") == 0;
}

bool tms_method_reads_text(const char *name)
{
    const struct method *method = method_named(name);
    return method && method->reads_text;
}

bool tms_method_makes_codes(const char *name)
{
    const struct method *method = method_named(name);
    return method && (method->reads_text || is_hqq(method));
}

tms_status tms_calibrated_check(const struct tms_quantize_options *o, bool *calibrated, struct tms_error *err)
{
    const struct method *method = method_named(o->method);
    if (!method)
        return tms_fail(err, TMS_EUSAGE,
                        "method '%s' is unknown: rtn, search, gptq, awq, awq+gptq, smooth, smooth+gptq or hqq",
                        o->method);
    *calibrated = tms_method_makes_codes(o->method);
    if (strcmp(method->name, "search") == 0 && !o->imatrix)
        return tms_fail(err, TMS_EUSAGE, "method search needs importance weights: --imatrix FILE");
    if (method->reads_text && !o->data)
        return tms_fail(err, TMS_EUSAGE, "method %s needs a text: --data TEXT", o->method);
    if (!method->reads_text && o->data)
        return tms_fail(err, TMS_EUSAGE,
                        "a text is for methods gptq, awq and smooth; importance weights come from `tamis calibrate`");
    return TMS_OK;
}

tms_status tms_calibrated_fits(const struct tms_target *t, const char *name, struct tms_error *err)
{
    const bool integers = t->spec.dialect == TMS_DIALECT_GRID && t->spec.grid.scheme <= TMS_SCHEME_INT8;
    if (t->spec.dialect == TMS_DIALECT_GGUF || integers || !tms_method_reads_text(name)) return TMS_OK;
    return tms_fail(err, TMS_EUSAGE, "%s: method %s is for GGUF types and grids of integers: gptq, awq, w4a16, w8a8 …",
                    t->spec.name, name);
}

tms_status tms_calibrated_samples(struct tms_samples *out, const struct tms_source *source,
                                  const struct tms_quantize_options *o, struct tms_error *err)
{
    const struct tms_calibrate_options how = {.data = o->data, .n_samples = o->n_samples, .length = o->sample_length};
    struct tms_tokenizer *tokenizer = NULL;
    if (!source->has_config && source->kind != TMS_SOURCE_GGUF)
        return tms_fail(err, TMS_EINPUT, "%s: is one file of tensors; a method that reads a text needs the folder",
                        source->path);
    tms_status status = tms_tokenizer_open(&tokenizer, source, err);
    if (status == TMS_OK) status = tms_samples_read(out, tokenizer, tms_tokenizer_n_vocab(tokenizer), &how, err);
    tms_tokenizer_close(tokenizer);
    return status;
}

static tms_status run_layer(struct run *r, uint64_t layer, struct tms_error *err)
{
    tms_status status = tms_net_hold(r->net, layer, 1, err);
    r->codes.measures = true;
    if (status == TMS_OK) status = tms_layers_run(&r->layers, layer, false, err);
    r->codes.measures = false;
    if (status == TMS_OK) status = tms_layer_codes_make(&r->codes, layer, err);
    if (status == TMS_OK && layer < r->info.n_layers) status = tms_layers_run(&r->layers, layer, true, err);
    if (status == TMS_OK && layer > 0) tms_layers_forget(&r->layers, layer);
    (void)tms_net_hold(r->net, layer, 0, err); /* the net forgets the codes before they are freed */
    tms_layer_codes_drop(&r->codes);
    return status;
}

/* ---- the whole ---- */

/* What else a layer needs beside the walk: Hessians, a factor, a matrix in f32 and what feedback keeps of it, codes. */
static uint64_t bytes_of_layer(const struct run *r)
{
    uint64_t most = 0;
    for (uint64_t l = 0; l <= r->info.n_layers; l++) {
        struct tms_net_matrix m;
        uint64_t hessians = 0, largest = 0, width = 0, codes = 0;
        for (size_t at = 0; tms_net_matrix(r->net, l, &at, &m);) {
            if (tms_input_owner(m.linear) == m.linear) hessians += m.cols * m.cols * 4 + m.cols * 2112;
            if (m.rows * m.cols > largest) largest = m.rows * m.cols;
            if (m.cols > width) width = m.cols;
            codes += m.rows * m.cols * (r->t->spec.dialect == TMS_DIALECT_GGUF ? 1 : 6); /* or a byte and a bit */
        }
        uint64_t bytes = hessians + width * width * 8 + largest * 14 + codes;
        if (r->codes.folds != TMS_FOLDS_NONE) bytes += width * TMS_LAYER_FOLDS_ROWS * 12;
        if (bytes > most) most = bytes;
    }
    return most;
}

static void tell(void *ctx, uint64_t layer, double share)
{
    struct run *r = ctx;
    struct tms_progress p = {.what = "calibrating",
                             .done = (uint64_t)(((double)layer + share) * 1e6),
                             .total = (r->info.n_layers + 1) * 1000000};
    if (r->options->progress) r->options->progress(r->options->progress_ctx, &p);
}

/* What a run's codes depend on, in one line. */
static char *about_run(const struct run *r, const struct tms_samples *s)
{
    struct tms_buf b = {0};
    uint64_t hash = XXH3_64bits(s->ids, s->n_tokens * sizeof *s->ids);
    hash = XXH3_64bits_withSeed(s->starts, (s->n + 1) * sizeof *s->starts, hash);
    for (size_t i = 0; i < r->t->n_routes; i++) {
        const struct tms_route *route = &r->t->routes[i];
        const uint64_t facts[] = {route->source,
                                  route->kind,
                                  route->codec ? route->codec->id : 0,
                                  route->turn.kind,
                                  route->grid ? route->grid->grid.bits : 0,
                                  route->grid ? route->grid->grid.group : 0,
                                  route->grid ? route->grid->grid.has_zeros : 0};
        hash = XXH3_64bits_withSeed(facts, sizeof facts, hash);
    }
    tms_buf_printf(&b, "%s %s of %016llx by %016llx\n", r->options->method, r->t->spec.name,
                   (unsigned long long)tms_net_fingerprint(r->net), (unsigned long long)hash);
    tms_buf_put(&b, "", 1);
    if (!b.failed) return (char *)b.data;
    tms_buf_free(&b);
    return NULL;
}

/* Layers that an earlier run finished, and where their codes are. */
static uint64_t find_finished(const struct run *r)
{
    uint64_t first = 0;
    for (uint64_t i = 1; i <= r->info.n_layers; i++)
        if (tms_layers_done(&r->layers, i)) first = i;
    return first;
}

static tms_status set_made(struct run *r, struct tms_error *err)
{
    for (size_t i = 0; i < r->t->n_routes; i++) {
        char *path = tms_layer_codes_path(&r->codes, &r->t->routes[i]);
        if (!path) return tms_fail_memory(err, 256);
        if (tms_path_exists(path)) {
            char *made = tms_arena_strndup(&r->t->arena, path, strlen(path));
            if (!made) {
                free(path);
                return tms_fail_memory(err, 256);
            }
            if (r->t->routes[i].grid)
                r->t->routes[i].grid->made = made;
            else
                r->t->routes[i].made = made;
        }
        free(path);
    }
    return TMS_OK;
}

static char *work_path(const struct tms_target *t)
{
    char *work = tms_calloc(strlen(t->path) + 8, 1);
    if (work) sprintf(work, "%s.work", t->path);
    return work;
}

static void report(const struct run *r)
{
    struct tms_error line;
    if (!r->options->warning) return;
    if (r->codes.n_unfolded) {
        tms_set_message(&line,
                        "%s: scales of inputs stand at %zu of %zu places; the others have no norm or matrix of their "
                        "own before them, or too few tokens of the text came by",
                        r->t->spec.name, r->codes.n_folded, r->codes.n_folded + r->codes.n_unfolded);
        r->options->warning(r->options->warning_ctx, line.message);
    }
    if (!r->codes.n_unseen) return;
    tms_set_message(&line,
                    "%s: %zu of %zu matrices were reached by too few tokens of the text; they are rounded without it",
                    r->t->spec.name, r->codes.n_unseen, r->codes.n_unseen + r->codes.n_fed);
    r->options->warning(r->options->warning_ctx, line.message);
}

/* HQQ: no walk, and nothing to go on from. */
static tms_status make_hqq(struct tms_target *t, struct tms_pool *pool, const struct tms_quantize_options *options,
                           struct tms_error *err)
{
    char *work = work_path(t);
    bool same;
    tms_status status = work ? tms_work_open(work, "hqq\n", &same, err) : tms_fail_memory(err, 256);
    if (status == TMS_OK) {
        status = tms_hqq_codes_make(t, work, pool, options, err);
        if (status != TMS_OK) tms_work_remove(work);
    }
    free(work);
    return status;
}

tms_status tms_calibrated_make(struct tms_target *t, struct tms_pool *pool, const struct tms_samples *samples,
                               const struct tms_quantize_options *options, struct tms_error *err)
{
    if (is_hqq(method_named(options->method))) return make_hqq(t, pool, options, err);
    const struct tms_net_options bounded = {.bounded = true};
    const struct method *method = method_named(options->method);
    struct run r = {.t = t, .options = options, .work = work_path(t)};
    char *about = NULL;
    bool same = false;
    uint64_t first = 0;
    tms_status status = r.work ? tms_net_open(&r.net, t->source, pool, &bounded, err) : tms_fail_memory(err, 256);
    if (status == TMS_OK) {
        tms_net_describe(r.net, &r.info);
        tms_net_tap(r.net, tms_layer_codes_add, &r.codes);
        r.codes = (struct tms_layer_codes){.t = t,
                                           .pool = pool,
                                           .net = r.net,
                                           .work = r.work,
                                           .n_experts = (size_t)r.info.n_experts,
                                           .n_kv_heads = (size_t)r.info.n_kv_heads,
                                           .feedback = method->feedback,
                                           .folds = method->folds};
        about = about_run(&r, samples);
        status = about ? tms_work_open(r.work, about, &same, err) : tms_fail_memory(err, 256);
    }
    if (status == TMS_OK) {
        r.layers = (struct tms_layers){.model = t->source->path,
                                       .work = r.work,
                                       .net = r.net,
                                       .samples = samples,
                                       .ram = options->ram,
                                       .more = bytes_of_layer(&r),
                                       .tap = tms_layer_codes_add,
                                       .tap_ctx = &r.codes,
                                       .progress = tell,
                                       .progress_ctx = &r};
        status = tms_layers_open(&r.layers, err);
    }
    if (status == TMS_OK && same) first = find_finished(&r);
    for (uint64_t i = 0; i < first && status == TMS_OK && r.codes.folds != TMS_FOLDS_NONE; i++)
        status = tms_layer_folds_load(&r.codes, i, err);
    for (uint64_t i = first; i <= r.info.n_layers && status == TMS_OK; i++) status = run_layer(&r, i, err);
    if (status == TMS_OK) status = set_made(&r, err);
    if (status == TMS_OK) report(&r);
    tms_layers_close(&r.layers);
    tms_layer_codes_drop(&r.codes);
    tms_net_close(r.net);
    free(r.codes.made);
    free(r.codes.codes);
    free(r.codes.folded_sources);
    free(r.work);
    free(about);
    return status;
}

void tms_calibrated_done(const struct tms_target *t)
{
    char *work = work_path(t);
    if (work) tms_work_remove(work);
    free(work);
}

/* tms_calibrate: a model over a text, layer by layer. When a layer's statistics have their name, and then the hidden
 * states behind it theirs (layers.h), the layer is done, whatever happens to the process later. */
#include <tamis/tamis.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "calib/imatrix_write.h"
#include "calib/layers.h"
#include "calib/samples.h"
#include "calib/stats.h"

struct run {
    const struct tms_calibrate_options *options;
    const char *model, *path;
    char *work; /* the folder */
    struct tms_source *source;
    struct tms_pool *pool;
    struct tms_net *net;
    struct tms_net_info info;
    struct tms_samples samples;
    struct tms_inputs inputs;
    struct tms_layers layers;
    size_t experts_at_once; /* whose Hessians are in memory */
    json_t *about;
    struct tms_calibrate_result *result;
    double start, told;
};

static void tell(void *ctx, uint64_t layer, double share)
{
    struct run *r = ctx;
    double now = tms_seconds();
    if (!r->options->progress || now < r->told + 0.1) return;
    struct tms_calibrate_progress p = {.share = ((double)layer + share) / (double)(r->info.n_layers + 1),
                                       .seconds = now - r->start,
                                       .layer = layer,
                                       .n_layers = r->info.n_layers};
    r->told = now;
    r->options->progress(r->options->progress_ctx, &p);
}

static bool wants_hessians(const struct run *r)
{
    return r->options->hessian || r->options->keep_hessian;
}

/* Room for the sums of a layer's inputs, and for factors of their Hessians, with those of some experts. */
static uint64_t bytes_of_inputs(const struct run *r)
{
    uint64_t widest = 0;
    struct tms_net_matrix m;
    for (uint64_t i = 0; wants_hessians(r) && i <= r->info.n_layers; i++)
        for (size_t at = 0; tms_net_matrix(r->net, i, &at, &m);)
            if (m.cols > widest) widest = m.cols;
    return tms_inputs_bytes(&r->inputs, r->net, r->info.n_layers, r->experts_at_once) + widest * (widest + 32) * 8;
}

/* Everything that a run's hidden states depend on. */
static json_t *about_run(const struct run *r)
{
    char fingerprint[TMS_FINGERPRINT], data[24];
    const struct tms_samples *s = &r->samples;
    uint64_t hash = XXH3_64bits(s->ids, s->n_tokens * sizeof *s->ids);
    tms_net_fingerprint_text(r->net, fingerprint);
    snprintf(data, sizeof data, "%016llx",
             (unsigned long long)XXH3_64bits_withSeed(s->starts, (s->n + 1) * sizeof *s->starts, hash));
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:b}", "format", 1, "tamis", TAMIS_VERSION,
                     "fingerprint", fingerprint, "architecture", r->source->arch->class_name, "data",
                     tms_path_base(r->options->data), "ids", data, "sequences", (json_int_t)s->n, "seqlen",
                     (json_int_t)s->longest, "tokens", (json_int_t)s->n_tokens, "hessians",
                     r->options->keep_hessian ? "kept"
                     : r->options->hessian    ? "seen"
                                              : "none",
                     "histograms", r->options->histogram);
}

/* A walk over a layer (n_layers: the input of the output layer): all sums, or Hessians of some more experts. */
static tms_status walk_once(struct run *r, uint64_t layer, size_t first_expert, bool last,
                            struct tms_stats_layer **file, struct tms_error *err)
{
    char *path = tms_stats_layer_path(r->work, layer);
    r->inputs.first_expert = first_expert;
    r->inputs.end_expert = first_expert + r->experts_at_once;
    /* hidden states get their name at the end of the last walk, and then the statistics: a run that is killed between
     * the two does the layer again */
    tms_status status = path ? tms_layers_run(&r->layers, layer, last, err) : tms_fail_memory(err, 256);
    if (status == TMS_OK) status = tms_inputs_finish(&r->inputs, err);
    if (status == TMS_OK && !*file)
        status = tms_stats_layer_begin(file, path, r->net, layer, &r->inputs.layer, r->options->keep_hessian, err);
    if (status == TMS_OK) status = tms_stats_layer_hessians(*file, r->pool, err);
    tms_inputs_drop_hessians(&r->inputs);
    free(path);
    return status;
}

static tms_status walk_layer(struct run *r, uint64_t layer, struct tms_error *err)
{
    struct tms_stats_layer *file = NULL;
    bool has_experts = false;
    struct tms_net_matrix m;
    for (size_t at = 0; tms_net_matrix(r->net, layer, &at, &m);) has_experts |= m.expert >= 0;
    const size_t n = has_experts && wants_hessians(r) ? (size_t)r->info.n_experts : 1;
    tms_status status = tms_net_hold(r->net, layer, 1, err);
    for (size_t first = 0; first < n && status == TMS_OK; first += r->experts_at_once)
        status = walk_once(r, layer, first, first + r->experts_at_once >= n, &file, err);
    if (status == TMS_OK) status = tms_stats_layer_end(file, err);
    if (status == TMS_OK && layer > 0) tms_layers_forget(&r->layers, layer);
    tms_stats_layer_free(file);
    tms_inputs_clear(&r->inputs);
    return status;
}

/* Weight by weight the name of its input. */
static tms_status name_weights(struct run *r, struct tms_error *err)
{
    json_t *weights = json_object();
    for (uint64_t i = 0; i <= r->info.n_layers; i++)
        for (int l = 0; l <= TMS_LINEAR_EXPERT_DOWN; l++) {
            char weight[192], input[192];
            if (!tms_net_linear_name(r->net, i, (enum tms_linear)l, true, weight, sizeof weight) ||
                !tms_net_linear_name(r->net, i, tms_input_owner((enum tms_linear)l), false, input, sizeof input))
                continue;
            if (json_object_set_new(weights, weight, json_string(input)) != 0) {
                json_decref(weights);
                return tms_fail_memory(err, 4096);
            }
            r->result->n_inputs += tms_input_owner((enum tms_linear)l) == (enum tms_linear)l;
        }
    return json_object_set_new(r->about, "weights", weights) == 0 ? TMS_OK : tms_fail_memory(err, 4096);
}

/* What is told of a layer, out of the file: an earlier run may have made it. */
static tms_status tell_layer(struct run *r, const struct tms_stats *stats, uint64_t layer, struct tms_error *err)
{
    struct tms_hessians_seen seen = {0};
    tms_status status = TMS_OK;
    for (int l = 0; l <= TMS_LINEAR_EXPERT_DOWN && status == TMS_OK; l++) {
        char input[192];
        if (tms_input_owner((enum tms_linear)l) != (enum tms_linear)l ||
            !tms_net_linear_name(r->net, layer, (enum tms_linear)l, false, input, sizeof input))
            continue;
        status = tms_stats_hessians_seen(stats, input, &seen, err);
        if (status != TMS_OK || l != TMS_LINEAR_EXPERT_GATE) continue;
        struct tms_coverage *c = &r->result->coverage[r->result->n_coverage];
        status = tms_stats_counts(stats, input, &c->tokens, &c->n_experts, err);
        c->layer = layer;
        c->least = TMS_LEAST_TOKENS(r->info.hidden);
        r->result->n_coverage += c->tokens != NULL;
    }
    r->result->n_hessians += seen.n;
    r->result->n_dead += seen.n_dead;
    r->result->n_raised += seen.n_raised;
    if (seen.most_damp > r->result->most_damp) r->result->most_damp = seen.most_damp;
    return status;
}

static tms_status tell_findings(struct run *r, struct tms_error *err)
{
    struct tms_stats *stats = NULL;
    tms_status status = tms_stats_open(&stats, r->path, err);
    for (uint64_t i = 0; i <= r->info.n_layers && status == TMS_OK; i++) status = tell_layer(r, stats, i, err);
    tms_stats_close(stats);
    return status;
}

static tms_status open_model(struct run *r, struct tms_error *err)
{
    const struct tms_net_options options = {.bounded = true};
    struct tms_tokenizer *tokenizer = NULL;
    tms_status status = tms_source_open(&r->source, r->model, NULL, NULL, err);
    if (status == TMS_OK && r->source->kind == TMS_SOURCE_CONFIG)
        status = tms_fail(err, TMS_EINPUT, "%s: a config.json alone has no weights to calibrate", r->model);
    if (status == TMS_OK) status = tms_pool_create(&r->pool, r->options->n_threads, err);
    if (status == TMS_OK) status = tms_net_open(&r->net, r->source, r->pool, &options, err);
    if (status != TMS_OK) return status;
    tms_net_describe(r->net, &r->info);
    status = tms_tokenizer_open(&tokenizer, r->source, err);
    if (status == TMS_OK) status = tms_samples_read(&r->samples, tokenizer, r->model, r->info.vocab, r->options, err);
    tms_tokenizer_close(tokenizer);
    if (status != TMS_OK) return status;
    r->inputs = (struct tms_inputs){.pool = r->pool,
                                    .model = r->model,
                                    .n_experts = (size_t)r->info.n_experts,
                                    .hessians = wants_hessians(r),
                                    .histograms = r->options->histogram};
    tms_net_tap(r->net, tms_inputs_add, &r->inputs);
    r->result->coverage = tms_calloc(r->info.n_layers + 1, sizeof *r->result->coverage);
    if (!r->result->coverage) return tms_fail_memory(err, (r->info.n_layers + 1) * sizeof *r->result->coverage);
    r->about = about_run(r);
    return r->about ? TMS_OK : tms_fail_memory(err, 4096);
}

/* As many experts at once as memory has room for. */
static tms_status open_walk(struct run *r, struct tms_error *err)
{
    for (r->experts_at_once = r->info.n_experts ? (size_t)r->info.n_experts : 1;;
         r->experts_at_once = (r->experts_at_once + 1) / 2) {
        r->layers.more = bytes_of_inputs(r);
        tms_status status = tms_layers_open(&r->layers, err);
        if (status != TMS_EINPUT || r->experts_at_once == 1 || !wants_hessians(r)) return status;
    }
}

/* True if there is the file of such a run already. */
static bool is_made(const struct run *r)
{
    struct tms_stats *stats = NULL;
    struct tms_error err;
    if (!r->options->reuse || !tms_path_exists(r->path) || tms_stats_open(&stats, r->path, &err) != TMS_OK)
        return false;
    json_object_del(stats->about, "weights");
    bool same = json_equal(stats->about, r->about);
    tms_stats_close(stats);
    return same;
}

static tms_status walk(struct run *r, struct tms_error *err)
{
    uint64_t first = 0, at = 0;
    bool same = false;
    char *about = json_dumps(r->about, JSON_COMPACT);
    tms_status status = about ? tms_work_open(r->work, about, &same, err) : tms_fail_memory(err, 4096);
    const bool fresh = status == TMS_OK && !same;
    r->layers = (struct tms_layers){.model = r->model,
                                    .work = r->work,
                                    .net = r->net,
                                    .samples = &r->samples,
                                    .ram = r->options->ram,
                                    .tap = tms_inputs_add,
                                    .tap_ctx = &r->inputs,
                                    .progress = tell,
                                    .progress_ctx = r};
    free(about);
    if (status == TMS_OK) status = open_walk(r, err);
    for (uint64_t i = 1; status == TMS_OK && same && i <= r->info.n_layers; i++) {
        char *stats = tms_stats_layer_path(r->work, i - 1);
        if (stats && tms_path_exists(stats) && tms_layers_done(&r->layers, i)) first = i;
        free(stats);
    }
    r->result->resumed_at = first;
    r->result->planned_bytes = r->options->ram ? r->layers.planned_bytes : 0;
    for (at = first; at <= r->info.n_layers && status == TMS_OK; at += status == TMS_OK)
        status = walk_layer(r, at, err);
    /* what failed before its first layer was done has nothing to go on with */
    if (status != TMS_OK && fresh && at == 0) tms_work_remove(r->work);
    if (status == TMS_OK) status = name_weights(r, err);
    if (status == TMS_OK) status = tms_stats_join(r->path, r->work, r->info.n_layers + 1, r->about, err);
    if (status == TMS_OK && r->options->imatrix)
        status = tms_imatrix_write(r->options->imatrix, r->path, r->options->process_output, err);
    if (status == TMS_OK) status = tell_findings(r, err);
    if (status == TMS_OK) tms_work_remove(r->work);
    return status;
}

tms_status tms_calibrate(const char *model, const char *path, const struct tms_calibrate_options *options,
                         struct tms_calibrate_result *result, struct tms_error *err)
{
    static const struct tms_calibrate_options none;
    struct run r = {
        .options = options ? options : &none, .model = model, .path = path, .result = result, .start = tms_seconds()};
    tms_status status;
    *result = (struct tms_calibrate_result){0};
    if (!r.options->data) return tms_fail(err, TMS_EUSAGE, "a text to calibrate with is missing");
    r.work = tms_calloc(strlen(path) + 8, 1);
    if (!r.work) return tms_fail_memory(err, strlen(path));
    sprintf(r.work, "%s.work", path);
    status = open_model(&r, err);
    if (status == TMS_OK && is_made(&r))
        tms_work_remove(r.work); /* the run that made it may have been killed before that */
    else if (status == TMS_OK)
        status = walk(&r, err);
    result->n_sequences = r.samples.n;
    result->n_tokens = r.samples.n_tokens;
    result->seconds = tms_seconds() - r.start;
    tms_inputs_clear(&r.inputs);
    tms_layers_close(&r.layers);
    tms_samples_free(&r.samples);
    tms_net_close(r.net);
    tms_source_close(r.source);
    tms_pool_free(r.pool);
    json_decref(r.about);
    free(r.work);
    if (status != TMS_OK) tms_calibrate_free(result);
    return status;
}

void tms_calibrate_free(struct tms_calibrate_result *result)
{
    for (size_t i = 0; i < result->n_coverage; i++) free(result->coverage[i].tokens);
    free(result->coverage);
    *result = (struct tms_calibrate_result){0};
}

/* See calibrated.h. */
#include "target/calibrated.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/resident.h"
#include "calib/inputs.h"
#include "calib/layers.h"
#include "target/grid_route.h"
#include "target/hqq_codes.h"
#include "target/layer_folds.h"

struct run {
    struct tms_target *t;
    const struct tms_quantize_options *options;
    const struct tms_stats *stats; /* NULL: the model is walked */
    size_t experts_at_once;        /* whose Hessians are in memory */
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
    if (method->reads_text && !o->data && !o->stats)
        return tms_fail(err, TMS_EUSAGE,
                        "method %s needs a text, --data TEXT, or the Hessians of `tamis calibrate --keep-hessian`, "
                        "--stats STATS",
                        o->method);
    if (o->data && o->stats)
        return tms_fail(err, TMS_EUSAGE, "--data and --stats do not go together: statistics are of a text already");
    if (o->stats && o->sequential) return tms_fail(err, TMS_EUSAGE, "--sequential needs the text itself: --data TEXT");
    if (o->stats && !method->reads_text)
        return tms_fail(err, TMS_EUSAGE, "--stats is for methods gptq, awq and smooth; others take it as --imatrix");
    if (o->sequential && !method->reads_text)
        return tms_fail(err, TMS_EUSAGE, "--sequential is for methods gptq, awq and smooth");
    if (o->damp < 0 || !(o->damp <= 1e6))
        return tms_fail(err, TMS_EUSAGE, "--damp %g: a share of the Hessian's diagonal, above 0", o->damp);
    if (o->damp > 0 && !method->feedback)
        return tms_fail(err, TMS_EUSAGE, "--damp is for methods with error feedback: gptq, awq+gptq, smooth+gptq");
    if (!method->reads_text && o->data)
        return tms_fail(err, TMS_EUSAGE,
                        "a text is for methods gptq, awq and smooth; importance weights come from `tamis calibrate`");
    return TMS_OK;
}

tms_status tms_calibrated_fits(const struct tms_spec *spec, const char *name, struct tms_error *err)
{
    const struct method *method = method_named(name);
    if (spec->dialect == TMS_DIALECT_GRID && spec->grid.act_order && !(method && method->feedback))
        return tms_fail(err, TMS_EUSAGE, "%s: the order of columns is what --method gptq finds", spec->name);
    const bool integers = spec->dialect == TMS_DIALECT_GRID && spec->grid.scheme <= TMS_SCHEME_INT8;
    if (spec->dialect == TMS_DIALECT_GGUF || integers || !tms_method_reads_text(name)) return TMS_OK;
    return tms_fail(err, TMS_EUSAGE, "%s: method %s is for GGUF types and grids of integers: gptq, awq, w4a16, w8a8 …",
                    spec->name, name);
}

tms_status tms_calibrated_samples(struct tms_samples *out, const struct tms_source *source,
                                  const struct tms_quantize_options *o, struct tms_error *err)
{
    const struct tms_calibrate_options how = {
        .data = o->data, .n_samples = o->n_samples, .length = o->sample_length, .template_name = o->template_name};
    struct tms_tokenizer *tokenizer = NULL;
    if (!source->has_config && source->kind != TMS_SOURCE_GGUF)
        return tms_fail(err, TMS_EINPUT, "%s: is one file of tensors; a method that reads a text needs the folder",
                        source->path);
    tms_status status = tms_tokenizer_open(&tokenizer, source, err);
    if (status == TMS_OK)
        status = tms_samples_read(out, tokenizer, source->path, tms_tokenizer_n_vocab(tokenizer), &how, err);
    tms_tokenizer_close(tokenizer);
    return status;
}

/* ---- a layer ---- */

static void tell(void *ctx, uint64_t layer, double share)
{
    struct run *r = ctx;
    struct tms_progress p = {.what = "calibrating",
                             .done = (uint64_t)(((double)layer + share) * 1e6),
                             .total = (r->info.n_layers + 1) * 1000000};
    if (r->options->progress) r->options->progress(r->options->progress_ctx, &p);
}

/* What was told until a layer was done, in a file. In walks that is not yet the sign that it is done: hidden states are
 * (layers.h). */
static char *report_path(const struct run *r, uint64_t layer)
{
    char name[32];
    snprintf(name, sizeof name, "report-%05llu", (unsigned long long)layer);
    return tms_path_join(r->work, name);
}

static tms_status save_report(const struct run *r, uint64_t layer, struct tms_error *err)
{
    const struct tms_codes_report *report = &r->codes.report;
    struct tms_output *output = NULL;
    char text[192], *path = report_path(r, layer);
    int n = snprintf(text, sizeof text, "%zu %zu %zu %.17g %zu %zu\n", report->n_seen, report->n_unseen,
                     report->n_raised, report->most_damp, r->codes.n_folded, r->codes.n_unfolded);
    tms_status status = path ? tms_output_create(&output, path, 0, err) : tms_fail_memory(err, 256);
    if (status == TMS_OK) status = tms_output_write(output, text, (uint64_t)n, 0, err);
    if (status == TMS_OK)
        status = tms_output_commit(output, err);
    else
        tms_output_discard(output);
    free(path);
    return status;
}

static bool load_report(struct run *r, uint64_t layer)
{
    struct tms_codes_report report;
    struct tms_error err;
    size_t folded, unfolded;
    char *path = report_path(r, layer), *text = NULL;
    size_t n = 0;
    bool there = path && tms_path_exists(path) && tms_file_text(path, 192, &text, &n, &err) == TMS_OK &&
                 sscanf(text, "%zu %zu %zu %lf %zu %zu", &report.n_seen, &report.n_unseen, &report.n_raised,
                        &report.most_damp, &folded, &unfolded) == 6;
    if (there) {
        r->codes.report = report;
        r->codes.n_folded = folded;
        r->codes.n_unfolded = unfolded;
    }
    free(text);
    free(path);
    return there;
}

/* Matrices of a stage: what they see, as things are, and then their codes. Where the Hessians of all experts together
 * are too large it is done for some experts after others, and then for what is of no expert: no expert changes what
 * another one sees, nor what the layer's other matrices see. */
static tms_status make_stage(struct run *r, uint64_t layer, enum tms_stage stage, struct tms_error *err)
{
    struct tms_layer_codes *c = &r->codes;
    const bool experts = tms_layer_codes_has_stage(c, layer, stage, true);
    const size_t n = experts ? c->n_experts : 1, step = experts ? r->experts_at_once : 1;
    tms_status status = TMS_OK;
    c->stage = stage;
    for (size_t first = 0; first < n && status == TMS_OK; first += step) {
        c->first_expert = first;
        c->end_expert = first + step;
        c->others = first + step >= n;
        if (r->stats) {
            status = tms_layer_codes_load(c, r->stats, layer, err);
        } else {
            c->measures = true;
            status = tms_layers_run(&r->layers, layer, false, err);
            c->measures = false;
        }
        if (status == TMS_OK) status = tms_layer_codes_make(c, layer, err);
        tms_layer_codes_drop_hessians(c);
    }
    return status;
}

static tms_status make_layer(struct run *r, uint64_t layer, struct tms_error *err)
{
    tms_status status = TMS_OK;
    tell(r, layer, 0);
    if (tms_cancelled())
        return tms_fail(err, TMS_ECANCELLED, "interrupted; the same command goes on with layer %llu of %llu",
                        (unsigned long long)layer, (unsigned long long)r->info.n_layers);
    const bool staged = !r->stats && r->codes.folds == TMS_FOLDS_NONE;
    if (!staged) status = make_stage(r, layer, TMS_STAGE_ALL, err);
    for (int stage = 0; staged && stage < TMS_STAGES && status == TMS_OK; stage++)
        if (tms_layer_codes_has_stage(&r->codes, layer, (enum tms_stage)stage, false))
            status = make_stage(r, layer, (enum tms_stage)stage, err);
    if (status == TMS_OK) status = save_report(r, layer, err);
    const bool flows_on = !r->stats && layer < r->info.n_layers;
    return status == TMS_OK && flows_on ? tms_layers_run(&r->layers, layer, true, err) : status;
}

static tms_status run_layer(struct run *r, uint64_t layer, struct tms_error *err)
{
    tms_status status = tms_net_hold(r->net, layer, 1, err);
    if (status == TMS_OK) status = make_layer(r, layer, err);
    if (status == TMS_OK && layer > 0 && !r->stats) tms_layers_forget(&r->layers, layer);
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
            if (tms_input_owner(m.linear) == m.linear && m.expert < (int)r->experts_at_once)
                hessians += m.cols * m.cols * 4 + m.cols * 2112;
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

/* What a run's codes depend on, in one line. */
static char *about_run(const struct run *r, const struct tms_samples *s)
{
    struct tms_buf b = {0};
    char *stats = r->stats ? json_dumps(r->stats->about, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    uint64_t hash = stats ? XXH3_64bits(stats, strlen(stats)) : XXH3_64bits(s->ids, s->n_tokens * sizeof *s->ids);
    if (!r->stats) hash = XXH3_64bits_withSeed(s->starts, (s->n + 1) * sizeof *s->starts, hash);
    free(stats);
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
    tms_buf_printf(&b, "%s%s %s, damp %g, of %016llx by %016llx\n", r->options->method,
                   r->stats ? " from statistics" : " in sequential order", r->t->spec.name, r->options->damp,
                   (unsigned long long)tms_net_fingerprint(r->net), (unsigned long long)hash);
    tms_buf_put(&b, "", 1);
    if (!b.failed) return (char *)b.data;
    tms_buf_free(&b);
    return NULL;
}

/* How many layers an earlier run finished; with what they told. */
static uint64_t find_finished(struct run *r)
{
    uint64_t first = 0;
    for (uint64_t i = 1; !r->stats && i <= r->info.n_layers; i++)
        if (tms_layers_done(&r->layers, i)) first = i;
    if (r->stats)
        while (first <= r->info.n_layers && load_report(r, first)) first++;
    else if (first && !load_report(r, first - 1))
        first = 0;
    return first;
}

/* The order of columns that an earlier run found is in the file alone. */
static tms_status read_order(const struct tms_grid_route *grid, struct tms_error *err)
{
    struct tms_file file;
    const uint64_t n = grid->grid.cols * sizeof *grid->order;
    tms_status status = tms_file_open(&file, grid->made, err);
    if (status != TMS_OK) return status;
    status = tms_file_read(&file, grid->order, n, tms_layer_codes_grid_bytes(grid) - n, err);
    for (uint64_t i = 0; i < grid->grid.cols && status == TMS_OK; i++)
        if (grid->order[i] >= tms_grid_groups(&grid->grid))
            status = tms_fail(err, TMS_EINPUT, "%s: is damaged; remove the folder", grid->made);
    tms_file_close(&file);
    return status;
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
            struct tms_grid_route *grid = r->t->routes[i].grid;
            *(grid ? &grid->made : &r->t->routes[i].made) = made;
            tms_status status = grid && grid->order ? read_order(grid, err) : TMS_OK;
            if (status != TMS_OK) {
                free(path);
                return status;
            }
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

static void warn(const struct run *r, const struct tms_error *line)
{
    if (r->options->warning) r->options->warning(r->options->warning_ctx, line->message);
}

static void tell_report(const struct run *r)
{
    const struct tms_codes_report *report = &r->codes.report;
    struct tms_error line;
    if (r->codes.n_unfolded) {
        tms_set_message(&line,
                        "%s: scales of inputs stand at %zu of %zu places; the others have no norm or matrix of their "
                        "own before them, or too few tokens of the text came by",
                        r->t->spec.name, r->codes.n_folded, r->codes.n_folded + r->codes.n_unfolded);
        warn(r, &line);
    }
    r->t->n_seen = report->n_seen;
    r->t->n_unseen = report->n_unseen;
    r->t->n_raised = report->n_raised;
    r->t->most_damp = report->most_damp;
    tms_set_message(&line,
                    "%s: %zu of %zu matrices were reached by too few tokens of the text; they are rounded without it",
                    r->t->spec.name, report->n_unseen, report->n_unseen + report->n_seen);
    if (report->n_unseen) warn(r, &line);
    tms_set_message(&line,
                    "%s: %zu Hessians were not positive definite; their damping was raised, to %.3g of the diagonal's "
                    "mean at most",
                    r->t->spec.name, report->n_raised, report->most_damp);
    if (report->n_raised) warn(r, &line);
}

/* With statistics: no more than the memory that layer after layer needs. */
static tms_status plan_memory(const struct run *r, struct tms_error *err)
{
    uint64_t largest = 0;
    for (uint64_t i = 0; i <= r->info.n_layers; i++)
        if (tms_net_layer_bytes(r->net, i) > largest) largest = tms_net_layer_bytes(r->net, i);
    tms_give_memory_back();
    uint64_t needed = tms_resident_bytes() + largest + bytes_of_layer(r);
    if (!r->options->ram || needed <= r->options->ram) return TMS_OK;
    return tms_fail(err, TMS_EINPUT, "%s: a limit of %.1f MB of memory is too low; the least is %llu MB",
                    r->t->source->path, (double)r->options->ram / 1e6,
                    (unsigned long long)((needed + 999999) / 1000000));
}

/* Experts can be taken one after the other, where scales need not see all of them and no codes of a grid wait for a
 * whole stack of them. */
static bool experts_can_wait(const struct run *r)
{
    struct tms_net_matrix m;
    for (uint64_t layer = 0; layer < r->info.n_layers; layer++)
        for (size_t at = 0; tms_net_matrix(r->net, layer, &at, &m);) {
            const struct tms_route *route = m.expert >= 0 ? tms_layer_codes_route(&r->codes, m.tensor) : NULL;
            if (route && route->kind == TMS_ROUTE_GRID && m.tensor->n_weights != m.rows * m.cols) return false;
        }
    return r->codes.folds == TMS_FOLDS_NONE;
}

/* The walk over the text, if there is one, within the limit of memory. */
static tms_status open_walk(struct run *r, const struct tms_samples *samples, struct tms_error *err)
{
    const size_t least = experts_can_wait(r) ? 1 : r->codes.n_experts;
    tms_status status;
    r->layers = (struct tms_layers){.model = r->t->source->path,
                                    .work = r->work,
                                    .net = r->net,
                                    .samples = samples,
                                    .ram = r->options->ram,
                                    .tap = tms_layer_codes_add,
                                    .tap_ctx = &r->codes,
                                    .progress = tell,
                                    .progress_ctx = r};
    for (r->experts_at_once = r->codes.n_experts;; r->experts_at_once = (r->experts_at_once + 1) / 2) {
        r->layers.more = bytes_of_layer(r);
        status = r->stats ? plan_memory(r, err) : tms_layers_open(&r->layers, err);
        if (status != TMS_EINPUT || r->experts_at_once <= least) return status;
    }
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
                               const struct tms_stats *stats, const struct tms_quantize_options *options,
                               struct tms_error *err)
{
    if (is_hqq(method_named(options->method))) return make_hqq(t, pool, options, err);
    const struct tms_net_options bounded = {.bounded = true};
    const struct method *method = method_named(options->method);
    struct run r = {.t = t, .options = options, .stats = stats, .work = work_path(t)};
    char *about = NULL;
    bool same = false, fresh = false;
    uint64_t first = 0, at = 0;
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
                                           .damp = options->damp,
                                           .folds = method->folds};
        about = about_run(&r, samples);
        status = about ? tms_work_open(r.work, about, &same, err) : tms_fail_memory(err, 256);
        fresh = status == TMS_OK && !same;
    }
    if (status == TMS_OK) status = open_walk(&r, samples, err);
    if (status == TMS_OK && same) first = find_finished(&r);
    for (uint64_t i = 0; i < first && status == TMS_OK && r.codes.folds != TMS_FOLDS_NONE; i++)
        status = tms_layer_folds_load(&r.codes, i, err);
    for (at = first; at <= r.info.n_layers && status == TMS_OK; at += status == TMS_OK) status = run_layer(&r, at, err);
    /* what failed before its first layer was done has nothing to go on with */
    if (status != TMS_OK && fresh && at == 0) tms_work_remove(r.work);
    if (status == TMS_OK) status = set_made(&r, err);
    if (status == TMS_OK) tell_report(&r);
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

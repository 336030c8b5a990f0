/* tms_calibrate: a model over a text, layer by layer.
 *
 * Hidden states of all sequences before layer i lie in WORK/hidden-i; a layer reads them in groups, its inputs are
 * summed up, and WORK/hidden-i+1 is written. When a layer's statistics have their name, and then the hidden states
 * theirs, the layer is done, whatever happens to the process later. */
#include <tamis/tamis.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/resident.h"
#include "calib/imatrix_write.h"
#include "calib/samples.h"
#include "calib/stats.h"

enum { GROUP_TOKENS = 2048, RESERVE = 1 << 20 };

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
    struct tms_cache *cache;
    float *hidden;       /* of a group */
    size_t group_tokens; /* at most; one sequence if that is longer */
    json_t *about;
    struct tms_calibrate_result *result;
    double start, told;
};

static void tell(struct run *r, uint64_t layer, size_t done)
{
    double now = tms_seconds();
    if (!r->options->progress || now < r->told + 0.1) return;
    double share = ((double)layer + (double)done / (double)r->samples.n_tokens) / (double)(r->info.n_layers + 1);
    struct tms_calibrate_progress p = {
        .share = share, .seconds = now - r->start, .layer = layer, .n_layers = r->info.n_layers};
    r->told = now;
    r->options->progress(r->options->progress_ctx, &p);
}

/* ---- groups of sequences of one length ---- */

struct group {
    size_t first, n;      /* sequences */
    size_t length, token; /* of each; the first token of the first */
};

static bool next_group(const struct run *r, struct group *g)
{
    const size_t *starts = r->samples.starts;
    g->first += g->n;
    g->n = 0;
    if (g->first >= r->samples.n) return false;
    g->token = starts[g->first];
    g->length = starts[g->first + 1] - g->token;
    do g->n++;
    while (g->first + g->n < r->samples.n && (g->n + 1) * g->length <= r->group_tokens &&
           starts[g->first + g->n + 1] - starts[g->first + g->n] == g->length);
    return true;
}

static size_t tokens_of_group(const struct run *r)
{
    return r->samples.longest > r->group_tokens ? r->samples.longest : r->group_tokens;
}

static size_t sequences_of_group(const struct run *r)
{
    size_t n = 1;
    for (struct group g = {0}; next_group(r, &g);)
        if (g.n > n) n = g.n;
    return n;
}

/* ---- memory ---- */

static uint64_t bytes_of_inputs(const struct run *r)
{
    uint64_t most = 0;
    uint64_t wide = r->info.hidden * 8; /* all inputs of a layer together are narrower than that, but for experts */
    most = wide * 24;
    if (r->info.n_experts) most += r->info.n_experts * r->info.hidden * 2 * 24;
    return most;
}

/* One layer's, in turn. */
static struct tms_cache_shape cache_of(struct run *r)
{
    return tms_net_cache(&r->info, 1, sequences_of_group(r), r->samples.longest, r->samples.longest);
}

static uint64_t bytes_of_plan(struct run *r)
{
    const struct tms_cache_options f32 = tms_cache_exact();
    const struct tms_cache_shape cache = cache_of(r);
    uint64_t largest = 0;
    for (uint64_t i = 0; i <= r->info.n_layers; i++)
        if (tms_net_layer_bytes(r->net, i) > largest) largest = tms_net_layer_bytes(r->net, i);
    size_t tokens = tokens_of_group(r);
    return tms_resident_bytes() + RESERVE + largest + tms_net_working_bytes(r->net, tokens) +
           (uint64_t)tokens * r->info.stride * sizeof(float) + bytes_of_inputs(r) + tms_cache_bytes(&f32, &cache);
}

static tms_status make_room(struct run *r, struct tms_error *err)
{
    uint64_t bytes;
    r->group_tokens = GROUP_TOKENS;
    while ((bytes = bytes_of_plan(r)) > r->options->ram && r->options->ram && r->group_tokens > r->samples.longest)
        r->group_tokens /= 2;
    if (r->options->ram && bytes > r->options->ram)
        return tms_fail(err, TMS_EINPUT,
                        "%s: a limit of %.1f MB of memory is too low; the least for sequences of %zu tokens is %llu MB",
                        r->model, (double)r->options->ram / 1e6, r->samples.longest,
                        (unsigned long long)((bytes + 999999) / 1000000));
    r->result->planned_bytes = r->options->ram ? bytes : 0;
    uint64_t floats = (uint64_t)tokens_of_group(r) * r->info.stride;
    r->hidden = tms_calloc(floats, sizeof *r->hidden);
    if (!r->hidden) return tms_fail_memory(err, floats * sizeof *r->hidden);
    const struct tms_cache_options f32 = tms_cache_exact();
    const struct tms_cache_shape cache = cache_of(r);
    return tms_cache_create(&r->cache, &f32, &cache, err);
}

/* ---- the folder of work ---- */

static char *hidden_path(const struct run *r, uint64_t layer)
{
    char name[32];
    snprintf(name, sizeof name, "hidden-%05llu", (unsigned long long)layer);
    return tms_path_join(r->work, name);
}

/* Bytes of a file of hidden states. */
static uint64_t hidden_bytes(const struct run *r)
{
    return (uint64_t)r->samples.n_tokens * r->info.stride * sizeof(float);
}

static bool is_complete(const char *path, uint64_t bytes)
{
    struct stat s;
    return path && stat(path, &s) == 0 && (uint64_t)s.st_size == bytes;
}

/* Everything that a run's hidden states depend on. */
static json_t *about_run(const struct run *r)
{
    char fingerprint[24], data[24];
    const struct tms_samples *s = &r->samples;
    uint64_t hash = XXH3_64bits(s->ids, s->n_tokens * sizeof *s->ids);
    snprintf(fingerprint, sizeof fingerprint, "%016llx", (unsigned long long)tms_net_fingerprint(r->net));
    snprintf(data, sizeof data, "%016llx",
             (unsigned long long)XXH3_64bits_withSeed(s->starts, (s->n + 1) * sizeof *s->starts, hash));
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "format", 1, "tamis", TAMIS_VERSION,
                     "fingerprint", fingerprint, "architecture", r->source->arch->class_name, "data",
                     tms_path_base(r->options->data), "ids", data, "sequences", (json_int_t)s->n, "seqlen",
                     (json_int_t)s->longest, "tokens", (json_int_t)s->n_tokens);
}

static tms_status check_same_run(const struct run *r, const char *path, bool *same, struct tms_error *err)
{
    char *text = NULL;
    size_t n = 0;
    tms_status status = tms_file_text(path, 1 << 20, &text, &n, err);
    if (status != TMS_OK) return status;
    json_t *was = json_loadb(text, n, 0, NULL);
    *same = json_equal(was, r->about);
    json_decref(was);
    free(text);
    if (*same) return TMS_OK;
    return tms_fail(err, TMS_EUSAGE,
                    "%s: holds what another run left, of another model, text or length; finish that one or remove the "
                    "folder",
                    r->work);
}

static tms_status open_work(struct run *r, uint64_t *first, struct tms_error *err)
{
    char *path = tms_path_join(r->work, "run.json");
    bool same = false;
    tms_status status = path ? TMS_OK : tms_fail_memory(err, 256);
    if (status == TMS_OK && mkdir(r->work, 0777) != 0 && errno != EEXIST)
        status = tms_fail(err, TMS_EIO, "%s: cannot be made: %s", r->work, strerror(errno));
    if (status == TMS_OK && tms_path_exists(path)) status = check_same_run(r, path, &same, err);
    if (status == TMS_OK && !same) {
        char *text = json_dumps(r->about, JSON_COMPACT);
        struct tms_output *output = NULL;
        status = text ? tms_output_create(&output, path, 0, err) : tms_fail_memory(err, 4096);
        if (status == TMS_OK) {
            status = tms_output_write(output, text, strlen(text), 0, err);
            if (status == TMS_OK)
                status = tms_output_commit(output, err);
            else
                tms_output_discard(output);
        }
        free(text);
    }
    *first = 0;
    for (uint64_t i = 1; same && i <= r->info.n_layers; i++) {
        char *hidden = hidden_path(r, i);
        if (is_complete(hidden, hidden_bytes(r))) *first = i;
        free(hidden);
    }
    free(path);
    return status;
}

static void remove_work(const struct run *r)
{
    DIR *dir = opendir(r->work);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        char *path = tms_path_join(r->work, e->d_name);
        if (path) unlink(path);
        free(path);
    }
    if (dir) closedir(dir);
    rmdir(r->work);
}

/* ---- layers ---- */

static tms_status not_finite(const struct run *r, uint64_t layer, const struct group *g, struct tms_error *err)
{
    for (size_t i = 0; i < g->n * g->length; i++)
        for (size_t c = 0; c < r->info.hidden; c++) {
            float x = r->hidden[i * r->info.stride + c];
            if (x - x == 0) continue;
            return tms_fail(err, TMS_EINPUT,
                            "%s: sequence %zu, token %zu: value %zu of the hidden state behind layer %llu is %g, no "
                            "finite number",
                            r->model, g->first + i / g->length + 1, i % g->length, c, (unsigned long long)layer,
                            (double)x);
        }
    return TMS_OK;
}

/* The final norm of a group's hidden states is the input of the output layer. */
static tms_status add_head(struct run *r, size_t rows, struct tms_error *err)
{
    struct tms_tap tap = {.layer = r->info.n_layers,
                          .linear = TMS_LINEAR_HEAD,
                          .expert = -1,
                          .x = r->hidden,
                          .stride = r->info.stride,
                          .n = rows,
                          .cols = r->info.hidden};
    tms_status status = tms_net_final_norm(r->net, r->hidden, rows, r->hidden, err);
    return status == TMS_OK ? tms_inputs_add(&r->inputs, &tap, err) : status;
}

static tms_status walk_group(struct run *r, uint64_t layer, const struct group *g, const struct tms_file *in,
                             struct tms_output *out, struct tms_error *err)
{
    size_t rows = g->n * g->length;
    uint64_t bytes = (uint64_t)rows * r->info.stride * sizeof(float);
    uint64_t offset = (uint64_t)g->token * r->info.stride * sizeof(float);
    const struct tms_batch batch = {.n_seqs = g->n, .n = g->length};
    tms_status status = layer == 0 ? tms_net_embed(r->net, r->samples.ids + g->token, rows, r->hidden, err)
                                   : tms_file_read(in, r->hidden, bytes, offset, err);
    if (status == TMS_OK && !out) return add_head(r, rows, err);
    if (status == TMS_OK) status = tms_net_layers(r->net, layer, 1, &batch, r->cache, r->hidden, err);
    if (status == TMS_OK) status = not_finite(r, layer, g, err);
    if (status == TMS_OK) status = tms_output_write(out, r->hidden, bytes, offset, err);
    return status;
}

static void count_experts(struct run *r, uint64_t layer)
{
    const struct tms_input *in = &r->inputs.layer.of[TMS_LINEAR_EXPERT_GATE];
    struct tms_coverage *c = &r->result->coverage[r->result->n_coverage];
    if (!in->cols || !(c->tokens = tms_calloc(in->parts, sizeof *c->tokens))) return;
    c->layer = layer;
    c->n_experts = in->parts;
    memcpy(c->tokens, in->counts, in->parts * sizeof *c->tokens);
    r->result->n_coverage++;
}

/* One layer (n_layers: the input of the output layer) for all sequences. */
static tms_status walk_layer(struct run *r, uint64_t layer, struct tms_error *err)
{
    struct tms_file in = {.fd = -1};
    struct tms_output *out = NULL;
    bool head = layer == r->info.n_layers;
    char *from = hidden_path(r, layer), *to = hidden_path(r, layer + 1), *stats = tms_stats_layer_path(r->work, layer);
    tms_status status = from && to && stats ? TMS_OK : tms_fail_memory(err, 256);
    if (status == TMS_OK && layer > 0) status = tms_file_open(&in, from, err);
    if (status == TMS_OK && !head) status = tms_output_create(&out, to, hidden_bytes(r), err);
    if (status == TMS_OK) status = tms_net_hold(r->net, layer, 1, err);
    for (struct group g = {0}; status == TMS_OK && next_group(r, &g);) {
        if (tms_cancelled())
            status = tms_fail(err, TMS_ECANCELLED, "interrupted; the same command goes on with layer %llu of %llu",
                              (unsigned long long)layer, (unsigned long long)r->info.n_layers);
        if (status == TMS_OK) status = walk_group(r, layer, &g, &in, out, err);
        tell(r, layer, g.token + g.n * g.length);
    }
    if (status == TMS_OK) count_experts(r, layer);
    if (status == TMS_OK) status = tms_stats_write_layer(stats, r->net, layer, &r->inputs.layer, err);
    if (status == TMS_OK && out)
        status = tms_output_commit(out, err);
    else
        tms_output_discard(out);
    tms_file_close(&in);
    if (status == TMS_OK && layer > 0) unlink(from); /* a run that is killed before goes on from the next one */
    tms_inputs_clear(&r->inputs);
    free(from);
    free(to);
    free(stats);
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
            if (l <= TMS_LINEAR_EXPERT_DOWN)
                r->result->n_inputs += tms_input_owner((enum tms_linear)l) == (enum tms_linear)l;
        }
    return json_object_set_new(r->about, "weights", weights) == 0 ? TMS_OK : tms_fail_memory(err, 4096);
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
    if (status == TMS_OK) status = tms_samples_read(&r->samples, tokenizer, r->info.vocab, r->options, err);
    tms_tokenizer_close(tokenizer);
    if (status != TMS_OK) return status;
    r->inputs = (struct tms_inputs){.pool = r->pool, .n_experts = (size_t)r->info.n_experts};
    tms_net_tap(r->net, tms_inputs_add, &r->inputs);
    r->result->coverage = tms_calloc(r->info.n_layers, sizeof *r->result->coverage);
    if (!r->result->coverage) return tms_fail_memory(err, r->info.n_layers * sizeof *r->result->coverage);
    r->about = about_run(r);
    return r->about ? TMS_OK : tms_fail_memory(err, 4096);
}

static tms_status walk(struct run *r, struct tms_error *err)
{
    uint64_t first;
    tms_status status = open_work(r, &first, err);
    r->result->resumed_at = first;
    tms_give_memory_back();
    if (status == TMS_OK) status = make_room(r, err);
    for (uint64_t i = first; i <= r->info.n_layers && status == TMS_OK; i++) status = walk_layer(r, i, err);
    if (status == TMS_OK) status = name_weights(r, err);
    if (status == TMS_OK) status = tms_stats_join(r->path, r->work, r->info.n_layers + 1, r->about, err);
    if (status == TMS_OK && r->options->imatrix)
        status = tms_imatrix_write(r->options->imatrix, r->path, r->options->process_output, err);
    if (status == TMS_OK) remove_work(r);
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
    if (status == TMS_OK) status = walk(&r, err);
    result->n_sequences = r.samples.n;
    result->n_tokens = r.samples.n_tokens;
    result->seconds = tms_seconds() - r.start;
    tms_inputs_clear(&r.inputs);
    tms_cache_free(r.cache);
    free(r.hidden);
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

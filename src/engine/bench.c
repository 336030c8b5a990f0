/* How fast a session reads and makes text, beside what the machine does at most. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "engine/machine.h"
#include "engine/net_parts.h"
#include "engine/sample.h"
#include "engine/session.h"

struct bench {
    struct tms_session *s;
    const struct tms_bench_options *o;
    struct tms_sampler *sampler;
    int32_t *ids;    /* made up: [depth + n_prompt], at least one pass */
    size_t n_ids;    /* of those */
    size_t longest;  /* positions that are needed */
    double *seconds; /* of the repetitions */
};

static void tell(const struct bench *b, const char *what, size_t done, size_t total)
{
    const struct tms_bench_progress p = {.what = what, .done = done, .total = total};
    if (b->o->progress) b->o->progress(b->o->progress_ctx, &p);
}

/* Mean and deviation of count / seconds, or of seconds if count is 0. */
static struct tms_figure figure(const struct bench *b, double count)
{
    double sum = 0, squares = 0;
    size_t n = b->o->n_repetitions;
    for (size_t i = 0; i < n; i++) sum += count > 0 ? count / b->seconds[i] : b->seconds[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        double away = (count > 0 ? count / b->seconds[i] : b->seconds[i]) - mean;
        squares += away * away;
    }
    return (struct tms_figure){mean, n > 1 ? sqrt(squares / (double)(n - 1)) : 0};
}

static double mean_seconds(const struct bench *b)
{
    return figure(b, 0).mean;
}

/* Multiplications and additions of reading n tokens behind `start` others, with the logits of n_logits of them. Of
 * experts those count that a token gets. */
static double operations(const struct tms_net *net, size_t start, size_t n, size_t n_logits)
{
    const struct tms_config *c = &net->config;
    double sum = 0;
    for (uint64_t l = 0; l <= c->n_layers; l++) {
        const struct tms_net_layer *layer = &net->layers[l];
        double weights = 0, keys = 0;
        for (size_t i = 0; i < TMS_LINEARS; i++)
            if (layer->linear[i].tensor) weights += (double)layer->linear[i].rows * (double)layer->linear[i].cols;
        for (size_t i = 0; i < 3 && layer->experts[i]; i++)
            weights += (double)c->experts.used * (double)layer->experts[i]->rows * (double)layer->experts[i]->cols;
        sum += 2 * weights * (double)(l < c->n_layers ? n : n_logits);
        for (size_t i = 0; l < c->n_layers && i < n; i++) {
            size_t seen = start + i + 1;
            keys += (double)(layer->window && layer->window < seen ? layer->window : seen);
        }
        sum += 4 * keys * (double)(c->n_heads * c->head_dim); /* scores, and sums of values */
    }
    return sum;
}

/* Bytes of weights that one token reads: all of them, but of experts those that it gets. */
static uint64_t bytes_of_token(const struct tms_net *net)
{
    uint64_t bytes = 0;
    for (uint64_t l = 0; l <= net->config.n_layers; l++) {
        const struct tms_net_layer *layer = &net->layers[l];
        for (size_t i = 0; i < TMS_LINEARS; i++)
            if (layer->linear[i].tensor) bytes += tms_weight_bytes(&layer->linear[i]);
        for (size_t i = 0; i < 3; i++)
            if (layer->experts[i]) bytes += net->config.experts.used * tms_weight_bytes(layer->experts[i]);
    }
    return bytes;
}

/* ---- what is measured ------------------------------------------------------------------------------------------ */

static tms_status warm_up(struct bench *b, struct tms_error *err)
{
    size_t n = b->o->n_prompt < TMS_SESSION_PASS ? b->o->n_prompt : TMS_SESSION_PASS;
    tell(b, "warm-up", 0, 1);
    tms_status status = tms_session_read(b->s, 0, b->ids, n ? n : 1, b->longest, err);
    if (status == TMS_OK && b->o->depth) status = tms_session_read(b->s, 0, b->ids, b->o->depth, b->longest, err);
    return status;
}

static tms_status read_prompts(struct bench *b, struct tms_bench_result *out, struct tms_error *err)
{
    size_t n = b->o->n_prompt;
    for (size_t i = 0; n && i < b->o->n_repetitions; i++) {
        int32_t id;
        double start = tms_seconds();
        tell(b, "prompt", i, b->o->n_repetitions);
        tms_status status = tms_session_read(b->s, b->o->depth, b->ids + b->o->depth, n, b->longest, err);
        if (status == TMS_OK) status = tms_sampler_pick(b->sampler, b->s->logits, &id, err);
        if (status != TMS_OK) return status;
        b->seconds[i] = tms_seconds() - start;
    }
    if (n) {
        out->prompt = figure(b, (double)n);
        out->first_token = figure(b, 0);
        out->prompt_operations = operations(b->s->net, b->o->depth, n, 1) / mean_seconds(b);
    }
    return TMS_OK;
}

static tms_status make_texts(struct bench *b, struct tms_bench_result *out, struct tms_error *err)
{
    size_t n = b->o->n_text;
    for (size_t i = 0; n && i < b->o->n_repetitions; i++) {
        int32_t id = b->ids[0];
        double start = tms_seconds();
        tell(b, "text", i, b->o->n_repetitions);
        for (size_t k = 0; k < n; k++) {
            tms_status status = tms_session_read(b->s, b->o->depth + k, &id, 1, b->longest, err);
            if (status == TMS_OK) status = tms_sampler_pick(b->sampler, b->s->logits, &id, err);
            if (status != TMS_OK) return status;
        }
        b->seconds[i] = tms_seconds() - start;
    }
    if (n) {
        out->text = figure(b, (double)n);
        out->text_bytes = (double)out->token_bytes * (double)n / mean_seconds(b);
        out->text_operations = operations(b->s->net, b->o->depth, n, n) / mean_seconds(b);
    }
    return TMS_OK;
}

static tms_status measure_machine(struct bench *b, struct tms_bench_result *out, struct tms_error *err)
{
    tell(b, "machine", 0, 1);
    out->cpu = tms_cpu_name(tms_cpu_level());
    out->last_cache_bytes = tms_last_cache_bytes();
    tms_status status = tms_measure_arithmetic(b->s->pool, &out->peak_operations, err);
    if (status == TMS_OK) status = tms_measure_reading(b->s->pool, &out->peak_bytes, &out->peak_read_bytes, err);
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

static tms_status check(struct bench *b, struct tms_error *err)
{
    const struct tms_bench_options *o = b->o;
    size_t more = o->n_prompt > o->n_text ? o->n_prompt : o->n_text;
    if (more == 0 || o->n_repetitions == 0)
        return tms_fail(err, TMS_EUSAGE, "nothing to measure: no tokens or no repetitions");
    if (o->depth > b->s->about.context || more > b->s->about.context - o->depth)
        return tms_fail(err, TMS_EINPUT, "%s: %zu tokens behind %zu do not fit into a context of %" PRIu64 " positions",
                        b->s->source->path, more, o->depth, b->s->about.context);
    b->longest = o->depth + more;
    return TMS_OK;
}

/* SplitMix64, as in sample.h: the same made-up text everywhere. */
static tms_status make_up(struct bench *b, struct tms_error *err)
{
    uint64_t state = 1;
    b->n_ids = b->longest > TMS_SESSION_PASS ? b->longest : TMS_SESSION_PASS;
    b->ids = tms_calloc(b->n_ids, sizeof *b->ids);
    b->seconds = tms_calloc(b->o->n_repetitions, sizeof *b->seconds);
    if (!b->ids || !b->seconds) return tms_fail_memory(err, b->n_ids * sizeof *b->ids);
    for (size_t i = 0; i < b->n_ids; i++) {
        uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        b->ids[i] = (int32_t)((z ^ (z >> 31)) % b->s->info.vocab);
    }
    return TMS_OK;
}

tms_status tms_session_bench(struct tms_session *session, const struct tms_bench_options *options,
                             struct tms_bench_result *out, struct tms_error *err)
{
    const struct tms_sampling greedy = {0};
    struct bench b = {.s = session, .o = options};
    struct tms_bench_result r = {.n_threads = tms_pool_threads(session->pool),
                                 .weight_bytes = session->about.weight_bytes,
                                 .token_bytes = bytes_of_token(session->net)};
    tms_status status = check(&b, err);
    if (status == TMS_OK) status = make_up(&b, err);
    if (status == TMS_OK) status = tms_sampler_create(&b.sampler, &greedy, session->info.vocab, err);
    if (status == TMS_OK) status = warm_up(&b, err);
    if (status == TMS_OK) status = read_prompts(&b, &r, err);
    if (status == TMS_OK) status = make_texts(&b, &r, err);
    if (status == TMS_OK) status = measure_machine(&b, &r, err);
    session->n_held = 0;
    if (status == TMS_OK) {
        const struct tms_cache_shape shape =
            tms_net_cache(&session->info, session->info.n_layers, 1, b.longest, TMS_SESSION_PASS);
        r.cache_bytes = tms_cache_bytes(&session->kv, &shape);
        *out = r;
    }
    tms_sampler_free(b.sampler);
    free(b.ids);
    free(b.seconds);
    return status;
}

/* The forward pass: the logits of transformers for every architecture, from the folder and from our own GGUF file; the
 * same bits however the work is cut; every stored type as if it had been decoded first. */
#include "support.h"

#include <math.h>
#include <tamis/tamis.h>

#include "base/cpu.h"
#include "engine/net.h"
#include "file/safetensors.h"

static struct tms_error err;

/* ---- one pass --------------------------------------------------------------------------------------------------- */

struct way {
    unsigned n_threads;
    size_t step; /* tokens of one pass; 0: all */
    const char *kv;
    size_t keep_first, keep_last; /* tokens at 16 bits */
    double int8_outlier;
    bool bounded; /* layer by layer, weights read into memory */
    bool fast;
};

struct outcome {
    size_t n, n_layers, hidden, vocab;
    float *logits; /* [n][vocab] */
    float *states; /* [layers + 1][n][hidden]; only if step is 0 */
};

static void free_outcome(struct outcome *o)
{
    free(o->logits);
    free(o->states);
}

struct runner {
    struct tms_source *source;
    struct tms_pool *pool;
    struct tms_net *net;
    struct tms_net_info info;
};

static void open_runner(struct runner *r, const char *model, const struct way *way)
{
    const struct tms_net_options options = {
        .bounded = way->bounded, .fast = way->fast, .int8_outlier = way->int8_outlier};
    assert_ok(tms_source_open(&r->source, model, NULL, NULL, &err), err);
    assert_ok(tms_pool_create(&r->pool, way->n_threads ? way->n_threads : 1, &err), err);
    assert_ok(tms_net_open(&r->net, r->source, r->pool, &options, &err), err);
    tms_net_describe(r->net, &r->info);
}

static void close_runner(struct runner *r)
{
    tms_net_close(r->net);
    tms_pool_free(r->pool);
    tms_source_close(r->source);
}

static void keep_states(struct outcome *o, const struct runner *r, size_t layer, const float *hidden)
{
    for (size_t i = 0; i < o->n; i++)
        memcpy(o->states + (layer * o->n + i) * o->hidden, hidden + i * r->info.stride, o->hidden * sizeof *hidden);
}

static struct tms_cache *cache_of(const struct runner *r, const struct way *way, size_t n_layers, size_t n_seqs,
                                  size_t capacity, size_t pass)
{
    struct tms_cache_options o = {.keep_first = way->keep_first, .keep_last = way->keep_last};
    const struct tms_cache_shape shape = tms_net_cache(&r->info, n_layers, n_seqs, capacity, pass);
    struct tms_cache *cache = NULL;
    assert_ok(tms_cache_type(way->kv ? way->kv : "f32", &o.type, &err), err);
    assert_ok(tms_cache_check(&o, &shape, "a model", &err), err);
    assert_ok(tms_cache_create(&cache, &o, &shape, &err), err);
    return cache;
}

/* All tokens through one layer after the other; a cache with one layer serves them all. */
static void layer_by_layer(struct outcome *o, struct runner *r, const struct way *way, const int32_t *ids)
{
    const struct tms_batch batch = {.n_seqs = 1, .n = o->n};
    float *hidden = calloc(o->n * r->info.stride, sizeof *hidden), *last = calloc(o->n * r->info.stride, sizeof *last);
    struct tms_cache *cache = cache_of(r, way, 1, 1, o->n, o->n);
    assert_ok(tms_net_embed(r->net, ids, o->n, hidden, &err), err);
    for (size_t i = 0; i < o->n_layers; i++) {
        keep_states(o, r, i, hidden);
        assert_ok(tms_net_hold(r->net, i, 1, &err), err);
        assert_ok(tms_net_layers(r->net, i, 1, &batch, cache, hidden, &err), err);
    }
    assert_ok(tms_net_hold(r->net, o->n_layers, 1, &err), err);
    assert_ok(tms_net_logits(r->net, hidden, o->n, o->logits, &err), err);
    assert_ok(tms_net_final_norm(r->net, hidden, o->n, last, &err), err);
    keep_states(o, r, o->n_layers, last);
    tms_cache_free(cache);
    free(hidden);
    free(last);
}

/* `step` tokens at a time through all layers, and the rest from the cache. */
static void step_by_step(struct outcome *o, struct runner *r, const struct way *way, const int32_t *ids)
{
    float *hidden = calloc(way->step * r->info.stride, sizeof *hidden);
    struct tms_cache *cache = cache_of(r, way, o->n_layers, 1, o->n + 3, way->step);
    for (size_t first = 0; first < o->n; first += way->step) {
        size_t count = o->n - first < way->step ? o->n - first : way->step;
        const struct tms_batch batch = {.n_seqs = 1, .n = count, .start = first, .length = o->n};
        assert_ok(tms_net_embed(r->net, ids + first, count, hidden, &err), err);
        assert_ok(tms_net_layers(r->net, 0, o->n_layers, &batch, cache, hidden, &err), err);
        assert_ok(tms_net_logits(r->net, hidden, count, o->logits + first * o->vocab, &err), err);
    }
    tms_cache_free(cache);
    free(hidden);
}

static struct outcome run(const char *model, const int32_t *ids, size_t n, struct way way)
{
    struct runner r;
    open_runner(&r, model, &way);
    struct outcome o = {.n = n, .n_layers = r.info.n_layers, .hidden = r.info.hidden, .vocab = r.info.vocab};
    o.logits = calloc(n * o.vocab, sizeof *o.logits);
    o.states = calloc((o.n_layers + 1) * n * o.hidden, sizeof *o.states);
    if (way.step)
        step_by_step(&o, &r, &way, ids);
    else
        layer_by_layer(&o, &r, &way, ids);
    close_runner(&r);
    return o;
}

/* ---- what transformers gave -------------------------------------------------------------------------------------- */

struct expected {
    size_t n, vocab;
    int32_t *ids;
    float *logits, *states; /* states: NULL if the folder has none */
};

static float *floats(const struct tms_safetensors *st, const char *name)
{
    const struct tms_st_tensor *t = tms_safetensors_find(st, name);
    if (!t) return NULL;
    float *x = calloc(t->n_elems, sizeof *x);
    assert_int_equal(t->type, TMS_F32);
    assert_ok(tms_file_read(&st->file, x, t->bytes, t->offset, &err), err);
    return x;
}

static struct expected expect(const char *arch)
{
    char name[128];
    struct tms_safetensors *st = NULL;
    snprintf(name, sizeof name, "arch/%s/golden.safetensors", arch);
    assert_ok(tms_safetensors_open(&st, golden(name), &err), err);
    const struct tms_st_tensor *ids = tms_safetensors_find(st, "input_ids"), *l = tms_safetensors_find(st, "logits");
    struct expected e = {.n = ids->n_elems, .vocab = l->shape[1]};
    int64_t *wide = calloc(e.n, sizeof *wide);
    e.ids = calloc(e.n, sizeof *e.ids);
    assert_ok(tms_file_read(&st->file, wide, ids->bytes, ids->offset, &err), err);
    for (size_t i = 0; i < e.n; i++) e.ids[i] = (int32_t)wide[i];
    e.logits = floats(st, "logits");
    e.states = floats(st, "hidden_states");
    free(wide);
    tms_safetensors_close(st);
    return e;
}

static void free_expected(struct expected *e)
{
    free(e->ids);
    free(e->logits);
    free(e->states);
}

/* max |got - want| by the range of `want`. */
static double distance(const float *got, const float *want, size_t n)
{
    double low = want[0], high = want[0], most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (want[i] < low) low = want[i];
        if (want[i] > high) high = want[i];
        if (!(d <= most)) most = isnan(d) ? INFINITY : d;
    }
    return most / (high - low);
}

static const char *folder(const char *arch)
{
    char name[128];
    snprintf(name, sizeof name, "arch/%s", arch);
    return golden(name);
}

static const char *const archs[] = {"llama31",        "llama2",       "llama_bias",         "mistral",
                                    "qwen2_tied",     "qwen2_untied", "qwen2_sharded",      "qwen3",
                                    "qwen3_yarn",     "mixtral",      "qwen2_moe",          "qwen3_moe",
                                    "gemma",          "gemma2",       "gemma3_text",        "phi3",
                                    "phi3_longrope",  "deepseek_v2",  "deepseek_v2_groups", "deepseek_v3",
                                    "deepseek_v3_fp8"};
enum { N_ARCHS = sizeof archs / sizeof *archs };

static void folders_give_the_logits_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++) {
        struct expected e = expect(archs[i]);
        struct outcome o = run(folder(archs[i]), e.ids, e.n, (struct way){.n_threads = 2});
        assert_int_equal(o.vocab, e.vocab);
        double d = distance(o.logits, e.logits, e.n * e.vocab);
        print_message("%s: %.1e of the range\n", archs[i], d);
        if (!(d <= 1e-4)) fail_msg("%s: %g of the range", archs[i], d);
        free_outcome(&o);
        free_expected(&e);
    }
}

static const char *converted(const char *model, const char *name)
{
    struct tms_result *results;
    const struct tms_quantize_options options = {
        .types = (const char *const[]){"f32"}, .n_types = 1, .n_threads = 1, .no_verify = true};
    const char *path = scratch(name);
    assert_ok(tms_convert(model, path, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
    return path;
}

static void converted_files_give_the_same_logits(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++) {
        char name[64];
        struct expected e = expect(archs[i]);
        snprintf(name, sizeof name, "%s.gguf", archs[i]);
        struct outcome o = run(converted(folder(archs[i]), name), e.ids, e.n, (struct way){.n_threads = 1});
        double d = distance(o.logits, e.logits, e.n * e.vocab);
        print_message("%s: %.1e of the range\n", archs[i], d);
        if (!(d <= 1e-4)) fail_msg("%s as GGUF: %g of the range", archs[i], d);
        free_outcome(&o);
        free_expected(&e);
    }
}

/* The fast mode makes latents into keys and values for many tokens at once, and not for few: both ways, mixed, from
 * folders and from GGUF, where the matrices lie otherwise. */
static void both_forms_of_latent_attention_give_the_same_logits(void **state)
{
    (void)state;
    static const char *const models[] = {"deepseek_v2", "deepseek_v3"};
    static const struct {
        const char *kv;
        double bound; /* of the difference from transformers' */
    } caches[] = {{"f32", 1e-4}, {"f16", 2e-3}, {"c8", 0.3 /* another expert now and then */}};
    for (size_t i = 0; i < 4; i++) {
        const char *name = models[i % 2], *file = i < 2 ? folder(name) : converted(folder(name), "latent.gguf");
        struct expected e = expect(name);
        for (size_t k = 0; k < sizeof caches / sizeof *caches; k++) {
            struct way way = {.n_threads = 2, .step = 1, .kv = caches[k].kv, .fast = true};
            struct outcome absorbed = run(file, e.ids, e.n, way);
            double d = distance(absorbed.logits, e.logits, e.n * e.vocab);
            if (!(d <= caches[k].bound)) fail_msg("%s, %s: %g of the range", name, way.kv, d);
            for (way.step = 0; way.step <= 20; way.step += 20) {
                struct outcome o = run(file, e.ids, e.n, way);
                d = distance(o.logits, absorbed.logits, e.n * e.vocab);
                print_message("%s, %s, %zu at once: %.1e of the range\n", name, way.kv, way.step, d);
                if (!(d > 0 && d <= 1e-3)) fail_msg("%s, %s: %g of the range", name, way.kv, d);
                free_outcome(&o);
            }
            free_outcome(&absorbed);
        }
        free_expected(&e);
    }
}

static void hidden_states_agree_layer_by_layer(void **state)
{
    (void)state;
    const char *const models[] = {"llama31", "deepseek_v3"};
    for (size_t i = 0; i < 2; i++) {
        struct expected e = expect(models[i]);
        struct outcome o = run(folder(models[i]), e.ids, e.n, (struct way){.n_threads = 1});
        assert_non_null(e.states);
        for (size_t layer = 0; layer <= o.n_layers; layer++) {
            size_t n = o.n * o.hidden;
            double d = distance(o.states + layer * n, e.states + layer * n, n);
            if (!(d <= 1e-5)) fail_msg("%s: hidden state %zu: %g of the range", models[i], layer, d);
        }
        free_outcome(&o);
        free_expected(&e);
    }
}

/* Whom the routers chose, in the order of passes: scores [n_experts] and (expert, weight) [used] of each token. */
struct routes {
    const struct tms_safetensors *golden;
    size_t n_seen; /* layers */
    double worst;
};

static void *read_golden(const struct tms_safetensors *st, const char *what, uint64_t layer, size_t n)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%llu", what, (unsigned long long)layer);
    const struct tms_st_tensor *t = tms_safetensors_find(st, name);
    if (!t || t->n_elems != n) fail_msg("%s", name);
    void *values = calloc(n, 4);
    assert_ok(tms_file_read(&st->file, values, t->bytes, t->offset, &err), err);
    return values;
}

static void compare_routes(void *ctx, const struct tms_routing *r)
{
    struct routes *seen = ctx;
    const struct tms_st_tensor *t;
    char name[64];
    snprintf(name, sizeof name, "router_logits.%llu", (unsigned long long)r->layer);
    t = tms_safetensors_find(seen->golden, name);
    size_t n_experts = t->shape[1];
    float *scores = read_golden(seen->golden, "router_logits", r->layer, r->n * n_experts);
    float *weights = read_golden(seen->golden, "expert_weights", r->layer, r->n * r->used);
    int32_t *experts = read_golden(seen->golden, "experts", r->layer, r->n * r->used);
    for (size_t i = 0; i < r->n; i++) {
        double d = distance(r->scores + i * r->stride, scores + i * n_experts, n_experts);
        if (d > seen->worst) seen->worst = d;
        for (size_t k = 0; k < r->used; k++) {
            size_t at = i * r->used + k;
            if (r->experts[at] != experts[at] || fabs((double)r->weights[at] - (double)weights[at]) > 1e-5)
                fail_msg("layer %llu, token %zu: expert %d with %g, not %d with %g", (unsigned long long)r->layer, i,
                         (int)r->experts[at], (double)r->weights[at], (int)experts[at], (double)weights[at]);
        }
    }
    seen->n_seen++;
    free(scores);
    free(weights);
    free(experts);
}

static void routers_choose_the_experts_of_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t layers; /* with experts */
    } models[] = {{"mixtral", 2}, {"qwen2_moe", 2}, {"qwen3_moe", 2}, {"deepseek_v2", 2}, {"deepseek_v3", 2}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct runner r;
        struct routes routes = {0};
        struct tms_safetensors *st = NULL;
        char name[128];
        struct expected e = expect(models[i].name);
        snprintf(name, sizeof name, "arch/%s/golden.safetensors", models[i].name);
        assert_ok(tms_safetensors_open(&st, golden(name), &err), err);
        routes.golden = st;
        open_runner(&r, folder(models[i].name), &(struct way){.n_threads = 2});
        tms_net_watch_routing(r.net, compare_routes, &routes);
        float *hidden = calloc(e.n * r.info.stride, sizeof *hidden);
        const struct tms_batch batch = {.n_seqs = 1, .n = e.n};
        struct tms_cache *cache = cache_of(&r, &(struct way){0}, 1, 1, e.n, e.n);
        assert_ok(tms_net_embed(r.net, e.ids, e.n, hidden, &err), err);
        assert_ok(tms_net_layers(r.net, 0, r.info.n_layers, &batch, cache, hidden, &err), err);
        print_message("%s: router scores within %.1e of their range\n", models[i].name, routes.worst);
        assert_int_equal(routes.n_seen, models[i].layers);
        assert_true(routes.worst < 1e-5);
        tms_cache_free(cache);
        tms_safetensors_close(st);
        close_runner(&r);
        free(hidden);
        free_expected(&e);
    }
}

/* Longrope: what stays within the original context turns otherwise than what does not. */
static void short_texts_turn_by_the_short_factors(void **state)
{
    (void)state;
    struct expected e = expect("phi3_longrope");
    struct tms_safetensors *st = NULL;
    assert_ok(tms_safetensors_open(&st, golden("arch/phi3_longrope/golden.safetensors"), &err), err);
    const struct tms_st_tensor *t = tms_safetensors_find(st, "short.input_ids");
    int64_t wide[96];
    int32_t ids[96];
    assert_true(t->n_elems < 96);
    assert_ok(tms_file_read(&st->file, wide, t->bytes, t->offset, &err), err);
    for (size_t i = 0; i < t->n_elems; i++) ids[i] = (int32_t)wide[i];
    float *want = floats(st, "short.logits");
    struct outcome o = run(folder("phi3_longrope"), ids, t->n_elems, (struct way){.n_threads = 1});
    assert_true(distance(o.logits, want, t->n_elems * e.vocab) <= 1e-5);
    free(want);
    tms_safetensors_close(st);
    free_outcome(&o);
    free_expected(&e);
}

/* ---- the same bits ------------------------------------------------------------------------------------------------
 */

static void assert_same_logits(const struct outcome *got, const struct outcome *want, const char *what)
{
    assert_int_equal(got->n, want->n);
    assert_int_equal(got->vocab, want->vocab);
    assert_same_bytes(got->logits, want->logits, want->n * want->vocab * sizeof(float), what);
}

static void every_way_gives_the_same_bits(void **state)
{
    (void)state;
    const struct way ways[] = {{.n_threads = 2},
                               {.n_threads = 3},
                               {.n_threads = 1, .step = 1},
                               {.n_threads = 2, .step = 1},
                               {.n_threads = 2, .step = 7},
                               {.n_threads = 1, .step = 1000},
                               {.n_threads = 3, .bounded = true}};
    for (size_t i = 0; i < N_ARCHS; i++) {
        struct expected e = expect(archs[i]);
        struct outcome want = run(folder(archs[i]), e.ids, e.n, (struct way){.n_threads = 1});
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            char what[128];
            snprintf(what, sizeof what, "%s: %u threads, %zu tokens at a time%s", archs[i], ways[k].n_threads,
                     ways[k].step, ways[k].bounded ? ", bounded" : "");
            struct outcome got = run(folder(archs[i]), e.ids, e.n, ways[k]);
            assert_same_logits(&got, &want, what);
            free_outcome(&got);
        }
        free_outcome(&want);
        free_expected(&e);
    }
}

static void every_cpu_gives_the_same_bits(void **state)
{
    (void)state;
    const enum tms_cpu levels[] = {TMS_CPU_SCALAR, TMS_CPU_AVX2, TMS_CPU_AVX512};
    enum tms_cpu own = tms_cpu_level();
    const char *const models[] = {"llama31", "mistral"};
    for (size_t m = 0; m < 2; m++) {
        struct expected e = expect(models[m]);
        struct outcome want = run(folder(models[m]), e.ids, e.n, (struct way){.n_threads = 1});
        for (size_t i = 0; i < 3; i++) {
            if (tms_cpu_force(levels[i]) != levels[i]) continue;
            struct outcome got = run(folder(models[m]), e.ids, e.n, (struct way){.n_threads = 1, .step = 9 * i});
            assert_same_logits(&got, &want, models[m]);
            free_outcome(&got);
        }
        tms_cpu_force(own);
        free_outcome(&want);
        free_expected(&e);
    }
}

static void several_sequences_are_as_each_alone(void **state)
{
    (void)state;
    enum { N = 20, SEQS = 3 };
    struct expected e = expect("mistral");
    struct runner r;
    open_runner(&r, folder("mistral"), &(struct way){.n_threads = 2});
    struct tms_cache *cache = cache_of(&r, &(struct way){0}, 1, SEQS, N, N);
    const struct tms_batch batch = {.n_seqs = SEQS, .n = N};
    float *hidden = calloc((size_t)SEQS * N * r.info.stride, sizeof *hidden);
    float *logits = calloc((size_t)SEQS * N * r.info.vocab, sizeof *logits);
    assert_ok(tms_net_embed(r.net, e.ids, (size_t)SEQS * N, hidden, &err), err);
    for (size_t i = 0; i < r.info.n_layers; i++)
        assert_ok(tms_net_layers(r.net, i, 1, &batch, cache, hidden, &err), err);
    assert_ok(tms_net_logits(r.net, hidden, (size_t)SEQS * N, logits, &err), err);
    for (size_t s = 0; s < SEQS; s++) {
        struct outcome alone = run(folder("mistral"), e.ids + s * N, N, (struct way){.n_threads = 1});
        assert_same_bytes(logits + s * N * alone.vocab, alone.logits, N * alone.vocab * sizeof *logits, "a sequence");
        free_outcome(&alone);
    }
    tms_cache_free(cache);
    free(hidden);
    free(logits);
    close_runner(&r);
    free_expected(&e);
}

/* Windows, capped scores, latents; of each type how far logits may be from transformers', as a share of their range.
 */
static void caches_are_near_and_the_same_for_every_way(void **state)
{
    (void)state;
    static const struct {
        const char *model, *kv;
        size_t keep_first, keep_last;
        double bound;
    } cases[] = {
        {"llama31", "f16", 0, 0, 2e-3},     {"llama31", "bf16", 0, 0, 1e-2},   {"llama31", "q8_0", 0, 0, 2e-2},
        {"llama31", "c8", 2, 5, 2e-2},      {"llama31", "q5_0", 0, 0, 0.1},    {"mistral", "q4_0", 0, 0, 0.2},
        {"mistral", "q4_0", 3, 9, 0.2},     {"gemma2", "q4_0", 4, 0, 0.2},     {"gemma2", "c8", 0, 1, 2e-2},
        {"deepseek_v2", "f16", 0, 0, 2e-3}, {"deepseek_v2", "c8", 0, 0, 4e-2}, {"deepseek_v2", "c8", 1, 6, 4e-2}};
    const enum tms_cpu own = tms_cpu_level();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct expected e = expect(cases[i].model);
        struct way way = {
            .n_threads = 1, .kv = cases[i].kv, .keep_first = cases[i].keep_first, .keep_last = cases[i].keep_last};
        struct outcome want = run(folder(cases[i].model), e.ids, e.n, way);
        double d = distance(want.logits, e.logits, e.n * e.vocab);
        if (!(d <= cases[i].bound && d > 0)) fail_msg("%s, %s: %g of the range", cases[i].model, cases[i].kv, d);
        for (size_t step = 1; step < 12; step += 5) {
            way.step = step;
            way.n_threads = 2;
            tms_cpu_force(step == 6 ? TMS_CPU_SCALAR : own);
            struct outcome got = run(folder(cases[i].model), e.ids, e.n, way);
            tms_cpu_force(own);
            assert_same_logits(&got, &want, cases[i].kv);
            free_outcome(&got);
        }
        free_outcome(&want);
        free_expected(&e);
    }
}

/* ---- every stored type --------------------------------------------------------------------------------------------
 */

enum { N_IDS = 20 };

static void some_ids(int32_t ids[N_IDS])
{
    for (int i = 0; i < N_IDS; i++) ids[i] = (i * 977 + 31) % 4095;
}

static const char *written(const char *model, const char *name, const char *type, const char *rule)
{
    struct tms_result *results;
    const struct tms_quantize_options options = {.types = &type,
                                                 .n_types = 1,
                                                 .n_threads = 1,
                                                 .no_verify = true,
                                                 .allow_requantize = true,
                                                 .force = true,
                                                 .imatrix = rule ? golden("imatrix/pebble.gguf") : NULL,
                                                 .tensor_types = rule ? &rule : NULL,
                                                 .n_tensor_types = rule != NULL};
    const char *path = scratch(name);
    tms_status status = tms_quantize(model, path, &options, &results, NULL, NULL, &err);
    if (status != TMS_OK) print_error("%s as %s (%s)\n", model, type, rule ? rule : "");
    assert_ok(status, err);
    tms_results_free(results, 1);
    return path;
}

/* Runs a model, and the same one decoded to f32. */
static void assert_runs_as(const char *model, const char *decoded, const char *what)
{
    int32_t ids[N_IDS];
    struct tms_source *source = NULL;
    some_ids(ids);
    assert_ok(tms_source_open(&source, model, NULL, NULL, &err), err);
    if (source->config.vocab && source->config.vocab < 4095)
        for (int i = 0; i < N_IDS; i++) ids[i] %= 300;
    tms_source_close(source);
    struct outcome got = run(model, ids, N_IDS, (struct way){.n_threads = 2}),
                   want = run(decoded, ids, N_IDS, (struct way){.n_threads = 1});
    for (size_t i = 0; i < N_IDS * want.vocab; i++)
        if (!isfinite(want.logits[i])) fail_msg("%s: a logit is not finite", what);
    assert_same_logits(&got, &want, what);
    free_outcome(&got);
    free_outcome(&want);
}

static void every_type_of_gguf_runs_as_if_decoded_first(void **state)
{
    (void)state;
    const struct tms_codec *c;
    size_t n = 0;
    for (size_t i = 0; (c = tms_codec_at(i)) && c->id < TMS_GGML_TYPES; i++) {
        char rule[64];
        if (!c->decode || (!c->encode && !c->encode_weighted) || c->id == TMS_Q8_K || c->id == TMS_F64) continue;
        /* no importance weights for the embeddings: types that want them are for the layers only */
        snprintf(rule, sizeof rule, "%s=%s", c->encode ? ".*" : "blk.*", c->name);
        const char *path = written(pebble(), "typed.gguf", "f16", rule);
        assert_runs_as(path, written(path, "decoded.gguf", "f32", NULL), c->name);
        n++;
    }
    assert_true(n >= 28);
}

static void int8_outliers_keep_their_precision(void **state)
{
    (void)state;
    int32_t ids[N_IDS];
    some_ids(ids);
    const char *path = written(pebble(), "typed", "int8", NULL);
    struct outcome plain = run(path, ids, N_IDS, (struct way){.n_threads = 1});
    struct outcome usual = run(path, ids, N_IDS, (struct way){.n_threads = 1, .int8_outlier = 6}),
                   again = run(path, ids, N_IDS, (struct way){.n_threads = 2, .int8_outlier = 6});
    struct outcome all = run(path, ids, N_IDS, (struct way){.n_threads = 1, .int8_outlier = 1e-30});
    size_t n = N_IDS * plain.vocab;
    assert_same_logits(&again, &usual, "LLM.int8, 2 threads");
    double d = distance(usual.logits, plain.logits, n);
    if (!(d > 1e-4 && d < 0.05)) fail_msg("activations in 8 bits: %g of the range", d);
    /* if every column is an outlier, nothing is rounded */
    d = distance(all.logits, plain.logits, n);
    if (!(d < 1e-5)) fail_msg("all outliers: %g of the range", d);
    free_outcome(&plain);
    free_outcome(&usual);
    free_outcome(&again);
    free_outcome(&all);
}

/* config.json of `from`, but for what it says about quantization. */
static void write_config(const char *from, const char *to, bool fp8)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/config.json", from);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    json_object_del(config, "quantization_config");
    if (fp8)
        json_object_set_new(config, "quantization_config",
                            json_pack("{s:s, s:[i,i]}", "quant_method", "fp8", "weight_block_size", 128, 128));
    snprintf(path, sizeof path, "%s/config.json", to);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
}

/* Values of one planned tensor: of the source, or scales of FP8 that are made up. */
static float *values_of(const struct tms_source *source, const struct tms_st_plan_tensor *p)
{
    size_t n = p->bytes / tms_codec(p->type)->block_bytes;
    float *x = calloc(n, sizeof *x);
    if (p->tag == SIZE_MAX) {
        for (size_t k = 0; k < n; k++) x[k] = 0.37f + 0.11f * (float)k;
        return x;
    }
    void *raw = malloc(tms_source_raw_bytes(&source->tensors[p->tag], n) + 1);
    assert_ok(tms_source_read(source, &source->tensors[p->tag], 0, n, raw, x, &err), err);
    free(raw);
    return x;
}

/* Writes a copy of a folder whose linear layers have a dtype, the others F32. FP8 gets scales of blocks of 128 x 128.
 */
static const char *folder_of_type(const char *model, const char *name, const struct tms_codec *codec)
{
    struct tms_source *source = NULL;
    struct tms_st_plan_tensor plan[256];
    static char names[256][160];
    struct tms_buf header = {0};
    struct tms_output *out = NULL;
    size_t n = 0;
    uint64_t size;
    char path[1100], file[1200], command[2300];
    bool fp8 = codec->id == TMS_F8_E4M3;
    snprintf(path, sizeof path, "%s", scratch(name));
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s'", path, path);
    assert_int_equal(system(command), 0);
    assert_ok(tms_source_open(&source, model, NULL, NULL, &err), err);
    for (size_t i = 0; i < source->n_tensors; i++) {
        const struct tms_tensor *t = &source->tensors[i];
        if (t->is_scale) continue;
        bool changed = strstr(t->name, "_proj.weight");
        plan[n] = (struct tms_st_plan_tensor){.name = t->name, .type = changed ? codec->id : TMS_F32, .tag = i};
        plan[n].n_dims = tms_source_shape(t, plan[n].shape);
        n++;
        if (!changed || !fp8) continue;
        snprintf(names[n], sizeof names[n], "%s_scale_inv", t->name);
        plan[n] = (struct tms_st_plan_tensor){.name = names[n], .type = TMS_F32, .n_dims = 2, .tag = SIZE_MAX};
        plan[n].shape[0] = (t->shape[0] + 127) / 128;
        plan[n].shape[1] = (t->shape[1] + 127) / 128;
        n++;
    }
    assert_ok(tms_st_layout(plan, n, 0, &header, &size, &err), err);
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    assert_ok(tms_output_create(&out, file, size, &err), err);
    assert_ok(tms_output_write(out, header.data, header.n, 0, &err), err);
    for (size_t i = 0; i < n; i++) {
        const struct tms_codec *to = tms_codec(plan[i].type);
        float *x = values_of(source, &plan[i]);
        void *bytes = calloc(plan[i].bytes, 1);
        to->encode(x, bytes, plan[i].bytes / to->block_bytes);
        assert_ok(tms_output_write(out, bytes, plan[i].bytes, plan[i].offset, &err), err);
        free(x);
        free(bytes);
    }
    assert_ok(tms_output_commit(out, &err), err);
    write_config(model, path, fp8);
    snprintf(command, sizeof command, "cp '%s'/tokenizer* '%s'", model, path);
    assert_int_equal(system(command), 0);
    tms_buf_free(&header);
    tms_source_close(source);
    return scratch(name);
}

static void bitsandbytes_folders_run_as_if_decoded_first(void **state)
{
    (void)state;
    const char *const types[] = {"nf4", "nf4:dq", "nf4:b128", "fp4", "fp4:b32:dq", "int8"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *path = written(pebble(), "typed", types[i], NULL);
        assert_runs_as(path, folder_of_type(path, "decoded", tms_codec(TMS_F32)), types[i]);
    }
}

/* Phi-3's fused matrices and DeepSeek's kv_b are taken row by row, Mixtral's experts each for itself. */
static void folders_on_grids_run_as_if_decoded_first(void **state)
{
    (void)state;
    static const char *const models[] = {"phi3", "mixtral", "deepseek_v2", "llama31"};
    static const char *const types[] = {"gptq:4:g32:asym", "w4a16:g16", "fp8:block", "w3a16:channel:asym"};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            const char *path = written(folder(models[m]), "on-a-grid", types[i], NULL);
            int32_t ids[N_IDS];
            char what[128];
            for (int k = 0; k < N_IDS; k++) ids[k] = (k * 97 + 31) % 300;
            snprintf(what, sizeof what, "%s as %s", models[m], types[i]);
            assert_runs_as(path, written(path, "decoded-grid", "hf:f32", NULL), what);
            struct outcome got = run(path, ids, N_IDS, (struct way){.n_threads = 2, .bounded = true}),
                           want = run(path, ids, N_IDS, (struct way){.n_threads = 1, .step = 3});
            assert_same_logits(&got, &want, what);
            free_outcome(&got);
            free_outcome(&want);
        }
}

/* Grids and bitsandbytes' codes as integers with inputs in 8 bits, for few tokens at a time. */
static void folders_run_in_the_fast_mode(void **state)
{
    (void)state;
    static const char *const types[] = {"nf4:b64",     "fp4:b128", "int8",      "gptq:4:g32", "gptq:3:g64:asym",
                                        "gptq:8:g128", "awq:g32",  "w4a16:g64", "w2a16:g32",  "w5a16:g128:asym",
                                        "w8a8",        "nvfp4a16", "mxfp4a16"};
    const enum tms_cpu own = tms_cpu_level();
    int32_t ids[N_IDS];
    some_ids(ids);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *path = written(pebble(), "fast", types[i], NULL);
        struct outcome exact = run(path, ids, N_IDS, (struct way){.n_threads = 1});
        struct outcome one = run(path, ids, N_IDS, (struct way){.n_threads = 1, .step = 1, .fast = true});
        double d = distance(one.logits, exact.logits, N_IDS * exact.vocab);
        print_message("%s: %.1e of the range\n", types[i], d);
        if (!(d > 0 && d < 0.02)) fail_msg("%s: %g of the range", types[i], d);
        for (enum tms_cpu level = TMS_CPU_SCALAR; level <= own; level++) {
            tms_cpu_force(level);
            struct outcome got =
                run(path, ids, N_IDS, (struct way){.n_threads = 2, .step = level == own ? 7 : 1, .fast = true});
            assert_same_logits(&got, &one, types[i]);
            free_outcome(&got);
            tms_cpu_force(own);
        }
        free_outcome(&exact);
        free_outcome(&one);
    }
}

static void every_dtype_of_folders_runs_as_if_decoded_first(void **state)
{
    (void)state;
    const enum tms_type types[] = {TMS_F64, TMS_F32, TMS_F16, TMS_BF16, TMS_F8_E4M3};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const struct tms_codec *c = tms_codec(types[i]);
        const char *path = folder_of_type(golden("arch/llama31"), "typed", c);
        assert_runs_as(path, written(path, "decoded", "hf:f32", NULL), c->name);
    }
}

/* ---- what cannot run ----------------------------------------------------------------------------------------------
 */

static void refuses(const char *model, const char *fragment)
{
    struct tms_source *source = NULL;
    struct tms_pool *pool = NULL;
    struct tms_net *untouched = (struct tms_net *)&err, *net = untouched;
    const struct tms_net_options options = {.bounded = false};
    assert_ok(tms_source_open(&source, model, NULL, NULL, &err), err);
    assert_ok(tms_pool_create(&pool, 1, &err), err);
    tms_status status = tms_net_open(&net, source, pool, &options, &err);
    if (status != TMS_EINPUT || net != untouched || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("%s: status %d, '%s'; wanted '%s'", model, (int)status, status ? err.message : "", fragment);
    tms_pool_free(pool);
    tms_source_close(source);
}

static void models_that_cannot_run_are_refused_in_one_line(void **state)
{
    (void)state;
    refuses(golden("configs/deepseek-r1-distill-qwen-7b.json"), "config.json alone");
    refuses(golden("arch/llama31/model.safetensors"), "name the folder");
}

static void ids_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    struct runner r;
    open_runner(&r, folder("qwen3"), &(struct way){.n_threads = 1});
    float *hidden = calloc(2 * r.info.stride, sizeof *hidden);
    assert_int_equal(tms_net_embed(r.net, (const int32_t[]){5, 320}, 2, hidden, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "320"));
    assert_int_equal(tms_net_embed(r.net, (const int32_t[]){-1}, 1, hidden, &err), TMS_EINPUT);
    free(hidden);
    close_runner(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_give_the_logits_of_transformers),
        cmocka_unit_test(converted_files_give_the_same_logits),
        cmocka_unit_test(both_forms_of_latent_attention_give_the_same_logits),
        cmocka_unit_test(hidden_states_agree_layer_by_layer),
        cmocka_unit_test(routers_choose_the_experts_of_transformers),
        cmocka_unit_test(short_texts_turn_by_the_short_factors),
        cmocka_unit_test(every_way_gives_the_same_bits),
        cmocka_unit_test(every_cpu_gives_the_same_bits),
        cmocka_unit_test(several_sequences_are_as_each_alone),
        cmocka_unit_test(caches_are_near_and_the_same_for_every_way),
        cmocka_unit_test(every_type_of_gguf_runs_as_if_decoded_first),
        cmocka_unit_test(bitsandbytes_folders_run_as_if_decoded_first),
        cmocka_unit_test(int8_outliers_keep_their_precision),
        cmocka_unit_test(folders_on_grids_run_as_if_decoded_first),
        cmocka_unit_test(folders_run_in_the_fast_mode),
        cmocka_unit_test(every_dtype_of_folders_runs_as_if_decoded_first),
        cmocka_unit_test(models_that_cannot_run_are_refused_in_one_line),
        cmocka_unit_test(ids_outside_the_vocabulary_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Sessions: a prompt in, tokens or a file of logits out. */
#include "support.h"

#include <math.h>
#include <tamis/tamis.h>

#include "base/cpu.h"
#include "engine/session.h"
#include <unistd.h>

#include "file/safetensors.h"

static struct tms_error err;

static struct tms_session *session_with(const char *model, struct tms_session_options options)
{
    struct tms_session *s = NULL;
    if (!options.n_threads) options.n_threads = 2;
    assert_ok(tms_session_open(&s, model, &options, &err), err);
    return s;
}

static struct tms_session *session(const char *model)
{
    return session_with(model, (struct tms_session_options){.n_threads = 2});
}

static struct tms_prompt text(const char *words)
{
    return (struct tms_prompt){.text = words, .text_bytes = strlen(words)};
}

static struct tms_prompt some_ids(const int32_t *ids, size_t n)
{
    return (struct tms_prompt){.ids = ids, .n_ids = n};
}

static struct tms_generation generate(struct tms_session *s, struct tms_prompt prompt, struct tms_generate_options o)
{
    struct tms_generation g;
    assert_ok(tms_session_generate(s, &prompt, &o, &g, &err), err);
    return g;
}

/* What models/pebble/README.md says that transformers makes of "The emperor": 40 tokens. */
static const char emperor[] = "\xe2\x80\x99s name was the first of the emperor. The emperor was the only person of the "
                              "emperor, and the emperor of "
                              "the West, who had been the first of the senate, was the only person of";

static void pebble_continues_as_its_readme_says(void **state)
{
    (void)state;
    struct tms_session *s = session(pebble());
    struct tms_generation g = generate(s, text("The emperor"), (struct tms_generate_options){.max_tokens = 40});
    assert_string_equal(g.text, emperor);
    assert_int_equal(g.text_bytes, strlen(emperor));
    assert_int_equal(g.n_ids, 40);
    assert_int_equal(g.stop, TMS_STOP_LENGTH);
    tms_generation_free(&g);
    tms_session_close(s);
}

/* ---- texts as they come -------------------------------------------------------------------------------------------
 */

struct heard {
    char text[4096];
    size_t n, n_calls, most_calls;
};

static bool hear(void *ctx, const char *words, size_t n)
{
    struct heard *h = ctx;
    assert_true(n > 0 && h->n + n < sizeof h->text);
    assert_true(((uint8_t)words[0] & 0xc0) != 0x80); /* no character is cut */
    memcpy(h->text + h->n, words, n);
    h->n += n;
    h->n_calls++;
    return h->n_calls != h->most_calls;
}

static void text_comes_token_by_token_in_whole_characters(void **state)
{
    (void)state;
    struct tms_session *s = session(pebble());
    struct heard h = {.n = 0};
    struct tms_generation g =
        generate(s, text("The emperor"), (struct tms_generate_options){.max_tokens = 40, .text = hear, .text_ctx = &h});
    assert_string_equal(h.text, emperor);
    assert_true(h.n_calls > 30);
    tms_generation_free(&g);
    tms_session_close(s);
}

static void the_caller_can_end_it(void **state)
{
    (void)state;
    struct tms_session *s = session(pebble());
    struct heard h = {.most_calls = 5};
    struct tms_generation g =
        generate(s, text("The emperor"), (struct tms_generate_options){.max_tokens = 40, .text = hear, .text_ctx = &h});
    assert_int_equal(g.stop, TMS_STOP_CALLER);
    assert_int_equal(h.n_calls, 5);
    assert_string_equal(g.text, h.text);
    tms_generation_free(&g);
    tms_session_close(s);
}

static void stop_texts_end_it_and_are_not_shown(void **state)
{
    (void)state;
    struct tms_session *s = session(pebble());
    const char *const stops[] = {"never", "emperor. The"};
    struct heard h = {.n = 0};
    struct tms_generation g = generate(
        s, text("The emperor"),
        (struct tms_generate_options){.max_tokens = 40, .stops = stops, .n_stops = 2, .text = hear, .text_ctx = &h});
    assert_string_equal(g.text, "\xe2\x80\x99s name was the first of the ");
    assert_string_equal(h.text, g.text);
    assert_int_equal(g.stop, TMS_STOP_TEXT);
    assert_int_equal(g.stop_index, 1);
    tms_generation_free(&g);
    /* the beginning of a stop text that does not come is shown in the end */
    const char *const half[] = {"person of Rome"};
    g = generate(s, text("The emperor"), (struct tms_generate_options){.max_tokens = 40, .stops = half, .n_stops = 1});
    assert_string_equal(g.text, emperor);
    tms_generation_free(&g);
    tms_session_close(s);
}

static void seeds_repeat_and_differ(void **state)
{
    (void)state;
    struct tms_session *a = session_with(pebble(), (struct tms_session_options){.n_threads = 1}),
                       *b = session(pebble());
    struct tms_generate_options o = {.max_tokens = 40, .sampling = tms_sampling_usual};
    o.sampling.seed = 11;
    struct tms_generation one = generate(a, text("It was"), o), two = generate(b, text("It was"), o);
    o.sampling.seed = 12;
    struct tms_generation three = generate(b, text("It was"), o);
    assert_string_equal(one.text, two.text);
    assert_string_not_equal(one.text, three.text);
    tms_generation_free(&one);
    tms_generation_free(&two);
    tms_generation_free(&three);
    tms_session_close(a);
    tms_session_close(b);
}

static void repetition_penalty_breaks_the_circle(void **state)
{
    (void)state;
    struct tms_session *s = session(pebble());
    struct tms_generate_options o = {.max_tokens = 48, .sampling = {.repeat_penalty = 1.3, .repeat_last_n = 64}};
    struct tms_generation g = generate(s, text("The emperor"), o);
    const char *first = strstr(g.text, "emperor");
    assert_true(!first || !strstr(first + 1, "emperor"));
    tms_generation_free(&g);
    tms_session_close(s);
}

/* ---- ids, contexts, caches ----------------------------------------------------------------------------------------
 */

static void assert_same_generation(const struct tms_generation *got, const struct tms_generation *want)
{
    assert_int_equal(got->n_ids, want->n_ids);
    assert_same_bytes(got->ids, want->ids, want->n_ids * sizeof *want->ids, "ids");
}

static void a_shared_beginning_is_not_read_again(void **state)
{
    (void)state;
    int32_t ids[320];
    struct tms_session *s = session_with(golden("arch/llama31"), (struct tms_session_options){.context = 400});
    for (int i = 0; i < 320; i++) ids[i] = (i * 89 + 7) % 384;
    struct tms_generate_options o = {.max_tokens = 5, .ignore_end = true};
    struct tms_generation g = generate(s, some_ids(ids, 100), o);
    assert_int_equal(g.n_reused, 0);
    tms_generation_free(&g);
    ids[90]++;
    const size_t lengths[] = {320, 320, 95, 50}, reused[] = {90, 319, 94, 49};
    for (int i = 0; i < 4; i++) {
        g = generate(s, some_ids(ids, lengths[i]), o);
        struct tms_session *alone = session_with(golden("arch/llama31"), (struct tms_session_options){.context = 400});
        struct tms_generation want = generate(alone, some_ids(ids, lengths[i]), o);
        assert_int_equal(g.n_reused, reused[i]);
        assert_int_equal(g.n_prompt, lengths[i]);
        assert_same_generation(&g, &want);
        tms_generation_free(&want);
        tms_generation_free(&g);
        tms_session_close(alone);
    }
    tms_session_close(s);
}

static void a_full_context_is_told(void **state)
{
    (void)state;
    const int32_t ids[] = {5, 6, 7, 8, 9, 10};
    struct tms_session *s = session_with(golden("arch/qwen3"), (struct tms_session_options){.context = 8});
    struct tms_generate_options o = {.max_tokens = UINT64_MAX, .ignore_end = true};
    struct tms_generation g = generate(s, some_ids(ids, 6), o);
    assert_int_equal(g.stop, TMS_STOP_CONTEXT);
    assert_int_equal(g.n_ids, 3); /* two positions, and the token after them */
    tms_generation_free(&g);
    o.max_tokens = 3;
    g = generate(s, some_ids(ids, 6), o);
    assert_int_equal(g.stop, TMS_STOP_LENGTH);
    tms_generation_free(&g);
    tms_session_close(s);
}

static void the_cache_grows_without_a_trace(void **state)
{
    (void)state;
    const int32_t ids[] = {1, 2, 3};
    struct tms_session *s = session_with(golden("arch/llama31"), (struct tms_session_options){.context = 512});
    /* no limit is known at first: it begins small and grows; with a limit it has its size at once */
    struct tms_generate_options open_end = {.max_tokens = UINT64_MAX, .ignore_end = true},
                                known = {.max_tokens = 509, .ignore_end = true};
    struct tms_generation a = generate(s, some_ids(ids, 3), open_end);
    struct tms_session *t = session_with(golden("arch/llama31"), (struct tms_session_options){.context = 512});
    struct tms_generation b = generate(t, some_ids(ids, 3), known);
    assert_int_equal(a.n_ids, 510);
    assert_same_bytes(a.ids, b.ids, b.n_ids * sizeof *b.ids, "ids");
    tms_generation_free(&a);
    tms_generation_free(&b);
    tms_session_close(s);
    tms_session_close(t);
}

static void a_half_cache_runs_too(void **state)
{
    (void)state;
    struct tms_session *s = session_with(pebble(), (struct tms_session_options){.kv = "f16"});
    struct tms_session_info info;
    tms_session_describe(s, &info);
    assert_int_equal(info.n_vocab, 4096);
    assert_int_equal(info.n_layers, 6);
    assert_int_equal(info.hidden, 256);
    assert_int_equal(info.cache_bytes, 6 * 2 * 2 * 64 * 2 * info.context);
    struct tms_generation g = generate(s, text("The emperor"), (struct tms_generate_options){.max_tokens = 20});
    assert_int_equal(strncmp(g.text, emperor, g.text_bytes), 0);
    tms_generation_free(&g);
    tms_session_close(s);
}

/* Prompts of many tokens and of few, then token by token: all ways that products go. */
static void fast_sessions_do_not_depend_on_threads_or_cpu_and_stay_near_exact_ones(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    static const char *const types[] = {"q4_k_m", "q8_0"};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        char model[1100];
        struct tms_result *results;
        const struct tms_quantize_options quantize = {.types = &types[t], .n_types = 1};
        snprintf(model, sizeof model, "%s", scratch("fast.gguf"));
        assert_ok(tms_quantize(pebble(), model, &quantize, &results, NULL, NULL, &err), err);
        tms_results_free(results, 1);
        for (size_t i = 0; i < 2; i++) {
            const struct tms_prompt prompt = text(i ? "It" : "The emperor was the first who came to the river, and");
            const struct tms_generate_options o = {.max_tokens = 8};
            struct tms_session *exact = session(model), *first = NULL;
            struct tms_generation near = generate(exact, prompt, o), want = {0};
            for (size_t n = 0; n < 2 * sizeof levels / sizeof *levels; n++) {
                const struct tms_session_options options = {.n_threads = n % 2 ? 3 : 1, .fast = true};
                tms_cpu_force(levels[n / 2]);
                struct tms_session *s = session_with(model, options);
                struct tms_generation g = generate(s, prompt, o);
                if (!first) {
                    first = s;
                    want = g;
                    continue;
                }
                assert_same_generation(&g, &want);
                /* Prompts of many tokens have an order of sums of their own where there are tiles. */
                if (i) assert_same_bytes(s->logits, first->logits, s->info.vocab * sizeof *s->logits, "logits");
                tms_generation_free(&g);
                tms_session_close(s);
            }
            tms_cpu_force(TMS_CPU_AVX512);
            assert_int_equal(near.ids[0], want.ids[0]);
            double noise = 0, size = 0;
            for (size_t k = 0; k < exact->info.vocab; k++) {
                noise += pow((double)exact->logits[k] - (double)first->logits[k], 2);
                size += pow((double)exact->logits[k], 2);
            }
            if (near.n_ids == want.n_ids && memcmp(near.ids, want.ids, near.n_ids * sizeof *near.ids) == 0)
                assert_true(noise < 1e-3 * size);
            tms_generation_free(&near);
            tms_generation_free(&want);
            tms_session_close(exact);
            tms_session_close(first);
        }
    }
}

/* Tokens that were kept at 16 bits and left their ring since are read again. */
static void quantized_caches_forget_and_grow_without_a_trace(void **state)
{
    (void)state;
    static const struct {
        const char *kv;
        uint64_t first, last;
    } caches[] = {{"q4_0", 0, 0}, {"q8_0", 4, 0}, {"c8", 0, 16}, {"q4_0", 4, 200}};
    int32_t ids[700];
    for (int i = 0; i < 700; i++) ids[i] = (i * 89 + 7) % 384;
    for (size_t c = 0; c < sizeof caches / sizeof *caches; c++) {
        const struct tms_session_options options = {
            .context = 720, .kv = caches[c].kv, .kv_keep_first = caches[c].first, .kv_keep_last = caches[c].last};
        struct tms_generate_options o = {.max_tokens = 9, .ignore_end = true};
        struct tms_session *s = session_with(golden("arch/llama31"), options);
        const size_t lengths[] = {50, 690, 680, 300, 2, 400};
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            struct tms_session *alone = session_with(golden("arch/llama31"), options);
            struct tms_generation g = generate(s, some_ids(ids, lengths[i]), o);
            struct tms_generation want = generate(alone, some_ids(ids, lengths[i]), o);
            assert_same_generation(&g, &want);
            assert_same_bytes(s->logits, alone->logits, s->info.vocab * sizeof *s->logits, caches[c].kv);
            if (caches[c].last == 0 && i == 2) assert_int_equal(g.n_reused, 679);
            tms_generation_free(&want);
            tms_generation_free(&g);
            tms_session_close(alone);
        }
        struct tms_session_info info;
        tms_session_describe(s, &info);
        uint64_t missing = (720 - s->cache->shape.capacity) * info.n_layers * 2 * 2 * s->cache->key.bytes;
        assert_int_equal(info.cache_now_bytes, info.cache_bytes - missing);
        tms_session_close(s);
    }
}

static void caches_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct tms_session *s = NULL;
    struct tms_session_options o = {.kv = "q3_k"};
    assert_int_equal(tms_session_open(&s, pebble(), &o, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "'q3_k' is no type of cache; there are f32"));
    o.kv = "q8_0";
    assert_int_equal(tms_session_open(&s, golden("arch/deepseek_v2"), &o, &err), TMS_EINPUT);
    assert_non_null(
        strstr(err.message, "arch/deepseek_v2: a part of a latent key has 56 numbers, and a cache of q8_0"));
    o.kv = "f16", o.kv_keep_last = 3;
    assert_int_equal(tms_session_open(&s, pebble(), &o, &err), TMS_EUSAGE);
    assert_non_null(strstr(err.message, "f16"));
}

/* ---- the file of logits -------------------------------------------------------------------------------------------
 */

static float *tensor(const struct tms_safetensors *st, const char *name, size_t *n)
{
    const struct tms_st_tensor *t = tms_safetensors_find(st, name);
    if (!t) return NULL;
    float *x = calloc(t->n_elems, sizeof *x);
    *n = t->n_elems;
    assert_ok(tms_file_read(&st->file, x, t->bytes, t->offset, &err), err);
    return x;
}

static void logits_and_hidden_states_are_those_of_transformers(void **state)
{
    (void)state;
    struct tms_safetensors *want = NULL, *got = NULL;
    assert_ok(tms_safetensors_open(&want, golden("arch/llama31/golden.safetensors"), &err), err);
    const struct tms_st_tensor *t = tms_safetensors_find(want, "input_ids");
    int64_t wide[48];
    int32_t ids[48];
    uint64_t n_tokens = 0;
    assert_int_equal(t->n_elems, 48);
    assert_ok(tms_file_read(&want->file, wide, sizeof wide, t->offset, &err), err);
    for (int i = 0; i < 48; i++) ids[i] = (int32_t)wide[i];
    struct tms_session *s = session(golden("arch/llama31"));
    const struct tms_prompt prompt = some_ids(ids, 48);
    const char *path = scratch("logits.safetensors");
    assert_ok(
        tms_session_logits(s, &prompt, path, &(struct tms_logits_options){.hidden_states = true}, &n_tokens, &err),
        err);
    assert_int_equal(n_tokens, 48);
    assert_ok(tms_safetensors_open(&got, path, &err), err);
    assert_int_equal(got->n_tensors, 2);
    const struct tms_st_tensor *states = tms_safetensors_find(got, "hidden_states");
    assert_int_equal(states->n_dims, 3);
    assert_int_equal(states->shape[0], 4);
    assert_int_equal(states->shape[1], 48);
    assert_int_equal(states->shape[2], 128);
    for (int k = 0; k < 2; k++) {
        size_t n = 0, m = 0;
        float *a = tensor(got, k ? "hidden_states" : "logits", &n),
              *b = tensor(want, k ? "hidden_states" : "logits", &m);
        double low = INFINITY, high = -INFINITY, most = 0;
        assert_int_equal(n, m);
        for (size_t i = 0; i < n; i++) {
            low = fmin(low, b[i]);
            high = fmax(high, b[i]);
            most = fmax(most, fabs((double)a[i] - b[i]));
        }
        if (!(most <= 1e-5 * (high - low))) fail_msg("tensor %d: %g of the range", k, most / (high - low));
        free(a);
        free(b);
    }
    tms_safetensors_close(want);
    tms_safetensors_close(got);
    tms_session_close(s);
}

static void long_prompts_are_the_same_in_every_length_of_pass(void **state)
{
    (void)state;
    enum { N = 300 }; /* more than one pass; a shorter one has the same beginning */
    int32_t ids[N];
    size_t n = 0, m = 0;
    struct tms_safetensors *st = NULL;
    struct tms_session *s = session(golden("arch/llama31"));
    for (int i = 0; i < N; i++) ids[i] = (i * 89 + 7) % 384;
    struct tms_prompt prompt = some_ids(ids, N);
    const char *path = scratch("long.safetensors");
    const struct tms_logits_options o = {.hidden_states = false};
    assert_ok(tms_session_logits(s, &prompt, path, &o, NULL, &err), err);
    assert_ok(tms_safetensors_open(&st, path, &err), err);
    assert_int_equal(st->n_tensors, 1);
    float *all = tensor(st, "logits", &n);
    tms_safetensors_close(st);
    prompt.n_ids = 17;
    assert_ok(tms_session_logits(s, &prompt, path, &o, NULL, &err), err);
    assert_ok(tms_safetensors_open(&st, path, &err), err);
    float *few = tensor(st, "logits", &m);
    tms_safetensors_close(st);
    assert_int_equal(n, N * 384);
    assert_int_equal(m, 17 * 384);
    assert_same_bytes(all, few, m * sizeof *few, "the first 17 tokens");
    free(all);
    free(few);
    tms_session_close(s);
}

/* ---- bad input ----------------------------------------------------------------------------------------------------
 */

static void open_refuses(const char *model, struct tms_session_options options, tms_status want, const char *fragment)
{
    struct tms_session *untouched = (struct tms_session *)&err, *s = untouched;
    tms_status status = tms_session_open(&s, model, &options, &err);
    if (status != want || s != untouched || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("%s: status %d, '%s'; wanted '%s'", model, (int)status, status ? err.message : "", fragment);
}

static void generate_refuses(struct tms_session *s, struct tms_prompt prompt, tms_status want, const char *fragment)
{
    struct tms_generation g;
    const struct tms_generate_options o = {.max_tokens = 4};
    tms_status status = tms_session_generate(s, &prompt, &o, &g, &err);
    if (status != want || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("status %d, '%s'; wanted '%s'", (int)status, status ? err.message : "", fragment);
    const char *path = scratch("refused.safetensors");
    status = tms_session_logits(s, &prompt, path, &(struct tms_logits_options){.hidden_states = true}, NULL, &err);
    assert_int_equal(status, want);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void bad_prompts_are_refused_in_one_line(void **state)
{
    (void)state;
    int32_t ids[600] = {0};
    struct tms_session *s = session(golden("arch/qwen3"));
    generate_refuses(s, some_ids(ids, 0), TMS_EINPUT, "no tokens");
    generate_refuses(s, some_ids(ids, 600), TMS_EINPUT, "600 tokens does not fit into a context of");
    ids[3] = 320;
    generate_refuses(s, some_ids(ids, 5), TMS_EINPUT, "token 3 of the prompt has id 320; ids are 0 to 319");
    ids[3] = -1;
    generate_refuses(s, some_ids(ids, 5), TMS_EINPUT, "id -1");
    tms_session_close(s);
    s = session(pebble());
    generate_refuses(s, text(""), TMS_EINPUT, "no tokens");
    tms_session_close(s);
}

static void bad_settings_are_refused_in_one_line(void **state)
{
    (void)state;
    open_refuses(pebble(), (struct tms_session_options){.kv = "q9_k"}, TMS_EINPUT, "f32");
    open_refuses(pebble(), (struct tms_session_options){.context = UINT64_MAX}, TMS_EUSAGE, "too large");
    open_refuses(golden("arch/llama31/config.json"), (struct tms_session_options){0}, TMS_EINPUT, "no weights");
    char command[4096];
    snprintf(command, sizeof command,
             "mkdir -p %s && cp %s/* %s && sed -i 's/GemmaForCausalLM/BertForMaskedLM/' %s/config.json",
             scratch("bert"), golden("arch/gemma"), scratch("bert"), scratch("bert"));
    assert_int_equal(system(command), 0);
    open_refuses(scratch("bert"), (struct tms_session_options){0}, TMS_EINPUT, "BertForMaskedLM");
    open_refuses(scratch("nowhere"), (struct tms_session_options){0}, TMS_EINPUT, "no such file");
}

/* A copy of a folder without its tokenizer, in which `find` in the weights' file became `replace`. */
static const char *changed(const char *arch, const char *name, const char *find, const char *replace)
{
    char folder[1100], command[4000], from[1200];
    size_t n;
    snprintf(folder, sizeof folder, "%s", scratch(name));
    snprintf(from, sizeof from, "%s", golden(arch));
    snprintf(command, sizeof command, "mkdir '%s' && cp '%s'/config.json '%s'", folder, from, folder);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/model.safetensors", from);
    uint8_t *file = read_whole(command, &n);
    if (find) {
        uint8_t *at = memmem(file, n, find, strlen(find));
        assert_non_null(at);
        memcpy(at, replace, strlen(replace));
    }
    snprintf(command, sizeof command, "%s/model.safetensors", folder);
    write_whole(command, file, n);
    free(file);
    return scratch(name);
}

static void missing_tensors_are_named(void **state)
{
    (void)state;
    const char *model = changed("arch/qwen3", "missing", "\"model.norm.weight\"", "\"model.mron.weight\"");
    open_refuses(model, (struct tms_session_options){0}, TMS_EINPUT, "model.norm.weight");
}

static void weights_that_are_no_numbers_are_told(void **state)
{
    (void)state;
    const int32_t ids[] = {1, 2, 3};
    struct tms_safetensors *st = NULL;
    char path[1200];
    const char *model = changed("arch/qwen3", "nan", NULL, NULL);
    snprintf(path, sizeof path, "%s/model.safetensors", model);
    assert_ok(tms_safetensors_open(&st, path, &err), err);
    const struct tms_st_tensor *norm = tms_safetensors_find(st, "model.norm.weight");
    assert_int_equal(norm->type, TMS_F32);
    size_t n, at = norm->offset;
    tms_safetensors_close(st);
    uint8_t *file = read_whole(path, &n);
    memcpy(file + at, &(float){NAN}, 4);
    write_whole(path, file, n);
    free(file);
    struct tms_session *s = session(model);
    generate_refuses(s, some_ids(ids, 3), TMS_EINPUT, "NaN");
    tms_session_close(s);
}

static void models_without_a_tokenizer_run_on_ids(void **state)
{
    (void)state;
    const int32_t ids[] = {1, 2, 3};
    struct tms_session *s = session(changed("arch/qwen3", "silent", NULL, NULL));
    struct tms_session *full = session(golden("arch/qwen3"));
    struct tms_generate_options o = {.max_tokens = 10, .ignore_end = true};
    struct tms_generation g = generate(s, some_ids(ids, 3), o), want = generate(full, some_ids(ids, 3), o);
    assert_null(g.text);
    assert_non_null(want.text);
    assert_same_generation(&g, &want);
    generate_refuses(s, text("Hello"), TMS_EINPUT, "tokenizer");
    tms_generation_free(&g);
    tms_generation_free(&want);
    tms_session_close(s);
    tms_session_close(full);
}

static void note(void *ctx, const char *line)
{
    snprintf(ctx, 200, "%s", line);
}

static void a_context_past_the_models_own_is_warned_of(void **state)
{
    (void)state;
    char line[200] = "";
    struct tms_session *s =
        session_with(pebble(), (struct tms_session_options){.context = 100000, .warning = note, .warning_ctx = line});
    assert_non_null(strstr(line, "100000 positions"));
    tms_session_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pebble_continues_as_its_readme_says),
        cmocka_unit_test(text_comes_token_by_token_in_whole_characters),
        cmocka_unit_test(the_caller_can_end_it),
        cmocka_unit_test(stop_texts_end_it_and_are_not_shown),
        cmocka_unit_test(seeds_repeat_and_differ),
        cmocka_unit_test(repetition_penalty_breaks_the_circle),
        cmocka_unit_test(a_shared_beginning_is_not_read_again),
        cmocka_unit_test(a_full_context_is_told),
        cmocka_unit_test(the_cache_grows_without_a_trace),
        cmocka_unit_test(a_half_cache_runs_too),
        cmocka_unit_test(fast_sessions_do_not_depend_on_threads_or_cpu_and_stay_near_exact_ones),
        cmocka_unit_test(quantized_caches_forget_and_grow_without_a_trace),
        cmocka_unit_test(caches_that_cannot_be_are_refused),
        cmocka_unit_test(logits_and_hidden_states_are_those_of_transformers),
        cmocka_unit_test(long_prompts_are_the_same_in_every_length_of_pass),
        cmocka_unit_test(bad_prompts_are_refused_in_one_line),
        cmocka_unit_test(bad_settings_are_refused_in_one_line),
        cmocka_unit_test(missing_tensors_are_named),
        cmocka_unit_test(weights_that_are_no_numbers_are_told),
        cmocka_unit_test(models_without_a_tokenizer_run_on_ids),
        cmocka_unit_test(a_context_past_the_models_own_is_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

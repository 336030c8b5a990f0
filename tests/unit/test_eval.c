/* The evaluator: what rows of logits say, statistics, one and two models over a text, tasks. Figures of pebble are
 * those of transformers in float32 with sums in double. */
#include "support.h"

#include <math.h>
#include <sys/resource.h>
#include <tamis/tamis.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "eval/hidden.h"
#include "eval/softmax.h"
#include "eval/statistics.h"
#include "file/gguf.h"
#include "model/tokenize.h"

static struct tms_error err;

/* ---- rows of logits ---- */

static void exp_and_log_are_right_to_the_last_digits(void **state)
{
    (void)state;
    for (double x = 0; x > -690; x -= 0.01337)
        if (!(fabs(tms_exp_negative(x) / exp(x) - 1) < 2e-14)) fail_msg("exp(%g) = %.17g", x, tms_exp_negative(x));
    for (double x = 1e-3; x < 1e9; x *= 1.0017)
        if (!(fabs(tms_log_positive(x) - log(x)) <= 1e-15 * fmax(1, fabs(log(x)))))
            fail_msg("log(%g) = %.17g", x, tms_log_positive(x));
    assert_true(tms_exp_negative(0) == 1 && tms_log_positive(1) == 0);
    assert_true(tms_exp_negative(-1e30) < 1e-300);
}

static void fill_row(float *x, size_t n, float scale, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) x[i] = scale * random_normal(seed);
}

static void rows_score_as_long_double_says_at_all_levels(void **state)
{
    (void)state;
    enum { MOST = 1031 };
    static const size_t sizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 1000, MOST};
    float x[MOST], base[MOST];
    uint64_t seed = 5;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s], bad;
        bool of_base;
        fill_row(base, n, 4, &seed);
        fill_row(x, n, 0.3F, &seed);
        for (size_t i = 0; i < n; i++) x[i] += base[i];
        long double sum = 0, base_sum = 0, kl = 0;
        for (size_t i = 0; i < n; i++) {
            sum += expl((long double)x[i]);
            base_sum += expl((long double)base[i]);
        }
        for (size_t i = 0; i < n; i++) {
            long double log_base = (long double)base[i] - logl(base_sum);
            kl += expl(log_base) * (log_base - ((long double)x[i] - logl(sum)));
        }
        struct tms_position first = {0}, got;
        for (int level = TMS_CPU_SCALAR; level <= TMS_CPU_AVX512; level++) {
            tms_cpu_force((enum tms_cpu)level);
            memset(&got, 0, sizeof got);
            assert_true(tms_score_row(x, base, n, (int32_t)(n / 2), &got, &bad, &of_base));
            if (level == TMS_CPU_SCALAR) first = got;
            assert_true(got.nll == first.nll && got.nll_base == first.nll_base && got.kl == first.kl);
        }
        assert_true(fabs(got.nll - (double)(logl(sum) - (long double)x[n / 2])) < 1e-13);
        assert_true(fabs(got.nll_base - (double)(logl(base_sum) - (long double)base[n / 2])) < 1e-13);
        assert_true(fabs(got.kl - (double)kl) < 1e-14);
        double with_base = got.nll;
        assert_true(tms_score_row(x, NULL, n, (int32_t)(n / 2), &got, &bad, &of_base));
        assert_true(got.nll == with_base);
    }
}

static void equal_rows_diverge_by_nothing(void **state)
{
    (void)state;
    float x[100];
    uint64_t seed = 3;
    struct tms_position p;
    size_t bad;
    bool of_base;
    fill_row(x, 100, 5, &seed);
    assert_true(tms_score_row(x, x, 100, 4, &p, &bad, &of_base));
    assert_true(p.kl == 0 && p.same_top && p.nll == p.nll_base);
}

static void rows_with_huge_differences_stay_finite(void **state)
{
    (void)state;
    float x[9] = {3e38F, -3e38F, 0, 1, 2, 3, 4, 5, 6}, base[9] = {-3e38F, 3e38F, 0, 1, 2, 3, 4, 5, 6};
    struct tms_position p;
    size_t bad;
    bool of_base;
    assert_true(tms_score_row(x, base, 9, 1, &p, &bad, &of_base));
    assert_true(isfinite(p.nll) && isfinite(p.kl) && p.kl > 1e38 && !p.same_top);
}

static void rows_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    float x[40] = {0}, base[40] = {0};
    struct tms_position p;
    size_t bad = 0;
    bool of_base = true;
    x[33] = NAN;
    assert_false(tms_score_row(x, NULL, 40, 1, &p, &bad, &of_base));
    assert_true(bad == 33 && !of_base);
    x[33] = 0;
    base[2] = INFINITY;
    assert_false(tms_score_row(x, base, 40, 1, &p, &bad, &of_base));
    assert_true(bad == 2 && of_base);
}

/* ---- statistics ---- */

static void means_errors_and_percentiles_are_those_of_the_textbook(void **state)
{
    (void)state;
    enum { N = 101 };
    struct tms_position p[N];
    struct tms_eval_result r = {0};
    for (int i = 0; i < N; i++)
        p[i] = (struct tms_position){.nll = 1 + 0.01 * i,
                                     .nll_base = 1 + 0.02 * (i % 10),
                                     .kl = 1e-3 * ((i * 37) % N), /* every value once, in no order */
                                     .same_top = i % 4 != 0};
    assert_ok(tms_eval_summarize(p, N, true, &r, &err), err);
    assert_true(fabs(r.log_perplexity.value - 1.5) < 1e-12);
    double variance = 0.0001 * (N * N - 1) / 12; /* of evenly spread numbers */
    assert_true(fabs(r.log_perplexity.error - sqrt(variance / (N - 1))) < 1e-12);
    assert_true(fabs(r.perplexity.value - exp(1.5)) < 1e-11);
    assert_true(fabs(r.perplexity.error - exp(1.5) * r.log_perplexity.error) < 1e-12);
    assert_true(fabs(r.kl.median - 0.05) < 1e-12 && fabs(r.kl.p90 - 0.09) < 1e-12 && fabs(r.kl.p99_9 - 0.0999) < 1e-12);
    assert_true(r.kl.min == 0 && fabs(r.kl.max - 0.1) < 1e-12);
    assert_true(fabs(r.same_top.value - 75.0 / N) < 1e-12);
    assert_true(fabs(r.same_top.error - sqrt(75.0 / N * (1 - 75.0 / N) / (N - 1))) < 1e-12);
    /* the error of a ratio is that of the mean of the differences */
    double mean = 0, square = 0;
    for (int i = 0; i < N; i++) mean += (p[i].nll - p[i].nll_base) / N;
    for (int i = 0; i < N; i++) square += pow(p[i].nll - p[i].nll_base - mean, 2) / N;
    assert_true(fabs(r.log_ratio.value - mean) < 1e-12);
    assert_true(fabs(r.log_ratio.error - sqrt(square / (N - 1))) < 1e-12);
}

static void one_prediction_has_no_error(void **state)
{
    (void)state;
    struct tms_position p = {.nll = 2};
    struct tms_eval_result r = {0};
    assert_ok(tms_eval_summarize(&p, 1, true, &r, &err), err);
    assert_true(r.log_perplexity.error == 0 && r.kl.median == 0 && r.log_ratio.error == 0);
}

/* ---- models ---- */

static const char *text_of_pebble(void)
{
    static char path[1100];
    snprintf(path, sizeof path, "%s/eval.txt", pebble());
    return path;
}

/* A model in a type, written once. */
static const char *made(const char *from, const char *type)
{
    char name[64];
    const char *slash = strrchr(from, '/');
    snprintf(name, sizeof name, "%s-%s.gguf", slash + 1, type);
    const char *path = scratch(name);
    FILE *there = fopen(path, "rb");
    if (there) {
        fclose(there);
        return path;
    }
    struct tms_quantize_options o = {.types = &type, .n_types = 1, .n_threads = 2};
    struct tms_result *results;
    assert_ok(tms_quantize(from, path, &o, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
    return path;
}

static struct tms_eval_result evaluate(const char *model, struct tms_eval_options o)
{
    struct tms_eval_result r;
    if (!o.n_threads) o.n_threads = 2;
    if (!o.data && !o.ids) o.data = text_of_pebble();
    assert_ok(tms_evaluate(model, &o, &r, &err), err);
    return r;
}

static void refuses(const char *model, struct tms_eval_options o, const char *says)
{
    struct tms_eval_result r = {.n_windows = 77};
    memset(&err, 0, sizeof err);
    tms_status status = tms_evaluate(model, &o, &r, &err);
    if (status != TMS_EINPUT || !strstr(err.message, says)) fail_msg("status %d: %s", (int)status, err.message);
    assert_int_equal(r.n_windows, 77);
}

/* Small windows: the tests run under sanitizers, too. */
static const struct tms_eval_options eight = {.context = 128, .n_chunks = 8};

static void figures_of_pebble_are_those_of_transformers(void **state)
{
    (void)state;
    struct tms_eval_result r = evaluate(pebble(), eight);
    assert_true(fabs(r.perplexity.value - 56.447374) < 1e-4 && fabs(r.perplexity.error - 7.468279) < 1e-4);
    assert_true(r.n_windows == 8 && r.n_predicted == 504 && r.n_tokens == 31687 && !r.bos && r.weights_alone);
    struct tms_eval_options full = eight;
    full.style = "full";
    r = evaluate(pebble(), full);
    assert_true(fabs(r.perplexity.value - 57.578343) < 1e-4 && fabs(r.perplexity.error - 5.472816) < 1e-4);
    assert_int_equal(r.n_predicted, 1016);
}

static void divergence_of_q4_k_m_is_that_of_transformers(void **state)
{
    (void)state;
    struct tms_eval_options o = eight;
    o.base = pebble();
    struct tms_eval_result r = evaluate(made(pebble(), "q4_k_m"), o);
    assert_true(fabs(r.kl.mean.value - 0.009720411) < 1e-7 && fabs(r.kl.mean.error - 0.000468813) < 1e-7);
    assert_true(fabs(r.kl.median - 0.0068609) < 1e-6 && fabs(r.kl.p90 - 0.0208696) < 1e-6);
    assert_true(fabs(r.kl.p99_9 - 0.0975658) < 1e-5 && fabs(r.kl.max - 0.1275070) < 1e-5);
    assert_true(fabs(r.same_top.value - 0.9226190) < 1e-6);
    assert_true(fabs(r.change.mean.value + 0.001116574) < 1e-6 && fabs(r.rms_change.value - 0.01952446) < 1e-6);
    assert_true(fabs(r.log_ratio.value - 0.01515593) < 1e-6 && fabs(r.log_ratio.error - 0.00654265) < 1e-6);
    assert_true(fabs(r.correlation - 0.998786) < 1e-5);
    assert_true(fabs(r.base_perplexity.value - 56.447374) < 1e-4);
}

static void divergences_of_plain_types_are_those_of_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        double kl, error, perplexity;
    } types[] = {
        {"q8_0", 0.000097077, 0.000004069, 56.421507},   {"q6_k", 0.001057940, 0.000047172, 56.339576},
        {"q5_k_m", 0.002855496, 0.000129827, 56.503231}, {"q4_0", 0.016799819, 0.000725692, 56.454597},
        {"q3_k_m", 0.026913624, 0.001236928, 56.626779}, {"q2_k", 0.123419750, 0.007127579, 62.972281},
    };
    struct tms_eval_options o = eight;
    o.base = pebble();
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tms_eval_result r = evaluate(made(pebble(), types[i].type), o);
        if (!(fabs(r.kl.mean.value / types[i].kl - 1) < 2e-4 && fabs(r.kl.mean.error / types[i].error - 1) < 2e-4 &&
              fabs(r.perplexity.value - types[i].perplexity) < 1e-4))
            fail_msg("%s: KL %.9f ± %.9f, perplexity %.6f; transformers %.9f ± %.9f, %.6f", types[i].type,
                     r.kl.mean.value, r.kl.mean.error, r.perplexity.value, types[i].kl, types[i].error,
                     types[i].perplexity);
    }
}

static void model_compared_with_itself_has_lost_nothing(void **state)
{
    (void)state;
    struct tms_eval_options o = {.context = 64, .n_chunks = 2, .base = pebble()};
    struct tms_eval_result r = evaluate(made(pebble(), "bf16"), o);
    assert_true(r.kl.max == 0 && r.same_top.value == 1 && r.ratio.value == 1 && r.change.max == 0);
}

/* All figures bit for bit; what depends on the way and the time is left out. */
static void assert_same_figures(struct tms_eval_result a, struct tms_eval_result b)
{
    a.seconds = a.run_seconds = b.seconds = b.run_seconds = 0;
    a.by_layer = b.by_layer = false;
    a.planned_bytes = b.planned_bytes = 0;
    assert_same_bytes(&a.log_perplexity, &b.log_perplexity, sizeof a - offsetof(struct tms_eval_result, log_perplexity),
                      "figures");
    assert_int_equal(a.n_predicted, b.n_predicted);
}

static void figures_are_the_same_for_threads_and_levels(void **state)
{
    (void)state;
    enum tms_cpu level = tms_cpu_level();
    struct tms_eval_options o = {.context = 64, .n_chunks = 5, .base = pebble(), .n_threads = 1};
    struct tms_eval_result one = evaluate(made(pebble(), "q4_k_m"), o);
    o.n_threads = 3;
    assert_same_figures(evaluate(made(pebble(), "q4_k_m"), o), one);
    tms_cpu_force(TMS_CPU_SCALAR);
    assert_same_figures(evaluate(made(pebble(), "q4_k_m"), o), one);
    tms_cpu_force(level);
}

/* With the least memory that will do, as the message tells it, and `more`. Sanitizers keep what is freed, so that every
 * attempt may ask for more than the one before. */
static unsigned attempt;
static struct tms_eval_result evaluate_in_least(const char *model, struct tms_eval_options o, uint64_t more)
{
    struct tms_eval_result r = {0};
    o.n_threads = 2;
    o.data = text_of_pebble();
    o.ram = 1000000;
    for (attempt = 0; tms_evaluate(model, &o, &r, &err) != TMS_OK; attempt++) {
        const char *says = strstr(err.message, "the least for windows of ");
        unsigned long long tokens = 0, mb = 0;
        if (!says || sscanf(says, "the least for windows of %llu tokens is %llu MB", &tokens, &mb) != 2 || attempt > 20)
            fail_msg("%s", err.message);
        o.ram = (mb + 1 + 4 * (uint64_t)attempt) * 1000000 + more;
    }
    assert_true(r.planned_bytes <= o.ram);
    return r;
}

static void windows_of_their_own_give_the_figures_of_several_at_once(void **state)
{
    (void)state;
    /* 1024 tokens go two windows at a time, and what a window predicts does not depend on its neighbour */
    struct tms_eval_result two = evaluate(pebble(), (struct tms_eval_options){.context = 1024, .n_chunks = 2});
    struct tms_eval_result one = evaluate(pebble(), (struct tms_eval_options){.context = 1024, .n_chunks = 1});
    assert_int_equal(two.n_predicted, 2 * one.n_predicted);
    struct tms_eval_options low = {.context = 1024, .n_chunks = 2};
    assert_same_figures(evaluate_in_least(pebble(), low, 0), two); /* one at a time */
}

static void same_under_limits(const char *model_name, const char *base)
{
    char model[1100];
    snprintf(model, sizeof model, "%s", model_name); /* names of scratch files do not last */
    struct tms_eval_options o = {.context = 64, .n_chunks = 40, .style = "full", .base = base};
    struct tms_eval_result unlimited = evaluate(model, o);
    assert_false(unlimited.by_layer);
    struct tms_eval_result r = evaluate_in_least(model, o, 0);
    assert_true(r.by_layer || attempt > 1);
    assert_same_figures(r, unlimited);
    assert_same_figures(evaluate_in_least(model, o, 4000000), unlimited); /* two layers at a time */
    o.ram = 1000000000;                                                   /* all of it, read into memory */
    r = evaluate(model, o);
    assert_false(r.by_layer);
    assert_same_figures(r, unlimited);
}

static void models_larger_than_the_memory_give_the_same_figures(void **state)
{
    (void)state;
    char base[1100];
    snprintf(base, sizeof base, "%s", pebble());
    same_under_limits(made(pebble(), "f32"), NULL);
    same_under_limits(base, NULL);
    same_under_limits(made(pebble(), "q4_k_m"), base);
}

static void hidden_states_on_disk_come_back(void **state)
{
    (void)state;
    struct tms_hidden h;
    float *at, back[32];
    assert_ok(tms_hidden_create(&h, 6, 2, 16, true, &err), err);
    for (size_t row = 0; row < 6; row += 2) {
        assert_ok(tms_hidden_take(&h, row, 2, false, &at, &err), err);
        for (size_t i = 0; i < 32; i++) at[i] = (float)(100 * row + i);
        assert_ok(tms_hidden_put(&h, row, 2, &err), err);
    }
    assert_ok(tms_hidden_take(&h, 2, 2, true, &at, &err), err);
    assert_true(at[31] == 231);
    assert_ok(tms_hidden_copy(&h, 5, 1, back, &err), err);
    assert_true(back[0] == 416);
    tms_hidden_free(&h);
    assert_int_equal(setenv("TMPDIR", "/nowhere/at/all", 1), 0);
    assert_int_equal(tms_hidden_create(&h, 6, 2, 16, true, &err), TMS_EIO);
    assert_non_null(strstr(err.message, "TMPDIR"));
    unsetenv("TMPDIR");
}

static void windows_begin_with_bos_where_the_vocabulary_says_so(void **state)
{
    (void)state;
    static const char words[] = "The emperor was the first of the emperor, and the emperor of the West, who had been "
                                "the first of the senate, was the only person of all that he had seen in the year.";
    const char *data = scratch("words.txt"), *model = golden("arch/llama2");
    write_whole(data, words, sizeof words - 1);
    struct tms_tokenizer *t;
    assert_ok(tms_tokenizer_open_path(&t, model, &err), err);
    int32_t *ids = NULL, bos = tms_tokenizer_bos(t);
    size_t n = 0, cap = 0;
    assert_ok(tms_tokenizer_encode(t, words, sizeof words - 1, &(struct tms_tokenize_options){.special = true}, &ids,
                                   &n, &cap, &err),
              err);
    assert_true(n >= 32 && ids[0] == bos);
    ids[16] = bos;
    struct tms_buf list = {0};
    for (size_t i = 0; i < n; i++) tms_buf_printf(&list, i % 2 ? "%d, " : "%d\n", (int)ids[i]);
    write_whole(scratch("words.ids"), list.data, list.n);
    tms_buf_free(&list);
    free(ids);
    tms_tokenizer_close(t);
    struct tms_eval_options o = {.context = 16, .n_chunks = 2, .data = data};
    struct tms_eval_result with = evaluate(model, o);
    assert_true(with.bos);
    o.data = NULL;
    o.ids = scratch("words.ids");
    assert_same_figures(evaluate(model, o), with);
    o = (struct tms_eval_options){.context = 16, .n_chunks = 2, .data = data, .no_bos = true};
    struct tms_eval_result without = evaluate(model, o);
    assert_true(!without.bos && without.perplexity.value != with.perplexity.value);
}

static void half_precision_cache_is_no_longer_weights_alone(void **state)
{
    (void)state;
    struct tms_eval_options o = {.context = 64, .n_chunks = 2};
    struct tms_eval_result f32 = evaluate(pebble(), o);
    o.cache = "f16";
    struct tms_eval_result f16 = evaluate(pebble(), o);
    assert_false(f16.weights_alone);
    assert_true(f16.perplexity.value != f32.perplexity.value);
    assert_true(fabs(f16.perplexity.value / f32.perplexity.value - 1) < 1e-3);
}

/* The same model as its own base shows the cache alone. Bounds of the KL divergence. */
static void quantized_caches_lose_little(void **state)
{
    (void)state;
    static const struct {
        const char *kv;
        uint64_t first, last, bytes; /* of one window of 64: 6 layers, 2 heads, keys and values of 64 */
        double bound;
    } caches[] = {
        {"f32", 0, 0, 6 * 2 * 2 * 256 * 64, 0},    {"q8_0", 0, 0, 6 * 2 * 2 * 68 * 64, 1e-3},
        {"c8", 0, 0, 6 * 2 * 2 * 68 * 64, 1e-3},   {"q5_0", 0, 0, 6 * 2 * 2 * 44 * 64, 3e-3},
        {"q4_0", 0, 0, 6 * 2 * 2 * 36 * 64, 1e-2}, {"q4_0", 4, 20, 6 * 2 * 2 * (36 * 64 + 128 * (4 + 21)), 1e-2}};
    double before = 0;
    for (size_t i = 0; i < sizeof caches / sizeof *caches; i++) {
        struct tms_eval_options o = {.context = 64,
                                     .n_chunks = 4,
                                     .base = pebble(),
                                     .cache = caches[i].kv,
                                     .cache_keep_first = caches[i].first,
                                     .cache_keep_last = caches[i].last};
        struct tms_eval_result r = evaluate(pebble(), o);
        assert_int_equal(r.cache_bytes, caches[i].bytes);
        assert_int_equal(r.weights_alone, i == 0);
        if (!(r.kl.mean.value <= caches[i].bound)) fail_msg("%s: %g", caches[i].kv, r.kl.mean.value);
        if (caches[i].first && !(r.kl.mean.value < before)) fail_msg("tokens at 16 bits do not help");
        before = r.kl.mean.value;
        struct tms_eval_result bounded = evaluate_in_least(pebble(), o, 0);
        assert_true(bounded.kl.mean.value == r.kl.mean.value);
    }
}

static void count_calls(void *ctx, const struct tms_eval_progress *p)
{
    struct tms_eval_progress *last = ctx;
    assert_true(p->share >= last->share && p->share <= 1 && p->n_done >= last->n_done);
    *last = *p;
}

static void progress_ends_with_the_result(void **state)
{
    (void)state;
    struct tms_eval_progress last = {0};
    struct tms_eval_options o = {.context = 64, .n_chunks = 3, .progress = count_calls, .progress_ctx = &last};
    struct tms_eval_result r = evaluate(pebble(), o);
    assert_true(last.n_done == 3 && last.n_total == 3 && last.share == 1);
    assert_true(fabs(exp(last.mean_nll) / r.perplexity.value - 1) < 1e-9);
}

static void bad_input_is_refused_in_one_line(void **state)
{
    (void)state;
    const char *data = text_of_pebble(), *model = pebble(), *few = scratch("few.txt"), *ids = scratch("bad.ids");
    struct tms_eval_options o = {.data = data, .n_threads = 2};
#define TRY(says, ...) refuses(model, (struct tms_eval_options){.n_threads = 2, __VA_ARGS__}, says)
    TRY("context of 7 tokens is too small", .data = data, .context = 7);
    TRY("style 'paper' is unknown", .data = data, .style = "paper");
    TRY("'q8_9' is no type of cache", .data = data, .cache = "q8_9");
    write_whole(few, "Only a few words.", 17);
    TRY("tokens are too few: a window needs 512", .data = few);
    TRY("no such file", .data = "/nowhere.txt");
    write_whole(few, "", 0);
    TRY("0 tokens are too few", .data = few);
    write_whole(few, "One line.\nAnother: \xc3\xa9 \xe9.\n", 26);
    TRY("few.txt: line 2 (from byte 10 on) is no UTF-8", .data = few);
    write_whole(few, "\xff\xfeO\0n\0e\0", 8); /* UTF-16 */
    TRY("line 1 (from byte 0 on) is no UTF-8", .data = few);
    TRY("is not a regular file", .data = pebble());
    write_whole(ids, "1 2\n\x80\x1b[1m", 9); /* what a terminal would obey is not shown */
    TRY("line 2: '??[1m' is no token id", .ids = ids, .context = 8);
    write_whole(ids, "1 2 3 4\n5 6 x", 13);
    TRY("line 2: 'x' is no token id", .ids = ids, .context = 8);
    write_whole(ids, "1 2 3 4 5 6 4096 7", 18);
    TRY("window 1, position 6: token 4096 is not in the vocabulary of 4096", .ids = ids, .context = 8);
    write_whole(ids, "1 2 3 4 5 6 -1 7", 16);
    TRY("'-1 7' is no token id", .ids = ids, .context = 8);
    TRY("tokenizer of the base", .data = data, .base = golden("arch/qwen2_tied"));
    write_whole(ids, "1 2 3 4 5 6 7 8", 15);
    TRY("has a vocabulary of 4096 tokens, the base", .ids = ids, .context = 8, .base = golden("arch/qwen2_tied"));
    TRY("too low; the least for windows of 512 tokens is", .data = data, .ram = 3000000);
    TRY("no such file", .data = data, .base = "/nowhere");
#undef TRY
    refuses(golden("configs/deepseek-r1-distill-qwen-7b.json"), o, "config.json alone");
}

static void logits_that_are_no_numbers_are_named(void **state)
{
    (void)state;
    const char *path = scratch("nan.gguf");
    size_t n;
    struct tms_gguf *gguf;
    uint8_t *bytes = read_whole(made(pebble(), "f32"), &n);
    assert_ok(tms_gguf_open(&gguf, made(pebble(), "f32"), &err), err);
    static const float nan_value = NAN;
    for (size_t i = 0; i < gguf->n_tensors; i++) /* one weight of the embedding: token 300, column 5 */
        if (strcmp(gguf->tensors[i].name, "token_embd.weight") == 0)
            memcpy(bytes + gguf->tensors[i].offset + (300 * 256 + 5) * sizeof(float), &nan_value, sizeof nan_value);
    tms_gguf_close(gguf);
    write_whole(path, bytes, n);
    free(bytes);
    struct tms_eval_options o = {.data = text_of_pebble(), .n_threads = 2, .context = 32, .n_chunks = 2};
    refuses(path, o, "nan.gguf: window 1, position 16: the logit of token 300 is");
    o.base = path;
    refuses(pebble(), o, "nan.gguf: window 1, position 16: the logit of token 300 is");
}

/* ---- tasks ---- */

static const char questions[] =
    "{\"question\": \"The emperor of\", \"choices\": [\"the East\", \"xqz vvv qqq\"], \"answer\": 0}\n"
    "\n"
    "{\"question\": \"He was the\", \"A\": \"first\", \"B\": \"zzzzz\", \"C\": \"ttt qq\", \"answer\": \"A\"}\n"
    "{\"question\": \"It was\", \"choices\": [\"jjjj kkkk\", \"not the\", \"the\"], \"answer\": \"b\"}\n";

static void tasks_are_scored_by_likelihood(void **state)
{
    (void)state;
    const char *path = scratch("tasks.jsonl");
    struct tms_tasks_result *r;
    struct tms_eval_options o = {.n_threads = 2, .base = pebble()};
    write_whole(path, questions, sizeof questions - 1);
    assert_ok(tms_evaluate_tasks(made(pebble(), "q4_k_m"), path, &o, &r, &err), err);
    assert_int_equal(r->n_questions, 3);
    assert_int_equal(r->answers[1].line, 3);
    assert_int_equal(r->answers[1].n_choices, 3);
    assert_int_equal(r->answers[2].right, 1);
    assert_true(r->answers[0].chosen == 0 && r->answers[1].chosen == 0);
    assert_true(r->answers[0].log_p[0] > r->answers[0].log_p[1] && r->answers[0].log_p[0] < 0);
    assert_true(r->has_base && r->accuracy.value >= 2.0 / 3 - 1e-9);
    tms_tasks_free(r);
}

/* The sum over a choice's tokens, from the perplexity of the same tokens: the last half of a window. */
static void a_choice_scores_what_its_tokens_score_in_a_window(void **state)
{
    (void)state;
    static const char task[] = "{\"question\": \"The emperor of\", \"choices\": [\"the East and the West\", \"a\"], "
                               "\"answer\": 0}\n";
    static const char text[] = "Question: The emperor of\nAnswer: the East and the West";
    struct tms_tokenizer *t;
    assert_ok(tms_tokenizer_open_path(&t, pebble(), &err), err);
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, n_given = 0;
    assert_ok(tms_tokenizer_encode(t, text, 32, NULL, &ids, &n_given, &cap, &err), err);
    free(ids);
    ids = NULL;
    cap = 0;
    assert_ok(tms_tokenizer_encode(t, text, sizeof text - 1, NULL, &ids, &n, &cap, &err), err);
    tms_tokenizer_close(t);
    struct tms_buf list = {0};
    for (size_t i = 0; i < n; i++) tms_buf_printf(&list, "%d ", (int)ids[i]);
    free(ids);
    write_whole(scratch("c.ids"), list.data, list.n);
    tms_buf_free(&list);
    write_whole(scratch("one.jsonl"), task, sizeof task - 1);
    struct tms_eval_result whole =
        evaluate(pebble(), (struct tms_eval_options){.ids = scratch("c.ids"), .style = "full", .context = n});
    struct tms_eval_result given = evaluate(
        pebble(),
        (struct tms_eval_options){.ids = scratch("c.ids"), .style = "full", .context = n_given, .n_chunks = 1});
    double expected = -(whole.log_perplexity.value * (double)whole.n_predicted -
                        given.log_perplexity.value * (double)given.n_predicted);
    struct tms_tasks_result *r;
    assert_ok(tms_evaluate_tasks(pebble(), scratch("one.jsonl"), &(struct tms_eval_options){.n_threads = 2}, &r, &err),
              err);
    assert_true(fabs(r->answers[0].log_p[0] - expected) < 1e-9);
    tms_tasks_free(r);
}

static void bad_lines_of_tasks_are_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}", "line 2: \"answer\" is not one of the 2"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"]}", "line 2: \"answer\""},
        {"{\"question\": \"a\", \"choices\": [\"b\", 3], \"answer\": 0}", "line 2: choice 1 is no text"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"\"], \"answer\": 0}", "line 2: choice 1 is no text"},
        {"{\"question\": \"a\", \"choices\": [\"b\"], \"answer\": 0}", "line 2: at least two"},
        {"{\"question\": \"a\", \"A\": \"b\", \"C\": \"c\", \"answer\": 0}", "line 2: at least two"},
        {"{\"choices\": [\"b\", \"c\"], \"answer\": 0}", "line 2: \"question\" is missing"},
        {"{\"question\": 5, \"choices\": [\"b\", \"c\"], \"answer\": 0}", "line 2: \"question\""},
        {"[1]", "line 2: a JSON object is expected"},
        {"{\"question\": ", "line 2: "},
        {"\xff\xfe", "line 2: "},
    };
    struct tms_eval_options o = {.n_threads = 1};
    const char *path = scratch("bad.jsonl");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[300];
        int n = snprintf(text, sizeof text, "%.*s%s\n", (int)(strchr(questions, '\n') + 1 - questions), questions,
                         cases[i][0]);
        write_whole(path, text, (size_t)n);
        struct tms_tasks_result *r = NULL;
        tms_status status = tms_evaluate_tasks(pebble(), path, &o, &r, &err);
        if (status != TMS_EINPUT || !strstr(err.message, cases[i][1])) fail_msg("case %zu: %s", i, err.message);
        assert_null(r);
    }
    struct tms_tasks_result *r = NULL;
    write_whole(path, "\n \n", 3);
    assert_int_equal(tms_evaluate_tasks(pebble(), path, &o, &r, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "no questions"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_and_log_are_right_to_the_last_digits),
        cmocka_unit_test(rows_score_as_long_double_says_at_all_levels),
        cmocka_unit_test(equal_rows_diverge_by_nothing),
        cmocka_unit_test(rows_with_huge_differences_stay_finite),
        cmocka_unit_test(rows_that_are_no_numbers_are_refused),
        cmocka_unit_test(means_errors_and_percentiles_are_those_of_the_textbook),
        cmocka_unit_test(one_prediction_has_no_error),
        cmocka_unit_test(figures_of_pebble_are_those_of_transformers),
        cmocka_unit_test(divergence_of_q4_k_m_is_that_of_transformers),
        cmocka_unit_test(divergences_of_plain_types_are_those_of_transformers),
        cmocka_unit_test(model_compared_with_itself_has_lost_nothing),
        cmocka_unit_test(figures_are_the_same_for_threads_and_levels),
        cmocka_unit_test(windows_of_their_own_give_the_figures_of_several_at_once),
        cmocka_unit_test(models_larger_than_the_memory_give_the_same_figures),
        cmocka_unit_test(hidden_states_on_disk_come_back),
        cmocka_unit_test(windows_begin_with_bos_where_the_vocabulary_says_so),
        cmocka_unit_test(half_precision_cache_is_no_longer_weights_alone),
        cmocka_unit_test(quantized_caches_lose_little),
        cmocka_unit_test(progress_ends_with_the_result),
        cmocka_unit_test(bad_input_is_refused_in_one_line),
        cmocka_unit_test(logits_that_are_no_numbers_are_named),
        cmocka_unit_test(tasks_are_scored_by_likelihood),
        cmocka_unit_test(a_choice_scores_what_its_tokens_score_in_a_window),
        cmocka_unit_test(bad_lines_of_tasks_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

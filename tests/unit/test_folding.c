/* Scales between a layer's operations (AWQ, SmoothQuant): the model stays what it was, and rounds better. */
#include "support.h"

#include <tamis/tamis.h>

#include "base/file.h"
#include "method/awq.h"
#include "method/block_feedback.h"
#include "target/fold.h"
#include "target/fold_search.h"

static struct tms_error err;

/* Slow builds look at less. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { FAST = 1, TEXT = 24000, WINDOWS = 4 };
#else
enum { FAST = 0, TEXT = 3000, WINDOWS = 1 };
#endif

static const char *some_text(const char *name, size_t n)
{
    static char path[1024], from[1024];
    size_t all;
    snprintf(from, sizeof from, "%s/%s", pebble(), name);
    uint8_t *text = read_whole(from, &all);
    snprintf(path, sizeof path, "%s", scratch(name));
    write_whole(path, text, n < all ? n : all);
    free(text);
    return path;
}

static void quantize(const char *model, const char *type, const char *out, const struct tms_quantize_options *how)
{
    struct tms_quantize_options o = *how;
    struct tms_result *results;
    o.types = &type;
    o.n_types = 1;
    o.force = true;
    assert_ok(tms_quantize(model, out, &o, &results, NULL, NULL, &err), err);
    assert_true(results[0].verified);
    tms_results_free(results, 1);
}

static double divergence(const char *model, const char *base, size_t context, size_t n_windows)
{
    char text[1024];
    snprintf(text, sizeof text, "%s/eval.txt", pebble());
    const struct tms_eval_options o = {.data = text, .base = base, .context = context, .n_chunks = n_windows};
    struct tms_eval_result r;
    assert_ok(tms_evaluate(model, &o, &r, &err), err);
    return r.kl.mean.value;
}

/* ---- the fold of a tensor ---- */

static void folds_divide_rows_and_multiply_columns_of_each_part(void **state)
{
    (void)state;
    float columns[] = {1, 2, 3, 10, 20, 30}, rows[] = {1, 2, 4, 8}, x[12], all[12], some[5];
    const struct tms_fold fold = {.n_rows = 4, .n_cols = 3, .part_rows = 2, .columns = columns, .rows = rows};
    for (size_t i = 0; i < 12; i++) x[i] = (float)(i + 1);
    tms_fold_apply(&fold, 0, 12, x, all);
    for (size_t r = 0; r < 4; r++)
        for (size_t c = 0; c < 3; c++) {
            const float want = x[r * 3 + c] * columns[r / 2 * 3 + c] / rows[r];
            if (all[r * 3 + c] != want) fail_msg("[%zu][%zu]: %g, not %g", r, c, (double)all[r * 3 + c], (double)want);
        }
    tms_fold_apply(&fold, 4, 5, x + 4, some); /* from the middle of a row on */
    assert_same_bytes(some, all + 4, sizeof some, "a range");
}

static void folds_of_norms_know_that_one_is_missing(void **state)
{
    (void)state;
    float ones[] = {1}, rows[] = {2, 4}, x[] = {0.5F, 3}, out[2];
    const struct tms_fold fold = {.n_rows = 2, .n_cols = 1, .part_rows = 2, .shift = 1, .columns = ones, .rows = rows};
    tms_fold_apply(&fold, 0, 2, x, out);
    assert_true(out[0] == -0.25F && out[1] == 0);
}

/* ---- the search ---- */

enum { COLS = 256, N_ROWS = 64, TOKENS = 600 };

/* Inputs of which every 16th channel is large. */
static struct tms_hessian *outliers(struct tms_pool *pool, float *mean)
{
    struct tms_hessian *hessian;
    uint64_t seed = 5;
    float *x = calloc(TOKENS * COLS, sizeof *x);
    for (size_t i = 0; i < TOKENS; i++)
        for (size_t c = 0; c < COLS; c++) {
            x[i * COLS + c] = random_normal(&seed) * (c % 16 == 3 ? 12 : 1) + (c ? x[i * COLS + c - 1] / 4 : 0);
            mean[c] += (x[i * COLS + c] < 0 ? -x[i * COLS + c] : x[i * COLS + c]) / TOKENS;
        }
    assert_ok(tms_hessian_create(&hessian, COLS, &err), err);
    assert_ok(tms_hessian_add(hessian, x, COLS, TOKENS, pool, &err), err);
    assert_ok(tms_hessian_finish(hessian, pool, &err), err);
    free(x);
    return hessian;
}

/* The error that feedback leaves when columns have these scales. */
static double error_with(const float *w, const float *scales, const struct tms_hessian *hessian, enum tms_type type,
                         struct tms_pool *pool)
{
    float *scaled = malloc(N_ROWS * COLS * sizeof *scaled);
    uint8_t *blocks = malloc(N_ROWS * COLS * 4);
    struct tms_hessian *own;
    struct tms_feedback_factor factor;
    double error;
    float *entries = malloc(COLS * COLS * sizeof *entries);
    for (size_t i = 0; i < COLS; i++) memcpy(entries + i * COLS, hessian->h + i * hessian->ld, COLS * sizeof *entries);
    assert_ok(tms_hessian_from(&own, entries, COLS, &err), err);
    tms_awq_scale_hessian(own, scales);
    memcpy(scaled, w, N_ROWS * COLS * sizeof *w);
    tms_awq_scale_columns(scaled, N_ROWS, COLS, scales);
    assert_ok(tms_feedback_factor_create(&factor, own, 0.02, pool, &err), err);
    const struct tms_block_feedback_options o = {0};
    assert_ok(tms_block_feedback(blocks, type, scaled, N_ROWS, &factor, &o, NULL, pool, &err), err);
    tms_codec(type)->decode(blocks, scaled, N_ROWS * COLS);
    for (size_t i = 0; i < N_ROWS * COLS; i++) scaled[i] /= scales[i % COLS];
    assert_ok(tms_hessian_error(hessian, w, scaled, N_ROWS, &error, pool, &err), err);
    tms_feedback_factor_free(&factor);
    tms_hessian_free(own);
    free(scaled), free(blocks), free(entries);
    return error;
}

static void scales_that_are_chosen_lower_the_error_of_feedback(void **state)
{
    (void)state;
    struct tms_pool *pool;
    struct tms_feedback_factor factor;
    float *w = malloc(N_ROWS * COLS * sizeof *w), *candidates = malloc(11 * COLS * sizeof *candidates);
    float mean[COLS] = {0}, of_weights[COLS], cost[COLS];
    uint64_t seed = 9;
    static const enum tms_type types[] = {TMS_Q2_K, TMS_Q4_0, TMS_Q4_K, TMS_IQ2_XS};
    assert_ok(tms_pool_create(&pool, 2, &err), err);
    struct tms_hessian *hessian = outliers(pool, mean);
    for (size_t i = 0; i < N_ROWS * COLS; i++) w[i] = random_normal(&seed);
    const struct tms_awq_layer layer = {w, N_ROWS};
    tms_awq_weight_mean(&layer, 1, COLS, 32, of_weights);
    for (size_t c = 0; c < COLS; c++) candidates[c] = 1;
    for (size_t k = 1; k < 11; k++)
        tms_awq_scales_at((double)(k - 1) / 10, mean, of_weights, false, COLS, candidates + k * COLS);
    assert_ok(tms_feedback_factor_create(&factor, hessian, 0.02, pool, &err), err);
    for (size_t c = 0; c < COLS; c++) cost[c] = 1 / (factor.u[c * factor.ld + c] * factor.u[c * factor.ld + c]);
    for (size_t i = 0; i < 4; i++) {
        const struct tms_route route = {.kind = TMS_ROUTE_CODEC, .codec = tms_codec(types[i])};
        const struct tms_fold_reader reader = {
            .route = &route, .hessian = hessian, .cost = cost, .rows = w, .n_rows = N_ROWS, .n_cols = COLS, .share = 1};
        size_t best = 99;
        assert_ok(tms_fold_search(&best, &reader, 1, candidates, 11, COLS, NULL, pool, &err), err);
        assert_true(best > 0 && best < 11);
        const double without = error_with(w, candidates, hessian, types[i], pool);
        const double with = error_with(w, candidates + best * COLS, hessian, types[i], pool);
        /* Q2_K's own search serves such columns nearly as well. */
        if (!(with < (types[i] == TMS_Q2_K ? 1.01 : 0.95) * without))
            fail_msg("%s: %g with scales %zu, %g without", tms_codec(types[i])->name, with, best, without);
    }
    tms_feedback_factor_free(&factor);
    tms_hessian_free(hessian);
    tms_pool_free(pool);
    free(w), free(candidates);
}

/* ---- whole models ---- */

/* 8 bits round so little that a scale that stands in one place only would be seen at once. Norms that miss 1, shared
 * heads, biases, fused matrices, experts with their routers and switches, latent attention. */
static void folded_models_compute_what_they_did(void **state)
{
    (void)state;
    static const char *const models[][2] = {
        {"arch/llama_bias", "q8_0"}, {"arch/mixtral", "q8_0"},       {"arch/qwen2_moe", "q8_0"},
        {"arch/gemma2", "q8_0"},     {"arch/phi3", "q8_0"},          {"arch/deepseek_v2", "q8_0"},
        {"arch/qwen3_moe", "q8_0"},  {"arch/gemma3_text", "w8a8"},   {"arch/mixtral", "w8a16:g32"},
        {"arch/phi3", "gptq:8:g32"}, {"arch/qwen2_moe", "w8a16:g32"}};
    const struct tms_quantize_options plain = {.n_threads = 2};
    const struct tms_quantize_options smooth = {
        .method = "smooth", .data = some_text("calib.txt", 12000), .sample_length = 64, .n_threads = 2};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const bool gguf = models[i][1][0] == 'q';
        const char *a = scratch(gguf ? "plain.gguf" : "plain"), *b = scratch(gguf ? "smooth.gguf" : "smooth");
        quantize(golden(models[i][0]), models[i][1], a, &plain);
        quantize(golden(models[i][0]), models[i][1], b, &smooth);
        const double of_plain = divergence(a, golden(models[i][0]), 64, FAST ? 100 : 8);
        const double of_smooth = divergence(b, golden(models[i][0]), 64, FAST ? 100 : 8);
        if (!(of_smooth < (FAST ? 1.5 : 4) * of_plain + 1e-6))
            fail_msg("%s as %s: KL divergence %g, without scales %g", models[i][0], models[i][1], of_smooth, of_plain);
    }
}

static void folded_files_can_be_folded_again(void **state)
{
    (void)state;
    const struct tms_quantize_options smooth = {
        .method = "smooth", .data = some_text("calib.txt", 12000), .sample_length = 64, .n_threads = 2};
    const struct tms_quantize_options plain = {.n_threads = 2};
    const char *const models[] = {"arch/gemma2", "arch/mixtral"};
    for (size_t i = 0; i < 2; i++) {
        quantize(golden(models[i]), "f32", scratch("whole.gguf"), &plain);
        quantize(scratch("whole.gguf"), "q8_0", scratch("twice.gguf"), &smooth);
        quantize(scratch("whole.gguf"), "w8a16:g32", scratch("folder"), &smooth);
        const double file = divergence(scratch("twice.gguf"), golden(models[i]), 64, 4);
        const double folder = divergence(scratch("folder"), golden(models[i]), 64, 4);
        if (!(file < 0.02 && folder < 0.02)) fail_msg("%s: KL divergences %g and %g", models[i], file, folder);
    }
}

static void scales_lose_less_than_none(void **state)
{
    (void)state;
    if (!FAST) skip();
    static const char *const cases[][3] = {{"gptq:3:g128", "awq", "awq+gptq"}, {"awq:g128", "rtn", "awq"}};
    for (size_t i = 0; i < 2; i++) {
        const char *out = scratch("scaled");
        double of[2];
        for (int k = 0; k < 2; k++) {
            struct tms_quantize_options o = {.method = cases[i][1 + k], .sample_length = 256, .n_threads = 2};
            if (strcmp(o.method, "rtn") != 0) o.data = some_text("calib.txt", TEXT);
            quantize(pebble(), cases[i][0], out, &o);
            of[k] = divergence(out, pebble(), 256, WINDOWS);
        }
        print_message("%s: KL divergence %.5f by %s, %.5f by %s\n", cases[i][0], of[1], cases[i][2], of[0],
                      cases[i][1]);
        if (!(of[1] < of[0])) fail_msg("%s: %s does not lose less than %s", cases[i][0], cases[i][2], cases[i][1]);
    }
}

static uint64_t stop_at;

static void stop_while_calibrating(void *ctx, const struct tms_progress *p)
{
    (void)ctx;
    if (strcmp(p->what, "calibrating") == 0 && p->done >= stop_at) tms_cancel();
}

static void stopped_runs_go_on_with_their_scales(void **state)
{
    (void)state;
    struct tms_quantize_options o = {.method = "awq+gptq",
                                     .data = some_text("calib.txt", FAST ? 12000 : 3000),
                                     .sample_length = 128,
                                     .n_threads = 1};
    const char *const types[] = {"q4_k_m", "w4a16"};
    for (size_t i = 0; i < (FAST ? 2 : 1); i++) {
        char whole[1024], parts[1024];
        snprintf(whole, sizeof whole, "%s", scratch(i == 0 ? "whole.gguf" : "whole"));
        snprintf(parts, sizeof parts, "%s", scratch(i == 0 ? "parts.gguf" : "parts"));
        o.progress = NULL;
        quantize(pebble(), types[i], whole, &o);
        o.n_threads = 3;
        o.progress = stop_while_calibrating;
        o.types = &types[i];
        o.n_types = 1;
        for (stop_at = 1500000; stop_at < 6000000; stop_at += 2000000) {
            struct tms_result *results;
            struct tms_error stopped;
            tms_status status = tms_quantize(pebble(), parts, &o, &results, NULL, NULL, &stopped);
            tms_resume();
            assert_int_equal(status, TMS_ECANCELLED);
            assert_false(tms_path_exists(parts));
        }
        o.progress = NULL;
        quantize(pebble(), types[i], parts, &o);
        if (i > 0) strcat(whole, "/model.safetensors"), strcat(parts, "/model.safetensors");
        assert_same_files(whole, parts);
    }
}

static void refuses(const char *type, struct tms_quantize_options o, tms_status want, const char *fragment)
{
    struct tms_result *results = NULL;
    o.types = &type;
    o.n_types = 1;
    tms_status status = tms_quantize(golden("arch/qwen3"), scratch("refused"), &o, &results, NULL, NULL, &err);
    if (status != want || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("%s: status %d, '%s'; wanted '%s'", type, (int)status, status ? err.message : "", fragment);
    assert_false(tms_path_exists(scratch("refused")));
}

/* Real zero points where the format has them; integers do not get worse. The same for any threads. */
static void hqq_loses_less_than_rounding(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        double most;
    } cases[] = {{"q4_1", 0.95}, {"q5_1", 0.97}, {"awq:g128", 1.02}, {"gptq:2:g32:asym", 1.02}};
    for (size_t i = 0; i < 4; i++) {
        const bool gguf = cases[i].type[0] == 'q';
        const char *a = scratch(gguf ? "plain.gguf" : "plain"), *b = scratch(gguf ? "hqq.gguf" : "hqq");
        char first[1100], second[1100];
        struct tms_quantize_options o = {.n_threads = 2};
        quantize(pebble(), cases[i].type, a, &o);
        const double plain = divergence(a, pebble(), 256, WINDOWS);
        o.method = "hqq";
        quantize(pebble(), cases[i].type, b, &o);
        const double hqq = divergence(b, pebble(), 256, WINDOWS);
        if (FAST && !(hqq < cases[i].most * plain)) fail_msg("%s: %g, rounded %g", cases[i].type, hqq, plain);
        o.n_threads = 1;
        quantize(pebble(), cases[i].type, a, &o);
        snprintf(first, sizeof first, "%s%s", a, gguf ? "" : "/model.safetensors");
        snprintf(second, sizeof second, "%s%s", b, gguf ? "" : "/model.safetensors");
        assert_same_files(first, second);
    }
}

/* Rows that are turned, stacks that are taken apart. */
static void hqq_knows_the_ways_of_tensors(void **state)
{
    (void)state;
    const struct tms_quantize_options plain = {.n_threads = 1}, hqq = {.method = "hqq", .n_threads = 1};
    const char *const models[] = {"arch/llama31", "arch/mixtral"};
    for (size_t i = 0; i < 2; i++) {
        quantize(golden(models[i]), "f32", scratch("whole.gguf"), &plain);
        quantize(golden(models[i]), "q5_1", scratch("hqq.gguf"), &hqq);
        quantize(scratch("whole.gguf"), "w8a16:g32:asym", scratch("hqq"), &hqq);
        quantize(golden(models[i]), "q5_1", scratch("plain.gguf"), &plain);
        quantize(scratch("whole.gguf"), "w8a16:g32:asym", scratch("plain"), &plain);
        const char *const pairs[][2] = {{"hqq.gguf", "plain.gguf"}, {"hqq", "plain"}};
        for (size_t k = 0; k < 2; k++) {
            const double a = divergence(scratch(pairs[k][0]), golden(models[i]), 64, 8);
            const double b = divergence(scratch(pairs[k][1]), golden(models[i]), 64, 8);
            if (!(a < 2.5 * b + 1e-5)) fail_msg("%s as %s: %g, rounded %g", models[i], pairs[k][0], a, b);
        }
    }
}

static void methods_are_refused_where_they_do_not_fit(void **state)
{
    (void)state;
    struct tms_quantize_options awq = {.method = "awq"}, smooth = {.method = "smooth+gptq"};
    refuses("q4_0", (struct tms_quantize_options){.method = "gptq+awq"}, TMS_EUSAGE, "is unknown");
    refuses("q4_0", awq, TMS_EUSAGE, "method awq needs a text");
    static const char *const without[] = {"q4_k_m", "gptq:4:g32", "w4a16:g32", "nf4", "fp8"};
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        refuses(without[i], (struct tms_quantize_options){.method = "hqq"}, TMS_EUSAGE, "zero points");
    refuses("q4_1", (struct tms_quantize_options){.method = "hqq", .data = some_text("calib.txt", 3000)}, TMS_EUSAGE,
            "a text is for");
    awq.data = smooth.data = some_text("calib.txt", 3000);
    static const char *const types[] = {"nf4", "int8", "fp8", "nvfp4a16", "mxfp4", "hf:bf16"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        refuses(types[i], awq, TMS_EUSAGE, "method awq is for GGUF types and grids of integers");
        refuses(types[i], smooth, TMS_EUSAGE, "method smooth+gptq is for");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folds_divide_rows_and_multiply_columns_of_each_part),
        cmocka_unit_test(folds_of_norms_know_that_one_is_missing),
        cmocka_unit_test(scales_that_are_chosen_lower_the_error_of_feedback),
        cmocka_unit_test(folded_models_compute_what_they_did),
        cmocka_unit_test(folded_files_can_be_folded_again),
        cmocka_unit_test(scales_lose_less_than_none),
        cmocka_unit_test(stopped_runs_go_on_with_their_scales),
        cmocka_unit_test(hqq_loses_less_than_rounding),
        cmocka_unit_test(hqq_knows_the_ways_of_tensors),
        cmocka_unit_test(methods_are_refused_where_they_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

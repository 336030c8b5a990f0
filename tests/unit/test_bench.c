/* Speed: what tms_session_bench counts, and what it refuses. Times themselves are not tested. */
#include "support.h"

#include <math.h>
#include <tamis/tamis.h>

#include "base/cpu.h"
#include "engine/machine.h"

static struct tms_error err;

static struct tms_session *session(uint64_t context)
{
    struct tms_session *s = NULL;
    const struct tms_session_options o = {.n_threads = 2, .context = context};
    assert_ok(tms_session_open(&s, pebble(), &o, &err), err);
    return s;
}

static void bench_figures_belong_together(void **state)
{
    (void)state;
    struct tms_session *s = session(64);
    struct tms_session_info info;
    struct tms_bench_result r;
    const struct tms_bench_options o = {.n_prompt = 40, .n_text = 8, .depth = 20, .n_repetitions = 3};
    tms_session_describe(s, &info);
    assert_ok(tms_session_bench(s, &o, &r, &err), err);
    assert_int_equal(r.n_threads, 2);
    assert_int_equal(r.weight_bytes, info.weight_bytes);
    assert_int_equal(r.token_bytes, info.weight_bytes);
    assert_int_equal(r.cache_bytes, info.cache_bytes / 64 * 60);
    assert_true(r.prompt.mean > 0 && r.prompt.deviation >= 0 && r.text.mean > 0 && r.text.deviation >= 0);
    assert_true(r.first_token.mean > 0 && r.peak_operations > 0 && r.peak_bytes > 0);
    assert_string_equal(r.cpu, tms_cpu_name(tms_cpu_level()));
    /* weights of two bytes, each read once and used in one multiply-add: operations are a little more, for attention */
    double per_weight = r.text_operations / r.text_bytes;
    assert_true(per_weight > 0.99 && per_weight < 1.3);
    /* mean(tokens / seconds) and tokens / mean(seconds) differ only as far as the repetitions do */
    double ratio = r.text.mean * (double)r.weight_bytes / r.text_bytes;
    assert_true(ratio >= 0.999999 && ratio < 10);
    tms_session_close(s);
}

static void of_experts_only_those_that_a_token_gets_count(void **state)
{
    (void)state;
    struct tms_session *s = NULL;
    struct tms_bench_result r;
    const struct tms_session_options options = {.n_threads = 2, .context = 64};
    assert_ok(tms_session_open(&s, golden("arch/qwen3_moe"), &options, &err), err);
    assert_ok(tms_session_bench(s, &(struct tms_bench_options){.n_text = 2, .n_repetitions = 1}, &r, &err), err);
    assert_true(r.token_bytes < r.weight_bytes && r.token_bytes > r.weight_bytes / 8);
    tms_session_close(s);
}

static void bench_measures_only_what_is_asked_for(void **state)
{
    (void)state;
    struct tms_session *s = session(64);
    struct tms_bench_result r;
    assert_ok(tms_session_bench(s, &(struct tms_bench_options){.n_text = 2, .n_repetitions = 1}, &r, &err), err);
    assert_true(r.prompt.mean == 0 && r.first_token.mean == 0 && r.text.mean > 0 && r.text.deviation == 0);
    assert_ok(tms_session_bench(s, &(struct tms_bench_options){.n_prompt = 2, .n_repetitions = 1}, &r, &err), err);
    assert_true(r.prompt.mean > 0 && r.text.mean == 0 && r.text_bytes == 0);
    tms_session_close(s);
}

static void bench_refuses_nothing_and_too_much(void **state)
{
    (void)state;
    struct tms_session *s = session(64);
    struct tms_bench_result r = {.n_threads = 77};
    assert_int_equal(tms_session_bench(s, &(struct tms_bench_options){.n_prompt = 8}, &r, &err), TMS_EUSAGE);
    assert_int_equal(tms_session_bench(s, &(struct tms_bench_options){.n_repetitions = 8}, &r, &err), TMS_EUSAGE);
    const struct tms_bench_options over[] = {
        {.n_prompt = 65, .n_repetitions = 1},
        {.n_text = 2, .depth = 63, .n_repetitions = 1},
        {.n_text = 2, .depth = SIZE_MAX, .n_repetitions = 1},
        {.n_text = SIZE_MAX, .depth = 1, .n_repetitions = 1},
    };
    for (size_t i = 0; i < sizeof over / sizeof *over; i++) {
        assert_int_equal(tms_session_bench(s, &over[i], &r, &err), TMS_EINPUT);
        assert_non_null(strstr(err.message, "do not fit into a context of 64 positions"));
    }
    assert_int_equal(r.n_threads, 77);
    tms_session_close(s);
}

static void a_session_generates_after_bench_as_before(void **state)
{
    (void)state;
    struct tms_session *s = session(0);
    const struct tms_prompt prompt = {.text = "The emperor", .text_bytes = 11};
    const struct tms_generate_options o = {.max_tokens = 12};
    struct tms_bench_result r;
    struct tms_generation before, after;
    assert_ok(tms_session_generate(s, &prompt, &o, &before, &err), err);
    assert_ok(
        tms_session_bench(s, &(struct tms_bench_options){.n_prompt = 9, .n_text = 3, .n_repetitions = 1}, &r, &err),
        err);
    assert_ok(tms_session_generate(s, &prompt, &o, &after, &err), err);
    assert_string_equal(before.text, after.text);
    tms_generation_free(&before);
    tms_generation_free(&after);
    tms_session_close(s);
}

static void machine_is_measured_with_every_variant(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    enum tms_cpu was = tms_cpu_level();
    struct tms_pool *pool = NULL;
    assert_ok(tms_pool_create(&pool, 1, &err), err);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        double operations = 0, bytes = 0;
        uint64_t size = 0;
        tms_cpu_force(levels[i]);
        assert_ok(tms_measure_arithmetic(pool, &operations, &err), err);
        assert_ok(tms_measure_reading(pool, &bytes, &size, &err), err);
        assert_true(operations > 1e6 && bytes > 1e6 && size >= 1 << 20);
    }
    tms_cpu_force(was);
    tms_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bench_figures_belong_together),
        cmocka_unit_test(of_experts_only_those_that_a_token_gets_count),
        cmocka_unit_test(bench_measures_only_what_is_asked_for),
        cmocka_unit_test(bench_refuses_nothing_and_too_much),
        cmocka_unit_test(a_session_generates_after_bench_as_before),
        cmocka_unit_test(machine_is_measured_with_every_variant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

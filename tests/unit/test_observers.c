/* Observers: values computed by hand, and the run-time rules of compressed-tensors. */
#include "support.h"

#include <math.h>

#include "base/numbers.h"
#include "file/safetensors.h"
#include "method/observers.h"

static struct tms_error err;

static void range_holds_all_that_was_seen(void **state)
{
    (void)state;
    struct tms_range range = {0}, other = {0};
    assert_true(tms_range_add(&range, (const float[]){3, 5}, 2));
    assert_true(range.low == 3 && range.high == 5);
    assert_true(tms_range_add(&range, (const float[]){4, -1, 4}, 3));
    assert_true(range.low == -1 && range.high == 5 && range.n == 5);
    assert_false(tms_range_add(&range, (const float[]){100, NAN}, 2));
    assert_true(range.high == 5 && range.n == 5);
    tms_range_merge(&other, &range);
    assert_true(other.low == -1 && other.n == 5);
}

static void moving_average_steps_once_per_batch(void **state)
{
    (void)state;
    struct tms_range range = {0};
    assert_true(tms_range_average(&range, (const float[]){-2, 8}, 2, 0.25f));
    assert_true(range.low == -2 && range.high == 8);
    assert_true(tms_range_average(&range, (const float[]){-4, 4, 0}, 3, 0.25f));
    assert_true(range.low == -2.5f && range.high == 7);
    assert_true(tms_range_average(&range, (const float[]){1.5f, 3}, 2, 0.25f));
    assert_true(range.low == -1.5f && range.high == 6);
}

static float *normals(size_t n, float scale, uint64_t seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = scale * random_normal(&seed);
    return x;
}

static void histogram_counts_the_same_in_any_order_and_in_parts(void **state)
{
    (void)state;
    enum { N = 5000 };
    float *x = normals(N, 1, 3);
    x[17] = 1000, x[4000] = -0.001f, x[1] = 0, x[2] = -0.0f;
    static struct tms_histogram forward, backward, parts, part;
    assert_true(tms_histogram_add(&forward, x, N));
    for (size_t i = N; i-- > 0;) assert_true(tms_histogram_add(&backward, x + i, 1));
    assert_true(tms_histogram_add(&parts, x, 10));
    assert_true(tms_histogram_add(&part, x + 10, N - 10));
    tms_histogram_merge(&parts, &part);
    assert_same_bytes(&backward, &forward, sizeof forward, "histogram");
    assert_same_bytes(&parts, &forward, sizeof forward, "histogram");
    assert_true(forward.reach == 1024);
    assert_int_equal(forward.counts[2048 + 2000], 1);
    assert_false(tms_histogram_add(&forward, (const float[]){INFINITY}, 1));
    free(x);
}

static void percentile_cuts_off_the_largest_magnitudes(void **state)
{
    (void)state;
    static struct tms_histogram histogram;
    float x[1000];
    for (int i = 0; i < 1000; i++) x[i] = (i % 2 ? 1.0f : -1.0f) * (float)(i + 1) / 1000;
    x[999] = 50; /* reach 64: bins of 1 / 32 */
    assert_true(tms_histogram_add(&histogram, x, 1000));
    assert_true(tms_histogram_percentile(&histogram, 1) == 50);
    assert_true(tms_histogram_percentile(&histogram, 0.999) == 1);
    assert_true(tms_histogram_percentile(&histogram, 0.499) == 0.5f);
}

static void entropy_keeps_an_even_spread_and_cuts_an_outlier(void **state)
{
    (void)state;
    static struct tms_histogram even, outlier, few;
    enum { N = 200000 };
    float *x = malloc(N * sizeof *x);
    for (int i = 0; i < N; i++) x[i] = (float)(i - N / 2) / (N / 2);
    assert_true(tms_histogram_add(&even, x, N));
    assert_true(tms_histogram_entropy(&even, 128) > 0.95f);
    for (int i = 0; i < N; i++) x[i] = x[i] * x[i] * x[i];
    x[0] = 30;
    assert_true(tms_histogram_add(&outlier, x, N));
    const float threshold = tms_histogram_entropy(&outlier, 128);
    assert_true(threshold > 0.5f && threshold < 4);
    assert_true(tms_histogram_add(&few, (const float[]){0, 0.25f}, 2));
    assert_true(tms_histogram_entropy(&few, 2048) == 0.25f);
    free(x);
}

/* Mean squared error of values on a grid with both ends codes. */
static double measured(const float *x, size_t n, struct tms_range range, double top)
{
    double sum = 0, step = ((double)range.high - (double)range.low) / top;
    for (size_t i = 0; i < n; i++) {
        double k = fmin(fmax(rint(((double)x[i] - (double)range.low) / step), 0), top);
        double d = (double)x[i] - ((double)range.low + k * step);
        sum += d * d;
    }
    return sum / (double)n;
}

static void least_squares_beats_every_other_threshold(void **state)
{
    (void)state;
    enum { N = 50000 };
    float *x = normals(N, 1, 8);
    static struct tms_histogram histogram;
    assert_true(tms_histogram_add(&histogram, x, N));
    for (unsigned bits = 3; bits <= 6; bits++) {
        struct tms_range best = tms_histogram_least_squares(&histogram, bits, true);
        assert_true(best.low == -best.high);
        double top = (double)((1u << bits) - 2), error = measured(x, N, best, top);
        for (int i = 20; i <= 100; i++) {
            float to = histogram.range.high * (float)i / 100;
            assert_true(error < 1.01 * measured(x, N, (struct tms_range){-to, to, 0}, top));
        }
    }
    /* A normal variable's best symmetric grid of 15 values reaches to 2.76 of its deviation (Bucklew and Gallagher's
     * step for 16 values is 0.3352, for 15 a little more). */
    struct tms_range four = tms_histogram_least_squares(&histogram, 4, true);
    assert_true(four.high > 2.3f && four.high < 2.7f);
    /* One-sided values. */
    for (size_t i = 0; i < N; i++) x[i] = fabsf(x[i]);
    x[5] = 9;
    memset(&histogram, 0, sizeof histogram);
    assert_true(tms_histogram_add(&histogram, x, N));
    struct tms_range sided = tms_histogram_least_squares(&histogram, 4, false);
    assert_true(sided.low == 0 && sided.high > 2 && sided.high < 4);
    assert_true(measured(x, N, sided, 15) < 0.5 * measured(x, N, histogram.range, 15));
    free(x);
}

static void empty_histograms_give_empty_ranges(void **state)
{
    (void)state;
    static struct tms_histogram histogram;
    assert_true(tms_histogram_percentile(&histogram, 0.99) == 0);
    assert_true(tms_histogram_entropy(&histogram, 128) == 0);
    assert_true(tms_histogram_least_squares(&histogram, 8, true).high == 0);
    const float zeros[4] = {0};
    assert_true(tms_histogram_add(&histogram, zeros, 4));
    assert_true(tms_histogram_entropy(&histogram, 128) == 0);
    assert_true(tms_histogram_least_squares(&histogram, 8, false).high == 0);
}

static void grids_hold_zero_and_clamp(void **state)
{
    (void)state;
    struct tms_int_grid grid = tms_int_grid(1, 51, 8, false);
    assert_true(grid.scale == 0.2f && grid.zero == -128);
    assert_int_equal(tms_int_code(&grid, 100), 127);
    assert_int_equal(tms_int_code(&grid, -7), -128);
    assert_true(tms_int_value(&grid, -128) == 0);
    grid = tms_int_grid(-1, 0.5f, 4, true);
    assert_true(grid.scale == 1 / 7.5f && grid.zero == 0);
    assert_int_equal(tms_int_code(&grid, -2), -8);
    grid = tms_int_grid(0, 0, 8, true);
    assert_true(grid.scale == 0x1p-23f);
}

static void shrink_search_cuts_an_outlier(void **state)
{
    (void)state;
    enum { N = 512 };
    float *x = normals(N, 1, 2);
    x[100] = 8;
    struct tms_range range = tms_shrink_search(x, N, 3, true, 2.4, 0.01, 80);
    assert_true(range.high < 6 && range.high > 2);
    struct tms_range whole = tms_shrink_search(x, N, 3, true, 2.4, 0.01, 1);
    assert_true(whole.high == 8);
    free(x);
}

static void dynamic_activations_are_those_of_compressed_tensors(void **state)
{
    (void)state;
    struct tms_safetensors *st;
    size_t n;
    assert_ok(tms_safetensors_open(&st, golden("hf/ct/activations.safetensors"), &err), err);
    uint8_t *bytes = read_whole(golden("hf/ct/activations.safetensors"), &n);
    enum { ROWS = 12, COLS = 256 };
    static const struct {
        const char *name;
        size_t group;
        bool integers;
    } cases[] = {{"int8_token.f32", 256, true}, {"fp8_token.f32", 256, false}, {"fp8_group128.f32", 128, false}};
    for (size_t k = 0; k < 3; k++) {
        const uint8_t *field[4];
        static const char *const fields[4] = {"input", "scale", "quantized", "fake_quantized"};
        for (size_t f = 0; f < 4; f++) {
            char name[100];
            snprintf(name, sizeof name, "%s/%s", cases[k].name, fields[f]);
            field[f] = bytes + tms_safetensors_find(st, name)->offset;
        }
        for (size_t g = 0; g < ROWS * COLS / cases[k].group; g++) {
            float x[COLS], scale, want[COLS];
            memcpy(x, field[0] + g * cases[k].group * 4, cases[k].group * 4);
            memcpy(want, field[3] + g * cases[k].group * 4, cases[k].group * 4);
            memcpy(&scale, field[1] + g * 4, 4);
            struct tms_range range = {0};
            assert_true(tms_range_add(&range, x, cases[k].group));
            struct tms_int_grid grid = tms_int_grid(range.low, range.high, 8, true);
            float ours = cases[k].integers ? grid.scale : tms_float_scale(range.low, range.high, 448);
            assert_true(ours == scale);
            for (size_t i = 0; i < cases[k].group; i++) {
                const uint8_t code = field[2][g * cases[k].group + i];
                if (cases[k].integers) {
                    assert_int_equal(tms_int_code(&grid, x[i]), (int8_t)code);
                    assert_true(tms_int_value(&grid, (int8_t)code) == want[i]);
                } else {
                    assert_int_equal(tms_f32_to_e4m3(x[i] / ours), code);
                    assert_true(tms_e4m3_to_f32(code) * ours == want[i]);
                }
            }
        }
    }
    free(bytes);
    tms_safetensors_close(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_holds_all_that_was_seen),
        cmocka_unit_test(moving_average_steps_once_per_batch),
        cmocka_unit_test(histogram_counts_the_same_in_any_order_and_in_parts),
        cmocka_unit_test(percentile_cuts_off_the_largest_magnitudes),
        cmocka_unit_test(entropy_keeps_an_even_spread_and_cuts_an_outlier),
        cmocka_unit_test(least_squares_beats_every_other_threshold),
        cmocka_unit_test(empty_histograms_give_empty_ranges),
        cmocka_unit_test(grids_hold_zero_and_clamp),
        cmocka_unit_test(shrink_search_cuts_an_outlier),
        cmocka_unit_test(dynamic_activations_are_those_of_compressed_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

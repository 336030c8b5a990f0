/* SmoothQuant, HQQ and flips: that each lowers the error that it claims to lower, and HQQ against its package. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "base/threads.h"
#include "file/safetensors.h"
#include "method/flips.h"
#include "method/hqq.h"
#include "method/observers.h"
#include "method/smooth.h"

static struct tms_error err;
static struct tms_pool *one, *many;

static int make_pools(void **state)
{
    (void)state;
    assert_ok(tms_pool_create(&one, 1, &err), err);
    assert_ok(tms_pool_create(&many, 5, &err), err);
    return 0;
}

static int free_pools(void **state)
{
    (void)state;
    tms_pool_free(one);
    tms_pool_free(many);
    return 0;
}

static float *normals(size_t n, float scale, uint64_t seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = scale * random_normal(&seed);
    return x;
}

/* ---- smooth ---- */

static void smooth_scales_follow_the_formula(void **state)
{
    (void)state;
    const float x[5] = {4, 16, 3, 0, 1e30f}, w[5] = {1, 4, 0, 2, 1e-30f};
    float scales[5];
    tms_smooth_scales(x, w, 0.5, 5, scales);
    static const float want[5] = {2, 2, 3, 1, 1e30f};
    for (int i = 0; i < 5; i++) assert_true(fabsf(scales[i] / want[i] - 1) < 1e-6f);
    tms_smooth_scales(x, w, 0.75, 2, scales);
    assert_true(fabs((double)scales[0] - pow(4, 0.75)) < 1e-6);
    float largest[2];
    const float a[4] = {1, -3, -2, 2}, b[2] = {0.5f, -4};
    const struct tms_awq_layer layers[2] = {{a, 2}, {b, 1}};
    tms_smooth_weight_max(layers, 2, 2, largest);
    assert_true(largest[0] == 2 && largest[1] == 4);
}

/* Squared error of x wT when tokens and rows are rounded to 8 bits each. */
static double error_in_8_bits(const float *x, size_t n_tokens, const float *w, size_t n_rows, size_t n)
{
    float *codes = malloc((n_tokens + n_rows) * n * sizeof *codes);
    for (size_t r = 0; r < n_tokens + n_rows; r++) {
        const float *from = r < n_tokens ? x + r * n : w + (r - n_tokens) * n;
        struct tms_range range = {0};
        assert_true(tms_range_add(&range, from, n));
        struct tms_int_grid grid = tms_int_grid(range.low, range.high, 8, true);
        for (size_t c = 0; c < n; c++) codes[r * n + c] = tms_int_value(&grid, tms_int_code(&grid, from[c]));
    }
    double sum = 0;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t r = 0; r < n_rows; r++) {
            double exact = 0, got = 0;
            for (size_t c = 0; c < n; c++) {
                exact += (double)x[t * n + c] * (double)w[r * n + c];
                got += (double)codes[t * n + c] * (double)codes[(n_tokens + r) * n + c];
            }
            sum += (exact - got) * (exact - got);
        }
    free(codes);
    return sum;
}

static void smoothing_lowers_the_error_of_outlier_channels(void **state)
{
    (void)state;
    enum { TOKENS = 40, ROWS = 48, N = 96 };
    float *x = normals(TOKENS * N, 1, 1), *w = normals(ROWS * N, 0.05f, 2), input_max[N], weight_max[N], scales[N];
    memset(input_max, 0, sizeof input_max);
    for (size_t t = 0; t < TOKENS; t++) {
        x[t * N + 7] *= 60, x[t * N + 50] *= 25;
        for (size_t c = 0; c < N; c++) input_max[c] = fmaxf(input_max[c], fabsf(x[t * N + c]));
    }
    const double before = error_in_8_bits(x, TOKENS, w, ROWS, N);
    tms_smooth_weight_max(&(struct tms_awq_layer){w, ROWS}, 1, N, weight_max);
    tms_smooth_scales(input_max, weight_max, 0.5, N, scales);
    tms_awq_scale_columns(w, ROWS, N, scales);
    for (size_t i = 0; i < TOKENS * N; i++) x[i] /= scales[i % N];
    const double after = error_in_8_bits(x, TOKENS, w, ROWS, N);
    assert_true(after < 0.2 * before);
    free(x), free(w);
}

/* ---- hqq ---- */

static void hqq_is_that_of_the_package(void **state)
{
    (void)state;
    enum { N = 64 * 256, GROUP = 64, GROUPS = N / GROUP };
    struct tms_safetensors *st;
    size_t n;
    assert_ok(tms_safetensors_open(&st, golden("hf/hqq.safetensors"), &err), err);
    uint8_t *bytes = read_whole(golden("hf/hqq.safetensors"), &n);
    float *w = malloc(N * sizeof *w);
    memcpy(w, bytes + tms_safetensors_find(st, "weight")->offset, N * sizeof *w);
    for (unsigned bits = 2; bits <= 4; bits++) {
        char name[20];
        float want_scales[GROUPS], want_zeros[GROUPS], scales[GROUPS], zeros[GROUPS];
        uint8_t *codes = malloc(N);
        snprintf(name, sizeof name, "w%u/scales", bits);
        memcpy(want_scales, bytes + tms_safetensors_find(st, name)->offset, sizeof scales);
        snprintf(name, sizeof name, "w%u/zeros", bits);
        memcpy(want_zeros, bytes + tms_safetensors_find(st, name)->offset, sizeof zeros);
        snprintf(name, sizeof name, "w%u/codes", bits);
        struct tms_hqq_options options = {.bits = bits, .group = GROUP, .round_zero = bits == 4};
        assert_ok(tms_hqq(w, N, &options, codes, scales, zeros, many, &err), err);
        assert_same_bytes(codes, bytes + tms_safetensors_find(st, name)->offset, N, name);
        for (size_t g = 0; g < GROUPS; g++) {
            assert_true(fabsf(scales[g] / want_scales[g] - 1) < 1e-6f);
            assert_true(fabsf(zeros[g] - want_zeros[g]) < 1e-5f);
        }
        free(codes);
    }
    free(w), free(bytes);
    tms_safetensors_close(st);
}

static double error_to_power(const float *w, size_t n, const struct tms_hqq_options *options, struct tms_pool *pool,
                             uint64_t *sum)
{
    uint8_t *codes = malloc(n);
    float *scales = malloc(n / options->group * sizeof *scales), *zeros = malloc(n / options->group * sizeof *zeros);
    assert_ok(tms_hqq(w, n, options, codes, scales, zeros, pool, &err), err);
    double error = 0;
    *sum = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t g = i / options->group;
        uint32_t bits;
        error += pow(fabs((double)w[i] - ((double)codes[i] - (double)zeros[g]) * (double)scales[g]), 0.7);
        memcpy(&bits, &zeros[g], sizeof bits);
        *sum = *sum * 31 + codes[i] + bits;
    }
    free(codes), free(scales), free(zeros);
    return error;
}

static void hqq_lowers_its_error_and_is_the_same_on_every_machine(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    enum { N = 128 * 700 };
    float *w = normals(N, 0.02f, 4);
    struct tms_hqq_options first = {.bits = 3, .group = 128, .n_steps = 1}, all = {.bits = 3, .group = 128};
    uint64_t sum, again;
    const double before = error_to_power(w, N, &first, one, &sum), after = error_to_power(w, N, &all, one, &sum);
    assert_true(after < before);
    for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
        tms_cpu_force(levels[l]);
        error_to_power(w, N, &all, many, &again);
        assert_true(again == sum);
    }
    all.group = 100;
    assert_int_equal(tms_hqq(w, 128, &all, NULL, NULL, NULL, one, &err), TMS_EUSAGE);
    free(w);
}

/* ---- flips ---- */

enum { ROWS = 40, COLS = 192, TOKENS = 400 };

static struct tms_hessian *related_hessian(void)
{
    float *x = normals(TOKENS * COLS, 1, 11);
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t c = 1; c < COLS; c++) x[t * COLS + c] += 0.8f * x[t * COLS + c - 1];
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_create(&hessian, COLS, &err), err);
    assert_ok(tms_hessian_add(hessian, x, COLS, TOKENS, one, &err), err);
    assert_ok(tms_hessian_finish(hessian, one, &err), err);
    free(x);
    return hessian;
}

static float to_tenth(void *ctx, size_t row, size_t col, float target)
{
    (void)ctx, (void)row, (void)col;
    return rintf(target * 10) / 10;
}

static void flips_lower_the_error_by_what_they_say(void **state)
{
    (void)state;
    struct tms_hessian *hessian = related_hessian();
    float *w = normals(ROWS * COLS, 1, 3), *q = malloc(ROWS * COLS * sizeof *q);
    for (size_t i = 0; i < ROWS * COLS; i++) q[i] = rintf(w[i] * 10) / 10;
    double before, after, gain;
    size_t n_changed;
    struct tms_flips flips = {.nearest = to_tenth, .n_sweeps = 30};
    assert_ok(tms_hessian_error(hessian, w, q, ROWS, &before, one, &err), err);
    assert_ok(tms_flips(w, q, ROWS, hessian, &flips, &n_changed, &gain, one, &err), err);
    assert_ok(tms_hessian_error(hessian, w, q, ROWS, &after, one, &err), err);
    assert_true(n_changed > 0 && after < 0.8 * before);
    assert_true(fabs(before - after - gain) < 1e-3 * gain);
    /* No single change is left that would help. */
    assert_ok(tms_flips(w, q, ROWS, hessian, &flips, &n_changed, &gain, one, &err), err);
    assert_int_equal(n_changed, 0);
    tms_hessian_free(hessian);
    free(w), free(q);
}

static void flips_improve_gptq_and_are_the_same_on_every_machine(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    struct tms_hessian *hessian = related_hessian();
    float *w = normals(ROWS * COLS, 1, 3), *q = malloc(ROWS * COLS * sizeof *q);
    struct tms_gptq_options options = {.affine = {.bits = 3}, .group = 64, .damp = 0.01};
    uint8_t *first = malloc(ROWS * COLS);
    for (size_t round = 0; round < 2 * sizeof levels / sizeof *levels; round++) {
        struct tms_gptq_result result;
        double before, after;
        size_t n_changed;
        tms_cpu_force(levels[round / 2]);
        struct tms_pool *pool = round % 2 ? many : one;
        assert_ok(tms_gptq(&result, w, COLS, ROWS, hessian, &options, pool, &err), err);
        tms_gptq_decode(&result, q);
        assert_ok(tms_hessian_error(hessian, w, q, ROWS, &before, one, &err), err);
        assert_ok(tms_gptq_flips(&result, w, 3, hessian, 0, 20, &n_changed, pool, &err), err);
        tms_gptq_decode(&result, q);
        assert_ok(tms_hessian_error(hessian, w, q, ROWS, &after, one, &err), err);
        assert_true(n_changed > 0 && after < before);
        if (round == 0) memcpy(first, result.codes, ROWS * COLS);
        assert_same_bytes(result.codes, first, ROWS * COLS, "codes");
        tms_gptq_free(&result);
    }
    tms_cpu_force(levels[sizeof levels / sizeof *levels - 1]);
    tms_hessian_free(hessian);
    free(w), free(q), free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smooth_scales_follow_the_formula),
        cmocka_unit_test(smoothing_lowers_the_error_of_outlier_channels),
        cmocka_unit_test(hqq_is_that_of_the_package),
        cmocka_unit_test(hqq_lowers_its_error_and_is_the_same_on_every_machine),
        cmocka_unit_test(flips_lower_the_error_by_what_they_say),
        cmocka_unit_test(flips_improve_gptq_and_are_the_same_on_every_machine),
    };
    return cmocka_run_group_tests(tests, make_pools, free_pools);
}

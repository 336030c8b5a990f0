/* GPTQ against the runs of GPTQModel, and against the algorithm that it comes from. */
#include "support.h"

#include <jansson.h>
#include <math.h>

#include "base/cpu.h"
#include "base/numbers.h"
#include "base/threads.h"
#include "file/safetensors.h"
#include "method/cholesky.h"
#include "method/feedback.h"
#include "method/gptq.h"

static struct tms_error err;
static struct tms_pool *one, *many;

static struct tms_safetensors *runs;
static uint8_t *runs_bytes;
static json_t *cases;

static int open_all(void **state)
{
    (void)state;
    size_t n;
    json_error_t problem;
    assert_ok(tms_pool_create(&one, 1, &err), err);
    assert_ok(tms_pool_create(&many, 5, &err), err);
    const char *path = golden("hf/gptq/algorithm.safetensors");
    assert_ok(tms_safetensors_open(&runs, path, &err), err);
    runs_bytes = read_whole(path, &n);
    cases = json_load_file(golden("hf/gptq/algorithm.json"), 0, &problem);
    assert_non_null(cases);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    tms_safetensors_close(runs);
    free(runs_bytes);
    json_decref(cases);
    tms_pool_free(one);
    tms_pool_free(many);
    return 0;
}

static const void *tensor(const char *of, const char *field, size_t shape[2])
{
    char name[200];
    snprintf(name, sizeof name, "%s/%s", of, field);
    const struct tms_st_tensor *found = tms_safetensors_find(runs, name);
    if (!found) fail_msg("no tensor %s", name);
    if (shape) shape[0] = (size_t)found->shape[0], shape[1] = found->n_dims > 1 ? (size_t)found->shape[1] : 1;
    return runs_bytes + found->offset;
}

static const char *layer_of(const char *run)
{
    return strncmp(run, "well/", 5) == 0 ? "well" : "deficient";
}

/* From the stored inputs. */
static struct tms_hessian *hessian_of(const char *layer)
{
    size_t shape[2];
    const uint8_t *inputs = tensor(layer, "inputs", shape);
    float *x = malloc(shape[0] * shape[1] * sizeof *x);
    tms_f16_to_f32_n(inputs, x, shape[0] * shape[1]);
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_create(&hessian, shape[1], &err), err);
    assert_ok(tms_hessian_add(hessian, x, shape[1], shape[0], one, &err), err);
    assert_ok(tms_hessian_finish(hessian, one, &err), err);
    free(x);
    return hessian;
}

static struct tms_gptq_options options_of(const json_t *entry)
{
    return (struct tms_gptq_options){
        .affine = {.bits = (unsigned)json_integer_value(json_object_get(entry, "bits")),
                   .symmetric = json_is_true(json_object_get(entry, "sym")),
                   .norm = (float)json_number_value(json_object_get(entry, "mse"))},
        .group = json_integer_value(json_object_get(entry, "group_size")) > 0
                     ? (size_t)json_integer_value(json_object_get(entry, "group_size"))
                     : 0,
        .order = json_is_true(json_object_get(entry, "desc_act"))          ? TMS_GPTQ_ACT_ORDER
                 : json_is_true(json_object_get(entry, "act_group_aware")) ? TMS_GPTQ_GROUP_AWARE
                                                                           : TMS_GPTQ_IN_ORDER,
        .static_groups = json_is_true(json_object_get(entry, "static_groups")),
        .damp = json_number_value(json_object_get(entry, "damp_used")),
    };
}

static void hessians_of_stored_inputs_are_the_stored_ones(void **state)
{
    (void)state;
    static const char *const layers[] = {"well", "deficient"};
    for (size_t l = 0; l < 2; l++) {
        struct tms_hessian *hessian = hessian_of(layers[l]);
        const float *want = tensor(layers[l], "hessian", NULL);
        double largest = 0, furthest = 0;
        for (size_t i = 0; i < hessian->n; i++)
            for (size_t j = 0; j < hessian->n; j++) {
                double w = (double)want[i * hessian->n + j];
                largest = fmax(largest, fabs(w));
                furthest = fmax(furthest, fabs(w - (double)hessian->h[i * hessian->ld + j]));
            }
        assert_true(furthest <= 1e-5 * largest);
        tms_hessian_free(hessian);
    }
}

/* Weights without dead channels, as the errors count. */
static float *living(const struct tms_hessian *hessian, const float *w, size_t n_rows)
{
    float *copy = malloc(n_rows * hessian->n * sizeof *copy);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < hessian->n; c++)
            copy[r * hessian->n + c] = hessian->h[c * hessian->ld + c] == 0 ? 0 : w[r * hessian->n + c];
    return copy;
}

/* All 39: >= 99 % equal codes, error at most 1.01 times the reference's. GPTQ_SHOW in the environment prints them. */
static void gptq_agrees_with_gptqmodel_in_all_runs(void **state)
{
    (void)state;
    const char *name;
    json_t *entry;
    size_t n_runs = 0, n_equal_runs = 0;
    json_object_foreach(cases, name, entry)
    {
        size_t shape[2], groups[2];
        const float *w = tensor(layer_of(name), "weight", shape);
        const uint8_t *codes = tensor(name, "codes", NULL), *zeros = tensor(name, "zeros", groups);
        const float *scales = tensor(name, "scales", NULL);
        const uint32_t *g_idx = tensor(name, "g_idx", NULL);
        struct tms_hessian *hessian = hessian_of(layer_of(name));
        struct tms_gptq_options options = options_of(entry);
        struct tms_gptq_result result;
        assert_ok(tms_gptq(&result, w, shape[1], shape[0], hessian, &options, many, &err), err);
        const size_t n = shape[0] * shape[1];
        size_t equal = 0, equal_zeros = 0;
        for (size_t i = 0; i < n; i++) equal += result.codes[i] == codes[i];
        assert_int_equal(result.n_groups, groups[1]);
        assert_same_bytes(result.g_idx, g_idx, shape[1] * sizeof *g_idx, name);
        double furthest = 0;
        for (size_t i = 0; i < shape[0] * groups[1]; i++) {
            equal_zeros += result.zeros[i] == zeros[i];
            furthest = fmax(furthest, fabs((double)(result.scales[i] / scales[i]) - 1));
        }
        float *decoded = malloc(n * sizeof *decoded), *alive = living(hessian, w, shape[0]);
        tms_gptq_decode(&result, decoded);
        double error, loss = json_number_value(json_object_get(entry, "average_loss"));
        assert_ok(tms_hessian_error(hessian, alive, decoded, shape[0], &error, one, &err), err);
        error /= json_number_value(json_object_get(entry, "hessian_error"));
        loss = result.loss / (double)hessian->n_tokens / loss;
        if (getenv("GPTQ_SHOW"))
            printf("%-48s codes %8.4f %%  zeros %zu/%zu  scales within %.1e  error x%.6f  loss x%.6f\n", name,
                   100.0 * (double)equal / (double)n, equal_zeros, shape[0] * groups[1], furthest, error, loss);
        if (100 * equal < 99 * n) fail_msg("%s: only %zu of %zu codes are equal", name, equal, n);
        if (!(error <= 1.01)) fail_msg("%s: error %g times the reference's", name, error);
        n_runs++;
        n_equal_runs += equal == n;
        free(decoded), free(alive);
        tms_gptq_free(&result);
        tms_hessian_free(hessian);
    }
    assert_int_equal(n_runs, 39);
    if (getenv("GPTQ_SHOW")) printf("%zu runs with all codes equal\n", n_equal_runs);
}

static void gptq_is_the_same_bits_on_every_machine(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    static const char *const names[] = {"well/w4_g64_asym_desc_damp0.05_mse", "deficient/w4_g64_sym_gar_damp0.05"};
    for (size_t k = 0; k < 2; k++) {
        size_t shape[2];
        const float *w = tensor(layer_of(names[k]), "weight", shape);
        struct tms_hessian *hessian = hessian_of(layer_of(names[k]));
        struct tms_gptq_options options = options_of(json_object_get(cases, names[k]));
        struct tms_gptq_result first = {0}, result;
        for (size_t round = 0; round < 2 * sizeof levels / sizeof *levels; round++) {
            tms_cpu_force(levels[round / 2]);
            assert_ok(tms_gptq(&result, w, shape[1], shape[0], hessian, &options, round % 2 ? many : one, &err), err);
            if (round == 0) {
                first = result;
                continue;
            }
            assert_same_bytes(result.codes, first.codes, shape[0] * shape[1], "codes");
            assert_same_bytes(result.scales, first.scales, shape[0] * first.n_groups * sizeof(float), "scales");
            assert_true(result.loss == first.loss);
            tms_gptq_free(&result);
        }
        tms_cpu_force(levels[sizeof levels / sizeof *levels - 1]);
        tms_gptq_free(&first);
        tms_hessian_free(hessian);
    }
}

/* Optimal Brain Quantization (arXiv 2208.11580) of one row with a given order: after every weight the inverse of the
 * Hessian of those that are left is found anew by one step of elimination. All in f64. */
static void obq(double *w, double *inverse, size_t n, double scale, double zero, double top, uint8_t *codes)
{
    for (size_t i = 0; i < n; i++) {
        double code = fmin(fmax(rint(w[i] / scale) + zero, 0), top);
        codes[i] = (uint8_t)code;
        double error = (w[i] - scale * (code - zero)) / inverse[i * n + i];
        for (size_t j = 0; j < n; j++) w[j] -= error * inverse[i * n + j];
        double pivot = inverse[i * n + i];
        for (size_t a = i + 1; a < n; a++)
            for (size_t b = i + 1; b < n; b++) inverse[a * n + b] -= inverse[a * n + i] * inverse[i * n + b] / pivot;
    }
}

static void gptq_equals_obq_in_the_same_order(void **state)
{
    (void)state;
    size_t shape[2];
    const float *w = tensor("well", "weight", shape);
    const size_t n = shape[1];
    struct tms_hessian *hessian = hessian_of("well");
    struct tms_gptq_options options = {.affine = {.bits = 4}, .damp = 0.05};
    struct tms_gptq_result result;
    assert_ok(tms_gptq(&result, w, n, shape[0], hessian, &options, one, &err), err);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)hessian->h[i * hessian->ld + i];
    for (size_t i = 0; i < n; i++) hessian->h[i * hessian->ld + i] += (float)(0.05 * sum / (double)n);
    assert_ok(tms_positive_inverse(hessian->h, n, hessian->ld, one, &err), err);
    double *inverse = malloc(n * n * sizeof *inverse), *row = malloc(n * sizeof *row);
    uint8_t *codes = malloc(n);
    size_t equal = 0;
    for (size_t r = 0; r < shape[0]; r++) {
        for (size_t i = 0; i < n; i++) {
            row[i] = (double)w[r * n + i];
            for (size_t j = 0; j < n; j++) inverse[i * n + j] = (double)hessian->h[i * hessian->ld + j];
        }
        obq(row, inverse, n, (double)result.scales[r], result.zeros[r], 15, codes);
        for (size_t i = 0; i < n; i++) equal += codes[i] == result.codes[r * n + i];
    }
    if (equal < shape[0] * n - 3) fail_msg("%zu of %zu codes are equal", equal, shape[0] * n); /* but for ties */
    free(inverse), free(row), free(codes);
    tms_gptq_free(&result);
    tms_hessian_free(hessian);
}

static void gptq_raises_damping_until_the_factor_exists(void **state)
{
    (void)state;
    /* Two equal channels and one without input: of rank 1, with a negative direction by rounding. */
    const float entries[9] = {1, 1.0001f, 0, 1.0001f, 1, 0, 0, 0, 0}, w[6] = {0.5f, -1, 3, 1, 0.25f, -2};
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_from(&hessian, entries, 3, &err), err);
    struct tms_gptq_options options = {.affine = {.bits = 4}};
    struct tms_gptq_result result;
    assert_ok(tms_gptq(&result, w, 3, 2, hessian, &options, one, &err), err);
    assert_true(result.damp_used == 0.01);
    assert_int_equal(result.n_dead, 1);
    tms_gptq_free(&result);
    hessian->h[0] = -5;
    assert_int_equal(tms_gptq(&result, w, 3, 2, hessian, &options, one, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "not positive definite"));
    tms_hessian_free(hessian);
}

static void gptq_refuses_weights_that_are_no_numbers(void **state)
{
    (void)state;
    const float entries[4] = {1, 0, 0, 1}, w[4] = {1, 2, INFINITY, 4};
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_from(&hessian, entries, 2, &err), err);
    struct tms_gptq_options options = {.affine = {.bits = 4}, .damp = 0.01};
    struct tms_gptq_result result;
    assert_int_equal(tms_gptq(&result, w, 2, 2, hessian, &options, one, &err), TMS_EINPUT);
    assert_string_equal(err.message, "weight [1][0] is not finite");
    options.affine.bits = 9;
    assert_int_equal(tms_gptq(&result, w, 2, 2, hessian, &options, one, &err), TMS_EUSAGE);
    tms_hessian_free(hessian);
}

/* A grid of the integers that counts what it is asked; pairs of columns are decided together. */
struct asked {
    size_t n_fits, n_columns;
};

static void integer_fit(void *ctx, size_t row, size_t n_rows, size_t first, size_t n, const float *w, size_t ldw)
{
    (void)row, (void)n_rows, (void)first, (void)n, (void)w, (void)ldw;
    ((struct asked *)ctx)->n_fits++;
}

static void integer_decide(void *ctx, size_t row, size_t n_rows, size_t first, const float *w, float *decoded)
{
    (void)row, (void)n_rows, (void)first;
    ((struct asked *)ctx)->n_columns += 2;
    for (size_t i = 0; i < 2 * TMS_FEEDBACK_ROWS; i++) decoded[i] = rintf(w[i]);
}

static void feedback_drives_any_grid(void **state)
{
    (void)state;
    size_t shape[2];
    const float *w = tensor("well", "weight", shape);
    const size_t n = shape[0] * shape[1];
    float *scaled = malloc(n * sizeof *scaled), *rounded = malloc(n * sizeof *rounded);
    for (size_t i = 0; i < n; i++) scaled[i] = w[i] * 20;
    struct tms_hessian *hessian = hessian_of("well");
    float *u = calloc(shape[1] * hessian->ld, sizeof *u);
    double damp = 0.01, loss = 0, plain_loss = 0;
    assert_ok(tms_damped_factor(hessian, NULL, &damp, u, one, &err), err);
    struct asked asked = {0};
    struct tms_grid grid = {.group = 32, .step = 2, .fit = integer_fit, .decide = integer_decide, .ctx = &asked};
    assert_ok(tms_feedback(scaled, shape[1], shape[0], shape[1], u, hessian->ld, &grid, &loss, one, &err), err);
    assert_int_equal(asked.n_fits, 2 * 8); /* tiles of 32 rows, groups */
    assert_int_equal(asked.n_columns, 2 * 256);
    /* The loss without feedback is half the squared error through the damped Hessian. */
    for (size_t i = 0; i < n; i++) rounded[i] = rintf(scaled[i]);
    assert_ok(tms_hessian_error(hessian, scaled, rounded, shape[0], &plain_loss, one, &err), err);
    assert_true(loss > 0 && loss < plain_loss / 2);
    grid.step = 3;
    assert_int_equal(tms_feedback(scaled, shape[1], shape[0], shape[1], u, hessian->ld, &grid, &loss, one, &err),
                     TMS_EUSAGE);
    grid.step = 1, grid.group = 96;
    assert_int_equal(tms_feedback(scaled, shape[1], shape[0], shape[1], u, hessian->ld, &grid, &loss, one, &err),
                     TMS_EUSAGE);
    free(scaled), free(rounded), free(u);
    tms_hessian_free(hessian);
}

/* Two codes are too few for both kinds of weights: those that count get them. */
static void weighted_ends_fit_the_weights_that_count(void **state)
{
    (void)state;
    enum { N = 17 };
    float w[N], weights[N], scale[2], zero;
    for (size_t i = 0; i < N; i++) {
        w[i] = i % 2 ? 1 : (float)(i % 4 ? -3 : 3);
        weights[i] = i % 2 ? 100 : 0.01F;
    }
    struct tms_affine affine = {.bits = 2, .symmetric = true, .norm = 2};
    tms_affine_fit(&affine, w, N, &scale[0], &zero);
    affine.weights = weights;
    tms_affine_fit(&affine, w, N, &scale[1], &zero);
    assert_true(fabsf(scale[1] - 1) < 0.02F);
    assert_true(scale[0] > 1.2F);
    for (size_t i = 0; i < N; i++) weights[i] = 1;
    tms_affine_fit(&affine, w, N, &scale[1], &zero);
    assert_true(scale[1] == scale[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hessians_of_stored_inputs_are_the_stored_ones),
        cmocka_unit_test(gptq_agrees_with_gptqmodel_in_all_runs),
        cmocka_unit_test(gptq_is_the_same_bits_on_every_machine),
        cmocka_unit_test(gptq_equals_obq_in_the_same_order),
        cmocka_unit_test(gptq_raises_damping_until_the_factor_exists),
        cmocka_unit_test(gptq_refuses_weights_that_are_no_numbers),
        cmocka_unit_test(feedback_drives_any_grid),
        cmocka_unit_test(weighted_ends_fit_the_weights_that_count),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}

/* GPTQ inside the block types of GGUF. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "base/threads.h"
#include "method/block_feedback.h"
#include "method/block_grids.h"

static struct tms_error err;
static struct tms_pool *one, *many;

enum { ROWS = 70, COLS = 512, TOKENS = 700 };
static float *weights, importance[COLS];
static struct tms_hessian *hessian;
static struct tms_feedback_factor factor;

static const enum tms_type types[] = {TMS_Q4_0,    TMS_Q4_1,   TMS_Q5_0,  TMS_Q5_1,    TMS_Q8_0,   TMS_Q2_K,
                                      TMS_Q3_K,    TMS_Q4_K,   TMS_Q5_K,  TMS_Q6_K,    TMS_IQ4_NL, TMS_IQ4_XS,
                                      TMS_IQ2_XXS, TMS_IQ2_XS, TMS_IQ2_S, TMS_IQ3_XXS, TMS_IQ3_S,  TMS_MXFP4,
                                      TMS_NVFP4,   TMS_IQ1_S,  TMS_IQ1_M};
enum { N_TYPES = sizeof types / sizeof *types };

/* Inputs of low rank with noise and some strong channels; one channel has none. */
static int make_layer(void **state)
{
    (void)state;
    enum { RANK = 60, DEAD = 100 };
    uint64_t seed = 1;
    assert_ok(tms_pool_create(&one, 1, &err), err);
    assert_ok(tms_pool_create(&many, 5, &err), err);
    float *mix = malloc(RANK * COLS * sizeof *mix), *x = malloc(TOKENS * COLS * sizeof *x);
    for (size_t i = 0; i < RANK * COLS; i++) mix[i] = random_normal(&seed) / 8;
    for (size_t t = 0; t < TOKENS; t++) {
        float hidden[RANK];
        for (size_t k = 0; k < RANK; k++) hidden[k] = random_normal(&seed);
        for (size_t c = 0; c < COLS; c++) {
            float sum = 0.4f * random_normal(&seed);
            for (size_t k = 0; k < RANK; k++) sum += hidden[k] * mix[k * COLS + c];
            x[t * COLS + c] = c == DEAD ? 0 : sum * (c % 97 == 5 ? 6.0f : 0.6f + 0.3f * (float)(c % 5));
        }
    }
    weights = malloc(ROWS * COLS * sizeof *weights);
    for (size_t i = 0; i < ROWS * COLS; i++) weights[i] = 0.02f * random_normal(&seed);
    for (size_t c = 0; c < 256; c++) weights[3 * COLS + c] = 0; /* an empty super-block */
    assert_ok(tms_hessian_create(&hessian, COLS, &err), err);
    assert_ok(tms_hessian_add(hessian, x, COLS, TOKENS, one, &err), err);
    assert_ok(tms_hessian_finish(hessian, one, &err), err);
    for (size_t c = 0; c < COLS; c++) importance[c] = hessian->h[c * hessian->ld + c] / 2;
    assert_ok(tms_feedback_factor_create(&factor, hessian, 0.01, one, &err), err);
    free(mix), free(x);
    return 0;
}

static int free_layer(void **state)
{
    (void)state;
    tms_feedback_factor_free(&factor);
    tms_hessian_free(hessian);
    free(weights);
    tms_pool_free(one);
    tms_pool_free(many);
    return 0;
}

static double error_of(const struct tms_codec *codec, const uint8_t *blocks, const struct tms_hessian *through)
{
    float *decoded = malloc(ROWS * COLS * sizeof *decoded);
    double error;
    codec->decode(blocks, decoded, ROWS * COLS);
    assert_ok(tms_hessian_error(through, weights, decoded, ROWS, &error, one, &err), err);
    free(decoded);
    return error;
}

static size_t bytes_of(const struct tms_codec *codec)
{
    return (size_t)tms_codec_bytes(codec, ROWS * COLS);
}

static void feedback_lowers_the_error_of_every_type(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        const struct tms_codec *codec = tms_codec(types[k]);
        uint8_t *blocks = calloc(1, bytes_of(codec));
        if (codec->encode_weighted)
            codec->encode_weighted(weights, importance, blocks, ROWS, COLS);
        else
            codec->encode(weights, blocks, ROWS * COLS);
        const double plain = error_of(codec, blocks, hessian);
        struct tms_block_feedback_options options = {.importance = importance, .hessian = hessian};
        assert_ok(tms_block_feedback(blocks, types[k], weights, ROWS, &factor, &options, NULL, many, &err), err);
        const double fed = error_of(codec, blocks, hessian);
        options.importance = NULL;
        options.n_sweeps = 10;
        assert_ok(tms_block_feedback(blocks, types[k], weights, ROWS, &factor, &options, NULL, many, &err), err);
        const double flipped = error_of(codec, blocks, hessian);
        if (getenv("FEEDBACK_SHOW"))
            printf("%-8s plain %.4g, with feedback x%.4f, and flips x%.4f\n", codec->name, plain, fed / plain,
                   flipped / plain);
        if (!(fed < 0.6 * plain)) fail_msg("%s: %g after %g", codec->name, fed, plain);
        if (!(flipped < 0.6 * plain)) fail_msg("%s: %g after %g", codec->name, flipped, plain);
        free(blocks);
    }
}

/* The losses add up to the error through the damped Hessian if, and only if, feedback saw what readers decode. */
static void feedback_sees_what_readers_decode(void **state)
{
    (void)state;
    struct tms_hessian *damped;
    float *triangle = malloc(tms_hessian_packed(COLS) * sizeof *triangle);
    tms_hessian_pack(hessian, triangle);
    assert_ok(tms_hessian_unpack(&damped, triangle, COLS, &err), err);
    double sum = 0;
    for (size_t i = 0; i < COLS; i++) {
        float *entry = &damped->h[i * damped->ld + i];
        if (*entry == 0) *entry = 1;
        sum += (double)*entry;
    }
    for (size_t i = 0; i < COLS; i++) damped->h[i * damped->ld + i] += (float)(factor.damp * sum / COLS);
    for (size_t k = 0; k < N_TYPES; k++) {
        const struct tms_codec *codec = tms_codec(types[k]);
        uint8_t *blocks = calloc(1, bytes_of(codec));
        struct tms_block_feedback_options options = {.importance = importance};
        double loss;
        assert_ok(tms_block_feedback(blocks, types[k], weights, ROWS, &factor, &options, &loss, one, &err), err);
        const double error = error_of(codec, blocks, damped);
        if (!(fabs(2 * loss / error - 1) < 1e-3)) fail_msg("%s: loss %g, error %g", codec->name, 2 * loss, error);
        free(blocks);
    }
    tms_hessian_free(damped);
    free(triangle);
}

static void bytes_are_the_same_on_every_machine(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    const size_t n_rows = 40; /* a tile and a part of one */
    for (size_t k = 0; k < N_TYPES; k++) {
        const struct tms_codec *codec = tms_codec(types[k]);
        uint8_t *first = NULL;
        for (size_t round = 0; round < 2 * sizeof levels / sizeof *levels; round++) {
            tms_cpu_force(levels[round / 2]);
            uint8_t *blocks = calloc(1, (size_t)tms_codec_bytes(codec, n_rows * COLS));
            struct tms_block_feedback_options options = {.n_sweeps = 2, .hessian = hessian};
            assert_ok(tms_block_feedback(blocks, types[k], weights, n_rows, &factor, &options, NULL,
                                         round % 2 ? many : one, &err),
                      err);
            if (!first) {
                first = blocks;
                continue;
            }
            assert_same_bytes(blocks, first, (size_t)tms_codec_bytes(codec, n_rows * COLS), codec->name);
            free(blocks);
        }
        free(first);
    }
    tms_cpu_force(levels[sizeof levels / sizeof *levels - 1]);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    uint8_t blocks[16];
    struct tms_block_feedback_options options = {.importance = importance};
    assert_false(tms_block_feedback_knows(TMS_TQ1_0));
    assert_int_equal(tms_block_feedback(blocks, TMS_F16, weights, 1, &factor, &options, NULL, one, &err), TMS_EUSAGE);
    assert_string_equal(err.message, "error feedback does not know the blocks of f16");
    struct tms_feedback_factor narrow = {.n = 96, .ld = factor.ld, .u = factor.u};
    assert_int_equal(tms_block_feedback(blocks, TMS_Q4_K, weights, 1, &narrow, &options, NULL, one, &err), TMS_EUSAGE);
    assert_string_equal(err.message, "rows of 96 are no whole number of q4_k blocks of 256");
    float bad[COLS] = {0};
    bad[9] = NAN;
    assert_int_equal(tms_block_feedback(blocks, TMS_Q4_K, bad, 1, &factor, &options, NULL, one, &err), TMS_EINPUT);
    assert_string_equal(err.message, "weight [0][9] is not finite");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(feedback_lowers_the_error_of_every_type),
        cmocka_unit_test(feedback_sees_what_readers_decode),
        cmocka_unit_test(bytes_are_the_same_on_every_machine),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, make_layer, free_layer);
}

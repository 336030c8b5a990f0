/* Encoding with importances: what must hold for any rows and any importances, for every type that takes them. That the
 * bytes are those of ggml is in test_codec.c. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "tamis/codec.h"

static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* i = 0 … until NULL: the types that take importances. */
static const struct tms_codec *weighted_codec(size_t i)
{
    const struct tms_codec *codec;
    for (size_t row = 0; (codec = tms_codec_at(row)); row++)
        if (codec->encode_weighted && i-- == 0) return codec;
    return NULL;
}

/* Encodes at every level, with and without importances, and compares; `bytes` gets what came with them. */
static void encode_at_every_level(const struct tms_codec *codec, const float *x, const float *weights, size_t n_rows,
                                  size_t n_cols, uint8_t *bytes)
{
    size_t n = n_rows * n_cols, n_bytes = tms_codec_bytes(codec, n);
    uint8_t *got = malloc(n_bytes), *plain = malloc(n_bytes);
    float *back = malloc(n * sizeof *back);
    for (size_t i = 0; i < N_LEVELS; i++) {
        tms_cpu_force(levels[i]);
        memset(got, 0xee, n_bytes);
        codec->encode_weighted(x, weights, got, n_rows, n_cols);
        if (i == 0) memcpy(bytes, got, n_bytes);
        assert_same_bytes(got, bytes, n_bytes, codec->name);
        codec->decode(got, back, n);
        if (!codec->encode) continue;
        memset(got, 0xee, n_bytes);
        codec->encode(x, got, n);
        if (i == 0) memcpy(plain, got, n_bytes);
        assert_same_bytes(got, plain, n_bytes, codec->name);
    }
    free(got), free(plain), free(back);
}

static void fill_random(float *x, size_t n, int round, uint64_t *seed)
{
    float width = ldexpf(1, -3 * round);
    for (size_t i = 0; i < n; i++) {
        float r = random_normal(seed);
        x[i] = width * (round % 2 ? r * r * r : r);
        if (round == 4) x[i] = fabsf(x[i]);
        if (round == 5) x[i] = -fabsf(x[i]);
        if (round == 6) x[i] = roundf(8 * x[i] / width) / 8; /* many ties */
    }
}
enum { N_ROUNDS = 7 };

static void random_rows_give_the_same_bytes_on_every_level(void **state)
{
    (void)state;
    /* Numbers of blocks around those that fill vectors, in rows of one block, of an odd number, of many. */
    const size_t shapes[][2] = {{1, 1}, {7, 1}, {19, 1}, {3, 3}, {2, 17}, {9, 5}};
    enum { MAX_BLOCKS = 45 };
    float *x = malloc(MAX_BLOCKS * 256 * sizeof *x), *weights = malloc(MAX_BLOCKS * 256 * sizeof *weights);
    uint8_t *bytes = malloc(MAX_BLOCKS * 256 * 2);
    uint64_t seed = 5;
    const struct tms_codec *codec;
    for (size_t c = 0; (codec = weighted_codec(c)); c++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            size_t n_rows = shapes[s][0], n_cols = shapes[s][1] * codec->block_elems;
            int round = (int)(next_random(&seed) % N_ROUNDS);
            fill_random(x, n_rows * n_cols, round, &seed);
            for (size_t i = 0; i < n_cols; i++) {
                float r = random_normal(&seed);
                weights[i] = s == 3 ? (float)(i % 3) : r * r; /* every third column counts nothing */
            }
            encode_at_every_level(codec, x, weights, n_rows, n_cols, bytes);
        }
    free(x), free(weights), free(bytes);
}

static void strange_rows_and_importances_give_the_same_bytes_on_every_level(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 3 * 256, N = ROWS * COLS };
    float *x = malloc(N * sizeof *x), *weights = malloc(COLS * sizeof *weights);
    uint8_t *bytes = malloc((size_t)N * 2);
    const struct tms_codec *codec;
    for (size_t c = 0; (codec = weighted_codec(c)); c++)
        for (int kind = 0; kind < N_STRANGE; kind++)
            for (int importances = 0; importances <= N_STRANGE; importances += 1 + kind % 3) {
                uint64_t seed = (uint64_t)kind * 100 + (uint64_t)importances;
                fill_strange(x, N, kind, &seed);
                fill_strange(weights, COLS, importances % N_STRANGE, &seed);
                for (size_t i = 0; i < COLS; i++) weights[i] = importances == N_STRANGE ? 1 : fabsf(weights[i]);
                encode_at_every_level(codec, x, weights, ROWS, COLS, bytes);
            }
    free(x), free(weights), free(bytes);
}

static void rows_do_not_depend_on_their_neighbours(void **state)
{
    (void)state;
    enum { ROWS = 11 };
    const struct tms_codec *codec;
    uint64_t seed = 9;
    float x[ROWS * 256], weights[256];
    uint8_t whole[ROWS * 512], single[ROWS * 512];
    for (size_t c = 0; (codec = weighted_codec(c)); c++) {
        size_t n_cols = 256, n_bytes = tms_codec_bytes(codec, n_cols);
        for (size_t i = 0; i < ROWS * n_cols; i++) x[i] = ldexpf(random_normal(&seed), (int)(i / n_cols));
        for (size_t i = 0; i < n_cols; i++) weights[i] = fabsf(random_normal(&seed));
        codec->encode_weighted(x, weights, whole, ROWS, n_cols);
        for (size_t row = 0; row < ROWS; row++)
            codec->encode_weighted(x + row * n_cols, weights, single + row * n_bytes, 1, n_cols);
        assert_same_bytes(single, whole, ROWS * n_bytes, codec->name);
    }
}

static double weighted_error(const struct tms_codec *codec, const uint8_t *bytes, const float *x, const float *weights,
                             size_t n_rows, size_t n_cols)
{
    float *back = malloc(n_rows * n_cols * sizeof *back);
    codec->decode(bytes, back, n_rows * n_cols);
    double sum = 0;
    for (size_t i = 0; i < n_rows * n_cols; i++) {
        double rest = (double)back[i] - (double)x[i];
        sum += (double)weights[i % n_cols] * rest * rest;
    }
    free(back);
    return sum;
}

static void importances_lower_the_error_that_they_weigh(void **state)
{
    (void)state;
    enum { ROWS = 8, COLS = 512, N = ROWS * COLS };
    float *x = malloc(N * sizeof *x), *weights = malloc(COLS * sizeof *weights);
    uint8_t *plain = malloc((size_t)N * 2), *weighted = malloc((size_t)N * 2);
    uint64_t seed = 17;
    for (size_t i = 0; i < N; i++) x[i] = random_normal(&seed);
    for (size_t i = 0; i < COLS; i++) weights[i] = expf(2 * random_normal(&seed));
    const struct tms_codec *codec;
    for (size_t c = 0; (codec = weighted_codec(c)); c++) {
        if (!codec->encode) continue;
        codec->encode(x, plain, N);
        codec->encode_weighted(x, weights, weighted, ROWS, COLS);
        double without = weighted_error(codec, plain, x, weights, ROWS, COLS);
        double with = weighted_error(codec, weighted, x, weights, ROWS, COLS);
        if (!(with < without)) fail_msg("%s: error %g with importances, %g without", codec->name, with, without);
    }
    free(x), free(weights), free(plain), free(weighted);
}

static void no_rows_touch_no_bytes(void **state)
{
    (void)state;
    const float x = 5, weight = 1;
    uint8_t byte = 0xee;
    const struct tms_codec *codec;
    for (size_t c = 0; (codec = weighted_codec(c)); c++)
        codec->encode_weighted(&x, &weight, &byte, 0, codec->block_elems);
    assert_int_equal(byte, 0xee);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_rows_give_the_same_bytes_on_every_level),
        cmocka_unit_test(strange_rows_and_importances_give_the_same_bytes_on_every_level),
        cmocka_unit_test(rows_do_not_depend_on_their_neighbours),
        cmocka_unit_test(importances_lower_the_error_that_they_weigh),
        cmocka_unit_test(no_rows_touch_no_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

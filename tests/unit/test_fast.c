/* The fast mode: products of stored blocks with activations rounded to 8 bits, and the layers that use them. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "codec/grid.h"
#include "engine/kernels/coded.h"
#include "engine/kernels/dots.h"
#include "engine/kernels/halves.h"
#include "engine/kernels/rounded.h"
#include "engine/linear.h"

static const enum tms_cpu levels[] = {TMS_CPU_SCALAR, TMS_CPU_NEON, TMS_CPU_AVX2, TMS_CPU_AVX512};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* Random rows in a type. */
struct matrix {
    const struct tms_codec *codec;
    size_t rows, cols, row_bytes;
    uint8_t *blocks;
    float *values; /* decoded */
};

static struct matrix matrix(const struct tms_codec *codec, size_t rows, size_t cols, uint64_t *seed)
{
    struct matrix m = {.codec = codec, .rows = rows, .cols = cols};
    float *x = malloc(rows * cols * sizeof *x), *ones = malloc(cols * sizeof *ones);
    for (size_t i = 0; i < rows * cols; i++) x[i] = 0.05f * random_normal(seed);
    for (size_t i = 0; i < cols; i++) ones[i] = 1;
    m.row_bytes = (size_t)tms_codec_bytes(codec, cols);
    m.blocks = malloc(rows * m.row_bytes); /* exactly: reading past the end is seen by ASan */
    m.values = malloc(rows * cols * sizeof *m.values);
    if (codec->encode)
        codec->encode(x, m.blocks, rows * cols);
    else
        codec->encode_weighted(x, ones, m.blocks, rows, cols);
    codec->decode(m.blocks, m.values, rows * cols);
    free(x), free(ones);
    return m;
}

static void drop(struct matrix *m)
{
    free(m->blocks), free(m->values);
}

/* Activations with outliers, as real ones have. */
static float *activations(size_t n, uint64_t *seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_normal(seed) * (i % 61 == 7 ? 8 : 1);
    return x;
}

static struct tms_rounded_unit *rounded(const float *x, size_t n, size_t cols)
{
    struct tms_rounded_unit *units = aligned_alloc(64, n * tms_units(cols) * sizeof *units);
    for (size_t i = 0; i < n; i++) tms_round_row(x + i * cols, cols, units + i * tms_units(cols));
    return units;
}

static double activation(const struct tms_rounded_unit *units, size_t i)
{
    const struct tms_rounded_unit *u = units + i / TMS_UNIT;
    return (double)u->scales[i % TMS_UNIT / 32] * u->codes[i % TMS_UNIT];
}

static void activations_are_rounded_to_nearest_in_blocks_of_32(void **state)
{
    (void)state;
    enum { N = 2 * 256 + 96 + 5 };
    uint64_t seed = 1;
    float *x = activations(N, &seed);
    memset(x + 32, 0, 32 * sizeof *x);
    struct tms_rounded_unit *want = NULL;
    for (size_t l = 0; l < N_LEVELS; l++) {
        tms_cpu_force(levels[l]);
        struct tms_rounded_unit *u = rounded(x, 1, N);
        for (size_t b = 0; b < 3 * 8; b++) {
            float top = 0;
            int sum = 0;
            for (size_t i = 32 * b; i < 32 * b + 32 && i < N; i++) top = fmaxf(top, fabsf(x[i]));
            for (size_t i = 32 * b; i < 32 * b + 32; i++) {
                assert_true(fabs(activation(u, i) - (i < N ? (double)x[i] : 0)) <= (double)top / 127 * 0.5001);
                sum += u[i / 256].codes[i % 256];
            }
            assert_true(u[b / 8].scales[b % 8] == top / 127 && u[b / 8].less_32[b % 8] == -128 * sum);
            assert_true(u[b / 8].by_32[b % 8] == u[b / 8].scales[b % 8] * (float)sum);
        }
        if (want) assert_same_bytes(u, want, 3 * sizeof *u, "rounded activations");
        if (want)
            free(u);
        else
            want = u;
    }
    free(want), free(x);
    tms_cpu_force(TMS_CPU_AVX512);
}

/* What the rounding of activations alone may change: it moves a product by 0.3 % of what is typical where the largest
 * of 32 is three times the typical one, and more with outliers. */
#define NOISE 0.02

static void products_are_those_of_decoded_weights_at_every_level(void **state)
{
    (void)state;
    static const size_t widths[] = {256, 768, 1280, 32, 320, 64, 896}; /* the last ones end inside a unit */
    enum { ROWS = 7 };
    const struct tms_codec *codec;
    uint64_t seed = 2;
    size_t n_types = 0;
    for (size_t c = 0; (codec = tms_codec_at(c)) != NULL; c++) {
        const struct tms_rounded_codec *fast = tms_rounded_codec(codec->id);
        if (!fast) continue;
        n_types++;
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            const size_t cols = widths[w];
            if (cols % codec->block_elems) continue;
            struct matrix m = matrix(codec, ROWS, cols, &seed);
            float *x = activations(cols, &seed), want[ROWS], got[ROWS];
            struct tms_rounded_unit *u = rounded(x, 1, cols);
            double noise = 0, size = 0;
            for (size_t l = 0; l < N_LEVELS; l++) {
                tms_cpu_force(levels[l]);
                tms_rounded_rows(fast, m.blocks, m.row_bytes, ROWS, cols, u, l ? got : want);
                if (l) assert_same_bytes(got, want, sizeof got, codec->name);
            }
            for (size_t r = 0; r < ROWS; r++) {
                double same = 0, exact = 0, squares = 0, magnitude = 0;
                for (size_t i = 0; i < cols; i++) {
                    const double v = (double)m.values[r * cols + i];
                    same += v * activation(u, i);
                    exact += v * (double)x[i];
                    squares += v * (double)x[i] * v * (double)x[i];
                    magnitude += fabs(v * activation(u, i));
                }
                /* Types with minimums take the difference of two sums, each larger than the result. */
                if (fabs((double)want[r] - same) > 4e-6 * magnitude)
                    fail_msg("%s, %zu columns: %.9g, not %.9g", codec->name, cols, (double)want[r], same);
                noise += ((double)want[r] - exact) * ((double)want[r] - exact);
                size += squares; /* of a random sum: the square that is expected */
            }
            if (noise > NOISE * NOISE * size)
                fail_msg("%s, %zu columns: %.3g of noise", codec->name, cols, sqrt(noise / size));
            drop(&m);
            free(x), free(u);
        }
    }
    assert_int_equal(n_types, 26);
    tms_cpu_force(TMS_CPU_AVX512);
}

static void products_of_integers_are_exact_up_to_their_sum(void **state)
{
    (void)state;
    enum { UNITS = 3, COLS = UNITS * 256, ROWS = 5, LD = COLS + 256 };
    uint64_t seed = 9;
    static int16_t values[ROWS * LD];
    static float scales[ROWS * LD / TMS_CODED_BLOCK];
    float *x = activations(COLS, &seed), want[ROWS * TMS_CODED_LANES], lanes[ROWS * TMS_CODED_LANES];
    for (size_t i = 0; i < ROWS * LD; i++)
        values[i] = (int16_t)(i % 97 == 0 ? (i % 2 ? TMS_CODED_MOST : -TMS_CODED_MOST) : 4000 * random_normal(&seed));
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) scales[i] = 0.01f * random_normal(&seed);
    struct tms_rounded_unit *u = rounded(x, 1, COLS);
    for (size_t l = 0; l < N_LEVELS; l++) {
        tms_cpu_force(levels[l]);
        memset(lanes, 0, sizeof lanes);
        tms_coded_rows(values, scales, LD, ROWS, u, 1, lanes);
        tms_coded_rows(values + 256, scales + 16, LD, ROWS, u + 1, UNITS - 1, lanes);
        if (l == 0) memcpy(want, lanes, sizeof want);
        assert_same_bytes(lanes, want, sizeof want, tms_cpu_name(levels[l]));
    }
    for (size_t r = 0; r < ROWS; r++) {
        double sum = 0, size = 0;
        for (size_t i = 0; i < COLS; i++) {
            double product = (double)values[r * LD + i] * (double)scales[(r * LD + i) / 16] * activation(u, i);
            sum += product;
            size += fabs(product);
        }
        float got = tms_coded_sum(want + r * TMS_CODED_LANES);
        if (fabs((double)got - sum) > 1e-6 * size) fail_msg("row %zu: %.9g, not %.9g", r, (double)got, sum);
    }
    free(x), free(u);
    tms_cpu_force(TMS_CPU_AVX512);
}

static void codes_become_the_same_integers_at_every_level(void **state)
{
    (void)state;
    enum { N = 32 * 5 + 14 };
    uint8_t bytes[N], codes[N];
    int16_t book[16], values[N];
    for (int i = 0; i < N; i++) bytes[i] = (uint8_t)(i * 151 + 7);
    for (int i = 0; i < 16; i++) book[i] = (int16_t)(i * 4321 - 32767);
    for (size_t l = 0; l < N_LEVELS; l++) {
        tms_cpu_force(levels[l]);
        tms_pairs_unpack(bytes, true, codes, N);
        for (int i = 0; i < N; i++) assert_int_equal(codes[i], i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4);
        tms_coded_lookup(book, bytes, values, N);
        for (int i = 0; i < N; i++) assert_int_equal(values[i], book[bytes[i] & 15]);
        tms_coded_integers(bytes, 200, values, N);
        for (int i = 0; i < N; i++) assert_int_equal(values[i], bytes[i] - 200);
        tms_coded_signed(bytes, values, N);
        for (int i = 0; i < N; i++) assert_int_equal(values[i], (int8_t)bytes[i]);
    }
    tms_cpu_force(TMS_CPU_AVX512);
}

static void tiles_of_many_tokens_give_what_rows_give(void **state)
{
    (void)state;
    if (!tms_rounded_tiles()) skip();
    enum { COLS = 768 + 32, WIDE = 768, ROWS = 32, TOKENS = 15, STRIDE = 40 };
    const struct tms_codec *codec;
    uint64_t seed = 3;
    float *x = activations((size_t)TOKENS * COLS, &seed), y[TOKENS * STRIDE], one[ROWS];
    void *scratch = aligned_alloc(64, TMS_ROUNDED_SCRATCH);
    for (size_t c = 0; (codec = tms_codec_at(c)) != NULL; c++) {
        const struct tms_rounded_codec *fast = tms_rounded_codec(codec->id);
        if (!fast) continue;
        const size_t cols = COLS % codec->block_elems ? WIDE : COLS;
        struct matrix m = matrix(codec, ROWS, cols, &seed);
        struct tms_rounded_unit *u = rounded(x, TOKENS, cols);
        for (size_t n_rows = 1; n_rows <= ROWS; n_rows += n_rows == 1 ? 15 : 8)
            for (size_t n = 1; n <= TOKENS; n += 7) {
                for (size_t i = 0; i < TOKENS * STRIDE; i++) y[i] = -77;
                tms_rounded_tile(fast, m.blocks, m.row_bytes, n_rows, cols, u, tms_units(cols), n, y, STRIDE, scratch);
                for (size_t t = 0; t < TOKENS; t++) {
                    double size = 0;
                    tms_rounded_rows(fast, m.blocks, m.row_bytes, n_rows, cols, u + t * tms_units(cols), one);
                    for (size_t i = 0; i < cols; i++) size += fabs((double)m.values[i] * (double)x[t * cols + i]);
                    for (size_t r = 0; r < STRIDE; r++) {
                        float want = t < n && r < n_rows ? one[r] : -77, got = y[t * STRIDE + r];
                        if (fabs((double)got - (double)want) > (t < n && r < n_rows ? 1e-5 * size : 0))
                            fail_msg("%s, token %zu of %zu, row %zu of %zu: %g, not %g", codec->name, t, n, r, n_rows,
                                     (double)got, (double)want);
                    }
                }
            }
        drop(&m);
        free(u);
    }
    free(x), free(scratch);
}

static void activations_that_are_not_finite_are_seen_in_results(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    uint64_t seed = 4;
    struct matrix m = matrix(tms_codec(TMS_Q4_K), 1, 512, &seed);
    for (size_t k = 0; k < 3; k++)
        for (size_t l = 0; l < N_LEVELS; l++) {
            float *x = activations(512, &seed), y;
            x[300] = bad[k];
            tms_cpu_force(levels[l]);
            struct tms_rounded_unit *u = rounded(x, 1, 512);
            tms_rounded_rows(tms_rounded_codec(TMS_Q4_K), m.blocks, m.row_bytes, 1, 512, u, &y);
            assert_false(isfinite(y));
            free(x), free(u);
        }
    drop(&m);
    tms_cpu_force(TMS_CPU_AVX512);
}

static void stored_floats_are_multiplied_with_the_sums_of_dots(void **state)
{
    (void)state;
    static const enum tms_type types[] = {TMS_F16, TMS_BF16, TMS_F32};
    static const size_t widths[] = {16, 64, 1024, 2049, 1500, 7};
    enum { ROWS = 3 };
    uint64_t seed = 5;
    for (size_t k = 0; k < 3; k++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (size_t l = 0; l < N_LEVELS; l++) {
                const size_t cols = widths[w], padded = tms_padded(cols);
                tms_cpu_force(levels[l]);
                if (!tms_halves_fit(types[k])) continue;
                struct matrix m = matrix(tms_codec(types[k]), ROWS, cols, &seed);
                float *x = calloc(padded, sizeof *x), *row = calloc(padded, sizeof *row), y[ROWS];
                for (size_t i = 0; i < cols; i++) x[i] = random_normal(&seed);
                tms_halves_rows(types[k], m.blocks, ROWS, cols, x, y);
                for (size_t r = 0; r < ROWS; r++) {
                    memcpy(row, m.values + r * cols, cols * sizeof *row);
                    float want = tms_dot(x, row, padded);
                    assert_same_bytes(y + r, &want, sizeof want, "stored floats");
                }
                free(x), free(row);
                drop(&m);
            }
    tms_cpu_force(TMS_CPU_AVX512);
}

/* Three layers of one input and one of another, as a mixture's experts are, by n_threads threads. */
static float *run_layers(struct matrix *m, const float *bias, const float *x, size_t n, unsigned n_threads)
{
    enum { JOBS = 4 };
    const size_t cols = m[0].cols, stride = tms_row_stride(cols);
    struct tms_tensor tensors[JOBS];
    struct tms_weight weights[JOBS];
    struct tms_linear_job jobs[JOBS];
    struct tms_linear_fast fast = {0};
    struct tms_pool *pool;
    struct tms_error err;
    float *y = calloc(JOBS * n * 100, sizeof *y);
    for (size_t i = 0; i < JOBS; i++) {
        tensors[i] = (struct tms_tensor){.type = m[i].codec->id, .scale = TMS_NO_SCALE};
        weights[i] = (struct tms_weight){.tensor = &tensors[i], .rows = 90, .cols = cols, .data = m[i].blocks};
        tms_weight_part(&weights[i], 10, 90);
        jobs[i] = (struct tms_linear_job){.weight = &weights[i],
                                          .bias = i ? NULL : bias,
                                          .x = i == 3 ? x + n * stride : x,
                                          .x_stride = stride,
                                          .n = i == 3 ? 1 : n,
                                          .y = y + i * n * 100,
                                          .y_stride = 100};
    }
    assert_ok(tms_pool_create(&pool, n_threads, &err), err);
    float *scratch = calloc((size_t)TMS_LINEAR_SCRATCH * tms_pool_threads(pool), sizeof *scratch);
    assert_ok(tms_linear_run(pool, jobs, JOBS, scratch, &fast, &err), err);
    tms_linear_fast_free(&fast);
    tms_pool_free(pool);
    free(scratch);
    return y;
}

static void layers_give_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 3, 8, 33};
    enum { COLS = 512, TOKENS = 33 };
    uint64_t seed = 6;
    struct matrix m[] = {matrix(tms_codec(TMS_Q4_K), 100, COLS, &seed), matrix(tms_codec(TMS_F16), 100, COLS, &seed),
                         matrix(tms_codec(TMS_Q6_K), 100, COLS, &seed), matrix(tms_codec(TMS_Q8_0), 100, COLS, &seed)};
    const size_t stride = tms_row_stride(COLS);
    float *x = activations((TOKENS + 1) * stride, &seed), *bias = activations(90, &seed);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        const size_t n = counts[c];
        float *one = run_layers(m, bias, x, n, 1), *three = run_layers(m, bias, x, n, 3);
        assert_same_bytes(three, one, 4 * n * 100 * sizeof *one, "layers");
        for (size_t i = 0; i < 4; i++)
            for (size_t t = 0; t < (i == 3 ? 1 : n); t++)
                for (size_t r = 0; r < 90; r++) {
                    const float *row = m[i].values + (10 + r) * COLS, *from = x + (i == 3 ? n : t) * stride;
                    double want = i ? 0 : (double)bias[r];
                    for (size_t k = 0; k < COLS; k++) want += (double)row[k] * (double)from[k];
                    if (fabs((double)one[(i * n + t) * 100 + r] - want) > 0.15)
                        fail_msg("layer %zu, token %zu, row %zu: %g, not %g", i, t, r,
                                 (double)one[(i * n + t) * 100 + r], want);
                }
        free(one), free(three);
    }
    for (size_t i = 0; i < 4; i++) drop(&m[i]);
    free(x), free(bias);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_are_rounded_to_nearest_in_blocks_of_32),
        cmocka_unit_test(products_are_those_of_decoded_weights_at_every_level),
        cmocka_unit_test(products_of_integers_are_exact_up_to_their_sum),
        cmocka_unit_test(codes_become_the_same_integers_at_every_level),
        cmocka_unit_test(tiles_of_many_tokens_give_what_rows_give),
        cmocka_unit_test(activations_that_are_not_finite_are_seen_in_results),
        cmocka_unit_test(stored_floats_are_multiplied_with_the_sums_of_dots),
        cmocka_unit_test(layers_give_the_same_bits_for_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

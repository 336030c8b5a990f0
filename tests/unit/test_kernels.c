/* The arithmetic under the engine: dot products, exponentials, rotation. */
#include "support.h"

#include <float.h>
#include <math.h>

#include "base/cpu.h"
#include "engine/kernels/dots.h"
#include "engine/kernels/vector.h"
#include "engine/linear.h"
#include "engine/rope.h"

static const enum tms_cpu levels[] = {TMS_CPU_SCALAR, TMS_CPU_AVX2, TMS_CPU_AVX512};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

static float *normals(size_t n, uint64_t *seed)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_normal(seed);
    return x;
}

static void dots_are_the_same_bits_at_every_level_and_near_the_exact_sum(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {/* rows of x, rows of w, k */
                                       {1, 1, 16},  {1, 7, 64},  {2, 5, 1024}, {5, 5, 512},
                                       {11, 3, 96}, {7, 41, 32}, {200, 6, 48}, {13, 13, 0}};
    uint64_t seed = 1;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2], ld = k + 16;
        float *x = normals(m * ld, &seed), *w = normals(n * ld, &seed), *first = normals(m * n, &seed);
        float *want = NULL, *got = malloc(m * n * sizeof *got);
        for (int add = 0; add < 2; add++) {
            for (size_t i = 0; i < N_LEVELS; i++) {
                tms_cpu_force(levels[i]);
                memcpy(got, first, m * n * sizeof *got);
                tms_dots(x, ld, m, w, ld, n, k, got, n, add);
                if (i == 0) {
                    want = malloc(m * n * sizeof *want);
                    memcpy(want, got, m * n * sizeof *want);
                }
                assert_same_bytes(got, want, m * n * sizeof *got, "dots");
            }
            for (size_t a = 0; a < m; a++)
                for (size_t b = 0; b < n; b++) {
                    double exact = add ? (double)first[a * n + b] : 0, size = 0;
                    for (size_t c = 0; c < k; c++) {
                        exact += (double)x[a * ld + c] * (double)w[b * ld + c];
                        size += fabs((double)x[a * ld + c] * (double)w[b * ld + c]);
                    }
                    assert_true(fabs((double)got[a * n + b] - exact) <= 1e-6 * (size + 1));
                }
            free(want);
        }
        free(x), free(w), free(first), free(got);
    }
    tms_cpu_force(TMS_CPU_AVX512);
}

static void one_dot_is_what_padded_rows_give(void **state)
{
    (void)state;
    uint64_t seed = 2;
    static const size_t lengths[] = {1, 15, 16, 17, 100, 1024, 1025, 2047, 3000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = lengths[i], padded = tms_padded(n);
        float *x = calloc(padded, sizeof *x), *y = calloc(padded, sizeof *y), sum = 0;
        for (size_t k = 0; k < n; k++) x[k] = random_normal(&seed), y[k] = random_normal(&seed);
        for (size_t k = 0; k < padded; k += TMS_DOT_PIECE)
            tms_dots(x + k, 0, 1, y + k, 0, 1, padded - k < TMS_DOT_PIECE ? padded - k : TMS_DOT_PIECE, &sum, 1, k > 0);
        float got = tms_dot(x, y, n);
        assert_same_bytes(&got, &sum, sizeof got, "dot");
        free(x), free(y);
    }
}

static void weighted_sums_are_the_same_bits_at_every_level(void **state)
{
    (void)state;
    uint64_t seed = 3;
    static const size_t shapes[][3] = {{1, 1, 16}, {6, 64, 64}, {13, 17, 80}, {96, 64, 128}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t m = shapes[s][0], n = shapes[s][1], c = shapes[s][2];
        float *p = normals(m * n, &seed), *v = normals(n * c, &seed), *first = normals(m * c, &seed);
        float *want = malloc(m * c * sizeof *want), *got = malloc(m * c * sizeof *got);
        for (size_t i = 0; i < N_LEVELS; i++) {
            tms_cpu_force(levels[i]);
            memcpy(got, first, m * c * sizeof *got);
            tms_weighted_sums(p, n, m, v, c, n, c, got, c);
            if (i == 0) memcpy(want, got, m * c * sizeof *want);
            assert_same_bytes(got, want, m * c * sizeof *got, "weighted sums");
        }
        free(p), free(v), free(first), free(want), free(got);
    }
    tms_cpu_force(TMS_CPU_AVX512);
}

static void exponentials_are_within_two_units_in_the_last_place(void **state)
{
    (void)state;
    enum { N = 200003 };
    float *x = malloc(N * sizeof *x), *want = malloc(N * sizeof *want), *got = malloc(N * sizeof *got);
    for (size_t i = 0; i < N; i++) x[i] = -86.5f + 175.0f * (float)i / N;
    for (size_t i = 0; i < N_LEVELS; i++) {
        tms_cpu_force(levels[i]);
        tms_exps(x, 0, got, N);
        if (i == 0) memcpy(want, got, N * sizeof *want);
        assert_same_bytes(got, want, N * sizeof *got, "exponentials");
    }
    for (size_t i = 0; i < N; i++) {
        double exact = exp((double)x[i]);
        if (fabs((double)got[i] - exact) > 2 * FLT_EPSILON * exact)
            fail_msg("e^%.9g is %.9g, exactly %.9g", (double)x[i], (double)got[i], exact);
    }
    const float edges[] = {0, -0.0f, -100, -INFINITY, 88.7f, NAN, -86.7f};
    float out[7];
    tms_exps(edges, 0, out, 7);
    assert_true(out[0] == 1 && out[1] == 1 && out[2] == 0 && out[3] == 0 && out[6] == 0);
    assert_true(isfinite(out[4]) && isnan(out[5]));
    free(x), free(want), free(got);
    tms_cpu_force(TMS_CPU_AVX512);
}

static void turning_by_hadamard_is_its_own_inverse_at_every_level(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{64, 64}, {96, 32}, {80, 16}, {512, 512}, {6, 2}, {5, 1}, {128, 128}};
    uint64_t seed = 6;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s][0], block = sizes[s][1];
        float *x = normals(n, &seed), *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
        for (size_t i = 0; i < N_LEVELS; i++) {
            tms_cpu_force(levels[i]);
            memcpy(got, x, n * sizeof *got);
            tms_hadamard(got, n, block);
            if (i == 0) memcpy(want, got, n * sizeof *want);
            assert_same_bytes(got, want, n * sizeof *got, "turned");
        }
        for (size_t i = 0; i < n; i++) { /* row i of H: the sign is the parity of the bits that i and j share */
            double sum = 0;
            for (size_t j = 0; j < block; j++)
                sum += (__builtin_popcountll(i % block & j) % 2 ? -1.0 : 1.0) * (double)x[i / block * block + j];
            assert_true(fabs((double)got[i] - sum / sqrt((double)block)) < 1e-5);
        }
        tms_hadamard(got, n, block);
        for (size_t i = 0; i < n; i++) assert_true(fabsf(got[i] - x[i]) < 1e-5f);
        free(x), free(want), free(got);
    }
    tms_cpu_force(TMS_CPU_AVX512);
}

static void turning_neighbours_is_turning_halves_of_permuted_heads(void **state)
{
    (void)state;
    enum { HALF = 16 };
    uint64_t seed = 5;
    float halves[2 * HALF], neighbours[2 * HALF], cosines[HALF], sines[HALF], frequencies[HALF];
    for (size_t i = 0; i < HALF; i++) frequencies[i] = powf(10000, -(float)i / HALF);
    tms_rope_angles(frequencies, HALF, 1, 7, 1, cosines, sines);
    for (size_t i = 0; i < HALF; i++) {
        halves[i] = neighbours[2 * i] = random_normal(&seed);
        halves[i + HALF] = neighbours[2 * i + 1] = random_normal(&seed);
    }
    double angle = 7 * pow(10000, -3.0 / HALF), a = (double)halves[3], b = (double)halves[3 + HALF];
    tms_rope_turn(halves, HALF, TMS_ROPE_HALVES, cosines, sines);
    tms_rope_turn(neighbours, HALF, TMS_ROPE_NEIGHBOURS, cosines, sines);
    for (size_t i = 0; i < HALF; i++) {
        assert_true(halves[i] == neighbours[2 * i]);
        assert_true(halves[i + HALF] == neighbours[2 * i + 1]);
    }
    assert_true(fabs((double)halves[3] - (a * cos(angle) - b * sin(angle))) < 1e-6);
    assert_true(fabs((double)halves[3 + HALF] - (b * cos(angle) + a * sin(angle))) < 1e-6);
}

/* transformers' formulas, for one frequency each, by hand. */
static void scalings_change_frequencies_as_published(void **state)
{
    (void)state;
    struct tms_error err;
    float plain[32], scaled[32], factor;
    struct tms_config c = {.head_dim = 64, .context = 4096, .rope = {.theta = 10000}};
    assert_ok(tms_rope_frequencies(&c, false, NULL, 100, plain, &factor, &err), err);
    assert_true(plain[0] == 1 && factor == 1);
    c.rope.kind = TMS_ROPE_LINEAR, c.rope.factor = 4;
    assert_ok(tms_rope_frequencies(&c, false, NULL, 100, scaled, &factor, &err), err);
    for (size_t i = 0; i < 32; i++) assert_true(scaled[i] == plain[i] / 4);
    c.rope.kind = TMS_ROPE_DYNAMIC;
    assert_ok(tms_rope_frequencies(&c, false, NULL, 4096, scaled, &factor, &err), err);
    for (size_t i = 0; i < 32; i++) assert_true(scaled[i] == plain[i]);
    assert_ok(tms_rope_frequencies(&c, false, NULL, 8192, scaled, &factor, &err), err);
    double base = 10000 * pow(4 * 8192 / 4096.0 - 3, 64 / 62.0);
    assert_true(fabs((double)scaled[16] * sqrt(base) - 1) < 1e-6);
    c.rope.kind = TMS_ROPE_YARN, c.rope.original_context = 1024;
    assert_ok(tms_rope_frequencies(&c, false, NULL, 100, scaled, &factor, &err), err);
    assert_true(fabs((double)factor - (0.1 * log(4) + 1)) < 1e-6);
    assert_true(scaled[0] == plain[0] && scaled[31] == plain[31] / 4);
    c.rope.kind = TMS_ROPE_OTHER;
    snprintf(c.rope.name, sizeof c.rope.name, "longrope");
    assert_int_equal(tms_rope_frequencies(&c, false, NULL, 100, scaled, &factor, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "longrope"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dots_are_the_same_bits_at_every_level_and_near_the_exact_sum),
        cmocka_unit_test(one_dot_is_what_padded_rows_give),
        cmocka_unit_test(weighted_sums_are_the_same_bits_at_every_level),
        cmocka_unit_test(exponentials_are_within_two_units_in_the_last_place),
        cmocka_unit_test(turning_by_hadamard_is_its_own_inverse_at_every_level),
        cmocka_unit_test(turning_neighbours_is_turning_halves_of_permuted_heads),
        cmocka_unit_test(scalings_change_frequencies_as_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

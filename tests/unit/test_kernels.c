/* The arithmetic under the engine: dot products, exponentials, attention, rotation. */
#include "support.h"

#include <float.h>
#include <math.h>

#include "base/cpu.h"
#include "engine/attention.h"
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

struct attention_case {
    size_t n_heads, n_kv, d, n_seqs, n, start, window;
    enum tms_type type;
};

static const struct attention_case attention_cases[] = {{4, 2, 32, 1, 150, 0, 0, TMS_F32},
                                                        {4, 2, 32, 2, 70, 0, 33, TMS_F32},
                                                        {3, 1, 20, 1, 9, 60, 0, TMS_F32},
                                                        {8, 8, 64, 1, 1, 200, 0, TMS_F32},
                                                        {6, 2, 80, 1, 64, 64, 100, TMS_F16}};

/* softmax(q kT * scale) v in f64, a query at a time, from the values that the cache holds. */
static void reference_attention(const struct attention_case *c, const struct tms_cache *cache, const float *q,
                                double *out)
{
    size_t total = c->start + c->n;
    float *key = malloc(c->d * sizeof *key), *value = malloc(c->d * sizeof *value);
    double *score = malloc(total * sizeof *score);
    for (size_t row = 0; row < c->n_seqs * c->n; row++)
        for (size_t h = 0; h < c->n_heads; h++) {
            size_t seq = row / c->n, position = c->start + row % c->n, kv = h / (c->n_heads / c->n_kv);
            size_t first = c->window && position + 1 > c->window ? position + 1 - c->window : 0;
            double top = -INFINITY, sum = 0, *o = out + (row * c->n_heads + h) * c->d;
            for (size_t p = first; p <= position; p++) {
                cache->codec->decode(tms_cache_key(cache, 0, seq, kv, p), key, c->d);
                score[p] = 0;
                for (size_t i = 0; i < c->d; i++)
                    score[p] += (double)q[(row * c->n_heads + h) * c->d + i] * (double)key[i];
                score[p] *= 0.25;
                top = score[p] > top ? score[p] : top;
            }
            for (size_t i = 0; i < c->d; i++) o[i] = 0;
            for (size_t p = first; p <= position; p++) {
                double weight = exp(score[p] - top);
                sum += weight;
                cache->codec->decode(tms_cache_value(cache, 0, seq, kv, p), value, c->d);
                for (size_t i = 0; i < c->d; i++) o[i] += weight * (double)value[i];
            }
            for (size_t i = 0; i < c->d; i++) o[i] /= sum;
        }
    free(key), free(value), free(score);
}

static void attention_is_the_softmax_of_all_scores(void **state)
{
    (void)state;
    uint64_t seed = 4;
    struct tms_error err;
    for (size_t s = 0; s < sizeof attention_cases / sizeof *attention_cases; s++) {
        const struct attention_case *c = &attention_cases[s];
        size_t total = c->start + c->n, width = c->n_heads * c->d, rows = c->n_seqs * c->n;
        struct tms_cache *cache;
        struct tms_pool *pools[2];
        assert_ok(tms_cache_create(&cache, c->type, 1, c->n_seqs, c->n_kv, total, c->d, c->d, &err), err);
        float *row = malloc(c->d * sizeof *row), *q = normals(rows * width, &seed);
        for (size_t i = 0; i < c->n_seqs * c->n_kv * total; i++)
            for (int value = 0; value < 2; value++) {
                for (size_t k = 0; k < c->d; k++) row[k] = random_normal(&seed);
                cache->codec->encode(row, (value ? cache->values : cache->keys) + i * cache->key_bytes, c->d);
            }
        double *want = malloc(rows * width * sizeof *want);
        float *got = malloc(rows * width * sizeof *got), *before = malloc(rows * width * sizeof *before);
        reference_attention(c, cache, q, want);
        for (size_t i = 0; i < 2 * N_LEVELS; i++) {
            assert_ok(tms_pool_create(&pools[i % 2], i % 2 ? 3 : 1, &err), err);
            float *scratch_memory =
                malloc(3 * tms_attention_scratch(c->n_heads, c->n_kv, c->d, c->d) * sizeof *scratch_memory);
            struct tms_attention a = {.cache = cache,
                                      .n_seqs = c->n_seqs,
                                      .n = c->n,
                                      .start = c->start,
                                      .n_heads = c->n_heads,
                                      .window = c->window,
                                      .scale = 0.25f,
                                      .q = q,
                                      .q_stride = width,
                                      .q_head = c->d,
                                      .out = got,
                                      .out_stride = width,
                                      .out_head = c->d,
                                      .scratch = scratch_memory};
            tms_cpu_force(levels[i / 2]);
            assert_ok(tms_attention_run(pools[i % 2], &a, &err), err);
            if (i == 0) memcpy(before, got, rows * width * sizeof *got);
            assert_same_bytes(got, before, rows * width * sizeof *got, "attention");
            tms_pool_free(pools[i % 2]);
            free(scratch_memory);
        }
        for (size_t i = 0; i < rows * width; i++)
            if (fabs((double)got[i] - want[i]) > 2e-6)
                fail_msg("case %zu: %zu: %g, not %g", s, i, (double)got[i], want[i]);
        free(row), free(q), free(want), free(got), free(before);
        tms_cache_free(cache);
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

static void caches_of_other_types_are_refused(void **state)
{
    (void)state;
    struct tms_error err;
    enum tms_type type = TMS_TYPE_NONE;
    assert_ok(tms_cache_type("F16", &type, &err), err);
    assert_int_equal(type, TMS_F16);
    assert_int_equal(tms_cache_type("q5_k", &type, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "q5_k"));
    assert_int_equal(tms_cache_type("", &type, &err), TMS_EINPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dots_are_the_same_bits_at_every_level_and_near_the_exact_sum),
        cmocka_unit_test(one_dot_is_what_padded_rows_give),
        cmocka_unit_test(weighted_sums_are_the_same_bits_at_every_level),
        cmocka_unit_test(exponentials_are_within_two_units_in_the_last_place),
        cmocka_unit_test(attention_is_the_softmax_of_all_scores),
        cmocka_unit_test(turning_neighbours_is_turning_halves_of_permuted_heads),
        cmocka_unit_test(scalings_change_frequencies_as_published),
        cmocka_unit_test(caches_of_other_types_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

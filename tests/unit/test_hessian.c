/* Hessians and their factors. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "base/threads.h"
#include "method/cholesky.h"
#include "method/hessian.h"

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

static float *normals(size_t n, uint64_t *seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_normal(seed);
    return x;
}

/* A Hessian of n channels, some stronger than others and all related, from n_tokens tokens. */
static struct tms_hessian *random_hessian(size_t n, size_t n_tokens, uint64_t seed, struct tms_pool *pool)
{
    float *x = normals(n * n_tokens, &seed);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t c = 1; c < n; c++)
            x[t * n + c] = (x[t * n + c] + 0.5f * x[t * n + c - 1]) * (c % 7 == 3 ? 4.0f : 1.0f);
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_create(&hessian, n, &err), err);
    assert_ok(tms_hessian_add(hessian, x, n, n_tokens, pool, &err), err);
    assert_ok(tms_hessian_finish(hessian, pool, &err), err);
    free(x);
    return hessian;
}

static void hessian_is_twice_the_mean_of_products(void **state)
{
    (void)state;
    enum { N = 37, TOKENS = 1100 };
    uint64_t seed = 5;
    float *x = normals((size_t)N * TOKENS, &seed);
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_create(&hessian, N, &err), err);
    assert_ok(tms_hessian_add(hessian, x, N, TOKENS, one, &err), err);
    assert_ok(tms_hessian_finish(hessian, one, &err), err);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0;
            for (size_t t = 0; t < TOKENS; t++) sum += (double)x[t * N + i] * (double)x[t * N + j];
            assert_true(fabs((double)hessian->h[i * hessian->ld + j] - 2 * sum / TOKENS) < 2e-6);
        }
    tms_hessian_free(hessian);
    free(x);
}

static void hessian_is_the_same_bits_however_tokens_come(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    enum { N = 150, TOKENS = 1300 };
    uint64_t seed = 6;
    float *x = normals((size_t)N * TOKENS, &seed);
    struct tms_hessian *first = NULL;
    for (size_t round = 0; round < 2 * sizeof levels / sizeof *levels; round++) {
        tms_cpu_force(levels[round / 2]);
        struct tms_hessian *hessian;
        assert_ok(tms_hessian_create(&hessian, N, &err), err);
        for (size_t t = 0, n; t < TOKENS; t += n) {
            n = 1 + next_random(&seed) % 600;
            if (n > TOKENS - t) n = TOKENS - t;
            assert_ok(tms_hessian_add(hessian, x + t * N, N, n, round % 2 ? many : one, &err), err);
        }
        assert_ok(tms_hessian_finish(hessian, many, &err), err);
        if (!first) {
            first = hessian;
            continue;
        }
        assert_same_bytes(hessian->h, first->h, N * hessian->ld * sizeof(float), "hessian");
        tms_hessian_free(hessian);
    }
    tms_cpu_force(levels[sizeof levels / sizeof *levels - 1]);
    tms_hessian_free(first);
    free(x);
}

static void hessian_refuses_inputs_that_are_no_numbers(void **state)
{
    (void)state;
    float x[2][3] = {{1, 2, 3}, {1, NAN, 2}};
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_create(&hessian, 3, &err), err);
    assert_int_equal(tms_hessian_add(hessian, x[0], 3, 2, one, &err), TMS_EINPUT);
    assert_string_equal(err.message, "the input of token 1 is not finite in channel 1");
    assert_int_equal(hessian->n_tokens, 0);
    tms_hessian_free(hessian);
}

static void half_stored_hessian_comes_back_exactly(void **state)
{
    (void)state;
    struct tms_hessian *hessian = random_hessian(45, 60, 7, one), *back;
    float *triangle = malloc(tms_hessian_packed(45) * sizeof *triangle);
    tms_hessian_pack(hessian, triangle);
    assert_ok(tms_hessian_unpack(&back, triangle, 45, &err), err);
    assert_same_bytes(back->h, hessian->h, 45 * back->ld * sizeof(float), "hessian");
    free(triangle);
    tms_hessian_free(hessian);
    tms_hessian_free(back);
}

static const size_t sizes[] = {1, 15, 64, 65, 200, 333};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void cholesky_factor_gives_the_matrix_back(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct tms_hessian *h = random_hessian(n, 3 * n, s, one), *l = random_hessian(n, 3 * n, s, one);
        assert_ok(tms_cholesky(l->h, n, l->ld, many, &err), err);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double sum = 0;
                for (size_t k = 0; k < n; k++) sum += (double)l->h[i * l->ld + k] * (double)l->h[j * l->ld + k];
                assert_true(fabs(sum - (double)h->h[i * h->ld + j]) < 1e-4);
                if (j > i) assert_true(l->h[i * l->ld + j] == 0);
            }
        tms_hessian_free(h);
        tms_hessian_free(l);
    }
}

static void inverse_and_its_factor_multiply_to_one(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct tms_hessian *h = random_hessian(n, 3 * n, s, one), *inverse = random_hessian(n, 3 * n, s, one);
        struct tms_hessian *u = random_hessian(n, 3 * n, s, one);
        assert_ok(tms_positive_inverse(inverse->h, n, h->ld, many, &err), err);
        assert_ok(tms_inverse_factor(u->h, n, h->ld, many, &err), err);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double one_of = 0, of_factor = 0;
                for (size_t k = 0; k < n; k++) {
                    one_of += (double)h->h[i * h->ld + k] * (double)inverse->h[k * h->ld + j];
                    of_factor += (double)u->h[k * h->ld + i] * (double)u->h[k * h->ld + j];
                }
                assert_true(fabs(one_of - (i == j)) < 2e-3);
                assert_true(fabs(of_factor - (double)inverse->h[i * h->ld + j]) < 2e-4);
                if (j < i) assert_true(u->h[i * h->ld + j] == 0);
            }
        tms_hessian_free(h);
        tms_hessian_free(inverse);
        tms_hessian_free(u);
    }
}

static void factors_are_the_same_bits_on_every_machine(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    float *first = NULL;
    for (size_t round = 0; round < 2 * sizeof levels / sizeof *levels; round++) {
        struct tms_hessian *u = random_hessian(333, 400, 9, one);
        tms_cpu_force(levels[round / 2]);
        assert_ok(tms_inverse_factor(u->h, 333, u->ld, round % 2 ? many : one, &err), err);
        if (!first) {
            first = u->h;
            u->h = NULL;
        } else {
            assert_same_bytes(u->h, first, 333 * u->ld * sizeof(float), "factor");
        }
        tms_hessian_free(u);
    }
    tms_cpu_force(levels[sizeof levels / sizeof *levels - 1]);
    free(first);
}

static void cholesky_refuses_what_is_not_positive_definite(void **state)
{
    (void)state;
    struct tms_hessian *h = random_hessian(70, 200, 3, one);
    h->h[66 * h->ld + 66] = 0;
    assert_int_equal(tms_cholesky(h->h, 70, h->ld, one, &err), TMS_EINPUT);
    assert_string_equal(err.message, "a matrix of 70 columns is not positive definite (columns 64 to 69)");
    tms_hessian_free(h);
    h = random_hessian(70, 200, 3, one);
    h->h[3 * h->ld + 2] = NAN;
    assert_int_equal(tms_cholesky(h->h, 70, h->ld, one, &err), TMS_EINPUT);
    tms_hessian_free(h);
}

static void shrinking_damps_each_channel_by_its_own_size_and_once(void **state)
{
    (void)state;
    float entries[9] = {4, 1, 0, 1, 100, 0, 0, 0, 0};
    struct tms_hessian *h;
    assert_int_equal(tms_hessian_from(&h, entries, 3, &err), TMS_OK);
    for (int i = 0; i < 2; i++) assert_int_equal(tms_hessian_shrink(h, 0.25, 0, &err), TMS_OK);
    assert_true(h->h[0] == 5 && h->h[h->ld + 1] == 125);
    assert_true(h->h[1] == 1 && h->h[h->ld] == 1);
    const float unused = h->h[2 * h->ld + 2];
    assert_true(unused > 0 && unused < 1e-4F);
    tms_hessian_free(h);
    float more[9] = {2, 0, 0, 0, 8, 0, 0, 0, 400};
    assert_int_equal(tms_hessian_from(&h, more, 3, &err), TMS_OK);
    assert_int_equal(tms_hessian_shrink(h, 0.5, 0.25, &err), TMS_OK); /* the median is 8 */
    assert_true(h->h[0] == 5 && h->h[h->ld + 1] == 14 && h->h[2 * h->ld + 2] == 602);
    tms_hessian_free(h);
}

static void hessian_error_is_the_quadratic_form(void **state)
{
    (void)state;
    enum { N = 50, ROWS = 19 };
    uint64_t seed = 4;
    struct tms_hessian *h = random_hessian(N, 200, 3, one);
    float *a = normals(ROWS * N, &seed), *b = normals(ROWS * N, &seed);
    double want = 0, got = 0, again = 0;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++)
                want += (double)(a[r * N + i] - b[r * N + i]) * (double)h->h[i * h->ld + j] *
                        (double)(a[r * N + j] - b[r * N + j]);
    assert_ok(tms_hessian_error(h, a, b, ROWS, &got, one, &err), err);
    assert_ok(tms_hessian_error(h, a, b, ROWS, &again, many, &err), err);
    assert_true(got == again);
    assert_true(fabs(got - want) < 1e-5 * want);
    free(a), free(b);
    tms_hessian_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hessian_is_twice_the_mean_of_products),
        cmocka_unit_test(hessian_is_the_same_bits_however_tokens_come),
        cmocka_unit_test(hessian_refuses_inputs_that_are_no_numbers),
        cmocka_unit_test(half_stored_hessian_comes_back_exactly),
        cmocka_unit_test(cholesky_factor_gives_the_matrix_back),
        cmocka_unit_test(inverse_and_its_factor_multiply_to_one),
        cmocka_unit_test(factors_are_the_same_bits_on_every_machine),
        cmocka_unit_test(cholesky_refuses_what_is_not_positive_definite),
        cmocka_unit_test(shrinking_damps_each_channel_by_its_own_size_and_once),
        cmocka_unit_test(hessian_error_is_the_quadratic_form),
    };
    return cmocka_run_group_tests(tests, make_pools, free_pools);
}

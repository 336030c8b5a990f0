/* The cache of keys and values in all its types, and attention over it. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "engine/attention.h"

static struct tms_error err;
static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

static float *normals(size_t n, uint64_t *seed)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_normal(seed);
    return x;
}

static const struct tms_cache_type *type_of(const char *name)
{
    const struct tms_cache_type *type = NULL;
    assert_ok(tms_cache_type(name, &type, &err), err);
    return type;
}

/* ---- attention ----------------------------------------------------------------------------------------------------
 */

struct subject {
    const char *type;
    size_t n_heads, n_kv, key_dim, value_dim; /* value_dim < key_dim: a latent */
    size_t n_seqs, n, start;                  /* queries of a sequence, positions before them */
    size_t window, keep_first, keep_last;
    float cap;
};

static const struct subject subjects[] = {
    {"f32", 4, 2, 32, 32, 1, 150, 0, 0, 0, 0, 0},      {"f32", 4, 2, 32, 32, 2, 70, 0, 33, 0, 0, 2},
    {"f32", 3, 1, 20, 20, 1, 9, 60, 0, 0, 0, 0},       {"f32", 8, 8, 64, 64, 1, 1, 2200, 0, 0, 0, 0},
    {"f32", 2, 1, 16, 16, 1, 70, 1000, 0, 0, 0, 0},    {"f16", 6, 2, 80, 80, 1, 64, 64, 100, 0, 0, 0},
    {"bf16", 4, 4, 24, 24, 1, 10, 1020, 9, 0, 0, 0},   {"q8_0", 6, 2, 64, 64, 1, 130, 3, 0, 0, 0, 0},
    {"q8_0", 4, 2, 96, 96, 2, 3, 1100, 0, 4, 9, 30},   {"q5_0", 4, 1, 96, 96, 1, 65, 66, 0, 0, 0, 0},
    {"q4_0", 4, 2, 64, 64, 1, 130, 0, 0, 0, 0, 0},     {"q4_0", 4, 2, 64, 64, 1, 150, 1000, 0, 5, 70, 0},
    {"q4_0", 2, 2, 32, 32, 1, 1, 3000, 1500, 4, 1, 0}, {"q4_0:plain", 4, 2, 32, 32, 1, 40, 0, 0, 64, 0, 0},
    {"c8", 5, 1, 20, 20, 1, 140, 1, 0, 0, 13, 0},      {"c8", 4, 2, 64, 64, 3, 20, 30, 0, 0, 0, 0},
    {"f32", 4, 1, 56, 40, 1, 70, 0, 0, 0, 0, 0},       {"f16", 4, 1, 72, 56, 1, 20, 100, 0, 0, 0, 0},
    {"c8", 16, 1, 200, 136, 1, 70, 1000, 0, 3, 40, 0}, {"q4_0", 16, 1, 576, 512, 1, 3, 70, 0, 0, 2, 0},
    {"q8_0", 2, 1, 96, 64, 2, 20, 0, 0, 0, 0, 0},
};

static bool is_latent(const struct subject *s)
{
    return s->value_dim < s->key_dim;
}

static struct tms_cache *cache_for(const struct subject *s, size_t pass)
{
    const struct tms_cache_options options = {type_of(s->type), s->keep_first, s->keep_last};
    const struct tms_cache_shape shape = {.n_layers = 2,
                                          .n_seqs = s->n_seqs,
                                          .n_heads = s->n_kv,
                                          .capacity = s->start + s->n + 7,
                                          .key_dim = s->key_dim,
                                          .value_dim = s->value_dim,
                                          .latent = is_latent(s),
                                          .pass = pass};
    struct tms_cache *cache = NULL;
    assert_ok(tms_cache_check(&options, &shape, "a model", &err), err);
    assert_ok(tms_cache_create(&cache, &options, &shape, &err), err);
    assert_int_equal(cache->bytes, tms_cache_bytes(&options, &shape));
    return cache;
}

/* What attention should see of a row: as it comes back from the cache, turned back. */
static void as_seen(const struct tms_cache_row *row, const struct tms_cache_row *half, const float *x, float *out)
{
    uint8_t bytes[4096];
    assert_true(half->bytes <= sizeof bytes && row->bytes <= sizeof bytes);
    memcpy(out, x, row->dim * sizeof *out);
    tms_cache_turn(row, out);
    tms_cache_encode(half, out, bytes);
    tms_cache_decode(half, bytes, 1, out, row->dim);
    tms_cache_turn(row, out);
}

struct rows {
    float *keys, *values; /* [sequence][position][kv head][dim] */
};

/* Stores positions [first, first + n) of all sequences in layer 1. */
static void store(struct tms_cache *cache, const struct subject *s, const struct rows *x, size_t first, size_t n)
{
    float *key = malloc(s->key_dim * sizeof *key), *value = malloc(s->value_dim * sizeof *value);
    assert_ok(tms_cache_begin(cache, s->n_seqs, first, n, &err), err);
    for (size_t seq = 0; seq < s->n_seqs; seq++)
        for (size_t p = first; p < first + n; p++)
            for (size_t h = 0; h < s->n_kv; h++) {
                size_t at = (seq * (s->start + s->n) + p) * s->n_kv + h;
                memcpy(key, x->keys + at * s->key_dim, s->key_dim * sizeof *key);
                memcpy(value, x->values + at * s->value_dim, s->value_dim * sizeof *value);
                tms_cache_store(cache, tms_cache_head(cache, 1, seq, h), p, key, is_latent(s) ? key : value);
            }
    free(key), free(value);
}

/* All queries, `step` at a time, the positions before them stored first. */
static float *attend(const struct subject *s, const struct rows *x, const float *q, size_t step, unsigned n_threads)
{
    struct tms_cache *cache = cache_for(s, step);
    struct tms_pool *pool;
    size_t q_width = s->n_heads * s->key_dim, width = s->n_heads * s->value_dim;
    float *out = calloc(s->n_seqs * s->n * width, sizeof *out), *some_q = calloc(s->n_seqs * step, q_width * sizeof *q);
    float *some = calloc(s->n_seqs * step, width * sizeof *some);
    float *scratch_memory =
        malloc(n_threads * tms_attention_scratch(s->n_heads, s->n_kv, s->key_dim, s->value_dim) * sizeof *q);
    assert_ok(tms_pool_create(&pool, n_threads, &err), err);
    for (size_t first = 0, n; first < s->start; first += n) {
        n = s->start - first < step ? s->start - first : step;
        store(cache, s, x, first, n);
    }
    for (size_t first = 0, n; first < s->n; first += n) {
        n = s->n - first < step ? s->n - first : step;
        store(cache, s, x, s->start + first, n);
        for (size_t seq = 0; seq < s->n_seqs; seq++)
            memcpy(some_q + seq * n * q_width, q + (seq * s->n + first) * q_width, n * q_width * sizeof *q);
        const struct tms_attention a = {.cache = cache,
                                        .layer = 1,
                                        .n_seqs = s->n_seqs,
                                        .n = n,
                                        .start = s->start + first,
                                        .n_heads = s->n_heads,
                                        .window = s->window,
                                        .scale = 0.25f,
                                        .cap = s->cap,
                                        .q = some_q,
                                        .q_stride = q_width,
                                        .q_head = s->key_dim,
                                        .out = some,
                                        .out_stride = width,
                                        .out_head = s->value_dim,
                                        .scratch = scratch_memory};
        assert_ok(tms_attention_run(pool, &a, &err), err);
        for (size_t seq = 0; seq < s->n_seqs; seq++)
            memcpy(out + (seq * s->n + first) * width, some + seq * n * width, n * width * sizeof *out);
    }
    tms_pool_free(pool);
    tms_cache_free(cache);
    free(scratch_memory), free(some), free(some_q);
    return out;
}

/* Keys and values as a query sees them: [quantized, kept][sequence][position][kv head][dim]. */
static void make_seen(const struct subject *s, const struct rows *x, struct rows seen[2])
{
    struct tms_cache *cache = cache_for(s, 1);
    const struct tms_cache_type *half = type_of("f16");
    const struct tms_cache_row half_key = tms_cache_row_of(half, s->key_dim, 0);
    const struct tms_cache_row half_value = tms_cache_row_of(half, s->value_dim, 0);
    size_t n = s->n_seqs * (s->start + s->n) * s->n_kv;
    for (int kept = 0; kept < 2; kept++) {
        seen[kept].keys = malloc(n * s->key_dim * sizeof(float));
        seen[kept].values = malloc(n * s->value_dim * sizeof(float));
        for (size_t i = 0; i < n; i++) {
            float *key = seen[kept].keys + i * s->key_dim, *value = seen[kept].values + i * s->value_dim;
            as_seen(&cache->key, kept ? &half_key : &cache->key, x->keys + i * s->key_dim, key);
            if (is_latent(s))
                memcpy(value, key, s->value_dim * sizeof *value);
            else
                as_seen(&cache->value, kept ? &half_value : &cache->value, x->values + i * s->value_dim, value);
        }
    }
    tms_cache_free(cache);
}

/* softmax(cap tanh(q kT * scale / cap)) v in f64, a query at a time. */
static double *reference(const struct subject *s, const struct rows *x, const float *q)
{
    struct rows seen[2];
    size_t total = s->start + s->n;
    double *score = malloc(total * sizeof *score), *out = calloc(s->n_seqs * s->n * s->n_heads, s->value_dim * 8);
    make_seen(s, x, seen);
    for (size_t row = 0; row < s->n_seqs * s->n; row++)
        for (size_t h = 0; h < s->n_heads; h++) {
            size_t seq = row / s->n, position = s->start + row % s->n, kv = h / (s->n_heads / s->n_kv);
            size_t first = s->window && position + 1 > s->window ? position + 1 - s->window : 0;
            double top = -INFINITY, sum = 0, *o = out + (row * s->n_heads + h) * s->value_dim;
            for (size_t p = first; p <= position; p++) {
                bool kept = p < s->keep_first || p + s->keep_last > position;
                const float *key = seen[kept].keys + ((seq * total + p) * s->n_kv + kv) * s->key_dim;
                score[p] = 0;
                for (size_t i = 0; i < s->key_dim; i++)
                    score[p] += (double)q[(row * s->n_heads + h) * s->key_dim + i] * (double)key[i];
                score[p] *= 0.25;
                if (s->cap > 0) score[p] = (double)s->cap * tanh(score[p] / (double)s->cap);
                top = score[p] > top ? score[p] : top;
            }
            for (size_t p = first; p <= position; p++) {
                bool kept = p < s->keep_first || p + s->keep_last > position;
                const float *value = seen[kept].values + ((seq * total + p) * s->n_kv + kv) * s->value_dim;
                double weight = exp(score[p] - top);
                sum += weight;
                for (size_t i = 0; i < s->value_dim; i++) o[i] += weight * (double)value[i];
            }
            for (size_t i = 0; i < s->value_dim; i++) o[i] /= sum;
        }
    for (int kept = 0; kept < 2; kept++) free(seen[kept].keys), free(seen[kept].values);
    free(score);
    return out;
}

/* Whatever the type, the sizes, what is kept, how queries are cut into passes, threads and CPU. */
static void attention_is_the_softmax_of_all_scores(void **state)
{
    (void)state;
    uint64_t seed = 4;
    const enum tms_cpu own = tms_cpu_level();
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) {
        const struct subject *s = &subjects[i];
        size_t rows = s->n_seqs * (s->start + s->n) * s->n_kv, n = s->n_seqs * s->n * s->n_heads * s->value_dim;
        struct rows x = {normals(rows * s->key_dim, &seed), normals(rows * s->value_dim, &seed)};
        float *q = normals(s->n_seqs * s->n * s->n_heads * s->key_dim, &seed);
        /* as in models: some numbers of all keys are large */
        for (size_t k = 0; k < rows; k++) x.keys[k * s->key_dim + 3] += 8;
        double *want = reference(s, &x, q);
        float *first = attend(s, &x, q, s->n, 1);
        for (size_t k = 0; k < n; k++)
            if (!(fabs((double)first[k] - want[k]) <= 1e-5 * (1 + fabs(want[k]))))
                fail_msg("case %zu (%s): %zu: %g, not %g", i, s->type, k, (double)first[k], want[k]);
        const struct {
            size_t step;
            unsigned n_threads;
            enum tms_cpu level;
        } ways[] = {{s->n, 3, own}, {1, 1, own}, {1, 2, levels[0]}, {7, 2, levels[N_LEVELS / 2]}};
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            tms_cpu_force(ways[k].level);
            float *got = attend(s, &x, q, ways[k].step, ways[k].n_threads);
            tms_cpu_force(own);
            char what[96];
            snprintf(what, sizeof what, "case %zu (%s), way %zu", i, s->type, k);
            assert_same_bytes(got, first, n * sizeof *got, what);
            free(got);
        }
        free(first), free(want), free(q), free(x.keys), free(x.values);
    }
}

/* ---- rows ---------------------------------------------------------------------------------------------------------
 */

/* Root mean square of what is lost, as a share of that of the numbers. */
static double loss(const char *type, size_t dim, float outlier)
{
    const struct tms_cache_row row = tms_cache_row_of(type_of(type), dim, 0);
    const struct tms_cache_row same = row;
    uint64_t seed = 9;
    double lost = 0, all = 0;
    float *x = malloc(dim * sizeof *x), *back = malloc(dim * sizeof *back);
    for (int i = 0; i < 500; i++) {
        for (size_t k = 0; k < dim; k++) x[k] = random_normal(&seed);
        x[5] += outlier;
        as_seen(&row, &same, x, back);
        for (size_t k = 0; k < dim; k++) {
            lost += pow((double)back[k] - (double)x[k], 2);
            all += pow((double)x[k], 2);
        }
    }
    free(x), free(back);
    return sqrt(lost / all);
}

static void types_lose_what_their_bits_say(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        double least, most;
    } bounds[] = {{"f32", 0, 0},         {"f16", 1e-4, 3e-4},        {"bf16", 1e-3, 3e-3},
                  {"q8_0", 3e-3, 7e-3},  {"c8", 3e-3, 8e-3},         {"q5_0", 0.02, 0.042},
                  {"q4_0", 0.05, 0.081}, {"q5_0:plain", 0.03, 0.05}, {"q4_0:plain", 0.07, 0.1}};
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        double l = loss(bounds[i].type, 64, 0);
        print_message("%-10s %.5f of normals, %.5f with an outlier\n", bounds[i].type, l, loss(bounds[i].type, 64, 20));
        if (!(l >= bounds[i].least && l <= bounds[i].most)) fail_msg("%s: %g", bounds[i].type, l);
    }
    static const char *const turned[][2] = {{"q8_0", "q8_0:plain"}, {"q4_0", "q4_0:plain"}, {"c8", "c8:plain"}};
    for (size_t i = 0; i < 3; i++) assert_true(loss(turned[i][0], 64, 20) < 0.7 * loss(turned[i][1], 64, 20));
}

static void rows_are_the_same_bytes_at_every_level(void **state)
{
    (void)state;
    static const char *const names[] = {"f32", "f16", "bf16", "q8_0", "q5_0", "q4_0", "c8"};
    const enum tms_cpu own = tms_cpu_level();
    uint64_t seed = 12;
    for (size_t t = 0; t < sizeof names / sizeof *names; t++)
        for (int kind = -1; kind < N_STRANGE; kind++) {
            enum { DIM = 192 };
            const struct tms_cache_row row = tms_cache_row_of(type_of(names[t]), DIM, t == 6 ? 160 : 0);
            float x[DIM], back[DIM], want_back[DIM];
            uint8_t want[DIM * 4], got[DIM * 4];
            for (size_t i = 0; i < DIM; i++) x[i] = random_normal(&seed);
            if (kind >= 0) fill_strange(x, DIM, kind, &seed);
            for (size_t i = 0; i < N_LEVELS; i++) {
                tms_cpu_force(levels[i]);
                tms_cache_encode(&row, x, got);
                tms_cache_decode(&row, got, 1, back, DIM);
                if (i == 0) memcpy(want, got, row.bytes), memcpy(want_back, back, sizeof back);
                assert_same_bytes(got, want, row.bytes, names[t]);
                assert_same_bytes(back, want_back, sizeof back, names[t]);
            }
        }
    tms_cpu_force(own);
}

static void numbers_that_are_none_do_no_harm(void **state)
{
    (void)state;
    static const char *const names[] = {"q5_0", "q4_0", "c8"};
    for (size_t t = 0; t < 3; t++) {
        const struct tms_cache_row row = tms_cache_row_of(type_of(names[t]), 64, 0);
        float x[64] = {0}, back[64];
        uint8_t bytes[256];
        tms_cache_encode(&row, x, bytes);
        tms_cache_decode(&row, bytes, 1, back, 64);
        for (size_t i = 0; i < 64; i++) assert_true(back[i] == 0);
        x[3] = NAN, x[4] = 1, x[40] = INFINITY, x[41] = -INFINITY;
        tms_cache_encode(&row, x, bytes); /* only that nothing undefined is done */
        tms_cache_decode(&row, bytes, 1, back, 64);
    }
}

/* ---- memory -------------------------------------------------------------------------------------------------------
 */

static void memory_is_as_computed(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        size_t key, value, latent; /* bytes of rows of 128; of a latent of 512 + 64 */
    } sizes[] = {{"f32", 512, 512, 2304}, {"f16", 256, 256, 1152}, {"bf16", 256, 256, 1152}, {"q8_0", 136, 136, 612},
                 {"q5_0", 88, 88, 420},   {"q4_0", 72, 72, 356},   {"c8", 132, 132, 656}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct tms_cache_type *type = type_of(sizes[i].type);
        const struct tms_cache_options plain = {type, 0, 0}, keeps = {type, 4, 32};
        struct tms_cache_shape shape = {3, 2, 5, 1000, 128, 128, false, 100};
        const uint64_t rows = 3 * 2 * 5;
        assert_int_equal(tms_cache_bytes(&plain, &shape), rows * 1000 * (sizes[i].key + sizes[i].value));
        uint64_t kept = type->exact ? 0 : rows * (4 + 32 + 100) * 2 * 256;
        assert_int_equal(tms_cache_bytes(&keeps, &shape), rows * 1000 * (sizes[i].key + sizes[i].value) + kept);
        shape = (struct tms_cache_shape){3, 2, 1, 1000, 576, 512, true, 100};
        assert_int_equal(tms_cache_bytes(&plain, &shape), 3 * 2 * 1000 * sizes[i].latent);
    }
    const struct tms_cache_options f32 = {type_of("f32"), 0, 0};
    const struct tms_cache_shape huge = {SIZE_MAX, 2, 5, 1000, 128, 128, false, 100};
    struct tms_cache *cache = NULL;
    assert_true(tms_cache_bytes(&f32, &huge) == UINT64_MAX);
    assert_int_equal(tms_cache_create(&cache, &f32, &huge, &err), TMS_EIO);
    assert_non_null(strstr(err.message, "cache of 1000 positions"));
}

static void passes_without_room_are_refused(void **state)
{
    (void)state;
    const struct subject s = {"c8", 2, 1, 32, 32, 2, 10, 20, 0, 0, 5, 0};
    struct tms_cache *cache = cache_for(&s, 8);
    assert_ok(tms_cache_begin(cache, 2, 29, 8, &err), err);
    assert_int_equal(tms_cache_begin(cache, 2, 30, 8, &err), TMS_EUSAGE);
    assert_int_equal(tms_cache_begin(cache, 3, 0, 8, &err), TMS_EUSAGE);
    assert_int_equal(tms_cache_begin(cache, 1, 0, 9, &err), TMS_EUSAGE);
    tms_cache_free(cache);
}

/* ---- names and sizes ----------------------------------------------------------------------------------------------
 */

static void unknown_types_are_refused_with_a_list(void **state)
{
    (void)state;
    const struct tms_cache_type *type = NULL;
    assert_string_equal(type_of("Q8_0")->name, "q8_0");
    static const char *const names[] = {"q5_k", "", "q4_0:", "q4_0:plain ", "f16:plain", "int8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(tms_cache_type(names[i], &type, &err), TMS_EINPUT);
        assert_non_null(strstr(err.message, names[i]));
        assert_non_null(strstr(err.message, "f32, f16, bf16, q8_0, q5_0, q4_0, c8"));
        assert_null(type);
    }
}

static void sizes_that_a_type_cannot_store_are_refused(void **state)
{
    (void)state;
    struct tms_cache_shape shape = {1, 1, 1, 10, 80, 80, false, 1};
    const struct tms_cache_options q4 = {type_of("q4_0"), 0, 0}, c8 = {type_of("c8"), 0, 0};
    const struct tms_cache_options kept = {type_of("bf16"), 4, 0};
    assert_int_equal(tms_cache_check(&q4, &shape, "dir/model", &err), TMS_EINPUT);
    assert_string_equal(err.message, "dir/model: a key has 80 numbers, and a cache of q4_0 takes multiples of 32; c8, "
                                     "f16 and bf16 take any");
    assert_ok(tms_cache_check(&c8, &shape, "dir/model", &err), err);
    shape.key_dim = 64;
    assert_int_equal(tms_cache_check(&q4, &shape, "dir/model", &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "a value has 80 numbers"));
    shape = (struct tms_cache_shape){1, 1, 1, 10, 528, 512, true, 1};
    assert_int_equal(tms_cache_check(&q4, &shape, "dir/model", &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "a part of a latent key has 16 numbers"));
    assert_int_equal(tms_cache_check(&kept, &shape, "dir/model", &err), TMS_EUSAGE);
    assert_non_null(strstr(err.message, "bf16"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_the_softmax_of_all_scores),
        cmocka_unit_test(types_lose_what_their_bits_say),
        cmocka_unit_test(rows_are_the_same_bytes_at_every_level),
        cmocka_unit_test(numbers_that_are_none_do_no_harm),
        cmocka_unit_test(memory_is_as_computed),
        cmocka_unit_test(passes_without_room_are_refused),
        cmocka_unit_test(unknown_types_are_refused_with_a_list),
        cmocka_unit_test(sizes_that_a_type_cannot_store_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

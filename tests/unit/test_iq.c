/* The IQ2 and IQ3 types: their grids against a slow build, vectors against scalar code, decoders against the format. */
#include "support.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

#include "base/cpu.h"
#include "base/numbers.h"
#include "codec/iq_grids.h"
#include "tamis/codec.h"

static const enum tms_type types[] = {TMS_IQ2_XXS, TMS_IQ2_XS, TMS_IQ2_S, TMS_IQ3_XXS, TMS_IQ3_S};
enum { N_TYPES = sizeof types / sizeof types[0] };

static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* How many of the smallest distances a list of each codebook reaches. */
static const int shells[TMS_IQ_BOOKS] = {2, 2, 1, 2, 3};

/* ---- grids ---- */

/* Returns NULL if all grids are whole. */
static void *take_grids(void *unused)
{
    static int unfinished;
    for (int book = 0; book < TMS_IQ_BOOKS; book++) {
        const struct tms_iq_grid *grid = tms_iq_grid((enum tms_iq_book)book);
        if (grid->places[grid->n_places - 1].count == 0) return &unfinished;
    }
    return unused;
}

/* The first test: it meets the grids unbuilt. */
static void grids_are_built_once_in_milliseconds_by_whichever_thread_comes_first(void **state)
{
    (void)state;
    pthread_t threads[4];
    clock_t start = clock(); /* the processor's time: others may keep it busy */
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, take_grids, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *unfinished = NULL;
        assert_int_equal(pthread_join(threads[i], &unfinished), 0);
        assert_null(unfinished);
    }
    double taken = (double)(clock() - start) / CLOCKS_PER_SEC;
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(TESTS_EMULATED)
    /* Five grids; 50 ms for one is the promise, so this leaves room for a busy machine. */
    if (taken > 0.25) fail_msg("building all grids took %.0f ms", 1000 * taken);
#else
    (void)taken;
#endif
}

/* Levels of the n-th point as the list of codebooks says: "IQ2_XS<tab>7<tab>8 8 43 …". */
static void read_codebook(const char *name, const struct tms_iq_grid *grid, const uint8_t *values)
{
    const char *path = shared_path("golden/ggml/codebooks.tsv");
    if (!path) return;
    size_t n, found = 0;
    char *text = (char *)read_whole(path, &n), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char book[32];
        int point, at;
        if (sscanf(line, "%31s %d %n", book, &point, &at) != 2 || strcmp(book, name) != 0) continue;
        char *numbers = line + at;
        for (int i = 0; i < grid->group; i++)
            if ((long)values[point * grid->group + i] != strtol(numbers, &numbers, 10))
                fail_msg("%s: point %d, coordinate %d", name, point, i);
        found++;
    }
    free(text);
    assert_int_equal(found, grid->n_points);
}

static void codebooks_hold_the_points_of_the_format(void **state)
{
    (void)state;
    const char *names[TMS_IQ_BOOKS] = {"IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"};
    for (int book = 0; book < TMS_IQ_BOOKS; book++) {
        const struct tms_iq_grid *grid = tms_iq_grid((enum tms_iq_book)book);
        assert_int_equal(grid->points[0], 0);
        read_codebook(names[book], grid, tms_iq_values((enum tms_iq_book)book));
    }
}

static int level_of_place(const struct tms_iq_grid *grid, int place, int i)
{
    while (i-- > 0) place /= grid->levels;
    return place % grid->levels;
}

static int level_of_point(const struct tms_iq_grid *grid, uint32_t point, int i)
{
    return (int)(point >> grid->bits * i) & ((1 << grid->bits) - 1);
}

/* For every place: all points sorted by distance and then index, cut after the wanted number of distances. */
static void every_place_has_all_points_of_the_nearest_shells_by_distance_and_index(void **state)
{
    (void)state;
    for (int book = 0; book < TMS_IQ_BOOKS; book++) {
        const struct tms_iq_grid *grid = tms_iq_grid((enum tms_iq_book)book);
        int n_listed = 0;
        for (int place = 0; place < grid->n_places; place++) {
            static int at_distance[512][1024], n_at[512];
            memset(n_at, 0, sizeof n_at);
            for (int p = 0; p < grid->n_points; p++) {
                int distance = 0;
                for (int i = 0; i < grid->group; i++) {
                    int away = level_of_place(grid, place, i) - level_of_point(grid, grid->points[p], i);
                    distance += away * away;
                }
                at_distance[distance][n_at[distance]++] = p;
            }
            const struct tms_iq_place *got = &grid->places[place];
            assert_int_equal(got->on_grid, n_at[0] == 1);
            assert_int_equal(got->first, n_listed);
            int n = 0, seen = 0;
            for (int distance = 0; distance < 512 && seen < (n_at[0] ? 1 : shells[book]); distance++) {
                for (int k = 0; k < n_at[distance]; k++, n++) {
                    if (n >= got->count ||
                        (int)TMS_POINT_INDEX(grid->near[got->first + (uint32_t)n]) != at_distance[distance][k])
                        fail_msg("book %d, place %d, entry %d: point %d was expected", book, place, n,
                                 at_distance[distance][k]);
                    assert_int_equal(grid->near[got->first + (uint32_t)n], grid->points[at_distance[distance][k]]);
                }
                seen += n_at[distance] > 0;
            }
            assert_int_equal(got->count, n);
            n_listed += n;
        }
        assert_int_equal(n_listed, grid->n_near);
    }
}

/* ---- vectors against scalar code ---- */

static void encode(const struct tms_codec *codec, const float *x, const float *weights, void *blocks, size_t n_rows,
                   size_t n_cols)
{
    if (weights)
        codec->encode_weighted(x, weights, blocks, n_rows, n_cols);
    else
        codec->encode(x, blocks, n_rows * n_cols);
}

/* All types, with and without weights, on all levels. */
static void check_levels(const float *x, const float *weights, size_t n_rows, size_t n_cols, const char *what)
{
    const size_t n = n_rows * n_cols;
    uint8_t *want = malloc(n), *got = malloc(n);
    for (int t = 0; t < N_TYPES; t++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const struct tms_codec *codec = tms_codec(types[t]);
            if (!weighted && !codec->encode) continue;
            size_t n_bytes = tms_codec_bytes(codec, n);
            for (int i = 0; i < N_LEVELS; i++) {
                char message[96];
                snprintf(message, sizeof message, "%s, %s, %s, level %d", codec->name, what,
                         weighted ? "weighted" : "plain", i);
                tms_cpu_force(levels[i]);
                memset(got, 0xee, n_bytes);
                encode(codec, x, weighted ? weights : NULL, got, n_rows, n_cols);
                if (i == 0) memcpy(want, got, n_bytes);
                assert_same_bytes(got, want, n_bytes, message);
            }
        }
    free(want), free(got);
}

static void vectors_equal_scalar_on_random_rows(void **state)
{
    (void)state;
    enum { ROWS = 12, COLS = 512, N = ROWS * COLS };
    static const char *const names[] = {"normal", "heavy tails",     "ties",   "sparse",
                                        "spikes", "mixed exponents", "levels", "positive"};
    float *x = malloc(N * sizeof *x), *weights = malloc(COLS * sizeof *weights);
    uint64_t seed = 20;
    for (int kind = 0; kind < 8; kind++)
        for (int spread = 0; spread < 3; spread++) {
            for (size_t i = 0; i < N; i++) {
                float r = random_normal(&seed);
                switch (kind) {
                case 0: x[i] = 0.02f * r; break;
                case 1: x[i] = r * r * r; break;
                case 2: x[i] = roundf(4 * r) / 16; break;
                case 3: x[i] = next_random(&seed) % 4 ? 0 : r; break;
                case 4: x[i] = i % 16 == 3 ? 10 * r : 0.01f * r; break;
                case 5: x[i] = ldexpf(r, (int)(next_random(&seed) % 20) - 10); break;
                case 6: x[i] = (float)(2 * (int)(next_random(&seed) % 8) - 7); break;
                default: x[i] = fabsf(r); break;
                }
            }
            for (size_t i = 0; i < COLS; i++) {
                float r = random_normal(&seed);
                weights[i] = spread == 0 ? 1 : spread == 1 ? expf(3 * r) : i % 5 == 0 ? 0 : r * r;
            }
            check_levels(x, weights, ROWS, COLS, names[kind]);
        }
    free(x), free(weights);
}

/* Sizes where a margin cannot be had, or sums overflow. */
static void vectors_equal_scalar_on_strange_rows(void **state)
{
    (void)state;
    enum { ROWS = 2, COLS = 512, N = ROWS * COLS };
    float *x = malloc(N * sizeof *x), *weights = malloc(COLS * sizeof *weights);
    uint64_t seed = 21;
    for (int kind = 0; kind < N_STRANGE; kind++)
        for (int exponent = -30; exponent <= 30; exponent += 15) {
            char what[32];
            snprintf(what, sizeof what, "strange %d", kind);
            fill_strange(x, N, kind, &seed);
            for (size_t i = 0; i < COLS; i++) weights[i] = powf(10, (float)exponent) * fabsf(random_normal(&seed));
            check_levels(x, weights, ROWS, COLS, what);
        }
    for (int exponent = -24; exponent <= 18; exponent++) {
        char what[32];
        snprintf(what, sizeof what, "about 1e%d", exponent);
        for (size_t i = 0; i < N; i++) x[i] = powf(10, (float)exponent) * random_normal(&seed);
        for (size_t i = 0; i < COLS; i++) weights[i] = fabsf(random_normal(&seed));
        check_levels(x, weights, ROWS, COLS, what);
    }
    free(x), free(weights);
}

static void rows_share_the_weights_of_their_columns(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 768, N = ROWS * COLS };
    float *x = malloc(N * sizeof *x), *weights = malloc(COLS * sizeof *weights);
    uint8_t *together = malloc(N), *apart = malloc(N);
    uint64_t seed = 22;
    for (size_t i = 0; i < N; i++) x[i] = random_normal(&seed);
    for (size_t i = 0; i < COLS; i++) weights[i] = fabsf(random_normal(&seed));
    for (int t = 0; t < N_TYPES; t++) {
        const struct tms_codec *codec = tms_codec(types[t]);
        codec->encode_weighted(x, weights, together, ROWS, COLS);
        size_t row_bytes = tms_codec_bytes(codec, COLS);
        for (size_t row = 0; row < ROWS; row++)
            codec->encode_weighted(x + row * COLS, weights, apart + row * row_bytes, 1, COLS);
        assert_same_bytes(apart, together, ROWS * row_bytes, codec->name);
    }
    free(x), free(weights), free(together), free(apart);
}

/* ---- decoding ---- */

/* Any bytes: the magnitude of a weight is a step of its block times a value of the codebook. */
static void random_bytes_decode_to_values_of_the_codebook(void **state)
{
    (void)state;
    enum { BLOCKS = 40, N = 256 * BLOCKS };
    uint8_t *bytes = malloc(128 * BLOCKS);
    float *x = malloc(N * sizeof *x);
    uint64_t seed = 23;
    for (int t = 0; t < N_TYPES; t++) {
        const struct tms_codec *codec = tms_codec(types[t]);
        const struct tms_iq_grid *grid = tms_iq_grid((enum tms_iq_book)t);
        const uint8_t *values = tms_iq_values((enum tms_iq_book)t);
        for (size_t i = 0; i < codec->block_bytes * (size_t)BLOCKS; i++) bytes[i] = (uint8_t)next_random(&seed);
        /* d = 2: steps are multiples of an eighth, and all products exact. */
        for (size_t b = 0; b < BLOCKS; b++) memcpy(bytes + b * codec->block_bytes, (uint8_t[]){0x00, 0x40}, 2);
        for (int level = 0; level < N_LEVELS; level++) {
            tms_cpu_force(levels[level]);
            codec->decode(bytes, x, N);
            for (int g = 0; g < N / grid->group; g++) {
                const float *v = x + g * grid->group;
                bool found = false;
                for (int p = 0; p < grid->n_points && !found; p++) {
                    const uint8_t *point = values + p * grid->group;
                    float step = fabsf(v[0]) / (float)point[0];
                    found = true;
                    for (int i = 1; i < grid->group && found; i++) found = fabsf(v[i]) == step * (float)point[i];
                }
                if (!found) fail_msg("%s: group %d is no point of the codebook", codec->name, g);
            }
        }
    }
    free(bytes), free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids_are_built_once_in_milliseconds_by_whichever_thread_comes_first),
        cmocka_unit_test(codebooks_hold_the_points_of_the_format),
        cmocka_unit_test(every_place_has_all_points_of_the_nearest_shells_by_distance_and_index),
        cmocka_unit_test(vectors_equal_scalar_on_random_rows),
        cmocka_unit_test(vectors_equal_scalar_on_strange_rows),
        cmocka_unit_test(rows_share_the_weights_of_their_columns),
        cmocka_unit_test(random_bytes_decode_to_values_of_the_codebook),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

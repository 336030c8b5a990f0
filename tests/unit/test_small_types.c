/* The ternary and one-bit types, the four-bit floats, IQ4 and IQ1: what they promise beyond the golden bytes of
 * test_codec.c, and the tables and searches inside. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <pthread.h>

#include "base/cpu.h"
#include "base/numbers.h"
#include "codec/iq1_grid.h"
#include "codec/iq1_search.h"
#include "codec/iq4_search.h"
#include "codec/ordered_sums.h"
#include "tamis/codec.h"

static const enum tms_type types[] = {TMS_TQ1_0, TMS_TQ2_0,  TMS_Q1_0,   TMS_Q2_0,  TMS_MXFP4,
                                      TMS_NVFP4, TMS_IQ4_NL, TMS_IQ4_XS, TMS_IQ1_S, TMS_IQ1_M};
enum { N_TYPES = sizeof types / sizeof types[0] };

static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* Encodes at every level and compares; IQ1_S, which takes nothing else, with equal importances. */
static void encode_at_every_level(const struct tms_codec *codec, const float *x, size_t n)
{
    size_t n_bytes = tms_codec_bytes(codec, n);
    uint8_t *want = malloc(n_bytes), *got = malloc(n_bytes);
    float *back = malloc(n * sizeof *back), *equal = malloc(n * sizeof *equal);
    for (size_t i = 0; i < n; i++) equal[i] = 1;
    for (size_t i = 0; i < N_LEVELS; i++) {
        tms_cpu_force(levels[i]);
        memset(got, 0xee, n_bytes);
        if (codec->encode)
            codec->encode(x, got, n);
        else
            codec->encode_weighted(x, equal, got, 1, n);
        codec->decode(got, back, n);
        if (i == 0) memcpy(want, got, n_bytes);
        assert_same_bytes(got, want, n_bytes, codec->name);
    }
    free(want), free(got), free(back), free(equal);
}

/* A row of one of several distributions. */
enum { N_KINDS = 9 };
static void fill(float *x, size_t n, int kind, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) {
        float r = random_normal(seed);
        switch (kind) {
        case 0: x[i] = 0.02f * r; break;
        case 1: x[i] = r * r * r; break;
        case 2: x[i] = fabsf(r); break;
        case 3: x[i] = -1e-3f * fabsf(r); break;
        case 4: x[i] = roundf(2 * r) / 8; break;                         /* many ties */
        case 5: x[i] = (float)((int)(next_random(seed) % 3) - 1); break; /* nearly only ties */
        case 6: x[i] = next_random(seed) % 10 ? (i % 2 ? 0.0f : -0.0f) : r; break;
        case 7: x[i] = ldexpf(r, (int)(i / 16 % 40) - 30); break; /* scales far apart */
        default: x[i] = i / 96 % 3 ? r : 0.25f; break;            /* constant blocks among others */
        }
    }
}

static void every_level_gives_the_same_bytes(void **state)
{
    (void)state;
    enum { N = 37 * 256 }; /* batches of 8 super-blocks, vectors of 16 blocks, and rests of both */
    float *x = malloc(N * sizeof *x);
    uint64_t seed = 23;
    for (int t = 0; t < N_TYPES; t++) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            fill(x, N, kind, &seed);
            encode_at_every_level(tms_codec(types[t]), x, N);
        }
        for (int kind = 0; kind < N_STRANGE; kind++) {
            fill_strange(x, 9 * 256, kind, &seed);
            encode_at_every_level(tms_codec(types[t]), x, 9 * 256);
        }
    }
    free(x);
}

static void ordered_sums_are_those_of_a_loop(void **state)
{
    (void)state;
    enum { N = 64, ROWS = 19 };
    float x[N * ROWS], got[3][ROWS];
    uint64_t seed = 2;
    for (int i = 0; i < N * ROWS; i++) x[i] = random_normal(&seed);
    for (size_t l = 0; l < N_LEVELS; l++) {
        tms_cpu_force(levels[l]);
        tms_ordered_sums(x, N, ROWS, got[0]);
        tms_ordered_sums_of_magnitudes(x, N, ROWS, got[1]);
        tms_ordered_sums_of_squares(x, N, ROWS, got[2]);
        for (int row = 0; row < ROWS; row++) {
            float plain = 0, magnitudes = 0, squares = 0;
            for (int i = 0; i < N; i++) {
                float v = x[row * N + i];
                plain += v, magnitudes += fabsf(v), squares += v * v;
            }
            assert_true(got[0][row] == plain && got[1][row] == magnitudes && got[2][row] == squares);
        }
    }
}

/* ---- ternary ---- */

static void ternary_rows_survive(void **state)
{
    (void)state;
    float x[512], back[512];
    uint8_t bytes[512];
    uint64_t seed = 4;
    const enum tms_type ternary[] = {TMS_TQ1_0, TMS_TQ2_0, TMS_Q2_0};
    for (int t = 0; t < 3; t++)
        for (int round = 0; round < 50; round++) {
            for (int i = 0; i < 512; i++) x[i] = 0.375f * (float)((int)(next_random(&seed) % 3) - 1);
            tms_codec(ternary[t])->encode(x, bytes, 512);
            tms_codec(ternary[t])->decode(bytes, back, 512);
            for (int i = 0; i < 512; i++) assert_true(back[i] == x[i]);
        }
}

static void ternary_halves_are_rounded_away_from_zero(void **state)
{
    (void)state;
    float x[256] = {1, 0.5f, -0.5f, 0x1.fffffep-2f, -0x1.fffffep-2f, -1}, back[256];
    const float want[6] = {1, 1, -1, 0, 0, -1};
    uint8_t bytes[512];
    const enum tms_type ternary[] = {TMS_TQ1_0, TMS_TQ2_0, TMS_Q2_0};
    for (int t = 0; t < 3; t++) {
        tms_codec(ternary[t])->encode(x, bytes, 256);
        tms_codec(ternary[t])->decode(bytes, back, 256);
        for (int i = 0; i < 6; i++) assert_true(back[i] == want[i]);
    }
}

static void q1_0_keeps_signs_and_the_mean_magnitude(void **state)
{
    (void)state;
    float x[128], back[128];
    uint8_t bytes[18];
    for (int i = 0; i < 128; i++) x[i] = i % 3 ? 0.25f : -0.75f;
    x[5] = -0.0f; /* not below zero */
    tms_codec(TMS_Q1_0)->encode(x, bytes, 128);
    tms_codec(TMS_Q1_0)->decode(bytes, back, 128);
    float mean = 0;
    for (int i = 0; i < 128; i++) mean += fabsf(x[i]) / 128;
    for (int i = 0; i < 128; i++) {
        assert_int_equal(back[i] < 0, x[i] < 0);
        assert_true(fabsf(fabsf(back[i]) - mean) < 1e-3f);
    }
}

/* ---- four-bit floats ---- */

static const float e2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6};

/* The rule as ggml states it: the first value whose distance, in f32, is least. */
static int first_nearest(float x, float half_scale)
{
    int found = 0;
    float best = fabsf(2 * e2m1[0] * half_scale - x);
    for (int i = 1; i < 16; i++) {
        float distance = fabsf(2 * e2m1[i] * half_scale - x);
        if (distance < best) best = distance, found = i;
    }
    return found;
}

static void fp4_takes_the_first_of_the_nearest_values(void **state)
{
    (void)state;
    float x[64];
    uint8_t bytes[36];
    uint64_t seed = 8;
    for (int round = 0; round < 20000; round++) {
        /* All exponents, and weights on and beside the middles between values. */
        float top = ldexpf(1 + (float)(next_random(&seed) % 1024) / 1024, (int)(next_random(&seed) % 252) - 124);
        for (int i = 0; i < 64; i++) {
            float v = ldexpf((float)(next_random(&seed) % 25), ilogbf(top) - 4);
            if (next_random(&seed) % 4 == 0) v = nextafterf(v, next_random(&seed) % 2 ? 0 : FLT_MAX);
            if (next_random(&seed) % 4 == 0) v = top * ((float)(next_random(&seed) % 1000) / 1000);
            x[i] = next_random(&seed) % 2 ? -v : v;
        }
        x[17] = top;
        tms_cpu_force(levels[round % N_LEVELS]);
        tms_codec(TMS_MXFP4)->encode(x, bytes, 32);
        float half = tms_e8m0_to_f32(bytes[0]) / 2;
        for (int i = 0; i < 32; i++) assert_int_equal(bytes[1 + i % 16] >> i / 16 * 4 & 15, first_nearest(x[i], half));

        /* Also weights far beyond the largest scale, where all distances round to the same. */
        for (int i = 0; i < 64; i++) x[i] = ldexpf(x[i], -ilogbf(top) + (round % 60) - 14);
        tms_codec(TMS_NVFP4)->encode(x, bytes, 64);
        for (int i = 0; i < 64; i++) {
            int group = i / 16, at = i % 16;
            half = tms_e4m3_to_f32(bytes[group]) / 2;
            assert_int_equal(bytes[4 + 8 * group + at % 8] >> at / 8 * 4 & 15, first_nearest(x[i], half));
        }
    }
}

static void mxfp4_exponents_are_those_of_log2f(void **state)
{
    (void)state;
    float x[32] = {0};
    uint8_t bytes[17];
    for (int k = -124; k <= 128; k++)
        for (int i = -200; i <= 40; i++) {
            uint32_t u = (uint32_t)((k + 127) * (1 << 23) + i);
            if (u >= 0x7f800000) continue;
            x[i & 31] = tms_f32_from_bits(u);
            tms_codec(TMS_MXFP4)->encode(x, bytes, 32);
            int want = (int)floorf(log2f(x[i & 31])) - 2 + 127;
            if (bytes[0] != want) fail_msg("%a: exponent byte %d, not %d", (double)x[i & 31], bytes[0], want);
            x[i & 31] = 0;
        }
    tms_codec(TMS_MXFP4)->encode(x, bytes, 32);
    assert_int_equal(bytes[0], 0);
    x[3] = 0x1p-126f; /* the byte would be negative */
    tms_codec(TMS_MXFP4)->encode(x, bytes, 32);
    assert_int_equal(bytes[0], 0);
}

static void nvfp4_scales_are_rounded_up_at_halves_and_saturate(void **state)
{
    (void)state;
    const struct {
        float scale;
        uint8_t byte;
    } cases[] = {{1, 0x38},       {1.0625f, 0x39}, {1.0624f, 0x38},    {1.9375f, 0x40}, {240, 0x77},
                 {247, 0x77},     {248, 0x7e},     {256, 0x7e},        {1e6f, 0x7e},    {0x1p-6f, 0x08},
                 {0x1p-9f, 1},    {0x1p-10f, 1},   {0x1.fffp-11f, 0},  {0, 0},          {7.5f / 512, 7},
                 {7.4f / 512, 7}, {7.9f / 512, 7}, {0x1.fffffep-7f, 7}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float x[64] = {0};
        uint8_t bytes[36];
        x[20] = -6 * cases[i].scale; /* the largest value is 6 */
        tms_codec(TMS_NVFP4)->encode(x, bytes, 64);
        if (bytes[1] != cases[i].byte)
            fail_msg("%g: byte %02x, not %02x", (double)cases[i].scale, bytes[1], cases[i].byte);
        assert_int_equal(bytes[0] | bytes[2] | bytes[3], 0);
    }
}

/* ---- iq4 ---- */

static void iq4_codes_take_the_nearest_number_and_the_upper_of_two(void **state)
{
    (void)state;
    const int8_t *v = tms_iq4_numbers;
    for (int k = 0; k < 15; k++) {
        assert_true(tms_iq4_middles[k] == (float)(v[k] + v[k + 1]) / 2);
        float x = tms_iq4_middles[k];
        for (int i = 0; i < 1000; i++) x = nextafterf(x, -INFINITY);
        for (int i = -1000; i <= 1000; i++, x = nextafterf(x, INFINITY)) {
            int want = x - (float)v[k] < (float)v[k + 1] - x ? k : k + 1; /* as ggml says it */
            assert_int_equal(tms_iq4_code(x), want);
        }
    }
    assert_int_equal(tms_iq4_code(-INFINITY), 0);
    assert_int_equal(tms_iq4_code(INFINITY), 15);
    assert_int_equal(tms_iq4_code(NAN), 15);
}

/* ---- iq1 ---- */

static void iq1_points_are_those_of_the_codebook(void **state)
{
    (void)state;
    size_t n;
    int count = 0;
    char *text = (char *)read_whole(golden("ggml/codebooks.tsv"), &n), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        int number, p[8];
        if (sscanf(line, "IQ1_S %d %d %d %d %d %d %d %d %d", &number, p, p + 1, p + 2, p + 3, p + 4, p + 5, p + 6,
                   p + 7) != 9)
            continue;
        assert_int_equal(number, count);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(tms_iq1_points()->numbers[number][i], p[i]);
            assert_int_equal((tms_iq1_points()->codes[number] >> 2 * i & 3) - 1, p[i]);
        }
        assert_int_equal(tms_iq1_number(tms_iq1_places(), tms_iq1_points()->codes[number]), number);
        count++;
    }
    assert_int_equal(count, TMS_IQ1_POINTS);
    free(text);
}

static void iq1_lists_hold_the_three_nearest_shells_in_order(void **state)
{
    (void)state;
    const struct tms_iq1_points *points = tms_iq1_points();
    const struct tms_iq1_places *places = tms_iq1_places();
    size_t n_points = 0, n_near = 0;
    for (int place = 0; place < TMS_IQ1_PLACES; place++) {
        if (places->number[place] >= 0) {
            n_points++;
            continue;
        }
        n_near += places->n_near[place];
        if (place % 7) continue;
        int distance[TMS_IQ1_POINTS], shells = 0;
        uint16_t want[TMS_IQ1_POINTS];
        uint32_t count = 0;
        for (int k = 0; k < TMS_IQ1_POINTS; k++) {
            distance[k] = 0;
            for (int i = 0, rest = place; i < 8; i++, rest /= 3) {
                int d = rest % 3 - 1 - points->numbers[k][i];
                distance[k] += d * d;
            }
        }
        for (int d = 0; shells < 3; d++) {
            uint32_t before = count;
            for (int k = 0; k < TMS_IQ1_POINTS; k++)
                if (distance[k] == d) want[count++] = points->codes[k];
            shells += count > before;
        }
        assert_true(count <= places->n_near[place] && places->n_near[place] < count + TMS_IQ1_LIST);
        const uint16_t *near = places->near + places->first[place];
        assert_memory_equal(near, want, count * sizeof *want);
        for (uint32_t i = count; i < places->n_near[place]; i++) assert_int_equal(near[i], want[count - 1]);
    }
    assert_int_equal(n_points, TMS_IQ1_POINTS);
    assert_int_equal(n_near, TMS_IQ1_NEAR);
}

static void *encode_in_a_thread(void *bytes)
{
    float x[256];
    uint64_t seed = 31;
    for (int i = 0; i < 256; i++) x[i] = random_normal(&seed);
    tms_codec(TMS_IQ1_M)->encode(x, bytes, 256);
    return NULL;
}

/* Comes first in main, before anything has made the tables. */
static void iq1_tables_may_be_wanted_by_several_threads_at_once(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    uint8_t bytes[THREADS][56];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_in_a_thread, bytes[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 1; i < THREADS; i++) assert_memory_equal(bytes[i], bytes[0], sizeof bytes[0]);
}

/* Equal weights are cut apart by a split in the order in which they stand: the first get the lower level. */
static void iq1_sorts_equal_values_in_their_order(void **state)
{
    (void)state;
    enum { BLOCKS = 16 };
    uint64_t seed = 37;
    int cut = 0;
    for (int n = 16; n <= 32; n += 16)
        for (int round = 0; round < 400; round++) {
            float x[BLOCKS * 32], w[BLOCKS * 32], scales[BLOCKS];
            uint8_t signs[BLOCKS];
            uint16_t places[BLOCKS * 4];
            for (int i = 0; i < BLOCKS * n; i++) {
                x[i] = (float)((int)(next_random(&seed) % 4) - 1) * (next_random(&seed) % 3 ? 1.0f : -0.0f);
                w[i] = (float)(next_random(&seed) % 4); /* weights of 0 make equal scores */
            }
            tms_cpu_force(levels[round % N_LEVELS]);
            tms_iq1_split(n, x, w, BLOCKS, scales, signs, places);
            for (int b = 0; b < BLOCKS; b++) {
                if (places[b * (n / 8)] == TMS_IQ1_NOWHERE) continue;
                int level[32], rising = 1, falling = 1;
                for (int i = 0; i < n; i++) {
                    int place = places[b * (n / 8) + i / 8];
                    for (int k = 0; k < i % 8; k++) place /= 3;
                    level[i] = place % 3;
                }
                for (int i = 0; i < n; i++)
                    for (int j = i + 1; j < n; j++) {
                        if (x[b * n + i] != x[b * n + j]) continue;
                        rising &= level[i] <= level[j];
                        falling &= level[i] >= level[j]; /* where a negative scale turned the levels over */
                        cut += level[i] != level[j];
                    }
                assert_true(rising || falling);
            }
        }
    assert_true(cut > 0);
}

static void iq1_with_errors_beyond_f32_stays_defined(void **state)
{
    (void)state;
    float x[256], w[256], back[256];
    uint8_t bytes[64];
    uint64_t seed = 41;
    for (size_t l = 0; l < N_LEVELS; l++) {
        tms_cpu_force(levels[l]);
        for (int i = 0; i < 256; i++) {
            x[i] = 1e18f * random_normal(&seed);
            w[i] = i % 2 ? 3e38f : 1e-38f;
        }
        tms_codec(TMS_IQ1_S)->encode_weighted(x, w, bytes, 1, 256);
        tms_codec(TMS_IQ1_S)->decode(bytes, back, 256);
        tms_codec(TMS_IQ1_M)->encode_weighted(x, w, bytes, 1, 256);
        tms_codec(TMS_IQ1_M)->decode(bytes, back, 256);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iq1_tables_may_be_wanted_by_several_threads_at_once),
        cmocka_unit_test(every_level_gives_the_same_bytes),
        cmocka_unit_test(ordered_sums_are_those_of_a_loop),
        cmocka_unit_test(ternary_rows_survive),
        cmocka_unit_test(ternary_halves_are_rounded_away_from_zero),
        cmocka_unit_test(q1_0_keeps_signs_and_the_mean_magnitude),
        cmocka_unit_test(fp4_takes_the_first_of_the_nearest_values),
        cmocka_unit_test(mxfp4_exponents_are_those_of_log2f),
        cmocka_unit_test(nvfp4_scales_are_rounded_up_at_halves_and_saturate),
        cmocka_unit_test(iq4_codes_take_the_nearest_number_and_the_upper_of_two),
        cmocka_unit_test(iq1_points_are_those_of_the_codebook),
        cmocka_unit_test(iq1_lists_hold_the_three_nearest_shells_in_order),
        cmocka_unit_test(iq1_sorts_equal_values_in_their_order),
        cmocka_unit_test(iq1_with_errors_beyond_f32_stays_defined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

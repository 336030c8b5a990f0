/* The element types: golden bytes of ggml, and what must hold for any bytes and any finite floats. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <unistd.h>

#include "base/cpu.h"
#include "tamis/codec.h"

static const enum tms_type encoded_types[] = {
    TMS_F32,   TMS_F16,   TMS_BF16, TMS_F64,  TMS_F8_E4M3, TMS_F8_E5M2, TMS_F8_E8M0, TMS_Q4_0,   TMS_Q4_1,
    TMS_Q5_0,  TMS_Q5_1,  TMS_Q8_0, TMS_Q2_K, TMS_Q3_K,    TMS_Q4_K,    TMS_Q5_K,    TMS_Q6_K,   TMS_Q8_K,
    TMS_TQ1_0, TMS_TQ2_0, TMS_Q1_0, TMS_Q2_0, TMS_MXFP4,   TMS_NVFP4,   TMS_IQ4_NL,  TMS_IQ4_XS, TMS_IQ1_M};
enum { N_ENCODED = sizeof encoded_types / sizeof encoded_types[0] };

static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};

/* ---- golden files of ggml ---- */

struct golden_case {
    char name[32];
    size_t n_rows, n_cols, first, first_weight;
};
struct golden_inputs {
    struct golden_case cases[64];
    size_t n_cases;
    float *x, *weights;
};
/* One line of outputs.tsv with all that belongs to it. */
struct golden_output {
    const struct tms_codec *codec;
    const char *what; /* for messages */
    const float *x;
    const float *weights; /* one per column; NULL: encoded without */
    size_t n_rows, n_cols;
    const uint8_t *bytes;
    size_t n_bytes;
    const float *decoded; /* NULL: the file is not there */
};

static void read_inputs(struct golden_inputs *in)
{
    size_t n;
    in->x = (float *)(void *)read_whole(golden("ggml/inputs.f32"), &n);
    in->weights = (float *)(void *)read_whole(golden("ggml/weights.f32"), &n);
    in->n_cases = 0;
    char *text = (char *)read_whole(golden("ggml/cases.tsv"), &n), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct golden_case *c = &in->cases[in->n_cases];
        if (sscanf(line, "%31s %zu %zu %zu %zu", c->name, &c->n_rows, &c->n_cols, &c->first, &c->first_weight) == 5)
            in->n_cases++;
    }
    free(text);
    assert_true(in->n_cases > 20);
}

static const struct golden_case *find_case(const struct golden_inputs *in, const char *name)
{
    for (size_t i = 0; i < in->n_cases; i++)
        if (strcmp(in->cases[i].name, name) == 0) return &in->cases[i];
    fail_msg("no golden case %s", name);
    return NULL;
}

/* Calls check for every line of outputs.tsv, weighted or plain, whose type the table can treat so: weighted lines where
 * it has encode_weighted, or decodes and the decoded floats are there. The golden bytes must be. */
static size_t each_golden_output(bool weighted, size_t (*check)(const struct golden_output *output))
{
    struct golden_inputs in;
    read_inputs(&in);
    size_t n, checked = 0;
    char *text = (char *)read_whole(golden("ggml/outputs.tsv"), &n), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char type[32], weights[16], name[32], file[64], path[96], what[128];
        unsigned id, elems, block_bytes;
        size_t offset, length;
        if (sscanf(line, "%31s %u %u %u %15s %31s %63s %zu %zu", type, &id, &elems, &block_bytes, weights, name, file,
                   &offset, &length) != 9)
            continue;
        const struct tms_codec *codec = tms_codec((enum tms_type)id);
        assert_non_null(codec);
        if (tms_codec_by_name(type) != codec) fail_msg("%s: its name in the table is %s", type, codec->name);
        assert_int_equal(codec->block_elems, elems);
        assert_int_equal(codec->block_bytes, block_bytes);
        if (!codec->decode || (strcmp(weights, "weighted") == 0) != weighted) continue;
        snprintf(path, sizeof path, "ggml/%s.%s.f32", type, weights);
        bool has_decoded = !weighted || access(golden(path), R_OK) == 0;
        if (weighted && !codec->encode_weighted && !has_decoded) continue;

        const struct golden_case *c = find_case(&in, name);
        size_t n_values = c->n_rows * c->n_cols, n_bytes, n_decoded;
        uint8_t *decoded = has_decoded ? read_whole(golden(path), &n_decoded) : NULL;
        size_t decoded_offset = offset / block_bytes * elems * sizeof(float);
        if (decoded) assert_true(decoded_offset + n_values * sizeof(float) <= n_decoded);
        assert_int_equal(tms_codec_bytes(codec, n_values), length);
        snprintf(path, sizeof path, "ggml/%s", file);
        uint8_t *bytes = read_whole(golden(path), &n_bytes);
        assert_true(offset + length <= n_bytes);
        snprintf(what, sizeof what, "%s of %s, %s", type, name, weights);
        checked += check(&(struct golden_output){
            .codec = codec,
            .what = what,
            .x = in.x + c->first,
            .weights = weighted ? in.weights + c->first_weight : NULL,
            .n_rows = c->n_rows,
            .n_cols = c->n_cols,
            .bytes = bytes + offset,
            .n_bytes = length,
            .decoded = decoded ? (const float *)(const void *)(decoded + decoded_offset) : NULL,
        });
        free(bytes);
        free(decoded);
    }
    free(text);
    free(in.x);
    free(in.weights);
    return checked;
}

static size_t check_encoding(const struct golden_output *o)
{
    if (o->weights ? !o->codec->encode_weighted : !o->codec->encode) return 0;
    uint8_t *got = malloc(o->n_bytes + 1);
    for (size_t misaligned = 0; misaligned < 2; misaligned++) {
        memset(got, 0xee, o->n_bytes + 1);
        if (o->weights)
            o->codec->encode_weighted(o->x, o->weights, got + misaligned, o->n_rows, o->n_cols);
        else
            o->codec->encode(o->x, got + misaligned, o->n_rows * o->n_cols);
        assert_same_bytes(got + misaligned, o->bytes, o->n_bytes, o->what);
    }
    free(got);
    return 1;
}

static size_t check_decoding(const struct golden_output *o)
{
    if (!o->decoded) return 0;
    size_t n = o->n_rows * o->n_cols;
    uint8_t *from = malloc(o->n_bytes + 1);
    float *got = malloc(n * sizeof *got);
    for (size_t misaligned = 0; misaligned < 2; misaligned++) {
        memcpy(from + misaligned, o->bytes, o->n_bytes);
        o->codec->decode(from + misaligned, got, n);
        assert_same_bytes(got, o->decoded, n * sizeof *got, o->what);
    }
    free(from);
    free(got);
    return 1;
}

static void encoders_give_the_bytes_of_ggml(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        tms_cpu_force(levels[i]);
        assert_true(each_golden_output(false, check_encoding) > 200);
    }
}

static void weighted_encoders_give_the_bytes_of_ggml(void **state)
{
    (void)state;
    size_t expected = 0; /* every type that has weights has a dozen cases at least */
    for (size_t i = 0; tms_codec_at(i); i++) expected += tms_codec_at(i)->encode_weighted ? 12 : 0;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        tms_cpu_force(levels[i]);
        assert_true(each_golden_output(true, check_encoding) >= expected);
    }
}

static void decoders_give_the_floats_of_ggml(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        tms_cpu_force(levels[i]);
        assert_true(each_golden_output(false, check_decoding) > 200);
        each_golden_output(true, check_decoding); /* some types are never encoded without weights */
    }
}

/* ---- any floats ---- */

static void strange_floats_give_the_same_bytes_on_every_level(void **state)
{
    (void)state;
    enum { N = 8 * 256 + 256 };
    float *x = malloc(N * sizeof *x), *back = malloc(N * sizeof *back);
    uint8_t *want = malloc(N * 8), *got = malloc(N * 8);
    for (int t = 0; t < N_ENCODED; t++) {
        const struct tms_codec *codec = tms_codec(encoded_types[t]);
        size_t n_bytes = tms_codec_bytes(codec, N);
        for (int kind = 0; kind < N_STRANGE; kind++) {
            uint64_t seed = (uint64_t)kind + 1;
            fill_strange(x, N, kind, &seed);
            for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
                tms_cpu_force(levels[i]);
                memset(got, 0xee, n_bytes);
                codec->encode(x, got, N);
                codec->decode(got, back, N);
                if (i == 0) memcpy(want, got, n_bytes);
                assert_same_bytes(got, want, n_bytes, codec->name);
            }
        }
    }
    free(x), free(back), free(want), free(got);
}

static void random_rows_give_the_same_bytes_on_every_level(void **state)
{
    (void)state;
    enum { N = 35 * 256 }; /* an odd number of super-blocks: no vector divides it */
    float *x = malloc(N * sizeof *x);
    uint8_t *want = malloc(N * 8), *got = malloc(N * 8);
    uint64_t seed = 7;
    for (int round = 0; round < 8; round++) {
        float width = ldexpf(1, -2 * round);
        for (size_t i = 0; i < N; i++) {
            float r = random_normal(&seed);
            x[i] = width * (round % 2 ? r * r * r : r);
            if (round == 4) x[i] = fabsf(x[i]);
            if (round == 5) x[i] = -fabsf(x[i]);
            if (round == 6) x[i] = roundf(8 * x[i] / width) / 8; /* many ties */
        }
        for (int t = 0; t < N_ENCODED; t++) {
            const struct tms_codec *codec = tms_codec(encoded_types[t]);
            size_t n_bytes = tms_codec_bytes(codec, N);
            for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
                tms_cpu_force(levels[i]);
                memset(got, 0xee, n_bytes);
                codec->encode(x, got, N);
                if (i == 0) memcpy(want, got, n_bytes);
                assert_same_bytes(got, want, n_bytes, codec->name);
            }
        }
    }
    free(x), free(want), free(got);
}

static void blocks_do_not_depend_on_their_neighbours(void **state)
{
    (void)state;
    enum { N = 5 * 256 };
    float *x = malloc(N * sizeof *x);
    uint8_t *whole = malloc(N * 8), *single = malloc(N * 8);
    uint64_t seed = 3;
    for (size_t i = 0; i < N; i++) x[i] = random_normal(&seed);
    for (int t = 0; t < N_ENCODED; t++) {
        const struct tms_codec *codec = tms_codec(encoded_types[t]);
        codec->encode(x, whole, N);
        for (size_t i = 0; i < N / codec->block_elems; i++)
            codec->encode(x + i * codec->block_elems, single + i * codec->block_bytes, codec->block_elems);
        assert_same_bytes(single, whole, tms_codec_bytes(codec, N), codec->name);
    }
    free(x), free(whole), free(single);
}

static void no_values_touch_no_bytes(void **state)
{
    (void)state;
    float x = 5;
    uint8_t byte = 0xee;
    for (int t = 0; t < N_ENCODED; t++) {
        tms_codec(encoded_types[t])->encode(&x, &byte, 0);
        tms_codec(encoded_types[t])->decode(&byte, &x, 0);
    }
    assert_int_equal(byte, 0xee);
    assert_true(x == 5);
}

/* ---- any bytes ---- */

/* NaNs are one; otherwise bits count. */
static void assert_same_floats(const float *got, const float *want, size_t n, const char *what)
{
    for (size_t k = 0; k < n; k++) {
        if (isnan(got[k]) && isnan(want[k])) continue;
        if (memcmp(&got[k], &want[k], sizeof(float)) != 0)
            fail_msg("%s: value %zu of %zu is %a, was %a", what, k, n, (double)got[k], (double)want[k]);
    }
}

/* Rows of one block and more, at even and odd addresses, in memory that ends where they end. */
static void any_bytes_decode_alike_on_every_level(void **state)
{
    (void)state;
    enum { ROUNDS = 24 };
    uint64_t seed = 11;
    for (size_t row = 0; tms_codec_at(row); row++) {
        const struct tms_codec *codec = tms_codec_at(row);
        if (!codec->decode) continue;
        for (int round = 0; round < ROUNDS; round++) {
            size_t n = (size_t)(1 + round % 9) * (codec->block_elems < 32 ? 37 : codec->block_elems);
            size_t n_bytes = tms_codec_bytes(codec, n), odd = (size_t)round / 9 % 2;
            uint8_t *bytes = malloc(n_bytes + odd);
            float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
            for (size_t i = 0; i < n_bytes; i++)
                bytes[odd + i] = round == 0 ? 0 : round == 1 ? 0xff : (uint8_t)next_random(&seed);
            for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
                tms_cpu_force(levels[i]);
                codec->decode(bytes + odd, got, n);
                if (i == 0) memcpy(want, got, n * sizeof *got);
                assert_same_floats(got, want, n, codec->name);
            }
            free(bytes), free(want), free(got);
        }
    }
}

/* All kinds of f16 as the first and as the last two bytes of a block: there all scales of that size lie. */
static void any_scale_decodes_alike_on_every_level(void **state)
{
    (void)state;
    enum { MOST = 256 };
    uint64_t seed = 12;
    for (size_t row = 0; tms_codec_at(row); row++) {
        const struct tms_codec *codec = tms_codec_at(row);
        if (!codec->decode || codec->block_elems < 32) continue;
        uint8_t bytes[MOST * 8];
        float want[MOST], got[MOST];
        for (uint32_t half = 0; half < 0x10000; half += 97) {
            for (size_t i = 0; i < codec->block_bytes; i++) bytes[i] = (uint8_t)next_random(&seed);
            memcpy(bytes, &(uint16_t){(uint16_t)half}, 2);
            memcpy(bytes + codec->block_bytes - 2, &(uint16_t){(uint16_t)half}, 2);
            for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
                tms_cpu_force(levels[i]);
                codec->decode(bytes, got, codec->block_elems);
                if (i == 0) memcpy(want, got, sizeof want);
                assert_same_floats(got, want, codec->block_elems, codec->name);
            }
        }
    }
}

/* ---- the table ---- */

static void table_is_in_order_and_complete(void **state)
{
    (void)state;
    int last = -1;
    size_t n = 0;
    for (const struct tms_codec *c; (c = tms_codec_at(n)); n++) {
        assert_true((int)c->id > last);
        last = (int)c->id;
        assert_ptr_equal(tms_codec(c->id), c);
        assert_ptr_equal(tms_codec_by_name(c->name), c);
        assert_true(c->block_elems > 0);
        for (const char *p = c->name; *p; p++) assert_false(*p >= 'A' && *p <= 'Z');
    }
    assert_int_equal(n, 49);
    assert_null(tms_codec_at(n + 1));
    for (int id = TMS_BOOL; id <= TMS_C64; id++) assert_non_null(tms_codec((enum tms_type)id));
    /* 4, 5, 31 … 33 and 36 … 38 were ggml types once. */
    int removed[] = {4, 5, 31, 32, 33, 36, 37, 38, TMS_GGML_TYPES, TMS_TYPE_NONE};
    for (size_t i = 0; i < sizeof removed / sizeof removed[0]; i++) assert_null(tms_codec((enum tms_type)removed[i]));
}

static void names_are_found_in_any_case(void **state)
{
    (void)state;
    assert_int_equal(tms_codec_by_name("Q4_K")->id, TMS_Q4_K);
    assert_int_equal(tms_codec_by_name("iq2_XXS")->id, TMS_IQ2_XXS);
    assert_int_equal(tms_codec_by_name("F8_E4M3")->id, TMS_F8_E4M3);
    assert_null(tms_codec_by_name("q4_k_m"));
    assert_null(tms_codec_by_name(""));
}

static void byte_counts_are_exact_or_overflow(void **state)
{
    (void)state;
    assert_int_equal(tms_codec_bytes(tms_codec(TMS_Q4_K), 512), 288);
    assert_int_equal(tms_codec_bytes(tms_codec(TMS_F32), 0), 0);
    assert_true(tms_codec_bytes(tms_codec(TMS_F64), UINT64_C(1) << 61) == UINT64_MAX);
    assert_true(tms_codec_bytes(tms_codec(TMS_F16), (UINT64_C(1) << 63) - 1) == UINT64_MAX - 1);
}

static void integers_and_booleans_decode_to_their_values(void **state)
{
    (void)state;
    float x[3];
    tms_codec(TMS_I8)->decode((int8_t[]){-128, 0, 127}, x, 3);
    assert_true(x[0] == -128 && x[1] == 0 && x[2] == 127);
    tms_codec(TMS_U8)->decode((uint8_t[]){0, 128, 255}, x, 3);
    assert_true(x[0] == 0 && x[1] == 128 && x[2] == 255);
    tms_codec(TMS_BOOL)->decode((uint8_t[]){0, 1, 255}, x, 3);
    assert_true(x[0] == 0 && x[1] == 1 && x[2] == 1);
    tms_codec(TMS_I16)->decode((int16_t[]){-32768, 5, 32767}, x, 3);
    assert_true(x[0] == -32768 && x[1] == 5 && x[2] == 32767);
    tms_codec(TMS_U16)->decode((uint16_t[]){0, 5, 65535}, x, 3);
    assert_true(x[0] == 0 && x[1] == 5 && x[2] == 65535);
    tms_codec(TMS_I32)->decode((int32_t[]){INT32_MIN, 16777217, 7}, x, 3); /* 2^24 + 1 is a tie: to even */
    assert_true(x[0] == -0x1p31f && x[1] == 0x1p24f && x[2] == 7);
    tms_codec(TMS_U32)->decode((uint32_t[]){UINT32_MAX, 16777219, 7}, x, 3);
    assert_true(x[0] == 0x1p32f && x[1] == 16777220 && x[2] == 7);
    tms_codec(TMS_I64)->decode((int64_t[]){INT64_MIN, -1, (INT64_C(1) << 40) + 1}, x, 3);
    assert_true(x[0] == -0x1p63f && x[1] == -1 && x[2] == 0x1p40f);
    tms_codec(TMS_U64)->decode((uint64_t[]){UINT64_MAX, 1, (UINT64_C(1) << 40) + 1}, x, 3);
    assert_true(x[0] == 0x1p64f && x[1] == 1 && x[2] == 0x1p40f);
    tms_codec(TMS_F64)->decode((double[]){1e300, -1e-300, 0.1}, x, 3);
    assert_true(isinf(x[0]) && x[1] == 0 && signbit(x[1]) && x[2] == 0.1f);
}

static void fnuz_floats_decode_to_their_definition(void **state)
{
    (void)state;
    uint8_t bytes[256];
    float e4m3[256], e5m2[256];
    for (int b = 0; b < 256; b++) bytes[b] = (uint8_t)b;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        tms_cpu_force(levels[i]);
        tms_codec(TMS_F8_E4M3FNUZ)->decode(bytes, e4m3, 256);
        tms_codec(TMS_F8_E5M2FNUZ)->decode(bytes, e5m2, 256);
        for (int b = 0; b < 256; b++) {
            if (b == 0x80) {
                assert_true(isnan(e4m3[b]) && isnan(e5m2[b]));
                continue;
            }
            int e = b >> 3 & 15, m = b & 7, sign = b & 0x80 ? -1 : 1;
            assert_true(e4m3[b] == (float)sign * ldexpf((float)(e ? 8 + m : m), (e ? e : 1) - 8 - 3));
            e = b >> 2 & 31, m = b & 3;
            assert_true(e5m2[b] == (float)sign * ldexpf((float)(e ? 4 + m : m), (e ? e : 1) - 16 - 2));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoders_give_the_bytes_of_ggml),
        cmocka_unit_test(weighted_encoders_give_the_bytes_of_ggml),
        cmocka_unit_test(decoders_give_the_floats_of_ggml),
        cmocka_unit_test(strange_floats_give_the_same_bytes_on_every_level),
        cmocka_unit_test(random_rows_give_the_same_bytes_on_every_level),
        cmocka_unit_test(blocks_do_not_depend_on_their_neighbours),
        cmocka_unit_test(no_values_touch_no_bytes),
        cmocka_unit_test(any_bytes_decode_alike_on_every_level),
        cmocka_unit_test(any_scale_decodes_alike_on_every_level),
        cmocka_unit_test(table_is_in_order_and_complete),
        cmocka_unit_test(names_are_found_in_any_case),
        cmocka_unit_test(byte_counts_are_exact_or_overflow),
        cmocka_unit_test(integers_and_booleans_decode_to_their_values),
        cmocka_unit_test(fnuz_floats_decode_to_their_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* bitsandbytes' formats against what the library gave (golden/hf/README.md says what is exact). */
#include "support.h"

#include <jansson.h>
#include <math.h>

#include "base/cpu.h"
#include "base/numbers.h"
#include "codec/bnb.h"

static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* ---- a small reader of safetensors: 8 bytes of length, a JSON header, the data ---- */

struct tensors {
    uint8_t *file;
    const uint8_t *data;
    json_t *header;
};

struct tensor {
    const char *dtype;
    const uint8_t *bytes;
    size_t n, n_bytes; /* values */
};

static struct tensors open_tensors(const char *name)
{
    struct tensors t;
    size_t n;
    uint64_t length;
    t.file = read_whole(golden(name), &n);
    memcpy(&length, t.file, 8);
    t.header = json_loadb((const char *)t.file + 8, (size_t)length, 0, NULL);
    assert_non_null(t.header);
    t.data = t.file + 8 + length;
    return t;
}

static void close_tensors(struct tensors *t)
{
    json_decref(t->header);
    free(t->file);
}

static bool find_tensor(const struct tensors *t, const char *name, struct tensor *found)
{
    json_t *entry = json_object_get(t->header, name);
    if (!entry) return false;
    json_t *offsets = json_object_get(entry, "data_offsets"), *shape = json_object_get(entry, "shape");
    size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    found->n_bytes = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin;
    found->bytes = t->data + begin;
    found->dtype = json_string_value(json_object_get(entry, "dtype"));
    found->n = 1;
    for (size_t i = 0; i < json_array_size(shape); i++)
        found->n *= (size_t)json_integer_value(json_array_get(shape, i));
    return true;
}

static struct tensor get_tensor(const struct tensors *t, const char *folder, const char *name)
{
    char path[256];
    struct tensor found;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!find_tensor(t, path, &found)) fail_msg("no tensor %s", path);
    return found;
}

/* As f32; caller frees. */
static float *get_floats(const struct tensors *t, const char *folder, const char *name, size_t *n)
{
    struct tensor found = get_tensor(t, folder, name);
    float *x = malloc((found.n + 1) * sizeof *x);
    if (strcmp(found.dtype, "F32") == 0) memcpy(x, found.bytes, found.n_bytes);
    if (strcmp(found.dtype, "F16") == 0) tms_f16_to_f32_n(found.bytes, x, found.n);
    if (strcmp(found.dtype, "BF16") == 0) tms_bf16_to_f32_n(found.bytes, x, found.n);
    *n = found.n;
    return x;
}

/* ---- tables ---- */

static void assert_table(const struct tensors *t, const char *folder, const char *name, const float *values, size_t n)
{
    struct tensor found = get_tensor(t, folder, name);
    assert_int_equal(found.n, n);
    assert_same_bytes(values, found.bytes, n * sizeof *values, name);
}

static void tables_are_those_of_the_library(void **state)
{
    (void)state;
    struct tensors t = open_tensors("hf/bnb/tables.safetensors");
    struct tensor map;
    assert_true(find_tensor(&t, "nf4.code", &map));
    assert_same_bytes(tms_bnb_nf4_map, map.bytes, 64, "nf4");
    assert_true(find_tensor(&t, "fp4.code", &map));
    assert_same_bytes(tms_bnb_fp4_map, map.bytes, 64, "fp4");
    assert_true(find_tensor(&t, "dynamic.map", &map));
    assert_same_bytes(tms_bnb_dynamic_map, map.bytes, 1024, "dynamic");
    assert_ptr_equal(tms_bnb_map(TMS_BNB_NF4), tms_bnb_nf4_map);
    assert_ptr_equal(tms_bnb_map(TMS_BNB_FP4), tms_bnb_fp4_map);
    close_tensors(&t);

    t = open_tensors("hf/bnb/double_quant.safetensors");
    assert_table(&t, "small_b64", "quant_map", tms_bnb_nf4_map, 16);
    assert_table(&t, "small_b128_fp4", "quant_map", tms_bnb_fp4_map, 16);
    assert_table(&t, "small_b64", "nested_quant_map", tms_bnb_dynamic_map, 256);
    close_tensors(&t);
}

static void midpoints_belong_to_the_lower_code(void **state)
{
    (void)state;
    struct tensors t = open_tensors("hf/bnb/tables.safetensors");
    for (int kind = 0; kind < 2; kind++) {
        struct tensor boundaries, order;
        assert_true(find_tensor(&t, kind ? "fp4.boundaries" : "nf4.boundaries", &boundaries));
        assert_true(find_tensor(&t, kind ? "fp4.order" : "nf4.order", &order));
        float x[64] = {1}, absmax;
        memcpy(x + 2, boundaries.bytes, 15 * sizeof *x);
        for (int i = 0; i < 15; i++) x[17 + i] = nextafterf(x[2 + i], 2);
        uint8_t packed[32];
        tms_bnb_encode4(kind ? TMS_BNB_FP4 : TMS_BNB_NF4, 64, x, 64, packed, &absmax);
        for (int i = 0; i < 15; i++) {
            int at = 2 + i, above = 17 + i;
            assert_int_equal(packed[at / 2] >> (at % 2 ? 0 : 4) & 15, order.bytes[i]);
            assert_int_equal(packed[above / 2] >> (above % 2 ? 0 : 4) & 15, order.bytes[i + 1]);
        }
    }
    close_tensors(&t);
}

/* ---- four bits ---- */

static void check_decoded(const struct tensors *t, const char *folder, const float *decoded, size_t n)
{
    static const char *const fields[] = {"dequantized.f32", "dequantized.f16", "dequantized.bf16"};
    for (int i = 0; i < 3; i++) {
        char path[160];
        struct tensor want;
        snprintf(path, sizeof path, "%s/%s", folder, fields[i]);
        if (!find_tensor(t, path, &want)) continue;
        uint8_t *got = malloc(4 * n);
        if (i == 0) memcpy(got, decoded, 4 * n);
        if (i == 1) tms_f32_to_f16_n(decoded, got, n);
        if (i == 2) tms_f32_to_bf16_n(decoded, got, n);
        assert_int_equal(want.n, n);
        assert_same_bytes(got, want.bytes, want.n_bytes, path);
        free(got);
    }
}

static void check_four_bits(const char *file, size_t expected)
{
    struct tensors t = open_tensors(file);
    size_t checked = 0;
    const char *key;
    json_t *entry;
    json_object_foreach(t.header, key, entry)
    {
        char folder[128], name[64], kind[8];
        unsigned block;
        size_t length = strlen(key);
        if (length < 7 || strcmp(key + length - 7, "/packed") != 0) continue;
        snprintf(folder, sizeof folder, "%.*s", (int)(length - 7), key);
        assert_int_equal(sscanf(folder, "%63[^/]/%7[^/]/b%u", name, kind, &block), 3);
        assert_true(tms_bnb_block_size_ok(block));
        enum tms_bnb_kind k = strcmp(kind, "fp4") == 0 ? TMS_BNB_FP4 : TMS_BNB_NF4;

        size_t n;
        float *x = get_floats(&t, name, "input", &n);
        struct tensor packed = get_tensor(&t, folder, "packed"), absmax = get_tensor(&t, folder, "absmax");
        assert_int_equal(packed.n, (n + 1) / 2);
        assert_int_equal(absmax.n, (n + block - 1) / block);
        uint8_t *got = malloc(packed.n);
        float *got_absmax = malloc(absmax.n_bytes), *decoded = malloc(n * sizeof *decoded);
        for (int level = 0; level < N_LEVELS; level++) {
            tms_cpu_force(levels[level]);
            memset(got, 0xee, packed.n);
            tms_bnb_encode4(k, block, x, n, got, got_absmax);
            assert_same_bytes(got_absmax, absmax.bytes, absmax.n_bytes, folder);
            assert_same_bytes(got, packed.bytes, packed.n, folder);
            tms_bnb_decode4(tms_bnb_map(k), block, got, got_absmax, decoded, n);
            check_decoded(&t, folder, decoded, n);
        }
        checked++;
        free(x), free(got), free(got_absmax), free(decoded);
    }
    close_tensors(&t);
    assert_int_equal(checked, expected);
}

static void four_bit_codes_of_f32_are_those_of_the_library(void **state)
{
    (void)state;
    check_four_bits("hf/bnb/quant4_f32.safetensors", 52);
}

static void four_bit_codes_of_f16_are_those_of_the_library(void **state)
{
    (void)state;
    check_four_bits("hf/bnb/quant4_f16.safetensors", 36);
}

static void four_bit_codes_of_bf16_are_those_of_the_library(void **state)
{
    (void)state;
    check_four_bits("hf/bnb/quant4_bf16.safetensors", 36);
}

static void nf4_packs_first_value_in_high_nibble(void **state)
{
    (void)state;
    float x[3] = {1, -1, 1}, absmax;
    uint8_t packed[2];
    tms_bnb_encode4(TMS_BNB_NF4, 64, x, 3, packed, &absmax);
    assert_int_equal(packed[0], 0xf0);
    assert_int_equal(packed[1], 0xf7); /* the missing partner counts as 0, code 7 */
    assert_true(absmax == 1);
}

static void four_bit_tensor_may_be_encoded_in_parts(void **state)
{
    (void)state;
    enum { N = 64 * 37 + 21 };
    float x[N], whole_absmax[38], absmax[38];
    uint8_t whole[N / 2 + 1], packed[N / 2 + 1];
    uint64_t seed = 5;
    for (int i = 0; i < N; i++) x[i] = random_normal(&seed);
    tms_bnb_encode4(TMS_BNB_NF4, 64, x, N, whole, whole_absmax);
    for (size_t begin = 0; begin < N; begin += 5 * 64) {
        size_t n = N - begin < 5 * 64 ? N - begin : 5 * 64;
        tms_bnb_encode4(TMS_BNB_NF4, 64, x + begin, n, packed + begin / 2, absmax + begin / 64);
    }
    assert_same_bytes(packed, whole, sizeof whole, "codes");
    assert_same_bytes(absmax, whole_absmax, sizeof absmax, "absmax");
}

static void strange_floats_encode_alike_on_every_level(void **state)
{
    (void)state;
    enum { N = 64 * 64 + 1 };
    float x[N], want_absmax[N / 64 + 1], absmax[N / 64 + 1];
    uint8_t want[N / 2 + 1], packed[N / 2 + 1];
    uint64_t seed = 9;
    for (int i = 0; i < N; i++) {
        uint32_t u = (uint32_t)next_random(&seed);
        if ((u & 0x7f800000) == 0x7f800000) u &= 0x807fffff;
        if (i / 64 % 2) u &= 0x80ffffff; /* blocks of subnormals */
        memcpy(&x[i], &u, sizeof u);
    }
    for (int kind = 0; kind < 2; kind++)
        for (int level = 0; level < N_LEVELS; level++) {
            tms_cpu_force(levels[level]);
            tms_bnb_encode4(kind ? TMS_BNB_FP4 : TMS_BNB_NF4, 64, x, N, packed, absmax);
            if (level == 0) memcpy(want, packed, sizeof want), memcpy(want_absmax, absmax, sizeof absmax);
            assert_same_bytes(packed, want, sizeof want, "codes");
            assert_same_bytes(absmax, want_absmax, sizeof absmax, "absmax");
        }
}

/* Also with a map of its own, an odd number of codes and blocks of every size. */
static void any_codes_decode_alike_on_every_level(void **state)
{
    (void)state;
    enum { N = 4096 + 32 + 17 };
    static float x[N], want[N];
    float absmax[N / 32 + 1], map[16];
    uint8_t packed[N / 2 + 1];
    uint64_t seed = 10;
    for (size_t i = 0; i < sizeof packed; i++) packed[i] = (uint8_t)next_random(&seed);
    for (size_t i = 0; i < N / 32 + 1; i++)
        absmax[i] = ldexpf(random_normal(&seed), (int)(next_random(&seed) % 200) - 100);
    absmax[3] = INFINITY, absmax[5] = 0, absmax[6] = 1e-44f;
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < 16; i++)
            map[i] = kind < 2 ? tms_bnb_map(kind ? TMS_BNB_FP4 : TMS_BNB_NF4)[i] : random_normal(&seed);
        for (uint32_t block = 32; block <= 4096; block *= 2)
            for (int level = 0; level < N_LEVELS; level++) {
                tms_cpu_force(levels[level]);
                size_t n = kind ? N : N - 1;
                tms_bnb_decode4(map, block, packed, absmax, x, n);
                for (size_t i = 0; i < n; i++) {
                    uint8_t code = i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
                    want[i] = map[code] * absmax[i / block];
                    if (isnan(want[i]) && isnan(x[i])) x[i] = want[i];
                }
                assert_same_bytes(x, want, n * sizeof *x, "decoded");
            }
    }
}

static void block_sizes_are_powers_of_two_from_32_to_4096(void **state)
{
    (void)state;
    size_t n = 0;
    for (uint64_t size = 0; size < 10000; size++) n += tms_bnb_block_size_ok(size);
    assert_int_equal(n, 8);
    assert_true(tms_bnb_block_size_ok(32) && tms_bnb_block_size_ok(64) && tms_bnb_block_size_ok(4096));
    assert_false(tms_bnb_block_size_ok(UINT64_C(1) << 33));
}

/* ---- double quantization ---- */

/* The inverse of the largest is infinite, and 0 times that no number. */
static void zeros_beside_a_subnormal_have_the_code_of_zero(void **state)
{
    (void)state;
    const float y[4] = {1e-40f, 0, -1e-40f, 0};
    uint8_t codes[4];
    float absmax;
    tms_bnb_encode_dynamic8(y, 4, codes, &absmax);
    assert_true(absmax == 1e-40f);
    assert_true(tms_bnb_dynamic_map[codes[0]] == 1);
    assert_true(fabsf(tms_bnb_dynamic_map[codes[1]]) < 1e-4f);
    assert_int_equal(codes[2], 0);
    assert_int_equal(codes[3], codes[1]);
}

static void absmax_codes_are_those_of_the_library(void **state)
{
    (void)state;
    static const char *const cases[] = {"small_b64", "small_b128_fp4", "big_b32",
                                        "big_b64",   "outlier_b64",    "equal_b64"};
    struct tensors t = open_tensors("hf/bnb/double_quant.safetensors");
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t n, n_values;
        float *absmax = get_floats(&t, cases[c], "absmax_f32", &n), offset;
        struct tensor want = get_tensor(&t, cases[c], "absmax");
        struct tensor want_nested = get_tensor(&t, cases[c], "nested_absmax");
        memcpy(&offset, get_tensor(&t, cases[c], "nested_offset").bytes, sizeof offset);
        uint8_t *codes = malloc(n);
        float *nested = malloc(want_nested.n_bytes), *y = malloc(n * sizeof *y), mean;

        for (size_t i = 0; i < n; i++) y[i] = absmax[i] - offset;
        tms_bnb_encode_dynamic8(y, n, codes, nested);
        assert_same_bytes(codes, want.bytes, n, cases[c]);
        assert_same_bytes(nested, want_nested.bytes, want_nested.n_bytes, cases[c]);

        /* Our own mean is the exact one rounded; the library's depends on its order of summation. */
        tms_bnb_encode_absmax(absmax, n, codes, nested, &mean);
        assert_true(fabsf(mean - offset) <= 4e-7f * fabsf(offset));
        if (mean == offset) {
            assert_same_bytes(codes, want.bytes, n, cases[c]);
            assert_same_bytes(nested, want_nested.bytes, want_nested.n_bytes, cases[c]);
        }

        /* Decoding, with the library's codes. */
        struct tensor library = get_tensor(&t, cases[c], "absmax");
        struct tensor decoded = get_tensor(&t, cases[c], "absmax_dequantized");
        struct tensor library_nested = get_tensor(&t, cases[c], "nested_absmax");
        memcpy(nested, library_nested.bytes, library_nested.n_bytes);
        tms_bnb_decode_absmax(tms_bnb_dynamic_map, 256, library.bytes, nested, offset, y, n);
        assert_same_bytes(y, decoded.bytes, decoded.n_bytes, cases[c]);

        /* And the weights themselves. */
        unsigned block = strstr(cases[c], "b128") ? 128 : strstr(cases[c], "b32") ? 32 : 64;
        bool is_fp4 = memcmp(get_tensor(&t, cases[c], "quant_map").bytes, tms_bnb_fp4_map, sizeof tms_bnb_fp4_map) == 0;
        enum tms_bnb_kind kind = is_fp4 ? TMS_BNB_FP4 : TMS_BNB_NF4;
        float *x = get_floats(&t, cases[c], "input", &n_values);
        struct tensor packed = get_tensor(&t, cases[c], "packed");
        struct tensor values = get_tensor(&t, cases[c], "dequantized");
        uint8_t *got = malloc(4 * n_values);
        float *got_absmax = malloc(n * sizeof *got_absmax);
        tms_bnb_encode4(kind, block, x, n_values, got, got_absmax);
        assert_same_bytes(got, packed.bytes, packed.n_bytes, cases[c]);
        assert_same_bytes(got_absmax, absmax, n * sizeof *absmax, cases[c]);
        tms_bnb_decode4(tms_bnb_map(kind), block, packed.bytes, y, x, n_values);
        if (strcmp(values.dtype, "F32") == 0) memcpy(got, x, 4 * n_values);
        if (strcmp(values.dtype, "F16") == 0) tms_f32_to_f16_n(x, got, n_values);
        if (strcmp(values.dtype, "BF16") == 0) tms_f32_to_bf16_n(x, got, n_values);
        assert_same_bytes(got, values.bytes, values.n_bytes, cases[c]);
        free(absmax), free(codes), free(nested), free(y), free(x), free(got), free(got_absmax);
    }
    close_tensors(&t);
}

static void dynamic8_codes_are_those_of_the_library(void **state)
{
    (void)state;
    static const char *const cases[] = {"dynamic8_edges", "dynamic8_gauss"};
    struct tensors t = open_tensors("hf/bnb/double_quant.safetensors");
    for (int c = 0; c < 2; c++) {
        size_t n;
        float *x = get_floats(&t, cases[c], "input", &n);
        struct tensor codes = get_tensor(&t, cases[c], "codes");
        struct tensor absmax = get_tensor(&t, cases[c], "absmax");
        uint8_t *got = malloc(n);
        float *got_absmax = malloc(absmax.n_bytes);
        tms_bnb_encode_dynamic8(x, n, got, got_absmax);
        assert_same_bytes(got, codes.bytes, n, cases[c]);
        assert_same_bytes(got_absmax, absmax.bytes, absmax.n_bytes, cases[c]);
        free(x), free(got), free(got_absmax);
    }
    close_tensors(&t);
}

/* ---- LLM.int8 ---- */

static void int8_rows_are_those_of_the_library(void **state)
{
    (void)state;
    enum { ROWS = 48, COLS = 160 };
    static const char *const cases[] = {"weight_f16", "weight_bf16", "weight_f32"};
    struct tensors t = open_tensors("hf/bnb/int8.safetensors");
    for (int level = 0; level < N_LEVELS; level++) {
        tms_cpu_force(levels[level]);
        for (int c = 0; c < 3; c++) {
            size_t n;
            float *x = get_floats(&t, cases[c], "input", &n);
            assert_int_equal(n, ROWS * COLS);
            int8_t codes[ROWS * COLS];
            float scb[ROWS], decoded[ROWS * COLS];
            for (int row = 0; row < ROWS; row++) {
                assert_int_equal(tms_bnb_encode_int8(x + row * COLS, COLS, codes + row * COLS, scb + row), COLS);
                tms_bnb_decode_int8(codes + row * COLS, scb[row], decoded + row * COLS, COLS);
            }
            assert_same_bytes(scb, get_tensor(&t, cases[c], "SCB").bytes, sizeof scb, cases[c]);
            assert_same_bytes(codes, get_tensor(&t, cases[c], "codes").bytes, sizeof codes, cases[c]);
            assert_same_bytes(decoded, get_tensor(&t, cases[c], "dequantized").bytes, sizeof decoded, cases[c]);
            free(x);
        }
    }
    close_tensors(&t);
}

static void int8_zero_row_gives_zeros(void **state)
{
    (void)state;
    float x[40] = {0}, scb = 5;
    int8_t codes[40], zeros[40] = {0};
    x[3] = 1e-9f; /* zero in f16 */
    memset(codes, 7, sizeof codes);
    assert_int_equal(tms_bnb_encode_int8(x, 40, codes, &scb), 40);
    assert_true(scb == 0);
    assert_memory_equal(codes, zeros, 40);
}

static void int8_names_the_first_value_beyond_f16(void **state)
{
    (void)state;
    float x[600] = {0}, scb;
    int8_t codes[600];
    x[0] = 65519; /* rounds to 65504 */
    x[400] = 65520;
    x[500] = NAN;
    assert_int_equal(tms_bnb_encode_int8(x, 600, codes, &scb), 400);
    x[400] = 0;
    assert_int_equal(tms_bnb_encode_int8(x, 600, codes, &scb), 500);
    x[500] = -65519;
    assert_int_equal(tms_bnb_encode_int8(x, 600, codes, &scb), 600);
    assert_true(scb == 65504);
    assert_int_equal(codes[0], 127);
    assert_int_equal(codes[500], -127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_those_of_the_library),
        cmocka_unit_test(midpoints_belong_to_the_lower_code),
        cmocka_unit_test(four_bit_codes_of_f32_are_those_of_the_library),
        cmocka_unit_test(four_bit_codes_of_f16_are_those_of_the_library),
        cmocka_unit_test(four_bit_codes_of_bf16_are_those_of_the_library),
        cmocka_unit_test(nf4_packs_first_value_in_high_nibble),
        cmocka_unit_test(four_bit_tensor_may_be_encoded_in_parts),
        cmocka_unit_test(strange_floats_encode_alike_on_every_level),
        cmocka_unit_test(any_codes_decode_alike_on_every_level),
        cmocka_unit_test(block_sizes_are_powers_of_two_from_32_to_4096),
        cmocka_unit_test(zeros_beside_a_subnormal_have_the_code_of_zero),
        cmocka_unit_test(absmax_codes_are_those_of_the_library),
        cmocka_unit_test(dynamic8_codes_are_those_of_the_library),
        cmocka_unit_test(int8_rows_are_those_of_the_library),
        cmocka_unit_test(int8_zero_row_gives_zeros),
        cmocka_unit_test(int8_names_the_first_value_beyond_f16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

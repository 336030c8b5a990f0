/* The packings of GPTQ, AWQ and compressed-tensors, and their plain rounding, against what the libraries gave
 * (tests/golden/hf; golden/hf/README.md of the reference data says what is exact: all of it here). */
#include "support.h"

#include <math.h>

#include "base/numbers.h"
#include "codec/grid.h"
#include "codec/grid_round.h"
#include "file/safetensors.h"

struct blob {
    enum tms_type type;
    uint64_t shape[4], n;
    uint64_t bytes;
    uint8_t *data;
};

static bool find(const struct tms_safetensors *st, const char *prefix, const char *name, struct blob *out)
{
    char full[256];
    struct tms_error err;
    snprintf(full, sizeof full, "%s/%s", prefix, name);
    const struct tms_st_tensor *t = tms_safetensors_find(st, full);
    if (!t) return false;
    *out = (struct blob){.type = t->type, .n = t->n_elems, .bytes = t->bytes, .data = calloc(t->bytes + 4, 1)};
    memcpy(out->shape, t->shape, sizeof out->shape);
    assert_ok(tms_file_read(&st->file, out->data, t->bytes, t->offset, &err), err);
    return true;
}

static struct blob get(const struct tms_safetensors *st, const char *prefix, const char *name)
{
    struct blob b;
    if (!find(st, prefix, name, &b)) fail_msg("%s/%s is missing", prefix, name);
    return b;
}

static float *floats(const struct blob *b)
{
    float *x = calloc(b->n + 1, sizeof *x);
    tms_codec(b->type)->decode(b->data, x, b->n);
    return x;
}

static struct tms_safetensors *open_golden(const char *name)
{
    struct tms_safetensors *st;
    struct tms_error err;
    assert_ok(tms_safetensors_open(&st, golden(name), &err), err);
    return st;
}

/* Rounds x to a type and compares with its stored bytes. */
static void expect_values(const float *x, const struct blob *want, const char *what)
{
    uint8_t *got = calloc(want->bytes, 1);
    tms_codec(want->type)->encode(x, got, want->n);
    for (uint64_t i = 0, size = want->bytes / want->n; i < want->n; i++) { /* -0 is 0 */
        float a, b;
        tms_codec(want->type)->decode(got + i * size, &a, 1);
        tms_codec(want->type)->decode(want->data + i * size, &b, 1);
        if (!(a == b)) fail_msg("%s: value %llu is %.9g, want %.9g", what, (unsigned long long)i, (double)a, (double)b);
    }
    free(got);
}

static uint8_t *transpose(const uint8_t *from, uint64_t rows, uint64_t cols)
{
    uint8_t *to = calloc(rows * cols, 1);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) to[c * rows + r] = from[r * cols + c];
    return to;
}

static float *transpose_floats(const float *from, uint64_t rows, uint64_t cols)
{
    float *to = calloc(rows * cols, sizeof *to);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) to[c * rows + r] = from[r * cols + c];
    return to;
}

/* Packing gives the stored words; unpacking, at once and in ranges, gives the codes. */
static void expect_codes(const struct tms_grid *grid, const uint8_t *codes, const struct blob *stored, const char *what)
{
    uint64_t n_bytes = tms_grid_code_bytes(grid, grid->rows);
    assert_int_equal(n_bytes, stored->bytes);
    uint8_t *packed = calloc(n_bytes + 4, 1), *back = calloc(grid->rows * grid->cols, 1);
    for (uint64_t row = 0; row < grid->rows; row += 32) {
        uint64_t n = grid->rows - row < 32 ? grid->rows - row : 32;
        tms_grid_pack(grid, codes + row * grid->cols, row, n, packed);
    }
    assert_same_bytes(packed, stored->data, n_bytes, what);
    tms_grid_unpack(grid, stored->data, 0, grid->rows, 0, grid->cols, back, grid->cols);
    assert_same_bytes(back, codes, grid->rows * grid->cols, what);
    memset(back, 255, grid->rows * grid->cols);
    for (uint64_t row = 0; row < grid->rows; row += 5)
        for (uint64_t col = 0; col < grid->cols; col += 32) {
            uint64_t n = grid->rows - row < 5 ? grid->rows - row : 5, m = grid->cols - col < 32 ? grid->cols - col : 32;
            tms_grid_unpack(grid, stored->data, row, n, col, m, back + row * grid->cols + col, grid->cols);
        }
    assert_same_bytes(back, codes, grid->rows * grid->cols, what);
    free(packed);
    free(back);
}

static float *decode_all(const struct tms_grid *grid, const uint8_t *stored, const float *scales, const uint8_t *zeros)
{
    float *x = calloc(grid->rows * grid->cols, sizeof *x);
    tms_grid_decode(grid, stored, scales, zeros, 0, grid->rows, 0, grid->cols, x, grid->cols);
    return x;
}

/* ---- GPTQ ---- */

static void gptq_words_zero_points_and_values_equal_the_references(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "w2_g32_asym",     "w2_g32_asym_desc",  "w2_g32_sym",  "w2_g32_sym_desc", "w2_gall_asym",      "w2_gall_sym",
        "w3_g128_asym",    "w3_g128_asym_desc", "w3_g128_sym", "w3_g32_asym",     "w3_g32_asym_desc",  "w3_g32_sym",
        "w3_g32_sym_desc", "w3_gall_asym",      "w3_gall_sym", "w4_g128_asym",    "w4_g128_asym_desc", "w4_g128_sym",
        "w4_g32_asym",     "w4_g32_asym_desc",  "w4_g32_sym",  "w4_g32_sym_desc", "w4_gall_asym",      "w4_gall_sym",
        "w8_g32_asym",     "w8_g32_asym_desc",  "w8_g32_sym",  "w8_g32_sym_desc", "w8_gall_asym",      "w8_gall_sym"};
    struct tms_safetensors *st = open_golden("hf/gptq/packing.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *name = cases[k];
        struct blob codes = get(st, name, "codes"), zeros = get(st, name, "zeros"), g_idx = get(st, name, "g_idx"),
                    qweight = get(st, name, "qweight"), v1 = get(st, name, "qzeros_v1"),
                    v2 = get(st, name, "qzeros_v2"), scales = get(st, name, "scales"),
                    want = get(st, name, "dequantized");
        uint64_t cols = codes.shape[0], rows = codes.shape[1], groups = zeros.shape[0];
        struct tms_grid grid = {.layout = TMS_GRID_GPTQ,
                                .bits = (unsigned)name[1] - '0',
                                .rows = rows,
                                .cols = cols,
                                .group = strstr(name, "g128")  ? 128
                                         : strstr(name, "g32") ? 32
                                                               : cols,
                                .scale_rows = 1,
                                .has_zeros = true,
                                .group_of = (const uint32_t *)(const void *)g_idx.data};
        assert_int_equal(tms_grid_groups(&grid), groups);
        uint8_t *by_row = transpose(codes.data, cols, rows), *zero_rows = transpose(zeros.data, groups, rows);
        expect_codes(&grid, by_row, &qweight, name);
        uint8_t *words = calloc(v1.bytes, 1), *back = calloc(rows * groups, 1);
        for (int one = 0; one < 2; one++) {
            const struct blob *stored = one ? &v1 : &v2;
            tms_gptq_pack_zeros(zero_rows, rows, groups, grid.bits, one, words);
            assert_same_bytes(words, stored->data, stored->bytes, name);
            tms_gptq_unpack_zeros(stored->data, rows, groups, grid.bits, one, back);
            assert_same_bytes(back, zero_rows, rows * groups, name);
        }
        float *s = floats(&scales), *s_rows = transpose_floats(s, groups, rows);
        float *x = decode_all(&grid, qweight.data, s_rows, zero_rows), *turned = transpose_floats(x, rows, cols);
        expect_values(turned, &want, name);
        if (!strstr(name, "_desc")) { /* then the groups follow from the columns */
            grid.group_of = NULL;
            float *again = decode_all(&grid, qweight.data, s_rows, zero_rows);
            assert_memory_equal(again, x, rows * cols * sizeof *x);
            free(again);
        }
        void *all[] = {codes.data, zeros.data, g_idx.data, qweight.data, v1.data, v2.data, scales.data, want.data,
                       by_row,     zero_rows,  words,      back,         s,       s_rows,  x,           turned};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    tms_safetensors_close(st);
}

static void gptq_rounding_takes_the_nearest_point_and_a_symmetric_range(void **state)
{
    (void)state;
    uint64_t seed = 3;
    float x[32 * 64], scales[32 * 2];
    uint8_t zeros[32 * 2], codes[32 * 64];
    for (size_t i = 0; i < 32 * 64; i++) x[i] = i < 64 ? fabsf(random_normal(&seed)) : random_normal(&seed);
    memset(x + 64, 0, 64 * sizeof *x);
    for (int symmetric = 0; symmetric < 2; symmetric++)
        for (unsigned bits = 2; bits <= 8; bits += bits == 4 ? 4 : 1) {
            struct tms_grid grid = {.layout = TMS_GRID_GPTQ,
                                    .bits = bits,
                                    .rows = 32,
                                    .cols = 64,
                                    .group = 32,
                                    .scale_rows = 1,
                                    .has_zeros = true};
            struct tms_rounding how = {.rule = TMS_RULE_GPTQ, .symmetric = symmetric};
            tms_grid_round(&grid, &how, x, 0, 32, scales, zeros, codes);
            for (size_t i = 0; i < 32 * 64; i++) {
                float s = scales[i / 32], w = s * (float)((int)codes[i] - zeros[i / 32]);
                assert_true(codes[i] < 1u << bits);
                if (symmetric) assert_int_equal(zeros[i / 32], 1u << (bits - 1));
                assert_true(fabsf(w - x[i]) <= s * 0.57f + (symmetric && x[i] > 0 ? s * 0.5f : 0));
            }
            assert_int_equal(codes[64], zeros[2]); /* an empty group is exact */
        }
}

/* ---- AWQ ---- */

static void awq_words_rounding_and_values_equal_the_references(void **state)
{
    (void)state;
    static const char *const cases[] = {"g128", "g64", "g32", "gall"};
    struct tms_safetensors *st = open_golden("hf/awq/packing.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *name = cases[k];
        struct blob weight = get(st, name, "weight"), zeros = get(st, name, "zeros_rows"),
                    scale_rows = get(st, name, "scales_rows"), qweight = get(st, name, "qweight"),
                    qzeros = get(st, name, "qzeros"), want = get(st, name, "dequantized");
        uint64_t rows = weight.shape[0], cols = weight.shape[1], groups = zeros.shape[1];
        struct tms_grid grid = {.layout = TMS_GRID_AWQ,
                                .bits = 4,
                                .rows = rows,
                                .cols = cols,
                                .group = cols / groups,
                                .scale_rows = 1,
                                .has_zeros = true};
        struct tms_rounding how = {.rule = TMS_RULE_AWQ};
        float *x = floats(&weight), *s = calloc(rows * groups, sizeof *s);
        uint8_t *z = calloc(rows * groups, 1), *codes = calloc(rows * cols, 1), *words = calloc(qzeros.bytes, 1);
        for (uint64_t row = 0; row < rows; row += 32)
            tms_grid_round(&grid, &how, x + row * cols, row, 32, s, z, codes + row * cols);
        expect_values(s, &scale_rows, name);
        assert_same_bytes(z, zeros.data, zeros.bytes, name);
        expect_codes(&grid, codes, &qweight, name);
        tms_awq_pack_zeros(z, rows, groups, words);
        assert_same_bytes(words, qzeros.data, qzeros.bytes, name);
        memset(z, 255, rows * groups);
        tms_awq_unpack_zeros(qzeros.data, rows, groups, z);
        assert_same_bytes(z, zeros.data, zeros.bytes, name);
        float *back = decode_all(&grid, qweight.data, s, z), *turned = transpose_floats(back, rows, cols);
        expect_values(turned, &want, name);
        void *all[] = {weight.data, zeros.data, scale_rows.data, qweight.data, qzeros.data, want.data, x,
                       s,           z,          codes,           words,        back,        turned};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    tms_safetensors_close(st);
}

/* ---- compressed-tensors ---- */

static uint64_t group_in(const char *name, uint64_t cols)
{
    const char *g = strstr(name, "_g");
    return g ? strtoul(g + 2, NULL, 10) : cols;
}

static void ct_packed_integers_equal_the_references(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "w4_sym_g128.bf16",    "w4_sym_g32.bf16",    "w4_sym_g32.f16",   "w4_sym_g32.f32",       "w4_asym_g128.bf16",
        "w4_asym_g128.f32",    "w4_asym_g32.bf16",   "w4_asym_g32.f16",  "w4_asym_channel.bf16", "w8_sym_g128.bf16",
        "w8_sym_channel.bf16", "w8_sym_channel.f32", "w8_asym_g64.bf16", "w3_sym_g32.bf16",      "w3_sym_g32.f32",
        "w2_asym_g64.bf16",    "w5_asym_g32.bf16",   "w6_sym_g32.bf16",  "w7_sym_channel.bf16"};
    struct tms_safetensors *st = open_golden("hf/ct/pack.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *name = cases[k];
        char part[64];
        struct blob input = get(st, name, "input"), packed = get(st, name, "stored.weight_packed"),
                    scale = get(st, name, "stored.weight_scale"), want = get(st, name, "dequantized"), zero = {0};
        bool asym = strstr(name, "asym") != NULL;
        uint64_t rows = input.shape[0], cols = input.shape[1], group = group_in(name, cols), groups = cols / group;
        struct tms_grid grid = {.layout = TMS_GRID_STREAM,
                                .bits = (unsigned)name[1] - '0',
                                .rows = rows,
                                .cols = cols,
                                .group = group,
                                .scale_rows = 1,
                                .has_zeros = asym};
        struct tms_rounding how = {.rule = TMS_RULE_CT, .dtype = input.type, .symmetric = !asym};
        grid.row_bytes = tms_grid_stream_bytes(cols, grid.bits);
        float *x = floats(&input), *s = calloc(rows * groups, sizeof *s);
        uint8_t *z = calloc(rows * groups, 1), *codes = calloc(rows * cols, 1);
        tms_grid_round(&grid, &how, x, 0, rows, s, z, codes);
        snprintf(part, sizeof part, "%s scales", name);
        expect_values(s, &scale, part);
        expect_codes(&grid, codes, &packed, name);
        if (asym) {
            zero = get(st, name, "stored.weight_zero_point");
            uint8_t *words = calloc(zero.bytes, 1), *back = calloc(rows * groups, 1);
            tms_ct_pack_zeros(z, rows, groups, grid.bits, words);
            assert_same_bytes(words, zero.data, zero.bytes, name);
            tms_ct_unpack_zeros(zero.data, groups, grid.bits, false, 0, rows, back);
            assert_same_bytes(back, z, rows * groups, name);
            free(words);
            free(back);
        }
        float *back = decode_all(&grid, packed.data, s, asym ? z : NULL);
        expect_values(back, &want, name);
        void *all[] = {input.data, packed.data, scale.data, want.data, zero.data, x, s, z, codes, back};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    tms_safetensors_close(st);
}

static float largest(const float *x, uint64_t n)
{
    float most = 0;
    for (uint64_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

static void ct_bytes_equal_the_references(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "w8a8_int.bf16",      "w8a8_int.f16",    "w8a8_int.f32",         "w8a8_int_asym.bf16", "w8a8_int_tensor.bf16",
        "w4a8_int_g128.bf16", "fp8_tensor.bf16", "fp8_tensor.f32",       "fp8_channel.bf16",   "fp8_channel.f16",
        "fp8_channel.f32",    "fp8_block.bf16",  "fp8_block_ragged.bf16"};
    struct tms_safetensors *st = open_golden("hf/ct/eight_bit.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *name = cases[k];
        struct blob input = get(st, name, "input"), stored = get(st, name, "stored.weight"),
                    scale = get(st, name, "stored.weight_scale"), want = get(st, name, "dequantized"), zero = {0};
        bool asym = strstr(name, "asym") != NULL, blocks = strstr(name, "block") != NULL,
             fp8 = strncmp(name, "fp8", 3) == 0;
        uint64_t rows = input.shape[0], cols = input.shape[1];
        struct tms_grid grid = {.layout = TMS_GRID_BYTES,
                                .values = fp8 ? TMS_GRID_E4M3 : TMS_GRID_INT,
                                .bits = name[1] == '4' ? 4 : 8,
                                .rows = rows,
                                .cols = cols,
                                .group = blocks ? 128 : group_in(name, cols),
                                .scale_rows = blocks                    ? 128
                                              : strstr(name, "_tensor") ? rows
                                                                        : 1,
                                .row_bytes = cols,
                                .has_zeros = asym};
        float *x = floats(&input), *s = calloc(rows * cols, sizeof *s);
        struct tms_rounding how = {.rule = TMS_RULE_CT,
                                   .dtype = input.type,
                                   .symmetric = !asym,
                                   .amax = strstr(name, "_tensor") ? largest(x, rows * cols) : 0};
        uint8_t *z = calloc(rows * cols, 1), *codes = calloc(rows * cols, 1);
        tms_grid_round(&grid, &how, x, 0, rows, s, z, codes);
        expect_values(s, &scale, name);
        expect_codes(&grid, codes, &stored, name);
        if (asym) {
            zero = get(st, name, "stored.weight_zero_point");
            for (uint64_t i = 0; i < zero.n; i++) assert_int_equal((int8_t)zero.data[i], (int)z[i] - 128);
        }
        float *back = decode_all(&grid, stored.data, s, asym ? z : NULL);
        expect_values(back, &want, name);
        void *all[] = {input.data, stored.data, scale.data, want.data, zero.data, x, s, z, codes, back};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    tms_safetensors_close(st);
}

static void ct_small_floats_equal_the_references(void **state)
{
    (void)state;
    static const char *const cases[] = {"nvfp4.bf16", "nvfp4.f16", "nvfp4.f32", "mxfp4.bf16", "mxfp4.f16", "mxfp4.f32"};
    struct tms_safetensors *st = open_golden("hf/ct/float4.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *name = cases[k];
        bool nv = name[0] == 'n';
        struct blob input = get(st, name, "input"), packed = get(st, name, "stored.weight_packed"),
                    scale = get(st, name, "stored.weight_scale"), want = get(st, name, "dequantized"), global = {0};
        uint64_t rows = input.shape[0], cols = input.shape[1], group = nv ? 16 : 32;
        struct tms_grid grid = {.layout = TMS_GRID_STREAM,
                                .values = TMS_GRID_E2M1,
                                .bits = 4,
                                .rows = rows,
                                .cols = cols,
                                .group = group,
                                .scale_rows = 1,
                                .row_bytes = cols / 2};
        float *x = floats(&input), *s = calloc(rows * cols / group, sizeof *s);
        struct tms_rounding how = {.rule = TMS_RULE_CT,
                                   .scales = nv ? TMS_SCALES_NVFP4 : TMS_SCALES_MX,
                                   .dtype = input.type,
                                   .symmetric = true};
        uint8_t *codes = calloc(rows * cols, 1);
        if (nv) {
            global = get(st, name, "stored.weight_global_scale");
            how.global = tms_nvfp4_global(largest(x, rows * cols), input.type);
            float g;
            memcpy(&g, global.data, sizeof g);
            assert_true(g == how.global);
        }
        tms_grid_round(&grid, &how, x, 0, rows, s, NULL, codes);
        for (uint64_t i = 0; i < scale.n; i++) {
            uint8_t byte = nv ? tms_f32_to_e4m3(s[i]) : tms_f32_to_e8m0(s[i]);
            if (byte != scale.data[i])
                fail_msg("%s: scale %llu is %u, want %u", name, (unsigned long long)i, byte, scale.data[i]);
        }
        expect_codes(&grid, codes, &packed, name);
        for (uint64_t i = 0; nv && i < scale.n; i++) s[i] /= how.global;
        float *back = decode_all(&grid, packed.data, s, NULL);
        expect_values(back, &want, name);
        void *all[] = {input.data, packed.data, scale.data, want.data, global.data, x, s, codes, back};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    tms_safetensors_close(st);
}

static void ct_values_of_six_and_eight_bit_floats_equal_the_references(void **state)
{
    (void)state;
    static const char *const cases[] = {"mxfp6.bf16", "mxfp8.bf16", "mxfp8.f32"};
    struct tms_safetensors *st = open_golden("hf/ct/float4.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *name = cases[k];
        bool six = strstr(name, "fp6") != NULL;
        struct blob stored = get(st, name, six ? "stored.weight_packed" : "stored.weight"),
                    scale = get(st, name, "stored.weight_scale"), want = get(st, name, "dequantized");
        struct tms_grid grid = {.layout = six ? TMS_GRID_STREAM : TMS_GRID_BYTES,
                                .values = six ? TMS_GRID_E2M3 : TMS_GRID_E4M3,
                                .bits = six ? 6 : 8,
                                .rows = want.shape[0],
                                .cols = want.shape[1],
                                .group = 32,
                                .scale_rows = 1,
                                .row_bytes = stored.shape[1]};
        float *s = calloc(scale.n, sizeof *s);
        tms_e8m0_to_f32_n(scale.data, s, scale.n);
        float *back = decode_all(&grid, stored.data, s, NULL);
        expect_values(back, &want, name);
        void *all[] = {stored.data, scale.data, want.data, s, back};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    tms_safetensors_close(st);
}

static void ct_folders_of_old_releases_decode(void **state)
{
    (void)state;
    static const char *const cases[] = {"w3_asym_g64", "w3_sym_g32", "w4_asym_g32_gidx", "w4_sym_g32_gidx",
                                        "w5_sym_g32",  "w6_sym_g64", "w7_sym_channel",   "w8_sym_g64_gidx"};
    struct tms_safetensors *st = open_golden("hf/ct/old_release.safetensors");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *name = cases[k];
        struct blob packed = get(st, name, "stored.weight_packed"), scale = get(st, name, "stored.weight_scale"),
                    codes = get(st, name, "codes"), zeros = get(st, name, "zero_point"),
                    want = get(st, name, "dequantized"), g_idx = {0}, zero = {0};
        uint64_t rows = codes.shape[0], cols = codes.shape[1], groups = zeros.shape[1];
        bool asym = strstr(name, "asym") != NULL;
        struct tms_grid grid = {.layout = TMS_GRID_PADDED,
                                .bits = (unsigned)name[1] - '0',
                                .rows = rows,
                                .cols = cols,
                                .group = cols / groups,
                                .scale_rows = 1,
                                .has_zeros = asym};
        grid.row_bytes = tms_grid_padded_bytes(cols, grid.bits);
        if (find(st, name, "stored.weight_g_idx", &g_idx)) grid.group_of = (const uint32_t *)(const void *)g_idx.data;
        uint8_t *unsigned_codes = calloc(rows * cols, 1), *z = calloc(rows * groups, 1);
        for (uint64_t i = 0; i < rows * cols; i++)
            unsigned_codes[i] = (uint8_t)((int8_t)codes.data[i] + (1 << (grid.bits - 1)));
        expect_codes(&grid, unsigned_codes, &packed, name);
        if (asym) {
            zero = get(st, name, "stored.weight_zero_point");
            tms_ct_unpack_zeros(zero.data, groups, grid.bits, true, 0, rows, z);
            for (uint64_t i = 0; i < zeros.n; i++)
                assert_int_equal((int8_t)zeros.data[i], (int)z[i] - (1 << (grid.bits - 1)));
        }
        float *s = floats(&scale), *back = decode_all(&grid, packed.data, s, asym ? z : NULL);
        expect_values(back, &want, name);
        void *all[] = {packed.data, scale.data,     codes.data, zeros.data, want.data, g_idx.data,
                       zero.data,   unsigned_codes, z,          s,          back};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    tms_safetensors_close(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gptq_words_zero_points_and_values_equal_the_references),
        cmocka_unit_test(gptq_rounding_takes_the_nearest_point_and_a_symmetric_range),
        cmocka_unit_test(awq_words_rounding_and_values_equal_the_references),
        cmocka_unit_test(ct_packed_integers_equal_the_references),
        cmocka_unit_test(ct_bytes_equal_the_references),
        cmocka_unit_test(ct_small_floats_equal_the_references),
        cmocka_unit_test(ct_values_of_six_and_eight_bit_floats_equal_the_references),
        cmocka_unit_test(ct_folders_of_old_releases_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

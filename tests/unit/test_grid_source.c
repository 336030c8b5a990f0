/* Folders for GPTQ, AWQ and compressed-tensors as sources (tests/golden/hf): values, ranges, logits, conversion; and
 * the same folders broken. */
#include "support.h"

#include <math.h>
#include <tamis/tamis.h>

#include "base/numbers.h"
#include "file/safetensors.h"
#include "model/packed.h"
#include "model/packed_grid.h"

static struct tms_error err;

struct folder {
    const char *path, *golden, *name; /* folder; file of its values and logits, prefix in it */
    const char *type;
    bool shared; /* lies with the reference data, not here */
};

static const struct folder folders[] = {
    {"hf/gptq/folders/qwen2-tied-w4-g32-desc", "hf/gptq/folders.safetensors", "w4-g32-desc", "gptq:4:g32", false},
    {"hf/gptq/folders/qwen2-tied-w4-g64-asym-v2", "hf/gptq/folders.safetensors", "w4-g64-asym-v2", "gptq:4:g64:asym",
     false},
    {"hf/ct/folders/qwen2-w4a16-g128-asym", "hf/ct/folders.safetensors", "w4a16-g128-asym", "w4a16:g128:asym", false},
    {"hf/ct/folders/qwen2-nvfp4a16", "hf/ct/folders.safetensors", "nvfp4a16", "nvfp4a16", false},
    {"hf/ct/folders/qwen2-w8a8-int", "hf/ct/folders.safetensors", "w8a8-int", "w8a8", true},
    {"hf/ct/folders/qwen2-fp8-dynamic", "hf/ct/folders.safetensors", "fp8-dynamic", "fp8", true},
};
enum { N_FOLDERS = sizeof folders / sizeof *folders };

/* NULL if it is not there. */
static const char *path_of(const struct folder *f)
{
    char shared[128];
    if (!f->shared) return golden(f->path);
    snprintf(shared, sizeof shared, "golden/%s", f->path);
    return shared_path(shared);
}

static struct tms_source *open_source(const char *path)
{
    struct tms_source *s = NULL;
    assert_ok(tms_source_open(&s, path, NULL, NULL, &err), err);
    return s;
}

static float *read_all(const struct tms_source *s, const struct tms_tensor *t, uint64_t step)
{
    float *x = calloc(t->n_weights + 1, sizeof *x);
    void *raw = malloc(tms_source_raw_bytes(t, step < t->n_weights ? step : t->n_weights) + 1);
    for (uint64_t first = 0; first < t->n_weights; first += step) {
        uint64_t n = t->n_weights - first < step ? t->n_weights - first : step;
        assert_ok(tms_source_read(s, t, first, n, raw, x + first, &err), err);
    }
    free(raw);
    return x;
}

static void weights_decode_as_the_libraries_do(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_FOLDERS; k++) {
        const struct folder *f = &folders[k];
        const char *path = path_of(f), *weight = "model.layers.0.self_attn.k_proj.weight";
        char name[256];
        struct tms_safetensors *st;
        if (!path) continue;
        struct tms_source *s = open_source(path);
        const struct tms_tensor *t = tms_source_find(s, weight);
        assert_non_null(t);
        assert_non_null(t->packed);
        assert_string_equal(t->packed->grid->type, f->type);
        assert_ok(tms_safetensors_open(&st, golden(f->golden), &err), err);
        snprintf(name, sizeof name, "%s/dequantized%s/%s", f->name, strstr(f->golden, "gptq") ? "_f32" : "", weight);
        const struct tms_st_tensor *want = tms_safetensors_find(st, name);
        assert_non_null(want);
        assert_int_equal(t->rows, want->shape[0]);
        assert_int_equal(t->cols, want->shape[1]);
        uint8_t *bytes = malloc(want->bytes), *got = malloc(want->bytes);
        assert_ok(tms_file_read(&st->file, bytes, want->bytes, want->offset, &err), err);
        float *x = read_all(s, t, t->n_weights);
        tms_codec(want->type)->encode(x, got, want->n_elems);
        assert_same_bytes(got, bytes, want->bytes, name);
        free(x);
        free(bytes);
        free(got);
        tms_safetensors_close(st);
        tms_source_close(s);
    }
}

static void ranges_are_parts_of_the_whole(void **state)
{
    (void)state;
    const char *paths[N_FOLDERS + 1] = {golden("hf/awq/quantized")};
    for (size_t k = 0; k < N_FOLDERS; k++) paths[k + 1] = path_of(&folders[k]);
    for (size_t k = 0; k < N_FOLDERS + 1; k++) {
        if (!paths[k]) continue;
        char path[1200];
        snprintf(path, sizeof path, "%s", paths[k]);
        struct tms_source *s = open_source(path);
        size_t n_packed = 0;
        for (size_t i = 0; i < s->n_tensors; i++) {
            const struct tms_tensor *t = &s->tensors[i];
            if (!t->packed) continue;
            n_packed++;
            float *whole = read_all(s, t, t->n_weights), *parts = read_all(s, t, tms_source_unit(t));
            assert_memory_equal(whole, parts, t->n_weights * sizeof *whole);
            free(whole);
            free(parts);
        }
        assert_true(n_packed == 7 || n_packed == 14);
        tms_source_close(s);
    }
}

static uint8_t *stored_bytes(const struct tms_source *s, const char *name)
{
    const struct tms_tensor *t = tms_source_find_stored(s, name);
    assert_non_null(t);
    uint8_t *bytes = malloc(t->bytes);
    assert_ok(tms_file_read(s->files[t->file], bytes, t->bytes, t->offset, &err), err);
    return bytes;
}

/* By hand: nibble 0 of a word is output 0, then 2, 4, 6, 1, 3, 5, 7. */
static void awq_weights_are_scale_times_code_less_zero(void **state)
{
    (void)state;
    static const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    struct tms_source *s = open_source(golden("hf/awq/quantized"));
    const struct tms_tensor *t = tms_source_find(s, "model.layers.1.mlp.down_proj.weight");
    assert_non_null(t);
    assert_int_equal(t->rows, 64);
    assert_int_equal(t->cols, 192);
    assert_string_equal(t->packed->grid->type, "awq:g32");
    uint8_t *codes = stored_bytes(s, "model.layers.1.mlp.down_proj.qweight");
    uint8_t *zeros = stored_bytes(s, "model.layers.1.mlp.down_proj.qzeros");
    uint8_t *scales = stored_bytes(s, "model.layers.1.mlp.down_proj.scales");
    float *x = read_all(s, t, t->n_weights);
    for (size_t c = 0; c < 192; c++)
        for (size_t w = 0; w < 8; w++)
            for (size_t k = 0; k < 8; k++) {
                size_t row = 8 * w + (size_t)order[k], group = c / 32;
                uint32_t word, zero;
                uint16_t scale;
                memcpy(&word, codes + 4 * (c * 8 + w), 4);
                memcpy(&zero, zeros + 4 * (group * 8 + w), 4);
                memcpy(&scale, scales + 2 * (group * 64 + row), 2);
                float want = (float)((int)(word >> 4 * k & 15) - (int)(zero >> 4 * k & 15)) * tms_f16_to_f32(scale);
                assert_true(x[row * 192 + c] == want);
            }
    free(x);
    free(codes);
    free(zeros);
    free(scales);
    tms_source_close(s);
}

static void convert(const char *from, const char *to, const char *type, const struct tms_quantize_options *more)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results;
    options.types = &type;
    options.n_types = 1;
    options.force = true;
    assert_ok(tms_quantize(from, to, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
}

static void logits_equal_those_of_the_decoded_weights(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_FOLDERS; k++) {
        const struct folder *f = &folders[k];
        const char *path = path_of(f), *out = scratch("logits.safetensors");
        struct tms_session *session;
        struct tms_safetensors *st, *own;
        const struct tms_session_options options = {.n_threads = 2};
        char name[128];
        int64_t ids64[16];
        int32_t ids[16];
        if (!path) continue;
        if (!strstr(f->golden, "gptq")) { /* there the decoded weights were rounded to bfloat16 first */
            const char *rounded = scratch("rounded");
            convert(path, rounded, "hf:bf16", NULL);
            path = rounded;
        }
        assert_ok(tms_safetensors_open(&st, golden(f->golden), &err), err);
        const struct tms_st_tensor *t = tms_safetensors_find(st, "ids");
        assert_ok(tms_file_read(&st->file, ids64, sizeof ids64, t->offset, &err), err);
        for (int i = 0; i < 16; i++) ids[i] = (int32_t)ids64[i];
        const struct tms_prompt prompt = {.ids = ids, .n_ids = 16};
        assert_ok(tms_session_open(&session, path, &options, &err), err);
        assert_ok(tms_session_logits(session, &prompt, out, &(struct tms_logits_options){0}, NULL, &err), err);
        tms_session_close(session);
        assert_ok(tms_safetensors_open(&own, out, &err), err);
        const struct tms_st_tensor *got = tms_safetensors_find(own, "logits");
        snprintf(name, sizeof name, "%s/logits_of_dequantized_f32", f->name);
        t = tms_safetensors_find(st, name);
        assert_int_equal(got->bytes, t->bytes);
        float *a = malloc(t->bytes), *b = malloc(t->bytes);
        assert_ok(tms_file_read(&own->file, a, t->bytes, got->offset, &err), err);
        assert_ok(tms_file_read(&st->file, b, t->bytes, t->offset, &err), err);
        double squares = 0;
        for (uint64_t i = 0; i < t->n_elems; i++) squares += (double)b[i] * b[i];
        double rms = sqrt(squares / (double)t->n_elems), worst = 0;
        for (uint64_t i = 0; i < t->n_elems; i++) worst = fmax(worst, fabs((double)a[i] - b[i]) / rms);
        print_message("%s: largest difference %.2e of rms\n", f->name, worst);
        assert_true(worst < 1e-3);
        free(a);
        free(b);
        tms_safetensors_close(st);
        tms_safetensors_close(own);
    }
}

static void plain_folder_holds_the_decoded_values(void **state)
{
    (void)state;
    const char *from = golden("hf/gptq/folders/qwen2-tied-w4-g32-desc"), *to = scratch("plain");
    convert(from, to, "hf:f32", NULL);
    struct tms_source *a = open_source(from), *b = open_source(to);
    char path[1200];
    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct tms_tensor *t = &a->tensors[i];
        if (t->is_scale) continue;
        const struct tms_tensor *u = tms_source_find(b, t->name);
        assert_non_null(u);
        assert_int_equal(u->type, TMS_F32);
        float *x = read_all(a, t, t->n_weights), *y = read_all(b, u, u->n_weights);
        assert_memory_equal(x, y, t->n_weights * sizeof *x);
        free(x);
        free(y);
    }
    assert_string_equal(b->config.quant_method, "");
    snprintf(path, sizeof path, "%s/quantize_config.json", to);
    assert_null(fopen(path, "r")); /* it describes weights that are gone */
    tms_source_close(a);
    tms_source_close(b);
}

/* ---- broken folders ---------------------------------------------------------------------------------------------- */

/* One layer: config.json's quantization_config, tensors given as they come. */
struct spec {
    const char *config;
    struct part {
        const char *name;
        enum tms_type type;
        uint64_t shape[2];
        uint8_t fill;
    } parts[8];
    const char *message; /* part of it; NULL: opens */
};

static const char *write_spec(const struct spec *spec)
{
    struct tms_st_plan_tensor plan[8];
    char path[1200], text[512];
    static char dir[1024];
    size_t n = 0;
    snprintf(dir, sizeof dir, "%s", scratch("spec"));
    snprintf(path, sizeof path, "mkdir -p '%s'", dir);
    assert_int_equal(system(path), 0);
    for (; n < 8 && spec->parts[n].name; n++) {
        plan[n] = (struct tms_st_plan_tensor){.name = spec->parts[n].name,
                                              .type = spec->parts[n].type,
                                              .n_dims = spec->parts[n].shape[1] ? 2 : 1,
                                              .tag = n};
        memcpy(plan[n].shape, spec->parts[n].shape, sizeof spec->parts[n].shape);
    }
    struct tms_buf file = {0};
    uint64_t size;
    assert_ok(tms_st_layout(plan, n, 0, &file, &size, &err), err);
    tms_buf_zeros(&file, size - file.n);
    for (size_t i = 0; i < n; i++) {
        const struct part *part = &spec->parts[plan[i].tag];
        uint64_t bytes = tms_codec_bytes(tms_codec(part->type), part->shape[0] * (part->shape[1] ? part->shape[1] : 1));
        memset(file.data + plan[i].offset, part->fill, bytes);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_whole(path, file.data, file.n);
    tms_buf_free(&file);
    snprintf(path, sizeof path, "%s/config.json", dir);
    snprintf(text, sizeof text, "{\"model_type\":\"strange\",\"quantization_config\":%s}", spec->config);
    write_whole(path, text, strlen(text));
    return dir;
}

#define GPTQ "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}"
#define AWQ  "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemm\"}"
#define CT(BITS, MORE)                                                                                                 \
    "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"a\":{\"weights\":{\"num_bits\":" BITS               \
    ",\"type\":\"int\"" MORE "}}}}"
/* 64 inputs, 32 outputs, two groups */
#define QWEIGHT                                                                                                        \
    {                                                                                                                  \
        "a.qweight", TMS_I32, {8, 32}, 0                                                                               \
    }
#define QZEROS                                                                                                         \
    {                                                                                                                  \
        "a.qzeros", TMS_I32, {2, 4}, 0                                                                                 \
    }
#define SCALES                                                                                                         \
    {                                                                                                                  \
        "a.scales", TMS_F16, {2, 32}, 0                                                                                \
    }

static const struct spec specs[] = {
    {GPTQ, {QWEIGHT, QZEROS, SCALES}, NULL},
    {GPTQ, {QWEIGHT, QZEROS, SCALES, {"a.g_idx", TMS_I32, {64, 0}, 0}}, NULL},
    {GPTQ, {QWEIGHT, QZEROS}, "'a.qweight': its 'scales' are missing"},
    {GPTQ, {QWEIGHT, SCALES}, "'a.qweight': its 'qzeros' are missing"},
    {GPTQ, {QWEIGHT, QZEROS, {"a.scales", TMS_I32, {2, 32}, 0}}, "'a.scales': expected F16"},
    {GPTQ, {{"a.qweight", TMS_F32, {8, 32}, 0}, QZEROS, SCALES}, "'a.qweight': expected a matrix of I32"},
    {GPTQ, {{"a.qweight", TMS_I32, {256, 0}, 0}, QZEROS, SCALES}, "'a.qweight': expected a matrix of I32"},
    {GPTQ, {{"a.qweight", TMS_I32, {8, 31}, 0}, QZEROS, SCALES}, "with the outputs of 'scales'"},
    {GPTQ, {{"a.qweight", TMS_I32, {7, 32}, 0}, QZEROS, SCALES}, "inputs are no multiple of 32"},
    {GPTQ, {QWEIGHT, {"a.qzeros", TMS_I32, {2, 5}, 0}, SCALES}, "no zero points of 2, 3, 4 or 8 bits"},
    {GPTQ, {QWEIGHT, {"a.qzeros", TMS_I32, {3, 4}, 0}, SCALES}, "with the groups of 'scales'"},
    {GPTQ,
     {QWEIGHT, {"a.qzeros", TMS_I32, {65, 4}, 0}, {"a.scales", TMS_F16, {65, 32}, 0}},
     "65 groups do not fit 64 inputs"},
    {GPTQ, {QWEIGHT, QZEROS, SCALES, {"a.g_idx", TMS_I32, {64, 0}, 1}}, "'a.g_idx' element 0: group 16843009 of 2"},
    {GPTQ,
     {QWEIGHT, QZEROS, SCALES, {"a.g_idx", TMS_I32, {64, 0}, 128}},
     "'a.g_idx' element 0: group -2139062144 of 2"},
    {GPTQ, {QWEIGHT, QZEROS, SCALES, {"a.g_idx", TMS_I32, {63, 0}, 0}}, "one I32 for every input"},
    {GPTQ, {QWEIGHT, QZEROS, SCALES, {"a.weight", TMS_F16, {32, 64}, 0}}, "which of them counts"},
    {"{\"quant_method\":\"gptq\",\"checkpoint_format\":\"marlin\"}", {QWEIGHT}, "checkpoint_format 'marlin'"},
    {AWQ, {{"a.qweight", TMS_I32, {64, 4}, 0}, QZEROS, SCALES}, NULL},
    {AWQ, {{"a.qweight", TMS_I32, {64, 5}, 0}, QZEROS, SCALES}, "expected I32 [inputs, outputs / 8]"},
    {AWQ,
     {{"a.qweight", TMS_I32, {64, 8}, 0}, {"a.qzeros", TMS_I32, {2, 8}, 0}, SCALES},
     "are no zero points of 4 bits"},
    {"{\"quant_method\":\"awq\",\"version\":\"gemv\"}", {QWEIGHT}, "AWQ version 'gemv'"},
    {CT("8", ""), {{"a.weight", TMS_I8, {4, 6}, 1}, {"a.weight_scale", TMS_BF16, {4, 1}, 1}}, NULL},
    {CT("8", ""), {{"a.weight", TMS_I8, {4, 6}, 1}}, "its 'weight_scale' is missing"},
    {CT("8", ""), {{"a.weight", TMS_I8, {4, 6}, 1}, {"a.weight_scale", TMS_BF16, {3, 1}, 1}}, "is neither one scale"},
    {CT("8", ""), {{"a.weight", TMS_I8, {4, 6}, 1}, {"a.weight_scale", TMS_BF16, {4, 4}, 1}}, "groups do not fit"},
    {CT("8", ""),
     {{"a.weight", TMS_I8, {4, 6}, 1}, {"a.weight_scale", TMS_I8, {4, 1}, 1}},
     "expected BF16, F16 or F32"},
    {CT("8", ""),
     {{"a.weight", TMS_I8, {4, 6}, 1},
      {"a.weight_scale", TMS_BF16, {4, 1}, 1},
      {"a.weight_zero_point", TMS_I8, {3, 1}, 1}},
     "does not fit the groups"},
    {CT("4", ""),
     {{"a.weight_packed", TMS_I32, {4, 1}, 1}, {"a.weight_scale", TMS_BF16, {4, 1}, 1}},
     "'weight_shape' is missing"},
    {CT("4", ""),
     {{"a.weight_packed", TMS_I32, {4, 1}, 1},
      {"a.weight_scale", TMS_BF16, {4, 1}, 1},
      {"a.weight_shape", TMS_I64, {2, 0}, 255}},
     "does not fit its 'weight_packed'"},
    {CT("4", ""),
     {{"a.weight_packed", TMS_U8, {4, 8}, 1}, {"a.weight_scale", TMS_F8_E4M3, {4, 1}, 1}},
     "with 'weight_global_scale'"},
    {CT("4", ""),
     {{"a.weight_packed", TMS_U8, {4, 8}, 1},
      {"a.weight_scale", TMS_F8_E4M3, {4, 1}, 1},
      {"a.weight_global_scale", TMS_F32, {1, 0}, 0}},
     "is not above 0"},
    {CT("4", ""), {{"a.weight_packed", TMS_F32, {4, 8}, 1}, {"a.weight_scale", TMS_BF16, {4, 1}, 1}}, "I32 or U8"},
};

static void broken_parts_are_refused_with_their_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct tms_source *s = NULL;
        tms_status status = tms_source_open(&s, write_spec(&specs[i]), NULL, NULL, &err);
        if (!specs[i].message) {
            if (status != TMS_OK) fail_msg("spec %zu: %s", i, err.message);
            const struct tms_tensor *t = tms_source_find(s, "a.weight");
            assert_non_null(t);
            free(read_all(s, t, t->n_weights));
            tms_source_close(s);
            continue;
        }
        if (status != TMS_EINPUT || !strstr(err.message, specs[i].message))
            fail_msg("spec %zu: '%s', expected '%s'", i, status == TMS_OK ? "opened" : err.message, specs[i].message);
        assert_null(s);
    }
}

static void words_of_a_width_that_the_config_does_not_name_are_refused(void **state)
{
    (void)state;
    const struct spec spec = {CT("5", ""),
                              {{"a.weight_packed", TMS_I32, {1, 5}, 1},
                               {"a.weight_scale", TMS_BF16, {1, 1}, 1},
                               {"a.weight_shape", TMS_I64, {2, 0}, 0}},
                              NULL};
    char path[1200];
    size_t n;
    for (int64_t cols = 30; cols <= 40; cols += 10) { /* 5 words: 32 codes of 5 bits; 33 to 40 are another width */
        const char *dir = write_spec(&spec);
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        uint8_t *file = read_whole(path, &n);
        struct tms_safetensors *st;
        assert_ok(tms_safetensors_open(&st, path, &err), err);
        const int64_t shape[2] = {1, cols};
        memcpy(file + tms_safetensors_find(st, "a.weight_shape")->offset, shape, sizeof shape);
        tms_safetensors_close(st);
        write_whole(path, file, n);
        free(file);
        struct tms_source *s = NULL;
        tms_status status = tms_source_open(&s, dir, NULL, NULL, &err);
        assert_int_equal(status, cols == 30 ? TMS_OK : TMS_EINPUT);
        if (status != TMS_OK) assert_non_null(strstr(err.message, "not the length that any num_bits"));
        tms_source_close(s);
    }
}

static void old_folders_say_it_in_a_file_of_its_own(void **state)
{
    (void)state;
    const char *dir = scratch("old"), *from = golden("hf/gptq/folders/qwen2-tied-w4-g32-desc");
    char command[4000];
    snprintf(
        command, sizeof command,
        "mkdir -p '%s' && cp '%s/model.safetensors' '%s/quantize_config.json' '%s' && sed '/quantization_config/,/^  "
        "},/d' '%s/config.json' >'%s/config.json'",
        dir, from, from, dir, from, dir);
    assert_int_equal(system(command), 0);
    struct tms_source *s = open_source(dir);
    assert_string_equal(s->config.quant_method, "gptq");
    assert_non_null(tms_source_find(s, "model.layers.0.mlp.up_proj.weight")->packed);
    tms_source_close(s);
}

static void check_names_values_that_are_no_numbers(void **state)
{
    (void)state;
    const struct spec spec = {GPTQ, {QWEIGHT, QZEROS, {"a.scales", TMS_F16, {2, 32}, 0x7e}}, NULL};
    struct tms_check_result result;
    const struct tms_check_options options = {.n_threads = 1};
    assert_ok(tms_check(write_spec(&spec), &options, &result, &err), err);
    assert_true(result.n_findings > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_decode_as_the_libraries_do),
        cmocka_unit_test(ranges_are_parts_of_the_whole),
        cmocka_unit_test(awq_weights_are_scale_times_code_less_zero),
        cmocka_unit_test(logits_equal_those_of_the_decoded_weights),
        cmocka_unit_test(plain_folder_holds_the_decoded_values),
        cmocka_unit_test(broken_parts_are_refused_with_their_names),
        cmocka_unit_test(words_of_a_width_that_the_config_does_not_name_are_refused),
        cmocka_unit_test(old_folders_say_it_in_a_file_of_its_own),
        cmocka_unit_test(check_names_values_that_are_no_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

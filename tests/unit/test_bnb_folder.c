/* Folders for bitsandbytes against what save_pretrained wrote (tests/golden/hf/bnb/folders). */
#include "support.h"

#include <jansson.h>
#include <math.h>
#include <tamis/tamis.h>

#include "base/json_edit.h"
#include "file/safetensors.h"
#include "model/source.h"

static void quantize(const char *from, const char *to, const char *type, const struct tms_quantize_options *more)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results;
    struct tms_error err;
    options.types = &type;
    options.n_types = 1;
    options.force = true;
    assert_ok(tms_quantize(from, to, &options, &results, NULL, NULL, &err), err);
    assert_true(results[0].verified);
    tms_results_free(results, 1);
}

static const char *folder(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "hf/bnb/folders/%s", name);
    return golden(path);
}

static uint8_t *data_of(const struct tms_safetensors *st, const struct tms_st_tensor *t)
{
    struct tms_error err;
    uint8_t *bytes = calloc(t->bytes + 1, 1);
    assert_ok(tms_file_read(&st->file, bytes, t->bytes, t->offset, &err), err);
    return bytes;
}

/* Text before and after the number behind "nested_offset": must be equal; the number within 4e-7 of its size. */
static void expect_same_state(const uint8_t *got, const uint8_t *want, const char *name)
{
    json_error_t problem;
    json_t *g = json_loads((const char *)got, 0, &problem), *w = json_loads((const char *)want, 0, &problem);
    assert_non_null(g);
    assert_non_null(w);
    double a = json_real_value(json_object_get(g, "nested_offset")),
           b = json_real_value(json_object_get(w, "nested_offset"));
    if (fabs(a - b) > 4e-7 * fabs(b)) fail_msg("%s: nested_offset %.17g, want %.17g", name, a, b);
    const char *cut_g = strstr((const char *)got, "\"nested_offset\""),
               *cut_w = strstr((const char *)want, "\"nested_offset\"");
    assert_int_equal(cut_g - (const char *)got, cut_w - (const char *)want);
    assert_memory_equal(got, want, (size_t)(cut_g - (const char *)got));
    json_decref(g);
    json_decref(w);
}

static void expect_same_folder(const char *source, const char *golden_name, const char *type)
{
    char got_path[1200], want_path[1200];
    struct tms_safetensors *got, *want;
    struct tms_error err;
    const char *out = scratch("bnb");
    quantize(folder(source), out, type, NULL);
    snprintf(got_path, sizeof got_path, "%s/model.safetensors", out);
    snprintf(want_path, sizeof want_path, "%s/model.safetensors", folder(golden_name));
    assert_ok(tms_safetensors_open(&got, got_path, &err), err);
    assert_ok(tms_safetensors_open(&want, want_path, &err), err);
    assert_int_equal(got->n_tensors, want->n_tensors);
    size_t near_codes = 0, n_codes = 0;
    for (size_t i = 0; i < want->n_tensors; i++) {
        const struct tms_st_tensor *w = &want->tensors[i], *g = tms_safetensors_find(got, w->name);
        if (!g) fail_msg("%s: tensor %s is missing", golden_name, w->name);
        bool state = strstr(w->name, ".quant_state.") != NULL, nested = strstr(type, ":dq") != NULL;
        if (g->type != w->type) fail_msg("%s: %s has another type", golden_name, w->name);
        assert_int_equal(g->n_dims, w->n_dims);
        uint8_t *a = data_of(got, g), *b = data_of(want, w);
        if (state && nested) {
            expect_same_state(a, b, w->name);
        } else if (nested && strstr(w->name, ".weight.nested_absmax")) {
            for (size_t k = 0; k < w->n_elems; k++) { /* |absmax - offset|: the offset's last bits show */
                float x, y;
                memcpy(&x, a + 4 * k, 4);
                memcpy(&y, b + 4 * k, 4);
                if (fabsf(x - y) > 4e-7f) fail_msg("%s: %.9g, want %.9g", w->name, (double)x, (double)y);
            }
        } else if (nested && strstr(w->name, ".weight.absmax")) {
            /* a mean that differs in its last bit may move a code that lies on a boundary */
            for (size_t k = 0; k < w->n_elems; k++, n_codes++) {
                int d = abs((int)a[k] - (int)b[k]);
                near_codes += d != 0;
                if (d > 1) fail_msg("%s: code %d, want %d", w->name, a[k], b[k]);
            }
        } else {
            for (uint32_t d = 0; d < w->n_dims; d++) assert_int_equal(g->shape[d], w->shape[d]);
            assert_int_equal(g->bytes, w->bytes);
            assert_same_bytes(a, b, w->bytes, w->name);
        }
        free(a);
        free(b);
    }
    if (n_codes) {
        print_message("%s: %zu of %zu nested codes differ by one\n", golden_name, near_codes, n_codes);
        assert_true(near_codes * 1000 <= n_codes);
    }
    tms_safetensors_close(got);
    tms_safetensors_close(want);

    json_error_t problem;
    snprintf(got_path, sizeof got_path, "%s/config.json", out);
    snprintf(want_path, sizeof want_path, "%s/config.json", folder(golden_name));
    json_t *g = json_load_file(got_path, 0, &problem), *w = json_load_file(want_path, 0, &problem);
    assert_non_null(g);
    assert_true(json_equal(g, w)); /* all of it, quantization_config and dtype included */
    json_decref(g);
    json_decref(w);
    size_t n, m;
    snprintf(got_path, sizeof got_path, "%s/generation_config.json", out);
    snprintf(want_path, sizeof want_path, "%s/generation_config.json", folder(source));
    uint8_t *copied = read_whole(got_path, &n), *original = read_whole(want_path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(copied, original, n);
    free(copied);
    free(original);
}

static void nf4_folder_equals_what_save_pretrained_wrote(void **state)
{
    (void)state;
    expect_same_folder("qwen2", "qwen2-nf4", "nf4");
}

static void fp4_folder_equals_what_save_pretrained_wrote(void **state)
{
    (void)state;
    expect_same_folder("qwen2", "qwen2-fp4", "fp4");
}

static void double_quantized_folders_equal_what_save_pretrained_wrote(void **state)
{
    (void)state;
    expect_same_folder("qwen2", "qwen2-nf4-dq", "nf4:dq");
    expect_same_folder("qwen2-tied", "qwen2-tied-nf4-dq", "nf4:dq");
}

static void int8_folders_equal_what_save_pretrained_wrote(void **state)
{
    (void)state;
    expect_same_folder("qwen2", "qwen2-int8", "int8");
    expect_same_folder("qwen2-tied", "qwen2-tied-int8", "int8");
}

static void nf4_file_has_the_very_bytes_of_the_library(void **state)
{
    (void)state;
    char got_path[1200], want_path[1200];
    size_t n, m;
    const char *out = scratch("bytes");
    quantize(folder("qwen2"), out, "nf4", NULL);
    snprintf(got_path, sizeof got_path, "%s/model.safetensors", out);
    snprintf(want_path, sizeof want_path, "%s/model.safetensors", folder("qwen2-nf4"));
    uint8_t *got = read_whole(got_path, &n), *want = read_whole(want_path, &m);
    assert_int_equal(n, m); /* data are compared by name above; the order within a type is the library's own */
    free(got);
    free(want);
}

static void quantized_folder_counts_the_weights_it_stands_for(void **state)
{
    (void)state;
    struct tms_model *model;
    struct tms_model_info source, quantized;
    struct tms_error err;
    assert_ok(tms_model_open(&model, folder("qwen2"), &err), err);
    tms_model_describe(model, &source);
    tms_model_close(model);
    assert_ok(tms_model_open(&model, folder("qwen2-nf4-dq"), &err), err);
    tms_model_describe(model, &quantized);
    tms_model_close(model);
    assert_int_equal(source.n_parameters, quantized.n_parameters);
}

/* Tensors, config.json, tokenizer: all files. */
static void expect_same_files(const char *a, const char *b, const char *what)
{
    char command[2400];
    snprintf(command, sizeof command, "diff -r '%s' '%s' >&2", a, b);
    if (system(command) != 0) fail_msg("%s: the folders differ", what);
}

static void folder_from_gguf_is_that_of_the_plain_folder_between(void **state)
{
    (void)state;
    /* llama31 permutes, qwen2_tied has no output layer, qwen3 norms of heads */
    static const char *const models[] = {"llama31", "qwen2_tied", "qwen3"};
    static const char *const ways[][2] = {
        {"bf16", "hf:bf16"}, {"f16", "hf:f16"}, {"f32", "hf:f32"}, {"q8_0", "hf:bf16"}};
    static const char *const types[] = {"nf4", "nf4:dq", "fp4:b128", "int8"};
    const struct tms_quantize_options again = {.allow_requantize = true};
    for (size_t m = 0; m < 3; m++) {
        char name[64];
        snprintf(name, sizeof name, "arch/%s", models[m]);
        for (size_t w = 0; w < 4; w++) {
            const char *gguf = scratch("from.gguf"), *between = scratch("between");
            quantize(golden(name), gguf, ways[w][0], NULL);
            quantize(gguf, between, ways[w][1], NULL);
            for (size_t i = 0; i < 4; i++) {
                char what[128];
                const char *straight = scratch("straight"), *by_way = scratch("by-way");
                snprintf(what, sizeof what, "%s as %s to %s", models[m], ways[w][0], types[i]);
                quantize(gguf, straight, types[i], &again);
                quantize(between, by_way, types[i], NULL);
                expect_same_files(straight, by_way, what);
            }
        }
    }
}

static void quantized_gguf_becomes_a_folder_only_with_leave(void **state)
{
    (void)state;
    const char *types[] = {"nf4"}, *gguf = scratch("leave.gguf");
    struct tms_quantize_options options = {.types = types, .n_types = 1};
    struct tms_result *results;
    struct tms_error err;
    quantize(golden("arch/llama31"), gguf, "q8_0", NULL);
    assert_int_equal(tms_quantize(gguf, scratch("leave"), &options, &results, NULL, NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "is quantized already (q8_0)"));
}

static void quantized_folder_is_refused_as_a_source(void **state)
{
    (void)state;
    const char *types[] = {"nf4"};
    struct tms_quantize_options options = {.types = types, .n_types = 1};
    struct tms_result *results;
    struct tms_error err;
    assert_int_equal(tms_quantize(folder("qwen2-nf4"), scratch("again"), &options, &results, NULL, NULL, &err),
                     TMS_EINPUT);
    assert_non_null(strstr(err.message, "quantized already (bitsandbytes)"));
}

static void shards_hold_every_tensor_once_and_the_index_says_where(void **state)
{
    (void)state;
    const struct tms_quantize_options options = {.max_shard_bytes = 100000};
    char path[1200];
    struct tms_source *whole, *sharded;
    struct tms_error err;
    json_error_t problem;
    const char *one = scratch("one"), *many = scratch("many");
    quantize(folder("qwen2"), one, "nf4:dq", NULL);
    quantize(folder("qwen2"), many, "nf4:dq", &options);
    assert_ok(tms_source_open(&whole, one, NULL, NULL, &err), err);
    assert_ok(tms_source_open(&sharded, many, NULL, NULL, &err), err);
    assert_true(sharded->n_files > 2);
    assert_int_equal(whole->n_tensors, sharded->n_tensors);
    uint64_t total = 0;
    for (size_t i = 0; i < whole->n_tensors; i++) {
        const struct tms_tensor *a = &whole->tensors[i], *b = tms_source_find(sharded, a->name);
        assert_non_null(b);
        assert_int_equal(a->bytes, b->bytes);
        total += b->bytes;
        uint8_t *x = malloc(a->bytes), *y = malloc(a->bytes);
        assert_ok(tms_file_read(whole->files[a->file], x, a->bytes, a->offset, &err), err);
        assert_ok(tms_file_read(sharded->files[b->file], y, b->bytes, b->offset, &err), err);
        assert_same_bytes(x, y, a->bytes, a->name);
        free(x);
        free(y);
    }
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", many);
    json_t *index = json_load_file(path, 0, &problem);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")), total);
    json_decref(index);
    tms_source_close(whole);
    tms_source_close(sharded);
}

/* ---- config.json is edited, not written anew ---- */

static void expect_edit(const char *before, const char *key, const char *value, const char *after)
{
    json_error_t problem;
    struct tms_buf out = {0};
    json_t *v = json_loads(value, JSON_DECODE_ANY, &problem);
    assert_true(tms_json_set_member(&out, before, strlen(before), key, v));
    tms_buf_put(&out, "", 1);
    assert_string_equal((const char *)out.data, after);
    tms_buf_free(&out);
    json_decref(v);
}

static void setting_a_member_keeps_order_numbers_and_layout(void **state)
{
    (void)state;
    expect_edit("{\n  \"a\": 1e-06,\n  \"c\": [1, {\"b\": \"}\\\"\"}]\n}\n", "b", "true",
                "{\n  \"a\": 1e-06,\n  \"b\": true,\n  \"c\": [1, {\"b\": \"}\\\"\"}]\n}\n");
    expect_edit("{\n  \"z\": 1,\n  \"a\": 2\n}", "m", "{\"x\":1}",
                "{\n  \"z\": 1,\n  \"a\": 2,\n  \"m\": {\n    \"x\": 1\n  }\n}");
    expect_edit("{\n    \"m\": {\"old\": [1,2]}, \"n\": 0.10\n}", "m", "{\"x\":1}",
                "{\n    \"m\": {\n      \"x\": 1\n    }, \"n\": 0.10\n}");
    expect_edit("{}", "m", "1", "{\n  \"m\": 1\n}");
    expect_edit("{\"a\": 1}", "b", "2", "{\"a\": 1,\n\"b\": 2}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nf4_folder_equals_what_save_pretrained_wrote),
        cmocka_unit_test(fp4_folder_equals_what_save_pretrained_wrote),
        cmocka_unit_test(double_quantized_folders_equal_what_save_pretrained_wrote),
        cmocka_unit_test(int8_folders_equal_what_save_pretrained_wrote),
        cmocka_unit_test(nf4_file_has_the_very_bytes_of_the_library),
        cmocka_unit_test(quantized_folder_counts_the_weights_it_stands_for),
        cmocka_unit_test(folder_from_gguf_is_that_of_the_plain_folder_between),
        cmocka_unit_test(quantized_gguf_becomes_a_folder_only_with_leave),
        cmocka_unit_test(quantized_folder_is_refused_as_a_source),
        cmocka_unit_test(shards_hold_every_tensor_once_and_the_index_says_where),
        cmocka_unit_test(setting_a_member_keeps_order_numbers_and_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

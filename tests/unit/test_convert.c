/* Hugging Face folders to GGUF: tensors and keys against what llama.cpp's converter wrote (tests/golden/arch). */
#include "support.h"

#include <jansson.h>
#include <tamis/tamis.h>

#include "file/gguf.h"
#include "model/metadata.h"
#include "model/source.h"

static void convert(const char *from, const char *to, const char *type, const struct tms_quantize_options *more)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results;
    struct tms_error err;
    options.types = &type;
    options.n_types = 1;
    assert_ok(tms_convert(from, to, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
}

static const char *arch_dir(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "arch/%s", name);
    return golden(path);
}

static void expect_key(const struct tms_kv *kv, const json_t *want, const char *folder)
{
    const char *name = json_string_value(json_object_get(want, "name"));
    const char *type = json_string_value(json_object_get(want, "type"));
    const json_t *value = json_object_get(want, "value");
    char got_type[64];
    assert_string_equal(kv->key, name);
    if (kv->type == TMS_KV_ARRAY)
        snprintf(got_type, sizeof got_type, "array[%s]", tms_kv_type_name(kv->elem_type));
    else
        snprintf(got_type, sizeof got_type, "%s", tms_kv_type_name(kv->type));
    if (strcmp(got_type, type) != 0) fail_msg("%s: %s has type %s, want %s", folder, name, got_type, type);
    if (kv->type == TMS_KV_ARRAY && json_object_get(want, "sha256")) {
        char hex[65];
        sha256_hex(kv->bytes, kv->n_bytes, hex);
        assert_int_equal(kv->count, json_integer_value(json_object_get(want, "length")));
        if (strcmp(hex, json_string_value(json_object_get(want, "sha256"))) != 0)
            fail_msg("%s: %s differs", folder, name);
    } else if (json_is_string(value)) {
        if (strcmp(name, "general.name") == 0) return; /* a guess from the folder's name */
        assert_string_equal(tms_kv_as_string(kv), json_string_value(value));
    } else if (json_is_boolean(value)) {
        assert_int_equal(kv->bytes[0], json_is_true(value));
    } else if (json_is_number(value)) {
        double got;
        assert_true(tms_kv_as_f64(kv, &got));
        if (got != json_number_value(value))
            fail_msg("%s: %s is %.17g, want %.17g", folder, name, got, json_number_value(value));
    } else {
        fail_msg("%s: %s: a kind of value that the test does not know", folder, name);
    }
}

static void expect_tensor(const struct tms_gguf *g, const struct tms_gguf_tensor *t, const json_t *want,
                          const char *folder)
{
    json_t *shape = json_object_get(want, "shape");
    char hex[65], type[16];
    assert_string_equal(t->name, json_string_value(json_object_get(want, "name")));
    assert_int_equal(t->n_dims, json_array_size(shape));
    for (uint32_t d = 0; d < t->n_dims; d++) assert_int_equal(t->ne[d], json_integer_value(json_array_get(shape, d)));
    snprintf(type, sizeof type, "%s", json_string_value(json_object_get(want, "type")));
    assert_ptr_equal(tms_codec_by_name(type), tms_codec(t->type));
    uint8_t *data = malloc(t->bytes);
    struct tms_error err;
    assert_ok(tms_file_read(&g->files[t->file], data, t->bytes, t->offset, &err), err);
    sha256_hex(data, t->bytes, hex);
    free(data);
    if (strcmp(hex, json_string_value(json_object_get(want, "sha256"))) != 0)
        fail_msg("%s: data of %s differ", folder, t->name);
}

static void conversion_gives_the_keys_and_tensors_of_llama_cpp(void **state)
{
    (void)state;
    static const char *const folders[] = {"llama31",      "llama2",        "llama_bias", "mistral",   "qwen2_tied",
                                          "qwen2_untied", "qwen2_sharded", "qwen3",      "qwen3_yarn"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char json_path[1024];
        struct tms_gguf *g;
        struct tms_error err;
        json_error_t problem;
        const char *out = scratch("arch.gguf");
        convert(arch_dir(folders[i]), out, "f32", NULL);
        assert_ok(tms_gguf_open(&g, out, &err), err);
        snprintf(json_path, sizeof json_path, "%s/gguf.json", arch_dir(folders[i]));
        json_t *want = json_load_file(json_path, 0, &problem);
        assert_non_null(want);
        json_t *keys = json_object_get(want, "keys"), *tensors = json_object_get(want, "tensors");
        for (size_t k = 0; k < json_array_size(keys) && k < g->kvs.n; k++)
            expect_key(&g->kvs.items[k], json_array_get(keys, k), folders[i]);
        bool window = strcmp(folders[i], "mistral") == 0; /* has one key more, of tamis's own, behind the others */
        assert_int_equal(g->kvs.n, json_array_size(keys) + window);
        if (window) {
            uint64_t n;
            assert_string_equal(g->kvs.items[g->kvs.n - 1].key, "tamis.attention.sliding_window");
            assert_true(tms_kv_as_u64(&g->kvs.items[g->kvs.n - 1], &n));
            assert_int_equal(n, 32);
        }
        for (size_t k = 0; k < json_array_size(tensors) && k < g->n_tensors; k++)
            expect_tensor(g, &g->tensors[k], json_array_get(tensors, k), folders[i]);
        assert_int_equal(g->n_tensors, json_array_size(tensors));
        json_decref(want);
        tms_gguf_close(g);
    }
}

static void split_conversion_opens_as_one_model_with_the_same_tensors(void **state)
{
    (void)state;
    struct tms_gguf *whole, *split;
    struct tms_error err;
    const char *out = scratch("whole.gguf");
    convert(arch_dir("qwen3"), out, "bf16", NULL);
    assert_ok(tms_gguf_open(&whole, out, &err), err);
    const struct tms_quantize_options cases[] = {{.split_max_tensors = 7}, {.split_max_bytes = 40000}};
    for (size_t c = 0; c < 2; c++) {
        char first[1200];
        const char *prefix = scratch(c ? "bysize.gguf" : "bycount.gguf");
        convert(arch_dir("qwen3"), prefix, "bf16", &cases[c]);
        size_t count = 0;
        for (unsigned n = 2; n < 60 && !count; n++) {
            char *path = tms_gguf_shard_path(prefix, 0, n);
            if (tms_path_exists(path)) count = n;
            snprintf(first, sizeof first, "%s", path);
            free(path);
        }
        assert_true(count > 1);
        assert_ok(tms_gguf_open(&split, first, &err), err);
        assert_int_equal(split->n_files, count);
        assert_int_equal(split->n_tensors, whole->n_tensors);
        for (size_t i = 0; i < whole->n_tensors; i++) {
            const struct tms_gguf_tensor *a = &whole->tensors[i], *b = &split->tensors[i];
            assert_string_equal(a->name, b->name);
            assert_int_equal(a->bytes, b->bytes);
            uint8_t *x = malloc(a->bytes), *y = malloc(a->bytes);
            assert_ok(tms_file_read(&whole->files[a->file], x, a->bytes, a->offset, &err), err);
            assert_ok(tms_file_read(&split->files[b->file], y, b->bytes, b->offset, &err), err);
            assert_same_bytes(x, y, a->bytes, a->name);
            free(x);
            free(y);
        }
        tms_gguf_close(split);
    }
    tms_gguf_close(whole);
}

static void vocab_only_writes_keys_and_no_tensors(void **state)
{
    (void)state;
    const struct tms_quantize_options options = {.vocab_only = true};
    struct tms_gguf *g;
    struct tms_error err;
    const char *out = scratch("vocab.gguf");
    convert(arch_dir("llama2"), out, "f16", &options);
    assert_ok(tms_gguf_open(&g, out, &err), err);
    assert_int_equal(g->n_tensors, 0);
    assert_non_null(tms_kvs_find(&g->kvs, "tokenizer.ggml.tokens"));
    tms_gguf_close(g);
}

static void dry_run_writes_nothing_and_tells_the_exact_size(void **state)
{
    (void)state;
    const char *type = "q8_0", *out = scratch("dry.gguf");
    struct tms_quantize_options options = {.types = &type, .n_types = 1, .dry_run = true};
    struct tms_result *results;
    struct tms_error err;
    assert_ok(tms_convert(arch_dir("qwen2_untied"), out, &options, &results, NULL, NULL, &err), err);
    assert_false(tms_path_exists(out));
    uint64_t size = results[0].file_bytes;
    tms_results_free(results, 1);
    convert(arch_dir("qwen2_untied"), out, type, NULL);
    size_t n;
    free(read_whole(out, &n));
    assert_int_equal(n, size);
}

static void auto_takes_the_type_of_the_first_matrix(void **state)
{
    (void)state;
    static const struct {
        const char *folder;
        enum tms_type type;
    } cases[] = {{"llama2", TMS_F16}, {"qwen2_tied", TMS_BF16}, {"qwen3", TMS_F16}};
    for (size_t i = 0; i < 3; i++) {
        struct tms_gguf *g;
        struct tms_error err;
        const char *out = scratch("auto.gguf");
        convert(arch_dir(cases[i].folder), out, "auto", NULL);
        assert_ok(tms_gguf_open(&g, out, &err), err);
        assert_int_equal(tms_gguf_find(g, "blk.0.ffn_up.weight")->type, cases[i].type);
        assert_int_equal(tms_gguf_find(g, "blk.0.attn_norm.weight")->type, TMS_F32);
        tms_gguf_close(g);
    }
}

static void rows_that_do_not_fit_q8_0_are_stored_as_f16(void **state)
{
    (void)state;
    struct tms_gguf *g;
    struct tms_error err;
    const char *out = scratch("q8.gguf");
    convert(arch_dir("qwen2_untied"), out, "q8_0", NULL); /* ffn 176 is no multiple of 32 */
    assert_ok(tms_gguf_open(&g, out, &err), err);
    assert_int_equal(tms_gguf_find(g, "blk.0.ffn_down.weight")->type, TMS_F16);
    assert_int_equal(tms_gguf_find(g, "blk.0.ffn_up.weight")->type, TMS_Q8_0);
    tms_gguf_close(g);
}

static void model_name_can_be_given(void **state)
{
    (void)state;
    const struct tms_quantize_options options = {.vocab_only = true, .model_name = "My Model"};
    struct tms_gguf *g;
    struct tms_error err;
    const char *out = scratch("name.gguf");
    convert(arch_dir("qwen3"), out, "f16", &options);
    assert_ok(tms_gguf_open(&g, out, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&g->kvs, "general.name")), "My Model");
    tms_gguf_close(g);
}

static void size_labels_have_two_digits(void **state)
{
    (void)state;
    static const struct {
        uint64_t n;
        const char *label;
    } cases[] = {{7615616512, "7.6B"}, {456000, "456K"},     {135000000, "135M"},
                 {1100000000, "1.1B"}, {70553706496, "71B"}, {671026419200, "671B"},
                 {5773568, "5.8M"},    {1000000, "1000K"},   {500, "0.50K"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char label[32];
        tms_size_label(label, cases[i].n);
        assert_string_equal(label, cases[i].label);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversion_gives_the_keys_and_tensors_of_llama_cpp),
        cmocka_unit_test(split_conversion_opens_as_one_model_with_the_same_tensors),
        cmocka_unit_test(vocab_only_writes_keys_and_no_tensors),
        cmocka_unit_test(dry_run_writes_nothing_and_tells_the_exact_size),
        cmocka_unit_test(auto_takes_the_type_of_the_first_matrix),
        cmocka_unit_test(rows_that_do_not_fit_q8_0_are_stored_as_f16),
        cmocka_unit_test(model_name_can_be_given),
        cmocka_unit_test(size_labels_have_two_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Hugging Face folders to GGUF: tensors and keys against what llama.cpp's converter wrote (tests/golden/arch). */
#include "support.h"

#include <jansson.h>
#include <tamis/tamis.h>

#include "file/gguf.h"
#include "model/metadata.h"
#include "model/restore.h"
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

static const char *const folders[] = {"llama31",      "llama2",        "llama_bias",  "mistral",     "qwen2_tied",
                                      "qwen2_untied", "qwen2_sharded", "qwen3",       "qwen3_yarn",  "mixtral",
                                      "qwen2_moe",    "qwen3_moe",     "gemma",       "gemma2",      "gemma3_text",
                                      "phi3",         "phi3_longrope", "deepseek_v2", "deepseek_v3", "deepseek_v3_fp8"};
enum { N_FOLDERS = sizeof folders / sizeof *folders };

static void conversion_gives_the_keys_and_tensors_of_llama_cpp(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FOLDERS; i++) {
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

/* ---- the numbers, there and back ---- */

#define EXPECT_NUMBER(field)                                                                                           \
    if (!(a->field == b->field)) fail_msg("%s: " #field " is %g, was %g", what, (double)a->field, (double)b->field)

static uint64_t seen_by(const struct tms_config *c, uint64_t layer)
{
    uint64_t window = tms_config_window(c, layer);
    return window && window < c->context ? window : c->context;
}

/* What decides a model's results. How the file spells it, and what tensors are stored as, may differ. */
static void expect_same_numbers(const struct tms_config *a, const struct tms_config *b, const char *what)
{
    assert_string_equal(a->class_name, b->class_name);
    assert_string_equal(a->model_type, b->model_type);
    EXPECT_NUMBER(n_layers);
    EXPECT_NUMBER(hidden);
    EXPECT_NUMBER(ffn);
    EXPECT_NUMBER(n_heads);
    EXPECT_NUMBER(n_kv_heads);
    EXPECT_NUMBER(head_dim);
    EXPECT_NUMBER(vocab);
    EXPECT_NUMBER(context);
    EXPECT_NUMBER(activation);
    EXPECT_NUMBER(norm_plus_one);
    EXPECT_NUMBER(scaled_embedding);
    EXPECT_NUMBER(query_scalar);
    EXPECT_NUMBER(attention_cap);
    EXPECT_NUMBER(logit_cap);
    EXPECT_NUMBER(has_shape);
    EXPECT_NUMBER(rms_eps);
    EXPECT_NUMBER(tied);
    EXPECT_NUMBER(attention_bias);
    EXPECT_NUMBER(mlp_bias);
    for (uint64_t l = 0; l < a->n_layers; l++) /* none is as good as one that no text outgrows */
        if (seen_by(a, l) != seen_by(b, l)) fail_msg("%s: the window of layer %d differs", what, (int)l);
    EXPECT_NUMBER(experts.n);
    EXPECT_NUMBER(experts.used);
    EXPECT_NUMBER(experts.ffn);
    EXPECT_NUMBER(experts.shared);
    EXPECT_NUMBER(experts.n_dense);
    EXPECT_NUMBER(experts.step);
    EXPECT_NUMBER(experts.shared_gate);
    EXPECT_NUMBER(experts.sigmoid);
    EXPECT_NUMBER(experts.bias);
    EXPECT_NUMBER(experts.normalize);
    EXPECT_NUMBER(experts.scale);
    EXPECT_NUMBER(experts.n_groups);
    EXPECT_NUMBER(experts.groups_used);
    EXPECT_NUMBER(latent.q_rank);
    EXPECT_NUMBER(latent.kv_rank);
    EXPECT_NUMBER(latent.nope);
    EXPECT_NUMBER(latent.rope);
    EXPECT_NUMBER(latent.value);
    EXPECT_NUMBER(rope.kind);
    EXPECT_NUMBER(rope.theta);
    EXPECT_NUMBER(rope.factor);
    EXPECT_NUMBER(rope.low_freq_factor);
    EXPECT_NUMBER(rope.high_freq_factor);
    EXPECT_NUMBER(rope.attention_factor);
    EXPECT_NUMBER(rope.beta_fast);
    EXPECT_NUMBER(rope.beta_slow);
    EXPECT_NUMBER(rope.ext_factor);
    EXPECT_NUMBER(rope.mscale);
    EXPECT_NUMBER(rope.mscale_all_dim);
    EXPECT_NUMBER(rope.local_theta);
    EXPECT_NUMBER(rope.original_context);
    EXPECT_NUMBER(rope.n_factors);
    assert_memory_equal(a->rope.short_factors, b->rope.short_factors, sizeof a->rope.short_factors);
    assert_memory_equal(a->rope.long_factors, b->rope.long_factors, sizeof a->rope.long_factors);
}

static struct tms_source *open_source(const char *path)
{
    struct tms_source *s;
    struct tms_error err;
    assert_ok(tms_source_open(&s, path, NULL, NULL, &err), err);
    return s;
}

/* The config of a folder that is made from the file again. */
static void expect_same_folder(const char *gguf, const struct tms_config *want, const char *what)
{
    const char *type = "hf:f32", *back = scratch("numbers");
    const struct tms_quantize_options options = {.types = &type, .n_types = 1, .force = true};
    struct tms_result *results;
    struct tms_error err;
    assert_ok(tms_quantize(gguf, back, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
    struct tms_source *s = open_source(back);
    expect_same_numbers(&s->config, want, what);
    tms_source_close(s);
}

/* Folder -> file -> numbers, and -> folder -> numbers. Returns how many of our own keys the file has. */
static size_t expect_same_numbers_of(const char *dir, const char *what)
{
    const char *gguf = scratch("numbers.gguf");
    const struct tms_restore_options options = {.dtype = TMS_F32};
    struct tms_quantize_options again = {.force = true};
    struct tms_config config;
    struct tms_error err;
    size_t n_own = 0;
    convert(dir, gguf, "f32", &again);
    struct tms_source *folder = open_source(dir), *file = open_source(gguf);
    assert_ok(tms_restore_numbers(&config, file, &options, &err), err);
    expect_same_numbers(&config, &folder->config, what);
    expect_same_folder(gguf, &folder->config, what);
    for (size_t i = 0; i < file->gguf->kvs.n; i++) n_own += strncmp(file->gguf->kvs.items[i].key, "tamis.", 6) == 0;
    tms_source_close(folder);
    tms_source_close(file);
    return n_own;
}

static void numbers_of_a_file_are_those_of_its_folder(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FOLDERS; i++) {
        size_t n_own = expect_same_numbers_of(arch_dir(folders[i]), folders[i]);
        assert_int_equal(n_own, strcmp(folders[i], "mistral") == 0);
    }
}

/* A golden folder whose config.json says something else under `key`; value NULL: nothing. */
static const char *changed_folder(const char *name, const char *object, const char *key, json_t *value)
{
    const char *dir = scratch("changed");
    char command[2600], path[1300];
    json_error_t problem;
    snprintf(command, sizeof command, "rm -rf '%s' && cp -r '%s' '%s' && chmod -R u+w '%s'", dir, arch_dir(name), dir,
             dir);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *config = json_load_file(path, 0, &problem);
    json_t *place = object ? json_object_get(config, object) : config;
    assert_true(json_is_object(place));
    if (value)
        assert_int_equal(json_object_set_new(place, key, value), 0);
    else
        json_object_del(place, key);
    assert_int_equal(json_dump_file(config, path, JSON_INDENT(2)), 0);
    json_decref(config);
    return dir;
}

static void what_other_programs_cannot_be_told_stands_in_keys_of_our_own(void **state)
{
    (void)state;
    const struct {
        const char *folder, *object, *key;
        json_t *value;
        size_t n_own;
    } cases[] = {
        {"gemma2", NULL, "query_pre_attn_scalar", json_integer(48), 1},
        {"gemma2", NULL, "attn_logit_softcapping", json_null(), 1},
        {"gemma2", NULL, "final_logit_softcapping", json_real(7.5), 0},
        {"gemma2", NULL, "sliding_window", json_null(), 0},
        {"gemma2", NULL, "rope_theta", json_real(20000), 0}, /* as the key that llama.cpp reads, if it is there */
        {"gemma", NULL, "rope_theta", json_real(20000), 0},
        {"gemma3_text", NULL, "query_pre_attn_scalar", json_integer(168), 1},
        {"gemma3_text", NULL, "sliding_window_pattern", json_integer(4), 2},
        {"gemma3_text", NULL, "attn_logit_softcapping", json_real(20), 1},
        {"gemma3_text", NULL, "rope_local_base_freq", json_real(5000), 0},
        {"gemma3_text", NULL, "rope_scaling", json_null(), 0},
        {"mixtral", NULL, "sliding_window", json_integer(16), 1},
        {"qwen2_moe", NULL, "norm_topk_prob", json_true(), 1},
        {"qwen3_moe", NULL, "norm_topk_prob", json_false(), 1},
        {"phi3", NULL, "sliding_window", json_null(), 0},
        {"phi3_longrope", NULL, "sliding_window", json_integer(24), 0},
        {"phi3_longrope", "rope_scaling", "attention_factor", json_real(1.5), 0},
        {"deepseek_v2", "rope_scaling", "mscale", json_real(1), 1},
        {"deepseek_v2", "rope_scaling", "mscale_all_dim", NULL, 1},
        {"deepseek_v2", "rope_scaling", "beta_fast", NULL, 0},
        {"deepseek_v2", NULL, "norm_topk_prob", json_true(), 0},
        {"deepseek_v2", NULL, "rope_scaling", json_null(), 0},
        {"deepseek_v3", NULL, "routed_scaling_factor", json_real(16), 0},
        {"qwen3_yarn", "rope_scaling", "mscale", json_real(0.5), 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char what[96];
        snprintf(what, sizeof what, "%s with another %s", cases[i].folder, cases[i].key);
        const char *dir = changed_folder(cases[i].folder, cases[i].object, cases[i].key, cases[i].value);
        size_t n_own = expect_same_numbers_of(dir, what);
        if (n_own != cases[i].n_own) fail_msg("%s: %zu keys, want %zu", what, n_own, cases[i].n_own);
    }
}

static void bases_of_rope_that_are_not_named_are_those_of_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *folder;
        double theta;
    } cases[] = {{"mixtral", 1e6}, {"gemma3_text", 1e6}, {"gemma", 1e4}, {"deepseek_v3", 1e4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_source *s = open_source(changed_folder(cases[i].folder, NULL, "rope_theta", NULL));
        if (s->config.rope.theta != cases[i].theta) fail_msg("%s: %g", cases[i].folder, s->config.rope.theta);
        tms_source_close(s);
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
        cmocka_unit_test(numbers_of_a_file_are_those_of_its_folder),
        cmocka_unit_test(what_other_programs_cannot_be_told_stands_in_keys_of_our_own),
        cmocka_unit_test(bases_of_rope_that_are_not_named_are_those_of_transformers),
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

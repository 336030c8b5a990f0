/* Configs, architectures, sources. */
#include "support.h"

#include <tamis/tamis.h>

#include "base/json.h"
#include "model/arch.h"
#include "model/config.h"
#include "model/source.h"

static tms_status read_config(struct tms_config *c, const char *text, struct tms_error *err)
{
    json_t *json;
    tms_status status = tms_json_parse(&json, text, strlen(text), "config.json", err);
    if (status == TMS_OK) {
        status = tms_config_read(c, json, "config.json", err);
        json_decref(json);
    }
    return status;
}

static void old_and_new_forms_of_a_config_mean_the_same(void **state)
{
    (void)state;
    struct tms_config old_form, new_form;
    struct tms_error err;
    assert_ok(
        read_config(&old_form,
                    "{\"model_type\":\"llama\",\"rope_theta\":500000.0,\"torch_dtype\":\"bfloat16\",\"rope_scaling\":"
                    "{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                    "\"original_max_position_embeddings\":64}}",
                    &err),
        err);
    assert_ok(
        read_config(&new_form,
                    "{\"model_type\":\"llama\",\"dtype\":\"bfloat16\",\"rope_parameters\":{\"rope_theta\":500000.0,"
                    "\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                    "\"original_max_position_embeddings\":64}}",
                    &err),
        err);
    assert_int_equal(old_form.rope.kind, TMS_ROPE_LLAMA3);
    assert_int_equal(new_form.rope.kind, TMS_ROPE_LLAMA3);
    assert_true(old_form.rope.theta == new_form.rope.theta && new_form.rope.theta == 500000.0);
    assert_true(old_form.rope.factor == 8 && new_form.rope.factor == 8);
    assert_int_equal(old_form.rope.original_context, new_form.rope.original_context);
    assert_int_equal(old_form.dtype, TMS_BF16);
    assert_int_equal(new_form.dtype, TMS_BF16);
}

static void absurd_numbers_in_a_config_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"model_type\":\"llama\",\"num_hidden_layers\":-1}", "num_hidden_layers"},
        {"{\"model_type\":\"llama\",\"hidden_size\":1e9}", "hidden_size"},
        {"{\"model_type\":\"llama\",\"num_attention_heads\":0}", "num_attention_heads"},
        {"{\"model_type\":\"llama\",\"vocab_size\":1099511627776}", "vocab_size"},
        {"{\"model_type\":\"llama\",\"num_attention_heads\":6,\"num_key_value_heads\":4}", "num_key_value_heads"},
        {"{\"model_type\":\"llama\",\"num_attention_heads\":3,\"hidden_size\":64}", "hidden_size"},
        {"{\"model_type\":\"llama\",\"rope_theta\":0}", "rope_theta"},
        {"{\"model_type\":\"llama\",\"tie_word_embeddings\":\"yes\"}", "tie_word_embeddings"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"yarn\"}}", "factor"},
        {"{\"model_type\":7}", "model_type"},
        {"{}", "model_type"},
        {"[]", "object"},
        {"{\"model_type\":\"x\",\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]}}",
         "weight_block_size"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_config c;
        struct tms_error err;
        assert_int_equal(read_config(&c, cases[i][0], &err), TMS_EINPUT);
        if (!strstr(err.message, cases[i][1])) fail_msg("'%s' does not name %s", err.message, cases[i][1]);
    }
}

static void tensor_names_map_both_ways(void **state)
{
    (void)state;
    static const char *const folders[] = {"llama31", "llama_bias",  "mixtral", "qwen2_moe",   "qwen3_moe",  "gemma",
                                          "gemma2",  "gemma3_text", "phi3",    "deepseek_v2", "deepseek_v3"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[1200];
        struct tms_source *s;
        struct tms_error err;
        struct tms_arch_step step = {0};
        snprintf(path, sizeof path, "%s/%s/config.json", golden("arch"), folders[i]);
        assert_ok(tms_source_open(&s, path, NULL, NULL, &err), err);
        while (tms_arch_next(&step, s->arch, &s->config)) {
            char name[128];
            int layer, expert;
            tms_arch_name(name, sizeof name, step.row->hf, step.layer, step.expert);
            assert_ptr_equal(tms_arch_explain(s->arch, name, &layer, &expert), step.row);
            assert_int_equal(layer, step.layer);
            assert_int_equal(expert, step.expert);
            if (!step.row->gguf) continue;
            tms_arch_name(name, sizeof name, step.row->gguf, step.layer, -1);
            assert_ptr_equal(tms_arch_explain_gguf(s->arch, name, &layer), step.row);
            assert_int_equal(layer, step.layer);
        }
        tms_source_close(s);
    }
    int layer, expert;
    struct tms_config llama = {.class_name = "LlamaForCausalLM"};
    const struct tms_arch *arch = tms_arch_find(&llama);
    assert_null(tms_arch_explain(arch, "model.layers.01.mlp.up_proj.weight", &layer, &expert));
    assert_null(tms_arch_explain(arch, "model.layers.x.mlp.up_proj.weight", &layer, &expert));
    assert_null(tms_arch_explain(arch, "model.layers.99999999999999999999.mlp.up_proj.weight", &layer, &expert));
    assert_null(tms_arch_explain(arch, "model.layers.1.mlp.up_proj.weight.more", &layer, &expert));
}

static void lone_config_has_the_tensors_of_the_folder(void **state)
{
    (void)state;
    static const char *const folders[] = {"llama31",    "llama2",       "llama_bias", "mistral",
                                          "qwen2_tied", "qwen2_untied", "qwen3"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char dir[64], config[1200];
        struct tms_source *folder, *lone;
        struct tms_error err;
        snprintf(dir, sizeof dir, "arch/%s", folders[i]);
        snprintf(config, sizeof config, "%s/config.json", golden(dir));
        assert_ok(tms_source_open(&folder, golden(dir), NULL, NULL, &err), err);
        assert_ok(tms_source_open(&lone, config, NULL, NULL, &err), err);
        assert_int_equal(tms_source_parameters(folder), tms_source_parameters(lone));
        assert_int_equal(folder->n_tensors, lone->n_tensors);
        for (size_t t = 0; t < lone->n_tensors; t++) {
            const struct tms_tensor *there = tms_source_find(folder, lone->tensors[t].name);
            if (!there) fail_msg("%s: %s", folders[i], lone->tensors[t].name);
            assert_int_equal(there->n_dims, lone->tensors[t].n_dims);
            assert_memory_equal(there->shape, lone->tensors[t].shape, there->n_dims * sizeof *there->shape);
        }
        tms_source_close(folder);
        tms_source_close(lone);
    }
}

static void tensors_are_listed_with_layer_2_before_layer_10(void **state)
{
    (void)state;
    struct tms_model *model;
    struct tms_model_info info;
    struct tms_error err;
    assert_ok(tms_model_open(&model, pebble(), &err), err);
    tms_model_describe(model, &info);
    assert_int_equal(info.n_parameters, 5773568);
    assert_string_equal(info.architecture, "Qwen2ForCausalLM");
    int last_layer = -1;
    for (size_t i = 0; i < info.n_tensors; i++) {
        struct tms_tensor_info t;
        int layer;
        tms_model_tensor(model, i, &t);
        if (sscanf(t.name, "model.layers.%d.", &layer) != 1) continue;
        assert_true(layer >= last_layer);
        last_layer = layer;
    }
    assert_int_equal(last_layer, 5);
    tms_model_close(model);
}

struct lines {
    size_t n;
    char text[8][600];
};

static void keep_line(void *ctx, const char *line)
{
    struct lines *l = ctx;
    if (l->n < 8) snprintf(l->text[l->n], sizeof l->text[0], "%s", line);
    l->n++;
}

static void check_tells_every_problem_of_a_folder(void **state)
{
    (void)state;
    char dir[1100], command[4000];
    struct lines lines = {0};
    struct tms_check_options options = {.finding = keep_line, .finding_ctx = &lines};
    struct tms_check_result result;
    struct tms_error err;
    snprintf(dir, sizeof dir, "%s", scratch("broken"));
    snprintf(command, sizeof command,
             "cp -r '%s' '%s' && cd '%s' && rm tokenizer.json && cp model-00002-of-00002.safetensors "
             "model-00003-of-00003.safetensors && "
             "sed -i 's/\"intermediate_size\": 176/\"intermediate_size\": 192/' config.json",
             golden("arch/qwen2_sharded"), dir, dir);
    assert_int_equal(system(command), 0);
    assert_ok(tms_check(dir, &options, &result, &err), err);
    assert_int_equal(result.n_findings, lines.n);
    assert_int_equal(lines.n, 1 + 1 + 6); /* a shard too many, no tokenizer, three matrices of two layers */
    assert_non_null(strstr(lines.text[0], "model-00003-of-00003.safetensors: the index does not know this shard"));
    assert_non_null(strstr(lines.text[1], "has no tokenizer"));
    assert_non_null(strstr(lines.text[2], "has shape [128, 176], config.json says [128, 192]"));
}

static void check_tells_where_values_are_not_finite(void **state)
{
    (void)state;
    char dir[1100], command[3000];
    struct lines lines = {0};
    struct tms_check_options options = {.finding = keep_line, .finding_ctx = &lines, .n_threads = 3};
    struct tms_check_result result;
    struct tms_error err;
    struct tms_source *s;
    snprintf(dir, sizeof dir, "%s", scratch("nonfinite"));
    snprintf(command, sizeof command, "cp -r '%s' '%s'", golden("arch/llama2"), dir);
    assert_int_equal(system(command), 0);
    assert_ok(tms_source_open(&s, dir, NULL, NULL, &err), err);
    const struct tms_tensor *t = tms_source_find(s, "model.layers.1.mlp.down_proj.weight");
    FILE *f = fopen(s->files[0]->path, "r+b");
    const uint64_t at[] = {5 * t->cols + 7, 100 * t->cols + 3};
    for (int i = 0; i < 2; i++) {
        fseek(f, (long)(t->offset + 2 * at[i]), SEEK_SET);
        fwrite(i ? "\x00\x7c" : "\x00\xfc", 1, 2, f); /* F16: +infinity, -infinity */
    }
    fclose(f);
    tms_source_close(s);
    assert_ok(tms_check(dir, &options, &result, &err), err);
    assert_int_equal(lines.n, 1);
    assert_non_null(strstr(
        lines.text[0],
        "tensor 'model.layers.1.mlp.down_proj.weight' row 5 column 7 is -infinity (2 such values in the tensor)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_and_new_forms_of_a_config_mean_the_same),
        cmocka_unit_test(absurd_numbers_in_a_config_are_refused_by_name),
        cmocka_unit_test(tensor_names_map_both_ways),
        cmocka_unit_test(lone_config_has_the_tensors_of_the_folder),
        cmocka_unit_test(tensors_are_listed_with_layer_2_before_layer_10),
        cmocka_unit_test(check_tells_every_problem_of_a_folder),
        cmocka_unit_test(check_tells_where_values_are_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

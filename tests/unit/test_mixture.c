/* File types and mixtures: the type of every tensor against llama-quantize's (tests/golden/mixtures). */
#include "support.h"

#include <jansson.h>

#include "plan/mixture.h"
#include "plan/spec.h"

static const struct tms_mixture_options by_rule = {.output_type = TMS_TYPE_NONE, .token_embd_type = TMS_TYPE_NONE};

static uint64_t key_of(const json_t *model, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(json_object_get(model, "keys"), key));
}

/* "Q4_K" in upper case as the table of golden types spells it. */
static void expect_types(const json_t *model, const struct tms_file_type *ftype, bool has_weights, char *types,
                         size_t *checked)
{
    json_t *tensors = json_object_get(model, "tensors");
    size_t n = json_object_size(tensors), i = 0;
    struct tms_mixture_tensor *m = calloc(n, sizeof *m);
    const char *name;
    json_t *shape;
    json_object_foreach(tensors, name, shape)
    {
        size_t n_dims = json_array_size(shape);
        m[i++] = (struct tms_mixture_tensor){
            .name = name,
            .n_dims = (uint32_t)n_dims,
            .source = TMS_F32,
            .n_mats = n_dims > 2 ? (uint64_t)json_integer_value(json_array_get(shape, 0)) : 1,
            .n_cols = (uint64_t)json_integer_value(json_array_get(shape, n_dims - 1))};
    }
    struct tms_mixture_model info = {.arch = json_string_value(json_object_get(model, "arch")),
                                     .n_layers = key_of(model, "block_count"),
                                     .n_heads = key_of(model, "attention.head_count"),
                                     .n_kv_heads = key_of(model, "attention.head_count_kv"),
                                     .n_experts = key_of(model, "expert_count")};
    struct tms_mixture_options options = by_rule;
    options.has_weights = has_weights;
    assert_true(tms_mixture_assign(ftype, &info, &options, m, n));
    bool refused = false;
    for (i = 0; i < n; i++)
        refused |= m[i].problem || (!has_weights && tms_mixture_needs_weights(ftype, m[i].name, m[i].type, false));
    assert_int_equal(refused, strncmp(types, "REFUSED", 7) == 0);
    i = refused ? n : 0;
    for (char *want = refused ? NULL : strtok(types, " \n"); want; want = strtok(NULL, " \n"), i++) {
        assert_true(i < n);
        const struct tms_codec *codec = tms_codec_by_name(want);
        assert_non_null(codec);
        if (m[i].type != codec->id)
            fail_msg("%s %s (weights %d): %s got %s, want %s", json_string_value(json_object_get(model, "name")),
                     ftype->name, has_weights, m[i].name, tms_codec(m[i].type)->name, want);
        (*checked)++;
    }
    assert_int_equal(i, n);
    free(m);
}

static void every_tensor_gets_the_type_that_llama_quantize_gives_it(void **state)
{
    (void)state;
    static char line[1 << 16];
    json_error_t problem;
    json_t *models = json_load_file(golden("mixtures/models.json"), 0, &problem);
    assert_non_null(models);
    FILE *f = fopen(golden("mixtures/mixtures.tsv"), "r");
    assert_non_null(f);
    size_t rows = 0, checked = 0;
    assert_non_null(fgets(line, sizeof line, f)); /* the heading */
    while (fgets(line, sizeof line, f)) {
        char *name = strtok(line, "\t"), *type = strtok(NULL, "\t"), *weights = strtok(NULL, "\t"),
             *types = strtok(NULL, "\n");
        const struct tms_file_type *ftype = tms_file_type(type);
        size_t i;
        json_t *model;
        if (strcmp(type, "NVFP4") == 0) continue; /* no file type of llama-quantize's list: it refuses it always */
        assert_non_null(ftype);
        json_array_foreach(models, i, model)
        {
            if (strcmp(json_string_value(json_object_get(model, "name")), name) == 0)
                expect_types(model, ftype, weights[0] == '1', types, &checked);
        }
        rows++;
    }
    fclose(f);
    json_decref(models);
    print_message("%zu mixtures, %zu tensors\n", rows, checked);
    assert_true(rows >= 13 * 60 && checked > 100000);
}

static void file_types_are_found_by_name_alias_and_number_in_any_case(void **state)
{
    (void)state;
    assert_int_equal(tms_file_type("q4_k_m")->id, TMS_FTYPE_Q4_K_M);
    assert_int_equal(tms_file_type("Q4_K")->id, TMS_FTYPE_Q4_K_M);
    assert_int_equal(tms_file_type("15")->id, TMS_FTYPE_Q4_K_M);
    assert_int_equal(tms_file_type("copy")->id, TMS_FTYPE_COPY);
    assert_null(tms_file_type("q9_z"));
    assert_null(tms_file_type("15x"));
    assert_null(tms_file_type("-1"));
    assert_null(tms_file_type(""));
}

static void specs_have_one_canonical_spelling(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"nf4", "nf4"},
        {"NF4:DQ", "nf4:dq"},
        {"nf4:b128:dq", "nf4:b128:dq"},
        {"nf4:dq:b128", "nf4:b128:dq"},
        {"nf4:b64", "nf4"},
        {"fp4:b4096", "fp4:b4096"},
        {"int8", "int8"},
        {"q6_k", "Q6_K"},
    };
    struct tms_error err;
    struct tms_spec spec;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_ok(tms_spec_parse(&spec, pairs[i][0], &err), err);
        assert_string_equal(spec.name, pairs[i][1]);
    }
    static const char *const bad[] = {
        "", "nf4:", "nf4:b65", "nf4:b64x", "nf4:dq2", "int8:dq", "q4_k_m:dq", "gptqq", "nf4:b99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tms_spec_parse(&spec, bad[i], &err), TMS_EUSAGE);
}

static void rows_that_fit_no_block_become_f16(void **state)
{
    (void)state;
    struct tms_mixture_model model = {.arch = "llama", .n_layers = 1, .n_heads = 1, .n_kv_heads = 1};
    struct tms_mixture_tensor t = {
        .name = "blk.0.ffn_up.weight", .n_dims = 2, .n_cols = 40, .n_mats = 1, .source = TMS_F32};
    assert_true(tms_mixture_assign(tms_file_type("q4_k_m"), &model, &by_rule, &t, 1));
    assert_int_equal(t.type, TMS_F16);
    assert_true(t.fallback);
}

static enum tms_type type_with(const char *name, const struct tms_mixture_options *options)
{
    struct tms_mixture_model model = {.arch = "llama", .n_layers = 8, .n_heads = 4, .n_kv_heads = 4};
    struct tms_mixture_tensor t[] = {
        {.name = "output.weight", .n_dims = 2, .n_cols = 256, .n_mats = 1, .source = TMS_F16},
        {.name = "token_embd.weight", .n_dims = 2, .n_cols = 256, .n_mats = 1, .source = TMS_F16},
        {.name = "blk.1.ffn_down.weight", .n_dims = 2, .n_cols = 256, .n_mats = 1, .source = TMS_F16},
        {.name = "blk.1.ffn_up.weight", .n_dims = 2, .n_cols = 256, .n_mats = 1, .source = TMS_F16},
    };
    assert_true(tms_mixture_assign(tms_file_type("q4_k_s"), &model, options, t, 4));
    for (size_t i = 0; i < 4; i++)
        if (strcmp(t[i].name, name) == 0) return t[i].type;
    return TMS_TYPE_NONE;
}

static void options_win_over_rules_as_in_llama_quantize(void **state)
{
    (void)state;
    struct tms_error err;
    struct tms_type_override overrides[2];
    struct tms_mixture_options o = by_rule;
    assert_int_equal(type_with("output.weight", &o), TMS_Q6_K);
    o.output_type = TMS_Q8_0;
    assert_int_equal(type_with("output.weight", &o), TMS_Q8_0);
    o.leave_output = true;
    assert_int_equal(type_with("output.weight", &o), TMS_F16);
    o.token_embd_type = TMS_Q5_K;
    assert_int_equal(type_with("token_embd.weight", &o), TMS_Q5_K);
    assert_ok(tms_type_override_parse(&overrides[0], "BLK\\.1\\.ffn_(down|gate)=q5_0", &err), err);
    assert_ok(tms_type_override_parse(&overrides[1], "ffn=q8_0", &err), err);
    o.overrides = overrides;
    o.n_overrides = 2;
    assert_int_equal(type_with("blk.1.ffn_down.weight", &o), TMS_Q5_0); /* the first that matches */
    assert_int_equal(type_with("blk.1.ffn_up.weight", &o), TMS_Q8_0);
    tms_type_override_free(&overrides[0]);
    tms_type_override_free(&overrides[1]);
    static const char *const bad[] = {"ffn", "=q8_0", "ffn=", "ffn=q9", "ff(n=q8_0", "ffn=u8"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tms_type_override_parse(&overrides[0], bad[i], &err), TMS_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_gets_the_type_that_llama_quantize_gives_it),
        cmocka_unit_test(file_types_are_found_by_name_alias_and_number_in_any_case),
        cmocka_unit_test(specs_have_one_canonical_spelling),
        cmocka_unit_test(rows_that_fit_no_block_become_f16),
        cmocka_unit_test(options_win_over_rules_as_in_llama_quantize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tamis diff, verify and explain: that what is equal is called equal, that what differs is found and named, and that
 * the numbers are those of the encoders. */
#include "support.h"

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>
#include <tamis/tamis.h>

#include "base/cpu.h"
#include "base/sha256.h"
#include "codec/bnb.h"
#include "model/packed.h"

static const char *const up_proj = "model.layers.0.mlp.up_proj.weight";

static struct tms_result run_one(const char *from, const char *to, const char *type,
                                 const struct tms_quantize_options *more)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results, result;
    struct tms_error err;
    options.types = &type;
    options.n_types = 1;
    options.force = true;
    assert_ok(tms_quantize(from, to, &options, &results, NULL, NULL, &err), err);
    result = results[0];
    tms_results_free(results, 1);
    result.type = result.path = NULL;
    return result;
}

/* ---- diff ---- */

static struct tms_diff *diff(const char *a, const char *b, struct tms_diff_info *info)
{
    struct tms_diff *d;
    struct tms_error err;
    const struct tms_diff_options options = {.n_threads = 3};
    assert_ok(tms_diff_models(&d, a, b, &options, &err), err);
    tms_diff_describe(d, info);
    return d;
}

static void expect_equal(const char *a, const char *b, size_t n_tensors)
{
    struct tms_diff_info info;
    struct tms_diff *d = diff(a, b, &info);
    for (size_t i = 0; i < info.n_tensors; i++) {
        struct tms_diff_tensor t;
        tms_diff_tensor_at(d, i, &t);
        if (t.state != TMS_DIFF_EQUAL) fail_msg("%s and %s: %s differs (state %d)", a, b, t.name, (int)t.state);
    }
    assert_true(info.equal);
    assert_int_equal(info.n_tensors, n_tensors);
    assert_true(info.max_error == 0 && info.relative_error == 0);
    tms_diff_free(d);
}

static void diff_of_folder_and_its_f32_gguf_is_zero(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n_tensors;
    } models[] = {{"llama2", 21},  {"llama31", 29},      {"llama_bias", 35},
                  {"mistral", 30}, {"qwen2_untied", 27}, {"qwen3", 24}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char folder[1100], file[1100], name[64];
        snprintf(name, sizeof name, "arch/%s", models[i].name);
        snprintf(folder, sizeof folder, "%s", golden(name));
        snprintf(file, sizeof file, "%s", scratch("f32.gguf"));
        run_one(folder, file, "f32", NULL);
        expect_equal(folder, file, models[i].n_tensors);
        expect_equal(file, folder, models[i].n_tensors);
    }
}

static void permuted_rows_are_not_called_equal(void **state)
{
    (void)state;
    struct tms_diff_info info;
    char file[1100], command[4200];
    /* as qwen2, whose conversion does not permute: q and k must differ, and nothing else */
    snprintf(file, sizeof file, "%s", scratch("llama.gguf"));
    run_one(golden("arch/llama2"), file, "f32", NULL);
    snprintf(command, sizeof command,
             "LC_ALL=C sed -i 's/\\x05\\x00\\x00\\x00\\x00\\x00\\x00\\x00llama/"
             "\\x05\\x00\\x00\\x00\\x00\\x00\\x00\\x00qwen2/' '%s'",
             file);
    assert_int_equal(system(command), 0);
    struct tms_diff *d = diff(golden("arch/llama2"), file, &info);
    assert_false(info.equal);
    for (size_t i = 0; i < info.n_tensors; i++) {
        struct tms_diff_tensor t;
        tms_diff_tensor_at(d, i, &t);
        bool turned = strstr(t.name, "q_proj") || strstr(t.name, "k_proj");
        if (turned != (t.state == TMS_DIFF_VALUES)) fail_msg("%s: state %d", t.name, (int)t.state);
    }
    tms_diff_free(d);
}

static void diff_gives_the_error_that_quantize_reported(void **state)
{
    (void)state;
    static const char *const types[] = {"nf4", "nf4:dq", "fp4:b128", "int8", "q4_k_m", "q8_0"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tms_diff_info info;
        char out[1100];
        snprintf(out, sizeof out, "%s", scratch(strncmp(types[i], "q", 1) == 0 ? "out.gguf" : "out"));
        struct tms_result r = run_one(pebble(), out, types[i], NULL);
        struct tms_diff *d = diff(pebble(), out, &info);
        assert_int_equal(info.n_tensors, 74);
        double want = r.rms_error;
        /* double quantization: quantize measures with the absmax values before they are quantized themselves */
        double tolerance = strstr(types[i], ":dq") ? 1e-3 : 1e-9;
        if (fabs(info.rms_error - want) > tolerance * want)
            fail_msg("%s: rms %.12g, quantize said %.12g", types[i], info.rms_error, want);
        assert_true(fabs(info.relative_error - r.rms_error / r.rms_weight) < 1e-3 * info.relative_error);
        tms_diff_free(d);
    }
}

static void diff_names_the_value_and_keys_that_differ(void **state)
{
    (void)state;
    struct tms_diff_info info;
    struct tms_diff_key key;
    struct tms_source *s;
    struct tms_error err;
    char a[1100], b[1100];
    const struct tms_quantize_options named = {.model_name = "Other"};
    snprintf(a, sizeof a, "%s", scratch("a.gguf"));
    snprintf(b, sizeof b, "%s", scratch("b.gguf"));
    run_one(pebble(), a, "f32", NULL);
    run_one(pebble(), b, "f32", &named);
    assert_ok(tms_source_open(&s, b, NULL, NULL, &err), err);
    const struct tms_tensor *t = tms_source_find(s, "blk.2.ffn_up.weight");
    FILE *f = fopen(b, "r+b");
    const float value = 100;
    fseek(f, (long)(t->offset + 4 * (5 * t->cols + 7)), SEEK_SET);
    fwrite(&value, 4, 1, f);
    fclose(f);
    tms_source_close(s);
    struct tms_diff *d = diff(a, b, &info);
    assert_false(info.equal);
    assert_int_equal(info.n_differing, 1);
    assert_int_equal(info.n_equal, 73);
    for (size_t i = 0; i < info.n_tensors; i++) {
        struct tms_diff_tensor found;
        tms_diff_tensor_at(d, i, &found);
        if (found.state == TMS_DIFF_EQUAL) continue;
        assert_string_equal(found.name, "blk.2.ffn_up.weight");
        assert_int_equal(found.n_differing, 1);
        assert_int_equal(found.max_row, 5);
        assert_int_equal(found.max_column, 7);
        assert_true(found.max_error > 99);
    }
    assert_int_equal(info.n_keys, 1);
    tms_diff_key_at(d, 0, &key);
    assert_string_equal(key.key, "general.name");
    assert_string_equal(key.a, "\"Pebble\"");
    assert_string_equal(key.b, "\"Other\"");
    tms_diff_free(d);
}

static void value_that_is_no_number_differs_infinitely(void **state)
{
    (void)state;
    struct tms_diff_info info;
    char dir[1100], command[3200];
    snprintf(dir, sizeof dir, "%s", scratch("nan"));
    snprintf(command, sizeof command, "cp -r '%s' '%s'", pebble(), dir);
    assert_int_equal(system(command), 0);
    struct tms_source *s;
    struct tms_error err;
    assert_ok(tms_source_open(&s, dir, NULL, NULL, &err), err);
    const struct tms_tensor *t = tms_source_find(s, up_proj);
    FILE *f = fopen(s->files[0]->path, "r+b");
    const uint16_t nan = 0x7fc0;
    fseek(f, (long)(t->offset + 2 * t->cols), SEEK_SET);
    fwrite(&nan, 2, 1, f);
    fclose(f);
    tms_source_close(s);
    struct tms_diff *d = diff(pebble(), dir, &info);
    assert_false(info.equal);
    assert_true(isinf(info.max_error));
    tms_diff_free(d);
    expect_equal(dir, dir, 74); /* the same NaN on both sides is no difference */
}

static void unknown_architecture_cannot_be_matched_with_a_folder(void **state)
{
    (void)state;
    struct tms_diff *d;
    struct tms_error err;
    const struct tms_diff_options options = {0};
    char file[1100], command[4200];
    snprintf(file, sizeof file, "%s", scratch("strange.gguf"));
    run_one(pebble(), file, "f16", NULL);
    snprintf(command, sizeof command, "LC_ALL=C sed -i 's/qwen2/qwen9/g' '%s'", file);
    assert_int_equal(system(command), 0);
    assert_int_equal(tms_diff_models(&d, pebble(), file, &options, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "'qwen9' is not known"));
    expect_equal(file, file, 74);
}

/* ---- packed weights as values ---- */

static void packed_weights_are_read_in_ranges(void **state)
{
    (void)state;
    static const char *const types[] = {"nf4", "fp4:b32:dq", "int8"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tms_source *s;
        struct tms_error err;
        run_one(pebble(), scratch("packed"), types[i], NULL);
        assert_ok(tms_source_open(&s, scratch("packed"), NULL, NULL, &err), err);
        const struct tms_tensor *t = tms_source_find(s, up_proj);
        assert_true(tms_source_decodes(t));
        uint64_t n = t->n_weights, unit = tms_source_unit(t);
        assert_int_equal(n, 768 * 256);
        float *whole = malloc(n * sizeof *whole), *part = malloc(n * sizeof *part);
        uint8_t *raw = malloc(n);
        assert_ok(tms_source_read(s, t, 0, n, raw, whole, &err), err);
        for (uint64_t first = unit; first < n; first += 1031 * unit) {
            uint64_t count = n - first < 77 * unit ? n - first : 77 * unit;
            assert_ok(tms_source_read(s, t, first, count, raw, part, &err), err);
            assert_same_bytes(part, whole + first, count * sizeof *part, types[i]);
        }
        free(whole);
        free(part);
        free(raw);
        tms_source_close(s);
    }
}

/* ---- verify ---- */

static char first_finding[1024];

static void note(void *ctx, const char *line)
{
    (void)ctx;
    if (!first_finding[0]) snprintf(first_finding, sizeof first_finding, "%s", line);
}

static struct tms_verify_result verify_as(const char *file, const char *source, const char *type,
                                          const struct tms_quantize_options *recipe)
{
    struct tms_verify_options options = {.finding = note};
    struct tms_verify_result result;
    if (recipe) options.recipe = *recipe;
    options.recipe.n_threads = 3;
    options.recipe.types = &type;
    options.recipe.n_types = type != NULL;
    struct tms_error err;
    first_finding[0] = '\0';
    assert_ok(tms_verify(file, source, &options, &result, &err), err);
    return result;
}

static struct tms_verify_result verify(const char *file, const char *source, const char *type)
{
    return verify_as(file, source, type, NULL);
}

static void expect_verified(const char *file, const char *source, const char *type)
{
    struct tms_verify_result r = verify(file, source, NULL);
    if (r.n_findings) fail_msg("%s: %s", file, first_finding);
    assert_string_equal(r.type, type);
    assert_true(r.identical);
    assert_true(r.bytes > 1000000);
}

static void what_quantize_wrote_is_verified(void **state)
{
    (void)state;
    static const char *const types[][2] = {{"q4_k_m", "Q4_K_M"}, {"q8_0", "Q8_0"},         {"f16", "F16"},
                                           {"nf4:dq", "nf4:dq"}, {"fp4:b256", "fp4:b256"}, {"int8", "int8"}};
    char folder[1100], middle[1100], file[1100];
    const char *f32 = "f32";
    const struct tms_quantize_options convert = {.types = &f32, .n_types = 1};
    struct tms_result *results;
    struct tms_error err;
    snprintf(folder, sizeof folder, "%s", pebble());
    snprintf(middle, sizeof middle, "%s", scratch("middle.gguf"));
    assert_ok(tms_convert(folder, middle, &convert, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
    expect_verified(middle, folder, "F32"); /* in the converter's order */
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        bool gguf = types[i][1][0] < 'a';
        snprintf(file, sizeof file, "%s", scratch(gguf ? "v.gguf" : "v"));
        run_one(folder, file, types[i][0], NULL);
        expect_verified(file, folder, types[i][1]);
        if (!gguf) continue;
        run_one(middle, file, types[i][0], NULL);
        expect_verified(file, middle, types[i][1]);
    }
}

/* Flips a bit of byte `at` of a tensor. */
static void flip(const char *model, const char *tensor, uint64_t at)
{
    struct tms_source *s;
    struct tms_error err;
    assert_ok(tms_source_open(&s, model, NULL, NULL, &err), err);
    const struct tms_tensor *t = tms_source_find(s, tensor);
    assert_non_null(t);
    FILE *f = fopen(s->files[t->file]->path, "r+b");
    uint8_t byte = 0;
    fseek(f, (long)(t->offset + at), SEEK_SET);
    assert_int_equal(fread(&byte, 1, 1, f), 1);
    byte ^= 4;
    fseek(f, (long)(t->offset + at), SEEK_SET);
    fwrite(&byte, 1, 1, f);
    fclose(f);
    tms_source_close(s);
}

static void expect_same_in_every_byte(const char *file, const char *source, const char *type,
                                      const struct tms_quantize_options *recipe)
{
    struct tms_verify_result r = verify_as(file, source, type, recipe);
    if (r.n_findings) fail_msg("%s: %s", file, first_finding);
    if (!r.identical) fail_msg("%s: is laid out in another way", file);
    assert_int_equal(r.n_other_types, 0);
}

static void split_outputs_are_verified_in_every_byte(void **state)
{
    (void)state;
    static const struct tms_quantize_options ways[] = {{.split_max_bytes = 900000}, {.split_max_tensors = 20}};
    const struct tms_quantize_options other = {.split_max_tensors = 31}, kept = {.keep_split = true};
    const char *bf16 = "bf16";
    for (size_t i = 0; i < 2; i++) {
        char source[1100], file[1100], again[1100];
        struct tms_quantize_options convert = ways[i];
        struct tms_result *results;
        struct tms_error err;
        struct tms_verify_result r;
        convert.types = &bf16;
        convert.n_types = 1;
        assert_ok(tms_convert(pebble(), scratch(i ? "c1.gguf" : "c0.gguf"), &convert, &results, NULL, NULL, &err), err);
        snprintf(source, sizeof source, "%s", results[0].path);
        assert_true(results[0].n_files > 2);
        tms_results_free(results, 1);
        expect_same_in_every_byte(source, pebble(), NULL, NULL);
        expect_same_in_every_byte(source, pebble(), NULL, &ways[i]);

        struct tms_quantize_options quantize = ways[i];
        const char *q8_0 = "q8_0";
        quantize.types = &q8_0;
        quantize.n_types = 1;
        assert_ok(tms_quantize(source, scratch(i ? "q1.gguf" : "q0.gguf"), &quantize, &results, NULL, NULL, &err), err);
        snprintf(file, sizeof file, "%s", results[0].path);
        assert_true(results[0].n_files > 2);
        tms_results_free(results, 1);
        expect_same_in_every_byte(file, source, NULL, NULL);
        expect_same_in_every_byte(file, source, "q8_0", &ways[i]);
        r = verify_as(file, source, NULL, &other);
        assert_int_equal(r.n_findings, 0);
        assert_false(r.identical);

        quantize = kept; /* the source's files and its order */
        quantize.types = &q8_0;
        quantize.n_types = 1;
        assert_ok(tms_quantize(source, scratch(i ? "k1.gguf" : "k0.gguf"), &quantize, &results, NULL, NULL, &err), err);
        snprintf(again, sizeof again, "%s", results[0].path);
        tms_results_free(results, 1);
        expect_same_in_every_byte(again, source, NULL, NULL);
        expect_same_in_every_byte(again, source, NULL, &kept);
    }
}

static void bit_in_the_last_file_of_a_split_is_found(void **state)
{
    (void)state;
    const char *q8_0 = "q8_0";
    const struct tms_quantize_options split = {.types = &q8_0, .n_types = 1, .split_max_tensors = 30};
    struct tms_result *results;
    struct tms_error err;
    assert_ok(tms_quantize(pebble(), scratch("last.gguf"), &split, &results, NULL, NULL, &err), err);
    flip(results[0].path, "token_embd.weight", 7);
    struct tms_verify_result r = verify(results[0].path, pebble(), NULL);
    assert_int_equal(r.n_findings, 1);
    assert_string_equal(r.tensor, "token_embd.weight");
    assert_non_null(strstr(first_finding, "of last-0000"));
    tms_results_free(results, 1);
}

static void plain_and_sharded_folders_are_recognised(void **state)
{
    (void)state;
    static const char *const types[] = {"hf:bf16", "hf:f16", "hf:f32", "nf4:dq", "int8"};
    const struct tms_quantize_options sharded = {.max_shard_bytes = 1000000}, other = {.max_shard_bytes = 3000000};
    char gguf[1100], index[1300];
    size_t n;
    snprintf(gguf, sizeof gguf, "%s", scratch("recognised.gguf"));
    run_one(pebble(), gguf, "bf16", NULL);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char folder[1100];
        snprintf(folder, sizeof folder, "%s", scratch("recognised"));
        for (int from_gguf = 0; from_gguf < 2; from_gguf++) {
            const char *source = from_gguf ? gguf : pebble();
            run_one(source, folder, types[i], NULL);
            expect_verified(folder, source, types[i]);
            run_one(source, folder, types[i], &sharded);
            expect_same_in_every_byte(folder, source, NULL, NULL);
            expect_same_in_every_byte(folder, source, types[i], &sharded);
            assert_false(verify_as(folder, source, NULL, &other).identical);
        }
        /* the index counts among the bytes */
        snprintf(index, sizeof index, "%s/model.safetensors.index.json", folder);
        uint8_t *text = read_whole(index, &n);
        text[n - 1] = ' ';
        write_whole(index, text, n);
        free(text);
        struct tms_verify_result r = verify(folder, gguf, NULL);
        assert_int_equal(r.n_findings, 0);
        assert_false(r.identical);
    }
    expect_verified(pebble(), pebble(), "hf:bf16"); /* nothing to change */
}

/* Each changes the file; told again, or told by tamis.recipe, it gives the same file; else not. */
static void every_option_of_quantize_can_be_told_to_verify(void **state)
{
    (void)state;
    static const char *const kv[] = {"qwen2.context_length=int:99"}, *const types[] = {"ffn_up=q5_0"},
                             *const entries[] = {"ffn_down"};
    char imatrix[1100], model[1100], untied[1100], split[1100];
    struct tms_result *results;
    struct tms_error err;
    const char *bf16 = "bf16";
    const struct tms_quantize_options splitting = {.types = &bf16, .n_types = 1, .split_max_tensors = 20};
    snprintf(imatrix, sizeof imatrix, "%s", golden("imatrix/pebble.gguf"));
    snprintf(model, sizeof model, "%s", pebble());
    snprintf(untied, sizeof untied, "%s", golden("arch/qwen2_untied"));
    assert_ok(tms_convert(model, scratch("options.gguf"), &splitting, &results, NULL, NULL, &err), err);
    snprintf(split, sizeof split, "%s", results[0].path);
    tms_results_free(results, 1);
    const struct {
        const char *what, *source, *type;
        struct tms_quantize_options options;
    } cases[] = {
        {"pure", model, "q4_k_m", {.pure = true}},
        {"compat 2025", untied, "q2_k", {.rules_of_2025 = true}},
        {"leave-output-tensor", untied, "q8_0", {.leave_output_tensor = true}},
        {"output-tensor-type", untied, "q8_0", {.output_tensor_type = "q5_0"}},
        {"token-embedding-type", model, "q4_k_m", {.token_embedding_type = "q5_k"}},
        {"tensor-type", model, "q4_k_m", {.tensor_types = types, .n_tensor_types = 1}},
        {"override-kv", model, "q8_0", {.override_kv = kv, .n_override_kv = 1}},
        {"prune-layers", model, "q8_0", {.prune_layers = "1,3"}},
        {"model-name", model, "q8_0", {.model_name = "Other"}},
        {"pre", model, "q8_0", {.pre = "llama-bpe"}},
        {"imatrix", model, "q4_k_m", {.imatrix = imatrix}},
        {"include-weights", model, "q4_k_m", {.imatrix = imatrix, .include_weights = entries, .n_include_weights = 1}},
        {"exclude-weights", model, "q4_k_m", {.imatrix = imatrix, .exclude_weights = entries, .n_exclude_weights = 1}},
        {"keep-split", split, "q8_0", {.keep_split = true}},
        {"split-max-size", model, "q8_0", {.split_max_bytes = 1500000}},
        {"split-max-tensors", model, "q8_0", {.split_max_tensors = 50}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_quantize_options with = cases[i].options, only_imatrix = {.imatrix = with.imatrix};
        char name[32], plain[1100], told[1100];
        with.types = &cases[i].type;
        with.n_types = 1;
        snprintf(name, sizeof name, "option%zu.gguf", i);
        assert_ok(tms_quantize(cases[i].source, scratch(name), &with, &results, NULL, NULL, &err), err);
        snprintf(plain, sizeof plain, "%s", results[0].path);
        tms_results_free(results, 1);
        with.provenance = true;
        snprintf(name, sizeof name, "told%zu.gguf", i);
        assert_ok(tms_quantize(cases[i].source, scratch(name), &with, &results, NULL, NULL, &err), err);
        snprintf(told, sizeof told, "%s", results[0].path);
        tms_results_free(results, 1);
        expect_same_in_every_byte(plain, cases[i].source, cases[i].type, &cases[i].options);
        expect_same_in_every_byte(plain, cases[i].source, NULL, &cases[i].options);
        expect_same_in_every_byte(told, cases[i].source, NULL, &only_imatrix);
        bool taken_from_the_file = strstr(cases[i].what, "split") || strcmp(cases[i].what, "model-name") == 0;
        if (taken_from_the_file || strcmp(cases[i].what, "imatrix") == 0) continue;
        if (verify_as(plain, cases[i].source, cases[i].type, &only_imatrix).identical)
            fail_msg("%s: changed nothing", cases[i].what);
    }
}

static void types_of_the_file_itself_are_taken_where_rules_give_others(void **state)
{
    (void)state;
    char file[1100];
    const struct tms_quantize_options pure = {.pure = true};
    snprintf(file, sizeof file, "%s", scratch("pure.gguf"));
    run_one(pebble(), file, "q4_k_m", &pure);
    struct tms_verify_result r = verify(file, pebble(), NULL);
    assert_int_equal(r.n_findings, 0);
    assert_int_equal(r.n_other_types, 5);
    r = verify(file, pebble(), "q4_k_m"); /* but not if a type is asked for */
    assert_int_equal(r.n_findings, 5);
    assert_non_null(strstr(first_finding, "is q4_k of "));
}

static void one_flipped_bit_is_named_by_tensor_row_and_block(void **state)
{
    (void)state;
    char file[1100];
    snprintf(file, sizeof file, "%s", scratch("flip.gguf"));
    run_one(pebble(), file, "q8_0", NULL);
    flip(file, "blk.3.ffn_up.weight", (41 * 8 + 5) * 34 + 9); /* rows of 256: 8 blocks of 34 bytes */
    flip(file, "blk.3.ffn_up.weight", (700 * 8 + 1) * 34);
    struct tms_verify_result r = verify(file, pebble(), NULL);
    assert_int_equal(r.n_findings, 1);
    assert_int_equal(r.n_differing, 1);
    assert_false(r.identical);
    assert_string_equal(r.tensor, "blk.3.ffn_up.weight");
    assert_int_equal(r.row, 41);
    assert_int_equal(r.block, 5);
    assert_non_null(strstr(first_finding, "tensor 'blk.3.ffn_up.weight' (q8_0) row 41 block 5: "));
    assert_non_null(strstr(first_finding, "2 of the tensor's 208896 bytes"));

    snprintf(file, sizeof file, "%s", scratch("flip"));
    run_one(pebble(), file, "nf4:dq", NULL);
    flip(file, up_proj, (256 * 300 + 130) / 2);
    r = verify(file, pebble(), NULL);
    assert_int_equal(r.n_findings, 1);
    assert_string_equal(r.tensor, up_proj);
    assert_int_equal(r.row, 300);
    assert_int_equal(r.block, (256 * 300 + 130) / 64);
}

static void changed_keys_and_copied_files_are_found(void **state)
{
    (void)state;
    char file[1100], path[1300];
    snprintf(file, sizeof file, "%s", scratch("keys.gguf"));
    size_t n;
    run_one(pebble(), file, "q8_0", NULL);
    uint8_t *bytes = read_whole(file, &n);
    uint8_t *key = memmem(bytes, n, "qwen2.rope.freq_base", 20);
    assert_non_null(key);
    key[20 + 4] ^= 1; /* behind the u32 of its type */
    write_whole(file, bytes, n);
    free(bytes);
    struct tms_verify_result r = verify(file, pebble(), NULL);
    assert_int_equal(r.n_findings, 1);
    assert_int_equal(r.n_differing, 0);
    assert_non_null(strstr(first_finding, "key 'qwen2.rope.freq_base' is "));

    snprintf(file, sizeof file, "%s", scratch("side"));
    run_one(pebble(), file, "nf4", NULL);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", file);
    write_whole(path, "{}", 2);
    r = verify(file, pebble(), NULL);
    assert_int_equal(r.n_findings, 1);
    assert_non_null(strstr(first_finding, "file 'tokenizer_config.json' is not the source's"));
}

static void file_of_another_source_is_not_verified(void **state)
{
    (void)state;
    char file[1100];
    snprintf(file, sizeof file, "%s", scratch("other.gguf"));
    run_one(golden("arch/qwen2_untied"), file, "f16", NULL);
    struct tms_verify_options options = {.finding = note};
    struct tms_verify_result result;
    struct tms_error err;
    assert_ok(tms_verify(file, golden("arch/qwen3"), &options, &result, &err), err);
    assert_true(result.n_findings > 10);
    char shard[1100];
    snprintf(shard, sizeof shard, "%s/model.safetensors", pebble());
    assert_int_equal(tms_verify(shard, pebble(), &options, &result, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "is neither a GGUF file nor a folder for bitsandbytes"));
}

/* ---- where it comes from ---- */

static json_t *load(const char *path)
{
    json_error_t problem;
    json_t *json = json_load_file(path, 0, &problem);
    if (!json) fail_msg("%s: %s", path, problem.text);
    return json;
}

/* Every file that a list names has the size and the hash that it tells. */
static void expect_true_hashes(const json_t *files, const char *dir, size_t n_files)
{
    size_t i;
    json_t *file;
    assert_int_equal(json_array_size(files), n_files);
    json_array_foreach((json_t *)(uintptr_t)files, i, file)
    {
        char path[1400], hex[65];
        size_t n;
        snprintf(path, sizeof path, "%s/%s", dir, json_string_value(json_object_get(file, "name")));
        uint8_t *bytes = read_whole(path, &n);
        sha256_hex(bytes, n, hex);
        free(bytes);
        assert_int_equal(json_integer_value(json_object_get(file, "bytes")), n);
        assert_string_equal(json_string_value(json_object_get(file, "sha256")), hex);
    }
}

static void manifest_tells_true_hashes_recipe_and_errors(void **state)
{
    (void)state;
    const char *const types[] = {"q4_k_m", "nf4:dq"};
    char dir[1100], manifest[1100], folder[1300];
    struct tms_result *results;
    struct tms_error err;
    snprintf(dir, sizeof dir, "%s", scratch("told"));
    snprintf(manifest, sizeof manifest, "%s", scratch("told.json"));
    snprintf(folder, sizeof folder, "%s/pebble-nf4-dq", dir);
    const struct tms_quantize_options options = {.types = types, .n_types = 2, .pure = true, .manifest = manifest};
    assert_ok(tms_quantize(pebble(), dir, &options, &results, NULL, NULL, &err), err);
    json_t *told = load(manifest), *source = json_object_get(told, "source");
    expect_true_hashes(json_object_get(source, "files"), pebble(), 8);
    for (size_t i = 0; i < 2; i++) {
        const json_t *output = json_array_get(json_object_get(told, "outputs"), i);
        const json_t *recipe = json_object_get(output, "recipe"), *tensors = json_object_get(output, "tensors");
        assert_string_equal(json_string_value(json_object_get(recipe, "to")), results[i].type);
        assert_true(json_is_true(json_object_get(recipe, "pure")));
        assert_true(json_is_true(json_object_get(output, "read_back")));
        assert_true(json_real_value(json_object_get(output, "rms_error")) == results[i].rms_error);
        assert_int_equal(json_array_size(tensors), results[i].n_tensors);
        expect_true_hashes(json_object_get(output, "files"), i ? folder : dir, i ? 8 : 1);
    }
    json_decref(told);
    tms_results_free(results, 2);
}

static void provenance_in_the_file_is_enough_to_verify_it(void **state)
{
    (void)state;
    static const char *const overrides[] = {"tamis.test=int:7"}, *const tensor_types[] = {"ffn_down=q5_0"};
    char file[1100], plain[1100];
    const struct tms_quantize_options with = {.provenance = true,
                                              .model_name = "Name",
                                              .output_tensor_type = "q8_0",
                                              .override_kv = overrides,
                                              .n_override_kv = 1,
                                              .tensor_types = tensor_types,
                                              .n_tensor_types = 1};
    struct tms_source *s;
    struct tms_error err;
    snprintf(file, sizeof file, "%s", scratch("told.gguf"));
    snprintf(plain, sizeof plain, "%s", scratch("plain.gguf"));
    run_one(pebble(), file, "q4_k_m", &with);
    expect_verified(file, pebble(), "Q4_K_M");
    assert_ok(tms_source_open(&s, file, NULL, NULL, &err), err);
    const char *hash = tms_kv_as_string(tms_kvs_find(&s->gguf->kvs, "tamis.source.hash"));
    char hex[65], path[1200];
    size_t n;
    snprintf(path, sizeof path, "%s/model.safetensors", pebble());
    uint8_t *bytes = read_whole(path, &n);
    sha256_hex(bytes, n, hex);
    free(bytes);
    assert_memory_equal(hash, "sha256:", 7);
    assert_string_equal(hash + 7, hex);
    tms_source_close(s);

    /* another source: the hash tells, even where the bytes are the same */
    char copy[1100], command[4200];
    snprintf(copy, sizeof copy, "%s", scratch("Copy"));
    snprintf(command, sizeof command,
             "cp -r '%s' '%s' && sed -i '1s/\"format\":\"pt\"/\"format\":\"pq\"/' '%s/model.safetensors'", pebble(),
             copy, copy);
    assert_int_equal(system(command), 0);
    struct tms_verify_result r = verify(file, copy, NULL);
    assert_int_equal(r.n_findings, 1);
    assert_non_null(strstr(first_finding, "tamis.source.hash is sha256:"));

    /* requantized without: the keys tell about the source and go */
    const struct tms_quantize_options again = {.allow_requantize = true};
    run_one(file, plain, "q4_0", &again);
    assert_ok(tms_source_open(&s, plain, NULL, NULL, &err), err);
    assert_null(tms_kvs_find(&s->gguf->kvs, "tamis.recipe"));
    tms_source_close(s);
}

static void sha256_in_any_pieces_equals_the_reference(void **state)
{
    (void)state;
    enum { MOST = 300 };
    uint8_t bytes[MOST];
    uint64_t seed = 11;
    for (int i = 0; i < MOST; i++) bytes[i] = (uint8_t)next_random(&seed);
    for (int level = 0; level < 2; level++) {
        for (size_t n = 0; n <= MOST; n++) {
            char want[65], got[65];
            struct tms_sha256 hash;
            tms_sha256_begin(&hash);
            for (size_t at = 0, piece; at < n; at += piece) {
                piece = next_random(&seed) % 90;
                if (piece > n - at) piece = n - at;
                tms_sha256_add(&hash, bytes + at, piece);
            }
            tms_sha256_end(&hash, got);
            sha256_hex(bytes, n, want);
            assert_string_equal(got, want);
        }
        tms_cpu_force(TMS_CPU_SCALAR);
    }
}

/* ---- explain ---- */

static void every_type_is_explained_and_its_fields_fill_its_block(void **state)
{
    (void)state;
    struct tms_explanation e;
    const struct tms_codec *codec;
    for (size_t i = 0; (codec = tms_codec_at(i)); i++) {
        assert_true(tms_explain(codec->name, &e));
        assert_string_equal(e.name, codec->name);
        if (e.block_bytes != codec->block_bytes)
            fail_msg("%s: fields of %u bytes, block of %u", e.name, e.block_bytes, codec->block_bytes);
        assert_int_equal(e.block_elems, codec->block_elems);
    }
    assert_true(tms_explain("NF4:dq", &e));
    assert_true(fabs(e.bits_per_weight - 4.127) < 0.001);
    assert_true(tms_explain("q4_k_m", &e));
    assert_string_equal(e.name, "q4_k");
    assert_string_equal(e.file_type, "Q4_K_M");
    assert_false(tms_explain("q9", &e));
}

static void explained_errors_are_those_of_the_encoder(void **state)
{
    (void)state;
    static const char *const types[][2] = {{"q8_0", "q8_0"}, {"nf4:dq", "nf4:dq"}, {"int8", "int8"}};
    for (size_t i = 0; i < 3; i++) {
        struct tms_explain_errors e;
        struct tms_diff_info info;
        struct tms_error err;
        char out[1100];
        snprintf(out, sizeof out, "%s", scratch(i ? "explained" : "explained.gguf"));
        run_one(pebble(), out, types[i][1], NULL);
        assert_ok(tms_explain_measure(&e, types[i][0], pebble(), up_proj, &err), err);
        assert_int_equal(e.rows, 768);
        assert_int_equal(e.cols, 256);
        assert_true(e.has_type);
        assert_true(e.per_tensor > e.per_row && e.per_row >= e.per_group);
        struct tms_diff *d = diff(pebble(), out, &info);
        for (size_t k = 0; k < info.n_tensors; k++) {
            struct tms_diff_tensor t;
            tms_diff_tensor_at(d, k, &t);
            if (strcmp(t.name, up_proj) != 0) continue;
            if (fabs(t.relative_error - e.type) > 1e-9 * e.type)
                fail_msg("%s: %.12g, want %.12g", types[i][0], e.type, t.relative_error);
        }
        tms_diff_free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diff_of_folder_and_its_f32_gguf_is_zero),
        cmocka_unit_test(permuted_rows_are_not_called_equal),
        cmocka_unit_test(diff_gives_the_error_that_quantize_reported),
        cmocka_unit_test(diff_names_the_value_and_keys_that_differ),
        cmocka_unit_test(value_that_is_no_number_differs_infinitely),
        cmocka_unit_test(unknown_architecture_cannot_be_matched_with_a_folder),
        cmocka_unit_test(packed_weights_are_read_in_ranges),
        cmocka_unit_test(what_quantize_wrote_is_verified),
        cmocka_unit_test(split_outputs_are_verified_in_every_byte),
        cmocka_unit_test(bit_in_the_last_file_of_a_split_is_found),
        cmocka_unit_test(plain_and_sharded_folders_are_recognised),
        cmocka_unit_test(every_option_of_quantize_can_be_told_to_verify),
        cmocka_unit_test(types_of_the_file_itself_are_taken_where_rules_give_others),
        cmocka_unit_test(one_flipped_bit_is_named_by_tensor_row_and_block),
        cmocka_unit_test(changed_keys_and_copied_files_are_found),
        cmocka_unit_test(file_of_another_source_is_not_verified),
        cmocka_unit_test(manifest_tells_true_hashes_recipe_and_errors),
        cmocka_unit_test(provenance_in_the_file_is_enough_to_verify_it),
        cmocka_unit_test(every_type_is_explained_and_its_fields_fill_its_block),
        cmocka_unit_test(explained_errors_are_those_of_the_encoder),
        cmocka_unit_test(sha256_in_any_pieces_equals_the_reference), /* last: lowers the CPU level */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Folders for GPTQ, AWQ and compressed-tensors that tamis writes: against what llm-compressor, GPTQModel and AutoAWQ
 * wrote (tests/golden/hf), read back, verified, and moved from one to another. */
#include "support.h"

#include <jansson.h>
#include <math.h>
#include <tamis/tamis.h>

#include "file/safetensors.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "plan/spec.h"

static struct tms_error err;

static const char *const all_types[] = {
    "gptq:4:g32", "gptq:4:g64:asym", "gptq:3:g32",     "gptq:2:g64:asym:v1", "gptq:8:channel",
    "awq:g32",    "w4a16:g32",       "w3a16:g32:asym", "w8a16:channel",      "w8a8",
    "fp8",        "fp8:tensor",      "fp8:block",      "nvfp4a16",           "mxfp4a16"};
enum { N_TYPES = sizeof all_types / sizeof *all_types };

static struct tms_result quantize(const char *from, const char *to, const char *type, bool again)
{
    const struct tms_quantize_options options = {
        .types = &type, .n_types = 1, .force = true, .n_threads = 3, .allow_requantize = again};
    struct tms_result *results, result;
    assert_ok(tms_quantize(from, to, &options, &results, NULL, NULL, &err), err);
    assert_true(results[0].verified);
    result = results[0];
    tms_results_free(results, 1);
    return result;
}

static struct tms_safetensors *open_weights(const char *folder)
{
    char path[1200];
    struct tms_safetensors *st;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(tms_safetensors_open(&st, path, &err), err);
    return st;
}

static uint8_t *data_of(const struct tms_safetensors *st, const struct tms_st_tensor *t)
{
    uint8_t *bytes = calloc(t->bytes + 1, 1);
    assert_ok(tms_file_read(&st->file, bytes, t->bytes, t->offset, &err), err);
    return bytes;
}

enum compared { FORM, BYTES, BYTES_OF_CODES }; /* names, types, shapes; and bytes; or only those of what is packed */

static void expect_tensors(const char *got_path, const char *want_path, enum compared compared)
{
    struct tms_safetensors *got = open_weights(got_path), *want = open_weights(want_path);
    for (size_t i = 0; i < want->n_tensors; i++) {
        const struct tms_st_tensor *w = &want->tensors[i], *g = tms_safetensors_find(got, w->name);
        if (!g) fail_msg("%s: tensor %s is missing", want_path, w->name);
        if (compared == BYTES_OF_CODES && w->type != TMS_I32) continue;
        if (g->type != w->type || g->n_dims != w->n_dims || g->bytes != w->bytes ||
            memcmp(g->shape, w->shape, w->n_dims * sizeof *w->shape) != 0)
            fail_msg("%s: %s has another type or shape", want_path, w->name);
        uint8_t *a = data_of(got, g), *b = data_of(want, w);
        if (compared != FORM) assert_same_bytes(a, b, w->bytes, w->name);
        free(a);
        free(b);
    }
    assert_int_equal(got->n_tensors, want->n_tensors);
    tms_safetensors_close(got);
    tms_safetensors_close(want);
}

static json_t *json_of(const char *folder, const char *name)
{
    char path[1200];
    json_error_t problem;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_t *json = json_load_file(path, 0, &problem);
    if (!json) fail_msg("%s: %s", path, problem.text);
    return json;
}

static void compressed_tensors_folders_equal_llm_compressors(void **state)
{
    (void)state;
    static const struct {
        const char *type, *folder;
        bool shared;
    } cases[] = {{"w4a16:asym", "qwen2-w4a16-g128-asym", false},
                 {"nvfp4a16", "qwen2-nvfp4a16", false},
                 {"w8a8", "qwen2-w8a8-int", true},
                 {"fp8", "qwen2-fp8-dynamic", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[128], want[1100];
        snprintf(name, sizeof name, "%shf/ct/folders/%s", cases[i].shared ? "golden/" : "", cases[i].folder);
        const char *path = cases[i].shared ? shared_path(name) : golden(name), *out = scratch("ct");
        if (!path) continue;
        snprintf(want, sizeof want, "%s", path);
        quantize(golden("hf/bnb/folders/qwen2"), out, cases[i].type, false);
        expect_tensors(out, want, BYTES);
        json_t *a = json_of(out, "config.json"), *b = json_of(want, "config.json");
        assert_true(json_equal(a, b));
        json_decref(a);
        json_decref(b);
    }
}

/* Codes are chosen in another way there: everything else is the same, but for "meta", which tells who wrote it. */
static void gptq_folders_have_the_form_of_gptqmodels(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"gptq:4:g32", "hf/gptq/folders/qwen2-tied-w4-g32-desc"},
                                           {"gptq:4:g64:asym", "hf/gptq/folders/qwen2-tied-w4-g64-asym-v2"}};
    for (size_t i = 0; i < 2; i++) {
        const char *out = scratch("gptq");
        const char *key;
        json_t *value;
        quantize(golden("hf/bnb/folders/qwen2-tied"), out, cases[i][0], false);
        expect_tensors(out, golden(cases[i][1]), FORM);
        json_t *own = json_of(out, "quantize_config.json"), *config = json_of(out, "config.json"),
               *want = json_of(golden(cases[i][1]), "quantize_config.json");
        assert_true(json_equal(own, json_object_get(config, "quantization_config")));
        json_object_del(want, "meta");
        json_object_set_new(want, "desc_act", json_false()); /* plain rounding has no order */
        json_object_foreach(want, key, value) if (!json_equal(json_object_get(own, key), value))
            fail_msg("quantize_config.json: '%s' differs", key);
        assert_int_equal(json_object_size(own), json_object_size(want) + 1);
        json_decref(own);
        json_decref(config);
        json_decref(want);
    }
}

static void awq_folders_are_float16_throughout(void **state)
{
    (void)state;
    const char *out = scratch("awq");
    quantize(golden("hf/bnb/folders/qwen2"), out, "awq:g32", false);
    struct tms_safetensors *st = open_weights(out);
    for (size_t i = 0; i < st->n_tensors; i++)
        assert_true(st->tensors[i].type == TMS_F16 || st->tensors[i].type == TMS_I32);
    const struct tms_st_tensor *t = tms_safetensors_find(st, "model.layers.0.mlp.down_proj.qweight");
    assert_int_equal(t->shape[0], 256);
    assert_int_equal(t->shape[1], 16);
    tms_safetensors_close(st);
    json_t *config = json_of(out, "config.json"), *want = json_of(golden("hf/awq/quantized"), "config.json");
    assert_string_equal(json_string_value(json_object_get(config, "dtype")), "float16");
    assert_true(
        json_equal(json_object_get(config, "quantization_config"), json_object_get(want, "quantization_config")));
    json_decref(config);
    json_decref(want);
}

static float *read_all(const struct tms_source *s, const struct tms_tensor *t)
{
    float *x = calloc(t->n_weights + 1, sizeof *x);
    void *raw = malloc(tms_source_raw_bytes(t, t->n_weights) + 1);
    assert_ok(tms_source_read(s, t, 0, t->n_weights, raw, x, &err), err);
    free(raw);
    return x;
}

static double squared_distance(const char *a_path, const char *b_path)
{
    struct tms_source *a, *b;
    double sum = 0;
    assert_ok(tms_source_open(&a, a_path, NULL, NULL, &err), err);
    assert_ok(tms_source_open(&b, b_path, NULL, NULL, &err), err);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct tms_tensor *t = &a->tensors[i], *u = tms_source_find(b, t->name);
        if (t->is_scale) continue;
        assert_non_null(u);
        assert_int_equal(t->n_weights, u->n_weights);
        float *x = read_all(a, t), *y = read_all(b, u);
        for (uint64_t k = 0; k < t->n_weights; k++) sum += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
        free(x);
        free(y);
    }
    tms_source_close(a);
    tms_source_close(b);
    return sum;
}

/* The error that quantize reports is that of the weights a reader gets, and the folder is of the type that was asked.
 */
static void what_is_written_reads_back_as_it_was_measured(void **state)
{
    (void)state;
    const char *from = golden("hf/bnb/folders/qwen2");
    for (size_t i = 0; i < N_TYPES; i++) {
        char out[1200];
        snprintf(out, sizeof out, "%s", scratch("round"));
        struct tms_result r = quantize(from, out, all_types[i], false);
        double n = (double)r.n_parameters, rms = sqrt(squared_distance(from, out) / n);
        if (fabs(rms - r.rms_error) > 1e-6 * r.rms_error)
            fail_msg("%s: rms %.9g, reported %.9g", all_types[i], rms, r.rms_error);
        struct tms_source *s;
        assert_ok(tms_source_open(&s, out, NULL, NULL, &err), err);
        const struct tms_tensor *t = tms_source_find(s, "model.layers.1.mlp.down_proj.weight");
        assert_string_equal(t->packed->grid->type, all_types[i]);
        tms_source_close(s);
    }
}

static void all_types_are_verified_and_a_changed_byte_is_found(void **state)
{
    (void)state;
    const char *from = golden("hf/bnb/folders/qwen2");
    for (size_t i = 0; i < N_TYPES; i++) {
        char out[1100], path[1200];
        const struct tms_verify_options options = {.recipe = {.n_threads = 2}};
        struct tms_verify_result result;
        size_t n;
        snprintf(out, sizeof out, "%s", scratch("verify"));
        quantize(from, out, all_types[i], false);
        assert_ok(tms_verify(out, from, &options, &result, &err), err);
        if (result.n_findings || !result.identical) fail_msg("%s: not verified", all_types[i]);
        snprintf(path, sizeof path, "%s/model.safetensors", out);
        uint8_t *file = read_whole(path, &n);
        struct tms_source *s;
        assert_ok(tms_source_open(&s, out, NULL, NULL, &err), err);
        uint64_t at = tms_source_find(s, "model.layers.1.self_attn.o_proj.weight")->offset + 77;
        tms_source_close(s);
        file[at] ^= 16;
        write_whole(path, file, n);
        free(file);
        assert_ok(tms_verify(out, from, &options, &result, &err), err);
        assert_int_equal(result.n_findings, 1);
    }
}

static void expect_same_files(const char *a, const char *b, const char *what)
{
    char command[2400];
    snprintf(command, sizeof command, "diff -r '%s' '%s' >&2", a, b);
    if (system(command) != 0) fail_msg("%s: the folders differ", what);
}

static void threads_do_not_change_a_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        char one[1100], many[1100];
        const struct tms_quantize_options options = {
            .types = &all_types[i], .n_types = 1, .n_threads = 1, .force = true};
        struct tms_result *results;
        snprintf(one, sizeof one, "%s", scratch("one"));
        snprintf(many, sizeof many, "%s", scratch("many"));
        assert_ok(tms_quantize(golden("arch/qwen3"), one, &options, &results, NULL, NULL, &err), err);
        tms_results_free(results, 1);
        quantize(golden("arch/qwen3"), many, all_types[i], false);
        expect_same_files(one, many, all_types[i]);
    }
}

static void folder_from_gguf_is_that_of_the_plain_folder_between(void **state)
{
    (void)state;
    static const char *const models[] = {"llama31", "qwen2_tied", "mixtral", "qwen2_moe"}; /* llama31 permutes */
    static const char *const types[] = {"gptq:4:g32", "awq:g32", "w4a16:g32:asym", "fp8:block", "nvfp4a16"};
    for (size_t m = 0; m < 4; m++) {
        char name[64], gguf[1100], between[1100];
        snprintf(name, sizeof name, "arch/%s", models[m]);
        snprintf(gguf, sizeof gguf, "%s", scratch("from.gguf"));
        snprintf(between, sizeof between, "%s", scratch("between"));
        quantize(golden(name), gguf, "q8_0", false);
        quantize(gguf, between, "hf:bf16", false);
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            char straight[1100], by_way[1100];
            snprintf(straight, sizeof straight, "%s", scratch("straight"));
            snprintf(by_way, sizeof by_way, "%s", scratch("by-way"));
            quantize(gguf, straight, types[i], true);
            quantize(between, by_way, types[i], false);
            expect_same_files(straight, by_way, types[i]);
        }
    }
}

/* ---- moves ------------------------------------------------------------------------------------------------------- */

static void codes_move_between_formats_without_loss(void **state)
{
    (void)state;
    static const char *const ways[][3] = {
        {"gptq:4:g32", "w4a16:g32", "gptq:4:g32"},
        {"gptq:4:g32:asym", "awq:g32", "gptq:4:g32:asym"},
        {"awq:g32", "w4a16:g32:asym", "awq:g32"},
        {"gptq:8:channel", "w8a16:channel", "gptq:8:channel"},
        {"gptq:3:g64:asym", "w3a16:g64:asym", "gptq:3:g64:asym"},
        {"gptq:2:g32:asym:v1", "gptq:2:g32:asym", "gptq:2:g32:asym:v1"},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char a[1100], b[1100], c[1100];
        snprintf(a, sizeof a, "%s", scratch("a"));
        snprintf(b, sizeof b, "%s", scratch("b"));
        snprintf(c, sizeof c, "%s", scratch("c"));
        quantize(golden("hf/bnb/folders/qwen2"), a, ways[i][0], false);
        quantize(a, b, ways[i][1], false);
        quantize(b, c, ways[i][2], false);
        assert_true(squared_distance(a, b) == 0 || strstr(ways[i][1], "awq")); /* which makes f16 of the rest */
        expect_tensors(c, a, strstr(ways[i][1], "awq") ? BYTES_OF_CODES : BYTES);
    }
}

static void gptqs_own_codes_move_with_their_order(void **state)
{
    (void)state;
    const char *from = golden("hf/gptq/folders/qwen2-tied-w4-g32-desc");
    char v2[1100], back[1100];
    snprintf(v2, sizeof v2, "%s", scratch("v2"));
    snprintf(back, sizeof back, "%s", scratch("back"));
    quantize(from, v2, "gptq:4:g32:v2", false);
    quantize(v2, back, "gptq:4:g32", false);
    expect_tensors(back, from, BYTES);
    json_t *config = json_of(back, "quantize_config.json");
    assert_true(json_is_true(json_object_get(config, "desc_act")));
    json_decref(config);
    assert_true(squared_distance(from, v2) == 0);
}

static void symmetric_gptq_becomes_q4_0_and_q8_0_without_loss(void **state)
{
    (void)state;
    /* in GGUF heads are permuted, and Mixtral's experts lie in stacks */
    static const char *const ways[][3] = {{"gptq:4:g32", "q4_0", "arch/llama31"},
                                          {"gptq:8:g32", "q8_0", "arch/llama31"},
                                          {"gptq:4:g32", "q4_0", "arch/mixtral"},
                                          {"gptq:4:g64:asym", "q4_1", "arch/llama31"}};
    for (size_t i = 0; i < 4; i++) {
        const char *types[] = {ways[i][1]};
        const struct tms_quantize_options options = {.types = types, .n_types = 1, .force = true, .pure = true};
        char folder[1100], gguf[1100], back[1100];
        struct tms_result *results;
        snprintf(folder, sizeof folder, "%s", scratch("folder"));
        snprintf(gguf, sizeof gguf, "%s", scratch("moved.gguf"));
        snprintf(back, sizeof back, "%s", scratch("back"));
        quantize(golden(ways[i][2]), folder, ways[i][0], false);
        assert_ok(tms_quantize(folder, gguf, &options, &results, NULL, NULL, &err), err);
        tms_results_free(results, 1);
        quantize(gguf, back, "hf:f32", false);
        struct tms_source *a, *b;
        assert_ok(tms_source_open(&a, folder, NULL, NULL, &err), err);
        assert_ok(tms_source_open(&b, back, NULL, NULL, &err), err);
        for (size_t k = 0; k < a->n_tensors; k++) {
            const struct tms_tensor *t = &a->tensors[k];
            if (!t->packed) continue;
            float *x = read_all(a, t), *y = read_all(b, tms_source_find(b, t->name));
            double error = 0, norm = 0;
            for (uint64_t j = 0; j < t->n_weights; j++) {
                error += ((double)x[j] - y[j]) * ((double)x[j] - y[j]);
                norm += (double)x[j] * x[j];
            }
            if (i < 3) assert_true(error == 0);
            assert_true(sqrt(error) <= 1e-3 * sqrt(norm)); /* Q4_1: its minimum is one f16 */
            free(x);
            free(y);
        }
        tms_source_close(a);
        tms_source_close(b);
    }
}

static void another_grid_needs_leave(void **state)
{
    (void)state;
    static const char *const types[] = {"w4a16:g64", "gptq:8:g32", "w4a16:g32:asym", "nf4", "q4_k_m"};
    char folder[1100];
    snprintf(folder, sizeof folder, "%s", scratch("folder"));
    quantize(golden("arch/qwen3"), folder, "gptq:4:g32:asym", false);
    for (size_t i = 0; i < 5; i++) {
        const struct tms_quantize_options options = {.types = &types[i], .n_types = 1};
        struct tms_result *results;
        tms_status status = tms_quantize(folder, scratch("refused"), &options, &results, NULL, NULL, &err);
        if (i == 2) { /* it has the grid */
            assert_ok(status, err);
            tms_results_free(results, 1);
            continue;
        }
        assert_int_equal(status, TMS_EINPUT);
        if (!strstr(err.message, "quantized already (gptq:4:g32:asym)")) fail_msg("%s", err.message);
        char name[16];
        snprintf(name, sizeof name, "again-%zu", i);
        quantize(folder, scratch(name), types[i], true);
    }
}

/* ---- what does not fit ------------------------------------------------------------------------------------------- */

/* A folder with a layer that fits, one whose rows are too short or long for groups of 32, and a router. */
static const char *odd_folder(void)
{
    static char dir[1024];
    static const char config[] = "{\"model_type\":\"strange\",\"torch_dtype\":\"float32\"}";
    struct tms_st_plan_tensor plan[] = {
        {.name = "model.layers.0.mlp.experts.0.up_proj.weight", .type = TMS_F32, .n_dims = 2, .shape = {32, 64}},
        {.name = "model.layers.0.mlp.experts.1.up_proj.weight", .type = TMS_F32, .n_dims = 2, .shape = {32, 50}},
        {.name = "model.layers.0.mlp.gate.weight", .type = TMS_F32, .n_dims = 2, .shape = {2, 64}}};
    struct tms_buf file = {0};
    uint64_t size, seed = 9;
    char path[1100];
    snprintf(dir, sizeof dir, "%s", scratch("odd"));
    snprintf(path, sizeof path, "mkdir -p '%s'", dir);
    assert_int_equal(system(path), 0);
    assert_ok(tms_st_layout(plan, 3, 0, &file, &size, &err), err);
    while (file.n < size) {
        float x = random_normal(&seed);
        tms_buf_put(&file, &x, sizeof x);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_whole(path, file.data, file.n);
    tms_buf_free(&file);
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_whole(path, config, sizeof config - 1);
    return dir;
}

static void layers_that_do_not_fit_stay_and_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *type, *list;
    } cases[] = {
        {"w4a16:g32",
         "{\"ignore\":[\"lm_head\",\"model.layers.0.mlp.experts.1.up_proj\",\"model.layers.0.mlp.gate\"]}"},
        {"awq:g32",
         "{\"modules_to_not_convert\":[\"model.layers.0.mlp.experts.1.up_proj\",\"model.layers.0.mlp.gate\"]}"},
        {"gptq:4:g32", "{\"dynamic\":{\"-:^model\\\\.layers\\\\.0\\\\.mlp\\\\.experts\\\\.1\\\\.up_proj$\":{},"
                       "\"-:^model\\\\.layers\\\\.0\\\\.mlp\\\\.gate$\":{}}}"}};
    for (size_t i = 0; i < 3; i++) {
        const char *out = scratch("kept"), *key;
        json_error_t problem;
        json_t *value;
        struct tms_result r = quantize(odd_folder(), out, cases[i].type, false);
        assert_int_equal(r.n_quantized, 1);
        assert_int_equal(r.n_fallbacks, 1);
        json_t *config = json_of(out, "config.json"), *q = json_object_get(config, "quantization_config"),
               *want = json_loads(cases[i].list, 0, &problem);
        assert_non_null(want);
        json_object_foreach(want, key, value) if (!json_equal(json_object_get(q, key), value))
            fail_msg("%s: '%s' differs", cases[i].type, key);
        json_decref(config);
        json_decref(want);
    }
}

struct lines {
    size_t n;
    char text[16][600];
};

static void keep_line(void *ctx, const char *line)
{
    struct lines *lines = ctx;
    if (lines->n < 16) snprintf(lines->text[lines->n], sizeof lines->text[0], "%s", line);
    lines->n++;
}

/* Routers and gates of shared experts stay, and the readers are told; layers that are not loaded stay too. */
static void experts_are_quantized_and_routers_are_not(void **state)
{
    (void)state;
    static const struct {
        const char *model, *type, *tensor;
        const char *grid; /* NULL: of `stored` */
        enum tms_type stored;
    } want[] = {
        {"qwen2_moe", "w4a16:g16", "model.layers.1.mlp.experts.3.down_proj.weight", "w4a16:g16", TMS_I32},
        {"qwen2_moe", "w4a16:g16", "model.layers.1.mlp.shared_expert.up_proj.weight", "w4a16:g16", TMS_I32},
        {"qwen2_moe", "w4a16:g16", "model.layers.1.mlp.shared_expert_gate.weight", NULL, TMS_BF16},
        {"qwen2_moe", "w4a16:g16", "model.layers.1.mlp.gate.weight", NULL, TMS_BF16},
        {"deepseek_v3", "awq:g32", "model.layers.1.mlp.experts.3.down_proj.weight", NULL, TMS_F16},
        {"deepseek_v3", "awq:g32", "model.layers.1.mlp.gate.e_score_correction_bias", NULL, TMS_F32},
        {"deepseek_v3", "fp8", "model.layers.1.mlp.experts.3.down_proj.weight", "fp8", TMS_F8_E4M3},
        {"deepseek_v3", "fp8", "model.layers.1.self_attn.kv_b_proj.weight", "fp8", TMS_F8_E4M3},
        {"deepseek_v3", "fp8", "model.layers.3.mlp.experts.3.down_proj.weight", NULL, TMS_BF16},
        {"mixtral", "gptq:4:g32", "model.layers.1.block_sparse_moe.experts.5.w2.weight", "gptq:4:g32", TMS_I32},
        {"mixtral", "gptq:4:g32", "model.layers.1.block_sparse_moe.gate.weight", NULL, TMS_BF16},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct tms_source *s;
        struct lines lines = {0};
        char from[64], out[1100];
        snprintf(from, sizeof from, "arch/%s", want[i].model);
        snprintf(out, sizeof out, "%s", scratch("mixture"));
        quantize(golden(from), out, want[i].type, false);
        assert_ok(tms_source_open(&s, out, NULL, NULL, &err), err);
        const struct tms_tensor *t = tms_source_find(s, want[i].tensor);
        if (!t || t->type != want[i].stored || (t->packed != NULL) != (want[i].grid != NULL) ||
            (t->packed && strcmp(t->packed->grid->type, want[i].grid) != 0))
            fail_msg("%s: %s", want[i].type, want[i].tensor);
        tms_source_close(s);
        size_t n;
        assert_ok(tms_check_reader(out, "transformers", keep_line, &lines, &n, &err), err);
        for (size_t k = 0; k < lines.n; k++)
            if (strstr(lines.text[k], "does not name it")) fail_msg("%s", lines.text[k]);
    }
}

/* DeepSeek's kv_b is two tensors in GGUF, of different types perhaps. */
static void halves_of_a_layer_are_refused(void **state)
{
    (void)state;
    char gguf[1100];
    const char *type = "w4a16:g32";
    const struct tms_quantize_options options = {.types = &type, .n_types = 1};
    struct tms_result *results;
    snprintf(gguf, sizeof gguf, "%s", scratch("halves.gguf"));
    quantize(golden("arch/deepseek_v2"), gguf, "bf16", false);
    assert_int_equal(tms_quantize(gguf, scratch("no"), &options, &results, NULL, NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "_b.weight' is half of 'model.layers.0.self_attn.kv_b_proj.weight'"));
}

/* ---- check --for ------------------------------------------------------------------------------------------------- */

static void expect_lines(const char *folder, const char *reader, const char *want, size_t n_want)
{
    struct lines lines = {0};
    size_t n = 99;
    assert_ok(tms_check_reader(folder, reader, keep_line, &lines, &n, &err), err);
    assert_int_equal(n, lines.n);
    if (n != n_want || (n && !strstr(lines.text[0], want)))
        fail_msg("%s: %zu lines, expected %zu with '%s'; the first is '%s'", reader, n, n_want, want, lines.text[0]);
}

static void readers_rules_hold_for_what_is_written_for_them(void **state)
{
    (void)state;
    static const struct {
        const char *type, *readers[3];
    } cases[] = {{"gptq:4:g32", {"vllm", "transformers", "gptqmodel"}},
                 {"gptq:4:g32:asym", {"vllm", "transformers", "gptqmodel"}},
                 {"awq:g32", {"vllm", "transformers", "autoawq"}},
                 {"w4a16:g32", {"vllm", "transformers"}},
                 {"w8a8", {"vllm", "transformers"}},
                 {"fp8", {"vllm", "transformers"}},
                 {"nvfp4a16", {"vllm", "transformers"}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[1100];
        snprintf(out, sizeof out, "%s", scratch("for"));
        quantize(golden("hf/bnb/folders/qwen2"), out, cases[i].type, false);
        for (size_t k = 0; k < 3 && cases[i].readers[k]; k++) expect_lines(out, cases[i].readers[k], "", 0);
    }
    for (size_t i = 0; i < 2; i++) {
        const char *const folders[] = {"hf/gptq/folders/qwen2-tied-w4-g32-desc", "hf/awq/quantized"};
        expect_lines(golden(folders[i]), "vllm", "", 0);
        expect_lines(golden(folders[i]), "transformers", "", 0);
    }
}

static void rules_that_do_not_hold_are_named(void **state)
{
    (void)state;
    char out[1100], command[3000];
    snprintf(out, sizeof out, "%s", scratch("broken"));
    quantize(golden("hf/bnb/folders/qwen2"), out, "gptq:4:g32", false);
    expect_lines(out, "autoawq", "quant_method gptq is not read", 1);
    snprintf(command, sizeof command, "sed -i '/\"desc_act\"/d' '%s/config.json'", out);
    assert_int_equal(system(command), 0);
    expect_lines(out, "vllm", "the config lacks 'desc_act'", 1);
    quantize(golden("hf/bnb/folders/qwen2"), out, "w4a16:g32:asym", false);
    expect_lines(out, "gptqmodel", "quant_method compressed-tensors is not read", 1);
    expect_lines(out, "transformers", "expects unpacked", 14);
    snprintf(command, sizeof command, "sed -i 's/\"lm_head\"/\"head\"/' '%s/config.json'", out);
    assert_int_equal(system(command), 0);
    expect_lines(out, "vllm", "'lm_head' is not quantized, and 'ignore' does not name it", 1);
    /* 2 bits, and zero points of 0 in v1 */
    quantize(golden("hf/bnb/folders/qwen2"), out, "gptq:2:g32:asym:v1", false);
    expect_lines(out, "gptqmodel", "", 0);
    struct lines lines = {0};
    size_t n;
    assert_ok(tms_check_reader(out, "vllm", keep_line, &lines, &n, &err), err);
    assert_true(n > 0 && strstr(lines.text[0], "zero points of 0"));
    /* rows that groups do not divide: GPTQModel reads them, vLLM does not */
    quantize(golden("hf/bnb/folders/qwen2"), out, "gptq:4:g96", false);
    expect_lines(out, "vllm", "groups of 96 do not divide its 256 inputs", 14);
    expect_lines(out, "gptqmodel", "", 0);
    expect_lines(golden("hf/bnb/folders/qwen2"), "gptqmodel", "is not quantized", 1);
    expect_lines(golden("hf/bnb/folders/qwen2-nf4"), "autoawq", "quant_method bitsandbytes is not read", 1);
    assert_int_equal(tms_check_reader(out, "exllama", NULL, NULL, &n, &err), TMS_EUSAGE);
}

static void layers_that_are_one_to_vllm_must_be_alike(void **state)
{
    (void)state;
    char a[1100], path[1200];
    size_t n;
    snprintf(a, sizeof a, "%s", scratch("a"));
    quantize(golden("hf/bnb/folders/qwen2"), a, "nvfp4a16", false);
    snprintf(path, sizeof path, "%s/model.safetensors", a);
    uint8_t *file = read_whole(path, &n);
    struct tms_safetensors *st = open_weights(a);
    float global = 7;
    memcpy(file + tms_safetensors_find(st, "model.layers.1.self_attn.v_proj.weight_global_scale")->offset, &global, 4);
    tms_safetensors_close(st);
    write_whole(path, file, n);
    free(file);
    expect_lines(a, "vllm", "have different weight_global_scale", 1);
    expect_lines(a, "transformers", "", 0);
}

static void types_are_read_in_any_spelling(void **state)
{
    (void)state;
    static const char *const spellings[][2] = {{"gptq", "gptq:4:g128"},
                                               {"GPTQ:b4:G128", "gptq:4:g128"},
                                               {"gptq:asym", "gptq:4:g128:asym"},
                                               {"gptq:v2", "gptq:4:g128:v2"},
                                               {"gptq:asym:v1", "gptq:4:g128:asym:v1"},
                                               {"gptq:channel:8", "gptq:8:channel"},
                                               {"awq", "awq:g128"},
                                               {"W4A16", "w4a16:g128"},
                                               {"w8a16:channel", "w8a16:channel"},
                                               {"w4a16:asym:g64", "w4a16:g64:asym"},
                                               {"w8a8", "w8a8"},
                                               {"fp8:channel", "fp8"},
                                               {"FP8:block", "fp8:block"},
                                               {"mxfp4", "mxfp4a16"},
                                               {"nvfp4a16", "nvfp4a16"}};
    static const char *const wrong[] = {"gptq:5",    "gptq:g33", "awq:asym", "awq:4",     "w4a16:v1", "w9a16",
                                        "w8a8:g128", "fp8:row",  "gptq:",    "mxfp4:g16", "gptq:g0"};
    struct tms_spec spec;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        assert_ok(tms_spec_parse(&spec, spellings[i][0], &err), err);
        assert_string_equal(spec.name, spellings[i][1]);
        assert_int_equal(spec.dialect, TMS_DIALECT_GRID);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (tms_spec_parse(&spec, wrong[i], &err) != TMS_EUSAGE) fail_msg("%s is taken", wrong[i]);
    assert_ok(tms_spec_parse(&spec, "nvfp4", &err), err); /* GGUF's */
    assert_int_equal(spec.dialect, TMS_DIALECT_GGUF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compressed_tensors_folders_equal_llm_compressors),
        cmocka_unit_test(gptq_folders_have_the_form_of_gptqmodels),
        cmocka_unit_test(awq_folders_are_float16_throughout),
        cmocka_unit_test(what_is_written_reads_back_as_it_was_measured),
        cmocka_unit_test(all_types_are_verified_and_a_changed_byte_is_found),
        cmocka_unit_test(threads_do_not_change_a_byte),
        cmocka_unit_test(folder_from_gguf_is_that_of_the_plain_folder_between),
        cmocka_unit_test(codes_move_between_formats_without_loss),
        cmocka_unit_test(gptqs_own_codes_move_with_their_order),
        cmocka_unit_test(symmetric_gptq_becomes_q4_0_and_q8_0_without_loss),
        cmocka_unit_test(another_grid_needs_leave),
        cmocka_unit_test(layers_that_do_not_fit_stay_and_are_named),
        cmocka_unit_test(experts_are_quantized_and_routers_are_not),
        cmocka_unit_test(halves_of_a_layer_are_refused),
        cmocka_unit_test(readers_rules_hold_for_what_is_written_for_them),
        cmocka_unit_test(rules_that_do_not_hold_are_named),
        cmocka_unit_test(layers_that_are_one_to_vllm_must_be_alike),
        cmocka_unit_test(types_are_read_in_any_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

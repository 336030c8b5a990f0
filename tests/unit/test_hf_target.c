/* Plain Hugging Face folders: back from GGUF, and in another type of 16 or 32 bits. What transformers makes of them is
 * compared in tests/interop/hf_back.py. */
#include "support.h"

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>
#include <tamis/tamis.h>
#include <unistd.h>

#include "base/json_edit.h"
#include "base/numbers.h"
#include "model/metadata.h"
#include "model/restore.h"
#include "model/source.h"
#include "model/tokenizer.h"

/* The folders that convert, with the type that their weights have. */
static const struct {
    const char *name, *type;
} folders[] = {{"llama31", "bf16"},       {"llama2", "f16"},        {"llama_bias", "bf16"},    {"mistral", "bf16"},
               {"qwen2_tied", "bf16"},    {"qwen2_untied", "bf16"}, {"qwen2_sharded", "bf16"}, {"qwen3", "f32"},
               {"qwen3_yarn", "bf16"},    {"mixtral", "bf16"},      {"qwen2_moe", "bf16"},     {"qwen3_moe", "bf16"},
               {"gemma", "bf16"},         {"gemma2", "bf16"},       {"gemma3_text", "bf16"},   {"phi3", "bf16"},
               {"phi3_longrope", "bf16"}, {"deepseek_v2", "bf16"},  {"deepseek_v3", "bf16"}};
enum { N_FOLDERS = sizeof folders / sizeof *folders };

static const char *arch_dir(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "arch/%s", name);
    return golden(path);
}

static tms_status try_quantize(const char *from, const char *to, const char *type,
                               const struct tms_quantize_options *more, struct tms_error *err)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results = NULL;
    options.types = &type;
    options.n_types = 1;
    options.force = true;
    tms_status status = tms_quantize(from, to, &options, &results, NULL, NULL, err);
    if (status == TMS_OK && !options.dry_run) assert_true(results[0].verified);
    if (status == TMS_OK) tms_results_free(results, 1);
    return status;
}

static void quantize(const char *from, const char *to, const char *type, const struct tms_quantize_options *more)
{
    struct tms_error err;
    assert_ok(try_quantize(from, to, type, more, &err), err);
}

/* Both ways with the same name, so that whole files can be compared. */
static void convert(const char *from, const char *to, const char *type)
{
    struct tms_quantize_options options = {.types = &type, .n_types = 1, .model_name = "the same"};
    struct tms_result *results;
    struct tms_error err;
    assert_ok(tms_convert(from, to, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
}

static struct tms_source *open_source(const char *path)
{
    struct tms_source *s;
    struct tms_error err;
    assert_ok(tms_source_open(&s, path, NULL, NULL, &err), err);
    return s;
}

static uint8_t *bytes_of(const struct tms_source *s, const struct tms_tensor *t)
{
    struct tms_error err;
    uint8_t *bytes = calloc(t->bytes + 1, 1);
    assert_ok(tms_file_read(s->files[t->file], bytes, t->bytes, t->offset, &err), err);
    return bytes;
}

static float *values_of(const struct tms_source *s, const struct tms_tensor *t)
{
    struct tms_error err;
    void *raw = malloc(t->bytes + 1);
    float *x = calloc(t->n_elems + 1, sizeof *x);
    assert_ok(tms_source_read(s, t, 0, t->n_elems, raw, x, &err), err);
    free(raw);
    return x;
}

static void expect_same_tensors(const char *got_path, const char *want_path)
{
    struct tms_source *got = open_source(got_path), *want = open_source(want_path);
    size_t n = 0;
    for (size_t i = 0; i < want->n_tensors; i++) {
        const struct tms_tensor *w = &want->tensors[i], *g = tms_source_find(got, w->name);
        if (want->config.tied && strcmp(w->name, "lm_head.weight") == 0) continue;
        if (want->arch && tms_arch_is_spare(want->arch, &want->config, w->name)) continue;
        if (!g) fail_msg("%s: tensor %s is missing", want_path, w->name);
        n++;
        assert_int_equal(g->type, w->type);
        assert_int_equal(g->n_dims, w->n_dims);
        for (uint32_t d = 0; d < w->n_dims; d++) assert_int_equal(g->shape[d], w->shape[d]);
        uint8_t *a = bytes_of(got, g), *b = bytes_of(want, w);
        assert_same_bytes(a, b, w->bytes, w->name);
        free(a);
        free(b);
    }
    assert_int_equal(got->n_tensors, n);
    tms_source_close(got);
    tms_source_close(want);
}

static json_t *json_in(const char *dir, const char *name)
{
    char path[1200];
    json_error_t problem;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    json_t *json = json_load_file(path, 0, &problem);
    if (!json) fail_msg("%s: %s", path, problem.text);
    return json;
}

/* Folder -> GGUF -> folder. Returns the last folder; *gguf the file. */
static const char *there_and_back(size_t i, const char **gguf)
{
    char type[16];
    const char *out = scratch("back");
    *gguf = scratch("there.gguf");
    snprintf(type, sizeof type, "hf:%s", folders[i].type);
    convert(arch_dir(folders[i].name), *gguf, folders[i].type);
    quantize(*gguf, out, type, NULL);
    return out;
}

static void folder_back_from_gguf_has_the_tensors_of_the_source(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FOLDERS; i++) {
        const char *gguf;
        expect_same_tensors(there_and_back(i, &gguf), arch_dir(folders[i].name));
    }
}

static void folder_back_from_gguf_converts_to_the_same_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FOLDERS; i++) {
        const char *gguf, *again = scratch("again.gguf"), *out = there_and_back(i, &gguf);
        size_t n, m;
        convert(out, again, folders[i].type);
        uint8_t *a = read_whole(again, &n), *b = read_whole(gguf, &m);
        assert_same_bytes(a, b, n < m ? n : m, folders[i].name); /* all keys, tokenizer included, and tensors */
        assert_int_equal(n, m);
        free(a);
        free(b);
    }
}

/* What describes the model, in the form of published folders. */
static void config_back_from_gguf_says_what_the_source_said(void **state)
{
    (void)state;
    static const char *const keys[] = {"architectures",
                                       "attention_bias",
                                       "eos_token_id",
                                       "head_dim",
                                       "hidden_act",
                                       "hidden_size",
                                       "intermediate_size",
                                       "max_position_embeddings",
                                       "mlp_bias",
                                       "model_type",
                                       "num_attention_heads",
                                       "num_hidden_layers",
                                       "num_key_value_heads",
                                       "rms_norm_eps",
                                       "rope_scaling",
                                       "rope_theta",
                                       "attn_logit_softcapping",
                                       "final_logit_softcapping",
                                       "first_k_dense_replace",
                                       "hidden_activation",
                                       "kv_lora_rank",
                                       "moe_intermediate_size",
                                       "n_group",
                                       "n_routed_experts",
                                       "n_shared_experts",
                                       "norm_topk_prob",
                                       "num_experts_per_tok",
                                       "original_max_position_embeddings",
                                       "q_lora_rank",
                                       "qk_nope_head_dim",
                                       "qk_rope_head_dim",
                                       "query_pre_attn_scalar",
                                       "rope_local_base_freq",
                                       "routed_scaling_factor",
                                       "scoring_func",
                                       "shared_expert_intermediate_size",
                                       "topk_group",
                                       "topk_method",
                                       "v_head_dim",
                                       "sliding_window",
                                       "tie_word_embeddings",
                                       "torch_dtype",
                                       "vocab_size"};
    for (size_t i = 0; i < N_FOLDERS; i++) {
        const char *gguf, *out = there_and_back(i, &gguf);
        json_t *got = json_in(out, "config.json"), *want = json_in(arch_dir(folders[i].name), "config.json");
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const json_t *g = json_object_get(got, keys[k]), *w = json_object_get(want, keys[k]);
            if (!w || (!g && json_is_false(w))) continue; /* other spelling, or a default */
            if (strcmp(keys[k], "sliding_window") == 0 && (json_is_null(w) || !g)) continue; /* of no use */
            /* lists of factors come back with their shortest spellings; test_convert.c compares the numbers */
            if (strcmp(keys[k], "rope_scaling") == 0 && json_object_get(w, "long_factor")) continue;
            if (!g || !json_equal(g, w)) fail_msg("%s: %s differs", folders[i].name, keys[k]);
        }
        assert_string_equal(json_string_value(json_array_get(json_object_get(got, "architectures"), 0)),
                            json_string_value(json_array_get(json_object_get(want, "architectures"), 0)));
        json_decref(got);
        json_decref(want);
    }
}

static void quantized_gguf_gives_a_folder_of_its_decoded_values(void **state)
{
    (void)state;
    const char *gguf = scratch("q8_0.gguf"), *out = scratch("decoded");
    const size_t dim = 32; /* of a head */
    quantize(arch_dir("llama31"), gguf, "q8_0", NULL);
    quantize(gguf, out, "hf:f32", NULL);
    struct tms_source *from = open_source(gguf), *to = open_source(out);
    for (size_t i = 0; i < from->n_tensors; i++) {
        const struct tms_tensor *f = &from->tensors[i];
        int layer;
        char name[128];
        const struct tms_arch_tensor *row = tms_arch_explain_gguf(from->arch, f->name, &layer);
        if (strcmp(f->name, "rope_freqs.weight") == 0) continue;
        tms_arch_name(name, sizeof name, row->hf, layer, -1);
        const struct tms_tensor *t = tms_source_find(to, name);
        assert_non_null(t);
        assert_int_equal(t->type, TMS_F32);
        float *x = values_of(from, f), *y = values_of(to, t);
        for (uint64_t r = 0; r < f->rows; r++) {
            uint64_t at = r; /* row 2i of a head comes from i, row 2i + 1 from i + half a head */
            if (row->transform != TMS_AS_IS) at = r / dim * dim + r % dim / 2 + r % 2 * (dim / 2);
            assert_same_bytes(y + at * f->cols, x + r * f->cols, f->cols * sizeof *x, name);
        }
        free(x);
        free(y);
    }
    assert_int_equal(to->n_tensors, from->n_tensors - 1); /* rope_freqs is in config.json */
    tms_source_close(from);
    tms_source_close(to);
}

static void folder_in_another_type_keeps_its_values_and_says_its_type(void **state)
{
    (void)state;
    const char *wide = scratch("wide"), *narrow = scratch("narrow");
    quantize(arch_dir("qwen2_sharded"), wide, "hf:f32", NULL);
    json_t *config = json_in(wide, "config.json");
    assert_string_equal(json_string_value(json_object_get(config, "dtype")), "float32"); /* under its own name */
    assert_null(json_object_get(config, "torch_dtype"));
    json_decref(config);
    quantize(wide, narrow, "hf", NULL); /* bf16 */
    expect_same_tensors(narrow, arch_dir("qwen2_sharded"));
    json_t *got = json_in(narrow, "config.json"), *want = json_in(arch_dir("qwen2_sharded"), "config.json");
    assert_true(json_equal(got, want));
    json_decref(got);
    json_decref(want);
}

/* Weights with block scales, a vector of floats, one that transformers keeps in float32, and integers. */
static void write_fp8_folder(const char *dir)
{
    enum { ROWS = 130, COLS = 40 };
    static uint8_t codes[ROWS * COLS];
    static const float scales[2] = {0.5f, 3.0f}, norm[COLS] = {1.001f, 2.002f}, bias[4] = {0.1f, 0.2f, 0.3f, 0.4f};
    static const int64_t counts[3] = {1, -2, 3};
    static const char config[] = "{\n  \"model_type\": \"strange\",\n  \"quantization_config\": {\"quant_method\": "
                                 "\"fp8\", \"weight_block_size\": [128, 128]},\n  \"torch_dtype\": \"bfloat16\"\n}\n";
    struct tms_st_plan_tensor plan[] = {
        {.name = "x.weight", .type = TMS_F8_E4M3, .n_dims = 2, .shape = {ROWS, COLS}, .tag = 0},
        {.name = "x.weight_scale_inv", .type = TMS_F32, .n_dims = 2, .shape = {2, 1}, .tag = 1},
        {.name = "norm.weight", .type = TMS_F32, .n_dims = 1, .shape = {COLS}, .tag = 2},
        {.name = "gate.e_score_correction_bias", .type = TMS_F32, .n_dims = 1, .shape = {4}, .tag = 3},
        {.name = "counts", .type = TMS_I64, .n_dims = 1, .shape = {3}, .tag = 4},
    };
    const void *const data[] = {codes, scales, norm, bias, counts};
    struct tms_buf header = {0};
    struct tms_error err;
    char path[1200];
    uint64_t size;
    for (size_t i = 0; i < ROWS * COLS; i++) codes[i] = (uint8_t)(i % 0x7f);
    assert_int_equal(mkdir(dir, 0777), 0);
    assert_ok(tms_st_layout(plan, 5, 0, &header, &size, &err), err);
    uint8_t *bytes = calloc(size, 1);
    memcpy(bytes, header.data, header.n);
    for (size_t i = 0; i < 5; i++) memcpy(bytes + plan[i].offset, data[plan[i].tag], plan[i].bytes);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_whole(path, bytes, size);
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_whole(path, config, sizeof config - 1);
    free(bytes);
    tms_buf_free(&header);
}

static void fp8_folder_becomes_plain(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum tms_type type;
    } want[] = {{"x.weight", TMS_BF16},
                {"norm.weight", TMS_BF16},
                {"gate.e_score_correction_bias", TMS_F32},
                {"counts", TMS_I64}};
    const char *in = scratch("fp8"), *out = scratch("plain");
    char path[1200];
    size_t n;
    write_fp8_folder(in);
    quantize(in, out, "hf:bf16", NULL);
    struct tms_source *from = open_source(in), *to = open_source(out);
    assert_int_equal(to->n_tensors, 4);
    for (size_t i = 0; i < 4; i++) {
        const struct tms_tensor *f = tms_source_find(from, want[i].name), *t = tms_source_find(to, want[i].name);
        assert_int_equal(t->type, want[i].type);
        if (want[i].type != TMS_BF16) {
            uint8_t *a = bytes_of(to, t), *b = bytes_of(from, f);
            assert_same_bytes(a, b, f->bytes, f->name);
            free(a);
            free(b);
            continue;
        }
        float *x = values_of(from, f), *y = values_of(to, t);
        for (uint64_t k = 0; k < f->n_elems; k++)
            if (y[k] != tms_bf16_to_f32(tms_f32_to_bf16(x[k])))
                fail_msg("%s: %g of %g", f->name, (double)y[k], (double)x[k]);
        free(x);
        free(y);
    }
    tms_source_close(from);
    tms_source_close(to);
    snprintf(path, sizeof path, "%s/config.json", out);
    uint8_t *config = read_whole(path, &n);
    assert_string_equal((const char *)config,
                        "{\n  \"model_type\": \"strange\",\n  \"torch_dtype\": \"bfloat16\"\n}\n");
    free(config);
}

static void bitsandbytes_folder_becomes_plain(void **state)
{
    (void)state;
    static const char *const types[] = {"nf4", "fp4:b128:dq", "int8"};
    const char *source = arch_dir("qwen2_untied"), *packed = scratch("packed");
    char path[1200];
    for (size_t i = 0; i < 3; i++) {
        const char *wide = scratch("wide-again"), *narrow = scratch("narrow-again");
        size_t n_packed = 0, n, m;
        quantize(source, packed, types[i], NULL);
        quantize(packed, wide, "hf:f32", NULL);
        quantize(packed, narrow, "hf:bf16", NULL);
        struct tms_source *from = open_source(packed), *to = open_source(wide), *half = open_source(narrow);
        for (size_t k = 0; k < to->n_tensors; k++) {
            const struct tms_tensor *t = &to->tensors[k], *h = tms_source_find(half, t->name),
                                    *f = tms_source_find(from, t->name);
            struct tms_error err;
            void *raw = malloc(f->bytes);
            float *x = calloc(t->n_elems, sizeof *x), *y = values_of(to, t), *z = values_of(half, h);
            assert_int_equal(f->n_weights, t->n_elems);
            assert_int_equal(t->n_dims, h->n_dims);
            assert_ok(tms_source_read(from, f, 0, f->n_weights, raw, x, &err), err);
            assert_same_bytes(y, x, t->n_elems * sizeof *x, t->name);
            for (uint64_t j = 0; j < t->n_elems; j++)
                if (z[j] != tms_bf16_to_f32(tms_f32_to_bf16(x[j])))
                    fail_msg("%s: %g of %g", t->name, (double)z[j], (double)x[j]);
            n_packed += f->packed != NULL;
            free(raw);
            free(x);
            free(y);
            free(z);
        }
        assert_int_equal(n_packed, 14); /* 7 linear layers in each of 2 */
        tms_source_close(from);
        tms_source_close(to);
        tms_source_close(half);
        snprintf(path, sizeof path, "%s/config.json", narrow);
        uint8_t *got = read_whole(path, &n);
        snprintf(path, sizeof path, "%s/config.json", source);
        uint8_t *want = read_whole(path, &m);
        assert_int_equal(n, m);
        assert_same_bytes(got, want, n, "config.json");
        free(got);
        free(want);
    }
}

static void packed_weight_without_its_scales_is_refused(void **state)
{
    (void)state;
    char command[2600];
    struct tms_error err;
    const char *broken = scratch("broken");
    quantize(arch_dir("qwen2_untied"), broken, "int8", NULL);
    snprintf(command, sizeof command,
             "LC_ALL=C sed -i '1s/layers.0.mlp.up_proj.SCB/layers.0.mlp.up_proj.SCX/' '%s'/model.safetensors", broken);
    assert_int_equal(system(command), 0);
    assert_int_equal(try_quantize(broken, scratch("unbroken"), "hf:bf16", NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "mlp.up_proj.weight': its scales (absmax and quant_map, or SCB) are missing"));
}

static void shards_of_a_restored_folder_hold_every_tensor_once(void **state)
{
    (void)state;
    const struct tms_quantize_options options = {.max_shard_bytes = 100000};
    const char *gguf = scratch("shards.gguf"), *out = scratch("shards");
    convert(arch_dir("llama31"), gguf, "bf16");
    quantize(gguf, out, "hf:bf16", &options);
    struct tms_source *s = open_source(out);
    assert_true(s->n_files > 2);
    tms_source_close(s);
    expect_same_tensors(out, arch_dir("llama31"));
    json_t *index = json_in(out, "model.safetensors.index.json");
    json_decref(index);
}

static void preview_of_a_restored_folder_has_its_names_and_size(void **state)
{
    (void)state;
    struct tms_model *model;
    struct tms_preview *preview;
    struct tms_preview_info info;
    struct tms_tensor_info tensor;
    struct tms_error err;
    const char *gguf = scratch("preview.gguf");
    quantize(arch_dir("qwen3"), gguf, "q8_0", NULL);
    assert_ok(tms_model_open(&model, gguf, &err), err);
    assert_ok(tms_preview(&preview, model, "HF:F16", &err), err);
    tms_preview_describe(preview, &info);
    assert_string_equal(info.type, "hf:f16");
    assert_int_equal(info.tensor_bytes, 2 * info.n_parameters);
    tms_preview_tensor(preview, 0, &tensor);
    assert_string_equal(tensor.name, "model.embed_tokens.weight");
    assert_string_equal(tensor.type, "float16");
    tms_preview_free(preview);
    tms_model_close(model);
}

/* ---- refusals, before any work ---- */

static void expect_refusal(const char *override, const char *message)
{
    const char *gguf = scratch("good.gguf"), *bad = scratch("bad.gguf"), *out = scratch("refused");
    struct tms_error err;
    const struct tms_quantize_options options = {.override_kv = &override, .n_override_kv = 1};
    if (access(gguf, R_OK) != 0) convert(arch_dir("llama31"), gguf, "bf16");
    quantize(gguf, bad, "copy", &options);
    assert_int_equal(try_quantize(bad, out, "hf:bf16", NULL, &err), TMS_EINPUT);
    if (!strstr(err.message, message)) fail_msg("%s: %s", override, err.message);
    assert_int_equal(access(out, F_OK), -1);
}

static void what_has_no_place_in_a_folder_is_refused_in_one_line(void **state)
{
    (void)state;
    expect_refusal("tokenizer.ggml.pre=str:nonsense", "does not know how the pre-tokenizer 'nonsense' cuts");
    expect_refusal("tokenizer.ggml.model=str:bert", "of the kind 'bert'");
    expect_refusal("general.architecture=str:mpt", "architecture 'mpt' cannot be written");
    expect_refusal("llama.rope.dimension_count=int:16", "is not a whole head");
    expect_refusal("llama.attention.head_count=int:8", "its shape is not");
    expect_refusal("llama.rope.scaling.type=str:longrope", "'rope_factors_long.weight' of its rope scaling is missing");
    expect_refusal("llama.rope.freq_base=float:10000", "not the table of a Llama 3 rope scaling");
    expect_refusal("llama.block_count=int:2", "is nothing that LlamaForCausalLM has");
    expect_refusal("llama.block_count=int:4", "'blk.3.attn_q.weight' is missing");
}

static void pre_tokenizer_can_be_named_by_the_user(void **state)
{
    (void)state;
    const char *gguf = scratch("named.gguf"), *bad = scratch("unnamed.gguf"), *out = scratch("named");
    const char *override = "tokenizer.ggml.pre=str:nonsense";
    const struct tms_quantize_options breaking = {.override_kv = &override, .n_override_kv = 1},
                                      naming = {.pre = "qwen2"};
    convert(arch_dir("llama31"), gguf, "bf16");
    quantize(gguf, bad, "copy", &breaking);
    quantize(bad, out, "hf:bf16", &naming);
    json_t *tokenizer = json_in(out, "tokenizer.json");
    const char *name;
    assert_true(tms_pretokenizer_name(tokenizer, &name));
    assert_string_equal(name, "qwen2");
    json_decref(tokenizer);
}

/* ---- parts ---- */

static void llama3_scaling_is_found_from_its_table(void **state)
{
    (void)state;
    static const struct {
        double theta, factor, high;
        uint64_t context, head_dim;
    } cases[] = {{500000, 8, 4, 8192, 128}, {500000, 32, 4, 8192, 64},  {500000, 32, 4, 8192, 128},
                 {10000, 4, 4, 2048, 64},   {500000, 8, 4, 64, 32},     {500000, 16, 8, 8192, 128},
                 {1e6, 10, 2.5, 5000, 96},  {500000, 2, 4, 131072, 128}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float table[64], scratch_table[64];
        struct tms_config made = {.head_dim = cases[i].head_dim,
                                  .rope = {.kind = TMS_ROPE_LLAMA3,
                                           .theta = cases[i].theta,
                                           .factor = cases[i].factor,
                                           .low_freq_factor = 1,
                                           .high_freq_factor = cases[i].high,
                                           .original_context = cases[i].context}};
        struct tms_config found = {.head_dim = cases[i].head_dim, .rope = {.theta = cases[i].theta}};
        assert_true(tms_rope_freqs(&made, table));
        if (!tms_restore_llama3(&found, table, cases[i].head_dim / 2, scratch_table))
            fail_msg("case %zu is not found", i);
        assert_true(found.rope.factor == cases[i].factor && found.rope.high_freq_factor == cases[i].high &&
                    found.rope.low_freq_factor == 1);
        assert_int_equal(found.rope.original_context, cases[i].context);
        for (uint64_t k = 1; k < cases[i].head_dim / 2; k += 2) /* another library's pow */
            if (table[k] != 1 && table[k] != (float)cases[i].factor) table[k] = nextafterf(table[k], 2);
        assert_true(tms_restore_llama3(&found, table, cases[i].head_dim / 2, scratch_table));
        assert_int_equal(found.rope.original_context, cases[i].context);
    }
}

static void table_that_is_no_llama3_scaling_is_not_explained(void **state)
{
    (void)state;
    float table[32], scratch_table[32];
    struct tms_config config = {.head_dim = 64, .rope = {.theta = 500000}};
    for (size_t i = 0; i < 32; i++) table[i] = 1 + (float)i * 0.1f; /* as longrope has it */
    assert_false(tms_restore_llama3(&config, table, 32, scratch_table));
    table[3] = NAN;
    assert_false(tms_restore_llama3(&config, table, 32, scratch_table));
    for (size_t i = 0; i < 32; i++) table[i] = 1;
    assert_true(tms_restore_llama3(&config, table, 32, scratch_table));
    assert_int_equal(config.rope.kind, TMS_ROPE_DEFAULT);
}

static void pre_tokenizers_made_from_a_name_have_that_name(void **state)
{
    (void)state;
    static const char *const names[] = {"llama-bpe", "qwen2",    "qwen35",     "deepseek-v3", "gpt-4o",   "tekken",
                                        "starcoder", "gpt-2",    "falcon",     "bloom",       "viking",   "dbrx",
                                        "ufakzeka",  "minicpm5", "seed-coder", "exaone-moe",  "tiny_aya", "superbpe"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct tms_pretokenizer pre;
        struct tms_buf text = {0};
        json_error_t problem;
        if (!tms_pretokenizer_find(names[i], &pre)) fail_msg("%s is not known", names[i]);
        tms_buf_text(&text, "{\n");
        tms_pretokenizer_put(&text, &pre);
        tms_buf_printf(&text, "\"model\": {\"ignore_merges\": %s}}", pre.whole_words ? "true" : "false");
        json_t *json = json_loadb((const char *)text.data, text.n, 0, &problem);
        if (!json) fail_msg("%s: %s", names[i], problem.text);
        const char *name;
        assert_true(tms_pretokenizer_name(json, &name));
        assert_non_null(name);
        assert_string_equal(name, names[i]);
        json_decref(json);
        tms_buf_free(&text);
    }
    struct tms_pretokenizer pre;
    assert_true(tms_pretokenizer_find("smaug-bpe", &pre)); /* cut as dbrx is */
    assert_false(tms_pretokenizer_find("smaug", &pre));
    assert_false(tms_pretokenizer_find("default", &pre));
    assert_false(tms_pretokenizer_find("kimi-k2", &pre)); /* its expression is known in part only */
}

static void expect_without(const char *before, const char *key, const char *after)
{
    struct tms_buf out = {0};
    assert_true(tms_json_remove_member(&out, before, strlen(before), key));
    tms_buf_put(&out, "", 1);
    assert_string_equal((const char *)out.data, after);
    tms_buf_free(&out);
}

static void removing_a_member_keeps_the_rest(void **state)
{
    (void)state;
    expect_without("{\n  \"a\": 1,\n  \"b\": {\"c\": [2]},\n  \"d\": 3\n}\n", "b", "{\n  \"a\": 1,\n  \"d\": 3\n}\n");
    expect_without("{\n  \"a\": 1,\n  \"d\": 3\n}\n", "a", "{\n  \"d\": 3\n}\n");
    expect_without("{\n  \"a\": 1,\n  \"d\": 3\n}\n", "d", "{\n  \"a\": 1\n}\n");
    expect_without("{\"a\": 1}", "a", "{}");
    expect_without("{\"a\": {\"b\": 1}}", "b", "{\"a\": {\"b\": 1}}");
    expect_without("{}", "b", "{}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folder_back_from_gguf_has_the_tensors_of_the_source),
        cmocka_unit_test(folder_back_from_gguf_converts_to_the_same_file),
        cmocka_unit_test(config_back_from_gguf_says_what_the_source_said),
        cmocka_unit_test(quantized_gguf_gives_a_folder_of_its_decoded_values),
        cmocka_unit_test(folder_in_another_type_keeps_its_values_and_says_its_type),
        cmocka_unit_test(fp8_folder_becomes_plain),
        cmocka_unit_test(bitsandbytes_folder_becomes_plain),
        cmocka_unit_test(packed_weight_without_its_scales_is_refused),
        cmocka_unit_test(shards_of_a_restored_folder_hold_every_tensor_once),
        cmocka_unit_test(preview_of_a_restored_folder_has_its_names_and_size),
        cmocka_unit_test(what_has_no_place_in_a_folder_is_refused_in_one_line),
        cmocka_unit_test(pre_tokenizer_can_be_named_by_the_user),
        cmocka_unit_test(llama3_scaling_is_found_from_its_table),
        cmocka_unit_test(table_that_is_no_llama3_scaling_is_not_explained),
        cmocka_unit_test(pre_tokenizers_made_from_a_name_have_that_name),
        cmocka_unit_test(removing_a_member_keeps_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

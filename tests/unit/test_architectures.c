/* Mixtures of experts, Gemma, Phi-3 and DeepSeek through everything but conversion (test_convert.c) and running
 * (test_engine.c): quantizing, comparing, checking, verifying; and what is wrong with such models, told in one line. */
#include "support.h"

#include <jansson.h>
#include <tamis/tamis.h>

#include "file/gguf.h"
#include "model/source.h"

static const char *const folders[] = {"mixtral",     "qwen2_moe",   "qwen3_moe",      "gemma",
                                      "gemma2",      "gemma3_text", "phi3",           "phi3_longrope",
                                      "deepseek_v2", "deepseek_v3", "deepseek_v3_fp8"};
enum { N_FOLDERS = sizeof folders / sizeof *folders };

static struct tms_error err;

/* scratch(name) that stays what it is for the whole test program. */
static const char *file(const char *name)
{
    static struct {
        char name[32], path[1100];
    } kept[32];
    size_t i = 0;
    while (kept[i].name[0] && strcmp(kept[i].name, name) != 0) i++;
    if (!kept[i].name[0]) {
        snprintf(kept[i].name, sizeof kept[i].name, "%s", name);
        snprintf(kept[i].path, sizeof kept[i].path, "%s", scratch(name));
    }
    return kept[i].path;
}

static const char *arch_dir(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "arch/%s", name);
    return golden(path);
}

static void convert(const char *from, const char *to, const char *type)
{
    const struct tms_quantize_options options = {.types = &type, .n_types = 1, .force = true};
    struct tms_result *results;
    assert_ok(tms_convert(from, to, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
}

static tms_status try_quantize(const char *from, const char *to, const char *type,
                               const struct tms_quantize_options *more)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results = NULL;
    options.types = &type;
    options.n_types = 1;
    options.force = true;
    tms_status status = tms_quantize(from, to, &options, &results, NULL, NULL, &err);
    if (status == TMS_OK) tms_results_free(results, 1);
    return status;
}

static void quantize(const char *from, const char *to, const char *type, const struct tms_quantize_options *more)
{
    assert_ok(try_quantize(from, to, type, more), err);
}

static struct tms_source *open_source(const char *path)
{
    struct tms_source *s;
    assert_ok(tms_source_open(&s, path, NULL, NULL, &err), err);
    return s;
}

/* ---- quantizing ---- */

static uint8_t *bytes_of(const struct tms_source *s, const struct tms_tensor *t)
{
    uint8_t *bytes = calloc(t->bytes + 1, 1);
    assert_ok(tms_file_read(s->files[t->file], bytes, t->bytes, t->offset, &err), err);
    return bytes;
}

static void expect_same_tensors(const char *a_path, const char *b_path)
{
    struct tms_source *a = open_source(a_path), *b = open_source(b_path);
    assert_int_equal(a->n_tensors, b->n_tensors);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct tms_tensor *x = &a->tensors[i], *y = tms_source_find(b, x->name);
        if (!y) fail_msg("%s has no %s", b_path, x->name);
        assert_int_equal(x->type, y->type);
        uint8_t *p = bytes_of(a, x), *q = bytes_of(b, y);
        assert_int_equal(x->bytes, y->bytes);
        assert_same_bytes(p, q, x->bytes, x->name);
        free(p);
        free(q);
    }
    tms_source_close(a);
    tms_source_close(b);
}

/* Through two ways: parts are gathered from the folder, or lie in one tensor. */
static void folder_and_file_quantize_to_the_same_tensors(void **state)
{
    (void)state;
    static const char *const types[] = {"q8_0", "q4_k_m", "iq4_nl"};
    const char *gguf = file("f32.gguf"), *a = file("a.gguf"), *b = file("b.gguf");
    for (size_t i = 0; i < N_FOLDERS; i++) {
        convert(arch_dir(folders[i]), gguf, "f32");
        for (size_t t = 0; t < 3; t++) {
            quantize(arch_dir(folders[i]), a, types[t], NULL);
            quantize(gguf, b, types[t], NULL);
            expect_same_tensors(a, b);
        }
    }
}

static void put_kv_text(struct tms_buf *to, const char *text)
{
    uint64_t n = strlen(text);
    tms_buf_put(to, &n, 8);
    tms_buf_put(to, text, n);
}

static void put_u32(struct tms_buf *to, uint32_t n)
{
    tms_buf_put(to, &n, 4);
}

static void put_u64(struct tms_buf *to, uint64_t n)
{
    tms_buf_put(to, &n, 8);
}

/* An importance matrix for one tensor, [mats][cols] values and a count for each matrix, as llama-imatrix writes it. */
static void write_imatrix(const char *path, const char *tensor, const float *values, uint64_t cols, uint64_t mats)
{
    struct tms_buf to = {0};
    char name[128];
    const uint64_t sums = cols * mats * 4, padded = (sums + 31) / 32 * 32;
    tms_buf_put(&to, "GGUF", 4);
    put_u32(&to, 3);
    put_u64(&to, 2);
    put_u64(&to, 4);
    put_kv_text(&to, "general.type");
    put_u32(&to, 8);
    put_kv_text(&to, "imatrix");
    put_kv_text(&to, "imatrix.datasets");
    put_u32(&to, 9);
    put_u32(&to, 8);
    put_u64(&to, 1);
    put_kv_text(&to, "text");
    put_kv_text(&to, "imatrix.chunk_count");
    put_u32(&to, 4);
    put_u32(&to, 1);
    put_kv_text(&to, "imatrix.chunk_size");
    put_u32(&to, 4);
    put_u32(&to, 64);
    for (int k = 0; k < 2; k++) { /* [cols, mats] sums of squares, [1, mats] counts */
        snprintf(name, sizeof name, "%s.%s", tensor, k ? "counts" : "in_sum2");
        put_kv_text(&to, name);
        put_u32(&to, 2);
        put_u64(&to, k ? 1 : cols);
        put_u64(&to, mats);
        put_u32(&to, 0);
        put_u64(&to, k ? padded : 0);
    }
    while (to.n % 32) tms_buf_put(&to, "", 1);
    tms_buf_put(&to, values, sums);
    for (uint64_t i = sums; i < padded; i++) tms_buf_put(&to, "", 1);
    for (uint64_t m = 0; m < mats; m++) tms_buf_put(&to, &(float){1}, 4);
    while (to.n % 32) tms_buf_put(&to, "", 1);
    write_whole(path, to.data, to.n);
    tms_buf_free(&to);
}

static void every_expert_has_importance_weights_of_its_own(void **state)
{
    (void)state;
    enum { COLS = 64, ROWS = 96, EXPERTS = 6, BYTES = ROWS * COLS / 32 * 18 };
    static const char name[] = "blk.1.ffn_gate_exps.weight";
    float weights[EXPERTS][COLS];
    const char *matrix = file("imatrix.gguf"), *out = file("weighted.gguf"), *plain = file("plain.gguf");
    for (size_t e = 0; e < EXPERTS; e++) /* the fourth looks at one column only */
        for (size_t c = 0; c < COLS; c++) weights[e][c] = e == 3 ? (c == 5 ? 1000.0f : 0.001f) : 1;
    write_imatrix(matrix, name, &weights[0][0], COLS, EXPERTS);
    const struct tms_quantize_options options = {.imatrix = matrix};
    quantize(arch_dir("mixtral"), out, "q4_0", &options);
    for (size_t c = 0; c < COLS; c++) weights[3][c] = 1;
    write_imatrix(matrix, name, &weights[0][0], COLS, EXPERTS);
    quantize(arch_dir("mixtral"), plain, "q4_0", &options);
    struct tms_source *a = open_source(out), *b = open_source(plain);
    uint8_t *x = bytes_of(a, tms_source_find(a, name)), *y = bytes_of(b, tms_source_find(b, name));
    assert_int_equal(tms_source_find(a, name)->bytes, EXPERTS * BYTES);
    for (size_t e = 0; e < EXPERTS; e++)
        if ((memcmp(x + e * BYTES, y + e * BYTES, BYTES) != 0) != (e == 3)) fail_msg("expert %zu", e);
    free(x);
    free(y);
    tms_source_close(a);
    tms_source_close(b);
    write_imatrix(matrix, name, &weights[0][0], COLS, EXPERTS - 1);
    assert_int_equal(try_quantize(arch_dir("mixtral"), out, "q4_0", &options), TMS_EINPUT);
    assert_non_null(strstr(err.message, "the matrix was made from another model"));
}

static void count_warning(void *ctx, const char *line)
{
    *(size_t *)ctx += strstr(line, "experts stay as they are") != NULL;
}

/* As transformers 5 has them: one tensor, which bitsandbytes does not quantize; compared in tests/interop/bnb_loads.py.
 */
static void bitsandbytes_leaves_experts_and_routers_as_they_are(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum tms_type type;
    } want[] = {{"model.layers.1.self_attn.kv_b_proj.weight", TMS_U8},
                {"model.layers.1.mlp.shared_experts.up_proj.weight", TMS_U8},
                {"model.layers.0.mlp.up_proj.weight", TMS_U8},
                {"model.layers.1.mlp.experts.3.up_proj.weight", TMS_BF16},
                {"model.layers.1.mlp.gate.weight", TMS_BF16},
                {"model.layers.1.mlp.gate.e_score_correction_bias", TMS_F32},
                {"model.layers.3.mlp.experts.3.up_proj.weight", TMS_BF16},
                {"model.layers.3.eh_proj.weight", TMS_BF16}};
    size_t n_warnings = 0;
    const struct tms_quantize_options options = {.warning = count_warning, .warning_ctx = &n_warnings};
    const char *out = file("nf4");
    quantize(arch_dir("deepseek_v3"), out, "nf4", &options);
    assert_int_equal(n_warnings, 1);
    struct tms_source *s = open_source(out);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct tms_tensor *t = tms_source_find(s, want[i].name);
        if (!t || t->type != want[i].type) fail_msg("%s", want[i].name);
    }
    tms_source_close(s);
}

static void bitsandbytes_from_a_file_is_as_from_its_folder(void **state)
{
    (void)state;
    static const char *const models[] = {"mixtral", "qwen2_moe", "gemma2", "phi3_longrope"};
    const char *gguf = file("bf16.gguf"), *a = file("from-file"), *b = file("from-folder");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        convert(arch_dir(models[i]), gguf, "f32");
        quantize(gguf, file("plain-again"), "hf:f32", NULL);
        quantize(gguf, a, "nf4", NULL);
        quantize(file("plain-again"), b, "nf4", NULL);
        expect_same_tensors(a, b);
    }
    convert(arch_dir("deepseek_v2"), gguf, "bf16");
    assert_int_equal(try_quantize(gguf, file("no"), "nf4", NULL), TMS_EINPUT);
    assert_non_null(strstr(err.message, "_b.weight' is half of 'model.layers.0.self_attn.kv_b_proj.weight'"));
}

/* ---- looking at them ---- */

static void folder_and_its_file_hold_the_same_values(void **state)
{
    (void)state;
    const char *gguf = file("same.gguf"), *q8 = file("q8.gguf");
    for (size_t i = 0; i < N_FOLDERS; i++) {
        const struct tms_diff_options options = {.n_threads = 2};
        struct tms_diff_info info;
        struct tms_diff *diff;
        convert(arch_dir(folders[i]), gguf, "f32");
        assert_ok(tms_diff_models(&diff, arch_dir(folders[i]), gguf, &options, &err), err);
        tms_diff_describe(diff, &info);
        if (!info.equal) fail_msg("%s: %zu of %zu differ", folders[i], info.n_differing, info.n_tensors);
        tms_diff_free(diff);
        quantize(gguf, q8, "q8_0", NULL);
        assert_ok(tms_diff_models(&diff, q8, arch_dir(folders[i]), &options, &err), err);
        tms_diff_describe(diff, &info);
        assert_false(info.equal);
        assert_int_equal(info.n_only_a + info.n_only_b, 0);
        if (!(info.relative_error < 0.01)) fail_msg("%s: off by %g", folders[i], info.relative_error);
        tms_diff_free(diff);
    }
}

static void print_finding(void *ctx, const char *line)
{
    (void)ctx;
    print_message("%s\n", line);
}

static void check_finds_nothing_in_them(void **state)
{
    (void)state;
    const struct tms_check_options options = {.n_threads = 1, .finding = print_finding};
    const char *gguf = file("checked.gguf");
    for (size_t i = 0; i < N_FOLDERS; i++) {
        struct tms_check_result result;
        assert_ok(tms_check(arch_dir(folders[i]), &options, &result, &err), err);
        assert_int_equal(result.n_findings, 0);
        convert(arch_dir(folders[i]), gguf, "q8_0");
        assert_ok(tms_check(gguf, &options, &result, &err), err);
        assert_int_equal(result.n_findings, 0);
    }
}

static void expect_verified(const char *made, const char *source)
{
    const struct tms_verify_options options = {.finding = print_finding};
    struct tms_verify_result result;
    assert_ok(tms_verify(made, source, &options, &result, &err), err);
    assert_int_equal(result.n_findings, 0);
    assert_true(result.identical);
}

static void what_is_made_of_them_verifies(void **state)
{
    (void)state;
    static const char *const models[] = {"mixtral", "gemma3_text", "phi3_longrope", "deepseek_v3_fp8"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char source[1100];
        snprintf(source, sizeof source, "%s", arch_dir(models[i]));
        quantize(source, file("made.gguf"), "q4_k_m", NULL);
        expect_verified(file("made.gguf"), source);
        convert(source, file("made-f32.gguf"), "f32");
        quantize(file("made-f32.gguf"), file("made"), "hf:bf16", NULL);
        expect_verified(file("made"), file("made-f32.gguf"));
        quantize(source, file("made-nf4"), "nf4:dq", NULL);
        expect_verified(file("made-nf4"), source);
    }
}

static void lone_config_gives_the_size_of_the_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FOLDERS; i++) {
        char path[1200];
        struct tms_model *model;
        struct tms_preview *preview;
        struct tms_preview_info info;
        const char *gguf = file("sized.gguf");
        quantize(arch_dir(folders[i]), gguf, "q4_k_m", NULL);
        struct tms_source *s = open_source(gguf);
        uint64_t bytes = 0;
        for (size_t t = 0; t < s->n_tensors; t++) bytes += s->tensors[t].bytes;
        snprintf(path, sizeof path, "%s/config.json", arch_dir(folders[i]));
        assert_ok(tms_model_open(&model, path, &err), err);
        assert_ok(tms_preview(&preview, model, "q4_k_m", &err), err);
        tms_preview_describe(preview, &info);
        assert_int_equal(info.tensor_bytes, bytes);
        tms_preview_free(preview);
        tms_model_close(model);
        tms_source_close(s);
    }
}

/* ---- what is wrong with a folder ---- */

static const char *copy_of(const char *name, const char *edit)
{
    char command[4000];
    const char *dir = file("wrong");
    snprintf(command, sizeof command, "rm -rf '%s' && cp -r '%s' '%s' && chmod -R u+w '%s' && cd '%s' && LC_ALL=C %s",
             dir, arch_dir(name), dir, dir, dir, edit);
    assert_int_equal(system(command), 0);
    return dir;
}

static void broken_folders_are_refused_in_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *edit, *message;
    } cases[] = {
        {"mixtral", "sed -i 's/\"num_local_experts\": 6/\"num_local_experts\": 0/' config.json",
         "\"num_local_experts\" is 0"},
        {"mixtral", "sed -i 's/\"num_local_experts\": 6/\"num_local_experts\": 5000/' config.json",
         "\"num_local_experts\" is 5000"},
        {"mixtral", "sed -i 's/\"num_experts_per_tok\": 2/\"num_experts_per_tok\": 7/' config.json",
         "contradict each other"},
        {"mixtral", "sed -i 's/\"num_local_experts\": 6/\"num_local_experts\": 5/' config.json",
         "model.layers.0.block_sparse_moe.experts.5.w1.weight': config.json says 5 experts"},
        {"mixtral", "sed -i 's/\"num_local_experts\": 6/\"num_local_experts\": 7/' config.json",
         "tensor 'model.layers.0.block_sparse_moe.experts.6.w1.weight' is missing"},
        {"mixtral",
         "sed -i '1s/layers.1.block_sparse_moe.experts.3.w2/layers.1.block_sparse_moe.experts.9.w2/' *.safetensors",
         "tensor 'model.layers.1.block_sparse_moe.experts.3.w2.weight' is missing"},
        {"qwen2_moe", "sed -i 's/\"moe_intermediate_size\": 48/\"moe_intermediate_size\": 64/' config.json",
         "mlp.experts.0.down_proj.weight': its shape is not [64, 64]"},
        {"qwen2_moe", "sed -i 's/\"mlp_only_layers\": \\[\\]/\"mlp_only_layers\": [0]/' config.json",
         "\"mlp_only_layers\" names layers"},
        {"deepseek_v2", "sed -i 's/\"kv_lora_rank\": 56/\"kv_lora_rank\": 0/' config.json", "\"kv_lora_rank\" is 0"},
        {"deepseek_v2", "sed -i 's/\"qk_rope_head_dim\": 16/\"qk_rope_head_dim\": 15/' config.json",
         "\"qk_rope_head_dim\" is odd"},
        {"deepseek_v2", "sed -i 's/\"v_head_dim\": 40/\"v_head_dim\": 41/' config.json",
         "self_attn.kv_b_proj.weight': its shape is not [146, 56]"},
        {"deepseek_v2", "sed -i 's/\"first_k_dense_replace\": 1/\"first_k_dense_replace\": 2/' config.json",
         "'model.layers.1.mlp.gate_proj.weight' is missing"},
        {"deepseek_v3", "sed -i 's/\"n_group\": 4/\"n_group\": 3/' config.json", "contradict each other"},
        {"phi3_longrope", "sed -i 's/\"hidden_size\": 96/\"hidden_size\": 48/' config.json",
         "rope scaling has 16 factors, half a head is 8"},
        {"phi3_longrope", "sed -i '/\"short_factor\"/,/]/s/1.45/0/' config.json",
         "\"short_factor\" is not a list of positive"},
        {"phi3", "sed -i 's/\"hidden_size\": 96/\"hidden_size\": 96, \"partial_rotary_factor\": 0.75/' config.json",
         "\"partial_rotary_factor\" is not 1"},
        {"gemma2", "sed -i 's/\"query_pre_attn_scalar\": 32/\"query_pre_attn_scalar\": -1/' config.json",
         "\"query_pre_attn_scalar\" is not positive"},
    };
    const char *out = file("never.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = copy_of(cases[i].folder, cases[i].edit);
        tms_status status = try_quantize(dir, out, "q8_0", NULL);
        if (status != TMS_EINPUT) fail_msg("%s: %s: status %d", cases[i].folder, cases[i].edit, (int)status);
        if (!strstr(err.message, cases[i].message) || strchr(err.message, '\n'))
            fail_msg("%s: %s: %s", cases[i].folder, cases[i].edit, err.message);
        assert_false(tms_path_exists(out));
    }
}

/* ---- what is wrong with a file ---- */

static void broken_files_are_refused_in_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *override, *message;
    } cases[] = {
        {"mixtral", "llama.expert_count=int:0", "'blk.0.ffn_gate.weight' is missing"},
        {"mixtral", "llama.expert_count=int:5000", "expert_count' is no sensible number"},
        {"mixtral", "llama.expert_count=int:5", "blk.0.ffn_down_exps.weight': its shape is not [5, 64, 96]"},
        {"mixtral", "llama.expert_used_count=int:7", "contradict each other"},
        {"mixtral", "llama.expert_used_count=int:0", "expert_used_count' is no sensible number"},
        {"mixtral", "llama.feed_forward_length=int:64", "blk.0.ffn_down_exps.weight': its shape is not [6, 64, 64]"},
        {"qwen2_moe", "qwen2moe.expert_shared_feed_forward_length=int:81",
         "ffn_down_shexp.weight': its shape is not [64, 81]"},
        {"qwen3_moe", "qwen3moe.block_count=int:3", "'blk.2.attn_q.weight' is missing"},
        {"deepseek_v3", "deepseek2.attention.kv_lora_rank=int:0", "kv_lora_rank' is no sensible number"},
        {"deepseek_v3", "deepseek2.attention.kv_lora_rank=int:41", "attn_k_b.weight': its shape is not [4, 41, 32]"},
        {"deepseek_v3", "deepseek2.attention.value_length_mla=int:23",
         "blk.0.attn_output.weight': its shape is not [64, 92]"},
        {"deepseek_v3", "deepseek2.rope.dimension_count=int:15", "rope.dimension_count' is odd"},
        {"deepseek_v3", "deepseek2.rope.dimension_count=int:48", "key_length_mla' is no more than what rotates"},
        {"deepseek_v3", "deepseek2.expert_gating_func=int:7", "expert_gating_func' is no sensible number"},
        {"deepseek_v3", "deepseek2.expert_group_count=int:3", "contradict each other"},
        {"deepseek_v3", "deepseek2.leading_dense_block_count=int:2", "'blk.1.ffn_gate.weight' is missing"},
        {"gemma3_text", "tamis.attention.query_pre_attn_scalar=str:no", "query_pre_attn_scalar' makes no sense"},
        {"gemma3_text", "tamis.attention.sliding_window=int:2000000000", "its list of layers makes no sense"},
        {"gemma2", "gemma2.attn_logit_softcapping=float:-3", "attn_logit_softcapping' is no positive number"},
    };
    const char *good = file("good.gguf"), *bad = file("bad.gguf"), *out = file("never");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct tms_quantize_options options = {.override_kv = &cases[i].override, .n_override_kv = 1};
        convert(arch_dir(cases[i].folder), good, "f32");
        quantize(good, bad, "copy", &options);
        tms_status status = try_quantize(bad, out, "hf:f32", NULL);
        if (status != TMS_EINPUT) fail_msg("%s: %s: status %d", cases[i].folder, cases[i].override, (int)status);
        if (!strstr(err.message, cases[i].message) || strchr(err.message, '\n'))
            fail_msg("%s: %s: %s", cases[i].folder, cases[i].override, err.message);
        assert_false(tms_path_exists(out));
    }
}

static void file_without_a_stack_or_a_table_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *from, *to, *message;
    } cases[] = {
        {"mixtral", "blk.1.ffn_up_exps", "blk.1.ffn_ux_exps", "'blk.1.ffn_up_exps.weight' is missing"},
        {"deepseek_v2", "blk.2.attn_v_b", "blk.2.attn_vxb", "'blk.2.attn_v_b.weight' is missing"},
        {"phi3_longrope", "rope_factors_long", "rope_factors_lone",
         "'rope_factors_long.weight' of its rope scaling is missing"},
    };
    const char *good = file("whole.gguf"), *bad = file("holed.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[3000];
        convert(arch_dir(cases[i].folder), good, "f32");
        snprintf(command, sizeof command, "LC_ALL=C sed 's/%s/%s/' '%s' > '%s'", cases[i].from, cases[i].to, good, bad);
        assert_int_equal(system(command), 0);
        assert_int_equal(try_quantize(bad, file("never"), "hf:f32", NULL), TMS_EINPUT);
        if (!strstr(err.message, cases[i].message)) fail_msg("%s: %s", cases[i].folder, err.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folder_and_file_quantize_to_the_same_tensors),
        cmocka_unit_test(every_expert_has_importance_weights_of_its_own),
        cmocka_unit_test(bitsandbytes_leaves_experts_and_routers_as_they_are),
        cmocka_unit_test(bitsandbytes_from_a_file_is_as_from_its_folder),
        cmocka_unit_test(folder_and_its_file_hold_the_same_values),
        cmocka_unit_test(check_finds_nothing_in_them),
        cmocka_unit_test(what_is_made_of_them_verifies),
        cmocka_unit_test(lone_config_gives_the_size_of_the_file),
        cmocka_unit_test(broken_folders_are_refused_in_one_line),
        cmocka_unit_test(broken_files_are_refused_in_one_line),
        cmocka_unit_test(file_without_a_stack_or_a_table_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

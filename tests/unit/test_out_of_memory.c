/* Memory that runs out: every allocation of the readers and layouts fails once, in turn. Each must end in TMS_EIO,
 * leave the out-parameters alone, and leak nothing (which the sanitizer build sees). The linker sends the allocating
 * calls of the library here (tests/CMakeLists.txt); jansson is told by its own hook. */
#include "support.h"

#include <jansson.h>
#include <tamis/tamis.h>

#include "base/mem.h"
#include "calib/imatrix.h"
#include "file/gguf.h"
#include "file/safetensors.h"
#include "method/awq.h"
#include "method/block_feedback.h"
#include "method/cholesky.h"
#include "method/flips.h"
#include "method/gptq.h"
#include "method/hqq.h"
#include "model/restore.h"

static struct tms_error err;
static long countdown = -1; /* allocations that still succeed; negative: all do */
static bool json_spared; /* jansson 2.14 writes past the buffer of its lexer when that cannot grow: not in long runs */
static bool forgiven;    /* it was jansson that got no memory: it may take that for bad JSON, or do without */

static bool fails_now(void)
{
    if (countdown < 0) return false;
    return countdown-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t n)
{
    return fails_now() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size)
{
    return fails_now() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *old, size_t n)
{
    return fails_now() ? NULL : __real_realloc(old, n);
}
void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return fails_now() ? NULL : __real_aligned_alloc(alignment, n);
}
char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}

/* Runs `attempt` with the first, second, … allocation failing, until it succeeds because it needs no more. */
static void survives(tms_status (*attempt)(void), long at_least)
{
    for (long n = 0; n < 100000; n++) {
        memset(&err, 0, sizeof err);
        countdown = n;
        forgiven = false;
        tms_status status = attempt();
        bool all = countdown >= 0;
        countdown = -1;
        if (all) {
            assert_ok(status, err);
            assert_true(n >= at_least);
            return;
        }
        if (forgiven && (status == TMS_EINPUT || status == TMS_OK)) continue;
        if (status != TMS_EIO) fail_msg("allocation %ld failed: status %d, '%s'", n, (int)status, err.message);
        assert_non_null(strstr(err.message, "out of memory"));
    }
    fail_msg("does not end");
}

static tms_status open_safetensors(void)
{
    struct tms_safetensors *untouched = (struct tms_safetensors *)&err, *st = untouched;
    tms_status status = tms_safetensors_open(&st, golden("arch/qwen2_tied/model.safetensors"), &err);
    if (status == TMS_OK) {
        assert_int_equal(st->n_tensors, 38);
        tms_safetensors_close(st);
    } else {
        assert_ptr_equal(st, untouched);
    }
    return status;
}

static void safetensors_reader_survives_failing_allocations(void **state)
{
    (void)state;
    survives(open_safetensors, 100);
}

static tms_status lay_out_safetensors(void)
{
    struct tms_st_plan_tensor plan[] = {{.name = "a", .type = TMS_F32, .n_dims = 1, .shape = {1}},
                                        {.name = "b", .type = TMS_U8, .n_dims = 1, .shape = {1}}};
    struct tms_buf header = {0};
    uint64_t size = 5;
    tms_status status = tms_st_layout(plan, 2, 3000, &header, &size, &err);
    if (status != TMS_OK) {
        assert_null(header.data);
        assert_int_equal(size, 5);
    }
    tms_buf_free(&header);
    return status;
}

static void safetensors_layout_survives_failing_allocations(void **state)
{
    (void)state;
    survives(lay_out_safetensors, 5);
}

/* Writes the two shards that the GGUF test reads. */
static void make_shards(void)
{
    for (unsigned i = 0; i < 2; i++) {
        struct tms_kvs kvs = {0};
        struct tms_buf file = {0}, tokens = {0};
        uint64_t size;
        tms_kvs_set_u16(&kvs, "split.no", (uint16_t)i);
        tms_kvs_set_u16(&kvs, "split.count", 2);
        tms_kvs_set_i32(&kvs, "split.tensors.count", 2);
        tms_kvs_set_string(&kvs, "general.architecture", "llama");
        tms_kv_put_string(&tokens, "a", 1);
        tms_kv_put_string(&tokens, "a longer token, so that the array must grow", 43);
        tms_kvs_set_array(&kvs, "tokens", TMS_KV_STRING, 2, tokens.data, tokens.n);
        struct tms_gguf_plan_tensor plan = {.name = i ? "b" : "a", .type = TMS_F32, .n_dims = 1, .ne = {4}};
        assert_ok(tms_gguf_layout(&kvs, &plan, 1, &file, &size, &err), err);
        tms_buf_zeros(&file, (size_t)size - file.n);
        write_whole(scratch(i ? "m-00002-of-00002.gguf" : "m-00001-of-00002.gguf"), file.data, file.n);
        tms_buf_free(&tokens);
        tms_buf_free(&file);
        tms_kvs_free(&kvs);
    }
}

static tms_status open_gguf(void)
{
    struct tms_gguf *untouched = (struct tms_gguf *)&err, *gguf = untouched;
    tms_status status = tms_gguf_open(&gguf, scratch("m-00001-of-00002.gguf"), &err);
    if (status == TMS_OK)
        tms_gguf_close(gguf);
    else
        assert_ptr_equal(gguf, untouched);
    return status;
}

static void gguf_reader_survives_failing_allocations(void **state)
{
    (void)state;
    make_shards();
    survives(open_gguf, 30);
}

static tms_status open_imatrix(const char *path)
{
    struct tms_imatrix *untouched = (struct tms_imatrix *)&err, *imatrix = untouched;
    tms_status status = tms_imatrix_open(&imatrix, path, NULL, &err);
    if (status == TMS_OK)
        tms_imatrix_close(imatrix);
    else
        assert_ptr_equal(imatrix, untouched);
    return status;
}

static tms_status open_imatrix_dat(void)
{
    return open_imatrix(golden("imatrix/pebble.dat"));
}

static tms_status open_imatrix_gguf(void)
{
    return open_imatrix(golden("imatrix/pebble.gguf"));
}

static void imatrix_reader_survives_failing_allocations(void **state)
{
    (void)state;
    survives(open_imatrix_dat, 10);
    survives(open_imatrix_gguf, 100);
}

static tms_status lay_out_gguf(void)
{
    struct tms_kvs kvs = {0};
    struct tms_gguf_plan_tensor plan[] = {{.name = "a", .type = TMS_F32, .n_dims = 1, .ne = {1}},
                                          {.name = "b", .type = TMS_F16, .n_dims = 1, .ne = {1}}};
    struct tms_buf header = {0};
    uint64_t size = 5;
    tms_kvs_set_string(&kvs, "general.architecture", "llama");
    tms_kvs_set_u32(&kvs, "general.alignment", 4096);
    tms_status status = tms_gguf_layout(&kvs, plan, 2, &header, &size, &err);
    if (status != TMS_OK) {
        assert_null(header.data);
        assert_int_equal(size, 5);
    }
    tms_buf_free(&header);
    tms_kvs_free(&kvs);
    return status;
}

static void gguf_layout_survives_failing_allocations(void **state)
{
    (void)state;
    survives(lay_out_gguf, 8);
}

static struct tms_source *restored;

static tms_status restore_folder(void)
{
    const struct tms_restore_options options = {.dtype = TMS_BF16};
    struct tms_made_files files = {0};
    struct tms_config config;
    tms_status status = tms_restore_numbers(&config, restored, &options, &err);
    if (status == TMS_OK) status = tms_restore_config(&files, restored, &config, &options, &err);
    if (status == TMS_OK) status = tms_restore_tokenizer(&files, restored, &config, &options, &err);
    tms_made_files_free(&files);
    return status;
}

static void restoring_a_folder_survives_failing_allocations(void **state)
{
    (void)state;
    static const char *const folders[] = {"arch/llama31", "arch/llama2"}; /* BPE and rope table; SentencePiece */
    const char *types[] = {"f32"};
    const struct tms_quantize_options options = {.types = types, .n_types = 1, .n_threads = 1};
    for (size_t i = 0; i < 2; i++) {
        const char *gguf = scratch("restored.gguf");
        struct tms_result *results;
        assert_ok(tms_convert(golden(folders[i]), gguf, &options, &results, NULL, NULL, &err), err);
        tms_results_free(results, 1);
        assert_ok(tms_source_open(&restored, gguf, NULL, NULL, &err), err);
        survives(restore_folder, 30);
        tms_source_close(restored);
    }
}

static char model[300], logits_file[300];

static tms_status run_model(void)
{
    const int32_t ids[] = {1, 2, 3};
    struct tms_prompt prompt = {.ids = ids, .n_ids = 3};
    const struct tms_session_options options = {.n_threads = 1, .context = 300};
    struct tms_generate_options o = {.max_tokens = 2, .sampling = {.repeat_penalty = 1.1, .repeat_last_n = 4}};
    struct tms_session *untouched = (struct tms_session *)&err, *s = untouched;
    struct tms_generation made = {0};
    tms_status status = tms_session_open(&s, model, &options, &err);
    if (status != TMS_OK) {
        assert_ptr_equal(s, untouched);
        return status;
    }
    status = tms_session_generate(s, &prompt, &o, &made, &err);
    tms_generation_free(&made);
    if (status == TMS_OK)
        status = tms_session_logits(s, &prompt, logits_file, &(struct tms_logits_options){.hidden_states = true}, NULL,
                                    &err);
    tms_session_close(s);
    if (status == TMS_OK) forgiven = true; /* the folder that holds the file is synced if there is room for its name */
    return status;
}

static void running_a_model_survives_failing_allocations(void **state)
{
    (void)state;
    char command[5000];
    snprintf(model, sizeof model, "%s", scratch("model"));
    snprintf(logits_file, sizeof logits_file, "%s", scratch("logits.safetensors"));
    snprintf(command, sizeof command, "mkdir '%s' && cp '%s' '%s' '%s'", model, golden("arch/qwen3/config.json"),
             golden("arch/qwen3/model.safetensors"), model);
    assert_int_equal(system(command), 0);
    survives(run_model, 100);
}

/* A conversation of two turns: write down, remember, answer. */
static tms_status chat_with_model(void)
{
    const struct tms_session_options options = {.n_threads = 1, .context = 200};
    const struct tms_chat_options how = {.template_name = "mistral-v0.2", .system = "Be short."};
    const struct tms_generate_options o = {.max_tokens = 2};
    struct tms_session *s = NULL;
    struct tms_chat *untouched = (struct tms_chat *)&err, *c = untouched;
    struct tms_generation g[2] = {{0}};
    tms_status status = tms_session_open(&s, golden("arch/qwen3"), &options, &err);
    if (status == TMS_OK) {
        status = tms_chat_open(&c, s, &how, &err);
        assert_true(status == TMS_OK || c == untouched);
    }
    for (int i = 0; i < 2 && status == TMS_OK; i++) status = tms_chat_say(c, "Hello", 5, &o, NULL, NULL, &g[i], &err);
    for (int i = 0; i < 2; i++) tms_generation_free(&g[i]);
    if (c != untouched) tms_chat_close(c);
    tms_session_close(s);
    return status;
}

static tms_status render_conversation(void)
{
    const struct tms_message messages[] = {{"user", "a", 1}, {"assistant", "b", 1}, {"user", "c", 1}};
    struct tms_rendered r = {0};
    tms_status status = tms_chat_render(&r, golden("arch/qwen3"), "chatml", messages, 3, &err);
    if (status == TMS_OK) tms_rendered_free(&r);
    return status;
}

static void chatting_survives_failing_allocations(void **state)
{
    (void)state;
    json_spared = true;
    survives(chat_with_model, 100);
    survives(render_conversation, 50);
    json_spared = false;
}

static char eval_ids[300], eval_text[300], eval_tasks[300], large[300];

static tms_status evaluate_model(uint64_t ram)
{
    const struct tms_eval_options o = {
        .ids = eval_ids, .base = model, .context = 8, .style = "full", .n_threads = 1, .ram = ram};
    struct tms_eval_result r = {.n_windows = 77};
    tms_status status = tms_evaluate(model, &o, &r, &err);
    assert_true(status == TMS_OK ? r.n_windows == 2 : r.n_windows == 77);
    return status;
}

static tms_status evaluate_at_once(void)
{
    return evaluate_model(0);
}

static tms_status evaluate_bounded(void)
{
    return evaluate_model(1000000000);
}

static tms_status evaluate_text(void)
{
    const struct tms_eval_options o = {.data = eval_text, .base = model, .context = 8, .n_chunks = 1, .n_threads = 1};
    struct tms_eval_result r = {.n_windows = 77};
    tms_status status = tms_evaluate(model, &o, &r, &err);
    assert_true(status == TMS_OK ? r.n_windows == 1 : r.n_windows == 77);
    return status;
}

/* In the least memory that will do, which the program tells; sanitizers keep what is freed, so that it grows. */
static tms_status evaluate_by_layer(void)
{
    struct tms_eval_options o = {.ids = eval_ids, .context = 64, .style = "full", .n_threads = 1};
    struct tms_eval_result r = {0};
    long left = countdown;
    for (unsigned more = 0;; more += 4) {
        unsigned long long tokens = 0, mb = 0;
        countdown = -1;
        o.ram = 1000000;
        assert_int_equal(tms_evaluate(large, &o, &r, &err), TMS_EINPUT);
        const char *says = strstr(err.message, "the least for windows of ");
        if (!says || sscanf(says, "the least for windows of %llu tokens is %llu MB", &tokens, &mb) != 2)
            fail_msg("%s", err.message);
        o.ram = (mb + 1 + more) * 1000000;
        countdown = left;
        tms_status status = tms_evaluate(large, &o, &r, &err);
        if (status == TMS_EINPUT && strstr(err.message, "is too low") && more < 40) continue;
        if (status == TMS_OK) assert_true(r.n_windows == 4 && (r.by_layer || more > 0));
        return status;
    }
}

static tms_status evaluate_questions(void)
{
    const struct tms_eval_options o = {.n_threads = 1};
    struct tms_tasks_result *untouched = (struct tms_tasks_result *)&err, *r = untouched;
    tms_status status = tms_evaluate_tasks(model, eval_tasks, &o, &r, &err);
    if (status == TMS_OK)
        tms_tasks_free(r);
    else
        assert_ptr_equal(r, untouched);
    return status;
}

static void evaluating_survives_failing_allocations(void **state)
{
    (void)state;
    static const char ids[] = "1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7",
                      text[] = "The emperor was the first of them, and the last.",
                      task[] = "{\"question\": \"a\", \"choices\": [\"b c\", \"d\"], \"answer\": 0}\n";
    snprintf(model, sizeof model, "%s", golden("arch/qwen3"));
    snprintf(eval_ids, sizeof eval_ids, "%s", scratch("eval.ids"));
    snprintf(eval_tasks, sizeof eval_tasks, "%s", scratch("eval.jsonl"));
    write_whole(eval_ids, ids, sizeof ids - 1);
    write_whole(eval_tasks, task, sizeof task - 1);
    survives(evaluate_at_once, 100);
    survives(evaluate_bounded, 100);
    json_spared = true;
    survives(evaluate_questions, 100);
    snprintf(eval_text, sizeof eval_text, "%s", scratch("eval.txt"));
    write_whole(eval_text, text, sizeof text - 1);
    survives(evaluate_text, 100);
    json_spared = false;
}

static void evaluating_layer_by_layer_survives_failing_allocations(void **state)
{
    (void)state;
    const char *type = "f32";
    struct tms_quantize_options options = {.types = &type, .n_types = 1, .n_threads = 1};
    struct tms_result *results;
    struct tms_buf ids = {0};
    snprintf(large, sizeof large, "%s", scratch("large.gguf"));
    assert_ok(tms_quantize(pebble(), large, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
    for (int i = 0; i < 4 * 64; i++) tms_buf_printf(&ids, "%d ", 7 * i % 4096);
    snprintf(eval_ids, sizeof eval_ids, "%s", scratch("many.ids"));
    write_whole(eval_ids, ids.data, ids.n);
    tms_buf_free(&ids);
    survives(evaluate_by_layer, 50);
}

/* ---- whole runs: one thread, so that the same allocation fails every time ---- */

static char run_a[1100], run_b[1100];

static void make(const char *from, const char *to, const char *type, const struct tms_quantize_options *more)
{
    struct tms_quantize_options options = *more;
    struct tms_result *results;
    options.types = &type;
    options.n_types = 1;
    options.n_threads = 1;
    options.force = true;
    assert_ok(tms_quantize(from, to, &options, &results, NULL, NULL, &err), err);
    snprintf(run_a, sizeof run_a, "%s", results[0].path);
    snprintf(run_b, sizeof run_b, "%s", from);
    tms_results_free(results, 1);
}

static tms_status diff_run(void)
{
    const struct tms_diff_options options = {.n_threads = 1};
    struct tms_diff *untouched = (struct tms_diff *)&err, *diff = untouched;
    tms_status status = tms_diff_models(&diff, run_a, run_b, &options, &err);
    if (status == TMS_OK)
        tms_diff_free(diff);
    else
        assert_ptr_equal(diff, untouched);
    return status;
}

static void comparing_models_survives_failing_allocations(void **state)
{
    (void)state;
    const struct tms_quantize_options plain = {.n_types = 0};
    char gguf[1100];
    json_spared = true;
    snprintf(gguf, sizeof gguf, "%s", scratch("d.gguf"));
    make(golden("arch/llama2"), gguf, "q8_0", &plain); /* folder and GGUF: names are matched, rows turned */
    survives(diff_run, 100);
    make(golden("arch/qwen2_untied"), scratch("d"), "nf4:dq", &plain);
    survives(diff_run, 100);
}

static void show(void *ctx, const char *line)
{
    (void)ctx;
    print_error("finding: %s\n", line);
}

static tms_status verify_run(void)
{
    const struct tms_verify_options options = {.recipe = {.n_threads = 1}, .finding = show};
    struct tms_verify_result result = {.n_findings = 77};
    tms_status status = tms_verify(run_a, run_b, &options, &result, &err);
    if (status == TMS_OK && !forgiven)
        assert_true(result.n_findings == 0 && result.n_other_types == 0 && result.identical);
    else if (status != TMS_OK)
        assert_int_equal(result.n_findings, 77);
    return status;
}

static void verifying_survives_failing_allocations(void **state)
{
    (void)state;
    const char *types[] = {"ffn_up=q5_0"};
    const struct tms_quantize_options plain = {.n_types = 0}, split = {.split_max_tensors = 10, .provenance = true},
                                      told = {.tensor_types = types, .n_tensor_types = 1, .provenance = true},
                                      sharded = {.max_shard_bytes = 100000};
    char gguf[1100];
    json_spared = true;
    make(golden("arch/llama2"), scratch("v0.gguf"), "q8_0", &told);
    survives(verify_run, 100);
    make(golden("arch/qwen2_untied"), scratch("v1.gguf"), "bf16", &split);
    survives(verify_run, 100);
    snprintf(gguf, sizeof gguf, "%s", run_a);
    make(gguf, scratch("v2"), "nf4:dq", &sharded);
    survives(verify_run, 100);
    make(golden("arch/qwen2_untied"), scratch("v3"), "int8", &sharded);
    survives(verify_run, 100);
    snprintf(gguf, sizeof gguf, "%s", run_a);
    make(gguf, scratch("v4"), "hf:f16", &plain);
    survives(verify_run, 100);
}

static tms_status check_reader_run(void)
{
    size_t n = 77;
    tms_status status = tms_check_reader(run_a, "vllm", NULL, NULL, &n, &err);
    assert_int_equal(n, status == TMS_OK ? 0 : 77);
    return status;
}

static void folders_on_grids_survive_failing_allocations(void **state)
{
    (void)state;
    static const char *const ways[][2] = {{"gptq:4:g32:asym:v1", "q4_1"},
                                          {"awq:g32", "w4a16:g32:asym"},
                                          {"w3a16:g32", "gptq:3:g32"},
                                          {"fp8:tensor", NULL},
                                          {"nvfp4a16", NULL}};
    const struct tms_quantize_options plain = {.n_types = 0}, pure = {.pure = true, .provenance = true};
    char folder[1100], name[32];
    json_spared = true;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        bool gguf = ways[i][1] && ways[i][1][0] == 'q';
        snprintf(name, sizeof name, "grid-%zu", i);
        make(golden("arch/qwen2_untied"), scratch(name), ways[i][0], &plain);
        survives(verify_run, 100);
        survives(check_reader_run, 20);
        if (!ways[i][1]) continue;
        snprintf(folder, sizeof folder, "%s", run_a);
        snprintf(name, sizeof name, "grid-%zu-moved%s", i, gguf ? ".gguf" : "");
        make(folder, scratch(name), ways[i][1], gguf ? &pure : &plain);
        survives(verify_run, 100);
    }
}

/* jansson keeps the functions, so that these are not the wrapped names themselves. */
/* A small layer: Hessian, every method on it, blocks with feedback and flips. */
static tms_status methods_run(void)
{
    enum { ROWS = 40, COLS = 256, TOKENS = 30 };
    static float x[TOKENS * COLS], w[ROWS * COLS], limits[ROWS * 2], scales[ROWS * 2], zeros[ROWS * 2];
    static uint8_t blocks[ROWS * 144], codes[ROWS * COLS];
    uint64_t seed = 1;
    for (size_t i = 0; i < TOKENS * COLS; i++) x[i] = random_normal(&seed);
    for (size_t i = 0; i < ROWS * COLS; i++) w[i] = random_normal(&seed);
    struct tms_pool *pool = NULL;
    struct tms_hessian *hessian = NULL;
    struct tms_feedback_factor factor = {0};
    struct tms_gptq_result gptq = {0};
    struct tms_awq_scales awq = {0};
    struct tms_gptq_options options = {
        .affine = {.bits = 4}, .group = 128, .order = TMS_GPTQ_GROUP_AWARE, .damp = 0.05};
    struct tms_awq_layer layer = {w, ROWS};
    struct tms_awq_options awq_options = {.bits = 4, .group = 128};
    struct tms_hqq_options hqq = {.bits = 4, .group = 128};
    double error;
    tms_status status = tms_pool_create(&pool, 1, &err);
    if (status == TMS_OK) status = tms_hessian_create(&hessian, COLS, &err);
    if (status == TMS_OK) status = tms_hessian_add(hessian, x, COLS, TOKENS, pool, &err);
    if (status == TMS_OK) status = tms_hessian_finish(hessian, pool, &err);
    if (status == TMS_OK) status = tms_gptq(&gptq, w, COLS, ROWS, hessian, &options, pool, &err);
    if (status == TMS_OK) status = tms_gptq_flips(&gptq, w, 4, hessian, 0.05, 2, NULL, pool, &err);
    if (status == TMS_OK)
        status = tms_awq_search(&awq, &layer, 1, x, COLS, hessian, &awq_options, NULL, NULL, pool, &err);
    if (status == TMS_OK) status = tms_awq_clip(w, ROWS, COLS, hessian, &awq_options, limits, pool, &err);
    if (status == TMS_OK) status = tms_hqq(w, ROWS * COLS, &hqq, codes, scales, zeros, pool, &err);
    if (status == TMS_OK) status = tms_feedback_factor_create(&factor, hessian, 0.01, pool, &err);
    struct tms_block_feedback_options block_options = {.n_sweeps = 2, .hessian = hessian};
    if (status == TMS_OK)
        status = tms_block_feedback(blocks, TMS_Q4_K, w, ROWS, &factor, &block_options, NULL, pool, &err);
    if (status == TMS_OK)
        status = tms_block_feedback(blocks, TMS_IQ3_S, w, ROWS, &factor, &block_options, NULL, pool, &err);
    if (status == TMS_OK) status = tms_hessian_error(hessian, w, w, ROWS, &error, pool, &err);
    for (size_t i = 0; hessian && i < 16; i++) hessian->h[i * hessian->ld + i] += 100;
    if (status == TMS_OK) status = tms_positive_inverse(hessian->h, 16, hessian->ld, pool, &err);
    tms_awq_scales_free(&awq);
    tms_gptq_free(&gptq);
    tms_feedback_factor_free(&factor);
    tms_hessian_free(hessian);
    tms_pool_free(pool);
    return status;
}

static void methods_survive_failing_allocations(void **state)
{
    (void)state;
    survives(methods_run, 60);
}

static void *json_malloc(size_t n)
{
    void *p = json_spared ? __real_malloc(n) : __wrap_malloc(n);
    if (!p) forgiven = true;
    return p;
}
static void json_free(void *p)
{
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_reader_survives_failing_allocations),
        cmocka_unit_test(safetensors_layout_survives_failing_allocations),
        cmocka_unit_test(gguf_reader_survives_failing_allocations),
        cmocka_unit_test(imatrix_reader_survives_failing_allocations),
        cmocka_unit_test(gguf_layout_survives_failing_allocations),
        cmocka_unit_test(restoring_a_folder_survives_failing_allocations),
        cmocka_unit_test(running_a_model_survives_failing_allocations),
        cmocka_unit_test(chatting_survives_failing_allocations),
        cmocka_unit_test(evaluating_survives_failing_allocations),
        cmocka_unit_test(evaluating_layer_by_layer_survives_failing_allocations),
        cmocka_unit_test(comparing_models_survives_failing_allocations),
        cmocka_unit_test(verifying_survives_failing_allocations),
        cmocka_unit_test(methods_survive_failing_allocations),
        cmocka_unit_test(folders_on_grids_survive_failing_allocations),
    };
    json_set_alloc_funcs(json_malloc, json_free);
    return cmocka_run_group_tests_name("out of memory", tests, NULL, NULL);
}

/* Calibration: what the inputs of linear layers add up to, importance matrices, runs that are stopped and go on; error
 * feedback inside GGUF's types. */
#include "support.h"

#include <math.h>
#include <sys/stat.h>
#include <tamis/tamis.h>
#include <unistd.h>

#include "base/file.h"
#include "calib/imatrix.h"
#include "calib/layers.h"
#include "calib/stats.h"

static struct tms_error err;

/* Slow builds look at less. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { FEW = 2, TEXT = 24000, WINDOWS = 4 };
#else
enum { FEW = 1, TEXT = 4000, WINDOWS = 1 };
#endif

static const char *text_of(const char *name, size_t n)
{
    static char path[1024];
    size_t all;
    uint8_t *text = read_whole(name, &all);
    snprintf(path, sizeof path, "%s", scratch("text.txt"));
    write_whole(path, text, n < all ? n : all);
    free(text);
    return path;
}

static const char *calib_text(size_t n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/calib.txt", pebble());
    return text_of(path, n);
}

static struct tms_calibrate_result calibrate(const char *model, const char *path,
                                             const struct tms_calibrate_options *options)
{
    struct tms_calibrate_result r;
    assert_ok(tms_calibrate(model, path, options, &r, &err), err);
    return r;
}

/* ---- statistics ---- */

static void statistics_do_not_depend_on_threads_or_memory(void **state)
{
    (void)state;
    struct tms_calibrate_options o = {.data = calib_text(FEW > 1 ? 20000 : 5000), .length = 128, .n_threads = 1};
    char first[1024], second[1024];
    snprintf(first, sizeof first, "%s", scratch("one.stats"));
    snprintf(second, sizeof second, "%s", scratch("two.stats"));
    struct tms_calibrate_result a = calibrate(pebble(), first, &o);
    assert_true(a.n_tokens >= 1024 && a.n_tokens == a.n_sequences * 128);
    assert_int_equal(a.n_coverage, 0);
    tms_calibrate_free(&a);
    o.n_threads = 3;
    struct tms_calibrate_result b = calibrate(pebble(), second, &o);
    tms_calibrate_free(&b);
    assert_same_files(first, second);
    struct tms_error least;
    struct tms_calibrate_result r;
    o.ram = 1000000;
    assert_int_equal(tms_calibrate(pebble(), second, &o, &r, &least), TMS_EINPUT);
    const char *says = strstr(least.message, "the least for sequences of 128 tokens is ");
    assert_non_null(says);
    char work[1100];
    snprintf(work, sizeof work, "%s.work/run.json", second);
    assert_false(tms_path_exists(work)); /* nothing that another run would be stopped by */
    o.ram = 0;
    b = calibrate(pebble(), second, &o);
    tms_calibrate_free(&b);
    assert_same_files(first, second);
    assert_false(tms_path_exists(work));
}

static void sums_are_those_of_llama_imatrix(void **state)
{
    (void)state;
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    char text[1024];
    snprintf(text, sizeof text, "%s/calib.txt", pebble());
    const struct tms_calibrate_options o = {.data = text};
    struct tms_calibrate_result r = calibrate(pebble(), scratch("whole.stats"), &o);
    struct tms_imatrix *ours, *theirs;
    assert_ok(tms_imatrix_open(&ours, scratch("whole.stats"), NULL, &err), err);
    assert_ok(tms_imatrix_open(&theirs, golden("imatrix/pebble.gguf"), NULL, &err), err);
    assert_int_equal(ours->n, theirs->n + 1); /* the output layer, too */
    for (size_t i = 0; i < theirs->n; i++) {
        const struct tms_imatrix_entry *t = &theirs->entries[i], *e = tms_imatrix_find(ours, t->name);
        double sum = 0, away = 0;
        assert_non_null(e);
        assert_int_equal(e->n_values, t->n_values);
        /* llama-imatrix counted 75,258 of the 75,264 tokens */
        for (size_t k = 0; k < t->n_values; k++) {
            sum += (double)t->values[k];
            away += fabs((double)t->values[k] - (double)e->values[k]);
            if (!(fabs((double)e->values[k] / (double)t->values[k] - 1) < 0.02))
                fail_msg("%s: column %zu: %g, not %g", t->name, k, (double)e->values[k], (double)t->values[k]);
        }
        if (!(away < 1e-3 * sum)) fail_msg("%s: away by %g of the sum", t->name, away / sum);
    }
    tms_imatrix_close(ours);
    tms_imatrix_close(theirs);
    tms_calibrate_free(&r);
#else
    skip();
#endif
}

static void importance_matrices_say_the_same_in_all_forms(void **state)
{
    (void)state;
    char paths[3][1024];
    const char *const names[] = {"forms.stats", "forms.gguf", "forms.dat"};
    struct tms_imatrix *forms[3];
    for (size_t i = 0; i < 3; i++) snprintf(paths[i], sizeof paths[i], "%s", scratch(names[i]));
    for (size_t i = 1; i < 3; i++) {
        const struct tms_calibrate_options o = {
            .data = calib_text(6000), .length = 64, .imatrix = paths[i], .process_output = true};
        struct tms_calibrate_result r = calibrate(golden("arch/qwen3"), paths[0], &o);
        tms_calibrate_free(&r);
    }
    for (size_t i = 0; i < 3; i++) assert_ok(tms_imatrix_open(&forms[i], paths[i], NULL, &err), err);
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(forms[i]->n, forms[0]->n);
        for (size_t k = 0; k < forms[0]->n; k++) {
            const struct tms_imatrix_entry *a = &forms[0]->entries[k], *b = &forms[i]->entries[k];
            assert_string_equal(a->name, b->name);
            assert_int_equal(a->n_values, b->n_values);
            for (size_t v = 0; v < a->n_values; v++)
                if (!(fabs((double)a->values[v] - (double)b->values[v]) <= 1e-6 * (double)a->values[v]))
                    fail_msg("%s: value %zu: %g and %g", a->name, v, (double)a->values[v], (double)b->values[v]);
        }
    }
    for (size_t i = 0; i < 3; i++) tms_imatrix_close(forms[i]);
}

static void experts_are_counted_by_the_tokens_that_chose_them(void **state)
{
    (void)state;
    const char *const models[] = {"arch/mixtral", "arch/qwen2_moe", "arch/deepseek_v3"};
    const size_t used[] = {2, 3, 2}, layers[] = {2, 2, 2};
    for (size_t i = 0; i < 3; i++) {
        const struct tms_calibrate_options o = {.data = calib_text(3000), .length = 64};
        struct tms_calibrate_result r = calibrate(golden(models[i]), scratch("experts.stats"), &o);
        assert_int_equal(r.n_coverage, layers[i]);
        for (size_t k = 0; k < r.n_coverage; k++) {
            uint64_t sum = 0;
            for (size_t e = 0; e < r.coverage[k].n_experts; e++) sum += r.coverage[k].tokens[e];
            assert_int_equal(sum, r.n_tokens * used[i]);
        }
        tms_calibrate_free(&r);
    }
}

/* Hessians and histograms of a mixture, whatever threads there are, and as sums of squares have them. */
static void hessians_and_histograms_are_kept_for_every_input(void **state)
{
    (void)state;
    struct tms_calibrate_options o = {
        .data = calib_text(3000), .length = 64, .keep_hessian = true, .histogram = true, .n_threads = 1};
    char one[1024], three[1024];
    snprintf(one, sizeof one, "%s", scratch("one.stats"));
    snprintf(three, sizeof three, "%s", scratch("three.stats"));
    struct tms_calibrate_result r = calibrate(golden("arch/qwen3_moe"), one, &o);
    assert_true(r.n_hessians > 2 * r.coverage[0].n_experts);
    assert_int_equal(r.n_dead, 0);
    tms_calibrate_free(&r);
    o.n_threads = 3;
    r = calibrate(golden("arch/qwen3_moe"), three, &o);
    assert_same_files(one, three);
    struct tms_stats *stats;
    struct tms_stats_input in;
    assert_ok(tms_stats_open(&stats, one, &err), err);
    assert_ok(tms_stats_read(stats, "blk.1.ffn_up_exps.weight", &in, &err), err);
    assert_int_equal(in.parts, r.coverage[1].n_experts);
    uint64_t n_values = 0;
    for (size_t e = 0; e < in.parts; e++) {
        struct tms_hessian *h = NULL;
        assert_ok(tms_stats_hessian(stats, "blk.1.ffn_up_exps.weight", e, in.cols, &h, &err), err);
        assert_int_equal(in.counts[e], r.coverage[1].tokens[e]);
        n_values += (uint64_t)in.counts[e] * in.cols;
        if (!h) assert_int_equal(in.counts[e], 0);
        for (size_t c = 0; h && c < in.cols; c++) {
            double square = 2 * in.squares[e * in.cols + c] / (double)in.counts[e];
            double entry = (double)h->h[c * h->ld + c];
            if (!(fabs(entry - square) <= 1e-5 * square)) fail_msg("expert %zu, %zu: %g, not %g", e, c, entry, square);
            assert_true(h->h[c * h->ld] == h->h[c]);
        }
        tms_hessian_free(h);
    }
    static int64_t counts[TMS_HISTOGRAM_BINS];
    const struct tms_st_tensor *t = tms_safetensors_find(stats->file, "model.layers.1.mlp.experts.gate_proj.histogram");
    assert_non_null(t);
    assert_int_equal(t->bytes, sizeof counts);
    assert_ok(tms_file_read(&stats->file->file, counts, sizeof counts, t->offset, &err), err);
    for (size_t i = 0; i < TMS_HISTOGRAM_BINS; i++) n_values -= (uint64_t)counts[i];
    assert_int_equal(n_values, 0);
    tms_stats_drop(&in);
    tms_stats_close(stats);
    tms_calibrate_free(&r);
}

/* Without --keep-hessian the file only tells what they were like. */
static void hessians_of_layers_in_work_are_told_and_dropped(void **state)
{
    (void)state;
    const struct tms_calibrate_options o = {.data = calib_text(2000), .length = 32, .hessian = true};
    struct tms_calibrate_result r = calibrate(golden("arch/qwen3"), scratch("seen.stats"), &o);
    assert_int_equal(r.n_hessians, r.n_inputs);
    assert_true(r.most_damp >= 0.01);
    tms_calibrate_free(&r);
    struct tms_stats *stats;
    struct tms_hessian *h = NULL;
    assert_ok(tms_stats_open(&stats, scratch("seen.stats"), &err), err);
    assert_non_null(tms_safetensors_find(stats->file, "model.layers.0.mlp.down_proj.damp"));
    assert_int_equal(tms_stats_hessian(stats, "blk.0.ffn_down.weight", 0, 8, &h, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "--keep-hessian"));
    tms_stats_close(stats);
}

static void statistics_of_another_model_are_refused(void **state)
{
    (void)state;
    const struct tms_calibrate_options o = {.data = calib_text(2000), .length = 32};
    struct tms_calibrate_result r = calibrate(golden("arch/qwen3"), scratch("other.stats"), &o);
    tms_calibrate_free(&r);
    const char *type = "q4_0";
    const struct tms_quantize_options q = {.types = &type, .n_types = 1, .imatrix = scratch("other.stats")};
    struct tms_result *results;
    assert_int_equal(tms_quantize(pebble(), scratch("other.gguf"), &q, &results, NULL, NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "statistics of another model, a Qwen3ForCausalLM of fingerprint "));
    assert_non_null(strstr(err.message, " is a Qwen2ForCausalLM of "));
    assert_null(strchr(err.message, '\n'));
}

/* The same from a folder and from the GGUF file made of it. */
static void files_and_folders_have_one_fingerprint(void **state)
{
    (void)state;
    const char *const models[] = {"arch/llama31", "arch/gemma2", "arch/qwen3_moe"};
    for (size_t i = 0; i < 3; i++) {
        const struct tms_quantize_options q = {
            .types = (const char *const[]){"f32"}, .n_types = 1, .n_threads = 1, .no_verify = true};
        struct tms_result *results;
        char gguf[1024];
        struct tms_stats *stats[2];
        snprintf(gguf, sizeof gguf, "%s", scratch("model.gguf"));
        assert_ok(tms_convert(golden(models[i]), gguf, &q, &results, NULL, NULL, &err), err);
        tms_results_free(results, 1);
        for (int k = 0; k < 2; k++) {
            const struct tms_calibrate_options o = {.data = calib_text(2000), .length = 32};
            struct tms_calibrate_result r = calibrate(k ? gguf : golden(models[i]), scratch("f.stats"), &o);
            tms_calibrate_free(&r);
            assert_ok(tms_stats_open(&stats[k], scratch("f.stats"), &err), err);
        }
        for (int k = 0; k < 2; k++) assert_non_null(json_object_get(stats[k]->about, "fingerprint"));
        assert_true(json_equal(json_object_get(stats[0]->about, "fingerprint"),
                               json_object_get(stats[1]->about, "fingerprint")));
        assert_true(
            json_equal(json_object_get(stats[0]->about, "weights"), json_object_get(stats[1]->about, "weights")));
        tms_stats_close(stats[0]);
        tms_stats_close(stats[1]);
    }
}

/* ---- stopped and going on ---- */

static uint64_t stop_at;

static void stop_at_layer(void *ctx, const struct tms_calibrate_progress *p)
{
    (void)ctx;
    if (p->layer >= stop_at) tms_cancel();
}

static void stopped_runs_go_on_and_give_the_same_file(void **state)
{
    (void)state;
    struct tms_calibrate_options o = {.data = calib_text(FEW > 1 ? 30000 : 4000), .length = 128, .n_threads = 2};
    char whole[1024], parts[1024];
    snprintf(whole, sizeof whole, "%s", scratch("whole.stats"));
    snprintf(parts, sizeof parts, "%s", scratch("parts.stats"));
    struct tms_calibrate_result r = calibrate(pebble(), whole, &o);
    tms_calibrate_free(&r);
    o.progress = stop_at_layer;
    for (stop_at = 1; stop_at < 6; stop_at += 2) {
        struct tms_error stopped;
        tms_status status = tms_calibrate(pebble(), parts, &o, &r, &stopped);
        tms_resume();
        if (status == TMS_OK) fail_msg("was not stopped");
        assert_int_equal(status, TMS_ECANCELLED);
        assert_false(tms_path_exists(parts));
    }
    o.progress = NULL;
    struct tms_calibrate_options other = o;
    struct tms_error refused;
    other.length = 64;
    assert_int_equal(tms_calibrate(pebble(), parts, &other, &r, &refused), TMS_EUSAGE);
    assert_non_null(strstr(refused.message, "another run"));
    r = calibrate(pebble(), parts, &o);
    assert_true(r.resumed_at >= 3);
    tms_calibrate_free(&r);
    assert_same_files(whole, parts);
    /* killed between giving the file its name and clearing its work away */
    char work[1100];
    bool same;
    snprintf(work, sizeof work, "%s.work", parts);
    assert_ok(tms_work_open(work, "its work", &same, &err), err);
    o.reuse = true;
    r = calibrate(pebble(), parts, &o);
    tms_calibrate_free(&r);
    assert_false(tms_path_exists(work));
    assert_same_files(whole, parts);
}

/* ---- bad input ---- */

static void calibrate_refuses(const struct tms_calibrate_options *o, tms_status want, const char *fragment)
{
    struct tms_calibrate_result r;
    tms_status status = tms_calibrate(golden("arch/qwen3"), scratch("refused.stats"), o, &r, &err);
    if (status != want || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("status %d, '%s'; wanted '%s'", (int)status, status ? err.message : "", fragment);
    assert_false(tms_path_exists(scratch("refused.stats")));
}

/* Killed while it cleared its work away, a run must not find half of it and take it for the whole. */
static void work_that_is_half_removed_is_not_gone_on_with(void **state)
{
    (void)state;
    char work[1024], about[1100], report[1100];
    bool same;
    snprintf(work, sizeof work, "%s", scratch("half.work"));
    snprintf(about, sizeof about, "%s/run.json", work);
    snprintf(report, sizeof report, "%s/report-00000", work);
    assert_ok(tms_work_open(work, "a run", &same, &err), err);
    assert_false(same);
    write_whole(report, "1", 1);
    assert_ok(tms_work_open(work, "a run", &same, &err), err);
    assert_true(same && tms_path_exists(report));
    assert_int_equal(tms_work_open(work, "another", &same, &err), TMS_EUSAGE);
    assert_int_equal(truncate(about, 0), 0); /* the first step of a removal */
    assert_ok(tms_work_open(work, "another", &same, &err), err);
    assert_true(!same && !tms_path_exists(report));
    tms_work_remove(work);
    assert_false(tms_path_exists(work));
}

static void folders_of_others_are_left_alone(void **state)
{
    (void)state;
    char work[1024], file[1100];
    bool same;
    snprintf(work, sizeof work, "%s", scratch("others.work"));
    snprintf(file, sizeof file, "%s/letter.txt", work);
    assert_int_equal(mkdir(work, 0777), 0);
    write_whole(file, "1", 1);
    assert_int_equal(tms_work_open(work, "a run", &same, &err), TMS_EUSAGE);
    assert_non_null(strstr(err.message, "holds other files"));
    tms_work_remove(work);
    assert_true(tms_path_exists(file));
}

static void bad_texts_are_refused_in_one_line(void **state)
{
    (void)state;
    calibrate_refuses(&(struct tms_calibrate_options){0}, TMS_EUSAGE, "text");
    calibrate_refuses(&(struct tms_calibrate_options){.data = scratch("no.txt")}, TMS_EINPUT, "no such file");
    calibrate_refuses(&(struct tms_calibrate_options){.data = calib_text(100)}, TMS_EINPUT, "too few");
    calibrate_refuses(&(struct tms_calibrate_options){.data = calib_text(100), .length = 3}, TMS_EUSAGE, "too short");
    static const char bad[] = "{\"text\": \"The first line is good enough for anyone.\"}\n{\"txt\": 1}\n";
    write_whole(scratch("bad.jsonl"), bad, sizeof bad - 1);
    calibrate_refuses(&(struct tms_calibrate_options){.data = scratch("bad.jsonl")}, TMS_EINPUT, "line 2");
    write_whole(scratch("empty.jsonl"), "\n\n", 2);
    calibrate_refuses(&(struct tms_calibrate_options){.data = scratch("empty.jsonl")}, TMS_EINPUT, "no line");
}

static void lines_of_json_are_sequences(void **state)
{
    (void)state;
    static const char lines[] = "{\"text\": \"One two three four five six seven eight nine ten eleven twelve.\"}\n"
                                "\n{\"text\": \"Short.\", \"more\": 1}\r\n";
    write_whole(scratch("lines.jsonl"), lines, sizeof lines - 1);
    struct tms_calibrate_options o = {.data = scratch("lines.jsonl"), .length = 16};
    struct tms_calibrate_result r = calibrate(golden("arch/qwen3"), scratch("lines.stats"), &o);
    assert_int_equal(r.n_sequences, 2);
    assert_true(r.n_tokens > 16 && r.n_tokens < 32);
    tms_calibrate_free(&r);
}

static json_t *ids_of(const char *data, const char *template_name)
{
    const struct tms_calibrate_options o = {
        .data = data, .length = 128, .no_bos = true, .parse_special = true, .template_name = template_name};
    struct tms_calibrate_result r = calibrate(golden("arch/qwen3"), scratch("ids.stats"), &o);
    struct tms_stats *stats;
    tms_calibrate_free(&r);
    assert_ok(tms_stats_open(&stats, scratch("ids.stats"), &err), err);
    json_t *ids = json_incref(json_object_get(stats->about, "ids"));
    tms_stats_close(stats);
    return ids;
}

static void lines_with_messages_are_written_by_the_template(void **state)
{
    (void)state;
    static const char chat[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": "
        "\"Where is the sea?\"}, {\"role\": \"assistant\", \"content\": \"In the west.\"}]}\n";
    static const char text[] =
        "{\"text\": \"<|im_start|>system\\nBe brief.<|im_end|>\\n<|im_start|>user\\nWhere is the "
        "sea?<|im_end|>\\n<|im_start|>assistant\\nIn the west.<|im_end|>\\n\"}\n";
    char lines[1024], plain[1024];
    snprintf(lines, sizeof lines, "%s", scratch("chat.jsonl"));
    snprintf(plain, sizeof plain, "%s", scratch("plain.jsonl"));
    write_whole(lines, chat, sizeof chat - 1);
    write_whole(plain, text, sizeof text - 1);
    json_t *a = ids_of(lines, "chatml"), *b = ids_of(plain, NULL);
    assert_non_null(a);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    calibrate_refuses(&(struct tms_calibrate_options){.data = lines}, TMS_EINPUT, "chat template");
    calibrate_refuses(&(struct tms_calibrate_options){.data = lines, .template_name = "none"}, TMS_EINPUT, "chatml");
    static const char odd[] = "{\"messages\": [{\"role\": \"user\", \"content\": [1]}]}\n";
    write_whole(lines, odd, sizeof odd - 1);
    calibrate_refuses(&(struct tms_calibrate_options){.data = lines, .template_name = "chatml"}, TMS_EINPUT,
                      "line 1: message 1 is no");
    static const char turns[] = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"Hm\"}]}\n";
    write_whole(lines, turns, sizeof turns - 1);
    calibrate_refuses(&(struct tms_calibrate_options){.data = lines, .template_name = "chatml"}, TMS_EINPUT,
                      "line 1: message 1 of the conversation is of role 'assistant'");
}

static void damaged_statistics_are_refused(void **state)
{
    (void)state;
    const struct tms_calibrate_options o = {.data = calib_text(2000), .length = 32};
    char path[1024];
    snprintf(path, sizeof path, "%s", scratch("damaged.stats"));
    struct tms_calibrate_result r = calibrate(golden("arch/qwen3"), path, &o);
    tms_calibrate_free(&r);
    struct tms_stats *stats;
    struct tms_imatrix *imatrix = NULL;
    assert_ok(tms_stats_open(&stats, path, &err), err);
    const struct tms_st_tensor *t = tms_safetensors_find(stats->file, "model.layers.0.self_attn.q_proj.sum_squares");
    assert_non_null(t);
    size_t n;
    uint8_t *bytes = read_whole(path, &n);
    memset(bytes + t->offset + 8, 0xff, 8); /* a NaN */
    write_whole(path, bytes, n);
    tms_stats_close(stats);
    assert_int_equal(tms_imatrix_open(&imatrix, path, NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "no sum of squares"));
    write_whole(path, bytes, n / 2);
    assert_int_equal(tms_imatrix_open(&imatrix, path, NULL, &err), TMS_EINPUT);
    free(bytes);
}

/* ---- error feedback inside GGUF's types ---- */

static void quantize(const char *model, const char *type, const char *out, const struct tms_quantize_options *how)
{
    struct tms_quantize_options o = how ? *how : (struct tms_quantize_options){0};
    struct tms_result *results;
    o.types = &type;
    o.n_types = 1;
    assert_ok(tms_quantize(model, out, &o, &results, NULL, NULL, &err), err);
    assert_true(results[0].verified);
    tms_results_free(results, 1);
}

static double divergence(const char *model, const char *base)
{
    char text[1024];
    snprintf(text, sizeof text, "%s/eval.txt", pebble());
    const struct tms_eval_options o = {.data = text, .base = base, .context = 256, .n_chunks = WINDOWS};
    struct tms_eval_result r;
    assert_ok(tms_evaluate(model, &o, &r, &err), err);
    return r.kl.mean.value;
}

static void feedback_loses_less_than_rounding(void **state)
{
    (void)state;
    const char *const types[] = {"q4_k_m", "q2_k"};
    const struct tms_quantize_options gptq = {
        .method = "gptq", .data = calib_text(TEXT), .sample_length = 256, .n_threads = 2};
    for (size_t i = 0; i < FEW; i++) {
        quantize(pebble(), types[i], scratch("rtn.gguf"), NULL);
        quantize(pebble(), types[i], scratch("gptq.gguf"), &gptq);
        double plain = divergence(scratch("rtn.gguf"), pebble()), fed = divergence(scratch("gptq.gguf"), pebble());
        print_message("%s: KL divergence %.5f, %.5f without feedback\n", types[i], fed, plain);
        if (!(fed < (FEW > 1 ? 0.8 : 1.0) * plain)) fail_msg("%s: %g is not much less than %g", types[i], fed, plain);
    }
}

/* Folders for GPTQ, AWQ and compressed-tensors readers, by GPTQ over a text. */
static void grids_lose_less_with_feedback_and_the_same_for_all_threads(void **state)
{
    (void)state;
    const char *const types[] = {"gptq:4:g128", "w4a16:asym", "gptq:3:g64:act"};
    struct tms_quantize_options gptq = {
        .method = "gptq", .data = calib_text(TEXT), .sample_length = 256, .force = true};
    for (size_t i = 0; i < (FEW > 1 ? 3 : 1); i++) {
        char one[1100], three[1100];
        const struct tms_quantize_options plain = {.force = true};
        quantize(pebble(), i < 2 ? types[i] : "gptq:3:g64", scratch("rtn"), &plain);
        gptq.n_threads = 1;
        quantize(pebble(), types[i], scratch("one"), &gptq);
        gptq.n_threads = 3;
        quantize(pebble(), types[i], scratch("three"), &gptq);
        snprintf(one, sizeof one, "%s/model.safetensors", scratch("one"));
        snprintf(three, sizeof three, "%s/model.safetensors", scratch("three"));
        assert_same_files(one, three);
        double rounded = divergence(scratch("rtn"), pebble()), fed = divergence(scratch("one"), pebble());
        print_message("%s: KL divergence %.5f, %.5f without feedback\n", types[i], fed, rounded);
        if (!(fed < (FEW > 1 ? 0.8 : 1.0) * rounded))
            fail_msg("%s: %g is not much less than %g", types[i], fed, rounded);
    }
}

static void fed_files_are_the_same_for_all_threads(void **state)
{
    (void)state;
    struct tms_quantize_options how = {
        .method = "gptq", .data = calib_text(12000), .sample_length = 128, .n_threads = 1};
    const char *const models[] = {"arch/llama31", "arch/mixtral", "arch/phi3", "arch/deepseek_v2"};
    for (size_t i = 0; i < 4; i++) {
        how.n_threads = 1;
        quantize(golden(models[i]), "q4_0", scratch("one.gguf"), &how);
        how.n_threads = 3;
        quantize(golden(models[i]), "q4_0", scratch("three.gguf"), &how);
        assert_same_files(scratch("one.gguf"), scratch("three.gguf"));
    }
}

static void feedback_refuses(const char *type, struct tms_quantize_options o, const char *fragment)
{
    struct tms_result *results = NULL;
    o.types = &type;
    o.n_types = 1;
    tms_status status = tms_quantize(golden("arch/qwen3"), scratch("refused.gguf"), &o, &results, NULL, NULL, &err);
    if (status == TMS_OK || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("status %d, '%s'; wanted '%s'", (int)status, status ? err.message : "", fragment);
    assert_false(tms_path_exists(scratch("refused.gguf")));
}

static void methods_that_cannot_be_are_refused(void **state)
{
    (void)state;
    feedback_refuses("q4_0", (struct tms_quantize_options){.method = "magic"}, "unknown");
    feedback_refuses("q4_0", (struct tms_quantize_options){.method = "gptq"}, "--data");
    feedback_refuses("q4_0", (struct tms_quantize_options){.method = "search"}, "--imatrix");
    feedback_refuses("q4_0", (struct tms_quantize_options){.data = calib_text(100)}, "a text is for");
    feedback_refuses("nf4", (struct tms_quantize_options){.method = "gptq", .data = calib_text(5000)},
                     "is for GGUF types");
    feedback_refuses("q4_0", (struct tms_quantize_options){.method = "gptq", .data = calib_text(100)}, "too few");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_do_not_depend_on_threads_or_memory),
        cmocka_unit_test(sums_are_those_of_llama_imatrix),
        cmocka_unit_test(importance_matrices_say_the_same_in_all_forms),
        cmocka_unit_test(experts_are_counted_by_the_tokens_that_chose_them),
        cmocka_unit_test(hessians_and_histograms_are_kept_for_every_input),
        cmocka_unit_test(hessians_of_layers_in_work_are_told_and_dropped),
        cmocka_unit_test(statistics_of_another_model_are_refused),
        cmocka_unit_test(files_and_folders_have_one_fingerprint),
        cmocka_unit_test(stopped_runs_go_on_and_give_the_same_file),
        cmocka_unit_test(work_that_is_half_removed_is_not_gone_on_with),
        cmocka_unit_test(folders_of_others_are_left_alone),
        cmocka_unit_test(bad_texts_are_refused_in_one_line),
        cmocka_unit_test(lines_of_json_are_sequences),
        cmocka_unit_test(lines_with_messages_are_written_by_the_template),
        cmocka_unit_test(damaged_statistics_are_refused),
        cmocka_unit_test(feedback_loses_less_than_rounding),
        cmocka_unit_test(grids_lose_less_with_feedback_and_the_same_for_all_threads),
        cmocka_unit_test(fed_files_are_the_same_for_all_threads),
        cmocka_unit_test(methods_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

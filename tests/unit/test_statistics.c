/* Statistics as the source of error feedback: one file for all types, and what is wrong with files, Hessians, models.
 */
#include "support.h"

#include <math.h>
#include <sys/stat.h>
#include <tamis/tamis.h>

#include "base/file.h"
#include "calib/layers.h"
#include "calib/stats.h"

static struct tms_error err;

/* Slow builds look at less. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { TEXT = 16000, WINDOWS = 3, TYPES = 3 };
#else
enum { TEXT = 3000, WINDOWS = 1, TYPES = 2 };
#endif

static const char *calib_text(size_t n)
{
    static char path[1024];
    char from[1024];
    size_t all;
    snprintf(from, sizeof from, "%s/calib.txt", pebble());
    uint8_t *text = read_whole(from, &all);
    snprintf(path, sizeof path, "%s", scratch("text.txt"));
    write_whole(path, text, n < all ? n : all);
    free(text);
    return path;
}

/* The path of statistics with Hessians. */
static const char *statistics(const char *model, const char *name, size_t text, uint64_t length)
{
    static char path[1024];
    const struct tms_calibrate_options o = {.data = calib_text(text), .length = length, .keep_hessian = true};
    struct tms_calibrate_result r;
    snprintf(path, sizeof path, "%s", scratch(name));
    assert_ok(tms_calibrate(model, path, &o, &r, &err), err);
    tms_calibrate_free(&r);
    return path;
}

/* The numbers of a tensor of the file, changed by `change`, written back. */
static void change_tensor(const char *path, const char *tensor, void (*change)(void *values, uint64_t n))
{
    struct tms_stats *stats;
    size_t n;
    assert_ok(tms_stats_open(&stats, path, &err), err);
    const struct tms_st_tensor *t = tms_safetensors_find(stats->file, tensor);
    if (!t) fail_msg("%s: no tensor '%s'", path, tensor);
    uint64_t offset = t->offset, n_elems = t->n_elems;
    tms_stats_close(stats);
    uint8_t *bytes = read_whole(path, &n);
    change(bytes + offset, n_elems);
    write_whole(path, bytes, n);
    free(bytes);
}

/* Replaces bytes of the header by as many others. */
static void change_header(const char *path, const char *from, const char *to)
{
    size_t n, length = strlen(from);
    uint8_t *bytes = read_whole(path, &n);
    assert_int_equal(length, strlen(to));
    for (size_t i = 0; i + length <= n; i++) {
        if (memcmp(bytes + i, from, length) != 0) continue;
        memcpy(bytes + i, to, length);
        write_whole(path, bytes, n);
        free(bytes);
        return;
    }
    fail_msg("%s: '%s' is not in it", path, from);
}

static struct tms_result quantize(const char *model, const char *type, const char *out,
                                  const struct tms_quantize_options *how)
{
    struct tms_quantize_options o = *how;
    struct tms_result *results, first;
    if (!o.method) o.method = "gptq";
    o.types = &type;
    o.n_types = 1;
    o.force = true;
    assert_ok(tms_quantize(model, out, &o, &results, NULL, NULL, &err), err);
    assert_true(results[0].verified);
    first = results[0];
    tms_results_free(results, 1);
    return first;
}

/* True if the run left its folder of work, which is removed. */
static bool refuses(const char *model, const char *type, const struct tms_quantize_options *how, const char *fragment)
{
    struct tms_quantize_options o = *how;
    struct tms_result *results = NULL;
    char out[1024], work[1100];
    snprintf(out, sizeof out, "%s", scratch("refused.gguf"));
    snprintf(work, sizeof work, "%s.work", out);
    if (!o.method) o.method = "gptq";
    o.types = &type;
    o.n_types = 1;
    tms_status status = tms_quantize(model, out, &o, &results, NULL, NULL, &err);
    if (status == TMS_OK || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("status %d, '%s'; wanted '%s'", (int)status, status ? err.message : "", fragment);
    assert_false(tms_path_exists(out));
    bool left = tms_path_exists(work);
    tms_work_remove(work);
    return left;
}

static double divergence(const char *model)
{
    char text[1024];
    snprintf(text, sizeof text, "%s/eval.txt", pebble());
    const struct tms_eval_options o = {.data = text, .base = pebble(), .context = 256, .n_chunks = WINDOWS};
    struct tms_eval_result r;
    assert_ok(tms_evaluate(model, &o, &r, &err), err);
    return r.kl.mean.value;
}

/* ---- what they are good for ---- */

static void one_file_serves_all_types(void **state)
{
    (void)state;
    const char *const types[] = {"q2_k", "gptq:4:g128", "q4_0"}, *const names[] = {"q2_k.gguf", "gptq-4-g128",
                                                                                   "q4_0.gguf"};
    const char *model = WINDOWS > 1 ? pebble() : golden("arch/qwen3");
    const char *stats = statistics(model, "hessians.stats", TEXT, 128);
    struct tms_quantize_options o = {
        .method = "gptq", .stats = stats, .types = types, .n_types = TYPES, .n_threads = 1, .force = true};
    struct tms_result *results;
    char all[1024];
    snprintf(all, sizeof all, "%s", scratch("all"));
    assert_ok(tms_quantize(model, all, &o, &results, NULL, NULL, &err), err);
    for (size_t i = 0; i < TYPES; i++) {
        char path[1100], alone[1100];
        assert_true(results[i].verified && results[i].n_seen > 0 && results[i].n_unseen == 0);
        snprintf(path, sizeof path, "%s%s", results[i].path, i == 1 ? "/model.safetensors" : "");
        o.n_threads = 3;
        quantize(model, types[i], scratch(names[i]), &o);
        snprintf(alone, sizeof alone, "%s%s", scratch(names[i]), i == 1 ? "/model.safetensors" : "");
        assert_same_files(path, alone);
    }
    if (WINDOWS > 1) { /* less text says too little of wide inputs */
        const char *plain = "q2_k";
        const struct tms_quantize_options rtn = {.types = &plain, .n_types = 1};
        struct tms_result *rounded;
        assert_ok(tms_quantize(model, scratch("plain.gguf"), &rtn, &rounded, NULL, NULL, &err), err);
        double without = divergence(rounded[0].path), with = divergence(results[0].path);
        print_message("q2_k: KL divergence %.5f, %.5f without feedback\n", with, without);
        if (!(with < 0.9 * without)) fail_msg("%g is not much less than %g", with, without);
        tms_results_free(rounded, 1);
    }
    tms_results_free(results, TYPES);
}

/* Those that fold scales, too: from the layer's inputs as statistics have them. Nearly what a walk finds. */
static void methods_with_scales_take_statistics(void **state)
{
    (void)state;
    const char *const methods[] = {"awq", "awq+gptq", "smooth", "smooth+gptq"};
    const char *const models[] = {"arch/qwen3", "arch/qwen3_moe"};
    for (size_t k = 0; k < 2; k++) {
        const char *stats = statistics(golden(models[k]), "scales.stats", 3000, 64);
        for (size_t i = 0; i < 4; i++) {
            struct tms_quantize_options o = {.method = methods[i], .stats = stats};
            struct tms_result a = quantize(golden(models[k]), "q4_0", scratch("a.gguf"), &o);
            o = (struct tms_quantize_options){.method = methods[i], .data = calib_text(3000), .sample_length = 64};
            struct tms_result b = quantize(golden(models[k]), "q4_0", scratch("b.gguf"), &o);
            assert_int_equal(a.n_seen, b.n_seen);
            assert_int_equal(a.n_unseen, b.n_unseen);
            if (!(fabs(a.rms_error / b.rms_error - 1) < 0.05))
                fail_msg("%s %s: errors %g and %g", models[k], methods[i], a.rms_error, b.rms_error);
        }
    }
}

static void statistics_of_a_folder_serve_its_gguf(void **state)
{
    (void)state;
    const char *const models[] = {"arch/llama31", "arch/deepseek_v2", "arch/phi3"}, *type = "f32";
    for (size_t i = 0; i < 3; i++) {
        const struct tms_quantize_options convert = {.types = &type, .n_types = 1};
        struct tms_result *results;
        char gguf[1024];
        snprintf(gguf, sizeof gguf, "%s", scratch("model.gguf"));
        assert_ok(tms_convert(golden(models[i]), gguf, &convert, &results, NULL, NULL, &err), err);
        tms_results_free(results, 1);
        const struct tms_quantize_options o = {.stats = statistics(golden(models[i]), "folder.stats", 3000, 64)};
        struct tms_result a = quantize(golden(models[i]), "q4_0", scratch("a.gguf"), &o);
        struct tms_result b = quantize(gguf, "q4_0", scratch("b.gguf"), &o);
        assert_true(a.n_seen > 0 && a.n_seen == b.n_seen);
        if (fabs(a.rms_error / b.rms_error - 1) > 1e-3) fail_msg("errors %g and %g", a.rms_error, b.rms_error);
    }
}

static void stages_of_a_layer_follow_one_another(void **state)
{
    (void)state;
    const char *const models[] = {"arch/qwen3", "arch/mixtral", "arch/deepseek_v3", "arch/phi3"};
    for (size_t i = 0; i < 4; i++) {
        struct tms_quantize_options o = {.data = calib_text(3000), .sample_length = 64};
        o.imatrix = statistics(golden(models[i]), "weights.stats", 3000, 64); /* the same keys in both files */
        struct tms_result plain = quantize(golden(models[i]), "q4_0", scratch("plain.gguf"), &o);
        o.sequential = true;
        struct tms_result staged = quantize(golden(models[i]), "q4_0", scratch("staged.gguf"), &o);
        assert_int_equal(plain.n_seen, staged.n_seen);
        assert_int_equal(plain.n_unseen, staged.n_unseen);
        size_t n, m;
        uint8_t *a = read_whole(scratch("plain.gguf"), &n), *b = read_whole(scratch("staged.gguf"), &m);
        assert_int_equal(n, m);
        assert_memory_not_equal(a, b, n);
        free(a);
        free(b);
        o.method = "awq+gptq";
        struct tms_result scaled = quantize(golden(models[i]), "q4_0", scratch("scaled.gguf"), &o);
        assert_int_equal(plain.n_seen, scaled.n_seen);
    }
}

static void rarely_seen_experts_are_counted_in_report_and_manifest(void **state)
{
    (void)state;
    char manifest[1024];
    snprintf(manifest, sizeof manifest, "%s", scratch("manifest.json"));
    const struct tms_quantize_options o = {
        .data = calib_text(3000), .sample_length = 16, .n_samples = 1, .manifest = manifest};
    struct tms_result r = quantize(golden("arch/qwen3_moe"), "q4_0", scratch("rare.gguf"), &o);
    assert_true(r.n_unseen > 0 && r.n_seen > 0);
    size_t n;
    char want[64], *text = (char *)read_whole(manifest, &n);
    snprintf(want, sizeof want, "\"matrices_too_rarely_seen\": %zu", r.n_unseen);
    text = realloc(text, n + 1);
    text[n] = '\0';
    if (!strstr(text, want)) fail_msg("'%s' is not in %s", want, text);
    free(text);
}

/* ---- memory ---- */

static struct {
    uint64_t last;
    size_t n_again;
} walks;

/* A walk over a layer that was walked before begins with less than was done. */
static void count_walks(void *ctx, const struct tms_progress *p)
{
    (void)ctx;
    if (strcmp(p->what, "calibrating") != 0) return;
    walks.n_again += p->done < walks.last;
    walks.last = p->done;
}

static size_t walks_of(const char *model, const char *out, struct tms_quantize_options o)
{
    walks.last = walks.n_again = 0;
    o.progress = count_walks;
    quantize(model, "q4_0", out, &o);
    return walks.n_again;
}

static void a_text_is_read_once_for_all_types(void **state)
{
    (void)state;
    const char *const types[] = {"q4_0", "gptq:4:g32", "q2_k"}, *model = golden("arch/qwen3");
    char out[1024], file[1100], alone[1024], left[1100];
    struct tms_result *results;
    struct tms_quantize_options o = {
        .data = calib_text(3000), .sample_length = 64, .method = "gptq", .types = types, .n_types = 3, .n_threads = 2};
    snprintf(out, sizeof out, "%s", scratch("of-a-text"));
    snprintf(alone, sizeof alone, "%s", scratch("alone.gguf"));
    snprintf(left, sizeof left, "%s.work.stats", out);
    walks.last = walks.n_again = 0;
    o.progress = count_walks;
    assert_ok(tms_quantize(model, out, &o, &results, NULL, NULL, &err), err);
    tms_results_free(results, 3);
    assert_int_equal(walks.n_again, 3); /* the codes of each type follow */
    assert_false(tms_path_exists(left));
    /* statistics of another text, which a run that was stopped left, are not taken */
    snprintf(left, sizeof left, "%s.work.stats", alone);
    assert_int_equal(rename(statistics(model, "other.stats", 2000, 64), left), 0);
    const struct tms_quantize_options one = {.data = calib_text(3000), .sample_length = 64};
    quantize(model, types[0], alone, &one);
    assert_false(tms_path_exists(left));
    snprintf(file, sizeof file, "%s/qwen3-q4_0.gguf", out);
    assert_same_files(file, alone);
}

static void experts_wait_for_one_another_where_memory_is_short(void **state)
{
    (void)state;
    if (WINDOWS == 1) skip(); /* sanitizers hold memory of their own */
    const char *model = golden("arch/qwen3_moe"), *type = "q4_0";
    char all[1024], some[1024];
    snprintf(all, sizeof all, "%s", scratch("all.gguf"));
    snprintf(some, sizeof some, "%s", scratch("some.gguf"));
    struct tms_quantize_options o = {
        .data = calib_text(3000), .sample_length = 64, .method = "gptq", .types = &type, .n_types = 1, .n_threads = 1};
    o.sequential = true; /* else statistics are gathered, see below */
    size_t once = walks_of(model, all, o);
    struct tms_result *results;
    unsigned least = 0;
    o.ram = 1;
    assert_int_equal(tms_quantize(model, some, &o, &results, NULL, NULL, &err), TMS_EINPUT);
    const char *says = strstr(err.message, "64 tokens is ");
    if (!says || sscanf(says, "64 tokens is %u MB", &least) != 1) fail_msg("'%s'", err.message);
    o.ram = (uint64_t)least * 1000000 + 500000;
    size_t often = walks_of(model, some, o);
    if (!(often > once)) fail_msg("%zu walks again, %zu without a limit of %u MB", often, once, least);
    assert_same_files(some, all);
}

static void statistics_are_the_same_where_memory_is_short(void **state)
{
    (void)state;
    if (WINDOWS == 1) skip();
    const char *model = golden("arch/qwen3_moe"), *whole = statistics(model, "all.stats", 3000, 64);
    char some[1024];
    snprintf(some, sizeof some, "%s", scratch("some.stats"));
    struct tms_calibrate_options o = {
        .data = calib_text(3000), .length = 64, .keep_hessian = true, .n_threads = 1, .ram = 1};
    struct tms_calibrate_result r;
    unsigned least = 0;
    assert_int_equal(tms_calibrate(model, some, &o, &r, &err), TMS_EINPUT);
    const char *says = strstr(err.message, "64 tokens is ");
    if (!says || sscanf(says, "64 tokens is %u MB", &least) != 1) fail_msg("'%s'", err.message);
    o.ram = (uint64_t)least * 1000000 + 500000;
    assert_ok(tms_calibrate(model, some, &o, &r, &err), err);
    tms_calibrate_free(&r);
    assert_same_files(some, whole);
}

/* ---- odd Hessians ---- */

enum { COLS = 64 };
static const char of_q[] = "model.layers.0.self_attn.q_proj.hessian";

static size_t place(size_t row, size_t col)
{
    return row * (row + 1) / 2 + col;
}

static void kill_channels(void *values, uint64_t n)
{
    float *h = values;
    assert_int_equal(n, COLS * (COLS + 1) / 2);
    for (size_t i = 0; i < COLS; i++)
        for (size_t j = 0; j <= i; j++)
            if (i % 5 == 0 || j % 5 == 0) h[place(i, j)] = 0;
}

static void kill_all(void *values, uint64_t n)
{
    memset(values, 0, n * sizeof(float));
}

/* Ones, and an entry beside them that is too large: eigenvalues 1 - x and 1 + x. */
static void make_indefinite(float *h, float x)
{
    memset(h, 0, COLS * (COLS + 1) / 2 * sizeof *h);
    for (size_t i = 0; i < COLS; i++) h[place(i, i)] = 1;
    h[place(9, 4)] = x;
}

static void make_slightly_indefinite(void *values, uint64_t n)
{
    (void)n;
    make_indefinite(values, 1.4F); /* the diagonal has become 1.3 before it is damped */
}

static void make_hopeless(void *values, uint64_t n)
{
    (void)n;
    make_indefinite(values, 50);
}

static void make_nan(void *values, uint64_t n)
{
    (void)n;
    ((float *)values)[7] = NAN;
}

static void make_negative(void *values, uint64_t n)
{
    (void)n;
    ((int64_t *)values)[0] = -3;
}

static size_t n_warnings;

static void keep_warning(void *ctx, const char *line)
{
    snprintf(ctx, 512, "%s", line);
    n_warnings++;
}

static void dead_channels_and_damping(void **state)
{
    (void)state;
    const char *stats = statistics(golden("arch/qwen3"), "odd.stats", 3000, 64);
    char line[512] = "";
    const struct tms_quantize_options o = {.stats = stats, .warning = keep_warning, .warning_ctx = line};
    n_warnings = 0;
    change_tensor(stats, of_q, kill_channels);
    quantize(golden("arch/qwen3"), "q4_0", scratch("dead.gguf"), &o);
    quantize(golden("arch/qwen3"), "gptq:4:g32", scratch("dead"), &o);
    change_tensor(stats, of_q, kill_all);
    struct tms_result r = quantize(golden("arch/qwen3"), "q4_0", scratch("dead.gguf"), &o);
    assert_int_equal(r.n_raised, 0);
    assert_int_equal(n_warnings, 0);
    change_tensor(stats, of_q, make_slightly_indefinite);
    const char *const types[] = {"q4_0", "gptq:4:g32"};
    for (size_t i = 0; i < 2; i++) {
        r = quantize(golden("arch/qwen3"), types[i], scratch(i ? "raised" : "raised.gguf"), &o);
        assert_int_equal(r.n_raised, 1);
        assert_true(r.most_damp > 0.05 && r.most_damp < 0.2);
        assert_int_equal(n_warnings, i + 1);
        assert_non_null(strstr(line, "1 Hessians were not positive definite; their damping was raised"));
    }
    change_tensor(stats, of_q, make_hopeless);
    /* nothing is left to go on with, that would stop another run */
    assert_false(refuses(golden("arch/qwen3"), "q4_0", &o, "the Hessian of 'model.layers.0.self_attn.q_proj.weight'"));
    refuses(golden("arch/qwen3"), "gptq:4:g32", &o, "is not positive definite");
}

/* ---- what is refused ---- */

static void files_that_are_damaged_or_lack_hessians_are_refused(void **state)
{
    (void)state;
    char good[1024], bad[1024];
    size_t n;
    snprintf(good, sizeof good, "%s", statistics(golden("arch/qwen3"), "good.stats", 3000, 64));
    uint8_t *bytes = read_whole(good, &n);
    snprintf(bad, sizeof bad, "%s", scratch("bad.stats"));
    const struct tms_quantize_options o = {.stats = bad};
    for (size_t part = 0; part < 6; part++) {
        write_whole(bad, bytes, n * part / 6);
        refuses(golden("arch/qwen3"), "q4_0", &o, "bad.stats: ");
    }
    write_whole(bad, bytes, n);
    change_tensor(bad, of_q, make_nan);
    refuses(golden("arch/qwen3"), "q4_0", &o, "'model.layers.0.self_attn.q_proj.hessian': nan in row 3, column 1");
    write_whole(bad, bytes, n);
    change_tensor(bad, "model.layers.1.mlp.down_proj.count", make_negative);
    refuses(golden("arch/qwen3"), "q4_0", &o, "count 0 is negative");
    write_whole(bad, bytes, n);
    change_header(bad, "[1,2080]", "[2080,1]");
    refuses(golden("arch/qwen3"), "q4_0", &o, "as 64 columns need it");
    write_whole(bad, bytes, n);
    change_header(bad, "self_attn.q_proj.hessian", "self_attn.q_proj.hessiam");
    refuses(golden("arch/qwen3"), "q4_0", &o, "--keep-hessian");
    refuses(pebble(), "q4_0", &(struct tms_quantize_options){.stats = good}, "statistics of another model");
    refuses(pebble(), "q4_0", &(struct tms_quantize_options){.stats = scratch("none")}, "no such file");
    refuses(pebble(), "q4_0", &(struct tms_quantize_options){.stats = good, .data = bad}, "do not go together");
    refuses(pebble(), "q4_0", &(struct tms_quantize_options){.stats = good, .sequential = true}, "--sequential");
    refuses(pebble(), "q4_0", &(struct tms_quantize_options){.stats = good, .method = "rtn"}, "methods gptq, awq");
    refuses(golden("arch/qwen3"), "nf4", &(struct tms_quantize_options){.stats = good}, "is for GGUF types");
    free(bytes);
}

/* A copy of a model with one weight that is no number. */
static const char *broken_model(float value)
{
    static char to[1024];
    const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"};
    snprintf(to, sizeof to, "%s", scratch("broken"));
    (void)mkdir(to, 0777);
    for (size_t i = 0; i < 4; i++) {
        char from[1100], path[1100];
        size_t n;
        snprintf(from, sizeof from, "%s/%s", golden("arch/qwen3"), files[i]);
        snprintf(path, sizeof path, "%s/%s", to, files[i]);
        uint8_t *bytes = read_whole(from, &n);
        if (i == 3) {
            struct tms_safetensors *st;
            assert_ok(tms_safetensors_open(&st, from, &err), err);
            const struct tms_st_tensor *t = tms_safetensors_find(st, "model.layers.1.mlp.up_proj.weight");
            memcpy(bytes + t->offset + 40, &value, sizeof value);
            tms_safetensors_close(st);
        }
        write_whole(path, bytes, n);
        free(bytes);
    }
    return to;
}

static void activations_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    const float values[] = {NAN, INFINITY};
    for (size_t i = 0; i < 2; i++) {
        struct tms_calibrate_result r;
        const char *model = broken_model(values[i]);
        const struct tms_calibrate_options o = {.data = calib_text(3000), .length = 64};
        assert_int_equal(tms_calibrate(model, scratch("broken.stats"), &o, &r, &err), TMS_EINPUT);
        if (!strstr(err.message, "layer 1") || !strstr(err.message, "no finite number") || strchr(err.message, '\n'))
            fail_msg("'%s'", err.message);
        assert_false(tms_path_exists(scratch("broken.stats")));
        refuses(model, "q4_0", &(struct tms_quantize_options){.data = calib_text(3000), .sample_length = 64},
                "layer 1");
    }
}

static void groups_that_do_not_divide_rows_leave_layers_as_they_are(void **state)
{
    (void)state;
    char line[512] = "";
    const struct tms_quantize_options o = {
        .data = calib_text(3000), .sample_length = 64, .warning = keep_warning, .warning_ctx = line};
    quantize(golden("arch/qwen3"), "awq:g128", scratch("groups"), &o); /* rows of 64 and 128 */
    assert_non_null(strstr(line, "10 linear layers do not fit the groups or words of awq:g128"));
    refuses(golden("arch/qwen3"), "w4a16:g48", &o, "no linear layers that w4a16:g48 could quantize");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file_serves_all_types),
        cmocka_unit_test(methods_with_scales_take_statistics),
        cmocka_unit_test(statistics_of_a_folder_serve_its_gguf),
        cmocka_unit_test(stages_of_a_layer_follow_one_another),
        cmocka_unit_test(rarely_seen_experts_are_counted_in_report_and_manifest),
        cmocka_unit_test(a_text_is_read_once_for_all_types),
        cmocka_unit_test(experts_wait_for_one_another_where_memory_is_short),
        cmocka_unit_test(statistics_are_the_same_where_memory_is_short),
        cmocka_unit_test(dead_channels_and_damping),
        cmocka_unit_test(files_that_are_damaged_or_lack_hessians_are_refused),
        cmocka_unit_test(activations_that_are_no_numbers_are_refused),
        cmocka_unit_test(groups_that_do_not_divide_rows_leave_layers_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

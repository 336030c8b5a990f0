/* tamis bench: how fast a model reads and makes text here, and how near that is to what the machine can do. */
#include "cli.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_COUNTS 16

struct bench {
    struct common common;
    const char *model, *threads;
    uint64_t n_prompt, n_text, depth, n_repetitions;
    struct tms_session_options session;
    bool exact;
    unsigned counts[MAX_COUNTS]; /* of threads */
    size_t n_counts;
    struct tms_bench_result results[MAX_COUNTS];
    uint64_t peak_memory; /* before the machine was measured, which takes some of its own */
    bool shown;           /* progress */
};

/* "1,2,4" */
static bool parse_counts(struct bench *b)
{
    for (const char *at = b->threads; at; at = *at ? at + 1 : NULL) {
        char *end;
        unsigned long n = strtoul(at, &end, 10);
        if (!isdigit((unsigned char)*at) || (*end && *end != ',') || n > 1024 || b->n_counts == MAX_COUNTS)
            return false;
        b->counts[b->n_counts++] = (unsigned)n;
        at = end;
    }
    if (b->n_counts == 0) b->n_counts = 1; /* all processors */
    return true;
}

static int parse(const struct command *self, struct bench *b, int argc, char **argv)
{
    const struct option options[] = {
        {"n-prompt", 'p', OPTION_COUNT, &b->n_prompt, "N", "tokens of the prompt (default 512); 0: none"},
        {"n-gen", 'n', OPTION_COUNT, &b->n_text, "N", "tokens of the text that is made (default 128); 0: none"},
        {"repetitions", 'r', OPTION_COUNT, &b->n_repetitions, "N", "times to measure each (default 5)"},
        {"depth", 'd', OPTION_COUNT, &b->depth, "N", "tokens that were read before, so that attention has work"},
        {"ctx", 'c', OPTION_COUNT, &b->depth, "N", "the same"},
        {"kv", 0, OPTION_TEXT, &b->session.kv, "TYPE",
         "cache of keys and values: f32 (default), f16, bf16, q8_0, q5_0, q4_0, c8"},
        {"exact", 0, OPTION_FLAG, &b->exact, NULL, "activations in f32, as `tamis run --exact`"},
        {"llm-int8", 0, OPTION_FLAG, &b->session.llm_int8, NULL, "bitsandbytes int8 as LLM.int8 computes it"},
        {"threads", 't', OPTION_TEXT, &b->threads, "A,B",
         "threads to work with, each number in turn (default: all processors)"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &b->common, &b->model, 1);
    if (code >= 0) return code;
    b->session.fast = !b->exact;
    if (!parse_counts(b))
        return wrong_usage(self, "--threads '%s': up to %d numbers up to 1024 are expected", b->threads, MAX_COUNTS);
    if (b->n_prompt == 0 && b->n_text == 0) return wrong_usage(self, "-p 0 -n 0: nothing would be measured");
    if (b->n_repetitions == 0) return wrong_usage(self, "-r 0: nothing would be measured");
    if (b->n_prompt > INT32_MAX || b->n_text > INT32_MAX || b->depth > INT32_MAX || b->n_repetitions > 1000000)
        return wrong_usage(self, "that many tokens or repetitions cannot be measured");
    return -1;
}

static void show_bench_progress(void *ctx, const struct tms_bench_progress *p)
{
    struct bench *b = ctx;
    if (b->peak_memory == 0 && strcmp(p->what, "machine") == 0) b->peak_memory = peak_memory();
    if (!b->shown) return;
    fprintf(stderr, "\r\033[K%s", p->what);
    if (p->total > 1) fprintf(stderr, " %zu of %zu", p->done + 1, p->total);
    fflush(stderr);
}

/* ---- what people see ------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *end = path + strlen(path);
    while (end > path && end[-1] == '/') end--;
    const char *start = end;
    while (start > path && start[-1] != '/') start--;
    static char name[192];
    snprintf(name, sizeof name, "%.*s", (int)(end - start < 190 ? end - start : 190), start);
    return name;
}

static const char *test_name(const char *kind, uint64_t n, uint64_t depth)
{
    static char name[64];
    if (depth)
        snprintf(name, sizeof name, "%s%llu @ d%llu", kind, (unsigned long long)n, (unsigned long long)depth);
    else
        snprintf(name, sizeof name, "%s%llu", kind, (unsigned long long)n);
    return name;
}

static const char *parameters_text(uint64_t n)
{
    static char text[32];
    double x = (double)n;
    snprintf(text, sizeof text, "%.2f %s", x >= 1e9 ? x / 1e9 : x / 1e6, x >= 1e9 ? "B" : "M");
    return text;
}

static double share(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static void add_row(struct table *t, const struct bench *b, const struct tms_model_info *info,
                    const struct tms_bench_result *r, bool text)
{
    const struct tms_figure *speed = text ? &r->text : &r->prompt;
    table_cell(t, "%s", base_name(b->model));
    table_cell(t, "%s", human_bytes(info->file_bytes));
    table_cell(t, "%s", parameters_text(info->n_parameters));
    table_cell(t, "%u", r->n_threads);
    table_cell(t, "%s", text ? test_name("tg", b->n_text, b->depth) : test_name("pp", b->n_prompt, b->depth));
    table_cell(t, "%.2f ± %.2f", speed->mean, speed->deviation);
    if (text) {
        table_cell(t, "%.1f", r->text_bytes / 1e9);
        table_cell(t, "%.0f %%", share(r->text_bytes, r->peak_bytes));
    } else {
        table_cell(t, "%s", "");
        table_cell(t, "%s", "");
    }
    table_cell(t, "%.0f %%", share(text ? r->text_operations : r->prompt_operations, r->peak_operations));
}

static void print_table(const struct bench *b, const struct tms_model_info *info)
{
    static const char *const heads[] = {"model", "size",         "params",           "threads",    "test",
                                        "t/s",   "weights GB/s", "of the bandwidth", "of the peak"};
    struct table t;
    table_begin(&t, "lrrrlrrrr");
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) table_cell(&t, "%s", heads[i]);
    for (size_t i = 0; i < b->n_counts; i++) {
        if (b->n_prompt) add_row(&t, b, info, &b->results[i], false);
        if (b->n_text) add_row(&t, b, info, &b->results[i], true);
    }
    table_end_markdown(&t, stdout);
    putchar('\n');
    for (size_t i = 0; i < b->n_counts; i++) {
        const struct tms_bench_result *r = &b->results[i];
        printf("%u thread%s: bandwidth %.1f GB/s (reading %s), peak %.0f GFLOP/s (f32 multiply-adds in registers, %s)",
               r->n_threads, r->n_threads == 1 ? "" : "s", r->peak_bytes / 1e9, human_bytes(r->peak_read_bytes),
               r->peak_operations / 1e9, r->cpu);
        if (b->n_prompt) printf("; first token after %.3g ± %.2g s", r->first_token.mean, r->first_token.deviation);
        putchar('\n');
    }
    const struct tms_bench_result *r = &b->results[0];
    printf("memory: weights %s, cache %s for %s positions (%s), at most %s in all\n", human_bytes(r->weight_bytes),
           human_bytes(r->cache_bytes), grouped(b->session.context), b->session.kv ? b->session.kv : "f32",
           human_bytes(b->peak_memory));
    if (b->n_text && r->token_bytes < r->last_cache_bytes)
        printf("the weights fit into the processor's last cache (%s): memory need not be read for every token\n",
               human_bytes(r->last_cache_bytes));
}

static json_t *figure_json(struct tms_figure f)
{
    return json_pack("{s:f, s:f}", "mean", f.mean, "deviation", f.deviation);
}

static json_t *document(const struct bench *b, const struct tms_model_info *info)
{
    json_t *runs = json_array();
    for (size_t i = 0; i < b->n_counts; i++) {
        const struct tms_bench_result *r = &b->results[i];
        json_t *run = json_pack("{s:I, s:o, s:o, s:s, s:f, s:f, s:I, s:I, s:I, s:I, s:I}", "threads",
                                (json_int_t)r->n_threads, "prompt", json_null(), "text", json_null(), "cpu", r->cpu,
                                "peak_operations_per_second", r->peak_operations, "peak_bytes_per_second",
                                r->peak_bytes, "peak_read_bytes", (json_int_t)r->peak_read_bytes, "last_cache_bytes",
                                (json_int_t)r->last_cache_bytes, "weight_bytes", (json_int_t)r->weight_bytes,
                                "token_bytes", (json_int_t)r->token_bytes, "cache_bytes", (json_int_t)r->cache_bytes);
        if (b->n_prompt)
            json_object_set_new(run, "prompt",
                                json_pack("{s:I, s:o, s:o, s:f, s:f}", "tokens", (json_int_t)b->n_prompt,
                                          "tokens_per_second", figure_json(r->prompt), "seconds_to_first_token",
                                          figure_json(r->first_token), "operations_per_second", r->prompt_operations,
                                          "share_of_peak", share(r->prompt_operations, r->peak_operations) / 100));
        if (b->n_text)
            json_object_set_new(
                run, "text",
                json_pack("{s:I, s:o, s:f, s:f, s:f, s:f}", "tokens", (json_int_t)b->n_text, "tokens_per_second",
                          figure_json(r->text), "weight_bytes_per_second", r->text_bytes, "share_of_bandwidth",
                          share(r->text_bytes, r->peak_bytes) / 100, "operations_per_second", r->text_operations,
                          "share_of_peak", share(r->text_operations, r->peak_operations) / 100));
        json_array_append_new(runs, run);
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:b, s:o, s:I}", "model", b->model, "architecture",
                     info->architecture, "version", tms_version(), "parameters", (json_int_t)info->n_parameters,
                     "file_bytes", (json_int_t)info->file_bytes, "depth", (json_int_t)b->depth, "repetitions",
                     (json_int_t)b->n_repetitions, "kv", b->session.kv ? b->session.kv : "f32", "exact", b->exact,
                     "runs", runs, "peak_memory_bytes", (json_int_t)b->peak_memory);
}

/* ---- doing ----------------------------------------------------------------------------------------------------- */

static tms_status measure(struct bench *b, size_t i, struct tms_error *err)
{
    const struct tms_bench_options o = {.n_prompt = (size_t)b->n_prompt,
                                        .n_text = (size_t)b->n_text,
                                        .depth = (size_t)b->depth,
                                        .n_repetitions = (size_t)b->n_repetitions,
                                        .progress = show_bench_progress,
                                        .progress_ctx = b};
    struct tms_session *session = NULL;
    b->session.n_threads = b->counts[i];
    tms_status status = tms_session_open(&session, b->model, &b->session, err);
    if (status == TMS_OK) status = tms_session_bench(session, &o, &b->results[i], err);
    tms_session_close(session);
    return status;
}

int run_bench(const struct command *self, int argc, char **argv)
{
    struct bench b = {.n_prompt = 512, .n_text = 128, .n_repetitions = 5};
    struct tms_model *model = NULL;
    struct tms_model_info info;
    struct tms_error err;
    int code = parse(self, &b, argc, argv);
    if (code >= 0) return code;
    b.shown = !b.common.quiet && isatty(STDERR_FILENO);
    b.session.context = b.depth + (b.n_prompt > b.n_text ? b.n_prompt : b.n_text);
    b.session.warning = show_warning;
    b.session.warning_ctx = &b.common;
    tms_status status = tms_model_open(&model, b.model, &err);
    for (size_t i = 0; status == TMS_OK && i < b.n_counts; i++) {
        status = measure(&b, i, &err);
        b.session.warning = NULL; /* once is enough */
    }
    if (b.shown) fputs("\r\033[K", stderr);
    if (status == TMS_OK) {
        tms_model_describe(model, &info);
        if (b.common.json)
            code = print_json(document(&b, &info));
        else
            print_table(&b, &info);
    }
    tms_model_close(model);
    return status == TMS_OK ? (code > 0 ? code : 0) : fail_with(status, &err);
}

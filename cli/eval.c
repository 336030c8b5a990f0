/* tamis eval: perplexity of a text, what quantizing changed against a base, multiple-choice questions. */
#include "cli.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

struct eval {
    struct common common;
    const char *model, *tasks;
    struct tms_eval_options options;
    const char *unit; /* "window", "choice" */
    bool shown;       /* progress */
};

static void show_eval_progress(void *ctx, const struct tms_eval_progress *p)
{
    const struct eval *e = ctx;
    if (!e->shown) return;
    double left = p->share > 0 ? p->seconds * (1 - p->share) / p->share : 0;
    double rate = p->seconds > 0 ? p->share * (double)p->n_total / p->seconds : 0;
    fprintf(stderr, "\r\033[K%3.0f %%  %s %zu of %zu", p->share * 100, e->unit, p->n_done, p->n_total);
    if (p->mean_nll > 0 && !e->tasks) fprintf(stderr, "  perplexity %.4f", exp(p->mean_nll));
    if (p->mean_nll > 0 && e->options.base && !e->tasks) fprintf(stderr, "  KL %.6f", p->mean_kl);
    fprintf(stderr, "  %.2f %ss/s  %d:%02d left", rate, e->unit, (int)left / 60, (int)left % 60);
    fflush(stderr);
}

static void end_progress(struct eval *e)
{
    if (e->shown) fputs("\r\033[K", stderr);
    e->shown = false;
}

/* ---- tables ---- */

static void estimate_cell(struct table *t, struct tms_estimate x, int digits)
{
    table_cell(t, "%.*f ± %.*f", digits, x.value, digits, x.error);
}

static void share_cell(struct table *t, struct tms_estimate x)
{
    table_cell(t, "%.3f ± %.3f %%", 100 * x.value, 100 * x.error);
}

static const char *cache_name(const struct eval *e)
{
    return e->options.cache ? e->options.cache : "f32";
}

static void print_cache(const struct eval *e, uint64_t bytes)
{
    const struct tms_eval_options *o = &e->options;
    printf("keys and values %s, %s a %s", cache_name(e), human_bytes(bytes), e->unit);
    if (o->cache_keep_first) printf(", the first %s tokens f16", grouped(o->cache_keep_first));
    if (o->cache_keep_last) printf(", the newest %s tokens f16", grouped(o->cache_keep_last));
    putchar('\n');
}

/* What the figures are about. */
static void print_conditions(const struct eval *e, bool weights_alone, bool by_layer, uint64_t cache_bytes)
{
    if (weights_alone) {
        puts("weights alone: activations f32");
    } else {
        if (e->options.int8_outlier > 0)
            printf("activations of LLM.int8 layers in 8 bits below %g, others f32; ", e->options.int8_outlier);
        else
            fputs(e->options.fast ? "activations in 8 bits; " : "activations f32; ", stdout);
        print_cache(e, cache_bytes);
    }
    if (by_layer) puts("larger than the memory allowed: walked layer by layer");
}

static void print_eval(const struct eval *e, const struct tms_eval_result *r)
{
    struct table t;
    printf("%s window%s of %s tokens, %s%s; %s predictions of %s tokens; %.2f windows/s\n", grouped(r->n_windows),
           r->n_windows == 1 ? "" : "s", grouped(r->context),
           strcmp(e->options.style, "full") == 0 ? "all predicted" : "second halves predicted",
           r->bos ? ", BOS in front" : "", grouped(r->n_predicted), grouped(r->n_tokens),
           r->run_seconds > 0 ? (double)r->n_windows / r->run_seconds : 0);
    print_conditions(e, r->weights_alone, r->by_layer, r->cache_bytes);
    putchar('\n');
    table_begin(&t, "ll");
    table_cell(&t, "perplexity");
    estimate_cell(&t, r->perplexity, 4);
    if (r->has_base) {
        table_cell(&t, "perplexity of the base");
        estimate_cell(&t, r->base_perplexity, 4);
        table_cell(&t, "ratio");
        table_cell(&t, "%.6f ± %.6f (ln %.6f ± %.6f, correlation %.2f %%)", r->ratio.value, r->ratio.error,
                   r->log_ratio.value, r->log_ratio.error, 100 * r->correlation);
        table_cell(&t, "KL divergence");
        estimate_cell(&t, r->kl.mean, 6);
        table_cell(&t, "%s", "");
        table_cell(&t, "median %.6f, 90 %% %.6f, 95 %% %.6f, 99 %% %.6f, 99.9 %% %.6f, max %.6f, min %.6f",
                   r->kl.median, r->kl.p90, r->kl.p95, r->kl.p99, r->kl.p99_9, r->kl.max, r->kl.min);
        table_cell(&t, "same top token");
        share_cell(&t, r->same_top);
        table_cell(&t, "change of p(right token)");
        table_cell(&t, "mean %.3f ± %.3f %%, rms %.3f ± %.3f %%", 100 * r->change.mean.value,
                   100 * r->change.mean.error, 100 * r->rms_change.value, 100 * r->rms_change.error);
        table_cell(&t, "%s", "");
        table_cell(&t,
                   "min %.3f %%, 1 %% %.3f %%, 5 %% %.3f %%, median %.3f %%, 95 %% %.3f %%, 99 %% %.3f %%, max %.3f %%",
                   100 * r->change.min, 100 * r->change.p1, 100 * r->change.p5, 100 * r->change.median,
                   100 * r->change.p95, 100 * r->change.p99, 100 * r->change.max);
    }
    table_end(&t, stdout);
}

static void print_tasks(const struct eval *e, const struct tms_tasks_result *r)
{
    struct table t;
    printf("%s: %s questions, each choice scored as the continuation of \"Question: …\\nAnswer:\"; %.2f questions/s\n",
           e->tasks, grouped(r->n_questions), r->seconds > 0 ? (double)r->n_questions / r->seconds : 0);
    print_conditions(e, r->weights_alone, r->by_layer, r->cache_bytes);
    putchar('\n');
    table_begin(&t, r->has_base ? "lll" : "ll");
    table_cell(&t, "%s", "");
    table_cell(&t, "model");
    if (r->has_base) table_cell(&t, "base");
    table_cell(&t, "accuracy");
    share_cell(&t, r->accuracy);
    if (r->has_base) share_cell(&t, r->base_accuracy);
    table_cell(&t, "accuracy by log p per byte");
    share_cell(&t, r->accuracy_normalized);
    if (r->has_base) {
        share_cell(&t, r->base_accuracy_normalized);
        table_cell(&t, "same answer as the base");
        share_cell(&t, r->same_answer);
        table_cell(&t, "%s", "");
    }
    table_end(&t, stdout);
}

/* ---- JSON ---- */

static json_t *estimate_json(struct tms_estimate x)
{
    return json_pack("{s:f, s:f}", "value", x.value, "error", x.error);
}

static json_t *spread_json(const struct tms_spread *s)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "mean",
                     s->mean.value, "error", s->mean.error, "min", s->min, "p0.1", s->p0_1, "p1", s->p1, "p5", s->p5,
                     "p10", s->p10, "p25", s->p25, "median", s->median, "p75", s->p75, "p90", s->p90, "p95", s->p95,
                     "p99", s->p99, "p99.9", s->p99_9, "max", s->max);
}

/* What both documents begin with. */
static json_t *conditions_json(const struct eval *e, bool weights_alone, bool by_layer, uint64_t cache_bytes,
                               uint64_t planned)
{
    json_t *j =
        json_pack("{s:s, s:s?, s:s, s:I, s:I, s:I, s:b, s:f, s:b, s:b, s:I}", "model", e->model, "base",
                  e->options.base, "kv", cache_name(e), "kv_keep_first", (json_int_t)e->options.cache_keep_first,
                  "kv_keep_last", (json_int_t)e->options.cache_keep_last, "kv_bytes", (json_int_t)cache_bytes, "fast",
                  e->options.fast, "llm_int8_threshold", e->options.int8_outlier, "weights_alone", weights_alone,
                  "layer_by_layer", by_layer, "peak_memory_bytes", (json_int_t)peak_memory());
    if (planned && j) {
        json_object_set_new(j, "ram_bytes", json_integer((json_int_t)e->options.ram));
        json_object_set_new(j, "planned_bytes", json_integer((json_int_t)planned));
    }
    return j;
}

static json_t *eval_json(const struct eval *e, const struct tms_eval_result *r)
{
    json_t *j = conditions_json(e, r->weights_alone, r->by_layer, r->cache_bytes, r->planned_bytes);
    json_t *figures =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:o, s:o}", "data",
                  e->options.data ? e->options.data : e->options.ids, "style", e->options.style, "context",
                  (json_int_t)r->context, "windows", (json_int_t)r->n_windows, "tokens", (json_int_t)r->n_tokens,
                  "predictions", (json_int_t)r->n_predicted, "bos", r->bos, "seconds", r->seconds, "windows_per_second",
                  r->run_seconds > 0 ? (double)r->n_windows / r->run_seconds : 0.0, "mean_nll",
                  estimate_json(r->log_perplexity), "perplexity", estimate_json(r->perplexity));
    json_object_update(j, figures);
    json_decref(figures);
    if (!r->has_base) return j;
    figures =
        json_pack("{s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:o, s:o}", "base_perplexity", estimate_json(r->base_perplexity),
                  "perplexity_ratio", estimate_json(r->ratio), "ln_perplexity_ratio", estimate_json(r->log_ratio),
                  "perplexity_difference", estimate_json(r->difference), "correlation", r->correlation, "kl_divergence",
                  spread_json(&r->kl), "same_top", estimate_json(r->same_top), "probability_change",
                  spread_json(&r->change), "rms_probability_change", estimate_json(r->rms_change));
    json_object_update(j, figures);
    json_decref(figures);
    return j;
}

static json_t *tasks_json(const struct eval *e, const struct tms_tasks_result *r)
{
    json_t *j = conditions_json(e, r->weights_alone, r->by_layer, r->cache_bytes, r->planned_bytes),
           *list = json_array();
    for (size_t i = 0; i < r->n_questions; i++) {
        const struct tms_task_answer *a = &r->answers[i];
        json_t *log_p = json_array();
        for (size_t k = 0; k < a->n_choices; k++) json_array_append_new(log_p, json_real(a->log_p[k]));
        json_t *one = json_pack("{s:I, s:I, s:I, s:I, s:o}", "line", (json_int_t)a->line, "answer",
                                (json_int_t)a->right, "chosen", (json_int_t)a->chosen, "chosen_normalized",
                                (json_int_t)a->chosen_normalized, "log_p", log_p);
        if (r->has_base && one) {
            json_object_set_new(one, "base_chosen", json_integer((json_int_t)a->base_chosen));
            json_object_set_new(one, "base_chosen_normalized", json_integer((json_int_t)a->base_chosen_normalized));
        }
        json_array_append_new(list, one);
    }
    json_t *figures =
        json_pack("{s:s, s:I, s:f, s:o, s:o, s:o}", "tasks", e->tasks, "questions", (json_int_t)r->n_questions,
                  "seconds", r->seconds, "accuracy", estimate_json(r->accuracy), "accuracy_normalized",
                  estimate_json(r->accuracy_normalized), "results", list);
    if (r->has_base && figures) {
        json_object_set_new(figures, "base_accuracy", estimate_json(r->base_accuracy));
        json_object_set_new(figures, "base_accuracy_normalized", estimate_json(r->base_accuracy_normalized));
        json_object_set_new(figures, "same_answer", estimate_json(r->same_answer));
    }
    json_object_update(j, figures);
    json_decref(figures);
    return j;
}

/* ---- the command ---- */

static int eval_text(struct eval *e)
{
    struct tms_eval_result r;
    struct tms_error err;
    tms_status status = tms_evaluate(e->model, &e->options, &r, &err);
    end_progress(e);
    if (status != TMS_OK) return fail_with(status, &err);
    if (e->common.json) return print_json(eval_json(e, &r));
    if (!e->common.quiet)
        print_eval(e, &r);
    else
        printf("%.4f\n", r.perplexity.value);
    return 0;
}

static int eval_tasks(struct eval *e)
{
    struct tms_tasks_result *r;
    struct tms_error err;
    tms_status status = tms_evaluate_tasks(e->model, e->tasks, &e->options, &r, &err);
    end_progress(e);
    if (status != TMS_OK) return fail_with(status, &err);
    int code = 0;
    if (e->common.json)
        code = print_json(tasks_json(e, r));
    else if (!e->common.quiet)
        print_tasks(e, r);
    else
        printf("%.4f\n", r->accuracy.value);
    tms_tasks_free(r);
    return code;
}

int run_eval(const struct command *self, int argc, char **argv)
{
    struct eval e = {.options = {.style = "llama"}};
    struct tms_eval_options *o = &e.options;
    uint64_t n_chunks = UINT64_MAX, context = UINT64_MAX;
    struct number outlier = {false, 6.0};
    const struct option options[] = {
        {"data", 0, OPTION_TEXT, &o->data, "TEXT", "a file of text to predict"},
        {"base", 0, OPTION_TEXT, &o->base, "MODEL", "compare with it: KL divergence, same top token, …"},
        {"style", 0, OPTION_TEXT, &o->style, "STYLE",
         "llama: second halves of windows, as llama-perplexity (default); full: all predictions, as papers"},
        {"ctx", 'c', OPTION_COUNT, &context, "N", "tokens of a window (default: 512; style full: 2048)"},
        {"chunks", 0, OPTION_COUNT, &n_chunks, "N", "at most so many windows, or questions (default: all)"},
        {"no-bos", 0, OPTION_FLAG, &o->no_bos, NULL, "no BOS in front, whatever the vocabulary says"},
        {"tasks", 0, OPTION_TEXT, &e.tasks, "FILE.jsonl", "instead of --data: multiple-choice questions, one a line"},
        {"ids", 0, OPTION_TEXT, &o->ids, "FILE", "instead of --data: token ids, taken as they are"},
        {"ram", 0, OPTION_SIZE, &o->ram, "SIZE", "most memory to use (8G, 300M); larger models go layer by layer"},
        {"kv", 0, OPTION_TEXT, &o->cache, "TYPE",
         "the model's keys and values: f32 (default), f16, bf16, q8_0, q5_0, q4_0, c8; the base's are f32"},
        {"kv-keep-first", 0, OPTION_COUNT, &o->cache_keep_first, "N",
         "quantized ones: those of the first N tokens stay at 16 bits"},
        {"kv-keep-last", 0, OPTION_COUNT, &o->cache_keep_last, "N", "… and of the newest N, as seen from each token"},
        {"fast", 0, OPTION_FLAG, &o->fast, NULL,
         "activations that meet quantized weights are rounded to 8 bits, as `tamis run` does; the base's are f32"},
        {"llm-int8", 0, OPTION_MAYBE, &outlier, "[=THRESHOLD]",
         "int8 folders: activations in 8 bits, too, but for outliers (default 6.0)"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &e.common, &e.model, 1);
    if (code >= 0) return code;
    if ((o->data != NULL) + (o->ids != NULL) + (e.tasks != NULL) != 1)
        return wrong_usage(self, "one of --data, --ids and --tasks is needed: what is to be predicted?");
    if (n_chunks == 0 || context == 0) {
        fprintf(stderr, "tamis: --%s 0: nothing would be predicted; at least %s\n", n_chunks ? "ctx" : "chunks",
                n_chunks ? "8" : "1");
        return 2;
    }
    o->n_chunks = n_chunks == UINT64_MAX ? 0 : n_chunks;
    o->context = context == UINT64_MAX ? 0 : context;
    o->int8_outlier = outlier.given ? outlier.value : 0;
    o->n_threads = (unsigned)e.common.threads;
    o->warning = show_warning;
    o->warning_ctx = &e.common;
    o->progress = show_eval_progress;
    o->progress_ctx = &e;
    e.unit = e.tasks ? "choice" : "window";
    e.shown = !e.common.quiet && isatty(STDERR_FILENO);
    return e.tasks ? eval_tasks(&e) : eval_text(&e);
}

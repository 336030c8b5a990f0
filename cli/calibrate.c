/* tamis calibrate: run a model over a text and keep what methods of quantizing need to know about its layers. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct calibrate {
    struct common common;
    const char *model, *out;
    struct tms_calibrate_options options;
    bool shown;
};

static void show_calibrate_progress(void *ctx, const struct tms_calibrate_progress *p)
{
    const struct calibrate *c = ctx;
    if (!c->shown) return;
    double left = p->share > 0 ? p->seconds * (1 - p->share) / p->share : 0;
    fprintf(stderr, "\r\033[K%3.0f %%  layer %llu of %llu  %d:%02d left", p->share * 100, (unsigned long long)p->layer,
            (unsigned long long)p->n_layers, (int)left / 60, (int)left % 60);
    fflush(stderr);
}

static int compare_counts(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* "3, 17, 200" of the experts that saw less than `end` tokens and at least `begin`, cut after a few. */
static void name_experts(const struct tms_coverage *c, uint64_t begin, uint64_t end, char *out, size_t size)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < c->n_experts; i++) {
        if (c->tokens[i] < begin || c->tokens[i] >= end) continue;
        if (at + 32 > size) {
            snprintf(out + at, size - at, ", …");
            return;
        }
        at += (size_t)snprintf(out + at, size - at, "%s%zu", n++ ? ", " : "", i);
    }
    if (n == 0) snprintf(out, size, "none");
}

static void print_coverage(const struct tms_calibrate_result *r)
{
    struct table t;
    size_t n_unseen = 0, n_few = 0, n = 0;
    if (r->n_coverage == 0) return;
    puts("\ntokens that each expert saw:");
    table_begin(&t, "rrrrrll");
    const char *const heading[] = {"layer", "experts", "least", "median", "most", "never seen", "too few"};
    for (size_t i = 0; i < sizeof heading / sizeof *heading; i++) table_cell(&t, "%s", heading[i]);
    for (size_t i = 0; i < r->n_coverage; i++) {
        const struct tms_coverage *c = &r->coverage[i];
        char unseen[120], few[120];
        name_experts(c, 0, 1, unseen, sizeof unseen);
        name_experts(c, 1, c->least, few, sizeof few);
        for (size_t k = 0; k < c->n_experts; k++) {
            n_unseen += c->tokens[k] == 0;
            n_few += c->tokens[k] > 0 && c->tokens[k] < c->least;
        }
        n += c->n_experts;
        qsort(c->tokens, c->n_experts, sizeof *c->tokens, compare_counts);
        table_cell(&t, "%llu", (unsigned long long)c->layer);
        table_cell(&t, "%zu", c->n_experts);
        table_cell(&t, "%s", grouped(c->tokens[0]));
        table_cell(&t, "%s", grouped(c->tokens[c->n_experts / 2]));
        table_cell(&t, "%s", grouped(c->tokens[c->n_experts - 1]));
        table_cell(&t, "%s", unseen);
        table_cell(&t, "%s", few);
    }
    table_end(&t, stdout);
    printf("of %zu experts %zu were never seen and %zu by fewer than %llu tokens: method gptq rounds those plainly\n",
           n, n_unseen, n_few, (unsigned long long)r->coverage[0].least);
}

static void print_hessians(const struct tms_calibrate_result *r)
{
    if (r->n_hessians == 0) return;
    printf("%s Hessians, %s channels that are always 0; ", grouped(r->n_hessians), grouped(r->n_dead));
    if (r->n_raised)
        printf("%s need more damping than 0.01, up to %g\n", grouped(r->n_raised), r->most_damp);
    else
        puts("a damping of 0.01 does for all of them");
}

static json_t *coverage_json(const struct tms_coverage *c)
{
    json_t *tokens = json_array(), *unseen = json_array(), *few = json_array();
    for (size_t k = 0; k < c->n_experts; k++) {
        json_array_append_new(tokens, json_integer((json_int_t)c->tokens[k]));
        if (c->tokens[k] < c->least) json_array_append_new(c->tokens[k] ? few : unseen, json_integer((json_int_t)k));
    }
    return json_pack("{s:I, s:o, s:o, s:o, s:I}", "layer", (json_int_t)c->layer, "tokens_of_experts", tokens,
                     "never_seen", unseen, "too_few", few, "least_tokens", (json_int_t)c->least);
}

static int print_calibrate_json(const struct calibrate *c, const struct tms_calibrate_result *r)
{
    json_t *coverage = json_array(), *document;
    for (size_t i = 0; i < r->n_coverage; i++) json_array_append_new(coverage, coverage_json(&r->coverage[i]));
    document =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:I, s:o}", "model", c->model, "data", c->options.data,
                  "output", c->out, "sequences", (json_int_t)r->n_sequences, "tokens", (json_int_t)r->n_tokens,
                  "inputs", (json_int_t)r->n_inputs, "resumed_at_layer", (json_int_t)r->resumed_at, "seconds",
                  r->seconds, "peak_memory_bytes", (json_int_t)peak_memory(), "coverage", coverage);
    if (r->n_hessians)
        json_object_set_new(document, "hessians",
                            json_pack("{s:I, s:I, s:I, s:f}", "inputs", (json_int_t)r->n_hessians, "dead_channels",
                                      (json_int_t)r->n_dead, "damping_raised", (json_int_t)r->n_raised,
                                      "largest_damping", r->most_damp));
    return print_json(document);
}

int run_calibrate(const struct command *self, int argc, char **argv)
{
    struct calibrate c = {0};
    struct tms_calibrate_options *o = &c.options;
    const char *seed = NULL;
    const struct option options[] = {
        {"data", 0, OPTION_TEXT, &o->data, "TEXT",
         "a text, or FILE.jsonl with one {\"text\": …} or {\"messages\": […]} a line"},
        {"output", 'o', OPTION_TEXT, &c.out, "STATS", "where the statistics go (.safetensors)"},
        {"samples", 0, OPTION_COUNT, &o->n_samples, "N", "at most so many sequences (default: all)"},
        {"seqlen", 0, OPTION_COUNT, &o->length, "N", "tokens of a sequence (default: 512)"},
        {"seed", 0, OPTION_TEXT, &seed, "N", "draw the samples with this seed (default: the first ones)"},
        {"template", 0, OPTION_TEXT, &o->template_name, "NAME",
         "write messages like this (default: as the model's own chat template)"},
        {"no-bos", 0, OPTION_FLAG, &o->no_bos, NULL, "no BOS in front, whatever the vocabulary says"},
        {"parse-special", 0, OPTION_FLAG, &o->parse_special, NULL, "special tokens in the text are special tokens"},
        {"imatrix", 0, OPTION_TEXT, &o->imatrix, "FILE", "also write an importance matrix: .gguf, or the older .dat"},
        {"process-output", 0, OPTION_FLAG, &o->process_output, NULL, "the importance matrix has the output layer, too"},
        {"hessian", 0, OPTION_FLAG, &o->hessian, NULL, "sum up Hessians and tell what they are like"},
        {"keep-hessian", 0, OPTION_FLAG, &o->keep_hessian, NULL, "the same, and STATS holds them, for method gptq"},
        {"histogram", 0, OPTION_FLAG, &o->histogram, NULL, "a histogram of every input, too"},
        {"ram", 0, OPTION_SIZE, &o->ram, "SIZE", "most memory to use (8G, 300M)"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &c.common, &c.model, 1);
    if (code >= 0) return code;
    if (!o->data) return wrong_usage(self, "--data is needed: which text is the model to read?");
    if (!c.out) return wrong_usage(self, "-o is needed: where do the statistics go?");
    if (seed) {
        char *end;
        o->draw = true;
        o->seed = strtoull(seed, &end, 10);
        if (*seed < '0' || *seed > '9' || *end) return wrong_usage(self, "--seed %s: a whole number is needed", seed);
    }
    o->n_threads = (unsigned)c.common.threads;
    o->progress = show_calibrate_progress;
    o->progress_ctx = &c;
    c.shown = !c.common.quiet && isatty(STDERR_FILENO);
    struct tms_calibrate_result r;
    struct tms_error err;
    tms_status status = tms_calibrate(c.model, c.out, o, &r, &err);
    if (c.shown) fputs("\r\033[K", stderr);
    if (status != TMS_OK) return fail_with(status, &err);
    if (c.common.json) {
        code = print_calibrate_json(&c, &r);
    } else {
        code = 0;
        if (r.resumed_at && !c.common.quiet)
            printf("went on at layer %llu of a run that was stopped\n", (unsigned long long)r.resumed_at);
        if (!c.common.quiet)
            printf("%s: %s inputs of linear layers, from %s tokens in %s sequences; %.1f s, %s of memory\n", c.out,
                   grouped(r.n_inputs), grouped(r.n_tokens), grouped(r.n_sequences), r.seconds,
                   human_bytes(peak_memory()));
        if (o->imatrix && !c.common.quiet) printf("%s: the same as an importance matrix\n", o->imatrix);
        if (!c.common.quiet) print_hessians(&r);
        if (!c.common.quiet) print_coverage(&r);
    }
    tms_calibrate_free(&r);
    return code;
}

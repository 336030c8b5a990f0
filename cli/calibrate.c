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

/* "3, 17, 200" of the experts that no token reached, cut after a few. */
static void name_unseen(const struct tms_coverage *c, char *out, size_t size)
{
    size_t n = 0, at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < c->n_experts; i++) {
        if (c->tokens[i]) continue;
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
    if (r->n_coverage == 0) return;
    puts("\ntokens that each expert saw:");
    table_begin(&t, "rrrrl");
    const char *const heading[] = {"layer", "least", "median", "most", "never seen"};
    for (size_t i = 0; i < 5; i++) table_cell(&t, "%s", heading[i]);
    for (size_t i = 0; i < r->n_coverage; i++) {
        const struct tms_coverage *c = &r->coverage[i];
        char unseen[160];
        name_unseen(c, unseen, sizeof unseen);
        qsort(c->tokens, c->n_experts, sizeof *c->tokens, compare_counts);
        table_cell(&t, "%llu", (unsigned long long)c->layer);
        table_cell(&t, "%s", grouped(c->tokens[0]));
        table_cell(&t, "%s", grouped(c->tokens[c->n_experts / 2]));
        table_cell(&t, "%s", grouped(c->tokens[c->n_experts - 1]));
        table_cell(&t, "%s", unseen);
    }
    table_end(&t, stdout);
}

static int print_calibrate_json(const struct calibrate *c, const struct tms_calibrate_result *r)
{
    json_t *coverage = json_array();
    for (size_t i = 0; i < r->n_coverage; i++) {
        json_t *tokens = json_array();
        for (size_t k = 0; k < r->coverage[i].n_experts; k++)
            json_array_append_new(tokens, json_integer((json_int_t)r->coverage[i].tokens[k]));
        json_array_append_new(
            coverage, json_pack("{s:I, s:o}", "layer", (json_int_t)r->coverage[i].layer, "tokens_of_experts", tokens));
    }
    return print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:I, s:o}", "model", c->model, "data",
                                c->options.data, "output", c->out, "sequences", (json_int_t)r->n_sequences, "tokens",
                                (json_int_t)r->n_tokens, "inputs", (json_int_t)r->n_inputs, "resumed_at_layer",
                                (json_int_t)r->resumed_at, "seconds", r->seconds, "peak_memory_bytes",
                                (json_int_t)peak_memory(), "coverage", coverage));
}

int run_calibrate(const struct command *self, int argc, char **argv)
{
    struct calibrate c = {0};
    struct tms_calibrate_options *o = &c.options;
    const char *seed = NULL;
    const struct option options[] = {
        {"data", 0, OPTION_TEXT, &o->data, "TEXT", "a text, or FILE.jsonl with one {\"text\": …} a line"},
        {"output", 'o', OPTION_TEXT, &c.out, "STATS", "where the statistics go (.safetensors)"},
        {"samples", 0, OPTION_COUNT, &o->n_samples, "N", "at most so many sequences (default: all)"},
        {"seqlen", 0, OPTION_COUNT, &o->length, "N", "tokens of a sequence (default: 512)"},
        {"seed", 0, OPTION_TEXT, &seed, "N", "draw the samples with this seed (default: the first ones)"},
        {"no-bos", 0, OPTION_FLAG, &o->no_bos, NULL, "no BOS in front, whatever the vocabulary says"},
        {"parse-special", 0, OPTION_FLAG, &o->parse_special, NULL, "special tokens in the text are special tokens"},
        {"imatrix", 0, OPTION_TEXT, &o->imatrix, "FILE", "also write an importance matrix: .gguf, or the older .dat"},
        {"process-output", 0, OPTION_FLAG, &o->process_output, NULL, "the importance matrix has the output layer, too"},
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
        if (!c.common.quiet) print_coverage(&r);
    }
    tms_calibrate_free(&r);
    return code;
}

/* tamis run: continues a text, or writes the logits of token ids. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_INPUT (256u << 20) /* bytes of a prompt or of a list of ids */

struct arguments {
    struct common common;
    const char *model, *prompt, *file, *ids, *logits;
    bool hidden, echo, exact;
    uint64_t seed; /* UINT64_MAX: by chance */
    struct texts stops;
    struct tms_session_options session;
    struct tms_prompt p;
    struct tms_generate_options g;
    char *text;    /* what p.text is, if it was read */
    int32_t *list; /* what p.ids is */
};

static tms_status fail_input(struct tms_error *err, tms_status status, const char *what, const char *problem)
{
    snprintf(err->message, sizeof err->message, "%s: %s", what, problem);
    return status;
}

/* A whole file, "-" for standard input; a NUL follows. */
static tms_status read_text(const char *path, char **out, size_t *n, struct tms_error *err)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "rb");
    size_t cap = 0, got = 0, room;
    char *text = NULL;
    if (!f) return fail_input(err, TMS_EINPUT, path, strerror(errno));
    do {
        char *larger = realloc(text, (cap = cap ? cap * 2 : 4096) + 1);
        if (!larger) break;
        text = larger;
        room = cap - got;
        got += fread(text + got, 1, room, f);
    } while (got == cap && cap < MAX_INPUT);
    bool complete = feof(f) && !ferror(f);
    const char *problem = ferror(f) ? strerror(errno) : got >= MAX_INPUT ? "too long" : "out of memory";
    if (!standard) fclose(f);
    if (!complete || !text) {
        free(text);
        return fail_input(err, got >= MAX_INPUT ? TMS_EINPUT : TMS_EIO, path, problem);
    }
    text[got] = '\0';
    *out = text;
    *n = got;
    return TMS_OK;
}

/* "1,2,3"; spaces and line ends separate, too. */
static tms_status parse_ids(struct arguments *a, const char *text, struct tms_error *err)
{
    size_t cap = strlen(text) / 2 + 1;
    a->list = calloc(cap, sizeof *a->list);
    if (!a->list) return fail_input(err, TMS_EIO, "--ids", "out of memory");
    for (const char *p = text;;) {
        char *end;
        while (isspace((unsigned char)*p) || *p == ',') p++;
        if (!*p) break;
        errno = 0;
        long long id = strtoll(p, &end, 10);
        if (end == p || (*end && *end != ',' && !isspace((unsigned char)*end))) {
            snprintf(err->message, sizeof err->message, "--ids: '%.20s' is no number", p);
            return TMS_EINPUT;
        }
        if (errno || id < INT32_MIN || id > INT32_MAX) {
            snprintf(err->message, sizeof err->message, "--ids: %.*s is outside any vocabulary", (int)(end - p), p);
            return TMS_EINPUT;
        }
        a->list[a->p.n_ids++] = (int32_t)id;
        p = end;
    }
    a->p.ids = a->list;
    if (a->p.n_ids == 0) return fail_input(err, TMS_EINPUT, "--ids", "there are none");
    return TMS_OK;
}

static tms_status read_prompt(struct arguments *a, struct tms_error *err)
{
    const char *path = a->file;
    if (a->ids && a->ids[0] == '@') {
        size_t n;
        tms_status status = read_text(a->ids + 1, &a->text, &n, err);
        return status == TMS_OK ? parse_ids(a, a->text, err) : status;
    }
    if (a->ids) return parse_ids(a, a->ids, err);
    if (a->prompt && strcmp(a->prompt, "-") == 0) path = "-";
    if (path) {
        tms_status status = read_text(path, &a->text, &a->p.text_bytes, err);
        a->p.text = a->text;
        return status;
    }
    a->p.text = a->prompt;
    a->p.text_bytes = strlen(a->prompt);
    return TMS_OK;
}

static int parse(const struct command *self, struct arguments *a, int argc, char **argv)
{
    struct tms_sampling *s = &a->g.sampling;
    const struct option options[] = {
        {"prompt", 'p', OPTION_ANY, &a->prompt, "TEXT", "the text to go on with; - reads standard input"},
        {"file", 'f', OPTION_TEXT, &a->file, "FILE", "the same from a file"},
        {"ids", 0, OPTION_ANY, &a->ids, "1,2,3", "token ids instead of a text; @FILE reads them from a file"},
        {"n-predict", 'n', OPTION_LIMIT, &a->g.max_tokens, "N",
         "tokens to make at most (default 256); -1: until the model ends or the context is full"},
        SAMPLING_ROWS(s),
        {"seed", 0, OPTION_LIMIT, &a->seed, "N", "the same seed gives the same text (default -1: by chance)"},
        {"stop", 0, OPTION_LIST, &a->stops, "TEXT", "end before this text (may be given several times)"},
        {"ignore-eos", 0, OPTION_FLAG, &a->g.ignore_end, NULL, "go on when the model ends its text"},
        {"echo", 0, OPTION_FLAG, &a->echo, NULL, "print the prompt, too"},
        {"special", 0, OPTION_FLAG, &a->g.show_special, NULL, "print special tokens"},
        {"no-special", 0, OPTION_FLAG, &a->p.no_special, NULL, "no special tokens before the prompt"},
        {"no-parse-special", 0, OPTION_FLAG, &a->p.no_parse_special, NULL,
         "special tokens in the prompt are plain text"},
        {"ctx", 'c', OPTION_COUNT, &a->session.context, "N", "positions at most (default: as the model was made)"},
        CACHE_ROWS(&a->session),
        {"exact", 0, OPTION_FLAG, &a->exact, NULL,
         "activations in f32; else those that meet quantized weights are rounded to 8 bits (not with --logits)"},
        {"llm-int8", 0, OPTION_FLAG, &a->session.llm_int8, NULL,
         "bitsandbytes int8 as LLM.int8 computes it: activations in 8 bits but for outliers from 6.0 on"},
        {"logits", 0, OPTION_TEXT, &a->logits, "FILE", "write the logits of the prompt (safetensors) and make no text"},
        {"hidden", 0, OPTION_FLAG, &a->hidden, NULL, "with --logits: the hidden states between layers, too"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &a->common, &a->model, 1);
    if (code >= 0) return code;
    int n_prompts = (a->prompt != NULL) + (a->file != NULL) + (a->ids != NULL);
    if (n_prompts != 1)
        return wrong_usage(self, "it wants one of -p, --file and --ids%s", n_prompts ? ", not more" : "");
    if (a->hidden && !a->logits) return wrong_usage(self, "--hidden belongs to --logits");
    a->session.fast = !a->exact && !a->logits;
    return -1;
}

/* ---- showing --------------------------------------------------------------------------------------------------- */

static bool show_text(void *failed, const char *text, size_t n)
{
    bool *f = failed;
    if (fwrite(text, 1, n, stdout) != n || fflush(stdout) != 0) *f = true;
    return !*f;
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

/* Tokens that were computed after the prompt: the last one is not read again. */
static size_t computed(const struct tms_generation *g)
{
    return g->n_ids ? g->n_ids - 1 : 0;
}

static const char *kv_name(const struct arguments *a)
{
    return a->session.kv ? a->session.kv : "f32";
}

static void show_statistics(const struct arguments *a, const struct tms_generation *g,
                            const struct tms_session_info *info)
{
    size_t n_read = g->n_prompt - g->n_reused;
    fprintf(stderr, "prompt: %zu tokens, %.1f tokens/s; text: %zu tokens, %.1f tokens/s; ended by: %s", n_read,
            rate(n_read, g->prompt_seconds), g->n_ids, rate(computed(g), g->token_seconds), tms_stop_name(g->stop));
    if (a->g.sampling.temperature > 0) fprintf(stderr, "; seed %llu", (unsigned long long)a->g.sampling.seed);
    fprintf(stderr, "\nkeys and values %s: %s", kv_name(a), human_bytes(info->cache_now_bytes));
    fprintf(stderr, "; %s for all %s positions\n", human_bytes(info->cache_bytes), grouped(info->context));
}

static json_t *document(const struct arguments *a, const struct tms_generation *g, const struct tms_session_info *info)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < g->n_ids; i++) json_array_append_new(ids, json_integer(g->ids[i]));
    json_t *stop = g->stop == TMS_STOP_TEXT ? json_string(a->stops.items[g->stop_index]) : json_null();
    json_t *timings = json_pack("{s:f, s:f, s:f, s:f}", "prompt_seconds", g->prompt_seconds, "prompt_tokens_per_second",
                                rate(g->n_prompt - g->n_reused, g->prompt_seconds), "text_seconds", g->token_seconds,
                                "text_tokens_per_second", rate(computed(g), g->token_seconds));
    json_t *cache =
        json_pack("{s:s, s:I, s:I, s:I, s:I}", "type", kv_name(a), "keep_first", (json_int_t)a->session.kv_keep_first,
                  "keep_last", (json_int_t)a->session.kv_keep_last, "bytes", (json_int_t)info->cache_now_bytes,
                  "context_bytes", (json_int_t)info->cache_bytes);
    return json_pack("{s:s, s:I, s:o, s:o, s:s, s:o, s:I, s:o, s:o}", "model", a->model, "prompt_tokens",
                     (json_int_t)g->n_prompt, "text", g->text ? json_stringn(g->text, g->text_bytes) : json_null(),
                     "ids", ids, "stop", tms_stop_name(g->stop), "stop_text", stop, "seed",
                     (json_int_t)a->g.sampling.seed, "timings", timings, "kv", cache);
}

static void print_ids(const struct tms_generation *g)
{
    for (size_t i = 0; i < g->n_ids; i++) printf("%s%d", i ? "," : "", (int)g->ids[i]);
}

/* ---- doing ----------------------------------------------------------------------------------------------------- */

static int write_logits(struct arguments *a, struct tms_session *session)
{
    struct progress_bar bar;
    struct tms_error err;
    struct tms_session_info info;
    uint64_t n = 0;
    const struct tms_logits_options o = {.hidden_states = a->hidden, .progress = progress_show, .progress_ctx = &bar};
    progress_begin(&bar, &a->common);
    tms_status status = tms_session_logits(session, &a->p, a->logits, &o, &n, &err);
    progress_end(&bar);
    if (status != TMS_OK) return fail_with(status, &err);
    tms_session_describe(session, &info);
    if (a->common.json)
        return print_json(json_pack("{s:s, s:s, s:I, s:I, s:b}", "model", a->model, "file", a->logits, "tokens",
                                    (json_int_t)n, "vocabulary", (json_int_t)info.n_vocab, "hidden_states", a->hidden));
    if (!a->common.quiet)
        printf("%s: logits of %s tokens over a vocabulary of %s\n", a->logits, grouped(n), grouped(info.n_vocab));
    return 0;
}

static int generate(struct arguments *a, struct tms_session *session)
{
    struct tms_generation g;
    struct tms_session_info info;
    struct tms_error err;
    bool failed = false;
    tms_session_describe(session, &info);
    if (a->g.sampling.repeat_last_n > info.context) a->g.sampling.repeat_last_n = info.context;
    a->g.stops = a->stops.items;
    a->g.n_stops = a->stops.n;
    if (!a->common.json) {
        a->g.text = show_text;
        a->g.text_ctx = &failed;
        if (a->echo && a->p.text) show_text(&failed, a->p.text, a->p.text_bytes);
    }
    tms_status status = tms_session_generate(session, &a->p, &a->g, &g, &err);
    if (status != TMS_OK) return fail_with(status, &err);
    int code = g.stop == TMS_STOP_CANCELLED ? 130 : 0;
    tms_session_describe(session, &info); /* the cache has grown */
    if (a->common.json) {
        int printed = print_json(document(a, &g, &info));
        if (printed) code = printed;
    } else {
        if (!g.text) print_ids(&g);
        putchar('\n');
        if (fflush(stdout) != 0) failed = true;
        if (failed) code = fail_with(fail_input(&err, TMS_EIO, "standard output", "could not be written"), &err);
    }
    if (g.stop == TMS_STOP_CONTEXT && !a->common.quiet)
        fprintf(stderr, "tamis: the context of %s positions is full; --ctx sets another\n", grouped(info.context));
    if (a->common.verbose || (!a->common.quiet && !a->common.json && isatty(STDERR_FILENO)))
        show_statistics(a, &g, &info);
    tms_generation_free(&g);
    return code;
}

int run_run(const struct command *self, int argc, char **argv)
{
    struct arguments a = {.seed = UINT64_MAX, .g = {.max_tokens = 256, .sampling = tms_sampling_usual}};
    struct tms_session *session = NULL;
    struct tms_error err;
    int code = parse(self, &a, argc, argv);
    if (code >= 0) return code;
    a.session.n_threads = (unsigned)a.common.threads;
    a.session.warning = show_warning;
    a.session.warning_ctx = &a.common;
    a.g.sampling.seed = seed_or_chance(a.seed);
    tms_status status = read_prompt(&a, &err);
    if (status == TMS_OK) status = tms_session_open(&session, a.model, &a.session, &err);
    if (status != TMS_OK)
        code = fail_with(status, &err);
    else
        code = a.logits ? write_logits(&a, session) : generate(&a, session);
    tms_session_close(session);
    free(a.text);
    free(a.list);
    return code;
}

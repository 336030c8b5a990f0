/* tamis chat: a conversation with a model, typed or from a pipe. */
#include "cli.h"

#include <ctype.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "line.h"

struct talk {
    struct common common;
    const char *model, *render;
    uint64_t seed; /* UINT64_MAX: by chance */
    struct texts stops;
    struct tms_chat_options chat_options;
    struct tms_session_options session_options;
    struct tms_generate_options g;
    struct tms_session *session;
    struct tms_chat *chat;
    struct tms_session_info info;
    bool exact;
    bool terminal; /* a person types */
    bool dims;     /* and looks at the answers */
    bool dimmed, failed;
    char last;                    /* byte that was shown */
    struct tms_generation answer; /* the last one, for /stats */
    json_t *turns;
};

static int parse(const struct command *self, struct talk *t, int argc, char **argv)
{
    struct tms_sampling *s = &t->g.sampling;
    const struct option options[] = {
        {"system", 0, OPTION_ANY, &t->chat_options.system, "TEXT",
         "what the model is told before (default: what its template has); '' for nothing"},
        {"template", 0, OPTION_TEXT, &t->chat_options.template_name, "NAME",
         "write the conversation like this (default: as the model's own template)"},
        {"n-predict", 'n', OPTION_LIMIT, &t->g.max_tokens, "N",
         "tokens of an answer at most (default -1: until the model ends it)"},
        SAMPLING_ROWS(s),
        {"seed", 0, OPTION_LIMIT, &t->seed, "N", "the same seed gives the same answers (default -1: by chance)"},
        {"stop", 0, OPTION_LIST, &t->stops, "TEXT", "end answers before this text (may be given several times)"},
        {"ctx", 'c', OPTION_COUNT, &t->session_options.context, "N",
         "positions at most (default: as the model was made)"},
        CACHE_ROWS(&t->session_options),
        {"exact", 0, OPTION_FLAG, &t->exact, NULL,
         "activations in f32; else those that meet quantized weights are rounded to 8 bits"},
        {"llm-int8", 0, OPTION_FLAG, &t->session_options.llm_int8, NULL, "bitsandbytes int8 as LLM.int8 computes it"},
        {"render", 0, OPTION_TEXT, &t->render, "FILE.json",
         "only print what the model would read of a conversation: [{\"role\": …, \"content\": …}, …]"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &t->common, &t->model, 1);
    t->session_options.fast = !t->exact;
    return code;
}

/* ---- what the model would read --------------------------------------------------------------------------------- */

static int refuse_conversation(const char *file, const char *problem)
{
    fprintf(stderr, "tamis: %s: %s\n", file, problem);
    return 2;
}

static int render(const struct talk *t)
{
    json_error_t problem;
    json_t *list = json_load_file(t->render, 0, &problem);
    size_t n = json_array_size(list);
    struct tms_message *messages = calloc(n + 1, sizeof *messages);
    struct tms_rendered r = {0};
    struct tms_error err;
    int code = 0;
    if (!list) code = refuse_conversation(t->render, problem.text);
    if (list && !json_is_array(list)) code = refuse_conversation(t->render, "is no JSON list of messages");
    for (size_t i = 0; i < n && messages && code == 0; i++) {
        const json_t *role = json_object_get(json_array_get(list, i), "role");
        const json_t *content = json_object_get(json_array_get(list, i), "content");
        if (!json_is_string(role) || !json_is_string(content))
            code = refuse_conversation(t->render, "has a message whose role or content is no text");
        else
            messages[i] =
                (struct tms_message){json_string_value(role), json_string_value(content), json_string_length(content)};
    }
    if (code == 0 && messages) {
        tms_status status = tms_chat_render(&r, t->model, t->chat_options.template_name, messages, n, &err);
        if (status != TMS_OK) code = fail_with(status, &err);
    }
    if (code == 0 && r.text && t->common.json) {
        json_t *numbers = json_array();
        for (size_t i = 0; i < r.n_ids; i++) json_array_append_new(numbers, json_integer(r.ids[i]));
        code = print_json(json_pack("{s:s, s:s, s:s?, s:o, s:o}", "model", t->model, "template", r.template_name,
                                    "default_system", r.default_system, "text", json_stringn(r.text, r.text_bytes),
                                    "ids", numbers));
    } else if (code == 0 && r.text) {
        fwrite(r.text, 1, r.text_bytes, stdout);
        putchar('\n');
    }
    tms_rendered_free(&r);
    free(messages);
    json_decref(list);
    return code;
}

/* ---- showing --------------------------------------------------------------------------------------------------- */

static bool show_answer(void *ctx, const char *text, size_t n, bool thinking)
{
    struct talk *t = ctx;
    if (t->dims && thinking != t->dimmed) fputs(thinking ? "\033[2m" : "\033[22m", stdout);
    t->dimmed = thinking;
    t->last = text[n - 1];
    if (fwrite(text, 1, n, stdout) != n || fflush(stdout) != 0) t->failed = true;
    return !t->failed;
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static size_t computed(const struct tms_generation *g)
{
    return g->n_ids ? g->n_ids - 1 : 0; /* the last one is not read yet */
}

static void show_statistics(const struct talk *t)
{
    const struct tms_generation *g = &t->answer;
    if (!g->n_prompt) {
        fputs("tamis: nothing was said yet\n", stderr);
        return;
    }
    size_t n_read = g->n_prompt - g->n_reused;
    fprintf(stderr,
            "read: %zu tokens, %.1f tokens/s (%zu were known); answer: %zu tokens, %.1f tokens/s; ended by: %s; "
            "context: %s of %s positions\n",
            n_read, rate(n_read, g->prompt_seconds), g->n_reused, g->n_ids, rate(computed(g), g->token_seconds),
            tms_stop_name(g->stop), grouped(g->n_prompt + g->n_ids), grouped(t->info.context));
}

static void add_turn(struct talk *t, const char *said, size_t n)
{
    const struct tms_generation *g = &t->answer;
    json_array_append_new(t->turns, json_pack("{s:o, s:o, s:s, s:I, s:I, s:I, s:f, s:f}", "user", json_stringn(said, n),
                                              "text", json_stringn(g->text, g->text_bytes), "stop",
                                              tms_stop_name(g->stop), "prompt_tokens", (json_int_t)g->n_prompt,
                                              "reused_tokens", (json_int_t)g->n_reused, "tokens", (json_int_t)g->n_ids,
                                              "prompt_seconds", g->prompt_seconds, "text_seconds", g->token_seconds));
}

/* ---- talking --------------------------------------------------------------------------------------------------- */

static tms_status say(struct talk *t, const char *text, size_t n)
{
    struct tms_generation g;
    struct tms_error err;
    tms_resume();
    t->last = '\n';
    tms_status status = tms_chat_say(t->chat, text, n, &t->g, t->common.json ? NULL : show_answer, t, &g, &err);
    tms_resume();
    if (t->dims && t->dimmed) fputs("\033[22m", stdout);
    t->dimmed = false;
    t->g.sampling.seed++; /* another draw for the next answer */
    if (status != TMS_OK) {
        (void)fail_with(status, &err);
        return status;
    }
    tms_generation_free(&t->answer);
    t->answer = g;
    if (t->common.json) {
        add_turn(t, text, n);
    } else {
        if (t->last != '\n' || !g.text_bytes) putchar('\n');
        if (t->terminal) putchar('\n');
        if (fflush(stdout) != 0) t->failed = true;
    }
    if (g.stop == TMS_STOP_CANCELLED && t->terminal) fputs("(stopped)\n", stderr);
    if (g.stop == TMS_STOP_CONTEXT && !t->common.quiet)
        fprintf(stderr, "tamis: the context of %s positions is full; /reset begins anew, a larger --ctx holds more\n",
                grouped(t->info.context));
    if (t->common.verbose) show_statistics(t);
    return TMS_OK;
}

enum next { GO_ON, LEAVE, NO_COMMAND };

static void restart(struct talk *t, const char *system)
{
    struct tms_error err;
    tms_status status = tms_chat_restart(t->chat, system, &err);
    if (status != TMS_OK)
        (void)fail_with(status, &err);
    else if (t->terminal)
        fputs("(a new conversation)\n", stderr);
}

/* /word: what a person asks of the program, not of the model. */
static enum next obey(struct talk *t, char *line)
{
    size_t n = strcspn(line, " ");
    char *rest = line + n + strspn(line + n, " ");
    if (line[0] != '/') return NO_COMMAND;
    for (size_t i = 1; i < n; i++)
        if (!islower((unsigned char)line[i])) return NO_COMMAND; /* a path, or "//" */
    if (n == 5 && strncmp(line, "/exit", n) == 0) return LEAVE;
    if (n == 5 && strncmp(line, "/quit", n) == 0) return LEAVE;
    if (n == 6 && strncmp(line, "/reset", n) == 0) {
        restart(t, t->chat_options.system);
    } else if (n == 7 && strncmp(line, "/system", n) == 0) {
        restart(t, rest);
    } else if (n == 6 && strncmp(line, "/stats", n) == 0) {
        show_statistics(t);
    } else if (n == 5 && strncmp(line, "/help", n) == 0) {
        fputs("/reset         begin anew\n"
              "/system TEXT   begin anew with another system text\n"
              "/stats         speed of the last answer, and how full the context is\n"
              "/exit          leave, as Ctrl-D does\n"
              "Ctrl-C stops an answer; a line that ends with \\ goes on in the next one.\n",
              stderr);
    } else {
        fprintf(stderr, "tamis: '%.*s' is no command; /help lists them\n", (int)n, line);
    }
    return GO_ON;
}

/* Until there are no more lines. Returns the exit code. */
static int talk(struct talk *t, struct line_reader *lines)
{
    int code = 0;
    for (;;) {
        char *text;
        size_t n;
        enum line_kind kind = line_read(lines, &text, &n);
        if (kind == LINE_INTERRUPTED) continue;
        if (kind == LINE_LEFT) return t->terminal ? 0 : 130;
        if (kind == LINE_FAILED) {
            fputs("tamis: standard input could not be read\n", stderr);
            return 3;
        }
        if (kind == LINE_END) return code;
        if (text[strspn(text, " \t")] == '\0') continue;
        enum next next = obey(t, text);
        if (next == LEAVE) return code;
        if (next == GO_ON) continue;
        tms_status status = say(t, text, n);
        if (status != TMS_OK && !t->terminal) code = (int)status; /* a script goes on, too: it may reset */
        if (status != TMS_OK && status != TMS_EINPUT) return (int)status;
        if (status == TMS_OK && t->answer.stop == TMS_STOP_CANCELLED && !t->terminal) return 130;
        if (t->failed) {
            fputs("tamis: standard output could not be written\n", stderr);
            return 3;
        }
    }
}

static void greet(const struct talk *t)
{
    if (!t->terminal || t->common.quiet) return;
    fprintf(stderr, "%s, template %s, %s positions; /help lists commands\n", t->model, tms_chat_template_name(t->chat),
            grouped(t->info.context));
}

static void prepare(struct talk *t)
{
    t->session_options.n_threads = (unsigned)t->common.threads;
    t->session_options.warning = show_warning;
    t->session_options.warning_ctx = &t->common;
    t->g.stops = t->stops.items;
    t->g.n_stops = t->stops.n;
    t->g.sampling.seed = seed_or_chance(t->seed);
    signal(SIGTERM, SIG_DFL); /* nothing to tidy up; libedit puts the terminal back before */
    signal(SIGHUP, SIG_DFL);
}

int run_chat(const struct command *self, int argc, char **argv)
{
    struct talk t = {.seed = UINT64_MAX, .g = {.max_tokens = UINT64_MAX, .sampling = tms_sampling_usual}};
    struct line_reader *lines = NULL;
    struct tms_error err;
    int code = parse(self, &t, argc, argv);
    if (code >= 0) return code;
    if (t.render) return render(&t);
    prepare(&t);
    t.turns = json_array();
    tms_status status = tms_session_open(&t.session, t.model, &t.session_options, &err);
    if (status == TMS_OK) status = tms_chat_open(&t.chat, t.session, &t.chat_options, &err);
    if (status == TMS_OK) {
        tms_session_describe(t.session, &t.info);
        if (t.g.sampling.repeat_last_n > t.info.context) t.g.sampling.repeat_last_n = t.info.context;
        lines = line_reader_open(&t.terminal);
        t.dims = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
        greet(&t);
        code = lines ? talk(&t, lines) : 3;
        if (!lines) fputs("tamis: the terminal cannot be used\n", stderr);
        if (t.common.json && code != 3) {
            int printed = print_json(json_pack("{s:s, s:s, s:O}", "model", t.model, "template",
                                               tms_chat_template_name(t.chat), "turns", t.turns));
            if (printed) code = printed;
        }
    } else {
        code = fail_with(status, &err);
    }
    line_reader_close(lines);
    tms_generation_free(&t.answer);
    tms_chat_close(t.chat);
    tms_session_close(t.session);
    json_decref(t.turns);
    return code;
}

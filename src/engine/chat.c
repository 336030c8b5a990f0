/* Conversations: what was said so far, written with the model's template, and the next answer. */
#include <stdlib.h>
#include <string.h>

#include "engine/session.h"
#include "model/chat.h"

#define MAX_ENDS 4

/* One message. */
struct said {
    char *role, *text;
    size_t text_bytes;
    int32_t *ids; /* of an answer, as the model made it; NULL if it cannot be put back like that */
    size_t n_ids;
};

struct tms_chat {
    struct tms_session *session;
    struct tms_tokenizer *tokenizer; /* borrowed */
    struct tms_chat_template how;
    char *default_system; /* the template's own, while another stands in its place */
    struct tms_buf bos, eos;
    int32_t ends[MAX_ENDS];
    size_t n_ends;
    const char *end_texts[MAX_ENDS]; /* of ends that are no tokens of this vocabulary */
    size_t n_end_texts;
    struct said *said;
    size_t n_said, cap_said;
};

/* ---- words and ids --------------------------------------------------------------------------------------------- */

/* A special token begins here, so that what stands before is read alone. */
static bool begins_with_special(const struct tms_tokenizer *t, const struct tms_chat_text *text, size_t at)
{
    size_t rest = text->text.n - at, longest = rest < 64 ? rest : 64;
    for (size_t n = 1; n <= longest; n++) {
        int32_t id = tms_tokenizer_find(t, (const char *)text->text.data + at, n);
        if (id >= 0 && tms_tokenizer_is_special(t, id)) return true;
    }
    return false;
}

struct ids {
    int32_t *at;
    size_t n, cap;
};

/* Ids of a whole conversation. Answers are put back as the model made them where that says the same, so that the cache
 * holds them; said[i] is the i-th answer, or `said` is NULL. */
static tms_status encode(struct tms_tokenizer *t, const struct tms_chat_text *text, const struct said *const *said,
                         struct ids *out, struct tms_error *err)
{
    size_t done = 0;
    tms_status status = TMS_OK;
    for (size_t i = 0; said && i < text->n_answers && status == TMS_OK; i++) {
        const struct tms_text_span *span = &text->answers[i];
        if (!said[i]->ids || span->end - span->begin != said[i]->text_bytes || !said[i]->text_bytes ||
            memcmp(text->text.data + span->begin, said[i]->text, said[i]->text_bytes) != 0 ||
            !begins_with_special(t, text, span->end))
            continue;
        status = tms_chat_ids(t, text, done, span->begin, &out->at, &out->n, &out->cap, err);
        done = span->end;
        if (status != TMS_OK) break;
        if (!tms_grow(&out->at, &out->cap, out->n + said[i]->n_ids, sizeof *out->at))
            return tms_fail_memory(err, said[i]->n_ids * sizeof *out->at);
        memcpy(out->at + out->n, said[i]->ids, said[i]->n_ids * sizeof *out->at);
        out->n += said[i]->n_ids;
    }
    return status == TMS_OK ? tms_chat_ids(t, text, done, text->text.n, &out->at, &out->n, &out->cap, err) : status;
}

bool tms_chat_template_at(size_t i, struct tms_chat_template_info *info)
{
    const struct tms_chat_family *f = tms_chat_family_at(i);
    if (f) *info = (struct tms_chat_template_info){f->name, f->models};
    return f != NULL;
}

void tms_rendered_free(struct tms_rendered *r)
{
    free(r->default_system);
    free(r->text);
    free(r->ids);
    *r = (struct tms_rendered){0};
}

tms_status tms_chat_render(struct tms_rendered *out, const char *model, const char *template_name,
                           const struct tms_message *messages, size_t n, struct tms_error *err)
{
    struct tms_tokenizer *tokenizer = NULL;
    struct tms_chat_template how = {0};
    struct tms_chat_text written = {0};
    struct tms_buf bos = {0}, eos = {0};
    struct ids ids = {0};
    tms_status status = tms_tokenizer_open_path(&tokenizer, model, err);
    if (status == TMS_OK) status = tms_chat_template_open(&how, model, template_name, tokenizer, err);
    if (status == TMS_OK) status = tms_chat_token_text(tokenizer, tms_tokenizer_bos(tokenizer), &bos, err);
    if (status == TMS_OK) status = tms_chat_token_text(tokenizer, tms_tokenizer_eos(tokenizer), &eos, err);
    if (status == TMS_OK) {
        const struct tms_chat_words words = {(const char *)bos.data, (const char *)eos.data, time(NULL)};
        status = tms_chat_write(&written, &how, &words, messages, n, true, err);
    }
    if (status == TMS_OK) status = encode(tokenizer, &written, NULL, &ids, err);
    tms_buf_put(&written.text, "", 1);
    if (status == TMS_OK && written.text.failed) status = tms_fail_memory(err, written.text.n);
    if (status == TMS_OK) {
        *out = (struct tms_rendered){.template_name = how.family->name,
                                     .default_system = how.default_system,
                                     .text = (char *)written.text.data,
                                     .text_bytes = written.text.n - 1,
                                     .ids = ids.at,
                                     .n_ids = ids.n};
        how.default_system = NULL;
        written.text = (struct tms_buf){0};
        ids.at = NULL;
    }
    free(ids.at);
    tms_chat_text_free(&written);
    tms_chat_template_free(&how);
    tms_buf_free(&bos);
    tms_buf_free(&eos);
    tms_tokenizer_close(tokenizer);
    return status;
}

/* ---- what was said --------------------------------------------------------------------------------------------- */

static void forget_last(struct tms_chat *c)
{
    struct said *s = &c->said[--c->n_said];
    free(s->role);
    free(s->text);
    free(s->ids);
}

static tms_status remember(struct tms_chat *c, const char *role, const char *text, size_t n, struct tms_error *err)
{
    if (!tms_grow(&c->said, &c->cap_said, c->n_said + 1, sizeof *c->said)) return tms_fail_memory(err, sizeof *c->said);
    struct said *s = &c->said[c->n_said];
    *s = (struct said){.role = strdup(role), .text = malloc(n + 1), .text_bytes = n};
    if (!s->role || !s->text) {
        free(s->role);
        free(s->text);
        return tms_fail_memory(err, n);
    }
    if (n) memcpy(s->text, text, n);
    s->text[n] = '\0';
    c->n_said++;
    return TMS_OK;
}

/* The model's own ids, if they say what the text says: none is hidden, no byte was replaced. */
static tms_status remember_ids(struct tms_chat *c, const struct tms_generation *g, struct tms_error *err)
{
    struct said *s = &c->said[c->n_said - 1];
    if (g->n_ids == 0 || strstr(s->text, "\xef\xbf\xbd") || g->stop == TMS_STOP_TEXT) return TMS_OK;
    for (size_t i = 0; i < g->n_ids; i++)
        if (tms_tokenizer_is_special(c->tokenizer, g->ids[i])) return TMS_OK;
    s->ids = tms_calloc(g->n_ids, sizeof *s->ids);
    if (!s->ids) return tms_fail_memory(err, g->n_ids * sizeof *s->ids);
    memcpy(s->ids, g->ids, g->n_ids * sizeof *s->ids);
    s->n_ids = g->n_ids;
    return TMS_OK;
}

tms_status tms_chat_restart(struct tms_chat *c, const char *system, struct tms_error *err)
{
    if (!system && c->how.family->default_not_known)
        return tms_fail(err, TMS_EINPUT,
                        "%s: its chat template has a long system text of its own, which tamis does not read; give one "
                        "with --system ('' for none)",
                        c->session->source->path);
    while (c->n_said) forget_last(c);
    c->how.no_default = system != NULL;
    c->how.default_system = system ? NULL : c->default_system; /* owned by the chat, not by the template */
    return system && *system ? remember(c, "system", system, strlen(system), err) : TMS_OK;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static void find_ends(struct tms_chat *c)
{
    const struct tms_chat_family *f = c->how.family;
    for (size_t i = 0; i < sizeof f->ends / sizeof *f->ends && f->ends[i]; i++) {
        int32_t id = tms_tokenizer_find(c->tokenizer, f->ends[i], strlen(f->ends[i]));
        if (id >= 0)
            c->ends[c->n_ends++] = id;
        else
            c->end_texts[c->n_end_texts++] = f->ends[i];
    }
    if (f->harmony && tms_tokenizer_eos(c->tokenizer) >= 0) c->ends[c->n_ends++] = tms_tokenizer_eos(c->tokenizer);
}

tms_status tms_chat_open(struct tms_chat **out, struct tms_session *session, const struct tms_chat_options *options,
                         struct tms_error *err)
{
    struct tms_chat *c = tms_calloc(1, sizeof *c);
    if (!c) return tms_fail_memory(err, sizeof *c);
    c->session = session;
    tms_status status = tms_session_tokenizer(session, &c->tokenizer, err);
    if (status == TMS_OK)
        status = tms_chat_template_open(&c->how, session->source->path, options->template_name, c->tokenizer, err);
    if (status == TMS_OK) {
        c->default_system = c->how.default_system;
        c->how.default_system = NULL;
        status = tms_chat_token_text(c->tokenizer, tms_tokenizer_bos(c->tokenizer), &c->bos, err);
    }
    if (status == TMS_OK) status = tms_chat_token_text(c->tokenizer, tms_tokenizer_eos(c->tokenizer), &c->eos, err);
    if (status == TMS_OK) {
        find_ends(c);
        status = tms_chat_restart(c, options->system, err);
    }
    if (status == TMS_OK)
        *out = c;
    else
        tms_chat_close(c);
    return status;
}

void tms_chat_close(struct tms_chat *c)
{
    if (!c) return;
    while (c->n_said) forget_last(c);
    free(c->said);
    free(c->default_system);
    tms_buf_free(&c->bos);
    tms_buf_free(&c->eos);
    free(c);
}

const char *tms_chat_template_name(const struct tms_chat *c)
{
    return c->how.family->name;
}

/* ---- hearing --------------------------------------------------------------------------------------------------- */

/* Marks in an answer that begin and end thinking. */
struct mark {
    const char *text;
    bool shown;
    enum { THINKING_BEGINS, THINKING_ENDS, NOTHING } means;
};
static const struct mark usual_marks[] = {
    {"<think>", true, THINKING_BEGINS},
    {"</think>", true, THINKING_ENDS},
};
static const struct mark harmony_marks[] = {
    {"<|channel|>analysis<|message|>", false, THINKING_BEGINS},
    {"<|channel|>commentary<|message|>", false, THINKING_BEGINS},
    {"<|channel|>final<|message|>", false, THINKING_ENDS},
    {"<|start|>assistant", false, NOTHING},
    {"<|end|>", false, NOTHING},
};

struct listener {
    tms_chat_text_fn hear; /* or NULL */
    void *ctx;
    const struct mark *marks;
    size_t n_marks;
    struct tms_buf held;
    bool thinking, ended;
};

static void pass_on(struct listener *l, size_t n)
{
    if (n && !l->ended && l->hear) l->ended = !l->hear(l->ctx, (const char *)l->held.data, n, l->thinking);
}

static void drop(struct listener *l, size_t n)
{
    memmove(l->held.data, l->held.data + n, l->held.n - n);
    l->held.n -= n;
}

/* How much of the mark stands at `at`: all, or as much as there is. 0: it is not there. */
static size_t stands(const struct listener *l, const struct mark *m, size_t at)
{
    size_t n = strlen(m->text), rest = l->held.n - at;
    if (n > rest) n = rest;
    return memcmp(m->text, l->held.data + at, n) == 0 ? n : 0;
}

/* Passes on what is held, as far as it cannot be the beginning of a mark. */
static void listen(struct listener *l)
{
    for (size_t at = 0; at < l->held.n;) {
        const struct mark *found = NULL;
        bool begins = false;
        for (size_t i = 0; i < l->n_marks; i++) {
            size_t n = stands(l, &l->marks[i], at);
            if (n && !l->marks[i].text[n])
                found = &l->marks[i];
            else if (n)
                begins = true;
        }
        if (found) {
            size_t n = strlen(found->text);
            pass_on(l, at);
            drop(l, at);
            if (found->means == THINKING_BEGINS) l->thinking = true;
            if (found->shown) pass_on(l, n);
            if (found->means == THINKING_ENDS) l->thinking = false;
            drop(l, n);
            at = 0;
        } else if (begins) {
            pass_on(l, at);
            drop(l, at);
            return;
        } else {
            at++;
        }
    }
    pass_on(l, l->held.n);
    l->held.n = 0;
}

static bool hear_text(void *ctx, const char *text, size_t n)
{
    struct listener *l = ctx;
    tms_buf_put(&l->held, text, n);
    if (l->held.failed) return false;
    listen(l);
    return !l->ended;
}

/* ---- saying ---------------------------------------------------------------------------------------------------- */

/* The conversation so far, up to where the answer begins, as ids. */
static tms_status write_down(struct tms_chat *c, struct ids *out, struct tms_error *err)
{
    const struct tms_chat_words words = {(const char *)c->bos.data, (const char *)c->eos.data, time(NULL)};
    struct tms_message *messages = tms_calloc(c->n_said, sizeof *messages);
    const struct said **answers = tms_calloc(c->n_said, sizeof *answers);
    struct tms_chat_text text = {0};
    size_t n_answers = 0;
    tms_status status = messages && answers ? TMS_OK : tms_fail_memory(err, c->n_said * sizeof *messages);
    for (size_t i = 0; status == TMS_OK && i < c->n_said; i++) {
        const struct said *s = &c->said[i];
        messages[i] = (struct tms_message){s->role, s->text, s->text_bytes};
        if (strcmp(s->role, "assistant") == 0) answers[n_answers++] = s;
    }
    if (status == TMS_OK) status = tms_chat_write(&text, &c->how, &words, messages, c->n_said, true, err);
    if (status == TMS_OK) status = encode(c->tokenizer, &text, answers, out, err);
    tms_chat_text_free(&text);
    free(messages);
    free(answers);
    return status;
}

static tms_status answer(struct tms_chat *c, const struct ids *ids, const struct tms_generate_options *options,
                         struct listener *l, struct tms_generation *out, struct tms_error *err)
{
    const struct tms_prompt prompt = {.ids = ids->at, .n_ids = ids->n};
    struct tms_generate_options o = *options;
    const char **stops = tms_calloc(o.n_stops + MAX_ENDS, sizeof *stops);
    if (!stops) return tms_fail_memory(err, o.n_stops * sizeof *stops);
    if (o.n_stops) memcpy(stops, o.stops, o.n_stops * sizeof *stops);
    memcpy(stops + o.n_stops, c->end_texts, c->n_end_texts * sizeof *stops);
    o.stops = stops;
    o.n_stops += c->n_end_texts;
    o.ends = options->ignore_end ? NULL : c->ends;
    o.n_ends = options->ignore_end ? 0 : c->n_ends;
    if (c->how.family->harmony) o.ignore_end = o.show_special = true; /* its marks are special tokens */
    o.text = hear_text;
    o.text_ctx = l;
    tms_status status = tms_session_generate(c->session, &prompt, &o, out, err);
    if (status == TMS_OK && out->stop == TMS_STOP_TEXT && out->stop_index >= options->n_stops) out->stop = TMS_STOP_END;
    free(stops);
    return status;
}

tms_status tms_chat_say(struct tms_chat *c, const char *text, size_t n, const struct tms_generate_options *options,
                        tms_chat_text_fn hear, void *hear_ctx, struct tms_generation *out, struct tms_error *err)
{
    const struct tms_chat_family *f = c->how.family;
    struct listener l = {.hear = hear,
                         .ctx = hear_ctx,
                         .marks = f->harmony ? harmony_marks : usual_marks,
                         .n_marks = f->harmony ? sizeof harmony_marks / sizeof *harmony_marks
                                               : sizeof usual_marks / sizeof *usual_marks,
                         .thinking = strstr(f->prompt, "<think>") != NULL};
    struct tms_generation g = {0};
    struct ids ids = {0};
    tms_status status = remember(c, "user", text, n, err);
    if (status != TMS_OK) return status;
    status = write_down(c, &ids, err);
    if (status == TMS_OK && ids.n >= c->session->about.context)
        status = tms_fail(err, TMS_EINPUT,
                          "the conversation has %zu tokens, and the context %llu positions: it is full; /reset begins "
                          "anew, a larger --ctx holds more",
                          ids.n, (unsigned long long)c->session->about.context);
    if (status == TMS_OK) status = answer(c, &ids, options, &l, &g, err);
    free(ids.at);
    if (status == TMS_OK && l.held.failed) status = tms_fail_memory(err, g.text_bytes);
    if (status == TMS_OK) {
        pass_on(&l, l.held.n); /* what looked like the beginning of a mark */
        status = remember(c, "assistant", g.text, g.text_bytes, err);
        if (status == TMS_OK) status = remember_ids(c, &g, err);
        if (status != TMS_OK && c->n_said && strcmp(c->said[c->n_said - 1].role, "assistant") == 0) forget_last(c);
    }
    tms_buf_free(&l.held);
    if (status != TMS_OK) {
        forget_last(c);
        tms_generation_free(&g);
        return status;
    }
    *out = g;
    return TMS_OK;
}

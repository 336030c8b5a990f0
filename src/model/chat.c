/* Recognising chat templates, and writing conversations with them. See chat.h. */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

#include "file/utf8.h"
#include "model/unicode.h"
#include "model/vocab.h"

/* ---- recognising ----------------------------------------------------------------------------------------------- */

/* Jinja literals in one form: the two characters \n are a line end, every quote is '. */
static char *plain_form(const char *jinja)
{
    char *out = malloc(strlen(jinja) + 1), *to = out;
    if (!out) return NULL;
    for (const char *at = jinja; *at; at++) {
        if (at[0] == '\\' && at[1] == 'n') {
            *to++ = '\n';
            at++;
        } else {
            *to++ = *at == '"' ? '\'' : *at;
        }
    }
    *to = '\0';
    return out;
}

static bool is_family(const struct tms_chat_family *f, const char *text)
{
    for (size_t i = 0; i < sizeof f->needs / sizeof *f->needs && f->needs[i]; i++)
        if (!strstr(text, f->needs[i])) return false;
    for (size_t i = 0; i < sizeof f->lacks / sizeof *f->lacks && f->lacks[i]; i++)
        if (strstr(text, f->lacks[i])) return false;
    return true;
}

/* A literal that is a whole system block holds the default. False: there is one somewhere, but not like that. */
static bool find_default(const struct tms_chat_family *f, const char *text, const char **begin, size_t *n)
{
    size_t before = strlen(f->system_before);
    *n = 0;
    for (const char *at = text; (at = strstr(at, f->system_before)) != NULL; at += before) {
        const char *from = at + before, *end = strpbrk(from, "'{}");
        const char *after = strstr(from, f->system_after);
        if (!after || !end || after >= end || after == from) continue;
        *begin = from;
        *n = (size_t)(after - from);
        return true;
    }
    for (const char *at = text; (at = strstr(at, "You are")) != NULL; at++)
        if (strncmp(at, "You are provided with", 21) != 0) return false; /* that is about tools */
    return true;
}

tms_status tms_chat_template_read(struct tms_chat_template *out, const char *jinja, const char *where,
                                  struct tms_error *err)
{
    char *text = plain_form(jinja);
    struct tms_buf names = {0};
    struct tms_chat_template t = {0};
    tms_status status = text ? TMS_OK : tms_fail_memory(err, strlen(jinja));
    for (size_t i = 0; status == TMS_OK && !t.family; i++) {
        const struct tms_chat_family *f = tms_chat_family_at(i);
        const char *begin = NULL;
        size_t n = 0;
        if (!f) break;
        if (!is_family(f, text) || (f->default_in_text && !find_default(f, text, &begin, &n))) continue;
        t.family = f;
        t.bos = strstr(text, "bos_token") != NULL;
        if (n && !(t.default_system = strndup(begin, n))) status = tms_fail_memory(err, n);
    }
    if (status == TMS_OK && !t.family)
        status = tms_fail(err, TMS_EINPUT,
                          "%s: its chat template is of no family that tamis knows; --template chooses one of %s", where,
                          tms_chat_family_names(&names));
    if (status == TMS_OK)
        *out = t;
    else
        free(t.default_system);
    tms_buf_free(&names);
    free(text);
    return status;
}

void tms_chat_template_free(struct tms_chat_template *t)
{
    free(t->default_system);
    *t = (struct tms_chat_template){0};
}

/* ---- of a model ---- */

static tms_status read_kvs(struct tms_chat_template *out, const struct tms_kvs *kvs, const char *path,
                           struct tms_error *err)
{
    const struct tms_kv *kv = tms_kvs_find(kvs, "tokenizer.chat_template");
    const char *jinja = kv ? tms_kv_as_string(kv) : NULL;
    if (jinja) return tms_chat_template_read(out, jinja, path, err);
    struct tms_buf names = {0};
    tms_status status =
        tms_fail(err, TMS_EINPUT, "%s: has no chat template: a base model, perhaps; --template chooses one of %s", path,
                 tms_chat_family_names(&names));
    tms_buf_free(&names);
    return status;
}

static tms_status read_folder(struct tms_chat_template *out, const char *dir, struct tms_error *err)
{
    struct tms_tokenizer_options options = {0};
    struct tms_tokenizer_files files = {.options = &options, .dir = dir};
    struct tms_kvs kvs = {0};
    tms_status status = tms_tokenizer_files_open(&files, err);
    if (status == TMS_OK) status = tms_chat_template_export(&kvs, &files, err);
    if (status == TMS_OK) status = read_kvs(out, &kvs, dir, err);
    tms_kvs_free(&kvs);
    tms_tokenizer_files_close(&files);
    return status;
}

tms_status tms_chat_template_open(struct tms_chat_template *out, const char *path, const char *name,
                                  const struct tms_tokenizer *tokenizer, struct tms_error *err)
{
    if (name) {
        struct tms_chat_template t = {.bos = tms_tokenizer_add_bos(tokenizer)};
        tms_status status = tms_chat_family_find(&t.family, name, err);
        if (status == TMS_OK && t.family->place != TMS_CHAT_BLOCK) t.bos = true; /* of old families, all */
        if (status == TMS_OK) *out = t;
        return status;
    }
    if (tms_path_is_dir(path)) return read_folder(out, path, err);
    struct tms_gguf *gguf = NULL;
    tms_status status = tms_gguf_open(&gguf, path, err);
    if (status == TMS_OK) status = read_kvs(out, &gguf->kvs, path, err);
    tms_gguf_close(gguf);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

struct piece {
    const char *text;
    size_t n;
};

/* What Python's str.strip takes away: Unicode's white space and four separators. */
static bool is_blank(uint32_t code)
{
    return (code >= 0x1c && code <= 0x1f) || tms_in_class(tms_code_class("space", 5), code);
}

static struct piece trim_left(struct piece p)
{
    const uint8_t *at = (const uint8_t *)p.text, *end = at + p.n;
    while (at < end) {
        const uint8_t *next = at;
        if (!is_blank(tms_next_code(&next))) break;
        at = next;
    }
    return (struct piece){(const char *)at, (size_t)(end - at)};
}

static struct piece trim_right(struct piece p)
{
    const uint8_t *begin = (const uint8_t *)p.text, *end = begin + p.n;
    while (end > begin) {
        const uint8_t *one = end;
        do one--;
        while (one > begin && (*one & 0xc0) == 0x80);
        const uint8_t *next = one;
        if (!is_blank(tms_next_code(&next))) break;
        end = one;
    }
    return (struct piece){p.text, (size_t)(end - begin)};
}

static struct piece trim_if(bool wanted, struct piece p)
{
    return wanted ? trim_right(trim_left(p)) : p;
}

/* What stands behind the last of several `mark`s; all of it if there is none. */
static struct piece behind_last(struct piece p, const char *mark, bool *found)
{
    size_t n = strlen(mark);
    *found = false;
    for (const char *at; (at = memmem(p.text, p.n, mark, n)) != NULL; *found = true)
        p = (struct piece){at + n, p.n - (size_t)(at + n - p.text)};
    return p;
}

static struct piece remembered(const struct tms_chat_family *f, struct piece p)
{
    bool thought = false;
    if (f->harmony) p = behind_last(p, "<|channel|>final<|message|>", &thought);
    if (f->thinking != TMS_CHAT_KEEP) p = behind_last(p, "</think>", &thought);
    if (f->thinking == TMS_CHAT_DROP_ALL_LINES || (f->thinking == TMS_CHAT_DROP_AND_LINES && thought))
        for (; p.n && *p.text == '\n'; p.text++) p.n--;
    return trim_if(f->trims & TMS_CHAT_TRIM_ANSWER, p);
}

void tms_chat_remembered(const struct tms_chat_family *family, const char *answer, size_t n, struct tms_buf *out)
{
    struct piece p = remembered(family, (struct piece){answer, n});
    tms_buf_put(out, p.text, p.n);
}

struct writer {
    struct tms_chat_text *out;
    const struct tms_chat_template *t;
    const struct tms_chat_words *words;
};

static void put_text(struct writer *w, struct piece p)
{
    tms_buf_put(&w->out->text, p.text, p.n);
}

static void put_date(struct writer *w, const char *format)
{
    char text[32];
    struct tm day;
    size_t n = localtime_r(&w->words->now, &day) ? strftime(text, sizeof text, format, &day) : 0;
    tms_buf_put(&w->out->text, text, n);
}

/* Appends markup, with its words filled in, and remembers that it is some. */
static void put_markup(struct writer *w, const char *markup)
{
    struct tms_chat_text *out = w->out;
    size_t begin = out->text.n;
    for (const char *at = markup; at && *at;) {
        const char *brace = strchr(at, '{');
        size_t n = brace ? (size_t)(brace - at) : strlen(at);
        tms_buf_put(&out->text, at, n);
        at += n;
        if (strncmp(at, "{bos}", 5) == 0) {
            if (w->t->bos) tms_buf_text(&out->text, w->words->bos);
        } else if (strncmp(at, "{eos}", 5) == 0) {
            tms_buf_text(&out->text, w->words->eos);
        } else if (strncmp(at, "{date}", 6) == 0) {
            put_date(w, "%d %b %Y");
        } else if (strncmp(at, "{today}", 7) == 0) {
            put_date(w, "%Y-%m-%d");
        }
        if (*at) at = strchr(at, '}') + 1;
    }
    if (out->text.n == begin) return;
    if (out->n_markup && out->markup[out->n_markup - 1].end == begin) {
        out->markup[out->n_markup - 1].end = out->text.n;
    } else if (tms_grow(&out->markup, &out->cap_markup, out->n_markup + 1, sizeof *out->markup)) {
        out->markup[out->n_markup++] = (struct tms_text_span){begin, out->text.n};
    } else {
        out->text.failed = true;
    }
}

/* A question; `system` stands in it, if there is one. */
static void put_question(struct writer *w, struct piece question, const struct piece *system)
{
    const struct tms_chat_family *f = w->t->family;
    bool joined = f->trims & TMS_CHAT_TRIM_JOINED;
    put_markup(w, f->user_before);
    question = trim_if(f->trims & TMS_CHAT_TRIM_USER, question);
    if (system) {
        put_markup(w, f->system_before);
        put_text(w, trim_if(f->trims & TMS_CHAT_TRIM_SYSTEM, *system));
        put_markup(w, f->system_after);
        if (joined) question = trim_right(question); /* its beginning is in the middle */
    } else {
        question = trim_if(joined, question);
    }
    put_text(w, question);
    put_markup(w, f->user_after);
}

static void put_answer(struct writer *w, struct piece answer)
{
    const struct tms_chat_family *f = w->t->family;
    struct tms_chat_text *out = w->out;
    size_t begin = out->text.n, n = strlen(f->prompt);
    put_markup(w, f->answer_before);
    put_text(w, remembered(f, answer));
    if (!tms_grow(&out->answers, &out->cap_answers, out->n_answers + 1, sizeof *out->answers)) out->text.failed = true;
    if (out->text.failed) return;
    /* a prompt that differs from how answers begin later: nothing of the answer is where it was */
    if (out->text.n - begin >= n && memcmp(out->text.data + begin, f->prompt, n) == 0)
        out->answers[out->n_answers++] = (struct tms_text_span){begin + n, out->text.n};
    else
        out->answers[out->n_answers++] = (struct tms_text_span){begin, begin};
    put_markup(w, f->answer_after);
}

static tms_status check_messages(const struct tms_message *messages, size_t n, struct tms_error *err)
{
    size_t first = n && strcmp(messages[0].role, "system") == 0;
    for (size_t i = 0; i < n; i++) {
        const char *expected = i < first ? "system" : (i - first) % 2 == 0 ? "user" : "assistant";
        if (strcmp(messages[i].role, expected) != 0)
            return tms_fail(err, TMS_EINPUT,
                            "message %zu of the conversation is of role '%.32s' where '%s' is expected: an optional "
                            "system text, then user and assistant in turn",
                            i + 1, messages[i].role, expected);
        if (messages[i].text_bytes && !tms_is_utf8(messages[i].text, messages[i].text_bytes))
            return tms_fail(err, TMS_EINPUT, "message %zu of the conversation is no UTF-8", i + 1);
    }
    return n > first ? TMS_OK : tms_fail(err, TMS_EINPUT, "the conversation has no question");
}

static struct piece text_of(const struct tms_message *m)
{
    return (struct piece){m->text, m->text_bytes};
}

tms_status tms_chat_write(struct tms_chat_text *out, const struct tms_chat_template *t,
                          const struct tms_chat_words *words, const struct tms_message *messages, size_t n, bool prompt,
                          struct tms_error *err)
{
    const struct tms_chat_family *f = t->family;
    struct writer w = {out, t, words};
    tms_status status = check_messages(messages, n, err);
    if (status != TMS_OK) return status;
    bool given = strcmp(messages[0].role, "system") == 0;
    if (f->default_not_known && !given && !t->no_default)
        return tms_fail(err, TMS_EINPUT,
                        "the chat template has a long system text of its own, which tamis does not read; give one with "
                        "--system ('' for none)");
    bool has_system = given || t->default_system;
    struct piece system = given               ? text_of(&messages[0])
                          : t->default_system ? (struct piece){t->default_system, strlen(t->default_system)}
                                              : (struct piece){"", 0};
    size_t first = given, last = n - 1;
    while (last > first && strcmp(messages[last].role, "user") != 0) last--;
    put_markup(&w, f->begin);
    if (f->place == TMS_CHAT_BLOCK && has_system) {
        put_markup(&w, f->system_before);
        put_text(&w, trim_if(f->trims & TMS_CHAT_TRIM_SYSTEM, system));
        put_markup(&w, f->system_after);
    } else if (f->place == TMS_CHAT_BLOCK) {
        put_markup(&w, f->no_system);
    }
    for (size_t i = first; i < n; i++) {
        bool here = has_system &&
                    ((f->place == TMS_CHAT_IN_FIRST && i == first) || (f->place == TMS_CHAT_IN_LAST && i == last));
        if ((i - first) % 2 == 0)
            put_question(&w, text_of(&messages[i]), here ? &system : NULL);
        else
            put_answer(&w, text_of(&messages[i]));
    }
    if (prompt) put_markup(&w, f->prompt);
    return out->text.failed ? tms_fail_memory(err, out->text.n) : TMS_OK;
}

void tms_chat_text_free(struct tms_chat_text *t)
{
    tms_buf_free(&t->text);
    free(t->markup);
    free(t->answers);
    *t = (struct tms_chat_text){0};
}

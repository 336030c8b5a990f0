/* See samples.h. */
#include "calib/samples.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "model/chat.h"

enum { LENGTH = 512, LEAST = 8 };

/* Templates that write a date write this one, the default of Llama 3's, so that statistics are of the text alone. */
#define DATE ((time_t)1721995200) /* 26 Jul 2024 */

struct reading {
    const struct tms_calibrate_options *options;
    struct tms_tokenizer *tokenizer;
    const char *model;
    struct tms_chat_template chat; /* from the first conversation on */
    struct tms_buf bos_text, eos_text;
    size_t length;
    int32_t bos; /* -1: none */
    int32_t *ids;
    size_t n_ids, cap_ids;
    size_t *starts; /* of sequences that may be taken, and the end */
    size_t n, cap;
};

static tms_status encode(struct reading *r, const char *text, size_t n_bytes, struct tms_error *err)
{
    const struct tms_tokenize_options o = {.special = r->bos >= 0, .no_parse_special = !r->options->parse_special};
    size_t before = r->n_ids;
    tms_status status = tms_tokenizer_encode(r->tokenizer, text, n_bytes, &o, &r->ids, &r->n_ids, &r->cap_ids, err);
    bool eos = status == TMS_OK && o.special && tms_tokenizer_add_eos(r->tokenizer) && r->n_ids > before &&
               r->ids[r->n_ids - 1] == tms_tokenizer_eos(r->tokenizer);
    if (eos) r->n_ids--; /* the text goes on */
    return status;
}

static tms_status add_start(struct reading *r, size_t start, struct tms_error *err)
{
    if (!tms_grow(&r->starts, &r->cap, r->n + 1, sizeof *r->starts))
        return tms_fail_memory(err, (r->n + 1) * sizeof *r->starts);
    r->starts[r->n++] = start;
    return TMS_OK;
}

static tms_status read_text(struct reading *r, const char *text, size_t n_bytes, struct tms_error *err)
{
    tms_status status = encode(r, text, n_bytes, err);
    size_t n = status == TMS_OK ? r->n_ids / r->length : 0;
    if (status == TMS_OK && n == 0)
        return tms_fail(err, TMS_EINPUT, "%s: %zu tokens are too few: a sequence needs %zu (--seqlen makes it shorter)",
                        r->options->data, r->n_ids, r->length);
    for (size_t i = 0; i <= n && status == TMS_OK; i++) {
        if (i < n && r->bos >= 0) r->ids[i * r->length] = r->bos;
        status = add_start(r, i * r->length, err);
    }
    return status;
}

static tms_status open_chat(struct reading *r, struct tms_error *err)
{
    const struct tms_tokenizer *t = r->tokenizer;
    if (r->chat.family) return TMS_OK;
    tms_status status = tms_chat_template_open(&r->chat, r->model, r->options->template_name, t, err);
    if (status == TMS_OK) status = tms_chat_token_text(t, tms_tokenizer_bos(t), &r->bos_text, err);
    return status == TMS_OK ? tms_chat_token_text(t, tms_tokenizer_eos(t), &r->eos_text, err) : status;
}

/* The line's messages, borrowed from its JSON; to be freed. */
static tms_status list_messages(const struct reading *r, size_t number, const json_t *list, struct tms_message **out,
                                struct tms_error *err)
{
    size_t n = json_array_size(list);
    struct tms_message *messages = tms_calloc(n + 1, sizeof *messages);
    if (!messages) return tms_fail_memory(err, n * sizeof *messages);
    for (size_t i = 0; i < n; i++) {
        const json_t *role = json_object_get(json_array_get(list, i), "role");
        const json_t *content = json_object_get(json_array_get(list, i), "content");
        if (!json_is_string(role) || !json_is_string(content)) {
            free(messages);
            return tms_fail(err, TMS_EINPUT, "%s: line %zu: message %zu is no {\"role\": \"…\", \"content\": \"…\"}",
                            r->options->data, number, i + 1);
        }
        messages[i] = (struct tms_message){.role = json_string_value(role),
                                           .text = json_string_value(content),
                                           .text_bytes = json_string_length(content)};
    }
    *out = messages;
    return TMS_OK;
}

static tms_status encode_messages(struct reading *r, size_t number, const json_t *list, struct tms_error *err)
{
    struct tms_message *messages = NULL;
    struct tms_chat_text written = {0};
    struct tms_error problem;
    size_t n = json_array_size(list);
    tms_status status = open_chat(r, err);
    if (status == TMS_OK) status = list_messages(r, number, list, &messages, err);
    if (status != TMS_OK) return status;
    const struct tms_chat_words words = {(const char *)r->bos_text.data, (const char *)r->eos_text.data, DATE};
    if (n && r->chat.family->default_not_known && strcmp(messages[0].role, "system") != 0) {
        status = tms_fail(err, TMS_EINPUT,
                          "%s: line %zu: the chat template has a long system text of its own, which tamis does not "
                          "read; the conversation needs a message of role system",
                          r->options->data, number);
    } else {
        status = tms_chat_write(&written, &r->chat, &words, messages, n, false, &problem);
        if (status != TMS_OK)
            (void)tms_fail(err, status, "%s: line %zu: %s", r->options->data, number, problem.message);
    }
    if (status == TMS_OK)
        status = tms_chat_ids(r->tokenizer, &written, 0, written.text.n, &r->ids, &r->n_ids, &r->cap_ids, err);
    tms_chat_text_free(&written);
    free(messages);
    return status;
}

static tms_status read_line(struct reading *r, size_t number, const char *line, size_t n_bytes, struct tms_error *err)
{
    json_error_t problem;
    json_t *json = json_loadb(line, n_bytes, 0, &problem);
    const json_t *text = json_object_get(json, "text"), *messages = json_object_get(json, "messages");
    tms_status status = TMS_OK;
    size_t before = r->n_ids;
    if (json_is_array(messages))
        status = encode_messages(r, number, messages, err);
    else if (json_is_string(text))
        status = encode(r, json_string_value(text), json_string_length(text), err);
    else
        status = tms_fail(err, TMS_EINPUT, "%s: line %zu is no {\"text\": \"…\"} and no {\"messages\": […]}%s%s",
                          r->options->data, number, json ? "" : ": ", json ? "" : problem.text);
    json_decref(json);
    if (status != TMS_OK) return status;
    if (r->n_ids - before > r->length) r->n_ids = before + r->length;
    return r->n_ids > before ? add_start(r, before, err) : TMS_OK;
}

static tms_status read_lines(struct reading *r, const char *text, size_t n_bytes, struct tms_error *err)
{
    size_t number = 0;
    tms_status status = TMS_OK;
    for (const char *line = text, *end; line < text + n_bytes && status == TMS_OK; line = end + 1) {
        end = memchr(line, '\n', (size_t)(text + n_bytes - line));
        if (!end) end = text + n_bytes;
        number++;
        size_t n = (size_t)(end - line);
        while (n && strchr(" \t\r", line[n - 1])) n--;
        if (n) status = read_line(r, number, line, n, err);
    }
    if (status == TMS_OK && r->n == 0)
        status = tms_fail(err, TMS_EINPUT, "%s: has no line with a text", r->options->data);
    return status == TMS_OK ? add_start(r, r->n_ids, err) : status;
}

/* Marsaglia-style mixing of a counter (SplitMix64; Steele, Lea and Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Which sequences are taken, in order: the first ones, or so many drawn without putting back. */
static bool *choose(const struct reading *r, size_t n, size_t *wanted)
{
    bool *taken = tms_calloc(n, sizeof *taken);
    uint64_t state = r->options->seed;
    *wanted = r->options->n_samples && r->options->n_samples < n ? (size_t)r->options->n_samples : n;
    for (size_t i = 0, left = *wanted; taken && i < n; i++) {
        taken[i] = r->options->draw ? next_random(&state) % (n - i) < left : left > 0;
        left -= taken[i];
    }
    return taken;
}

static tms_status take(struct tms_samples *out, const struct reading *r, uint64_t n_vocab, struct tms_error *err)
{
    size_t n = r->n - 1, wanted;
    bool *taken = choose(r, n, &wanted);
    out->ids = tms_calloc(r->n_ids, sizeof *out->ids);
    out->starts = tms_calloc(wanted + 1, sizeof *out->starts);
    tms_status status = taken && out->ids && out->starts ? TMS_OK : tms_fail_memory(err, r->n_ids * sizeof *out->ids);
    for (size_t i = 0; i < n && status == TMS_OK; i++) {
        size_t length = r->starts[i + 1] - r->starts[i];
        if (!taken[i]) continue;
        memcpy(out->ids + out->n_tokens, r->ids + r->starts[i], length * sizeof *out->ids);
        out->n_tokens += length;
        out->starts[++out->n] = out->n_tokens;
        if (length > out->longest) out->longest = length;
    }
    for (size_t i = 0; i < out->n_tokens && status == TMS_OK; i++)
        if (out->ids[i] < 0 || (uint64_t)out->ids[i] >= n_vocab)
            status = tms_fail(err, TMS_EINPUT, "%s: token %d is not in the model's vocabulary of %llu",
                              r->options->data, (int)out->ids[i], (unsigned long long)n_vocab);
    free(taken);
    return status;
}

tms_status tms_samples_read(struct tms_samples *out, struct tms_tokenizer *tokenizer, const char *model,
                            uint64_t n_vocab, const struct tms_calibrate_options *options, struct tms_error *err)
{
    struct reading r = {.options = options, .tokenizer = tokenizer, .model = model};
    char *text = NULL;
    size_t n_bytes = 0;
    if (options->length && (options->length < LEAST || options->length > INT32_MAX))
        return tms_fail(err, TMS_EUSAGE, "sequences of %llu tokens are too %s: %d to %d",
                        (unsigned long long)options->length, options->length < LEAST ? "short" : "long", LEAST,
                        INT32_MAX);
    r.length = options->length ? (size_t)options->length : LENGTH;
    r.bos = !options->no_bos && tms_tokenizer_add_bos(tokenizer) ? tms_tokenizer_bos(tokenizer) : -1;
    tms_status status = tms_file_text(options->data, INT32_MAX, &text, &n_bytes, err);
    if (status == TMS_OK)
        status = tms_ends_with(options->data, ".jsonl") ? read_lines(&r, text, n_bytes, err)
                                                        : read_text(&r, text, n_bytes, err);
    free(text);
    if (status == TMS_OK) status = take(out, &r, n_vocab, err);
    tms_chat_template_free(&r.chat);
    tms_buf_free(&r.bos_text);
    tms_buf_free(&r.eos_text);
    free(r.ids);
    free(r.starts);
    if (status != TMS_OK) tms_samples_free(out);
    return status;
}

void tms_samples_free(struct tms_samples *samples)
{
    free(samples->ids);
    free(samples->starts);
    *samples = (struct tms_samples){0};
}

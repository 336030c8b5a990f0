/* A vocabulary on its way into a GGUF file; see vocab.h. */
#include "model/vocab.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tms_tokenizer_warn(const struct tms_tokenizer_options *options, const char *format, ...)
{
    if (!options->warn) return;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    options->warn(options->warn_ctx, line);
}

tms_status tms_vocab_init(struct tms_vocab *vocab, uint64_t n, const char *path, struct tms_error *err)
{
    if (n == 0) return tms_fail(err, TMS_EINPUT, "%s: holds no tokens", path);
    if (n > TMS_VOCAB_MAX)
        return tms_fail(err, TMS_EINPUT, "%s: a vocabulary of %llu tokens is more than tamis accepts (%llu)", path,
                        (unsigned long long)n, (unsigned long long)TMS_VOCAB_MAX);
    struct tms_token *tokens = tms_calloc(n, sizeof *tokens);
    if (!tokens) return tms_fail_memory(err, n * sizeof *tokens);
    free(vocab->tokens);
    vocab->tokens = tokens;
    vocab->n = n;
    return TMS_OK;
}

void tms_vocab_free(struct tms_vocab *vocab)
{
    free(vocab->tokens);
    tms_arena_free(&vocab->texts);
    *vocab = (struct tms_vocab){0};
}

void tms_vocab_set(struct tms_vocab *vocab, uint64_t id, const char *text, size_t n, enum tms_token_type type)
{
    struct tms_token *token = &vocab->tokens[id];
    token->text = text;
    token->n = n;
    token->type = (int32_t)type;
}

static bool starts_with(const char *text, size_t n, const char *start)
{
    return n >= strlen(start) && memcmp(text, start, strlen(start)) == 0;
}

static bool ends_with(const char *text, size_t n, const char *end)
{
    return n >= strlen(end) && memcmp(text + n - strlen(end), end, strlen(end)) == 0;
}

/* Some publishers mark tokens that must never come from a user's text as ordinary ones. The list is that of
 * llama.cpp's converter: command-r, deepseek-coder and Gemma made it necessary. */
static bool looks_special(const char *text, size_t n)
{
    static const char *const whole[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    static const struct {
        const char *start, *end;
    } shapes[] = {
        {"<|", "|>"},
        {"<\xef\xbd\x9c", "\xef\xbd\x9c>"}, /* U+FF5C, the wide bar */
        {"<unused", ">"},
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (n == strlen(whole[i]) && memcmp(text, whole[i], n) == 0) return true;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (starts_with(text, n, shapes[i].start) && ends_with(text, n, shapes[i].end)) return true;
    return false;
}

bool tms_vocab_set_added(struct tms_vocab *vocab, uint64_t id, const char *text, size_t n, bool special)
{
    static const char block[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */
    if (special || looks_special(text, n)) {
        tms_vocab_set(vocab, id, text, n, TMS_TOKEN_CONTROL);
        return true;
    }
    /* llama.cpp looks for user-defined tokens in the text as it was typed. */
    if (memmem(text, n, block, 3)) {
        char *spaced = tms_arena_strndup(&vocab->texts, text, n);
        if (!spaced) return false;
        size_t to = 0;
        for (size_t from = 0; from < n; to++) {
            bool is_block = n - from >= 3 && memcmp(text + from, block, 3) == 0;
            spaced[to] = is_block ? ' ' : text[from];
            from += is_block ? 3 : 1;
        }
        text = spaced;
        n = to;
    }
    tms_vocab_set(vocab, id, text, n, TMS_TOKEN_USER_DEFINED);
    return true;
}

/* By text, then by id. */
static int by_text(const void *a, const void *b, void *tokens)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    const struct tms_token *x = (const struct tms_token *)tokens + i, *y = (const struct tms_token *)tokens + j;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    if (order) return order;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return i < j ? -1 : i > j;
}

/* llama.cpp asserts, when it loads a file, that there are as many texts as ids. Sorted, not hashed: a file cannot
 * be made to take long. */
static tms_status check_unique(const struct tms_vocab *vocab, const char *path, struct tms_error *err)
{
    uint32_t *ids = tms_calloc(vocab->n, sizeof *ids);
    tms_status status = TMS_OK;
    if (!ids) return tms_fail_memory(err, vocab->n * sizeof *ids);
    for (uint64_t id = 0; id < vocab->n; id++) ids[id] = (uint32_t)id;
    qsort_r(ids, vocab->n, sizeof *ids, by_text, vocab->tokens);
    for (uint64_t i = 1; i < vocab->n && status == TMS_OK; i++) {
        const struct tms_token *one = &vocab->tokens[ids[i - 1]], *two = &vocab->tokens[ids[i]];
        if (one->n == two->n && memcmp(one->text, two->text, one->n) == 0)
            status = tms_fail(err, TMS_EINPUT,
                              "%s: ids %u and %u have the same token '%.*s'; llama.cpp loads no such vocabulary", path,
                              ids[i - 1], ids[i], (int)(one->n < 200 ? one->n : 200), one->text);
    }
    free(ids);
    return status;
}

tms_status tms_vocab_finish(struct tms_vocab *vocab, float score, const char *path, struct tms_error *err)
{
    for (uint64_t id = 0; id < vocab->n; id++) {
        struct tms_token *token = &vocab->tokens[id];
        if (token->text) continue;
        const char *name = tms_arena_printf(&vocab->texts, "[PAD%llu]", (unsigned long long)id);
        if (!name) return tms_fail_memory(err, 32);
        *token = (struct tms_token){name, strlen(name), score, TMS_TOKEN_UNUSED};
    }
    return check_unique(vocab, path, err);
}

void tms_vocab_export(struct tms_kvs *kvs, const struct tms_vocab *vocab, bool scores)
{
    struct tms_buf buf = {0};
    for (uint64_t id = 0; id < vocab->n; id++) tms_kv_put_string(&buf, vocab->tokens[id].text, vocab->tokens[id].n);
    kvs->failed |= buf.failed;
    tms_kvs_set_array(kvs, "tokenizer.ggml.tokens", TMS_KV_STRING, vocab->n, buf.data, buf.n);
    if (scores) {
        buf.n = 0;
        for (uint64_t id = 0; id < vocab->n; id++) {
            uint32_t bits;
            memcpy(&bits, &vocab->tokens[id].score, 4);
            tms_buf_u32(&buf, bits);
        }
        kvs->failed |= buf.failed;
        tms_kvs_set_array(kvs, "tokenizer.ggml.scores", TMS_KV_F32, vocab->n, buf.data, buf.n);
    }
    buf.n = 0;
    for (uint64_t id = 0; id < vocab->n; id++) tms_buf_u32(&buf, (uint32_t)vocab->tokens[id].type);
    kvs->failed |= buf.failed;
    tms_kvs_set_array(kvs, "tokenizer.ggml.token_type", TMS_KV_I32, vocab->n, buf.data, buf.n);
    tms_buf_free(&buf);
}

tms_status tms_token_id(uint64_t *id, const json_t *value, const char *text, const char *path, struct tms_error *err)
{
    if (!json_is_integer(value))
        return tms_fail(err, TMS_EINPUT, "%s: token '%.200s' has no id that is an integer", path, text);
    json_int_t n = json_integer_value(value);
    if (n < 0 || (uint64_t)n >= TMS_VOCAB_MAX)
        return tms_fail(err, TMS_EINPUT, "%s: token '%.200s' has id %lld, which is not between 0 and %llu", path, text,
                        (long long)n, (unsigned long long)TMS_VOCAB_MAX - 1);
    *id = (uint64_t)n;
    return TMS_OK;
}

bool tms_token_id_from_text(uint64_t *id, const char *text)
{
    uint64_t n = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        n = n * 10 + (uint64_t)(*text - '0');
        if (n >= TMS_VOCAB_MAX) return false;
    }
    *id = n;
    return true;
}

/* Texts and token ids for callers of the library: tokenize.h with results that the caller frees. */
#include <stdlib.h>
#include <string.h>
#include <tamis/tamis.h>

#include "model/tokenize.h"

struct tms_text {
    struct tms_tokenizer *tokenizer;
};

tms_status tms_text_open(struct tms_text **out, const char *path, struct tms_error *err)
{
    struct tms_text *text = tms_calloc(1, sizeof *text);
    if (!text) return tms_fail_memory(err, sizeof *text);
    tms_status status = tms_tokenizer_open_path(&text->tokenizer, path, err);
    if (status == TMS_OK)
        *out = text;
    else
        free(text);
    return status;
}

void tms_text_close(struct tms_text *text)
{
    if (!text) return;
    tms_tokenizer_close(text->tokenizer);
    free(text);
}

uint64_t tms_text_n_vocab(const struct tms_text *text)
{
    return tms_tokenizer_n_vocab(text->tokenizer);
}

tms_status tms_text_encode(struct tms_text *text, const char *bytes, size_t n, const struct tms_text_options *options,
                           int32_t **ids, size_t *n_ids, struct tms_error *err)
{
    struct tms_tokenize_options o = {.special = options && options->special,
                                     .no_parse_special = options && options->no_parse_special};
    int32_t *found = NULL;
    size_t n_found = 0, cap = 0;
    tms_status status = tms_tokenizer_encode(text->tokenizer, bytes, n, &o, &found, &n_found, &cap, err);
    if (status == TMS_OK && !found && !(found = tms_calloc(1, sizeof *found))) status = tms_fail_memory(err, 4);
    if (status != TMS_OK) {
        free(found);
        return status;
    }
    *ids = found;
    *n_ids = n_found;
    return TMS_OK;
}

/* Hands over what a buffer holds, with a NUL behind it. */
static tms_status give(struct tms_buf *buf, tms_status status, char **out, size_t *n, struct tms_error *err)
{
    if (status == TMS_OK) tms_buf_put(buf, "", 1);
    if (status == TMS_OK && buf->failed) status = tms_fail_memory(err, buf->n);
    if (status == TMS_OK) {
        *out = (char *)buf->data;
        *n = buf->n - 1;
    } else {
        tms_buf_free(buf);
    }
    return status;
}

tms_status tms_text_decode(const struct tms_text *text, const int32_t *ids, size_t n_ids, bool special, char **out,
                           size_t *n, struct tms_error *err)
{
    struct tms_detokenizer d;
    struct tms_buf buf = {0}, rest = {0};
    tms_status status = TMS_OK;
    tms_detokenizer_init(&d, text->tokenizer, special);
    for (size_t i = 0; i < n_ids && status == TMS_OK; i++) status = tms_detokenizer_push(&d, ids[i], &buf, err);
    /* Also after a failure: it frees. */
    tms_status last = tms_detokenizer_finish(&d, status == TMS_OK ? &buf : &rest, status == TMS_OK ? err : NULL);
    tms_buf_free(&rest);
    return give(&buf, status == TMS_OK ? last : status, out, n, err);
}

tms_status tms_text_piece(const struct tms_text *text, int32_t id, char **out, size_t *n, struct tms_error *err)
{
    struct tms_buf buf = {0};
    return give(&buf, tms_tokenizer_piece(text->tokenizer, id, true, &buf, err), out, n, err);
}

bool tms_text_is_special(const struct tms_text *text, int32_t id)
{
    return tms_tokenizer_is_special(text->tokenizer, id);
}

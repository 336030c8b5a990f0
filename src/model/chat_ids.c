/* Ids of conversations: what is markup may hold special tokens, what was said may not. */
#include <stdlib.h>

#include "model/chat.h"

tms_status tms_chat_token_text(const struct tms_tokenizer *t, int32_t id, struct tms_buf *out, struct tms_error *err)
{
    tms_status status = id >= 0 ? tms_tokenizer_piece(t, id, true, out, err) : TMS_OK;
    tms_buf_put(out, "", 1);
    return status == TMS_OK && out->failed ? tms_fail_memory(err, 64) : status;
}

tms_status tms_chat_ids(struct tms_tokenizer *t, const struct tms_chat_text *text, size_t begin, size_t end,
                        int32_t **ids, size_t *n_ids, size_t *cap, struct tms_error *err)
{
    struct tms_text_span *trusted = tms_calloc(text->n_markup + 1, sizeof *trusted);
    size_t n = 0;
    if (!trusted) return tms_fail_memory(err, text->n_markup * sizeof *trusted);
    for (size_t i = 0; i < text->n_markup; i++) {
        size_t from = text->markup[i].begin > begin ? text->markup[i].begin : begin;
        size_t to = text->markup[i].end < end ? text->markup[i].end : end;
        if (from < to) trusted[n++] = (struct tms_text_span){from - begin, to - begin};
    }
    const struct tms_tokenize_options o = {.no_parse_special = true, .trusted = trusted, .n_trusted = n};
    tms_status status =
        tms_tokenizer_encode(t, (const char *)text->text.data + begin, end - begin, &o, ids, n_ids, cap, err);
    free(trusted);
    return status;
}

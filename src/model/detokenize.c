/* From ids to text. See tokenize.h. */
#include <string.h>

#include "file/utf8.h"
#include "model/tokenize_parts.h"

static const struct tms_shown *shown_at(const struct tms_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint64_t)id < t->n ? &t->shown[id] : NULL;
}

/* SentencePiece's text: blocks are spaces. */
static void put_spaced(struct tms_buf *out, const uint8_t *text, size_t n, bool without_blocks)
{
    for (size_t i = 0; i < n; i++) {
        if (n - i >= 3 && memcmp(text + i, TMS_BLOCK, 3) == 0) {
            if (!without_blocks) tms_buf_put(out, " ", 1);
            i += 2;
        } else {
            tms_buf_put(out, text + i, 1);
        }
    }
}

static void put_piece(const struct tms_tokenizer *t, const struct tms_shown *shown, bool first, struct tms_buf *out)
{
    const uint8_t *text = t->texts.data + shown->offset;
    if (shown->flags & TMS_SHOWN_BYTE)
        tms_buf_put(out, &shown->byte, 1);
    else if (t->blocks_are_spaces)
        put_spaced(out, text, shown->n, first && t->strip_first_blocks);
    else
        tms_buf_put(out, text, shown->n);
}

tms_status tms_tokenizer_piece(const struct tms_tokenizer *t, int32_t id, bool special, struct tms_buf *out,
                               struct tms_error *err)
{
    const struct tms_shown *shown = shown_at(t, id);
    if (!shown)
        return tms_fail(err, TMS_EUSAGE, "%s: there is no token %d: ids go from 0 to %llu", t->where, id,
                        (unsigned long long)t->n - 1);
    if ((shown->flags & TMS_SHOWN_THERE) && (special || !(shown->flags & TMS_SHOWN_SPECIAL)))
        put_piece(t, shown, false, out);
    return out->failed ? tms_fail_memory(err, shown->n) : TMS_OK;
}

void tms_detokenizer_init(struct tms_detokenizer *d, const struct tms_tokenizer *t, bool special)
{
    *d = (struct tms_detokenizer){.tokenizer = t, .special = special};
}

/* All but the space in front of everything. */
static void show(struct tms_detokenizer *d, const uint8_t *text, size_t n, struct tms_buf *out)
{
    if (n == 0) return;
    if (d->tokenizer->strip_first_space && !d->shown_any && *text == ' ') text++, n--;
    d->shown_any = true;
    tms_buf_put(out, text, n);
}

/* A run of byte tokens that is no UTF-8 as a whole becomes one U+FFFD for each. */
static void end_run(struct tms_detokenizer *d, struct tms_buf *out)
{
    struct tms_buf *w = &d->waiting;
    if (w->n && tms_is_utf8((const char *)w->data, w->n)) {
        show(d, w->data, w->n, out);
    } else {
        for (size_t i = 0; i < w->n; i++) show(d, (const uint8_t *)TMS_REPLACEMENT, 3, out);
    }
    w->n = 0;
}

/* Shows what waits, but for the beginning of a character at its end unless this is the last call. */
static void flow(struct tms_detokenizer *d, bool last, struct tms_buf *out)
{
    struct tms_buf *w = &d->waiting;
    if (w->n == 0) return;
    size_t at = 0, good = 0; /* bytes of whole characters behind `at` that were not shown yet */
    while (at + good < w->n) {
        enum tms_utf8_piece kind;
        size_t length = tms_utf8_next(w->data + at + good, w->n - at - good, &kind);
        if (kind == TMS_UTF8_CUT && !last) break;
        if (kind == TMS_UTF8_CHARACTER) {
            good += length;
            continue;
        }
        show(d, w->data + at, good, out);
        show(d, (const uint8_t *)TMS_REPLACEMENT, 3, out);
        at += good + length;
        good = 0;
    }
    show(d, w->data + at, good, out);
    at += good;
    if (at) memmove(w->data, w->data + at, w->n - at);
    w->n -= at;
}

tms_status tms_detokenizer_push(struct tms_detokenizer *d, int32_t id, struct tms_buf *out, struct tms_error *err)
{
    const struct tms_tokenizer *t = d->tokenizer;
    const struct tms_shown *shown = shown_at(t, id);
    if (!shown)
        return tms_fail(err, TMS_EUSAGE, "%s: there is no token %d: ids go from 0 to %llu", t->where, id,
                        (unsigned long long)t->n - 1);
    if (!(shown->flags & TMS_SHOWN_THERE) || (!d->special && (shown->flags & TMS_SHOWN_SPECIAL))) return TMS_OK;
    bool is_byte = (shown->flags & TMS_SHOWN_BYTE) != 0;
    if (t->runs_are_whole && !is_byte) end_run(d, out);
    if (t->spaces_between && d->started) tms_buf_put(&d->waiting, " ", 1);
    put_piece(t, shown, !d->started, &d->waiting);
    d->started = true;
    if (!(t->runs_are_whole && is_byte)) flow(d, false, out);
    return out->failed || d->waiting.failed ? tms_fail_memory(err, shown->n) : TMS_OK;
}

tms_status tms_detokenizer_finish(struct tms_detokenizer *d, struct tms_buf *out, struct tms_error *err)
{
    if (d->tokenizer->runs_are_whole)
        end_run(d, out);
    else
        flow(d, true, out);
    bool failed = out->failed || d->waiting.failed;
    tms_buf_free(&d->waiting);
    tms_detokenizer_init(d, d->tokenizer, d->special);
    return failed ? tms_fail_memory(err, 64) : TMS_OK;
}

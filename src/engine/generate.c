/* A prompt in, tokens out, one after the other, with the text as it comes. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/sample.h"
#include "engine/session.h"
#include "engine/stops.h"

const char *tms_stop_name(enum tms_stop stop)
{
    switch (stop) {
    case TMS_STOP_LENGTH: return "length";
    case TMS_STOP_END: return "end";
    case TMS_STOP_TEXT: return "stop text";
    case TMS_STOP_CONTEXT: return "context";
    case TMS_STOP_CALLER: return "caller";
    case TMS_STOP_CANCELLED: return "interrupted";
    }
    return "";
}

/* One answer while it is made. */
struct answer {
    struct tms_session *session;
    const struct tms_generate_options *o;
    struct tms_tokenizer *tokenizer; /* NULL: ids only */
    struct tms_detokenizer detokenizer;
    struct tms_stops stops;
    struct tms_sampler *sampler;
    struct tms_buf piece, text; /* of the last token; all that was shown */
    size_t n_told;              /* bytes of text that the caller has */
    size_t ids_cap;
    struct tms_generation made;
    bool ended; /* made.stop is set */
};

static void end(struct answer *a, enum tms_stop stop)
{
    a->made.stop = stop;
    a->ended = true;
}

/* Gives the caller what is new. */
static tms_status tell(struct answer *a, struct tms_error *err)
{
    if (a->text.failed || a->piece.failed || a->stops.held.failed) return tms_fail_memory(err, a->text.n);
    size_t n = a->text.n - a->n_told;
    if (n == 0 || !a->o->text) return TMS_OK;
    const char *text = (const char *)a->text.data + a->n_told;
    a->n_told = a->text.n;
    if (!a->o->text(a->o->text_ctx, text, n) && !a->ended) end(a, TMS_STOP_CALLER);
    return TMS_OK;
}

static tms_status show(struct answer *a, int32_t id, struct tms_error *err)
{
    if (!a->tokenizer) return TMS_OK;
    a->piece.n = 0;
    tms_status status = tms_detokenizer_push(&a->detokenizer, id, &a->piece, err);
    if (status != TMS_OK) return status;
    if (tms_stops_push(&a->stops, a->piece.data, a->piece.n, &a->text, &a->made.stop_index)) end(a, TMS_STOP_TEXT);
    return tell(a, err);
}

/* What still waits: the bytes of half a character, the beginning of a stop text that did not come. */
static tms_status show_rest(struct answer *a, struct tms_error *err)
{
    if (!a->tokenizer) return TMS_OK;
    a->piece.n = 0;
    tms_status status = tms_detokenizer_finish(&a->detokenizer, &a->piece, err);
    if (status != TMS_OK) return status;
    if (a->made.stop == TMS_STOP_TEXT) return TMS_OK;
    if (a->made.stop == TMS_STOP_CALLER) return TMS_OK;
    size_t which;
    if (tms_stops_push(&a->stops, a->piece.data, a->piece.n, &a->text, &which)) {
        a->made.stop = TMS_STOP_TEXT;
        a->made.stop_index = which;
    }
    tms_stops_finish(&a->stops, &a->text);
    return tell(a, err);
}

static bool is_end(const struct answer *a, int32_t id)
{
    for (size_t i = 0; i < a->o->n_ends; i++)
        if (a->o->ends[i] == id) return true;
    return !a->o->ignore_end && a->tokenizer && tms_tokenizer_is_end(a->tokenizer, id);
}

static tms_status take(struct answer *a, int32_t id, struct tms_error *err)
{
    if (is_end(a, id)) {
        end(a, TMS_STOP_END);
        return TMS_OK;
    }
    if (!tms_grow(&a->made.ids, &a->ids_cap, a->made.n_ids + 1, sizeof id)) return tms_fail_memory(err, sizeof id);
    a->made.ids[a->made.n_ids++] = id;
    tms_sampler_accept(a->sampler, id);
    return show(a, id, err);
}

/* One token after another; the logits after the prompt are there. */
static tms_status make_tokens(struct answer *a, size_t expected, struct tms_error *err)
{
    struct tms_session *s = a->session;
    tms_status status = TMS_OK;
    while (status == TMS_OK && !a->ended) {
        int32_t id;
        if (a->made.n_ids >= a->o->max_tokens) {
            end(a, TMS_STOP_LENGTH);
            break;
        }
        status = tms_sampler_pick(a->sampler, s->logits, &id, err);
        if (status == TMS_OK) status = take(a, id, err);
        if (status != TMS_OK || a->ended || a->made.n_ids >= a->o->max_tokens) continue;
        if (s->n_held >= s->about.context)
            end(a, TMS_STOP_CONTEXT);
        else
            status = tms_session_read(s, s->n_held, &id, 1, expected, err);
    }
    return status;
}

/* How many of the ids are in the cache already. One is always read again: its logits are wanted. */
static size_t shared_beginning(const struct tms_session *s, const int32_t *ids, size_t n)
{
    size_t shared = 0;
    while (shared < s->n_held && shared + 1 < n && s->ids[shared] == ids[shared]) shared++;
    return shared < s->n_held ? tms_cache_rewind(s->cache, shared) : shared;
}

static tms_status answer(struct answer *a, const int32_t *ids, size_t n, struct tms_error *err)
{
    struct tms_session *s = a->session;
    size_t keep = shared_beginning(s, ids, n);
    size_t room = (size_t)s->about.context - n, expected = n + (a->o->max_tokens < room ? a->o->max_tokens : 0);
    double start = tms_seconds();
    a->made.n_prompt = n;
    a->made.n_reused = keep;
    for (size_t i = 0; i < n; i++) tms_sampler_accept(a->sampler, ids[i]);
    tms_status status = tms_session_read(s, keep, ids + keep, n - keep, expected, err);
    a->made.prompt_seconds = tms_seconds() - start;
    if (status == TMS_OK) status = make_tokens(a, expected, err);
    if (status == TMS_ECANCELLED) {
        end(a, TMS_STOP_CANCELLED);
        status = TMS_OK;
    }
    if (status == TMS_OK) status = show_rest(a, err);
    a->made.token_seconds = tms_seconds() - start - a->made.prompt_seconds;
    return status;
}

static tms_status hand_out(struct answer *a, struct tms_generation *out, struct tms_error *err)
{
    if (a->tokenizer) {
        a->made.text_bytes = a->text.n;
        tms_buf_zeros(&a->text, 1);
        if (a->text.failed) return tms_fail_memory(err, a->text.n);
        a->made.text = (char *)a->text.data;
        a->text = (struct tms_buf){0};
    }
    *out = a->made;
    a->made.ids = NULL;
    return TMS_OK;
}

tms_status tms_session_generate(struct tms_session *session, const struct tms_prompt *prompt,
                                const struct tms_generate_options *options, struct tms_generation *out,
                                struct tms_error *err)
{
    struct answer a = {.session = session, .o = options};
    int32_t *ids = NULL;
    size_t n = 0;
    tms_status status = tms_session_prompt(session, prompt, true, &ids, &n, err);
    if (status == TMS_OK) status = tms_stops_init(&a.stops, options->stops, options->n_stops, err);
    if (status == TMS_OK) status = tms_sampler_create(&a.sampler, &options->sampling, session->info.vocab, err);
    if (status == TMS_OK) {
        status = tms_session_tokenizer(session, &a.tokenizer, err);
        if (status == TMS_EINPUT && prompt->ids && options->n_stops == 0) status = TMS_OK; /* ids in, ids out */
    }
    if (a.tokenizer) {
        tms_detokenizer_init(&a.detokenizer, a.tokenizer, options->show_special);
        a.detokenizer.started = true; /* the prompt was the start */
    }
    if (status == TMS_OK) status = answer(&a, ids, n, err);
    if (status == TMS_OK) status = hand_out(&a, out, err);
    if (a.tokenizer) {
        struct tms_buf rest = {0};
        (void)tms_detokenizer_finish(&a.detokenizer, &rest, NULL); /* frees; empty unless something failed */
        tms_buf_free(&rest);
    }
    tms_stops_free(&a.stops);
    tms_sampler_free(a.sampler);
    tms_buf_free(&a.piece);
    tms_buf_free(&a.text);
    free(a.made.ids);
    free(ids);
    return status;
}

void tms_generation_free(struct tms_generation *g)
{
    free(g->text);
    free(g->ids);
    *g = (struct tms_generation){0};
}

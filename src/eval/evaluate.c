/* tms_evaluate: a text or ids, cut into windows.
 *
 * Style "llama" is what llama-perplexity does (its tools/perplexity): the whole text is tokenized, with BOS in front if
 * the vocabulary adds one; window i is tokens [i n, (i + 1) n), what is left over at the end is dropped; the first
 * token of each window is replaced by BOS; positions n/2 … n-2 are scored, each by the token that follows. Style "full"
 * leaves the windows as they are and scores positions 0 … n-2.
 */
#include <tamis/tamis.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/subjects.h"
#include "eval/statistics.h"
#include "file/utf8.h"

enum { LEAST_CONTEXT = 8, LLAMA_CONTEXT = 512, FULL_CONTEXT = 2048 };

struct windows {
    int32_t *ids;
    size_t n_ids, cap;
    size_t context, n, n_scored; /* windows, scored positions of each */
    struct tms_sequence *sequences;
    struct tms_position *positions;
    bool bos, full;
};

static tms_status check_options(struct windows *w, const struct tms_eval_options *o, struct tms_error *err)
{
    const char *style = o->style ? o->style : "llama";
    w->full = strcmp(style, "full") == 0;
    if (!w->full && strcmp(style, "llama") != 0)
        return tms_fail(err, TMS_EINPUT, "style '%s' is unknown: llama or full", style);
    if (!o->data == !o->ids)
        return tms_fail(err, TMS_EUSAGE, "%s", o->data ? "a text or ids, not both" : "a text or ids are missing");
    uint64_t context = o->context ? o->context : w->full ? FULL_CONTEXT : LLAMA_CONTEXT;
    if (context < LEAST_CONTEXT || context > INT32_MAX)
        return tms_fail(err, TMS_EINPUT, "a context of %llu tokens is too %s: at least %d, at most %d",
                        (unsigned long long)context, context < LEAST_CONTEXT ? "small" : "large", LEAST_CONTEXT,
                        INT32_MAX);
    w->context = (size_t)context;
    return TMS_OK;
}

/* Token ids between white space or commas. */
static tms_status parse_ids(struct windows *w, const char *path, const char *text, size_t n_bytes,
                            struct tms_error *err)
{
    size_t line = 1;
    for (const char *c = text; c < text + n_bytes;) {
        if (isspace((unsigned char)*c) || *c == ',') {
            line += *c++ == '\n';
            continue;
        }
        char *end = NULL;
        errno = 0;
        long id = isdigit((unsigned char)*c) ? strtol(c, &end, 10) : -1;
        if (id < 0 || id > INT32_MAX || errno || (*end && *end != ',' && !isspace((unsigned char)*end)))
            return tms_fail(err, TMS_EINPUT, "%s: line %zu: '%.12s' is no token id", path, line, c);
        if (!tms_grow(&w->ids, &w->cap, w->n_ids + 1, sizeof *w->ids))
            return tms_fail_memory(err, (w->n_ids + 1) * sizeof *w->ids);
        w->ids[w->n_ids++] = (int32_t)id;
        c = end;
    }
    return TMS_OK;
}

/* The tokenizer would read other bytes as U+FFFD and the figures would be about a text that no one wrote. */
static tms_status check_text(const char *path, const char *text, size_t n_bytes, struct tms_error *err)
{
    if (tms_is_utf8(text, n_bytes)) return TMS_OK;
    size_t line = 1, start = 0, end;
    for (;; start = end + 1, line++) { /* no character has a line end inside */
        const char *found = memchr(text + start, '\n', n_bytes - start);
        end = found ? (size_t)(found - text) : n_bytes;
        if (!tms_is_utf8(text + start, end - start)) break;
    }
    return tms_fail(err, TMS_EINPUT, "%s: line %zu (from byte %zu on) is no UTF-8", path, line, start);
}

static tms_status read_tokens(struct windows *w, struct tms_subjects *s, struct tms_error *err)
{
    const char *path = s->options->data ? s->options->data : s->options->ids;
    char *text = NULL;
    size_t n_bytes = 0;
    tms_status status = tms_file_text(path, INT32_MAX, &text, &n_bytes, err);
    if (status == TMS_OK && s->options->data) status = check_text(path, text, n_bytes, err);
    if (status == TMS_OK)
        status = s->options->data ? tms_subjects_encode(s, path, text, n_bytes, &w->ids, &w->n_ids, &w->cap, err)
                                  : parse_ids(w, path, text, n_bytes, err);
    free(text);
    if (status == TMS_OK && w->n_ids < w->context)
        status =
            tms_fail(err, TMS_EINPUT, "%s: %zu tokens are too few: a window needs %zu (a smaller context needs less)",
                     path, w->n_ids, w->context);
    return status;
}

static tms_status cut(struct windows *w, const struct tms_subjects *s, struct tms_error *err)
{
    int32_t bos = s->options->data ? tms_subjects_bos(s) : -1;
    size_t first = w->full ? 0 : w->context / 2;
    w->n = w->n_ids / w->context;
    if (s->options->n_chunks && s->options->n_chunks < w->n) w->n = (size_t)s->options->n_chunks;
    w->n_scored = w->context - 1 - first;
    w->bos = bos >= 0;
    w->sequences = tms_calloc(w->n, sizeof *w->sequences);
    w->positions = tms_calloc((uint64_t)w->n * w->n_scored, sizeof *w->positions);
    if (!w->sequences || !w->positions) return tms_fail_memory(err, w->n * w->n_scored * sizeof *w->positions);
    for (size_t i = 0; i < w->n; i++) {
        int32_t *ids = w->ids + i * w->context;
        if (w->bos && !w->full) ids[0] = bos;
        w->sequences[i] = (struct tms_sequence){.ids = ids, .n = w->context, .first = first, .n_scored = w->n_scored};
    }
    return TMS_OK;
}

tms_status tms_evaluate(const char *model, const struct tms_eval_options *options, struct tms_eval_result *result,
                        struct tms_error *err)
{
    double start = tms_seconds();
    struct tms_subjects subjects = {0};
    struct windows w = {0};
    struct tms_eval_result r = {0};
    tms_status status = check_options(&w, options, err);
    if (status == TMS_OK) status = tms_subjects_open(&subjects, model, options, options->data != NULL, err);
    if (status == TMS_OK) status = read_tokens(&w, &subjects, err);
    if (status == TMS_OK) status = cut(&w, &subjects, err);
    if (status == TMS_OK)
        status = tms_subjects_run(&subjects, "window", w.sequences, w.n, w.positions, w.n * w.n_scored, err);
    if (status == TMS_OK) status = tms_eval_summarize(w.positions, w.n * w.n_scored, options->base != NULL, &r, err);
    if (status == TMS_OK) {
        r.n_tokens = w.n_ids;
        r.n_windows = w.n;
        r.context = w.context;
        r.bos = w.bos;
        r.weights_alone = subjects.weights_alone;
        r.cache_bytes = subjects.cache_bytes;
        r.by_layer = subjects.by_layer;
        r.planned_bytes = options->ram ? subjects.planned_bytes : 0;
        r.run_seconds = subjects.seconds;
        r.seconds = tms_seconds() - start;
        *result = r;
    }
    tms_subjects_close(&subjects);
    free(w.ids);
    free(w.sequences);
    free(w.positions);
    return status;
}

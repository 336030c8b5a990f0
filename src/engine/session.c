/* See session.h. */
#include "engine/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 256u /* positions */

static tms_status describe(struct tms_session *s, const struct tms_session_options *o, struct tms_error *err)
{
    struct tms_session_info *a = &s->about;
    tms_net_describe(s->net, &s->info);
    a->model_context = s->info.context;
    a->context = o->context ? o->context : s->info.context;
    if (a->context == 0)
        return tms_fail(err, TMS_EINPUT, "%s: does not say for how many positions it was made; give a context",
                        s->source->path);
    if (a->context > INT32_MAX)
        return tms_fail(err, TMS_EUSAGE, "a context of %" PRIu64 " positions is too large", a->context);
    a->n_vocab = s->info.vocab;
    a->n_layers = s->info.n_layers;
    a->hidden = s->info.hidden;
    for (uint64_t i = 0; i <= s->info.n_layers; i++) a->weight_bytes += tms_net_layer_bytes(s->net, i);
    const struct tms_cache_shape shape =
        tms_net_cache(&s->info, s->info.n_layers, 1, (size_t)a->context, TMS_SESSION_PASS);
    tms_status status = tms_cache_check(&s->kv, &shape, s->source->path, err);
    if (status != TMS_OK) return status;
    a->cache_bytes = tms_cache_bytes(&s->kv, &shape);
    if (o->warning && a->model_context && a->context > a->model_context) {
        char line[256];
        snprintf(line, sizeof line, "a context of %" PRIu64 " positions; the model was made for %" PRIu64, a->context,
                 a->model_context);
        o->warning(o->warning_ctx, line);
    }
    s->hidden = tms_calloc((uint64_t)TMS_SESSION_PASS * s->info.stride, sizeof *s->hidden);
    s->logits = tms_calloc(s->info.vocab, sizeof *s->logits);
    if (!s->hidden || !s->logits) return tms_fail_memory(err, s->info.vocab * sizeof *s->logits);
    return TMS_OK;
}

tms_status tms_session_open(struct tms_session **out, const char *model, const struct tms_session_options *options,
                            struct tms_error *err)
{
    const struct tms_net_options net = {.fast = options->fast,
                                        .int8_outlier = options->llm_int8 ? 6.0 : 0}; /* 6.0: Dettmers et al. 2022 */
    struct tms_session *s = calloc(1, sizeof *s);
    if (!s) return tms_fail_memory(err, sizeof *s);
    s->kv.keep_first = (size_t)options->kv_keep_first;
    s->kv.keep_last = (size_t)options->kv_keep_last;
    tms_status status = tms_cache_type(options->kv ? options->kv : "f32", &s->kv.type, err);
    if (status == TMS_OK) status = tms_source_open(&s->source, model, NULL, NULL, err);
    if (status == TMS_OK && s->source->kind == TMS_SOURCE_CONFIG)
        status = tms_fail(err, TMS_EINPUT, "%s: holds no weights; give the folder", model);
    if (status == TMS_OK) status = tms_pool_create(&s->pool, options->n_threads, err);
    if (status == TMS_OK) status = tms_net_open(&s->net, s->source, s->pool, &net, err);
    if (status == TMS_OK) status = describe(s, options, err);
    if (status == TMS_OK)
        *out = s;
    else
        tms_session_close(s);
    return status;
}

void tms_session_close(struct tms_session *s)
{
    if (!s) return;
    tms_tokenizer_close(s->tokenizer);
    if (s->cache) tms_cache_free(s->cache);
    if (s->net) tms_net_close(s->net);
    if (s->pool) tms_pool_free(s->pool);
    if (s->source) tms_source_close(s->source);
    free(s->ids);
    free(s->hidden);
    free(s->logits);
    free(s);
}

void tms_session_describe(const struct tms_session *s, struct tms_session_info *info)
{
    *info = s->about;
    info->cache_now_bytes = s->cache ? s->cache->bytes : 0;
}

/* ---- prompts --------------------------------------------------------------------------------------------------- */

tms_status tms_session_tokenizer(struct tms_session *s, struct tms_tokenizer **out, struct tms_error *err)
{
    if (!s->tokenizer_tried) s->tokenizer_status = tms_tokenizer_open(&s->tokenizer, s->source, &s->tokenizer_error);
    s->tokenizer_tried = s->tokenizer_status == TMS_OK || s->tokenizer_status == TMS_EINPUT;
    if (s->tokenizer_status != TMS_OK) {
        if (err) *err = s->tokenizer_error;
        return s->tokenizer_status;
    }
    *out = s->tokenizer;
    return TMS_OK;
}

static tms_status text_ids(struct tms_session *s, const struct tms_prompt *prompt, bool to_continue, int32_t **ids,
                           size_t *n, struct tms_error *err)
{
    const struct tms_tokenize_options o = {.special = !prompt->no_special,
                                           .no_parse_special = prompt->no_parse_special};
    struct tms_tokenizer *t = NULL;
    size_t cap = 0;
    tms_status status = tms_session_tokenizer(s, &t, err);
    if (status == TMS_OK) status = tms_tokenizer_encode(t, prompt->text, prompt->text_bytes, &o, ids, n, &cap, err);
    if (status != TMS_OK) return status;
    if (to_continue && o.special && tms_tokenizer_add_eos(t) && *n && (*ids)[*n - 1] == tms_tokenizer_eos(t)) (*n)--;
    return TMS_OK;
}

static tms_status copy_ids(const struct tms_prompt *prompt, int32_t **ids, size_t *n, struct tms_error *err)
{
    *ids = tms_calloc(prompt->n_ids + 1, sizeof **ids);
    if (!*ids) return tms_fail_memory(err, prompt->n_ids * sizeof **ids);
    if (prompt->n_ids) memcpy(*ids, prompt->ids, prompt->n_ids * sizeof **ids);
    *n = prompt->n_ids;
    return TMS_OK;
}

static tms_status check_ids(const struct tms_session *s, const int32_t *ids, size_t n, struct tms_error *err)
{
    if (n == 0) return tms_fail(err, TMS_EINPUT, "%s: the prompt has no tokens", s->source->path);
    if (n > s->about.context)
        return tms_fail(err, TMS_EINPUT,
                        "%s: a prompt of %zu tokens does not fit into a context of %" PRIu64 " positions",
                        s->source->path, n, s->about.context);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint64_t)ids[i] >= s->info.vocab)
            return tms_fail(err, TMS_EINPUT, "%s: token %zu of the prompt has id %" PRId32 "; ids are 0 to %" PRIu64,
                            s->source->path, i, ids[i], s->info.vocab - 1);
    return TMS_OK;
}

tms_status tms_session_prompt(struct tms_session *s, const struct tms_prompt *prompt, bool to_continue, int32_t **ids,
                              size_t *n, struct tms_error *err)
{
    int32_t *made = NULL;
    size_t n_made = 0;
    tms_status status =
        prompt->ids ? copy_ids(prompt, &made, &n_made, err) : text_ids(s, prompt, to_continue, &made, &n_made, err);
    if (status == TMS_OK) status = check_ids(s, made, n_made, err);
    if (status != TMS_OK) {
        free(made);
        return status;
    }
    *ids = made;
    *n = n_made;
    return TMS_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Makes room for `need` positions. */
static tms_status make_room(struct tms_session *s, size_t need, size_t expected, struct tms_error *err)
{
    size_t have = s->cache ? s->cache->shape.capacity : 0, limit = (size_t)s->about.context;
    if (need <= have) return TMS_OK;
    size_t capacity = have * 2 > FIRST_CAPACITY ? have * 2 : FIRST_CAPACITY;
    if (capacity < expected) capacity = expected;
    if (capacity < need) capacity = need;
    if (capacity > limit) capacity = limit;
    const struct tms_cache_shape shape = tms_net_cache(&s->info, s->info.n_layers, 1, capacity, TMS_SESSION_PASS);
    return s->cache ? tms_cache_grow(&s->cache, capacity, s->n_held, err)
                    : tms_cache_create(&s->cache, &s->kv, &shape, err);
}

tms_status tms_session_read(struct tms_session *s, size_t keep, const int32_t *ids, size_t n, size_t expected,
                            struct tms_error *err)
{
    size_t count = 0;
    if (!tms_grow(&s->ids, &s->ids_cap, keep + n, sizeof *s->ids)) return tms_fail_memory(err, n * sizeof *s->ids);
    s->n_held = keep;
    tms_status status = make_room(s, keep + n, expected, err);
    /* Longrope turns all positions otherwise, once there are more than so many: what is held is read again. */
    size_t limit = s->info.turns_again;
    if (status == TMS_OK && keep > 0 && (keep <= limit) != (keep + n <= limit)) {
        int32_t *all = tms_calloc(keep + n, sizeof *all);
        if (!all) return tms_fail_memory(err, (keep + n) * sizeof *all);
        memcpy(all, s->ids, keep * sizeof *all);
        memcpy(all + keep, ids, n * sizeof *all);
        status = tms_session_read(s, 0, all, keep + n, expected, err);
        free(all);
        return status;
    }
    for (size_t first = 0; status == TMS_OK && first < n; first += count) {
        count = n - first < TMS_SESSION_PASS ? n - first : TMS_SESSION_PASS;
        const struct tms_batch batch = {.n_seqs = 1, .n = count, .start = s->n_held, .length = keep + n};
        status = tms_net_embed(s->net, ids + first, count, s->hidden, err);
        if (status == TMS_OK) status = tms_net_layers(s->net, 0, s->info.n_layers, &batch, s->cache, s->hidden, err);
        if (status != TMS_OK) break;
        memcpy(s->ids + s->n_held, ids + first, count * sizeof *ids);
        s->n_held += count;
    }
    if (status != TMS_OK) return status;
    return tms_net_logits(s->net, s->hidden + (count - 1) * s->info.stride, 1, s->logits, err);
}

/* Logits of every token of a prompt, and hidden states between layers, into a safetensors file.
 *
 * The passes go layer by layer, all tokens through one before the next, so that one layer's keys and values and the
 * hidden states [tokens][hidden] are all that is held; logits are made and written a few rows at a time. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session.h"
#include "file/safetensors.h"

#define LOGIT_VALUES (1u << 23) /* at a time: 32 MB */

struct writing {
    struct tms_session *s;
    const struct tms_logits_options *o;
    const int32_t *ids;
    size_t n;
    float *hidden; /* [n][stride] */
    float *rows;   /* what is written next */
    size_t n_rows; /* of logits at a time */
    struct tms_output *output;
    uint64_t logits_at, states_at; /* offsets in the file */
    uint64_t done;                 /* bytes of weights */
};

/* The place of both tensors is known before anything is computed. */
static tms_status lay_out(struct writing *w, const char *path, struct tms_error *err)
{
    const struct tms_net_info *info = &w->s->info;
    struct tms_st_plan_tensor plan[2] = {{.name = "logits", .type = TMS_F32, .n_dims = 2, .shape = {w->n, info->vocab}},
                                         {.name = "hidden_states",
                                          .type = TMS_F32,
                                          .n_dims = 3,
                                          .shape = {info->n_layers + 1, w->n, info->hidden},
                                          .tag = 1}};
    size_t n = w->o->hidden_states ? 2 : 1;
    struct tms_buf header = {0};
    uint64_t size;
    tms_status status = tms_st_layout(plan, n, 0, &header, &size, err);
    if (status == TMS_OK) status = tms_output_create(&w->output, path, size, err);
    if (status == TMS_OK) status = tms_output_write(w->output, header.data, header.n, 0, err);
    for (size_t i = 0; i < n && status == TMS_OK; i++) *(plan[i].tag ? &w->states_at : &w->logits_at) = plan[i].offset;
    tms_buf_free(&header);
    return status;
}

/* Writes n rows of `width` values that lie `stride` apart, after a look at each. */
static tms_status put_rows(struct writing *w, const float *x, size_t stride, size_t n, size_t width, uint64_t offset,
                           const char *what, size_t first, struct tms_error *err)
{
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < width; i++)
            if (!isfinite(x[row * stride + i]))
                return tms_fail(err, TMS_EINPUT, "%s: %s of token %zu, value %zu, is %s: the weights are broken",
                                w->s->source->path, what, first + row, i,
                                isnan(x[row * stride + i]) ? "NaN" : "infinite");
    if (stride == width) return tms_output_write(w->output, x, n * width * sizeof *x, offset, err);
    tms_status status = TMS_OK;
    for (size_t row = 0; row < n && status == TMS_OK; row++)
        status =
            tms_output_write(w->output, x + row * stride, width * sizeof *x, offset + row * width * sizeof *x, err);
    return status;
}

static tms_status put_states(struct writing *w, uint64_t layer, const float *x, struct tms_error *err)
{
    const struct tms_net_info *info = &w->s->info;
    char what[64];
    if (!w->o->hidden_states) return TMS_OK;
    snprintf(what, sizeof what, "hidden state %" PRIu64, layer);
    return put_rows(w, x, info->stride, w->n, info->hidden, w->states_at + layer * w->n * info->hidden * sizeof(float),
                    what, 0, err);
}

static void progress(struct writing *w, uint64_t layer)
{
    w->done += tms_net_layer_bytes(w->s->net, layer);
    const struct tms_progress p = {.what = "computing", .done = w->done, .total = w->s->about.weight_bytes};
    if (w->o->progress) w->o->progress(w->o->progress_ctx, &p);
}

static tms_status one_layer(struct writing *w, uint64_t layer, struct tms_cache *cache, struct tms_error *err)
{
    tms_status status = TMS_OK;
    size_t count;
    for (size_t first = 0; first < w->n && status == TMS_OK; first += count) {
        count = w->n - first < TMS_SESSION_PASS ? w->n - first : TMS_SESSION_PASS;
        const struct tms_batch batch = {.n_seqs = 1, .n = count, .start = first};
        status = tms_net_layers(w->s->net, layer, 1, &batch, cache, w->hidden + first * w->s->info.stride, err);
    }
    if (status == TMS_OK && layer + 1 < w->s->info.n_layers) status = put_states(w, layer + 1, w->hidden, err);
    progress(w, layer);
    return status;
}

static tms_status all_layers(struct writing *w, struct tms_error *err)
{
    const struct tms_net_info *info = &w->s->info;
    struct tms_cache *cache = NULL;
    tms_status status = tms_net_embed(w->s->net, w->ids, w->n, w->hidden, err);
    if (status == TMS_OK) status = put_states(w, 0, w->hidden, err);
    const struct tms_cache_shape shape = tms_net_cache(info, 1, 1, w->n, TMS_SESSION_PASS);
    if (status == TMS_OK) status = tms_cache_create(&cache, &w->s->kv, &shape, err);
    for (uint64_t i = 0; i < info->n_layers && status == TMS_OK; i++) status = one_layer(w, i, cache, err);
    if (cache) tms_cache_free(cache);
    return status;
}

/* The last of the hidden states is the one after the final norm. */
static tms_status last_state(struct writing *w, struct tms_error *err)
{
    const struct tms_net_info *info = &w->s->info;
    tms_status status = TMS_OK;
    size_t count;
    for (size_t first = 0; w->o->hidden_states && first < w->n && status == TMS_OK; first += count) {
        float *from = w->hidden + first * info->stride, *to = w->s->hidden;
        count = w->n - first < TMS_SESSION_PASS ? w->n - first : TMS_SESSION_PASS;
        status = tms_net_final_norm(w->s->net, from, count, to, err);
        memcpy(from, to, count * info->stride * sizeof *to);
    }
    return status == TMS_OK ? put_states(w, info->n_layers, w->hidden, err) : status;
}

static tms_status head(struct writing *w, struct tms_error *err)
{
    const struct tms_net_info *info = &w->s->info;
    tms_status status = TMS_OK;
    size_t count;
    for (size_t first = 0; first < w->n && status == TMS_OK; first += count) {
        count = w->n - first < w->n_rows ? w->n - first : w->n_rows;
        status = tms_net_logits(w->s->net, w->hidden + first * info->stride, count, w->rows, err);
        if (status == TMS_OK)
            status = put_rows(w, w->rows, info->vocab, count, info->vocab,
                              w->logits_at + first * info->vocab * sizeof(float), "a logit", first, err);
    }
    progress(w, info->n_layers);
    return status == TMS_OK ? last_state(w, err) : status;
}

tms_status tms_session_logits(struct tms_session *session, const struct tms_prompt *prompt, const char *path,
                              const struct tms_logits_options *options, uint64_t *n_tokens, struct tms_error *err)
{
    struct writing w = {.s = session, .o = options};
    int32_t *ids = NULL;
    tms_status status = tms_session_prompt(session, prompt, false, &ids, &w.n, err);
    if (status != TMS_OK) return status;
    w.ids = ids;
    w.n_rows = (size_t)(LOGIT_VALUES / session->info.vocab);
    if (w.n_rows == 0) w.n_rows = 1;
    if (w.n_rows > w.n) w.n_rows = w.n;
    w.hidden = tms_calloc(w.n, session->info.stride * sizeof *w.hidden);
    w.rows = tms_calloc(w.n_rows, session->info.vocab * sizeof *w.rows);
    if (!w.hidden || !w.rows) status = tms_fail_memory(err, w.n * session->info.stride * sizeof *w.hidden);
    if (status == TMS_OK) status = lay_out(&w, path, err);
    if (status == TMS_OK) status = all_layers(&w, err);
    if (status == TMS_OK) status = head(&w, err);
    if (status == TMS_OK)
        status = tms_output_commit(w.output, err);
    else
        tms_output_discard(w.output);
    free(w.hidden);
    free(w.rows);
    free(ids);
    if (status == TMS_OK && n_tokens) *n_tokens = w.n;
    return status;
}

/* The arithmetic of a pass. See net.h; shapes in comments are [tokens][values].
 *
 * One block (Llama and its kin):
 *     x = rms_norm(hidden);  q, k, v = x Wq, x Wk, x Wv (+ biases);  q, k normed by head (Qwen3), then rotated
 *     hidden += attention(q, k, v) Wo;  x = rms_norm(hidden);  hidden += (silu(x Wgate) * x Wup) Wdown */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/attention.h"
#include "engine/kernels/dots.h"
#include "engine/kernels/vector.h"
#include "engine/linear.h"
#include "engine/net.h"
#include "engine/net_parts.h"

/* ---- working memory ---- */

struct widths {
    size_t hidden, q, kv, ffn; /* from row to row */
};

static struct widths widths_of(const struct tms_net *net)
{
    const struct tms_config *c = &net->config;
    return (struct widths){tms_row_stride((size_t)c->hidden), tms_row_stride((size_t)(c->n_heads * c->head_dim)),
                           tms_row_stride((size_t)(c->n_kv_heads * c->head_dim)), tms_row_stride((size_t)c->ffn)};
}

static size_t floats_per_token(const struct tms_net *net)
{
    struct widths w = widths_of(net);
    return 2 * w.hidden + 2 * w.q + 2 * w.kv + 2 * w.ffn;
}

static size_t floats_per_worker(const struct tms_net *net)
{
    const struct tms_config *c = &net->config;
    return TMS_LINEAR_SCRATCH + tms_attention_scratch((size_t)c->n_heads, (size_t)c->n_kv_heads, (size_t)c->head_dim);
}

uint64_t tms_net_working_bytes(const struct tms_net *net, size_t n_tokens)
{
    uint64_t n = n_tokens < TMS_NET_TOKENS ? n_tokens : TMS_NET_TOKENS;
    uint64_t angles = (uint64_t)n_tokens * net->config.head_dim;
    return 4 * (n * floats_per_token(net) + tms_pool_threads(net->pool) * floats_per_worker(net) + angles);
}

void tms_net_free_memory(struct tms_net *net)
{
    free(net->memory);
    free(net->scratch);
    free(net->cosines);
    free(net->sines);
}

/* Paddings are zero from here on: nothing writes behind a row's own columns. */
static tms_status make_room(struct tms_net *net, size_t n, struct tms_error *err)
{
    struct widths w = widths_of(net);
    if (!net->scratch) {
        uint64_t floats = (uint64_t)tms_pool_threads(net->pool) * floats_per_worker(net);
        net->scratch = tms_calloc(floats, sizeof *net->scratch);
        if (!net->scratch) return tms_fail_memory(err, floats * 4);
    }
    if (n <= net->n_tokens) return TMS_OK;
    free(net->memory);
    net->n_tokens = 0;
    net->memory = tms_calloc(n, floats_per_token(net) * sizeof *net->memory);
    if (!net->memory) return tms_fail_memory(err, n * floats_per_token(net) * 4);
    net->n_tokens = n;
    float *at = net->memory;
    struct {
        float **part;
        size_t width;
    } parts[] = {{&net->x, w.hidden}, {&net->y, w.hidden}, {&net->q, w.q},      {&net->attended, w.q},
                 {&net->k, w.kv},     {&net->v, w.kv},     {&net->gate, w.ffn}, {&net->up, w.ffn}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].part = at;
        at += n * parts[i].width;
    }
    return TMS_OK;
}

static tms_status make_angles(struct tms_net *net, size_t start, size_t n, struct tms_error *err)
{
    size_t half = (size_t)net->config.head_dim / 2;
    float factor;
    if (n > net->n_angles) {
        free(net->cosines);
        free(net->sines);
        net->n_angles = 0;
        net->cosines = tms_calloc(n, half * sizeof *net->cosines);
        net->sines = tms_calloc(n, half * sizeof *net->sines);
        if (!net->cosines || !net->sines) return tms_fail_memory(err, n * half * 8);
        net->n_angles = n;
    }
    tms_status status = tms_rope_frequencies(&net->config, net->divisors, start + n, net->frequencies, &factor, err);
    if (status == TMS_OK) tms_rope_angles(net->frequencies, half, factor, start, n, net->cosines, net->sines);
    return status;
}

/* ---- steps ---- */

/* A pass through one layer: tokens of sequences [first_seq, first_seq + n_seqs), n of each from position start on. */
struct pass {
    struct tms_net *net;
    const struct tms_net_layer *layer;
    uint64_t layer_number;
    struct tms_cache *cache;
    size_t cache_layer, first_seq, n_seqs, n, start;
    const float *cosines, *sines; /* of position start */
    float *hidden;                /* [n_seqs][hidden_seq_stride / stride][stride] */
    size_t seq_tokens;            /* tokens from one sequence to the next in `hidden` */
};

typedef void (*row_fn)(const struct pass *p, size_t row);

struct rows_ctx {
    const struct pass *pass;
    row_fn fn;
    size_t n;
};

#define ROWS_PER_JOB 16

static tms_status rows_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct rows_ctx *r = ctx;
    (void)worker, (void)err;
    for (size_t row = index * ROWS_PER_JOB; row < (index + 1) * ROWS_PER_JOB && row < r->n; row++) r->fn(r->pass, row);
    return TMS_OK;
}

static tms_status for_rows(const struct pass *p, row_fn fn, struct tms_error *err)
{
    struct rows_ctx ctx = {p, fn, p->n_seqs * p->n};
    if (ctx.n <= ROWS_PER_JOB) return rows_job(&ctx, 0, 0, err); /* not worth waking anyone */
    return tms_pool_run(p->net->pool, (ctx.n + ROWS_PER_JOB - 1) / ROWS_PER_JOB, rows_job, &ctx, err);
}

static float *hidden_row(const struct pass *p, size_t row)
{
    size_t seq = row / p->n, token = row % p->n;
    return p->hidden + (seq * p->seq_tokens + token) * tms_net_stride(p->net);
}

static void norm_rows(const struct pass *p, size_t row, enum tms_net_vector which)
{
    const struct tms_net *net = p->net;
    tms_rms_norm(hidden_row(p, row), p->layer->vectors[which], (float)net->config.rms_eps,
                 net->x + row * tms_net_stride(net), (size_t)net->config.hidden);
}

static void norm_before_attention(const struct pass *p, size_t row)
{
    norm_rows(p, row, TMS_VECTOR_ATTN_NORM);
}

static void add_result(const struct pass *p, size_t row)
{
    tms_add(p->net->y + row * tms_net_stride(p->net), hidden_row(p, row), (size_t)p->net->config.hidden);
}

static void add_and_norm(const struct pass *p, size_t row)
{
    add_result(p, row);
    norm_rows(p, row, TMS_VECTOR_FFN_NORM);
}

/* Norms and turns the heads of one token; its keys and values go into the cache. */
static void turn_and_store(const struct pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    const struct tms_config *c = &net->config;
    struct widths w = widths_of(net);
    size_t d = (size_t)c->head_dim, half = d / 2, token = row % p->n, seq = p->first_seq + row / p->n;
    const float *cosines = p->cosines + token * half, *sines = p->sines + token * half;
    const float *q_norm = p->layer->vectors[TMS_VECTOR_Q_NORM], *k_norm = p->layer->vectors[TMS_VECTOR_K_NORM];
    float eps = (float)c->rms_eps;
    for (size_t h = 0; h < c->n_heads; h++) {
        float *head = net->q + row * w.q + h * d;
        if (q_norm) tms_rms_norm(head, q_norm, eps, head, d);
        tms_rope_turn(head, half, net->pairs, cosines, sines);
    }
    for (size_t h = 0; h < c->n_kv_heads; h++) {
        float *head = net->k + row * w.kv + h * d;
        if (k_norm) tms_rms_norm(head, k_norm, eps, head, d);
        tms_rope_turn(head, half, net->pairs, cosines, sines);
        size_t to = tms_cache_offset(p->cache, p->cache_layer, seq, h, p->start + token);
        p->cache->codec->encode(head, p->cache->keys + to, d);
        p->cache->codec->encode(net->v + row * w.kv + h * d, p->cache->values + to, d);
    }
}

static void gate_up(const struct pass *p, size_t row)
{
    size_t width = widths_of(p->net).ffn;
    tms_swiglu(p->net->gate + row * width, p->net->up + row * width, (size_t)p->net->config.ffn);
}

/* Linear layers that share their input: which of them, and where they write to. */
struct product {
    enum tms_linear linear;
    float *y;
    size_t y_stride;
};

static tms_status multiply(const struct pass *p, const float *x, size_t x_stride, const struct product *products,
                           size_t n_products, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct tms_linear_job jobs[3];
    size_t n = p->n_seqs * p->n;
    for (size_t i = 0; i < n_products; i++) {
        enum tms_linear which = products[i].linear;
        const struct tms_weight *w = &p->layer->linear[which];
        jobs[i] = (struct tms_linear_job){.weight = w,
                                          .bias = p->layer->vectors[TMS_VECTOR_BIAS + which],
                                          .x = x,
                                          .x_stride = x_stride,
                                          .n = n,
                                          .y = products[i].y,
                                          .y_stride = products[i].y_stride,
                                          .outlier = (float)net->options.int8_outlier};
        if (net->tap) {
            tms_status status = net->tap(net->tap_ctx, p->layer_number, which, x, x_stride, n, w->cols, err);
            if (status != TMS_OK) return status;
        }
    }
    return tms_linear_run(net->pool, jobs, n_products, net->scratch, err);
}

static tms_status attend(const struct pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    const struct tms_config *c = &net->config;
    size_t width = widths_of(net).q, workers = tms_pool_threads(net->pool);
    struct tms_attention a = {.cache = p->cache,
                              .layer = p->cache_layer,
                              .first_seq = p->first_seq,
                              .n_seqs = p->n_seqs,
                              .n = p->n,
                              .start = p->start,
                              .n_heads = (size_t)c->n_heads,
                              .window = p->layer->window,
                              .scale = (float)(1.0 / sqrt((double)c->head_dim)),
                              .q = net->q,
                              .q_stride = width,
                              .out = net->attended,
                              .out_stride = width,
                              .scratch = net->scratch + workers * (size_t)TMS_LINEAR_SCRATCH};
    return tms_attention_run(net->pool, &a, err);
}

static tms_status run_layer(const struct pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct widths w = widths_of(net);
    const struct product qkv[] = {
        {TMS_LINEAR_Q, net->q, w.q}, {TMS_LINEAR_K, net->k, w.kv}, {TMS_LINEAR_V, net->v, w.kv}};
    const struct product o = {TMS_LINEAR_O, net->y, w.hidden}, down = {TMS_LINEAR_DOWN, net->y, w.hidden};
    const struct product ffn[] = {{TMS_LINEAR_GATE, net->gate, w.ffn}, {TMS_LINEAR_UP, net->up, w.ffn}};
    tms_status status = for_rows(p, norm_before_attention, err);
    if (status == TMS_OK) status = multiply(p, net->x, w.hidden, qkv, 3, err);
    if (status == TMS_OK) status = for_rows(p, turn_and_store, err);
    if (status == TMS_OK) status = attend(p, err);
    if (status == TMS_OK) status = multiply(p, net->attended, w.q, &o, 1, err);
    if (status == TMS_OK) status = for_rows(p, add_and_norm, err);
    if (status == TMS_OK) status = multiply(p, net->x, w.hidden, ffn, 2, err);
    if (status == TMS_OK) status = for_rows(p, gate_up, err);
    if (status == TMS_OK) status = multiply(p, net->up, w.ffn, &down, 1, err);
    if (status == TMS_OK) status = for_rows(p, add_result, err);
    return status;
}

/* ---- passes ---- */

tms_status tms_net_embed(struct tms_net *net, const int32_t *ids, size_t n, float *hidden, struct tms_error *err)
{
    const struct tms_tensor *t = net->embedding.tensor;
    uint64_t cols = net->embedding.cols, unit = tms_source_unit(t);
    /* Blocks of 4-bit folders run over rows: whole units around the row are read. */
    uint64_t room = cols + 2 * unit;
    float *values = tms_calloc(room, sizeof *values);
    void *raw = tms_calloc(room, 8);
    tms_status status = values && raw ? TMS_OK : tms_fail_memory(err, room * 12);
    for (size_t i = 0; i < n && status == TMS_OK; i++) {
        if (ids[i] < 0 || (uint64_t)ids[i] >= net->embedding.rows) {
            status = tms_fail(err, TMS_EINPUT, "%s: token %zu has the id %d; the vocabulary has ids 0 to %llu",
                              net->source->path, i, (int)ids[i], (unsigned long long)net->embedding.rows - 1);
            break;
        }
        uint64_t first = (uint64_t)ids[i] * cols, begin = first / unit * unit;
        uint64_t end = (first + cols + unit - 1) / unit * unit;
        if (end > t->n_weights) end = t->n_weights;
        float *row = hidden + i * tms_net_stride(net);
        status = tms_source_read(net->source, t, begin, end - begin, raw, values, err);
        if (status != TMS_OK) break;
        memcpy(row, values + (first - begin), cols * sizeof *row);
        for (size_t c = (size_t)cols; c < tms_net_stride(net); c++) row[c] = 0;
    }
    free(values);
    free(raw);
    return status;
}

tms_status tms_net_layers(struct tms_net *net, uint64_t first, uint64_t n_layers, const struct tms_batch *batch,
                          struct tms_cache *cache, float *hidden, struct tms_error *err)
{
    size_t half = (size_t)net->config.head_dim / 2, stride = tms_net_stride(net);
    size_t n = batch->n < TMS_NET_TOKENS ? batch->n : TMS_NET_TOKENS;
    if (batch->n == 0 || batch->n_seqs == 0) return TMS_OK;
    size_t seqs = TMS_NET_TOKENS / n;
    if (seqs > batch->n_seqs) seqs = batch->n_seqs;
    if (batch->start + batch->n > cache->capacity || batch->n_seqs > cache->n_seqs)
        return tms_fail(err, TMS_EUSAGE, "the cache has room for %zu positions of %zu sequences, not for %zu of %zu",
                        cache->capacity, cache->n_seqs, batch->start + batch->n, batch->n_seqs);
    tms_status status = make_room(net, n * seqs, err);
    if (status == TMS_OK) status = make_angles(net, batch->start, batch->n, err);
    for (uint64_t l = first; l < first + n_layers && status == TMS_OK; l++)
        for (size_t seq = 0; seq < batch->n_seqs && status == TMS_OK; seq += seqs)
            for (size_t at = 0; at < batch->n && status == TMS_OK; at += n) {
                struct pass pass = {.net = net,
                                    .layer = &net->layers[l],
                                    .layer_number = l,
                                    .cache = cache,
                                    .cache_layer = cache->n_layers == 1 ? 0 : (size_t)l,
                                    .first_seq = seq,
                                    .n_seqs = batch->n_seqs - seq < seqs ? batch->n_seqs - seq : seqs,
                                    .n = batch->n - at < n ? batch->n - at : n,
                                    .start = batch->start + at,
                                    .cosines = net->cosines + at * half,
                                    .sines = net->sines + at * half,
                                    .hidden = hidden + (seq * batch->n + at) * stride,
                                    .seq_tokens = batch->n};
                status = run_layer(&pass, err);
            }
    return status;
}

struct final_ctx {
    const struct tms_net *net;
    const float *hidden;
    float *out;
    size_t n;
};

static tms_status final_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct final_ctx *f = ctx;
    const struct tms_config *c = &f->net->config;
    size_t stride = tms_net_stride(f->net);
    (void)worker, (void)err;
    for (size_t row = index * ROWS_PER_JOB; row < (index + 1) * ROWS_PER_JOB && row < f->n; row++) {
        float *out = f->out + row * stride;
        tms_rms_norm(f->hidden + row * stride, f->net->layers[c->n_layers].vectors[TMS_VECTOR_FFN_NORM],
                     (float)c->rms_eps, out, (size_t)c->hidden);
        for (size_t i = (size_t)c->hidden; i < stride; i++) out[i] = 0;
    }
    return TMS_OK;
}

tms_status tms_net_final_norm(struct tms_net *net, const float *hidden, size_t n, float *out, struct tms_error *err)
{
    struct final_ctx ctx = {net, hidden, out, n};
    return tms_pool_run(net->pool, (n + ROWS_PER_JOB - 1) / ROWS_PER_JOB, final_job, &ctx, err);
}

tms_status tms_net_logits(struct tms_net *net, const float *hidden, size_t n, float *logits, struct tms_error *err)
{
    const struct tms_net_layer *head = &net->layers[net->config.n_layers];
    size_t stride = tms_net_stride(net), vocab = (size_t)net->config.vocab;
    tms_status status = TMS_OK;
    for (size_t at = 0; at < n && status == TMS_OK; at += TMS_NET_TOKENS) {
        size_t now = n - at < TMS_NET_TOKENS ? n - at : TMS_NET_TOKENS;
        status = make_room(net, now, err);
        if (status == TMS_OK) status = tms_net_final_norm(net, hidden + at * stride, now, net->x, err);
        struct pass pass = {.net = net, .layer = head, .layer_number = net->config.n_layers, .n_seqs = 1, .n = now};
        const struct product to = {TMS_LINEAR_HEAD, logits + at * vocab, vocab};
        if (status == TMS_OK) status = multiply(&pass, net->x, stride, &to, 1, err);
    }
    return status;
}

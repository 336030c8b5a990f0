/* The arithmetic of a pass. See net.h; shapes in comments are [tokens][values].
 *
 * One block (Llama and its kin):
 *     x = rms_norm(hidden);  q, k, v = x Wq, x Wk, x Wv (+ biases);  q, k normed by head (Qwen3), then rotated
 *     hidden += attention(q, k, v) Wo;  x = rms_norm(hidden);  hidden += (silu(x Wgate) * x Wup) Wdown
 * Gemma 2 and 3 norm what is added, too. Latent attention is in latent.c, mixtures of experts are in experts.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/attention.h"
#include "engine/kernels/vector.h"
#include "engine/net_parts.h"

/* ---- working memory ---- */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

struct tms_net_widths tms_net_widths(const struct tms_config *c)
{
    const struct tms_latent *l = &c->latent;
    const struct tms_experts *e = &c->experts;
    size_t heads = (size_t)c->n_heads, kv = (size_t)(c->n_kv_heads * c->head_dim);
    struct tms_net_widths w = {.hidden = tms_row_stride((size_t)c->hidden),
                               .q = tms_row_stride(heads * (size_t)c->head_dim),
                               .ffn = tms_row_stride((size_t)larger((size_t)c->ffn, (size_t)e->shared))};
    w.k = w.v = tms_row_stride(kv);
    w.o = w.q;
    if (l->kv_rank) {
        w.k = tms_row_stride((size_t)(l->kv_rank + l->rope));
        w.v = 0;
        w.o = tms_row_stride(heads * (size_t)l->value);
        w.absorbed_head = tms_padded((size_t)(l->kv_rank + l->rope));
        w.weighted_head = tms_padded((size_t)l->kv_rank);
        w.absorbed = tms_row_stride(heads * w.absorbed_head);
        w.weighted = tms_row_stride(larger(heads * w.weighted_head, (size_t)l->q_rank)); /* first the queries' latent */
    }
    if (e->n) {
        w.scores = tms_row_stride((size_t)e->n);
        w.expert_ffn = tms_row_stride((size_t)e->ffn);
    }
    return w;
}

/* All of a token's floats, and of each part where it begins. memory NULL: they are only counted. */
static size_t place_floats(struct tms_net *net, size_t n, float *memory)
{
    struct tms_net_widths w = tms_net_widths(&net->config);
    size_t used = (size_t)net->config.experts.used, total = 0;
    struct {
        float **part;
        size_t width;
    } parts[] = {{&net->x, w.hidden},
                 {&net->y, w.hidden},
                 {&net->q, w.q},
                 {&net->attended, w.o},
                 {&net->k, w.k},
                 {&net->v, w.v},
                 {&net->gate, w.ffn},
                 {&net->up, w.ffn},
                 {&net->absorbed, w.absorbed},
                 {&net->weighted, w.weighted},
                 {&net->scores, w.scores},
                 {&net->gathered, used * w.hidden},
                 {&net->scattered, used * w.hidden},
                 {&net->expert_gate, used * w.expert_ffn},
                 {&net->expert_up, used * w.expert_ffn}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (memory) *parts[i].part = memory + total * n;
        total += parts[i].width;
    }
    return total;
}

static size_t floats_per_token(const struct tms_net *net)
{
    struct tms_net copy = *net;
    return place_floats(&copy, 0, NULL);
}

/* Tokens that go through a layer together, at most. */
static size_t tokens_at_once(const struct tms_net *net)
{
    size_t n = TMS_NET_BYTES / (4 * floats_per_token(net)) / 64 * 64;
    return n < 64 ? 64 : n < TMS_NET_TOKENS ? n : TMS_NET_TOKENS;
}

static size_t floats_per_worker(const struct tms_net *net)
{
    const struct tms_config *c = &net->config;
    struct tms_net_info info;
    tms_net_describe(net, &info);
    size_t cached = tms_attention_scratch((size_t)c->n_heads, (size_t)info.n_kv_heads, (size_t)info.key_dim,
                                          (size_t)info.value_dim);
    size_t plain = c->latent.kv_rank ? tms_attention_scratch(1, 1, (size_t)c->head_dim, (size_t)c->latent.value) : 0;
    return TMS_LINEAR_SCRATCH + tms_padded(plain > cached ? plain : cached);
}

uint64_t tms_net_working_bytes(const struct tms_net *net, size_t n_tokens)
{
    const struct tms_config *c = &net->config;
    uint64_t n = n_tokens < tokens_at_once(net) ? n_tokens : tokens_at_once(net);
    uint64_t angles = (uint64_t)n_tokens * tms_config_rope_dim(c) * (c->rope.local_theta > 0 ? 2 : 1);
    uint64_t routes = c->experts.n ? n * c->experts.used * 16 + c->experts.n * 2 * sizeof *net->jobs : 0;
    return 4 * (n * floats_per_token(net) + tms_pool_threads(net->pool) * floats_per_worker(net) + angles) + routes;
}

static void free_routes(struct tms_net *net)
{
    free(net->expert_weights);
    free(net->chosen);
    free(net->places);
    free(net->firsts);
    free(net->jobs);
    net->expert_weights = NULL;
    net->chosen = NULL;
    net->places = NULL;
    net->firsts = NULL;
    net->jobs = NULL;
}

void tms_net_free_memory(struct tms_net *net)
{
    free(net->memory);
    free(net->scratch);
    tms_linear_fast_free(&net->fast);
    tms_cache_free(net->plain);
    free_routes(net);
    for (size_t i = 0; i < 2; i++) {
        free(net->angles[i].frequencies);
        free(net->angles[i].cosines);
        free(net->angles[i].sines);
    }
}

static tms_status make_routes(struct tms_net *net, size_t n, struct tms_error *err)
{
    size_t n_experts = (size_t)net->config.experts.n, slots = n * (size_t)net->config.experts.used;
    free_routes(net);
    if (n_experts == 0) return TMS_OK;
    net->expert_weights = tms_calloc(slots, sizeof *net->expert_weights);
    net->chosen = tms_calloc(slots, sizeof *net->chosen);
    net->places = tms_calloc(slots, sizeof *net->places);
    net->firsts = tms_calloc(n_experts + 1, sizeof *net->firsts);
    net->jobs = tms_calloc(2 * n_experts, sizeof *net->jobs);
    if (net->expert_weights && net->chosen && net->places && net->firsts && net->jobs) return TMS_OK;
    return tms_fail_memory(err, slots * 16 + n_experts * 2 * sizeof *net->jobs);
}

/* Paddings are zero from here on: nothing writes behind a row's own columns, or it makes zeros of them again. */
static tms_status make_room(struct tms_net *net, size_t n, struct tms_error *err)
{
    size_t per_token = floats_per_token(net);
    if (!net->scratch) {
        uint64_t floats = (uint64_t)tms_pool_threads(net->pool) * floats_per_worker(net);
        net->scratch = tms_calloc_lines(floats, sizeof *net->scratch);
        if (!net->scratch) return tms_fail_memory(err, floats * 4);
    }
    if (n <= net->n_tokens) return TMS_OK;
    free(net->memory);
    net->n_tokens = 0;
    net->memory = tms_calloc_lines(n, per_token * sizeof *net->memory);
    if (!net->memory) return tms_fail_memory(err, n * per_token * 4);
    tms_status status = make_routes(net, n, err);
    if (status != TMS_OK) return status;
    net->n_tokens = n;
    place_floats(net, n, net->memory);
    return TMS_OK;
}

static tms_status make_angles(struct tms_net *net, bool local, const struct tms_batch *batch, struct tms_error *err)
{
    struct tms_net_angles *a = &net->angles[local];
    size_t half = (size_t)tms_config_rope_dim(&net->config) / 2, start = batch->start, n = batch->n;
    size_t length = batch->length > start + n ? batch->length : start + n;
    float factor;
    if (n > a->room) {
        free(a->cosines);
        free(a->sines);
        a->room = 0;
        if (!a->frequencies) a->frequencies = tms_calloc(half, sizeof *a->frequencies);
        a->cosines = tms_calloc(n, half * sizeof *a->cosines);
        a->sines = tms_calloc(n, half * sizeof *a->sines);
        if (!a->frequencies || !a->cosines || !a->sines) return tms_fail_memory(err, n * half * 8);
        a->room = n;
    }
    tms_status status = tms_rope_frequencies(&net->config, local, net->divisors, length, a->frequencies, &factor, err);
    if (status == TMS_OK) tms_rope_angles(a->frequencies, half, factor, start, n, a->cosines, a->sines);
    return status;
}

/* ---- steps ---- */

struct rows_ctx {
    const struct tms_pass *pass;
    tms_row_fn fn;
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

tms_status tms_pass_rows(const struct tms_pass *p, tms_row_fn fn, struct tms_error *err)
{
    struct rows_ctx ctx = {p, fn, p->n_seqs * p->n};
    if (ctx.n <= ROWS_PER_JOB) return rows_job(&ctx, 0, 0, err); /* not worth waking anyone */
    return tms_pool_run(p->net->pool, (ctx.n + ROWS_PER_JOB - 1) / ROWS_PER_JOB, rows_job, &ctx, err);
}

static float *hidden_row(const struct tms_pass *p, size_t row)
{
    size_t seq = row / p->n, token = row % p->n;
    return p->hidden + (seq * p->seq_tokens + token) * tms_net_stride(p->net);
}

static void norm_rows(const struct tms_pass *p, size_t row, enum tms_net_vector which)
{
    const struct tms_net *net = p->net;
    tms_rms_norm(hidden_row(p, row), p->layer->vectors[which], (float)net->config.rms_eps,
                 net->x + row * tms_net_stride(net), (size_t)net->config.hidden);
}

static void norm_before_attention(const struct tms_pass *p, size_t row)
{
    norm_rows(p, row, TMS_VECTOR_ATTN_NORM);
}

/* The result of attention or of the feed-forward layer, normed if the model does so, is added. */
static void add_result(const struct tms_pass *p, size_t row, enum tms_net_vector norm)
{
    const struct tms_net *net = p->net;
    float *y = net->y + row * tms_net_stride(net);
    size_t n = (size_t)net->config.hidden;
    if (p->layer->vectors[norm]) tms_rms_norm(y, p->layer->vectors[norm], (float)net->config.rms_eps, y, n);
    tms_add(y, hidden_row(p, row), n);
}

static void add_attention(const struct tms_pass *p, size_t row)
{
    add_result(p, row, TMS_VECTOR_POST_ATTN_NORM);
    norm_rows(p, row, TMS_VECTOR_FFN_NORM);
}

static void add_feed_forward(const struct tms_pass *p, size_t row)
{
    add_result(p, row, TMS_VECTOR_POST_FFN_NORM);
}

/* Norms and turns the heads of one token; its keys and values go into the cache. */
static void turn_and_store(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    const struct tms_config *c = &net->config;
    struct tms_net_widths w = tms_net_widths(c);
    size_t d = (size_t)c->head_dim, half = (size_t)tms_config_rope_dim(c) / 2;
    size_t token = row % p->n;
    const float *cosines = p->cosines + token * half, *sines = p->sines + token * half;
    const float *q_norm = p->layer->vectors[TMS_VECTOR_Q_NORM], *k_norm = p->layer->vectors[TMS_VECTOR_K_NORM];
    float eps = (float)c->rms_eps;
    for (size_t h = 0; h < c->n_heads; h++) {
        float *head = net->q + row * w.q + h * d;
        if (q_norm) tms_rms_norm(head, q_norm, eps, head, d);
        tms_rope_turn(head, half, net->pairs, cosines, sines);
    }
    for (size_t h = 0; h < c->n_kv_heads; h++) {
        float *head = net->k + row * w.k + h * d;
        if (k_norm) tms_rms_norm(head, k_norm, eps, head, d);
        tms_rope_turn(head, half, net->pairs, cosines, sines);
        tms_pass_store(p, row, h, head, net->v + row * w.v + h * d);
    }
}

void tms_pass_store(const struct tms_pass *p, size_t row, size_t kv_head, float *key, float *value)
{
    size_t seq = p->first_seq + row / p->n, position = p->start + row % p->n;
    tms_cache_store(p->cache, tms_cache_head(p->cache, p->cache_layer, seq, kv_head), position, key, value);
}

void tms_pass_activate(const struct tms_pass *p, const float *gate, float *up, size_t n)
{
    if (p->net->config.activation == TMS_GELU_TANH)
        tms_geglu(gate, up, n);
    else
        tms_swiglu(gate, up, n);
    for (size_t i = n; i < tms_padded(n); i++) up[i] = 0; /* rows of other widths lie here, too */
}

static void gate_up(const struct tms_pass *p, size_t row)
{
    size_t width = tms_net_widths(&p->net->config).ffn;
    tms_pass_activate(p, p->net->gate + row * width, p->net->up + row * width, (size_t)p->net->config.ffn);
}

tms_status tms_pass_tell(const struct tms_pass *p, enum tms_linear linear, int expert, const float *x, size_t stride,
                         size_t n, uint64_t cols, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct tms_tap tap = {p->layer_number, linear, expert, x, stride, n, cols};
    return net->tap ? net->tap(net->tap_ctx, &tap, err) : TMS_OK;
}

tms_status tms_pass_multiply(const struct tms_pass *p, const float *x, size_t x_stride,
                             const struct tms_product *products, size_t n_products, struct tms_error *err)
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
        tms_status status = tms_pass_tell(p, which, -1, x, x_stride, n, w->cols, err);
        if (status != TMS_OK) return status;
    }
    return tms_linear_run(net->pool, jobs, n_products, net->scratch, tms_net_fast(net), err);
}

tms_status tms_pass_attention(const struct tms_pass *p, const struct tms_heads *heads, struct tms_error *err)
{
    struct tms_net *net = p->net;
    const struct tms_config *c = &net->config;
    size_t workers = tms_pool_threads(net->pool);
    double scalar = c->query_scalar > 0 ? c->query_scalar : (double)c->head_dim;
    struct tms_attention a = {.cache = heads->cache,
                              .layer = heads->layer,
                              .first_seq = heads->first_seq,
                              .n_seqs = p->n_seqs,
                              .n = p->n,
                              .start = p->start,
                              .n_heads = heads->n,
                              .window = p->layer->window,
                              .scale = (float)(tms_rope_score_factor(c) / sqrt(scalar)),
                              .cap = (float)c->attention_cap,
                              .q = heads->q,
                              .q_stride = heads->q_stride,
                              .q_head = heads->q_head,
                              .out = heads->out,
                              .out_stride = heads->out_stride,
                              .out_head = heads->out_head,
                              .scratch = net->scratch + workers * (size_t)TMS_LINEAR_SCRATCH};
    return tms_attention_run(net->pool, &a, err);
}

static tms_status attend(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct tms_net_widths w = tms_net_widths(&net->config);
    size_t d = (size_t)net->config.head_dim;
    const struct tms_product qkv[] = {
        {TMS_LINEAR_Q, net->q, w.q}, {TMS_LINEAR_K, net->k, w.k}, {TMS_LINEAR_V, net->v, w.v}};
    tms_status status = tms_pass_multiply(p, net->x, w.hidden, qkv, 3, err);
    if (status == TMS_OK) status = tms_pass_rows(p, turn_and_store, err);
    const struct tms_heads heads = {.cache = p->cache,
                                    .layer = p->cache_layer,
                                    .first_seq = p->first_seq,
                                    .n = (size_t)net->config.n_heads,
                                    .q = net->q,
                                    .q_stride = w.q,
                                    .q_head = d,
                                    .out = net->attended,
                                    .out_stride = w.o,
                                    .out_head = d};
    if (status == TMS_OK) status = tms_pass_attention(p, &heads, err);
    return status;
}

static tms_status feed_forward(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const struct tms_product ffn[] = {{TMS_LINEAR_GATE, net->gate, w.ffn}, {TMS_LINEAR_UP, net->up, w.ffn}};
    const struct tms_product down = {TMS_LINEAR_DOWN, net->y, w.hidden};
    tms_status status = tms_pass_multiply(p, net->x, w.hidden, ffn, 2, err);
    if (status == TMS_OK) status = tms_pass_rows(p, gate_up, err);
    if (status == TMS_OK) status = tms_pass_multiply(p, net->up, w.ffn, &down, 1, err);
    return status;
}

static tms_status run_layer(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const struct tms_product o = {TMS_LINEAR_O, net->y, w.hidden};
    tms_status status = tms_pass_rows(p, norm_before_attention, err);
    if (status == TMS_OK) status = net->config.latent.kv_rank ? tms_latent_attend(p, err) : attend(p, err);
    if (status == TMS_OK) status = tms_pass_multiply(p, net->attended, w.o, &o, 1, err);
    if (status == TMS_OK) status = tms_pass_rows(p, add_attention, err);
    if (status == TMS_OK) status = p->layer->mixture ? tms_experts_run(p, err) : feed_forward(p, err);
    if (status == TMS_OK) status = tms_pass_rows(p, add_feed_forward, err);
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
        if (net->config.scaled_embedding) tms_scale(row, (float)sqrt((double)cols), (size_t)cols);
        for (size_t c = (size_t)cols; c < tms_net_stride(net); c++) row[c] = 0;
    }
    free(values);
    free(raw);
    return status;
}

tms_status tms_net_layers(struct tms_net *net, uint64_t first, uint64_t n_layers, const struct tms_batch *batch,
                          struct tms_cache *cache, float *hidden, struct tms_error *err)
{
    size_t half = (size_t)tms_config_rope_dim(&net->config) / 2, stride = tms_net_stride(net);
    size_t room = tokens_at_once(net), n = batch->n < room ? batch->n : room;
    bool two = net->config.rope.local_theta > 0; /* kinds of rotation */
    if (batch->n == 0 || batch->n_seqs == 0) return TMS_OK;
    size_t seqs = room / n;
    if (seqs > batch->n_seqs) seqs = batch->n_seqs;
    tms_status status = make_room(net, n * seqs, err);
    if (status == TMS_OK) status = make_angles(net, false, batch, err);
    if (status == TMS_OK && two) status = make_angles(net, true, batch, err);
    for (uint64_t l = first; l < first + n_layers && status == TMS_OK; l++)
        for (size_t seq = 0; seq < batch->n_seqs && status == TMS_OK; seq += seqs)
            for (size_t at = 0; at < batch->n && status == TMS_OK; at += n) {
                const struct tms_net_angles *angles = &net->angles[two && net->layers[l].window];
                struct tms_pass pass = {.net = net,
                                        .layer = &net->layers[l],
                                        .layer_number = l,
                                        .cache = cache,
                                        .cache_layer = cache->shape.n_layers == 1 ? 0 : (size_t)l,
                                        .first_seq = seq,
                                        .n_seqs = batch->n_seqs - seq < seqs ? batch->n_seqs - seq : seqs,
                                        .n = batch->n - at < n ? batch->n - at : n,
                                        .start = batch->start + at,
                                        .cosines = angles->cosines + at * half,
                                        .sines = angles->sines + at * half,
                                        .hidden = hidden + (seq * batch->n + at) * stride,
                                        .seq_tokens = batch->n};
                status = tms_cache_begin(cache, seq + pass.n_seqs, pass.start, pass.n, err);
                if (status == TMS_OK) status = run_layer(&pass, err);
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

struct cap_ctx {
    float *logits, cap;
    size_t vocab;
};

static tms_status cap_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct cap_ctx *c = ctx;
    (void)worker, (void)err;
    tms_soft_cap(c->logits + index * c->vocab, c->cap, c->vocab);
    return TMS_OK;
}

tms_status tms_net_logits(struct tms_net *net, const float *hidden, size_t n, float *logits, struct tms_error *err)
{
    const struct tms_net_layer *head = &net->layers[net->config.n_layers];
    size_t stride = tms_net_stride(net), vocab = (size_t)net->config.vocab, room = tokens_at_once(net);
    tms_status status = TMS_OK;
    for (size_t at = 0; at < n && status == TMS_OK; at += room) {
        size_t now = n - at < room ? n - at : room;
        status = make_room(net, now, err);
        if (status == TMS_OK) status = tms_net_final_norm(net, hidden + at * stride, now, net->x, err);
        struct tms_pass pass = {.net = net, .layer = head, .layer_number = net->config.n_layers, .n_seqs = 1, .n = now};
        const struct tms_product to = {TMS_LINEAR_HEAD, logits + at * vocab, vocab};
        if (status == TMS_OK) status = tms_pass_multiply(&pass, net->x, stride, &to, 1, err);
    }
    if (status != TMS_OK || net->config.logit_cap <= 0) return status;
    struct cap_ctx ctx = {logits, (float)net->config.logit_cap, vocab};
    return tms_pool_run(net->pool, n, cap_job, &ctx, err);
}

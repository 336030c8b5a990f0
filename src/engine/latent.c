/* Multi-head latent attention (DeepSeek-V2, 2024) in its absorbed form. See net_parts.h.
 *
 * Keys and values of all heads are products of one latent c per token: k = Wk c, v = Wv c, beside a rotated part of the
 * key that heads share. As q . Wk c = (WkT q) . c, queries are carried over into the space of latents, attention has
 * one key and one value per token for all heads - (c, rotated part) and c -, and the weighted latents go through Wv at
 * last. The cache holds latents alone. */
#include <string.h>

#include "engine/kernels/vector.h"
#include "engine/net_parts.h"

/* The queries' own latent, normed (its row lies where weighted latents will). */
static void norm_queries(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    size_t n = (size_t)net->config.latent.q_rank;
    float *at = net->weighted + row * tms_net_widths(&net->config).weighted;
    tms_rms_norm(at, p->layer->vectors[TMS_VECTOR_Q_A_NORM], (float)net->config.rms_eps, at, n);
    for (size_t i = n; i < tms_padded(n); i++) at[i] = 0;
}

/* The latent is normed, the parts with positions are turned; the queries' go behind the place of their absorbed part.
 */
static void turn_and_store(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    const struct tms_config *c = &net->config;
    const struct tms_latent *l = &c->latent;
    struct tms_net_widths w = tms_net_widths(c);
    size_t half = (size_t)l->rope / 2, token = row % p->n, rank = (size_t)l->kv_rank;
    const float *cosines = p->cosines + token * half, *sines = p->sines + token * half;
    float *latent = net->k + row * w.k;
    tms_rms_norm(latent, p->layer->vectors[TMS_VECTOR_KV_A_NORM], (float)c->rms_eps, latent, rank);
    tms_rope_turn(latent + rank, half, net->pairs, cosines, sines);
    tms_pass_store(p, row, 0, latent, latent);
    for (size_t h = 0; h < c->n_heads; h++) {
        const float *q = net->q + row * w.q + h * (size_t)c->head_dim + l->nope;
        float *to = net->absorbed + row * w.absorbed + h * w.absorbed_head + rank;
        memcpy(to, q, (size_t)l->rope * sizeof *to);
        tms_rope_turn(to, half, net->pairs, cosines, sines);
    }
}

#define TILE   40u
#define STRIDE (TMS_DOT_PIECE + 16u)

/* y[tokens] = x . rows [first, first + n) of w */
static void dots(const struct tms_weight *w, uint64_t first, size_t n, const float *x, size_t x_stride, size_t tokens,
                 float *y, size_t y_stride, float *tile)
{
    for (size_t row = 0; row < n; row += TILE) {
        size_t rows = n - row < TILE ? n - row : TILE;
        for (size_t col = 0; col < w->cols; col += TMS_DOT_PIECE) {
            size_t cols = w->cols - col < TMS_DOT_PIECE ? (size_t)w->cols - col : TMS_DOT_PIECE;
            tms_weight_tile(w, first + row, rows, col, cols, tile, STRIDE);
            tms_dots(x + col, x_stride, tokens, tile, STRIDE, rows, tms_padded(cols), y + row, y_stride, col > 0);
        }
    }
}

/* y[tokens] = sum over j < n of x[tokens][j] * row first + j of w */
static void sums(const struct tms_weight *w, uint64_t first, size_t n, const float *x, size_t x_stride, size_t tokens,
                 float *y, size_t y_stride, float *tile)
{
    for (size_t t = 0; t < tokens; t++) memset(y + t * y_stride, 0, (size_t)w->cols * sizeof *y);
    for (size_t row = 0; row < n; row += TILE) {
        size_t rows = n - row < TILE ? n - row : TILE;
        for (size_t col = 0; col < w->cols; col += TMS_DOT_PIECE) {
            size_t cols = w->cols - col < TMS_DOT_PIECE ? (size_t)w->cols - col : TMS_DOT_PIECE;
            tms_weight_tile(w, first + row, rows, col, cols, tile, STRIDE);
            tms_weighted_sums(x + row, x_stride, tokens, tile, STRIDE, rows, tms_padded(cols), y + col, y_stride);
        }
    }
}

/* One head's queries into the space of latents. A folder's kv_b has rows of keys [nope][kv_rank] and of values
 * [value][kv_rank], head after head; GGUF has both apart, and keys turned: [kv_rank][nope]. */
static tms_status absorb_job(void *ctx, size_t head, unsigned worker, struct tms_error *err)
{
    const struct tms_pass *p = ctx;
    const struct tms_net *net = p->net;
    const struct tms_latent *l = &net->config.latent;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const struct tms_weight *both = &p->layer->linear[TMS_LINEAR_KV_B], *keys = &p->layer->linear[TMS_LINEAR_K_B];
    const float *q = net->q + head * (size_t)net->config.head_dim;
    float *to = net->absorbed + head * w.absorbed_head, *tile = net->scratch + worker * (size_t)TMS_LINEAR_SCRATCH;
    size_t n = p->n_seqs * p->n;
    (void)err;
    if (both->tensor)
        sums(both, head * (l->nope + l->value), (size_t)l->nope, q, w.q, n, to, w.absorbed, tile);
    else
        dots(keys, head * l->kv_rank, (size_t)l->kv_rank, q, w.q, n, to, w.absorbed, tile);
    return TMS_OK;
}

static tms_status value_job(void *ctx, size_t head, unsigned worker, struct tms_error *err)
{
    const struct tms_pass *p = ctx;
    const struct tms_net *net = p->net;
    const struct tms_latent *l = &net->config.latent;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const struct tms_weight *both = &p->layer->linear[TMS_LINEAR_KV_B], *values = &p->layer->linear[TMS_LINEAR_V_B];
    uint64_t first = both->tensor ? head * (l->nope + l->value) + l->nope : head * l->value;
    (void)err;
    dots(both->tensor ? both : values, first, (size_t)l->value, net->weighted + head * w.weighted_head, w.weighted,
         p->n_seqs * p->n, net->attended + head * (size_t)l->value, w.o,
         net->scratch + worker * (size_t)TMS_LINEAR_SCRATCH);
    return TMS_OK;
}

tms_status tms_latent_attend(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    const struct tms_config *c = &net->config;
    struct tms_net_widths w = tms_net_widths(c);
    bool low = c->latent.q_rank != 0;
    const struct tms_product in[] = {
        {TMS_LINEAR_KV_A, net->k, w.k},
        {low ? TMS_LINEAR_Q_A : TMS_LINEAR_Q, low ? net->weighted : net->q, low ? w.weighted : w.q}};
    const struct tms_product up = {TMS_LINEAR_Q_B, net->q, w.q};
    struct tms_pass pass = *p;
    tms_status status = tms_pass_multiply(p, net->x, w.hidden, in, 2, err);
    if (status == TMS_OK && low) status = tms_pass_rows(p, norm_queries, err);
    if (status == TMS_OK && low) status = tms_pass_multiply(p, net->weighted, w.weighted, &up, 1, err);
    /* absorbed first: its padding reaches into the place of the rotated part */
    if (status == TMS_OK) status = tms_pool_run(net->pool, (size_t)c->n_heads, absorb_job, &pass, err);
    if (status == TMS_OK) status = tms_pass_rows(p, turn_and_store, err);
    if (status == TMS_OK)
        status = tms_pass_tell(p, TMS_LINEAR_KV_B, -1, net->k, w.k, p->n_seqs * p->n, c->latent.kv_rank, err);
    if (status == TMS_OK)
        status = tms_pass_attention(p, net->absorbed, w.absorbed, w.absorbed_head, net->weighted, w.weighted,
                                    w.weighted_head, err);
    if (status == TMS_OK) status = tms_pool_run(net->pool, (size_t)c->n_heads, value_job, &pass, err);
    return status;
}

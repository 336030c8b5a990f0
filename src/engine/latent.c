/* Multi-head latent attention (DeepSeek-V2, 2024). See net_parts.h.
 *
 * Keys and values of all heads are products of one latent c per token: k = Wk c, v = Wv c, beside a rotated part of the
 * key that heads share. The cache holds latents alone. Two forms give the same result up to rounding:
 *
 * Absorbed: as q . Wk c = (WkT q) . c, queries are carried over into the space of latents, attention has one key and
 * one value per token for all heads - (c, rotated part) and c -, and the weighted latents go through Wv at last. For
 * few queries: latents are read once, whatever the number of heads.
 *
 * Plain: keys and values of all positions are made, some heads at a time, and attention runs over them. For many
 * queries: keys and values are several times shorter than latents. Only in the fast mode, because which form is cheaper
 * depends on how tokens are cut into passes, and exact results do not. */
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

/* The latent is normed, the parts with positions are turned. */
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
    for (size_t h = 0; h < c->n_heads; h++)
        tms_rope_turn(net->q + row * w.q + h * (size_t)c->head_dim + l->nope, half, net->pairs, cosines, sines);
}

/* ---- products with the rows of one head ---- */

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

/* A folder's kv_b has rows of keys [nope][kv_rank] and of values [value][kv_rank], head after head; GGUF has both
 * apart, and keys turned: [kv_rank][nope]. */
struct rows {
    const struct tms_weight *weight;
    uint64_t first;
};

static struct rows key_rows(const struct tms_pass *p, size_t head)
{
    const struct tms_latent *l = &p->net->config.latent;
    const struct tms_weight *both = &p->layer->linear[TMS_LINEAR_KV_B];
    if (both->tensor) return (struct rows){both, head * (l->nope + l->value)};
    return (struct rows){&p->layer->linear[TMS_LINEAR_K_B], head * l->kv_rank};
}

static struct rows value_rows(const struct tms_pass *p, size_t head)
{
    const struct tms_latent *l = &p->net->config.latent;
    const struct tms_weight *both = &p->layer->linear[TMS_LINEAR_KV_B];
    if (both->tensor) return (struct rows){both, head * (l->nope + l->value) + l->nope};
    return (struct rows){&p->layer->linear[TMS_LINEAR_V_B], head * l->value};
}

static bool keys_are_turned(const struct tms_pass *p)
{
    return !p->layer->linear[TMS_LINEAR_KV_B].tensor;
}

/* ---- absorbed ---- */

/* One head's queries into the space of latents; their rotated part goes behind. */
static tms_status absorb_job(void *ctx, size_t head, unsigned worker, struct tms_error *err)
{
    const struct tms_pass *p = ctx;
    const struct tms_net *net = p->net;
    const struct tms_latent *l = &net->config.latent;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const struct rows keys = key_rows(p, head);
    const float *q = net->q + head * (size_t)net->config.head_dim;
    float *to = net->absorbed + head * w.absorbed_head, *tile = net->scratch + worker * (size_t)TMS_LINEAR_SCRATCH;
    size_t n = p->n_seqs * p->n, rank = (size_t)l->kv_rank;
    (void)err;
    if (keys_are_turned(p))
        dots(keys.weight, keys.first, rank, q, w.q, n, to, w.absorbed, tile);
    else
        sums(keys.weight, keys.first, (size_t)l->nope, q, w.q, n, to, w.absorbed, tile);
    for (size_t t = 0; t < n; t++) /* last: the padding of sums reaches into its place */
        memcpy(to + t * w.absorbed + rank, q + t * w.q + l->nope, (size_t)l->rope * sizeof *to);
    return TMS_OK;
}

static tms_status value_job(void *ctx, size_t head, unsigned worker, struct tms_error *err)
{
    const struct tms_pass *p = ctx;
    const struct tms_net *net = p->net;
    const struct tms_latent *l = &net->config.latent;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const struct rows values = value_rows(p, head);
    (void)err;
    dots(values.weight, values.first, (size_t)l->value, net->weighted + head * w.weighted_head, w.weighted,
         p->n_seqs * p->n, net->attended + head * (size_t)l->value, w.o,
         net->scratch + worker * (size_t)TMS_LINEAR_SCRATCH);
    return TMS_OK;
}

static tms_status attend_absorbed(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const size_t n_heads = (size_t)net->config.n_heads;
    const struct tms_heads heads = {.cache = p->cache,
                                    .layer = p->cache_layer,
                                    .first_seq = p->first_seq,
                                    .n = n_heads,
                                    .q = net->absorbed,
                                    .q_stride = w.absorbed,
                                    .q_head = w.absorbed_head,
                                    .out = net->weighted,
                                    .out_stride = w.weighted,
                                    .out_head = w.weighted_head};
    struct tms_pass pass = *p;
    tms_status status = tms_pool_run(net->pool, n_heads, absorb_job, &pass, err);
    if (status == TMS_OK) status = tms_pass_attention(p, &heads, err);
    if (status == TMS_OK) status = tms_pool_run(net->pool, n_heads, value_job, &pass, err);
    return status;
}

/* ---- plain ---- */

#define PLAIN_BYTES (64u << 20) /* of the keys and values of some heads */
#define CHUNK       256u        /* positions whose keys and values are made together */

static size_t plain_head_bytes(const struct tms_pass *p)
{
    const struct tms_latent *l = &p->net->config.latent;
    return (size_t)(l->nope + l->rope + l->value) * sizeof(float) * p->n_seqs * (p->start + p->n);
}

/* Both make as many products for the tokens of the pass themselves; plain attention makes others for those before it,
 * and saves some for every pair of query and key. */
static bool is_plain_cheaper(const struct tms_pass *p)
{
    const struct tms_latent *l = &p->net->config.latent;
    const struct tms_cache_options *o = &p->cache->options;
    double pairs = (double)p->n * ((double)p->start + ((double)p->n + 1) / 2);
    double saved = 2 * (double)l->kv_rank - (double)(l->nope + l->value);
    bool kept = o->keep_first || o->keep_last; /* what a latent is then depends on who looks at it */
    return p->net->options.fast && !p->net->options.bounded && !kept && plain_head_bytes(p) <= PLAIN_BYTES &&
           pairs * saved > (double)p->start * (double)l->kv_rank * (double)(l->nope + l->value);
}

struct plain {
    const struct tms_pass *pass;
    size_t first_head, n_heads, n_chunks;
    size_t latent, key, value; /* floats of a row */
    float *rooms;              /* of each worker: a chunk of latents, keys, values */
};

/* Keys and values of one head, a chunk of one sequence. */
static tms_status expand_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct plain *e = ctx;
    const struct tms_pass *p = e->pass;
    const struct tms_net *net = p->net;
    const struct tms_latent *l = &net->config.latent;
    size_t head = index % e->n_heads, chunk = index / e->n_heads % e->n_chunks, seq = index / e->n_heads / e->n_chunks;
    size_t first = chunk * CHUNK, left = p->start + p->n - first, n = left < CHUNK ? left : CHUNK;
    size_t nope = (size_t)l->nope, rank = (size_t)l->kv_rank, rope = (size_t)l->rope;
    float *latents = e->rooms + worker * CHUNK * (e->latent + e->key + e->value);
    float *keys = latents + CHUNK * e->latent, *values = keys + CHUNK * e->key;
    float *tile = net->scratch + worker * (size_t)TMS_LINEAR_SCRATCH;
    const struct rows of_keys = key_rows(p, e->first_head + head), of_values = value_rows(p, e->first_head + head);
    const float *at =
        tms_cache_keys(p->cache, tms_cache_head(p->cache, p->cache_layer, p->first_seq + seq, 0), first, n, latents);
    (void)err;
    if (at != latents) memcpy(latents, at, n * e->latent * sizeof *latents);
    for (size_t t = 0; t < n; t++) tms_cache_turn(&p->cache->key, latents + t * e->latent);
    /* products read latents up to a multiple of 16, and the rotated part stands there */
    for (size_t t = 0; t < n; t++)
        memcpy(keys + t * e->key + nope, latents + t * e->latent + rank, rope * sizeof *keys);
    for (size_t t = 0; rank % 16 && t < n; t++)
        memset(latents + t * e->latent + rank, 0, (tms_padded(rank) - rank) * sizeof *latents);
    if (keys_are_turned(p))
        sums(of_keys.weight, of_keys.first, rank, latents, e->latent, n, keys, e->key, tile);
    else
        dots(of_keys.weight, of_keys.first, nope, latents, e->latent, n, keys, e->key, tile);
    dots(of_values.weight, of_values.first, (size_t)l->value, latents, e->latent, n, values, e->value, tile);
    for (size_t t = 0; t < n; t++)
        tms_cache_store(net->plain, tms_cache_head(net->plain, 0, seq, head), first + t, keys + t * e->key,
                        values + t * e->value);
    return TMS_OK;
}

/* net->plain: room for some heads' keys and values. */
static tms_status make_plain(struct tms_net *net, const struct tms_pass *p, size_t n_heads, struct tms_error *err)
{
    const struct tms_latent *l = &net->config.latent;
    const struct tms_cache_options exact = tms_cache_exact();
    const struct tms_cache_shape shape = {.n_layers = 1,
                                          .n_seqs = p->n_seqs,
                                          .n_heads = n_heads,
                                          .capacity = p->start + p->n,
                                          .key_dim = (size_t)(l->nope + l->rope),
                                          .value_dim = (size_t)l->value,
                                          .pass = p->n};
    const struct tms_cache_shape *had = net->plain ? &net->plain->shape : NULL;
    if (had && had->n_seqs >= shape.n_seqs && had->n_heads == n_heads && had->capacity >= shape.capacity) return TMS_OK;
    tms_cache_free(net->plain);
    net->plain = NULL;
    return tms_cache_create(&net->plain, &exact, &shape, err);
}

static tms_status attend_plain(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    const struct tms_config *c = &net->config;
    struct tms_net_widths w = tms_net_widths(c);
    size_t n_heads = (size_t)c->n_heads, d = (size_t)c->head_dim, value = (size_t)c->latent.value;
    size_t at_once = n_heads;
    while (n_heads % at_once || at_once * plain_head_bytes(p) > PLAIN_BYTES) at_once--; /* 1 fits */
    struct plain e = {.pass = p,
                      .n_heads = at_once,
                      .n_chunks = (p->start + p->n + CHUNK - 1) / CHUNK,
                      .latent = tms_padded(p->cache->key.dim),
                      .key = tms_padded((size_t)c->latent.nope) + tms_padded((size_t)c->latent.rope),
                      .value = tms_padded(value)};
    size_t room = CHUNK * (e.latent + e.key + e.value) * tms_pool_threads(net->pool);
    tms_status status = make_plain(net, p, at_once, err);
    if (status == TMS_OK) e.rooms = tms_calloc(room, sizeof *e.rooms);
    if (status == TMS_OK && !e.rooms) status = tms_fail_memory(err, room * sizeof *e.rooms);
    for (; e.first_head < n_heads && status == TMS_OK; e.first_head += at_once) {
        const struct tms_heads heads = {.cache = net->plain,
                                        .n = at_once,
                                        .q = net->q + e.first_head * d,
                                        .q_stride = w.q,
                                        .q_head = d,
                                        .out = net->attended + e.first_head * value,
                                        .out_stride = w.o,
                                        .out_head = value};
        status = tms_pool_run(net->pool, p->n_seqs * e.n_chunks * at_once, expand_job, &e, err);
        if (status == TMS_OK) status = tms_pass_attention(p, &heads, err);
    }
    free(e.rooms);
    return status;
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
    tms_status status = tms_pass_multiply(p, net->x, w.hidden, in, 2, err);
    if (status == TMS_OK && low) status = tms_pass_rows(p, norm_queries, err);
    if (status == TMS_OK && low) status = tms_pass_multiply(p, net->weighted, w.weighted, &up, 1, err);
    if (status == TMS_OK) status = tms_pass_rows(p, turn_and_store, err);
    if (status == TMS_OK)
        status = tms_pass_tell(p, TMS_LINEAR_KV_B, -1, net->k, w.k, p->n_seqs * p->n, c->latent.kv_rank, err);
    if (status == TMS_OK) status = is_plain_cheaper(p) ? attend_plain(p, err) : attend_absorbed(p, err);
    return status;
}

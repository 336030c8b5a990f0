/* The forward pass of a decoder, from any stored format, in f32.
 *
 * A pass goes token ids -> hidden states -> layers -> logits, and every boundary is a function of its own, so that a
 * caller can walk a model that is larger than memory layer by layer (tms_net_hold), look at hidden states between
 * layers, or see the input of every linear layer (tms_net_tap).
 *
 * Results are the same bits for any number of threads, on any CPU, and however tokens are cut into passes: every dot
 * product has one fixed order of sums (kernels/matmul.h), and attention walks the keys in fixed blocks (attention.h).
 */
#ifndef TMS_ENGINE_NET_H
#define TMS_ENGINE_NET_H

#include "base/threads.h"
#include "engine/cache.h"
#include "model/source.h"

struct tms_net;

/* The linear layers of a block, by what they do. Fused ones are told as the parts that they are. */
enum tms_linear {
    TMS_LINEAR_Q,
    TMS_LINEAR_K,
    TMS_LINEAR_V,
    TMS_LINEAR_O,
    TMS_LINEAR_GATE,
    TMS_LINEAR_UP,
    TMS_LINEAR_DOWN,
    TMS_LINEAR_Q_A, /* latent attention: down to the latent of queries, and up from it */
    TMS_LINEAR_Q_B,
    TMS_LINEAR_KV_A, /* down to the latent of keys and values */
    TMS_LINEAR_KV_B, /* up from it: a folder's one matrix, or GGUF's two */
    TMS_LINEAR_K_B,
    TMS_LINEAR_V_B,
    TMS_LINEAR_ROUTER,
    TMS_LINEAR_SHARED_SWITCH, /* the shared expert's sigmoid gate: one row */
    TMS_LINEAR_SHARED_GATE,
    TMS_LINEAR_SHARED_UP,
    TMS_LINEAR_SHARED_DOWN,
    TMS_LINEAR_HEAD,
    TMS_LINEARS,
    TMS_LINEAR_EXPERT_GATE = TMS_LINEARS, /* of experts; taps are told with the expert's number */
    TMS_LINEAR_EXPERT_UP,
    TMS_LINEAR_EXPERT_DOWN,
};

/* The vectors of a block. */
enum tms_net_vector {
    TMS_VECTOR_ATTN_NORM,      /* before attention */
    TMS_VECTOR_POST_ATTN_NORM, /* of its result (Gemma 2, 3) */
    TMS_VECTOR_FFN_NORM,       /* before the feed-forward layer; of the head: the final norm */
    TMS_VECTOR_POST_FFN_NORM,
    TMS_VECTOR_Q_NORM, /* of each head */
    TMS_VECTOR_K_NORM,
    TMS_VECTOR_Q_A_NORM, /* of latents */
    TMS_VECTOR_KV_A_NORM,
    TMS_VECTOR_ROUTER_BIAS,
    TMS_VECTOR_BIAS, /* TMS_LINEARS of them */
    TMS_VECTORS = TMS_VECTOR_BIAS + TMS_LINEARS,
};

/* Sees x [n][stride], the input of a linear layer: `cols` columns; what lies behind them is of no meaning. Layers that
 * share their input (q, k, v; gate, up) are told one after the other. layer = n_layers for the head; expert = -1 but
 * for experts, which see only the tokens that are routed to them. */
struct tms_tap {
    uint64_t layer;
    enum tms_linear linear;
    int expert;
    const float *x;
    size_t stride, n;
    uint64_t cols;
};
typedef tms_status (*tms_tap_fn)(void *ctx, const struct tms_tap *tap, struct tms_error *err);

/* Sees whom a mixture's router chose: experts [n][used] with their weights, best first, and its scores before softmax
 * or sigmoid [n][stride]. */
struct tms_routing {
    uint64_t layer;
    size_t n, used;
    const int32_t *experts;
    const float *weights;
    const float *scores;
    size_t stride;
};
typedef void (*tms_routing_fn)(void *ctx, const struct tms_routing *routing);

struct tms_net_options {
    bool fast;           /* inputs of linear layers are rounded to 8 bits (linear.h) */
    bool bounded;        /* weights are read into memory by tms_net_hold, instead of mapped files */
    double int8_outlier; /* LLM.int8: activations from this magnitude on keep their precision, the others are rounded to
                          * 8 bits (6.0 is usual); 0: int8 weights are decoded like all others */
};

/* What a net is, for callers. */
struct tms_net_info {
    uint64_t n_layers, hidden, vocab, context;
    uint64_t n_kv_heads, key_dim, value_dim; /* of the cache */
    bool latent;                             /* of the cache: values are the beginnings of their keys */
    uint64_t n_experts, n_experts_used;      /* 0: no mixture */
    uint64_t turns_again; /* beyond so many positions all of them turn otherwise (longrope); UINT64_MAX: never */
    size_t
        stride; /* floats from one hidden state to the next: hidden, rounded up to a multiple of 16, or a little more */
};

/* Checks that all tensors are there in their shapes and can be decoded; norms and biases are read. The source and
 * the pool are borrowed until tms_net_close. TMS_EINPUT names file and tensor. */
tms_status tms_net_open(struct tms_net **out, const struct tms_source *source, struct tms_pool *pool,
                        const struct tms_net_options *options, struct tms_error *err);
void tms_net_close(struct tms_net *net);
void tms_net_describe(const struct tms_net *net, struct tms_net_info *info);
void tms_net_tap(struct tms_net *net, tms_tap_fn tap, void *ctx);
void tms_net_watch_routing(struct tms_net *net, tms_routing_fn routing, void *ctx);

/* A cache for passes of at most `pass` tokens. n_layers: all, or 1 to serve them in turn. */
static inline struct tms_cache_shape tms_net_cache(const struct tms_net_info *info, uint64_t n_layers, size_t n_seqs,
                                                   size_t capacity, size_t pass)
{
    return (struct tms_cache_shape){.n_layers = (size_t)n_layers,
                                    .n_seqs = n_seqs,
                                    .n_heads = (size_t)info->n_kv_heads,
                                    .capacity = capacity,
                                    .key_dim = (size_t)info->key_dim,
                                    .value_dim = (size_t)info->value_dim,
                                    .latent = info->latent,
                                    .pass = pass};
}

/* The name of a linear layer's weight (of all experts', for theirs): as folders have it, without ".weight" and with
 * "experts" for "experts.N", or as GGUF files have it. False if layer i (n_layers: the head) has no such weight. */
bool tms_net_linear_name(const struct tms_net *net, uint64_t i, enum tms_linear linear, bool gguf, char *out,
                         size_t size);
/* A hash of the model's numbers and of the values of its norms: the same for a folder and for every file that was made
 * from it, another one for models of other training. */
uint64_t tms_net_fingerprint(const struct tms_net *net);
#define TMS_FINGERPRINT 17 /* bytes of its text, 16 digits */
void tms_net_fingerprint_text(const struct tms_net *net, char out[TMS_FINGERPRINT]);

/* A matrix of a layer: part of a stored tensor where linear layers are fused or experts stacked. */
struct tms_net_matrix {
    const struct tms_tensor *tensor;
    enum tms_linear linear;
    int expert; /* -1: none */
    uint64_t first_row, rows, cols;
};
/* Matrix *at of a layer, those of one tensor after each other; *at becomes that of the next one. Begin with 0; false
 * when there are no more. */
bool tms_net_matrix(const struct tms_net *net, uint64_t layer, size_t *at, struct tms_net_matrix *out);
/* Decodes matrix `at` (as it came from tms_net_matrix) of a held layer to out [rows][cols]. */
void tms_net_matrix_values(const struct tms_net *net, uint64_t layer, size_t at, float *out);
/* From now on, until it is dropped, a held layer computes with `rows`, stored as `made` says (a plain type), instead of
 * matrix `at`. Both are borrowed. */
void tms_net_replace(struct tms_net *net, uint64_t layer, size_t at, const struct tms_tensor *made,
                     const uint8_t *rows);

/* A norm or bias of a layer. */
struct tms_net_values {
    const struct tms_tensor *tensor; /* where it is stored */
    float *values;                   /* what the net computes with; may be changed */
    bool plus_one;                   /* the stored values are less by 1 */
};
/* False if the layer has no such vector. */
bool tms_net_vector(const struct tms_net *net, uint64_t layer, enum tms_net_vector which, struct tms_net_values *out);

/* Bytes of stored weights of layer i; i = n_layers: of the head (output and final norm). */
uint64_t tms_net_layer_bytes(const struct tms_net *net, uint64_t i);
/* Bytes of working memory for passes over at most n_tokens tokens, logits of at most n_logits of them not counted. */
uint64_t tms_net_working_bytes(const struct tms_net *net, size_t n_tokens);
/* Bounded nets: from now on the weights of layers [first, first + n) are in memory, and no others; layer n_layers is
 * the head. Nothing to do for mapped ones. */
tms_status tms_net_hold(struct tms_net *net, uint64_t first, uint64_t n, struct tms_error *err);

/* Where the tokens of a pass stand: n_seqs sequences of n tokens each, the first at position `start` (what the cache
 * holds already). Hidden states are [n_seqs * n][stride]. */
struct tms_batch {
    size_t n_seqs, n;
    size_t start;
    size_t length; /* positions that there are in the end, for rotations that depend on it; 0: start + n */
};

/* hidden[i] = embedding of ids[i]. TMS_EINPUT for ids outside the vocabulary. The embedding is read row by row from
 * the file, whatever is held. */
tms_status tms_net_embed(struct tms_net *net, const int32_t *ids, size_t n, float *hidden, struct tms_error *err);
/* Runs layers [first, first + n_layers) on hidden, in place. Keys and values go into the cache at positions start …
 * start + n - 1 of each sequence. A cache with one layer serves all layers in turn (whole passes: start is 0). */
tms_status tms_net_layers(struct tms_net *net, uint64_t first, uint64_t n_layers, const struct tms_batch *batch,
                          struct tms_cache *cache, float *hidden, struct tms_error *err);
/* Final norm and output layer of n hidden states (left as they are): logits [n][vocab]. */
tms_status tms_net_logits(struct tms_net *net, const float *hidden, size_t n, float *logits, struct tms_error *err);
/* Final norm only: out [n][stride]; what Hugging Face calls the last hidden state. */
tms_status tms_net_final_norm(struct tms_net *net, const float *hidden, size_t n, float *out, struct tms_error *err);

#endif

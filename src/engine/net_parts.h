/* What the files of the forward pass share: net.c holds the weights, forward.c walks the layers, experts.c and latent.c
 * are the two kinds of layers that need more than matrices and attention. */
#ifndef TMS_ENGINE_NET_PARTS_H
#define TMS_ENGINE_NET_PARTS_H

#include "engine/kernels/dots.h"
#include "engine/linear.h"
#include "engine/net.h"
#include "engine/rope.h"
#include "engine/weight.h"

/* Tokens that go through a layer together, at most; fewer where a token needs much room. */
#define TMS_NET_TOKENS 2048u
#define TMS_NET_BYTES  (256u << 20)

/* The head is a layer, too: TMS_LINEAR_HEAD and TMS_VECTOR_FFN_NORM. */
struct tms_net_layer {
    struct tms_weight linear[TMS_LINEARS];           /* tensor NULL where there is none */
    struct tms_weight *experts[3];                   /* gate, up, down: [experts] each, or NULL */
    struct tms_net_values vectors_from[TMS_VECTORS]; /* where they are stored */
    float *vectors[TMS_VECTORS];                     /* owned; NULL where there is none */
    size_t window;                                   /* of attention; 0: none */
    bool mixture;                                    /* has experts */
    uint8_t *held;                                   /* bounded nets: the bytes of all its weights, or NULL */
};

struct tms_net_map {
    void *base;
    size_t size;
};

/* Rotation of the positions of a pass. */
struct tms_net_angles {
    float *frequencies, *cosines, *sines; /* [half]; [room][half] */
    size_t room;
};

struct tms_net {
    const struct tms_source *source;
    struct tms_pool *pool;
    struct tms_net_options options;
    struct tms_config config;
    enum tms_rope_pairs pairs;
    float *divisors; /* of the rotary frequencies [rope_dim / 2], or NULL */
    struct tms_weight embedding;
    struct tms_net_layer *layers; /* [n_layers + 1] */
    struct tms_net_map *maps;     /* [n_files]; NULL for bounded nets */
    tms_tap_fn tap;
    void *tap_ctx;
    tms_routing_fn routing;
    void *routing_ctx;

    /* Working memory of forward.c: room for n_tokens, grown when needed. */
    size_t n_tokens;
    float *memory;
    float *x, *y;                    /* [tokens][hidden]: input of a linear layer, result of a part of a block */
    float *q, *k, *v, *attended;     /* [tokens][heads] */
    float *gate, *up;                /* [tokens][ffn], also of shared experts */
    float *absorbed, *weighted;      /* latent attention: queries for latents, weighted latents */
    float *scores;                   /* [tokens][experts] */
    float *gathered, *scattered;     /* [tokens * used][hidden] */
    float *expert_gate, *expert_up;  /* [tokens * used][expert ffn] */
    float *expert_weights;           /* [tokens][used] */
    int32_t *chosen;                 /* [tokens][used]: experts */
    size_t *places;                  /* [tokens * used]: where a token's row for its i-th expert went */
    size_t *firsts;                  /* [experts + 1]: where an expert's rows begin */
    struct tms_linear_fast fast;     /* of the fast mode */
    struct tms_linear_job *jobs;     /* [2 * experts] */
    float *scratch;                  /* of the workers of linear.c, then of attention.c */
    struct tms_net_angles angles[2]; /* of all layers; of those with a window, if they turn otherwise (Gemma 3) */
};

/* Floats from row to row in working memory. */
struct tms_net_widths {
    size_t hidden, q, k, v, o, ffn, absorbed, weighted, scores, expert_ffn;
    size_t absorbed_head, weighted_head; /* of one head */
};
struct tms_net_widths tms_net_widths(const struct tms_config *config);

static inline size_t tms_net_stride(const struct tms_net *net)
{
    return tms_row_stride((size_t)net->config.hidden);
}

/* For tms_linear_run: NULL unless the net is a fast one. */
static inline struct tms_linear_fast *tms_net_fast(struct tms_net *net)
{
    return net->options.fast ? &net->fast : NULL;
}

/* A pass through one layer: n tokens of each of n_seqs sequences, from first_seq of the cache on; positions begin at
 * start. Rows of working memory are sequence after sequence. */
struct tms_pass {
    struct tms_net *net;
    const struct tms_net_layer *layer;
    uint64_t layer_number;
    struct tms_cache *cache;
    size_t cache_layer, first_seq, n_seqs, n, start;
    const float *cosines, *sines; /* of position start */
    float *hidden;                /* of the first token */
    size_t seq_tokens;            /* tokens from one sequence to the next in `hidden` */
};

/* Linear layers of one input: which, and where they write to. A tap is told. */
struct tms_product {
    enum tms_linear linear;
    float *y;
    size_t y_stride;
};
tms_status tms_pass_multiply(const struct tms_pass *p, const float *x, size_t x_stride,
                             const struct tms_product *products, size_t n_products, struct tms_error *err);
/* Tells the tap of a product, if there is one. */
tms_status tms_pass_tell(const struct tms_pass *p, enum tms_linear linear, int expert, const float *x, size_t stride,
                         size_t n, uint64_t cols, struct tms_error *err);
/* Puts a token's key and value into the cache. */
void tms_pass_store(const struct tms_pass *p, size_t row, size_t kv_head, float *key, float *value);
/* Runs fn for each token of the pass, by all threads. */
typedef void (*tms_row_fn)(const struct tms_pass *p, size_t row);
tms_status tms_pass_rows(const struct tms_pass *p, tms_row_fn fn, struct tms_error *err);
/* up = act(gate) * up, n values of one token, zeros behind them up to a multiple of 16. */
void tms_pass_activate(const struct tms_pass *p, const float *gate, float *up, size_t n);

/* experts.c: y = the mixture's result for x. */
tms_status tms_experts_run(const struct tms_pass *p, struct tms_error *err);

/* latent.c: attended = the values of all heads, from x; keys and values go into the cache. */
tms_status tms_latent_attend(const struct tms_pass *p, struct tms_error *err);
/* forward.c: attention over what the cache holds. */
tms_status tms_pass_attention(const struct tms_pass *p, const float *q, size_t q_stride, size_t q_head, float *out,
                              size_t out_stride, size_t out_head, struct tms_error *err);

/* Frees what forward.c holds. */
void tms_net_free_memory(struct tms_net *net);

#endif

/* What net.c (weights) and forward.c (arithmetic) share. */
#ifndef TMS_ENGINE_NET_PARTS_H
#define TMS_ENGINE_NET_PARTS_H

#include "engine/kernels/dots.h"
#include "engine/net.h"
#include "engine/rope.h"
#include "engine/weight.h"

/* Tokens that go through a layer together; longer passes are cut. */
#define TMS_NET_TOKENS 2048u

/* The vectors of a block. */
enum tms_net_vector {
    TMS_VECTOR_ATTN_NORM,
    TMS_VECTOR_FFN_NORM,
    TMS_VECTOR_Q_NORM,
    TMS_VECTOR_K_NORM,
    TMS_VECTOR_BIAS, /* TMS_LINEARS of them */
    TMS_VECTORS = TMS_VECTOR_BIAS + TMS_LINEARS,
};

/* The head is a layer, too: TMS_LINEAR_HEAD, and the final norm as TMS_VECTOR_FFN_NORM. */
struct tms_net_layer {
    struct tms_weight linear[TMS_LINEARS]; /* tensor NULL where there is none */
    float *vectors[TMS_VECTORS];           /* owned; NULL where there is none */
    size_t window;                         /* of attention; 0: none */
    uint8_t *held;                         /* bounded nets: the bytes of all its weights, or NULL */
};

struct tms_net_map {
    void *base;
    size_t size;
};

struct tms_net {
    const struct tms_source *source;
    struct tms_pool *pool;
    struct tms_net_options options;
    struct tms_config config;
    enum tms_rope_pairs pairs;
    float *divisors; /* of the rotary frequencies [head_dim / 2], or NULL */
    struct tms_weight embedding;
    struct tms_net_layer *layers; /* [n_layers + 1] */
    struct tms_net_map *maps;     /* [n_files]; NULL for bounded nets */
    tms_tap_fn tap;
    void *tap_ctx;

    /* Working memory of forward.c: room for n_tokens, grown when needed. */
    size_t n_tokens;
    float *memory;
    float *x, *y, *q, *k, *v, *attended, *gate, *up; /* parts of memory */
    float *scratch;                                  /* of the workers of linear.c, then of attention.c */
    float *frequencies, *cosines, *sines;            /* [head_dim / 2]; [angles][head_dim / 2] */
    size_t n_angles;                                 /* room of cosines and sines */
};

static inline size_t tms_net_stride(const struct tms_net *net)
{
    return tms_row_stride((size_t)net->config.hidden);
}

/* Frees what forward.c holds. */
void tms_net_free_memory(struct tms_net *net);

#endif

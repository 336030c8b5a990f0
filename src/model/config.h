/* config.json of a Hugging Face folder: the numbers that describe a decoder.
 *
 * Both forms are read: the one of published checkpoints (rope_theta, rope_scaling, torch_dtype) and the one that
 * transformers 5 writes (rope_parameters, dtype). */
#ifndef TMS_MODEL_CONFIG_H
#define TMS_MODEL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include <tamis/codec.h>

#include "base/error.h"

#define TMS_MAX_LAYERS  8192u
#define TMS_MAX_EXPERTS 1024u

enum tms_rope_kind {
    TMS_ROPE_DEFAULT,
    TMS_ROPE_LINEAR,
    TMS_ROPE_DYNAMIC,
    TMS_ROPE_YARN,
    TMS_ROPE_LLAMA3,
    TMS_ROPE_LONGROPE,
    TMS_ROPE_OTHER
};

#define TMS_MAX_LONGROPE 256u /* factors of longrope: half a head */

struct tms_rope {
    enum tms_rope_kind kind;
    char name[32]; /* as config.json spells it */
    double theta;  /* base of the frequencies */
    double factor; /* 0 where a number is absent, here and below */
    double low_freq_factor, high_freq_factor;
    double attention_factor, beta_fast, beta_slow, ext_factor;
    double mscale, mscale_all_dim; /* DeepSeek's YaRN */
    double local_theta; /* Gemma 3: base of the layers with a window, which are not scaled; 0: as the others */
    uint64_t original_context;
    uint64_t n_factors; /* longrope: divisors of the frequencies within the original context, and beyond it */
    float short_factors[TMS_MAX_LONGROPE], long_factors[TMS_MAX_LONGROPE];
};

enum tms_activation { TMS_SILU, TMS_GELU_TANH };

/* A mixture of experts in place of the feed-forward layer. n = 0: there is none. */
struct tms_experts {
    uint64_t n, used;               /* experts, and how many of them a token gets */
    uint64_t ffn;                   /* of one expert */
    uint64_t shared;                /* feed-forward width of all shared experts together; 0: none */
    uint64_t n_dense;               /* the first layers have none */
    uint64_t step;                  /* every step-th layer has one (Qwen2-MoE's decoder_sparse_step) */
    bool shared_gate;               /* the shared expert has a sigmoid gate */
    bool sigmoid;                   /* the router's scores: else softmax */
    bool bias;                      /* is added to the scores where experts are chosen, not where they are weighted */
    bool normalize;                 /* weights of the chosen are divided by their sum */
    double scale;                   /* of the weights, at last */
    uint64_t n_groups, groups_used; /* the chosen come from so many groups; 1: all */
};

/* Multi-head latent attention (DeepSeek). kv_rank = 0: there is none. */
struct tms_latent {
    uint64_t q_rank;            /* 0: queries come from one matrix */
    uint64_t kv_rank;           /* of the latent that keys and values are made of */
    uint64_t nope, rope, value; /* values of a head: not rotated, rotated (keys share them), of v */
};

struct tms_config {
    char model_type[64];
    char class_name[64]; /* architectures[0], "" if absent */
    uint64_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, vocab, context;
    bool has_head_dim; /* head_dim stands in the file; else it is hidden / n_heads */
    enum tms_activation activation;
    bool norm_plus_one;              /* Gemma: norms multiply by 1 + w (in GGUF files w is 1 + w already) */
    bool scaled_embedding;           /* Gemma: embeddings are multiplied with sqrt(hidden) */
    double query_scalar;             /* scores are multiplied with its ^-1/2; 0: head_dim */
    double attention_cap, logit_cap; /* x = cap tanh(x / cap); 0: none */
    struct tms_experts experts;
    struct tms_latent latent;
    bool has_shape; /* the numbers above are all there (a decoder that tamis can lay out) */
    double rms_eps;
    struct tms_rope rope;
    bool tied, attention_bias, mlp_bias;
    uint64_t window;                             /* sliding window of attention; 0: none */
    uint64_t window_layers[TMS_MAX_LAYERS / 64]; /* bit per layer: those that have it */
    enum tms_type dtype;                         /* declared type of the weights; TMS_TYPE_NONE if absent */
    char quant_method[32]; /* quantization_config.quant_method, "" if the weights are not quantized */
    uint64_t fp8_block[2]; /* weight_block_size: rows, columns; 0 if absent */
};

/* Reads a parsed config.json. Numbers that are there must make sense (TMS_EINPUT with `path`, key and value); what
 * is absent is left 0 and has_shape says whether enough is there. Multimodal configs are read from text_config. */
tms_status tms_config_read(struct tms_config *out, const json_t *json, const char *path, struct tms_error *err);

/* Positions that a layer's attention sees, its own included; 0: all before it. */
uint64_t tms_config_window(const struct tms_config *config, uint64_t layer);
void tms_config_set_window(struct tms_config *config, uint64_t layer);

/* True if numbers of experts do not contradict each other. */
bool tms_experts_fit(const struct tms_experts *experts);

/* Values of a head that rotate. */
uint64_t tms_config_rope_dim(const struct tms_config *config);
/* True if the layer has experts. */
bool tms_config_has_experts(const struct tms_config *config, uint64_t layer);

/* "bfloat16" and so on, as torch names a type; NULL for types torch has no name for. */
const char *tms_torch_dtype_name(enum tms_type type);

#endif

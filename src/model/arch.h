/* Architectures: what the tensors of a checkpoint are called, mean, and look like, in Hugging Face folders and in
 * GGUF files. Adding one is a row in arch.c (and, for tensors of a new kind, rows in its tensor table). */
#ifndef TMS_MODEL_ARCH_H
#define TMS_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

/* What a conversion to GGUF does to the rows of a tensor. */
enum tms_transform {
    TMS_AS_IS,
    TMS_PERMUTE_Q, /* per head, row 2i <- i and 2i+1 <- i + head_dim/2: rotary halves to neighbours (n_heads) */
    TMS_PERMUTE_K, /* the same with n_kv_heads */
    TMS_PLUS_ONE,  /* Gemma's norms: 1 is added */
    TMS_STACK,     /* one tensor for each expert ('%' in its name) becomes a part of one of three dimensions */
    TMS_SPLIT_KV,  /* DeepSeek's kv_b: keys, transposed for each head, and values become two tensors */
};

/* Symbols for sizes, so that the table can say shapes. */
enum tms_dim {
    TMS_D_NONE,
    TMS_D_VOCAB,
    TMS_D_HIDDEN,
    TMS_D_FFN,
    TMS_D_Q,
    TMS_D_KV,
    TMS_D_HEAD,
    TMS_D_QKV,     /* all heads of queries, keys and values */
    TMS_D_GATE_UP, /* twice the feed-forward width */
    TMS_D_ONE,
    TMS_D_EXPERTS,
    TMS_D_EXPERT_FFN,
    TMS_D_SHARED_FFN,
    TMS_D_Q_RANK,
    TMS_D_KV_RANK,
    TMS_D_LATENT,   /* kv_rank + rope */
    TMS_D_KV_HEADS, /* heads * (nope + value) */
    TMS_D_O,        /* heads * value */
};

/* When a checkpoint has a tensor. */
enum tms_when {
    TMS_ALWAYS,
    TMS_UNTIED,
    TMS_QKV_BIAS,
    TMS_O_BIAS,
    TMS_MLP_BIAS,
    TMS_QK_NORM,
    TMS_DENSE,   /* layers without experts */
    TMS_MIXTURE, /* layers with experts, and here and below: */
    TMS_SHARED,
    TMS_SHARED_GATE,
    TMS_ROUTER_BIAS,
    TMS_Q_WHOLE, /* latent attention without a rank of queries */
    TMS_Q_LOW,   /* with one */
};

/* Architectures as bits, so that a row can say whose it is. */
enum tms_arch_bit {
    TMS_A_LLAMA = 1,
    TMS_A_MIXTRAL = 2,
    TMS_A_QWEN2_MOE = 4,
    TMS_A_QWEN3_MOE = 8,
    TMS_A_GEMMA = 16,
    TMS_A_GEMMA2 = 32, /* and 3 */
    TMS_A_PHI3 = 64,
    TMS_A_DEEPSEEK = 128,
};

struct tms_arch_tensor {
    const char *hf;        /* '#' stands for the layer number, '%' for that of an expert */
    const char *gguf;      /* NULL: no tensor of its own (TMS_SPLIT_KV) */
    enum tms_dim shape[2]; /* rows, columns; one dimension if the second is TMS_D_NONE */
    enum tms_transform transform;
    enum tms_when when;
    unsigned archs; /* those that have it */
};

struct tms_arch {
    const char *class_name; /* config.json: architectures[0] */
    const char *model_type; /* config.json: model_type */
    const char *gguf;       /* general.architecture */
    bool permutes;          /* TMS_PERMUTE_* apply */
    bool rope_dimension;    /* writes vocab_size and rope.dimension_count */
    bool qkv_bias;          /* q, k, v have biases whatever the config says */
    bool qk_norm;
    unsigned bit; /* enum tms_arch_bit */
};

/* By config.json's class, else its model_type; NULL if tamis does not know it. */
const struct tms_arch *tms_arch_find(const struct tms_config *config);
/* By general.architecture. Where several rows share one, what else the keys say decides: whether there are experts
 * (Mixtral), and whether their router has sigmoids (DeepSeek-V3); else it is the first. */
const struct tms_arch *tms_arch_find_gguf(const char *name, bool has_experts, bool has_sigmoid);
/* "LlamaForCausalLM, MistralForCausalLM, …" for messages. */
const char *tms_arch_known(void);

/* The row that explains a tensor's Hugging Face name (or its GGUF name), the layer number in it and that of the expert
 * (-1 if there is none); NULL if there is no row. */
const struct tms_arch_tensor *tms_arch_explain(const struct tms_arch *arch, const char *hf_name, int *layer,
                                               int *expert);
const struct tms_arch_tensor *tms_arch_explain_gguf(const struct tms_arch *arch, const char *gguf_name, int *layer);
/* The layer whose part a tensor is by its name, known or not; -1: none. */
int tms_arch_layer_of(const char *name);
/* Writes a name with '#' and '%' replaced. */
void tms_arch_name(char *out, size_t size, const char *pattern, int layer, int expert);

/* All tensors that a checkpoint of this architecture and config has, in the order of a module's parameters: embedding,
 * layer after layer, what follows them. Begin with {0}; false when there are no more. */
struct tms_arch_step {
    const struct tms_arch_tensor *row;
    int layer, expert; /* -1 where there is none */
    size_t at;         /* the walk's own */
};
bool tms_arch_next(struct tms_arch_step *step, const struct tms_arch *arch, const struct tms_config *config);
/* True if a layer (-1: not of a layer) has the tensor. */
bool tms_arch_has(const struct tms_arch *arch, const struct tms_config *config, const struct tms_arch_tensor *row,
                  int layer);
/* Expected shape (rows, columns), 1 or 2 dimensions; of one expert. */
uint32_t tms_arch_shape(const struct tms_config *config, const struct tms_arch_tensor *row, uint64_t shape[2]);

/* True for names of a layer that the model does not run: DeepSeek-V3's for the prediction of several tokens, behind the
 * others. Conversions and comparisons leave them out. */
bool tms_arch_is_spare(const struct tms_arch *arch, const struct tms_config *config, const char *hf_name);

/* GGUF's two tensors for what TMS_SPLIT_KV splits: k_b [heads, rank, nope] and v_b [heads, value, rank]. */
enum tms_kv_part { TMS_KV_PART_NONE, TMS_KV_PART_KEYS, TMS_KV_PART_VALUES };
enum tms_kv_part tms_arch_kv_part(const struct tms_arch *arch, const char *gguf_name, int *layer);
void tms_arch_kv_name(char *out, size_t size, enum tms_kv_part part, int layer);
void tms_arch_kv_shape(const struct tms_config *config, enum tms_kv_part part, uint64_t shape[3]);
/* The row that is split; NULL if the architecture has none. */
const struct tms_arch_tensor *tms_arch_kv_row(const struct tms_arch *arch);

/* Tensors that belong to no weight and are skipped: rotary tables and masks that old checkpoints carry. */
bool tms_arch_ignores(const char *hf_name);

#endif

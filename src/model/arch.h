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
};

/* Symbols for sizes, so that the table can say shapes. */
enum tms_dim { TMS_D_NONE, TMS_D_VOCAB, TMS_D_HIDDEN, TMS_D_FFN, TMS_D_Q, TMS_D_KV, TMS_D_HEAD };

/* When a checkpoint has a tensor. */
enum tms_when { TMS_ALWAYS, TMS_UNTIED, TMS_QKV_BIAS, TMS_O_BIAS, TMS_MLP_BIAS, TMS_QK_NORM };

struct tms_arch_tensor {
    const char *hf; /* '#' stands for the layer number */
    const char *gguf;
    enum tms_dim shape[2]; /* rows, columns; one dimension if the second is TMS_D_NONE */
    enum tms_transform transform;
    enum tms_when when;
};

struct tms_arch {
    const char *class_name; /* config.json: architectures[0] */
    const char *model_type; /* config.json: model_type */
    const char *gguf;       /* general.architecture */
    bool permutes;          /* transforms apply */
    bool rope_dimension;    /* writes vocab_size and rope.dimension_count */
    bool qkv_bias;          /* q, k, v have biases whatever the config says */
    bool qk_norm;
};

/* By config.json's class, else its model_type; NULL if tamis does not know it. */
const struct tms_arch *tms_arch_find(const struct tms_config *config);
/* By general.architecture. Several rows share one; the first is returned. */
const struct tms_arch *tms_arch_find_gguf(const char *name);
/* "LlamaForCausalLM, MistralForCausalLM, …" for messages. */
const char *tms_arch_known(void);

/* The row that explains a tensor's Hugging Face name (or its GGUF name) and the layer number in it (-1 if none);
 * NULL if there is none. */
const struct tms_arch_tensor *tms_arch_explain(const char *hf_name, int *layer);
const struct tms_arch_tensor *tms_arch_explain_gguf(const char *gguf_name, int *layer);
/* i = 0 … until NULL: all rows, in the order of a module's parameters; those of layers name '#'. */
const struct tms_arch_tensor *tms_arch_tensor_at(size_t i);
/* Writes a row's name with '#' replaced by the layer. */
void tms_arch_name(char *out, size_t size, const char *pattern, int layer);
bool tms_arch_per_layer(const struct tms_arch_tensor *row);
/* True if a checkpoint of this architecture and config has the tensor. */
bool tms_arch_has(const struct tms_arch *arch, const struct tms_config *config, const struct tms_arch_tensor *row);
/* Expected shape (rows, columns), 1 or 2 dimensions. */
uint32_t tms_arch_shape(const struct tms_config *config, const struct tms_arch_tensor *row, uint64_t shape[2]);

/* Tensors that belong to no weight and are skipped: rotary tables and masks that old checkpoints carry. */
bool tms_arch_ignores(const char *hf_name);

#endif

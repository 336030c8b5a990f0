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

#define TMS_MAX_LAYERS 8192u

enum tms_rope_kind {
    TMS_ROPE_DEFAULT,
    TMS_ROPE_LINEAR,
    TMS_ROPE_DYNAMIC,
    TMS_ROPE_YARN,
    TMS_ROPE_LLAMA3,
    TMS_ROPE_OTHER
};

struct tms_rope {
    enum tms_rope_kind kind;
    char name[32]; /* as config.json spells it */
    double theta;  /* base of the frequencies */
    double factor; /* 0 where a number is absent, here and below */
    double low_freq_factor, high_freq_factor;
    double attention_factor, beta_fast, beta_slow, ext_factor;
    uint64_t original_context;
};

struct tms_config {
    char model_type[64];
    char class_name[64]; /* architectures[0], "" if absent */
    uint64_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, vocab, context;
    bool has_head_dim; /* head_dim stands in the file; else it is hidden / n_heads */
    bool has_shape;    /* the numbers above are all there (a decoder that tamis can lay out) */
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

/* "bfloat16" and so on, as torch names a type; NULL for types torch has no name for. */
const char *tms_torch_dtype_name(enum tms_type type);

#endif

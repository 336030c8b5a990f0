/* See arch.h. Names: transformers' modules on one side, llama.cpp's gguf-py/gguf/tensor_mapping.py on the other. */
#include "model/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tms_arch archs[] = {
    /* class              model_type  gguf     permutes rope_dim qkv_bias qk_norm */
    {"LlamaForCausalLM", "llama", "llama", true, true, false, false},
    {"MistralForCausalLM", "mistral", "llama", true, true, false, false},
    {"Qwen2ForCausalLM", "qwen2", "qwen2", false, false, true, false},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", false, false, false, true},
};

static const char known[] = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM";

#define LAYER "model.layers.#."
static const struct tms_arch_tensor tensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight", {TMS_D_VOCAB, TMS_D_HIDDEN}, TMS_AS_IS, TMS_ALWAYS},
    {LAYER "self_attn.q_proj.weight", "blk.#.attn_q.weight", {TMS_D_Q, TMS_D_HIDDEN}, TMS_PERMUTE_Q, TMS_ALWAYS},
    {LAYER "self_attn.q_proj.bias", "blk.#.attn_q.bias", {TMS_D_Q, TMS_D_NONE}, TMS_PERMUTE_Q, TMS_QKV_BIAS},
    {LAYER "self_attn.k_proj.weight", "blk.#.attn_k.weight", {TMS_D_KV, TMS_D_HIDDEN}, TMS_PERMUTE_K, TMS_ALWAYS},
    {LAYER "self_attn.k_proj.bias", "blk.#.attn_k.bias", {TMS_D_KV, TMS_D_NONE}, TMS_PERMUTE_K, TMS_QKV_BIAS},
    {LAYER "self_attn.v_proj.weight", "blk.#.attn_v.weight", {TMS_D_KV, TMS_D_HIDDEN}, TMS_AS_IS, TMS_ALWAYS},
    {LAYER "self_attn.v_proj.bias", "blk.#.attn_v.bias", {TMS_D_KV, TMS_D_NONE}, TMS_AS_IS, TMS_QKV_BIAS},
    {LAYER "self_attn.o_proj.weight", "blk.#.attn_output.weight", {TMS_D_HIDDEN, TMS_D_Q}, TMS_AS_IS, TMS_ALWAYS},
    {LAYER "self_attn.o_proj.bias", "blk.#.attn_output.bias", {TMS_D_HIDDEN, TMS_D_NONE}, TMS_AS_IS, TMS_O_BIAS},
    {LAYER "self_attn.q_norm.weight", "blk.#.attn_q_norm.weight", {TMS_D_HEAD, TMS_D_NONE}, TMS_AS_IS, TMS_QK_NORM},
    {LAYER "self_attn.k_norm.weight", "blk.#.attn_k_norm.weight", {TMS_D_HEAD, TMS_D_NONE}, TMS_AS_IS, TMS_QK_NORM},
    {LAYER "mlp.gate_proj.weight", "blk.#.ffn_gate.weight", {TMS_D_FFN, TMS_D_HIDDEN}, TMS_AS_IS, TMS_ALWAYS},
    {LAYER "mlp.gate_proj.bias", "blk.#.ffn_gate.bias", {TMS_D_FFN, TMS_D_NONE}, TMS_AS_IS, TMS_MLP_BIAS},
    {LAYER "mlp.up_proj.weight", "blk.#.ffn_up.weight", {TMS_D_FFN, TMS_D_HIDDEN}, TMS_AS_IS, TMS_ALWAYS},
    {LAYER "mlp.up_proj.bias", "blk.#.ffn_up.bias", {TMS_D_FFN, TMS_D_NONE}, TMS_AS_IS, TMS_MLP_BIAS},
    {LAYER "mlp.down_proj.weight", "blk.#.ffn_down.weight", {TMS_D_HIDDEN, TMS_D_FFN}, TMS_AS_IS, TMS_ALWAYS},
    {LAYER "mlp.down_proj.bias", "blk.#.ffn_down.bias", {TMS_D_HIDDEN, TMS_D_NONE}, TMS_AS_IS, TMS_MLP_BIAS},
    {LAYER "input_layernorm.weight", "blk.#.attn_norm.weight", {TMS_D_HIDDEN, TMS_D_NONE}, TMS_AS_IS, TMS_ALWAYS},
    {LAYER "post_attention_layernorm.weight",
     "blk.#.ffn_norm.weight",
     {TMS_D_HIDDEN, TMS_D_NONE},
     TMS_AS_IS,
     TMS_ALWAYS},
    {"model.norm.weight", "output_norm.weight", {TMS_D_HIDDEN, TMS_D_NONE}, TMS_AS_IS, TMS_ALWAYS},
    {"lm_head.weight", "output.weight", {TMS_D_VOCAB, TMS_D_HIDDEN}, TMS_AS_IS, TMS_UNTIED},
};

const struct tms_arch *tms_arch_find(const struct tms_config *config)
{
    size_t n = sizeof archs / sizeof *archs;
    for (size_t i = 0; i < n; i++)
        if (strcmp(config->class_name, archs[i].class_name) == 0) return &archs[i];
    for (size_t i = 0; i < n && !config->class_name[0]; i++)
        if (strcmp(config->model_type, archs[i].model_type) == 0) return &archs[i];
    return NULL;
}

const struct tms_arch *tms_arch_find_gguf(const char *name)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strcmp(name, archs[i].gguf) == 0) return &archs[i];
    return NULL;
}

const char *tms_arch_known(void)
{
    return known;
}

/* Matches `name` against a pattern in which '#' is a plain decimal number. */
static bool matches(const char *pattern, const char *name, int *layer)
{
    *layer = -1;
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*name++ != *pattern) return false;
            continue;
        }
        if (*name < '0' || *name > '9' || (*name == '0' && name[1] >= '0' && name[1] <= '9')) return false;
        char *end;
        long n = strtol(name, &end, 10);
        if (n > 1 << 20) return false;
        *layer = (int)n;
        name = end;
    }
    return *name == '\0';
}

const struct tms_arch_tensor *tms_arch_explain(const char *hf_name, int *layer)
{
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (matches(tensors[i].hf, hf_name, layer)) return &tensors[i];
    return NULL;
}

const struct tms_arch_tensor *tms_arch_explain_gguf(const char *gguf_name, int *layer)
{
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (matches(tensors[i].gguf, gguf_name, layer)) return &tensors[i];
    return NULL;
}

const struct tms_arch_tensor *tms_arch_tensor_at(size_t i)
{
    return i < sizeof tensors / sizeof *tensors ? &tensors[i] : NULL;
}

void tms_arch_name(char *out, size_t size, const char *pattern, int layer)
{
    const char *hash = strchr(pattern, '#');
    if (hash)
        snprintf(out, size, "%.*s%d%s", (int)(hash - pattern), pattern, layer, hash + 1);
    else
        snprintf(out, size, "%s", pattern);
}

bool tms_arch_per_layer(const struct tms_arch_tensor *row)
{
    return strchr(row->hf, '#') != NULL;
}

bool tms_arch_has(const struct tms_arch *arch, const struct tms_config *config, const struct tms_arch_tensor *row)
{
    switch (row->when) {
    case TMS_ALWAYS: return true;
    case TMS_UNTIED: return !config->tied;
    case TMS_QKV_BIAS: return arch->qkv_bias || config->attention_bias;
    case TMS_O_BIAS: return config->attention_bias && !arch->qkv_bias;
    case TMS_MLP_BIAS: return config->mlp_bias;
    case TMS_QK_NORM: return arch->qk_norm;
    }
    return false;
}

static uint64_t dim_size(const struct tms_config *config, enum tms_dim dim)
{
    switch (dim) {
    case TMS_D_NONE: return 1;
    case TMS_D_VOCAB: return config->vocab;
    case TMS_D_HIDDEN: return config->hidden;
    case TMS_D_FFN: return config->ffn;
    case TMS_D_Q: return config->n_heads * config->head_dim;
    case TMS_D_KV: return config->n_kv_heads * config->head_dim;
    case TMS_D_HEAD: return config->head_dim;
    }
    return 0;
}

uint32_t tms_arch_shape(const struct tms_config *config, const struct tms_arch_tensor *row, uint64_t shape[2])
{
    shape[0] = dim_size(config, row->shape[0]);
    shape[1] = dim_size(config, row->shape[1]);
    return row->shape[1] == TMS_D_NONE ? 1 : 2;
}

bool tms_arch_ignores(const char *hf_name)
{
    static const char *const endings[] = {".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias"};
    size_t n = strlen(hf_name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);
        if (n >= m && strcmp(hf_name + n - m, endings[i]) == 0) return true;
    }
    return false;
}

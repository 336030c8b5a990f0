/* See arch.h. Names: transformers' modules on one side, llama.cpp's gguf-py/gguf/tensor_mapping.py on the other. */
#include "model/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tms_arch archs[] = {
    /* class                 model_type     gguf       permutes rope_dim qkv_bias qk_norm */
    {"LlamaForCausalLM", "llama", "llama", true, true, false, false, TMS_A_LLAMA},
    {"MistralForCausalLM", "mistral", "llama", true, true, false, false, TMS_A_LLAMA},
    {"MixtralForCausalLM", "mixtral", "llama", true, true, false, false, TMS_A_MIXTRAL},
    {"Qwen2ForCausalLM", "qwen2", "qwen2", false, false, true, false, TMS_A_LLAMA},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", false, false, false, true, TMS_A_LLAMA},
    {"Qwen2MoeForCausalLM", "qwen2_moe", "qwen2moe", false, false, true, false, TMS_A_QWEN2_MOE},
    {"Qwen3MoeForCausalLM", "qwen3_moe", "qwen3moe", false, false, false, true, TMS_A_QWEN3_MOE},
    {"GemmaForCausalLM", "gemma", "gemma", false, false, false, false, TMS_A_GEMMA},
    {"Gemma2ForCausalLM", "gemma2", "gemma2", false, false, false, false, TMS_A_GEMMA2},
    {"Gemma3ForCausalLM", "gemma3_text", "gemma3", false, false, false, true, TMS_A_GEMMA2},
    {"Phi3ForCausalLM", "phi3", "phi3", false, false, false, false, TMS_A_PHI3},
    {"DeepseekV2ForCausalLM", "deepseek_v2", "deepseek2", false, true, false, false, TMS_A_DEEPSEEK},
    {"DeepseekV3ForCausalLM", "deepseek_v3", "deepseek2", false, true, false, false, TMS_A_DEEPSEEK},
};

static const char known[] =
    "LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, "
    "Qwen2MoeForCausalLM, Qwen3MoeForCausalLM, GemmaForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM, "
    "Phi3ForCausalLM, DeepseekV2ForCausalLM, DeepseekV3ForCausalLM";

#define LAYER    "model.layers.#."
#define ATTN     LAYER "self_attn."
#define MLP      LAYER "mlp."
#define QWEN_MOE (TMS_A_QWEN2_MOE | TMS_A_QWEN3_MOE)
#define ALL      (~0u)
#define SPLIT    (ALL & ~(unsigned)(TMS_A_PHI3 | TMS_A_DEEPSEEK)) /* q, k and v are three matrices */
#define GEMMA    (TMS_A_GEMMA | TMS_A_GEMMA2)
#define NORMED   (ALL & ~(unsigned)GEMMA) /* norms are as they are stored */
#define MIXED    (QWEN_MOE | TMS_A_DEEPSEEK)
#define V1(dim)                                                                                                        \
    {                                                                                                                  \
        dim, TMS_D_NONE                                                                                                \
    }

static const struct tms_arch_tensor tensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight", {TMS_D_VOCAB, TMS_D_HIDDEN}, TMS_AS_IS, TMS_ALWAYS, ALL},

    {ATTN "q_proj.weight", "blk.#.attn_q.weight", {TMS_D_Q, TMS_D_HIDDEN}, TMS_PERMUTE_Q, TMS_ALWAYS, SPLIT},
    {ATTN "q_proj.bias", "blk.#.attn_q.bias", V1(TMS_D_Q), TMS_PERMUTE_Q, TMS_QKV_BIAS, SPLIT},
    {ATTN "k_proj.weight", "blk.#.attn_k.weight", {TMS_D_KV, TMS_D_HIDDEN}, TMS_PERMUTE_K, TMS_ALWAYS, SPLIT},
    {ATTN "k_proj.bias", "blk.#.attn_k.bias", V1(TMS_D_KV), TMS_PERMUTE_K, TMS_QKV_BIAS, SPLIT},
    {ATTN "v_proj.weight", "blk.#.attn_v.weight", {TMS_D_KV, TMS_D_HIDDEN}, TMS_AS_IS, TMS_ALWAYS, SPLIT},
    {ATTN "v_proj.bias", "blk.#.attn_v.bias", V1(TMS_D_KV), TMS_AS_IS, TMS_QKV_BIAS, SPLIT},
    {ATTN "qkv_proj.weight", "blk.#.attn_qkv.weight", {TMS_D_QKV, TMS_D_HIDDEN}, TMS_AS_IS, TMS_ALWAYS, TMS_A_PHI3},
    {ATTN "o_proj.weight",
     "blk.#.attn_output.weight",
     {TMS_D_HIDDEN, TMS_D_Q},
     TMS_AS_IS,
     TMS_ALWAYS,
     ALL & ~(unsigned)TMS_A_DEEPSEEK},
    {ATTN "o_proj.bias", "blk.#.attn_output.bias", V1(TMS_D_HIDDEN), TMS_AS_IS, TMS_O_BIAS, SPLIT},
    {ATTN "q_norm.weight", "blk.#.attn_q_norm.weight", V1(TMS_D_HEAD), TMS_AS_IS, TMS_QK_NORM, NORMED},
    {ATTN "k_norm.weight", "blk.#.attn_k_norm.weight", V1(TMS_D_HEAD), TMS_AS_IS, TMS_QK_NORM, NORMED},
    {ATTN "q_norm.weight", "blk.#.attn_q_norm.weight", V1(TMS_D_HEAD), TMS_PLUS_ONE, TMS_QK_NORM, GEMMA},
    {ATTN "k_norm.weight", "blk.#.attn_k_norm.weight", V1(TMS_D_HEAD), TMS_PLUS_ONE, TMS_QK_NORM, GEMMA},

    {ATTN "q_proj.weight", "blk.#.attn_q.weight", {TMS_D_Q, TMS_D_HIDDEN}, TMS_AS_IS, TMS_Q_WHOLE, TMS_A_DEEPSEEK},
    {ATTN "q_a_proj.weight",
     "blk.#.attn_q_a.weight",
     {TMS_D_Q_RANK, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_Q_LOW,
     TMS_A_DEEPSEEK},
    {ATTN "q_a_layernorm.weight", "blk.#.attn_q_a_norm.weight", V1(TMS_D_Q_RANK), TMS_AS_IS, TMS_Q_LOW, TMS_A_DEEPSEEK},
    {ATTN "q_b_proj.weight", "blk.#.attn_q_b.weight", {TMS_D_Q, TMS_D_Q_RANK}, TMS_AS_IS, TMS_Q_LOW, TMS_A_DEEPSEEK},
    {ATTN "kv_a_proj_with_mqa.weight",
     "blk.#.attn_kv_a_mqa.weight",
     {TMS_D_LATENT, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_ALWAYS,
     TMS_A_DEEPSEEK},
    {ATTN "kv_a_layernorm.weight", "blk.#.attn_kv_a_norm.weight", V1(TMS_D_KV_RANK), TMS_AS_IS, TMS_ALWAYS,
     TMS_A_DEEPSEEK},
    {ATTN "kv_b_proj.weight", NULL, {TMS_D_KV_HEADS, TMS_D_KV_RANK}, TMS_SPLIT_KV, TMS_ALWAYS, TMS_A_DEEPSEEK},
    {ATTN "o_proj.weight", "blk.#.attn_output.weight", {TMS_D_HIDDEN, TMS_D_O}, TMS_AS_IS, TMS_ALWAYS, TMS_A_DEEPSEEK},

    {MLP "gate_proj.weight",
     "blk.#.ffn_gate.weight",
     {TMS_D_FFN, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_DENSE,
     ALL & ~(unsigned)TMS_A_PHI3},
    {MLP "gate_proj.bias", "blk.#.ffn_gate.bias", V1(TMS_D_FFN), TMS_AS_IS, TMS_MLP_BIAS, TMS_A_LLAMA},
    {MLP "up_proj.weight",
     "blk.#.ffn_up.weight",
     {TMS_D_FFN, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_DENSE,
     ALL & ~(unsigned)TMS_A_PHI3},
    {MLP "gate_up_proj.weight",
     "blk.#.ffn_up.weight",
     {TMS_D_GATE_UP, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_ALWAYS,
     TMS_A_PHI3},
    {MLP "up_proj.bias", "blk.#.ffn_up.bias", V1(TMS_D_FFN), TMS_AS_IS, TMS_MLP_BIAS, TMS_A_LLAMA},
    {MLP "down_proj.weight", "blk.#.ffn_down.weight", {TMS_D_HIDDEN, TMS_D_FFN}, TMS_AS_IS, TMS_DENSE, ALL},
    {MLP "down_proj.bias", "blk.#.ffn_down.bias", V1(TMS_D_HIDDEN), TMS_AS_IS, TMS_MLP_BIAS, TMS_A_LLAMA},

    {MLP "gate.weight", "blk.#.ffn_gate_inp.weight", {TMS_D_EXPERTS, TMS_D_HIDDEN}, TMS_AS_IS, TMS_MIXTURE, MIXED},
    {MLP "gate.e_score_correction_bias", "blk.#.exp_probs_b.bias", V1(TMS_D_EXPERTS), TMS_AS_IS, TMS_ROUTER_BIAS,
     TMS_A_DEEPSEEK},
    {MLP "experts.%.gate_proj.weight",
     "blk.#.ffn_gate_exps.weight",
     {TMS_D_EXPERT_FFN, TMS_D_HIDDEN},
     TMS_STACK,
     TMS_MIXTURE,
     MIXED},
    {MLP "experts.%.up_proj.weight",
     "blk.#.ffn_up_exps.weight",
     {TMS_D_EXPERT_FFN, TMS_D_HIDDEN},
     TMS_STACK,
     TMS_MIXTURE,
     MIXED},
    {MLP "experts.%.down_proj.weight",
     "blk.#.ffn_down_exps.weight",
     {TMS_D_HIDDEN, TMS_D_EXPERT_FFN},
     TMS_STACK,
     TMS_MIXTURE,
     MIXED},
    {MLP "shared_expert.gate_proj.weight",
     "blk.#.ffn_gate_shexp.weight",
     {TMS_D_SHARED_FFN, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_SHARED,
     TMS_A_QWEN2_MOE},
    {MLP "shared_expert.up_proj.weight",
     "blk.#.ffn_up_shexp.weight",
     {TMS_D_SHARED_FFN, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_SHARED,
     TMS_A_QWEN2_MOE},
    {MLP "shared_expert.down_proj.weight",
     "blk.#.ffn_down_shexp.weight",
     {TMS_D_HIDDEN, TMS_D_SHARED_FFN},
     TMS_AS_IS,
     TMS_SHARED,
     TMS_A_QWEN2_MOE},
    {MLP "shared_expert_gate.weight",
     "blk.#.ffn_gate_inp_shexp.weight",
     {TMS_D_ONE, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_SHARED_GATE,
     TMS_A_QWEN2_MOE},
    {MLP "shared_experts.gate_proj.weight",
     "blk.#.ffn_gate_shexp.weight",
     {TMS_D_SHARED_FFN, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_SHARED,
     TMS_A_DEEPSEEK},
    {MLP "shared_experts.up_proj.weight",
     "blk.#.ffn_up_shexp.weight",
     {TMS_D_SHARED_FFN, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_SHARED,
     TMS_A_DEEPSEEK},
    {MLP "shared_experts.down_proj.weight",
     "blk.#.ffn_down_shexp.weight",
     {TMS_D_HIDDEN, TMS_D_SHARED_FFN},
     TMS_AS_IS,
     TMS_SHARED,
     TMS_A_DEEPSEEK},
    {LAYER "block_sparse_moe.gate.weight",
     "blk.#.ffn_gate_inp.weight",
     {TMS_D_EXPERTS, TMS_D_HIDDEN},
     TMS_AS_IS,
     TMS_MIXTURE,
     TMS_A_MIXTRAL},
    {LAYER "block_sparse_moe.experts.%.w1.weight",
     "blk.#.ffn_gate_exps.weight",
     {TMS_D_EXPERT_FFN, TMS_D_HIDDEN},
     TMS_STACK,
     TMS_MIXTURE,
     TMS_A_MIXTRAL},
    {LAYER "block_sparse_moe.experts.%.w2.weight",
     "blk.#.ffn_down_exps.weight",
     {TMS_D_HIDDEN, TMS_D_EXPERT_FFN},
     TMS_STACK,
     TMS_MIXTURE,
     TMS_A_MIXTRAL},
    {LAYER "block_sparse_moe.experts.%.w3.weight",
     "blk.#.ffn_up_exps.weight",
     {TMS_D_EXPERT_FFN, TMS_D_HIDDEN},
     TMS_STACK,
     TMS_MIXTURE,
     TMS_A_MIXTRAL},

    {LAYER "input_layernorm.weight", "blk.#.attn_norm.weight", V1(TMS_D_HIDDEN), TMS_AS_IS, TMS_ALWAYS, NORMED},
    {LAYER "post_attention_layernorm.weight", "blk.#.ffn_norm.weight", V1(TMS_D_HIDDEN), TMS_AS_IS, TMS_ALWAYS, NORMED},
    {LAYER "input_layernorm.weight", "blk.#.attn_norm.weight", V1(TMS_D_HIDDEN), TMS_PLUS_ONE, TMS_ALWAYS, GEMMA},
    {LAYER "post_attention_layernorm.weight", "blk.#.ffn_norm.weight", V1(TMS_D_HIDDEN), TMS_PLUS_ONE, TMS_ALWAYS,
     TMS_A_GEMMA},
    {LAYER "post_attention_layernorm.weight", "blk.#.post_attention_norm.weight", V1(TMS_D_HIDDEN), TMS_PLUS_ONE,
     TMS_ALWAYS, TMS_A_GEMMA2},
    {LAYER "pre_feedforward_layernorm.weight", "blk.#.ffn_norm.weight", V1(TMS_D_HIDDEN), TMS_PLUS_ONE, TMS_ALWAYS,
     TMS_A_GEMMA2},
    {LAYER "post_feedforward_layernorm.weight", "blk.#.post_ffw_norm.weight", V1(TMS_D_HIDDEN), TMS_PLUS_ONE,
     TMS_ALWAYS, TMS_A_GEMMA2},

    {"model.norm.weight", "output_norm.weight", V1(TMS_D_HIDDEN), TMS_AS_IS, TMS_ALWAYS, NORMED},
    {"model.norm.weight", "output_norm.weight", V1(TMS_D_HIDDEN), TMS_PLUS_ONE, TMS_ALWAYS, GEMMA},
    {"lm_head.weight", "output.weight", {TMS_D_VOCAB, TMS_D_HIDDEN}, TMS_AS_IS, TMS_UNTIED, ALL},
};
enum { N_TENSORS = sizeof tensors / sizeof *tensors };

const struct tms_arch *tms_arch_find(const struct tms_config *config)
{
    size_t n = sizeof archs / sizeof *archs;
    for (size_t i = 0; i < n; i++)
        if (strcmp(config->class_name, archs[i].class_name) == 0) return &archs[i];
    for (size_t i = 0; i < n && !config->class_name[0]; i++)
        if (strcmp(config->model_type, archs[i].model_type) == 0) return &archs[i];
    return NULL;
}

const struct tms_arch *tms_arch_find_gguf(const char *name, bool has_experts, bool has_sigmoid)
{
    const struct tms_arch *found = NULL;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (strcmp(name, archs[i].gguf) != 0) continue;
        bool later = (has_experts && archs[i].bit == TMS_A_MIXTRAL) ||
                     (has_sigmoid && strcmp(archs[i].model_type, "deepseek_v3") == 0);
        if (!found || later) found = &archs[i];
    }
    return found;
}

const char *tms_arch_known(void)
{
    return known;
}

/* Matches `name` against a pattern in which '#' and '%' are plain decimal numbers. */
static bool matches(const char *pattern, const char *name, int *layer, int *expert)
{
    *layer = *expert = -1;
    for (; *pattern; pattern++) {
        if (*pattern != '#' && *pattern != '%') {
            if (*name++ != *pattern) return false;
            continue;
        }
        if (*name < '0' || *name > '9' || (*name == '0' && name[1] >= '0' && name[1] <= '9')) return false;
        char *end;
        long n = strtol(name, &end, 10);
        if (n > 1 << 20) return false;
        *(*pattern == '#' ? layer : expert) = (int)n;
        name = end;
    }
    return *name == '\0';
}

const struct tms_arch_tensor *tms_arch_explain(const struct tms_arch *arch, const char *hf_name, int *layer,
                                               int *expert)
{
    for (size_t i = 0; i < N_TENSORS; i++)
        if ((tensors[i].archs & arch->bit) && matches(tensors[i].hf, hf_name, layer, expert)) return &tensors[i];
    return NULL;
}

const struct tms_arch_tensor *tms_arch_explain_gguf(const struct tms_arch *arch, const char *gguf_name, int *layer)
{
    int expert;
    for (size_t i = 0; i < N_TENSORS; i++)
        if ((tensors[i].archs & arch->bit) && tensors[i].gguf && matches(tensors[i].gguf, gguf_name, layer, &expert))
            return &tensors[i];
    return NULL;
}

int tms_arch_layer_of(const char *name)
{
    static const char *const beginnings[] = {"model.layers.", "blk."};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(beginnings[i]);
        if (strncmp(name, beginnings[i], n) != 0 || name[n] < '0' || name[n] > '9') continue;
        long layer = strtol(name + n, NULL, 10);
        return layer < 1 << 20 ? (int)layer : -1;
    }
    return -1;
}

void tms_arch_name(char *out, size_t size, const char *pattern, int layer, int expert)
{
    size_t n = 0;
    for (; *pattern && n + 1 < size; pattern++) {
        if (*pattern == '#' || *pattern == '%') {
            int wrote = snprintf(out + n, size - n, "%d", *pattern == '#' ? layer : expert);
            n += (size_t)wrote < size - n ? (size_t)wrote : size - n - 1;
        } else {
            out[n++] = *pattern;
        }
    }
    out[n] = '\0';
}

bool tms_arch_has(const struct tms_arch *arch, const struct tms_config *config, const struct tms_arch_tensor *row,
                  int layer)
{
    if (!(row->archs & arch->bit)) return false;
    bool mixture = layer >= 0 && tms_config_has_experts(config, (uint64_t)layer);
    switch (row->when) {
    case TMS_ALWAYS: return true;
    case TMS_UNTIED: return !config->tied;
    case TMS_QKV_BIAS: return arch->qkv_bias || config->attention_bias;
    case TMS_O_BIAS: return config->attention_bias && !arch->qkv_bias;
    case TMS_MLP_BIAS: return config->mlp_bias;
    case TMS_QK_NORM: return arch->qk_norm;
    case TMS_DENSE: return !mixture;
    case TMS_MIXTURE: return mixture;
    case TMS_SHARED: return mixture && config->experts.shared;
    case TMS_SHARED_GATE: return mixture && config->experts.shared_gate;
    case TMS_ROUTER_BIAS: return mixture && config->experts.bias;
    case TMS_Q_WHOLE: return !config->latent.q_rank;
    case TMS_Q_LOW: return config->latent.q_rank != 0;
    }
    return false;
}

/* A step is a number: rows before the layers; then layer, row of the layers' rows, expert; then rows behind them. */
bool tms_arch_next(struct tms_arch_step *step, const struct tms_arch *arch, const struct tms_config *config)
{
    size_t first = 0, last = N_TENSORS;
    while (!strchr(tensors[first].hf, '#')) first++;
    while (!strchr(tensors[last - 1].hf, '#')) last--;
    size_t per_layer = last - first, in_layers = per_layer * (size_t)config->n_layers;
    size_t n_experts = config->experts.n ? (size_t)config->experts.n : 1;
    for (;;) {
        /* at = index of the row * n_experts + expert */
        size_t index = step->at / n_experts, expert = step->at % n_experts;
        if (index >= first + in_layers + (N_TENSORS - last)) return false;
        bool layered = index >= first && index < first + in_layers;
        size_t row = index < first ? index
                     : layered     ? first + (index - first) % per_layer
                                   : index - in_layers + per_layer;
        step->row = &tensors[row];
        step->layer = layered ? (int)((index - first) / per_layer) : -1;
        bool by_expert = strchr(tensors[row].hf, '%') != NULL;
        step->expert = by_expert ? (int)expert : -1;
        step->at = by_expert ? step->at + 1 : (index + 1) * n_experts;
        if (tms_arch_has(arch, config, step->row, step->layer)) return true;
    }
}

static uint64_t dim_size(const struct tms_config *config, enum tms_dim dim)
{
    const struct tms_latent *l = &config->latent;
    switch (dim) {
    case TMS_D_NONE: return 1;
    case TMS_D_VOCAB: return config->vocab;
    case TMS_D_HIDDEN: return config->hidden;
    case TMS_D_FFN: return config->ffn;
    case TMS_D_Q: return config->n_heads * config->head_dim;
    case TMS_D_KV: return config->n_kv_heads * config->head_dim;
    case TMS_D_HEAD: return config->head_dim;
    case TMS_D_QKV: return (config->n_heads + 2 * config->n_kv_heads) * config->head_dim;
    case TMS_D_GATE_UP: return 2 * config->ffn;
    case TMS_D_ONE: return 1;
    case TMS_D_EXPERTS: return config->experts.n;
    case TMS_D_EXPERT_FFN: return config->experts.ffn;
    case TMS_D_SHARED_FFN: return config->experts.shared;
    case TMS_D_Q_RANK: return l->q_rank;
    case TMS_D_KV_RANK: return l->kv_rank;
    case TMS_D_LATENT: return l->kv_rank + l->rope;
    case TMS_D_KV_HEADS: return config->n_heads * (l->nope + l->value);
    case TMS_D_O: return config->n_heads * l->value;
    }
    return 0;
}

uint32_t tms_arch_shape(const struct tms_config *config, const struct tms_arch_tensor *row, uint64_t shape[2])
{
    shape[0] = dim_size(config, row->shape[0]);
    shape[1] = dim_size(config, row->shape[1]);
    return row->shape[1] == TMS_D_NONE ? 1 : 2;
}

bool tms_arch_is_spare(const struct tms_arch *arch, const struct tms_config *config, const char *hf_name)
{
    static const char before[] = "model.layers.";
    if (arch->bit != TMS_A_DEEPSEEK || strncmp(hf_name, before, sizeof before - 1) != 0) return false;
    const char *number = hf_name + sizeof before - 1;
    char *end;
    if (*number < '0' || *number > '9') return false;
    unsigned long layer = strtoul(number, &end, 10);
    return *end == '.' && layer >= config->n_layers;
}

static const char *const kv_parts[] = {
    [TMS_KV_PART_KEYS] = "blk.#.attn_k_b.weight", [TMS_KV_PART_VALUES] = "blk.#.attn_v_b.weight"};

enum tms_kv_part tms_arch_kv_part(const struct tms_arch *arch, const char *gguf_name, int *layer)
{
    int expert;
    if (arch->bit != TMS_A_DEEPSEEK) return TMS_KV_PART_NONE;
    if (matches(kv_parts[TMS_KV_PART_KEYS], gguf_name, layer, &expert)) return TMS_KV_PART_KEYS;
    if (matches(kv_parts[TMS_KV_PART_VALUES], gguf_name, layer, &expert)) return TMS_KV_PART_VALUES;
    return TMS_KV_PART_NONE;
}

void tms_arch_kv_name(char *out, size_t size, enum tms_kv_part part, int layer)
{
    tms_arch_name(out, size, kv_parts[part], layer, -1);
}

void tms_arch_kv_shape(const struct tms_config *config, enum tms_kv_part part, uint64_t shape[3])
{
    const struct tms_latent *l = &config->latent;
    bool keys = part == TMS_KV_PART_KEYS;
    shape[0] = config->n_heads;
    shape[1] = keys ? l->kv_rank : l->value;
    shape[2] = keys ? l->nope : l->kv_rank;
}

const struct tms_arch_tensor *tms_arch_kv_row(const struct tms_arch *arch)
{
    for (size_t i = 0; i < N_TENSORS; i++)
        if ((tensors[i].archs & arch->bit) && tensors[i].transform == TMS_SPLIT_KV) return &tensors[i];
    return NULL;
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

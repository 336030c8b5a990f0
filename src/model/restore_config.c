/* config.json from the numbers of a model, whatever they come from. See restore.h. */
#include "model/restore.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/restore_parts.h"

static json_t *id_or_null(const struct tms_source *source, const char *name)
{
    uint64_t id;
    return tms_restored_id(&source->gguf->kvs, name, &id) ? json_integer((json_int_t)id) : json_null();
}

static void put_if(json_t **object, const char *key, double value)
{
    if (value > 0) tms_restored_set(object, key, json_real(value));
}

static void put_count(json_t **object, const char *key, uint64_t n)
{
    tms_restored_set(object, key, json_integer((json_int_t)n));
}

/* null for 0 */
static void put_or_null(json_t **object, const char *key, double value)
{
    tms_restored_set(object, key, value > 0 ? json_real(value) : json_null());
}

static json_t *factors(const float *list, uint64_t n)
{
    json_t *json = json_array();
    for (uint64_t i = 0; i < n; i++) json_array_append_new(json, json_real(tms_shortest(list[i])));
    return json;
}

static json_t *rope_scaling(const struct tms_config *c)
{
    const struct tms_rope *rope = &c->rope;
    static const char *const names[] = {
        [TMS_ROPE_LINEAR] = "linear", [TMS_ROPE_YARN] = "yarn", [TMS_ROPE_LLAMA3] = "llama3"};
    json_t *scaling;
    if (rope->kind == TMS_ROPE_DEFAULT) return json_null();
    if (rope->kind == TMS_ROPE_LONGROPE) { /* older transformers insist on these three and no others */
        scaling = json_pack("{s:s, s:o, s:o}", "type", "longrope", "long_factor",
                            factors(rope->long_factors, rope->n_factors), "short_factor",
                            factors(rope->short_factors, rope->n_factors));
        put_if(&scaling, "attention_factor", rope->attention_factor);
        return scaling;
    }
    /* the name that DeepSeek's own code knows; transformers knows both */
    scaling = json_pack("{s:s}", c->latent.kv_rank ? "type" : "rope_type", names[rope->kind]);
    put_if(&scaling, "factor", rope->factor);
    put_if(&scaling, "low_freq_factor", rope->low_freq_factor);
    put_if(&scaling, "high_freq_factor", rope->high_freq_factor);
    put_if(&scaling, "extrapolation_factor", rope->ext_factor);
    put_if(&scaling, "attention_factor", rope->attention_factor);
    put_if(&scaling, "beta_fast", rope->beta_fast);
    put_if(&scaling, "beta_slow", rope->beta_slow);
    put_if(&scaling, "mscale", rope->mscale);
    put_if(&scaling, "mscale_all_dim", rope->mscale_all_dim);
    if (rope->original_context) put_count(&scaling, "original_max_position_embeddings", rope->original_context);
    return scaling;
}

/* All tokens that end an answer: generation stops at any of them. */
static json_t *ends(const struct tms_source *source)
{
    static const char *const names[] = {"eos", "eot", "eom"};
    json_t *list = json_array();
    uint64_t ids[3];
    size_t n = 0;
    bool short_of_memory = !list;
    for (size_t i = 0; i < 3; i++) {
        if (!tms_restored_id(&source->gguf->kvs, names[i], &ids[n])) continue;
        bool known = false;
        for (size_t k = 0; k < n; k++) known |= ids[k] == ids[n];
        if (!known) short_of_memory |= json_array_append_new(list, json_integer((json_int_t)ids[n++])) != 0;
    }
    if (n > 1 && !short_of_memory) return list;
    json_decref(list);
    if (short_of_memory) return NULL;
    return n ? json_integer((json_int_t)ids[0]) : json_null();
}

static bool is(const struct tms_config *c, const char *model_type)
{
    return strcmp(c->model_type, model_type) == 0;
}

static void put_kinds(json_t **json, const struct tms_config *c)
{
    json_t *kinds = json_array();
    for (uint64_t l = 0; l < c->n_layers; l++)
        json_array_append_new(kinds, json_string(tms_config_window(c, l) ? "sliding_attention" : "full_attention"));
    tms_restored_set(json, "layer_types", kinds);
}

/* One number for all layers (Mistral, Mixtral, Phi-3), or a list of kinds (Gemma, Qwen). */
static void put_window(json_t **json, const struct tms_config *c)
{
    bool mixed = is(c, "gemma2") || is(c, "gemma3_text"), whole = is(c, "mixtral") || is(c, "phi3");
    bool qwen = !mixed && !whole && !is(c, "mistral");
    if (!c->window && !mixed && !whole) return;
    tms_restored_set(json, "sliding_window", c->window ? json_integer((json_int_t)c->window) : json_null());
    if (qwen) tms_restored_set(json, "use_sliding_window", json_true());
    if (qwen || mixed) put_kinds(json, c);
}

static void put_gemma(json_t **json, const struct tms_config *c)
{
    bool gemma2 = is(c, "gemma2"), gemma3 = is(c, "gemma3_text");
    if (c->activation != TMS_GELU_TANH) return;
    tms_restored_set(json, "hidden_act", json_string("gelu_pytorch_tanh"));
    tms_restored_set(json, "hidden_activation", json_string("gelu_pytorch_tanh"));
    if (!gemma2 && !gemma3) return;
    if (c->query_scalar < 0x1p53 && c->query_scalar == floor(c->query_scalar))
        put_count(json, "query_pre_attn_scalar", (uint64_t)c->query_scalar);
    else
        put_if(json, "query_pre_attn_scalar", c->query_scalar);
    put_or_null(json, "attn_logit_softcapping", c->attention_cap);
    put_or_null(json, "final_logit_softcapping", c->logit_cap);
    if (gemma3) put_if(json, "rope_local_base_freq", c->rope.local_theta);
}

static void put_experts(json_t **json, const struct tms_config *c)
{
    const struct tms_experts *e = &c->experts;
    bool mixtral = is(c, "mixtral"), deepseek = c->latent.kv_rank != 0;
    if (!e->n) return;
    put_count(json, mixtral ? "num_local_experts" : deepseek ? "n_routed_experts" : "num_experts", e->n);
    put_count(json, "num_experts_per_tok", e->used);
    if (mixtral) return;
    put_count(json, "moe_intermediate_size", e->ffn);
    tms_restored_set(json, "norm_topk_prob", json_boolean(e->normalize));
    if (!deepseek) {
        put_count(json, "decoder_sparse_step", e->step);
        tms_restored_set(json, "mlp_only_layers", json_array());
        if (is(c, "qwen2_moe")) put_count(json, "shared_expert_intermediate_size", e->shared);
        return;
    }
    put_count(json, "n_shared_experts", e->ffn ? e->shared / e->ffn : 0);
    put_count(json, "first_k_dense_replace", e->n_dense);
    put_count(json, "moe_layer_freq", e->step);
    put_count(json, "n_group", e->n_groups);
    put_count(json, "topk_group", e->groups_used);
    put_if(json, "routed_scaling_factor", e->scale);
    tms_restored_set(json, "scoring_func", json_string(e->sigmoid ? "sigmoid" : "softmax"));
    tms_restored_set(json, "topk_method",
                     json_string(e->bias            ? "noaux_tc"
                                 : e->n_groups == 1 ? "greedy"
                                                    : "group_limited_greedy"));
}

static void put_latent(json_t **json, const struct tms_config *c)
{
    const struct tms_latent *l = &c->latent;
    if (!l->kv_rank) return;
    tms_restored_set(json, "q_lora_rank", l->q_rank ? json_integer((json_int_t)l->q_rank) : json_null());
    put_count(json, "kv_lora_rank", l->kv_rank);
    put_count(json, "qk_nope_head_dim", l->nope);
    put_count(json, "qk_rope_head_dim", l->rope);
    put_count(json, "v_head_dim", l->value);
    if (is(c, "deepseek_v3")) put_count(json, "num_nextn_predict_layers", 0);
}

tms_status tms_restore_config(struct tms_made_files *files, const struct tms_source *source,
                              const struct tms_config *config, const struct tms_restore_options *options,
                              struct tms_error *err)
{
    const struct tms_config *c = config;
    json_t *json = json_pack(
        "{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:b, s:s, s:o, s:o, s:o}", "architectures",
        c->class_name, "model_type", c->model_type, "hidden_act", "silu", "hidden_size", (json_int_t)c->hidden,
        "intermediate_size", (json_int_t)c->ffn, "num_hidden_layers", (json_int_t)c->n_layers, "num_attention_heads",
        (json_int_t)c->n_heads, "num_key_value_heads", (json_int_t)c->n_kv_heads, "vocab_size", (json_int_t)c->vocab,
        "max_position_embeddings", (json_int_t)c->context, "rms_norm_eps", c->rms_eps, "rope_theta", c->rope.theta,
        "rope_scaling", rope_scaling(c), "tie_word_embeddings", c->tied, "torch_dtype",
        tms_torch_dtype_name(options->dtype), "bos_token_id", id_or_null(source, "bos"), "eos_token_id",
        id_or_null(source, "eos"), "pad_token_id", id_or_null(source, "padding"));
    if (c->has_head_dim) put_count(&json, "head_dim", c->head_dim);
    bool no_bias =
        source->arch->qkv_bias || is(c, "mistral") || is(c, "mixtral") || is(c, "phi3"); /* nothing to tell */
    if (!no_bias) tms_restored_set(&json, "attention_bias", json_boolean(c->attention_bias));
    if (is(c, "llama")) tms_restored_set(&json, "mlp_bias", json_boolean(c->mlp_bias));
    if (is(c, "phi3")) put_count(&json, "original_max_position_embeddings", c->rope.original_context);
    put_window(&json, c);
    put_gemma(&json, c);
    put_experts(&json, c);
    put_latent(&json, c);
    tms_status status = tms_restored_put_json(files, "config.json", json, err);
    if (status != TMS_OK) return status;
    return tms_restored_put_json(files, "generation_config.json",
                                 json_pack("{s:o, s:o, s:o}", "bos_token_id", id_or_null(source, "bos"), "eos_token_id",
                                           ends(source), "pad_token_id", id_or_null(source, "padding")),
                                 err);
}

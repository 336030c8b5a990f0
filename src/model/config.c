/* See config.h. */
#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_DIM (1u << 28) /* no layer is wider; keeps every product of two of them within 64 bits */

static const struct {
    enum tms_type type;
    const char *name;
} dtypes[] = {
    {TMS_F32, "float32"},
    {TMS_F16, "float16"},
    {TMS_BF16, "bfloat16"},
    {TMS_F64, "float64"},
    {TMS_U8, "uint8"},
    {TMS_I8, "int8"},
    {TMS_I16, "int16"},
    {TMS_I32, "int32"},
    {TMS_I64, "int64"},
    {TMS_BOOL, "bool"},
    {TMS_F8_E4M3, "float8_e4m3fn"},
    {TMS_F8_E5M2, "float8_e5m2"},
};

const char *tms_torch_dtype_name(enum tms_type type)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtypes[i].type == type) return dtypes[i].name;
    return NULL;
}

/* One place of the file; a failed read leaves its status here and all later reads do nothing. */
struct reader {
    const char *path;
    struct tms_error *err;
    tms_status status;
};

static void fail(struct reader *r, const char *key, const char *problem)
{
    if (r->status == TMS_OK) r->status = tms_fail(r->err, TMS_EINPUT, "%s: \"%s\" %s", r->path, key, problem);
}

static bool present(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return v && !json_is_null(v);
}

static void read_count(struct reader *r, const json_t *object, const char *key, uint64_t max, uint64_t *out)
{
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v)) return;
    if (!json_is_integer(v)) {
        fail(r, key, "is not a whole number");
        return;
    }
    json_int_t n = json_integer_value(v);
    if (n < 1 || (uint64_t)n > max) {
        char problem[96];
        snprintf(problem, sizeof problem, "is %lld, expected 1 to %llu", (long long)n, (unsigned long long)max);
        fail(r, key, problem);
        return;
    }
    *out = (uint64_t)n;
}

static void read_number(struct reader *r, const json_t *object, const char *key, double *out)
{
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v)) return;
    if (!json_is_number(v) || !isfinite(json_number_value(v)))
        fail(r, key, "is not a number");
    else
        *out = json_number_value(v);
}

static void read_bool(struct reader *r, const json_t *object, const char *key, bool *out)
{
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v)) return;
    if (!json_is_boolean(v))
        fail(r, key, "is neither true nor false");
    else
        *out = json_is_true(v);
}

static void read_text(struct reader *r, const json_t *object, const char *key, char *out, size_t size)
{
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v)) return;
    if (!json_is_string(v) || json_string_length(v) >= size || strlen(json_string_value(v)) != json_string_length(v))
        fail(r, key, "is not a short text");
    else
        snprintf(out, size, "%s", json_string_value(v));
}

static void read_factors(struct reader *r, const json_t *scaling, const char *key, float *out, uint64_t *n)
{
    const json_t *list = json_object_get(scaling, key);
    size_t count = json_array_size(list);
    bool ok = count > 0 && count <= TMS_MAX_LONGROPE;
    for (size_t i = 0; ok && i < count; i++) {
        out[i] = (float)json_number_value(json_array_get(list, i));
        ok = out[i] > 0 && out[i] < 1e9f;
    }
    if (!ok || (*n && *n != count)) fail(r, key, "is not a list of positive numbers, one for each pair of a head");
    *n = count;
}

/* standard: the base where none is named, transformers' default of the architecture. */
static void read_rope(struct reader *r, const json_t *config, double standard, struct tms_rope *rope)
{
    static const struct {
        const char *name;
        enum tms_rope_kind kind;
    } kinds[] = {
        {"default", TMS_ROPE_DEFAULT}, {"linear", TMS_ROPE_LINEAR}, {"dynamic", TMS_ROPE_DYNAMIC},
        {"yarn", TMS_ROPE_YARN},       {"llama3", TMS_ROPE_LLAMA3}, {"longrope", TMS_ROPE_LONGROPE},
        {"su", TMS_ROPE_LONGROPE}, /* its name in the first Phi-3 */
    };
    rope->theta = standard;
    read_number(r, config, "rope_theta", &rope->theta);
    const json_t *scaling = NULL;
    const char *const places[] = {"rope_scaling", "rope_parameters"};
    for (size_t i = 0; i < 2; i++) {
        if (!present(config, places[i])) continue;
        scaling = json_object_get(config, places[i]);
        if (!json_is_object(scaling)) {
            fail(r, places[i], "is not an object");
            return;
        }
    }
    if (rope->theta <= 0) fail(r, "rope_theta", "is not positive");
    read_number(r, config, "rope_local_base_freq", &rope->local_theta);
    read_count(r, config, "original_max_position_embeddings", MAX_DIM, &rope->original_context); /* Phi-3 */
    if (!scaling) return;
    if (json_is_object(
            json_object_get(scaling, "full_attention"))) { /* Gemma 3, new form: one for each kind of layer */
        read_number(r, json_object_get(scaling, "sliding_attention"), "rope_theta", &rope->local_theta);
        scaling = json_object_get(scaling, "full_attention");
    }
    read_number(r, scaling, "rope_theta", &rope->theta);
    if (rope->theta <= 0) fail(r, "rope_theta", "is not positive");
    read_text(r, scaling, "type", rope->name, sizeof rope->name);
    read_text(r, scaling, "rope_type", rope->name, sizeof rope->name);
    rope->kind = rope->name[0] ? TMS_ROPE_OTHER : TMS_ROPE_DEFAULT;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcasecmp(rope->name, kinds[i].name) == 0) rope->kind = kinds[i].kind;
    read_number(r, scaling, "factor", &rope->factor);
    read_number(r, scaling, "low_freq_factor", &rope->low_freq_factor);
    read_number(r, scaling, "high_freq_factor", &rope->high_freq_factor);
    read_number(r, scaling, "attention_factor", &rope->attention_factor);
    read_number(r, scaling, "beta_fast", &rope->beta_fast);
    read_number(r, scaling, "beta_slow", &rope->beta_slow);
    read_number(r, scaling, "extrapolation_factor", &rope->ext_factor);
    read_count(r, scaling, "original_max_position_embeddings", MAX_DIM, &rope->original_context);
    read_number(r, scaling, "mscale", &rope->mscale);
    read_number(r, scaling, "mscale_all_dim", &rope->mscale_all_dim);
    if (rope->kind == TMS_ROPE_LONGROPE) {
        read_factors(r, scaling, "short_factor", rope->short_factors, &rope->n_factors);
        read_factors(r, scaling, "long_factor", rope->long_factors, &rope->n_factors);
    }
    if (rope->factor < 0) fail(r, "factor", "of the rope scaling is negative");
    bool scaled = rope->kind == TMS_ROPE_LINEAR || rope->kind == TMS_ROPE_YARN || rope->kind == TMS_ROPE_LLAMA3;
    if (scaled && rope->factor <= 0 && r->status == TMS_OK) fail(r, "factor", "of the rope scaling is missing");
}

uint64_t tms_config_window(const struct tms_config *config, uint64_t layer)
{
    bool has = layer < TMS_MAX_LAYERS && (config->window_layers[layer / 64] >> (layer % 64) & 1);
    return has ? config->window : 0;
}

void tms_config_set_window(struct tms_config *config, uint64_t layer)
{
    if (layer < TMS_MAX_LAYERS) config->window_layers[layer / 64] |= UINT64_C(1) << (layer % 64);
}

/* ---- what families of models have of their own ---- */

static bool is(const struct tms_config *c, const char *model_type)
{
    return strcmp(c->model_type, model_type) == 0;
}

/* 0 is a number here, and not the same as none. */
static void read_number_or_zero(struct reader *r, const json_t *object, const char *key, uint64_t max, uint64_t *out)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_integer(v) && json_integer_value(v) == 0)
        *out = 0;
    else
        read_count(r, object, key, max, out);
}

/* Which layers see a window only: a list of kinds in new files; in old ones all (Mistral, Mixtral, Phi-3), those from
 * max_window_layers on if use_sliding_window is set (Qwen), every other one from the first (Gemma 2), all but every
 * sixth (Gemma 3). Llama has none, whatever stands there. Defaults are transformers'. */
static void read_window(struct reader *r, const json_t *text, struct tms_config *c)
{
    static const char list_key[] = "layer_types";
    bool qwen = strncmp(c->model_type, "qwen", 4) == 0, gemma2 = is(c, "gemma2"), gemma3 = is(c, "gemma3_text");
    bool mistral = is(c, "mistral"), use = false;
    uint64_t first = 28, pattern = 6;
    read_bool(r, text, "use_sliding_window", &use);
    if (qwen ? !use : !(mistral || gemma2 || gemma3 || is(c, "mixtral") || is(c, "phi3"))) return;
    if ((mistral || gemma2 || gemma3) && !json_object_get(text, "sliding_window")) c->window = 4096;
    read_count(r, text, "sliding_window", 1u << 30, &c->window);
    read_number_or_zero(r, text, "max_window_layers", TMS_MAX_LAYERS, &first);
    read_count(r, text, "_sliding_window_pattern", TMS_MAX_LAYERS, &pattern);
    read_count(r, text, "sliding_window_pattern", TMS_MAX_LAYERS, &pattern);
    const json_t *list = present(text, list_key) ? json_object_get(text, list_key) : NULL;
    if (list && (!json_is_array(list) || json_array_size(list) < c->n_layers)) {
        fail(r, list_key, "is not a list with one kind for each layer");
        return;
    }
    for (uint64_t l = 0; l < c->n_layers && c->window; l++) {
        const char *kind = list ? json_string_value(json_array_get(list, (size_t)l)) : NULL;
        bool has = list     ? kind && strcmp(kind, "sliding_attention") == 0
                   : qwen   ? l >= first
                   : gemma2 ? l % 2 == 0
                   : gemma3 ? (l + 1) % pattern != 0
                            : true;
        if (has) tms_config_set_window(c, l);
    }
}

static void read_gemma(struct reader *r, const json_t *text, struct tms_config *c)
{
    bool gemma2 = is(c, "gemma2"), gemma3 = is(c, "gemma3_text");
    if (!is(c, "gemma") && !gemma2 && !gemma3) return;
    c->norm_plus_one = c->scaled_embedding = true;
    c->activation = TMS_GELU_TANH;
    if (!present(text, "tie_word_embeddings")) c->tied = true;
    if (!gemma2 && !gemma3) return;
    c->query_scalar = 256;
    if (gemma2 && !json_object_get(text, "attn_logit_softcapping")) c->attention_cap = 50;
    if (gemma2 && !json_object_get(text, "final_logit_softcapping")) c->logit_cap = 30;
    read_number(r, text, "query_pre_attn_scalar", &c->query_scalar);
    read_number(r, text, "attn_logit_softcapping", &c->attention_cap);
    read_number(r, text, "final_logit_softcapping", &c->logit_cap);
    if (gemma3 && c->rope.local_theta <= 0) c->rope.local_theta = 10000;
    if (c->query_scalar <= 0) fail(r, "query_pre_attn_scalar", "is not positive");
}

bool tms_experts_fit(const struct tms_experts *e)
{
    return e->n && e->used && e->used <= e->n && e->n_groups && e->n % e->n_groups == 0 &&
           e->groups_used <= e->n_groups && e->used <= e->n / e->n_groups * e->groups_used;
}

static void read_experts(struct reader *r, const json_t *text, struct tms_config *c)
{
    struct tms_experts *e = &c->experts;
    bool deepseek = is(c, "deepseek_v2") || is(c, "deepseek_v3"), mixtral = is(c, "mixtral");
    bool qwen2 = is(c, "qwen2_moe");
    if (!deepseek && !mixtral && !qwen2 && !is(c, "qwen3_moe")) return;
    read_count(r, text, "num_experts", TMS_MAX_EXPERTS, &e->n);
    read_count(r, text, "num_local_experts", TMS_MAX_EXPERTS, &e->n);
    read_count(r, text, "n_routed_experts", TMS_MAX_EXPERTS, &e->n);
    read_count(r, text, "num_experts_per_tok", TMS_MAX_EXPERTS, &e->used);
    e->ffn = c->ffn;
    e->step = 1;
    e->scale = 1;
    e->n_groups = e->groups_used = 1;
    if (!mixtral) read_count(r, text, "moe_intermediate_size", MAX_DIM, &e->ffn);
    e->normalize = mixtral;
    if (!mixtral) read_bool(r, text, "norm_topk_prob", &e->normalize);
    read_count(r, text, "decoder_sparse_step", TMS_MAX_LAYERS, &e->step);
    if (json_array_size(json_object_get(text, "mlp_only_layers")))
        fail(r, "mlp_only_layers", "names layers; only mixtures in every layer are supported");
    if (qwen2) {
        read_number_or_zero(r, text, "shared_expert_intermediate_size", MAX_DIM, &e->shared);
        e->shared_gate = e->shared != 0;
    }
    if (deepseek) {
        uint64_t n_shared = 0;
        char method[32] = "greedy", scoring[32] = "softmax";
        read_number_or_zero(r, text, "n_shared_experts", 1 << 10, &n_shared);
        e->shared = n_shared * e->ffn;
        read_number_or_zero(r, text, "first_k_dense_replace", TMS_MAX_LAYERS, &e->n_dense);
        read_count(r, text, "moe_layer_freq", TMS_MAX_LAYERS, &e->step);
        read_number(r, text, "routed_scaling_factor", &e->scale);
        read_count(r, text, "n_group", 1 << 14, &e->n_groups);
        read_count(r, text, "topk_group", 1 << 14, &e->groups_used);
        if (is(c, "deepseek_v3")) snprintf(method, sizeof method, "noaux_tc"), snprintf(scoring, 32, "sigmoid");
        read_text(r, text, "topk_method", method, sizeof method);
        read_text(r, text, "scoring_func", scoring, sizeof scoring);
        e->sigmoid = strcmp(scoring, "sigmoid") == 0;
        e->bias = strcmp(method, "noaux_tc") == 0;
        if (e->step != 1) fail(r, "moe_layer_freq", "is not 1, the only one that is supported");
        if (!e->sigmoid && strcmp(scoring, "softmax") != 0) fail(r, "scoring_func", "is neither softmax nor sigmoid");
        if (strcmp(method, "greedy") == 0)
            e->n_groups = e->groups_used = 1;
        else if (!e->bias && strcmp(method, "group_limited_greedy") != 0)
            fail(r, "topk_method", "is neither greedy, nor group_limited_greedy, nor noaux_tc");
    }
    if (r->status != TMS_OK) return;
    if (!tms_experts_fit(e))
        fail(r, "num_experts_per_tok", "and the other numbers of the experts contradict each other");
}

static void read_latent(struct reader *r, const json_t *text, struct tms_config *c)
{
    struct tms_latent *l = &c->latent;
    if (!is(c, "deepseek_v2") && !is(c, "deepseek_v3")) return;
    read_count(r, text, "q_lora_rank", MAX_DIM, &l->q_rank);
    read_count(r, text, "kv_lora_rank", MAX_DIM, &l->kv_rank);
    read_count(r, text, "qk_nope_head_dim", 1 << 16, &l->nope);
    read_count(r, text, "qk_rope_head_dim", 1 << 16, &l->rope);
    read_count(r, text, "v_head_dim", 1 << 16, &l->value);
    if (!l->kv_rank || !l->nope || !l->rope || !l->value)
        fail(r, "kv_lora_rank", "or another number of latent attention is missing");
    if (l->rope % 2 != 0) fail(r, "qk_rope_head_dim", "is odd");
    c->head_dim = l->nope + l->rope;
}

uint64_t tms_config_rope_dim(const struct tms_config *config)
{
    return config->latent.kv_rank ? config->latent.rope : config->head_dim;
}

bool tms_config_has_experts(const struct tms_config *config, uint64_t layer)
{
    const struct tms_experts *e = &config->experts;
    return e->n && layer >= e->n_dense && (layer + 1) % e->step == 0;
}

static void read_dtype(struct reader *r, const json_t *config, enum tms_type *out)
{
    char name[32] = "";
    read_text(r, config, "torch_dtype", name, sizeof name);
    read_text(r, config, "dtype", name, sizeof name);
    const char *bare = strncmp(name, "torch.", 6) == 0 ? name + 6 : name;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(bare, dtypes[i].name) == 0) *out = dtypes[i].type;
}

static void read_quantization(struct reader *r, const json_t *config, struct tms_config *c)
{
    if (!present(config, "quantization_config")) return;
    const json_t *q = json_object_get(config, "quantization_config");
    if (!json_is_object(q)) {
        fail(r, "quantization_config", "is not an object");
        return;
    }
    snprintf(c->quant_method, sizeof c->quant_method, "unnamed");
    read_text(r, q, "quant_method", c->quant_method, sizeof c->quant_method);
    const json_t *block = json_object_get(q, "weight_block_size");
    if (!block || json_is_null(block)) return;
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_array_get(block, i);
        if (json_array_size(block) != 2 || !json_is_integer(v) || json_integer_value(v) < 1 ||
            json_integer_value(v) > MAX_DIM) {
            fail(r, "weight_block_size", "is not a pair of positive numbers");
            return;
        }
        c->fp8_block[i] = (uint64_t)json_integer_value(v);
    }
}

tms_status tms_config_read(struct tms_config *out, const json_t *json, const char *path, struct tms_error *err)
{
    struct tms_config c = {.dtype = TMS_TYPE_NONE};
    struct reader r = {.path = path, .err = err};
    if (!json_is_object(json)) return tms_fail(err, TMS_EINPUT, "%s: is not a JSON object", path);

    const json_t *classes = json_object_get(json, "architectures");
    if (classes && !json_is_null(classes)) {
        const json_t *first = json_array_get(classes, 0);
        if (!json_is_array(classes) || (json_array_size(classes) && !json_is_string(first)))
            fail(&r, "architectures", "is not a list of names");
        else if (json_array_size(classes))
            snprintf(c.class_name, sizeof c.class_name, "%s", json_string_value(first));
    }
    read_text(&r, json, "model_type", c.model_type, sizeof c.model_type);
    if (r.status == TMS_OK && !c.model_type[0] && !c.class_name[0])
        return tms_fail(err, TMS_EINPUT, "%s: has neither \"model_type\" nor \"architectures\"", path);
    read_dtype(&r, json, &c.dtype);
    read_quantization(&r, json, &c);

    const json_t *text = present(json, "text_config") ? json_object_get(json, "text_config") : json;
    if (!json_is_object(text)) fail(&r, "text_config", "is not an object");
    read_count(&r, text, "num_hidden_layers", 1 << 13, &c.n_layers);
    read_count(&r, text, "hidden_size", MAX_DIM, &c.hidden);
    read_count(&r, text, "intermediate_size", MAX_DIM, &c.ffn);
    read_count(&r, text, "num_attention_heads", 1 << 16, &c.n_heads);
    c.n_kv_heads = c.n_heads;
    read_count(&r, text, "num_key_value_heads", 1 << 16, &c.n_kv_heads);
    read_count(&r, text, "head_dim", 1 << 16, &c.head_dim);
    read_count(&r, text, "vocab_size", MAX_DIM, &c.vocab);
    read_count(&r, text, "max_position_embeddings", 1u << 30, &c.context);
    c.has_head_dim = c.head_dim != 0;
    c.rms_eps = 1e-6;
    read_number(&r, text, "rms_norm_eps", &c.rms_eps);
    read_bool(&r, json, "tie_word_embeddings", &c.tied);
    read_bool(&r, text, "tie_word_embeddings", &c.tied);
    read_bool(&r, text, "attention_bias", &c.attention_bias);
    read_bool(&r, text, "mlp_bias", &c.mlp_bias);
    read_rope(&r, text, is(&c, "mixtral") || is(&c, "gemma3_text") ? 1e6 : 1e4, &c.rope);
    if (is(&c, "phi3") && !c.rope.original_context) c.rope.original_context = 4096;
    read_window(&r, text, &c);
    read_gemma(&r, text, &c);
    read_experts(&r, text, &c);
    read_latent(&r, text, &c);
    if (r.status != TMS_OK) return r.status;

    if (c.n_heads && c.n_kv_heads && c.n_heads % c.n_kv_heads != 0)
        return tms_fail(err, TMS_EINPUT, "%s: num_attention_heads %llu is no multiple of num_key_value_heads %llu",
                        path, (unsigned long long)c.n_heads, (unsigned long long)c.n_kv_heads);
    if (!c.head_dim && c.hidden && c.n_heads) {
        if (c.hidden % c.n_heads != 0)
            return tms_fail(err, TMS_EINPUT, "%s: hidden_size %llu is no multiple of num_attention_heads %llu", path,
                            (unsigned long long)c.hidden, (unsigned long long)c.n_heads);
        c.head_dim = c.hidden / c.n_heads;
    }
    c.has_shape = c.n_layers && c.hidden && c.ffn && c.n_heads && c.n_kv_heads && c.head_dim && c.vocab && c.context;
    *out = c;
    return TMS_OK;
}

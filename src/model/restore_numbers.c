/* The numbers of a model from the keys (and a few tensors) of a GGUF file. See restore.h; the keys are those of
 * metadata.c. What is not said gets the value that llama.cpp takes then; our own keys (own_keys.c) come last. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/metadata.h"
#include "model/restore.h"

#define MAX_DIM (1u << 28) /* as config.c */

/* A failed read leaves its status here and all later reads do nothing. */
struct reader {
    const struct tms_kvs *kvs;
    const struct tms_arch *arch;
    const char *path;
    struct tms_error *err;
    tms_status status;
};

static const struct tms_kv *find(const struct reader *r, const char *suffix)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", r->arch->gguf, suffix);
    return tms_kvs_find(r->kvs, key);
}

static void fail(struct reader *r, const char *suffix, const char *problem)
{
    if (r->status == TMS_OK)
        r->status = tms_fail(r->err, TMS_EINPUT, "%s: key '%s.%s' %s", r->path, r->arch->gguf, suffix, problem);
}

static void read_from(struct reader *r, const char *suffix, bool required, uint64_t min, uint64_t max, uint64_t *out)
{
    const struct tms_kv *kv = find(r, suffix);
    uint64_t n;
    if (!kv) {
        if (required) fail(r, suffix, "is missing");
    } else if (kv->type == TMS_KV_ARRAY) {
        fail(r, suffix, "is a list: layers that differ have no place in config.json");
    } else if (!tms_kv_as_u64(kv, &n) || n < min || n > max) {
        fail(r, suffix, "is no sensible number");
    } else {
        *out = n;
    }
}

static void read_count(struct reader *r, const char *suffix, bool required, uint64_t max, uint64_t *out)
{
    read_from(r, suffix, required, 1, max, out);
}

/* The double that has the shortest decimal spelling which reads back as this f32: 1e-05, not 9.99999974737875e-06. */
double tms_shortest(float x)
{
    char text[32];
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) return strtod(text, NULL);
    }
    snprintf(text, sizeof text, "%.9g", (double)x);
    return strtod(text, NULL);
}

static void read_number(struct reader *r, const char *suffix, bool required, double *out)
{
    const struct tms_kv *kv = find(r, suffix);
    double x;
    if (!kv) {
        if (required) fail(r, suffix, "is missing");
    } else if (!tms_kv_as_f64(kv, &x) || !isfinite(x) || x <= 0) {
        fail(r, suffix, "is no positive number");
    } else {
        *out = kv->type == TMS_KV_F32 ? tms_shortest((float)x) : x;
    }
}

static void read_flag(struct reader *r, const char *suffix, bool *out)
{
    const struct tms_kv *kv = find(r, suffix);
    uint64_t n;
    if (!kv) return;
    if (tms_kv_as_u64(kv, &n))
        *out = n != 0;
    else
        fail(r, suffix, "is neither true nor false");
}

static bool is(const struct reader *r, const char *gguf)
{
    return strcmp(r->arch->gguf, gguf) == 0;
}

/* ---- rope ---- */

/* DeepSeek's factor of attention is stored as a tenth of mscale_all_dim. */
static void read_mscale(struct reader *r, struct tms_rope *rope)
{
    double tenth = 0;
    read_number(r, "rope.scaling.yarn_log_multiplier", false, &tenth);
    if (tenth > 0) rope->mscale = rope->mscale_all_dim = tms_shortest((float)(tenth * 10));
}

static void read_rope(struct reader *r, struct tms_config *c)
{
    static const char type_key[] = "rope.scaling.type";
    struct tms_rope *rope = &c->rope;
    const struct tms_kv *kv = find(r, type_key);
    const char *type = kv ? tms_kv_as_string(kv) : "none";
    rope->theta = 10000;
    read_number(r, "rope.freq_base", false, &rope->theta);
    read_number(r, "rope.freq_base_swa", false, &rope->local_theta);
    if (!type || strcmp(type, "none") == 0) return;
    if (strcmp(type, "linear") == 0) {
        rope->kind = TMS_ROPE_LINEAR;
        read_number(r, "rope.scaling.factor", true, &rope->factor);
    } else if (strcmp(type, "yarn") == 0) {
        rope->kind = TMS_ROPE_YARN;
        read_number(r, "rope.scaling.factor", true, &rope->factor);
        read_count(r, "rope.scaling.original_context_length", true, MAX_DIM, &rope->original_context);
        read_number(r, "rope.scaling.yarn_ext_factor", false, &rope->ext_factor);
        read_number(r, "rope.scaling.yarn_attn_factor", false, &rope->attention_factor);
        read_number(r, "rope.scaling.yarn_beta_fast", false, &rope->beta_fast);
        read_number(r, "rope.scaling.yarn_beta_slow", false, &rope->beta_slow);
        read_mscale(r, rope);
    } else if (strcmp(type, "longrope") != 0) { /* its factors are tensors */
        fail(r, type_key, "names a scaling that has no place in this architecture's config.json");
    }
    snprintf(rope->name, sizeof rope->name, "%s", type);
}

/* Longrope's factor of attention, if it is not the one that follows from the contexts. */
static void read_longrope(struct reader *r, struct tms_config *c)
{
    double factor = 0;
    if (!is(r, "phi3") && c->rope.kind == TMS_ROPE_YARN) return;
    read_count(r, "rope.scaling.original_context_length", false, MAX_DIM, &c->rope.original_context);
    read_number(r, "rope.scaling.attn_factor", false, &factor);
    if (factor > 0 && (float)factor != (float)tms_longrope_attention(c)) c->rope.attention_factor = factor;
}

/* ---- what families of models have of their own ---- */

static void set_windows(struct tms_config *c, uint64_t pattern)
{
    for (uint64_t l = 0; l < c->n_layers && c->window; l++)
        if (pattern == 0 || (l + 1) % pattern != 0) tms_config_set_window(c, l);
}

/* llama.cpp takes the factor of attention from the numbers of the 27B models, and knows these by their layers. */
static void read_gemma(struct reader *r, struct tms_config *c)
{
    bool gemma2 = is(r, "gemma2"), gemma3 = is(r, "gemma3");
    if (!is(r, "gemma") && !gemma2 && !gemma3) return;
    c->norm_plus_one = c->scaled_embedding = true;
    c->activation = TMS_GELU_TANH;
    if (!gemma2 && !gemma3) return;
    bool is_27b = c->n_layers == (gemma2 ? 46 : 62);
    uint64_t scalar = is_27b && c->n_heads ? c->hidden / c->n_heads : c->head_dim; /* whole, as there */
    c->query_scalar = (double)scalar;
    c->attention_cap = gemma2 ? 50 : 0;
    c->logit_cap = gemma2 ? 30 : 0;
    c->window = gemma2 ? 4096 : 0;
    if (gemma2) read_number(r, "attn_logit_softcapping", false, &c->attention_cap);
    read_number(r, "final_logit_softcapping", false, &c->logit_cap);
    read_from(r, "attention.sliding_window", false, 0, 1u << 30, &c->window);
    set_windows(c, gemma2 ? 2 : 6);
    if (gemma3 && c->rope.local_theta <= 0) c->rope.local_theta = 10000;
}

/* Its files have the window that config.json has; llama.cpp does not apply it. */
static void read_phi3(struct reader *r, struct tms_config *c)
{
    if (!is(r, "phi3")) return;
    c->rope.original_context = 4096;
    read_from(r, "attention.sliding_window", false, 0, 1u << 30, &c->window);
    set_windows(c, 0);
}

static void read_latent(struct reader *r, struct tms_config *c)
{
    struct tms_latent *l = &c->latent;
    uint64_t key = 0;
    if (!is(r, "deepseek2")) return;
    if (!find(r, "attention.key_length_mla"))
        fail(r, "attention.key_length_mla", "is missing: the file is older than llama.cpp's latent attention (2025)");
    read_count(r, "attention.q_lora_rank", false, MAX_DIM, &l->q_rank);
    read_count(r, "attention.kv_lora_rank", true, MAX_DIM, &l->kv_rank);
    read_count(r, "attention.key_length_mla", true, 1 << 16, &key);
    read_count(r, "attention.value_length_mla", true, 1 << 16, &l->value);
    read_count(r, "rope.dimension_count", true, 1 << 16, &l->rope);
    if (l->rope % 2 != 0) fail(r, "rope.dimension_count", "is odd");
    if (r->status == TMS_OK && key <= l->rope) fail(r, "attention.key_length_mla", "is no more than what rotates");
    if (r->status != TMS_OK) return;
    l->nope = key - l->rope;
    c->head_dim = key;
    c->n_kv_heads = c->n_heads; /* the file says 1: all heads share the latent */
}

static void read_experts(struct reader *r, struct tms_config *c)
{
    struct tms_experts *e = &c->experts;
    bool deepseek = is(r, "deepseek2"), qwen2 = is(r, "qwen2moe"), qwen3 = is(r, "qwen3moe");
    bool mixtral = strcmp(r->arch->model_type, "mixtral") == 0;
    uint64_t gating = 1, n_shared = 0;
    if (!deepseek && !qwen2 && !qwen3 && !mixtral) return;
    read_count(r, "expert_count", true, TMS_MAX_EXPERTS, &e->n);
    read_count(r, "expert_used_count", true, TMS_MAX_EXPERTS, &e->used);
    if (r->status != TMS_OK) return;
    e->step = e->n_groups = e->groups_used = 1;
    e->scale = 1;
    e->normalize = qwen3 || mixtral; /* llama.cpp always does, and in qwen2moe never */
    e->ffn = mixtral ? c->ffn : qwen2 ? c->ffn / e->used : 0;
    if (!mixtral) read_count(r, "expert_feed_forward_length", deepseek || qwen3, MAX_DIM, &e->ffn);
    if (qwen2) {
        e->shared = c->ffn;
        read_from(r, "expert_shared_feed_forward_length", false, 0, MAX_DIM, &e->shared);
        e->shared_gate = e->shared != 0;
    }
    read_number(r, "expert_weights_scale", false, &e->scale);
    if (deepseek) {
        read_from(r, "leading_dense_block_count", false, 0, TMS_MAX_LAYERS, &e->n_dense);
        read_from(r, "expert_shared_count", false, 0, 1 << 10, &n_shared);
        e->shared = n_shared * e->ffn;
        read_flag(r, "expert_weights_norm", &e->normalize);
        read_from(r, "expert_gating_func", false, 0, 2, &gating);
        read_count(r, "expert_group_count", false, TMS_MAX_EXPERTS, &e->n_groups);
        read_count(r, "expert_group_used_count", false, TMS_MAX_EXPERTS, &e->groups_used);
        e->sigmoid = gating == 2;
        e->bias = e->sigmoid;
    }
    if (r->status == TMS_OK && !tms_experts_fit(e))
        fail(r, "expert_used_count", "and the other numbers of the experts contradict each other");
}

/* ---- all keys ---- */

tms_status tms_restore_keys(struct tms_config *out, const struct tms_kvs *kvs, const struct tms_arch *arch,
                            const char *path, struct tms_error *err)
{
    struct reader r = {.kvs = kvs, .arch = arch, .path = path, .err = err};
    struct tms_config c = {.dtype = TMS_TYPE_NONE, .has_shape = true};
    uint64_t value_length = 0, rope_dimension = 0;
    bool latent = is(&r, "deepseek2");
    snprintf(c.model_type, sizeof c.model_type, "%s", arch->model_type);
    snprintf(c.class_name, sizeof c.class_name, "%s", arch->class_name);
    read_count(&r, "block_count", true, TMS_MAX_LAYERS, &c.n_layers);
    read_count(&r, "context_length", true, 1u << 30, &c.context);
    read_count(&r, "embedding_length", true, MAX_DIM, &c.hidden);
    read_count(&r, "feed_forward_length", true, MAX_DIM, &c.ffn);
    read_count(&r, "attention.head_count", true, 1 << 16, &c.n_heads);
    c.n_kv_heads = c.n_heads;
    if (!latent) read_count(&r, "attention.head_count_kv", false, 1 << 16, &c.n_kv_heads);
    if (!latent) read_count(&r, "attention.key_length", false, 1 << 16, &c.head_dim);
    read_number(&r, "attention.layer_norm_rms_epsilon", true, &c.rms_eps);
    read_rope(&r, &c);
    if (r.status == TMS_OK && c.n_heads % c.n_kv_heads != 0)
        fail(&r, "attention.head_count", "is no multiple of head_count_kv");
    c.has_head_dim = c.head_dim != 0 || (!latent && arch->qk_norm); /* Qwen3's default would be 128 */
    read_latent(&r, &c);
    if (!c.head_dim && r.status == TMS_OK) {
        c.head_dim = c.hidden / c.n_heads;
        if (c.hidden % c.n_heads != 0 || !c.head_dim)
            fail(&r, "embedding_length", "is no multiple of attention.head_count");
    }
    value_length = rope_dimension = c.head_dim;
    if (!latent) {
        read_count(&r, "attention.value_length", false, 1 << 16, &value_length);
        if (value_length != c.head_dim)
            fail(&r, "attention.value_length", "is not that of keys; config.json has one number for both");
        read_count(&r, "rope.dimension_count", false, 1 << 16, &rope_dimension);
        if (rope_dimension != c.head_dim)
            fail(&r, "rope.dimension_count", "is not a whole head; config.json has no place for that");
        if (c.head_dim % 2 != 0) fail(&r, "attention.key_length", "is odd");
    }
    read_gemma(&r, &c);
    read_phi3(&r, &c);
    read_longrope(&r, &c);
    read_experts(&r, &c);
    if (r.status == TMS_OK) r.status = tms_metadata_read_own(&c, kvs, path, err);
    if (r.status != TMS_OK) return r.status;
    /* A window makes a model of "llama" Mistral's. */
    if (c.window && strcmp(c.model_type, "llama") == 0) {
        snprintf(c.model_type, sizeof c.model_type, "mistral");
        snprintf(c.class_name, sizeof c.class_name, "MistralForCausalLM");
    }
    *out = c;
    return TMS_OK;
}

/* Keys of the architecture that are understood, or are known to say nothing more. */
static void warn_of_other_keys(const struct reader *r, const struct tms_restore_options *options)
{
    static const char *const known[] = {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.layer_norm_rms_epsilon",
        "attention.key_length",
        "attention.value_length",
        "vocab_size",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "rope.scaling.finetuned",
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_log_multiplier",
        "rope.freq_base_swa",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "attention.sliding_window",
        "attention.q_lora_rank",
        "attention.kv_lora_rank",
        "attention.key_length_mla",
        "attention.value_length_mla",
        "leading_dense_block_count",
        "expert_count",
        "expert_used_count",
        "expert_group_count",
        "expert_group_used_count",
        "expert_gating_func",
        "expert_feed_forward_length",
        "expert_shared_feed_forward_length",
        "expert_shared_count",
        "expert_weights_scale",
        "expert_weights_norm",
    };
    size_t n = strlen(r->arch->gguf);
    for (size_t i = 0; i < r->kvs->n && options->warn; i++) {
        const char *key = r->kvs->items[i].key;
        bool understood = strncmp(key, r->arch->gguf, n) != 0 || key[n] != '.';
        for (size_t k = 0; k < sizeof known / sizeof *known && !understood; k++)
            understood = strcmp(key + n + 1, known[k]) == 0;
        if (understood) continue;
        char line[300];
        snprintf(line, sizeof line, "%.60s: key '%.160s' has no place in config.json and is left out",
                 tms_path_base(r->path), key);
        options->warn(options->warn_ctx, line);
    }
}

/* ---- what tensors say ---- */

/* The n values of a table of rope; NULL in *out if there is none. Free it with free. */
static tms_status read_table(const struct tms_source *s, const char *name, uint64_t n, float **out,
                             struct tms_error *err)
{
    const struct tms_tensor *tensor = tms_source_find(s, name);
    *out = NULL;
    if (!tensor) return TMS_OK;
    if (tensor->type != TMS_F32 || tensor->n_elems != n)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is not F32 [%llu], half a head", s->files[tensor->file]->path,
                        name, (unsigned long long)n);
    float *raw = tms_calloc(n, sizeof *raw), *table = tms_calloc(n, sizeof *table);
    tms_status status = raw && table ? tms_source_read(s, tensor, 0, n, raw, table, err) : tms_fail_memory(err, n * 8);
    free(raw);
    if (status == TMS_OK)
        *out = table;
    else
        free(table);
    return status;
}

static tms_status restore_llama3(struct tms_config *c, const struct tms_source *s, struct tms_error *err)
{
    static const char name[] = "rope_freqs.weight";
    uint64_t half = tms_config_rope_dim(c) / 2;
    float *table, *scratch = NULL;
    tms_status status = read_table(s, name, half, &table, err);
    if (status != TMS_OK || !table) return status;
    scratch = tms_calloc(half, sizeof *scratch);
    if (!scratch)
        status = tms_fail_memory(err, half * 4);
    else if (c->rope.kind != TMS_ROPE_DEFAULT || !tms_restore_llama3(c, table, half, scratch))
        status = tms_fail(err, TMS_EINPUT,
                          "%s: tensor '%s' is not the table of a Llama 3 rope scaling; config.json has no other place "
                          "for it",
                          s->files[tms_source_find(s, name)->file]->path, name);
    else if (c->rope.kind == TMS_ROPE_LLAMA3)
        snprintf(c->rope.name, sizeof c->rope.name, "llama3");
    free(scratch);
    free(table);
    return status;
}

static tms_status restore_longrope(struct tms_config *c, const struct tms_source *s, struct tms_error *err)
{
    static const char *const names[] = {"rope_factors_short.weight", "rope_factors_long.weight"};
    float *const lists[] = {c->rope.short_factors, c->rope.long_factors};
    uint64_t half = tms_config_rope_dim(c) / 2, n = 0;
    const char *missing = NULL;
    for (size_t i = 0; i < 2; i++) {
        float *table;
        tms_status status = read_table(s, names[i], half, &table, err);
        if (status != TMS_OK) return status;
        if (!table) {
            missing = names[i];
            continue;
        }
        bool ok = half <= TMS_MAX_LONGROPE;
        for (uint64_t k = 0; k < half && ok; k++) {
            lists[i][k] = table[k];
            ok = table[k] > 0 && table[k] < 1e9f;
        }
        free(table);
        n++;
        if (!ok)
            return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' holds no factors of a rope scaling", s->path, names[i]);
    }
    if (n == 0 && strcmp(c->rope.name, "longrope") != 0) return TMS_OK;
    if (missing) return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' of its rope scaling is missing", s->path, missing);
    if (c->rope.kind != TMS_ROPE_DEFAULT)
        return tms_fail(err, TMS_EINPUT, "%s: has tensor '%s' and another rope scaling", s->path, names[0]);
    c->rope.kind = TMS_ROPE_LONGROPE;
    c->rope.n_factors = half;
    snprintf(c->rope.name, sizeof c->rope.name, "longrope");
    return TMS_OK;
}

static bool has_tensor(const struct tms_source *s, const char *pattern, uint64_t layer)
{
    char name[64];
    tms_arch_name(name, sizeof name, pattern, (int)layer, -1);
    return tms_source_find(s, name) != NULL;
}

tms_status tms_restore_numbers(struct tms_config *out, const struct tms_source *source,
                               const struct tms_restore_options *options, struct tms_error *err)
{
    const struct tms_arch *arch = source->arch;
    struct reader r = {.kvs = &source->gguf->kvs, .arch = arch, .path = source->path, .err = err};
    struct tms_config c;
    const struct tms_tensor *embedding = tms_source_find(source, "token_embd.weight");
    tms_status status = tms_restore_keys(&c, r.kvs, arch, source->path, err);
    if (status == TMS_OK && !embedding)
        status = tms_fail(err, TMS_EINPUT, "%s: tensor 'token_embd.weight' is missing", source->path);
    if (status == TMS_OK) status = restore_longrope(&c, source, err);
    if (status == TMS_OK) status = restore_llama3(&c, source, err);
    if (status != TMS_OK || !embedding) return status;
    c.dtype = options->dtype;
    c.vocab = embedding->rows;
    c.tied = !has_tensor(source, "output.weight", 0);
    c.attention_bias = !arch->qkv_bias && has_tensor(source, "blk.0.attn_q.bias", 0);
    c.mlp_bias = arch->bit == TMS_A_LLAMA && is(&r, "llama") && has_tensor(source, "blk.0.ffn_up.bias", 0);
    if (c.experts.bias) c.experts.bias = has_tensor(source, "blk.#.exp_probs_b.bias", c.experts.n_dense);
    warn_of_other_keys(&r, options);
    *out = c;
    return TMS_OK;
}

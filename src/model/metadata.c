/* See metadata.h. Keys and their order: llama.cpp's conversion scripts (gguf-py/gguf/constants.py). */
#include "model/metadata.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PI_F 6.28318530717958647692f /* 2 pi */

void tms_size_label(char out[32], uint64_t n_parameters)
{
    static const struct {
        double above, scale;
        const char *suffix;
    } steps[] = {{1e12, 1e-12, "T"}, {1e9, 1e-9, "B"}, {1e6, 1e-6, "M"}, {-1, 1e-3, "K"}};
    double n = (double)n_parameters;
    for (size_t i = 0; i < 4; i++) {
        if (n <= steps[i].above) continue;
        double scaled = n * steps[i].scale;
        snprintf(out, 32, "%.*f%s", nearbyint(scaled) < 10 ? nearbyint(scaled) < 1 ? 2 : 1 : 0, scaled,
                 steps[i].suffix);
        return;
    }
}

/* Last part of the real path, '-' to spaces, words of small letters capitalized (also after '_'), as the
 * converter guesses a title. */
static char *title_of(const char *path)
{
    char *real = realpath(path, NULL);
    if (!real) return NULL;
    char *title = strdup(tms_path_base(real));
    free(real);
    if (!title) return NULL;
    for (char *c = title; *c; c++)
        if (*c == '-') *c = ' ';
    for (char *word = title; *word;) {
        size_t n = strcspn(word, " ");
        bool has_upper = false;
        for (size_t i = 0; i < n; i++) has_upper |= isupper((unsigned char)word[i]) != 0;
        bool starts_number = isdigit((unsigned char)word[0]) || (word[0] == 'v' && isdigit((unsigned char)word[1]));
        for (size_t i = 0; i < n && !has_upper && !starts_number; i++)
            if (i == 0 || !isalpha((unsigned char)word[i - 1])) word[i] = (char)toupper((unsigned char)word[i]);
        word += n + (word[n] != '\0');
    }
    return title;
}

/* f32 throughout and in the order of torch's operations (scalar / tensor is reciprocal, then product). */
bool tms_rope_freqs(const struct tms_config *config, float *out)
{
    if (config->rope.kind != TMS_ROPE_LLAMA3) return false;
    float factor = (float)config->rope.factor;
    float low = config->rope.low_freq_factor > 0 ? (float)config->rope.low_freq_factor : 1.0f;
    float high = config->rope.high_freq_factor > 0 ? (float)config->rope.high_freq_factor : 4.0f;
    float context = config->rope.original_context ? (float)config->rope.original_context : 8192.0f;
    for (uint64_t i = 0; i < config->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)config->head_dim;
        float frequency = 1.0f / (float)pow((float)config->rope.theta, exponent);
        float wavelength = (1.0f / frequency) * PI_F;
        if (wavelength < context / high) {
            out[i] = 1.0f;
        } else if (wavelength > context / low) {
            out[i] = factor;
        } else {
            float smooth = ((1.0f / wavelength) * context - low) / (high - low);
            out[i] = 1.0f / ((1.0f - smooth) / factor + smooth);
        }
    }
    return true;
}

/* sqrt(1 + ln(max / original) / ln(original)), 1 where the context is no longer than the original one. */
double tms_longrope_attention(const struct tms_config *c)
{
    double original = (double)c->rope.original_context, scale = original > 0 ? (double)c->context / original : 1;
    if (c->rope.attention_factor > 0) return c->rope.attention_factor;
    return scale > 1 && original > 1 ? sqrt(1 + log(scale) / log(original)) : 1;
}

struct builder {
    struct tms_kvs *kvs;
    const char *arch;
    char key[128];
};

static const char *key(struct builder *b, const char *suffix)
{
    snprintf(b->key, sizeof b->key, "%s.%s", b->arch, suffix);
    return b->key;
}

static void put_u32(struct builder *b, const char *suffix, uint64_t v)
{
    tms_kvs_set_u32(b->kvs, key(b, suffix), (uint32_t)v);
}

static void put_f32(struct builder *b, const char *suffix, double v)
{
    tms_kvs_set_f32(b->kvs, key(b, suffix), (float)v);
}

static void put_rope_scaling(struct builder *b, const struct tms_source *source,
                             const struct tms_metadata_options *options)
{
    const struct tms_rope *rope = &source->config.rope;
    if (rope->kind == TMS_ROPE_LINEAR) {
        tms_kvs_set_string(b->kvs, key(b, "rope.scaling.type"), "linear");
        put_f32(b, "rope.scaling.factor", rope->factor);
    } else if (rope->kind == TMS_ROPE_YARN) {
        tms_kvs_set_string(b->kvs, key(b, "rope.scaling.type"), "yarn");
        put_f32(b, "rope.scaling.factor", rope->factor);
        put_u32(b, "rope.scaling.original_context_length",
                rope->original_context ? rope->original_context : source->config.context);
        if (rope->ext_factor > 0) put_f32(b, "rope.scaling.yarn_ext_factor", rope->ext_factor);
        if (rope->attention_factor > 0) put_f32(b, "rope.scaling.yarn_attn_factor", rope->attention_factor);
        if (rope->beta_fast > 0) put_f32(b, "rope.scaling.yarn_beta_fast", rope->beta_fast);
        if (rope->beta_slow > 0) put_f32(b, "rope.scaling.yarn_beta_slow", rope->beta_slow);
    } else if (rope->kind == TMS_ROPE_LONGROPE) { /* only outside Phi-3, which has no such key */
        tms_kvs_set_string(b->kvs, key(b, "rope.scaling.type"), "longrope");
    } else if ((rope->kind == TMS_ROPE_DYNAMIC || rope->kind == TMS_ROPE_OTHER) && options->warn) {
        char line[160];
        snprintf(line, sizeof line, "rope scaling '%s' has no place in a GGUF file; long texts will not be as good",
                 rope->name);
        options->warn(options->warn_ctx, line);
    }
}

static bool is(const struct builder *b, const char *arch)
{
    return strcmp(b->arch, arch) == 0;
}

/* DeepSeek's heads share one latent: to llama.cpp that is one head of keys and values, as long as it. */
static void put_heads(struct builder *b, const struct tms_config *c)
{
    put_u32(b, "attention.head_count", c->n_heads);
    put_u32(b, "attention.head_count_kv", c->latent.kv_rank ? 1 : c->n_kv_heads);
}

static void put_head_lengths(struct builder *b, const struct tms_config *c)
{
    const struct tms_latent *l = &c->latent;
    if (!l->kv_rank && !c->has_head_dim && !c->activation) return; /* Gemma's files always have them */
    put_u32(b, "attention.key_length", l->kv_rank ? l->kv_rank + l->rope : c->head_dim);
    put_u32(b, "attention.value_length", l->kv_rank ? l->kv_rank : c->head_dim);
}

static void put_file_type(struct builder *b, const struct tms_metadata_options *options)
{
    tms_kvs_set_u32(b->kvs, "general.file_type", (uint32_t)options->file_type);
}

/* The numbers of most architectures. */
static void put_usual(struct builder *b, const struct tms_source *source, const struct tms_metadata_options *options)
{
    const struct tms_config *c = &source->config;
    const struct tms_experts *e = &c->experts;
    put_u32(b, "block_count", c->n_layers);
    put_u32(b, "context_length", c->context);
    put_u32(b, "embedding_length", c->hidden);
    put_u32(b, "feed_forward_length", c->ffn);
    put_heads(b, c);
    put_rope_scaling(b, source, options);
    put_f32(b, "rope.freq_base", c->rope.theta);
    if (c->rope.local_theta > 0) put_f32(b, "rope.freq_base_swa", c->rope.local_theta);
    put_f32(b, "attention.layer_norm_rms_epsilon", c->rms_eps);
    if (e->n) {
        put_u32(b, "expert_count", e->n);
        put_u32(b, "expert_used_count", e->used);
    }
    if (is(b, "deepseek2")) {
        put_u32(b, "expert_group_count", e->n_groups);
        put_u32(b, "expert_group_used_count", e->groups_used);
        put_u32(b, "expert_gating_func", e->sigmoid ? 2 : 1);
    }
    put_head_lengths(b, c);
    put_file_type(b, options);
}

static void put_gemma(struct builder *b, const struct tms_source *source, const struct tms_metadata_options *options)
{
    const struct tms_config *c = &source->config;
    put_u32(b, "context_length", c->context);
    put_u32(b, "embedding_length", c->hidden);
    put_u32(b, "block_count", c->n_layers);
    put_u32(b, "feed_forward_length", c->ffn);
    put_heads(b, c);
    put_f32(b, "attention.layer_norm_rms_epsilon", c->rms_eps);
    put_head_lengths(b, c);
    put_file_type(b, options);
    /* Not in the converter's files; where it is another one than llama.cpp takes then, ours say so. */
    if ((float)c->rope.theta != 10000.0f) put_f32(b, "rope.freq_base", c->rope.theta);
    put_rope_scaling(b, source, options);
}

static void put_phi3(struct builder *b, const struct tms_source *source, const struct tms_metadata_options *options)
{
    const struct tms_config *c = &source->config;
    put_u32(b, "context_length", c->context);
    put_u32(b, "rope.scaling.original_context_length", c->rope.original_context);
    put_u32(b, "embedding_length", c->hidden);
    put_u32(b, "feed_forward_length", c->ffn);
    put_u32(b, "block_count", c->n_layers);
    put_heads(b, c);
    put_f32(b, "attention.layer_norm_rms_epsilon", c->rms_eps);
    put_u32(b, "rope.dimension_count", c->head_dim);
    put_f32(b, "rope.freq_base", c->rope.theta);
    put_file_type(b, options);
    put_u32(b, "attention.sliding_window", c->window);
    if (c->rope.kind != TMS_ROPE_LONGROPE) put_rope_scaling(b, source, options);
}

/* What comes behind the usual ones. */
static void put_more(struct builder *b, const struct tms_config *c)
{
    const struct tms_experts *e = &c->experts;
    const struct tms_latent *l = &c->latent;
    bool qwen2moe = is(b, "qwen2moe"), gemma3 = is(b, "gemma3");
    if (qwen2moe || is(b, "qwen3moe")) put_u32(b, "expert_feed_forward_length", e->ffn);
    if (qwen2moe) put_u32(b, "expert_shared_feed_forward_length", e->shared);
    if (is(b, "gemma2") && c->attention_cap > 0) put_f32(b, "attn_logit_softcapping", c->attention_cap);
    if ((is(b, "gemma2") || gemma3) && c->logit_cap > 0) put_f32(b, "final_logit_softcapping", c->logit_cap);
    if ((is(b, "gemma2") || gemma3) && c->window) put_u32(b, "attention.sliding_window", c->window);
    if (!is(b, "deepseek2")) return;
    put_u32(b, "leading_dense_block_count", e->n_dense);
    put_u32(b, "vocab_size", c->vocab);
    if (l->q_rank) put_u32(b, "attention.q_lora_rank", l->q_rank);
    put_u32(b, "attention.kv_lora_rank", l->kv_rank);
    put_u32(b, "attention.key_length_mla", l->nope + l->rope);
    put_u32(b, "attention.value_length_mla", l->value);
    put_u32(b, "expert_feed_forward_length", e->ffn);
    put_u32(b, "expert_shared_count", e->ffn ? e->shared / e->ffn : 0);
    put_f32(b, "expert_weights_scale", e->scale);
    if (e->normalize) tms_kvs_set_bool(b->kvs, key(b, "expert_weights_norm"), true);
    put_u32(b, "rope.dimension_count", l->rope);
    if (c->rope.mscale_all_dim > 0) put_f32(b, "rope.scaling.yarn_log_multiplier", 0.1 * c->rope.mscale_all_dim);
}

tms_status tms_metadata_build(struct tms_kvs *kvs, const struct tms_source *source,
                              const struct tms_metadata_options *options, struct tms_error *err)
{
    const struct tms_config *c = &source->config;
    struct builder b = {.kvs = kvs, .arch = source->arch->gguf};
    char label[32], size[64];
    char *title = options->name ? strdup(options->name) : title_of(source->path);
    if (!title) return tms_fail_memory(err, 256);
    tms_size_label(label, options->n_parameters);
    snprintf(size, sizeof size, "%s", label);
    if (c->experts.n) snprintf(size, sizeof size, "%llux%s", (unsigned long long)c->experts.n, label);

    tms_kvs_set_string(kvs, "general.architecture", b.arch);
    if (c->rope.kind == TMS_ROPE_LONGROPE) put_f32(&b, "rope.scaling.attn_factor", tms_longrope_attention(c));
    tms_kvs_set_string(kvs, "general.type", "model");
    if (*title) tms_kvs_set_string(kvs, "general.name", title);
    free(title);
    tms_kvs_set_string(kvs, "general.size_label", size);
    if (is(&b, "gemma") || is(&b, "gemma2"))
        put_gemma(&b, source, options);
    else if (is(&b, "phi3"))
        put_phi3(&b, source, options);
    else
        put_usual(&b, source, options);
    put_more(&b, c);
    if (source->arch->rope_dimension && !c->latent.kv_rank) {
        put_u32(&b, "vocab_size", c->vocab);
        put_u32(&b, "rope.dimension_count", c->head_dim);
    }
    tms_kvs_set_u32(kvs, "general.quantization_version", 2);
    return kvs->failed ? tms_fail_memory(err, 0) : TMS_OK;
}

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
    } else if ((rope->kind == TMS_ROPE_DYNAMIC || rope->kind == TMS_ROPE_OTHER) && options->warn) {
        char line[160];
        snprintf(line, sizeof line, "rope scaling '%s' has no place in a GGUF file; long texts will not be as good",
                 rope->name);
        options->warn(options->warn_ctx, line);
    }
}

tms_status tms_metadata_build(struct tms_kvs *kvs, const struct tms_source *source,
                              const struct tms_metadata_options *options, struct tms_error *err)
{
    const struct tms_config *c = &source->config;
    struct builder b = {.kvs = kvs, .arch = source->arch->gguf};
    char label[32];
    char *title = options->name ? strdup(options->name) : title_of(source->path);
    if (!title) return tms_fail_memory(err, 256);
    tms_size_label(label, options->n_parameters);

    tms_kvs_set_string(kvs, "general.architecture", b.arch);
    tms_kvs_set_string(kvs, "general.type", "model");
    if (*title) tms_kvs_set_string(kvs, "general.name", title);
    free(title);
    tms_kvs_set_string(kvs, "general.size_label", label);
    put_u32(&b, "block_count", c->n_layers);
    put_u32(&b, "context_length", c->context);
    put_u32(&b, "embedding_length", c->hidden);
    put_u32(&b, "feed_forward_length", c->ffn);
    put_u32(&b, "attention.head_count", c->n_heads);
    put_u32(&b, "attention.head_count_kv", c->n_kv_heads);
    put_rope_scaling(&b, source, options);
    put_f32(&b, "rope.freq_base", c->rope.theta);
    put_f32(&b, "attention.layer_norm_rms_epsilon", c->rms_eps);
    if (c->has_head_dim) {
        put_u32(&b, "attention.key_length", c->head_dim);
        put_u32(&b, "attention.value_length", c->head_dim);
    }
    tms_kvs_set_u32(kvs, "general.file_type", (uint32_t)options->file_type);
    if (source->arch->rope_dimension) {
        put_u32(&b, "vocab_size", c->vocab);
        put_u32(&b, "rope.dimension_count", c->head_dim);
    }
    tms_kvs_set_u32(kvs, "general.quantization_version", 2);
    return kvs->failed ? tms_fail_memory(err, 0) : TMS_OK;
}

void tms_metadata_window(struct tms_kvs *kvs, const struct tms_config *c)
{
    uint8_t layers[TMS_MAX_LAYERS];
    uint64_t n = 0;
    for (uint64_t l = 0; l < c->n_layers && l < TMS_MAX_LAYERS; l++) {
        layers[l] = tms_config_window(c, l) != 0;
        n += layers[l];
    }
    if (n == 0 || c->window >= c->context) return;
    tms_kvs_set_u32(kvs, TMS_KEY_WINDOW, (uint32_t)c->window);
    if (n < c->n_layers) tms_kvs_set_array(kvs, TMS_KEY_WINDOW_LAYERS, TMS_KV_BOOL, c->n_layers, layers, c->n_layers);
}

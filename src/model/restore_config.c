/* config.json from the keys of a GGUF file. See restore.h; the keys are those of metadata.c. */
#include "model/restore.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/metadata.h"
#include "model/restore_parts.h"

#define MAX_DIM (1u << 28) /* as config.c */

/* A failed read leaves its status here and all later reads do nothing. */
struct reader {
    const struct tms_source *source;
    const char *path;
    struct tms_error *err;
    tms_status status;
};

static const struct tms_kv *find(const struct reader *r, const char *suffix)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", r->source->arch->gguf, suffix);
    return tms_kvs_find(&r->source->gguf->kvs, key);
}

static void fail(struct reader *r, const char *suffix, const char *problem)
{
    if (r->status == TMS_OK)
        r->status = tms_fail(r->err, TMS_EINPUT, "%s: key '%s.%s' %s", r->path, r->source->arch->gguf, suffix, problem);
}

static void read_count(struct reader *r, const char *suffix, bool required, uint64_t max, uint64_t *out)
{
    const struct tms_kv *kv = find(r, suffix);
    uint64_t n;
    if (!kv) {
        if (required) fail(r, suffix, "is missing");
    } else if (kv->type == TMS_KV_ARRAY) {
        fail(r, suffix, "is a list: layers that differ have no place in config.json");
    } else if (!tms_kv_as_u64(kv, &n) || n < 1 || n > max) {
        fail(r, suffix, "is no sensible number");
    } else {
        *out = n;
    }
}

/* The double that has the shortest decimal spelling which reads back as this f32: 1e-05, not 9.99999974737875e-06. */
static double shortest(float x)
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
        *out = kv->type == TMS_KV_F32 ? shortest((float)x) : x;
    }
}

/* ---- rope scaling ---- */

/* Largest relative difference between `table` and the table that the parameters give; infinite if they give none. */
static double distance(const struct tms_config *config, const float *table, uint64_t n, float *scratch)
{
    double worst = 0;
    if (!tms_rope_freqs(config, scratch)) return INFINITY;
    for (uint64_t i = 0; i < n; i++) {
        double d = fabs((double)scratch[i] / (double)table[i] - 1);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

struct band {
    uint64_t first, last; /* of the values between 1 and the factor; first > last if there are none */
    double factor;
};

static double wavelength(const struct tms_config *config, uint64_t i)
{
    return 2 * M_PI * pow(config->rope.theta, (double)(2 * i) / (double)config->head_dim);
}

/* s in 1 / ((1 - s) / factor + s) */
static double smoothness(const struct band *band, float value)
{
    return (1 / (double)value - 1 / band->factor) / (1 - 1 / band->factor);
}

/* The contexts that could have given the table, given low = 1 and high: a few around the estimate. */
static size_t contexts(const struct tms_config *config, const struct band *band, const float *table, double high,
                       uint64_t out[32])
{
    size_t count = 0;
    if (band->first <= band->last) {
        uint64_t i = band->first + (band->last - band->first) / 2;
        double estimate = (smoothness(band, table[i]) * (high - 1) + 1) * wavelength(config, i);
        if (!(estimate > 1 && estimate < MAX_DIM)) return 0;
        out[count++] = (uint64_t)llround(estimate);
        out[count++] = out[0] + 1;
        if (out[0] > 1) out[count++] = out[0] - 1;
        return count;
    }
    out[count++] = 8192; /* Llama 3's own; then any that gives the same table does */
    for (unsigned bit = 0; bit < 28; bit++) out[count++] = UINT64_C(1) << bit;
    return count;
}

/* Two values between 1 and the factor give s = ctx / (high - low) / wavelength - low / (high - low) as a line. */
static double solve_high(const struct tms_config *config, const struct band *band, const float *table)
{
    double x1 = 1 / wavelength(config, band->first), x2 = 1 / wavelength(config, band->last);
    double s1 = smoothness(band, table[band->first]), s2 = smoothness(band, table[band->last]);
    double slope = (s1 - s2) / (x1 - x2), high = 1 + 1 / (slope * x1 - s1);
    return isfinite(high) && high > 1 && high < 1e6 ? round(high * 100) / 100 : 4;
}

/* Only low / high and ctx / high can be told from a table; low is 1, as in all published models. Last bits may differ
 * (pow of another library), the numbers are still the right ones: the next context is 1e-5 away. */
bool tms_restore_llama3(struct tms_config *config, const float *table, uint64_t n, float *scratch)
{
    struct band band = {.first = 0};
    uint64_t candidates[32];
    double best = 1e-6;
    bool found = false;
    if (n == 0 || n != config->head_dim / 2) return false;
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(table[i]) || table[i] <= 0) return false;
    band.factor = shortest(table[n - 1]);
    while (band.first < n && table[band.first] == 1) band.first++;
    if (band.first == n) return true; /* all 1: no scaling */
    uint64_t end = n;                 /* behind the band */
    while (end > band.first && table[end - 1] == table[n - 1]) end--;
    struct tms_config guess = *config, right = *config;
    bool empty = end == band.first;
    band.last = empty ? 0 : end - 1;
    if (empty) band.first = 1;
    const double highs[2] = {4, band.first < band.last ? solve_high(config, &band, table) : 4};
    for (size_t h = 0; h < 2; h++) {
        size_t n_candidates = contexts(config, &band, table, highs[h], candidates);
        for (size_t c = 0; c < n_candidates; c++) {
            guess.rope.kind = TMS_ROPE_LLAMA3;
            guess.rope.factor = band.factor;
            guess.rope.low_freq_factor = 1;
            guess.rope.high_freq_factor = highs[h];
            guess.rope.original_context = candidates[c];
            double d = distance(&guess, table, n, scratch);
            if (d < best || (d == best && !found)) {
                best = d;
                right = guess;
                found = true;
            }
        }
    }
    if (found) *config = right;
    return found;
}

static void read_rope_table(struct reader *r, struct tms_config *c)
{
    const struct tms_tensor *tensor = tms_source_find(r->source, "rope_freqs.weight");
    if (!tensor || r->status != TMS_OK) return;
    const char *file = r->source->files[tensor->file]->path;
    if (tensor->type != TMS_F32 || tensor->n_elems != c->head_dim / 2) {
        r->status = tms_fail(r->err, TMS_EINPUT, "%s: tensor 'rope_freqs.weight' is not F32 [%llu], half a head", file,
                             (unsigned long long)(c->head_dim / 2));
        return;
    }
    float *raw = tms_calloc(tensor->n_elems, sizeof *raw), *table = tms_calloc(tensor->n_elems, sizeof *table);
    r->status = raw && table ? tms_source_read(r->source, tensor, 0, tensor->n_elems, raw, table, r->err)
                             : tms_fail_memory(r->err, tensor->bytes * 2);
    if (r->status == TMS_OK &&
        (c->rope.kind != TMS_ROPE_DEFAULT || !tms_restore_llama3(c, table, tensor->n_elems, raw)))
        r->status = tms_fail(r->err, TMS_EINPUT,
                             "%s: tensor 'rope_freqs.weight' is not the table of a Llama 3 rope scaling; config.json "
                             "has no other place for it",
                             file);
    free(raw);
    free(table);
}

static void read_rope(struct reader *r, struct tms_config *c)
{
    static const char type_key[] = "rope.scaling.type";
    struct tms_rope *rope = &c->rope;
    const struct tms_kv *kv = find(r, type_key);
    const char *type = kv ? tms_kv_as_string(kv) : "none";
    rope->theta = 10000;
    read_number(r, "rope.freq_base", false, &rope->theta);
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
    } else {
        fail(r, type_key, "names a scaling that has no place in this architecture's config.json");
    }
}

/* ---- numbers ---- */

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
    };
    const struct tms_kvs *kvs = &r->source->gguf->kvs;
    size_t n = strlen(r->source->arch->gguf);
    for (size_t i = 0; i < kvs->n && options->warn; i++) {
        const char *key = kvs->items[i].key;
        bool understood = strncmp(key, r->source->arch->gguf, n) != 0 || key[n] != '.';
        for (size_t k = 0; k < sizeof known / sizeof *known && !understood; k++)
            understood = strcmp(key + n + 1, known[k]) == 0;
        if (understood) continue;
        char line[300];
        snprintf(line, sizeof line, "%.60s: key '%.160s' has no place in config.json and is left out",
                 tms_path_base(r->path), key);
        options->warn(options->warn_ctx, line);
    }
}

/* A window makes a model of "llama" Mistral's. */
static void read_window(struct reader *r, struct tms_config *c)
{
    const struct tms_kvs *kvs = &r->source->gguf->kvs;
    const struct tms_kv *kv = tms_kvs_find(kvs, TMS_KEY_WINDOW), *list = tms_kvs_find(kvs, TMS_KEY_WINDOW_LAYERS);
    uint64_t n;
    if (!kv) return;
    bool ok = tms_kv_as_u64(kv, &n) && n > 0 && n < 1u << 30;
    if (ok && list) ok = list->type == TMS_KV_ARRAY && list->elem_type == TMS_KV_BOOL && list->count == c->n_layers;
    if (!ok) {
        r->status =
            tms_fail(r->err, TMS_EINPUT, "%s: key '%s' or its list of layers makes no sense", r->path, TMS_KEY_WINDOW);
        return;
    }
    c->window = n;
    for (uint64_t l = 0; l < c->n_layers; l++)
        if (!list || list->bytes[l]) tms_config_set_window(c, l);
    if (strcmp(c->model_type, "llama") != 0) return;
    snprintf(c->model_type, sizeof c->model_type, "mistral");
    snprintf(c->class_name, sizeof c->class_name, "MistralForCausalLM");
}

static bool has_tensor(const struct tms_source *s, const char *name)
{
    return tms_source_find(s, name) != NULL;
}

tms_status tms_restore_numbers(struct tms_config *out, const struct tms_source *source,
                               const struct tms_restore_options *options, struct tms_error *err)
{
    const struct tms_arch *arch = source->arch;
    struct reader r = {.source = source, .path = source->path, .err = err};
    struct tms_config c = {.dtype = options->dtype, .has_shape = true};
    uint64_t value_length = 0, rope_dimension = 0;
    bool is_llama = strcmp(arch->gguf, "llama") == 0;
    const struct tms_tensor *embedding = tms_source_find(source, "token_embd.weight");
    snprintf(c.model_type, sizeof c.model_type, "%s", arch->model_type);
    snprintf(c.class_name, sizeof c.class_name, "%s", arch->class_name);
    read_count(&r, "block_count", true, 1 << 13, &c.n_layers);
    read_count(&r, "context_length", true, 1u << 30, &c.context);
    read_count(&r, "embedding_length", true, MAX_DIM, &c.hidden);
    read_count(&r, "feed_forward_length", true, MAX_DIM, &c.ffn);
    read_count(&r, "attention.head_count", true, 1 << 16, &c.n_heads);
    c.n_kv_heads = c.n_heads;
    read_count(&r, "attention.head_count_kv", false, 1 << 16, &c.n_kv_heads);
    read_count(&r, "attention.key_length", false, 1 << 16, &c.head_dim);
    read_number(&r, "attention.layer_norm_rms_epsilon", true, &c.rms_eps);
    read_rope(&r, &c);
    if (r.status == TMS_OK && c.n_heads % c.n_kv_heads != 0)
        fail(&r, "attention.head_count", "is no multiple of head_count_kv");
    c.has_head_dim = c.head_dim != 0 || arch->qk_norm; /* Qwen3's default would be 128 */
    if (!c.head_dim && r.status == TMS_OK) {
        c.head_dim = c.hidden / c.n_heads;
        if (c.hidden % c.n_heads != 0 || !c.head_dim)
            fail(&r, "embedding_length", "is no multiple of attention.head_count");
    }
    value_length = rope_dimension = c.head_dim;
    read_count(&r, "attention.value_length", false, 1 << 16, &value_length);
    if (value_length != c.head_dim)
        fail(&r, "attention.value_length", "is not that of keys; config.json has one number for both");
    read_count(&r, "rope.dimension_count", false, 1 << 16, &rope_dimension);
    if (rope_dimension != c.head_dim)
        fail(&r, "rope.dimension_count", "is not a whole head; config.json has no place for that");
    if (arch->permutes && c.head_dim % 2 != 0) fail(&r, "attention.key_length", "is odd");
    if (r.status == TMS_OK && !embedding)
        r.status = tms_fail(err, TMS_EINPUT, "%s: tensor 'token_embd.weight' is missing", source->path);
    read_rope_table(&r, &c);
    if (r.status != TMS_OK || !embedding) return r.status;
    c.vocab = embedding->rows;
    c.tied = !has_tensor(source, "output.weight");
    c.attention_bias = !arch->qkv_bias && has_tensor(source, "blk.0.attn_q.bias");
    c.mlp_bias = is_llama && has_tensor(source, "blk.0.ffn_up.bias");
    read_window(&r, &c);
    if (r.status != TMS_OK) return r.status;
    warn_of_other_keys(&r, options);
    *out = c;
    return TMS_OK;
}

/* ---- JSON ---- */

static json_t *id_or_null(const struct tms_source *source, const char *name)
{
    uint64_t id;
    return tms_restored_id(&source->gguf->kvs, name, &id) ? json_integer((json_int_t)id) : json_null();
}

static void put_if(json_t **object, const char *key, double value)
{
    if (value > 0) tms_restored_set(object, key, json_real(value));
}

static json_t *rope_scaling(const struct tms_rope *rope)
{
    static const char *const names[] = {
        [TMS_ROPE_LINEAR] = "linear", [TMS_ROPE_YARN] = "yarn", [TMS_ROPE_LLAMA3] = "llama3"};
    if (rope->kind == TMS_ROPE_DEFAULT) return json_null();
    json_t *scaling = json_pack("{s:s}", "rope_type", names[rope->kind]);
    put_if(&scaling, "factor", rope->factor);
    put_if(&scaling, "low_freq_factor", rope->low_freq_factor);
    put_if(&scaling, "high_freq_factor", rope->high_freq_factor);
    put_if(&scaling, "extrapolation_factor", rope->ext_factor);
    put_if(&scaling, "attention_factor", rope->attention_factor);
    put_if(&scaling, "beta_fast", rope->beta_fast);
    put_if(&scaling, "beta_slow", rope->beta_slow);
    if (rope->original_context)
        tms_restored_set(&scaling, "original_max_position_embeddings",
                         json_integer((json_int_t)rope->original_context));
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

/* Qwen's form: a list of kinds. */
static void put_window(json_t **json, const struct tms_config *c)
{
    json_t *kinds = json_array();
    for (uint64_t l = 0; l < c->n_layers; l++)
        json_array_append_new(kinds, json_string(tms_config_window(c, l) ? "sliding_attention" : "full_attention"));
    tms_restored_set(json, "use_sliding_window", json_true());
    tms_restored_set(json, "sliding_window", json_integer((json_int_t)c->window));
    tms_restored_set(json, "layer_types", kinds);
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
        "rope_scaling", rope_scaling(&c->rope), "tie_word_embeddings", c->tied, "torch_dtype",
        tms_torch_dtype_name(options->dtype), "bos_token_id", id_or_null(source, "bos"), "eos_token_id",
        id_or_null(source, "eos"), "pad_token_id", id_or_null(source, "padding"));
    if (c->has_head_dim) tms_restored_set(&json, "head_dim", json_integer((json_int_t)c->head_dim));
    bool mistral = strcmp(c->model_type, "mistral") == 0; /* it has no biases to tell of */
    if (!source->arch->qkv_bias && !mistral) tms_restored_set(&json, "attention_bias", json_boolean(c->attention_bias));
    if (strcmp(c->model_type, "llama") == 0) tms_restored_set(&json, "mlp_bias", json_boolean(c->mlp_bias));
    if (mistral)
        tms_restored_set(&json, "sliding_window", json_integer((json_int_t)c->window));
    else if (c->window)
        put_window(&json, c);
    tms_status status = tms_restored_put_json(files, "config.json", json, err);
    if (status != TMS_OK) return status;
    return tms_restored_put_json(files, "generation_config.json",
                                 json_pack("{s:o, s:o, s:o}", "bos_token_id", id_or_null(source, "bos"), "eos_token_id",
                                           ends(source), "pad_token_id", id_or_null(source, "padding")),
                                 err);
}

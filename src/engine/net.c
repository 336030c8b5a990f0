/* Finding, checking and holding the weights of a net. See net.h. */
#include "engine/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "engine/net_parts.h"
#include "model/metadata.h"
#include "model/restore.h"

/* Which tensors of the table of architectures (arch.h) are what. */
#define LAYER "model.layers.#."
#define ATTN  LAYER "self_attn."
#define MLP   LAYER "mlp."
#define MOE   LAYER "block_sparse_moe."
enum { LINEAR, VECTOR, EXPERT, FUSED_QKV, FUSED_GATE_UP, EMBEDDING };
static const struct {
    const char *hf;
    int kind, which;
} places[] = {
    {"model.embed_tokens.weight", EMBEDDING, 0},
    {ATTN "q_proj.weight", LINEAR, TMS_LINEAR_Q},
    {ATTN "k_proj.weight", LINEAR, TMS_LINEAR_K},
    {ATTN "v_proj.weight", LINEAR, TMS_LINEAR_V},
    {ATTN "qkv_proj.weight", FUSED_QKV, 0},
    {ATTN "o_proj.weight", LINEAR, TMS_LINEAR_O},
    {ATTN "q_a_proj.weight", LINEAR, TMS_LINEAR_Q_A},
    {ATTN "q_b_proj.weight", LINEAR, TMS_LINEAR_Q_B},
    {ATTN "kv_a_proj_with_mqa.weight", LINEAR, TMS_LINEAR_KV_A},
    {ATTN "kv_b_proj.weight", LINEAR, TMS_LINEAR_KV_B},
    {MLP "gate_proj.weight", LINEAR, TMS_LINEAR_GATE},
    {MLP "up_proj.weight", LINEAR, TMS_LINEAR_UP},
    {MLP "gate_up_proj.weight", FUSED_GATE_UP, 0},
    {MLP "down_proj.weight", LINEAR, TMS_LINEAR_DOWN},
    {MLP "gate.weight", LINEAR, TMS_LINEAR_ROUTER},
    {MOE "gate.weight", LINEAR, TMS_LINEAR_ROUTER},
    {MLP "experts.%.gate_proj.weight", EXPERT, 0},
    {MLP "experts.%.up_proj.weight", EXPERT, 1},
    {MLP "experts.%.down_proj.weight", EXPERT, 2},
    {MOE "experts.%.w1.weight", EXPERT, 0},
    {MOE "experts.%.w3.weight", EXPERT, 1},
    {MOE "experts.%.w2.weight", EXPERT, 2},
    {MLP "shared_expert_gate.weight", LINEAR, TMS_LINEAR_SHARED_SWITCH},
    {MLP "shared_expert.gate_proj.weight", LINEAR, TMS_LINEAR_SHARED_GATE},
    {MLP "shared_expert.up_proj.weight", LINEAR, TMS_LINEAR_SHARED_UP},
    {MLP "shared_expert.down_proj.weight", LINEAR, TMS_LINEAR_SHARED_DOWN},
    {MLP "shared_experts.gate_proj.weight", LINEAR, TMS_LINEAR_SHARED_GATE},
    {MLP "shared_experts.up_proj.weight", LINEAR, TMS_LINEAR_SHARED_UP},
    {MLP "shared_experts.down_proj.weight", LINEAR, TMS_LINEAR_SHARED_DOWN},
    {"lm_head.weight", LINEAR, TMS_LINEAR_HEAD},
    {ATTN "q_proj.bias", VECTOR, TMS_VECTOR_BIAS + TMS_LINEAR_Q},
    {ATTN "k_proj.bias", VECTOR, TMS_VECTOR_BIAS + TMS_LINEAR_K},
    {ATTN "v_proj.bias", VECTOR, TMS_VECTOR_BIAS + TMS_LINEAR_V},
    {ATTN "o_proj.bias", VECTOR, TMS_VECTOR_BIAS + TMS_LINEAR_O},
    {MLP "gate_proj.bias", VECTOR, TMS_VECTOR_BIAS + TMS_LINEAR_GATE},
    {MLP "up_proj.bias", VECTOR, TMS_VECTOR_BIAS + TMS_LINEAR_UP},
    {MLP "down_proj.bias", VECTOR, TMS_VECTOR_BIAS + TMS_LINEAR_DOWN},
    {MLP "gate.e_score_correction_bias", VECTOR, TMS_VECTOR_ROUTER_BIAS},
    {ATTN "q_norm.weight", VECTOR, TMS_VECTOR_Q_NORM},
    {ATTN "k_norm.weight", VECTOR, TMS_VECTOR_K_NORM},
    {ATTN "q_a_layernorm.weight", VECTOR, TMS_VECTOR_Q_A_NORM},
    {ATTN "kv_a_layernorm.weight", VECTOR, TMS_VECTOR_KV_A_NORM},
    {LAYER "input_layernorm.weight", VECTOR, TMS_VECTOR_ATTN_NORM},
    {LAYER "post_attention_layernorm.weight", VECTOR, TMS_VECTOR_FFN_NORM}, /* but see take_tensor */
    {LAYER "pre_feedforward_layernorm.weight", VECTOR, TMS_VECTOR_FFN_NORM},
    {LAYER "post_feedforward_layernorm.weight", VECTOR, TMS_VECTOR_POST_FFN_NORM},
    {"model.norm.weight", VECTOR, TMS_VECTOR_FFN_NORM},
};

static const char *file_of(const struct tms_source *s, const struct tms_tensor *t)
{
    return s->files[t->file]->path;
}

/* ---- numbers ---- */

static tms_status read_config(struct tms_net *net, struct tms_error *err)
{
    const struct tms_source *s = net->source;
    if (s->kind == TMS_SOURCE_CONFIG)
        return tms_fail(err, TMS_EINPUT, "%s: is a config.json alone; to run a model its weights are needed", s->path);
    if (s->kind == TMS_SOURCE_HF && !s->has_config)
        return tms_fail(err, TMS_EINPUT,
                        "%s: is one file of tensors; to run a model its config.json is needed: name the folder",
                        s->path);
    if (!s->arch)
        return tms_fail(err, TMS_EINPUT, "%s: architecture '%s' cannot be run; those that can are %s", s->path,
                        tms_source_arch_name(s), tms_arch_known());
    if (s->kind == TMS_SOURCE_GGUF) {
        struct tms_restore_options options = {.dtype = TMS_F32};
        tms_status status = tms_restore_numbers(&net->config, s, &options, err);
        net->pairs = s->arch->permutes || net->config.latent.kv_rank ? TMS_ROPE_NEIGHBOURS : TMS_ROPE_HALVES;
        return status;
    }
    net->config = s->config;
    net->pairs = net->config.latent.kv_rank ? TMS_ROPE_NEIGHBOURS : TMS_ROPE_HALVES;
    const char *act = json_string_value(json_object_get(s->config_json, "hidden_activation"));
    if (!act) act = json_string_value(json_object_get(s->config_json, "hidden_act"));
    bool gelu = act && (strcmp(act, "gelu_pytorch_tanh") == 0 || (net->config.activation && strcmp(act, "gelu") == 0));
    bool silu = act && (strcmp(act, "silu") == 0 || strcmp(act, "swish") == 0);
    if (act && !(net->config.activation == TMS_SILU ? silu : gelu))
        return tms_fail(err, TMS_EINPUT, "%s: hidden_act '%s' cannot be run, only %s", s->path, act,
                        net->config.activation == TMS_SILU ? "silu" : "gelu_pytorch_tanh");
    if (!net->config.has_shape)
        return tms_fail(err, TMS_EINPUT,
                        "%s: config.json lacks numbers that give the shape of a decoder (num_hidden_layers, …)",
                        s->path);
    return TMS_OK;
}

static tms_status read_divisors(struct tms_net *net, struct tms_error *err)
{
    const struct tms_config *c = &net->config;
    const struct tms_tensor *table =
        net->source->kind == TMS_SOURCE_GGUF ? tms_source_find(net->source, "rope_freqs.weight") : NULL;
    uint64_t half = tms_config_rope_dim(c) / 2;
    if (tms_config_rope_dim(c) % 2 != 0 || half == 0)
        return tms_fail(err, TMS_EINPUT, "%s: %llu values of a head cannot be rotated: not an even number",
                        net->source->path, (unsigned long long)tms_config_rope_dim(c));
    if (!table && c->rope.kind != TMS_ROPE_LLAMA3) return TMS_OK;
    net->divisors = tms_calloc(half, sizeof *net->divisors);
    float *raw = tms_calloc(half, sizeof *raw);
    tms_status status = TMS_OK;
    if (!net->divisors || !raw)
        status = tms_fail_memory(err, half * 4);
    else if (table) /* its type and size were checked with the numbers */
        status = tms_source_read(net->source, table, 0, half, raw, net->divisors, err);
    else
        tms_rope_freqs(c, net->divisors);
    free(raw);
    return status;
}

/* ---- tensors ---- */

/* parts: how many matrices are stacked in the tensor (GGUF's experts); 1: it is one. */
static tms_status check_shape(const struct tms_net *net, const struct tms_tensor *t, const uint64_t *expected,
                              uint32_t n, uint64_t parts, struct tms_error *err)
{
    uint64_t shape[TMS_ST_MAX_DIMS] = {0};
    uint32_t n_dims = tms_source_shape(t, shape);
    const uint64_t *inner = parts > 1 ? shape + 1 : shape;
    bool ok = parts > 1 ? n_dims == n + 1 && shape[0] == parts : n_dims == n;
    if (ok && inner[0] == expected[0] && (n == 1 || inner[1] == expected[1])) return TMS_OK;
    char text[96], stack[32] = "";
    if (parts > 1) snprintf(stack, sizeof stack, "%llu, ", (unsigned long long)parts);
    if (n == 1)
        snprintf(text, sizeof text, "[%s%llu]", stack, (unsigned long long)expected[0]);
    else
        snprintf(text, sizeof text, "[%s%llu, %llu]", stack, (unsigned long long)expected[0],
                 (unsigned long long)expected[1]);
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': expected %s by the model's numbers", file_of(net->source, t),
                    t->name, text);
}

static tms_status read_vector(const struct tms_net *net, const struct tms_tensor *t, float **out, struct tms_error *err)
{
    if (!tms_source_decodes(t))
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': its type cannot be decoded to run the model",
                        file_of(net->source, t), t->name);
    float *values = tms_calloc(t->n_weights, sizeof *values);
    void *raw = tms_calloc(t->bytes, 1);
    tms_status status = values && raw ? tms_source_read(net->source, t, 0, t->n_weights, raw, values, err)
                                      : tms_fail_memory(err, t->n_weights * 4);
    free(raw);
    if (status == TMS_OK)
        *out = values;
    else
        free(values);
    return status;
}

static tms_status find(const struct tms_net *net, const char *name, const struct tms_tensor **out,
                       struct tms_error *err)
{
    *out = tms_source_find(net->source, name);
    if (*out) return TMS_OK;
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is missing; the model cannot be run without it",
                    net->source->path, name);
}

/* GGUF's two tensors for what folders have as kv_b: keys [heads][kv_rank][nope], values [heads][value][kv_rank]. */
static tms_status take_split_kv(struct tms_net *net, struct tms_net_layer *to, int layer, struct tms_error *err)
{
    const struct tms_latent *l = &net->config.latent;
    const struct {
        const char *name;
        enum tms_linear linear;
        uint64_t shape[2];
    } parts[] = {{"blk.#.attn_k_b.weight", TMS_LINEAR_K_B, {l->kv_rank, l->nope}},
                 {"blk.#.attn_v_b.weight", TMS_LINEAR_V_B, {l->value, l->kv_rank}}};
    for (size_t i = 0; i < 2; i++) {
        char name[64];
        const struct tms_tensor *t;
        tms_arch_name(name, sizeof name, parts[i].name, layer, -1);
        tms_status status = find(net, name, &t, err);
        if (status == TMS_OK) status = check_shape(net, t, parts[i].shape, 2, net->config.n_heads, err);
        if (status == TMS_OK) status = tms_weight_init(&to->linear[parts[i].linear], net->source, t, err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

/* Parts of a fused matrix: the rows of several linear layers, one after the other. */
static tms_status take_fused(struct tms_net *net, struct tms_net_layer *to, const struct tms_tensor *t,
                             const enum tms_linear *linears, const uint64_t *rows, size_t n, struct tms_error *err)
{
    uint64_t first = 0;
    for (size_t i = 0; i < n; i++) {
        tms_status status = tms_weight_init(&to->linear[linears[i]], net->source, t, err);
        if (status != TMS_OK) return status;
        tms_weight_part(&to->linear[linears[i]], first, rows[i]);
        first += rows[i];
    }
    return TMS_OK;
}

static tms_status take_expert(struct tms_net *net, struct tms_net_layer *to, const struct tms_tensor *t, int which,
                              int expert, uint64_t rows, bool stacked, struct tms_error *err)
{
    uint64_t n = net->config.experts.n;
    if (!to->experts[which]) to->experts[which] = tms_calloc(n, sizeof *to->experts[which]);
    if (!to->experts[which]) return tms_fail_memory(err, n * sizeof *to->experts[which]);
    struct tms_weight *w = &to->experts[which][expert];
    tms_status status = tms_weight_init(w, net->source, t, err);
    if (status == TMS_OK && stacked) tms_weight_part(w, (uint64_t)expert * rows, rows);
    return status;
}

static tms_status take_tensor(struct tms_net *net, const struct tms_arch_step *step, struct tms_error *err)
{
    const struct tms_config *c = &net->config;
    const struct tms_arch_tensor *row = step->row;
    bool gguf = net->source->kind == TMS_SOURCE_GGUF, stacked = gguf && step->expert >= 0;
    struct tms_net_layer *to = &net->layers[step->layer < 0 ? (int)c->n_layers : step->layer];
    const struct tms_tensor *t = NULL;
    char name[160];
    uint64_t shape[2];
    if (gguf && !row->gguf) return take_split_kv(net, to, step->layer, err);
    tms_arch_name(name, sizeof name, gguf ? row->gguf : row->hf, step->layer, step->expert);
    tms_status status = find(net, name, &t, err);
    uint32_t n = tms_arch_shape(c, row, shape);
    if (gguf && row->when == TMS_SHARED_GATE && t && t->n_dims == 1) n = 1, shape[0] = c->hidden; /* one row */
    if (status == TMS_OK) status = check_shape(net, t, shape, n, stacked ? c->experts.n : 1, err);
    if (status != TMS_OK) return status;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (strcmp(places[i].hf, row->hf) != 0) continue;
        int which = places[i].which;
        switch (places[i].kind) {
        case LINEAR: return tms_weight_init(&to->linear[which], net->source, t, err);
        case EXPERT: return take_expert(net, to, t, which, step->expert, shape[0], stacked, err);
        case FUSED_QKV:
            return take_fused(
                net, to, t, (const enum tms_linear[]){TMS_LINEAR_Q, TMS_LINEAR_K, TMS_LINEAR_V},
                (const uint64_t[]){c->n_heads * c->head_dim, c->n_kv_heads * c->head_dim, c->n_kv_heads * c->head_dim},
                3, err);
        case FUSED_GATE_UP:
            return take_fused(net, to, t, (const enum tms_linear[]){TMS_LINEAR_GATE, TMS_LINEAR_UP},
                              (const uint64_t[]){c->ffn, c->ffn}, 2, err);
        case EMBEDDING:
            status = tms_weight_init(&net->embedding, net->source, t, err);
            if (status != TMS_OK || !c->tied) return status;
            return tms_weight_init(&to->linear[TMS_LINEAR_HEAD], net->source, t, err);
        default: break;
        }
        /* Where there are four norms, this name is that of attention's result, not of what comes behind it. */
        if (strcmp(row->gguf, "blk.#.post_attention_norm.weight") == 0) which = TMS_VECTOR_POST_ATTN_NORM;
        const bool plus_one = !gguf && row->transform == TMS_PLUS_ONE;
        float **values = &to->vectors[which];
        status = read_vector(net, t, values, err);
        to->vectors_from[which] = (struct tms_net_values){.tensor = t, .plus_one = plus_one};
        for (uint64_t k = 0; status == TMS_OK && plus_one && k < t->n_weights; k++) (*values)[k] += 1;
        return status;
    }
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is nothing that can be run yet", file_of(net->source, t), name);
}

static tms_status take_tensors(struct tms_net *net, struct tms_error *err)
{
    struct tms_arch_step step = {0};
    while (tms_arch_next(&step, net->source->arch, &net->config)) {
        tms_status status = take_tensor(net, &step, err);
        if (status != TMS_OK) return status;
    }
    for (uint64_t l = 0; l < net->config.n_layers; l++) {
        net->layers[l].window = (size_t)tms_config_window(&net->config, l);
        net->layers[l].mixture = tms_config_has_experts(&net->config, l);
    }
    return TMS_OK;
}

/* A tensor that nothing here computes with means that the model is another one than it says. Layers behind the last
 * (of multi-token prediction) are no part of the model. */
static tms_status refuse_unknown(const struct tms_net *net, struct tms_error *err)
{
    const struct tms_source *s = net->source;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct tms_tensor *t = &s->tensors[i];
        int layer = -1, expert;
        bool gguf = s->kind == TMS_SOURCE_GGUF;
        if (t->is_scale || tms_arch_ignores(t->name) || strncmp(t->name, "rope_f", 6) == 0) continue;
        const struct tms_arch_tensor *row = gguf ? tms_arch_explain_gguf(s->arch, t->name, &layer)
                                                 : tms_arch_explain(s->arch, t->name, &layer, &expert);
        if (tms_arch_layer_of(t->name) >= (int)net->config.n_layers) continue;
        if (row && (row->when == TMS_UNTIED || tms_arch_has(s->arch, &net->config, row, layer))) continue;
        if (gguf && net->config.latent.kv_rank &&
            (strstr(t->name, ".attn_k_b.weight") || strstr(t->name, ".attn_v_b.weight")))
            continue;
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' has no place in a model of %s; it cannot be run",
                        file_of(s, t), t->name, tms_source_arch_name(s));
    }
    return TMS_OK;
}

/* ---- holding ---- */

static tms_status map_files(struct tms_net *net, struct tms_error *err)
{
    const struct tms_source *s = net->source;
    net->maps = tms_calloc(s->n_files, sizeof *net->maps);
    if (!net->maps) return tms_fail_memory(err, s->n_files * sizeof *net->maps);
    for (size_t i = 0; i < s->n_files; i++) {
        size_t size = (size_t)s->files[i]->size;
        if (size == 0) continue;
        void *base = mmap(NULL, size, PROT_READ, MAP_PRIVATE, s->files[i]->fd, 0);
        if (base == MAP_FAILED)
            return tms_fail(err, TMS_EIO, "%s: cannot be mapped into memory (%zu bytes)", s->files[i]->path, size);
        net->maps[i] = (struct tms_net_map){base, size};
    }
    return TMS_OK;
}

/* i = 0 … until NULL: all matrices of a layer, parts of one tensor after each other. */
static struct tms_weight *weight_at(const struct tms_net *net, struct tms_net_layer *layer, size_t i)
{
    size_t n = (size_t)net->config.experts.n;
    if (i < TMS_LINEARS) return &layer->linear[i];
    i -= TMS_LINEARS;
    if (n == 0 || !layer->experts[0] || i >= 3 * n) return NULL;
    return layer->experts[i / n] ? &layer->experts[i / n][i % n] : NULL;
}

static void drop_layer(const struct tms_net *net, struct tms_net_layer *layer)
{
    struct tms_weight *w;
    for (size_t i = 0; (w = weight_at(net, layer, i)); i++)
        if (w->tensor) tms_weight_drop(w);
    free(layer->held);
    layer->held = NULL;
}

static tms_status hold_weight(struct tms_net *net, struct tms_net_layer *layer, struct tms_weight *w,
                              const struct tms_weight *before, uint64_t *at, struct tms_error *err)
{
    const struct tms_source *s = net->source;
    const struct tms_tensor *t = w->tensor;
    if (before && before->tensor == t) {
        w->borrows = true;
        w->data = before->data;
        w->scales = before->scales;
        return TMS_OK;
    }
    tms_status status = tms_weight_scales(w, err);
    if (status != TMS_OK) return status;
    if (!net->options.bounded) {
        w->data = (const uint8_t *)net->maps[t->file].base + t->offset;
        return TMS_OK;
    }
    w->data = layer->held + *at;
    status = tms_file_read(s->files[t->file], layer->held + *at, t->bytes, t->offset, err);
    *at += t->bytes;
    return status;
}

static uint64_t stored_bytes(const struct tms_net *net, struct tms_net_layer *layer, bool scales)
{
    const struct tms_tensor *before = NULL;
    struct tms_weight *w;
    uint64_t bytes = 0;
    for (size_t i = 0; (w = weight_at(net, layer, i)); i++) {
        if (w->tensor && w->tensor != before) bytes += scales ? tms_weight_bytes(w) : w->tensor->bytes;
        if (w->tensor) before = w->tensor;
    }
    return bytes;
}

static tms_status hold_layer(struct tms_net *net, struct tms_net_layer *layer, struct tms_error *err)
{
    tms_status status = TMS_OK;
    struct tms_weight *w, *before = NULL;
    uint64_t at = 0, bytes = stored_bytes(net, layer, false);
    if (net->options.bounded) {
        layer->held = tms_calloc(bytes, 1);
        if (!layer->held) return tms_fail_memory(err, bytes);
    }
    for (size_t i = 0; status == TMS_OK && (w = weight_at(net, layer, i)); i++) {
        if (!w->tensor) continue;
        status = hold_weight(net, layer, w, before, &at, err);
        before = w;
    }
    if (status != TMS_OK) drop_layer(net, layer);
    return status;
}

tms_status tms_net_hold(struct tms_net *net, uint64_t first, uint64_t n, struct tms_error *err)
{
    if (!net->options.bounded) return TMS_OK;
    for (uint64_t l = 0; l <= net->config.n_layers; l++)
        if (l < first || l >= first + n) drop_layer(net, &net->layers[l]);
    for (uint64_t l = first; l < first + n && l <= net->config.n_layers; l++) {
        if (net->layers[l].held) continue;
        tms_status status = hold_layer(net, &net->layers[l], err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

uint64_t tms_net_layer_bytes(const struct tms_net *net, uint64_t i)
{
    return stored_bytes(net, &net->layers[i], true);
}

/* ---- matrices, for those who change them ---- */

bool tms_net_matrix(const struct tms_net *net, uint64_t layer, size_t *at, struct tms_net_matrix *out)
{
    const struct tms_weight *w;
    while ((w = weight_at(net, &net->layers[layer], *at)) && !w->tensor) ++*at;
    if (!w) return false;
    size_t expert = *at < TMS_LINEARS ? 0 : *at - TMS_LINEARS, n = (size_t)net->config.experts.n;
    *out = (struct tms_net_matrix){
        .tensor = w->tensor, .expert = -1, .first_row = w->first_row, .rows = w->rows, .cols = w->cols};
    if (*at < TMS_LINEARS) {
        out->linear = (enum tms_linear) * at;
    } else {
        out->linear = (enum tms_linear)(TMS_LINEAR_EXPERT_GATE + expert / n);
        out->expert = (int)(expert % n);
    }
    ++*at;
    return true;
}

void tms_net_matrix_values(const struct tms_net *net, uint64_t layer, size_t at, float *out)
{
    const struct tms_weight *w = weight_at(net, &net->layers[layer], at - 1);
    float piece[TMS_DOT_PIECE + 16];
    for (uint64_t r = 0; r < w->rows; r++)
        for (uint64_t col = 0; col < w->cols; col += TMS_DOT_PIECE) {
            uint64_t n_cols = w->cols - col < TMS_DOT_PIECE ? w->cols - col : TMS_DOT_PIECE;
            tms_weight_tile(w, r, 1, col, n_cols, piece, TMS_DOT_PIECE);
            memcpy(out + r * w->cols + col, piece, n_cols * sizeof *out);
        }
}

void tms_net_replace(struct tms_net *net, uint64_t layer, size_t at, const struct tms_tensor *made, const uint8_t *rows)
{
    struct tms_weight *w = weight_at(net, &net->layers[layer], at - 1);
    if (!w->replaced) w->stored = w->tensor, w->stored_row = w->first_row;
    w->replaced = true;
    w->tensor = made;
    w->first_row = 0;
    w->data = rows;
}

bool tms_net_vector(const struct tms_net *net, uint64_t layer, enum tms_net_vector which, struct tms_net_values *out)
{
    const struct tms_net_layer *from = &net->layers[layer];
    *out = from->vectors_from[which];
    out->values = from->vectors[which];
    return out->values != NULL;
}

/* ---- opening ---- */

tms_status tms_net_open(struct tms_net **out, const struct tms_source *source, struct tms_pool *pool,
                        const struct tms_net_options *options, struct tms_error *err)
{
    struct tms_net *net = calloc(1, sizeof *net);
    if (!net) return tms_fail_memory(err, sizeof *net);
    net->source = source;
    net->pool = pool;
    if (options) net->options = *options;
    tms_status status = read_config(net, err);
    if (status == TMS_OK) {
        net->layers = tms_calloc(net->config.n_layers + 1, sizeof *net->layers);
        if (!net->layers) status = tms_fail_memory(err, net->config.n_layers * sizeof *net->layers);
    }
    if (status == TMS_OK) status = read_divisors(net, err);
    if (status == TMS_OK) {
        float factor, *frequencies = tms_calloc(tms_config_rope_dim(&net->config) / 2, sizeof *frequencies);
        status = frequencies /* only to see whether the scaling is known */
                     ? tms_rope_frequencies(&net->config, false, net->divisors, 1, frequencies, &factor, err)
                     : tms_fail_memory(err, net->config.head_dim);
        free(frequencies);
    }
    if (status == TMS_OK) status = take_tensors(net, err);
    if (status == TMS_OK) status = refuse_unknown(net, err);
    if (status == TMS_OK && !net->options.bounded) {
        status = map_files(net, err);
        for (uint64_t l = 0; l <= net->config.n_layers && status == TMS_OK; l++)
            status = hold_layer(net, &net->layers[l], err);
    }
    if (status != TMS_OK) {
        tms_net_close(net);
        return status;
    }
    *out = net;
    return TMS_OK;
}

void tms_net_close(struct tms_net *net)
{
    if (!net) return;
    for (uint64_t l = 0; net->layers && l <= net->config.n_layers; l++) {
        drop_layer(net, &net->layers[l]);
        for (size_t i = 0; i < TMS_VECTORS; i++) free(net->layers[l].vectors[i]);
        for (size_t i = 0; i < 3; i++) free(net->layers[l].experts[i]);
    }
    for (size_t i = 0; net->maps && i < net->source->n_files; i++)
        if (net->maps[i].base) munmap(net->maps[i].base, net->maps[i].size);
    free(net->maps);
    free(net->layers);
    free(net->divisors);
    tms_net_free_memory(net);
    free(net);
}

void tms_net_describe(const struct tms_net *net, struct tms_net_info *info)
{
    const struct tms_config *c = &net->config;
    *info = (struct tms_net_info){.n_layers = c->n_layers,
                                  .hidden = c->hidden,
                                  .vocab = c->vocab,
                                  .context = c->context,
                                  .n_kv_heads = c->latent.kv_rank ? 1 : c->n_kv_heads,
                                  .key_dim = c->latent.kv_rank ? c->latent.kv_rank + c->latent.rope : c->head_dim,
                                  .value_dim = c->latent.kv_rank ? c->latent.kv_rank : c->head_dim,
                                  .latent = c->latent.kv_rank != 0,
                                  .n_experts = c->experts.n,
                                  .n_experts_used = c->experts.used,
                                  .turns_again = c->rope.kind != TMS_ROPE_LONGROPE ? UINT64_MAX
                                                 : c->rope.original_context        ? c->rope.original_context
                                                                                   : c->context,
                                  .stride = tms_net_stride(net)};
}

/* Whether a row of `places` says where the linear layer's weight is. */
static bool is_place_of(const struct tms_net *net, size_t place, enum tms_linear linear)
{
    switch (places[place].kind) {
    case LINEAR: return places[place].which == (int)linear;
    case EXPERT: return (int)TMS_LINEAR_EXPERT_GATE + places[place].which == (int)linear;
    case FUSED_QKV: return linear == TMS_LINEAR_Q || linear == TMS_LINEAR_K || linear == TMS_LINEAR_V;
    case EMBEDDING: return linear == TMS_LINEAR_HEAD && net->config.tied;
    case FUSED_GATE_UP: return linear == TMS_LINEAR_GATE || linear == TMS_LINEAR_UP;
    default: return false;
    }
}

bool tms_net_linear_name(const struct tms_net *net, uint64_t i, enum tms_linear linear, bool gguf, char *out,
                         size_t size)
{
    static const char ending[] = ".weight";
    const struct tms_config *c = &net->config;
    int layer = i < c->n_layers ? (int)i : -1;
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        char name[128];
        int of_layer, expert;
        if (!is_place_of(net, k, linear)) continue;
        tms_arch_name(name, sizeof name, places[k].hf, layer, 0);
        const struct tms_arch_tensor *row = tms_arch_explain(net->source->arch, name, &of_layer, &expert);
        if (!row || of_layer != layer || !tms_arch_has(net->source->arch, c, row, layer)) continue;
        if (gguf && !row->gguf) return false;
        if (gguf) {
            tms_arch_name(out, size, row->gguf, layer, -1);
            return true;
        }
        const char *experts = strstr(name, "experts.0.");
        size_t n = strlen(name) - (sizeof ending - 1);
        if (expert >= 0 && experts)
            snprintf(out, size, "%.*s%.*s", (int)(experts + 8 - name), name, (int)(name + n - (experts + 10)),
                     experts + 10);
        else
            snprintf(out, size, "%.*s", (int)n, name);
        return true;
    }
    return false;
}

uint64_t tms_net_fingerprint(const struct tms_net *net)
{
    const struct tms_config *c = &net->config;
    const uint64_t numbers[] = {c->n_layers,       c->hidden,         c->ffn,          c->n_heads,      c->n_kv_heads,
                                c->head_dim,       c->vocab,          c->experts.n,    c->experts.used, c->experts.ffn,
                                c->experts.shared, c->latent.kv_rank, c->latent.q_rank};
    uint64_t hash = XXH3_64bits(numbers, sizeof numbers);
    for (uint64_t l = 0; l <= c->n_layers; l++) {
        const float *norm = net->layers[l].vectors[TMS_VECTOR_FFN_NORM];
        hash = XXH3_64bits_withSeed(norm, (size_t)c->hidden * sizeof *norm, hash);
    }
    return hash;
}

void tms_net_fingerprint_text(const struct tms_net *net, char out[TMS_FINGERPRINT])
{
    snprintf(out, TMS_FINGERPRINT, "%016llx", (unsigned long long)tms_net_fingerprint(net));
}

void tms_net_tap(struct tms_net *net, tms_tap_fn tap, void *ctx)
{
    net->tap = tap;
    net->tap_ctx = ctx;
}

void tms_net_watch_routing(struct tms_net *net, tms_routing_fn routing, void *ctx)
{
    net->routing = routing;
    net->routing_ctx = ctx;
}

/* Finding, checking and holding the weights of a net. See net.h. */
#include "engine/net.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/net_parts.h"
#include "model/metadata.h"
#include "model/restore.h"

/* Which tensors of the table of architectures (arch.h) are what. */
static const struct {
    const char *hf;
    int linear, vector; /* one of them; -1: not this */
} places[] = {
    {"model.layers.#.self_attn.q_proj.weight", TMS_LINEAR_Q, -1},
    {"model.layers.#.self_attn.k_proj.weight", TMS_LINEAR_K, -1},
    {"model.layers.#.self_attn.v_proj.weight", TMS_LINEAR_V, -1},
    {"model.layers.#.self_attn.o_proj.weight", TMS_LINEAR_O, -1},
    {"model.layers.#.mlp.gate_proj.weight", TMS_LINEAR_GATE, -1},
    {"model.layers.#.mlp.up_proj.weight", TMS_LINEAR_UP, -1},
    {"model.layers.#.mlp.down_proj.weight", TMS_LINEAR_DOWN, -1},
    {"model.layers.#.self_attn.q_proj.bias", -1, TMS_VECTOR_BIAS + TMS_LINEAR_Q},
    {"model.layers.#.self_attn.k_proj.bias", -1, TMS_VECTOR_BIAS + TMS_LINEAR_K},
    {"model.layers.#.self_attn.v_proj.bias", -1, TMS_VECTOR_BIAS + TMS_LINEAR_V},
    {"model.layers.#.self_attn.o_proj.bias", -1, TMS_VECTOR_BIAS + TMS_LINEAR_O},
    {"model.layers.#.mlp.gate_proj.bias", -1, TMS_VECTOR_BIAS + TMS_LINEAR_GATE},
    {"model.layers.#.mlp.up_proj.bias", -1, TMS_VECTOR_BIAS + TMS_LINEAR_UP},
    {"model.layers.#.mlp.down_proj.bias", -1, TMS_VECTOR_BIAS + TMS_LINEAR_DOWN},
    {"model.layers.#.self_attn.q_norm.weight", -1, TMS_VECTOR_Q_NORM},
    {"model.layers.#.self_attn.k_norm.weight", -1, TMS_VECTOR_K_NORM},
    {"model.layers.#.input_layernorm.weight", -1, TMS_VECTOR_ATTN_NORM},
    {"model.layers.#.post_attention_layernorm.weight", -1, TMS_VECTOR_FFN_NORM},
    {"model.norm.weight", -1, TMS_VECTOR_FFN_NORM},
    {"lm_head.weight", TMS_LINEAR_HEAD, -1},
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
        net->pairs = s->arch->permutes ? TMS_ROPE_NEIGHBOURS : TMS_ROPE_HALVES;
        return tms_restore_numbers(&net->config, s, &options, err);
    }
    net->config = s->config;
    const char *act = json_string_value(json_object_get(s->config_json, "hidden_act"));
    if (act && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return tms_fail(err, TMS_EINPUT, "%s: hidden_act '%s' cannot be run, only silu", s->path, act);
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
    uint64_t half = c->head_dim / 2;
    if (c->head_dim % 2 != 0)
        return tms_fail(err, TMS_EINPUT, "%s: heads of %llu values cannot be rotated: an odd number", net->source->path,
                        (unsigned long long)c->head_dim);
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

static tms_status check_shape(const struct tms_net *net, const struct tms_arch_tensor *row, const struct tms_tensor *t,
                              struct tms_error *err)
{
    uint64_t expected[2], shape[TMS_ST_MAX_DIMS];
    uint32_t n = tms_arch_shape(&net->config, row, expected), n_dims = tms_source_shape(t, shape);
    if (n_dims == n && shape[0] == expected[0] && (n == 1 || shape[1] == expected[1])) return TMS_OK;
    if (n == 1)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': expected [%llu] by the model's numbers",
                        file_of(net->source, t), t->name, (unsigned long long)expected[0]);
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': expected [%llu, %llu] by the model's numbers",
                    file_of(net->source, t), t->name, (unsigned long long)expected[0], (unsigned long long)expected[1]);
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

/* The tensor of a row of the table (and of a layer); one that is missing is an error. */
static tms_status find_tensor(const struct tms_net *net, const struct tms_arch_tensor *row, int layer,
                              const struct tms_tensor **out, struct tms_error *err)
{
    char name[160];
    tms_arch_name(name, sizeof name, net->source->kind == TMS_SOURCE_GGUF ? row->gguf : row->hf, layer);
    const struct tms_tensor *t = tms_source_find(net->source, name);
    if (!t)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is missing; the model cannot be run without it",
                        net->source->path, name);
    *out = t;
    return check_shape(net, row, t, err);
}

static tms_status take_tensor(struct tms_net *net, const struct tms_arch_tensor *row, int layer, struct tms_error *err)
{
    const struct tms_tensor *t = NULL;
    struct tms_net_layer *to = &net->layers[layer < 0 ? (int)net->config.n_layers : layer];
    tms_status status = find_tensor(net, row, layer, &t, err);
    if (status != TMS_OK) return status;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (strcmp(places[i].hf, row->hf) != 0) continue;
        if (places[i].vector >= 0) return read_vector(net, t, &to->vectors[places[i].vector], err);
        return tms_weight_init(&to->linear[places[i].linear], net->source, t, err);
    }
    status = tms_weight_init(&net->embedding, net->source, t, err); /* the one row that is left */
    if (status == TMS_OK && net->config.tied) /* the same tensor, and the same check of its type */
        status = tms_weight_init(&net->layers[net->config.n_layers].linear[TMS_LINEAR_HEAD], net->source, t, err);
    return status;
}

static tms_status take_tensors(struct tms_net *net, struct tms_error *err)
{
    const struct tms_arch_tensor *row;
    uint64_t n_layers = net->config.n_layers;
    for (size_t i = 0; (row = tms_arch_tensor_at(i)); i++) {
        if (!tms_arch_has(net->source->arch, &net->config, row)) continue;
        bool layered = tms_arch_per_layer(row);
        for (uint64_t l = 0; l < (layered ? n_layers : 1); l++) {
            tms_status status = take_tensor(net, row, layered ? (int)l : -1, err);
            if (status != TMS_OK) return status;
        }
    }
    for (uint64_t l = 0; l < n_layers; l++) net->layers[l].window = (size_t)tms_config_window(&net->config, l);
    return TMS_OK;
}

/* A tensor that nothing here computes with means that the model is another one than it says. Layers behind the last
 * (of multi-token prediction) are no part of the model. */
static tms_status refuse_unknown(const struct tms_net *net, struct tms_error *err)
{
    const struct tms_source *s = net->source;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct tms_tensor *t = &s->tensors[i];
        int layer = -1;
        bool gguf = s->kind == TMS_SOURCE_GGUF;
        if (t->is_scale || tms_arch_ignores(t->name) || strcmp(t->name, "rope_freqs.weight") == 0) continue;
        const struct tms_arch_tensor *row =
            gguf ? tms_arch_explain_gguf(t->name, &layer) : tms_arch_explain(t->name, &layer);
        if (layer >= 0 && (uint64_t)layer >= net->config.n_layers) continue;
        if (row && (row->when == TMS_UNTIED || tms_arch_has(s->arch, &net->config, row))) continue;
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

static void drop_layer(struct tms_net_layer *layer)
{
    for (size_t i = 0; i < TMS_LINEARS; i++)
        if (layer->linear[i].tensor) tms_weight_drop(&layer->linear[i]);
    free(layer->held);
    layer->held = NULL;
}

static tms_status hold_layer(struct tms_net *net, struct tms_net_layer *layer, struct tms_error *err)
{
    const struct tms_source *s = net->source;
    tms_status status = TMS_OK;
    uint64_t bytes = 0, at = 0;
    for (size_t i = 0; i < TMS_LINEARS; i++)
        if (layer->linear[i].tensor) bytes += layer->linear[i].tensor->bytes;
    if (net->options.bounded) {
        layer->held = tms_calloc(bytes, 1);
        if (!layer->held) return tms_fail_memory(err, bytes);
    }
    for (size_t i = 0; i < TMS_LINEARS && status == TMS_OK; i++) {
        struct tms_weight *w = &layer->linear[i];
        const struct tms_tensor *t = w->tensor;
        if (!t) continue;
        status = tms_weight_scales(w, err);
        if (status == TMS_OK && net->options.bounded) {
            status = tms_file_read(s->files[t->file], layer->held + at, t->bytes, t->offset, err);
            w->data = layer->held + at;
            at += t->bytes;
        } else if (status == TMS_OK) {
            w->data = (const uint8_t *)net->maps[t->file].base + t->offset;
        }
    }
    if (status != TMS_OK) drop_layer(layer);
    return status;
}

tms_status tms_net_hold(struct tms_net *net, uint64_t first, uint64_t n, struct tms_error *err)
{
    if (!net->options.bounded) return TMS_OK;
    for (uint64_t l = 0; l <= net->config.n_layers; l++)
        if (l < first || l >= first + n) drop_layer(&net->layers[l]);
    for (uint64_t l = first; l < first + n && l <= net->config.n_layers; l++) {
        if (net->layers[l].held) continue;
        tms_status status = hold_layer(net, &net->layers[l], err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

uint64_t tms_net_layer_bytes(const struct tms_net *net, uint64_t i)
{
    uint64_t bytes = 0;
    for (size_t k = 0; k < TMS_LINEARS; k++)
        if (net->layers[i].linear[k].tensor) bytes += tms_weight_bytes(&net->layers[i].linear[k]);
    return bytes;
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
        float factor;
        net->frequencies = tms_calloc(net->config.head_dim / 2, sizeof *net->frequencies);
        status = net->frequencies ? tms_rope_frequencies(&net->config, net->divisors, 1, net->frequencies, &factor, err)
                                  : tms_fail_memory(err, net->config.head_dim);
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
        drop_layer(&net->layers[l]);
        for (size_t i = 0; i < TMS_VECTORS; i++) free(net->layers[l].vectors[i]);
    }
    for (size_t i = 0; net->maps && i < net->source->n_files; i++)
        if (net->maps[i].base) munmap(net->maps[i].base, net->maps[i].size);
    free(net->maps);
    free(net->layers);
    free(net->divisors);
    free(net->frequencies);
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
                                  .n_kv_heads = c->n_kv_heads,
                                  .head_dim = c->head_dim,
                                  .stride = tms_net_stride(net)};
}

void tms_net_tap(struct tms_net *net, tms_tap_fn tap, void *ctx)
{
    net->tap = tap;
    net->tap_ctx = ctx;
}

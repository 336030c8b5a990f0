/* See linear_target.h.
 *
 * Every linear layer's matrix is replaced, by the name of its module, whatever the architecture. Embeddings, the output
 * layer, routers of experts, norms and biases stay as they are. From a GGUF file the result is that of the plain folder
 * which hf_target.c makes of it (bfloat16, or the float type that most of its weights have). */
#include "target/linear_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_edit.h"
#include "base/text.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/hf_folder_out.h"

enum module_kind { LINEAR, LEFT_ALONE, NO_LINEAR };

/* Modules that are no nn.Linear, or that are left alone, by parts of their names. */
static enum module_kind kind_of(const char *name, uint32_t n_dims)
{
    static const char *const not_linear[] = {"embed", "wte.", "wpe.", "norm", "ln_", "conv1d", "rotary"};
    static const char *const left_alone[] = {"lm_head.", "output_layer.",   "embed_out.",
                                             "score.",   "mlp.gate.weight", "block_sparse_moe.gate.weight",
                                             "router"};
    if (n_dims != 2 || !tms_ends_with(name, ".weight")) return NO_LINEAR;
    for (size_t i = 0; i < sizeof left_alone / sizeof *left_alone; i++)
        if (strstr(name, left_alone[i])) return LEFT_ALONE;
    for (size_t i = 0; i < sizeof not_linear / sizeof *not_linear; i++)
        if (strstr(name, not_linear[i])) return NO_LINEAR;
    return LINEAR;
}

bool tms_linear_is(const char *name)
{
    return kind_of(name, 2) == LINEAR;
}

bool tms_linear_is_module(const char *name, uint32_t n_dims)
{
    return kind_of(name, n_dims) != NO_LINEAR;
}

bool tms_linear_is_expert(const char *name)
{
    return strstr(name, ".experts.") != NULL;
}

static enum module_kind kind_for(const struct tms_linear_dialect *d, const struct tms_restored_tensor *from)
{
    enum module_kind kind = kind_of(from->name, from->n_dims);
    return kind == LINEAR && d->leaves(from->name) ? LEFT_ALONE : kind;
}

/* Added to the scores of a router: float32 in every folder. */
static bool is_router_bias(const char *name)
{
    return tms_ends_with(name, ".e_score_correction_bias");
}

static bool is_float(enum tms_type type)
{
    return tms_is_plain_float(type) || type == TMS_F8_E4M3;
}

struct tms_out_tensor *tms_linear_add_part(struct tms_linear_plan *p, const char *base, const char *suffix,
                                           enum tms_type type, uint32_t n_dims, const uint64_t *shape,
                                           const void *contents)
{
    char name[TMS_ST_MAX_NAME + 64];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    struct tms_out_tensor *out = tms_target_add_out(p->t, name, type, n_dims, shape);
    if (!out) return NULL;
    out->is_scale = true;
    out->contents = contents;
    return out;
}

static void set_part(struct tms_route *route, const struct tms_restored_tensor *from)
{
    route->part = from->part;
    route->n_parts = from->n_parts;
    route->turn = from->turn;
}

void tms_linear_set_way(const struct tms_linear_plan *p, struct tms_route *route,
                        const struct tms_restored_tensor *from)
{
    const struct tms_tensor *tensor = &p->t->source->tensors[from->source];
    route->through = p->dtype;
    if (tensor->packed) route->through = tms_linear_dtype(p, tensor);
    set_part(route, from);
}

enum tms_type tms_linear_dtype(const struct tms_linear_plan *p, const struct tms_tensor *tensor)
{
    if (p->dtype != TMS_TYPE_NONE) return p->dtype;
    if (tensor->packed && tms_is_plain_float(p->t->source->config.dtype)) return p->t->source->config.dtype;
    return tms_is_plain_float(tensor->type) ? tensor->type : TMS_BF16;
}

static tms_status keep(struct tms_linear_plan *p, const struct tms_linear_dialect *d,
                       const struct tms_restored_tensor *from, enum tms_type type, bool same)
{
    struct tms_target *t = p->t;
    const struct tms_tensor *tensor = &t->source->tensors[from->source];
    enum tms_type stored =
        d->kept_type && is_float(type) && !is_router_bias(from->name) ? d->kept_type(p, from->name, type) : type;
    if (!tms_target_add_out(t, from->name, stored, from->n_dims, from->shape)) return tms_fail_memory(p->err, 0);
    same &= stored == type;
    struct tms_route *route =
        tms_target_add_route(t, from->source, same ? TMS_ROUTE_COPY : TMS_ROUTE_CODEC, t->n_outs - 1);
    if (!route) return tms_fail_memory(p->err, 0);
    route->codec = tms_codec(stored);
    if (stored != type && type != tensor->type) route->through = type;
    set_part(route, from);
    t->n_kept++;
    return TMS_OK;
}

/* A linear layer that stays: readers must be told. */
static tms_status note_kept(struct tms_linear_plan *p, const char *name)
{
    if (!tms_grow(&p->kept, &p->cap_kept, p->n_kept + 1, sizeof *p->kept)) return tms_fail_memory(p->err, 256);
    char *module = tms_arena_strndup(&p->t->arena, name, strlen(name) - strlen(".weight"));
    if (!module) return tms_fail_memory(p->err, 256);
    p->kept[p->n_kept++] = module;
    return TMS_OK;
}

/* One linear layer: quantized, or kept where it does not fit. */
static tms_status add_linear(struct tms_linear_plan *p, const struct tms_linear_dialect *d,
                             const struct tms_restored_tensor *from, bool quantized_before, bool *added)
{
    const struct tms_tensor *tensor = &p->t->source->tensors[from->source];
    bool moves = false;
    tms_status status = TMS_OK;
    *added = true;
    if (quantized_before && d->moves) status = d->moves(p, from, &moves);
    if (status == TMS_OK && quantized_before && !moves && from->part == 0) /* a stack counts once */
        status = tms_target_quantize_again(p->t, tensor, p->options, p->err);
    if (status == TMS_OK) status = d->add(p, from, added);
    if (status == TMS_OK && !*added) {
        p->t->n_fallbacks++;
        status = note_kept(p, from->name);
    }
    return status;
}

static tms_status add_tensor(struct tms_linear_plan *p, const struct tms_linear_dialect *d, size_t index)
{
    struct tms_target *t = p->t;
    const struct tms_source *s = t->source;
    const struct tms_tensor *tensor = &s->tensors[index];
    struct tms_restored_tensor from = {.name = tensor->name, .source = index, .n_parts = 1, .turn = tms_turn_none(0)};
    const char *file = s->n_files ? s->files[tensor->file]->path : s->path;
    bool added = false;
    tms_status status = TMS_OK;
    from.n_dims = tms_source_shape(tensor, from.shape);
    enum module_kind kind = kind_for(d, &from);
    if (tensor->is_scale || tms_arch_ignores(tensor->name)) return TMS_OK;
    if (s->config.tied && strcmp(tensor->name, "lm_head.weight") == 0) return TMS_OK; /* tied: stored once */
    bool spare = s->arch && tms_arch_is_spare(s->arch, &s->config, tensor->name);     /* layers that are not loaded */
    if (kind == LINEAR && !spare && (is_float(tensor->type) || tensor->packed))
        status = add_linear(p, d, &from, tensor->packed != NULL, &added);
    else if (kind != NO_LINEAR)
        status = note_kept(p, tensor->name);
    if (status != TMS_OK || added) return status;
    if (!tms_st_dtype_name(tensor->type))
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s': type %s cannot be stored in safetensors", file,
                        tensor->name, tms_codec(tensor->type)->name);
    if (tms_codec(tensor->type)->block_bytes == 0)
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot copy", file, tensor->name,
                        tms_codec(tensor->type)->name);
    if (t->spec.double_quant && tensor->type == TMS_BOOL)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: tensor '%s' of type bool cannot stand beside double quantization; "
                        "take the type without :dq",
                        file, tensor->name);
    /* FP8 that is no linear layer loses its scales, and codes theirs: store the values. */
    bool widen = tensor->scale != TMS_NO_SCALE || tensor->packed;
    return keep(p, d, &from, widen ? tms_linear_dtype(p, tensor) : tensor->type, !widen);
}

/* ---- from GGUF: the same as from the plain folder that --to hf:TYPE makes of it ---- */

/* The type of that folder: the one that most weights have, or bfloat16 if they are quantized. */
static enum tms_type plain_type(const struct tms_source *s)
{
    static const enum tms_type types[] = {TMS_F16, TMS_F32};
    uint64_t n_all = 0, n[2] = {0, 0};
    for (size_t i = 0; i < s->n_tensors; i++) {
        n_all += s->tensors[i].n_elems;
        for (size_t k = 0; k < 2; k++) n[k] += s->tensors[i].type == types[k] ? s->tensors[i].n_elems : 0;
    }
    for (size_t k = 0; k < 2; k++)
        if (n[k] > n_all / 2) return types[k];
    return TMS_BF16;
}

static tms_status add_gguf_tensors(struct tms_linear_plan *p, const struct tms_linear_dialect *d,
                                   const struct tms_config *config)
{
    struct tms_target *t = p->t;
    struct tms_restored_tensor *tensors = NULL;
    size_t n = 0;
    tms_status status = tms_restore_tensors(&tensors, &n, t->source, config, &t->arena, p->err);
    for (size_t i = 0; i < n && status == TMS_OK; i++) {
        const struct tms_tensor *tensor = &t->source->tensors[tensors[i].source];
        enum module_kind kind = kind_for(d, &tensors[i]);
        enum tms_type type = is_router_bias(tensors[i].name) ? TMS_F32 : p->dtype;
        bool added = false;
        if (!tms_turn_is_dense(&tensors[i].turn))
            status = tms_fail(p->err, TMS_EINPUT,
                              "%s: tensor '%s' is half of '%s', which %s cannot write from GGUF; make a folder first "
                              "(--to hf:bf16) and quantize that",
                              t->source->path, tensor->name, tensors[i].name, t->spec.name);
        else if (kind == LINEAR)
            status = add_linear(p, d, &tensors[i], !tms_is_plain_float(tensor->type), &added);
        else if (kind == LEFT_ALONE)
            status = note_kept(p, tensors[i].name);
        if (status == TMS_OK && !added)
            status = keep(p, d, &tensors[i], type, tensor->type == type && tensors[i].turn.kind == TMS_TURN_NONE);
    }
    free(tensors);
    return status;
}

/* ---- config.json ---- */

/* `text` with the key quantization_config, into `out`; and with another dtype where the dialect asks for one. */
static tms_status put_config(struct tms_linear_plan *p, const struct tms_linear_dialect *d, struct tms_buf *out,
                             enum tms_type dtype, const char *text, size_t n)
{
    bool retype = d->config_dtype != TMS_TYPE_NONE && d->config_dtype != dtype;
    json_t *q = d->config(p, dtype), *type = retype ? json_string(tms_torch_dtype_name(d->config_dtype)) : NULL;
    struct tms_buf typed = {0};
    /* the name of the key that is there; transformers 5 reads both */
    json_t *config = json_loadb(text, n, 0, NULL);
    const char *key = json_object_get(config, "torch_dtype") ? "torch_dtype" : "dtype";
    json_decref(config);
    bool ok = q && (!retype || (type && tms_json_set_member(&typed, text, n, key, type)));
    if (ok && retype) ok = tms_json_set_member(out, (const char *)typed.data, typed.n, "quantization_config", q);
    if (ok && !retype) ok = tms_json_set_member(out, text, n, "quantization_config", q);
    tms_buf_free(&typed);
    json_decref(type);
    json_decref(q);
    return ok ? TMS_OK : tms_fail_memory(p->err, n);
}

static tms_status make_config(struct tms_linear_plan *p, const struct tms_linear_dialect *d)
{
    struct tms_target *t = p->t;
    char *text = NULL;
    size_t n = 0;
    tms_status status = tms_hf_out_source_config(t, &text, &n, p->err);
    if (status == TMS_OK)
        status = put_config(p, d, tms_made_files_add(&t->side_files, "config.json"), t->source->config.dtype, text, n);
    free(text);
    return status;
}

/* The files of the plain folder; its config.json gets one key more. */
static tms_status restore_files(struct tms_linear_plan *p, const struct tms_linear_dialect *d,
                                const struct tms_config *config, const struct tms_restore_options *options)
{
    struct tms_made_files *files = &p->t->side_files;
    tms_status status = tms_restore_config(files, p->t->source, config, options, p->err);
    for (size_t i = 0; i < files->n && status == TMS_OK; i++) {
        struct tms_buf plain = files->items[i].bytes;
        if (strcmp(files->items[i].name, "config.json") != 0) continue;
        files->items[i].bytes = (struct tms_buf){0};
        status = put_config(p, d, &files->items[i].bytes, p->dtype, (const char *)plain.data, plain.n);
        tms_buf_free(&plain);
    }
    return status == TMS_OK ? tms_restore_tokenizer(files, p->t->source, config, options, p->err) : status;
}

/* ---- the whole ---- */

static tms_status plan_from_gguf(struct tms_linear_plan *p, const struct tms_linear_dialect *d)
{
    const struct tms_source *s = p->t->source;
    const struct tms_target_options *options = p->options;
    struct tms_config config;
    p->dtype = plain_type(s);
    const struct tms_restore_options ro = {
        .dtype = p->dtype, .pre = options->user->pre, .warn = options->warn, .warn_ctx = options->warn_ctx};
    if (!s->arch)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: architecture '%s' cannot be written as a Hugging Face folder yet; known are %s", s->path,
                        tms_source_arch_name(s), tms_arch_known());
    tms_status status = tms_restore_numbers(&config, s, &ro, p->err);
    if (status == TMS_OK) status = add_gguf_tensors(p, d, &config);
    return status == TMS_OK && !options->preview ? restore_files(p, d, &config, &ro) : status;
}

static tms_status plan_from_folder(struct tms_linear_plan *p, const struct tms_linear_dialect *d)
{
    struct tms_target *t = p->t;
    const struct tms_source *s = t->source;
    tms_status status = TMS_OK;
    if (!s->has_config)
        return tms_fail(p->err, TMS_EINPUT, "%s: %s needs the whole folder (config.json), not one shard", s->path,
                        t->spec.name);
    if (!tms_source_method_known(s) || strcmp(s->config.quant_method, "bitsandbytes") == 0)
        return tms_fail(p->err, TMS_EINPUT, "%s: its weights are quantized already (%s); give the original", s->path,
                        s->config.quant_method);
    if (strcmp(s->config.model_type, "gpt2") == 0)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: GPT-2 stores its layers transposed (Conv1D), which %s does not support here", s->path,
                        t->spec.name);
    for (size_t i = 0; i < s->n_tensors && status == TMS_OK; i++)
        status = add_tensor(p, d, s->kind == TMS_SOURCE_CONFIG ? i : s->by_name[i]);
    return status == TMS_OK && !p->options->preview ? make_config(p, d) : status;
}

static void warn_of_kept(const struct tms_linear_plan *p)
{
    char line[256];
    if (!p->t->n_fallbacks || !p->options->warn) return;
    snprintf(line, sizeof line, "%zu linear layers do not fit the groups or words of %s and stay as they are",
             p->t->n_fallbacks, p->t->spec.name);
    p->options->warn(p->options->warn_ctx, line);
}

tms_status tms_linear_plan(struct tms_linear_plan *p, const struct tms_linear_dialect *dialect)
{
    struct tms_target *t = p->t;
    tms_status status = t->source->kind == TMS_SOURCE_GGUF ? plan_from_gguf(p, dialect) : plan_from_folder(p, dialect);
    if (status == TMS_OK && t->n_quantized == 0)
        status = tms_fail(p->err, TMS_EINPUT, "%s: has no linear layers that %s could quantize", t->source->path,
                          t->spec.name);
    if (status == TMS_OK) {
        tms_target_warn_of_again(t, p->options);
        warn_of_kept(p);
    }
    free(p->kept);
    p->kept = NULL;
    return status == TMS_OK ? tms_hf_out_lay_out(t, p->options, p->err) : status;
}

/* Targets that are plain Hugging Face folders: every tensor of floats in one type of 16 or 32 bits, as transformers
 * saves a model. From a GGUF file the tensors get their Hugging Face names and row order back, and config.json and
 * tokenizer are made from its keys (model/restore.h); from a folder everything but the weights' type stays, and weights
 * that are quantized there (FP8, bitsandbytes) are decoded. */
#include "target/target.h"

#include <stdlib.h>
#include <string.h>

#include "base/json_edit.h"
#include "base/text.h"
#include "model/restore.h"
#include "target/hf_folder_out.h"

struct plan {
    struct tms_target *t;
    const struct tms_target_options *options;
    struct tms_error *err;
};

static bool is_float(enum tms_type type)
{
    return tms_is_plain_float(type) || type == TMS_F8_E4M3 || type == TMS_F8_E5M2;
}

/* The tensor `from` of the folder, or one more piece of the one that was added last. */
static tms_status add_route(struct plan *p, const struct tms_restored_tensor *from, enum tms_type type)
{
    struct tms_target *t = p->t;
    const struct tms_tensor *tensor = &t->source->tensors[from->source];
    bool same =
        tensor->type == type && tensor->scale == TMS_NO_SCALE && !tensor->packed && from->turn.kind == TMS_TURN_NONE;
    if (!from->continues && !tms_target_add_out(t, from->name, type, from->n_dims, from->shape))
        return tms_fail_memory(p->err, 0);
    struct tms_route *route =
        tms_target_add_route(t, from->source, same ? TMS_ROUTE_COPY : TMS_ROUTE_CODEC, t->n_outs - 1);
    if (!route) return tms_fail_memory(p->err, 0);
    route->codec = tms_codec(type);
    route->part = from->part;
    route->n_parts = from->n_parts;
    route->turn = from->turn;
    if (!from->continues) t->n_kept++;
    return TMS_OK;
}

/* DeepSeek-V3's: too fine for 16 bits, and float32 in every checkpoint. */
static bool stays_f32(const char *name, enum tms_type type)
{
    return type == TMS_F32 && tms_ends_with(name, ".e_score_correction_bias");
}

/* ---- from a folder ---- */

static tms_status add_hf_tensor(struct plan *p, size_t index)
{
    const struct tms_source *s = p->t->source;
    const struct tms_tensor *tensor = &s->tensors[index];
    const char *file = s->n_files ? s->files[tensor->file]->path : s->path;
    if (tensor->is_scale || tms_arch_ignores(tensor->name)) return TMS_OK;
    if (s->config.tied && strcmp(tensor->name, "lm_head.weight") == 0) return TMS_OK; /* tied: stored once */
    bool turns = tensor->packed || is_float(tensor->type);
    bool codes = tms_ends_with(tensor->name, ".weight") && (tensor->type == TMS_U8 || tensor->type == TMS_I8);
    if (codes && !tensor->packed && s->config.quant_method[0])
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s': its scales (absmax and quant_map, or SCB) are missing",
                        file, tensor->name);
    if (stays_f32(tensor->name, tensor->type)) turns = false;
    if (turns && !tms_source_decodes(tensor))
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot decode", file,
                        tensor->name, tms_codec(tensor->type)->name);
    if (!turns && tms_codec(tensor->type)->block_bytes == 0)
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot copy", file, tensor->name,
                        tms_codec(tensor->type)->name);
    struct tms_restored_tensor as_it_is = {
        .name = tensor->name, .source = index, .n_parts = 1, .turn = tms_turn_none(0)};
    as_it_is.n_dims = tms_source_shape(tensor, as_it_is.shape);
    return add_route(p, &as_it_is, turns ? p->t->spec.float_type : tensor->type);
}

/* The source's own text: the type under the name that it has there, and weights that are no longer quantized. */
static tms_status edit_config(struct plan *p)
{
    struct tms_target *t = p->t;
    char *text = NULL;
    size_t n = 0;
    struct tms_buf plain = {0}, *edited = tms_made_files_add(&t->side_files, "config.json");
    json_t *dtype = json_string(tms_torch_dtype_name(t->spec.float_type));
    bool new_name = json_object_get(t->source->config_json, "dtype") != NULL;
    tms_status status = dtype ? tms_hf_out_source_config(t, &text, &n, p->err) : tms_fail_memory(p->err, 256);
    if (status == TMS_OK &&
        (!tms_json_remove_member(&plain, text, n, "quantization_config") ||
         !tms_json_set_member(edited, (const char *)plain.data, plain.n, new_name ? "dtype" : "torch_dtype", dtype)))
        status = tms_fail_memory(p->err, n);
    json_decref(dtype);
    tms_buf_free(&plain);
    free(text);
    return status;
}

static tms_status plan_from_folder(struct plan *p)
{
    const struct tms_source *s = p->t->source;
    tms_status status = TMS_OK;
    if (!s->has_config)
        return tms_fail(p->err, TMS_EINPUT, "%s: %s needs the whole folder (config.json), not one shard", s->path,
                        p->t->spec.name);
    if (!tms_source_method_known(s))
        return tms_fail(p->err, TMS_EINPUT, "%s: its weights are quantized (%s), which tamis cannot decode yet",
                        s->path, s->config.quant_method);
    for (size_t i = 0; i < s->n_tensors && status == TMS_OK; i++)
        status = add_hf_tensor(p, s->kind == TMS_SOURCE_CONFIG ? i : s->by_name[i]);
    return status == TMS_OK && !p->options->preview ? edit_config(p) : status;
}

/* ---- from GGUF ---- */

static tms_status add_gguf_tensors(struct plan *p, const struct tms_config *config)
{
    struct tms_target *t = p->t;
    struct tms_restored_tensor *tensors = NULL;
    size_t n = 0;
    tms_status status = tms_restore_tensors(&tensors, &n, t->source, config, &t->arena, p->err);
    for (size_t i = 0; i < n && status == TMS_OK; i++)
        status = add_route(p, &tensors[i],
                           stays_f32(tensors[i].name, t->source->tensors[tensors[i].source].type) ? TMS_F32
                                                                                                  : t->spec.float_type);
    free(tensors);
    return status;
}

static tms_status plan_from_gguf(struct plan *p)
{
    struct tms_target *t = p->t;
    const struct tms_source *s = t->source;
    struct tms_restore_options options = {.dtype = t->spec.float_type,
                                          .pre = p->options->user->pre,
                                          .warn = p->options->warn,
                                          .warn_ctx = p->options->warn_ctx};
    struct tms_config config;
    if (!s->arch)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: architecture '%s' cannot be written as a Hugging Face folder yet; known are %s", s->path,
                        tms_source_arch_name(s), tms_arch_known());
    tms_status status = tms_restore_numbers(&config, s, &options, p->err);
    if (status == TMS_OK) status = add_gguf_tensors(p, &config);
    if (status != TMS_OK || p->options->preview) return status;
    status = tms_restore_config(&t->side_files, s, &config, &options, p->err);
    if (status == TMS_OK) status = tms_restore_tokenizer(&t->side_files, s, &config, &options, p->err);
    return status;
}

tms_status tms_target_plan_hf(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err)
{
    struct plan p = {.t = t, .options = options, .err = err};
    tms_status status = t->source->kind == TMS_SOURCE_GGUF ? plan_from_gguf(&p) : plan_from_folder(&p);
    return status == TMS_OK ? tms_hf_out_lay_out(t, options, err) : status;
}

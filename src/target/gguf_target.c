/* Targets in GGUF: of which types their tensors (gguf_tensors.c) are, in which order and file, with which key-values.
 */
#include "target/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#include "model/metadata.h"
#include "model/tokenizer.h"
#include "plan/mixture.h"
#include "target/gguf_tensors.h"
#include "target/grid_blocks.h"
#include "target/override.h"
#include "target/provenance.h"

/* ---- types ---- */

/* The converter's rule: vectors, norms and routers F32, matrices as asked, F16 where their rows do not fit. */
static void assign_converter_types(struct tms_gguf_plan *p, enum tms_type type)
{
    for (size_t i = 0; i < p->n; i++) {
        struct tms_planned *to = &p->tensors[i];
        bool matrix = to->n_dims >= 2 && tms_ends_with(to->name, ".weight") &&
                      !tms_ends_with(to->name, "_norm.weight") && !strstr(to->name, ".ffn_gate_inp");
        to->type = matrix && !to->contents ? type : TMS_F32;
        if (to->shape[to->n_dims - 1] % tms_codec(to->type)->block_elems != 0) {
            to->type = TMS_F16;
            to->fallback = true;
        }
    }
}

static struct tms_mixture_model mixture_model(const struct tms_source *s)
{
    struct tms_mixture_model m = {.arch = ""};
    if (s->kind != TMS_SOURCE_GGUF) {
        m = (struct tms_mixture_model){.arch = s->arch->gguf,
                                       .n_layers = s->config.n_layers,
                                       .n_heads = s->config.n_heads,
                                       .n_kv_heads = s->config.latent.kv_rank ? 1 : s->config.n_kv_heads,
                                       .n_experts = s->config.experts.n};
        return m;
    }
    const struct {
        const char *suffix;
        uint64_t *to;
    } keys[] = {{"block_count", &m.n_layers},
                {"attention.head_count", &m.n_heads},
                {"attention.head_count_kv", &m.n_kv_heads},
                {"expert_count", &m.n_experts}};
    m.arch = tms_source_arch_name(s);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[160];
        snprintf(key, sizeof key, "%.100s.%s", m.arch, keys[i].suffix);
        const struct tms_kv *kv = tms_kvs_find(&s->gguf->kvs, key);
        uint32_t first;
        if (tms_kv_as_u64(kv, keys[i].to)) continue;
        /* per-layer numbers: the first layer's */
        if (kv && kv->type == TMS_KV_ARRAY && tms_kv_type_bytes(kv->elem_type) == 4 && kv->count) {
            memcpy(&first, kv->bytes, 4);
            *keys[i].to = first;
        } else if (keys[i].to == &m.n_kv_heads) {
            m.n_kv_heads = m.n_heads;
        }
    }
    if (m.n_layers > 1 << 20) m.n_layers = 0;
    return m;
}

/* "q8_0" to its type; NULL to TMS_TYPE_NONE. */
static tms_status type_named(const char *name, const char *option, enum tms_type *out, struct tms_error *err)
{
    const struct tms_codec *codec = name ? tms_codec_by_name(name) : NULL;
    if (name && (!codec || codec->id >= TMS_GGML_TYPES))
        return tms_fail(err, TMS_EUSAGE, "--%s '%s': no tensor type of that name", option, name);
    *out = codec ? codec->id : TMS_TYPE_NONE;
    return TMS_OK;
}

static tms_status mixture_options(struct tms_gguf_plan *p, struct tms_mixture_options *o,
                                  struct tms_type_override *overrides)
{
    const struct tms_quantize_options *user = p->options->user;
    *o = (struct tms_mixture_options){.has_weights = p->options->imatrix || p->options->weights_come,
                                      .pure = user->pure,
                                      .of_2025 = user->rules_of_2025,
                                      .leave_output = user->leave_output_tensor,
                                      .overrides = overrides};
    tms_status status = type_named(user->output_tensor_type, "output-tensor-type", &o->output_type, p->err);
    if (status == TMS_OK)
        status = type_named(user->token_embedding_type, "token-embedding-type", &o->token_embd_type, p->err);
    for (size_t i = 0; i < user->n_tensor_types && status == TMS_OK; i++) {
        status = tms_type_override_parse(&overrides[i], user->tensor_types[i], p->err);
        if (status == TMS_OK) o->n_overrides++;
    }
    return status;
}

/* As ggml counts dimensions: those of 1 behind all others (GGUF's order) are none. llama-quantize writes what is left.
 */
static void drop_dims(struct tms_planned *t)
{
    while (t->n_dims > 1 && t->shape[0] == 1) memmove(t->shape, t->shape + 1, --t->n_dims * sizeof *t->shape);
}

static tms_status assign_mixture(struct tms_gguf_plan *p)
{
    const struct tms_source *s = p->t->source;
    struct tms_mixture_tensor *m = tms_calloc(p->n, sizeof *m);
    struct tms_type_override *overrides = tms_calloc(p->options->user->n_tensor_types, sizeof *overrides);
    struct tms_mixture_model model = mixture_model(s);
    struct tms_mixture_options o = {0};
    tms_status status = m && overrides ? TMS_OK : tms_fail_memory(p->err, p->n * sizeof *m);
    if (status == TMS_OK) status = mixture_options(p, &o, overrides);
    for (size_t i = 0; i < p->n && status == TMS_OK; i++) {
        struct tms_planned *to = &p->tensors[i];
        if (p->t->spec.ftype->id != TMS_FTYPE_COPY) drop_dims(to);
        m[i] = (struct tms_mixture_tensor){.name = to->name,
                                           .n_dims = to->n_dims,
                                           .n_cols = to->n_dims ? to->shape[to->n_dims - 1] : 1,
                                           .n_mats = to->n_dims > 2 ? to->shape[to->n_dims - 3] : 1,
                                           .source = s->kind == TMS_SOURCE_GGUF ? to->type : TMS_F32};
    }
    if (status == TMS_OK && !tms_mixture_assign(p->t->spec.ftype, &model, &o, m, p->n))
        status = tms_fail_memory(p->err, p->n * sizeof *m);
    for (size_t i = 0; i < p->n && status == TMS_OK; i++) {
        p->tensors[i].type = m[i].type;
        p->tensors[i].fallback = m[i].fallback;
        if (m[i].problem)
            status = tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s' as %s: %s", s->path, m[i].name,
                              tms_codec(m[i].type)->name, m[i].problem);
    }
    for (size_t i = 0; i < o.n_overrides; i++) tms_type_override_free(&overrides[i]);
    free(overrides);
    free(m);
    return status;
}

/* "auto": the type of the first matrix, BF16 or F16. */
static enum tms_type auto_type(const struct tms_source *s)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        if (s->tensors[i].n_dims >= 2) return s->tensors[i].type == TMS_BF16 ? TMS_BF16 : TMS_F16;
    return TMS_F16;
}

/* ---- leaving layers out ---- */

/* "3,4,11" to a table of which layers go: pruned[layer]. */
static tms_status parse_layers(const char *text, bool *pruned, size_t n_layers, struct tms_error *err)
{
    for (const char *c = text;;) {
        char *end;
        unsigned long layer = strtoul(c, &end, 10);
        if (*c < '0' || *c > '9' || (*end && *end != ','))
            return tms_fail(err, TMS_EUSAGE, "--prune-layers '%s': expected numbers of layers with commas between",
                            text);
        if (layer >= n_layers)
            return tms_fail(err, TMS_EUSAGE, "--prune-layers: there is no layer %lu, the model has %zu", layer,
                            n_layers);
        pruned[layer] = true;
        if (!*end) return TMS_OK;
        c = end + 1;
    }
}

/* Drops the tensors of pruned layers and renumbers the others. */
static tms_status prune_layers(struct tms_gguf_plan *p)
{
    enum { MOST = 1 << 13 };
    const char *text = p->options->user->prune_layers;
    size_t n_layers = 0, kept = 0;
    uint32_t numbers[MOST], next = 0;
    bool pruned[MOST] = {false};
    int layer, at;
    if (!text) return TMS_OK;
    for (size_t i = 0; i < p->n; i++)
        if (sscanf(p->tensors[i].name, "blk.%d.", &layer) == 1 && layer >= 0 && layer < MOST &&
            (size_t)layer >= n_layers)
            n_layers = (size_t)layer + 1;
    tms_status status = parse_layers(text, pruned, n_layers, p->err);
    for (size_t i = 0; i < n_layers; i++) numbers[i] = pruned[i] ? 0 : next++;
    if (status == TMS_OK && next == 0) status = tms_fail(p->err, TMS_EUSAGE, "--prune-layers leaves no layer");
    for (size_t i = 0; i < p->n && status == TMS_OK; i++) {
        struct tms_planned t = p->tensors[i];
        if (sscanf(t.name, "blk.%d.%n", &layer, &at) == 1 && layer >= 0 && layer < MOST) {
            if (pruned[layer]) continue;
            t.old_name = t.name;
            t.name = tms_arena_printf(&p->t->arena, "blk.%u.%s", numbers[layer], t.name + at);
            if (!t.name) status = tms_fail_memory(p->err, 64);
        }
        p->tensors[kept++] = t;
    }
    p->n = kept;
    p->n_layers_kept = next;
    return status;
}

/* ---- files and key-values ---- */

static tms_status build_kvs(struct tms_gguf_plan *p, int file_type)
{
    struct tms_target *t = p->t;
    const struct tms_source *s = t->source;
    bool copy = t->spec.ftype->id == TMS_FTYPE_COPY;
    tms_status status;
    if (s->kind == TMS_SOURCE_GGUF) {
        tms_kvs_copy(&t->kvs, &s->gguf->kvs);
        tms_kvs_remove(&t->kvs, "split.no");
        tms_kvs_remove(&t->kvs, "split.count");
        tms_kvs_remove(&t->kvs, "split.tensors.count");
        if (!copy) tms_provenance_remove_keys(&t->kvs); /* they tell how the source was made */
    } else {
        struct tms_metadata_options mo = {.name = p->options->user->model_name,
                                          .file_type = file_type,
                                          .n_parameters = 0,
                                          .warn = p->options->warn,
                                          .warn_ctx = p->options->warn_ctx};
        for (size_t i = 0; i < p->n; i++) {
            uint64_t n = 1;
            for (uint32_t d = 0; d < p->tensors[i].n_dims; d++) n *= p->tensors[i].shape[d];
            if (p->tensors[i].parts) n /= p->tensors[i].n_parts; /* "8x7B": of one expert */
            if (!p->tensors[i].contents) mo.n_parameters += n;
        }
        status = tms_metadata_build(&t->kvs, s, &mo, p->err);
        if (status != TMS_OK) return status;
        struct tms_tokenizer_options to = {.vocab_size = s->config.vocab,
                                           .pre = p->options->user->pre,
                                           .config = s->config_json,
                                           .arch = s->arch->gguf,
                                           .warn = p->options->warn,
                                           .warn_ctx = p->options->warn_ctx};
        status = tms_tokenizer_export(&t->kvs, s->path, &to, p->err);
        if (status != TMS_OK) return status;
        status = tms_metadata_own(&t->kvs, s, p->err);
        if (status != TMS_OK) return status;
    }
    if (p->options->user->model_name) tms_kvs_set_string(&t->kvs, "general.name", p->options->user->model_name);
    if (!p->options->converter) {
        uint64_t was;
        if (copy && s->kind == TMS_SOURCE_GGUF && tms_kv_as_u64(tms_kvs_find(&t->kvs, "general.file_type"), &was))
            file_type = (int)was;
        tms_kvs_remove(&t->kvs, "general.quantization_version");
        tms_kvs_remove(&t->kvs, "general.file_type");
        tms_kvs_set_u32(&t->kvs, "general.quantization_version", 2);
        if (file_type >= 0) tms_kvs_set_u32(&t->kvs, "general.file_type", (uint32_t)file_type);
    }
    status = tms_override_kvs(&t->kvs, p->options->user->override_kv, p->options->user->n_override_kv, p->err);
    if (status != TMS_OK) return status;
    if (p->options->imatrix) tms_imatrix_set_keys(p->options->imatrix, &t->kvs);
    if (p->n_layers_kept) {
        char key[160];
        snprintf(key, sizeof key, "%.100s.block_count",
                 s->kind == TMS_SOURCE_GGUF ? tms_source_arch_name(s) : s->arch->gguf);
        tms_kvs_remove(&t->kvs, key);
        tms_kvs_set_u32(&t->kvs, key, p->n_layers_kept);
    }
    if (p->options->extra) tms_kvs_copy(&t->kvs, p->options->extra);
    return t->kvs.failed ? tms_fail_memory(p->err, 0) : TMS_OK;
}

/* Gives every tensor its file: greedily, at least one tensor a file, as llama.cpp's converter splits. */
static uint32_t split_files(struct tms_gguf_plan *p)
{
    uint64_t bytes = 0, count = 0;
    uint32_t file = 0;
    size_t n_like = p->options->split_like ? tms_target_split_like(p->t, p->options->split_like) : 0;
    if (n_like) return (uint32_t)n_like;
    for (size_t i = 0; i < p->t->n_outs && p->options->user->keep_split; i++)
        file = p->t->outs[i].file > file ? p->t->outs[i].file : file; /* set by add_planned */
    if (p->options->user->keep_split) return file + 1;
    for (size_t i = 0; i < p->t->n_outs; i++) {
        struct tms_out_tensor *out = &p->t->outs[i];
        bool full = (p->options->user->split_max_tensors && count >= p->options->user->split_max_tensors) ||
                    (p->options->user->split_max_bytes && bytes + out->bytes > p->options->user->split_max_bytes);
        if (full && count > 0) {
            file++;
            bytes = count = 0;
        }
        out->file = file;
        bytes += out->bytes;
        count++;
    }
    return file + 1;
}

static tms_status lay_out(struct tms_gguf_plan *p)
{
    struct tms_target *t = p->t;
    size_t n_files = split_files(p);
    struct tms_gguf_plan_tensor *tensors = tms_calloc(t->n_outs, sizeof *tensors);
    tms_status status = TMS_OK;
    if (n_files > 65535) {
        status = tms_fail(p->err, TMS_EUSAGE, "%s: would become %zu files, at most 65535 are allowed", t->source->path,
                          n_files);
        goto done;
    }
    t->files = tms_calloc(n_files, sizeof *t->files);
    if (!tensors || !t->files) {
        status = tms_fail_memory(p->err, t->n_outs * sizeof *tensors);
        goto done;
    }
    t->n_files = n_files;
    size_t first = 0;
    for (uint32_t f = 0; f < n_files && status == TMS_OK; f++) {
        struct tms_out_file *file = &t->files[f];
        if (f == 0) tms_kvs_copy(&file->kvs, &t->kvs);
        if (n_files > 1) {
            tms_kvs_set_u16(&file->kvs, "split.no", (uint16_t)f);
            tms_kvs_set_u16(&file->kvs, "split.count", (uint16_t)n_files);
            tms_kvs_set_i32(&file->kvs, "split.tensors.count", (int32_t)t->n_outs);
            const struct tms_kv *alignment = tms_kvs_find(&t->kvs, "general.alignment");
            if (f > 0 && alignment)
                tms_kvs_set(&file->kvs, alignment->key, alignment->type, alignment->bytes, alignment->n_bytes);
        }
        if (file->kvs.failed) {
            status = tms_fail_memory(p->err, 0);
            break;
        }
        size_t n = 0;
        while (first + n < t->n_outs && t->outs[first + n].file == f) {
            const struct tms_out_tensor *out = &t->outs[first + n];
            struct tms_gguf_plan_tensor *to = &tensors[n++];
            *to = (struct tms_gguf_plan_tensor){
                .name = out->name, .type = out->type, .n_dims = out->n_dims ? out->n_dims : 1, .ne = {1, 1, 1, 1}};
            for (uint32_t d = 0; d < out->n_dims && d < TMS_GGUF_MAX_DIMS; d++)
                to->ne[d] = out->shape[out->n_dims - 1 - d];
        }
        status = tms_gguf_layout(&file->kvs, tensors, n, &file->header, &file->size, p->err);
        for (size_t i = 0; i < n; i++) t->outs[first + i].offset = tensors[i].offset;
        first += n;
    }
done:
    free(tensors);
    return status;
}

static int compare_planned(const void *a, const void *b)
{
    const struct tms_planned *pa = a, *pb = b;
    return tms_mixture_compare_names(pa->name, pb->name);
}

/* Part `part` of a tensor. */
static tms_status add_part(struct tms_gguf_plan *p, const struct tms_planned *from, size_t part, const float *weights)
{
    struct tms_target *t = p->t;
    size_t index = from->parts ? from->parts[part] : from->source, out_index = t->n_outs - 1;
    const struct tms_tensor *source = &t->source->tensors[index];
    const struct tms_codec *codec = tms_codec(from->type);
    struct tms_out_tensor *out = &t->outs[out_index];
    if (p->options->user->keep_split) out->file = source->file;
    bool same = source->type == from->type && from->turn.kind == TMS_TURN_NONE && source->scale == TMS_NO_SCALE &&
                !source->packed;
    /* Widening to a float loses nothing more; quantizing anew does. */
    bool packed = source->packed && !p->options->converter;
    bool again = !same && (t->source->kind == TMS_SOURCE_GGUF || packed) && !tms_is_plain_float(source->type) &&
                 !tms_is_plain_float(from->type);
    bool moves = false, rows_stay = from->turn.kind == TMS_TURN_NONE || from->turn.kind == TMS_TURN_NEIGHBOURS;
    if (source->packed && rows_stay) {
        tms_status found = tms_grid_becomes_blocks(&moves, t->source, source, from->type, p->err);
        if (found != TMS_OK) return found;
        again &= !moves;
    }
    tms_status status = again ? tms_target_quantize_again(t, source, p->options, p->err) : TMS_OK;
    if (status != TMS_OK) return status;
    if (!same && !tms_source_decodes(source))
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot decode yet",
                        t->source->path, source->name, tms_codec(source->type)->name);
    if (!codec->encode_weighted) weights = NULL; /* the type makes no use of them */
    const bool planned = p->options->preview || p->options->weights_come;
    if (!same && !codec->encode && !weights && codec->encode_weighted && !planned)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: tensor '%s' as %s needs importance weights: give them with --imatrix FILE",
                        t->source->path, source->name, codec->name);
    if (!same && !codec->encode && !weights && !planned)
        return tms_fail(p->err, TMS_EINPUT, "%s: tensor '%s' would get type %s, which tamis cannot write yet",
                        t->source->path, source->name, codec->name);
    struct tms_route *route = tms_target_add_route(t, index, same ? TMS_ROUTE_COPY : TMS_ROUTE_CODEC, out_index);
    if (!route) return tms_fail_memory(p->err, sizeof *route);
    route->codec = codec;
    route->moves = moves;
    route->weights = moves ? NULL : weights;
    route->turn = from->turn;
    if (from->parts) route->turn.start = part * (out->n_elems / from->n_parts);
    return TMS_OK;
}

static tms_status add_planned(struct tms_gguf_plan *p, const struct tms_planned *from)
{
    struct tms_target *t = p->t;
    const struct tms_file_type *ftype = t->spec.ftype;
    bool needs_weights = tms_mixture_needs_weights(ftype, from->name, from->type, p->options->user->rules_of_2025);
    if (needs_weights && !p->options->imatrix && !p->options->weights_come && !p->options->preview)
        return tms_fail(p->err, TMS_EINPUT,
                        "%s: tensor '%s' in %s needs importance weights: give them with --imatrix FILE",
                        t->source->path, from->name, ftype->name);
    struct tms_out_tensor *out = tms_target_add_out(t, from->name, from->type, from->n_dims, from->shape);
    if (!out) return tms_fail_memory(p->err, sizeof *out);
    out->contents = from->contents;
    out->fallback = from->fallback;
    if (from->fallback) t->n_fallbacks++;
    if (from->contents) return TMS_OK;
    const float *weights = NULL;
    bool as_it_is = from->n_parts == 1 && t->source->tensors[from->source].type == from->type &&
                    from->turn.kind == TMS_TURN_NONE && t->source->tensors[from->source].scale == TMS_NO_SCALE;
    if (p->options->imatrix && !as_it_is) {
        tms_status status = tms_imatrix_values(p->options->imatrix, from->old_name ? from->old_name : from->name,
                                               from->n_dims ? from->shape[from->n_dims - 1] : 1,
                                               from->n_dims > 2 ? from->shape[from->n_dims - 3] : 1, &weights, p->err);
        if (status != TMS_OK) return status;
        if (!weights && needs_weights)
            return tms_fail(p->err, TMS_EINPUT, "%s: has no weights for tensor '%s', and %s needs them",
                            p->options->imatrix->path, from->name, tms_codec(from->type)->name);
    }
    for (size_t part = 0; part < from->n_parts; part++) {
        tms_status status = add_part(p, from, part, weights);
        if (status != TMS_OK) return status;
    }
    if (tms_is_plain_float(from->type))
        t->n_kept++;
    else
        t->n_quantized++;
    return TMS_OK;
}

tms_status tms_target_plan_gguf(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err)
{
    const struct tms_source *s = t->source;
    struct tms_gguf_plan p = {.t = t, .options = options, .err = err};
    const struct tms_file_type *ftype = t->spec.ftype;
    tms_status status = tms_gguf_plan_tensors(&p);
    if (status == TMS_OK) status = prune_layers(&p);
    if (status != TMS_OK) goto done;

    int file_type = ftype->id;
    bool converter_types = options->converter || (ftype->id == TMS_FTYPE_COPY && s->kind != TMS_SOURCE_GGUF);
    if (converter_types) {
        bool automatic = options->convert_auto || ftype->id == TMS_FTYPE_COPY;
        enum tms_type type = automatic ? auto_type(s) : ftype->type;
        if (automatic) file_type = type == TMS_BF16 ? TMS_FTYPE_BF16 : TMS_FTYPE_F16;
        if (options->convert_auto) tms_spec_parse(&t->spec, type == TMS_BF16 ? "bf16" : "f16", NULL);
        assign_converter_types(&p, type);
    } else {
        status = assign_mixture(&p);
        if (status != TMS_OK) goto done;
        if (!options->user->keep_split) qsort(p.tensors, p.n, sizeof *p.tensors, compare_planned);
    }
    if (!options->preview) status = build_kvs(&p, file_type);
    for (size_t i = 0; i < p.n && status == TMS_OK && !options->user->vocab_only; i++)
        status = add_planned(&p, &p.tensors[i]);
    if (status == TMS_OK) tms_target_warn_of_again(t, options);
    if (status == TMS_OK && !options->preview) status = lay_out(&p);
done:
    free(p.tensors);
    return status;
}

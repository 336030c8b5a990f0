/* The public entry points that look: models, previews, types. See <tamis/tamis.h>. */
#include <tamis/tamis.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/target.h"

struct tms_model {
    struct tms_source *source;
    const struct tms_tensor **sorted; /* by name, numbers in numeric order */
};

struct tms_preview {
    struct tms_target *target;
    const struct tms_out_tensor **sorted;
    uint64_t tensor_bytes, scale_bytes, file_bytes;
};

const char *tms_version(void)
{
    return TAMIS_VERSION;
}

/* Safetensors types go by torch's names, GGUF types by ggml's. */
static const char *type_name(enum tms_type type, bool torch)
{
    const char *name = torch ? tms_torch_dtype_name(type) : NULL;
    return name ? name : tms_codec(type)->name;
}

/* "layers.2" before "layers.10". */
static int compare_natural(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            while (*a == '0' && isdigit((unsigned char)a[1])) a++;
            while (*b == '0' && isdigit((unsigned char)b[1])) b++;
            size_t n = strspn(a, "0123456789"), m = strspn(b, "0123456789");
            int c = n != m ? (n < m ? -1 : 1) : strncmp(a, b, n);
            if (c) return c;
            a += n;
            b += m;
            continue;
        }
        if (*a != *b) return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        a++;
        b++;
    }
    return *a ? 1 : *b ? -1 : 0;
}

static int compare_tensors(const void *a, const void *b)
{
    const struct tms_tensor *const *ta = a, *const *tb = b;
    return compare_natural((*ta)->name, (*tb)->name);
}

static int compare_outs(const void *a, const void *b)
{
    const struct tms_out_tensor *const *ta = a, *const *tb = b;
    return compare_natural((*ta)->name, (*tb)->name);
}

tms_status tms_model_open(struct tms_model **out, const char *path, struct tms_error *err)
{
    struct tms_model *m = calloc(1, sizeof *m);
    if (!m) return tms_fail_memory(err, sizeof *m);
    tms_status status = tms_source_open(&m->source, path, NULL, NULL, err);
    if (status == TMS_OK) {
        size_t n = m->source->n_tensors;
        m->sorted = tms_calloc(n, sizeof *m->sorted);
        if (!m->sorted) status = tms_fail_memory(err, n * sizeof *m->sorted);
        for (size_t i = 0; i < n && m->sorted; i++) m->sorted[i] = &m->source->tensors[i];
        /* a lone config.json has the order of its modules already */
        if (m->sorted && n && m->source->kind != TMS_SOURCE_CONFIG)
            qsort(m->sorted, n, sizeof *m->sorted, compare_tensors);
    }
    if (status != TMS_OK) {
        tms_model_close(m);
        return status;
    }
    *out = m;
    return TMS_OK;
}

void tms_model_close(struct tms_model *model)
{
    if (!model) return;
    tms_source_close(model->source);
    free(model->sorted);
    free(model);
}

void tms_model_describe(const struct tms_model *model, struct tms_model_info *info)
{
    const struct tms_source *s = model->source;
    const char *name =
        s->kind == TMS_SOURCE_GGUF ? tms_kv_as_string(tms_kvs_find(&s->gguf->kvs, "general.name")) : NULL;
    *info = (struct tms_model_info){
        .format = s->kind == TMS_SOURCE_GGUF     ? "GGUF"
                  : s->kind == TMS_SOURCE_CONFIG ? "config.json"
                  : s->hf->dir                   ? "Hugging Face folder"
                                                 : "safetensors file",
        .architecture = tms_source_arch_name(s),
        .name = name ? name : tms_path_base(s->path),
        .architecture_known = s->arch != NULL,
        .has_data = s->kind != TMS_SOURCE_CONFIG,
        .n_tensors = s->n_tensors,
        .n_files = s->n_files,
        .n_parameters = tms_source_parameters(s),
    };
    for (size_t i = 0; i < s->n_tensors; i++) info->tensor_bytes += s->tensors[i].bytes;
    for (size_t i = 0; i < s->n_files; i++) info->file_bytes += s->files[i]->size;
}

void tms_model_tensor(const struct tms_model *model, size_t i, struct tms_tensor_info *info)
{
    const struct tms_tensor *t = model->sorted[i];
    *info = (struct tms_tensor_info){.name = t->name,
                                     .type = t->packed && t->packed->grid
                                                 ? t->packed->grid->type
                                                 : type_name(t->type, model->source->kind != TMS_SOURCE_GGUF),
                                     .n_dims = t->n_dims,
                                     .n_elems = t->n_elems,
                                     .bytes = t->bytes,
                                     .is_scale = t->is_scale};
    memcpy(info->shape, t->shape, sizeof info->shape);
}

bool tms_type_at(size_t i, struct tms_type_info *info)
{
    static const struct tms_type_info folders[] = {
        {"nf4", NULL, "Hugging Face folder",
         "bitsandbytes: 4 bits on a normal distribution's quantiles, a scale per 64"},
        {"nf4:dq", NULL, "Hugging Face folder", "the same with its scales quantized to 8 bits (4.13 bits in all)"},
        {"fp4", NULL, "Hugging Face folder", "bitsandbytes: 4-bit floats"},
        {"int8", NULL, "Hugging Face folder", "bitsandbytes LLM.int8: 8 bits, a scale per row"},
        {"gptq", "gptq:4:g128", "Hugging Face folder",
         "GPTQ's words: 2, 3, 4, 8 bits, an f16 scale per group; plain rounding"},
        {"awq", "awq:g128", "Hugging Face folder", "AWQ's words (gemm): 4 bits and zero points; plain rounding"},
        {"w4a16", "w4a16:g128", "Hugging Face folder",
         "compressed-tensors: integers of 2 (w2a16) to 8 bits (w8a16), a scale per group"},
        {"w8a8", NULL, "Hugging Face folder", "compressed-tensors: int8, a scale per row; int8 activations"},
        {"fp8", NULL, "Hugging Face folder", "compressed-tensors: 8-bit floats (E4M3); FP8 activations"},
        {"nvfp4a16", NULL, "Hugging Face folder",
         "compressed-tensors: 4-bit floats, an 8-bit scale per 16 and one for all"},
        {"mxfp4a16", "mxfp4", "Hugging Face folder", "compressed-tensors: 4-bit floats, a power of two per 32"},
        {"hf:bf16", "hf", "Hugging Face folder", "plain: every tensor bfloat16; back from GGUF, or from another type"},
        {"hf:f16", NULL, "Hugging Face folder", "the same in float16"},
        {"hf:f32", NULL, "Hugging Face folder", "the same in float32"},
    };
    const struct tms_file_type *f = tms_file_type_at(i);
    if (f) {
        *info = (struct tms_type_info){f->name, f->alias, "GGUF", f->explanation};
        return true;
    }
    for (size_t n = 0; tms_file_type_at(n); n++) i--;
    if (i >= sizeof folders / sizeof *folders) return false;
    *info = folders[i];
    return true;
}

tms_status tms_preview(struct tms_preview **out, const struct tms_model *model, const char *type, struct tms_error *err)
{
    struct tms_spec spec;
    const struct tms_quantize_options user = {.allow_requantize = true};
    struct tms_target_options options = {.user = &user, .preview = true};
    tms_status status = tms_spec_parse(&spec, type, err);
    if (status != TMS_OK) return status;
    struct tms_preview *p = calloc(1, sizeof *p);
    if (!p) return tms_fail_memory(err, sizeof *p);
    status = tms_target_plan(&p->target, model->source, &spec, &options, err);
    if (status == TMS_OK) {
        struct tms_target *t = p->target;
        p->sorted = tms_calloc(t->n_outs, sizeof *p->sorted);
        if (!p->sorted) status = tms_fail_memory(err, t->n_outs * sizeof *p->sorted);
        for (size_t i = 0; i < t->n_outs && p->sorted; i++) {
            p->sorted[i] = &t->outs[i];
            p->tensor_bytes += t->outs[i].bytes;
            if (t->outs[i].is_scale) p->scale_bytes += t->outs[i].bytes;
        }
        for (size_t f = 0; f < t->n_files; f++) p->file_bytes += t->files[f].size;
        if (p->sorted && t->n_outs && model->source->kind != TMS_SOURCE_CONFIG)
            qsort(p->sorted, t->n_outs, sizeof *p->sorted, compare_outs);
    }
    if (status != TMS_OK) {
        tms_preview_free(p);
        return status;
    }
    *out = p;
    return TMS_OK;
}

void tms_preview_free(struct tms_preview *preview)
{
    if (!preview) return;
    tms_target_free(preview->target);
    free(preview->sorted);
    free(preview);
}

void tms_preview_describe(const struct tms_preview *preview, struct tms_preview_info *info)
{
    const struct tms_target *t = preview->target;
    *info = (struct tms_preview_info){
        .type = t->spec.name,
        .container = t->folder ? "Hugging Face folder" : "GGUF",
        .n_tensors = t->n_outs,
        .n_parameters = t->n_parameters,
        .tensor_bytes = preview->tensor_bytes,
        .scale_bytes = preview->scale_bytes,
        .file_bytes = preview->file_bytes,
        .n_fallbacks = t->n_fallbacks,
    };
}

void tms_preview_tensor(const struct tms_preview *preview, size_t i, struct tms_tensor_info *info)
{
    const struct tms_out_tensor *t = preview->sorted[i];
    *info = (struct tms_tensor_info){.name = t->name,
                                     .type = type_name(t->type, preview->target->folder),
                                     .n_dims = t->n_dims,
                                     .n_elems = t->n_elems,
                                     .bytes = t->bytes,
                                     .is_scale = t->is_scale,
                                     .fallback = t->fallback};
    memcpy(info->shape, t->shape, sizeof info->shape);
}

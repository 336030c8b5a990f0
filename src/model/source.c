/* See source.h. */
#include "model/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "model/packed.h"
#include "model/packed_grid.h"

#define CONFIG_LIMIT   (64u << 20) /* bytes of a config.json */
#define INVENTED_LIMIT (1u << 22)  /* tensors of a lone config.json */

static void set_rows(struct tms_tensor *t)
{
    t->cols = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    t->rows = t->cols ? t->n_elems / t->cols : 0;
    t->n_weights = t->n_elems;
}

static int compare_tensor_names(const void *a, const void *b)
{
    const struct tms_st_tensor *const *ta = a, *const *tb = b;
    return strcmp((*ta)->name, (*tb)->name);
}

static tms_status take_hf_tensors(struct tms_source *s, struct tms_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < s->hf->n_shards; i++) n += s->hf->shards[i]->n_tensors;
    s->tensors = tms_calloc(n, sizeof *s->tensors);
    s->files = tms_calloc(s->hf->n_shards, sizeof *s->files);
    const struct tms_st_tensor **order = tms_calloc(n, sizeof *order);
    if (!s->tensors || !s->files || !order) {
        free(order);
        return tms_fail_memory(err, n * sizeof *s->tensors);
    }
    s->n_files = s->hf->n_shards;
    for (size_t i = 0; i < s->hf->n_shards; i++) {
        const struct tms_safetensors *st = s->hf->shards[i];
        s->files[i] = &st->file;
        for (size_t t = 0; t < st->n_tensors; t++) order[t] = &st->tensors[t];
        qsort(order, st->n_tensors, sizeof *order, compare_tensor_names);
        for (size_t t = 0; t < st->n_tensors; t++) {
            struct tms_tensor *to = &s->tensors[s->n_tensors++];
            *to = (struct tms_tensor){.name = order[t]->name,
                                      .type = order[t]->type,
                                      .n_dims = order[t]->n_dims,
                                      .n_elems = order[t]->n_elems,
                                      .file = (uint32_t)i,
                                      .offset = order[t]->offset,
                                      .bytes = order[t]->bytes,
                                      .scale = TMS_NO_SCALE};
            memcpy(to->shape, order[t]->shape, sizeof order[t]->shape);
            set_rows(to);
        }
    }
    free(order);
    return TMS_OK;
}

static tms_status take_gguf_tensors(struct tms_source *s, struct tms_error *err)
{
    s->tensors = tms_calloc(s->gguf->n_tensors, sizeof *s->tensors);
    s->files = tms_calloc(s->gguf->n_files, sizeof *s->files);
    if (!s->tensors || !s->files) return tms_fail_memory(err, s->gguf->n_tensors * sizeof *s->tensors);
    s->n_files = s->gguf->n_files;
    for (size_t i = 0; i < s->n_files; i++) s->files[i] = &s->gguf->files[i];
    for (size_t i = 0; i < s->gguf->n_tensors; i++) {
        const struct tms_gguf_tensor *from = &s->gguf->tensors[i];
        struct tms_tensor *to = &s->tensors[s->n_tensors++];
        *to = (struct tms_tensor){.name = from->name,
                                  .type = from->type,
                                  .n_dims = from->n_dims,
                                  .n_elems = 1,
                                  .file = from->file,
                                  .offset = from->offset,
                                  .bytes = from->bytes,
                                  .scale = TMS_NO_SCALE};
        for (uint32_t d = 0; d < from->n_dims; d++) {
            to->shape[d] = from->ne[from->n_dims - 1 - d];
            to->n_elems *= to->shape[d]; /* the reader checked the product */
        }
        set_rows(to);
    }
    return TMS_OK;
}

/* Names and shapes that a checkpoint with this config has, in the order of the module's parameters. */
static tms_status invent_tensors(struct tms_source *s, struct tms_error *err)
{
    if (!s->arch)
        return tms_fail(err, TMS_EINPUT, "%s: architecture '%s' is not known; known are %s", s->path,
                        tms_source_arch_name(s), tms_arch_known());
    if (!s->config.has_shape)
        return tms_fail(err, TMS_EINPUT,
                        "%s: lacks numbers that give the shape of a decoder (num_hidden_layers, hidden_size, …)",
                        s->path);
    struct tms_arch_step step = {0};
    size_t n = 0;
    while (n <= INVENTED_LIMIT && tms_arch_next(&step, s->arch, &s->config)) n++;
    if (n > INVENTED_LIMIT)
        return tms_fail(err, TMS_EINPUT, "%s: its numbers make more than %u tensors", s->path, INVENTED_LIMIT);
    s->tensors = tms_calloc(n, sizeof *s->tensors);
    if (!s->tensors) return tms_fail_memory(err, n * sizeof *s->tensors);
    enum tms_type type = s->config.dtype == TMS_TYPE_NONE ? TMS_F32 : s->config.dtype;
    const struct tms_codec *codec = tms_codec(type);
    step = (struct tms_arch_step){0};
    while (tms_arch_next(&step, s->arch, &s->config)) {
        char name[128];
        tms_arch_name(name, sizeof name, step.row->hf, step.layer, step.expert);
        struct tms_tensor *t = &s->tensors[s->n_tensors++];
        *t = (struct tms_tensor){
            .name = tms_arena_strndup(&s->arena, name, strlen(name)), .type = type, .scale = TMS_NO_SCALE};
        if (!t->name) return tms_fail_memory(err, sizeof name);
        t->n_dims = tms_arch_shape(&s->config, step.row, t->shape);
        t->n_elems = t->shape[0] * (t->n_dims == 2 ? t->shape[1] : 1);
        t->bytes = tms_codec_bytes(codec, t->n_elems);
        set_rows(t);
    }
    return TMS_OK;
}

/* FP8 weights find their block scales: "X.weight_scale_inv" for "X.weight", in whatever shard (DeepSeek-V3's
 * convention: w = value * scale[row / block, column / block]). */
static tms_status pair_fp8_scales(struct tms_source *s, struct tms_error *err)
{
    uint64_t block_rows = s->config.fp8_block[0] ? s->config.fp8_block[0] : 128;
    uint64_t block_cols = s->config.fp8_block[1] ? s->config.fp8_block[1] : 128;
    s->config.fp8_block[0] = block_rows;
    s->config.fp8_block[1] = block_cols;
    for (size_t i = 0; i < s->n_tensors; i++) {
        struct tms_tensor *t = &s->tensors[i];
        char name[TMS_ST_MAX_NAME + 16];
        if (t->type != TMS_F8_E4M3 || !tms_ends_with(t->name, ".weight")) continue;
        snprintf(name, sizeof name, "%s_scale_inv", t->name);
        const struct tms_tensor *found = tms_source_find(s, name);
        const char *file = s->files[t->file]->path;
        if (!found) {
            if (s->has_config && strcmp(s->config.quant_method, "fp8") == 0)
                return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is F8_E4M3 and its scales '%s' are missing", file,
                                t->name, name);
            continue;
        }
        uint64_t rows = (t->rows + block_rows - 1) / block_rows, cols = (t->cols + block_cols - 1) / block_cols;
        if (t->n_dims != 2 || found->n_dims != 2 || found->rows != rows || found->cols != cols ||
            (found->type != TMS_F32 && found->type != TMS_BF16 && found->type != TMS_F16))
            return tms_fail(err, TMS_EINPUT,
                            "%s: tensor '%s': expected F32 [%llu, %llu] for the blocks of %llu x %llu of '%s'",
                            s->files[found->file]->path, name, (unsigned long long)rows, (unsigned long long)cols,
                            (unsigned long long)block_rows, (unsigned long long)block_cols, t->name);
        t->scale = (size_t)(found - s->tensors);
        s->tensors[t->scale].is_scale = true;
    }
    return TMS_OK;
}

struct sort_name {
    const char *name;
    size_t index;
};

static int compare_sort_names(const void *a, const void *b)
{
    const struct sort_name *na = a, *nb = b;
    return strcmp(na->name, nb->name);
}

static tms_status index_names(struct tms_source *s, struct tms_error *err)
{
    struct sort_name *names = tms_calloc(s->n_tensors, sizeof *names);
    free(s->by_name);
    s->by_name = tms_calloc(s->n_tensors, sizeof *s->by_name);
    if (!names || !s->by_name) {
        free(names);
        return tms_fail_memory(err, s->n_tensors * sizeof *names);
    }
    for (size_t i = 0; i < s->n_tensors; i++) names[i] = (struct sort_name){s->tensors[i].name, i};
    if (s->n_tensors) qsort(names, s->n_tensors, sizeof *names, compare_sort_names);
    for (size_t i = 0; i < s->n_tensors; i++) s->by_name[i] = names[i].index;
    free(names);
    return TMS_OK;
}

static tms_status load_config(struct tms_source *s, const char *path, struct tms_error *err)
{
    tms_status status = tms_json_load(&s->config_json, path, CONFIG_LIMIT, err);
    if (status == TMS_OK) status = tms_config_read(&s->config, s->config_json, path, err);
    if (status != TMS_OK) return status;
    s->has_config = true;
    s->arch = tms_arch_find(&s->config);
    return TMS_OK;
}

static tms_status open_hf(struct tms_source *s, tms_report_fn report, void *report_ctx, struct tms_error *err)
{
    tms_status status = TMS_OK;
    if (tms_path_is_dir(s->path)) {
        char *config = tms_path_join(s->path, "config.json");
        if (!config) return tms_fail_memory(err, strlen(s->path));
        if (!tms_path_exists(config))
            status = tms_fail(err, TMS_EINPUT, "%s: has no config.json; a Hugging Face folder has one", s->path);
        else
            status = load_config(s, config, err);
        free(config);
    }
    if (status == TMS_OK) status = tms_hf_open(&s->hf, s->path, report, report_ctx, err);
    if (status == TMS_OK) status = take_hf_tensors(s, err);
    return status;
}

/* A number of the architecture's own, "llama.expert_count"; 0 if it is not there. */
static uint64_t arch_number(const struct tms_source *s, const char *suffix)
{
    char key[160];
    uint64_t n = 0;
    snprintf(key, sizeof key, "%.100s.%s", tms_source_arch_name(s), suffix);
    return tms_kv_as_u64(tms_kvs_find(&s->gguf->kvs, key), &n) ? n : 0;
}

static tms_status open_gguf(struct tms_source *s, struct tms_error *err)
{
    tms_status status = tms_gguf_open(&s->gguf, s->path, err);
    if (status != TMS_OK) return status;
    bool has_experts = arch_number(s, "expert_count") > 0, has_sigmoid = arch_number(s, "expert_gating_func") == 2;
    s->arch = tms_arch_find_gguf(tms_source_arch_name(s), has_experts, has_sigmoid);
    return take_gguf_tensors(s, err);
}

/* A GGUF file is known by its magic, whatever it is called. */
static bool has_gguf_magic(const char *path)
{
    char magic[4];
    struct tms_file file = {.fd = -1};
    if (tms_file_open(&file, path, NULL) != TMS_OK) return false;
    bool has = file.size >= 4 && tms_file_read(&file, magic, 4, 0, NULL) == TMS_OK && memcmp(magic, "GGUF", 4) == 0;
    tms_file_close(&file);
    return has;
}

tms_status tms_source_open(struct tms_source **out, const char *path, tms_report_fn report, void *report_ctx,
                           struct tms_error *err)
{
    struct tms_source *s = calloc(1, sizeof *s);
    tms_status status = TMS_OK;
    if (!s) return tms_fail_memory(err, sizeof *s);
    s->path = strdup(path);
    if (!s->path) {
        status = tms_fail_memory(err, strlen(path));
    } else if (!tms_path_exists(path)) {
        status = tms_fail(err, TMS_EINPUT, "%s: no such file or folder", path);
    } else if (tms_path_is_dir(path) || tms_ends_with(path, ".safetensors")) {
        s->kind = TMS_SOURCE_HF;
        status = open_hf(s, report, report_ctx, err);
    } else if (tms_ends_with(path, ".gguf") || has_gguf_magic(path)) {
        s->kind = TMS_SOURCE_GGUF;
        status = open_gguf(s, err);
    } else if (tms_ends_with(path, ".json")) {
        s->kind = TMS_SOURCE_CONFIG;
        status = load_config(s, path, err);
        if (status == TMS_OK) status = invent_tensors(s, err);
    } else {
        status = tms_fail(
            err, TMS_EINPUT,
            "%s: is no model (expected a folder with config.json, a .safetensors or .gguf file, or a config.json)",
            path);
    }
    if (status == TMS_OK) status = index_names(s, err);
    if (status == TMS_OK && s->kind == TMS_SOURCE_HF) status = pair_fp8_scales(s, err);
    if (status == TMS_OK && strcmp(s->config.quant_method, "bitsandbytes") == 0) status = tms_packed_find(s, err);
    bool renamed = false;
    if (status == TMS_OK) status = tms_packed_grid_find(s, &renamed, err);
    if (status == TMS_OK && renamed) status = index_names(s, err);
    if (status != TMS_OK) {
        tms_source_close(s);
        return status;
    }
    *out = s;
    return TMS_OK;
}

void tms_source_close(struct tms_source *source)
{
    if (!source) return;
    tms_hf_close(source->hf);
    tms_gguf_close(source->gguf);
    json_decref(source->config_json);
    free(source->files);
    free(source->tensors);
    free(source->by_name);
    free(source->path);
    tms_arena_free(&source->arena);
    free(source);
}

const struct tms_tensor *tms_source_find(const struct tms_source *source, const char *name)
{
    size_t low = 0, high = source->n_tensors;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct tms_tensor *t = &source->tensors[source->by_name[mid]];
        int c = strcmp(name, t->name);
        if (c == 0) return t;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const char *tms_source_arch_name(const struct tms_source *source)
{
    if (source->kind == TMS_SOURCE_GGUF) {
        const char *name = tms_kv_as_string(tms_kvs_find(&source->gguf->kvs, "general.architecture"));
        return name ? name : "";
    }
    return source->config.class_name[0] ? source->config.class_name : source->config.model_type;
}

uint64_t tms_source_parameters(const struct tms_source *source)
{
    uint64_t n = 0;
    for (size_t i = 0; i < source->n_tensors; i++) {
        const struct tms_tensor *t = &source->tensors[i];
        if (t->is_scale || tms_arch_ignores(t->name) || strncmp(t->name, "rope_f", 6) == 0) continue;
        n += t->n_weights;
    }
    return n;
}

bool tms_source_method_known(const struct tms_source *source)
{
    static const char *const methods[] = {
        "", "fp8", "bitsandbytes", "gptq", "awq", "compressed-tensors", "auto-round", "intel/auto-round"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(source->config.quant_method, methods[i]) == 0) return true;
    return false;
}

bool tms_source_decodes(const struct tms_tensor *tensor)
{
    if (tensor->packed) return true;
    return tensor->n_weights == tensor->n_elems && tms_codec(tensor->type) && tms_codec(tensor->type)->decode;
}

uint64_t tms_source_unit(const struct tms_tensor *tensor)
{
    if (tensor->packed && tensor->packed->grid) return tms_packed_grid_unit_rows(tensor->packed->grid) * tensor->cols;
    if (tensor->packed) return tensor->packed->eight ? tensor->packed->shape[1] : tensor->packed->block_size;
    return tensor->scale == TMS_NO_SCALE ? tms_codec(tensor->type)->block_elems : tensor->cols;
}

uint64_t tms_source_raw_bytes(const struct tms_tensor *tensor, uint64_t n)
{
    if (tensor->packed && tensor->packed->grid)
        return tms_grid_code_bytes(&tensor->packed->grid->grid,
                                   tensor->cols ? (n + tensor->cols - 1) / tensor->cols : 0);
    if (tensor->packed) return tensor->packed->eight ? n : n / 2 + n % 2;
    return tms_codec_bytes(tms_codec(tensor->type), n);
}

uint32_t tms_source_shape(const struct tms_tensor *tensor, uint64_t shape[TMS_ST_MAX_DIMS])
{
    memcpy(shape, tensor->shape, sizeof tensor->shape);
    if (!tensor->packed) return tensor->n_dims;
    memcpy(shape, tensor->packed->shape, sizeof tensor->packed->shape);
    return 2;
}

tms_status tms_source_read_raw(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first,
                               uint64_t n, void *raw, struct tms_error *err)
{
    const struct tms_codec *codec = tms_codec(tensor->type);
    return tms_file_read(source->files[tensor->file], raw, tms_codec_bytes(codec, n),
                         tensor->offset + tms_codec_bytes(codec, first), err);
}

/* Multiplies rows [first_row, first_row + n_rows) of an FP8 tensor by their block scales. */
static tms_status apply_scales(const struct tms_source *source, const struct tms_tensor *t, uint64_t first_row,
                               uint64_t n_rows, float *x, struct tms_error *err)
{
    const struct tms_tensor *scale = &source->tensors[t->scale];
    uint64_t block_rows = source->config.fp8_block[0], block_cols = source->config.fp8_block[1];
    if (!block_rows || !block_cols) return TMS_OK; /* cannot be: pair_fp8_scales set them */
    uint64_t first = first_row / block_rows, last = (first_row + n_rows - 1) / block_rows;
    uint64_t n = (last - first + 1) * scale->cols;
    void *raw = tms_calloc(n, 4);
    float *scales = tms_calloc(n, sizeof *scales);
    tms_status status = raw && scales ? TMS_OK : tms_fail_memory(err, n * 8);
    if (status == TMS_OK) status = tms_source_read(source, scale, first * scale->cols, n, raw, scales, err);
    for (uint64_t r = 0; status == TMS_OK && r < n_rows; r++) {
        const float *row_scales = scales + ((first_row + r) / block_rows - first) * scale->cols;
        float *row = x + r * t->cols;
        for (uint64_t c = 0; c < t->cols; c += block_cols) {
            uint64_t end = c + block_cols < t->cols ? c + block_cols : t->cols;
            float factor = row_scales[c / block_cols];
            for (uint64_t i = c; i < end; i++) row[i] *= factor;
        }
    }
    free(raw);
    free(scales);
    return status;
}

tms_status tms_source_read(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first, uint64_t n,
                           void *raw, float *out, struct tms_error *err)
{
    if (tensor->packed) return tms_packed_read(source, tensor, first, n, raw, out, err);
    const struct tms_codec *codec = tms_codec(tensor->type);
    tms_status status = tms_source_read_raw(source, tensor, first, n, raw, err);
    if (status != TMS_OK || n == 0) return status;
    codec->decode(raw, out, n);
    if (tensor->scale == TMS_NO_SCALE || tensor->cols == 0) return TMS_OK;
    return apply_scales(source, tensor, first / tensor->cols, n / tensor->cols, out, err);
}

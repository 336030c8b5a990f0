/* See hf_folder_out.h. */
#include "target/hf_folder_out.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "base/text.h"

#define DEFAULT_SHARD 50000000000u /* bytes: transformers 5 */

/* ---- files ---- */

/* Greedily in the order of names; the parts of a tensor stay together. */
static size_t assign_shards(struct tms_target *t, uint64_t limit)
{
    uint64_t bytes = 0;
    uint32_t file = 0;
    for (size_t i = 0; i < t->n_outs;) {
        size_t end = i + 1;
        uint64_t group = t->outs[i].bytes;
        while (end < t->n_outs && t->outs[end].is_scale) group += t->outs[end++].bytes;
        if (bytes > 0 && bytes + group > limit) {
            file++;
            bytes = 0;
        }
        bytes += group;
        for (; i < end; i++) t->outs[i].file = file;
    }
    return (size_t)file + 1;
}

tms_status tms_target_relayout(struct tms_target *t, struct tms_error *err)
{
    tms_status status = TMS_OK;
    struct tms_st_plan_tensor *tensors = tms_calloc(t->n_outs, sizeof *tensors);
    if (!tensors) return tms_fail_memory(err, t->n_outs * sizeof *tensors);
    for (uint32_t f = 0; f < t->n_files && status == TMS_OK; f++) {
        size_t n = 0;
        for (size_t i = 0; i < t->n_outs; i++) {
            const struct tms_out_tensor *out = &t->outs[i];
            if (out->file != f) continue;
            struct tms_st_plan_tensor *to = &tensors[n++];
            *to = (struct tms_st_plan_tensor){
                .name = out->name, .type = out->type, .n_dims = out->n_dims, .tag = i, .last = out->late};
            memcpy(to->shape, out->shape, sizeof to->shape);
        }
        uint64_t reserved = t->files[f].header.n; /* 0 at first; then nothing moves */
        tms_buf_free(&t->files[f].header);
        status = tms_st_layout(tensors, n, reserved, &t->files[f].header, &t->files[f].size, err);
        for (size_t i = 0; i < n && status == TMS_OK; i++) t->outs[tensors[i].tag].offset = tensors[i].offset;
    }
    free(tensors);
    return status;
}

tms_status tms_hf_out_lay_out(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err)
{
    uint64_t limit = options->user->max_shard_bytes;
    size_t n_files = options->split_like ? tms_target_split_like(t, options->split_like) : 0;
    if (!n_files) n_files = assign_shards(t, limit ? limit : DEFAULT_SHARD);
    t->files = tms_calloc(n_files, sizeof *t->files);
    if (!t->files) return tms_fail_memory(err, n_files * sizeof *t->files);
    t->n_files = n_files;
    for (size_t f = 0; f < t->n_files; f++) {
        char name[64] = "model.safetensors";
        if (t->n_files > 1) snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", f + 1, t->n_files);
        t->files[f].name = strdup(name);
        if (!t->files[f].name) return tms_fail_memory(err, sizeof name);
    }
    return tms_target_relayout(t, err);
}

/* ---- the folder's other files ---- */

tms_status tms_hf_out_source_config(const struct tms_target *t, char **text, size_t *n, struct tms_error *err)
{
    char *path = tms_path_join(t->source->path, "config.json");
    tms_status status = path ? tms_file_text(path, 64u << 20, text, n, err) : tms_fail_memory(err, 256);
    free(path);
    return status;
}

tms_status tms_target_config_text(const struct tms_target *t, struct tms_buf *out, struct tms_error *err)
{
    for (size_t i = 0; i < t->side_files.n; i++) {
        const struct tms_made_file *file = &t->side_files.items[i];
        if (strcmp(file->name, "config.json") == 0) tms_buf_put(out, file->bytes.data, file->bytes.n);
    }
    return out->failed ? tms_fail_memory(err, 256) : TMS_OK;
}

tms_status tms_target_index_text(const struct tms_target *t, struct tms_buf *out, struct tms_error *err)
{
    uint64_t total = 0;
    json_t *map = json_object();
    for (size_t i = 0; i < t->n_outs; i++) {
        total += t->outs[i].bytes;
        if (json_object_set_new(map, t->outs[i].name, json_string(t->files[t->outs[i].file].name)) != 0) {
            json_decref(map);
            return tms_fail_memory(err, 256);
        }
    }
    json_t *index = json_pack("{s:{s:I, s:I}, s:o}", "metadata", "total_parameters", (json_int_t)t->n_parameters,
                              "total_size", (json_int_t)total, "weight_map", map);
    char *text = index ? json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(index);
    if (!text) return tms_fail_memory(err, 256);
    tms_buf_text(out, text);
    tms_buf_text(out, "\n");
    free(text);
    return out->failed ? tms_fail_memory(err, 256) : TMS_OK;
}

static tms_status write_index(const struct tms_target *t, const char *dir, struct tms_error *err)
{
    struct tms_buf text = {0};
    if (t->n_files == 1) return TMS_OK;
    tms_status status = tms_target_index_text(t, &text, err);
    if (status == TMS_OK) status = tms_write_file(dir, "model.safetensors.index.json", text.data, text.n, err);
    tms_buf_free(&text);
    return status;
}

/* Weights in any form and what describes them stay behind; everything else goes along. */
bool tms_target_goes_along(const char *name)
{
    static const char *const weights[] = {".safetensors", ".bin", ".pt", ".pth",     ".gguf",         ".index.json",
                                          ".onnx",        ".h5",  ".ot", ".msgpack", ".tamis-partial"};
    static const char *const configs[] = {"config.json", "quantize_config.json", "quant_config.json"};
    if (name[0] == '.') return false;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        if (strcmp(name, configs[i]) == 0) return false;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        if (tms_ends_with(name, weights[i])) return false;
    return true;
}

/* Everything else that lies in the source folder. */
static tms_status copy_others(const struct tms_target *t, const char *dir, struct tms_error *err)
{
    tms_status status = TMS_OK;
    DIR *d = opendir(t->source->path);
    if (!d) return tms_fail(err, TMS_EIO, "%s: cannot be listed: %s", t->source->path, strerror(errno));
    for (struct dirent *entry; status == TMS_OK && (entry = readdir(d));) {
        struct stat st;
        if (!tms_target_goes_along(entry->d_name)) continue;
        char *from = tms_path_join(t->source->path, entry->d_name), *to = tms_path_join(dir, entry->d_name);
        if (!from || !to)
            status = tms_fail_memory(err, 256);
        else if (stat(from, &st) == 0 && S_ISREG(st.st_mode))
            status = tms_file_copy(from, to, err);
        free(from);
        free(to);
    }
    closedir(d);
    return status;
}

tms_status tms_target_write_side_files(const struct tms_target *t, const char *dir, struct tms_error *err)
{
    tms_status status = tms_made_files_write(&t->side_files, dir, err);
    if (status == TMS_OK) status = write_index(t, dir, err);
    if (status == TMS_OK && t->source->kind == TMS_SOURCE_HF) status = copy_others(t, dir, err);
    return status;
}

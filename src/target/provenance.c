/* See provenance.h. */
#include "target/provenance.h"

#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"

/* ---- hashes ---- */

static bool add_file(struct tms_hashed_files *files, size_t *cap, char *path)
{
    if (!path || !tms_grow(&files->items, cap, files->n + 1, sizeof *files->items)) {
        free(path);
        return false;
    }
    files->items[files->n++] = (struct tms_hashed_file){.path = path};
    return true;
}

void tms_hashed_files_free(struct tms_hashed_files *files)
{
    for (size_t i = 0; i < files->n; i++) free(files->items[i].path);
    free(files->items);
    *files = (struct tms_hashed_files){0};
}

static int compare_files(const void *a, const void *b)
{
    const struct tms_hashed_file *fa = a, *fb = b;
    return strcmp(fa->path, fb->path);
}

static tms_status hash_one(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct tms_hashed_files *files = ctx;
    (void)worker;
    return tms_sha256_file(files->items[index].path, files->items[index].sha256, &files->items[index].bytes, err);
}

/* Sorts, hashes a file per thread, and hands over. */
static tms_status hash_all(struct tms_hashed_files *out, struct tms_hashed_files *files, bool ok, struct tms_pool *pool,
                           struct tms_error *err)
{
    tms_status status = ok ? TMS_OK : tms_fail_memory(err, 256);
    if (status == TMS_OK && files->n) qsort(files->items, files->n, sizeof *files->items, compare_files);
    if (status == TMS_OK) status = tms_pool_run(pool, files->n, hash_one, files, err);
    if (status == TMS_OK)
        *out = *files;
    else
        tms_hashed_files_free(files);
    return status;
}

/* The regular files of a folder that `wanted` takes. */
static bool list_folder(struct tms_hashed_files *files, size_t *cap, const char *dir, bool (*wanted)(const char *name))
{
    bool ok = true;
    DIR *d = opendir(dir);
    for (struct dirent *entry; ok && d && (entry = readdir(d));) {
        char *path = entry->d_name[0] != '.' && wanted(entry->d_name) ? tms_path_join(dir, entry->d_name) : NULL;
        if (path && !tms_path_is_dir(path))
            ok = add_file(files, cap, path);
        else
            free(path);
    }
    if (d) closedir(d);
    return ok;
}

static bool beside_weights(const char *name)
{
    return tms_target_goes_along(name) || strcmp(name, "config.json") == 0;
}

static bool every_file(const char *name)
{
    (void)name;
    return true;
}

tms_status tms_hash_source(struct tms_hashed_files *out, const struct tms_source *source, bool all,
                           struct tms_pool *pool, struct tms_error *err)
{
    struct tms_hashed_files files = {0};
    size_t cap = 0;
    bool ok = true;
    for (size_t i = 0; i < source->n_files && ok; i++) ok = add_file(&files, &cap, strdup(source->files[i]->path));
    if (ok && all && source->kind == TMS_SOURCE_HF && source->hf->dir)
        ok = list_folder(&files, &cap, source->path, beside_weights);
    return hash_all(out, &files, ok, pool, err);
}

tms_status tms_hash_target(struct tms_hashed_files *out, const struct tms_target *target, struct tms_pool *pool,
                           struct tms_error *err)
{
    struct tms_hashed_files files = {0};
    size_t cap = 0;
    bool ok = true;
    if (target->folder) ok = list_folder(&files, &cap, target->path, every_file);
    for (size_t f = 0; f < target->n_files && ok && !target->folder; f++)
        ok = add_file(&files, &cap,
                      target->n_files > 1 ? tms_gguf_shard_path(target->path, (unsigned)f, (unsigned)target->n_files)
                                          : strdup(target->path));
    return hash_all(out, &files, ok, pool, err);
}

void tms_source_hash(char out[72], const struct tms_hashed_files *files, const struct tms_source *source)
{
    struct tms_sha256 hash;
    tms_sha256_begin(&hash);
    for (size_t i = 0; i < files->n; i++) {
        const struct tms_hashed_file *file = &files->items[i];
        const char *name = tms_path_base(file->path);
        bool is_weights = false;
        for (size_t k = 0; k < source->n_files; k++) is_weights |= strcmp(source->files[k]->path, file->path) == 0;
        if (!is_weights) continue;
        if (source->n_files == 1) {
            snprintf(out, 72, "sha256:%s", file->sha256);
            return;
        }
        tms_sha256_add(&hash, file->sha256, 64);
        tms_sha256_add(&hash, "  ", 2);
        tms_sha256_add(&hash, name, strlen(name));
        tms_sha256_add(&hash, "\n", 1);
    }
    memcpy(out, "sha256:", 7);
    tms_sha256_end(&hash, out + 7);
}

/* ---- recipes ---- */

/* The options that a recipe holds, by their names on the command line. */
static const struct {
    const char *name;
    size_t offset;
} flags[] =
    {
        {"pure", offsetof(struct tms_quantize_options, pure)},
        {"vocab-only", offsetof(struct tms_quantize_options, vocab_only)},
        {"leave-output-tensor", offsetof(struct tms_quantize_options, leave_output_tensor)},
        {"rules-of-2025", offsetof(struct tms_quantize_options, rules_of_2025)},
        {"keep-split", offsetof(struct tms_quantize_options, keep_split)},
        {"sequential", offsetof(struct tms_quantize_options, sequential)},
},
  texts[] =
      {
          {"model-name", offsetof(struct tms_quantize_options, model_name)},
          {"pre", offsetof(struct tms_quantize_options, pre)},
          {"output-tensor-type", offsetof(struct tms_quantize_options, output_tensor_type)},
          {"token-embedding-type", offsetof(struct tms_quantize_options, token_embedding_type)},
          {"prune-layers", offsetof(struct tms_quantize_options, prune_layers)},
          {"method", offsetof(struct tms_quantize_options, method)},
          {"template", offsetof(struct tms_quantize_options, template_name)},
},
  numbers[] = {
      {"split-max-size", offsetof(struct tms_quantize_options, split_max_bytes)},
      {"split-max-tensors", offsetof(struct tms_quantize_options, split_max_tensors)},
      {"max-shard-size", offsetof(struct tms_quantize_options, max_shard_bytes)},
      {"samples", offsetof(struct tms_quantize_options, n_samples)},
      {"seqlen", offsetof(struct tms_quantize_options, sample_length)},
};
static const struct {
    const char *name;
    size_t offset, n_offset;
} lists[] = {
    {"include-weights", offsetof(struct tms_quantize_options, include_weights),
     offsetof(struct tms_quantize_options, n_include_weights)},
    {"exclude-weights", offsetof(struct tms_quantize_options, exclude_weights),
     offsetof(struct tms_quantize_options, n_exclude_weights)},
    {"tensor-type", offsetof(struct tms_quantize_options, tensor_types),
     offsetof(struct tms_quantize_options, n_tensor_types)},
    {"override-kv", offsetof(struct tms_quantize_options, override_kv),
     offsetof(struct tms_quantize_options, n_override_kv)},
};
#define COUNT(table)         (sizeof(table) / sizeof *(table))
#define AT(options, type, o) ((type *)(void *)((char *)(options) + (o)))

json_t *tms_recipe(const struct tms_quantize_options *options, const char *type, bool converter,
                   const char *imatrix_sha256)
{
    struct tms_quantize_options o = *options;
    json_t *recipe = json_pack("{s:s, s:s}", "command", converter ? "convert" : "quantize", "to", type);
    bool ok = recipe != NULL;
    for (size_t i = 0; i < COUNT(flags) && ok; i++)
        if (*AT(&o, bool, flags[i].offset)) ok = json_object_set_new(recipe, flags[i].name, json_true()) == 0;
    for (size_t i = 0; i < COUNT(texts) && ok; i++) {
        const char *text = *AT(&o, const char *, texts[i].offset);
        if (text) ok = json_object_set_new(recipe, texts[i].name, json_string(text)) == 0;
    }
    for (size_t i = 0; i < COUNT(numbers) && ok; i++) {
        uint64_t n = *AT(&o, uint64_t, numbers[i].offset);
        if (n) ok = json_object_set_new(recipe, numbers[i].name, json_integer((json_int_t)n)) == 0;
    }
    for (size_t i = 0; i < COUNT(lists) && ok; i++) {
        size_t n = *AT(&o, size_t, lists[i].n_offset);
        const char *const *items = *AT(&o, const char *const *, lists[i].offset);
        json_t *list = n ? json_array() : NULL;
        for (size_t k = 0; k < n && ok; k++) ok = json_array_append_new(list, json_string(items[k])) == 0;
        if (list) ok = json_object_set_new(recipe, lists[i].name, list) == 0 && ok;
    }
    if (o.imatrix && ok)
        ok = json_object_set_new(recipe, "imatrix", json_string(tms_path_base(o.imatrix))) == 0 &&
             json_object_set_new(recipe, "imatrix-sha256", json_string(imatrix_sha256)) == 0;
    if (o.damp > 0 && ok) ok = json_object_set_new(recipe, "damp", json_real(o.damp)) == 0;
    if (o.data && ok) ok = json_object_set_new(recipe, "data", json_string(tms_path_base(o.data))) == 0;
    if (o.stats && ok) ok = json_object_set_new(recipe, "stats", json_string(tms_path_base(o.stats))) == 0;
    if (ok) return recipe;
    json_decref(recipe);
    return NULL;
}

tms_status tms_recipe_read(struct tms_quantize_options *options, const char **type, bool *converter,
                           const char **imatrix_sha256, const json_t *recipe, struct tms_arena *arena,
                           struct tms_error *err)
{
    const char *to = json_string_value(json_object_get(recipe, "to"));
    const char *command = json_string_value(json_object_get(recipe, "command"));
    if (!to || !command)
        return tms_fail(err, TMS_EINPUT,
                        "tamis.recipe: is no recipe (expected a JSON object with \"command\" and \"to\")");
    *type = to;
    *converter = strcmp(command, "convert") == 0;
    *imatrix_sha256 = json_string_value(json_object_get(recipe, "imatrix-sha256"));
    for (size_t i = 0; i < COUNT(flags); i++)
        *AT(options, bool, flags[i].offset) |= json_is_true(json_object_get(recipe, flags[i].name));
    for (size_t i = 0; i < COUNT(texts); i++) {
        const char **text = AT(options, const char *, texts[i].offset);
        if (!*text) *text = json_string_value(json_object_get(recipe, texts[i].name));
    }
    for (size_t i = 0; i < COUNT(numbers); i++) {
        uint64_t *number = AT(options, uint64_t, numbers[i].offset);
        json_int_t told = json_integer_value(json_object_get(recipe, numbers[i].name));
        if (!*number && told > 0) *number = (uint64_t)told;
    }
    if (options->damp == 0) options->damp = json_number_value(json_object_get(recipe, "damp"));
    for (size_t i = 0; i < COUNT(lists); i++) {
        const json_t *list = json_object_get(recipe, lists[i].name);
        size_t n = json_array_size(list), *n_items = AT(options, size_t, lists[i].n_offset);
        if (n == 0 || *n_items) continue;
        const char **items = tms_arena_alloc(arena, n * sizeof *items);
        if (!items) return tms_fail_memory(err, n * sizeof *items);
        for (size_t k = 0; k < n; k++) {
            items[k] = json_string_value(json_array_get(list, k));
            if (!items[k]) return tms_fail(err, TMS_EINPUT, "tamis.recipe: \"%s\" is no list of texts", lists[i].name);
        }
        *AT(options, const char *const *, lists[i].offset) = items;
        *n_items = n;
    }
    return TMS_OK;
}

void tms_provenance_set_keys(struct tms_kvs *kvs, const char *recipe, const char *source_hash)
{
    tms_kvs_set_string(kvs, "tamis.version", tms_version());
    tms_kvs_set_string(kvs, "tamis.recipe", recipe);
    tms_kvs_set_string(kvs, "tamis.source.hash", source_hash);
}

void tms_provenance_remove_keys(struct tms_kvs *kvs)
{
    tms_kvs_remove(kvs, "tamis.version");
    tms_kvs_remove(kvs, "tamis.recipe");
    tms_kvs_remove(kvs, "tamis.source.hash");
}

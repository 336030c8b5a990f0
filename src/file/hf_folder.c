/* See hf_folder.h. */
#include "file/hf_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"

#define INDEX_NAME  "model.safetensors.index.json"
#define INDEX_LIMIT (256u << 20) /* bytes; DeepSeek-V3's index has 9 MB */

struct opening {
    const char *dir;
    tms_report_fn report;
    void *ctx;
    struct tms_error *err;
};

/* Reports a problem and goes on (TMS_OK), or fails with it. */
static tms_status problem(const struct opening *o, tms_status status, const struct tms_error *what)
{
    if (o->report && (status == TMS_EINPUT)) {
        o->report(o->ctx, what->message);
        return TMS_OK;
    }
    if (o->err) *o->err = *what;
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
}

static tms_status add_name(char ***names, size_t *n, size_t *cap, const char *name, struct tms_error *err)
{
    if (!tms_grow(names, cap, *n + 1, sizeof **names)) return tms_fail_memory(err, (*n + 1) * sizeof **names);
    char *copy = strdup(name);
    if (!copy) return tms_fail_memory(err, strlen(name));
    (*names)[(*n)++] = copy;
    return TMS_OK;
}

/* All *.safetensors files of the folder, sorted. */
static tms_status list_safetensors(const char *dir, char ***out, size_t *out_n, struct tms_error *err)
{
    char **names = NULL;
    size_t n = 0, cap = 0;
    tms_status status = TMS_OK;
    DIR *d = opendir(dir);
    if (!d) return tms_fail(err, TMS_EIO, "%s: cannot be listed: %s", dir, strerror(errno));
    for (struct dirent *entry; status == TMS_OK && (entry = readdir(d));)
        if (entry->d_name[0] != '.' && tms_ends_with(entry->d_name, ".safetensors"))
            status = add_name(&names, &n, &cap, entry->d_name, err);
    closedir(d);
    if (status != TMS_OK) {
        free_names(names, n);
        return status;
    }
    if (n) qsort(names, n, sizeof *names, compare_names);
    *out = names;
    *out_n = n;
    return TMS_OK;
}

/* Keeps the names that begin with `prefix` (keep true) or drops them (keep false). */
static void filter(char **names, size_t *n, const char *prefix, bool keep)
{
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        if ((strncmp(names[i], prefix, strlen(prefix)) == 0) == keep)
            names[kept++] = names[i];
        else
            free(names[i]);
    }
    *n = kept;
}

static bool has_name(char **names, size_t n, const char *name)
{
    return n && bsearch(&name, names, n, sizeof *names, compare_names) != NULL;
}

/* The distinct files that the index names, sorted. *map_out is borrowed from `index`. */
static tms_status index_files(const json_t *index, const char *path, char ***out, size_t *out_n, const json_t **map_out,
                              struct tms_error *err)
{
    char **names = NULL;
    size_t n = 0, cap = 0, distinct = 0;
    tms_status status = TMS_OK;
    json_t *map = json_object_get(index, "weight_map");
    const char *tensor;
    json_t *file;
    if (!json_is_object(map)) return tms_fail(err, TMS_EINPUT, "%s: has no \"weight_map\" object", path);
    json_object_foreach(map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (!name || !*name || strchr(name, '/') || strlen(name) != json_string_length(file)) {
            status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s': its file is not a plain file name", path, tensor);
            goto done;
        }
        status = add_name(&names, &n, &cap, name, err);
        if (status != TMS_OK) goto done;
    }
    if (n) qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 0; i < n; i++) {
        if (i && strcmp(names[i], names[distinct - 1]) == 0)
            free(names[i]);
        else
            names[distinct++] = names[i];
    }
    n = distinct;
    if (!n) {
        status = tms_fail(err, TMS_EINPUT, "%s: \"weight_map\" is empty", path);
        goto done;
    }
    *out = names;
    *out_n = n;
    *map_out = map;
    return TMS_OK;
done:
    free_names(names, n);
    return status;
}

static tms_status open_shards(struct tms_hf *hf, const struct opening *o, char **names, size_t n)
{
    hf->shards = calloc(n ? n : 1, sizeof *hf->shards);
    if (!hf->shards) return tms_fail_memory(o->err, n * sizeof *hf->shards);
    for (size_t i = 0; i < n; i++) {
        struct tms_error what;
        char *path = tms_path_join(o->dir, names[i]);
        if (!path) return tms_fail_memory(o->err, strlen(names[i]));
        tms_status status = tms_safetensors_open(&hf->shards[hf->n_shards], path, &what);
        free(path);
        if (status == TMS_OK)
            hf->n_shards++;
        else
            status = problem(o, status, &what);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

static const struct tms_safetensors *shard_named(const struct tms_hf *hf, const char *name)
{
    for (size_t i = 0; i < hf->n_shards; i++)
        if (strcmp(tms_path_base(hf->shards[i]->file.path), name) == 0) return hf->shards[i];
    return NULL;
}

/* Index and shards must agree on every tensor. */
static tms_status compare_index(const struct tms_hf *hf, const struct opening *o, const json_t *map)
{
    struct tms_error what;
    tms_status status = TMS_OK;
    const char *tensor;
    json_t *file;
    /* jansson's macro wants a pointer that is not const; nothing is changed. */
    json_object_foreach((json_t *)(uintptr_t)map, tensor, file)
    {
        const struct tms_safetensors *st = shard_named(hf, json_string_value(file));
        if (!st || tms_safetensors_find(st, tensor)) continue; /* a missing shard was told already */
        (void)tms_fail(&what, TMS_EINPUT, "%s/" INDEX_NAME ": tensor '%s' is not in %s", o->dir, tensor,
                       json_string_value(file));
        status = problem(o, TMS_EINPUT, &what);
        if (status != TMS_OK) return status;
    }
    for (size_t i = 0; i < hf->n_shards; i++) {
        const char *name = tms_path_base(hf->shards[i]->file.path);
        for (size_t t = 0; t < hf->shards[i]->n_tensors; t++) {
            const char *owner = json_string_value(json_object_get(map, hf->shards[i]->tensors[t].name));
            if (owner && strcmp(owner, name) == 0) continue;
            if (owner)
                (void)tms_fail(&what, TMS_EINPUT, "%s/%s: tensor '%s': the index places it in %s", o->dir, name,
                               hf->shards[i]->tensors[t].name, owner);
            else
                (void)tms_fail(&what, TMS_EINPUT, "%s/%s: tensor '%s' is not in the index", o->dir, name,
                               hf->shards[i]->tensors[t].name);
            status = problem(o, TMS_EINPUT, &what);
            if (status != TMS_OK) return status;
        }
    }
    return TMS_OK;
}

struct named {
    const char *tensor, *file;
};

static int compare_named(const void *a, const void *b)
{
    const struct named *na = a, *nb = b;
    int c = strcmp(na->tensor, nb->tensor);
    return c ? c : strcmp(na->file, nb->file);
}

static tms_status check_repeated(const struct tms_hf *hf, const struct opening *o)
{
    size_t n = 0;
    tms_status status = TMS_OK;
    for (size_t i = 0; i < hf->n_shards; i++) n += hf->shards[i]->n_tensors;
    struct named *all = calloc(n ? n : 1, sizeof *all);
    if (!all) return tms_fail_memory(o->err, n * sizeof *all);
    n = 0;
    for (size_t i = 0; i < hf->n_shards; i++)
        for (size_t t = 0; t < hf->shards[i]->n_tensors; t++)
            all[n++] = (struct named){hf->shards[i]->tensors[t].name, tms_path_base(hf->shards[i]->file.path)};
    qsort(all, n, sizeof *all, compare_named);
    for (size_t i = 1; i < n && status == TMS_OK; i++) {
        struct tms_error what;
        if (strcmp(all[i - 1].tensor, all[i].tensor) != 0) continue;
        (void)tms_fail(&what, TMS_EINPUT, "%s/%s: tensor '%s' is also in %s", o->dir, all[i].file, all[i].tensor,
                       all[i - 1].file);
        status = problem(o, TMS_EINPUT, &what);
    }
    free(all);
    return status;
}

static tms_status open_folder(struct tms_hf *hf, const struct opening *o)
{
    struct tms_error what;
    char **files = NULL, **present = NULL;
    size_t n_files = 0, n_present = 0;
    json_t *index = NULL;
    const json_t *map = NULL;
    char *index_path = tms_path_join(o->dir, INDEX_NAME);
    tms_status status = index_path ? TMS_OK : tms_fail_memory(o->err, strlen(o->dir));
    if (status == TMS_OK) status = list_safetensors(o->dir, &present, &n_present, o->err);
    if (status != TMS_OK) goto done;

    if (tms_path_exists(index_path)) {
        status = tms_json_load(&index, index_path, INDEX_LIMIT, &what);
        if (status == TMS_OK) status = index_files(index, index_path, &files, &n_files, &map, &what);
        if (status != TMS_OK) {
            if (o->err) *o->err = what;
            goto done;
        }
        for (size_t i = 0; i < n_present && status == TMS_OK; i++) {
            if (strncmp(present[i], "model", 5) != 0 || has_name(files, n_files, present[i])) continue;
            (void)tms_fail(&what, TMS_EINPUT, "%s/%s: the index does not know this shard", o->dir, present[i]);
            status = problem(o, TMS_EINPUT, &what);
        }
        for (size_t i = 0; i < n_files && status == TMS_OK;) {
            if (has_name(present, n_present, files[i])) {
                i++;
                continue;
            }
            (void)tms_fail(&what, TMS_EINPUT, "%s/%s: this shard is named by the index and missing; download it again",
                           o->dir, files[i]);
            status = problem(o, TMS_EINPUT, &what);
            free(files[i]);
            memmove(&files[i], &files[i + 1], (--n_files - i) * sizeof *files);
        }
    } else {
        files = present;
        n_files = n_present;
        present = NULL;
        n_present = 0;
        if (has_name(files, n_files, "model.safetensors"))
            filter(files, &n_files, "model.safetensors", true);
        else {
            bool model = false;
            for (size_t i = 0; i < n_files; i++) model |= strncmp(files[i], "model", 5) == 0;
            filter(files, &n_files, model ? "model" : "consolidated", model);
        }
        if (n_files == 0)
            status = tms_fail(o->err, TMS_EINPUT,
                              "%s: has no *.safetensors files (pickled .bin or .pth weights are not read)", o->dir);
    }
    if (status == TMS_OK) status = open_shards(hf, o, files, n_files);
    if (status == TMS_OK) status = check_repeated(hf, o);
    if (status == TMS_OK && map) status = compare_index(hf, o, map);
done:
    json_decref(index);
    free_names(files, n_files);
    free_names(present, n_present);
    free(index_path);
    return status;
}

tms_status tms_hf_open(struct tms_hf **out, const char *path, tms_report_fn report, void *report_ctx,
                       struct tms_error *err)
{
    struct tms_hf *hf = calloc(1, sizeof *hf);
    tms_status status;
    if (!hf) return tms_fail_memory(err, sizeof *hf);
    if (tms_path_is_dir(path)) {
        struct opening o = {.dir = path, .report = report, .ctx = report_ctx, .err = err};
        hf->dir = strdup(path);
        status = hf->dir ? open_folder(hf, &o) : tms_fail_memory(err, strlen(path));
    } else {
        hf->shards = calloc(1, sizeof *hf->shards);
        status = hf->shards ? tms_safetensors_open(&hf->shards[0], path, err) : tms_fail_memory(err, sizeof(void *));
        if (status == TMS_OK) hf->n_shards = 1;
    }
    if (status != TMS_OK) {
        tms_hf_close(hf);
        return status;
    }
    *out = hf;
    return TMS_OK;
}

void tms_hf_close(struct tms_hf *hf)
{
    if (!hf) return;
    for (size_t i = 0; i < hf->n_shards; i++) tms_safetensors_close(hf->shards[i]);
    free(hf->shards);
    free(hf->dir);
    free(hf);
}

/* Keys, config.json, the files beside the weights, and the layout of a file that is verified. See verify.c. */
#include "target/verifying.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/keys.h"

static void report_keys(struct tms_verifying *v, const struct tms_key_list *keys)
{
    for (size_t i = 0; i < keys->n; i++) {
        const struct tms_diff_key *k = &keys->items[i];
        if (!k->a)
            tms_verify_found(v, "key '%s' is missing, rebuilt it is %s", k->key, k->b);
        else if (!k->b)
            tms_verify_found(v, "key '%s' (%s) would not be written", k->key, k->a);
        else
            tms_verify_found(v, "key '%s' is %s, rebuilt it is %s", k->key, k->a, k->b);
    }
}

static tms_status compare_config(struct tms_verifying *v, struct tms_key_list *keys, struct tms_error *err)
{
    struct tms_buf text = {0};
    json_t *json = NULL;
    tms_status status = tms_target_config_text(v->target, &text, err);
    if (status == TMS_OK) status = tms_json_parse(&json, (const char *)text.data, text.n, "config.json", err);
    if (status == TMS_OK) tms_keys_compare_json(keys, v->file->config_json, json);
    json_decref(json);
    tms_buf_free(&text);
    return status;
}

/* Is this what the file holds? One that is not there holds nothing. */
static tms_status holds(bool *same, const char *path, const struct tms_buf *bytes, struct tms_error *err)
{
    char *text = NULL;
    size_t n = 0;
    *same = false;
    if (!tms_path_exists(path) || tms_path_is_dir(path)) return TMS_OK;
    tms_status status = tms_file_text(path, 1u << 30, &text, &n, err);
    *same = status == TMS_OK && n == bytes->n && (n == 0 || memcmp(text, bytes->data, n) == 0);
    free(text);
    return status;
}

static tms_status file_holds(struct tms_verifying *v, bool *same, const char *name, const struct tms_buf *bytes,
                             struct tms_error *err)
{
    char *path = tms_path_join(v->file->path, name);
    tms_status status = path ? holds(same, path, bytes, err) : tms_fail_memory(err, strlen(name));
    free(path);
    return status;
}

static tms_status same_contents(bool *same, const char *a, const char *b, struct tms_error *err)
{
    enum { PIECE = 1 << 16 };
    struct tms_file files[2] = {{.fd = -1}, {.fd = -1}};
    uint8_t *pieces = malloc(2 * PIECE);
    tms_status status = pieces ? TMS_OK : tms_fail_memory(err, 2 * PIECE);
    if (status == TMS_OK) status = tms_file_open(&files[0], a, err);
    if (status == TMS_OK) status = tms_file_open(&files[1], b, err);
    *same = status == TMS_OK && files[0].size == files[1].size;
    for (uint64_t at = 0; *same && status == TMS_OK && at < files[0].size; at += PIECE) {
        uint64_t n = files[0].size - at < PIECE ? files[0].size - at : PIECE;
        for (int i = 0; i < 2 && status == TMS_OK; i++)
            status = tms_file_read(&files[i], pieces + i * PIECE, n, at, err);
        *same = status == TMS_OK && memcmp(pieces, pieces + PIECE, n) == 0;
    }
    for (int i = 0; i < 2; i++) tms_file_close(&files[i]);
    free(pieces);
    return status;
}

/* Files that are made, not copied: of a folder that comes from GGUF. */
static tms_status compare_made_files(struct tms_verifying *v, struct tms_error *err)
{
    const struct tms_made_files *files = &v->target->side_files;
    tms_status status = TMS_OK;
    for (size_t i = 0; i < files->n && status == TMS_OK; i++) {
        const struct tms_made_file *made = &files->items[i];
        bool same = true;
        if (made->bytes.failed) return tms_fail_memory(err, made->bytes.n);
        if (strcmp(made->name, "config.json") != 0) status = file_holds(v, &same, made->name, &made->bytes, err);
        if (!same && status == TMS_OK) tms_verify_found(v, "file '%s' is not what the source gives", made->name);
    }
    return status;
}

/* Tokenizer and the other files of the folder are copies. */
static tms_status compare_side_files(struct tms_verifying *v, struct tms_error *err)
{
    tms_status status = compare_made_files(v, err);
    if (status != TMS_OK || v->source->kind != TMS_SOURCE_HF) return status;
    DIR *d = opendir(v->source->path);
    if (!d) return tms_fail(err, TMS_EIO, "%s: cannot be listed", v->source->path);
    for (struct dirent *entry; status == TMS_OK && (entry = readdir(d));) {
        bool same = true;
        if (!tms_target_goes_along(entry->d_name)) continue;
        char *a = tms_path_join(v->source->path, entry->d_name), *b = tms_path_join(v->file->path, entry->d_name);
        if (!a || !b)
            status = tms_fail_memory(err, 256);
        else if (!tms_path_is_dir(a) && !tms_path_exists(b))
            tms_verify_found(v, "file '%s' is missing", entry->d_name);
        else if (!tms_path_is_dir(a))
            status = same_contents(&same, a, b, err);
        if (!same && status == TMS_OK) tms_verify_found(v, "file '%s' is not the source's", entry->d_name);
        free(a);
        free(b);
    }
    closedir(d);
    return status;
}

tms_status tms_verify_keys(struct tms_verifying *v, struct tms_error *err)
{
    struct tms_key_list keys = {0};
    tms_status status = TMS_OK;
    if (v->target->folder)
        status = compare_config(v, &keys, err);
    else
        tms_keys_compare_kvs(&keys, &v->file->gguf->kvs, &v->target->kvs);
    if (status == TMS_OK && keys.failed) status = tms_fail_memory(err, 256);
    if (status == TMS_OK) report_keys(v, &keys);
    if (status == TMS_OK && v->target->folder) status = compare_side_files(v, err);
    tms_keys_free(&keys);
    return status;
}

/* ---- to the letter ---- */

/* Folders: config.json and the index to the letter, and the shards' names. */
static tms_status compare_texts(struct tms_verifying *v, bool *same, struct tms_error *err)
{
    const struct tms_target *t = v->target;
    struct tms_buf config = {0}, index = {0};
    tms_status status = tms_target_config_text(t, &config, err);
    for (size_t f = 0; f < t->n_files; f++)
        *same &= strcmp(tms_path_base(v->file->files[f]->path), t->files[f].name) == 0;
    if (status == TMS_OK && *same) status = file_holds(v, same, "config.json", &config, err);
    if (status == TMS_OK && *same && t->n_files > 1) {
        status = tms_target_index_text(t, &index, err);
        if (status == TMS_OK) status = file_holds(v, same, "model.safetensors.index.json", &index, err);
    }
    tms_buf_free(&config);
    tms_buf_free(&index);
    return status;
}

tms_status tms_verify_layout(struct tms_verifying *v, struct tms_error *err)
{
    const struct tms_target *t = v->target;
    bool same = t->n_files == v->file->n_files;
    tms_status status = same && t->folder ? compare_texts(v, &same, err) : TMS_OK;
    for (size_t f = 0; f < t->n_files && same && status == TMS_OK; f++) {
        const struct tms_out_file *file = &t->files[f];
        same = file->size == v->file->files[f]->size;
        uint8_t *is = same ? malloc(file->header.n + 1) : NULL;
        if (same && !is) return tms_fail_memory(err, file->header.n);
        if (same) status = tms_file_read(v->file->files[f], is, file->header.n, 0, err);
        if (same && status == TMS_OK) same = memcmp(is, file->header.data, file->header.n) == 0;
        free(is);
    }
    for (size_t i = 0; i < t->n_outs && same && status == TMS_OK && !t->folder; i++) {
        const struct tms_out_tensor *out = &t->outs[i];
        uint64_t end = out->offset + out->bytes, n = tms_align_up(end, v->file->gguf->alignment) - end;
        uint8_t *padding = tms_calloc(n, 1);
        if (!padding) return tms_fail_memory(err, n);
        status = tms_file_read(v->file->files[out->file], padding, n, end, err);
        for (uint64_t k = 0; k < n; k++) same &= padding[k] == 0;
        free(padding);
    }
    v->result.identical = same && status == TMS_OK;
    return status;
}

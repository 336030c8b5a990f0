/* Chat templates: Jinja texts, which GGUF carries as they are.
 *
 * Where a folder keeps them: "chat_template" in tokenizer_config.json, a text or a list of {"name", "template"};
 * or chat_template.jinja, with more of them as additional_chat_templates/NAME.jinja; or chat_template.json. The
 * first of these wins. The template named "default" is tokenizer.chat_template; others are
 * tokenizer.chat_template.NAME, and tokenizer.chat_templates lists their names. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "file/utf8.h"
#include "model/vocab.h"

#define TEMPLATE_LIMIT (UINT64_C(1) << 26)

/* A text file with its line ends made "\n", as Python reads it. */
static tms_status read_jinja(json_t **out, const char *path, struct tms_error *err)
{
    char *text = NULL;
    size_t n = 0, to = 0;
    tms_status status = tms_file_text(path, TEMPLATE_LIMIT, &text, &n, err);
    if (status != TMS_OK) return status;
    for (size_t from = 0; from < n; from++) {
        if (text[from] == '\r' && from + 1 < n && text[from + 1] == '\n') continue;
        text[to++] = text[from] == '\r' ? '\n' : text[from];
    }
    json_t *string = tms_is_utf8(text, to) ? json_stringn(text, to) : NULL;
    if (string)
        *out = string;
    else
        status = tms_fail(err, TMS_EINPUT, "%s: is not UTF-8", path);
    free(text);
    return status;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_jinja(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 6 && strcmp(entry->d_name + n - 6, ".jinja") == 0;
}

/* Turns *templates (the default one) into a list with those of the folder, if it has any. */
static tms_status read_additional(json_t **templates, const char *folder, struct tms_error *err)
{
    struct dirent **entries = NULL;
    tms_status status = TMS_OK;
    int n = scandir(folder, &entries, is_jinja, by_name);
    if (n > 0) {
        json_t *list = json_pack("[{s:s, s:O}]", "name", "default", "template", *templates);
        if (!list) status = tms_fail_memory(err, 64);
        for (int i = 0; i < n && status == TMS_OK; i++) {
            char *path = tms_path_join(folder, entries[i]->d_name);
            json_t *text = NULL;
            status = path ? read_jinja(&text, path, err) : tms_fail_memory(err, 64);
            if (status == TMS_OK && !tms_is_utf8(entries[i]->d_name, strlen(entries[i]->d_name)))
                status = tms_fail(err, TMS_EINPUT, "%s: its name is not UTF-8", path);
            if (status == TMS_OK)
                json_array_append_new(list, json_pack("{s:s%, s:O}", "name", entries[i]->d_name,
                                                      strlen(entries[i]->d_name) - 6, "template", text));
            json_decref(text);
            free(path);
        }
        if (status == TMS_OK) {
            json_decref(*templates);
            *templates = list;
        } else {
            json_decref(list);
        }
    }
    for (int i = 0; i < n; i++) free(entries[i]);
    free(entries);
    return status;
}

/* The template or templates of the folder: a new reference, NULL if there are none. */
static tms_status find_templates(json_t **out, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    char *jinja = tms_path_join(files->dir, "chat_template.jinja");
    char *folder = tms_path_join(files->dir, "additional_chat_templates");
    char *json = tms_path_join(files->dir, "chat_template.json");
    json_t *loaded = NULL;
    tms_status status = TMS_OK;
    *out = json_incref(json_object_get(files->settings, "chat_template"));
    if (*out && !json_is_null(*out)) goto done;
    json_decref(*out);
    *out = NULL;
    if (!jinja || !folder || !json) {
        status = tms_fail_memory(err, 64);
    } else if (tms_path_exists(jinja)) {
        status = read_jinja(out, jinja, err);
        if (status == TMS_OK) status = read_additional(out, folder, err);
    } else if (tms_path_exists(json)) {
        status = tms_json_load(&loaded, json, TEMPLATE_LIMIT, err);
        if (status == TMS_OK) *out = json_incref(json_object_get(loaded, "chat_template"));
    }
done:
    json_decref(loaded);
    free(jinja);
    free(folder);
    free(json);
    return status;
}

/* Empty strings are not written: llama.cpp's converter has none, and its loader takes them for a template. */
static void put_template(struct tms_kvs *kvs, const char *key, const json_t *text)
{
    if (json_string_length(text))
        tms_kvs_set(kvs, key, TMS_KV_STRING, json_string_value(text), json_string_length(text));
}

/* "tool use" → "tool_use": every character that is no ASCII letter or digit. */
static char *key_name(const char *name)
{
    char *out = malloc(strlen(name) + 1), *to = out;
    if (!out) return NULL;
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        if ((c & 0xc0) == 0x80) continue; /* the rest of a character that was replaced already */
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        *to++ = plain ? (char)c : '_';
    }
    *to = '\0';
    return out;
}

static tms_status export_named(struct tms_kvs *kvs, const json_t *list, struct tms_error *err)
{
    struct tms_buf names = {0}, key = {0};
    json_t *seen = json_object(), *entry;
    const json_t *standard = NULL;
    tms_status status = TMS_OK;
    size_t i;
    json_array_foreach(list, i, entry)
    {
        const json_t *text = json_object_get(entry, "template");
        const char *given = json_string_value(json_object_get(entry, "name"));
        if (!given || !*given || !json_is_string(text)) continue;
        char *name = key_name(given);
        if (!name) break;
        if (strcmp(name, "default") == 0) {
            standard = text;
        } else {
            key.n = 0;
            tms_buf_printf(&key, "tokenizer.chat_template.%s", name);
            tms_buf_put(&key, "", 1);
            if (!key.failed) put_template(kvs, (const char *)key.data, text);
            if (!json_object_get(seen, name)) tms_kv_put_string(&names, name, strlen(name));
            json_object_set_new(seen, name, json_true());
        }
        free(name);
    }
    if (names.n)
        tms_kvs_set_array(kvs, "tokenizer.chat_templates", TMS_KV_STRING, json_object_size(seen), names.data, names.n);
    put_template(kvs, "tokenizer.chat_template", standard);
    if (names.failed || key.failed || !seen || i < json_array_size(list)) status = tms_fail_memory(err, 64);
    json_decref(seen);
    tms_buf_free(&names);
    tms_buf_free(&key);
    return status;
}

tms_status tms_chat_template_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    json_t *templates = NULL;
    tms_status status = find_templates(&templates, files, err);
    if (status != TMS_OK) goto done;
    if (json_is_string(templates))
        put_template(kvs, "tokenizer.chat_template", templates);
    else if (json_is_array(templates))
        status = export_named(kvs, templates, err);
    else if (templates && !json_is_null(templates))
        tms_tokenizer_warn(files->options, "%s: its chat template is neither a text nor a list and is left out",
                           files->dir);
done:
    json_decref(templates);
    return status;
}

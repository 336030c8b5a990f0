/* Byte-level BPE: the vocabulary and the merges of a tokenizer.json whose model is "BPE".
 *
 * The texts in model.vocab are spelled in the byte alphabet of GPT-2 (one printable letter per byte, a space is
 * U+0120); GGUF keeps that spelling. Tokens in added_tokens are spelled as typed. What llama.cpp's converter
 * sees is what transformers makes of the files, so its rules are kept here:
 *   - an added token whose text is in the vocabulary has that id, whatever id the file says;
 *   - added_tokens_decoder in tokenizer_config.json overrides the flags of tokenizer.json, and adds tokens;
 *   - a token that tokenizer_config.json names as bos_token, eos_token, … counts as added and special, but for one
 *     that tokenizer.json lists and an existing added_tokens_decoder does not. */
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"

static const json_t *model_of(const struct tms_tokenizer_files *files)
{
    return json_object_get(files->tokenizer, "model");
}

static bool has_byte_level(const json_t *step, int depth)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    if (!type || depth > 8) return false;
    if (strcmp(type, "ByteLevel") == 0) return true;
    static const char *const lists[] = {"pretokenizers", "decoders"};
    for (size_t l = 0; l < 2; l++) {
        size_t i;
        json_t *inner;
        json_array_foreach(json_object_get(step, lists[l]), i, inner) if (has_byte_level(inner, depth + 1)) return true;
    }
    return false;
}

bool tms_bpe_is_byte_level(const json_t *tokenizer)
{
    return has_byte_level(json_object_get(tokenizer, "pre_tokenizer"), 0) ||
           has_byte_level(json_object_get(tokenizer, "decoder"), 0);
}

/* The size of the vocabulary: the model's, or one more than the largest id of the file. */
static tms_status measure(uint64_t *size, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    const char *path = files->tokenizer_path;
    uint64_t wanted = files->options->vocab_size, largest = 0, id;
    const json_t *texts = json_object_get(model_of(files), "vocab"),
                 *added = json_object_get(files->tokenizer, "added_tokens");
    const char *holder = "";
    const char *text;
    json_t *value;
    if (json_object_size(texts) + json_array_size(added) == 0)
        return tms_fail(err, TMS_EINPUT, "%s: holds no tokens", path);
    json_object_foreach(json_object_get(model_of(files), "vocab"), text, value)
    {
        tms_status status = tms_token_id(&id, value, text, path, err);
        if (status != TMS_OK) return status;
        if (id >= largest) largest = id, holder = text;
    }
    size_t i;
    json_array_foreach(added, i, value)
    {
        text = json_string_value(json_object_get(value, "content"));
        if (!text) return tms_fail(err, TMS_EINPUT, "%s: added token %zu has no content", path, i);
        tms_status status = tms_token_id(&id, json_object_get(value, "id"), text, path, err);
        if (status != TMS_OK) return status;
        if (id >= largest) largest = id, holder = text;
    }
    if (!wanted) {
        json_object_foreach(json_object_get(files->settings, "added_tokens_decoder"), text, value)
        {
            if (!tms_token_id_from_text(&id, text) || id < largest) continue;
            const char *content = json_string_value(json_object_get(value, "content"));
            if (content && !json_object_get(texts, content)) largest = id;
        }
    }
    if (wanted && largest >= wanted)
        return tms_fail(err, TMS_EINPUT, "%s: token '%.200s' has id %llu, but the model has %llu embeddings", path,
                        holder, (unsigned long long)largest, (unsigned long long)wanted);
    *size = wanted ? wanted : largest + 1;
    return TMS_OK;
}

/* What the reading passes along. */
struct reading {
    struct tms_vocab *vocab;
    const struct tms_tokenizer_files *files;
    json_t *base;      /* model.vocab: text → id */
    json_t *added;     /* the same for added tokens that are not in it */
    json_t *described; /* the texts in added_tokens_decoder */
};

static tms_status read_base(struct reading *r, struct tms_error *err)
{
    const char *text;
    size_t n;
    json_t *value;
    json_object_keylen_foreach(r->base, text, n, value)
    {
        uint64_t id = (uint64_t)json_integer_value(value);
        if (r->vocab->tokens[id].text)
            return tms_fail(err, TMS_EINPUT, "%s: tokens '%.200s' and '%.200s' both have id %llu",
                            r->files->tokenizer_path, r->vocab->tokens[id].text, text, (unsigned long long)id);
        tms_vocab_set(r->vocab, id, text, n, TMS_TOKEN_NORMAL);
    }
    return TMS_OK;
}

static const json_t *find_text(const struct reading *r, const char *text, size_t n)
{
    const json_t *id = json_object_getn(r->base, text, n);
    return id ? id : json_object_getn(r->added, text, n);
}

/* One added token: `said` is the id that the file at `path` gives it. */
static tms_status add(struct reading *r, const char *path, const json_t *content, uint64_t said, bool special,
                      struct tms_error *err)
{
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    const json_t *known = find_text(r, text, n);
    uint64_t id = known ? (uint64_t)json_integer_value(known) : said;
    if (id != said)
        tms_tokenizer_warn(r->files->options, "%s: token '%.200s' has ids %llu and %llu; %llu is used", path, text,
                           (unsigned long long)id, (unsigned long long)said, (unsigned long long)id);
    if (!known) {
        if (id >= r->vocab->n)
            return tms_fail(err, TMS_EINPUT, "%s: token '%.200s' has id %llu, but the vocabulary has %llu tokens", path,
                            text, (unsigned long long)id, (unsigned long long)r->vocab->n);
        if (r->vocab->tokens[id].text)
            return tms_fail(err, TMS_EINPUT, "%s: tokens '%.200s' and '%.200s' both have id %llu", path,
                            r->vocab->tokens[id].text, text, (unsigned long long)id);
        if (json_object_setn_new(r->added, text, n, json_integer((json_int_t)id)) != 0) return tms_fail_memory(err, n);
    }
    return tms_vocab_set_added(r->vocab, id, text, n, special) ? TMS_OK : tms_fail_memory(err, n);
}

/* A token that the settings name, by a string or an object with "content". */
static tms_status add_named(struct reading *r, const json_t *name, struct tms_error *err)
{
    const json_t *content = json_is_object(name) ? json_object_get(name, "content") : name;
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    const json_t *known = text ? find_text(r, text, n) : NULL;
    if (!known) return TMS_OK; /* a slip in the settings, of no consequence */
    uint64_t id = (uint64_t)json_integer_value(known);
    bool is_added = r->vocab->tokens[id].type != TMS_TOKEN_NORMAL;
    bool has_decoder = json_object_get(r->files->settings, "added_tokens_decoder") != NULL;
    if (is_added && has_decoder && !json_object_getn(r->described, text, n)) return TMS_OK;
    return add(r, r->files->settings_path, content, id, true, err);
}

static tms_status add_all_named(struct reading *r, json_t *source, struct tms_error *err)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == TMS_OK; i++)
        status = add_named(r, json_object_get(source, names[i]), err);
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++) {
        size_t i;
        const char *key;
        json_t *token, *list = json_object_get(source, lists[l]);
        json_array_foreach(list, i, token)
        {
            if (status == TMS_OK) status = add_named(r, token, err);
        }
        json_object_foreach(list, key, token)
        {
            if (status == TMS_OK) status = add_named(r, token, err);
        }
    }
    return status;
}

static tms_status read_added(struct reading *r, struct tms_error *err)
{
    json_t *decoder = json_object_get(r->files->settings, "added_tokens_decoder"), *token;
    tms_status status;
    const char *key;
    size_t i;
    json_array_foreach(json_object_get(r->files->tokenizer, "added_tokens"), i, token)
    {
        status = add(r, r->files->tokenizer_path, json_object_get(token, "content"),
                     (uint64_t)json_integer_value(json_object_get(token, "id")),
                     json_is_true(json_object_get(token, "special")), err);
        if (status != TMS_OK) return status;
    }
    json_object_foreach(decoder, key, token)
    {
        const json_t *content = json_object_get(token, "content");
        uint64_t id;
        if (!tms_token_id_from_text(&id, key) || !json_is_string(content))
            return tms_fail(err, TMS_EINPUT, "%s: added_tokens_decoder: '%.100s' is no id or has no content",
                            r->files->settings_path, key);
        status = add(r, r->files->settings_path, content, id, json_is_true(json_object_get(token, "special")), err);
        if (status != TMS_OK) return status;
        if (json_object_setn_new(r->described, json_string_value(content), json_string_length(content), json_true()) !=
            0)
            return tms_fail_memory(err, json_string_length(content));
    }
    status = add_all_named(r, r->files->settings, err);
    /* Folders from before added_tokens_decoder may have the names in a file of their own. */
    return status == TMS_OK && !decoder ? add_all_named(r, r->files->special_map, err) : status;
}

tms_status tms_bpe_read(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    struct reading r = {vocab, files, json_object_get(model_of(files), "vocab"), json_object(), json_object()};
    uint64_t size = 0;
    tms_status status = TMS_OK;
    if (!json_is_object(r.base))
        status = tms_fail(err, TMS_EINPUT, "%s: model.vocab is missing or not an object", files->tokenizer_path);
    else if (!r.added || !r.described)
        status = tms_fail_memory(err, 64);
    if (status == TMS_OK) status = measure(&size, files, err);
    if (status == TMS_OK) status = tms_vocab_init(vocab, size, files->tokenizer_path, err);
    if (status == TMS_OK) status = read_base(&r, err);
    if (status == TMS_OK) status = read_added(&r, err);
    json_decref(r.added);
    json_decref(r.described);
    return status;
}

static tms_status cut_merge(struct tms_merge *out, const json_t *merge, size_t index, const char *path,
                            struct tms_error *err)
{
    *out = (struct tms_merge){0};
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        size_t n = json_string_length(merge);
        const char *space = n ? memchr(text + 1, ' ', n - 1) : NULL;
        if (space) {
            out->left = text;
            out->n_left = (size_t)(space - text);
            out->right = space + 1;
            out->n_right = n - out->n_left - 1;
        }
    } else if (json_is_array(merge) && json_array_size(merge) == 2) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        out->left = json_string_value(left);
        out->n_left = json_string_length(left);
        out->right = json_string_value(right);
        out->n_right = json_string_length(right);
    }
    if (out->n_left && out->n_right) return TMS_OK;
    return tms_fail(err, TMS_EINPUT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", path, index);
}

tms_status tms_merge_read(struct tms_merge *out, const struct tms_tokenizer_files *files, size_t index,
                          struct tms_buf *scratch, struct tms_error *err)
{
    const json_t *texts = json_object_get(model_of(files), "vocab"), *id;
    const json_t *merge = json_array_get(json_object_get(model_of(files), "merges"), index);
    tms_status status = cut_merge(out, merge, index, files->tokenizer_path, err);
    if (status != TMS_OK) return status;
    scratch->n = 0;
    tms_buf_put(scratch, out->left, out->n_left);
    tms_buf_put(scratch, out->right, out->n_right);
    if (scratch->failed) return tms_fail_memory(err, out->n_left + out->n_right);
    id = json_object_getn(texts, (const char *)scratch->data, scratch->n);
    if (id && json_object_getn(texts, out->left, out->n_left) && json_object_getn(texts, out->right, out->n_right)) {
        out->id = (uint64_t)json_integer_value(id);
        return TMS_OK;
    }
    return tms_fail(err, TMS_EINPUT, "%s: merge %zu, '%.*s' with '%.*s', is not of two tokens into one",
                    files->tokenizer_path, index, (int)(out->n_left < 100 ? out->n_left : 100), out->left,
                    (int)(out->n_right < 100 ? out->n_right : 100), out->right);
}

/* A file cannot hold a space inside a part, it separates the parts: it becomes U+0120, the byte alphabet's space. */
static void put_part(struct tms_buf *buf, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ')
            tms_buf_put(buf, "\xc4\xa0", 2);
        else
            tms_buf_put(buf, text + i, 1);
    }
}

tms_status tms_bpe_export_merges(struct tms_kvs *kvs, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    const json_t *merges = json_object_get(model_of(files), "merges");
    struct tms_buf all = {0}, line = {0};
    tms_status status = TMS_OK;
    if (merges && !json_is_array(merges)) {
        status = tms_fail(err, TMS_EINPUT, "%s: model.merges is not an array", files->tokenizer_path);
        goto done;
    }
    for (size_t i = 0; i < json_array_size(merges); i++) {
        struct tms_merge merge;
        status = tms_merge_read(&merge, files, i, &line, err);
        if (status != TMS_OK) goto done;
        line.n = 0;
        put_part(&line, merge.left, merge.n_left);
        tms_buf_put(&line, " ", 1);
        put_part(&line, merge.right, merge.n_right);
        tms_kv_put_string(&all, (const char *)line.data, line.n);
    }
    if (all.failed || line.failed) {
        status = tms_fail_memory(err, all.n);
    } else if (all.n) {
        tms_kvs_set_array(kvs, "tokenizer.ggml.merges", TMS_KV_STRING, json_array_size(merges), all.data, all.n);
    } else {
        tms_tokenizer_warn(files->options, "%s: has no merges; llama.cpp will read texts letter by letter",
                           files->tokenizer_path);
    }
done:
    tms_buf_free(&all);
    tms_buf_free(&line);
    return status;
}

/* Byte-level BPE: the vocabulary and the merges of a tokenizer.json whose model is "BPE".
 *
 * The texts in model.vocab are spelled in the byte alphabet of GPT-2 (one printable letter per byte, a space is
 * U+0120); GGUF keeps that spelling. Tokens in added_tokens are spelled as typed. What llama.cpp's converter
 * sees is what transformers makes of the files, so its rules are kept here:
 *   - an added token whose text is in the vocabulary has that id, whatever id the file says;
 *   - added_tokens_decoder in tokenizer_config.json overrides the flags of tokenizer.json, and adds tokens;
 *   - a token that tokenizer_config.json names as bos_token, eos_token, … counts as added and special. */
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

static tms_status read_base(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    void *at = NULL;
    json_t *texts = json_object_get(model_of(files), "vocab");
    for (at = json_object_iter(texts); at; at = json_object_iter_next(texts, at)) {
        const char *text = json_object_iter_key(at);
        uint64_t id = (uint64_t)json_integer_value(json_object_iter_value(at));
        if (vocab->tokens[id].text)
            return tms_fail(err, TMS_EINPUT, "%s: tokens '%.200s' and '%.200s' both have id %llu",
                            files->tokenizer_path, vocab->tokens[id].text, text, (unsigned long long)id);
        tms_vocab_set(vocab, id, text, json_object_iter_key_len(at), TMS_TOKEN_NORMAL);
    }
    return TMS_OK;
}

/* What is known of the texts of added tokens: text → its JSON integer id. */
static const json_t *find_text(const struct tms_tokenizer_files *files, const json_t *added, const char *text, size_t n)
{
    const json_t *id = json_object_getn(json_object_get(model_of(files), "vocab"), text, n);
    return id ? id : json_object_getn(added, text, n);
}

/* One added token: `said` is the id that the file gives it. */
static tms_status add(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, json_t *added, const char *path,
                      const json_t *content, uint64_t said, bool special, struct tms_error *err)
{
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    const json_t *known = find_text(files, added, text, n);
    uint64_t id = known ? (uint64_t)json_integer_value(known) : said;
    if (id != said)
        tms_tokenizer_warn(files->options, "%s: token '%.200s' has ids %llu and %llu; %llu is used", path, text,
                           (unsigned long long)id, (unsigned long long)said, (unsigned long long)id);
    if (!known) {
        if (id >= vocab->n)
            return tms_fail(err, TMS_EINPUT, "%s: token '%.200s' has id %llu, but the vocabulary has %llu tokens", path,
                            text, (unsigned long long)id, (unsigned long long)vocab->n);
        if (vocab->tokens[id].text)
            return tms_fail(err, TMS_EINPUT, "%s: tokens '%.200s' and '%.200s' both have id %llu", path,
                            vocab->tokens[id].text, text, (unsigned long long)id);
        if (json_object_setn_new(added, text, n, json_integer((json_int_t)id)) != 0)
            return tms_fail(err, TMS_EINPUT, "%s: token '%.200s' cannot be kept (a NUL in its text?)", path, text);
    }
    return tms_vocab_set_added(vocab, id, text, n, special) ? TMS_OK : tms_fail_memory(err, n);
}

/* Tokens that the settings name, by a string or an object with "content". */
static tms_status add_named(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, json_t *added,
                            const json_t *name, struct tms_error *err)
{
    const json_t *content = json_is_object(name) ? json_object_get(name, "content") : name;
    if (!json_is_string(content)) return TMS_OK;
    const json_t *known = find_text(files, added, json_string_value(content), json_string_length(content));
    /* One that is nowhere is an error of the settings that costs nothing; one that is an added token has its flags. */
    if (!known) return TMS_OK;
    uint64_t id = (uint64_t)json_integer_value(known);
    if (vocab->tokens[id].type != TMS_TOKEN_NORMAL) return TMS_OK;
    return add(vocab, files, added, files->settings_path, content, id, true, err);
}

static tms_status read_added(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, json_t *added,
                             struct tms_error *err)
{
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(files->tokenizer, "added_tokens"), i, token)
    {
        tms_status status = add(vocab, files, added, files->tokenizer_path, json_object_get(token, "content"),
                                (uint64_t)json_integer_value(json_object_get(token, "id")),
                                json_is_true(json_object_get(token, "special")), err);
        if (status != TMS_OK) return status;
    }
    const char *key;
    json_object_foreach(json_object_get(files->settings, "added_tokens_decoder"), key, token)
    {
        const json_t *content = json_object_get(token, "content");
        uint64_t id;
        if (!tms_token_id_from_text(&id, key) || !json_is_string(content))
            return tms_fail(err, TMS_EINPUT, "%s: added_tokens_decoder: '%.100s' is no id or has no content",
                            files->settings_path, key);
        tms_status status = add(vocab, files, added, files->settings_path, content, id,
                                json_is_true(json_object_get(token, "special")), err);
        if (status != TMS_OK) return status;
    }
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        tms_status status = add_named(vocab, files, added, json_object_get(files->settings, names[i]), err);
        if (status != TMS_OK) return status;
    }
    json_array_foreach(json_object_get(files->settings, "additional_special_tokens"), i, token)
    {
        tms_status status = add_named(vocab, files, added, token, err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

tms_status tms_bpe_read(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    if (!json_is_object(json_object_get(model_of(files), "vocab")))
        return tms_fail(err, TMS_EINPUT, "%s: model.vocab is missing or not an object", files->tokenizer_path);
    uint64_t size = 0;
    tms_status status = measure(&size, files, err);
    if (status != TMS_OK) return status;
    status = tms_vocab_init(vocab, size, files->tokenizer_path, err);
    if (status != TMS_OK) return status;
    json_t *added = json_object();
    status = added ? read_base(vocab, files, err) : tms_fail_memory(err, 64);
    if (status == TMS_OK) status = read_added(vocab, files, added, err);
    json_decref(added);
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

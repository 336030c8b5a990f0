/* Tokenizers from tokenizer.json: model, vocabulary, added tokens. The steps are read in tokenize_steps.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "model/tokenize_json.h"

static const json_t *model_of(const struct tms_tokenizer_files *files)
{
    return json_object_get(files->tokenizer, "model");
}

/* ---- vocabulary ---- */

static void see_id(uint64_t id, uint64_t *n)
{
    if (id >= *n) *n = id + 1;
}

static tms_status measure(uint64_t *n, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    const char *path = files->tokenizer_path, *text;
    json_t *vocab = json_object_get(model_of(files), "vocab"), *value;
    tms_status status;
    uint64_t id;
    size_t i;
    *n = json_array_size(vocab);
    json_object_foreach(vocab, text, value)
    {
        status = tms_token_id(&id, value, text, path, err);
        if (status != TMS_OK) return status;
        see_id(id, n);
    }
    json_array_foreach(json_object_get(files->tokenizer, "added_tokens"), i, value)
    {
        text = json_string_value(json_object_get(value, "content"));
        if (!text) return tms_fail(err, TMS_EINPUT, "%s: added token %zu has no content", path, i);
        status = tms_token_id(&id, json_object_get(value, "id"), text, path, err);
        if (status != TMS_OK) return status;
        see_id(id, n);
    }
    return TMS_OK;
}

/* A token of the model: what it matches, and how it is shown. */
static tms_status take_token(struct tms_tokenizer *t, const struct tms_decoder_json *decoder, uint64_t id,
                             const char *text, size_t n, struct tms_error *err)
{
    if (t->shown[id].flags & TMS_SHOWN_THERE)
        return tms_fail(err, TMS_EINPUT, "%s: two tokens have the id %llu, one is '%.200s'", t->where,
                        (unsigned long long)id, text);
    struct tms_buf *bytes = &t->word;
    bool done = true;
    bytes->n = 0;
    bool spelled = (t->byte_level || decoder->letters) && tms_bytes_of_letters(bytes, text, n);
    if (t->byte_level) {
        if (spelled) done = tms_text_table_put(&t->by_text, bytes->data, bytes->n, (int32_t)id);
        if (spelled && bytes->n == 1) t->byte_ids[bytes->data[0]] = (int32_t)id;
    } else {
        done = tms_text_table_put(&t->by_text, text, n, (int32_t)id);
        int byte = tms_byte_of_text(text, n);
        if (byte >= 0 && t->byte_fallback) t->byte_ids[byte] = (int32_t)id;
    }
    if (decoder->letters && spelled)
        done &= tms_tokenize_show(t, id, bytes->data, bytes->n, 0);
    else
        done &= tms_tokenize_show(t, id, text, n, 0);
    return done && !bytes->failed ? TMS_OK : tms_fail_memory(err, n);
}

static void set_byte(struct tms_tokenizer *t, uint64_t id, const char *text, size_t n)
{
    int byte = tms_byte_of_text(text, n);
    if (byte < 0 || !t->runs_are_whole) return;
    t->shown[id].flags |= TMS_SHOWN_BYTE;
    t->shown[id].byte = (uint8_t)byte;
}

static tms_status read_bpe(struct tms_tokenizer *t, const struct tms_decoder_json *decoder,
                           const struct tms_tokenizer_files *files, struct tms_error *err)
{
    json_t *vocab = json_object_get(model_of(files), "vocab"), *value;
    const json_t *merges = json_object_get(model_of(files), "merges");
    struct tms_buf scratch = {0};
    const char *text;
    size_t n;
    tms_status status = TMS_OK;
    if (!json_is_object(vocab))
        return tms_fail(err, TMS_EINPUT, "%s: model.vocab is missing or not an object", t->where);
    if (merges && !json_is_array(merges))
        return tms_fail(err, TMS_EINPUT, "%s: model.merges is not an array", t->where);
    json_object_keylen_foreach(vocab, text, n, value)
    {
        uint64_t id = (uint64_t)json_integer_value(value);
        status = take_token(t, decoder, id, text, n, err);
        if (status != TMS_OK) return status;
        set_byte(t, id, text, n);
    }
    for (size_t i = 0; i < json_array_size(merges) && status == TMS_OK; i++) {
        struct tms_merge merge;
        status = tms_merge_read(&merge, files, i, &scratch, err);
        if (status != TMS_OK) break;
        json_int_t left = json_integer_value(json_object_getn(vocab, merge.left, merge.n_left));
        json_int_t right = json_integer_value(json_object_getn(vocab, merge.right, merge.n_right));
        if (!tms_pair_table_put(&t->merges, (int32_t)left, (int32_t)right, (uint32_t)i, (int32_t)merge.id, true))
            status = tms_fail_memory(err, sizeof(struct tms_pair_slot));
    }
    tms_buf_free(&scratch);
    return status;
}

static tms_status read_unigram(struct tms_tokenizer *t, const struct tms_decoder_json *decoder,
                               const struct tms_tokenizer_files *files, struct tms_error *err)
{
    const json_t *vocab = json_object_get(model_of(files), "vocab"),
                 *unknown = json_object_get(model_of(files), "unk_id");
    double least = INFINITY;
    t->scores = tms_calloc(t->n, sizeof *t->scores);
    if (!t->scores) return tms_fail_memory(err, t->n * sizeof *t->scores);
    for (size_t id = 0; id < json_array_size(vocab); id++) {
        const json_t *pair = json_array_get(vocab, id), *text = json_array_get(pair, 0),
                     *score = json_array_get(pair, 1);
        const char *s = json_string_value(text);
        size_t n = json_string_length(text);
        if (!s || !json_is_number(score) || !isfinite((float)json_number_value(score)))
            return tms_fail(err, TMS_EINPUT, "%s: token %zu is not [\"text\", score]", t->where, id);
        tms_status status = take_token(t, decoder, id, s, n, err);
        if (status != TMS_OK) return status;
        set_byte(t, id, s, n);
        t->scores[id] = (float)json_number_value(score);
        if (t->scores[id] < least) least = (double)t->scores[id];
        if (n && !tms_trie_put(&t->trie, s, n, (int32_t)id)) return tms_fail_memory(err, n);
    }
    t->unknown_score = least - 10; /* the library's penalty, and SentencePiece's */
    if (json_is_integer(unknown)) {
        json_int_t id = json_integer_value(unknown);
        if (id < 0 || (uint64_t)id >= t->n)
            return tms_fail(err, TMS_EINPUT, "%s: model.unk_id is no token's", t->where);
        t->unknown = (int32_t)id;
    }
    return TMS_OK;
}

static tms_status read_model(struct tms_tokenizer *t, const struct tms_decoder_json *decoder,
                             const struct tms_tokenizer_files *files, struct tms_error *err)
{
    const json_t *model = model_of(files), *dropout = json_object_get(model, "dropout");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type) type = json_object_get(model, "merges") ? "BPE" : "unnamed";
    t->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    t->cut_at_blocks = !t->byte_level;
    if (strcmp(type, "Unigram") == 0) {
        t->model = TMS_MODEL_UNIGRAM;
        t->fuse_unknown = true;
        return read_unigram(t, decoder, files, err);
    }
    if (strcmp(type, "BPE") != 0)
        return tms_fail(err, TMS_EINPUT, "%s: tokenizers of type %.60s are not supported (BPE and Unigram are)",
                        t->where, type);
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++)
        if (json_string_length(json_object_get(model, affixes[i])))
            return tms_fail(err, TMS_EINPUT, "%s: a BPE with a %s is not supported", t->where, affixes[i]);
    if (json_is_number(dropout) && json_number_value(dropout) > 0)
        return tms_fail(err, TMS_EINPUT, "%s: a BPE with dropout gives other ids each time", t->where);
    t->model = TMS_MODEL_MERGES;
    t->whole_words = json_is_true(json_object_get(model, "ignore_merges"));
    t->fuse_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    tms_status status = read_bpe(t, decoder, files, err);
    const json_t *unknown = json_object_get(model, "unk_token");
    const json_t *id =
        json_is_string(unknown)
            ? json_object_getn(json_object_get(model, "vocab"), json_string_value(unknown), json_string_length(unknown))
            : NULL;
    if (status == TMS_OK && json_is_string(unknown) && !id)
        return tms_fail(err, TMS_EINPUT, "%s: model.unk_token '%.200s' is not in the vocabulary", t->where,
                        json_string_value(unknown));
    if (id) t->unknown = (int32_t)json_integer_value(id);
    return status;
}

/* ---- added tokens ---- */

/* A text that the model has keeps the model's id, whatever the file says. */
static uint64_t added_id(const struct tms_tokenizer *t, const struct tms_tokenizer_files *files, const json_t *token,
                         const json_t *content)
{
    const json_t *vocab = json_object_get(model_of(files), "vocab");
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    const json_t *known = json_object_getn(vocab, text, n);
    int32_t found = json_is_array(vocab) ? tms_text_table_find(&t->by_text, text, n) : -1;
    if (found >= 0) return (uint64_t)found;
    return (uint64_t)json_integer_value(known ? known : json_object_get(token, "id"));
}

static tms_status read_added(struct tms_tokenizer *t, const struct tms_decoder_json *decoder,
                             const struct tms_tokenizer_files *files, struct tms_error *err)
{
    struct tms_buf normal = {0}, spelled = {0};
    tms_status status = TMS_OK;
    json_t *token;
    size_t i;
    json_array_foreach(json_object_get(files->tokenizer, "added_tokens"), i, token)
    {
        const json_t *content = json_object_get(token, "content");
        const char *text = json_string_value(content);
        size_t n = json_string_length(content);
        uint64_t id = added_id(t, files, token, content);
        bool special = json_is_true(json_object_get(token, "special"));
        bool normalized = json_is_true(json_object_get(token, "normalized"));
        struct tms_added_token added = {.id = (int32_t)id,
                                        .special = special,
                                        .single_word = json_is_true(json_object_get(token, "single_word")),
                                        .left_strip = json_is_true(json_object_get(token, "lstrip")),
                                        .right_strip = json_is_true(json_object_get(token, "rstrip"))};
        spelled.n = normal.n = 0;
        if (normalized && t->n_normalizer) { /* it is looked for in normalized texts, and shown so */
            status = tms_tokenize_normalize(t, (const uint8_t *)text, n, &normal, err);
            if (status != TMS_OK) break;
            text = normal.data ? (const char *)normal.data : "";
            n = normal.n;
        }
        bool letters = decoder->letters && tms_bytes_of_letters(&spelled, text, n) && spelled.n;
        if (!tms_tokenize_show(t, id, letters ? (const char *)spelled.data : text, letters ? spelled.n : n,
                               TMS_SHOWN_ADDED | (special ? TMS_SHOWN_SPECIAL : 0)) ||
            spelled.failed) {
            status = tms_fail_memory(err, n);
            break;
        }
        set_byte(t, id, text, n);
        status = tms_tokenize_add(t, &added, text, n, normalized, err);
        if (status != TMS_OK) break;
    }
    tms_buf_free(&normal);
    tms_buf_free(&spelled);
    return status;
}

/* ---- beginnings and ends ---- */

static int32_t id_of_key(const struct tms_tokenizer *t, const struct tms_kvs *kvs, const char *key)
{
    uint64_t id;
    return tms_kv_as_u64(tms_kvs_find(kvs, key), &id) && id < t->n ? (int32_t)id : -1;
}

static bool flag(const json_t *settings, const char *key, const struct tms_kvs *kvs, const char *kv_key, bool absent)
{
    const json_t *value = json_object_get(settings, key);
    uint64_t known;
    if (json_is_boolean(value)) return json_is_true(value);
    return tms_kv_as_u64(tms_kvs_find(kvs, kv_key), &known) ? known != 0 : absent;
}

static bool add_ends(struct tms_tokenizer *t, const json_t *ids)
{
    bool done = true;
    size_t i;
    json_t *id;
    if (json_is_integer(ids) && json_integer_value(ids) >= 0)
        done = tms_tokenize_add_end(t, (uint64_t)json_integer_value(ids));
    json_array_foreach(ids, i, id)
    {
        if (json_is_integer(id) && json_integer_value(id) >= 0)
            done &= tms_tokenize_add_end(t, (uint64_t)json_integer_value(id));
    }
    return done;
}

tms_status tms_tokenize_read_special(struct tms_tokenizer *t, const struct tms_tokenizer_files *files, bool bos_absent,
                                     struct tms_error *err)
{
    struct tms_kvs kvs = {0};
    json_t *generation = NULL;
    const json_t *config = files->options->config;
    char *path = NULL;
    tms_status status = tms_special_tokens_export(&kvs, files, t->n, err);
    if (status != TMS_OK) goto done;
    t->bos = id_of_key(t, &kvs, "tokenizer.ggml.bos_token_id");
    t->eos = id_of_key(t, &kvs, "tokenizer.ggml.eos_token_id");
    t->add_bos =
        t->bos >= 0 && flag(files->settings, "add_bos_token", &kvs, "tokenizer.ggml.add_bos_token", bos_absent);
    t->add_eos = t->eos >= 0 && flag(files->settings, "add_eos_token", &kvs, "tokenizer.ggml.add_eos_token", false);
    path = tms_path_join(files->dir, "generation_config.json");
    if (!path) {
        status = tms_fail_memory(err, strlen(files->dir) + 32);
        goto done;
    }
    if (tms_path_exists(path)) status = tms_json_load(&generation, path, UINT64_C(1) << 24, err);
    if (status == TMS_OK && !((t->eos < 0 || tms_tokenize_add_end(t, (uint64_t)t->eos)) &&
                              add_ends(t, json_object_get(generation, "eos_token_id")) &&
                              add_ends(t, json_object_get(config, "eos_token_id")) &&
                              add_ends(t, json_object_get(json_object_get(config, "text_config"), "eos_token_id"))))
        status = tms_fail_memory(err, 64);
done:
    json_decref(generation);
    free(path);
    tms_kvs_free(&kvs);
    return status;
}

tms_status tms_tokenize_load_json(struct tms_tokenizer *t, const struct tms_tokenizer_files *files,
                                  struct tms_error *err)
{
    const json_t *tokenizer = files->tokenizer;
    struct tms_decoder_json decoder = {0};
    uint64_t n = 0;
    tms_status status = measure(&n, files, err);
    if (status == TMS_OK) status = tms_tokenize_init(t, n, err);
    if (status == TMS_OK) status = tms_tokenize_read_normalizer(t, json_object_get(tokenizer, "normalizer"), 0, err);
    if (status == TMS_OK) status = tms_tokenize_read_cuts(t, json_object_get(tokenizer, "pre_tokenizer"), 0, err);
    if (status == TMS_OK)
        status = tms_tokenize_read_decoder(t, &decoder, json_object_get(tokenizer, "decoder"), 0, err);
    if (status == TMS_OK) status = tms_expressions_compile(t->expressions, t->where, err);
    t->spaces_between = status == TMS_OK && !decoder.any;
    if (status == TMS_OK) status = read_model(t, &decoder, files, err);
    if (status == TMS_OK) status = read_added(t, &decoder, files, err);
    if (status == TMS_OK) status = tms_tokenize_read_post(t, json_object_get(tokenizer, "post_processor"), 0, err);
    return status == TMS_OK ? tms_tokenize_read_special(t, files, false, err) : status;
}

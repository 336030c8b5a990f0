/* The tokenizer of a GGUF file as that of a Hugging Face folder: which kind, and what both kinds have. The kinds and
 * keys are those of tokenizer.c, read backwards. */
#include "model/restore.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/utf8.h"
#include "model/restore_parts.h"

bool tms_restored_id(const struct tms_kvs *kvs, const char *name, uint64_t *id)
{
    char key[64];
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    return tms_kv_as_u64(tms_kvs_find(kvs, key), id) && *id < TMS_VOCAB_MAX;
}

bool tms_restored_flag(const struct tms_kvs *kvs, const char *name, bool absent)
{
    char key[64];
    uint64_t value;
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    return tms_kv_as_u64(tms_kvs_find(kvs, key), &value) ? value != 0 : absent;
}

void tms_restored_set(json_t **object, const char *key, json_t *value)
{
    if (json_object_set_new(*object, key, value) == 0) return;
    json_decref(*object);
    *object = NULL;
}

tms_status tms_restored_put_json(struct tms_made_files *files, const char *name, json_t *json, struct tms_error *err)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9)) : NULL;
    struct tms_buf *out = tms_made_files_add(files, name);
    json_decref(json);
    if (!text) return tms_fail_memory(err, 4096);
    tms_buf_printf(out, "%s\n", text);
    free(text);
    return out->failed ? tms_fail_memory(err, 4096) : TMS_OK;
}

bool tms_restored_is_hole(const struct tms_vocab *vocab, uint64_t id)
{
    const struct tms_token *token = &vocab->tokens[id];
    char name[32];
    int n = snprintf(name, sizeof name, "[PAD%llu]", (unsigned long long)id);
    return token->type == TMS_TOKEN_UNUSED && token->n == (size_t)n && memcmp(token->text, name, token->n) == 0;
}

const struct tms_token *tms_restored_token(const struct tms_restoring *r, const char *name)
{
    uint64_t id;
    return tms_restored_id(r->kvs, name, &id) && id < r->vocab.n ? &r->vocab.tokens[id] : NULL;
}

/* ---- tokenizer_config.json ---- */

static const char template_key[] = "tokenizer.chat_template"; /* and with ".NAME" behind it */

static bool is_template(const struct tms_kv *kv)
{
    return strncmp(kv->key, template_key, strlen(template_key)) == 0 && kv->type == TMS_KV_STRING;
}

static json_t *named_template(const char *name, const struct tms_kv *kv)
{
    return json_pack("{s:s, s:s%}", "name", name, "template", kv->bytes, kv->n_bytes);
}

/* Sets one text, or a list of named ones. */
static void set_templates(json_t **settings, const struct tms_kvs *kvs)
{
    const struct tms_kv *standard = tms_kvs_find(kvs, template_key);
    if (standard && !is_template(standard)) standard = NULL;
    json_t *list = json_array();
    bool named = false, short_of_memory = !list;
    if (standard) short_of_memory |= json_array_append_new(list, named_template("default", standard)) != 0;
    for (size_t i = 0; i < kvs->n; i++) {
        const struct tms_kv *kv = &kvs->items[i];
        if (!is_template(kv) || kv->key[strlen(template_key)] != '.') continue;
        named = true;
        short_of_memory |= json_array_append_new(list, named_template(kv->key + sizeof template_key, kv)) != 0;
    }
    if (short_of_memory)
        tms_restored_set(settings, "chat_template", NULL);
    else if (named)
        tms_restored_set(settings, "chat_template", json_incref(list));
    else if (standard)
        tms_restored_set(settings, "chat_template", json_stringn((const char *)standard->bytes, standard->n_bytes));
    json_decref(list);
}

json_t *tms_restored_settings(const struct tms_restoring *r, const char *tokenizer_class)
{
    static const struct {
        const char *name, *key;
    } tokens[] = {{"bos", "bos_token"},     {"eos", "eos_token"},   {"unknown", "unk_token"},
                  {"padding", "pad_token"}, {"mask", "mask_token"}, {"seperator", "sep_token"} /* sic */};
    static const struct {
        const char *name, *key;
    } flags[] = {{"add_bos_token", "add_bos_token"},
                 {"add_eos_token", "add_eos_token"},
                 {"add_space_prefix", "add_prefix_space"}};
    json_t *settings = json_pack("{s:b, s:s, s:I}", "clean_up_tokenization_spaces", 0, "tokenizer_class",
                                 tokenizer_class, "model_max_length", (json_int_t)r->config->context);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        const struct tms_token *token = tms_restored_token(r, tokens[i].name);
        if (token) tms_restored_set(&settings, tokens[i].key, json_stringn(token->text, token->n));
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool yes = tms_restored_flag(r->kvs, flags[i].name, false),
             no = !tms_restored_flag(r->kvs, flags[i].name, true);
        if (yes || no) tms_restored_set(&settings, flags[i].key, json_boolean(yes));
    }
    set_templates(&settings, r->kvs);
    return settings;
}

/* ---- the vocabulary ---- */

static tms_status fail_key(const struct tms_restoring *r, const char *key, const char *problem, struct tms_error *err)
{
    return tms_fail(err, TMS_EINPUT, "%s: key 'tokenizer.ggml.%s' %s", r->source->path, key, problem);
}

/* Texts stay where they are, in the key's bytes. */
static tms_status read_texts(struct tms_restoring *r, const struct tms_kv *kv, struct tms_error *err)
{
    const uint8_t *at = kv->bytes, *end = kv->bytes + kv->n_bytes;
    for (uint64_t id = 0; id < r->vocab.n; id++) {
        uint64_t n;
        if ((size_t)(end - at) < 8) return fail_key(r, "tokens", "ends too early", err);
        memcpy(&n, at, 8);
        at += 8;
        if (n > (uint64_t)(end - at)) return fail_key(r, "tokens", "ends too early", err);
        tms_vocab_set(&r->vocab, id, (const char *)at, (size_t)n, TMS_TOKEN_NORMAL);
        if (!tms_is_utf8((const char *)at, (size_t)n)) {
            char problem[64];
            snprintf(problem, sizeof problem, "has a token, %llu, that is not UTF-8", (unsigned long long)id);
            return fail_key(r, "tokens", problem, err);
        }
        at += n;
    }
    return TMS_OK;
}

static tms_status read_vocab(struct tms_restoring *r, struct tms_error *err)
{
    const struct tms_kv *texts = tms_kvs_find(r->kvs, "tokenizer.ggml.tokens"),
                        *types = tms_kvs_find(r->kvs, "tokenizer.ggml.token_type"),
                        *scores = tms_kvs_find(r->kvs, "tokenizer.ggml.scores");
    if (!texts || texts->type != TMS_KV_ARRAY || texts->elem_type != TMS_KV_STRING)
        return fail_key(r, "tokens", texts ? "is no list of texts" : "is missing", err);
    if (types && (types->type != TMS_KV_ARRAY || types->count != texts->count ||
                  (types->elem_type != TMS_KV_I32 && types->elem_type != TMS_KV_U32)))
        return fail_key(r, "token_type", "is no list of a number for each token", err);
    if (scores && (scores->type != TMS_KV_ARRAY || scores->count != texts->count || scores->elem_type != TMS_KV_F32))
        return fail_key(r, "scores", "is no list of a number for each token", err);
    if (texts->count > r->config->vocab) return fail_key(r, "tokens", "has more tokens than there are embeddings", err);
    tms_status status = tms_vocab_init(&r->vocab, texts->count, r->source->path, err);
    if (status == TMS_OK) status = read_texts(r, texts, err);
    for (uint64_t id = 0; id < r->vocab.n && status == TMS_OK; id++) {
        struct tms_token *token = &r->vocab.tokens[id];
        if (types) memcpy(&token->type, types->bytes + 4 * id, 4);
        if (scores) memcpy(&token->score, scores->bytes + 4 * id, 4);
        if (token->type < TMS_TOKEN_NORMAL || token->type > TMS_TOKEN_BYTE) token->type = TMS_TOKEN_NORMAL;
        if (!isfinite(token->score)) status = fail_key(r, "scores", "holds what is no number", err);
    }
    return status;
}

static tms_status check_templates(const struct tms_restoring *r, struct tms_error *err)
{
    for (size_t i = 0; i < r->kvs->n; i++) {
        const struct tms_kv *kv = &r->kvs->items[i];
        if (is_template(kv) &&
            !(tms_is_utf8(kv->key, strlen(kv->key)) && tms_is_utf8((const char *)kv->bytes, kv->n_bytes)))
            return tms_fail(err, TMS_EINPUT, "%s: key '%.100s' is not UTF-8", r->source->path, kv->key);
    }
    return TMS_OK;
}

tms_status tms_restore_tokenizer(struct tms_made_files *files, const struct tms_source *source,
                                 const struct tms_config *config, const struct tms_restore_options *options,
                                 struct tms_error *err)
{
    struct tms_restoring r = {
        .files = files, .source = source, .kvs = &source->gguf->kvs, .config = config, .options = options};
    const char *model = tms_kv_as_string(tms_kvs_find(r.kvs, "tokenizer.ggml.model"));
    bool bpe = model && strcmp(model, "gpt2") == 0, spm = model && strcmp(model, "llama") == 0;
    if (!bpe && !spm)
        return tms_fail(err, TMS_EINPUT,
                        "%s: its tokenizer is of the kind '%s'; tamis can restore 'gpt2' (byte-level BPE) and 'llama' "
                        "(SentencePiece)",
                        source->path, model ? model : "none");
    tms_status status = check_templates(&r, err);
    if (status == TMS_OK) status = read_vocab(&r, err);
    if (status == TMS_OK) status = bpe ? tms_restore_bpe(&r, err) : tms_restore_spm(&r, err);
    tms_vocab_free(&r.vocab);
    return status;
}

/* tokenizer.json, byte-level BPE, from tokens, types, merges and the pre-tokenizer's name: the other way of
 * tokenizer_bpe.c and pretokenizer.c. Written as text, for a vocabulary as a tree of values would take much memory.
 *
 * The library gives added tokens that are not in model.vocab the ids behind it, in order. Where that is what the file
 * has, as in most, they stand in added_tokens only; otherwise in model.vocab, too, with the id that they have. */
#include <stdio.h>
#include <string.h>

#include "file/utf8.h"
#include "model/restore_parts.h"

static void put_string(struct tms_buf *out, const char *text, size_t n)
{
    tms_buf_text(out, "\"");
    for (size_t i = 0; i < n;) {
        size_t plain = i;
        while (plain < n && (unsigned char)text[plain] >= 0x20 && text[plain] != '"' && text[plain] != '\\') plain++;
        tms_buf_put(out, text + i, plain - i);
        if (plain < n) {
            if (text[plain] == '"' || text[plain] == '\\')
                tms_buf_printf(out, "\\%c", text[plain]);
            else
                tms_buf_printf(out, "\\u%04x", (unsigned)text[plain]);
            plain++;
        }
        i = plain;
    }
    tms_buf_text(out, "\"");
}

static bool is_added(const struct tms_token *token)
{
    return token->type == TMS_TOKEN_CONTROL || token->type == TMS_TOKEN_USER_DEFINED;
}

static void put_added(struct tms_buf *out, const struct tms_vocab *vocab)
{
    const char *between = "";
    tms_buf_text(out, "  \"added_tokens\": [");
    for (uint64_t id = 0; id < vocab->n; id++) {
        const struct tms_token *token = &vocab->tokens[id];
        if (!is_added(token)) continue;
        tms_buf_printf(out, "%s\n    {\n      \"id\": %llu,\n      \"content\": ", between, (unsigned long long)id);
        put_string(out, token->text, token->n);
        tms_buf_printf(out,
                       ",\n      \"single_word\": false,\n      \"lstrip\": false,\n      \"rstrip\": false,\n"
                       "      \"normalized\": false,\n      \"special\": %s\n    }",
                       token->type == TMS_TOKEN_CONTROL ? "true" : "false");
        between = ",";
    }
    tms_buf_text(out, *between ? "\n  ],\n" : "],\n");
}

/* True if the tokens that are not added have the ids 0 … and the added ones those that follow, without a hole. */
static bool added_follow(const struct tms_vocab *vocab)
{
    bool behind = false, hole = false;
    for (uint64_t id = 0; id < vocab->n; id++) {
        bool is_hole = tms_restored_is_hole(vocab, id), added = is_added(&vocab->tokens[id]);
        if ((hole && !is_hole) || (behind && !added && !is_hole)) return false;
        behind |= added;
        hole |= is_hole;
    }
    return true;
}

static void put_vocab(struct tms_buf *out, const struct tms_vocab *vocab)
{
    bool without_added = added_follow(vocab);
    const char *between = "";
    tms_buf_text(out, "    \"vocab\": {");
    for (uint64_t id = 0; id < vocab->n; id++) {
        if (tms_restored_is_hole(vocab, id) || (without_added && is_added(&vocab->tokens[id]))) continue;
        tms_buf_printf(out, "%s\n      ", between);
        put_string(out, vocab->tokens[id].text, vocab->tokens[id].n);
        tms_buf_printf(out, ": %llu", (unsigned long long)id);
        between = ",";
    }
    tms_buf_text(out, "\n    },\n");
}

static tms_status put_merges(struct tms_buf *out, const struct tms_restoring *r, struct tms_error *err)
{
    static const char bad[] = "%s: key 'tokenizer.ggml.merges': entry %llu is not of the form \"a b\"";
    const struct tms_kv *kv = tms_kvs_find(r->kvs, "tokenizer.ggml.merges");
    uint64_t count = kv && kv->type == TMS_KV_ARRAY && kv->elem_type == TMS_KV_STRING ? kv->count : 0;
    const uint8_t *at = count ? kv->bytes : NULL, *end = count ? kv->bytes + kv->n_bytes : NULL;
    tms_buf_text(out, "    \"merges\": [");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n = 0;
        if ((size_t)(end - at) >= 8) memcpy(&n, at, 8);
        if ((size_t)(end - at) < 8 || n > (uint64_t)(end - at) - 8 || n < 3)
            return tms_fail(err, TMS_EINPUT, bad, r->source->path, (unsigned long long)i);
        const char *text = (const char *)at + 8;
        const char *space = memchr(text + 1, ' ', n - 2);
        if (!space || memchr(space + 1, ' ', (size_t)(text + n - space - 1)) || !tms_is_utf8(text, n))
            return tms_fail(err, TMS_EINPUT, bad, r->source->path, (unsigned long long)i);
        tms_buf_text(out, i ? ",\n      " : "\n      ");
        put_string(out, text, n);
        at += 8 + n;
    }
    tms_buf_text(out, count ? "\n    ]\n" : "]\n");
    return TMS_OK;
}

/* One entry of a template, {"SpecialToken": {"id": "<s>", "type_id": 0}}, with what separates it from the one before.
 */
static void put_item(struct tms_buf *out, const char **between, const struct tms_token *token, const char *sequence,
                     int type_id)
{
    tms_buf_printf(out, "%s\n      {\n        \"%s\": {\n          \"id\": ", *between,
                   token ? "SpecialToken" : "Sequence");
    put_string(out, token ? token->text : sequence, token ? token->n : 1);
    tms_buf_printf(out, ",\n          \"type_id\": %d\n        }\n      }", type_id);
    *between = ",";
}

static void put_special(struct tms_buf *out, const char **between, const struct tms_token *token, uint64_t id)
{
    tms_buf_printf(out, "%s\n      ", *between);
    put_string(out, token->text, token->n);
    tms_buf_text(out, ": {\n        \"id\": ");
    put_string(out, token->text, token->n);
    tms_buf_printf(out, ",\n        \"ids\": [\n          %llu\n        ],\n        \"tokens\": [\n          ",
                   (unsigned long long)id);
    put_string(out, token->text, token->n);
    tms_buf_text(out, "\n        ]\n      }");
    *between = ",";
}

/* bos A eos, and for pairs bos A eos bos B eos. */
static void put_post_processor(struct tms_buf *out, const struct tms_restoring *r, const struct tms_token *bos,
                               const struct tms_token *eos)
{
    const char *between = "";
    if (!bos && !eos) {
        tms_buf_text(out, "  \"post_processor\": null,\n");
        return;
    }
    tms_buf_text(out, "  \"post_processor\": {\n    \"type\": \"TemplateProcessing\",\n    \"single\": [");
    for (int pair = 0; pair < 2; pair++) {
        if (pair) tms_buf_text(out, "\n    ],\n    \"pair\": [");
        between = "";
        for (int part = 0; part <= pair; part++) {
            if (bos) put_item(out, &between, bos, NULL, part);
            put_item(out, &between, NULL, part ? "B" : "A", part);
            if (eos) put_item(out, &between, eos, NULL, part);
        }
    }
    tms_buf_text(out, "\n    ],\n    \"special_tokens\": {");
    between = "";
    if (bos) put_special(out, &between, bos, (uint64_t)(bos - r->vocab.tokens));
    if (eos && eos != bos) put_special(out, &between, eos, (uint64_t)(eos - r->vocab.tokens));
    tms_buf_text(out, "\n    }\n  },\n");
}

static tms_status put_tokenizer(const struct tms_restoring *r, const struct tms_pretokenizer *pre,
                                const struct tms_token *bos, const struct tms_token *eos, struct tms_error *err)
{
    struct tms_buf *out = tms_made_files_add(r->files, "tokenizer.json");
    tms_buf_text(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(out, &r->vocab);
    tms_buf_printf(out, "  \"normalizer\": %s,\n", pre->nfc ? "{\n    \"type\": \"NFC\"\n  }" : "null");
    tms_pretokenizer_put(out, pre);
    put_post_processor(out, r, bos, eos);
    tms_buf_printf(out,
                   "  \"decoder\": {\n    \"type\": \"ByteLevel\",\n    \"add_prefix_space\": true,\n"
                   "    \"trim_offsets\": true,\n    \"use_regex\": true\n  },\n"
                   "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
                   "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n"
                   "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": %s,\n",
                   pre->whole_words ? "true" : "false");
    put_vocab(out, &r->vocab);
    tms_status status = put_merges(out, r, err);
    tms_buf_text(out, "  }\n}\n");
    if (status == TMS_OK && out->failed) status = tms_fail_memory(err, r->vocab.n * 64);
    return status;
}

tms_status tms_restore_bpe(struct tms_restoring *r, struct tms_error *err)
{
    const char *name = r->options->pre ? r->options->pre : tms_kv_as_string(tms_kvs_find(r->kvs, "tokenizer.ggml.pre"));
    struct tms_pretokenizer pre;
    if (!name || !tms_pretokenizer_find(name, &pre))
        return tms_fail(err, TMS_EINPUT,
                        "%s: tamis does not know how the pre-tokenizer '%s' cuts a text (--pre NAME takes another)",
                        r->source->path, name ? name : "none");
    bool add_bos = tms_restored_flag(r->kvs, "add_bos_token", pre.adds_bos);
    const struct tms_token *bos = add_bos ? tms_restored_token(r, "bos") : NULL;
    const struct tms_token *eos =
        tms_restored_flag(r->kvs, "add_eos_token", false) ? tms_restored_token(r, "eos") : NULL;
    tms_status status = put_tokenizer(r, &pre, bos, eos, err);
    if (status != TMS_OK) return status;
    json_t *settings = tms_restored_settings(r, "PreTrainedTokenizerFast");
    if (bos) tms_restored_set(&settings, "add_bos_token", json_true());
    return tms_restored_put_json(r->files, "tokenizer_config.json", settings, err);
}

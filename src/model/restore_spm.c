/* tokenizer.model, SentencePiece's protobuf message (see tokenizer_spm.c), from tokens, scores and types.
 *
 *     ModelProto     1: pieces   2: TrainerSpec   3: NormalizerSpec
 *     TrainerSpec    3: model_type (2: BPE)  4: vocab_size  35: byte_fallback  40 41 42 43: unk, bos, eos, pad id
 *                    45: unk_piece
 *     NormalizerSpec 1: name  3: add_dummy_prefix  4: remove_extra_whitespaces  5: escape_whitespaces
 * (sentencepiece_model.proto.) Added tokens are no pieces: they go to added_tokens_decoder of tokenizer_config.json,
 * where tokenizer_spm.c takes them from. GGUF does not tell unigram models from BPE; what reads GGUF merges pairs by
 * score, which is BPE. */
#include <stdio.h>
#include <string.h>

#include "model/restore_parts.h"

#define ADDED_SCORE (-1000.0f) /* as tokenizer_spm.c has it */

static void put_varint(struct tms_buf *out, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        tms_buf_put(out, &byte, 1);
        value >>= 7;
    } while (value);
}

static void put_number(struct tms_buf *out, unsigned field, int64_t value)
{
    put_varint(out, field << 3);
    put_varint(out, (uint64_t)value);
}

static void put_bytes(struct tms_buf *out, unsigned field, const void *bytes, size_t n)
{
    put_varint(out, field << 3 | 2);
    put_varint(out, n);
    tms_buf_put(out, bytes, n);
}

static void put_piece(struct tms_buf *out, struct tms_buf *scratch, const struct tms_token *token, int32_t type)
{
    uint32_t bits;
    memcpy(&bits, &token->score, 4);
    scratch->n = 0;
    put_bytes(scratch, 1, token->text, token->n);
    put_varint(scratch, 2 << 3 | 5);
    tms_buf_u32(scratch, bits);
    if (type != TMS_TOKEN_NORMAL) put_number(scratch, 3, type); /* normal is the default */
    put_bytes(out, 1, scratch->data, scratch->n);
}

static bool is_added(const struct tms_token *token)
{
    return token->type == TMS_TOKEN_USER_DEFINED || (token->type == TMS_TOKEN_CONTROL && token->score == ADDED_SCORE);
}

/* The id of the piece that stands for what no piece spells: SentencePiece needs exactly one. */
static bool find_unknown(const struct tms_restoring *r, uint64_t *id)
{
    for (*id = 0; *id < r->vocab.n; ++*id)
        if (r->vocab.tokens[*id].type == TMS_TOKEN_UNKNOWN) return true;
    if (tms_restored_id(r->kvs, "unknown", id) && *id < r->vocab.n) return true;
    for (*id = 0; *id < r->vocab.n; ++*id)
        if (r->vocab.tokens[*id].n == 5 && memcmp(r->vocab.tokens[*id].text, "<unk>", 5) == 0) return true;
    return false;
}

static int64_t id_or_none(const struct tms_restoring *r, const char *name)
{
    uint64_t id;
    return tms_restored_id(r->kvs, name, &id) ? (int64_t)id : -1;
}

static tms_status put_model(struct tms_restoring *r, uint64_t n_pieces, uint64_t unknown, struct tms_error *err)
{
    struct tms_buf *out = tms_made_files_add(r->files, "tokenizer.model"), part = {0};
    const struct tms_token *tokens = r->vocab.tokens;
    bool has_bytes = false;
    for (uint64_t id = 0; id < n_pieces; id++) {
        /* there is one unknown piece, and the sentencepiece library takes no other */
        int32_t type = id == unknown                          ? TMS_TOKEN_UNKNOWN
                       : tokens[id].type == TMS_TOKEN_UNKNOWN ? TMS_TOKEN_UNUSED
                                                              : tokens[id].type;
        has_bytes |= type == TMS_TOKEN_BYTE;
        put_piece(out, &part, &tokens[id], type);
    }
    part.n = 0;
    put_number(&part, 3, 2);
    put_number(&part, 4, (int64_t)n_pieces);
    put_number(&part, 35, has_bytes);
    put_number(&part, 40, (int64_t)unknown);
    put_number(&part, 41, id_or_none(r, "bos"));
    put_number(&part, 42, id_or_none(r, "eos"));
    put_number(&part, 43, id_or_none(r, "padding"));
    put_bytes(&part, 45, tokens[unknown].text, tokens[unknown].n);
    put_bytes(out, 2, part.data, part.n);
    part.n = 0;
    put_bytes(&part, 1, "identity", 8);
    put_number(&part, 3, tms_restored_flag(r->kvs, "add_space_prefix", true));
    put_number(&part, 4, tms_restored_flag(r->kvs, "remove_extra_whitespaces", false));
    put_number(&part, 5, 1);
    put_bytes(out, 3, part.data, part.n);
    bool failed = out->failed || part.failed;
    tms_buf_free(&part);
    return failed ? tms_fail_memory(err, n_pieces * 16) : TMS_OK;
}

/* Phi-3's added tokens take the white space behind them, but for these; GGUF has no key for it, and llama.cpp has the
 * same rule. */
static bool strips_behind(const struct tms_restoring *r, const struct tms_token *token)
{
    static const char *const others[] = {"<unk>", "<s>", "<|endoftext|>"};
    if (strcmp(r->source->arch->gguf, "phi3") != 0) return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (token->n == strlen(others[i]) && memcmp(token->text, others[i], token->n) == 0) return false;
    return true;
}

tms_status tms_restore_spm(struct tms_restoring *r, struct tms_error *err)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token"};
    uint64_t unknown, n_pieces = r->vocab.n;
    if (!tms_kvs_find(r->kvs, "tokenizer.ggml.scores"))
        return tms_fail(err, TMS_EINPUT, "%s: key 'tokenizer.ggml.scores' is missing", r->source->path);
    for (uint64_t id = 0; id < r->vocab.n; id++)
        if (!r->vocab.tokens[id].n)
            return tms_fail(err, TMS_EINPUT, "%s: token %llu is empty; SentencePiece has no such piece",
                            r->source->path, (unsigned long long)id);
    if (!find_unknown(r, &unknown))
        return tms_fail(err, TMS_EINPUT, "%s: no token is the unknown one; SentencePiece needs it", r->source->path);
    /* Holes and added tokens at the end are no pieces; between pieces they keep their place. */
    while (n_pieces > unknown + 1 &&
           (tms_restored_is_hole(&r->vocab, n_pieces - 1) || is_added(&r->vocab.tokens[n_pieces - 1])))
        n_pieces--;
    tms_status status = put_model(r, n_pieces, unknown, err);
    if (status != TMS_OK) return status;

    bool gemma = strncmp(r->source->arch->gguf, "gemma", 5) == 0;
    json_t *settings = tms_restored_settings(r, gemma ? "GemmaTokenizer" : "LlamaTokenizer"), *added = json_object();
    for (uint64_t id = 0; id < r->vocab.n; id++) {
        const struct tms_token *token = &r->vocab.tokens[id];
        char key[24];
        if (!is_added(token)) continue;
        snprintf(key, sizeof key, "%llu", (unsigned long long)id);
        tms_restored_set(&added, key,
                         json_pack("{s:s%, s:b, s:b, s:b, s:b, s:b}", "content", token->text, token->n, "lstrip", 0,
                                   "normalized", 0, "rstrip", strips_behind(r, token), "single_word", 0, "special",
                                   token->type == TMS_TOKEN_CONTROL));
    }
    if (!added || json_object_size(added))
        tms_restored_set(&settings, "added_tokens_decoder", added);
    else
        json_decref(added);
    tms_restored_set(&settings, "legacy", json_false());
    tms_restored_set(&settings, "unk_token", json_stringn(r->vocab.tokens[unknown].text, r->vocab.tokens[unknown].n));
    /* LlamaTokenizer has names of its own for what is not said. */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!json_object_get(settings, names[i])) tms_restored_set(&settings, names[i], json_null());
    return tms_restored_put_json(r->files, "tokenizer_config.json", settings, err);
}

/* Tokenizers from tokenizer.model, as SentencePiece itself reads texts. The protobuf is read in tokenizer_spm.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenize_json.h"

/* Appends charsmap, spaces joined, a space first, spaces as blocks: what the model's normalizer_spec asks for. */
static tms_status read_spec(struct tms_tokenizer *t, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    struct tms_spm_spec spec;
    tms_status status = tms_spm_read_spec(&spec, files, err);
    if (status != TMS_OK) return status;
    t->model = spec.unigram ? TMS_MODEL_UNIGRAM : TMS_MODEL_SCORES;
    t->byte_fallback = spec.byte_fallback;
    t->fuse_unknown = true;
    t->blocks_are_spaces = t->cut_at_blocks = true;
    t->strip_first_space = spec.space_first;
    if (spec.space_last)
        status = tms_fail(err, TMS_EINPUT, "%s: puts spaces behind words, which is not supported", t->where);
    if (status == TMS_OK && spec.charsmap) status = tms_tokenize_add_charsmap(t, spec.charsmap, spec.n_charsmap, err);
    free(spec.charsmap);
    struct tms_normalizer_step join = {.kind = TMS_STEP_JOIN_SPACES};
    struct tms_normalizer_step prepend = {.kind = TMS_STEP_PREPEND, .to = " ", .n_to = 1};
    struct tms_normalizer_step escape = {
        .kind = TMS_STEP_REPLACE, .from = " ", .n_from = 1, .to = TMS_BLOCK, .n_to = 3};
    if (status == TMS_OK && spec.join_spaces) status = tms_tokenize_add_normalizer(t, &join, err);
    if (status == TMS_OK && spec.space_first) status = tms_tokenize_add_normalizer(t, &prepend, err);
    if (status == TMS_OK && spec.escape_spaces) status = tms_tokenize_add_normalizer(t, &escape, err);
    return status;
}

static tms_status take_piece(struct tms_tokenizer *t, uint64_t id, const struct tms_token *token, struct tms_error *err)
{
    bool special = token->type == TMS_TOKEN_CONTROL, added = token->type == TMS_TOKEN_USER_DEFINED;
    struct tms_added_token found = {.id = (int32_t)id, .special = special};
    int byte = token->type == TMS_TOKEN_BYTE ? tms_byte_of_text(token->text, token->n) : -1;
    unsigned flags = (special ? TMS_SHOWN_SPECIAL | TMS_SHOWN_ADDED : 0) | (added ? TMS_SHOWN_ADDED : 0) |
                     (byte >= 0 ? TMS_SHOWN_BYTE : 0);
    if (!tms_tokenize_show(t, id, token->text, token->n, flags)) return tms_fail_memory(err, token->n);
    t->scores[id] = token->score;
    t->no_piece[id] = token->type != TMS_TOKEN_NORMAL;
    if (byte >= 0) {
        t->shown[id].byte = (uint8_t)byte;
        t->byte_ids[byte] = (int32_t)id;
    }
    if (token->type == TMS_TOKEN_UNKNOWN && t->unknown < 0) t->unknown = (int32_t)id;
    /* User-defined pieces are looked for in the normalized text, spelled with blocks; added tokens in the text. */
    if (special || added)
        return tms_tokenize_add(t, &found, token->text, token->n, added && memmem(token->text, token->n, TMS_BLOCK, 3),
                                err);
    if (token->type != TMS_TOKEN_NORMAL) return TMS_OK;
    if (!tms_text_table_put(&t->by_text, token->text, token->n, (int32_t)id) ||
        (t->model == TMS_MODEL_UNIGRAM && !tms_trie_put(&t->trie, token->text, token->n, (int32_t)id)))
        return tms_fail_memory(err, token->n);
    if ((double)token->score - 10 < t->unknown_score) t->unknown_score = (double)token->score - 10;
    return TMS_OK;
}

/* The settings name tokens; without tokenizer.json the ids are found by text. */
static void find_named(struct tms_tokenizer *t, const json_t *settings, const char *key, int32_t *id)
{
    const json_t *name = json_object_get(settings, key);
    if (json_is_object(name)) name = json_object_get(name, "content");
    if (*id < 0 && json_is_string(name)) *id = tms_tokenizer_find(t, json_string_value(name), json_string_length(name));
}

tms_status tms_tokenize_load_spm(struct tms_tokenizer *t, const struct tms_tokenizer_files *files,
                                 struct tms_error *err)
{
    struct tms_vocab vocab = {0};
    tms_status status = tms_spm_read(&vocab, files, false, err);
    if (status == TMS_OK) status = tms_tokenize_init(t, vocab.n, err);
    if (status == TMS_OK) status = read_spec(t, files, err);
    if (status == TMS_OK) status = tms_expressions_compile(t->expressions, t->where, err);
    if (status == TMS_OK) {
        t->scores = tms_calloc(t->n, sizeof *t->scores);
        t->no_piece = tms_calloc(t->n, 1);
        if (!t->scores || !t->no_piece) status = tms_fail_memory(err, t->n * 5);
    }
    for (uint64_t id = 0; id < vocab.n && status == TMS_OK; id++) status = take_piece(t, id, &vocab.tokens[id], err);
    tms_vocab_free(&vocab);
    if (status == TMS_OK) status = tms_tokenize_read_special(t, files, true, err);
    if (status != TMS_OK) return status;
    find_named(t, files->settings, "bos_token", &t->bos);
    find_named(t, files->settings, "eos_token", &t->eos);
    if (t->bos < 0) t->bos = tms_tokenizer_find(t, "<s>", 3);
    if (t->eos < 0) t->eos = tms_tokenizer_find(t, "</s>", 4);
    const json_t *add_bos = json_object_get(files->settings, "add_bos_token"),
                 *add_eos = json_object_get(files->settings, "add_eos_token");
    t->add_bos = t->bos >= 0 && !json_is_false(add_bos); /* as the class LlamaTokenizer has it */
    t->add_eos = t->eos >= 0 && json_is_true(add_eos);
    if ((t->eos >= 0 && !tms_tokenize_add_end(t, (uint64_t)t->eos)) || !tms_tokenize_surround(t))
        return tms_fail_memory(err, 64);
    return TMS_OK;
}

/* SentencePiece without tokenizer.model: a tokenizer.json whose model is a BPE with byte fallback, as transformers
 * makes it from Llama 2, Mistral or Gemma. GGUF's "llama" kind of tokenizer wants scores instead of merges.
 *
 * transformers lists, for every piece, all pairs of pieces that make it up, in the order of falling scores; so the
 * rank of the first pair that makes a piece orders the pieces as their scores did. llama.cpp joins the
 * neighbours whose joint piece has the highest score, the leftmost first: the same as taking the pair of the
 * lowest rank, if (1) the pairs of one piece stand together in the list and (2) no pair is missing. Both are
 * checked, and a file where they do not hold is read with a warning.
 *
 * Scores: Llama's trainer gives the normal pieces 0, -1, -2, … in the order of ids. Where ids and ranks agree,
 * these are written, and the result equals that of tokenizer.model; otherwise minus the rank. */
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"

#define ADDED_SCORE (-1000.0f)
#define NO_RANK     UINT32_MAX

static const json_t *texts_of(const struct tms_tokenizer_files *files)
{
    return json_object_get(json_object_get(files->tokenizer, "model"), "vocab");
}

/* ranks[id]: of the first merge that makes it, counted in pieces. *in_runs: whether condition (1) holds. */
static tms_status rank_pieces(uint32_t *ranks, bool *in_runs, const struct tms_tokenizer_files *files, size_t n_merges,
                              struct tms_error *err)
{
    struct tms_buf scratch = {0};
    tms_status status = TMS_OK;
    uint64_t previous = UINT64_MAX;
    uint32_t rank = 0;
    *in_runs = true;
    for (size_t i = 0; i < n_merges; i++) {
        struct tms_merge merge;
        status = tms_merge_read(&merge, files, i, &scratch, err);
        if (status != TMS_OK) break;
        if (ranks[merge.id] == NO_RANK)
            ranks[merge.id] = rank++;
        else if (merge.id != previous)
            *in_runs = false;
        previous = merge.id;
    }
    tms_buf_free(&scratch);
    return status;
}

/* Condition (2), in numbers: as many merges as there are ways to cut a normal token into two normal ones. */
static uint64_t count_cuts(const struct tms_vocab *vocab, const json_t *texts)
{
    uint64_t cuts = 0;
    for (uint64_t id = 0; id < vocab->n; id++) {
        const struct tms_token *token = &vocab->tokens[id];
        if (!token->text || token->type != TMS_TOKEN_NORMAL) continue;
        if (token->n > 1024) continue; /* no word; and the work grows with the square */
        for (size_t cut = 1; cut < token->n; cut++) {
            if (((unsigned char)token->text[cut] & 0xc0) == 0x80) continue; /* inside a character */
            cuts +=
                json_object_getn(texts, token->text, cut) && json_object_getn(texts, token->text + cut, token->n - cut);
        }
    }
    return cuts;
}

static void score_pieces(struct tms_vocab *vocab, const uint32_t *ranks)
{
    uint32_t highest = 0, n_ranks = 0;
    bool ids_agree = true;
    for (uint64_t id = 0; id < vocab->n; id++) {
        if (ranks[id] == NO_RANK || vocab->tokens[id].type != TMS_TOKEN_NORMAL) continue;
        if (ranks[id] < highest) ids_agree = false;
        highest = ranks[id];
        n_ranks = n_ranks > ranks[id] + 1 ? n_ranks : ranks[id] + 1;
    }
    uint32_t place = 0;
    for (uint64_t id = 0; id < vocab->n; id++) {
        struct tms_token *token = &vocab->tokens[id];
        if (!token->text || token->type != TMS_TOKEN_NORMAL) continue;
        if (ids_agree)
            token->score = -(float)place++;
        else
            token->score = -(float)(ranks[id] == NO_RANK ? n_ranks + place++ : ranks[id]);
    }
}

static bool is_byte(const struct tms_token *token)
{
    return token->n == 6 && memcmp(token->text, "<0x", 3) == 0 && token->text[5] == '>' &&
           strspn(token->text + 3, "0123456789ABCDEFabcdef") == 2;
}

/* How the file marks the start of a text: a Prepend in the normalizer (older files) or Metaspace (newer ones). */
static bool puts_space_first(const json_t *step, int depth)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    if (!type || depth > 8) return false;
    if (strcmp(type, "Prepend") == 0) return true;
    if (strcmp(type, "Metaspace") == 0) {
        const char *scheme = json_string_value(json_object_get(step, "prepend_scheme"));
        return scheme ? strcmp(scheme, "never") != 0 : !json_is_false(json_object_get(step, "add_prefix_space"));
    }
    static const char *const lists[] = {"normalizers", "pretokenizers"};
    for (size_t l = 0; l < 2; l++) {
        size_t i;
        json_t *inner;
        json_array_foreach(json_object_get(step, lists[l]), i,
                           inner) if (puts_space_first(inner, depth + 1)) return true;
    }
    return false;
}

tms_status tms_spm_read_json(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, bool *space_prefix,
                             struct tms_error *err)
{
    const json_t *model = json_object_get(files->tokenizer, "model");
    const json_t *unknown = json_object_get(model, "unk_token"), *merges = json_object_get(model, "merges");
    uint32_t *ranks = NULL;
    bool in_runs = true;
    tms_status status = tms_bpe_read(vocab, files, err);
    if (status != TMS_OK) goto done;
    ranks = malloc(vocab->n * sizeof *ranks);
    if (!ranks) {
        status = tms_fail_memory(err, vocab->n * sizeof *ranks);
        goto done;
    }
    memset(ranks, 0xff, vocab->n * sizeof *ranks);
    for (uint64_t id = 0; id < vocab->n; id++) {
        struct tms_token *token = &vocab->tokens[id];
        if (!token->text) continue;
        if (token->type != TMS_TOKEN_NORMAL)
            token->score = ADDED_SCORE;
        else if (is_byte(token))
            token->type = TMS_TOKEN_BYTE;
        else if (json_is_string(unknown) && token->n == json_string_length(unknown) &&
                 memcmp(token->text, json_string_value(unknown), token->n) == 0)
            token->type = TMS_TOKEN_UNKNOWN;
    }
    status = rank_pieces(ranks, &in_runs, files, json_array_size(merges), err);
    if (status != TMS_OK) goto done;
    if (!in_runs || count_cuts(vocab, texts_of(files)) > json_array_size(merges))
        tms_tokenizer_warn(files->options,
                           "%s: its merges are not those of a SentencePiece model; llama.cpp may split "
                           "some words differently. With tokenizer.model in the folder it would not",
                           files->tokenizer_path);
    score_pieces(vocab, ranks);
    *space_prefix = puts_space_first(json_object_get(files->tokenizer, "normalizer"), 0) ||
                    puts_space_first(json_object_get(files->tokenizer, "pre_tokenizer"), 0);
    status = tms_vocab_finish(vocab, -10000.0f, files->tokenizer_path, err);
done:
    free(ranks);
    return status;
}

/* Tokenizers from the keys of a GGUF file, by llama.cpp's rules (src/llama-vocab.cpp): "gpt2" is byte-level BPE with a
 * pre-tokenizer known by name, "llama" is SentencePiece's BPE by scores, "t5" is its unigram.
 *
 * A name stands for the expressions of the published tokenizers (pretokenizer.c), with their normal form C where they
 * have it: these are what the model was trained with. llama.cpp's own matching of some of them differs for rare
 * characters, and it never normalizes.
 *
 * Of unigram, one rule is SentencePiece's: only a whole user-defined token keeps its text from the charsmap. llama.cpp
 * leaves any bytes that one begins with unmapped, even a part of a character. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "model/tokenize_json.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define GPT2         "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TAIL         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K       CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL
#define QWEN2        CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL
#define SLASH_TAIL   "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define HAN          "[^\\r\\n\\p{L}\\p{N}]?"
#define HAN_UPPER    "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define HAN_LOWER    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED        HAN UPPER "*" LOWER "+" CONTRACTIONS "?|" HAN UPPER "+" LOWER "*" CONTRACTIONS "?|"
#define MAX_STEPS    7

/* Names that pretokenizer.c knows only in part, or not at all. */
static const struct named {
    const char *names; /* separated by spaces */
    const char *expressions[MAX_STEPS];
    bool whole_words, adds_bos;
} extra[] = {
    {.names = "default", /* what llama.cpp takes when a file names none */
     .expressions = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = "deepseek-llm",
     .expressions =
         {"[\r\n]",
          "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-"
          "Ᏽᏸ-"
          "ᏽᲐ-"
          "ᲺᲽ-"
          "Ჿᴀ-"
          "ᴫᵫ-"
          "ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ"
          "-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-"
          "ꚛꜢ-"
          "ꝯꝱ-"
          "ꞇꞋ-"
          "ꞎꭰ-"
          "ꮿﬀ-"
          "ﬆﬓ-"
          "ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻"
          "𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
          "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", "[一-龥ࠀ-一가-퟿]+", "\\p{N}+"}},
    {.names = "deepseek-coder",
     .expressions = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"}},
    {.names = "youtu",
     .whole_words = true,
     .expressions =
         {"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
          CASED "\\p{N}" SLASH_TAIL}},
    {.names = "kimi-k2",
     .expressions = {"\\p{Han}+|" HAN HAN_UPPER "*" HAN_LOWER "+" CONTRACTIONS "?|" HAN HAN_UPPER "+" HAN_LOWER
                     "*" CONTRACTIONS "?|\\p{N}{1,3}" TAIL}},
    {.names = "jais-2",
     .expressions = {CONTRACTIONS
                     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                     "\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|"
                     "\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {.names = "chameleon",
     .adds_bos = true,
     .expressions = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
                     "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
    {.names = "chatglm-bpe glm4 glm5", .expressions = {CL100K}},
    {.names = "solar-open", .expressions = {QWEN2}},
    {.names = "trillion granite-docling", .expressions = {GPT2}},
    {.names = "roberta-bpe jina-v1-en jina-v2-code", .expressions = {GPT2}},
    {.names = "minerva-7b mellum2", .expressions = {"\\p{N}", GPT2}},
    {.names = "laguna", .expressions = {"[^\\n]+|[\\n]+", QWEN2}},
    {.names = "spark2_5",
     .expressions = {"\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                     "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
                     "?[\\p{P}\\p{S}]+|[\r\n]|\\s+(?!\\S)|\\s+",
                     "\\p{N}"}},
};

/* Whether `names`, separated by spaces, hold `name`. */
static bool lists(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = names; *at; at += strspn(at, " ")) {
        size_t length = strcspn(at, " ");
        if (length == n && memcmp(at, name, n) == 0) return true;
        at += length;
    }
    return false;
}

/* The steps of a row of pretokenizer.c, by way of the tokenizer.json that they come from. */
static tms_status read_row(struct tms_tokenizer *t, const struct tms_pretokenizer *row, struct tms_error *err)
{
    struct tms_buf text = {0};
    json_t *json = NULL;
    tms_buf_text(&text, "{");
    tms_pretokenizer_put(&text, row);
    tms_buf_text(&text, "\"end\": 0}");
    tms_status status = text.failed ? tms_fail_memory(err, text.n)
                                    : tms_json_parse(&json, (const char *)text.data, text.n, t->where, err);
    if (status == TMS_OK) status = tms_tokenize_read_cuts(t, json_object_get(json, "pre_tokenizer"), 0, err);
    json_decref(json);
    tms_buf_free(&text);
    return status;
}

static tms_status read_pre(struct tms_tokenizer *t, const struct tms_kvs *kvs, bool *adds_bos, struct tms_error *err)
{
    const char *name = tms_kv_as_string(tms_kvs_find(kvs, "tokenizer.ggml.pre"));
    struct tms_pretokenizer row;
    tms_status status = TMS_OK;
    if (!name) name = "default";
    t->byte_level = false; /* the steps set it */
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        if (!lists(extra[i].names, name)) continue;
        for (size_t s = 0; s < MAX_STEPS && extra[i].expressions[s] && status == TMS_OK; s++)
            status = tms_tokenize_cut_at(t, extra[i].expressions[s], strlen(extra[i].expressions[s]), TMS_CUT_ISOLATED,
                                         false, err);
        t->byte_level = true;
        t->whole_words = extra[i].whole_words;
        *adds_bos = extra[i].adds_bos;
        return status;
    }
    if (!tms_pretokenizer_find(name, &row))
        return tms_fail(err, TMS_EINPUT, "%s: tamis does not know the pre-tokenizer '%.60s'", t->where, name);
    t->whole_words = row.whole_words;
    *adds_bos = row.adds_bos;
    status = read_row(t, &row, err);
    t->byte_level = true;
    if (status != TMS_OK || !row.nfc) return status;
    status = tms_tokenize_add_normalizer(t, &(struct tms_normalizer_step){0}, err);
    if (status == TMS_OK) status = tms_normal_form_init(&t->normalizer[t->n_normalizer - 1].form, true, err);
    return status;
}

/* ---- vocabulary ---- */

static tms_status fail_key(const struct tms_tokenizer *t, const char *key, const char *problem, struct tms_error *err)
{
    return tms_fail(err, TMS_EINPUT, "%s: key 'tokenizer.ggml.%s' %s", t->where, key, problem);
}

static bool is_array(const struct tms_kv *kv, enum tms_kv_type type)
{
    return kv && kv->type == TMS_KV_ARRAY && kv->elem_type == type;
}

/* The next string of an array's bytes. */
static bool next_text(const uint8_t **at, const uint8_t *end, const char **text, size_t *n)
{
    uint64_t length;
    if ((size_t)(end - *at) < 8) return false;
    memcpy(&length, *at, 8);
    if (length > (uint64_t)(end - *at) - 8) return false;
    *text = (const char *)*at + 8;
    *n = (size_t)length;
    *at += 8 + length;
    return true;
}

/* Unigram: user-defined tokens cost nothing, and what is unknown costs 10 more than the rarest normal token. Byte
 * tokens are found in no text. */
static tms_status take_piece(struct tms_tokenizer *t, uint64_t id, const char *text, size_t n, int32_t type,
                             struct tms_error *err)
{
    if (type == TMS_TOKEN_USER_DEFINED) {
        size_t first = 0; /* behind the blocks it begins with */
        while (n - first >= 3 && memcmp(text + first, TMS_BLOCK, 3) == 0) first += 3;
        if (memmem(text + first, n - first, TMS_BLOCK, 3)) t->cut_at_blocks = false;
        t->scores[id] = 0;
    }
    if (type == TMS_TOKEN_NORMAL && (double)(t->scores[id] - 10.0f) < t->unknown_score)
        t->unknown_score = (double)(t->scores[id] - 10.0f);
    if (type != TMS_TOKEN_NORMAL && type != TMS_TOKEN_USER_DEFINED && type != TMS_TOKEN_UNUSED) return TMS_OK;
    return n == 0 || tms_trie_put(&t->trie, text, n, (int32_t)id) ? TMS_OK : tms_fail_memory(err, n);
}

static tms_status take_token(struct tms_tokenizer *t, uint64_t id, const char *text, size_t n, int32_t type,
                             struct tms_error *err)
{
    bool special = type == TMS_TOKEN_CONTROL || type == TMS_TOKEN_UNKNOWN, added = type == TMS_TOKEN_USER_DEFINED;
    struct tms_added_token token = {.id = (int32_t)id, .special = special};
    struct tms_buf *bytes = &t->word;
    int byte = type == TMS_TOKEN_BYTE ? tms_byte_of_text(text, n) : -1;
    bool done;
    bytes->n = 0;
    if (special || added) {
        unsigned flags = TMS_SHOWN_ADDED | (special ? TMS_SHOWN_SPECIAL : 0);
        if (!tms_tokenize_show(t, id, text, n, flags)) return tms_fail_memory(err, n);
        return tms_tokenize_add(t, &token, text, n, false, err);
    }
    if (t->byte_level && tms_bytes_of_letters(bytes, text, n)) {
        done = tms_text_table_put(&t->by_text, bytes->data, bytes->n, (int32_t)id);
        if (bytes->n == 1) t->byte_ids[bytes->data[0]] = (int32_t)id;
        done &= tms_tokenize_show(t, id, bytes->data, bytes->n, 0);
    } else {
        done = t->byte_level || byte >= 0 || tms_text_table_put(&t->by_text, text, n, (int32_t)id);
        done &= tms_tokenize_show(t, id, text, n, byte >= 0 ? TMS_SHOWN_BYTE : 0);
        if (byte >= 0) {
            t->shown[id].byte = (uint8_t)byte;
            t->byte_ids[byte] = (int32_t)id;
        }
    }
    return done && !bytes->failed ? TMS_OK : tms_fail_memory(err, n);
}

static tms_status read_vocab(struct tms_tokenizer *t, const struct tms_kvs *kvs, struct tms_error *err)
{
    const struct tms_kv *texts = tms_kvs_find(kvs, "tokenizer.ggml.tokens"),
                        *types = tms_kvs_find(kvs, "tokenizer.ggml.token_type");
    const uint8_t *at = texts->bytes, *end = texts->bytes + texts->n_bytes;
    if (types && (!(is_array(types, TMS_KV_I32) || is_array(types, TMS_KV_U32)) || types->count != texts->count ||
                  types->n_bytes < 4 * t->n))
        return fail_key(t, "token_type", "is no list of a number for each token", err);
    for (uint64_t id = 0; id < t->n; id++) {
        const char *text;
        size_t n;
        int32_t type = TMS_TOKEN_NORMAL;
        if (!next_text(&at, end, &text, &n)) return fail_key(t, "tokens", "ends too early", err);
        if (!tms_is_utf8(text, n)) return fail_key(t, "tokens", "has a token that is not UTF-8", err);
        if (types) memcpy(&type, types->bytes + 4 * id, 4);
        tms_status status = take_token(t, id, text, n, type, err);
        if (status == TMS_OK && t->model == TMS_MODEL_UNIGRAM) status = take_piece(t, id, text, n, type, err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

/* "left right", spelled as tokens are. llama.cpp keeps the rank that a pair has first. Merges of what is no token are
 * left out: it would make them, and then cut them into bytes. */
static tms_status read_merges(struct tms_tokenizer *t, const struct tms_kvs *kvs, struct tms_error *err)
{
    const struct tms_kv *merges = tms_kvs_find(kvs, "tokenizer.ggml.merges");
    struct tms_buf *bytes = &t->word;
    if (!merges) return TMS_OK;
    if (!is_array(merges, TMS_KV_STRING) || merges->count > UINT32_MAX - 1)
        return fail_key(t, "merges", "is no list of texts", err);
    const uint8_t *at = merges->bytes, *end = merges->bytes + merges->n_bytes;
    for (uint64_t i = 0; i < merges->count; i++) {
        const char *text;
        size_t n;
        if (!next_text(&at, end, &text, &n)) return fail_key(t, "merges", "ends too early", err);
        const char *space = n ? memchr(text + 1, ' ', n - 1) : NULL;
        if (!space || !tms_is_utf8(text, n)) return fail_key(t, "merges", "has one that is not \"a b\"", err);
        size_t n_left = (size_t)(space - text);
        bytes->n = 0;
        if (!tms_bytes_of_letters(bytes, text, n_left)) continue;
        size_t cut = bytes->n;
        if (!tms_bytes_of_letters(bytes, space + 1, n - n_left - 1)) continue;
        if (bytes->failed) return tms_fail_memory(err, n);
        int32_t left = tms_text_table_find(&t->by_text, bytes->data, cut);
        int32_t right = tms_text_table_find(&t->by_text, bytes->data + cut, bytes->n - cut);
        int32_t both = tms_text_table_find(&t->by_text, bytes->data, bytes->n);
        if (left < 0 || right < 0 || both < 0) continue;
        if (!tms_pair_table_put(&t->merges, left, right, (uint32_t)i, both, false)) return tms_fail_memory(err, 16);
    }
    return TMS_OK;
}

static tms_status read_scores(struct tms_tokenizer *t, const struct tms_kvs *kvs, struct tms_error *err)
{
    const struct tms_kv *scores = tms_kvs_find(kvs, "tokenizer.ggml.scores");
    if (!is_array(scores, TMS_KV_F32) || scores->count != t->n || scores->n_bytes < 4 * t->n)
        return fail_key(t, "scores", scores ? "is no list of a number for each token" : "is missing", err);
    t->scores = tms_calloc(t->n, sizeof *t->scores);
    t->no_piece = tms_calloc(t->n, 1);
    if (!t->scores || !t->no_piece) return tms_fail_memory(err, t->n * 5);
    memcpy(t->scores, scores->bytes, t->n * sizeof *t->scores);
    for (uint64_t id = 0; id < t->n; id++)
        if (!isfinite(t->scores[id])) return fail_key(t, "scores", "holds what is no number", err);
    return TMS_OK;
}

/* ---- special tokens ---- */

static bool id_of(const struct tms_tokenizer *t, const struct tms_kvs *kvs, const char *key, int32_t *id)
{
    uint64_t value;
    if (!tms_kv_as_u64(tms_kvs_find(kvs, key), &value) || value >= t->n) return false;
    *id = (int32_t)value;
    return true;
}

static bool flag(const struct tms_kvs *kvs, const char *key, bool absent)
{
    uint64_t value;
    return tms_kv_as_u64(tms_kvs_find(kvs, key), &value) ? value != 0 : absent;
}

/* Texts that end a turn or a text wherever they are tokens: llama.cpp's list. */
static const char *const end_texts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<end_of_utterance>",
    "[e~[",
    ("<\xef\xbd\x9c" /* the next letter would count as a digit */
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"),
};

static tms_status read_special(struct tms_tokenizer *t, const struct tms_kvs *kvs, bool adds_bos, struct tms_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    bool sentencepiece = t->model == TMS_MODEL_SCORES, unigram = t->model == TMS_MODEL_UNIGRAM, done = true;
    int32_t eos = unigram ? 1 : sentencepiece ? 2 : -1, unknown = unigram ? 2 : sentencepiece ? 0 : -1;
    int32_t id;
    if (!id_of(t, kvs, "tokenizer.ggml.bos_token_id", &t->bos) && sentencepiece && t->n > 1) t->bos = 1;
    if (!id_of(t, kvs, "tokenizer.ggml.eos_token_id", &t->eos) && eos >= 0 && t->n > (uint64_t)eos) t->eos = eos;
    if (!id_of(t, kvs, "tokenizer.ggml.unknown_token_id", &t->unknown))
        t->unknown = unknown >= 0 && t->n > (uint64_t)unknown ? unknown : -1;
    t->add_bos = t->bos >= 0 && flag(kvs, "tokenizer.ggml.add_bos_token", sentencepiece || adds_bos);
    t->add_eos = t->eos >= 0 && flag(kvs, "tokenizer.ggml.add_eos_token", unigram);
    if (t->eos >= 0) done = tms_tokenize_add_end(t, (uint64_t)t->eos);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (id_of(t, kvs, keys[i], &id)) done &= tms_tokenize_add_end(t, (uint64_t)id);
    for (size_t i = 0; i < sizeof end_texts / sizeof *end_texts; i++) {
        id = tms_tokenizer_find(t, end_texts[i], strlen(end_texts[i]));
        if (id >= 0 && (t->shown[id].flags & TMS_SHOWN_ADDED)) done &= tms_tokenize_add_end(t, (uint64_t)id);
    }
    return done && tms_tokenize_surround(t) ? TMS_OK : tms_fail_memory(err, 64);
}

/* A map of characters, then spaces as blocks. llama.cpp puts a space first if spaces are joined, whatever the file
 * says. */
static tms_status read_unigram(struct tms_tokenizer *t, const struct tms_kvs *kvs, struct tms_error *err)
{
    const struct tms_kv *map = tms_kvs_find(kvs, "tokenizer.ggml.precompiled_charsmap");
    struct tms_normalizer_step spaces = {.kind = TMS_STEP_SPACE_WORDS};
    tms_status status = TMS_OK;
    if (map && !is_array(map, TMS_KV_U8) && !is_array(map, TMS_KV_I8))
        return fail_key(t, "precompiled_charsmap", "is no list of bytes", err);
    if (map && map->n_bytes) status = tms_tokenize_add_charsmap(t, map->bytes, map->n_bytes, err);
    spaces.left = flag(kvs, "tokenizer.ggml.add_space_prefix", false);
    spaces.right = flag(kvs, "tokenizer.ggml.remove_extra_whitespaces", false);
    if (status == TMS_OK) status = tms_tokenize_add_normalizer(t, &spaces, err);
    t->fuse_unknown = true;
    t->strip_first_space = spaces.left;
    return status;
}

/* SentencePiece's space first, where the file has it. */
static tms_status read_first_space(struct tms_tokenizer *t, const struct tms_kvs *kvs, struct tms_error *err)
{
    struct tms_normalizer_step prepend = {.kind = TMS_STEP_PREPEND, .to = " ", .n_to = 1};
    t->byte_fallback = true;
    t->strip_first_space = flag(kvs, "tokenizer.ggml.add_space_prefix", true);
    return t->strip_first_space ? tms_tokenize_add_normalizer(t, &prepend, err) : TMS_OK;
}

tms_status tms_tokenize_load_gguf(struct tms_tokenizer *t, const struct tms_kvs *kvs, struct tms_error *err)
{
    const char *model = tms_kv_as_string(tms_kvs_find(kvs, "tokenizer.ggml.model"));
    const struct tms_kv *tokens = tms_kvs_find(kvs, "tokenizer.ggml.tokens");
    bool adds_bos = false;
    if (!model) return tms_fail(err, TMS_EINPUT, "%s: holds no tokenizer", t->where);
    bool bpe = strcmp(model, "gpt2") == 0, unigram = strcmp(model, "t5") == 0;
    if (!bpe && !unigram && strcmp(model, "llama") != 0)
        return tms_fail(err, TMS_EINPUT,
                        "%s: tokenizers of the kind '%.60s' are not supported (gpt2, llama and t5 are)", t->where,
                        model);
    if (!is_array(tokens, TMS_KV_STRING))
        return fail_key(t, "tokens", tokens ? "is no list of texts" : "is missing", err);
    tms_status status = tms_tokenize_init(t, tokens->count, err);
    if (status != TMS_OK) return status;
    t->model = bpe ? TMS_MODEL_MERGES : unigram ? TMS_MODEL_UNIGRAM : TMS_MODEL_SCORES;
    if (bpe) {
        status = read_pre(t, kvs, &adds_bos, err);
    } else {
        struct tms_normalizer_step escape = {
            .kind = TMS_STEP_REPLACE, .from = " ", .n_from = 1, .to = TMS_BLOCK, .n_to = 3};
        status = unigram ? read_unigram(t, kvs, err) : read_first_space(t, kvs, err);
        if (status == TMS_OK) status = tms_tokenize_add_normalizer(t, &escape, err);
        t->blocks_are_spaces = t->cut_at_blocks = true;
    }
    if (status == TMS_OK) status = tms_expressions_compile(t->expressions, t->where, err);
    if (status == TMS_OK && !bpe) status = read_scores(t, kvs, err);
    if (status == TMS_OK) status = read_vocab(t, kvs, err);
    if (status == TMS_OK && bpe) status = read_merges(t, kvs, err);
    /* Words do not end at blocks where a run of what is unknown goes on over them. */
    if (unigram && tms_text_table_find(&t->by_text, TMS_BLOCK, 3) < 0) t->cut_at_blocks = false;
    return status == TMS_OK ? read_special(t, kvs, adds_bos, err) : status;
}

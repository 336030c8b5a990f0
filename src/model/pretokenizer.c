/* Pre-tokenizers: how a text is cut before BPE, and what llama.cpp calls that.
 *
 * tokenizer.json describes the cutting as steps (regular expressions, digits, punctuation); a GGUF file only has a
 * name, "tokenizer.ggml.pre", for which llama.cpp has its own expressions (src/llama-vocab.cpp). Its converter
 * finds the name by the hash of the ids of one test text, so it knows exact vocabularies only. Here the steps
 * themselves are compared with those that stand for each name, so that fine-tuned and extended vocabularies are
 * recognised too.
 *
 * Several names stand for the same cutting and differ, if at all, in whether a word that is a token as a whole is
 * taken without merging (ignore_merges) or in how spaces are tidied when decoding. Where the vocabulary tells
 * them apart by a token (the second column), that name is written, otherwise the one that llama.cpp had first;
 * the cutting is the same. "deepseek-r1-qwen", for example, is "qwen2" in all but name.
 *
 * The same rows are read the other way when a tokenizer.json is made from a GGUF file; the first row of a name counts.
 *
 * The expressions are those of published tokenizer.json files. Rows marked (t) were compared with such a file; the
 * others with the original expressions noted in llama.cpp's source or quoted in public documentation. */
#include <string.h>

#include "base/mem.h"
#include "model/tokenizer.h"

/* How steps are spelled for comparing. Each ends with a control character that no expression contains. */
#define END               "\x1e"
#define ANY               "\x01" /* in a row: any text */
#define SPLIT(expression) "split " expression END
#define DIGITS            "digits" END      /* runs of digits */
#define EACH_DIGIT        "each digit" END  /* every digit alone */
#define PUNCTUATION       "punctuation" END /* runs of it */
#define GPT2_WORDS        "gpt2" END        /* ByteLevel with use_regex: GPT-2's own expression */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS        "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define CL100K       CONTRACTIONS WORDS "\\p{N}{1,3}" TAIL /* OpenAI's name for the vocabulary that had it first */
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix)                                                                                                  \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix "|"
#define SLASH_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K      CASED(CONTRACTIONS "?") "\\p{N}{1,3}" SLASH_TAIL
#define GPT2       "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define BLOOM      " ?[^(\\s|[.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c])]+"

/* What only matters when a tokenizer.json is made from the name. */
#define WHOLE 1u /* llama.cpp takes words that are tokens without merging */
#define NFC   2u /* published tokenizers with this name normalize to NFC */
#define BOS   4u /* llama.cpp puts BOS first if the file does not say */

static const struct row {
    const char *steps;
    const char *token; /* an added token that it must have; NULL: none */
    int ignore_merges; /* 1, 0, or -1: either */
    unsigned flags;
    const char *name;
    const char *also; /* names that llama.cpp cuts the same way for, with spaces between; or NULL */
} rows[] = {
    {SPLIT(CL100K), "[gMASK]", 1, WHOLE, "glm4", "glm5"},
    {SPLIT(CL100K), "[gMASK]", 0, 0, "chatglm-bpe", NULL},
    {SPLIT(CL100K), NULL, 1, WHOLE | BOS, "llama-bpe",
     "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"}, /* (t) Llama 3.1 */
    {SPLIT(CL100K), NULL, 0, 0, "dbrx", "smaug-bpe"},                         /* also OLMo 2 */

    {SPLIT(CONTRACTIONS WORDS "\\p{N}" TAIL),
     "<\xef\xbd\x9c"
     "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     -1, 0, "deepseek-r1-qwen", NULL},
    {SPLIT(CONTRACTIONS WORDS "\\p{N}" TAIL), NULL, -1, NFC, "qwen2",
     "stablelm2 megrez hunyuan grok-2 kormo f2llmv2"}, /* (t) Qwen3 */
    {SPLIT(CONTRACTIONS
           "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
           "\\s+(?!\\S)|\\s+"),
     NULL, -1, NFC, "qwen35", NULL},
    {SPLIT("[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL), NULL, -1, 0, "ufakzeka", NULL},
    {SPLIT("\\p{N}{1,3}") SPLIT(CONTRACTIONS WORDS "\\p{N}+" TAIL), NULL, -1, WHOLE, "minicpm5", NULL},
    {SPLIT(CONTRACTIONS WORDS "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|" ANY), NULL,
     -1, 0, "jais-2", NULL},
    {SPLIT(CONTRACTIONS
           "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
     NULL, -1, 0, "seed-coder", NULL},
    {SPLIT(CONTRACTIONS
           "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
           "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"),
     NULL, -1, 0, "exaone-moe", NULL},
    {SPLIT("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|"
           "\\s+(?!\\S)|\\s+"),
     NULL, -1, 0, "bailingmoe", "bailingmoe2 llada-moe"},

    {SPLIT("\\p{N}{1,3}") SPLIT("[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+")
         SPLIT("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
               "?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
     NULL, -1, 0, "deepseek-v3", "hunyuan-dense joyai-llm"}, /* (t) */
    {SPLIT("[\\r\\n]") SPLIT("\\s?[A-Za-z\xc2\xb5\xc3\x80-" ANY "]+") SPLIT("\\s?[!-/:-~" ANY "]+") SPLIT("\\s+$")
         SPLIT("[\xe4\xb8\x80-\xe9\xbe\xa5" ANY "]+") EACH_DIGIT,
     NULL, -1, 0, "deepseek-llm", NULL}, /* DeepSeek 1 and 2 */
    {SPLIT("[\\r\\n]") SPLIT("\\s?\\p{L}+") SPLIT("\\s?\\p{P}+") SPLIT("[\xe4\xb8\x80-\xe9\xbe\xa5" ANY "]+")
         EACH_DIGIT,
     NULL, -1, 0, "deepseek-coder", NULL},

    {SPLIT(O200K), "<|begin_of_text|>", -1, 0, "llama4", NULL},
    {SPLIT(O200K), "]~!b[", -1, 0, "minimax-m2", NULL},
    {SPLIT(O200K), NULL, -1, 0, "gpt-4o", "kanana2 talkie"},                       /* also gpt-oss */
    {SPLIT(CASED("") "\\p{N}" SLASH_TAIL), NULL, -1, WHOLE | BOS, "tekken", NULL}, /* Mistral Nemo and later */
    {SPLIT("\\d{1,3}(?=(?:\\d{3})*\\b)") SPLIT(O200K), NULL, -1, 0, "tiny_aya", "cohere2moe"},
    {SPLIT("[\xea\xb0\x80-\xed\x9e\xa3" ANY "]+|" ANY) SPLIT(CASED(CONTRACTIONS "?") "\\p{N}" SLASH_TAIL), NULL, -1,
     WHOLE, "youtu", NULL},
    {SPLIT("[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}" ANY "&&[^\\p{Han}]]" ANY), NULL, -1, 0, "kimi-k2", NULL},

    {EACH_DIGIT GPT2_WORDS, "<BOS_TOKEN>", -1, NFC, "command-r", NULL},
    {EACH_DIGIT GPT2_WORDS, "<|im_start|>", -1, 0, "smollm", NULL},
    {EACH_DIGIT GPT2_WORDS, NULL, -1, 0, "starcoder", "refact codeshell exaone"}, /* also Granite */
    {SPLIT("\\p{N}") SPLIT(GPT2), NULL, -1, 0, "starcoder", NULL},
    {PUNCTUATION GPT2_WORDS DIGITS SPLIT("[0-9][0-9][0-9]"), NULL, -1, 0, "falcon", NULL},
    {SPLIT("\\p{N}+") SPLIT("(?=(\\d{3})+(?!\\d))"), NULL, -1, 0, "superbpe", NULL},
    {SPLIT("<sentinel:[0-9]+>") ANY, NULL, -1, BOS, "chameleon", NULL},
    {SPLIT(BLOOM), NULL, -1, 0, "bloom", "poro-chat gpt3-finnish"},
    {SPLIT(BLOOM) EACH_DIGIT, NULL, -1, 0, "viking", NULL},
    {EACH_DIGIT SPLIT(BLOOM), NULL, -1, 0, "viking", NULL}, /* the same cuts */
    /* also roberta-bpe */
    {GPT2_WORDS, NULL, -1, 0, "gpt-2",
     "mpt olmo phi-2 jais modern-bert jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum exaone4"},
    {SPLIT(GPT2), NULL, -1, 0, "gpt-2", NULL},
};

static bool has_text(const json_t *object, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value && strcmp(value, text) == 0;
}

/* A Split that keeps all of the text, cut where the expression says. "Removed" with invert, as files made from
 * tiktoken have it, keeps what the expression matches, and these match everything. */
static bool cuts_only(const json_t *split)
{
    return has_text(split, "behavior", "Isolated") ||
           (has_text(split, "behavior", "Removed") && json_is_true(json_object_get(split, "invert")));
}

/* Some files have line ends in their expressions, others \r and \n. */
static void spell_regex(struct tms_buf *out, const char *regex)
{
    tms_buf_text(out, regex ? "split " : "other split");
    for (; regex && *regex; regex++) {
        if (*regex == '\r' || *regex == '\n')
            tms_buf_text(out, *regex == '\r' ? "\\r" : "\\n");
        else
            tms_buf_put(out, regex, 1);
    }
    tms_buf_text(out, END);
}

/* Appends the spelling of one step, or of a sequence of them. */
static void spell(struct tms_buf *out, const json_t *step, int depth)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    if (!type || depth > 8) return;
    if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *inner;
        json_array_foreach(json_object_get(step, "pretokenizers"), i, inner) spell(out, inner, depth + 1);
    } else if (strcmp(type, "ByteLevel") == 0) {
        if (!json_is_false(json_object_get(step, "use_regex"))) tms_buf_text(out, GPT2_WORDS);
    } else if (strcmp(type, "Split") == 0 && cuts_only(step)) {
        spell_regex(out, json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex")));
    } else if (strcmp(type, "Digits") == 0) {
        tms_buf_text(out, json_is_true(json_object_get(step, "individual_digits")) ? EACH_DIGIT : DIGITS);
    } else if (strcmp(type, "Punctuation") == 0 && has_text(step, "behavior", "Contiguous")) {
        tms_buf_text(out, PUNCTUATION);
    } else {
        tms_buf_text(out, "other" END);
    }
}

/* Whether `text` has the form of `row`, where ANY stands for any text. */
static bool matches(const char *row, const char *text)
{
    const char *any = NULL, *resume = NULL;
    while (*text) {
        if (*row == ANY[0]) {
            any = ++row;
            resume = text;
        } else if (*row == *text) {
            row++, text++;
        } else if (any) {
            row = any;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*row == ANY[0]) row++;
    return !*row;
}

static bool has_added_token(const json_t *tokenizer, const char *content)
{
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i,
                       token) if (has_text(token, "content", content)) return true;
    return false;
}

bool tms_pretokenizer_name(const json_t *tokenizer, const char **name)
{
    struct tms_buf steps = {0};
    int ignores = json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges"));
    spell(&steps, json_object_get(tokenizer, "pre_tokenizer"), 0);
    tms_buf_put(&steps, "", 1);
    bool ok = !steps.failed;
    bool short_enough = steps.n <= 65536; /* no known one is longer, and the comparing must not take long */
    *name = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && ok && short_enough && !*name; i++) {
        const struct row *row = &rows[i];
        if ((row->ignore_merges == -1 || row->ignore_merges == ignores) &&
            matches(row->steps, (const char *)steps.data) && (!row->token || has_added_token(tokenizer, row->token)))
            *name = row->name;
    }
    tms_buf_free(&steps);
    return ok;
}

/* Whether `names`, separated by spaces, hold `name`. */
static bool lists(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = names; at && *at; at += strspn(at, " ")) {
        size_t length = strcspn(at, " ");
        if (length == n && memcmp(at, name, n) == 0) return true;
        at += length;
    }
    return false;
}

bool tms_pretokenizer_find(const char *name, struct tms_pretokenizer *out)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        if (strchr(row->steps, ANY[0]) || (strcmp(row->name, name) != 0 && !lists(row->also, name))) continue;
        *out = (struct tms_pretokenizer){.steps = row->steps,
                                         .whole_words = (row->flags & WHOLE) != 0,
                                         .nfc = (row->flags & NFC) != 0,
                                         .adds_bos = (row->flags & BOS) != 0};
        return true;
    }
    return false;
}

static void put_byte_level(struct tms_buf *out, bool use_regex)
{
    tms_buf_printf(out,
                   "      {\n        \"type\": \"ByteLevel\",\n        \"add_prefix_space\": false,\n"
                   "        \"trim_offsets\": true,\n        \"use_regex\": %s\n      }",
                   use_regex ? "true" : "false");
}

/* One step, without its END. */
static void put_step(struct tms_buf *out, const char *step, size_t n)
{
    static const char split[] = "split ";
    if (n >= sizeof split - 1 && memcmp(step, split, sizeof split - 1) == 0) {
        tms_buf_text(out, "      {\n        \"type\": \"Split\",\n        \"pattern\": {\n          \"Regex\": \"");
        for (size_t i = sizeof split - 1; i < n; i++) {
            if (step[i] == '\\' || step[i] == '"') tms_buf_text(out, "\\");
            tms_buf_put(out, step + i, 1);
        }
        tms_buf_text(out, "\"\n        },\n        \"behavior\": \"Isolated\",\n        \"invert\": false\n      }");
    } else if (strncmp(step, GPT2_WORDS, n) == 0) {
        put_byte_level(out, true);
    } else if (strncmp(step, PUNCTUATION, n) == 0) {
        tms_buf_text(out, "      {\n        \"type\": \"Punctuation\",\n        \"behavior\": \"Contiguous\"\n      }");
    } else {
        tms_buf_printf(out, "      {\n        \"type\": \"Digits\",\n        \"individual_digits\": %s\n      }",
                       strncmp(step, EACH_DIGIT, n) == 0 ? "true" : "false");
    }
}

void tms_pretokenizer_put(struct tms_buf *out, const struct tms_pretokenizer *pre)
{
    tms_buf_text(out, "  \"pre_tokenizer\": {\n    \"type\": \"Sequence\",\n    \"pretokenizers\": [\n");
    for (const char *step = pre->steps; *step;) {
        size_t n = strcspn(step, END);
        if (step != pre->steps) tms_buf_text(out, ",\n");
        put_step(out, step, n);
        step += n + 1;
    }
    if (!strstr(pre->steps, GPT2_WORDS)) { /* which are ByteLevel's own */
        tms_buf_text(out, ",\n");
        put_byte_level(out, false);
    }
    tms_buf_text(out, "\n    ]\n  },\n");
}

/* The tokenizer of a Hugging Face folder as GGUF key-values: which kind it is, and what each architecture adds.
 *
 * GGUF knows two kinds that matter here, with the names of their first users: "llama" is SentencePiece (tokens,
 * scores, types), "gpt2" is byte-level BPE (tokens, types, merges, and the name of a pre-tokenizer). A folder
 * with a tokenizer.model is the first kind, else tokenizer.json decides. Keys and their order are those of
 * llama.cpp's converter (conversion/base.py, gguf-py/gguf/vocab.py; the version in llama-cpp-python 0.3.36). */
#include "model/tokenizer.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "model/vocab.h"

#define JSON_LIMIT (UINT64_C(1) << 28)

/* What differs between architectures; others have none of it. */
static const struct arch_rule {
    const char *arch;
    bool settings_decide_prefix; /* add_prefix_space of tokenizer_config.json comes first, as add_space_prefix */
    bool never_a_prefix;         /* add_space_prefix false, last (SentencePiece only) */
    bool verbatim;               /* added tokens are taken as they stand */
    bool names_bpe;              /* the tokenizer_class "GPT2Tokenizer" means BPE whatever files there are */
    uint64_t eot;                /* the id of the end of a turn if no file names it; 0: none */
} arch_rules[] = {
    {.arch = "llama", .settings_decide_prefix = true},
    {.arch = "gemma", .never_a_prefix = true, .eot = 107}, /* <end_of_turn> */
    {.arch = "gemma2", .never_a_prefix = true},
    {.arch = "gemma3", .never_a_prefix = true},
    {.arch = "phi3", .verbatim = true, .names_bpe = true},
    {.arch = NULL},
};

static const struct arch_rule *rule_for(const char *arch)
{
    const struct arch_rule *rule = arch_rules;
    while (rule->arch && !(arch && strcmp(rule->arch, arch) == 0)) rule++;
    return rule;
}

enum kind { BYTE_LEVEL, SENTENCEPIECE, SENTENCEPIECE_AS_JSON };

/* Many tokenizer_config.json say "model_max_length": 1000000000000000019884624838656 for "unlimited" (int(1e30) in
 * Python), and jansson refuses integers past 64 bits. They become reals here, in place: the spelling is shorter. */
static void make_reals_of_huge_integers(char *text)
{
    bool in_string = false;
    while (*text) {
        size_t n = in_string || !isdigit((unsigned char)*text) ? 0 : strspn(text, "0123456789+-.eE");
        if (in_string && *text == '\\' && text[1])
            text++;
        else if (*text == '"')
            in_string = !in_string;
        if (n >= 19 && strspn(text, "0123456789") == n) {
            char number[32];
            errno = 0;
            (void)strtoll(text, NULL, 10);
            if (errno == ERANGE && snprintf(number, sizeof number, "%.11e", strtod(text, NULL)) <= 19) {
                memset(text, ' ', n);
                for (size_t i = 0; number[i]; i++) text[i] = number[i];
            }
        }
        text += n ? n : 1;
    }
}

static tms_status load_object(json_t **out, const char *path, struct tms_error *err)
{
    json_t *json = NULL;
    char *text = NULL;
    size_t n = 0;
    if (!tms_path_exists(path)) return TMS_OK;
    tms_status status = tms_file_text(path, JSON_LIMIT, &text, &n, err);
    if (status != TMS_OK) return status;
    make_reals_of_huge_integers(text);
    status = tms_json_parse(&json, text, n, path, err);
    free(text);
    if (status != TMS_OK) return status;
    if (json_is_object(json)) {
        *out = json;
        return TMS_OK;
    }
    json_decref(json);
    return tms_fail(err, TMS_EINPUT, "%s: is not a JSON object", path);
}

void tms_tokenizer_files_close(struct tms_tokenizer_files *files)
{
    json_decref(files->tokenizer);
    json_decref(files->settings);
    json_decref(files->special_map);
    free(files->tokenizer_path);
    free(files->settings_path);
    free(files->model_path);
}

tms_status tms_tokenizer_files_open(struct tms_tokenizer_files *files, struct tms_error *err)
{
    files->tokenizer_path = tms_path_join(files->dir, "tokenizer.json");
    files->settings_path = tms_path_join(files->dir, "tokenizer_config.json");
    files->model_path = tms_path_join(files->dir, "tokenizer.model");
    if (!files->tokenizer_path || !files->settings_path || !files->model_path)
        return tms_fail_memory(err, strlen(files->dir) + 32);
    char *map_path = tms_path_join(files->dir, "special_tokens_map.json");
    tms_status status = map_path ? TMS_OK : tms_fail_memory(err, strlen(files->dir) + 32);
    if (status == TMS_OK) status = load_object(&files->tokenizer, files->tokenizer_path, err);
    if (status == TMS_OK) status = load_object(&files->settings, files->settings_path, err);
    if (status == TMS_OK) status = load_object(&files->special_map, map_path, err);
    free(map_path);
    return status;
}

/* Some folders keep tiktoken's lines of base64 or a Git LFS pointer under the name tokenizer.model. A
 * SentencePiece model begins with its first piece, field 1 of kind 2: byte 0x0a. */
static tms_status begins_like_sentencepiece(bool *does, const char *path, struct tms_error *err)
{
    struct tms_file file;
    uint8_t first = 0;
    tms_status status = tms_file_open(&file, path, err);
    if (status == TMS_EINPUT) return TMS_OK; /* a folder, say */
    if (status != TMS_OK) return status;
    if (file.size > 0) status = tms_file_read(&file, &first, 1, 0, err);
    tms_file_close(&file);
    *does = first == 0x0a;
    return status;
}

static tms_status choose_from_json(enum kind *out, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    const char *path = files->tokenizer_path;
    const json_t *model = json_object_get(files->tokenizer, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    /* Older files leave the type out; only a BPE has merges. */
    if (!type) type = json_object_get(model, "merges") ? "BPE" : "unnamed";
    if (strcmp(type, "BPE") != 0)
        return tms_fail(err, TMS_EINPUT, "%s: tokenizers of type %.60s are not supported (BPE is)%s", path, type,
                        strcmp(type, "Unigram") == 0 ? "; tamis needs the tokenizer.model it was made from" : "");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++)
        if (json_string_length(json_object_get(model, affixes[i])))
            return tms_fail(err, TMS_EINPUT, "%s: a BPE with a %s has no place in GGUF", path, affixes[i]);
    if (tms_bpe_is_byte_level(files->tokenizer) || files->options->pre)
        *out = BYTE_LEVEL;
    else if (json_is_true(json_object_get(model, "byte_fallback")))
        *out = SENTENCEPIECE_AS_JSON;
    else
        return tms_fail(err, TMS_EINPUT,
                        "%s: a BPE of characters, neither byte-level nor with byte fallback, has no "
                        "place in GGUF",
                        path);
    return TMS_OK;
}

static tms_status choose_kind(enum kind *out, const struct tms_tokenizer_files *files, const struct arch_rule *rule,
                              struct tms_error *err)
{
    const char *class = json_string_value(json_object_get(files->settings, "tokenizer_class"));
    bool wants_bpe = rule->names_bpe && class && strcmp(class, "GPT2Tokenizer") == 0 && files->tokenizer;
    if (!wants_bpe && tms_path_exists(files->model_path)) {
        bool does = !files->tokenizer;
        tms_status status = does ? TMS_OK : begins_like_sentencepiece(&does, files->model_path, err);
        if (status != TMS_OK) return status;
        if (does) {
            *out = SENTENCEPIECE;
            return TMS_OK;
        }
        tms_tokenizer_warn(files->options, "%s: is not a SentencePiece model; tokenizer.json is read instead",
                           files->model_path);
    }
    if (files->tokenizer) return choose_from_json(out, files, err);
    return tms_fail(err, TMS_EINPUT,
                    "%s: no tokenizer: neither tokenizer.model nor tokenizer.json (transformers makes the latter from "
                    "other files: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR))",
                    files->dir);
}

/* NULL if memory is short. */
static const char *pre_tokenizer_for(const struct tms_tokenizer_files *files)
{
    const char *name;
    if (files->options->pre) return files->options->pre;
    if (!tms_pretokenizer_name(files->tokenizer, &name)) return NULL;
    if (name) return name;
    char *steps = json_dumps(json_object_get(files->tokenizer, "pre_tokenizer"), JSON_COMPACT | JSON_ENCODE_ANY);
    tms_tokenizer_warn(files->options,
                       "%s: llama.cpp has no name that tamis knows for the pre-tokenizer %.600s; "
                       "\"default\" is written, and texts may be split wrongly (--pre NAME sets it)",
                       files->tokenizer_path, steps ? steps : "(none)");
    free(steps);
    return "default";
}

static tms_status read_vocab(struct tms_vocab *vocab, enum kind kind, const struct tms_tokenizer_files *files,
                             const struct arch_rule *rule, bool *space_prefix, struct tms_error *err)
{
    tms_status status;
    switch (kind) {
    case SENTENCEPIECE: return tms_spm_read(vocab, files, rule->verbatim, err);
    case SENTENCEPIECE_AS_JSON: return tms_spm_read_json(vocab, files, space_prefix, err);
    case BYTE_LEVEL: break;
    }
    status = tms_bpe_read(vocab, files, err);
    return status == TMS_OK ? tms_vocab_finish(vocab, 0, files->tokenizer_path, err) : status;
}

tms_status tms_tokenizer_export(struct tms_kvs *kvs, const char *dir, const struct tms_tokenizer_options *options,
                                struct tms_error *err)
{
    static const char prefix_key[] = "tokenizer.ggml.add_space_prefix";
    struct tms_tokenizer_files files = {.options = options, .dir = dir};
    const struct arch_rule *rule = rule_for(options->arch);
    struct tms_vocab vocab = {0};
    enum kind kind = BYTE_LEVEL;
    bool space_prefix = true; /* llama.cpp's default for SentencePiece */
    tms_status status = tms_tokenizer_files_open(&files, err);
    if (status == TMS_OK) status = choose_kind(&kind, &files, rule, err);
    if (status == TMS_OK) status = read_vocab(&vocab, kind, &files, rule, &space_prefix, err);
    if (status != TMS_OK) goto done;

    const json_t *prefix = json_object_get(files.settings, "add_prefix_space");
    if (rule->settings_decide_prefix && json_is_boolean(prefix))
        tms_kvs_set_bool(kvs, prefix_key, json_is_true(prefix));
    const char *pre = kind == BYTE_LEVEL ? pre_tokenizer_for(&files) : "default";
    if (!pre) {
        status = tms_fail_memory(err, 256);
        goto done;
    }
    tms_kvs_set_string(kvs, "tokenizer.ggml.model", kind == BYTE_LEVEL ? "gpt2" : "llama");
    tms_kvs_set_string(kvs, "tokenizer.ggml.pre", pre);
    tms_vocab_export(kvs, &vocab, kind != BYTE_LEVEL);
    if (kind == BYTE_LEVEL) status = tms_bpe_export_merges(kvs, &files, err);
    if (status == TMS_OK) status = tms_special_tokens_export(kvs, &files, vocab.n, err);
    if (status == TMS_OK) status = tms_chat_template_export(kvs, &files, err);
    if (status != TMS_OK) goto done;
    tms_normalizer_export(kvs, &files);

    if (rule->eot && kind != BYTE_LEVEL) tms_special_token_export(kvs, &files, "eot", rule->eot, vocab.n);
    if (rule->settings_decide_prefix && vocab.n == 32016) /* CodeLlama, told by its size; 32010 is "▁<EOT>" */
        tms_special_token_export(kvs, &files, "eot", 32010, vocab.n);
    if (rule->settings_decide_prefix && vocab.n == 49152) /* Granite and SmolLM start without a token */
        tms_kvs_set_bool(kvs, "tokenizer.ggml.add_bos_token", false);
    if (kind != BYTE_LEVEL && (rule->never_a_prefix || (!space_prefix && !tms_kvs_find(kvs, prefix_key))))
        tms_kvs_set_bool(kvs, prefix_key, false);
    if (kvs->failed) status = tms_fail_memory(err, 0);
done:
    tms_vocab_free(&vocab);
    tms_tokenizer_files_close(&files);
    return status;
}

/* The tokenizer export: equal to llama.cpp's converter on the golden folders, clear about everything else. */
#include "support.h"

#include <errno.h>
#include <jansson.h>
#include <sys/stat.h>

#include "base/json.h"
#include "file/kvs.h"
#include "model/tokenizer.h"

/* Warnings of one export, one a line. */
static char warnings[8192];

static void remember(void *ctx, const char *line)
{
    size_t n = strlen(ctx);
    snprintf((char *)ctx + n, sizeof warnings - n, "%s\n", line);
}

static tms_status export(struct tms_kvs *kvs, const char *dir, struct tms_tokenizer_options options,
                         struct tms_error *err)
{
    warnings[0] = '\0';
    options.warn = remember;
    options.warn_ctx = warnings;
    return tms_tokenizer_export(kvs, dir, &options, err);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("expected \"%s\" in \"%s\"", part, text);
}

/* ---- golden folders ---- */

static const char *array_type(const struct tms_kv *kv)
{
    static char name[32];
    snprintf(name, sizeof name, "array[%s]", tms_kv_type_name(kv->elem_type));
    return kv->type == TMS_KV_ARRAY ? name : tms_kv_type_name(kv->type);
}

/* One key against {"name", "type", "value"} or {"name", "type", "length", "sha256"}. */
static void compare_key(const struct tms_kv *kv, const json_t *want, const char *where)
{
    const char *name = json_string_value(json_object_get(want, "name"));
    const json_t *value = json_object_get(want, "value");
    uint64_t n;
    if (strcmp(kv->key, name) != 0) fail_msg("%s: got key %s, want %s", where, kv->key, name);
    if (strcmp(array_type(kv), json_string_value(json_object_get(want, "type"))) != 0)
        fail_msg("%s: %s is %s", where, name, array_type(kv));
    if (json_is_string(value)) {
        assert_string_equal(tms_kv_as_string(kv), json_string_value(value));
    } else if (json_is_integer(value) || json_is_boolean(value)) {
        assert_true(tms_kv_as_u64(kv, &n));
        uint64_t wanted = json_is_boolean(value) ? json_is_true(value) : (uint64_t)json_integer_value(value);
        if (n != wanted)
            fail_msg("%s: %s is %llu, want %llu", where, name, (unsigned long long)n, (unsigned long long)wanted);
    } else {
        char hex[65];
        uint64_t length = kv->type == TMS_KV_ARRAY ? kv->count : kv->n_bytes;
        assert_int_equal(length, json_integer_value(json_object_get(want, "length")));
        sha256_hex(kv->bytes, kv->n_bytes, hex);
        if (strcmp(hex, json_string_value(json_object_get(want, "sha256"))) != 0)
            fail_msg("%s: %s differs", where, name);
    }
}

static void compare(const struct tms_kvs *kvs, const json_t *keys, const char *where)
{
    size_t i, at = 0;
    json_t *want;
    json_array_foreach(keys, i, want)
    {
        const char *name = json_string_value(json_object_get(want, "name"));
        if (strncmp(name, "tokenizer.", 10) != 0) continue;
        if (at == kvs->n) fail_msg("%s: %s is missing", where, name);
        compare_key(&kvs->items[at++], want, where);
    }
    if (at < kvs->n) fail_msg("%s: %s is one too many", where, kvs->items[at].key);
}

static json_t *load(const char *path)
{
    struct tms_error err = {""};
    json_t *json = NULL;
    assert_ok(tms_json_load(&json, path, 1 << 28, &err), err);
    return json;
}

static const char *architecture(const json_t *keys)
{
    size_t i;
    json_t *key;
    json_array_foreach(keys, i,
                       key) if (strcmp(json_string_value(json_object_get(key, "name")), "general.architecture") ==
                                0) return json_string_value(json_object_get(key, "value"));
    return NULL;
}

static void folder_exports_the_keys_of_the_converter(void **state)
{
    const char *name = *state;
    char path[1024];
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    snprintf(path, sizeof path, "%s/config.json", golden(name));
    json_t *config = load(path);
    snprintf(path, sizeof path, "%s/gguf.json", golden(name));
    json_t *wanted = load(path), *keys = json_object_get(wanted, "keys");
    struct tms_tokenizer_options options = {
        .vocab_size = (uint64_t)json_integer_value(json_object_get(config, "vocab_size")),
        .config = config,
        .arch = architecture(keys),
    };
    assert_ok(export(&kvs, golden(name), options, &err), err);
    compare(&kvs, keys, name);
    tms_kvs_free(&kvs);
    json_decref(config);
    json_decref(wanted);
}

static void published_tokenizer_exports_the_keys_of_the_converter(void **state)
{
    const char *name = *state;
    char path[1024];
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    snprintf(path, sizeof path, "tokenizers/%s", name);
    const char *dir = shared_path(path);
    if (!dir) skip();
    snprintf(path, sizeof path, "tokenizer/%s.json", name);
    json_t *wanted = load(golden(path)), *config = json_object_get(wanted, "config");
    struct tms_tokenizer_options options = {
        .vocab_size = (uint64_t)json_integer_value(json_object_get(config, "vocab_size")),
        .config = config,
        .arch = json_string_value(json_object_get(wanted, "arch")),
    };
    assert_ok(export(&kvs, dir, options, &err), err);
    compare(&kvs, json_object_get(wanted, "keys"), name);
    tms_kvs_free(&kvs);
    json_decref(wanted);
}

/* The vocabulary of llama2, as transformers turns tokenizer.model into tokenizer.json. */
static void tokenizer_json_with_byte_fallback_gives_the_scores_of_tokenizer_model(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs from_model = {0}, from_json = {0};
    struct tms_tokenizer_options options = {.vocab_size = 384, .arch = "llama"};
    assert_ok(export(&from_model, golden("arch/llama2"), options, &err), err);
    assert_ok(export(&from_json, golden("tokenizer/llama2_as_json"), options, &err), err);
    assert_string_equal(warnings, "");
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&from_json, "tokenizer.ggml.model")), "llama");
    static const struct {
        const char *key;
        size_t from, to;
    } parts[] = {
        {"tokenizer.ggml.tokens", 0, 0},
        {"tokenizer.ggml.scores", 3 * 4, 384 * 4},     /* but <unk>, <s>, </s>, which are added tokens now */
        {"tokenizer.ggml.token_type", 1 * 4, 384 * 4}, /* but <unk>, now a control token */
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const struct tms_kv *a = tms_kvs_find(&from_model, parts[i].key), *b = tms_kvs_find(&from_json, parts[i].key);
        assert_int_equal(a->n_bytes, b->n_bytes);
        size_t to = parts[i].to ? parts[i].to : a->n_bytes;
        assert_same_bytes(b->bytes + parts[i].from, a->bytes + parts[i].from, to - parts[i].from, parts[i].key);
    }
    assert_null(tms_kvs_find(&from_json, "tokenizer.ggml.merges"));
    tms_kvs_free(&from_model);
    tms_kvs_free(&from_json);
}

/* ---- small folders ---- */

/* An empty folder; a later call may have the same name. */
static const char *folder(const char *name)
{
    static const char *const files[] = {"tokenizer.json",    "tokenizer_config.json", "tokenizer.model",
                                        "added_tokens.json", "chat_template.jinja",   "chat_template.json"};
    const char *dir = scratch(name);
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) fail_msg("cannot make %s", dir);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[2048];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        remove(path);
    }
    return dir;
}

static void put(const char *dir, const char *file, const char *text)
{
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    write_whole(path, text, strlen(text));
}

/* A tokenizer.json with these members; `rest` is further top-level members, each with a comma before it. */
static void put_json(const char *dir, const char *vocab, const char *merges, const char *added, const char *rest)
{
    char text[8192];
    snprintf(text, sizeof text,
             "{\"model\":{\"type\":\"BPE\",\"vocab\":%s,\"merges\":%s},\"added_tokens\":%s,"
             "\"pre_tokenizer\":{\"type\":\"ByteLevel\"}%s}",
             vocab, merges, added, rest);
    put(dir, "tokenizer.json", text);
}

static void assert_refused(const char *dir, uint64_t vocab_size, const char *file, const char *part)
{
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    struct tms_tokenizer_options options = {.vocab_size = vocab_size};
    if (export(&kvs, dir, options, &err) != TMS_EINPUT) fail_msg("not refused: %s (want \"%s\")", err.message, part);
    assert_contains(err.message, file);
    assert_contains(err.message, part);
    tms_kvs_free(&kvs);
}

/* Element i of a string array. */
static const char *text_at(const struct tms_kvs *kvs, const char *key, uint64_t index)
{
    static char text[512];
    const struct tms_kv *kv = tms_kvs_find(kvs, key);
    const uint8_t *p = kv->bytes;
    assert_true(index < kv->count);
    for (uint64_t i = 0;; i++) {
        uint64_t n = 0;
        for (int b = 0; b < 8; b++) n |= (uint64_t)p[b] << (8 * b);
        if (i == index) {
            snprintf(text, sizeof text, "%.*s", (int)n, (const char *)p + 8);
            return text;
        }
        p += 8 + n;
    }
}

static uint32_t word_at(const struct tms_kvs *kvs, const char *key, uint64_t index)
{
    const struct tms_kv *kv = tms_kvs_find(kvs, key);
    assert_true(index < kv->count);
    const uint8_t *p = kv->bytes + 4 * index;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t type_at(const struct tms_kvs *kvs, uint64_t id)
{
    return word_at(kvs, "tokenizer.ggml.token_type", id);
}

static uint64_t number(const struct tms_kvs *kvs, const char *key)
{
    uint64_t n = 0;
    if (!tms_kv_as_u64(tms_kvs_find(kvs, key), &n)) fail_msg("%s is missing", key);
    return n;
}

static void added_tokens_are_control_or_user_defined(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("added");
    put_json(dir, "{\"a\":0,\"b\":1,\"ab\":2,\"<eos>\":3}", "[\"a b\"]",
             "[{\"id\":4,\"content\":\"<s>\",\"special\":true},{\"id\":5,\"content\":\"plain\xe2\x96\x81one\","
             "\"special\":false},"
             "{\"id\":6,\"content\":\"<|x|>\",\"special\":false},{\"id\":8,\"content\":\"<unused7>\"}]",
             "");
    put(dir, "tokenizer_config.json",
        "{\"eos_token\":\"<eos>\",\"added_tokens_decoder\":{\"9\":{\"content\":\"late\",\"special\":"
        "false},\"4\":{\"content\":\"<s>\",\"special\":false}}}");
    struct tms_tokenizer_options options = {.vocab_size = 12};
    assert_ok(export(&kvs, dir, options, &err), err);
    static const struct {
        const char *text;
        uint32_t type;
    } want[12] = {{"a", 1},     {"b", 1},      {"ab", 1},        {"<eos>", 3}, {"<s>", 4},     {"plain one", 4},
                  {"<|x|>", 3}, {"[PAD7]", 5}, {"<unused7>", 3}, {"late", 4},  {"[PAD10]", 5}, {"[PAD11]", 5}};
    for (uint64_t id = 0; id < 12; id++) {
        assert_string_equal(text_at(&kvs, "tokenizer.ggml.tokens", id), want[id].text);
        assert_int_equal(type_at(&kvs, id), want[id].type);
    }
    assert_null(tms_kvs_find(&kvs, "tokenizer.ggml.eos_token_id")); /* named, but no added token of tokenizer.json */
    tms_kvs_free(&kvs);
}

static void merges_are_written_alike_from_both_spellings(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs as_text = {0}, as_pairs = {0};
    const char *dir = folder("merges");
    put_json(dir, "{\"a\":0,\"b\":1,\"ab\":2,\"abab\":3}", "[\"a b\",\"ab ab\"]", "[]", "");
    assert_ok(export(&as_text, dir, (struct tms_tokenizer_options){0}, &err), err);
    put_json(dir, "{\"a\":0,\"b\":1,\"ab\":2,\"abab\":3}", "[[\"a\",\"b\"],[\"ab\",\"ab\"]]", "[]", "");
    assert_ok(export(&as_pairs, dir, (struct tms_tokenizer_options){0}, &err), err);
    const struct tms_kv *a = tms_kvs_find(&as_text, "tokenizer.ggml.merges");
    const struct tms_kv *b = tms_kvs_find(&as_pairs, "tokenizer.ggml.merges");
    assert_int_equal(a->count, 2);
    assert_int_equal(a->n_bytes, b->n_bytes);
    assert_memory_equal(a->bytes, b->bytes, a->n_bytes);
    assert_string_equal(text_at(&as_text, "tokenizer.ggml.merges", 1), "ab ab");
    tms_kvs_free(&as_text);
    tms_kvs_free(&as_pairs);
}

static void spaces_inside_merged_tokens_become_u0120(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("spaces");
    put_json(dir, "{\"a\":0,\" b\":1,\"a b\":2}", "[[\"a\",\" b\"]]", "[]", "");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_string_equal(text_at(&kvs, "tokenizer.ggml.merges", 0), "a \xc4\xa0"
                                                                   "b");
    tms_kvs_free(&kvs);
}

static void bad_ids_are_refused(void **state)
{
    (void)state;
    const char *dir = folder("ids");
    static const struct {
        const char *vocab, *added, *part;
    } cases[] = {
        {"{\"a\":-1}", "[]", "'a' has id -1"},
        {"{\"a\":4000000000}", "[]", "'a' has id 4000000000"},
        {"{\"a\":9223372036854775807}", "[]", "'a' has id 9223372036854775807"},
        {"{\"a\":\"0\"}", "[]", "'a' has no id that is an integer"},
        {"{\"a\":0,\"b\":0}", "[]", "'a' and 'b' both have id 0"},
        {"{\"a\":8}", "[]", "'a' has id 8, but the model has 8 embeddings"},
        {"{\"a\":0}", "[{\"id\":8,\"content\":\"x\"}]", "'x' has id 8, but the model has 8"},
        {"{\"a\":0}", "[{\"id\":-5,\"content\":\"x\"}]", "'x' has id -5"},
        {"{\"a\":0}", "[{\"id\":0,\"content\":\"x\"}]", "'a' and 'x' both have id 0"},
        {"{\"a\":0}", "[{\"id\":1}]", "added token 0 has no content"},
        {"{\"a\":0,\"[PAD5]\":1}", "[]", "ids 1 and 5 have the same token '[PAD5]'"},
        {"[]", "[]", "model.vocab is missing or not an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_json(dir, cases[i].vocab, "[]", cases[i].added, "");
        assert_refused(dir, 8, "ids/tokenizer.json: ", cases[i].part);
    }
    put_json(dir, "{}", "[]", "[]", "");
    assert_refused(dir, 0, "ids/tokenizer.json: ", "holds no tokens");
}

static void bad_merges_are_refused(void **state)
{
    (void)state;
    const char *dir = folder("bad_merges");
    static const struct {
        const char *merges, *part;
    } cases[] = {
        {"{}", "model.merges is not an array"},     {"[\"a b\", 3]", "merge 1 is neither"},
        {"[[\"a\"]]", "merge 0 is neither"},        {"[[\"a\",\"b\",\"c\"]]", "merge 0 is neither"},
        {"[[\"a\",7]]", "merge 0 is neither"},      {"[\"ab\"]", "merge 0 is neither"},
        {"[\"\"]", "merge 0 is neither"},           {"[\" \"]", "merge 0 is neither"},
        {"[\"a \"]", "merge 0 is neither"},         {"[\"a c\"]", "merge 0, 'a' with 'c', is not of two tokens"},
        {"[\"a b c\"]", "merge 0, 'a' with 'b c'"}, {"[\"b a\"]", "merge 0, 'b' with 'a'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_json(dir, "{\"a\":0,\"b\":1,\"ab\":2}", cases[i].merges, "[]", "");
        assert_refused(dir, 0, "bad_merges/tokenizer.json: ", cases[i].part);
    }
}

static void tokenizers_without_a_place_in_gguf_are_refused(void **state)
{
    (void)state;
    const char *dir = folder("kinds");
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.0]]}}", "type Unigram are not supported"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "type WordPiece are not supported"},
        {"{\"model\":{}}", "type unnamed are not supported"},
        {"{}", "not supported"},
        {"[1]", "is not a JSON object"},
        {"{\"model\":", "not valid JSON"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
         "neither byte-level nor with byte fallback"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(dir, "tokenizer.json", cases[i].text);
        assert_refused(dir, 0, "kinds/tokenizer.json: ", cases[i].part);
    }
    assert_refused(folder("nothing"), 0, "nothing: ", "neither tokenizer.model nor tokenizer.json");
}

static void added_token_of_two_ids_keeps_that_of_the_vocabulary(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("two_ids");
    put_json(dir, "{\"a\":0,\"<x>\":1}", "[]", "[{\"id\":2,\"content\":\"<x>\",\"special\":true}]", "");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_contains(warnings, "'<x>' has ids 1 and 2; 1 is used");
    assert_int_equal(type_at(&kvs, 1), 3);
    assert_string_equal(text_at(&kvs, "tokenizer.ggml.tokens", 2), "[PAD2]");
    tms_kvs_free(&kvs);
}

static void special_ids_come_from_settings_then_config(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("special");
    put_json(dir, "{\"a\":0}", "[]",
             "[{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true},"
             "{\"id\":3,\"content\":\"<turn>\",\"special\":true},{\"id\":4,\"content\":\"<m>\",\"special\":true}]",
             ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{"
             "\"Sequence\":"
             "{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"</s>\"}}],\"pair\":[]}");
    put(dir, "tokenizer_config.json",
        "{\"eos_token\":\"<turn>\",\"mask_token\":{\"content\":\"<m>\"},\"sep_token\":\"none\","
        "\"add_sep_token\":true,\"add_bos_token\":false}");
    json_t *config = json_pack("{s:i, s:i, s:[i], s:{s:i}}", "bos_token_id", 3, "pad_token_id", -1, "sep_token_id", 1,
                               "text_config", "unk_token_id", 0);
    struct tms_tokenizer_options options = {.config = config};
    assert_ok(export(&kvs, dir, options, &err), err);
    assert_int_equal(number(&kvs, "tokenizer.ggml.bos_token_id"), 1); /* the template's, for the settings have none */
    assert_int_equal(number(&kvs, "tokenizer.ggml.eos_token_id"), 2); /* what the template puts last */
    assert_int_equal(number(&kvs, "tokenizer.ggml.eot_token_id"), 3); /* so this only ends a turn */
    assert_int_equal(number(&kvs, "tokenizer.ggml.mask_token_id"), 4);
    assert_int_equal(number(&kvs, "tokenizer.ggml.unknown_token_id"), 0);
    assert_null(tms_kvs_find(&kvs, "tokenizer.ggml.padding_token_id"));
    assert_null(tms_kvs_find(&kvs, "tokenizer.ggml.seperator_token_id")); /* a list */
    assert_int_equal(number(&kvs, "tokenizer.ggml.add_bos_token"), 1);
    assert_int_equal(number(&kvs, "tokenizer.ggml.add_eos_token"), 1);
    assert_int_equal(number(&kvs, "tokenizer.ggml.add_sep_token"), 1);
    assert_contains(warnings, "add_bos_token is false, but the post-processor");
    assert_contains(warnings, "the pad token's id -1 is not in the vocabulary");
    tms_kvs_free(&kvs);
    json_decref(config);
}

static void settings_of_wrong_types_do_no_harm(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("odd");
    put_json(
        dir, "{\"a\":0}", "[]", "[{\"id\":1,\"content\":\"<s>\",\"special\":\"yes\"}]",
        ",\"normalizer\":[1],\"post_processor\":{\"processors\":[7,{\"type\":\"TemplateProcessing\",\"single\":[1,2],"
        "\"pair\":[3,4,5]},{\"type\":\"RobertaProcessing\",\"sep\":9,\"cls\":[]}]}");
    put(dir, "tokenizer_config.json",
        "{\"bos_token\":5,\"eos_token\":{\"content\":[]},\"add_bos_token\":\"x\",\"chat_template\":7,"
        "\"additional_special_tokens\":[1,{\"content\":2}],\"tokenizer_class\":4}");
    json_t *config = json_pack("{s:s, s:f, s:[]}", "bos_token_id", "x", "eos_token_id", 1.5, "text_config");
    struct tms_tokenizer_options options = {.config = config, .arch = "phi3"};
    assert_ok(export(&kvs, dir, options, &err), err);
    assert_null(tms_kvs_find(&kvs, "tokenizer.ggml.bos_token_id"));
    assert_null(tms_kvs_find(&kvs, "tokenizer.chat_template"));
    assert_contains(warnings, "chat template is neither");
    tms_kvs_free(&kvs);
    json_decref(config);
}

static void settings_may_hold_integers_past_64_bits(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("huge");
    put_json(dir, "{\"a\":0}", "[]", "[{\"id\":1,\"content\":\"99999999999999999999\",\"special\":true}]", "");
    put(dir, "tokenizer_config.json",
        "{\"model_max_length\":1000000000000000019884624838656,\"x\":-99999999999999999999,\"y\":1."
        "99999999999999999999,"
        "\"q\":\"\\\"\",\"bos_token\":\"99999999999999999999\"}");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_string_equal(text_at(&kvs, "tokenizer.ggml.tokens", 1), "99999999999999999999");
    assert_int_equal(number(&kvs, "tokenizer.ggml.bos_token_id"), 1);
    tms_kvs_free(&kvs);
}

/* ---- chat templates ---- */

static void chat_templates_are_found_where_folders_keep_them(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const struct tms_tokenizer_options none = {0};
    const char *dir = folder("chat");
    put_json(dir, "{\"a\":0}", "[]", "[]", "");
    put(dir, "chat_template.json", "{\"chat_template\":\"from json\"}");
    assert_ok(export(&kvs, dir, none, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template")), "from json");
    tms_kvs_free(&kvs);

    put(dir, "chat_template.jinja", "from\r\njinja\r");
    assert_ok(export(&kvs, dir, none, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template")), "from\njinja\n");
    tms_kvs_free(&kvs);

    put(dir, "tokenizer_config.json", "{\"chat_template\":\"from settings\"}");
    assert_ok(export(&kvs, dir, none, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template")), "from settings");
    tms_kvs_free(&kvs);
}

static void named_chat_templates_get_keys_of_their_own(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("named");
    put_json(dir, "{\"a\":0}", "[]", "[]", "");
    put(dir, "tokenizer_config.json",
        "{\"chat_template\":[{\"name\":\"default\",\"template\":\"D\"},{\"name\":\"tool "
        "\xc3\xbcse\",\"template\":\"T\"},"
        "{\"name\":\"rag\",\"template\":\"R\"},{\"name\":\"\",\"template\":\"x\"},{\"template\":\"x\"},7]}");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template")), "D");
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template.tool__se")), "T");
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template.rag")), "R");
    assert_int_equal(tms_kvs_find(&kvs, "tokenizer.chat_templates")->count, 2);
    assert_string_equal(text_at(&kvs, "tokenizer.chat_templates", 0), "tool__se");
    tms_kvs_free(&kvs);
}

static void additional_jinja_files_are_named_templates(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    char inner[1100];
    const char *dir = folder("jinja");
    put_json(dir, "{\"a\":0}", "[]", "[]", "");
    put(dir, "chat_template.jinja", "D");
    snprintf(inner, sizeof inner, "%s/additional_chat_templates", dir);
    mkdir(inner, 0700);
    put(inner, "tool_use.jinja", "T");
    put(inner, "notes.txt", "no template");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template")), "D");
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.chat_template.tool_use")), "T");
    assert_int_equal(tms_kvs_find(&kvs, "tokenizer.chat_templates")->count, 1);
    put(inner, "bad.jinja", "\xff");
    tms_kvs_free(&kvs);
    assert_refused(dir, 0, "bad.jinja: ", "is not UTF-8");
}

/* ---- pre-tokenizers ---- */

static void assert_pre(const char *pre_tokenizer, bool ignore_merges, const char *added, const char *want)
{
    char text[4096];
    struct tms_error err = {""};
    json_t *json = NULL;
    snprintf(text, sizeof text,
             "{\"pre_tokenizer\":%s,\"model\":{\"ignore_merges\":%s},\"added_tokens\":[{\"content\":\"%s\"}]}",
             pre_tokenizer, ignore_merges ? "true" : "false", added);
    assert_ok(tms_json_parse(&json, text, strlen(text), "test", &err), err);
    const char *got;
    assert_true(tms_pretokenizer_name(json, &got));
    if (!want ? got != NULL : !got || strcmp(got, want) != 0)
        fail_msg("%s: got %s, want %s", pre_tokenizer, got ? got : "none", want ? want : "none");
    json_decref(json);
}

static void pre_tokenizers_are_known_by_their_steps(void **state)
{
    (void)state;
#define REGEX(text)                                                                                                    \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" text "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define REMOVED(text)                                                                                                  \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" text "\"},\"behavior\":\"Removed\",\"invert\":true}"
#define BYTES       "{\"type\":\"ByteLevel\",\"use_regex\":false}"
#define STEPS(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"
#define HEAD        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
#define REST        "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
    const char *llama3 = STEPS(REGEX(HEAD "\\\\p{N}{1,3}" REST) "," BYTES);
    const char *qwen2 = STEPS(REGEX(HEAD "\\\\p{N}" REST) "," BYTES);
    assert_pre(llama3, true, "x", "llama-bpe");
    assert_pre(llama3, false, "x", "dbrx");
    assert_pre(llama3, true, "[gMASK]", "glm4");
    assert_pre(STEPS(REMOVED(HEAD "\\\\p{N}{1,3}" REST) "," BYTES), false, "x", "dbrx");
    assert_pre(qwen2, false, "<|endoftext|>", "qwen2");
    assert_pre(qwen2, false,
               "<\xef\xbd\x9c"
               "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
               "deepseek-r1-qwen");
    assert_pre("{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", false, "x", "gpt-2");
    assert_pre(STEPS("{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\"}"), false, "x",
               "starcoder");
    assert_pre(STEPS("{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\"}"), false,
               "<|im_start|>", "smollm");
    assert_pre(
        STEPS("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},{\"type\":\"ByteLevel\",\"use_regex\":true},"
              "{\"type\":\"Digits\",\"individual_digits\":false}," REGEX("[0-9][0-9][0-9]")),
        false, "x", "falcon");
    assert_pre(
        STEPS(REGEX("[\\r\\n]") "," REGEX("\\\\s?[A-Za-z\xc2\xb5\xc3\x80-\xc3\x96]+") "," REGEX(
            "\\\\s?[!-/:-~\xe3\x80\x80]+") "," REGEX("\\\\s+$") "," REGEX("[\xe4\xb8\x80-\xe9\xbe\xa5\xea\xb0\x80]"
                                                                          "+") ",{\"type\":\"Digits\",\"individual_"
                                                                               "digits\":"
                                                                               "true}," BYTES),
        false, "x", "deepseek-llm");
    assert_pre(STEPS(REGEX("\\\\p{N}{1,3}") "," REGEX(
                   "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-"
                   "\xe3\x83\xbf]+") "," REGEX("[!\\\"#$%&'()*+,\\\\-./"
                                               ":;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|["
                                               "^\\\\r\\\\n\\\\p{L}\\\\p{P}\\\\p{S}]"
                                               "?[\\\\p{L}\\\\p{M}]+| "
                                               "?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]"
                                               "+|\\\\s+(?!\\\\S)|\\\\s+") "," BYTES),
               false, "x", "deepseek-v3");
    assert_pre(STEPS(REGEX(HEAD "\\\\p{N}{1,4}" REST) "," BYTES), false, "x", NULL);
    assert_pre(STEPS(REGEX(HEAD "\\\\p{N}" REST) ",{\"type\":\"Whitespace\"}," BYTES), false, "x", NULL);
    assert_pre(STEPS(""), false, "x", NULL);
    assert_pre("null", false, "x", NULL);
}

static void unknown_pre_tokenizer_is_default_with_a_warning(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("unknown_pre");
    put(dir, "tokenizer.json",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"pre_tokenizer\":" REGEX("strange\\none") "}");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.ggml.pre")), "default");
    assert_contains(warnings, "strange\\none");
    assert_contains(warnings, "--pre NAME");
    tms_kvs_free(&kvs);
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){.pre = "kimi-k2"}, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.ggml.pre")), "kimi-k2");
    assert_null(strstr(warnings, "--pre"));
    tms_kvs_free(&kvs);
}

/* ---- SentencePiece ---- */

struct bytes {
    uint8_t at[4096];
    size_t n;
};

static void add_bytes(struct bytes *b, const void *bytes, size_t n)
{
    assert_true(b->n + n <= sizeof b->at);
    memcpy(b->at + b->n, bytes, n);
    b->n += n;
}

/* A SentencePiece message inside a ModelProto; type 0: none. */
static void add_piece(struct bytes *b, const char *text, float score, uint8_t type)
{
    size_t n = strlen(text);
    uint8_t head[4] = {0x0a, (uint8_t)(2 + n + 5 + (type ? 2 : 0)), 0x0a, (uint8_t)n};
    add_bytes(b, head, 4);
    add_bytes(b, text, n);
    add_bytes(b, "\x15", 1);
    add_bytes(b, &score, 4);
    if (type) add_bytes(b, (uint8_t[]){0x18, type}, 2);
}

static void put_model(const char *dir, const struct bytes *b)
{
    char path[2048];
    snprintf(path, sizeof path, "%s/tokenizer.model", dir);
    write_whole(path, b->at, b->n);
}

static void sentencepiece_pieces_keep_scores_and_types(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    struct bytes b = {.n = 0};
    const char *dir = folder("spm");
    add_piece(&b, "<unk>", 0, 2);
    add_piece(&b, "<s>", 0, 3);
    add_piece(&b, "<0x00>", 0, 6);
    add_piece(&b, "x", -1.5f, 0);
    add_piece(&b, "user", 2, 4);
    add_piece(&b, "gone", 0, 5);
    add_bytes(&b, "\x12\x02\x18\x02", 4); /* trainer_spec.model_type = BPE */
    add_bytes(&b,
              "\xa2\x06\x03zzz\xf9\x07"
              "12345678",
              16); /* two fields that nobody knows */
    put_model(dir, &b);
    put(dir, "added_tokens.json", "{\"<pad>\":7,\"far\":99}");
    put(dir, "tokenizer_config.json",
        "{\"added_tokens_decoder\":{\"5\":{\"content\":\"<|end|>\",\"special\":false},\"8\":{\"content\":"
        "\"\xe2\x96\x81\xe2\x96\x81\",\"special\":false}}}");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){.vocab_size = 9}, &err), err);
    static const struct {
        const char *text;
        float score;
        uint32_t type;
    } want[9] = {{"<unk>", 0, 2},       {"<s>", 0, 3},         {"<0x00>", 0, 6},    {"x", -1.5f, 1}, {"user", 2, 1},
                 {"<|end|>", -1000, 3}, {"[PAD6]", -10000, 5}, {"<pad>", -1000, 4}, {"  ", -1000, 4}};
    for (uint64_t id = 0; id < 9; id++) {
        float score;
        uint32_t bits = word_at(&kvs, "tokenizer.ggml.scores", id);
        memcpy(&score, &bits, 4);
        assert_string_equal(text_at(&kvs, "tokenizer.ggml.tokens", id), want[id].text);
        assert_int_equal(type_at(&kvs, id), want[id].type);
        assert_true(score == want[id].score);
    }
    assert_contains(warnings, "'far' is left out: its id 99");
    tms_kvs_free(&kvs);
}

static void unigram_models_are_exported_with_a_warning(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    struct bytes b = {.n = 0};
    const char *dir = folder("unigram");
    add_piece(&b, "a", -2, 0);
    put_model(dir, &b);
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_contains(warnings, "a unigram model");
    tms_kvs_free(&kvs);
}

static void pieces_past_the_embeddings_are_left_out(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    struct bytes b = {.n = 0};
    const char *dir = folder("long");
    add_piece(&b, "a", -1, 0);
    add_piece(&b, "b", -2, 0);
    add_piece(&b, "c", -3, 0);
    put_model(dir, &b);
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){.vocab_size = 2}, &err), err);
    assert_int_equal(tms_kvs_find(&kvs, "tokenizer.ggml.tokens")->count, 2);
    assert_contains(warnings, "pieces 2 to 2 are left out");
    tms_kvs_free(&kvs);
}

static void damaged_sentencepiece_models_are_refused(void **state)
{
    (void)state;
    const char *dir = folder("damaged");
    static const struct {
        const char *bytes;
        size_t n;
        const char *part;
    } cases[] = {
        {"", 0, "is not a SentencePiece model"},
        {"\x0a", 1, "is not a SentencePiece model"},
        {"\x0a\x05"
         "abc",
         5, "is not a SentencePiece model"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11, "is not a SentencePiece model"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, "is not a SentencePiece model"},
        {"\x0b", 1, "is not a SentencePiece model"},
        {"\x02\x00", 2, "is not a SentencePiece model"},
        {"IQ== 0\nIg== 1\n", 14, "tiktoken"},
        {"\x0a\x03\x0a\x05"
         "a",
         5, "piece 0 is damaged"},
        {"\x0a\x02\x15\x00", 4, "piece 0 is damaged"},
        {"\x0a\x00", 2, "piece 0 is empty"},
        {"\x0a\x03\x0a\x01\xff", 5, "piece 0 is not UTF-8"},
        {"\x0a\x05\x0a\x01"
         "a\x18\x07",
         7, "piece 0 has the unknown type 7"},
        {"\x0a\x08\x0a\x01"
         "a\x15\x00\x00\xc0\x7f",
         10, "score of piece 0 is not finite"},
        {"\x0a\x03\x0a\x01"
         "a\x0a\x03\x0a\x01"
         "a",
         10, "ids 0 and 1 have the same token 'a'"},
        {"\x0a\x03\x0a\x01"
         "a\x12\x02\x18\x04",
         9, "of type 4"},
        {"\x0a\x03\x0a\x01"
         "a\x12\x01\x18",
         8, "trainer_spec is damaged"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes b = {.n = 0};
        add_bytes(&b, cases[i].bytes, cases[i].n);
        put_model(dir, &b);
        assert_refused(dir, 0, "damaged/tokenizer.model: ", cases[i].part);
    }
}

static void damaged_files_beside_the_model_are_refused(void **state)
{
    (void)state;
    struct bytes b = {.n = 0};
    const char *dir = folder("beside");
    add_piece(&b, "a", -1, 0);
    put_model(dir, &b);
    put(dir, "added_tokens.json", "[]");
    assert_refused(dir, 4, "beside/added_tokens.json: ", "is not an object");
    put(dir, "added_tokens.json", "{\"x\":-1}");
    assert_refused(dir, 4, "beside/added_tokens.json: ", "'x' has id -1");
    put(dir, "added_tokens.json", "{}");
    put(dir, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"-1\":{\"content\":\"x\"}}}");
    assert_refused(dir, 4, "beside/tokenizer_config.json: ", "'-1' is no id");
    put(dir, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"1\":{}}}");
    assert_refused(dir, 4, "beside/tokenizer_config.json: ", "added token 1 has no content");
}

static void tiktoken_file_under_the_name_is_passed_over_for_tokenizer_json(void **state)
{
    (void)state;
    struct tms_error err = {""};
    struct tms_kvs kvs = {0};
    const char *dir = folder("tiktoken");
    put(dir, "tokenizer.model", "IQ== 0\n");
    put_json(dir, "{\"a\":0}", "[]", "[]", "");
    assert_ok(export(&kvs, dir, (struct tms_tokenizer_options){0}, &err), err);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "tokenizer.ggml.model")), "gpt2");
    assert_contains(warnings, "is not a SentencePiece model");
    tms_kvs_free(&kvs);
}

int main(void)
{
    static char folders[][32] = {"arch/llama31",    "arch/llama2",        "arch/llama_bias",    "arch/mistral",
                                 "arch/qwen2_tied", "arch/qwen2_untied",  "arch/qwen2_sharded", "arch/qwen3",
                                 "arch/qwen3_yarn", "arch/gemma",         "arch/gemma2",        "arch/gemma3_text",
                                 "arch/phi3",       "arch/phi3_longrope", "arch/mixtral",       "arch/qwen2_moe",
                                 "arch/qwen3_moe",  "arch/deepseek_v2",   "arch/deepseek_v3",   "arch/deepseek_v3_fp8"};
    static char published[][16] = {"qwen3", "llama3_1", "deepseek_v3"};
    enum { N_FOLDERS = sizeof folders / sizeof *folders, N_PUBLISHED = sizeof published / sizeof *published };
    struct CMUnitTest from_folders[N_FOLDERS + N_PUBLISHED];
    for (int i = 0; i < N_FOLDERS; i++)
        from_folders[i] =
            (struct CMUnitTest){folders[i], folder_exports_the_keys_of_the_converter, NULL, NULL, folders[i]};
    for (int i = 0; i < N_PUBLISHED; i++)
        from_folders[N_FOLDERS + i] = (struct CMUnitTest){
            published[i], published_tokenizer_exports_the_keys_of_the_converter, NULL, NULL, published[i]};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_json_with_byte_fallback_gives_the_scores_of_tokenizer_model),
        cmocka_unit_test(added_tokens_are_control_or_user_defined),
        cmocka_unit_test(merges_are_written_alike_from_both_spellings),
        cmocka_unit_test(spaces_inside_merged_tokens_become_u0120),
        cmocka_unit_test(bad_ids_are_refused),
        cmocka_unit_test(bad_merges_are_refused),
        cmocka_unit_test(tokenizers_without_a_place_in_gguf_are_refused),
        cmocka_unit_test(added_token_of_two_ids_keeps_that_of_the_vocabulary),
        cmocka_unit_test(special_ids_come_from_settings_then_config),
        cmocka_unit_test(settings_of_wrong_types_do_no_harm),
        cmocka_unit_test(settings_may_hold_integers_past_64_bits),
        cmocka_unit_test(chat_templates_are_found_where_folders_keep_them),
        cmocka_unit_test(named_chat_templates_get_keys_of_their_own),
        cmocka_unit_test(additional_jinja_files_are_named_templates),
        cmocka_unit_test(pre_tokenizers_are_known_by_their_steps),
        cmocka_unit_test(unknown_pre_tokenizer_is_default_with_a_warning),
        cmocka_unit_test(sentencepiece_pieces_keep_scores_and_types),
        cmocka_unit_test(unigram_models_are_exported_with_a_warning),
        cmocka_unit_test(pieces_past_the_embeddings_are_left_out),
        cmocka_unit_test(damaged_sentencepiece_models_are_refused),
        cmocka_unit_test(damaged_files_beside_the_model_are_refused),
        cmocka_unit_test(tiktoken_file_under_the_name_is_passed_over_for_tokenizer_json),
    };
    int failed = cmocka_run_group_tests_name("folders", from_folders, NULL, NULL);
    return failed + cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}

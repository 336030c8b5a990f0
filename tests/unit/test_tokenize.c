/* Tokenizers that run: the ids and texts of the libraries tokenizers and sentencepiece, and of llama.cpp's
 * vocabularies. */
#include "support.h"

#include <jansson.h>
#include <sys/stat.h>
#include <time.h>

#include "base/json.h"
#include "file/gguf.h"
#include "file/utf8.h"
#include "model/expression.h"
#include "model/tokenize.h"
#include "model/tokenizer.h"

/* ---- helpers ---- */

static struct tms_tokenizer *open_one(const char *path)
{
    struct tms_tokenizer *t = NULL;
    struct tms_error err;
    assert_ok(tms_tokenizer_open_path(&t, path, &err), err);
    return t;
}

struct ids {
    int32_t *ids;
    size_t n, cap;
};

static void encode(struct tms_tokenizer *t, const char *text, size_t n, struct tms_tokenize_options options,
                   struct ids *out)
{
    struct tms_error err;
    out->n = 0;
    assert_ok(tms_tokenizer_encode(t, text, n, &options, &out->ids, &out->n, &out->cap, &err), err);
}

static void assert_ids(const struct ids *got, const json_t *want, const char *where)
{
    size_t n = json_array_size(want), at = 0;
    while (at < n && at < got->n && json_integer_value(json_array_get(want, at)) == got->ids[at]) at++;
    if (at < n || at < got->n)
        fail_msg("%s: %zu ids, want %zu; id %zu is %d, want %d", where, got->n, n, at, at < got->n ? got->ids[at] : -1,
                 (int)json_integer_value(json_array_get(want, at)));
}

/* Text of ids, pushed one by one; what came out so far is whole UTF-8 after each. */
static void decode(const struct tms_tokenizer *t, const json_t *ids, struct tms_buf *out)
{
    struct tms_detokenizer d;
    struct tms_error err;
    size_t i;
    json_t *id;
    out->n = 0;
    tms_detokenizer_init(&d, t, true);
    json_array_foreach(ids, i, id)
    {
        size_t before = out->n;
        assert_ok(tms_detokenizer_push(&d, (int32_t)json_integer_value(id), out, &err), err);
        assert_true(tms_is_utf8((const char *)out->data + before, out->n - before));
    }
    assert_ok(tms_detokenizer_finish(&d, out, &err), err);
}

static void assert_text(const struct tms_buf *got, const json_t *want, const char *where)
{
    size_t n = json_string_length(want);
    if (got->n != n || (n && memcmp(got->data, json_string_value(want), n) != 0))
        fail_msg("%s: \"%.*s\", want \"%s\"", where, (int)got->n, (const char *)got->data, json_string_value(want));
}

/* The next line of a file held in memory; false at its end. */
static bool next_line(char **at, char **line)
{
    if (!**at) return false;
    *line = *at;
    *at += strcspn(*at, "\n");
    if (**at) *(*at)++ = '\0';
    return true;
}

static char *read_text(const char *path)
{
    size_t n;
    char *bytes = (char *)read_whole(path, &n);
    char *text = malloc(n + 1);
    assert_non_null(text);
    memcpy(text, bytes, n);
    text[n] = '\0';
    free(bytes);
    return text;
}

static json_t *parse(const char *text)
{
    json_t *json = NULL;
    struct tms_error err;
    assert_ok(tms_json_parse(&json, text, strlen(text), "line", &err), err);
    return json;
}

/* All of expected.jsonl: "text", "ids"; "ids_special" and "decoded" where they are not those; returns how many. */
static size_t compare_lines(struct tms_tokenizer *t, char *at, bool decodes, struct tms_tokenize_options options)
{
    struct ids ids = {0};
    struct tms_buf text = {0};
    char *line, where[32];
    size_t n = 0;
    while (next_line(&at, &line)) {
        json_t *row = parse(line), *want = json_object_get(row, "text"), *special = json_object_get(row, "ids_special");
        snprintf(where, sizeof where, "line %zu", ++n);
        encode(t, json_string_value(want), json_string_length(want), options, &ids);
        assert_ids(&ids, json_object_get(row, "ids"), where);
        if (decodes) {
            options.special = true;
            encode(t, json_string_value(want), json_string_length(want), options, &ids);
            assert_ids(&ids, special ? special : json_object_get(row, "ids"), where);
            options.special = false;
            decode(t, json_object_get(row, "ids"), &text);
            json_t *decoded = json_object_get(row, "decoded");
            assert_text(&text, decoded ? decoded : want, where);
        }
        json_decref(row);
    }
    free(ids.ids);
    tms_buf_free(&text);
    return n;
}

static const struct tms_tokenize_options plain = {0}, no_special = {.no_parse_special = true};

static json_t *pebble_json(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer.json", pebble());
    char *text = read_text(path);
    json_t *json = parse(text);
    free(text);
    return json;
}

/* A folder with this tokenizer.json. */
static const char *folder_of(const json_t *tokenizer, const char *name)
{
    static char dir[4096];
    char path[4200];
    char *text = json_dumps(tokenizer, JSON_COMPACT);
    assert_non_null(text);
    snprintf(dir, sizeof dir, "%s", scratch(name));
    mkdir(dir, 0755);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    write_whole(path, text, strlen(text));
    free(text);
    return dir;
}

/* ---- golden texts ---- */

static void pebble_reads_as_the_library_does(void **state)
{
    (void)state;
    struct tms_tokenizer *t = open_one(pebble());
    char *text = read_text(golden("tokenizers/pebble.jsonl"));
    assert_int_equal(compare_lines(t, text, true, plain), 403);
    free(text);
    tms_tokenizer_close(t);
}

static void every_step_cuts_as_the_library_does(void **state)
{
    (void)state;
    char *text = read_text(golden("tokenizers/steps.jsonl")), *at = text, *line = NULL;
    struct ids ids = {0};
    assert_true(next_line(&at, &line));
    json_t *first = parse(line), *texts = json_object_get(first, "texts");
    size_t n = 0;
    for (; next_line(&at, &line); n++) {
        json_t *row = parse(line), *tokenizer = pebble_json(), *want;
        size_t i;
        json_object_set(tokenizer, "normalizer", json_object_get(row, "normalizer"));
        json_object_set(tokenizer, "pre_tokenizer", json_object_get(row, "pre_tokenizer"));
        struct tms_tokenizer *t = open_one(folder_of(tokenizer, "step"));
        json_array_foreach(json_object_get(row, "ids"), i, want)
        {
            char where[128];
            const json_t *one = json_array_get(texts, i);
            snprintf(where, sizeof where, "%s, text %zu", json_string_value(json_object_get(row, "name")), i);
            encode(t, json_string_value(one), json_string_length(one), plain, &ids);
            assert_ids(&ids, want, where);
        }
        tms_tokenizer_close(t);
        json_decref(tokenizer);
        json_decref(row);
    }
    assert_true(n > 30);
    json_decref(first);
    free(ids.ids);
    free(text);
}

static void added_tokens_are_found_as_the_library_does(void **state)
{
    (void)state;
    char *text = read_text(golden("tokenizers/added.jsonl")), *at = text, *line = NULL;
    assert_true(next_line(&at, &line));
    json_t *parts = parse(line), *tokenizer = pebble_json();
    json_object_update(tokenizer, parts);
    json_object_set_new(json_object_get(tokenizer, "model"), "ignore_merges", json_true());
    struct tms_tokenizer *t = open_one(folder_of(tokenizer, "added"));
    assert_true(compare_lines(t, at, true, plain) > 20);
    tms_tokenizer_close(t);
    json_decref(tokenizer);
    json_decref(parts);
    free(text);
}

static void small_vocabulary_reads_as_its_library_does(void **state)
{
    const char *name = *state;
    char file[128];
    snprintf(file, sizeof file, "tokenizers/%s", name);
    struct tms_tokenizer *t = open_one(golden(file));
    snprintf(file, sizeof file, "tokenizers/%s/expected.jsonl", name);
    char *text = read_text(golden(file));
    bool spm = strncmp(name, "spm", 3) == 0;
    assert_true(compare_lines(t, text, !spm, spm ? no_special : plain) > 20);
    free(text);
    tms_tokenizer_close(t);
}

/* ---- published tokenizers ---- */

static void published_tokenizer_reads_as_the_library_does(void **state)
{
    char name[64];
    snprintf(name, sizeof name, "tokenizers/%s", (const char *)*state);
    const char *dir = shared_path(name);
    if (!dir) skip();
    char folder[4096], file[4200];
    snprintf(folder, sizeof folder, "%s", dir);
    snprintf(file, sizeof file, "%s/expected.jsonl", folder);
    struct tms_tokenizer *t = open_one(folder);
    char *text = read_text(file);
    assert_int_equal(compare_lines(t, text, true, plain), 403);
    free(text);
    tms_tokenizer_close(t);
}

/* NAME.inp: texts between lines "__ggml_vocab_test__"; NAME.out: a line of ids for each. */
static void compare_vocab_test(struct tms_tokenizer *t, const char *name)
{
    char file[128];
    snprintf(file, sizeof file, "tokenizers/%s.inp", name);
    char *texts = read_text(shared_path(file)), *at = texts, *line = NULL;
    snprintf(file, sizeof file, "tokenizers/%s.out", name);
    char *outs = read_text(shared_path(file)), *out = outs;
    struct ids ids = {0};
    size_t n = 0;
    static const char cut[] = "\n__ggml_vocab_test__\n";
    for (; at; n++) {
        char *end = strstr(at, cut), where[96];
        size_t length = end ? (size_t)(end - at) : strlen(at);
        json_t *want = json_array();
        static char nothing[] = ""; /* the last text has no ids, and its line no end */
        if (!next_line(&out, &line)) line = nothing;
        for (char *digits = line, *rest; *digits; digits = rest) {
            long id = strtol(digits, &rest, 10);
            if (rest == digits) break;
            json_array_append_new(want, json_integer(id));
        }
        snprintf(where, sizeof where, "%.60s, text %zu", name, n);
        encode(t, at, length, plain, &ids);
        assert_ids(&ids, want, where);
        json_decref(want);
        at = end ? end + sizeof cut - 1 : NULL;
    }
    assert_int_equal(n, 47);
    free(ids.ids);
    free(texts);
    free(outs);
}

static void gguf_vocabulary_reads_as_llama_cpp_does(void **state)
{
    char name[64];
    snprintf(name, sizeof name, "tokenizers/%s.gguf", (const char *)*state);
    if (!shared_path(name)) skip();
    struct tms_tokenizer *t = open_one(shared_path(name));
    compare_vocab_test(t, name + strlen("tokenizers/"));
    tms_tokenizer_close(t);
}

/* A GGUF file with the keys that a folder's tokenizer becomes. */
static const char *gguf_of(const char *dir, const char *pre, const char *name)
{
    struct tms_tokenizer_options options = {.pre = pre, .arch = "llama"};
    struct tms_kvs kvs = {0};
    struct tms_buf header = {0};
    struct tms_error err;
    uint64_t size;
    tms_kvs_set_string(&kvs, "general.architecture", "llama");
    assert_ok(tms_tokenizer_export(&kvs, dir, &options, &err), err);
    assert_ok(tms_gguf_layout(&kvs, NULL, 0, &header, &size, &err), err);
    const char *path = scratch(name);
    write_whole(path, header.data, header.n);
    tms_buf_free(&header);
    tms_kvs_free(&kvs);
    return path;
}

static void deepseek_r1_qwen_reads_as_llama_cpp_does(void **state)
{
    (void)state;
    if (!shared_path("tokenizers/qwen3") || !shared_path("tokenizers/deepseek-r1-qwen.inp")) skip();
    struct tms_tokenizer *t = open_one(gguf_of(shared_path("tokenizers/qwen3"), "deepseek-r1-qwen", "r1.gguf"));
    compare_vocab_test(t, "deepseek-r1-qwen");
    tms_tokenizer_close(t);
}

static void gguf_reads_as_the_folder_it_came_from(void **state)
{
    (void)state;
    struct tms_tokenizer *t = open_one(gguf_of(pebble(), NULL, "pebble.gguf"));
    char *text = read_text(golden("tokenizers/pebble.jsonl"));
    assert_int_equal(compare_lines(t, text, true, plain), 403);
    free(text);
    tms_tokenizer_close(t);

    t = open_one(gguf_of(golden("tokenizers/spm-bpe"), NULL, "spm.gguf"));
    struct tms_tokenizer *folder = open_one(golden("tokenizers/spm-bpe"));
    struct ids a = {0}, b = {0};
    static const char sample[] = "The first  words\nof a text: 12\xc3\xa9, \xf0\x9f\x98\x80 ";
    encode(t, sample, strlen(sample), plain, &a);
    encode(folder, sample, strlen(sample), plain, &b);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.ids, b.ids, a.n * sizeof *a.ids);
    encode(t, sample, strlen(sample), (struct tms_tokenize_options){.special = true}, &a);
    assert_int_equal(a.n, b.n + 1);
    assert_int_equal(a.ids[0], tms_tokenizer_bos(t));
    free(a.ids);
    free(b.ids);
    tms_tokenizer_close(t);
    tms_tokenizer_close(folder);
}

/* ---- special tokens ---- */

static void special_tokens_of_published_folders(void **state)
{
    (void)state;
    if (!shared_path("tokenizers/llama3_1") || !shared_path("tokenizers/deepseek_v3")) skip();
    struct tms_tokenizer *t = open_one(shared_path("tokenizers/llama3_1"));
    assert_int_equal(tms_tokenizer_bos(t), 128000);
    assert_int_equal(tms_tokenizer_eos(t), 128009);
    assert_true(tms_tokenizer_add_bos(t)); /* from the post-processor */
    assert_false(tms_tokenizer_add_eos(t));
    assert_true(tms_tokenizer_is_end(t, 128009));
    assert_false(tms_tokenizer_is_end(t, 128000));
    assert_true(tms_tokenizer_is_special(t, 128000));
    assert_int_equal(tms_tokenizer_find(t, "<|start_header_id|>", 19), 128006);
    assert_int_equal(tms_tokenizer_n_vocab(t), 128256);
    tms_tokenizer_close(t);
    t = open_one(shared_path("tokenizers/deepseek_v3"));
    assert_int_equal(tms_tokenizer_bos(t), 0);
    assert_true(tms_tokenizer_add_bos(t)); /* from tokenizer_config.json alone */
    tms_tokenizer_close(t);
}

static void generation_ends_at_the_ids_of_generation_config(void **state)
{
    (void)state;
    json_t *tokenizer = pebble_json();
    char path[4200];
    snprintf(path, sizeof path, "%s", folder_of(tokenizer, "ends"));
    struct tms_tokenizer *t;
    char file[4300];
    snprintf(file, sizeof file, "%s/generation_config.json", path);
    static const char settings[] = "{\"eos_token_id\": [4095, 7, 99999999]}";
    write_whole(file, settings, strlen(settings));
    t = open_one(path);
    assert_true(tms_tokenizer_is_end(t, 4095));
    assert_true(tms_tokenizer_is_end(t, 7));
    assert_false(tms_tokenizer_is_end(t, 8));
    assert_int_equal(tms_tokenizer_bos(t), -1);
    assert_false(tms_tokenizer_add_bos(t));
    tms_tokenizer_close(t);
    json_decref(tokenizer);
}

static void special_texts_are_plain_when_they_are_not_parsed(void **state)
{
    (void)state;
    struct tms_tokenizer *t = open_one(pebble());
    struct ids ids = {0};
    struct tms_buf out = {0};
    struct tms_error err;
    static const char text[] = "<|endoftext|>";
    encode(t, text, strlen(text), plain, &ids);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.ids[0], 4095);
    encode(t, text, strlen(text), no_special, &ids);
    assert_true(ids.n > 1);
    for (size_t i = 0; i < ids.n; i++) {
        assert_int_not_equal(ids.ids[i], 4095);
        assert_ok(tms_tokenizer_piece(t, ids.ids[i], false, &out, &err), err);
    }
    assert_int_equal(out.n, strlen(text));
    assert_memory_equal(out.data, text, out.n);
    out.n = 0;
    assert_ok(tms_tokenizer_piece(t, 4095, false, &out, &err), err);
    assert_int_equal(out.n, 0);
    assert_ok(tms_tokenizer_piece(t, 4095, true, &out, &err), err);
    assert_int_equal(out.n, strlen(text));
    assert_int_equal(tms_tokenizer_piece(t, 4096, true, &out, &err), TMS_EUSAGE);
    assert_int_equal(tms_tokenizer_piece(t, -1, true, &out, &err), TMS_EUSAGE);
    free(ids.ids);
    tms_buf_free(&out);
    tms_tokenizer_close(t);
}

/* ---- hard texts ---- */

static void bytes_that_are_no_utf8_are_replacement_characters(void **state)
{
    (void)state;
    struct tms_tokenizer *t = open_one(pebble());
    struct ids a = {0}, b = {0};
    /* A stray byte; a character cut short (one); an overlong one (two); the start of one at the end. */
    static const char broken[] = "a\xff\xe4\xbd z\xc0\xaf\xf0\x9f",
                      clean[] =
                          "a" TMS_REPLACEMENT TMS_REPLACEMENT " z" TMS_REPLACEMENT TMS_REPLACEMENT TMS_REPLACEMENT;
    encode(t, broken, strlen(broken), plain, &a);
    encode(t, clean, strlen(clean), plain, &b);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.ids, b.ids, a.n * sizeof *a.ids);
    free(a.ids);
    free(b.ids);
    tms_tokenizer_close(t);
}

static void long_words_do_not_take_quadratic_time(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    static const char *const folders[] = {"", "tokenizers/bpe-legacy", "tokenizers/unigram", "tokenizers/spm-bpe"};
    static const char *const units[] = {"a", "ab", " ", "1", "\xcc\x81", "\xe4\xbd\xa0", "x ", "\n"};
    char *text = malloc(N + 8);
    struct ids ids = {0};
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
        struct tms_tokenizer *t = open_one(f ? golden(folders[f]) : pebble());
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t n = 0, length = strlen(units[u]);
            for (; n + length <= N; n += length) memcpy(text + n, units[u], length);
            clock_t start = clock();
            encode(t, text, n, plain, &ids);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            if (seconds > 20) fail_msg("%s: a megabyte of \"%s\" took %.1f s", folders[f], units[u], seconds);
        }
        tms_tokenizer_close(t);
    }
    free(ids.ids);
    free(text);
}

static void normal_form_sorts_a_million_marks(void **state)
{
    (void)state;
    struct tms_normal_form form = {0};
    struct tms_error err;
    struct tms_buf text = {0}, out = {0};
    assert_ok(tms_normal_form_init(&form, true, &err), err);
    tms_buf_text(&text, "a");
    for (int i = 0; i < 200000; i++) tms_buf_text(&text, i % 2 ? "\xcc\x81" : "\xcc\xa3"); /* classes 230 and 220 */
    assert_false(tms_is_settled(&form, text.data, text.n));
    tms_normalize(&form, text.data, text.n, &out);
    assert_memory_equal(out.data, "\xe1\xba\xa1\xcc\xa3\xcc\xa3", 7); /* U+1EA1, then the marks below */
    assert_memory_equal(out.data + out.n - 4, "\xcc\x81\xcc\x81", 4);
    tms_buf_free(&text);
    tms_buf_free(&out);
    free(form.unsettled);
}

/* ---- expressions ---- */

static void expressions_that_make_no_sense_are_refused_in_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"(a", "a ( without a )"},         {"a)", "a ) without a ("},   {"[a", "a class without an end"},
        {"[]", "an empty class"},          {"[z-a]", "runs backwards"}, {"\\p{Nonsense}", "a class of characters"},
        {"\\p", "\\p without a class"},    {"\\q", "an escape"},        {"\\1", "an escape"},
        {"(?<name>a)", "a group of"},      {"[[:alpha:]]", "POSIX"},    {"\\", "nothing behind it"},
        {"\\x{110000}", "without a code"}, {"*", "quantifier"},         {"(?<=a+)b", "lookbehind"},
        {"[a-\\d]", "ends with a class"},  {"(?x: a)", "a group of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_expressions *set = NULL;
        struct tms_error err = {""};
        size_t index;
        assert_ok(tms_expressions_create(&set, &err), err);
        tms_status status = tms_expressions_add(set, cases[i].text, strlen(cases[i].text), "file", &index, &err);
        if (status == TMS_OK) status = tms_expressions_compile(set, "file", &err);
        if (status != TMS_EINPUT || !strstr(err.message, cases[i].message))
            fail_msg("'%s': status %d, \"%s\", want \"%s\"", cases[i].text, status, err.message, cases[i].message);
        tms_expressions_free(set);
    }
}

/* expression, text, where the first match is in characters */
static void expressions_know_unicode_16(void **state)
{
    (void)state;
    static const struct {
        const char *expression, *text;
        int begin, end;
    } cases[] = {
        {"\\p{L}", " \xf0\x90\x97\x80", 1, 2},  /* U+105C0, a letter since Unicode 16 */
        {"\\p{L}", "\xf0\xb2\x8e\xb0", -1, -1}, /* U+323B0, not yet */
        {"(?i:'s)", "'\xc5\xbf", 0, 2},         /* U+017F folds to s */
        {"(?i:[k])x", "\xe2\x84\xaax", 0, 2},   /* U+212A folds to k */
        {"(?-i:k)|(?i)a(?-i)b", "KAB Ab", 4, 6},
        {"\\s+(?!\\S)", "a   b", 1, 3},
        {"\\s+$", "a \nb", 1, 2}, /* the end of a line counts */
        {"^b", "a\nb", 2, 3},
        {"[\\p{L}&&[^a-c]]", "abcd", 3, 4},
        {"[^\\s\\p{L}]{,2}x", "12x", 0, 3},
        {"a{2}", "aaa", 0, 2},
        {"a{x", "a{x", 0, 3},
        {"\\d{1,3}(?=(?:\\d{3})*\\b)", "12345", 0, 2},
        {"[\\-a]\\x41\\u00e9", "-A\xc3\xa9", 0, 3},
        {".", "\n\xe2\x80\xa8", 1, 2},
        {"\\W\\D\\S", "1 ab", 1, 4},
        {"\\P{L}\\p{^N}", "a1b", 1, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_expressions *set = NULL;
        struct tms_error err = {""};
        struct tms_match match;
        uint8_t kinds[32];
        size_t index, n = 0;
        assert_ok(tms_expressions_create(&set, &err), err);
        assert_ok(tms_expressions_add(set, cases[i].expression, strlen(cases[i].expression), "f", &index, &err), err);
        assert_ok(tms_expressions_compile(set, "f", &err), err);
        for (const uint8_t *at = (const uint8_t *)cases[i].text; *at;)
            kinds[n++] = tms_expressions_kind(set, tms_next_code(&at));
        assert_ok(tms_expressions_match(set, index, kinds, n, 0, &match, &err), err);
        int begin = match.found ? (int)match.begin : -1, end = match.found ? (int)match.end : -1;
        if (begin != cases[i].begin || end != cases[i].end)
            fail_msg("'%s': %d to %d, want %d to %d", cases[i].expression, begin, end, cases[i].begin, cases[i].end);
        tms_expressions_free(set);
    }
}

/* ---- files that are refused ---- */

static void refused(const json_t *tokenizer, const char *message)
{
    struct tms_tokenizer *t = NULL;
    struct tms_error err = {""};
    tms_status status = tms_tokenizer_open_path(&t, folder_of(tokenizer, "refused"), &err);
    if (status != TMS_EINPUT || !strstr(err.message, message))
        fail_msg("status %d, \"%s\", want \"%s\"", status, err.message, message);
}

static void tokenizers_that_contradict_themselves_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *part; /* set in tokenizer.json, or in its model where it is "model" */
        const char *value, *message;
    } cases[] = {
        {"normalizer", "{\"type\": \"Lowercase\"}", "the normalizer 'Lowercase' is not supported"},
        {"normalizer", "{\"type\": \"Replace\"}", "a Replace without a pattern"},
        {"pre_tokenizer", "{\"type\": \"UnicodeScripts\"}", "the pre-tokenizer 'UnicodeScripts' is not supported"},
        {"pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}}", "a ( without a )"},
        {"pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Odd\"}",
         "behavior 'Odd'"},
        {"decoder", "{\"type\": \"WordPiece\"}", "the decoder 'WordPiece' is not supported"},
        {"post_processor", "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}]}",
         "names a token without ids"},
        {"post_processor", "{\"type\": \"Odd\"}", "the post-processor 'Odd' is not supported"},
        {"model", "{\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}", "tokenizers of type WordPiece are not supported"},
        {"model", "{\"type\": \"BPE\"}", "model.vocab is missing"},
        {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}", "two tokens have the id 0"},
        {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}", "is not of two tokens into one"},
        {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": -1}}", "which is not between"},
        {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"unk_token\": \"z\"}", "is not in the vocabulary"},
        {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"dropout\": 0.1}", "dropout"},
        {"model", "{\"type\": \"Unigram\", \"vocab\": [[\"a\"]]}", "is not [\"text\", score]"},
        {"model", "{\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]], \"unk_id\": 9999999}", "unk_id"},
        {"added_tokens", "[{\"id\": 1}]", "has no content"},
        {"added_tokens", "[{\"id\": 99999999, \"content\": \"x\"}]", "which is not between"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *tokenizer = pebble_json();
        json_object_set_new(tokenizer, cases[i].part, parse(cases[i].value));
        refused(tokenizer, cases[i].message);
        json_decref(tokenizer);
    }
    json_t *tokenizer = pebble_json(), *deep = parse("{\"type\": \"NFC\"}");
    for (int i = 0; i < 20; i++) deep = json_pack("{s:s, s:[o]}", "type", "Sequence", "normalizers", deep);
    json_object_set_new(tokenizer, "normalizer", deep);
    refused(tokenizer, "too deep");
    json_object_set_new(tokenizer, "normalizer", json_null());
    char *text = malloc(5001);
    memset(text, 'a', 5000);
    text[5000] = '\0';
    json_object_set_new(tokenizer, "added_tokens", json_pack("[{s:i, s:s}]", "id", 4095, "content", text));
    refused(tokenizer, "more than tamis accepts");
    free(text);
    json_decref(tokenizer);
}

static void folders_without_a_tokenizer_are_refused(void **state)
{
    (void)state;
    struct tms_tokenizer *t = NULL;
    struct tms_error err = {""};
    const char *dir = scratch("nothing");
    mkdir(dir, 0755);
    assert_int_equal(tms_tokenizer_open_path(&t, dir, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "neither tokenizer.json nor tokenizer.model"));
    char path[4200];
    snprintf(path, sizeof path, "%s/tokenizer.model", dir);
    write_whole(path, "aGVsbG8= 0\n", 11);
    assert_int_equal(tms_tokenizer_open_path(&t, dir, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "is not a SentencePiece model"));
}

static void gguf_with_arrays_that_do_not_fit_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key, *message;
    } cases[] = {
        {"tokenizer.ggml.token_type", "'tokenizer.ggml.token_type' is no list of a number for each token"},
        {"tokenizer.ggml.merges", "'tokenizer.ggml.merges' is no list of texts"},
        {"tokenizer.ggml.tokens", "'tokenizer.ggml.tokens' is no list of texts"},
        {"tokenizer.ggml.pre", "does not know the pre-tokenizer 'odd'"},
        {"tokenizer.ggml.model", "tokenizers of the kind 'odd' are not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_tokenizer_options options = {.arch = "qwen3"};
        struct tms_kvs kvs = {0};
        struct tms_buf header = {0};
        struct tms_error err = {""};
        struct tms_tokenizer *t = NULL;
        uint64_t size;
        assert_ok(tms_tokenizer_export(&kvs, pebble(), &options, &err), err);
        tms_kvs_set_string(&kvs, "general.architecture", "qwen3");
        tms_kvs_set_string(&kvs, cases[i].key, "odd");
        assert_ok(tms_gguf_layout(&kvs, NULL, 0, &header, &size, &err), err);
        const char *path = scratch("odd.gguf");
        write_whole(path, header.data, header.n);
        assert_int_equal(tms_tokenizer_open_path(&t, path, &err), TMS_EINPUT);
        if (!strstr(err.message, cases[i].message)) fail_msg("\"%s\", want \"%s\"", err.message, cases[i].message);
        tms_buf_free(&header);
        tms_kvs_free(&kvs);
    }
}

/* The golden unigram vocabulary with other keys: an array of bytes for the charsmap, and flags. */
static tms_status open_unigram(struct tms_tokenizer **out, enum tms_kv_type type, const void *map, size_t n, int first,
                               int join, struct tms_error *err)
{
    struct tms_gguf *gguf = NULL;
    struct tms_kvs kvs = {0};
    struct tms_buf header = {0};
    uint64_t size;
    const char *path = scratch("unigram.gguf");
    assert_ok(tms_gguf_open(&gguf, golden("tokenizers/unigram.gguf"), err), *err);
    tms_kvs_copy(&kvs, &gguf->kvs);
    tms_kvs_remove(&kvs, "tokenizer.ggml.precompiled_charsmap");
    if (map) tms_kvs_set_array(&kvs, "tokenizer.ggml.precompiled_charsmap", type, n, map, n);
    tms_kvs_remove(&kvs, "tokenizer.ggml.add_space_prefix");
    tms_kvs_remove(&kvs, "tokenizer.ggml.remove_extra_whitespaces");
    if (first >= 0) tms_kvs_set_bool(&kvs, "tokenizer.ggml.add_space_prefix", first);
    if (join >= 0) tms_kvs_set_bool(&kvs, "tokenizer.ggml.remove_extra_whitespaces", join);
    assert_ok(tms_gguf_layout(&kvs, NULL, 0, &header, &size, err), *err);
    write_whole(path, header.data, header.n);
    tms_buf_free(&header);
    tms_kvs_free(&kvs);
    tms_gguf_close(gguf);
    return tms_tokenizer_open_path(out, path, err);
}

static void unigram_gguf_reads_as_llama_cpp_does(void **state)
{
    (void)state;
    struct tms_tokenizer *t = open_one(golden("tokenizers/unigram.gguf"));
    char *text = read_text(golden("tokenizers/unigram-gguf.jsonl"));
    assert_int_equal(compare_lines(t, text, false, (struct tms_tokenize_options){.special = true}), 71);
    free(text);
    assert_int_equal(tms_tokenizer_eos(t), 1);
    assert_true(tms_tokenizer_add_eos(t)); /* no key says so */
    assert_false(tms_tokenizer_add_bos(t));
    tms_tokenizer_close(t);
}

/* 5 is the block alone, 28 a with its block, 50 b: what llama.cpp reads of "  a  b  " and of "  ". */
static void unigram_gguf_joins_spaces_and_puts_one_first_as_its_keys_say(void **state)
{
    (void)state;
    static const struct {
        int first, join, n, ids[8], n_spaces;
    } cases[] = {
        {1, 1, 3, {28, 5, 50}, 0},  {1, 0, 8, {5, 5, 28, 5, 5, 50, 5, 5}, 2}, {1, -1, 8, {5, 5, 28, 5, 5, 50, 5, 5}, 2},
        {0, 1, 3, {28, 5, 50}, 0},  {0, 0, 7, {5, 28, 5, 5, 50, 5, 5}, 2},    {0, -1, 7, {5, 28, 5, 5, 50, 5, 5}, 2},
        {-1, 1, 3, {28, 5, 50}, 0}, {-1, -1, 7, {5, 28, 5, 5, 50, 5, 5}, 2},
    };
    struct ids ids = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_tokenizer *t = NULL;
        struct tms_error err;
        assert_ok(open_unigram(&t, TMS_KV_U8, NULL, 0, cases[i].first, cases[i].join, &err), err);
        encode(t, "  a  b  ", 8, plain, &ids);
        assert_int_equal(ids.n, cases[i].n);
        assert_memory_equal(ids.ids, cases[i].ids, ids.n * sizeof *ids.ids);
        encode(t, "  ", 2, plain, &ids);
        assert_int_equal(ids.n, cases[i].n_spaces);
        tms_tokenizer_close(t);
    }
    free(ids.ids);
}

static void charsmap_that_is_damaged_is_refused_or_maps_nothing(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[16];
        size_t n;
        enum tms_kv_type type;
        const char *message; /* NULL: it opens */
    } cases[] = {
        {{1, 0}, 2, TMS_KV_U8, "its precompiled_charsmap is damaged"},
        {{0, 0, 0, 0, 'x', 0}, 6, TMS_KV_U8, "its precompiled_charsmap is damaged"},
        {{8, 0, 0, 0, 1, 2, 3, 4}, 8, TMS_KV_U8, "its precompiled_charsmap is damaged"},
        {{3, 0, 0, 0, 1, 2, 3, 4}, 8, TMS_KV_I8, "its precompiled_charsmap is damaged"},
        {{255, 255, 255, 255, 1, 2, 3, 4}, 8, TMS_KV_U8, "its precompiled_charsmap is damaged"},
        {{1}, 1, TMS_KV_BOOL, "'tokenizer.ggml.precompiled_charsmap' is no list of bytes"},
        /* Units whose children lie far beyond the map; one leaf whose text is beyond the texts, or has no end. */
        {{4, 0, 0, 0, 255, 255, 255, 127, 'x'}, 9, TMS_KV_U8, NULL},
        {{8, 0, 0, 0, 0, 0x80, 1, 0, 'a', 1, 0, 0x7f, 'x'}, 13, TMS_KV_U8, NULL},
        {{4, 0, 0, 0, 0, 0, 0, 0}, 8, TMS_KV_I8, NULL},
    };
    struct ids ids = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_tokenizer *t = NULL;
        struct tms_error err = {""};
        tms_status status = open_unigram(&t, cases[i].type, cases[i].bytes, cases[i].n, 1, 1, &err);
        assert_int_equal(status, cases[i].message ? TMS_EINPUT : TMS_OK);
        if (cases[i].message && !strstr(err.message, cases[i].message))
            fail_msg("\"%s\", want \"%s\"", err.message, cases[i].message);
        if (t) {
            encode(t, "a", 1, plain, &ids);
            assert_int_equal(ids.n, 1);
            assert_int_equal(ids.ids[0], 28);
        }
        tms_tokenizer_close(t);
    }
    free(ids.ids);
}

/* Unit 98 is the child of the root behind 'b', a leaf; unit 97 tells where its text is. */
static void charsmap_replaces_only_by_texts_that_it_holds(void **state)
{
    (void)state;
    enum { UNITS = 99 };
    uint8_t map[4 + 4 * UNITS + 3] = {[0] = 4 * UNITS & 0xff, [1] = 4 * UNITS >> 8};
    static const struct {
        uint32_t begin;
        int32_t n, id; /* 28: a with its block; 5: the block before b */
    } cases[] = {{0, 1, 28}, {1, 0, 0}, {2, 2, 5}, {3, 2, 5}, {0x7fffffff, 2, 5}};
    struct ids ids = {0};
    memcpy(map + 4 + 4 * 98, (uint8_t[]){'b', 1 | 3 << 2, 0, 0}, 4); /* its offset is 3: 98 ^ 3 = 97 */
    memcpy(map + 4 + 4 * UNITS, "a\0x", 3);                          /* "a", "", and x without an end */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tms_tokenizer *t = NULL;
        struct tms_error err;
        for (int b = 0; b < 4; b++) map[4 + 4 * 97 + b] = (uint8_t)(cases[i].begin >> 8 * b);
        assert_ok(open_unigram(&t, TMS_KV_U8, map, sizeof map, 1, 1, &err), err);
        encode(t, "b", 1, plain, &ids);
        assert_int_equal(ids.n, cases[i].n);
        if (ids.n) assert_int_equal(ids.ids[0], cases[i].id);
        tms_tokenizer_close(t);
    }
    free(ids.ids);
}

int main(void)
{
    static char small[][16] = {"bpe-legacy", "bpe-first-cut", "unigram", "spm-bpe", "spm-unigram"};
    static char published[][16] = {"qwen3", "llama3_1", "deepseek_v3"};
    static char vocabularies[][16] = {"gpt-2", "llama-spm", "deepseek-llm", "starcoder"};
    struct CMUnitTest named[12];
    size_t n = 0;
    for (size_t i = 0; i < 5; i++)
        named[n++] = (struct CMUnitTest){small[i], small_vocabulary_reads_as_its_library_does, NULL, NULL, small[i]};
    for (size_t i = 0; i < 3; i++)
        named[n++] =
            (struct CMUnitTest){published[i], published_tokenizer_reads_as_the_library_does, NULL, NULL, published[i]};
    for (size_t i = 0; i < 4; i++)
        named[n++] =
            (struct CMUnitTest){vocabularies[i], gguf_vocabulary_reads_as_llama_cpp_does, NULL, NULL, vocabularies[i]};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pebble_reads_as_the_library_does),
        cmocka_unit_test(every_step_cuts_as_the_library_does),
        cmocka_unit_test(added_tokens_are_found_as_the_library_does),
        cmocka_unit_test(deepseek_r1_qwen_reads_as_llama_cpp_does),
        cmocka_unit_test(gguf_reads_as_the_folder_it_came_from),
        cmocka_unit_test(special_tokens_of_published_folders),
        cmocka_unit_test(generation_ends_at_the_ids_of_generation_config),
        cmocka_unit_test(special_texts_are_plain_when_they_are_not_parsed),
        cmocka_unit_test(bytes_that_are_no_utf8_are_replacement_characters),
        cmocka_unit_test(long_words_do_not_take_quadratic_time),
        cmocka_unit_test(normal_form_sorts_a_million_marks),
        cmocka_unit_test(expressions_that_make_no_sense_are_refused_in_one_line),
        cmocka_unit_test(expressions_know_unicode_16),
        cmocka_unit_test(tokenizers_that_contradict_themselves_are_refused),
        cmocka_unit_test(folders_without_a_tokenizer_are_refused),
        cmocka_unit_test(gguf_with_arrays_that_do_not_fit_is_refused),
        cmocka_unit_test(unigram_gguf_reads_as_llama_cpp_does),
        cmocka_unit_test(unigram_gguf_joins_spaces_and_puts_one_first_as_its_keys_say),
        cmocka_unit_test(charsmap_that_is_damaged_is_refused_or_maps_nothing),
        cmocka_unit_test(charsmap_replaces_only_by_texts_that_it_holds),
    };
    int failed = _cmocka_run_group_tests("tokenizers", named, n, NULL, NULL);
    return failed + cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}

/* The steps of tokenizer.json: normalizer, pre-tokenizer, decoder, post-processor. Names and defaults are those of the
 * library `tokenizers` 0.23. */
#include <stdlib.h>
#include <string.h>

#include "model/tokenize_json.h"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static bool is_text(const json_t *value, const char *text)
{
    const char *s = json_string_value(value);
    return s && strcmp(s, text) == 0;
}

static bool is_named(const json_t *step, const char *name)
{
    return is_text(json_object_get(step, "type"), name);
}

/* What refuses a step: its kind, and what it is called. */
static tms_status refuse(const struct tms_tokenizer *t, const char *kind, const json_t *step, struct tms_error *err)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    return tms_fail(err, TMS_EINPUT, "%s: the %s '%.60s' is not supported", t->where, kind, type ? type : "(unnamed)");
}

/* null, or a list that is not too deep. */
static tms_status each(struct tms_tokenizer *t, const json_t *list, int depth, const char *kind,
                       tms_status (*read)(struct tms_tokenizer *, const json_t *, int, struct tms_error *),
                       struct tms_error *err)
{
    size_t i;
    json_t *step;
    if (depth > 8) return tms_fail(err, TMS_EINPUT, "%s: the %s has lists in lists, too deep", t->where, kind);
    json_array_foreach(list, i, step)
    {
        tms_status status = read(t, step, depth + 1, err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

static bool keep(struct tms_tokenizer *t, const json_t *text, const char **out, size_t *n)
{
    *n = json_string_length(text);
    *out = tms_arena_strndup(&t->arena, json_is_string(text) ? json_string_value(text) : "", *n);
    return *out != NULL;
}

/* ---- normalizer ---- */

static tms_status read_replace(struct tms_tokenizer *t, const json_t *step, struct tms_error *err)
{
    const json_t *pattern = json_object_get(step, "pattern"), *string = json_object_get(pattern, "String"),
                 *regex = json_object_get(pattern, "Regex"), *content = json_object_get(step, "content");
    struct tms_normalizer_step out = {.kind = string ? TMS_STEP_REPLACE : TMS_STEP_REPLACE_EXPRESSION};
    if (!json_is_string(string ? string : regex) || !json_is_string(content))
        return tms_fail(err, TMS_EINPUT, "%s: a Replace without a pattern or a content", t->where);
    if (string && !json_string_length(string)) return TMS_OK;
    if (!keep(t, string, &out.from, &out.n_from) || !keep(t, content, &out.to, &out.n_to))
        return tms_fail_memory(err, 64);
    if (!string) {
        tms_status status = tms_expressions_add(t->expressions, json_string_value(regex), json_string_length(regex),
                                                t->where, &out.expression, err);
        if (status != TMS_OK) return status;
    }
    return tms_tokenize_add_normalizer(t, &out, err);
}

tms_status tms_tokenize_read_normalizer(struct tms_tokenizer *t, const json_t *step, int depth, struct tms_error *err)
{
    struct tms_normalizer_step out = {0};
    if (!step || json_is_null(step)) return TMS_OK;
    if (is_named(step, "Sequence"))
        return each(t, json_object_get(step, "normalizers"), depth, "normalizer", tms_tokenize_read_normalizer, err);
    if (is_named(step, "NFC") || is_named(step, "NFD")) {
        tms_status status = tms_tokenize_add_normalizer(t, &out, err);
        if (status != TMS_OK) return status;
        return tms_normal_form_init(&t->normalizer[t->n_normalizer - 1].form, is_named(step, "NFC"), err);
    }
    if (is_named(step, "Replace")) return read_replace(t, step, err);
    if (is_named(step, "Prepend")) {
        out.kind = TMS_STEP_PREPEND;
        if (!keep(t, json_object_get(step, "prepend"), &out.to, &out.n_to)) return tms_fail_memory(err, 64);
        return tms_tokenize_add_normalizer(t, &out, err);
    }
    if (is_named(step, "Strip")) {
        out.kind = TMS_STEP_STRIP;
        out.left = !json_is_false(json_object_get(step, "strip_left"));
        out.right = !json_is_false(json_object_get(step, "strip_right"));
        return tms_tokenize_add_normalizer(t, &out, err);
    }
    return refuse(t, "normalizer", step, err);
}

/* ---- pre-tokenizer ---- */

static tms_status read_behaviour(enum tms_cut_behaviour *out, const struct tms_tokenizer *t, const json_t *step,
                                 enum tms_cut_behaviour absent, struct tms_error *err)
{
    static const struct {
        const char *name;
        enum tms_cut_behaviour behaviour;
    } names[] = {{"Isolated", TMS_CUT_ISOLATED},
                 {"Removed", TMS_CUT_REMOVED},
                 {"MergedWithPrevious", TMS_CUT_TO_PREVIOUS},
                 {"MergedWithNext", TMS_CUT_TO_NEXT},
                 {"Contiguous", TMS_CUT_CONTIGUOUS}};
    const json_t *name = json_object_get(step, "behavior");
    *out = absent;
    if (!name) return TMS_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!is_text(name, names[i].name)) continue;
        *out = names[i].behaviour;
        return TMS_OK;
    }
    return tms_fail(err, TMS_EINPUT, "%s: a pre-tokenizer with the unknown behavior '%.60s'", t->where,
                    json_is_string(name) ? json_string_value(name) : "(none)");
}

/* An expression that matches just this text. */
static void put_escaped(struct tms_buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strchr("\\^$.|?*+()[]{}-&", text[i]) && text[i]) tms_buf_text(out, "\\");
        tms_buf_put(out, text + i, 1);
    }
}

static tms_status cut_at_text(struct tms_tokenizer *t, const json_t *text, enum tms_cut_behaviour behaviour,
                              bool invert, struct tms_error *err)
{
    struct tms_buf expression = {0};
    put_escaped(&expression, json_string_value(text), json_string_length(text));
    tms_status status = expression.failed   ? tms_fail_memory(err, expression.n)
                        : expression.n == 0 ? TMS_OK
                                            : tms_tokenize_cut_at(t, (const char *)expression.data, expression.n,
                                                                  behaviour, invert, err);
    tms_buf_free(&expression);
    return status;
}

static tms_status read_split(struct tms_tokenizer *t, const json_t *step, struct tms_error *err)
{
    const json_t *pattern = json_object_get(step, "pattern"), *string = json_object_get(pattern, "String"),
                 *regex = json_object_get(pattern, "Regex");
    bool invert = json_is_true(json_object_get(step, "invert"));
    enum tms_cut_behaviour behaviour;
    tms_status status = read_behaviour(&behaviour, t, step, TMS_CUT_ISOLATED, err);
    if (status != TMS_OK) return status;
    if (json_is_string(string)) return cut_at_text(t, string, behaviour, invert, err);
    if (!json_is_string(regex)) return tms_fail(err, TMS_EINPUT, "%s: a Split without a pattern", t->where);
    return tms_tokenize_cut_at(t, json_string_value(regex), json_string_length(regex), behaviour, invert, err);
}

static tms_status cut_at(struct tms_tokenizer *t, const char *expression, enum tms_cut_behaviour behaviour, bool invert,
                         struct tms_error *err)
{
    return tms_tokenize_cut_at(t, expression, strlen(expression), behaviour, invert, err);
}

static tms_status read_byte_level(struct tms_tokenizer *t, const json_t *step, struct tms_error *err)
{
    tms_status status = TMS_OK;
    if (t->byte_level) return tms_fail(err, TMS_EINPUT, "%s: a pre-tokenizer with ByteLevel twice", t->where);
    t->byte_level = true;
    if (!json_is_false(json_object_get(step, "add_prefix_space")))
        status = tms_tokenize_add_cut(t, &(struct tms_cut_step){.kind = TMS_CUT_SPACE_FIRST}, err);
    if (status == TMS_OK && !json_is_false(json_object_get(step, "use_regex")))
        status = cut_at(t, GPT2, TMS_CUT_ISOLATED, false, err);
    return status;
}

static tms_status read_metaspace(struct tms_tokenizer *t, const json_t *step, struct tms_error *err)
{
    const json_t *scheme = json_object_get(step, "prepend_scheme"), *block = json_object_get(step, "replacement");
    struct tms_cut_step out = {.kind = TMS_CUT_METASPACE, .cut = !json_is_false(json_object_get(step, "split"))};
    if (block && !is_text(block, TMS_BLOCK))
        return tms_fail(err, TMS_EINPUT, "%s: a Metaspace with another replacement than U+2581", t->where);
    if (scheme)
        out.block = is_text(scheme, "never")   ? TMS_BLOCK_NEVER
                    : is_text(scheme, "first") ? TMS_BLOCK_FIRST
                                               : TMS_BLOCK_ALWAYS;
    else
        out.block = json_is_false(json_object_get(step, "add_prefix_space")) ? TMS_BLOCK_NEVER : TMS_BLOCK_ALWAYS;
    return tms_tokenize_add_cut(t, &out, err);
}

tms_status tms_tokenize_read_cuts(struct tms_tokenizer *t, const json_t *step, int depth, struct tms_error *err)
{
    enum tms_cut_behaviour behaviour;
    tms_status status = TMS_OK;
    if (!step || json_is_null(step)) return TMS_OK;
    if (is_named(step, "Sequence"))
        return each(t, json_object_get(step, "pretokenizers"), depth, "pre-tokenizer", tms_tokenize_read_cuts, err);
    /* What follows ByteLevel sees letters of the byte alphabet. */
    if (t->byte_level && !is_named(step, "ByteLevel")) {
        bool has_letters = false;
        for (size_t i = 0; i < t->n_cuts; i++) has_letters |= t->cuts[i].kind == TMS_CUT_BYTE_LETTERS;
        if (!has_letters) status = tms_tokenize_add_cut(t, &(struct tms_cut_step){.kind = TMS_CUT_BYTE_LETTERS}, err);
        if (status != TMS_OK) return status;
    }
    if (is_named(step, "Split")) return read_split(t, step, err);
    if (is_named(step, "ByteLevel")) return read_byte_level(t, step, err);
    if (is_named(step, "Metaspace")) return read_metaspace(t, step, err);
    if (is_named(step, "Digits"))
        return cut_at(t, "\\p{digits}",
                      json_is_true(json_object_get(step, "individual_digits")) ? TMS_CUT_ISOLATED : TMS_CUT_CONTIGUOUS,
                      false, err);
    if (is_named(step, "Punctuation")) {
        status = read_behaviour(&behaviour, t, step, TMS_CUT_ISOLATED, err);
        return status == TMS_OK ? cut_at(t, "\\p{punctuation}", behaviour, false, err) : status;
    }
    if (is_named(step, "Whitespace")) return cut_at(t, "\\w+|[^\\w\\s]+", TMS_CUT_REMOVED, true, err);
    if (is_named(step, "WhitespaceSplit")) return cut_at(t, "\\s", TMS_CUT_REMOVED, false, err);
    if (is_named(step, "BertPreTokenizer")) {
        status = cut_at(t, "\\s", TMS_CUT_REMOVED, false, err);
        return status == TMS_OK ? cut_at(t, "\\p{punctuation}", TMS_CUT_ISOLATED, false, err) : status;
    }
    if (is_named(step, "CharDelimiterSplit") && json_is_string(json_object_get(step, "delimiter")))
        return cut_at_text(t, json_object_get(step, "delimiter"), TMS_CUT_REMOVED, false, err);
    return refuse(t, "pre-tokenizer", step, err);
}

/* ---- decoder ---- */

tms_status tms_tokenize_read_decoder(struct tms_tokenizer *t, struct tms_decoder_json *out, const json_t *step,
                                     int depth, struct tms_error *err)
{
    if (!step || json_is_null(step)) return TMS_OK;
    if (depth > 8) return tms_fail(err, TMS_EINPUT, "%s: the decoder has lists in lists, too deep", t->where);
    out->any = true;
    if (is_named(step, "Sequence")) {
        size_t i;
        json_t *inner;
        json_array_foreach(json_object_get(step, "decoders"), i, inner)
        {
            tms_status status = tms_tokenize_read_decoder(t, out, inner, depth + 1, err);
            if (status != TMS_OK) return status;
        }
        return TMS_OK;
    }
    if (is_named(step, "ByteLevel")) {
        out->letters = true;
        return TMS_OK;
    }
    if (is_named(step, "ByteFallback")) {
        t->runs_are_whole = true;
        return TMS_OK;
    }
    if (is_named(step, "Fuse")) return TMS_OK;
    if (is_named(step, "Replace") && is_text(json_object_get(json_object_get(step, "pattern"), "String"), TMS_BLOCK) &&
        is_text(json_object_get(step, "content"), " ")) {
        t->blocks_are_spaces = true;
        return TMS_OK;
    }
    if (is_named(step, "Strip") && is_text(json_object_get(step, "content"), " ") &&
        json_integer_value(json_object_get(step, "start")) <= 1 &&
        json_integer_value(json_object_get(step, "stop")) == 0) {
        t->strip_first_space = json_integer_value(json_object_get(step, "start")) == 1;
        return TMS_OK;
    }
    if (is_named(step, "Metaspace")) {
        const json_t *scheme = json_object_get(step, "prepend_scheme");
        t->blocks_are_spaces = true;
        t->strip_first_blocks =
            scheme ? !is_text(scheme, "never") : !json_is_false(json_object_get(step, "add_prefix_space"));
        return TMS_OK;
    }
    return refuse(t, "decoder", step, err);
}

/* ---- post-processor ---- */

static bool put_front(int32_t **ids, size_t *n, const int32_t *more, size_t n_more)
{
    int32_t *all = tms_calloc(*n + n_more, sizeof *all);
    if (!all) return false;
    if (n_more) memcpy(all, more, n_more * sizeof *all);
    if (*n) memcpy(all + n_more, *ids, *n * sizeof *all);
    free(*ids);
    *ids = all;
    *n += n_more;
    return true;
}

static bool put_back(int32_t **ids, size_t *n, const int32_t *more, size_t n_more)
{
    size_t cap = *n;
    if (!tms_grow(ids, &cap, *n + n_more, sizeof **ids)) return false;
    if (n_more) memcpy(*ids + *n, more, n_more * sizeof *more);
    *n += n_more;
    return true;
}

static tms_status read_template(struct tms_tokenizer *t, const json_t *step, struct tms_error *err)
{
    const json_t *single = json_object_get(step, "single"), *tokens = json_object_get(step, "special_tokens");
    int32_t around[2][64];
    size_t n[2] = {0, 0}, i;
    int side = 0;
    json_t *item;
    json_array_foreach(single, i, item)
    {
        const json_t *special = json_object_get(json_object_get(item, "SpecialToken"), "id");
        if (!special) {
            if (!json_object_get(item, "Sequence") || side)
                return tms_fail(err, TMS_EINPUT, "%s: a post-processor whose template has not one text", t->where);
            side = 1;
            continue;
        }
        const json_t *ids =
            json_is_string(special)
                ? json_object_get(json_object_getn(tokens, json_string_value(special), json_string_length(special)),
                                  "ids")
                : NULL;
        size_t j;
        json_t *id;
        if (!json_array_size(ids))
            return tms_fail(err, TMS_EINPUT, "%s: a post-processor whose template names a token without ids", t->where);
        json_array_foreach(ids, j, id)
        {
            json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
            if (value < 0 || (uint64_t)value >= t->n || n[side] == 64)
                return tms_fail(err, TMS_EINPUT, "%s: a post-processor with ids that are no tokens' or too many",
                                t->where);
            around[side][n[side]++] = (int32_t)value;
        }
    }
    if (!put_front(&t->before, &t->n_before, around[0], n[0]) || !put_back(&t->after, &t->n_after, around[1], n[1]))
        return tms_fail_memory(err, 256);
    return TMS_OK;
}

/* ["</s>", 2] */
static bool read_named_id(const struct tms_tokenizer *t, const json_t *pair, int32_t *id)
{
    const json_t *value = json_array_get(pair, 1);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) >= t->n)
        return false;
    *id = (int32_t)json_integer_value(value);
    return true;
}

tms_status tms_tokenize_read_post(struct tms_tokenizer *t, const json_t *step, int depth, struct tms_error *err)
{
    int32_t first, last;
    if (!step || json_is_null(step) || is_named(step, "ByteLevel")) return TMS_OK;
    if (is_named(step, "Sequence"))
        return each(t, json_object_get(step, "processors"), depth, "post-processor", tms_tokenize_read_post, err);
    if (is_named(step, "TemplateProcessing")) return read_template(t, step, err);
    if (is_named(step, "RobertaProcessing") || is_named(step, "BertProcessing")) {
        if (!read_named_id(t, json_object_get(step, "cls"), &first) ||
            !read_named_id(t, json_object_get(step, "sep"), &last))
            return tms_fail(err, TMS_EINPUT, "%s: a post-processor with ids that are no tokens'", t->where);
        if (!put_front(&t->before, &t->n_before, &first, 1) || !put_back(&t->after, &t->n_after, &last, 1))
            return tms_fail_memory(err, 64);
        return TMS_OK;
    }
    return refuse(t, "post-processor", step, err);
}

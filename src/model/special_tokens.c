/* Which ids are special, and which of them go around every text.
 *
 * Sources, the first that knows wins (as in llama.cpp's converter, whose result is the measure):
 *   ids:     NAME_token in tokenizer_config.json, looked up in tokenizer.json's added_tokens;
 *            then NAME_token_id in config.json.
 *   add_*:   tokenizer.json's post-processor; then add_NAME_token in tokenizer_config.json.
 * The post-processor also names tokens that tokenizer_config.json forgot, and may show that what that file calls
 * the end of a sequence (eos) is only the end of a turn (eot). */
#include <stdio.h>
#include <string.h>

#include "model/vocab.h"

enum { BOS, EOS, UNK, SEP, PAD, MASK, EOT, EOM, N_NAMES };

static const struct {
    const char *name, *id_key, *add_key;
} names[N_NAMES] = {
    [BOS] = {"bos", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token"},
    [EOS] = {"eos", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token"},
    [UNK] = {"unk", "tokenizer.ggml.unknown_token_id", NULL},
    [SEP] = {"sep", "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.add_sep_token"}, /* sic */
    [PAD] = {"pad", "tokenizer.ggml.padding_token_id", NULL},
    [MASK] = {"mask", "tokenizer.ggml.mask_token_id", NULL},
    [EOT] = {"eot", "tokenizer.ggml.eot_token_id", NULL},
    [EOM] = {"eom", "tokenizer.ggml.eom_token_id", NULL},
};

struct special {
    const struct tms_tokenizer_files *files;
    const json_t
        *tokens[N_NAMES]; /* what tokenizer_config.json calls them: a string, an object with "content" or NULL */
    const json_t *cls;
    bool known[N_NAMES]; /* all but EOT and EOM, which only a post-processor brings up */
    bool has_settings;
    bool add[N_NAMES];
    int add_order[N_NAMES], n_add;
};

/* What Python holds for true: some settings files say "" or false where others say null. */
static bool holds(const json_t *value)
{
    if (json_is_string(value)) return json_string_length(value) > 0;
    if (json_is_object(value)) return json_object_size(value) > 0;
    if (json_is_array(value)) return json_array_size(value) > 0;
    if (json_is_number(value)) return json_number_value(value) != 0;
    return json_is_true(value);
}

/* The same JSON; a name and an object with that name differ, as in the converter. */
static bool same(const json_t *a, const json_t *b)
{
    return a && b && json_equal(a, b);
}

static bool has_add(const struct special *s, int name)
{
    for (int i = 0; i < s->n_add; i++)
        if (s->add_order[i] == name) return true;
    return false;
}

static void set_add(struct special *s, int name, bool value)
{
    if (!has_add(s, name)) s->add_order[s->n_add++] = name;
    s->add[name] = value;
}

/* {"SpecialToken": {"id": "<s>"}} → "<s>", {"Sequence": {"id": "A"}} → "A"; NULL for others. */
static const json_t *item_id(const json_t *item, const char *kind)
{
    const json_t *id = json_object_get(json_object_get(item, kind), "id");
    return json_is_string(id) && json_string_length(id) ? id : NULL;
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* "A sep B" or "A sep eos B" in the template for pairs, without what goes around it. */
static void read_pair(struct special *s, const json_t *pair, const json_t *first, const json_t *last)
{
    size_t from = 0, to = json_array_size(pair);
    if (to == 0) return;
    if (first && same(item_id(json_array_get(pair, 0), "SpecialToken"), first)) from = 1;
    if (last && same(item_id(json_array_get(pair, to - 1), "SpecialToken"), last)) to--;
    if (from + 3 > to) return;
    if (!is_text(item_id(json_array_get(pair, from), "Sequence"), "A") ||
        !is_text(item_id(json_array_get(pair, to - 1), "Sequence"), "B"))
        return;
    bool add_sep = false;
    const json_t *one = item_id(json_array_get(pair, from + 1), "SpecialToken");
    if (one && !last && (same(one, s->tokens[SEP]) || same(one, s->tokens[EOS]))) add_sep = true;
    if (to - from == 4) {
        const json_t *two = item_id(json_array_get(pair, from + 2), "SpecialToken");
        if (two && (same(two, s->tokens[SEP]) || same(two, s->tokens[EOS]))) add_sep = true;
    }
    set_add(s, SEP, add_sep);
    if (add_sep && !holds(s->tokens[SEP]) && s->has_settings) s->tokens[SEP] = s->tokens[EOS];
}

/* {"type": "TemplateProcessing", "single": [bos?, A, eos?], "pair": […]} */
static void read_template(struct special *s, const json_t *processor)
{
    const json_t *single = json_object_get(processor, "single");
    const json_t *first = NULL, *last = NULL;
    size_t n = json_array_size(single);
    if (n > 1) {
        first = item_id(json_array_get(single, 0), "SpecialToken");
        last = item_id(json_array_get(single, n - 1), "SpecialToken");
    }
    if (first) {
        if (!s->has_settings || !holds(s->tokens[BOS])) s->tokens[BOS] = first;
        if (s->has_settings && !holds(s->cls)) s->cls = first;
        set_add(s, BOS, same(first, s->tokens[BOS]) || same(first, s->cls));
    }
    if (last) {
        if (s->has_settings && !same(last, s->tokens[EOS])) {
            int role = !s->known[EOT] ? EOT : EOM;
            if (!s->known[role]) s->tokens[role] = s->tokens[EOS];
            s->known[role] = true;
        }
        s->tokens[EOS] = last;
        set_add(s, EOS, true);
    }
    read_pair(s, json_object_get(processor, "pair"), first, last);
}

static void read_processor(struct special *s, const json_t *processor)
{
    const json_t *type = json_object_get(processor, "type");
    if (is_text(type, "ByteLevel")) {
        if (!has_add(s, BOS)) set_add(s, BOS, false);
        if (!has_add(s, EOS)) set_add(s, EOS, false);
    } else if (is_text(type, "RobertaProcessing")) {
        const json_t *cls = json_array_get(json_object_get(processor, "cls"), 0);
        const json_t *sep = json_array_get(json_object_get(processor, "sep"), 0);
        set_add(s, BOS, true);
        set_add(s, EOS, true);
        set_add(s, SEP, true);
        if (!holds(s->cls)) s->cls = cls ? cls : s->tokens[BOS];
        if (!holds(s->tokens[SEP])) s->tokens[SEP] = sep ? sep : s->tokens[EOS];
    } else if (is_text(type, "TemplateProcessing")) {
        read_template(s, processor);
    }
}

static void read_post_processor(struct special *s)
{
    const json_t *top = json_object_get(s->files->tokenizer, "post_processor"),
                 *list = json_object_get(top, "processors");
    size_t i;
    json_t *processor;
    if (!list) read_processor(s, top);
    json_array_foreach(list, i, processor) read_processor(s, processor);
}

static void gather(struct special *s, const struct tms_tokenizer_files *files)
{
    *s = (struct special){.files = files, .has_settings = holds(files->settings)};
    for (int i = 0; i < N_NAMES; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_token", names[i].name);
        s->known[i] = i != EOT && i != EOM;
        if (s->known[i]) s->tokens[i] = json_object_get(files->settings, key);
    }
    s->cls = json_object_get(files->settings, "cls_token");
    if (!files->tokenizer) return;
    if (s->has_settings && !holds(s->tokens[BOS]) && holds(s->cls)) s->tokens[BOS] = s->cls;
    if (s->has_settings && !holds(s->tokens[EOS]) && holds(s->tokens[SEP])) s->tokens[EOS] = s->tokens[SEP];
    read_post_processor(s);
    for (int i = 0; i < N_NAMES && s->has_settings; i++) {
        char key[40];
        snprintf(key, sizeof key, "add_%s_token", names[i].name);
        const json_t *value = json_object_get(files->settings, key);
        if (json_is_boolean(value) && has_add(s, i) && json_is_true(value) != s->add[i])
            tms_tokenizer_warn(files->options, "%s: %s is %s, but the post-processor of %s %s; the latter counts",
                               files->settings_path, key, json_is_true(value) ? "true" : "false", files->tokenizer_path,
                               s->add[i] ? "adds one" : "adds none");
    }
}

/* The id of the added token that tokenizer_config.json names so; false if there is none. */
static bool find_added(const struct tms_tokenizer_files *files, const json_t *token, json_int_t *out)
{
    const json_t *content = json_is_object(token) ? json_object_get(token, "content") : token;
    size_t i;
    json_t *added;
    if (!json_is_string(content)) return false;
    json_array_foreach(json_object_get(files->tokenizer, "added_tokens"), i, added)
    {
        if (!json_equal(json_object_get(added, "content"), content)) continue;
        const json_t *id = json_object_get(added, "id");
        if (!json_is_integer(id)) return false;
        *out = json_integer_value(id);
        return true;
    }
    return false;
}

static bool find_configured(const struct tms_tokenizer_files *files, const char *name, json_int_t *out)
{
    const json_t *config = files->options->config;
    char key[32];
    snprintf(key, sizeof key, "%s_token_id", name);
    const json_t *id = json_object_get(config, key);
    if (!id || json_is_null(id)) id = json_object_get(json_object_get(config, "text_config"), key);
    if (!json_is_integer(id)) return false; /* null, or a list of several ends */
    *out = json_integer_value(id);
    return true;
}

static bool in_range(const struct tms_tokenizer_files *files, const char *name, json_int_t id, uint64_t n_vocab)
{
    if (id >= 0 && (uint64_t)id < n_vocab) return true;
    /* -1 is how early Llama configurations say "none". */
    tms_tokenizer_warn(files->options,
                       "%s: the %s token's id %lld is not in the vocabulary (0 to %llu) and is left out", files->dir,
                       name, (long long)id, (unsigned long long)n_vocab - 1);
    return false;
}

tms_status tms_special_tokens_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files, uint64_t n_vocab,
                                     struct tms_error *err)
{
    struct special s;
    bool done[N_NAMES] = {false};
    json_int_t id;
    gather(&s, files);
    for (int i = 0; i < N_NAMES && s.has_settings; i++) {
        if (!s.known[i] || !find_added(files, s.tokens[i], &id) || !in_range(files, names[i].name, id, n_vocab))
            continue;
        tms_kvs_set_u32(kvs, names[i].id_key, (uint32_t)id);
        done[i] = true;
    }
    for (int i = 0; i < N_NAMES; i++) {
        if (done[i] || !s.known[i] || !find_configured(files, names[i].name, &id) ||
            !in_range(files, names[i].name, id, n_vocab))
            continue;
        tms_kvs_set_u32(kvs, names[i].id_key, (uint32_t)id);
    }
    for (int i = 0; i < N_NAMES && s.has_settings; i++) {
        char key[40];
        snprintf(key, sizeof key, "add_%s_token", names[i].name);
        const json_t *value = json_object_get(files->settings, key);
        if (s.known[i] && json_is_boolean(value) && !has_add(&s, i)) set_add(&s, i, json_is_true(value));
    }
    for (int i = 0; i < s.n_add; i++) {
        const char *key = names[s.add_order[i]].add_key;
        if (key) tms_kvs_set_bool(kvs, key, s.add[s.add_order[i]]);
    }
    return kvs->failed ? tms_fail_memory(err, 64) : TMS_OK;
}

void tms_special_token_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files, const char *name,
                              uint64_t fallback, uint64_t n_vocab)
{
    char key[64];
    json_int_t id;
    snprintf(key, sizeof key, "%s_token", name);
    if (!find_added(files, json_object_get(files->settings, key), &id) && !find_configured(files, name, &id))
        id = (json_int_t)fallback;
    if (!in_range(files, name, id, n_vocab)) return;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    tms_kvs_set_u32(kvs, key, (uint32_t)id);
}

static void export_normalizer(struct tms_kvs *kvs, const json_t *normalizer, int depth)
{
    const json_t *type = json_object_get(normalizer, "type");
    size_t i;
    json_t *inner;
    if (is_text(type, "Lowercase")) tms_kvs_set_bool(kvs, "tokenizer.ggml.normalizer.lowercase", true);
    if (is_text(type, "StripAccents")) tms_kvs_set_bool(kvs, "tokenizer.ggml.normalizer.strip_accents", true);
    if (!is_text(type, "Sequence") || depth > 8) return;
    json_array_foreach(json_object_get(normalizer, "normalizers"), i, inner) export_normalizer(kvs, inner, depth + 1);
}

void tms_normalizer_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files)
{
    export_normalizer(kvs, json_object_get(files->tokenizer, "normalizer"), 0);
}

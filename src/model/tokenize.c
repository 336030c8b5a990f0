/* See tokenize.h: opening, added tokens, the way of a whole text. */
#include "model/tokenize.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "file/utf8.h"
#include "model/tokenize_parts.h"

/* ---- what loaders use ---- */

tms_status tms_tokenize_init(struct tms_tokenizer *t, uint64_t n, struct tms_error *err)
{
    if (n == 0) return tms_fail(err, TMS_EINPUT, "%s: holds no tokens", t->where);
    if (n > TMS_VOCAB_MAX)
        return tms_fail(err, TMS_EINPUT, "%s: a vocabulary of %llu tokens is more than tamis accepts (%llu)", t->where,
                        (unsigned long long)n, (unsigned long long)TMS_VOCAB_MAX);
    t->shown = tms_calloc(n, sizeof *t->shown);
    t->known = tms_calloc(TMS_KNOWN_WORDS, sizeof *t->known);
    if (!t->shown || !t->known) return tms_fail_memory(err, n * sizeof *t->shown);
    t->n = n;
    t->unknown = t->bos = t->eos = -1;
    for (size_t b = 0; b < 256; b++) t->byte_ids[b] = -1;
    return TMS_OK;
}

bool tms_tokenize_show(struct tms_tokenizer *t, uint64_t id, const void *text, size_t n, unsigned flags)
{
    if (n > UINT32_MAX - t->texts.n) return false;
    t->shown[id] = (struct tms_shown){
        .offset = (uint32_t)t->texts.n, .n = (uint32_t)n, .flags = (uint8_t)(flags | TMS_SHOWN_THERE)};
    tms_buf_put(&t->texts, text, n);
    tms_buf_put(&t->texts, "", 1);
    return !t->texts.failed;
}

bool tms_bytes_of_letters(struct tms_buf *out, const void *text, size_t n)
{
    const uint8_t *at = text, *end = at + n;
    size_t before = out->n;
    while (at < end) {
        uint32_t c = tms_next_code(&at);
        uint8_t byte;
        if ((c > 0x20 && c < 0x7f) || (c > 0xa0 && c < 0x100 && c != 0xad))
            byte = (uint8_t)c;
        else if (c >= 0x100 && c < 0x121)
            byte = (uint8_t)(c - 0x100);
        else if (c >= 0x121 && c < 0x143)
            byte = (uint8_t)(c - 0x121 + 0x7f);
        else if (c == 0x143)
            byte = 0xad;
        else {
            out->n = before;
            return false;
        }
        tms_buf_put(out, &byte, 1);
    }
    return true;
}

int tms_byte_of_text(const void *text, size_t n)
{
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    const char *s = text;
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || !s[3] || !s[4]) return -1;
    const char *high = strchr(digits, s[3]), *low = strchr(digits, s[4]);
    return high && low ? (int)((high - digits) % 16 * 16 + (low - digits) % 16) : -1;
}

tms_status tms_tokenize_add(struct tms_tokenizer *t, const struct tms_added_token *token, const void *text, size_t n,
                            bool normalized, struct tms_error *err)
{
    struct tms_trie *trie = normalized ? &t->added_normalized : &t->added_raw;
    if (n == 0) return TMS_OK;
    if (n > TMS_MAX_ADDED)
        return tms_fail(err, TMS_EINPUT, "%s: added token %d has %zu bytes, more than tamis accepts (%d)", t->where,
                        token->id, n, TMS_MAX_ADDED);
    if (!tms_grow(&t->added, &t->cap_added, t->n_added + 1, sizeof *t->added) || n > UINT32_MAX - t->added_texts.n ||
        !tms_trie_put(trie, text, n, (int32_t)t->n_added))
        return tms_fail_memory(err, n);
    struct tms_added_token *added = &t->added[t->n_added++];
    *added = *token;
    added->offset = (uint32_t)t->added_texts.n;
    added->n = (uint32_t)n;
    tms_buf_put(&t->added_texts, text, n);
    (normalized ? t->starts_normalized : t->starts_raw)[*(const uint8_t *)text] = true;
    return t->added_texts.failed ? tms_fail_memory(err, n) : TMS_OK;
}

tms_status tms_tokenize_add_cut(struct tms_tokenizer *t, const struct tms_cut_step *step, struct tms_error *err)
{
    if (t->n_cuts == TMS_MAX_STEPS)
        return tms_fail(err, TMS_EINPUT, "%s: a pre-tokenizer of more than %d steps", t->where, TMS_MAX_STEPS);
    t->cuts[t->n_cuts++] = *step;
    return TMS_OK;
}

tms_status tms_tokenize_cut_at(struct tms_tokenizer *t, const char *expression, size_t n,
                               enum tms_cut_behaviour behaviour, bool invert, struct tms_error *err)
{
    struct tms_cut_step step = {.kind = TMS_CUT_EXPRESSION, .behaviour = behaviour, .invert = invert};
    tms_status status = tms_expressions_add(t->expressions, expression, n, t->where, &step.expression, err);
    return status == TMS_OK ? tms_tokenize_add_cut(t, &step, err) : status;
}

tms_status tms_tokenize_add_normalizer(struct tms_tokenizer *t, const struct tms_normalizer_step *step,
                                       struct tms_error *err)
{
    if (t->n_normalizer == TMS_MAX_STEPS)
        return tms_fail(err, TMS_EINPUT, "%s: a normalizer of more than %d steps", t->where, TMS_MAX_STEPS);
    t->normalizer[t->n_normalizer++] = *step;
    return TMS_OK;
}

bool tms_tokenize_add_end(struct tms_tokenizer *t, uint64_t id)
{
    if (id >= t->n || tms_tokenizer_is_end(t, (int32_t)id)) return true;
    if (!tms_grow(&t->ends, &t->cap_ends, t->n_ends + 1, sizeof *t->ends)) return false;
    t->ends[t->n_ends++] = (int32_t)id;
    return true;
}

bool tms_tokenize_surround(struct tms_tokenizer *t)
{
    size_t cap_before = 0, cap_after = 0;
    if ((t->add_bos && !tms_grow(&t->before, &cap_before, 1, sizeof *t->before)) ||
        (t->add_eos && !tms_grow(&t->after, &cap_after, 1, sizeof *t->after)))
        return false;
    if (t->add_bos) t->before[t->n_before++] = t->bos;
    if (t->add_eos) t->after[t->n_after++] = t->eos;
    return true;
}

/* ---- opening ---- */

static tms_status create(struct tms_tokenizer **out, const char *where, struct tms_error *err)
{
    struct tms_tokenizer *t = tms_calloc(1, sizeof *t);
    if (!t) return tms_fail_memory(err, sizeof *t);
    t->where = tms_arena_strndup(&t->arena, where, strlen(where));
    tms_status status = t->where ? tms_expressions_create(&t->expressions, err) : tms_fail_memory(err, strlen(where));
    if (status == TMS_OK)
        *out = t;
    else
        tms_tokenizer_close(t);
    return status;
}

/* What is only known of the whole vocabulary. */
static void finish(struct tms_tokenizer *t)
{
    for (uint64_t id = 0; id < t->n; id++) {
        const struct tms_shown *shown = &t->shown[id];
        const char *text = (const char *)t->texts.data + shown->offset;
        bool other = false; /* a character that is no block was seen */
        if (!(shown->flags & TMS_SHOWN_THERE)) continue;
        if (shown->n > t->longest) t->longest = shown->n;
        for (size_t i = 0; t->cut_at_blocks && i < shown->n; i++) {
            bool is_block = shown->n - i >= 3 && memcmp(text + i, TMS_BLOCK, 3) == 0;
            if (is_block && other && !(shown->flags & TMS_SHOWN_ADDED)) t->cut_at_blocks = false;
            other |= !is_block;
            if (is_block) i += 2;
        }
    }
}

static tms_status open_folder(struct tms_tokenizer **out, const char *dir, const json_t *config, struct tms_error *err)
{
    struct tms_tokenizer_options options = {.config = config};
    struct tms_tokenizer_files files = {.options = &options, .dir = dir, .keep_user_defined = true};
    struct tms_tokenizer *t = NULL;
    tms_status status = tms_tokenizer_files_open(&files, err);
    if (status != TMS_OK) goto done;
    bool has_json = files.tokenizer != NULL;
    if (!has_json && !tms_path_exists(files.model_path)) {
        status = tms_fail(err, TMS_EINPUT, "%s: no tokenizer: neither tokenizer.json nor tokenizer.model", dir);
        goto done;
    }
    status = create(&t, has_json ? files.tokenizer_path : files.model_path, err);
    if (status != TMS_OK) goto done;
    status = has_json ? tms_tokenize_load_json(t, &files, err) : tms_tokenize_load_spm(t, &files, err);
    if (status == TMS_OK) finish(t);
done:
    tms_tokenizer_files_close(&files);
    if (status == TMS_OK)
        *out = t;
    else
        tms_tokenizer_close(t);
    return status;
}

static tms_status open_gguf(struct tms_tokenizer **out, const char *path, const struct tms_kvs *kvs,
                            struct tms_error *err)
{
    struct tms_tokenizer *t = NULL;
    tms_status status = create(&t, path, err);
    if (status == TMS_OK) status = tms_tokenize_load_gguf(t, kvs, err);
    if (status == TMS_OK) finish(t);
    if (status == TMS_OK)
        *out = t;
    else
        tms_tokenizer_close(t);
    return status;
}

tms_status tms_tokenizer_open(struct tms_tokenizer **out, const struct tms_source *source, struct tms_error *err)
{
    if (source->kind == TMS_SOURCE_GGUF) return open_gguf(out, source->path, &source->gguf->kvs, err);
    if (source->kind == TMS_SOURCE_HF && tms_path_is_dir(source->path))
        return open_folder(out, source->path, source->config_json, err);
    return tms_fail(err, TMS_EINPUT, "%s: has no tokenizer: a folder or a GGUF file is needed", source->path);
}

tms_status tms_tokenizer_open_path(struct tms_tokenizer **out, const char *path, struct tms_error *err)
{
    if (tms_path_is_dir(path)) {
        json_t *config = NULL;
        char *config_path = tms_path_join(path, "config.json");
        tms_status status = config_path ? TMS_OK : tms_fail_memory(err, strlen(path) + 16);
        if (status == TMS_OK && tms_path_exists(config_path))
            status = tms_json_load(&config, config_path, UINT64_C(1) << 26, err);
        if (status == TMS_OK) status = open_folder(out, path, config, err);
        json_decref(config);
        free(config_path);
        return status;
    }
    struct tms_gguf *gguf = NULL;
    tms_status status = tms_gguf_open(&gguf, path, err);
    if (status == TMS_OK) status = open_gguf(out, path, &gguf->kvs, err);
    tms_gguf_close(gguf);
    return status;
}

void tms_tokenizer_close(struct tms_tokenizer *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->n_normalizer; i++) free(t->normalizer[i].form.unsettled);
    tms_expressions_free(t->expressions);
    tms_text_table_free(&t->by_text);
    tms_pair_table_free(&t->merges);
    tms_trie_free(&t->trie);
    tms_trie_free(&t->added_raw);
    tms_trie_free(&t->added_normalized);
    void *owned[] = {t->shown, t->added, t->scores,    t->no_piece,  t->before,  t->after, t->ends,   t->known,
                     t->kinds, t->at,    t->pieces[0], t->pieces[1], t->symbols, t->heap,  t->lattice};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    struct tms_buf *bufs[] = {&t->texts,     &t->added_texts, &t->clean,    &t->normal[0],
                              &t->normal[1], &t->stage[0],    &t->stage[1], &t->word};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) tms_buf_free(bufs[i]);
    tms_arena_free(&t->arena);
    free(t);
}

/* ---- added tokens ---- */

/* The library asks its word class of the character before or behind a token that must stand alone. */
static bool is_word_before(const uint8_t *text, const uint8_t *at)
{
    if (at == text) return false;
    do at--;
    while (at > text && (*at & 0xc0) == 0x80);
    return tms_in_class(tms_code_class("word", 4), tms_next_code(&at));
}

static bool is_word_at(const uint8_t *at, const uint8_t *end)
{
    return at < end && tms_in_class(tms_code_class("word", 4), tms_next_code(&at));
}

static const uint8_t *spaces_before(const uint8_t *text, const uint8_t *at)
{
    const struct tms_code_class *space = tms_code_class("space", 5);
    while (at > text) {
        const uint8_t *one = at;
        do one--;
        while (one > text && (*one & 0xc0) == 0x80);
        const uint8_t *next = one;
        if (!tms_in_class(space, tms_next_code(&next))) break;
        at = one;
    }
    return at;
}

static const uint8_t *spaces_behind(const uint8_t *at, const uint8_t *end)
{
    const struct tms_code_class *space = tms_code_class("space", 5);
    while (at < end) {
        const uint8_t *next = at;
        if (!tms_in_class(space, tms_next_code(&next))) break;
        at = next;
    }
    return at;
}

/* The next added token at `at` or later, leftmost, then longest. */
struct found {
    const struct tms_added_token *token; /* NULL: none */
    const uint8_t *begin, *end;
};

static struct found find_added(const struct tms_tokenizer *t, const struct tms_trie *trie, const bool starts[256],
                               const uint8_t *at, const uint8_t *end)
{
    struct found found = {0};
    for (; at < end && !found.token; at++) {
        if (!starts[*at]) continue;
        uint32_t node = 0;
        for (const uint8_t *p = at; p < end && (node = tms_trie_next(trie, node, *p)) != TMS_NO_NODE; p++)
            if (trie->ids[node] >= 0) found = (struct found){&t->added[trie->ids[node]], at, p + 1};
    }
    return found;
}

/* Where in the way of a text added tokens are cut out. */
enum pass {
    PASS_TRUSTED, /* before everything, of those that wait for the normalizer only those in trusted parts */
    PASS_RAW,
    PASS_NORMALIZED,
};

struct encoding {
    struct tms_tokenizer *t;
    const struct tms_tokenize_options *options;
    const uint8_t *text; /* all of it */
    struct tms_ids out;
};

/* Whether the token occurs in what is trusted: then it is markup, special or not. */
static bool is_markup(const struct encoding *e, const struct tms_added_token *token)
{
    for (size_t i = 0; i < e->options->n_trusted; i++) {
        const struct tms_text_span *s = &e->options->trusted[i];
        if (memmem(e->text + s->begin, s->end - s->begin, e->t->added_texts.data + token->offset, token->n))
            return true;
    }
    return false;
}

static bool is_trusted(const struct encoding *e, const uint8_t *begin, const uint8_t *end)
{
    for (size_t i = 0; i < e->options->n_trusted; i++) {
        const struct tms_text_span *s = &e->options->trusted[i];
        if (begin >= e->text + s->begin && end <= e->text + s->end) return true;
    }
    return false;
}

/* Whether an added token that was found is one, or plain text. */
static bool counts(const struct encoding *e, enum pass pass, const struct found *found)
{
    if (!e->options->n_trusted) return !(found->token->special && e->options->no_parse_special);
    if (!found->token->special && !is_markup(e, found->token)) return pass != PASS_TRUSTED;
    return pass != PASS_NORMALIZED && is_trusted(e, found->begin, found->end);
}

typedef tms_status (*stretch_fn)(struct encoding *e, const uint8_t *text, size_t n, bool first, struct tms_error *err);

/* Cuts added tokens out of a text; what lies between them goes to `stretch`. */
static tms_status cut_out(struct encoding *e, enum pass pass, const uint8_t *text, size_t n, bool first,
                          stretch_fn stretch, struct tms_error *err)
{
    const struct tms_trie *trie = pass == PASS_RAW ? &e->t->added_raw : &e->t->added_normalized;
    const bool *starts = pass == PASS_RAW ? e->t->starts_raw : e->t->starts_normalized;
    const uint8_t *done = text, *at = text, *end = text + n;
    tms_status status;
    while (trie->n_edges) {
        struct found found = find_added(e->t, trie, starts, at, end);
        const struct tms_added_token *token = found.token;
        if (!token) break;
        at = found.end;
        /* A token may begin in the space that the one before took in: the library takes both. */
        if (!counts(e, pass, &found) ||
            (token->single_word && (is_word_before(text, found.begin) || is_word_at(found.end, end))))
            continue;
        if (token->left_strip) {
            found.begin = spaces_before(text, found.begin);
            if (found.begin < done) found.begin = done;
        }
        if (token->right_strip) found.end = spaces_behind(found.end, end);
        if (found.begin > done) {
            status = stretch(e, done, (size_t)(found.begin - done), first && done == text, err);
            if (status != TMS_OK) return status;
        }
        if (!tms_put_id(&e->out, token->id)) return tms_fail_memory(err, sizeof token->id);
        done = found.end;
    }
    return done < end ? stretch(e, done, (size_t)(end - done), first && done == text, err) : TMS_OK;
}

/* ---- the way of a text ---- */

static tms_status cut(struct encoding *e, const uint8_t *text, size_t n, bool first, struct tms_error *err)
{
    return tms_tokenize_cut(e->t, text, n, first, &e->out, err);
}

static tms_status normalize(struct encoding *e, const uint8_t *text, size_t n, bool first, struct tms_error *err)
{
    struct tms_tokenizer *t = e->t;
    struct tms_buf normal = {0};
    tms_status status = TMS_OK;
    bool changes = t->n_normalizer > 0;
    if (t->n_normalizer == 1 && t->normalizer[0].kind == TMS_STEP_NORMAL_FORM)
        changes = !tms_is_settled(&t->normalizer[0].form, text, n);
    if (changes) {
        status = tms_tokenize_normalize(t, text, n, &normal, err);
        text = normal.data;
        n = normal.n;
    }
    if (status == TMS_OK && n) status = cut_out(e, PASS_NORMALIZED, text, n, first, cut, err);
    tms_buf_free(&normal);
    return status;
}

static tms_status cut_raw(struct encoding *e, const uint8_t *text, size_t n, bool first, struct tms_error *err)
{
    return cut_out(e, PASS_RAW, text, n, first, normalize, err);
}

tms_status tms_tokenizer_encode(struct tms_tokenizer *t, const char *text, size_t n_bytes,
                                const struct tms_tokenize_options *options, int32_t **ids, size_t *n, size_t *cap,
                                struct tms_error *err)
{
    static const struct tms_tokenize_options none = {0};
    const uint8_t *bytes = (const uint8_t *)text;
    struct encoding e = {t, options ? options : &none, bytes, {ids, n, cap}};
    size_t before = *n;
    tms_status status = TMS_OK;
    if (n_bytes > TMS_MAX_ENCODED / 4)
        return tms_fail(err, TMS_EUSAGE, "a text of %zu bytes is too long: at most %u are read at once", n_bytes,
                        TMS_MAX_ENCODED / 4);
    if (n_bytes && !tms_is_utf8(text, n_bytes)) {
        if (e.options->n_trusted) return tms_fail(err, TMS_EUSAGE, "a text with trusted parts is no UTF-8");
        t->clean.n = 0;
        tms_put_lossy(&t->clean, bytes, n_bytes);
        if (t->clean.failed) {
            tms_buf_free(&t->clean);
            return tms_fail_memory(err, n_bytes);
        }
        bytes = t->clean.data;
        n_bytes = t->clean.n;
    }
    for (size_t i = 0; e.options->special && i < t->n_before; i++)
        if (!tms_put_id(&e.out, t->before[i])) status = tms_fail_memory(err, sizeof **ids);
    if (status == TMS_OK && n_bytes)
        status = e.options->n_trusted ? cut_out(&e, PASS_TRUSTED, bytes, n_bytes, true, cut_raw, err)
                                      : cut_raw(&e, bytes, n_bytes, true, err);
    for (size_t i = 0; e.options->special && i < t->n_after && status == TMS_OK; i++)
        if (!tms_put_id(&e.out, t->after[i])) status = tms_fail_memory(err, sizeof **ids);
    if (status != TMS_OK) *n = before;
    return status;
}

/* ---- questions ---- */

uint64_t tms_tokenizer_n_vocab(const struct tms_tokenizer *t)
{
    return t->n;
}

int32_t tms_tokenizer_bos(const struct tms_tokenizer *t)
{
    return t->bos;
}

int32_t tms_tokenizer_eos(const struct tms_tokenizer *t)
{
    return t->eos;
}

bool tms_tokenizer_add_bos(const struct tms_tokenizer *t)
{
    return t->add_bos;
}

bool tms_tokenizer_add_eos(const struct tms_tokenizer *t)
{
    return t->add_eos;
}

bool tms_tokenizer_is_end(const struct tms_tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id) return true;
    return false;
}

bool tms_tokenizer_is_special(const struct tms_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint64_t)id < t->n && (t->shown[id].flags & TMS_SHOWN_SPECIAL);
}

int32_t tms_tokenizer_find(const struct tms_tokenizer *t, const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].n == n_bytes && memcmp(t->added_texts.data + t->added[i].offset, text, n_bytes) == 0)
            return t->added[i].id;
    return tms_text_table_find(&t->by_text, text, n_bytes);
}

/* Normalizers, and pre-tokenizers: how a text is cut into words. Each step of a pre-tokenizer cuts every piece that the
 * one before it left, as if it were a text of its own. */
#include <string.h>

#include "model/tokenize_parts.h"

/* ---- translation to kinds (expression.h) ---- */

/* t->kinds[i], t->at[i]: kind and byte offset of character i of n; t->at[n_characters] = n. */
static tms_status translate(struct tms_tokenizer *t, const uint8_t *text, size_t n, size_t *n_characters,
                            struct tms_error *err)
{
    if (!tms_grow(&t->kinds, &t->cap_kinds, n + 1, 1) || !tms_grow(&t->at, &t->cap_at, n + 1, sizeof *t->at))
        return tms_fail_memory(err, (n + 1) * 5);
    const uint8_t *ascii = tms_expressions_ascii(t->expressions), *p = text, *end = text + n;
    size_t i = 0;
    while (p < end) {
        t->at[i] = (uint32_t)(p - text);
        t->kinds[i++] = *p < 0x80 ? ascii[*p++] : tms_expressions_kind(t->expressions, tms_next_code(&p));
    }
    t->at[i] = (uint32_t)n;
    *n_characters = i;
    return TMS_OK;
}

/* All matches of an expression in characters [begin, end), one after the other, as the library's iterator has them:
 * an empty match right behind another does not count, and the search goes on one character later. */
struct search {
    struct tms_tokenizer *t;
    size_t expression;
    const uint8_t *kinds;
    size_t n, from, last_end;
};

static tms_status next_match(struct search *s, struct tms_match *out, struct tms_error *err)
{
    for (;;) {
        *out = (struct tms_match){0};
        if (s->from > s->n) return TMS_OK;
        tms_status status = tms_expressions_match(s->t->expressions, s->expression, s->kinds, s->n, s->from, out, err);
        if (status != TMS_OK || !out->found) return status;
        if (out->end < out->begin) return tms_fail(err, TMS_EINPUT, "%s: an expression with \\K", s->t->where);
        if (out->begin == out->end && out->end == s->last_end) {
            s->from++;
            continue;
        }
        s->from = s->last_end = out->end;
        return TMS_OK;
    }
}

/* ---- normalizers ---- */

static tms_status replace_matches(struct tms_tokenizer *t, const struct tms_normalizer_step *step, const uint8_t *text,
                                  size_t n, struct tms_buf *out, struct tms_error *err)
{
    size_t n_characters = 0, done = 0;
    tms_status status = translate(t, text, n, &n_characters, err);
    struct search s = {t, step->expression, t->kinds, n_characters, 0, SIZE_MAX};
    struct tms_match match;
    while (status == TMS_OK && (status = next_match(&s, &match, err)) == TMS_OK && match.found) {
        tms_buf_put(out, text + t->at[done], t->at[match.begin] - t->at[done]);
        tms_buf_put(out, step->to, step->n_to);
        done = match.end;
    }
    if (status == TMS_OK) tms_buf_put(out, text + t->at[done], n - t->at[done]);
    return status;
}

static void replace_text(const struct tms_normalizer_step *step, const uint8_t *text, size_t n, struct tms_buf *out)
{
    const uint8_t *end = text + n;
    while (text < end) {
        const uint8_t *found = memmem(text, (size_t)(end - text), step->from, step->n_from);
        tms_buf_put(out, text, (size_t)((found ? found : end) - text));
        if (!found) return;
        tms_buf_put(out, step->to, step->n_to);
        text = found + step->n_from;
    }
}

static void strip(const struct tms_normalizer_step *step, const uint8_t *text, size_t n, struct tms_buf *out)
{
    const struct tms_code_class *space = tms_code_class("space", 5);
    const uint8_t *begin = text, *end = text + n, *last = text;
    bool seen = false;
    while (text < end) {
        const uint8_t *here = text;
        if (tms_in_class(space, tms_next_code(&text))) continue;
        if (!seen && step->left) begin = here;
        seen = true;
        last = text;
    }
    if (!seen && (step->left || step->right)) return;
    tms_buf_put(out, begin, (size_t)((step->right ? last : end) - begin));
}

static void join_spaces(const uint8_t *text, size_t n, struct tms_buf *out)
{
    size_t first = out->n;
    for (size_t i = 0; i < n; i++)
        if (text[i] != ' ' || (out->n > first && !out->failed && out->data[out->n - 1] != ' '))
            tms_buf_put(out, text + i, 1);
    /* At the end blocks count as the spaces that they will be. */
    while (out->n > first && !out->failed) {
        size_t n_last = out->data[out->n - 1] == ' ' ? 1 : 3;
        if (n_last == 3 && (out->n - first < 3 || memcmp(out->data + out->n - 3, TMS_BLOCK, 3) != 0)) break;
        out->n -= n_last;
    }
}

/* llama.cpp's unigram: a space before the first character that is none (left), or before every one behind spaces, which
 * go (right). A text of spaces alone gets none. */
static void space_words(const struct tms_normalizer_step *step, const uint8_t *text, size_t n, struct tms_buf *out)
{
    bool in_word = false, started = false;
    for (size_t i = 0; i < n; i++) {
        bool space = text[i] == ' ';
        if (!space && !in_word && (step->right || (step->left && !started))) tms_buf_put(out, " ", 1);
        if (!space || !step->right) tms_buf_put(out, text + i, 1);
        in_word = !space;
        started |= !space;
    }
}

static tms_status run_step(struct tms_tokenizer *t, const struct tms_normalizer_step *step, const uint8_t *text,
                           size_t n, struct tms_buf *out, struct tms_error *err)
{
    switch (step->kind) {
    case TMS_STEP_NORMAL_FORM: tms_normalize(&step->form, text, n, out); break;
    case TMS_STEP_REPLACE: replace_text(step, text, n, out); break;
    case TMS_STEP_REPLACE_EXPRESSION: return replace_matches(t, step, text, n, out, err);
    case TMS_STEP_PREPEND:
        if (n) tms_buf_put(out, step->to, step->n_to);
        tms_buf_put(out, text, n);
        break;
    case TMS_STEP_APPEND:
        tms_buf_put(out, text, n);
        if (n) tms_buf_put(out, step->to, step->n_to);
        break;
    case TMS_STEP_STRIP: strip(step, text, n, out); break;
    case TMS_STEP_JOIN_SPACES: join_spaces(text, n, out); break;
    case TMS_STEP_SPACE_WORDS: space_words(step, text, n, out); break;
    case TMS_STEP_CHARSMAP: tms_tokenize_map(step, text, n, out); break;
    }
    return TMS_OK;
}

tms_status tms_tokenize_normalize(struct tms_tokenizer *t, const uint8_t *text, size_t n, struct tms_buf *out,
                                  struct tms_error *err)
{
    for (size_t i = 0; i < t->n_normalizer; i++) {
        struct tms_buf *to = &t->normal[i % 2];
        to->n = 0;
        tms_status status = run_step(t, &t->normalizer[i], text, n, to, err);
        if (status != TMS_OK) return status;
        if (to->failed) return tms_fail_memory(err, n);
        text = to->data;
        n = to->n;
        if (n > TMS_MAX_ENCODED / 4) return tms_fail(err, TMS_EINPUT, "%s: the normalized text is too long", t->where);
    }
    tms_buf_put(out, text, n);
    return out->failed ? tms_fail_memory(err, n) : TMS_OK;
}

/* ---- pieces ---- */

static bool put_piece(struct tms_tokenizer *t, int side, size_t begin, size_t end)
{
    size_t n = t->n_pieces[side];
    if (begin == end) return true;
    if (n == t->cap_pieces[side] && !tms_grow(&t->pieces[side], &t->cap_pieces[side], n + 1, sizeof *t->pieces[side]))
        return false;
    t->pieces[side][n] = (struct tms_cut){(uint32_t)begin, (uint32_t)end};
    t->n_pieces[side]++;
    return true;
}

/* A piece on its way: pieces that belong together are held back until it is known where they end. */
struct joining {
    struct tms_tokenizer *t;
    int side;
    enum tms_cut_behaviour behaviour;
    size_t begin, end; /* what is held back */
    bool holds, held_match;
};

static bool give(struct joining *j, size_t begin, size_t end, bool match)
{
    if (begin == end) return true;
    if (j->behaviour == TMS_CUT_ISOLATED) return put_piece(j->t, j->side, begin, end);
    if (j->behaviour == TMS_CUT_REMOVED) return match || put_piece(j->t, j->side, begin, end);
    bool joins = j->behaviour == TMS_CUT_CONTIGUOUS    ? match == j->held_match
                 : j->behaviour == TMS_CUT_TO_PREVIOUS ? match && !j->held_match
                                                       : !match && j->held_match;
    if (j->holds && joins) {
        j->end = end;
    } else {
        if (j->holds && !put_piece(j->t, j->side, j->begin, j->end)) return false;
        j->begin = begin;
        j->end = end;
        j->holds = true;
    }
    j->held_match = match;
    return true;
}

static tms_status cut_piece(struct tms_tokenizer *t, const struct tms_cut_step *step, struct tms_cut piece, int side,
                            struct tms_error *err)
{
    struct search s = {t, step->expression, t->kinds + piece.begin, piece.end - piece.begin, 0, SIZE_MAX};
    struct joining j = {.t = t, .side = side, .behaviour = step->behaviour};
    struct tms_match match;
    size_t done = 0;
    tms_status status;
    while ((status = next_match(&s, &match, err)) == TMS_OK && match.found) {
        if (!give(&j, piece.begin + done, piece.begin + match.begin, step->invert) ||
            !give(&j, piece.begin + match.begin, piece.begin + match.end, !step->invert))
            return tms_fail_memory(err, sizeof piece);
        done = match.end;
    }
    if (status != TMS_OK) return status;
    if (!give(&j, piece.begin + done, piece.end, step->invert) || (j.holds && !put_piece(t, side, j.begin, j.end)))
        return tms_fail_memory(err, sizeof piece);
    return TMS_OK;
}

/* ---- steps that change the text ---- */

static void put_letters(struct tms_buf *out, const uint8_t *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t b = text[i], letter[4];
        /* GPT-2's alphabet: printable Latin-1 as it is, the other 68 bytes, in order, from U+0100 on. */
        uint32_t code = b;
        if (b <= 0x20)
            code = 0x100u + b;
        else if (b >= 0x7f && b <= 0xa0)
            code = 0x121u + (b - 0x7f);
        else if (b == 0xad)
            code = 0x143;
        tms_buf_put(out, letter, tms_put_code(letter, code));
    }
}

static bool starts_with(const uint8_t *text, size_t n, const char *start)
{
    return n >= strlen(start) && memcmp(text, start, strlen(start)) == 0;
}

/* One piece as METASPACE has it. *ends gets the byte offsets in `out` where its parts end. */
static bool put_metaspace(struct tms_tokenizer *t, const struct tms_cut_step *step, const uint8_t *text, size_t n,
                          bool first, struct tms_buf *out, int side)
{
    bool wants = step->block == TMS_BLOCK_ALWAYS || (step->block == TMS_BLOCK_FIRST && first);
    size_t begin = out->n;
    if (wants && !starts_with(text, n, " ") && !starts_with(text, n, TMS_BLOCK)) tms_buf_text(out, TMS_BLOCK);
    for (size_t i = 0; i < n; i++) {
        bool is_block = starts_with(text + i, n - i, TMS_BLOCK);
        if (step->cut && (text[i] == ' ' || is_block)) {
            if (!put_piece(t, side, begin, out->n)) return false;
            begin = out->n;
        }
        if (text[i] == ' ')
            tms_buf_text(out, TMS_BLOCK);
        else
            tms_buf_put(out, text + i, 1);
    }
    return put_piece(t, side, begin, out->n);
}

/* A text being cut. Pieces are in characters while `translated`, else in bytes. */
struct stage {
    const uint8_t *text;
    size_t n, n_characters;
    bool translated, letters, first;
    int side; /* of t->pieces */
    int room; /* of t->stage: where the next changed text goes */
};

static tms_status to_characters(struct tms_tokenizer *t, struct stage *stage, struct tms_error *err)
{
    if (stage->translated) return TMS_OK;
    tms_status status = translate(t, stage->text, stage->n, &stage->n_characters, err);
    if (status != TMS_OK) return status;
    size_t i = 0;
    for (size_t p = 0; p < t->n_pieces[stage->side]; p++) { /* pieces are in order */
        struct tms_cut *piece = &t->pieces[stage->side][p];
        while (t->at[i] < piece->begin) i++;
        piece->begin = (uint32_t)i;
        while (t->at[i] < piece->end) i++;
        piece->end = (uint32_t)i;
    }
    stage->translated = true;
    return TMS_OK;
}

static void to_bytes(struct tms_tokenizer *t, struct stage *stage)
{
    for (size_t p = 0; stage->translated && p < t->n_pieces[stage->side]; p++) {
        struct tms_cut *piece = &t->pieces[stage->side][p];
        *piece = (struct tms_cut){t->at[piece->begin], t->at[piece->end]};
    }
    stage->translated = false;
}

static tms_status change_text(struct tms_tokenizer *t, const struct tms_cut_step *step, struct stage *stage,
                              struct tms_error *err)
{
    int from = stage->side, to = !from;
    struct tms_buf *out = &t->stage[stage->room];
    to_bytes(t, stage);
    out->n = 0;
    t->n_pieces[to] = 0;
    for (size_t p = 0; p < t->n_pieces[from]; p++) {
        struct tms_cut piece = t->pieces[from][p];
        const uint8_t *text = stage->text + piece.begin;
        size_t n = piece.end - piece.begin, begin = out->n;
        bool first = stage->first && piece.begin == 0, done = true;
        switch (step->kind) {
        case TMS_CUT_METASPACE: done = put_metaspace(t, step, text, n, first, out, to); break;
        case TMS_CUT_SPACE_FIRST:
            if (!starts_with(text, n, " ")) tms_buf_text(out, " ");
            tms_buf_put(out, text, n);
            done = put_piece(t, to, begin, out->n);
            break;
        case TMS_CUT_BYTE_LETTERS:
            put_letters(out, text, n);
            done = put_piece(t, to, begin, out->n);
            stage->letters = true;
            break;
        case TMS_CUT_EXPRESSION: break;
        }
        if (!done || out->failed) return tms_fail_memory(err, n);
        if (out->n > TMS_MAX_ENCODED / 4) return tms_fail(err, TMS_EINPUT, "%s: the text is too long", t->where);
    }
    stage->text = out->data ? out->data : stage->text;
    stage->n = out->n;
    stage->side = to;
    stage->room = !stage->room;
    return TMS_OK;
}

/* Words end before a block that stands behind another character; see cut_at_blocks. */
static tms_status words_of(struct tms_tokenizer *t, const uint8_t *text, size_t n, struct tms_ids *out,
                           struct tms_error *err)
{
    size_t begin = 0;
    tms_status status = TMS_OK;
    for (size_t i = 1; t->cut_at_blocks && i < n && status == TMS_OK; i++) {
        const uint8_t *block = memchr(text + i, TMS_BLOCK[0] & 0xff, n - i);
        if (!block) break;
        i = (size_t)(block - text);
        if (!starts_with(block, n - i, TMS_BLOCK) || (i >= 3 && starts_with(block - 3, 3, TMS_BLOCK))) continue;
        status = tms_tokenize_word(t, text + begin, i - begin, out, err);
        begin = i;
    }
    return status == TMS_OK ? tms_tokenize_word(t, text + begin, n - begin, out, err) : status;
}

tms_status tms_tokenize_cut(struct tms_tokenizer *t, const uint8_t *text, size_t n, bool first, struct tms_ids *out,
                            struct tms_error *err)
{
    struct stage stage = {.text = text, .n = n, .first = first};
    tms_status status = TMS_OK;
    if (n == 0) return TMS_OK;
    if (t->n_cuts == 0) return words_of(t, text, n, out, err);
    t->n_pieces[0] = 0;
    if (!put_piece(t, 0, 0, n)) return tms_fail_memory(err, sizeof(struct tms_cut));
    for (size_t i = 0; i < t->n_cuts && status == TMS_OK; i++) {
        const struct tms_cut_step *step = &t->cuts[i];
        if (step->kind != TMS_CUT_EXPRESSION) {
            status = change_text(t, step, &stage, err);
            continue;
        }
        int from = stage.side, to = !from;
        status = to_characters(t, &stage, err);
        t->n_pieces[to] = 0;
        for (size_t p = 0; p < t->n_pieces[from] && status == TMS_OK; p++)
            status = cut_piece(t, step, t->pieces[from][p], to, err);
        stage.side = to;
    }
    if (status != TMS_OK) return status;
    to_bytes(t, &stage);
    for (size_t p = 0; p < t->n_pieces[stage.side] && status == TMS_OK; p++) {
        struct tms_cut piece = t->pieces[stage.side][p];
        const uint8_t *word = stage.text + piece.begin;
        size_t length = piece.end - piece.begin;
        if (stage.letters) {
            t->word.n = 0;
            (void)tms_bytes_of_letters(&t->word, word, length);
            if (t->word.failed) return tms_fail_memory(err, length);
            word = t->word.data;
            length = t->word.n;
        }
        status = words_of(t, word, length, out, err);
    }
    return status;
}

/* See unicode.h. Normal forms after UAX #15: decompose, order marks by their class, compose. Hangul by rule. */
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "file/utf8.h"

#define N_SETTLING 0x30000u /* no character from here on has a decomposition or a combining class */

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28 };
enum { S_COUNT = L_COUNT * V_COUNT * T_COUNT };

size_t tms_put_code(uint8_t out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

size_t tms_utf8_next(const uint8_t *bytes, size_t n, enum tms_utf8_piece *kind)
{
    uint8_t first = bytes[0], low = 0x80, high = 0xbf; /* of the second byte: table 3-7 of the standard */
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    *kind = TMS_UTF8_BROKEN;
    if (length == 0) return 1;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    for (size_t i = 1; i < length; i++) {
        if (i == n) {
            *kind = TMS_UTF8_CUT;
            return n;
        }
        if (bytes[i] < low || bytes[i] > high) return i;
        low = 0x80, high = 0xbf;
    }
    *kind = TMS_UTF8_CHARACTER;
    return length;
}

void tms_put_lossy(struct tms_buf *out, const uint8_t *bytes, size_t n)
{
    size_t good = 0; /* bytes of whole characters that wait to be copied */
    for (size_t at = 0; at < n;) {
        enum tms_utf8_piece kind;
        size_t length = tms_utf8_next(bytes + at, n - at, &kind);
        if (kind == TMS_UTF8_CHARACTER) {
            good += length;
        } else {
            tms_buf_put(out, bytes + at - good, good);
            tms_buf_text(out, TMS_REPLACEMENT);
            good = 0;
        }
        at += length;
    }
    tms_buf_put(out, bytes + n - good, good);
}

const struct tms_code_class *tms_code_class(const char *name, size_t n)
{
    for (const struct tms_code_class *class = tms_code_classes; class->name; class ++)
        if (strlen(class->name) == n && memcmp(class->name, name, n) == 0) return class;
    return NULL;
}

bool tms_in_class(const struct tms_code_class *class, uint32_t code)
{
    size_t low = 0, high = class->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (code > class->ranges[mid].last)
            low = mid + 1;
        else if (code < class->ranges[mid].first)
            high = mid;
        else
            return true;
    }
    return false;
}

static int by_code(const void *key, const void *row)
{
    uint32_t code = *(const uint32_t *)key;
    const struct tms_code_triple *t = row;
    return code < t->a ? -1 : code > t->a;
}

static int by_range(const void *key, const void *row)
{
    uint32_t code = *(const uint32_t *)key;
    const struct tms_code_triple *t = row;
    return code < t->a ? -1 : code > t->b;
}

static int by_pair(const void *key, const void *row)
{
    const struct tms_code_triple *k = key, *t = row;
    if (k->a != t->a) return k->a < t->a ? -1 : 1;
    return k->b < t->b ? -1 : k->b > t->b;
}

static uint32_t combining_class(uint32_t code)
{
    const struct tms_code_triple *t =
        bsearch(&code, tms_combining_classes, tms_combining_classes_n, sizeof *t, by_range);
    return t ? t->c : 0;
}

/* 0 if the two do not compose. */
static uint32_t compose(uint32_t first, uint32_t second)
{
    if (first >= L_BASE && first < L_BASE + L_COUNT && second >= V_BASE && second < V_BASE + V_COUNT)
        return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
    if (first >= S_BASE && first < S_BASE + S_COUNT && (first - S_BASE) % T_COUNT == 0 && second > T_BASE &&
        second < T_BASE + T_COUNT)
        return first + (second - T_BASE);
    struct tms_code_triple key = {first, second, 0};
    const struct tms_code_triple *t = bsearch(&key, tms_compositions, tms_compositions_n, sizeof *t, by_pair);
    return t ? t->c : 0;
}

static void mark(uint8_t *bits, uint32_t first, uint32_t last)
{
    for (uint32_t c = first; c <= last && c < N_SETTLING; c++) bits[c / 8] |= (uint8_t)(1 << c % 8);
}

static void unmark(uint8_t *bits, uint32_t c)
{
    if (c < N_SETTLING) bits[c / 8] &= (uint8_t) ~(1 << c % 8);
}

tms_status tms_normal_form_init(struct tms_normal_form *form, bool composed, struct tms_error *err)
{
    uint8_t *bits = tms_calloc(N_SETTLING / 8, 1);
    if (!bits) return tms_fail_memory(err, N_SETTLING / 8);
    for (size_t i = 0; i < tms_decompositions_n; i++) mark(bits, tms_decompositions[i].a, tms_decompositions[i].a);
    if (composed) {
        /* A character that is composed stays so, unless a mark follows: and the mark is unsettled itself. */
        for (size_t i = 0; i < tms_compositions_n; i++) unmark(bits, tms_compositions[i].c);
        for (size_t i = 0; i < tms_compositions_n; i++) mark(bits, tms_compositions[i].b, tms_compositions[i].b);
        mark(bits, V_BASE, V_BASE + V_COUNT - 1);
        mark(bits, T_BASE + 1, T_BASE + T_COUNT - 1);
    } else {
        mark(bits, S_BASE, S_BASE + S_COUNT - 1);
    }
    for (size_t i = 0; i < tms_combining_classes_n; i++)
        mark(bits, tms_combining_classes[i].a, tms_combining_classes[i].b);
    *form = (struct tms_normal_form){composed, bits};
    return TMS_OK;
}

static bool is_unsettled(const struct tms_normal_form *form, uint32_t c)
{
    return c < N_SETTLING && (form->unsettled[c / 8] >> c % 8 & 1);
}

bool tms_is_settled(const struct tms_normal_form *form, const uint8_t *text, size_t n)
{
    const uint8_t *at = text, *end = text + n;
    while (at < end) {
        if (*at < 0x80) {
            at++; /* ASCII never changes */
            continue;
        }
        if (is_unsettled(form, tms_next_code(&at))) return false;
    }
    return true;
}

/* The code points of one stretch, each with its combining class. */
struct stretch {
    struct code {
        uint32_t code, class;
    } * codes;
    size_t n, cap;
    bool failed;
};

static void decompose(struct stretch *s, uint32_t code)
{
    if (code >= S_BASE && code < S_BASE + S_COUNT) {
        uint32_t i = code - S_BASE;
        decompose(s, L_BASE + i / (V_COUNT * T_COUNT));
        decompose(s, V_BASE + i % (V_COUNT * T_COUNT) / T_COUNT);
        if (i % T_COUNT) decompose(s, T_BASE + i % T_COUNT);
        return;
    }
    const struct tms_code_triple *t = bsearch(&code, tms_decompositions, tms_decompositions_n, sizeof *t, by_code);
    if (t) {
        decompose(s, t->b);
        if (t->c) decompose(s, t->c);
        return;
    }
    if (s->failed || !tms_grow(&s->codes, &s->cap, s->n + 1, sizeof *s->codes)) {
        s->failed = true;
        return;
    }
    s->codes[s->n++] = (struct code){code, combining_class(code)};
}

/* Marks between two starters by class, equal ones in their order. Merging, for a hostile text may have a million. */
static void order_marks(struct code *codes, struct code *scratch, size_t n)
{
    if (n < 2) return;
    size_t half = n / 2, i = 0, j = half, to = 0;
    order_marks(codes, scratch, half);
    order_marks(codes + half, scratch, n - half);
    memcpy(scratch, codes, n * sizeof *codes);
    while (to < n) {
        bool left = j == n || (i < half && scratch[i].class <= scratch[j].class);
        codes[to++] = left ? scratch[i++] : scratch[j++];
    }
}

static void compose_all(struct stretch *s)
{
    size_t starter = SIZE_MAX, to = 0;
    uint32_t last_class = 0; /* of what stands between the starter and the code in hand; 0: nothing does */
    for (size_t i = 0; i < s->n; i++) {
        struct code code = s->codes[i];
        bool blocked = starter == SIZE_MAX || (to > starter + 1 && last_class >= code.class);
        uint32_t whole = blocked ? 0 : compose(s->codes[starter].code, code.code);
        if (whole) {
            s->codes[starter].code = whole;
            continue;
        }
        if (code.class == 0) starter = to;
        last_class = code.class;
        s->codes[to++] = code;
    }
    s->n = to;
}

static void finish(const struct tms_normal_form *form, struct stretch *s, struct tms_buf *out)
{
    struct code *scratch = s->n && !s->failed ? malloc(s->n * sizeof *scratch) : NULL;
    if (s->failed || (s->n && !scratch)) {
        out->failed = true;
    } else {
        for (size_t i = 0; i < s->n;) {
            size_t end = i;
            while (end < s->n && s->codes[end].class) end++;
            order_marks(s->codes + i, scratch, end - i);
            i = end + 1;
        }
        if (form->composed) compose_all(s);
        for (size_t i = 0; i < s->n; i++) {
            uint8_t bytes[4];
            tms_buf_put(out, bytes, tms_put_code(bytes, s->codes[i].code));
        }
    }
    free(scratch);
    s->n = 0;
}

void tms_normalize(const struct tms_normal_form *form, const uint8_t *text, size_t n, struct tms_buf *out)
{
    struct stretch s = {0};
    const uint8_t *at = text, *end = text + n, *copied = text, *settled = text;
    while (at < end) {
        const uint8_t *here = at;
        uint32_t code = *at < 0x80 ? *at++ : tms_next_code(&at);
        if (code < 0x80 || !is_unsettled(form, code)) {
            settled = here;
            continue;
        }
        /* From the last settled character to the next one. */
        tms_buf_put(out, copied, (size_t)(settled - copied));
        for (at = settled; at < end;) {
            here = at;
            code = tms_next_code(&at);
            if (here > settled && !is_unsettled(form, code)) {
                at = here;
                break;
            }
            decompose(&s, code);
        }
        finish(form, &s, out);
        copied = settled = at;
    }
    tms_buf_put(out, copied, (size_t)(end - copied));
    free(s.codes);
}

/* See expression.h. An expression is read into parts: text that PCRE2 takes as it is ("(?:", "|", "+") and sets of code
 * points, which are written as classes of bytes once the kinds are known. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/expression.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES   65536u /* of an expression */
#define MAX_SETS    1024u
#define MAX_KINDS   256u
#define MAX_DEPTH   32
#define PAGE        256u
#define MATCH_LIMIT 20000000u /* steps of backtracking; a text of a million spaces needs about two million */
#define JIT_STACK   (64u << 20)

struct set {
    struct tms_code_range *ranges; /* sorted, apart from each other, once settled */
    size_t n, cap;
};

struct part {
    const char *text; /* as PCRE2 has it, or NULL: a set */
    size_t n, set;
    char own[16]; /* room for text that is not the expression's own */
};

struct expression {
    char *text; /* its parts point into it */
    struct part *parts;
    size_t n, cap;
    pcre2_code *code;
};

struct tms_expressions {
    struct expression *items;
    size_t n, cap;
    struct set *sets;
    size_t n_sets, cap_sets;
    uint8_t ascii[128];
    uint8_t *pages[TMS_N_CODES / PAGE]; /* shared where they are equal to the one before */
    uint8_t *room;                      /* of the pages */
    pcre2_match_data *match_data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* ---- sets of code points ---- */

static bool add_range(struct set *s, uint32_t first, uint32_t last)
{
    if (!tms_grow(&s->ranges, &s->cap, s->n + 1, sizeof *s->ranges)) return false;
    s->ranges[s->n++] = (struct tms_code_range){first, last};
    return true;
}

static int by_first(const void *a, const void *b)
{
    const struct tms_code_range *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Sorts and joins. */
static void settle(struct set *s)
{
    size_t to = 0;
    if (s->n == 0) return;
    qsort(s->ranges, s->n, sizeof *s->ranges, by_first);
    for (size_t i = 1; i < s->n; i++) {
        struct tms_code_range *last = &s->ranges[to];
        if (s->ranges[i].first <= last->last + 1) {
            if (s->ranges[i].last > last->last) last->last = s->ranges[i].last;
        } else {
            s->ranges[++to] = s->ranges[i];
        }
    }
    s->n = to + 1;
}

static bool holds(const struct set *s, uint32_t code)
{
    struct tms_code_class class = {"", s->ranges, s->n};
    return tms_in_class(&class, code);
}

/* Turns a settled set into all others. */
static bool invert(struct set *s)
{
    struct set all = {0};
    uint32_t next = 0;
    bool done = true;
    for (size_t i = 0; i < s->n && done; i++) {
        if (s->ranges[i].first > next) done = add_range(&all, next, s->ranges[i].first - 1);
        next = s->ranges[i].last + 1;
    }
    if (done && next < TMS_N_CODES) done = add_range(&all, next, TMS_N_CODES - 1);
    free(s->ranges);
    *s = all;
    return done;
}

/* a becomes what both hold; b is used up. */
static bool intersect(struct set *a, struct set *b)
{
    bool done = invert(a) && invert(b);
    for (size_t i = 0; i < b->n && done; i++) done = add_range(a, b->ranges[i].first, b->ranges[i].last);
    settle(a);
    free(b->ranges);
    *b = (struct set){0};
    return done && invert(a);
}

/* Letters and their other case: ASCII, and the two letters elsewhere that fold to ASCII. */
static bool fold(struct set *s)
{
    bool done = true;
    settle(s);
    for (uint32_t i = 0; i < 26 && done; i++) {
        uint32_t upper = 'A' + i, lower = 'a' + i, other = lower == 's' ? 0x17f : lower == 'k' ? 0x212a : 0;
        if (!holds(s, upper) && !holds(s, lower) && !(other && holds(s, other))) continue;
        done = add_range(s, upper, upper) && add_range(s, lower, lower) && (!other || add_range(s, other, other));
        settle(s);
    }
    return done;
}

/* ---- reading ---- */

struct reader {
    struct tms_expressions *set;
    struct expression *e;
    const uint8_t *at, *end, *start;
    const char *where;
    struct tms_error *err;
};

static tms_status refuse(const struct reader *r, const char *what)
{
    return tms_fail(r->err, TMS_EINPUT, "%s: expression '%.120s': %s at byte %zu", r->where, r->e->text, what,
                    (size_t)(r->at - r->start));
}

static tms_status no_memory(const struct reader *r)
{
    return tms_fail_memory(r->err, 64);
}

static tms_status put_text(struct reader *r, const char *text, size_t n)
{
    struct expression *e = r->e;
    if (!tms_grow(&e->parts, &e->cap, e->n + 1, sizeof *e->parts)) return no_memory(r);
    e->parts[e->n++] = (struct part){.text = text, .n = n};
    return TMS_OK;
}

static tms_status put_own(struct reader *r, const char *text)
{
    return put_text(r, text, strlen(text)); /* literals of this file outlive the parts */
}

static bool are_equal(const struct set *a, const struct set *b)
{
    return a->n == b->n && (!a->ranges || !b->ranges || memcmp(a->ranges, b->ranges, a->n * sizeof *a->ranges) == 0);
}

/* Takes over s. */
static tms_status put_set(struct reader *r, struct set *s)
{
    struct tms_expressions *all = r->set;
    settle(s);
    size_t index = 0;
    while (index < all->n_sets && !are_equal(&all->sets[index], s)) index++;
    if (index == all->n_sets) {
        if (index == MAX_SETS) return refuse(r, "too many different characters and classes");
        if (!tms_grow(&all->sets, &all->cap_sets, index + 1, sizeof *all->sets)) return no_memory(r);
        all->sets[all->n_sets++] = *s;
    } else {
        free(s->ranges);
    }
    *s = (struct set){0};
    tms_status status = put_text(r, NULL, 0);
    if (status == TMS_OK) r->e->parts[r->e->n - 1].set = index;
    return status;
}

static tms_status add_class(struct reader *r, struct set *s, const char *name, size_t n, bool inverted)
{
    const struct tms_code_class *class = tms_code_class(name, n);
    struct set own = {0};
    if (!class) return refuse(r, "a class of characters that tamis does not know");
    bool done = true;
    for (size_t i = 0; i < class->n && done; i++) done = add_range(&own, class->ranges[i].first, class->ranges[i].last);
    if (inverted && done) done = invert(&own);
    for (size_t i = 0; i < own.n && done; i++) done = add_range(s, own.ranges[i].first, own.ranges[i].last);
    free(own.ranges);
    return done ? TMS_OK : no_memory(r);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(struct reader *r, size_t least, size_t most, uint32_t *out)
{
    size_t n = 0;
    for (*out = 0; n < most && r->at < r->end && hex_digit(*r->at) >= 0; n++)
        *out = *out << 4 | (uint32_t)hex_digit(*r->at++);
    return n >= least && *out < TMS_N_CODES;
}

/* What follows a backslash: a class (added to s, *code becomes UINT32_MAX) or one character (*code). */
static tms_status read_escape(struct reader *r, struct set *s, uint32_t *code)
{
    if (r->at >= r->end) return refuse(r, "a backslash with nothing behind it");
    uint8_t c = *r->at;
    *code = UINT32_MAX;
    switch (c) {
    case 's':
    case 'S': r->at++; return add_class(r, s, "space", 5, c == 'S');
    case 'd':
    case 'D': r->at++; return add_class(r, s, "digit", 5, c == 'D');
    case 'w':
    case 'W': r->at++; return add_class(r, s, "word", 4, c == 'W');
    case 'p':
    case 'P': {
        bool inverted = c == 'P';
        if (r->end - r->at < 3 || r->at[1] != '{') return refuse(r, "\\p without a class");
        r->at += 2;
        if (*r->at == '^') r->at++, inverted = !inverted;
        const uint8_t *close = memchr(r->at, '}', (size_t)(r->end - r->at));
        if (!close) return refuse(r, "\\p without a class");
        tms_status status = add_class(r, s, (const char *)r->at, (size_t)(close - r->at), inverted);
        r->at = close + 1;
        return status;
    }
    case 'x':
        r->at++;
        if (r->at < r->end && *r->at == '{') {
            r->at++;
            if (!read_hex(r, 1, 8, code) || r->at >= r->end || *r->at != '}') return refuse(r, "\\x{ without a code");
            r->at++;
            return TMS_OK;
        }
        if (!read_hex(r, 1, 2, code) || *code > 0x7f) return refuse(r, "\\x without a code of ASCII");
        return TMS_OK;
    case 'u': r->at++; return read_hex(r, 4, 4, code) ? TMS_OK : refuse(r, "\\u without a code");
    default: break;
    }
    static const char letters[] = "rntfvae", codes[] = "\r\n\t\f\v\a\x1b";
    const char *known = strchr(letters, c);
    if (known && c) {
        *code = (uint8_t)codes[known - letters];
    } else if (c >= 0x80 || hex_digit(c) >= 0 || (c >= 'g' && c <= 'z') || (c >= 'G' && c <= 'Z')) {
        return refuse(r, "an escape that tamis does not know");
    } else {
        *code = c;
    }
    r->at++;
    return TMS_OK;
}

/* The inside of [ … ], after the bracket. */
static tms_status read_class(struct reader *r, struct set *out, bool folded, int depth)
{
    struct set s = {0}, both = {0};
    bool inverted = false, has_both = false, done = true;
    tms_status status = TMS_OK;
    if (depth > MAX_DEPTH) return refuse(r, "classes inside classes, too deep");
    if (r->at < r->end && *r->at == '^') inverted = true, r->at++;
    if (r->at < r->end && *r->at == ']') return refuse(r, "an empty class");
    while (done && status == TMS_OK) {
        if (r->at >= r->end) {
            status = refuse(r, "a class without an end");
            break;
        }
        uint32_t first = UINT32_MAX, last;
        uint8_t c = *r->at;
        if (c == ']') break;
        if (c == '[') {
            if (r->end - r->at > 1 && r->at[1] == ':') {
                status = refuse(r, "a POSIX class");
                break;
            }
            struct set inner = {0};
            r->at++;
            status = read_class(r, &inner, folded, depth + 1);
            for (size_t i = 0; i < inner.n && done; i++)
                done = add_range(&s, inner.ranges[i].first, inner.ranges[i].last);
            free(inner.ranges);
            continue;
        }
        if (c == '&' && r->end - r->at > 1 && r->at[1] == '&') {
            r->at += 2;
            settle(&s);
            if (has_both) {
                done = intersect(&both, &s);
            } else {
                both = s;
                s = (struct set){0};
                has_both = true;
            }
            continue;
        }
        if (c == '\\') {
            r->at++;
            status = read_escape(r, &s, &first);
            if (status != TMS_OK || first == UINT32_MAX) continue;
        } else {
            first = tms_next_code(&r->at);
        }
        last = first;
        if (r->end - r->at > 1 && r->at[0] == '-' && r->at[1] != ']') {
            const uint8_t *dash = r->at++;
            if (*r->at == '\\') {
                r->at++;
                status = read_escape(r, &s, &last);
                if (status == TMS_OK && last == UINT32_MAX) status = refuse(r, "a range that ends with a class");
            } else if (*r->at == '[') {
                r->at = dash; /* "a-[bc]": the dash stands for itself */
            } else {
                last = tms_next_code(&r->at);
            }
            if (status == TMS_OK && last < first) status = refuse(r, "a range that runs backwards");
        }
        if (status == TMS_OK) done = add_range(&s, first, last);
    }
    if (status == TMS_OK && done) {
        r->at++;
        settle(&s);
        if (has_both) {
            done = intersect(&both, &s);
            s = both;
            both = (struct set){0};
        }
        if (done && folded) done = fold(&s);
        if (done && inverted) done = invert(&s);
    }
    if (status == TMS_OK && !done) status = no_memory(r);
    free(both.ranges);
    if (status == TMS_OK)
        *out = s;
    else
        free(s.ranges);
    return status;
}

/* \b or \B: between a character of words and another. */
static tms_status put_boundary(struct reader *r, bool is)
{
    static const char *const pieces[2][5] = {{"(?:(?<=", ")(?=", ")|(?<!", ")(?!", "))"},
                                             {"(?:(?<=", ")(?!", ")|(?<!", ")(?=", "))"}};
    tms_status status = put_own(r, pieces[is][0]);
    for (int i = 1; i < 5 && status == TMS_OK; i++) {
        struct set word = {0};
        status = add_class(r, &word, "word", 4, false);
        if (status == TMS_OK) status = put_set(r, &word);
        free(word.ranges);
        if (status == TMS_OK) status = put_own(r, pieces[is][i]);
    }
    return status;
}

/* ^ and $ are those of lines: so Ruby's syntax has it, which the library chooses. */
static tms_status put_line_end(struct reader *r, const char *before, const char *after)
{
    struct set line = {0};
    if (!add_range(&line, '\n', '\n')) return no_memory(r);
    tms_status status = put_own(r, before);
    if (status == TMS_OK) status = put_set(r, &line);
    free(line.ranges);
    return status == TMS_OK ? put_own(r, after) : status;
}

/* What stands behind "(": which group it is. *folded: its letters match both cases. *bare: no group, a switch. */
static tms_status read_group(struct reader *r, bool *folded, bool *bare)
{
    static const char *const kinds[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    *bare = false;
    if (r->at >= r->end || *r->at != '?') return put_own(r, "(?:"); /* nothing asks what a group caught */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i]);
        if ((size_t)(r->end - r->at) < n || memcmp(r->at, kinds[i], n) != 0) continue;
        tms_status status = put_own(r, "(");
        r->at += n;
        return status == TMS_OK ? put_own(r, kinds[i]) : status;
    }
    const char *rest = (const char *)r->at + 1;
    bool off = rest < (const char *)r->end && *rest == '-';
    if (off) rest++;
    if ((const char *)r->end - rest < 2 || rest[0] != 'i' || (rest[1] != ':' && rest[1] != ')'))
        return refuse(r, "a group of a kind that tamis does not know");
    *folded = !off;
    *bare = rest[1] == ')';
    r->at = (const uint8_t *)rest + 2;
    return *bare ? TMS_OK : put_own(r, "(?:");
}

/* "{n}", "{n,}", "{,m}" or "{n,m}"; false if it is none, and then stands for itself. */
static bool read_count(struct reader *r, struct part *part)
{
    const uint8_t *at = r->at + 1;
    size_t digits = 0;
    bool comma = false, open = false;
    for (; at < r->end && *at != '}' && at - r->at < 12; at++) {
        if (*at == ',' && !comma)
            comma = true, open = digits == 0;
        else if (*at >= '0' && *at <= '9')
            digits++;
        else
            return false;
    }
    if (at >= r->end || *at != '}' || !digits) return false;
    size_t n = (size_t)(at + 1 - r->at);
    *part = (struct part){.text = (const char *)r->at, .n = n};
    if (open) { /* PCRE2 10.42 knows no "{,m}" */
        memcpy(part->own, "{0", 2);
        memcpy(part->own + 2, r->at + 1, n - 1);
        part->own[n + 1] = '\0';
        part->text = NULL;
        part->n = n + 1;
    }
    r->at = at + 1;
    return true;
}

static tms_status read_expression(struct reader *r)
{
    bool folds[250] = {false}; /* PCRE2's own limit of nesting */
    size_t depth = 0;
    tms_status status = TMS_OK;
    while (r->at < r->end && status == TMS_OK) {
        struct set s = {0};
        uint8_t c = *r->at;
        uint32_t code;
        bool bare;
        struct part count;
        switch (c) {
        case '(':
            r->at++;
            if (depth + 1 == sizeof folds / sizeof *folds) return refuse(r, "groups inside groups, too deep");
            folds[depth + 1] = folds[depth];
            status = read_group(r, &folds[depth + 1], &bare);
            if (status == TMS_OK && bare)
                folds[depth] = folds[depth + 1];
            else
                depth++;
            continue;
        case ')':
            if (depth == 0) return refuse(r, "a ) without a (");
            depth--;
            r->at++;
            status = put_own(r, ")");
            continue;
        case '|':
        case '*':
        case '+':
        case '?':
            status = put_text(r, (const char *)r->at, 1);
            r->at++;
            continue;
        case '{':
            if (!read_count(r, &count)) break;
            status = put_text(r, count.text, count.n);
            if (status == TMS_OK) r->e->parts[r->e->n - 1] = count;
            continue;
        case '^':
            r->at++;
            status = put_line_end(r, "(?:\\A|(?<=", "))");
            continue;
        case '$':
            r->at++;
            status = put_line_end(r, "(?:\\z|(?=", "))");
            continue;
        case '.':
            r->at++;
            if (!add_range(&s, '\n', '\n') || !invert(&s)) status = no_memory(r);
            if (status == TMS_OK) status = put_set(r, &s);
            free(s.ranges);
            continue;
        case '[':
            r->at++;
            status = read_class(r, &s, folds[depth], 0);
            if (status == TMS_OK) status = put_set(r, &s);
            free(s.ranges);
            continue;
        case '\\':
            if (r->end - r->at > 1 && strchr("bBAzZ", r->at[1]) && r->at[1]) {
                uint8_t which = r->at[1];
                r->at += 2;
                if (which == 'b' || which == 'B')
                    status = put_boundary(r, which == 'b');
                else
                    status = which == 'Z' ? put_line_end(r, "(?:\\z|(?=", "\\z))")
                                          : put_own(r, which == 'A' ? "\\A" : "\\z");
                continue;
            }
            break;
        default: break;
        }
        /* One character, or a class that an escape names. */
        if (c == '\\') {
            r->at++;
            status = read_escape(r, &s, &code);
        } else {
            code = tms_next_code(&r->at);
        }
        if (status == TMS_OK && code != UINT32_MAX && (!add_range(&s, code, code) || (folds[depth] && !fold(&s))))
            status = no_memory(r);
        if (status == TMS_OK) status = put_set(r, &s);
        free(s.ranges);
    }
    if (status == TMS_OK && depth) return refuse(r, "a ( without a )");
    return status;
}

tms_status tms_expressions_create(struct tms_expressions **out, struct tms_error *err)
{
    struct tms_expressions *set = tms_calloc(1, sizeof *set);
    if (!set) return tms_fail_memory(err, sizeof *set);
    *out = set;
    return TMS_OK;
}

void tms_expressions_free(struct tms_expressions *set)
{
    if (!set) return;
    for (size_t i = 0; i < set->n; i++) {
        free(set->items[i].text);
        free(set->items[i].parts);
        pcre2_code_free(set->items[i].code);
    }
    for (size_t i = 0; i < set->n_sets; i++) free(set->sets[i].ranges);
    free(set->items);
    free(set->sets);
    free(set->room);
    pcre2_match_data_free(set->match_data);
    pcre2_match_context_free(set->context);
    pcre2_jit_stack_free(set->stack);
    free(set);
}

tms_status tms_expressions_add(struct tms_expressions *set, const char *text, size_t n, const char *where,
                               size_t *index, struct tms_error *err)
{
    if (n > MAX_BYTES) return tms_fail(err, TMS_EINPUT, "%s: an expression of %zu bytes is too long", where, n);
    if (!tms_grow(&set->items, &set->cap, set->n + 1, sizeof *set->items)) return tms_fail_memory(err, 64);
    struct expression *e = &set->items[set->n];
    *e = (struct expression){.text = tms_calloc(n + 1, 1)};
    if (!e->text) return tms_fail_memory(err, n + 1);
    memcpy(e->text, text, n);
    set->n++;
    struct reader r = {.set = set,
                       .e = e,
                       .at = (const uint8_t *)e->text,
                       .start = (const uint8_t *)e->text,
                       .end = (const uint8_t *)e->text + n,
                       .where = where,
                       .err = err};
    tms_status status = read_expression(&r);
    if (status == TMS_OK) *index = set->n - 1;
    return status;
}

/* ---- kinds ---- */

static int by_code(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* members[kind] is a bit for each set: whether it holds the code points of that kind. */
struct kinds {
    uint64_t (*members)[MAX_SETS / 64];
    unsigned n;
};

/* Sorts all code points into kinds: between two neighbouring ends of ranges nothing changes. */
static tms_status sort_codes(struct tms_expressions *set, struct kinds *kinds, const char *where, struct tms_error *err)
{
    size_t n_ends = 2;
    for (size_t i = 0; i < set->n_sets; i++) n_ends += 2 * set->sets[i].n;
    uint32_t *ends = tms_calloc(n_ends, sizeof *ends);
    size_t *at = tms_calloc(set->n_sets, sizeof *at); /* of each set: the range in hand */
    uint8_t *of_code = tms_calloc(TMS_N_CODES, 1);
    tms_status status = ends && at && of_code ? TMS_OK : tms_fail_memory(err, TMS_N_CODES);
    if (status != TMS_OK) goto done;
    n_ends = 0;
    ends[n_ends++] = 0;
    ends[n_ends++] = TMS_N_CODES;
    for (size_t i = 0; i < set->n_sets; i++) {
        for (size_t j = 0; j < set->sets[i].n; j++) {
            ends[n_ends++] = set->sets[i].ranges[j].first;
            ends[n_ends++] = set->sets[i].ranges[j].last + 1;
        }
    }
    qsort(ends, n_ends, sizeof *ends, by_code);
    for (size_t e = 0; e + 1 < n_ends; e++) {
        uint32_t first = ends[e], next = ends[e + 1];
        if (first == next || first >= TMS_N_CODES) continue;
        uint64_t member[MAX_SETS / 64] = {0};
        for (size_t i = 0; i < set->n_sets; i++) {
            const struct set *s = &set->sets[i];
            while (at[i] < s->n && s->ranges[at[i]].last < first) at[i]++;
            if (at[i] < s->n && s->ranges[at[i]].first <= first) member[i / 64] |= UINT64_C(1) << i % 64;
        }
        unsigned kind = 0;
        while (kind < kinds->n && memcmp(kinds->members[kind], member, sizeof member) != 0) kind++;
        if (kind == MAX_KINDS) {
            status = tms_fail(err, TMS_EINPUT, "%s: its expressions tell more than %u kinds of characters apart", where,
                              MAX_KINDS);
            goto done;
        }
        if (kind == kinds->n) memcpy(kinds->members[kinds->n++], member, sizeof member);
        memset(of_code + first, (int)kind, next - first);
    }
    /* Pages in one block; those that equal the one before it are not kept twice. */
    size_t n_pages = 0;
    for (size_t p = 0; p < TMS_N_CODES / PAGE; p++)
        n_pages += p == 0 || memcmp(of_code + p * PAGE, of_code + (p - 1) * PAGE, PAGE) != 0;
    set->room = tms_calloc(n_pages, PAGE);
    if (!set->room) {
        status = tms_fail_memory(err, n_pages * PAGE);
        goto done;
    }
    n_pages = 0;
    for (size_t p = 0; p < TMS_N_CODES / PAGE; p++) {
        if (p == 0 || memcmp(of_code + p * PAGE, of_code + (p - 1) * PAGE, PAGE) != 0)
            memcpy(set->room + n_pages++ * PAGE, of_code + p * PAGE, PAGE);
        set->pages[p] = set->room + (n_pages - 1) * PAGE;
    }
    memcpy(set->ascii, of_code, sizeof set->ascii);
done:
    free(ends);
    free(at);
    free(of_code);
    return status;
}

static void put_class(struct tms_buf *out, const struct kinds *kinds, size_t set)
{
    bool any = false;
    tms_buf_text(out, "[");
    for (unsigned kind = 0; kind < kinds->n; kind++) {
        if (!(kinds->members[kind][set / 64] >> set % 64 & 1)) continue;
        tms_buf_printf(out, "\\x%02x", kind);
        any = true;
    }
    if (!any) tms_buf_text(out, "^\\x00-\\xff");
    tms_buf_text(out, "]");
}

static tms_status compile_one(struct expression *e, const struct kinds *kinds, const char *where, struct tms_error *err)
{
    struct tms_buf text = {0};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < e->n; i++) {
        const struct part *part = &e->parts[i];
        if (part->text)
            tms_buf_put(&text, part->text, part->n);
        else if (part->n)
            tms_buf_put(&text, part->own, part->n);
        else
            put_class(&text, kinds, part->set);
    }
    if (text.failed) {
        status = tms_fail_memory(err, text.n);
    } else {
        int problem = 0;
        PCRE2_SIZE at = 0;
        e->code = pcre2_compile(text.data ? text.data : (PCRE2_SPTR) "", text.n,
                                PCRE2_NEVER_UTF | PCRE2_NO_AUTO_CAPTURE, &problem, &at, NULL);
        if (e->code) {
            (void)pcre2_jit_compile(e->code, PCRE2_JIT_COMPLETE); /* without it, the same more slowly */
        } else {
            PCRE2_UCHAR message[128] = "";
            pcre2_get_error_message(problem, message, sizeof message);
            status = tms_fail(err, TMS_EINPUT, "%s: expression '%.120s': %s", where, e->text, (const char *)message);
        }
    }
    tms_buf_free(&text);
    return status;
}

tms_status tms_expressions_compile(struct tms_expressions *set, const char *where, struct tms_error *err)
{
    struct kinds kinds = {.members = tms_calloc(MAX_KINDS, sizeof *kinds.members)};
    tms_status status = kinds.members ? TMS_OK : tms_fail_memory(err, MAX_KINDS * sizeof *kinds.members);
    if (status == TMS_OK) status = sort_codes(set, &kinds, where, err);
    for (size_t i = 0; i < set->n && status == TMS_OK; i++) status = compile_one(&set->items[i], &kinds, where, err);
    free(kinds.members);
    if (status != TMS_OK) return status;
    set->match_data = pcre2_match_data_create(1, NULL);
    set->context = pcre2_match_context_create(NULL);
    set->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK, NULL);
    if (!set->match_data || !set->context) return tms_fail_memory(err, 256);
    pcre2_set_match_limit(set->context, MATCH_LIMIT);
    if (set->stack) pcre2_jit_stack_assign(set->context, NULL, set->stack);
    return TMS_OK;
}

uint8_t tms_expressions_kind(const struct tms_expressions *set, uint32_t code)
{
    return set->pages[code / PAGE][code % PAGE];
}

const uint8_t *tms_expressions_ascii(const struct tms_expressions *set)
{
    return set->ascii;
}

tms_status tms_expressions_match(struct tms_expressions *set, size_t index, const uint8_t *kinds, size_t n, size_t from,
                                 struct tms_match *out, struct tms_error *err)
{
    const struct expression *e = &set->items[index];
    int rc = pcre2_match(e->code, kinds, n, from, 0, set->match_data, set->context);
    *out = (struct tms_match){0};
    if (rc == PCRE2_ERROR_NOMATCH) return TMS_OK;
    if (rc < 0) {
        PCRE2_UCHAR message[128] = "";
        pcre2_get_error_message(rc, message, sizeof message);
        return tms_fail(err, TMS_EINPUT, "the pre-tokenizer's expression '%.120s' fails on this text: %s", e->text,
                        (const char *)message);
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(set->match_data);
    *out = (struct tms_match){true, ends[0], ends[1]};
    return TMS_OK;
}

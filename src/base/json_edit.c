/* See json_edit.h. */
#include "base/json_edit.h"

#include <stdlib.h>
#include <string.h>

struct member {
    size_t key, key_end;     /* the key with its quotes: text[key, key_end) */
    size_t value, value_end; /* text[value, value_end) */
};

static size_t skip_space(const char *text, size_t n, size_t at)
{
    while (at < n && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')) at++;
    return at;
}

/* From an opening quote to behind the closing one. */
static size_t skip_string(const char *text, size_t n, size_t at)
{
    for (at++; at < n && text[at] != '"'; at++)
        if (text[at] == '\\') at++;
    return at < n ? at + 1 : n;
}

static size_t skip_value(const char *text, size_t n, size_t at)
{
    size_t depth = 0;
    while (at < n) {
        char c = text[at];
        if (c == '"') {
            at = skip_string(text, n, at);
        } else if (c == '{' || c == '[') {
            depth++;
            at++;
        } else if (c == '}' || c == ']') {
            if (depth == 0) return at;
            depth--;
            at++;
        } else if (c == ',' && depth == 0) {
            return at;
        } else {
            at++;
        }
        if (depth == 0 && (c == '"' || c == '}' || c == ']')) return at;
    }
    return at;
}

/* The next member at or behind `at` (which is behind '{' or ','); false at the object's end. */
static bool next_member(const char *text, size_t n, size_t at, struct member *m)
{
    m->key = skip_space(text, n, at);
    if (m->key >= n || text[m->key] != '"') return false;
    m->key_end = skip_string(text, n, m->key);
    size_t colon = skip_space(text, n, m->key_end);
    m->value = skip_space(text, n, colon + 1);
    m->value_end = skip_value(text, n, m->value);
    while (m->value_end > m->value && strchr(" \t\r\n", text[m->value_end - 1])) m->value_end--;
    return m->value_end <= n;
}

static int compare_key(const char *text, const struct member *m, const char *key)
{
    size_t n = m->key_end - m->key - 2, length = strlen(key);
    int c = memcmp(text + m->key + 1, key, n < length ? n : length);
    return c ? c : n < length ? -1 : n > length;
}

/* `value` in two-space steps, its further lines indented like the members. */
static bool put_value(struct tms_buf *out, const json_t *value, const char *indent, size_t n_indent)
{
    char *dump = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (!dump) return false;
    for (const char *line = dump; *line;) {
        size_t n = strcspn(line, "\n");
        tms_buf_put(out, line, n + (line[n] == '\n'));
        line += n;
        if (*line == '\n') {
            tms_buf_put(out, indent, n_indent);
            line++;
        }
    }
    free(dump);
    return !out->failed;
}

bool tms_json_set_member(struct tms_buf *out, const char *text, size_t n, const char *key, const json_t *value)
{
    struct member m, last = {0}, before = {0};
    size_t open = skip_space(text, n, 0);
    bool any = false, sorted = true, found_place = false;
    if (open >= n || text[open] != '{') return false;

    size_t indent = open + 1, indent_end = open + 1; /* white space in front of the first key */
    for (size_t at = open + 1; next_member(text, n, at, &m);) {
        if (!any) {
            indent_end = m.key;
            while (indent_end > indent && text[indent_end - 1] != '\n') indent_end--;
            indent = indent_end;
            indent_end = m.key;
        } else {
            size_t length = m.key_end - m.key - 2, previous = last.key_end - last.key - 2;
            int c = memcmp(text + last.key + 1, text + m.key + 1, length < previous ? length : previous);
            if (c > 0 || (c == 0 && previous > length)) sorted = false;
        }
        int c = compare_key(text, &m, key);
        if (c == 0) {
            tms_buf_put(out, text, m.value);
            bool ok = put_value(out, value, text + indent, indent_end - indent);
            tms_buf_put(out, text + m.value_end, n - m.value_end);
            return ok && !out->failed;
        }
        if (c > 0 && !found_place) {
            found_place = true;
            before = m;
        }
        any = true;
        last = m;
        at = skip_space(text, n, m.value_end);
        if (at >= n || text[at] != ',') break;
        at++;
    }
    if (sorted && found_place) {
        tms_buf_put(out, text, before.key);
        tms_buf_printf(out, "\"%s\": ", key);
        if (!put_value(out, value, text + indent, indent_end - indent)) return false;
        tms_buf_text(out, ",");
        /* what stood between the member before and this one: a line break and the indent */
        size_t gap = before.key;
        while (gap > 0 && strchr(" \t\r\n", text[gap - 1])) gap--;
        tms_buf_put(out, text + gap, n - gap);
        return !out->failed;
    }
    size_t end = any ? last.value_end : open + 1;
    tms_buf_put(out, text, end);
    tms_buf_text(out, any ? ",\n" : "\n");
    if (any)
        tms_buf_put(out, text + indent, indent_end - indent);
    else
        tms_buf_text(out, "  ");
    tms_buf_printf(out, "\"%s\": ", key);
    if (!put_value(out, value, any ? text + indent : "  ", any ? indent_end - indent : 2)) return false;
    if (!any) tms_buf_text(out, "\n");
    tms_buf_put(out, text + end, n - end);
    return !out->failed;
}

bool tms_json_remove_member(struct tms_buf *out, const char *text, size_t n, const char *key)
{
    struct member m;
    size_t open = skip_space(text, n, 0), end_before = open + 1; /* where the member before ends */
    if (open >= n || text[open] != '{') return false;
    for (size_t at = open + 1; next_member(text, n, at, &m);) {
        size_t comma = skip_space(text, n, m.value_end);
        bool last = comma >= n || text[comma] != ',';
        if (compare_key(text, &m, key) == 0) {
            /* the first goes with the comma behind it, any other with the one in front */
            bool first = end_before == open + 1;
            size_t from = first && !last ? m.key : end_before;
            size_t to = first && !last ? skip_space(text, n, comma + 1) : m.value_end;
            tms_buf_put(out, text, from);
            tms_buf_put(out, text + to, n - to);
            return !out->failed;
        }
        if (last) break;
        end_before = m.value_end;
        at = comma + 1;
    }
    tms_buf_put(out, text, n);
    return !out->failed;
}

/* See keys.h. */
#include "model/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_TEXT 60 /* bytes of a value that are shown */

static void add(struct tms_key_list *list, const char *key, const char *a, const char *b)
{
    struct tms_diff_key item = {tms_arena_strndup(&list->arena, key, strlen(key)),
                                a ? tms_arena_strndup(&list->arena, a, strlen(a)) : NULL,
                                b ? tms_arena_strndup(&list->arena, b, strlen(b)) : NULL};
    if (!item.key || (a && !item.a) || (b && !item.b) ||
        !tms_grow(&list->items, &list->cap, list->n + 1, sizeof *list->items)) {
        list->failed = true;
        return;
    }
    list->items[list->n++] = item;
}

void tms_keys_free(struct tms_key_list *list)
{
    free(list->items);
    tms_arena_free(&list->arena);
    *list = (struct tms_key_list){0};
}

/* n bytes of text in quotes, cut at a character's end, without control characters. */
static void quote(struct tms_buf *to, const void *bytes, size_t n)
{
    const uint8_t *from = bytes;
    size_t shown = n <= LONGEST_TEXT ? n : LONGEST_TEXT;
    while (shown < n && shown > 0 && (from[shown] & 0xc0) == 0x80) shown--;
    tms_buf_text(to, "\"");
    for (size_t i = 0; i < shown; i++) {
        uint8_t c = from[i] < 0x20 || from[i] == 0x7f ? '.' : from[i];
        tms_buf_put(to, &c, 1);
    }
    tms_buf_text(to, shown < n ? "…\"" : "\"");
}

/* ---- key-values ---- */

static void scalar_text(struct tms_buf *to, enum tms_kv_type type, const uint8_t *bytes)
{
    uint64_t bits = 0;
    size_t n = tms_kv_type_bytes(type);
    float f;
    double d;
    for (size_t i = 0; i < n; i++) bits |= (uint64_t)bytes[i] << (8 * i);
    switch (type) {
    case TMS_KV_I8: tms_buf_printf(to, "%d", (int)(int8_t)bits); break;
    case TMS_KV_I16: tms_buf_printf(to, "%d", (int)(int16_t)bits); break;
    case TMS_KV_I32: tms_buf_printf(to, "%ld", (long)(int32_t)bits); break;
    case TMS_KV_I64: tms_buf_printf(to, "%lld", (long long)bits); break;
    case TMS_KV_BOOL: tms_buf_text(to, bits ? "true" : "false"); break;
    case TMS_KV_F32:
        memcpy(&f, bytes, sizeof f);
        tms_buf_printf(to, "%.9g", (double)f);
        break;
    case TMS_KV_F64:
        memcpy(&d, bytes, sizeof d);
        tms_buf_printf(to, "%.17g", d);
        break;
    default: tms_buf_printf(to, "%llu", (unsigned long long)bits); break;
    }
}

/* One element after the other of an array's bytes; the reader checked their lengths. */
static const uint8_t *next_element(const struct tms_kv *kv, const uint8_t *at, size_t *n)
{
    uint64_t length = 0;
    if (kv->elem_type != TMS_KV_STRING) {
        *n = tms_kv_type_bytes(kv->elem_type);
        return at;
    }
    for (int i = 0; i < 8; i++) length |= (uint64_t)at[i] << (8 * i);
    *n = (size_t)length;
    return at + 8;
}

/* "[151936 strings], [17] is "Ġthe"": the first element that the other array has not, if they are of a kind. */
static void array_text(struct tms_buf *to, const struct tms_kv *kv, const struct tms_kv *other)
{
    tms_buf_printf(to, "[%llu %s%s]", (unsigned long long)kv->count, tms_kv_type_name(kv->elem_type),
                   kv->count == 1 ? "" : "s");
    if (!other || other->type != TMS_KV_ARRAY || other->elem_type != kv->elem_type || kv->elem_type == TMS_KV_ARRAY)
        return;
    const uint8_t *x = kv->bytes, *y = other->bytes;
    for (uint64_t i = 0; i < kv->count && i < other->count; i++) {
        size_t n, m;
        x = next_element(kv, x, &n);
        y = next_element(other, y, &m);
        if (n != m || memcmp(x, y, n) != 0) {
            tms_buf_printf(to, ", [%llu] is ", (unsigned long long)i);
            if (kv->elem_type == TMS_KV_STRING)
                quote(to, x, n);
            else
                scalar_text(to, kv->elem_type, x);
            return;
        }
        x += n;
        y += m;
    }
}

static void value_text(struct tms_buf *to, const struct tms_kv *kv, const struct tms_kv *other)
{
    if (kv->type == TMS_KV_STRING)
        quote(to, kv->bytes, kv->n_bytes);
    else if (kv->type == TMS_KV_ARRAY)
        array_text(to, kv, other);
    else
        scalar_text(to, kv->type, kv->bytes);
    if (other && other->type != kv->type) tms_buf_printf(to, " (%s)", tms_kv_type_name(kv->type));
    tms_buf_put(to, "", 1);
}

static bool same_value(const struct tms_kv *a, const struct tms_kv *b)
{
    return a->type == b->type && (a->type != TMS_KV_ARRAY || (a->elem_type == b->elem_type && a->count == b->count)) &&
           a->n_bytes == b->n_bytes && (a->n_bytes == 0 || memcmp(a->bytes, b->bytes, a->n_bytes) == 0);
}

static void compare_kv(struct tms_key_list *list, const struct tms_kv *a, const struct tms_kv *b)
{
    struct tms_buf texts[2] = {{0}, {0}};
    if (a) value_text(&texts[0], a, b);
    if (b) value_text(&texts[1], b, a);
    if (texts[0].failed || texts[1].failed)
        list->failed = true;
    else
        add(list, a ? a->key : b->key, (const char *)texts[0].data, (const char *)texts[1].data);
    tms_buf_free(&texts[0]);
    tms_buf_free(&texts[1]);
}

void tms_keys_compare_kvs(struct tms_key_list *list, const struct tms_kvs *a, const struct tms_kvs *b)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct tms_kv *x = &a->items[i], *y = tms_kvs_find(b, x->key);
        if (strncmp(x->key, "split.", 6) != 0 && !(y && same_value(x, y))) compare_kv(list, x, y);
    }
    for (size_t i = 0; i < b->n; i++) {
        const struct tms_kv *y = &b->items[i];
        if (strncmp(y->key, "split.", 6) != 0 && !tms_kvs_find(a, y->key)) compare_kv(list, NULL, y);
    }
}

/* ---- JSON ---- */

static char *json_text(struct tms_key_list *list, const json_t *value)
{
    struct tms_buf cut = {0};
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_SORT_KEYS), *kept = NULL;
    size_t n = text ? strlen(text) : 0;
    if (n <= LONGEST_TEXT) {
        kept = text ? tms_arena_strndup(&list->arena, text, n) : NULL;
    } else {
        size_t shown = LONGEST_TEXT;
        while (shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80) shown--;
        tms_buf_put(&cut, text, shown);
        tms_buf_text(&cut, "…");
        kept = cut.failed ? NULL : tms_arena_strndup(&list->arena, (const char *)cut.data, cut.n);
        tms_buf_free(&cut);
    }
    free(text);
    return kept;
}

static bool is_object(const json_t *value)
{
    return value && json_typeof(value) == JSON_OBJECT;
}

static void compare_members(struct tms_key_list *list, const char *prefix, const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    /* jansson's iterators want objects that are not const; they do not change them */
    for (int side = 0; side < 2; side++) {
        json_object_foreach((json_t *)(uintptr_t)(side ? b : a), key, value)
        {
            const json_t *other = json_object_get(side ? a : b, key);
            if ((side && other) || (other && json_equal(value, other))) continue;
            char *name = tms_arena_printf(&list->arena, "%s%s%s", prefix, *prefix ? "." : "", key);
            if (!name) {
                list->failed = true;
            } else if (is_object(value) && is_object(other)) {
                compare_members(list, name, value, other);
            } else {
                const char *text = json_text(list, value), *there = other ? json_text(list, other) : NULL;
                if (!text || (other && !there)) list->failed = true;
                if (!list->failed) add(list, name, side ? NULL : text, side ? text : there);
            }
        }
    }
}

void tms_keys_compare_json(struct tms_key_list *list, const json_t *a, const json_t *b)
{
    compare_members(list, "", a, b);
}

/* See mem.h. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tms_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

bool tms_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

uint64_t tms_align_up(uint64_t n, uint64_t alignment)
{
    uint64_t rest = n % alignment;
    return rest ? n + (alignment - rest) : n;
}

void *tms_calloc(uint64_t n, uint64_t size)
{
    uint64_t bytes;
    if (!tms_mul_u64(n, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
    return calloc(1, bytes ? (size_t)bytes : 1);
}

void *tms_calloc_lines(uint64_t n, uint64_t size)
{
    uint64_t bytes;
    if (!tms_mul_u64(n, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
    size_t room = (size_t)tms_align_up(bytes ? bytes : 1, 64);
    void *made = aligned_alloc(64, room);
    return made ? memset(made, 0, room) : NULL;
}

bool tms_grow(void *array_pointer, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) return true;
    size_t wanted = *cap < 8 ? 8 : *cap + *cap / 2;
    if (wanted < need) wanted = need;
    if (wanted > SIZE_MAX / 2 / size) return false;
    void *old;
    memcpy(&old, array_pointer, sizeof old);
    void *grown = realloc(old, wanted * size);
    if (!grown) return false;
    memcpy(array_pointer, &grown, sizeof grown);
    *cap = wanted;
    return true;
}

/* ---- arena ---- */

struct tms_arena_chunk {
    struct tms_arena_chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

void *tms_arena_alloc(struct tms_arena *arena, size_t n)
{
    if (n > SIZE_MAX / 4) return NULL;
    size_t need = (n + 15) / 16 * 16;
    struct tms_arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < need) {
        size_t size = chunk ? chunk->size * 2 : 4096;
        if (size > 1u << 20) size = 1u << 20;
        if (size < need) size = need;
        chunk = calloc(1, sizeof *chunk + size);
        if (!chunk) return NULL;
        chunk->size = size;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    void *p = chunk->bytes + chunk->used;
    chunk->used += need;
    return p;
}

char *tms_arena_strndup(struct tms_arena *arena, const char *text, size_t n)
{
    char *copy = tms_arena_alloc(arena, n + 1);
    if (copy) memcpy(copy, text, n);
    return copy;
}

char *tms_arena_printf(struct tms_arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : tms_arena_alloc(arena, (size_t)n + 1);
    if (text) vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

void tms_arena_free(struct tms_arena *arena)
{
    while (arena->chunks) {
        struct tms_arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
}

/* ---- growing buffer ---- */

void tms_buf_zeros(struct tms_buf *buf, size_t n)
{
    if (buf->failed) return;
    if (n > SIZE_MAX - buf->n || !tms_grow(&buf->data, &buf->cap, buf->n + n, 1)) {
        buf->failed = true;
        return;
    }
    if (n) memset(buf->data + buf->n, 0, n);
    buf->n += n;
}

void tms_buf_put(struct tms_buf *buf, const void *bytes, size_t n)
{
    size_t at = buf->n;
    tms_buf_zeros(buf, n);
    if (!buf->failed && n) memcpy(buf->data + at, bytes, n);
}

void tms_buf_u32(struct tms_buf *buf, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    tms_buf_put(buf, b, sizeof b);
}

void tms_buf_u64(struct tms_buf *buf, uint64_t v)
{
    tms_buf_u32(buf, (uint32_t)v);
    tms_buf_u32(buf, (uint32_t)(v >> 32));
}

void tms_buf_text(struct tms_buf *buf, const char *text)
{
    tms_buf_put(buf, text, strlen(text));
}

void tms_buf_printf(struct tms_buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    size_t at = buf->n;
    if (n >= 0) tms_buf_zeros(buf, (size_t)n + 1);
    if (n >= 0 && !buf->failed) {
        vsnprintf((char *)buf->data + at, (size_t)n + 1, format, again);
        buf->n--; /* the NUL is room only */
    }
    va_end(again);
}

void tms_buf_free(struct tms_buf *buf)
{
    free(buf->data);
    *buf = (struct tms_buf){0};
}

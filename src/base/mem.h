/* Memory: checked sizes, an arena for things that die together, a growing byte buffer. */
#ifndef TMS_BASE_MEM_H
#define TMS_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Product or sum of sizes that a file supplied; false on overflow, *out is then untouched. */
bool tms_mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool tms_add_u64(uint64_t a, uint64_t b, uint64_t *out);

/* Smallest multiple of `alignment` (> 0) that is >= n; the caller knows that it fits. */
uint64_t tms_align_up(uint64_t n, uint64_t alignment);

/* n * size bytes, zeroed; NULL if the product overflows or memory is short. Freed with free. */
void *tms_calloc(uint64_t n, uint64_t size);
/* The same at a multiple of 64, a cache line: vectors in it lie in one line each. All of it is touched. */
void *tms_calloc_lines(uint64_t n, uint64_t size);

/* Grows *array (elements of `size` bytes, capacity *cap) so that it holds at least `need`; false if it cannot. */
bool tms_grow(void *array_pointer, size_t *cap, size_t need, size_t size);

/* Everything allocated from an arena is freed with it. Zero-initialize. */
struct tms_arena {
    struct tms_arena_chunk *chunks;
};
void *tms_arena_alloc(struct tms_arena *arena, size_t n); /* zeroed, aligned to 16; NULL if memory is short */
char *tms_arena_strndup(struct tms_arena *arena, const char *text, size_t n);
char *tms_arena_printf(struct tms_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tms_arena_free(struct tms_arena *arena);

/* A byte buffer that grows. A failed allocation sets `failed` and turns all later calls into no-ops, so that a
 * builder checks once, at its end. Zero-initialize; free with tms_buf_free. */
struct tms_buf {
    uint8_t *data;
    size_t n, cap;
    bool failed;
};
void tms_buf_put(struct tms_buf *buf, const void *bytes, size_t n);
void tms_buf_zeros(struct tms_buf *buf, size_t n);
void tms_buf_u32(struct tms_buf *buf, uint32_t v);
void tms_buf_u64(struct tms_buf *buf, uint64_t v);
void tms_buf_text(struct tms_buf *buf, const char *text);
void tms_buf_printf(struct tms_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tms_buf_free(struct tms_buf *buf);

#endif

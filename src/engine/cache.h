/* Keys and values of the tokens seen so far: [layer][sequence][kv head][position][a row].
 *
 * A row is one head's key or value of one position; cache_types.c has the ways in which rows are stored. Types of 8
 * bits and less turn keys and values by an orthonormal Walsh-Hadamard matrix H first, which spreads the few large
 * numbers of a row over all of it: attention turns its queries too, (H q).(H k) = q.k, and turns its result back.
 *
 * The latent of latent attention (DeepSeek) is one head, whose value is the beginning of its key and is stored once;
 * the rest of the key, which is rotated by position, has a type of its own, never below 8 bits.
 *
 * Beside a quantized cache the first tokens of a sequence (where attention sinks lie) and the newest ones can be kept
 * in f16: a query at position p sees the key at j in f16 if j < keep_first or j > p - keep_last, else quantized. Every
 * row is quantized when it comes; the newest wait in a ring, too, which has room for those of a pass and keep_last
 * before it. So what a query sees does not depend on which others are computed with it. */
#ifndef TMS_ENGINE_CACHE_H
#define TMS_ENGINE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tms_cache_form;

enum tms_cache_turns {
    TMS_CACHE_AS_IS,
    TMS_CACHE_HEADS_TURNED, /* but not latents */
    TMS_CACHE_TURNED,
};

/* A row of the table of types. */
struct tms_cache_type {
    const char *name;
    const struct tms_cache_form *form; /* of keys and values */
    const struct tms_cache_form *rope; /* of that part of a latent key which is rotated by position */
    enum tms_cache_turns turns;        /* what is turned by H */
    bool exact;                        /* 16 bits or more: nothing to keep beside it */
};

struct tms_cache_options {
    const struct tms_cache_type *type;
    size_t keep_first, keep_last; /* tokens; 0: none */
};

struct tms_cache_shape {
    size_t n_layers, n_seqs, n_heads;
    size_t capacity;           /* positions of each sequence */
    size_t key_dim, value_dim; /* numbers of a key, of a value */
    bool latent;               /* a value is the first value_dim numbers of its key */
    size_t pass;               /* tokens that are stored before attention looks at them, at most */
};

/* `n` numbers of a row, from `first` on, and where they are stored. */
struct tms_cache_part {
    const struct tms_cache_form *form;
    size_t first, n;
    size_t tile;   /* c8: numbers that share a scale */
    size_t turn;   /* H is made of squares of this many rows; 0: not turned */
    size_t offset; /* bytes */
};

struct tms_cache_row {
    size_t dim, bytes;
    size_t n_parts;
    struct tms_cache_part parts[2];
};

struct tms_cache {
    struct tms_cache_options options;
    struct tms_cache_shape shape;
    struct tms_cache_row key, value; /* value.bytes is 0 if latent */
    uint8_t *keys, *values;          /* values: NULL if latent */
    /* in f16: [layer][sequence][head][slot], the first tokens' slots and then the ring's */
    size_t n_first, ring;
    uint8_t *kept_keys, *kept_values;
    size_t lost; /* positions below it may be gone from the ring */
    uint64_t bytes;
};

/* "f32", "f16", "bf16", "q8_0", "q5_0", "q4_0", "c8"; and to compare with them the last four with ":plain": not turned,
 * scales from the largest number. TMS_EINPUT with the list for other names. */
tms_status tms_cache_type(const char *name, const struct tms_cache_type **out, struct tms_error *err);

/* f32, nothing else. */
struct tms_cache_options tms_cache_exact(void);

/* Whether rows of these sizes can be stored so. TMS_EINPUT names the model, the type and the size. */
tms_status tms_cache_check(const struct tms_cache_options *options, const struct tms_cache_shape *shape,
                           const char *model, struct tms_error *err);
/* What tms_cache_create takes for keys and values; UINT64_MAX if that is no number. */
uint64_t tms_cache_bytes(const struct tms_cache_options *options, const struct tms_cache_shape *shape);
/* Freed with tms_cache_free. */
tms_status tms_cache_create(struct tms_cache **out, const struct tms_cache_options *options,
                            const struct tms_cache_shape *shape, struct tms_error *err);
void tms_cache_free(struct tms_cache *cache);

/* A cache of `capacity` positions (no fewer than before) takes the place of *cache, with the first n_held of them. */
tms_status tms_cache_grow(struct tms_cache **cache, size_t capacity, size_t n_held, struct tms_error *err);

/* Before the tokens of a pass are stored: n of each of n_seqs sequences, from position start on. TMS_EUSAGE if there
 * is no room. */
tms_status tms_cache_begin(struct tms_cache *cache, size_t n_seqs, size_t start, size_t n, struct tms_error *err);
/* How many of the first n positions can stay when those behind are forgotten; fewer where the newest of them have left
 * the ring. */
size_t tms_cache_rewind(const struct tms_cache *cache, size_t n);

/* A row, as an index of [layer][sequence][head]. */
static inline size_t tms_cache_head(const struct tms_cache *c, size_t layer, size_t seq, size_t head)
{
    return (layer * c->shape.n_seqs + seq) * c->shape.n_heads + head;
}

/* Stores one head's key and value; both are turned in place. The value of a latent is not looked at. Safe for different
 * heads or positions at the same time. */
void tms_cache_store(struct tms_cache *cache, size_t head, size_t position, float *key, float *value);

/* Reading, for attention. Rows of `width` floats (dim rounded up to a multiple of 16; padded with zeros): n keys or
 * values from a position on. They are decoded into `room`, or lie in the cache as they are: what is returned. */
const float *tms_cache_keys(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room);
const float *tms_cache_values(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room);
/* The same from those kept in f16. Rows that are not kept come as any finite numbers. */
void tms_cache_kept_keys(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room);
void tms_cache_kept_values(const struct tms_cache *cache, size_t head, size_t position, size_t n, float *room);
static inline bool tms_cache_is_kept(const struct tms_cache *c, size_t key, size_t query)
{
    return key < c->options.keep_first || key + c->options.keep_last > query;
}

/* Turns a query as keys are, or a weighted sum of values back: H is its own inverse. */
void tms_cache_turn(const struct tms_cache_row *row, float *x);

/* cache_types.c: how rows of `dim` numbers are stored. latent: the first `latent` of them are the latent; 0: none. */
struct tms_cache_row tms_cache_row_of(const struct tms_cache_type *type, size_t dim, size_t latent);
/* The size of a part that its form cannot store, and the sizes that it can; 0 if all is well. */
size_t tms_cache_row_misfit(const struct tms_cache_row *row, size_t *multiple);
void tms_cache_encode(const struct tms_cache_row *row, const float *x, uint8_t *to);
/* n rows, one behind the other, to rows of `width` floats. */
void tms_cache_decode(const struct tms_cache_row *row, const uint8_t *from, size_t n, float *to, size_t width);

#endif

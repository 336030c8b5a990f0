/* Look-up tables of tokenizers: texts to ids, beginnings of texts to ids, pairs of ids to merges. Open addressing,
 * filled once. */
#ifndef TMS_MODEL_TOKEN_TABLES_H
#define TMS_MODEL_TOKEN_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

/* Texts, each with an id from 0 to 2^31 - 2. Zero-initialize. */
struct tms_text_table {
    struct tms_text_slot {
        uint32_t offset, n; /* in bytes.data */
        int32_t id;         /* plus 1: 0 is an empty slot */
        uint32_t hash;
    } * slots;
    size_t n_slots, n; /* n_slots: a power of two */
    struct tms_buf bytes;
};
/* The first id that a text gets stays. False if memory is short. */
bool tms_text_table_put(struct tms_text_table *table, const void *text, size_t n, int32_t id);
/* -1 if it is not there. */
int32_t tms_text_table_find(const struct tms_text_table *table, const void *text, size_t n);
void tms_text_table_free(struct tms_text_table *table);

/* A trie over bytes. Node 0 is the root. Zero-initialize. */
struct tms_trie {
    struct tms_trie_edge {
        uint64_t key; /* node << 8 | byte, plus 1: 0 is an empty slot */
        uint32_t to;
    } * edges;
    size_t n_slots, n_edges;
    int32_t *ids; /* [n_edges + 1]: of the text that ends at a node; -1: none does */
    size_t cap_ids;
};
#define TMS_NO_NODE UINT32_MAX
bool tms_trie_put(struct tms_trie *trie, const void *text, size_t n, int32_t id);
/* The node behind a byte, or TMS_NO_NODE. */
uint32_t tms_trie_next(const struct tms_trie *trie, uint32_t node, uint8_t byte);
void tms_trie_free(struct tms_trie *trie);

/* Merges: pairs of ids, each with its rank and the id that it makes. Zero-initialize. */
struct tms_pair_table {
    struct tms_pair_slot {
        uint64_t key; /* left << 32 | right, plus 1: 0 is an empty slot */
        uint32_t rank, id;
    } * slots;
    size_t n_slots, n;
};
/* A pair that is there already gets the new rank if `replace`. */
bool tms_pair_table_put(struct tms_pair_table *table, int32_t left, int32_t right, uint32_t rank, int32_t id,
                        bool replace);
/* NULL if it is not there. */
const struct tms_pair_slot *tms_pair_table_find(const struct tms_pair_table *table, int32_t left, int32_t right);
void tms_pair_table_free(struct tms_pair_table *table);

/* A good mix of 64 bits (the finalizer of MurmurHash3). */
static inline uint64_t tms_mix(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ x >> 33;
}

#endif

/* See token_tables.h. Tables are at most half full. */
#include "model/token_tables.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Whether a table of n_slots takes one more; *wanted is the size that would. */
static bool has_room(size_t n_slots, size_t n, size_t *wanted)
{
    *wanted = n_slots ? n_slots * 2 : 64;
    return (n + 1) * 2 <= n_slots;
}

/* ---- texts ---- */

static size_t text_slot(const struct tms_text_table *table, const void *text, size_t n, uint32_t hash)
{
    size_t i = hash & (table->n_slots - 1);
    for (;; i = (i + 1) & (table->n_slots - 1)) {
        const struct tms_text_slot *slot = &table->slots[i];
        if (!slot->id) return i;
        if (slot->hash == hash && slot->n == n && memcmp(table->bytes.data + slot->offset, text, n) == 0) return i;
    }
}

static bool grow_texts(struct tms_text_table *table)
{
    size_t wanted;
    if (has_room(table->n_slots, table->n, &wanted)) return true;
    struct tms_text_slot *old = table->slots, *slots = tms_calloc(wanted, sizeof *slots);
    if (!slots) return false;
    for (size_t s = 0; s < table->n_slots; s++) {
        if (!old[s].id) continue;
        size_t i = old[s].hash & (wanted - 1);
        while (slots[i].id) i = (i + 1) & (wanted - 1);
        slots[i] = old[s];
    }
    free(old);
    table->slots = slots;
    table->n_slots = wanted;
    return true;
}

bool tms_text_table_put(struct tms_text_table *table, const void *text, size_t n, int32_t id)
{
    uint32_t hash = (uint32_t)XXH3_64bits(text, n);
    if (n > UINT32_MAX - table->bytes.n || !grow_texts(table)) return false;
    struct tms_text_slot *slot = &table->slots[text_slot(table, text, n, hash)];
    if (slot->id) return true;
    *slot = (struct tms_text_slot){(uint32_t)table->bytes.n, (uint32_t)n, id + 1, hash};
    table->n++;
    tms_buf_put(&table->bytes, text, n);
    tms_buf_put(&table->bytes, "", 1); /* never NULL */
    return !table->bytes.failed;
}

int32_t tms_text_table_find(const struct tms_text_table *table, const void *text, size_t n)
{
    if (!table->n) return -1;
    return table->slots[text_slot(table, text, n, (uint32_t)XXH3_64bits(text, n))].id - 1;
}

void tms_text_table_free(struct tms_text_table *table)
{
    free(table->slots);
    tms_buf_free(&table->bytes);
    *table = (struct tms_text_table){0};
}

/* ---- beginnings ---- */

static bool grow_edges(struct tms_trie *trie)
{
    size_t wanted;
    if (has_room(trie->n_slots, trie->n_edges, &wanted)) return true;
    struct tms_trie_edge *old = trie->edges, *edges = tms_calloc(wanted, sizeof *edges);
    if (!edges) return false;
    for (size_t s = 0; s < trie->n_slots; s++) {
        if (!old[s].key) continue;
        size_t i = tms_mix(old[s].key) & (wanted - 1);
        while (edges[i].key) i = (i + 1) & (wanted - 1);
        edges[i] = old[s];
    }
    free(old);
    trie->edges = edges;
    trie->n_slots = wanted;
    return true;
}

uint32_t tms_trie_next(const struct tms_trie *trie, uint32_t node, uint8_t byte)
{
    uint64_t key = ((uint64_t)node << 8 | byte) + 1;
    if (!trie->n_slots) return TMS_NO_NODE;
    for (size_t i = tms_mix(key) & (trie->n_slots - 1);; i = (i + 1) & (trie->n_slots - 1)) {
        if (trie->edges[i].key == key) return trie->edges[i].to;
        if (!trie->edges[i].key) return TMS_NO_NODE;
    }
}

bool tms_trie_put(struct tms_trie *trie, const void *text, size_t n, int32_t id)
{
    const uint8_t *bytes = text;
    uint32_t node = 0;
    if (!tms_grow(&trie->ids, &trie->cap_ids, trie->n_edges + n + 1, sizeof *trie->ids)) return false;
    if (!trie->n_edges) trie->ids[0] = -1;
    for (size_t b = 0; b < n; b++) {
        uint32_t next = tms_trie_next(trie, node, bytes[b]);
        if (next == TMS_NO_NODE) {
            if (trie->n_edges >= UINT32_MAX - 2 || !grow_edges(trie)) return false;
            uint64_t key = ((uint64_t)node << 8 | bytes[b]) + 1;
            size_t i = tms_mix(key) & (trie->n_slots - 1);
            while (trie->edges[i].key) i = (i + 1) & (trie->n_slots - 1);
            next = (uint32_t)++trie->n_edges;
            trie->edges[i] = (struct tms_trie_edge){key, next};
            trie->ids[next] = -1;
        }
        node = next;
    }
    trie->ids[node] = id;
    return true;
}

void tms_trie_free(struct tms_trie *trie)
{
    free(trie->edges);
    free(trie->ids);
    *trie = (struct tms_trie){0};
}

/* ---- pairs ---- */

static uint64_t pair_key(int32_t left, int32_t right)
{
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
}

static bool grow_pairs(struct tms_pair_table *table)
{
    size_t wanted;
    if (has_room(table->n_slots, table->n, &wanted)) return true;
    struct tms_pair_slot *old = table->slots, *slots = tms_calloc(wanted, sizeof *slots);
    if (!slots) return false;
    for (size_t s = 0; s < table->n_slots; s++) {
        if (!old[s].key) continue;
        size_t i = tms_mix(old[s].key) & (wanted - 1);
        while (slots[i].key) i = (i + 1) & (wanted - 1);
        slots[i] = old[s];
    }
    free(old);
    table->slots = slots;
    table->n_slots = wanted;
    return true;
}

bool tms_pair_table_put(struct tms_pair_table *table, int32_t left, int32_t right, uint32_t rank, int32_t id,
                        bool replace)
{
    uint64_t key = pair_key(left, right);
    if (!grow_pairs(table)) return false;
    size_t i = tms_mix(key) & (table->n_slots - 1);
    while (table->slots[i].key && table->slots[i].key != key) i = (i + 1) & (table->n_slots - 1);
    if (table->slots[i].key && !replace) return true;
    table->n += !table->slots[i].key;
    table->slots[i] = (struct tms_pair_slot){key, rank, (uint32_t)id};
    return true;
}

const struct tms_pair_slot *tms_pair_table_find(const struct tms_pair_table *table, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    if (!table->n) return NULL;
    for (size_t i = tms_mix(key) & (table->n_slots - 1);; i = (i + 1) & (table->n_slots - 1)) {
        if (table->slots[i].key == key) return &table->slots[i];
        if (!table->slots[i].key) return NULL;
    }
}

void tms_pair_table_free(struct tms_pair_table *table)
{
    free(table->slots);
    *table = (struct tms_pair_table){0};
}

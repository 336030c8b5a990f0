/* From words to ids: the models.
 *
 * MERGES   byte-pair encoding: of all neighbours that a merge joins, those of the lowest rank, the leftmost first.
 * SCORES   SentencePiece's BPE: of all neighbours whose joint text is a piece, those of the highest score.
 * UNIGRAM  the pieces with the highest sum of scores (log probabilities), by dynamic programming.
 *
 * The first two keep their symbols in a list. Short words look at all pairs for each merge; long ones keep a heap of
 * (rank, place), so that a word of n symbols takes n log n steps: texts without a pre-tokenizer are one word. */
#include <string.h>

#include "base/numbers.h"
#include "model/tokenize_parts.h"

#define SHORT 48u /* symbols; measured: from about here on the heap is faster */

static tms_status no_memory(struct tms_error *err, size_t n)
{
    return tms_fail_memory(err, n * sizeof(struct tms_symbol));
}

/* ---- the first symbols ---- */

static bool put_symbol(struct tms_tokenizer *t, size_t *n, int32_t id, size_t begin, size_t length)
{
    if (*n == t->cap_symbols && !tms_grow(&t->symbols, &t->cap_symbols, *n + 1, sizeof *t->symbols)) return false;
    t->symbols[(*n)++] = (struct tms_symbol){.id = id, .begin = (uint32_t)begin, .n = (uint32_t)length};
    return true;
}

static bool has_all_bytes(const struct tms_tokenizer *t, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (t->byte_ids[bytes[i]] < 0) return false;
    return true;
}

/* One symbol per byte (byte-level) or character; characters without a token become bytes, or unknown, or nothing. */
static bool first_symbols(struct tms_tokenizer *t, const uint8_t *word, size_t n, size_t *n_symbols)
{
    *n_symbols = 0;
    if (t->byte_level) {
        for (size_t i = 0; i < n; i++) {
            int32_t id = t->byte_ids[word[i]];
            if (id < 0) id = t->unknown;
            if (id >= 0 && !put_symbol(t, n_symbols, id, i, 1)) return false;
        }
        return true;
    }
    bool after_unknown = false;
    for (size_t i = 0; i < n;) {
        const uint8_t *at = word + i;
        (void)tms_next_code(&at);
        size_t length = (size_t)(at - word) - i;
        int32_t id = tms_text_table_find(&t->by_text, word + i, length);
        bool is_unknown = false;
        if (id >= 0) {
            if (!put_symbol(t, n_symbols, id, i, length)) return false;
        } else if (t->byte_fallback && has_all_bytes(t, word + i, length)) {
            for (size_t b = 0; b < length; b++)
                if (!put_symbol(t, n_symbols, t->byte_ids[word[i + b]], i + b, 1)) return false;
        } else if (t->unknown >= 0) {
            is_unknown = true;
            if (after_unknown && t->fuse_unknown)
                t->symbols[*n_symbols - 1].n += (uint32_t)length;
            else if (!put_symbol(t, n_symbols, t->unknown, i, length))
                return false;
        }
        after_unknown = is_unknown;
        i += length;
    }
    return true;
}

/* ---- joining neighbours ---- */

/* Orders finite scores as ranks, the highest first: floats of one sign order as their bits do. Never UINT32_MAX. */
static uint32_t rank_of_score(float score)
{
    uint32_t bits = tms_f32_bits(score + 0.0f); /* -0 is 0 */
    return bits >> 31 ? bits : ~(bits | UINT32_C(1) << 31);
}

/* What symbol i and the next one make. */
static void look(struct tms_tokenizer *t, const uint8_t *word, uint32_t i)
{
    struct tms_symbol *s = &t->symbols[i];
    s->rank = UINT32_MAX;
    if (s->next == TMS_NO_SYMBOL) return;
    const struct tms_symbol *right = &t->symbols[s->next];
    if (t->model == TMS_MODEL_MERGES) {
        const struct tms_pair_slot *pair = tms_pair_table_find(&t->merges, s->id, right->id);
        if (!pair) return;
        s->rank = pair->rank;
        s->merged = (int32_t)pair->id;
        return;
    }
    size_t n = (size_t)s->n + right->n;
    int32_t id = n <= t->longest ? tms_text_table_find(&t->by_text, word + s->begin, n) : -1;
    if (id < 0 || t->no_piece[id] == 1) return;
    s->rank = rank_of_score(t->scores[id]);
    s->merged = id;
}

/* Symbol i takes the next one in. */
static void join(struct tms_tokenizer *t, uint32_t i)
{
    struct tms_symbol *s = &t->symbols[i], *right = &t->symbols[s->next];
    s->id = s->merged;
    s->n += right->n;
    s->next = right->next;
    right->n = 0;
    right->rank = UINT32_MAX;
    if (s->next != TMS_NO_SYMBOL) t->symbols[s->next].previous = i;
}

static void merge_short(struct tms_tokenizer *t, const uint8_t *word, size_t n)
{
    for (;;) {
        uint32_t best = 0, rank = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++)
            if (t->symbols[i].rank < rank) best = i, rank = t->symbols[i].rank;
        if (rank == UINT32_MAX) return;
        join(t, best);
        look(t, word, best);
        if (t->symbols[best].previous != TMS_NO_SYMBOL) look(t, word, t->symbols[best].previous);
    }
}

/* A binary heap of rank << 32 | place, the least on top. */
static bool push(struct tms_tokenizer *t, size_t *n, uint32_t i)
{
    if (t->symbols[i].rank == UINT32_MAX) return true;
    if (*n == t->cap_heap && !tms_grow(&t->heap, &t->cap_heap, *n + 1, sizeof *t->heap)) return false;
    uint64_t key = (uint64_t)t->symbols[i].rank << 32 | i;
    size_t at = (*n)++;
    for (; at && t->heap[(at - 1) / 2] > key; at = (at - 1) / 2) t->heap[at] = t->heap[(at - 1) / 2];
    t->heap[at] = key;
    return true;
}

static uint64_t pop(struct tms_tokenizer *t, size_t *n)
{
    uint64_t top = t->heap[0], key = t->heap[--*n];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < *n; at = child) {
        if (child + 1 < *n && t->heap[child + 1] < t->heap[child]) child++;
        if (t->heap[child] >= key) break;
        t->heap[at] = t->heap[child];
    }
    t->heap[at] = key;
    return top;
}

static bool merge_long(struct tms_tokenizer *t, const uint8_t *word, size_t n)
{
    size_t n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!push(t, &n_heap, i)) return false;
    while (n_heap) {
        uint64_t top = pop(t, &n_heap);
        uint32_t i = (uint32_t)top, previous;
        if (!t->symbols[i].n || t->symbols[i].rank != top >> 32) continue; /* it changed since it was put there */
        join(t, i);
        look(t, word, i);
        previous = t->symbols[i].previous;
        if (previous != TMS_NO_SYMBOL) look(t, word, previous);
        if (!push(t, &n_heap, i) || (previous != TMS_NO_SYMBOL && !push(t, &n_heap, previous))) return false;
    }
    return true;
}

/* Bytes of a text that is no token. */
static bool put_bytes(const struct tms_tokenizer *t, const uint8_t *text, size_t n, struct tms_ids *out)
{
    if (!has_all_bytes(t, text, n)) return t->unknown < 0 || tms_put_id(out, t->unknown);
    for (size_t i = 0; i < n; i++)
        if (!tms_put_id(out, t->byte_ids[text[i]])) return false;
    return true;
}

/* The ids of what the symbols became. SCORES: a symbol that never joined may be no token at all. */
static bool put_symbols(const struct tms_tokenizer *t, const uint8_t *word, size_t n, struct tms_ids *out)
{
    for (uint32_t i = n ? 0 : TMS_NO_SYMBOL; i != TMS_NO_SYMBOL; i = t->symbols[i].next) {
        const struct tms_symbol *s = &t->symbols[i];
        if (s->id >= 0 ? !tms_put_id(out, s->id) : !put_bytes(t, word + s->begin, s->n, out)) return false;
    }
    return true;
}

static tms_status merge_word(struct tms_tokenizer *t, const uint8_t *word, size_t n, struct tms_ids *out,
                             struct tms_error *err)
{
    size_t n_symbols = 0;
    if (t->model == TMS_MODEL_MERGES) {
        if (!first_symbols(t, word, n, &n_symbols)) return no_memory(err, n);
    } else {
        for (size_t i = 0; i < n;) { /* characters, tokens or not */
            const uint8_t *at = word + i;
            (void)tms_next_code(&at);
            size_t length = (size_t)(at - word) - i;
            int32_t id = tms_text_table_find(&t->by_text, word + i, length);
            if (id >= 0 && t->no_piece[id] == 1) id = -1;
            if (!put_symbol(t, &n_symbols, id, i, length)) return no_memory(err, n);
            i += length;
        }
    }
    for (uint32_t i = 0; i < n_symbols; i++) {
        t->symbols[i].previous = i ? i - 1 : TMS_NO_SYMBOL;
        t->symbols[i].next = i + 1 < n_symbols ? i + 1 : TMS_NO_SYMBOL;
    }
    for (uint32_t i = 0; i < n_symbols; i++) look(t, word, i);
    if (n_symbols <= SHORT)
        merge_short(t, word, n_symbols);
    else if (!merge_long(t, word, n_symbols))
        return no_memory(err, n);
    return put_symbols(t, word, n_symbols, out) ? TMS_OK : no_memory(err, n);
}

/* ---- unigram ---- */

static tms_status best_path(struct tms_tokenizer *t, const uint8_t *word, size_t n, struct tms_error *err)
{
    if (!tms_grow(&t->lattice, &t->cap_lattice, n + 1, sizeof *t->lattice))
        return tms_fail_memory(err, (n + 1) * sizeof *t->lattice);
    struct tms_lattice_node *nodes = t->lattice;
    for (size_t i = 0; i <= n; i++) nodes[i] = (struct tms_lattice_node){.id = -1};
    nodes[0].reached = true;
    for (size_t i = 0; i < n;) {
        const uint8_t *after = word + i;
        (void)tms_next_code(&after);
        size_t character = (size_t)(after - word) - i;
        bool whole = false; /* a token stands for this character alone */
        uint32_t node = 0;
        for (size_t end = i; end < n;) {
            node = tms_trie_next(&t->trie, node, word[end++]);
            if (node == TMS_NO_NODE) break;
            int32_t id = t->trie.ids[node];
            if (id < 0) continue;
            double score = nodes[i].score + (double)t->scores[id];
            if (!nodes[end].reached || score > nodes[end].score)
                nodes[end] = (struct tms_lattice_node){score, (uint32_t)i, id, true};
            whole |= end == i + character;
        }
        if (!whole) {
            struct tms_lattice_node *next = &nodes[i + character];
            double score = nodes[i].score + t->unknown_score;
            if (!next->reached || score > next->score) *next = (struct tms_lattice_node){score, (uint32_t)i, -1, true};
        }
        i += character;
    }
    return TMS_OK;
}

static tms_status unigram_word(struct tms_tokenizer *t, const uint8_t *word, size_t n, struct tms_ids *out,
                               struct tms_error *err)
{
    tms_status status = best_path(t, word, n, err);
    if (status != TMS_OK) return status;
    /* The path backwards, then forwards: `reached` marks the ends of its tokens. */
    struct tms_lattice_node *nodes = t->lattice;
    for (size_t i = 0; i <= n; i++) nodes[i].reached = false;
    for (size_t end = n; end > 0; end = nodes[end].begin) nodes[end].reached = true;
    bool after_unknown = false, done = true;
    for (size_t end = 1; end <= n && done; end++) {
        if (!nodes[end].reached) continue;
        size_t begin = nodes[end].begin;
        if (nodes[end].id >= 0) {
            done = tms_put_id(out, nodes[end].id);
            after_unknown = false;
        } else if (t->byte_fallback) {
            done = put_bytes(t, word + begin, end - begin, out);
        } else {
            if (t->unknown >= 0 && !(after_unknown && t->fuse_unknown)) done = tms_put_id(out, t->unknown);
            after_unknown = true;
        }
    }
    return done ? TMS_OK : no_memory(err, n);
}

static tms_status run_model(struct tms_tokenizer *t, const uint8_t *word, size_t n, struct tms_ids *out,
                            struct tms_error *err)
{
    if (t->model == TMS_MODEL_UNIGRAM) return unigram_word(t, word, n, out, err);
    if (t->whole_words) {
        int32_t id = tms_text_table_find(&t->by_text, word, n);
        if (id >= 0) return tms_put_id(out, id) ? TMS_OK : no_memory(err, n);
    }
    return merge_word(t, word, n, out, err);
}

tms_status tms_tokenize_word(struct tms_tokenizer *t, const uint8_t *word, size_t n, struct tms_ids *out,
                             struct tms_error *err)
{
    struct tms_known_word *known = NULL;
    uint32_t hash = 0;
    if (n == 0) return TMS_OK;
    if (n <= sizeof known->text) {
        hash = 2166136261u; /* FNV-1a, then mixed: words are short */
        for (size_t i = 0; i < n; i++) hash = (hash ^ word[i]) * 16777619u;
        hash ^= hash >> 15;
        known = &t->known[hash % TMS_KNOWN_WORDS];
        if (known->n == n && known->hash == hash && memcmp(known->text, word, n) == 0) {
            size_t n_ids = known->n_ids;
            if (!tms_grow(out->ids, out->cap, *out->n + n_ids, sizeof **out->ids)) return no_memory(err, n_ids);
            for (size_t i = 0; i < n_ids; i++) (*out->ids)[(*out->n)++] = known->ids[i];
            return TMS_OK;
        }
    }
    size_t before = *out->n;
    tms_status status = run_model(t, word, n, out, err);
    size_t n_ids = *out->n - before;
    if (status == TMS_OK && known && n_ids <= sizeof known->ids / sizeof *known->ids) {
        known->hash = hash;
        known->n = (uint8_t)n;
        known->n_ids = (uint8_t)n_ids;
        memcpy(known->text, word, n);
        for (size_t i = 0; i < n_ids; i++) known->ids[i] = (*out->ids)[before + i];
    }
    return status;
}

/* What the parts of tokenize.h share: a tokenizer as it is kept, and its stages. Loaders (tokenize_json.c,
 * tokenize_gguf.c, tokenize_spm.c) fill it in; tokenize.c runs it. */
#ifndef TMS_MODEL_TOKENIZE_PARTS_H
#define TMS_MODEL_TOKENIZE_PARTS_H

#include <jansson.h>

#include "file/kvs.h"
#include "file/utf8.h"
#include "model/expression.h"
#include "model/token_tables.h"
#include "model/tokenize.h"
#include "model/vocab.h"

#define TMS_BLOCK       "\xe2\x96\x81" /* U+2581, SentencePiece's space */
#define TMS_MAX_ADDED   4096           /* bytes of an added token's text */
#define TMS_MAX_STEPS   64             /* of a normalizer or a pre-tokenizer */
#define TMS_MAX_ENCODED UINT32_MAX     /* bytes of one text */

/* ---- normalizer ---- */

struct tms_normalizer_step {
    enum {
        TMS_STEP_NORMAL_FORM,
        TMS_STEP_REPLACE,            /* text by text */
        TMS_STEP_REPLACE_EXPRESSION, /* what an expression matches by text */
        TMS_STEP_PREPEND,            /* text to a text that is not empty */
        TMS_STEP_APPEND,
        TMS_STEP_STRIP,
        TMS_STEP_JOIN_SPACES, /* runs of spaces become one; none at either end (SentencePiece) */
        TMS_STEP_SPACE_WORDS, /* spaces of llama.cpp's unigram: left puts one first, right joins */
        TMS_STEP_CHARSMAP,    /* the longest entry of a SentencePiece charsmap at every place */
    } kind;
    struct tms_normal_form form;
    const char *from, *to; /* in the arena */
    size_t n_from, n_to;
    size_t expression;
    bool left, right; /* STRIP, SPACE_WORDS */
};

/* ---- pre-tokenizer ---- */

enum tms_cut_behaviour { TMS_CUT_ISOLATED, TMS_CUT_REMOVED, TMS_CUT_TO_PREVIOUS, TMS_CUT_TO_NEXT, TMS_CUT_CONTIGUOUS };

struct tms_cut_step {
    enum {
        TMS_CUT_EXPRESSION,
        TMS_CUT_METASPACE,    /* spaces become blocks, perhaps one more first; perhaps cut before each */
        TMS_CUT_SPACE_FIRST,  /* a space before every piece that has none */
        TMS_CUT_BYTE_LETTERS, /* bytes become the letters of GPT-2's byte alphabet (only if steps follow) */
    } kind;
    size_t expression;
    enum tms_cut_behaviour behaviour;
    bool invert; /* what lies between the matches counts as matches */
    enum { TMS_BLOCK_NEVER, TMS_BLOCK_FIRST, TMS_BLOCK_ALWAYS } block;
    bool cut; /* METASPACE */
};

/* ---- vocabulary ---- */

enum {
    TMS_SHOWN_SPECIAL = 1, /* control tokens */
    TMS_SHOWN_ADDED = 2,   /* added tokens: their text is as typed */
    TMS_SHOWN_BYTE = 4,    /* "<0x0A>" */
    TMS_SHOWN_THERE = 8,   /* the id has a token */
};
struct tms_shown {
    uint32_t offset, n; /* in texts: bytes where the vocabulary is byte-level, else SentencePiece's text */
    uint8_t flags;      /* TMS_SHOWN_* */
    uint8_t byte;
};

struct tms_added_token {
    uint32_t offset, n; /* in added_texts */
    int32_t id;
    bool special, single_word, left_strip, right_strip;
};

struct tms_ids {
    int32_t **ids;
    size_t *n, *cap;
};
static inline bool tms_put_id(struct tms_ids *out, int32_t id)
{
    if (*out->n == *out->cap && !tms_grow(out->ids, out->cap, *out->n + 1, sizeof **out->ids)) return false;
    (*out->ids)[(*out->n)++] = id;
    return true;
}

/* A piece of a text, in characters: [begin, end). */
struct tms_cut {
    uint32_t begin, end;
};

/* A symbol of a word while it is merged: a node of a list. */
struct tms_symbol {
    int32_t id, merged; /* merged: the id that it and the next one make */
    uint32_t rank;      /* of that; UINT32_MAX: they make none */
    uint32_t previous, next;
    uint32_t begin, n; /* bytes of the word; n = 0: gone into its left neighbour */
};

#define TMS_NO_SYMBOL UINT32_MAX

struct tms_lattice_node {
    double score;
    uint32_t begin; /* of the best token that ends here */
    int32_t id;     /* -1: unknown */
    bool reached;
};

/* A word and its ids, if both are short: 64 bytes. */
struct tms_known_word {
    uint32_t hash;
    uint8_t n, n_ids; /* n = 0: nothing here */
    uint8_t text[30];
    int32_t ids[7];
};
#define TMS_KNOWN_WORDS 65536u

struct tms_tokenizer {
    const char *where; /* the file, for messages */
    struct tms_arena arena;

    /* vocabulary */
    uint64_t n;
    struct tms_shown *shown; /* [n] */
    struct tms_buf texts;
    struct tms_text_table by_text; /* of the model, without added tokens that are not in it */
    int32_t byte_ids[256];         /* byte-level: of single bytes; else of "<0x..>"; -1: none */
    bool byte_level;

    /* added tokens */
    struct tms_added_token *added;
    size_t n_added, cap_added;
    struct tms_buf added_texts;
    struct tms_trie added_raw, added_normalized; /* ids are indices of `added` */
    bool starts_raw[256], starts_normalized[256];

    struct tms_normalizer_step normalizer[TMS_MAX_STEPS];
    size_t n_normalizer;
    struct tms_cut_step cuts[TMS_MAX_STEPS];
    size_t n_cuts;
    struct tms_expressions *expressions;
    bool cut_at_blocks; /* no token has a block behind another character: words end there */

    /* the model */
    enum { TMS_MODEL_MERGES, TMS_MODEL_SCORES, TMS_MODEL_UNIGRAM } model;
    bool whole_words; /* ignore_merges */
    bool byte_fallback, fuse_unknown;
    int32_t unknown; /* -1: what is unknown is left out */
    struct tms_pair_table merges;
    float *scores;        /* [n] */
    uint8_t *no_piece;    /* [n]: SCORES, UNIGRAM: ids that a text never gives (control, unused) */
    struct tms_trie trie; /* UNIGRAM */
    double unknown_score;
    size_t longest; /* bytes of a token's text */

    /* what the file puts around a text */
    int32_t *before, *after;
    size_t n_before, n_after;

    /* special tokens */
    int32_t bos, eos;
    bool add_bos, add_eos;
    int32_t *ends;
    size_t n_ends, cap_ends;

    /* decoder */
    bool blocks_are_spaces;
    bool strip_first_space;  /* one space at the start of a text goes */
    bool strip_first_blocks; /* all blocks of the first token go (Metaspace) */
    bool runs_are_whole;     /* ByteFallback: a run of byte tokens is UTF-8 or one U+FFFD per byte */
    bool spaces_between;     /* no decoder: tokens are joined by spaces */

    /* room that encoding uses again */
    struct tms_known_word *known; /* [TMS_KNOWN_WORDS] */
    struct tms_buf clean, normal[2], stage[2], word;
    uint8_t *kinds;
    uint32_t *at; /* [characters + 1]: byte offsets */
    size_t cap_kinds, cap_at;
    struct tms_cut *pieces[2];
    size_t n_pieces[2], cap_pieces[2];
    struct tms_symbol *symbols;
    size_t cap_symbols;
    uint64_t *heap;
    size_t cap_heap;
    struct tms_lattice_node *lattice;
    size_t cap_lattice;
};

/* ---- loading (each fills a zeroed tokenizer) ---- */

tms_status tms_tokenize_load_json(struct tms_tokenizer *t, const struct tms_tokenizer_files *files,
                                  struct tms_error *err);
tms_status tms_tokenize_load_spm(struct tms_tokenizer *t, const struct tms_tokenizer_files *files,
                                 struct tms_error *err);
tms_status tms_tokenize_load_gguf(struct tms_tokenizer *t, const struct tms_kvs *kvs, struct tms_error *err);

/* n ids, none of them with a token; n <= TMS_VOCAB_MAX. */
tms_status tms_tokenize_init(struct tms_tokenizer *t, uint64_t n, struct tms_error *err);
/* Gives id (< n) its text. False if memory is short. */
bool tms_tokenize_show(struct tms_tokenizer *t, uint64_t id, const void *text, size_t n, unsigned flags);
/* Bytes of text spelled in the byte alphabet; false if it has other letters. */
bool tms_bytes_of_letters(struct tms_buf *out, const void *text, size_t n);
/* Adds a token to look for in texts. */
tms_status tms_tokenize_add(struct tms_tokenizer *t, const struct tms_added_token *token, const void *text, size_t n,
                            bool normalized, struct tms_error *err);
/* A step with the expression of n bytes. */
tms_status tms_tokenize_cut_at(struct tms_tokenizer *t, const char *expression, size_t n,
                               enum tms_cut_behaviour behaviour, bool invert, struct tms_error *err);
tms_status tms_tokenize_add_cut(struct tms_tokenizer *t, const struct tms_cut_step *step, struct tms_error *err);
tms_status tms_tokenize_add_normalizer(struct tms_tokenizer *t, const struct tms_normalizer_step *step,
                                       struct tms_error *err);
/* A step with the n bytes of SentencePiece's precompiled_charsmap (tokenize_charsmap.c). */
tms_status tms_tokenize_add_charsmap(struct tms_tokenizer *t, const void *bytes, size_t n, struct tms_error *err);
bool tms_tokenize_add_end(struct tms_tokenizer *t, uint64_t id);
/* Puts bos and eos around texts where add_bos and add_eos say so. */
bool tms_tokenize_surround(struct tms_tokenizer *t);
/* The id of "<0x41>" for a text of this form, else -1. */
int tms_byte_of_text(const void *text, size_t n);

/* ---- running ---- */

/* Appends the normalized text (UTF-8) to out, which is empty. */
tms_status tms_tokenize_normalize(struct tms_tokenizer *t, const uint8_t *text, size_t n, struct tms_buf *out,
                                  struct tms_error *err);
/* Appends a text as a CHARSMAP step has it. */
void tms_tokenize_map(const struct tms_normalizer_step *step, const uint8_t *text, size_t n, struct tms_buf *out);
/* Appends the ids of a stretch without added tokens. `first`: it is the start of the whole text. */
tms_status tms_tokenize_cut(struct tms_tokenizer *t, const uint8_t *text, size_t n, bool first, struct tms_ids *out,
                            struct tms_error *err);
/* Appends the ids of one word. */
tms_status tms_tokenize_word(struct tms_tokenizer *t, const uint8_t *word, size_t n, struct tms_ids *out,
                             struct tms_error *err);

#endif

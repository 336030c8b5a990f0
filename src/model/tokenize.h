/* Tokenizers that run: text to token ids and back.
 *
 * One comes from a Hugging Face folder (tokenizer.json, else tokenizer.model; with tokenizer_config.json) or from the
 * keys of a GGUF file. The way of a text, after the library `tokenizers`, whose ids these are:
 *
 *     text -> added tokens cut out -> normalizer -> more added tokens -> pre-tokenizer: words -> model: ids
 *
 * A tokenizer is used by one thread at a time: it keeps the ids of words that it has seen. */
#ifndef TMS_MODEL_TOKENIZE_H
#define TMS_MODEL_TOKENIZE_H

#include "base/mem.h"
#include "model/source.h"

struct tms_tokenizer;

tms_status tms_tokenizer_open(struct tms_tokenizer **out, const struct tms_source *source, struct tms_error *err);
/* The same for a path: a folder, which needs no more than tokenizer files, or a GGUF file, which needs no tensors. */
tms_status tms_tokenizer_open_path(struct tms_tokenizer **out, const char *path, struct tms_error *err);
void tms_tokenizer_close(struct tms_tokenizer *t); /* NULL is allowed */

/* Bytes [begin, end) of a text. */
struct tms_text_span {
    size_t begin, end;
};

struct tms_tokenize_options {
    bool special;          /* with what the file puts around a text: tokenizer.json's post-processor, GGUF's add_* */
    bool no_parse_special; /* the texts of special tokens are plain text (input that is not trusted) */
    /* The parts of the text that are trusted, in order: only there are special tokens read, and added tokens that are
     * not special but occur in one of these parts. With them, the text must be UTF-8. */
    const struct tms_text_span *trusted;
    size_t n_trusted;
};
/* Appends the ids of a text to *ids (grown with realloc: *n ids, room for *cap). Bytes that are no UTF-8 are read as
 * U+FFFD. `options` may be NULL. On failure *ids keeps what it had, perhaps in a larger room. */
tms_status tms_tokenizer_encode(struct tms_tokenizer *t, const char *text, size_t n_bytes,
                                const struct tms_tokenize_options *options, int32_t **ids, size_t *n, size_t *cap,
                                struct tms_error *err);

/* One more than the largest id. */
uint64_t tms_tokenizer_n_vocab(const struct tms_tokenizer *t);
/* Begin and end of a sequence; -1 if the tokenizer has none. */
int32_t tms_tokenizer_bos(const struct tms_tokenizer *t);
int32_t tms_tokenizer_eos(const struct tms_tokenizer *t);
/* Whether a prompt begins (ends) with one: what tokenizer_config.json says, else the post-processor; GGUF's keys, else
 * llama.cpp's rule for the kind of tokenizer. */
bool tms_tokenizer_add_bos(const struct tms_tokenizer *t);
bool tms_tokenizer_add_eos(const struct tms_tokenizer *t);
/* Generation stops at these: eos, all of generation_config.json's and config.json's eos_token_id, GGUF's eot and eom,
 * and, in GGUF files, the tokens that llama.cpp knows by their texts ("<|im_end|>", "<|eot_id|>", …). */
bool tms_tokenizer_is_end(const struct tms_tokenizer *t, int32_t id);
/* Special (control) tokens: they are not shown when `special` is false. */
bool tms_tokenizer_is_special(const struct tms_tokenizer *t, int32_t id);
/* The id of the token with exactly this text ("<|im_start|>"), as it stands in a prompt; -1 if there is none. */
int32_t tms_tokenizer_find(const struct tms_tokenizer *t, const char *text, size_t n_bytes);

/* Appends the bytes of one token as it is shown in the middle of a text: they may be a part of a character. Special
 * tokens give their text only if `special`. TMS_EUSAGE if there is no such id. */
tms_status tms_tokenizer_piece(const struct tms_tokenizer *t, int32_t id, bool special, struct tms_buf *out,
                               struct tms_error *err);

/* Ids to text, one at a time. What comes out is always whole UTF-8: the bytes of a character wait until it is
 * complete, bytes that can be none become U+FFFD as the library `tokenizers` has it, and SentencePiece's space at the
 * start is left out. */
struct tms_detokenizer {
    const struct tms_tokenizer *tokenizer;
    bool special;           /* show special tokens */
    bool started;           /* a token was taken */
    bool shown_any;         /* something was shown, so that a space is a space */
    struct tms_buf waiting; /* bytes that are no whole character yet */
};
void tms_detokenizer_init(struct tms_detokenizer *d, const struct tms_tokenizer *t, bool special);
/* Appends to `out` what can be shown. */
tms_status tms_detokenizer_push(struct tms_detokenizer *d, int32_t id, struct tms_buf *out, struct tms_error *err);
/* Appends what still waits, and frees; the detokenizer is as after tms_detokenizer_init. */
tms_status tms_detokenizer_finish(struct tms_detokenizer *d, struct tms_buf *out, struct tms_error *err);

#endif

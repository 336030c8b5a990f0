/* What the parts of the tokenizer export share: the folder's files, opened once, and a vocabulary while it is being
 * put together. Only the files of src/model/ that make up tokenizer.h include this. */
#ifndef TMS_MODEL_VOCAB_H
#define TMS_MODEL_VOCAB_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"
#include "file/kvs.h"
#include "model/tokenizer.h"

/* tokenizer.ggml.token_type (ggml/docs/gguf.md); SentencePiece numbers its kinds of pieces the same way. */
enum tms_token_type {
    TMS_TOKEN_NORMAL = 1,
    TMS_TOKEN_UNKNOWN = 2,
    TMS_TOKEN_CONTROL = 3,
    TMS_TOKEN_USER_DEFINED = 4,
    TMS_TOKEN_UNUSED = 5,
    TMS_TOKEN_BYTE = 6,
};

/* Sixteen times today's largest vocabulary; what a file may make us allocate is bounded by it. */
#define TMS_VOCAB_MAX (UINT64_C(1) << 22)

struct tms_tokenizer_files {
    const struct tms_tokenizer_options *options;
    const char *dir;
    json_t *tokenizer;   /* tokenizer.json, or NULL */
    json_t *settings;    /* tokenizer_config.json, or NULL */
    json_t *special_map; /* special_tokens_map.json, or NULL */
    char *tokenizer_path, *settings_path;
    char *model_path;       /* tokenizer.model */
    bool keep_user_defined; /* SentencePiece's user-defined pieces stay such; llama.cpp's converter has none */
};
/* Opens what is there of a folder's files; `options` and `dir` are set. To be closed in any case. */
tms_status tms_tokenizer_files_open(struct tms_tokenizer_files *files, struct tms_error *err);
void tms_tokenizer_files_close(struct tms_tokenizer_files *files);

struct tms_token {
    const char *text; /* borrowed from JSON or from the vocabulary's own texts; NULL: no token has this id yet */
    size_t n;
    float score;
    int32_t type;
};

/* Zero-initialize. */
struct tms_vocab {
    struct tms_token *tokens; /* [n], the index is the id */
    uint64_t n;
    struct tms_arena texts;
};

/* Tells options->warn, if there is one, one line without control characters. */
void tms_tokenizer_warn(const struct tms_tokenizer_options *options, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* n ids without a token. `path` opens the message. */
tms_status tms_vocab_init(struct tms_vocab *vocab, uint64_t n, const char *path, struct tms_error *err);
void tms_vocab_free(struct tms_vocab *vocab);
/* Gives id (< n) this text and type; the score stays. */
void tms_vocab_set(struct tms_vocab *vocab, uint64_t id, const char *text, size_t n, enum tms_token_type type);
/* The same for an added token: control if it is special or looks so, else user-defined, its "▁" then being
 * spaces. False if memory is short. */
bool tms_vocab_set_added(struct tms_vocab *vocab, uint64_t id, const char *text, size_t n, bool special);
/* Names the holes "[PADn]" (unused, with `score`) and makes sure that no two tokens are equal. */
tms_status tms_vocab_finish(struct tms_vocab *vocab, float score, const char *path, struct tms_error *err);
/* tokenizer.ggml.tokens, .scores (if wanted) and .token_type. */
void tms_vocab_export(struct tms_kvs *kvs, const struct tms_vocab *vocab, bool scores);

/* A token id: an integer from 0 to TMS_VOCAB_MAX - 1. On failure the message says whose id it is. */
tms_status tms_token_id(uint64_t *id, const json_t *value, const char *text, const char *path, struct tms_error *err);
/* The key of added_tokens_decoder: an id in decimal digits. */
bool tms_token_id_from_text(uint64_t *id, const char *text);

/* A merge of tokenizer.json's model, spelled "a b" or ["a", "b"]. */
struct tms_merge {
    const char *left, *right; /* borrowed */
    size_t n_left, n_right;
    uint64_t id; /* of the token that it makes */
};
/* The index-th merge; TMS_EINPUT unless all three tokens are in the vocabulary. `scratch` is used for their text. */
tms_status tms_merge_read(struct tms_merge *out, const struct tms_tokenizer_files *files, size_t index,
                          struct tms_buf *scratch, struct tms_error *err);

/* Byte-level BPE of tokenizer.json: tokens and types; then tokenizer.ggml.merges. */
tms_status tms_bpe_read(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, struct tms_error *err);
tms_status tms_bpe_export_merges(struct tms_kvs *kvs, const struct tms_tokenizer_files *files, struct tms_error *err);
/* True if text becomes letters of the byte alphabet on its way through this tokenizer.json. */
bool tms_bpe_is_byte_level(const json_t *tokenizer);

/* SentencePiece: tokenizer.model with the files that add to it. `verbatim`: added tokens are taken as they are
 * and tokenizer.json's count as well, as llama.cpp's converter does for Phi-3. */
tms_status tms_spm_read(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, bool verbatim,
                        struct tms_error *err);
/* What tokenizer.model says of normalizing and of bytes. */
struct tms_spm_spec {
    char *charsmap; /* NULL if there is none, or an empty one; the caller frees it */
    size_t n_charsmap;
    bool space_first, join_spaces, escape_spaces, space_last, byte_fallback, unigram;
};
tms_status tms_spm_read_spec(struct tms_spm_spec *out, const struct tms_tokenizer_files *files, struct tms_error *err);
/* SentencePiece that survives only as a BPE with byte fallback in tokenizer.json. *space_prefix: whether a space
 * is put before the text. */
tms_status tms_spm_read_json(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, bool *space_prefix,
                             struct tms_error *err);

/* Ids of special tokens and add_*_token, for a vocabulary of n_vocab tokens. */
tms_status tms_special_tokens_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files, uint64_t n_vocab,
                                     struct tms_error *err);
/* One more id ("eot"), from the folder's files or else `fallback`. */
void tms_special_token_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files, const char *name,
                              uint64_t fallback, uint64_t n_vocab);

/* What of the normalizer GGUF has keys for: lower case, no accents. */
void tms_normalizer_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files);

/* tokenizer.chat_template and the named ones beside it. */
tms_status tms_chat_template_export(struct tms_kvs *kvs, const struct tms_tokenizer_files *files,
                                    struct tms_error *err);

#endif

/* Tokenizers of Hugging Face folders, as the key-values that a GGUF file carries. */
#ifndef TMS_MODEL_TOKENIZER_H
#define TMS_MODEL_TOKENIZER_H

#include <jansson.h>

#include "base/error.h"
#include "base/mem.h"
#include "file/kvs.h"

struct tms_tokenizer_options {
    uint64_t vocab_size;  /* of the embeddings; shorter vocabularies are padded with "[PADn]" up to it; 0: as it is */
    const char *pre;      /* overrides the pre-tokenizer's name (BPE); may be NULL */
    const json_t *config; /* config.json, for special token ids; may be NULL */
    const char *arch;     /* GGUF architecture: "llama" also writes add_space_prefix for BPE vocabularies */
    void (*warn)(void *ctx, const char *line); /* may be NULL */
    void *warn_ctx;
};

/* Appends tokenizer.ggml.* and tokenizer.chat_template in the order of llama.cpp's converter. TMS_EINPUT if the
 * folder has no tokenizer that tamis can read, with a message that names the file and what is wrong. */
tms_status tms_tokenizer_export(struct tms_kvs *kvs, const char *dir, const struct tms_tokenizer_options *options,
                                struct tms_error *err);

/* The name that llama.cpp uses for a pre-tokenizer, recognised from tokenizer.json's own regular expressions;
 * *name is NULL if it is none of the known ones. `tokenizer` is the whole of tokenizer.json. False if memory is short.
 */
bool tms_pretokenizer_name(const json_t *tokenizer, const char **name);

/* The other way: what one of llama.cpp's names stands for. */
struct tms_pretokenizer {
    const char *steps; /* as pretokenizer.c spells them */
    bool whole_words;  /* words that are tokens are taken without merging (ignore_merges) */
    bool nfc;          /* the published tokenizers normalize first */
    bool adds_bos;     /* llama.cpp puts BOS first if the file does not say */
};
/* False for names that tamis does not know, or only in part. */
bool tms_pretokenizer_find(const char *name, struct tms_pretokenizer *out);
/* Appends the member "pre_tokenizer" of a tokenizer.json. */
void tms_pretokenizer_put(struct tms_buf *out, const struct tms_pretokenizer *pre);

#endif

/* The models of one evaluation: opened, checked against each other, run. */
#ifndef TMS_EVAL_SUBJECTS_H
#define TMS_EVAL_SUBJECTS_H

#include "eval/walk.h"
#include "model/tokenize.h"

struct tms_subjects {
    const struct tms_eval_options *options;
    size_t n_models;      /* 1, or 2 with a base */
    const char *paths[2]; /* model, base */
    struct tms_source *sources[2];
    struct tms_tokenizer *tokenizers[2]; /* NULL where a model has none */
    struct tms_pool *pool;
    struct tms_net *nets[2];
    struct tms_cache_options caches[2]; /* of the model, of the base */
    bool weights_alone;
    /* of the run */
    bool by_layer;
    uint64_t planned_bytes;
    uint64_t cache_bytes; /* of the model with its longest sequence */
    double seconds;
};

/* Opens the sources; with `tokenizes` also their tokenizers, of which there must be one. Zero-initialize; close in any
 * case. */
tms_status tms_subjects_open(struct tms_subjects *s, const char *model, const struct tms_eval_options *options,
                             bool tokenizes, struct tms_error *err);
void tms_subjects_close(struct tms_subjects *s);

/* Appends the ids of a text with BOS as the vocabulary wants it, without EOS; special tokens in it are plain text.
 * TMS_EINPUT if the base's tokenizer sees other ids. `where` opens the message. */
tms_status tms_subjects_encode(struct tms_subjects *s, const char *where, const char *text, size_t n_bytes,
                               int32_t **ids, size_t *n, size_t *cap, struct tms_error *err);
/* The token that begins sequences, or -1. */
int32_t tms_subjects_bos(const struct tms_subjects *s);

/* Runs the sequences, whose ids are checked against the vocabulary; positions: room for the result. Tokenizers are
 * closed. `name` is what a sequence is called. */
tms_status tms_subjects_run(struct tms_subjects *s, const char *name, const struct tms_sequence *sequences,
                            size_t n_sequences, struct tms_position *positions, size_t n_positions,
                            struct tms_error *err);

#endif

/* What the files of src/model/ that make up restore.h share. */
#ifndef TMS_MODEL_RESTORE_PARTS_H
#define TMS_MODEL_RESTORE_PARTS_H

#include <jansson.h>

#include "model/restore.h"
#include "model/vocab.h"

/* What the restoring of a tokenizer works on. */
struct tms_restoring {
    struct tms_made_files *files;
    const struct tms_source *source;
    const struct tms_kvs *kvs;
    const struct tms_config *config;
    const struct tms_restore_options *options;
    struct tms_vocab vocab; /* its texts are inside kvs */
};

/* tokenizer.ggml.NAME_token_id; false if there is none. */
bool tms_restored_id(const struct tms_kvs *kvs, const char *name, uint64_t *id);
/* A bool of tokenizer.ggml; `absent` if there is none. */
bool tms_restored_flag(const struct tms_kvs *kvs, const char *name, bool absent);
/* Sets a member and takes over `value`; when memory is short *object becomes NULL and stays so, to be checked once. */
void tms_restored_set(json_t **object, const char *key, json_t *value);
/* Adds a file of JSON, keys sorted, and takes over `json` (NULL: memory is short). No number in it needs more than
 * the 9 digits of an f32. */
tms_status tms_restored_put_json(struct tms_made_files *files, const char *name, json_t *json, struct tms_error *err);
/* True for "[PADn]" (n: its id), which stands for no token. */
bool tms_restored_is_hole(const struct tms_vocab *vocab, uint64_t id);

/* What both kinds of tokenizer_config.json have: special tokens, flags, chat templates. */
json_t *tms_restored_settings(const struct tms_restoring *r, const char *tokenizer_class);
/* The token whose id tokenizer.ggml.NAME_token_id is, or NULL. */
const struct tms_token *tms_restored_token(const struct tms_restoring *r, const char *name);

tms_status tms_restore_bpe(struct tms_restoring *r, struct tms_error *err);
tms_status tms_restore_spm(struct tms_restoring *r, struct tms_error *err);

#endif

/* The parts of reading tokenizer.json. Only the tokenize_*.c files include this. */
#ifndef TMS_MODEL_TOKENIZE_JSON_H
#define TMS_MODEL_TOKENIZE_JSON_H

#include "model/tokenize_parts.h"

struct tms_decoder_json {
    bool any;     /* there is one */
    bool letters; /* tokens are spelled in the byte alphabet */
};

/* The four members of tokenizer.json that are steps, or lists of steps. What tamis does not know is refused by name. */
tms_status tms_tokenize_read_normalizer(struct tms_tokenizer *t, const json_t *step, int depth, struct tms_error *err);
/* Sets byte_level too. */
tms_status tms_tokenize_read_cuts(struct tms_tokenizer *t, const json_t *step, int depth, struct tms_error *err);
tms_status tms_tokenize_read_decoder(struct tms_tokenizer *t, struct tms_decoder_json *out, const json_t *step,
                                     int depth, struct tms_error *err);
/* After the vocabulary. */
tms_status tms_tokenize_read_post(struct tms_tokenizer *t, const json_t *step, int depth, struct tms_error *err);

/* bos, eos, add_*, ends from the folder's files. bos_absent: whether a bos is added if no file says. */
tms_status tms_tokenize_read_special(struct tms_tokenizer *t, const struct tms_tokenizer_files *files, bool bos_absent,
                                     struct tms_error *err);

#endif

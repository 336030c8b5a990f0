/* The sequences of tokens that a calibration run sends through a model. */
#ifndef TMS_CALIB_SAMPLES_H
#define TMS_CALIB_SAMPLES_H

#include <tamis/tamis.h>

#include "model/tokenize.h"

struct tms_samples {
    size_t n;        /* sequences */
    size_t n_tokens; /* of all */
    size_t longest;
    int32_t *ids;   /* [n_tokens], sequence after sequence */
    size_t *starts; /* [n + 1]: where they begin in ids */
};

/* A text is tokenized as a whole, with BOS in front if the vocabulary adds one, and cut into sequences of equal length,
 * what is left over is dropped; the first token of each becomes BOS (what llama-imatrix does). Lines of JSONL are a
 * sequence each: {"text": …} with BOS, {"messages": [{"role": …, "content": …}, …]} as the chat template of `model`
 * writes it, or the one that the options name. TMS_EINPUT for texts that are too short, lines that are no such JSON,
 * templates of no known family, ids outside the vocabulary (n_vocab). */
tms_status tms_samples_read(struct tms_samples *out, struct tms_tokenizer *tokenizer, const char *model,
                            uint64_t n_vocab, const struct tms_calibrate_options *options, struct tms_error *err);
void tms_samples_free(struct tms_samples *samples);

#endif

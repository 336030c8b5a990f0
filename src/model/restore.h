/* The other way of metadata.h and tokenizer.h: the small files of a Hugging Face folder, from the keys of a GGUF file.
 *
 * What a GGUF file does not say gets transformers' default. "llama" stands for LlamaForCausalLM and for
 * MistralForCausalLM, which compute the same (llama.cpp writes no sliding window for them): Llama is written. */
#ifndef TMS_MODEL_RESTORE_H
#define TMS_MODEL_RESTORE_H

#include "file/made_files.h"
#include "model/source.h"
#include "model/turn.h"

struct tms_restore_options {
    enum tms_type dtype; /* of the weights that will be written */
    const char *pre;     /* instead of tokenizer.ggml.pre; may be NULL */
    tms_report_fn warn;  /* may be NULL */
    void *warn_ctx;
};

/* The numbers of the architecture, as config.json's would be read. The source is GGUF and its architecture known.
 * TMS_EINPUT if a key is missing or says something that the architecture cannot do. */
tms_status tms_restore_numbers(struct tms_config *out, const struct tms_source *source,
                               const struct tms_restore_options *options, struct tms_error *err);
/* The same from the keys alone: what tensors decide (vocabulary, tied, biases, tables of rope) is left out. */
tms_status tms_restore_keys(struct tms_config *out, const struct tms_kvs *kvs, const struct tms_arch *arch,
                            const char *path, struct tms_error *err);
/* The double with the shortest spelling that reads back as x. */
double tms_shortest(float x);
/* config.json and generation_config.json. */
tms_status tms_restore_config(struct tms_made_files *files, const struct tms_source *source,
                              const struct tms_config *config, const struct tms_restore_options *options,
                              struct tms_error *err);
/* tokenizer.json or tokenizer.model, and tokenizer_config.json. TMS_EINPUT for tokenizers that tamis does not know. */
tms_status tms_restore_tokenizer(struct tms_made_files *files, const struct tms_source *source,
                                 const struct tms_config *config, const struct tms_restore_options *options,
                                 struct tms_error *err);

/* A tensor of the folder, or the next piece of the one before it. */
struct tms_restored_tensor {
    const char *name;
    uint32_t n_dims;
    uint64_t shape[TMS_ST_MAX_DIMS]; /* slowest first */
    bool continues;                  /* another piece of the tensor before it */
    size_t source;                   /* index of the source's tensor */
    uint64_t part, n_parts;          /* part of it, of so many equal ones, that is taken; n_parts 1: all */
    struct tms_turn turn;            /* what is done to its values */
};

/* All of them, sorted by name: free *out with free; names come from the arena. TMS_EINPUT if one is missing, or has no
 * place in the architecture. */
tms_status tms_restore_tensors(struct tms_restored_tensor **out, size_t *n, const struct tms_source *source,
                               const struct tms_config *config, struct tms_arena *arena, struct tms_error *err);

/* Finds the parameters of Llama 3's rope scaling whose table (tms_rope_freqs) the n values of `table` are; false if
 * there are none. In: theta and head_dim of `config`; out: its rope. scratch: [n]. */
bool tms_restore_llama3(struct tms_config *config, const float *table, uint64_t n, float *scratch);

#endif

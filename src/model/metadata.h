/* GGUF key-values of a model that comes from a Hugging Face folder (the tokenizer's are in tokenizer.h). */
#ifndef TMS_MODEL_METADATA_H
#define TMS_MODEL_METADATA_H

#include "file/kvs.h"
#include "model/source.h"

struct tms_metadata_options {
    const char *name;      /* general.name; NULL: the folder's name, words capitalized */
    int file_type;         /* general.file_type */
    uint64_t n_parameters; /* for general.size_label */
    tms_report_fn warn;    /* may be NULL */
    void *warn_ctx;
};

/* Appends general.*, the architecture's numbers and general.quantization_version, in the order of llama.cpp's
 * converter. The source has a config and a known architecture. */
tms_status tms_metadata_build(struct tms_kvs *kvs, const struct tms_source *source,
                              const struct tms_metadata_options *options, struct tms_error *err);

/* Keys of our own: what decides the model's results and has no key that llama.cpp reads, or another meaning there.
 * Written behind all others, and only where the keys before them say, by llama.cpp's own rules, something else than
 * config.json does; programs that do not know them pass them over. docs/tamis.1 lists them. */
#define TMS_KEY_WINDOW        "tamis.attention.sliding_window"        /* u32; 0: none */
#define TMS_KEY_WINDOW_LAYERS "tamis.attention.sliding_window_layers" /* bools, where not all layers have it */

/* Appends them. */
tms_status tms_metadata_own(struct tms_kvs *kvs, const struct tms_source *source, struct tms_error *err);
/* Puts those that are there into `config`, which holds what the other keys say. TMS_EINPUT for what makes no sense. */
tms_status tms_metadata_read_own(struct tms_config *config, const struct tms_kvs *kvs, const char *path,
                                 struct tms_error *err);

/* What cos and sin are multiplied with in longrope. */
double tms_longrope_attention(const struct tms_config *config);

/* "7.6B", "456K": at least two digits. */
void tms_size_label(char out[32], uint64_t n_parameters);

/* Llama 3's rope scaling is stored as a tensor "rope_freqs.weight" of head_dim/2 divisors of the frequencies.
 * False if the model has no such scaling; out: [head_dim / 2]. */
bool tms_rope_freqs(const struct tms_config *config, float *out);

#endif

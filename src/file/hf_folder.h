/* The weights of a Hugging Face folder: one safetensors file, several with an index, or several without. */
#ifndef TMS_FILE_HF_FOLDER_H
#define TMS_FILE_HF_FOLDER_H

#include "file/safetensors.h"

struct tms_hf {
    char *dir; /* NULL when a lone .safetensors file was opened */
    size_t n_shards;
    struct tms_safetensors **shards;
};

/* Where problems go that do not keep the rest from being read; each is one line. */
typedef void (*tms_report_fn)(void *ctx, const char *line);

/* Opens all shards of a folder, or one .safetensors file. Follows model.safetensors.index.json if there is one,
 * else takes model.safetensors, else model*.safetensors, else all *.safetensors but consolidated* (Mistral's second
 * copy of the weights). Without `report` the first problem (a missing shard, a tensor that index and shards do not
 * agree on, a name in two shards) is the failure; with it, problems are reported and what can be opened is. */
tms_status tms_hf_open(struct tms_hf **out, const char *path, tms_report_fn report, void *report_ctx,
                       struct tms_error *err);
void tms_hf_close(struct tms_hf *hf);

#endif

/* What all targets that are Hugging Face folders share: shards, their layout, the index and the files beside them. */
#ifndef TMS_TARGET_HF_FOLDER_OUT_H
#define TMS_TARGET_HF_FOLDER_OUT_H

#include "target/target.h"

/* Gives every tensor its shard and place: as in options->split_like, else greedily in the order of t->outs, at most
 * max_shard_bytes a shard (0: 50 GB, as transformers 5); tensors with is_scale stay with the one before them. */
tms_status tms_hf_out_lay_out(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err);
/* The text of the source folder's config.json (free with free). */
tms_status tms_hf_out_source_config(const struct tms_target *t, char **text, size_t *n, struct tms_error *err);

#endif

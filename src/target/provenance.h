/* Where an output comes from: the recipe of a run as JSON text, hashes of what was read and written.
 *
 * Hashes are SHA-256, not the quicker XXH3: hubs publish the SHA-256 of every weight file, so a manifest can be held
 * against a source without downloading it, `sha256sum` checks it without tamis, and nobody can forge it. */
#ifndef TMS_TARGET_PROVENANCE_H
#define TMS_TARGET_PROVENANCE_H

#include <jansson.h>
#include <tamis/tamis.h>

#include "base/threads.h"
#include "target/target.h"

struct tms_hashed_file {
    char *path;
    uint64_t bytes;
    char sha256[65];
};
struct tms_hashed_files {
    size_t n;
    struct tms_hashed_file *items;
};

/* The weight files of a source, sorted by name; with `all` also config, tokenizer and the like. */
tms_status tms_hash_source(struct tms_hashed_files *out, const struct tms_source *source, bool all,
                           struct tms_pool *pool, struct tms_error *err);
/* Every file of a path that was written: all files of a folder, all files of a split, one file. */
tms_status tms_hash_target(struct tms_hashed_files *out, const struct tms_target *target, struct tms_pool *pool,
                           struct tms_error *err);
void tms_hashed_files_free(struct tms_hashed_files *files);

/* One hash for a whole source, "sha256:…": of one weight file its own, as hubs tell it; of several that of the lines
 * that `sha256sum` prints about them in their folder, so that `sha256sum *.safetensors | sha256sum` gives the same. */
void tms_source_hash(char out[72], const struct tms_hashed_files *files, const struct tms_source *source);

/* All options that matter for the bytes: {"to":"Q4_K_M","pure":true,…}. Defaults are left out; of the file of
 * importance weights there are only its name and hash. NULL if memory is short. */
json_t *tms_recipe(const struct tms_quantize_options *options, const char *type, bool converter,
                   const char *imatrix_sha256);
/* Sets what the recipe names and the options leave open. Texts are borrowed from `recipe`, lists come from the arena.
 * TMS_EINPUT if it is no recipe. */
tms_status tms_recipe_read(struct tms_quantize_options *options, const char **type, bool *converter,
                           const char **imatrix_sha256, const json_t *recipe, struct tms_arena *arena,
                           struct tms_error *err);

/* The keys tamis.version, tamis.recipe and tamis.source.hash. */
void tms_provenance_set_keys(struct tms_kvs *kvs, const char *recipe, const char *source_hash);
void tms_provenance_remove_keys(struct tms_kvs *kvs);

#endif

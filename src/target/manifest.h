/* The manifest of a run: what was read, how, and what came out, with hashes. */
#ifndef TMS_TARGET_MANIFEST_H
#define TMS_TARGET_MANIFEST_H

#include "target/pipeline.h"
#include "target/provenance.h"

struct tms_manifest {
    const struct tms_source *source;
    const struct tms_hashed_files *source_files; /* with all that lies beside the weights */
    const char *source_hash;
    struct tms_pool *pool;
    json_t *outputs; /* an array; zero-initialize with NULL */
};

/* Adds an output that has its final name; hashes its files. */
tms_status tms_manifest_add(struct tms_manifest *manifest, const struct tms_target *target,
                            const struct tms_target_stats *stats, const char *recipe, struct tms_error *err);
/* Writes the document and frees what was added. The output is still the caller's. */
tms_status tms_manifest_write(struct tms_manifest *manifest, struct tms_output *to, struct tms_error *err);

#endif

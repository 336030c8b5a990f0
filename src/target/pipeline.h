/* One read of a source into any number of planned targets. */
#ifndef TMS_TARGET_PIPELINE_H
#define TMS_TARGET_PIPELINE_H

#include <tamis/tamis.h>

#include "base/threads.h"
#include "target/target.h"

/* What the pipeline learns about one target while filling it. */
struct tms_target_stats {
    double squared_error;  /* sum over all weights of (decoded - source)^2 */
    double squared_weight; /* sum over all weights of source^2 */
    uint64_t n_values;
    double thread_seconds;
    bool verified;
};

/* A range of an output tensor. */
struct tms_written {
    struct tms_target *target;
    size_t out;
    uint64_t offset, bytes; /* within the tensor */
    uint64_t hash;          /* XXH3 */
};

/* Takes bytes [offset, offset + n) of an output tensor in place of its file; called from all threads. */
typedef tms_status (*tms_sink_fn)(void *ctx, const struct tms_target *target, size_t out, uint64_t offset,
                                  const void *bytes, uint64_t n, struct tms_error *err);

struct tms_pipeline {
    const struct tms_source *source;
    struct tms_target **targets;
    size_t n_targets;
    struct tms_pool *pool;
    tms_progress_fn progress;
    void *progress_ctx;
    tms_sink_fn sink; /* NULL: everything is written into the targets' files */
    void *sink_ctx;
    struct tms_target_stats *stats; /* [n_targets] */
    uint64_t source_bytes;          /* set: bytes of tensors read */
    struct tms_written *written;    /* what went where, for tms_pipeline_verify */
    size_t n_written, cap_written;
};

/* Writes all tensor data and headers into the targets' files (tms_output already created), or hands all tensor data to
 * the sink. Memory: per thread a
 * range of about 2^18 values in every form it takes, plus absmax of the bitsandbytes tensors being worked on. */
tms_status tms_pipeline_run(struct tms_pipeline *p, struct tms_error *err);
/* Opens what was written with the strict readers and compares every byte range with the hash of what was encoded. */
tms_status tms_pipeline_verify(struct tms_pipeline *p, struct tms_error *err);
void tms_pipeline_done(struct tms_pipeline *p);

#endif

/* What the parts of tamis verify share. See verify.c. */
#ifndef TMS_TARGET_VERIFYING_H
#define TMS_TARGET_VERIFYING_H

#include <pthread.h>
#include <tamis/tamis.h>

#include "base/threads.h"
#include "target/target.h"

/* What is known of one output tensor. */
struct tms_compared {
    const struct tms_tensor *found; /* in the file; NULL if it is not there or has another type or shape */
    uint64_t first, n_bytes;        /* differing bytes: the first, and how many */
};

struct tms_verifying {
    const struct tms_verify_options *options;
    struct tms_quantize_options recipe; /* options->recipe, completed from the file */
    struct tms_source *file, *source;
    struct tms_imatrix *imatrix;
    struct tms_pool *pool;
    json_t *told;       /* tamis.recipe of the file, or NULL */
    bool converter;     /* as it tells */
    struct tms_kvs own; /* the file's keys that are taken as they are */
    struct tms_target *target;
    struct tms_compared *compared; /* [target->n_outs] */
    struct tms_verify_result result;
    pthread_mutex_t lock;
    struct tms_arena arena;
};

/* A difference, as one line. */
void tms_verify_found(struct tms_verifying *v, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* verify_plan.c: completes v->recipe with what the file tells, and plans what should be there: v->target. */
tms_status tms_verify_plan(struct tms_verifying *v, struct tms_error *err);

/* verify_files.c: key-values or config.json, and for folders the files beside the weights. */
tms_status tms_verify_keys(struct tms_verifying *v, struct tms_error *err);
/* Headers, places and padding: is every byte what would be written? Only asked when there are no findings. */
tms_status tms_verify_layout(struct tms_verifying *v, struct tms_error *err);

#endif

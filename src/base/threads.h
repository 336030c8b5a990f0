/* A pool of threads that work through numbered jobs. Results must not depend on which thread runs what. */
#ifndef TMS_BASE_THREADS_H
#define TMS_BASE_THREADS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct tms_pool;

/* One job: `index` is 0 … n_jobs-1, `worker` is 0 … n_threads-1 (for scratch memory). */
typedef tms_status (*tms_job_fn)(void *ctx, size_t index, unsigned worker, struct tms_error *err);

/* Processors that this process may use (affinity and control group), at least 1. */
unsigned tms_n_processors(void);

/* n_threads 0 means tms_n_processors(). */
tms_status tms_pool_create(struct tms_pool **out, unsigned n_threads, struct tms_error *err);
unsigned tms_pool_threads(const struct tms_pool *pool);
/* Runs all jobs, taken in order; returns the failure of the lowest job that failed (jobs after it may be skipped),
 * or TMS_ECANCELLED. The calling thread works too. */
tms_status tms_pool_run(struct tms_pool *pool, size_t n_jobs, tms_job_fn job, void *ctx, struct tms_error *err);
void tms_pool_free(struct tms_pool *pool);

/* Asks all running work to stop; safe in a signal handler. Declared for callers in <tamis/tamis.h>. */
void tms_cancel(void);
void tms_resume(void);
bool tms_cancelled(void);

#endif

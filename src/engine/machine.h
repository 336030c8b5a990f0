/* What this machine does at most, measured: the yardsticks for the speed of a model.
 *
 * Making text reads every weight once for a token, so memory bounds it; reading a prompt shares a weight among many
 * tokens, so arithmetic does. */
#ifndef TMS_ENGINE_MACHINE_H
#define TMS_ENGINE_MACHINE_H

#include <stdint.h>

#include "base/threads.h"

/* Bytes of the last-level cache, 0 if the system does not tell. */
uint64_t tms_last_cache_bytes(void);

/* Bytes a second that the threads of the pool read together from *size bytes of memory: twice the last cache, at least
 * 256 MB, at most an eighth of the memory that there is or 2 GB. The best of several rounds. */
tms_status tms_measure_reading(struct tms_pool *pool, double *bytes_per_second, uint64_t *size, struct tms_error *err);

/* Multiplications and additions a second of f32 fused multiply-adds that stay in registers, with the vector
 * instructions that the kernels use (base/cpu.h). The best of several rounds. */
tms_status tms_measure_arithmetic(struct tms_pool *pool, double *operations_per_second, struct tms_error *err);

#endif

/* Sums over many values that are the same on every machine: eight lanes with a fixed order, in f64. */
#ifndef TMS_BASE_SUMS_H
#define TMS_BASE_SUMS_H

#include <stddef.h>
#include <stdint.h>

/* Sum of a^2. */
double tms_squared_norm(const float *a, size_t n);
/* Sum of (a - b)^2. */
double tms_squared_distance(const float *a, const float *b, size_t n);

/* Least common multiple; `limit` if it is larger than that (or a or b is 0): a range that is everything. */
uint64_t tms_common_multiple(uint64_t a, uint64_t b, uint64_t limit);

#endif

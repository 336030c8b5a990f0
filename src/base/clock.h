/* Time that only goes forward. */
#ifndef TMS_BASE_CLOCK_H
#define TMS_BASE_CLOCK_H

#include <time.h>

/* Seconds since some fixed moment. */
static inline double tms_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif

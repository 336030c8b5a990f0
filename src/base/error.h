/* Filling in a struct tms_error, once, at the place that knows most. */
#ifndef TMS_BASE_ERROR_H
#define TMS_BASE_ERROR_H

#include <tamis/error.h>

/* Writes the message (control characters become '?', so that a hostile name cannot break the line; longer
 * texts are cut) and returns `status`. `err` may be NULL. */
tms_status tms_fail(struct tms_error *err, tms_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* TMS_EIO, "out of memory (wanted N bytes)". */
tms_status tms_fail_memory(struct tms_error *err, unsigned long long bytes);

#endif

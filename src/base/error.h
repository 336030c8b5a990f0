/* Filling in a struct tms_error, once, at the place that knows most. */
#ifndef TMS_BASE_ERROR_H
#define TMS_BASE_ERROR_H

#include <tamis/error.h>

/* Writes the message (control characters become '?', so that a hostile name cannot break the line; longer texts are
 * cut). `err` may be NULL. */
void tms_set_message(struct tms_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same as an expression with the value of `status`. A macro, so that compilers and analyzers see that a failure
 * is not TMS_OK. */
#define tms_fail(err, status, ...) (tms_set_message((err), __VA_ARGS__), (status))

/* TMS_EIO, "out of memory (wanted N bytes)". */
#define tms_fail_memory(err, bytes)                                                                                    \
    tms_fail((err), TMS_EIO, "out of memory (wanted %llu bytes)", (unsigned long long)(bytes))

#endif

/* JSON through jansson, with messages that name the file. */
#ifndef TMS_BASE_JSON_H
#define TMS_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Parses n bytes; duplicate keys and trailing text are errors; NUL inside strings is allowed. `where` opens the
 * message ("model.safetensors: header"). The caller owns *out (json_decref). */
tms_status tms_json_parse(json_t **out, const char *text, size_t n, const char *where, struct tms_error *err);
/* Reads and parses a file of at most `limit` bytes. */
tms_status tms_json_load(json_t **out, const char *path, uint64_t limit, struct tms_error *err);

/* Shortest decimal text that reads back as the same double, spelled as Python's repr does (0.1, 1e-05, 2.0). */
void tms_json_repr(char out[32], double value);

#endif

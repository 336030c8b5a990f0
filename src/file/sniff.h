/* What a file is that is not what its reader expected: the mistakes that people make with downloads. */
#ifndef TMS_FILE_SNIFF_H
#define TMS_FILE_SNIFF_H

#include <stddef.h>
#include <stdint.h>

#include "base/file.h"

/* Looks at the first bytes of a file and returns the rest of a sentence that begins with "the file is …" and says
 * what to do, or NULL if the bytes are no well-known kind. */
const char *tms_sniff(const uint8_t *head, size_t n);

/* The same for an open file; NULL also if it cannot be read. */
const char *tms_sniff_file(const struct tms_file *file);

#endif

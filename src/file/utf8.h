/* Is this text UTF-8? */
#ifndef TMS_FILE_UTF8_H
#define TMS_FILE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Well-formed after table 3-7 of the Unicode Standard: no overlong forms, no surrogates, nothing past U+10FFFF. */
bool tms_is_utf8(const char *text, size_t n);

#endif

/* Small questions about texts. */
#ifndef TMS_BASE_TEXT_H
#define TMS_BASE_TEXT_H

#include <stdbool.h>
#include <string.h>

static inline bool tms_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && memcmp(text + n - m, end, m) == 0;
}

#endif

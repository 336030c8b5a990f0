/* See error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

/* Cuts a UTF-8 sequence that vsnprintf may have split at the end of the buffer. */
static void trim_partial_utf8(char *text, size_t n)
{
    size_t i = n;
    while (i > 0 && ((unsigned char)text[i - 1] & 0xc0) == 0x80) i--;
    if (i > 0 && ((unsigned char)text[i - 1] & 0xc0) == 0xc0) text[i - 1] = '\0';
}

void tms_set_message(struct tms_error *err, const char *format, ...)
{
    if (!err) return;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= (int)sizeof err->message) trim_partial_utf8(err->message, sizeof err->message - 1);
    for (char *c = err->message; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
}

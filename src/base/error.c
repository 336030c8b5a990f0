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

/* Length of the UTF-8 character at c if a terminal can show it, else 0. What stands in a file may be anything. */
static size_t shown_length(const char *c)
{
    unsigned char lead = (unsigned char)*c, next = (unsigned char)c[1]; /* of ASCII the NUL or what follows */
    size_t n = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (lead < 0x20 || lead == 0x7f || (lead == 0xc2 && next < 0xa0)) return 0; /* control characters */
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)c[i] & 0xc0) != 0x80) return 0;
    return n;
}

void tms_set_message(struct tms_error *err, const char *format, ...)
{
    if (!err) return;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= (int)sizeof err->message) trim_partial_utf8(err->message, sizeof err->message - 1);
    for (char *c = err->message; *c;) {
        size_t length = shown_length(c);
        if (!length) *c = '?';
        c += length ? length : 1;
    }
}

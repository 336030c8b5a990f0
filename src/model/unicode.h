/* What tokenizers need of Unicode: UTF-8 piece by piece, character classes, canonical normal forms.
 *
 * The tables are those of the library `tokenizers` 0.23 (scripts/unicode_tables.py): the classes of Unicode 16, the
 * normal forms of Unicode 9. Other versions would give other ids for some characters. */
#ifndef TMS_MODEL_UNICODE_H
#define TMS_MODEL_UNICODE_H

#include <stdbool.h>

#include "base/error.h"
#include "base/mem.h"
#include "model/unicode_tables.h"

#define TMS_N_CODES     0x110000u
#define TMS_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD, for what is no UTF-8 */

/* The next code point of text that is known to be UTF-8. */
static inline uint32_t tms_next_code(const uint8_t **at)
{
    const uint8_t *p = *at;
    uint32_t c = p[0];
    if (c < 0x80) {
        *at = p + 1;
    } else if (c < 0xe0) {
        c = (c & 0x1f) << 6 | (p[1] & 0x3fu);
        *at = p + 2;
    } else if (c < 0xf0) {
        c = (c & 0x0f) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
        *at = p + 3;
    } else {
        c = (c & 0x07) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
        *at = p + 4;
    }
    return c;
}

/* Writes a code point as UTF-8; returns its 1 to 4 bytes. */
size_t tms_put_code(uint8_t out[4], uint32_t code);

/* The next piece of any bytes (n > 0): a whole character, or bytes that are none (the longest beginning of a character,
 * at least one byte), or the beginning of a character that the end of the bytes cuts. Returns its length. */
enum tms_utf8_piece { TMS_UTF8_CHARACTER, TMS_UTF8_BROKEN, TMS_UTF8_CUT };
size_t tms_utf8_next(const uint8_t *bytes, size_t n, enum tms_utf8_piece *kind);
/* Appends bytes as UTF-8, each broken piece as U+FFFD: what Rust's from_utf8_lossy does. */
void tms_put_lossy(struct tms_buf *out, const uint8_t *bytes, size_t n);

/* "L", "space", …; NULL if there is no such class. */
const struct tms_code_class *tms_code_class(const char *name, size_t n);
bool tms_in_class(const struct tms_code_class *class, uint32_t code);

/* Normal form C (composed) or D. Zero-initialize, free `unsettled`. */
struct tms_normal_form {
    bool composed;
    uint8_t *unsettled; /* one bit for each code point: it may change, or make a neighbour change */
};
tms_status tms_normal_form_init(struct tms_normal_form *form, bool composed, struct tms_error *err);
/* True if the text (UTF-8) is its own normal form, as far as one look can tell. */
bool tms_is_settled(const struct tms_normal_form *form, const uint8_t *text, size_t n);
/* Appends the normal form of a text (UTF-8). */
void tms_normalize(const struct tms_normal_form *form, const uint8_t *text, size_t n, struct tms_buf *out);

#endif

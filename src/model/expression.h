/* Regular expressions of tokenizers (Oniguruma's syntax as tokenizer.json has it), with the Unicode classes of
 * unicode.h.
 *
 * PCRE2 would read \p{L} with the tables of its own version, and matches UTF-8 slowly. So code points are sorted
 * into kinds, two of which never differ for any expression of the set, and each expression is compiled over bytes that
 * are kinds: "\s*[\r\n]+" becomes "[\x03-\x05]*[\x04\x05]+". Texts are translated once, and all expressions run on
 * one byte per character. At most 256 kinds; published pre-tokenizers need about 20. */
#ifndef TMS_MODEL_EXPRESSION_H
#define TMS_MODEL_EXPRESSION_H

#include "model/unicode.h"

struct tms_expressions;

/* An empty set. tms_expressions_free frees it; NULL is allowed. */
tms_status tms_expressions_create(struct tms_expressions **out, struct tms_error *err);
void tms_expressions_free(struct tms_expressions *set);
/* Adds an expression of n bytes of UTF-8; *index is its number. `where` opens messages. */
tms_status tms_expressions_add(struct tms_expressions *set, const char *text, size_t n, const char *where,
                               size_t *index, struct tms_error *err);
/* After the last one was added: sorts the code points and compiles. */
tms_status tms_expressions_compile(struct tms_expressions *set, const char *where, struct tms_error *err);

uint8_t tms_expressions_kind(const struct tms_expressions *set, uint32_t code);
/* The kinds of ASCII, an array of 128. */
const uint8_t *tms_expressions_ascii(const struct tms_expressions *set);

/* The first match of expression `index` in kinds[0, n) that begins at `from` or later. False with TMS_OK: none. */
struct tms_match {
    bool found;
    size_t begin, end;
};
tms_status tms_expressions_match(struct tms_expressions *set, size_t index, const uint8_t *kinds, size_t n, size_t from,
                                 struct tms_match *out, struct tms_error *err);

#endif

/* Changing one member of a JSON object without touching the rest of the text: its order, spelling of numbers and
 * layout stay as the author had them. */
#ifndef TMS_BASE_JSON_EDIT_H
#define TMS_BASE_JSON_EDIT_H

#include <jansson.h>

#include "base/mem.h"

/* `text` is a valid JSON object. Writes it to `out` with the top-level member `key` set to `value`: in place if it
 * is there; else where it belongs if the keys are sorted, else at the end. False if memory is short or the text is
 * no object. */
bool tms_json_set_member(struct tms_buf *out, const char *text, size_t n, const char *key, const json_t *value);
/* The same without the top-level member `key`; the text as it is if there is none. */
bool tms_json_remove_member(struct tms_buf *out, const char *text, size_t n, const char *key);

#endif

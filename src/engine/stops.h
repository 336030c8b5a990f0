/* Texts that end an answer: found as the answer comes, in pieces that may cut them anywhere. What may be the beginning
 * of one is held back until it is known to be none. */
#ifndef TMS_ENGINE_STOPS_H
#define TMS_ENGINE_STOPS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/mem.h"

struct tms_stops {
    const char *const *texts; /* borrowed */
    size_t n;
    struct tms_buf held;
};

/* TMS_EUSAGE for an empty text or one that is no UTF-8. */
tms_status tms_stops_init(struct tms_stops *stops, const char *const *texts, size_t n, struct tms_error *err);
/* Adds text and appends to `out` what can be shown. True if a stop text was found: everything before the first one was
 * shown (of two that begin at the same place the first in the list), the rest is dropped, and *which is its index. */
bool tms_stops_push(struct tms_stops *stops, const void *text, size_t n_bytes, struct tms_buf *out, size_t *which);
/* Shows what is held: there is no more text. */
void tms_stops_finish(struct tms_stops *stops, struct tms_buf *out);
void tms_stops_free(struct tms_stops *stops);

#endif

/* See stops.h. */
#include "engine/stops.h"

#include <string.h>

#include "file/utf8.h"

tms_status tms_stops_init(struct tms_stops *stops, const char *const *texts, size_t n, struct tms_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!texts[i][0]) return tms_fail(err, TMS_EUSAGE, "a stop text is empty");
        if (!tms_is_utf8(texts[i], strlen(texts[i]))) return tms_fail(err, TMS_EUSAGE, "stop text %zu is no UTF-8", i);
    }
    *stops = (struct tms_stops){.texts = texts, .n = n};
    return TMS_OK;
}

/* How much of stop text i stands at `at`, which has n bytes: all of it, or as much as fits. 0: it is not there. */
static size_t stands(const struct tms_stops *s, size_t i, const uint8_t *at, size_t n)
{
    size_t length = strlen(s->texts[i]);
    if (length > n) length = n;
    return memcmp(s->texts[i], at, length) == 0 ? length : 0;
}

static void show(struct tms_stops *s, size_t n, struct tms_buf *out)
{
    tms_buf_put(out, s->held.data, n);
    if (n) memmove(s->held.data, s->held.data + n, s->held.n - n);
    s->held.n -= n;
}

bool tms_stops_push(struct tms_stops *s, const void *text, size_t n_bytes, struct tms_buf *out, size_t *which)
{
    size_t hold = SIZE_MAX; /* where the earliest beginning of a stop text stands */
    tms_buf_put(&s->held, text, n_bytes);
    for (size_t at = 0; at < s->held.n; at++) {
        for (size_t i = 0; i < s->n; i++) {
            size_t n = stands(s, i, s->held.data + at, s->held.n - at);
            if (n && !s->texts[i][n]) {
                show(s, at, out);
                s->held.n = 0;
                *which = i;
                return true;
            }
            if (n && hold == SIZE_MAX) hold = at;
        }
    }
    show(s, hold < s->held.n ? hold : s->held.n, out);
    return false;
}

void tms_stops_finish(struct tms_stops *s, struct tms_buf *out)
{
    show(s, s->held.n, out);
}

void tms_stops_free(struct tms_stops *s)
{
    tms_buf_free(&s->held);
}

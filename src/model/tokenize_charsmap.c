/* SentencePiece's precompiled_charsmap, which most often holds NFKC: in tokenizer.model and in GGUF files.
 *
 *     u32 bytes of the map | the map | texts that each end with a NUL                          (little-endian)
 *
 * The map is a double array (Darts: https://github.com/s-yata/darts-clone, units of 32 bits) from texts to the places
 * of what replaces them. A step has the map in `from` and the texts in `to`. No place that it names is believed: beyond
 * the map is a unit that no byte leads to, beyond the texts is no replacement. */
#include <string.h>

#include "model/tokenize_parts.h"

#define LONGEST 1024 /* bytes of a text that is replaced; a map may lead in circles */

tms_status tms_tokenize_add_charsmap(struct tms_tokenizer *t, const void *bytes, size_t n, struct tms_error *err)
{
    const uint8_t *b = bytes;
    uint64_t n_map = n < 4 ? UINT64_MAX : b[0] | (uint64_t)b[1] << 8 | (uint64_t)b[2] << 16 | (uint64_t)b[3] << 24;
    if (n_map > n - 4 || n_map % 4 || n_map == 0)
        return tms_fail(err, TMS_EINPUT, "%s: its precompiled_charsmap is damaged", t->where);
    const char *kept = tms_arena_strndup(&t->arena, bytes, n);
    if (!kept) return tms_fail_memory(err, n);
    struct tms_normalizer_step map = {.kind = TMS_STEP_CHARSMAP, .from = kept + 4, .n_from = (size_t)n_map};
    map.to = map.from + n_map;
    map.n_to = n - 4 - (size_t)n_map;
    return tms_tokenize_add_normalizer(t, &map, err);
}

static uint32_t unit_at(const struct tms_normalizer_step *step, size_t i)
{
    const uint8_t *p = (const uint8_t *)step->from + 4 * i;
    return i < step->n_from / 4 ? p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}

static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

void tms_tokenize_map(const struct tms_normalizer_step *step, const uint8_t *text, size_t n, struct tms_buf *out)
{
    for (size_t i = 0; i < n && out->n <= TMS_MAX_ENCODED / 4;) { /* the caller refuses what is longer */
        size_t best = 0, at_unit = 0;
        uint32_t place = unit_offset(unit_at(step, 0)), unit;
        for (size_t end = i; end < n && end - i < LONGEST; end++) {
            uint8_t byte = text[end];
            place ^= byte;
            unit = unit_at(step, place);
            if (byte == 0 || (unit & (1u << 31 | 0xff)) != byte) break;
            place ^= unit_offset(unit);
            if (unit >> 8 & 1) {
                best = end + 1 - i;
                at_unit = place;
            }
        }
        size_t begin = unit_at(step, at_unit) & ~(1u << 31);
        bool there = best && at_unit < step->n_from / 4 && begin < step->n_to;
        const char *mapped = there ? step->to + begin : NULL,
                   *nul = there ? memchr(mapped, '\0', step->n_to - begin) : NULL;
        if (nul) {
            tms_put_lossy(out, (const uint8_t *)mapped, (size_t)(nul - mapped));
            i += best;
        } else {
            const uint8_t *after = text + i;
            (void)tms_next_code(&after);
            tms_buf_put(out, text + i, (size_t)(after - text) - i);
            i = (size_t)(after - text);
        }
    }
}

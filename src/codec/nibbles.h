/* Decoding of blocks whose 4-bit codes stand for the entries of a table. */
#ifndef TMS_CODEC_NIBBLES_H
#define TMS_CODEC_NIBBLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n_groups groups of 16 bytes, `stride` bytes apart, give 32 values each: scale * table[code]. A group's values are
 * those of its 16 low nibbles, then of its high ones; by_halves: of the low nibbles of its first 8 bytes, their high
 * ones, and so for the last 8. scales: two per group, for its first and its last 16 values. */
void tms_decode_nibbles(const uint8_t *q, size_t stride, size_t n_groups, const int8_t table[16], bool by_halves,
                        const float *scales, float *x);

#endif

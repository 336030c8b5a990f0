/* The blocks of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 (see legacy.c) and how codes are packed into them. */
#ifndef TMS_CODEC_LEGACY_BLOCKS_H
#define TMS_CODEC_LEGACY_BLOCKS_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "base/cpu.h"

enum { BLOCK = 32 };

struct q4_0 {
    uint8_t d[2], low[16];
};
struct q4_1 {
    uint8_t d[2], m[2], low[16];
};
struct q5_0 {
    uint8_t d[2], high[4], low[16];
};
struct q5_1 {
    uint8_t d[2], m[2], high[4], low[16];
};
struct q8_0 {
    uint8_t d[2];
    int8_t q[32];
};
static_assert(sizeof(struct q4_0) == 18, "q4_0");
static_assert(sizeof(struct q4_1) == 20, "q4_1");
static_assert(sizeof(struct q5_0) == 22, "q5_0");
static_assert(sizeof(struct q5_1) == 24, "q5_1");
static_assert(sizeof(struct q8_0) == 34, "q8_0");

TMS_INLINE void pack_nibbles(const uint8_t *restrict q, uint8_t *restrict low)
{
    for (int j = 0; j < 16; j++) low[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

TMS_INLINE void pack_fifth_bits(const uint8_t *restrict q, uint8_t *restrict high)
{
    uint32_t bits = 0;
    for (int j = 0; j < BLOCK; j++) bits |= (uint32_t)(q[j] >> 4 & 1) << j;
    memcpy(high, &bits, sizeof bits);
}

#endif

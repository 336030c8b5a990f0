/* Grids of blocks of 32 with one scale, Q4_0 … Q8_0, and of the types with four-bit tables (block_grids.h). */
#include "codec/legacy_blocks.h"
#include "codec/iq4_search.h"
#include "codec/rows.h"
#include "method/block_grids.h"

static void open_q4_0(const uint8_t *block, float *steps, float *offsets)
{
    steps[0] = tms_load_f16(block);
    offsets[0] = 0;
}

static void open_q4_1(const uint8_t *block, float *steps, float *offsets)
{
    steps[0] = tms_load_f16(block);
    offsets[0] = tms_load_f16(block + 2);
}

static void put_q4_0(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, ((struct q4_0 *)block)->low);
}

static void put_q4_1(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, ((struct q4_1 *)block)->low);
}

static void put_q5_0(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, ((struct q5_0 *)block)->low);
    pack_fifth_bits(codes, ((struct q5_0 *)block)->high);
}

static void put_q5_1(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, ((struct q5_1 *)block)->low);
    pack_fifth_bits(codes, ((struct q5_1 *)block)->high);
}

static void put_q8_0(uint8_t *block, const uint8_t *codes)
{
    for (int i = 0; i < BLOCK; i++) ((struct q8_0 *)block)->q[i] = (int8_t)(codes[i] - 127);
}

/* iq4_nl: the scale as f16, then nibbles; iq4_xs: d, scales_high[2], scales_low[4], nibbles (iq4.c). */
static void open_iq4_xs(const uint8_t *block, float *steps, float *offsets)
{
    const float d = tms_load_f16(block);
    const unsigned high = block[2] | (unsigned)block[3] << 8;
    for (int j = 0; j < 8; j++) {
        const int scale = (block[4 + j / 2] >> 4 * (j % 2) & 15) | (int)(high >> 2 * j & 3) << 4;
        steps[j] = d * (float)(scale - 32);
        offsets[j] = 0;
    }
}

static void put_iq4_nl(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, block + 2);
}

static void put_iq4_xs(uint8_t *block, const uint8_t *codes)
{
    for (int j = 0; j < 8; j++) pack_nibbles(codes + 32 * j, block + 8 + 16 * j);
}

/* mxfp4: the exponent, then nibbles (fp4.c); numbers are doubled values. */
static const int8_t fp4_numbers[15] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};
static const uint8_t fp4_codes[15] = {15, 14, 13, 12, 11, 10, 9, 0, 1, 2, 3, 4, 5, 6, 7};

static void open_mxfp4(const uint8_t *block, float *steps, float *offsets)
{
    const uint8_t e = block[0];
    steps[0] = tms_f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
    offsets[0] = 0;
}

static void put_mxfp4(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, block + 1);
}

/* nvfp4: four scales, half of what they stand for counts here, then eight bytes of nibbles for each 16 weights. */
static void open_nvfp4(const uint8_t *block, float *steps, float *offsets)
{
    for (int j = 0; j < 4; j++) {
        const uint8_t scale = block[j] & 127;
        steps[j] = block[j] == 127 ? 0 : tms_e4m3_to_f32(scale) * 0.5f;
        offsets[j] = 0;
    }
}

static void put_nvfp4(uint8_t *block, const uint8_t *codes)
{
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 8; i++) block[4 + 8 * j + i] = (uint8_t)(codes[16 * j + i] | codes[16 * j + i + 8] << 4);
}

const struct tms_block_grid tms_legacy_grids[] = {
    {.type = TMS_Q4_0, .sub = 32, .first = -8, .count = 16, .open = open_q4_0, .put = put_q4_0},
    {.type = TMS_Q4_1, .sub = 32, .first = 0, .count = 16, .open = open_q4_1, .put = put_q4_1},
    {.type = TMS_Q5_0, .sub = 32, .first = -16, .count = 32, .open = open_q4_0, .put = put_q5_0},
    {.type = TMS_Q5_1, .sub = 32, .first = 0, .count = 32, .open = open_q4_1, .put = put_q5_1},
    {.type = TMS_Q8_0, .sub = 32, .first = -127, .count = 255, .open = open_q4_0, .put = put_q8_0},
    {.type = TMS_IQ4_NL, .sub = 32, .count = 16, .numbers = tms_iq4_numbers, .open = open_q4_0, .put = put_iq4_nl},
    {.type = TMS_IQ4_XS, .sub = 32, .count = 16, .numbers = tms_iq4_numbers, .open = open_iq4_xs, .put = put_iq4_xs},
    {.type = TMS_MXFP4,
     .sub = 32,
     .count = 15,
     .numbers = fp4_numbers,
     .codes = fp4_codes,
     .open = open_mxfp4,
     .put = put_mxfp4},
    {.type = TMS_NVFP4,
     .sub = 16,
     .count = 15,
     .numbers = fp4_numbers,
     .codes = fp4_codes,
     .open = open_nvfp4,
     .put = put_nvfp4},
};
const size_t tms_n_legacy_grids = sizeof tms_legacy_grids / sizeof *tms_legacy_grids;

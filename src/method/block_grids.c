/* Grids of super-blocks of 256: K-quants and the codebooks of IQ2 and IQ3 (block_grids.h). */
#include "method/block_grids.h"

#include "codec/iq1_search.h"
#include "codec/k_blocks.h"

/* ---- K-quants ---- */

static void open_q2_k(const uint8_t *block, float *steps, float *offsets)
{
    const struct q2_k *b = (const struct q2_k *)block;
    const float d = tms_load_f16(b->d), dmin = tms_load_f16(b->dmin);
    for (int j = 0; j < 16; j++) {
        steps[j] = d * (float)(b->scales[j] & 15);
        offsets[j] = -(dmin * (float)(b->scales[j] >> 4));
    }
}

static void open_q3_k(const uint8_t *block, float *steps, float *offsets)
{
    const struct q3_k *b = (const struct q3_k *)block;
    for (int j = 0; j < 16; j++) {
        steps[j] = tms_load_f16(b->d) * (float)unpack_q3_scale(b->scales, j);
        offsets[j] = 0;
    }
}

static void open_six_bits(const uint8_t *d_f16, const uint8_t *dmin_f16, const uint8_t *packed, float *steps,
                          float *offsets)
{
    const float d = tms_load_f16(d_f16), dmin = tms_load_f16(dmin_f16);
    uint8_t scales[8], mins[8];
    unpack_six_bits(packed, scales, mins);
    for (int j = 0; j < 8; j++) {
        steps[j] = d * (float)scales[j];
        offsets[j] = -(dmin * (float)mins[j]);
    }
}

static void open_q4_k(const uint8_t *block, float *steps, float *offsets)
{
    const struct q4_k *b = (const struct q4_k *)block;
    open_six_bits(b->d, b->dmin, b->scales, steps, offsets);
}

static void open_q5_k(const uint8_t *block, float *steps, float *offsets)
{
    const struct q5_k *b = (const struct q5_k *)block;
    open_six_bits(b->d, b->dmin, b->scales, steps, offsets);
}

static void open_q6_k(const uint8_t *block, float *steps, float *offsets)
{
    const struct q6_k *b = (const struct q6_k *)block;
    for (int j = 0; j < 16; j++) {
        steps[j] = tms_load_f16(b->d) * (float)b->scales[j];
        offsets[j] = 0;
    }
}

static void put_q2_k(uint8_t *block, const uint8_t *codes)
{
    pack_pairs(codes, ((struct q2_k *)block)->q);
}

static void put_q3_k(uint8_t *block, const uint8_t *codes)
{
    pack_pairs(codes, ((struct q3_k *)block)->q);
    pack_high_bits(codes, 2, ((struct q3_k *)block)->high);
}

static void put_q4_k(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, ((struct q4_k *)block)->q);
}

static void put_q5_k(uint8_t *block, const uint8_t *codes)
{
    pack_nibbles(codes, ((struct q5_k *)block)->q);
    pack_high_bits(codes, 4, ((struct q5_k *)block)->high);
}

static void put_q6_k(uint8_t *block, const uint8_t *codes)
{
    struct q6_k *b = (struct q6_k *)block;
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *c = codes + 128 * half + i;
            b->low[64 * half + i] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
            b->low[64 * half + 32 + i] = (uint8_t)((c[32] & 15) | (c[96] & 15) << 4);
            b->high[32 * half + i] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
        }
}

/* ---- codebooks; layouts as iq2.c and iq3.c describe them ---- */

static uint32_t eight(const uint8_t *codes, int g)
{
    uint32_t word;
    memcpy(&word, codes + 8 * g, sizeof word);
    return word;
}

static void no_offsets(float *offsets, int n)
{
    for (int j = 0; j < n; j++) offsets[j] = 0;
}

/* d, then per 32 weights four bytes of points and a word of signs with the scale on top. */
static void open_iq2_xxs(const uint8_t *block, float *steps, float *offsets)
{
    for (int j = 0; j < 8; j++) steps[j] = tms_load_f16(block) * (0.5f + (float)(block[2 + 8 * j + 7] >> 4)) * 0.25f;
    no_offsets(offsets, 8);
}

/* The signs of four eights under what the top four bits of a word hold. */
static void put_signs(uint8_t *word, const uint8_t *codes, int first)
{
    uint32_t signs_scale = (uint32_t)(word[3] >> 4) << 28;
    for (int g = 0; g < 4; g++) signs_scale |= (eight(codes, first + g) >> 24 & 127) << 7 * g;
    memcpy(word, &signs_scale, sizeof signs_scale);
}

static void put_iq2_xxs(uint8_t *block, const uint8_t *codes)
{
    for (int j = 0; j < 8; j++) {
        for (int g = 0; g < 4; g++) block[2 + 8 * j + g] = (uint8_t)eight(codes, 4 * j + g);
        put_signs(block + 2 + 8 * j + 4, codes, 4 * j);
    }
}

static void open_sixteen(const uint8_t *d, const uint8_t *scales, float *steps, float *offsets)
{
    for (int j = 0; j < 16; j++)
        steps[j] = tms_load_f16(d) * (0.5f + (float)(scales[j / 2] >> 4 * (j % 2) & 15)) * 0.25f;
    no_offsets(offsets, 16);
}

/* d, 32 words of 9 bits of a point and 7 of signs, 8 bytes of scales. */
static void open_iq2_xs(const uint8_t *block, float *steps, float *offsets)
{
    open_sixteen(block, block + 66, steps, offsets);
}

static void put_iq2_xs(uint8_t *block, const uint8_t *codes)
{
    for (int g = 0; g < 32; g++) {
        const uint32_t code = eight(codes, g);
        const uint16_t word = (uint16_t)((code & 511) | (code >> 24 & 127) << 9);
        memcpy(block + 2 + 2 * g, &word, sizeof word);
    }
}

/* d, 32 low bytes of points, 32 bytes of signs, 8 bytes with their high bits, 8 bytes of scales. */
static void open_iq2_s(const uint8_t *block, float *steps, float *offsets)
{
    open_sixteen(block, block + 74, steps, offsets);
}

static void put_iq2_s(uint8_t *block, const uint8_t *codes)
{
    memset(block + 66, 0, 8);
    for (int g = 0; g < 32; g++) {
        const uint32_t code = eight(codes, g);
        block[2 + g] = (uint8_t)code;
        block[34 + g] = (uint8_t)(code >> 24);
        block[66 + g / 4] |= (uint8_t)((code >> 8 & 3) << 2 * (g % 4));
    }
}

/* d, 64 bytes of points, per 32 weights a word of signs with the scale on top. */
static void open_iq3_xxs(const uint8_t *block, float *steps, float *offsets)
{
    for (int j = 0; j < 8; j++) steps[j] = tms_load_f16(block) * (0.5f + (float)(block[66 + 4 * j + 3] >> 4)) * 0.5f;
    no_offsets(offsets, 8);
}

static void put_iq3_xxs(uint8_t *block, const uint8_t *codes)
{
    for (int g = 0; g < 32; g++) {
        block[2 + 2 * g] = (uint8_t)eight(codes, g);
        block[2 + 2 * g + 1] = (uint8_t)(eight(codes, g) >> 12);
    }
    for (int j = 0; j < 8; j++) put_signs(block + 66 + 4 * j, codes, 4 * j);
}

/* d, 64 low bytes of points, 8 bytes with their ninth bits, 32 bytes of signs, 4 bytes of scales. */
static void open_iq3_s(const uint8_t *block, float *steps, float *offsets)
{
    for (int j = 0; j < 8; j++)
        steps[j] = tms_load_f16(block) * (float)(1 + 2 * (block[106 + j / 2] >> 4 * (j % 2) & 15));
    no_offsets(offsets, 8);
}

static void put_iq3_s(uint8_t *block, const uint8_t *codes)
{
    memset(block + 66, 0, 8);
    for (int g = 0; g < 32; g++) {
        const uint32_t code = eight(codes, g);
        block[2 + 2 * g] = (uint8_t)code;
        block[2 + 2 * g + 1] = (uint8_t)(code >> 12);
        block[66 + g / 4] |= (uint8_t)((code >> 8 & 1) << 2 * (g % 4) | (code >> 20 & 1) << (2 * (g % 4) + 1));
        block[74 + g] = (uint8_t)(code >> 24);
    }
}

/* iq1_s: d, 32 low bytes of points, per 32 weights a word of four times 3 bits, the scale, the sign of the offset;
 * iq1_m: 32 low bytes, a byte of 3 + 1 + 3 + 1 bits for two points, four words of four scales and 4 bits of d (iq1.c).
 */
static unsigned word_at(const uint8_t *bytes)
{
    return bytes[0] | (unsigned)bytes[1] << 8;
}

static void open_iq1_s(const uint8_t *block, float *steps, float *offsets)
{
    for (int j = 0; j < 8; j++) {
        const unsigned high = word_at(block + 34 + 2 * j);
        steps[j] = tms_load_f16(block) * (float)(2 * (high >> 12 & 7) + 1);
        offsets[j] = high >> 15 ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA;
    }
}

static void put_iq1_s(uint8_t *block, const uint8_t *codes)
{
    for (int j = 0; j < 8; j++) {
        unsigned high = word_at(block + 34 + 2 * j) & 0xf000;
        for (int g = 0; g < 4; g++) {
            const uint32_t code = eight(codes, 4 * j + g);
            block[2 + 4 * j + g] = (uint8_t)code;
            high |= (code >> 8 & 7) << 3 * g;
        }
        block[34 + 2 * j] = (uint8_t)high;
        block[34 + 2 * j + 1] = (uint8_t)(high >> 8);
    }
}

static void open_iq1_m(const uint8_t *block, float *steps, float *offsets)
{
    unsigned half = 0;
    for (int k = 0; k < 4; k++) half |= word_at(block + 48 + 2 * k) >> 12 << 4 * k;
    for (int j = 0; j < 16; j++)
        steps[j] =
            tms_f16_to_f32((uint16_t)half) * (float)(2 * (word_at(block + 48 + 2 * (j / 4)) >> 3 * (j % 4) & 7) + 1);
    no_offsets(offsets, 16);
}

static void put_iq1_m(uint8_t *block, const uint8_t *codes)
{
    for (int g = 0; g < 32; g++) {
        const uint32_t code = eight(codes, g);
        const unsigned high = (code >> 8 & 7) | (code >> 24 & 1) << 3;
        block[g] = (uint8_t)code;
        block[32 + g / 2] = (uint8_t)(g % 2 == 0 ? high : block[32 + g / 2] | high << 4);
    }
}

/* ---- the table ---- */

static const struct tms_block_grid super_grids[] = {
    {.type = TMS_Q2_K, .sub = 16, .first = 0, .count = 4, .open = open_q2_k, .put = put_q2_k},
    {.type = TMS_Q3_K, .sub = 16, .first = -4, .count = 8, .open = open_q3_k, .put = put_q3_k},
    {.type = TMS_Q4_K, .sub = 32, .first = 0, .count = 16, .open = open_q4_k, .put = put_q4_k},
    {.type = TMS_Q5_K, .sub = 32, .first = 0, .count = 32, .open = open_q5_k, .put = put_q5_k},
    {.type = TMS_Q6_K, .sub = 16, .first = -32, .count = 64, .open = open_q6_k, .put = put_q6_k},
    {.type = TMS_IQ2_XXS,
     .sub = 32,
     .book = TMS_BOOK_IQ2_XXS,
     .even_signs = true,
     .open = open_iq2_xxs,
     .put = put_iq2_xxs},
    {.type = TMS_IQ2_XS,
     .sub = 16,
     .book = TMS_BOOK_IQ2_XS,
     .even_signs = true,
     .open = open_iq2_xs,
     .put = put_iq2_xs},
    {.type = TMS_IQ2_S, .sub = 16, .book = TMS_BOOK_IQ2_S, .open = open_iq2_s, .put = put_iq2_s},
    {.type = TMS_IQ3_XXS,
     .sub = 32,
     .book = TMS_BOOK_IQ3_XXS,
     .even_signs = true,
     .open = open_iq3_xxs,
     .put = put_iq3_xxs},
    {.type = TMS_IQ1_S, .sub = 32, .ternary = true, .open = open_iq1_s, .put = put_iq1_s},
    {.type = TMS_IQ1_M, .sub = 16, .ternary = true, .free_delta = true, .open = open_iq1_m, .put = put_iq1_m},
    {.type = TMS_IQ3_S, .sub = 32, .book = TMS_BOOK_IQ3_S, .open = open_iq3_s, .put = put_iq3_s},
};

const struct tms_block_grid *tms_block_grid(enum tms_type type)
{
    for (size_t i = 0; i < sizeof super_grids / sizeof *super_grids; i++)
        if (super_grids[i].type == type) return &super_grids[i];
    for (size_t i = 0; i < tms_n_legacy_grids; i++)
        if (tms_legacy_grids[i].type == type) return &tms_legacy_grids[i];
    return NULL;
}

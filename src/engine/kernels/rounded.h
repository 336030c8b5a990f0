/* Dot products of stored blocks with activations that are rounded to 8 bits: the arithmetic of the fast mode.
 *
 * A unit is 256 values. Activations are rounded in blocks of 32, x = scale * code with scale = max |x| / 127; weights
 * are x = scale * code - min with a scale for every 16 or 32 of them, whatever their type. A product of codes is an
 * integer, and so is their sum: both are exact.
 *
 * tms_rounded_rows has one order of sums, whatever the CPU and the rows around it: lane l of 32 takes the sums of four
 * products that lie 128 apart, 4 l, 4 l + 128, … of a row, and adds scale * (float)sum, fused; scale is the weight's
 * times the activations', rounded once. Minimums are collected apart, lane j for the j-th of every unit. Lanes are
 * added in halves; last, minimums are subtracted. tms_rounded_tile adds block after block of 32 (or 16) instead. */
#ifndef TMS_ENGINE_KERNELS_ROUNDED_H
#define TMS_ENGINE_KERNELS_ROUNDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tamis/codec.h>

#define TMS_UNIT 256u

/* Activations, rounded. What is past the end of a row is zero. */
struct tms_rounded_unit {
    _Alignas(64) int8_t codes[256];
    int32_t sums[64]; /* - (codes[4 l] + … + codes[4 l + 3]) */
    float scales[8];
    float by_32[8];                  /* scale * sum of 32 codes */
    float by_16[16];                 /* scale * sum of 16 codes */
    int32_t less_32[8], less_16[16]; /* -128 * sum of 32 (16) codes */
};

static inline size_t tms_units(uint64_t cols)
{
    return (size_t)((cols + TMS_UNIT - 1) / TMS_UNIT);
}

/* Rounds n values (any number) to tms_units(n) units. A block with a value that is not finite gets a scale that is not
 * finite either, so that results show it. */
void tms_round_row(const float *x, size_t n, struct tms_rounded_unit *units);

/* A row of the table in rounded.c: a type whose blocks can be multiplied with rounded activations. */
struct tms_rounded_codec;

/* NULL: there is none for the type, its values are multiplied as floats. */
const struct tms_rounded_codec *tms_rounded_codec(enum tms_type type);

/* y[r] = w[r] . x for n_rows rows of cols weights that begin row_bytes apart. */
void tms_rounded_rows(const struct tms_rounded_codec *codec, const uint8_t *rows, size_t row_bytes, size_t n_rows,
                      uint64_t cols, const struct tms_rounded_unit *x, float *y);

/* True where products of many tokens have kernels (AVX-512 with VNNI); elsewhere floats are as fast. */
bool tms_rounded_tiles(void);
/* Rows of a tile, and the bytes of working memory that it needs. */
#define TMS_ROUNDED_TILE    32u
#define TMS_ROUNDED_SCRATCH (TMS_ROUNDED_TILE * 2 * (TMS_UNIT + 2 * 16 * sizeof(float)))
/* y[t][r] = w[r] . x[t] for n_rows <= TMS_ROUNDED_TILE rows and n tokens, whose units lie x_units apart. scratch:
 * aligned to 64 bytes. */
void tms_rounded_tile(const struct tms_rounded_codec *codec, const uint8_t *rows, size_t row_bytes, size_t n_rows,
                      uint64_t cols, const struct tms_rounded_unit *x, size_t x_units, size_t n, float *y,
                      size_t y_stride, void *scratch);

#endif

/* Products of many tokens for rounded.h, with AVX-512 and VNNI: 32 rows are unpacked once for all tokens, to bytes that
 * lie as the instruction wants them, and to scales; 6 tokens x 32 rows of sums stay in registers.
 *
 * The instruction multiplies unsigned with signed bytes. Weights are the unsigned ones, of types without minimums by an
 * offset of 128, which is taken off with the sums of the activations' codes, in integers. */
#include "engine/kernels/rounded_types.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/unpack.h"

#define LANES        16
#define TARGET       TMS_TARGET_VNNI
#define NAME(symbol) symbol##_16
#include "codec/decode_lanes.h"
#include "codec/iq_decode_lanes.h"
#include "engine/kernels/unpack_lanes.h"

#define PIECE  2u /* units that are unpacked at a time: they fit the first-level cache */
#define ROWS   TMS_ROUNDED_TILE
#define TOKENS 6

/* 32 rows of a piece. */
struct tile {
    uint8_t codes[PIECE * TMS_UNIT / 4][ROWS][4];
    float scales[PIECE * 16][ROWS]; /* of blocks of 32 or 16 */
    float mins[PIECE * 16][ROWS];
};
_Static_assert(sizeof(struct tile) <= TMS_ROUNDED_SCRATCH, "scratch");

/* One unit of one row: unsigned codes [256], scales and minimums [8] or [16]. */
typedef void unpack_fn(const uint8_t *b, uint8_t *codes, float *scales, float *mins);

#define UNPACK_FUNCTION(name, unit_bytes, by_16, has_mins, shift, has_signs, book)                                     \
    TARGET static void bytes_##name(const uint8_t *b, uint8_t *codes, float *scales, float *mins)                      \
    {                                                                                                                  \
        struct NAME(unit) u;                                                                                           \
        u.values = book_values(book);                                                                                  \
        NAME(unpack_##name)(b, &u);                                                                                    \
        const __m512i zero = _mm512_setzero_si512();                                                                   \
        const __m512i offset = _mm512_set1_epi8((char)(128 - ((shift) >= 0 ? 1 << ((shift)&7) : 0)));                  \
        for (int p = 0; p < 4; p++) {                                                                                  \
            __m512i v = u.pairs[p];                                                                                    \
            if (has_signs) v = _mm512_mask_sub_epi8(v, (uint64_t)u.signs[2 * p + 1] << 32 | u.signs[2 * p], zero, v);  \
            if (!(has_mins)) v = _mm512_add_epi8(v, offset);                                                           \
            _mm512_store_si512(codes + 64 * p, v);                                                                     \
        }                                                                                                              \
        for (int i = 0; i < ((by_16) ? 2 : 1); i++) {                                                                  \
            _mm256_store_ps(scales + 8 * i, u.scales[i]);                                                              \
            if (has_mins) _mm256_store_ps(mins + 8 * i, u.mins[i]);                                                    \
        }                                                                                                              \
    }
ROUNDED_TYPES(UNPACK_FUNCTION)
#undef UNPACK_FUNCTION

static unpack_fn *const unpackers[] = {
#define ROW(name, unit_bytes, by_16, has_mins, shift, has_signs, book) bytes_##name,
    ROUNDED_TYPES(ROW)
#undef ROW
};

/* Sixteen rows of sixteen words become columns. */
INLINE void transpose(const uint8_t *from, size_t stride, uint8_t (*to)[ROWS][4])
{
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_load_si512(from + (size_t)i * stride);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    /* a[i + k]: of rows i … i + 3 the words k, k + 4, k + 8, k + 12. */
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int k = 0; k < 4; k++) {
        const __m512i low = _mm512_shuffle_i32x4(a[k], a[4 + k], 0x44),
                      high = _mm512_shuffle_i32x4(a[k], a[4 + k], 0xee);
        const __m512i last_low = _mm512_shuffle_i32x4(a[8 + k], a[12 + k], 0x44),
                      last_high = _mm512_shuffle_i32x4(a[8 + k], a[12 + k], 0xee);
        _mm512_store_si512(to[k], _mm512_shuffle_i32x4(low, last_low, 0x88));
        _mm512_store_si512(to[4 + k], _mm512_shuffle_i32x4(low, last_low, 0xdd));
        _mm512_store_si512(to[8 + k], _mm512_shuffle_i32x4(high, last_high, 0x88));
        _mm512_store_si512(to[12 + k], _mm512_shuffle_i32x4(high, last_high, 0xdd));
    }
}

/* Units [first, first + n_units) of the rows. */
TARGET static void fill(const struct tms_rounded_codec *codec, const uint8_t *rows, size_t row_bytes, size_t n_rows,
                        size_t first, size_t n_units, struct tile *tile)
{
    unpack_fn *unpack = unpackers[codec->number];
    const size_t n_scales = codec->by_16 ? 16 : 8;
    _Alignas(64) uint8_t codes[16][TMS_UNIT];
    _Alignas(64) float scales[16], mins[16];
    uint8_t padded[MAX_UNIT_BYTES];
    for (size_t i = 0; i < n_units; i++)
        for (size_t half = 0; half < ROWS; half += 16) {
            if (half >= n_rows) continue;
            for (size_t r = 0; r < 16; r++) {
                /* Rows behind the last one are copies of it; their results are not written. */
                const uint8_t *row = rows + (half + r < n_rows ? half + r : n_rows - 1) * row_bytes;
                const size_t at = (first + i) * codec->unit_bytes;
                const uint8_t *b = row + at;
                if (row_bytes - at < codec->unit_bytes) {
                    memset(padded, 0, sizeof padded);
                    memcpy(padded, b, row_bytes - at);
                    b = padded;
                }
                unpack(b, codes[r], scales, mins);
                for (size_t j = 0; j < n_scales; j++) {
                    tile->scales[n_scales * i + j][half + r] = scales[j];
                    if (codec->has_mins) tile->mins[n_scales * i + j][half + r] = mins[j];
                }
            }
            for (size_t k = 0; k < TMS_UNIT / 64; k++)
                transpose(codes[0] + 64 * k, TMS_UNIT,
                          (void *)((char *)tile->codes[TMS_UNIT / 4 * i + 16 * k] + 4 * half));
        }
}

/* y[t][0 … 31] += … for n_tokens tokens; constants where this is called, so that the sums live in registers. */
INLINE void add_tokens(const struct tile *tile, size_t n_units, const struct tms_rounded_unit *x, size_t x_units,
                       const size_t n_tokens, const bool by_16, const bool has_mins, __m512 (*sums)[2])
{
    const size_t n_steps = by_16 ? 4 : 8, n_blocks = TMS_UNIT / 4 / n_steps;
    for (size_t i = 0; i < n_units; i++)
        for (size_t b = 0; b < n_blocks; b++) {
            const size_t block = i * n_blocks + b;
            __m512i products[TOKENS][2];
            for (size_t t = 0; t < n_tokens; t++) {
                const struct tms_rounded_unit *u = x + t * x_units + i;
                products[t][0] = products[t][1] =
                    has_mins ? _mm512_setzero_si512() : _mm512_set1_epi32(by_16 ? u->less_16[b] : u->less_32[b]);
            }
#pragma GCC unroll 8
            for (size_t k = 0; k < n_steps; k++) {
                const uint8_t(*codes)[4] = tile->codes[block * n_steps + k];
                const __m512i w0 = _mm512_load_si512(codes), w1 = _mm512_load_si512(codes + 16);
                for (size_t t = 0; t < n_tokens; t++) {
                    int32_t word;
                    memcpy(&word, x[t * x_units + i].codes + 4 * (b * n_steps + k), sizeof word);
                    const __m512i four = _mm512_set1_epi32(word);
                    products[t][0] = _mm512_dpbusd_epi32(products[t][0], w0, four);
                    products[t][1] = _mm512_dpbusd_epi32(products[t][1], w1, four);
                }
            }
            for (size_t h = 0; h < 2; h++) {
                const __m512 scales = _mm512_load_ps(tile->scales[block] + 16 * h);
                for (size_t t = 0; t < n_tokens; t++) {
                    const struct tms_rounded_unit *u = x + t * x_units + i;
                    const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(u->scales[by_16 ? b / 2 : b]));
                    sums[t][h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[t][h]), scale, sums[t][h]);
                }
                if (has_mins) {
                    const __m512 mins = _mm512_load_ps(tile->mins[block] + 16 * h);
                    for (size_t t = 0; t < n_tokens; t++) {
                        const struct tms_rounded_unit *u = x + t * x_units + i;
                        const __m512 sum = _mm512_set1_ps(by_16 ? u->by_16[b] : u->by_32[b]);
                        sums[t][h] = _mm512_fnmadd_ps(mins, sum, sums[t][h]);
                    }
                }
            }
        }
}

INLINE void multiply_tokens(const struct tile *tile, size_t n_units, size_t n_rows, const struct tms_rounded_unit *x,
                            size_t x_units, const size_t n_tokens, const bool by_16, const bool has_mins, bool add,
                            float *y, size_t y_stride)
{
    const uint32_t used = n_rows < 32 ? (1u << n_rows) - 1 : 0xffffffff;
    __m512 sums[TOKENS][2];
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t h = 0; h < 2; h++)
            sums[t][h] = add ? _mm512_maskz_loadu_ps((__mmask16)(used >> 16 * h), y + t * y_stride + 16 * h)
                             : _mm512_setzero_ps();
    add_tokens(tile, n_units, x, x_units, n_tokens, by_16, has_mins, sums);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t h = 0; h < 2; h++)
            _mm512_mask_storeu_ps(y + t * y_stride + 16 * h, (__mmask16)(used >> 16 * h), sums[t][h]);
}

#define TILE_FUNCTION(name, by_16, has_mins)                                                                           \
    TARGET static void name(const struct tile *tile, size_t n_units, size_t n_rows, const struct tms_rounded_unit *x,  \
                            size_t x_units, size_t n, bool add, float *y, size_t y_stride)                             \
    {                                                                                                                  \
        size_t t = 0;                                                                                                  \
        for (; t + TOKENS <= n; t += TOKENS)                                                                           \
            multiply_tokens(tile, n_units, n_rows, x + t * x_units, x_units, TOKENS, by_16, has_mins, add,             \
                            y + t * y_stride, y_stride);                                                               \
        for (; t < n; t++)                                                                                             \
            multiply_tokens(tile, n_units, n_rows, x + t * x_units, x_units, 1, by_16, has_mins, add,                  \
                            y + t * y_stride, y_stride);                                                               \
    }
TILE_FUNCTION(multiply_32, false, false)
TILE_FUNCTION(multiply_32_less, false, true)
TILE_FUNCTION(multiply_16, true, false)
TILE_FUNCTION(multiply_16_less, true, true)

bool tms_rounded_tiles(void)
{
    return tms_cpu_has_vnni();
}

void tms_rounded_tile(const struct tms_rounded_codec *codec, const uint8_t *rows, size_t row_bytes, size_t n_rows,
                      uint64_t cols, const struct tms_rounded_unit *x, size_t x_units, size_t n, float *y,
                      size_t y_stride, void *scratch)
{
    struct tile *tile = scratch;
    const size_t n_units = tms_units(cols);
    for (size_t i = 0; i < n_units; i += PIECE) {
        const size_t count = n_units - i < PIECE ? n_units - i : PIECE;
        fill(codec, rows, row_bytes, n_rows, i, count, tile);
        if (codec->by_16)
            (codec->has_mins ? multiply_16_less : multiply_16)(tile, count, n_rows, x + i, x_units, n, i > 0, y,
                                                               y_stride);
        else
            (codec->has_mins ? multiply_32_less : multiply_32)(tile, count, n_rows, x + i, x_units, n, i > 0, y,
                                                               y_stride);
    }
}

#include "codec/lanes_end.h"

#else
bool tms_rounded_tiles(void)
{
    return false;
}

void tms_rounded_tile(const struct tms_rounded_codec *codec, const uint8_t *rows, size_t row_bytes, size_t n_rows,
                      uint64_t cols, const struct tms_rounded_unit *x, size_t x_units, size_t n, float *y,
                      size_t y_stride, void *scratch)
{
    (void)codec, (void)rows, (void)row_bytes, (void)n_rows, (void)cols, (void)x, (void)x_units, (void)n, (void)y;
    (void)y_stride, (void)scratch;
}
#endif

/* See grid.h. */
#include "codec/grid.h"

#include <string.h>

#include "base/cpu.h"
#include "base/numbers.h"

uint64_t tms_grid_groups(const struct tms_grid *grid)
{
    return grid->cols / grid->group + (grid->cols % grid->group != 0);
}

uint64_t tms_grid_scale_rows(const struct tms_grid *grid)
{
    return grid->rows / grid->scale_rows + (grid->rows % grid->scale_rows != 0);
}

uint8_t tms_grid_middle(const struct tms_grid *grid)
{
    return grid->layout == TMS_GRID_BYTES ? 128 : (uint8_t)(1u << (grid->bits - 1));
}

bool tms_grid_row_major(const struct tms_grid *grid)
{
    return grid->layout != TMS_GRID_GPTQ && grid->layout != TMS_GRID_AWQ;
}

uint64_t tms_grid_code_bytes(const struct tms_grid *grid, uint64_t n_rows)
{
    if (grid->layout == TMS_GRID_GPTQ) return grid->cols * grid->bits / 32 * n_rows * 4;
    if (grid->layout == TMS_GRID_AWQ) return grid->cols * (n_rows / 8) * 4;
    return n_rows * grid->row_bytes;
}

uint64_t tms_grid_stream_bytes(uint64_t cols, unsigned bits)
{
    return (cols * bits + 31) / 32 * 4;
}

uint64_t tms_grid_padded_bytes(uint64_t cols, unsigned bits)
{
    uint64_t in_word = 32 / bits;
    return (cols + in_word - 1) / in_word * 4;
}

void tms_grid_unpack(const struct tms_grid *grid, const uint8_t *stored, uint64_t row, uint64_t n_rows, uint64_t col,
                     uint64_t n_cols, uint8_t *codes, size_t ld)
{
    switch (grid->layout) {
    case TMS_GRID_GPTQ: tms_gptq_unpack(grid, stored, row, n_rows, col, n_cols, codes, ld); break;
    case TMS_GRID_AWQ: tms_awq_unpack(grid, stored, row, n_rows, col, n_cols, codes, ld); break;
    case TMS_GRID_STREAM:
    case TMS_GRID_PADDED:
    case TMS_GRID_BYTES: tms_ct_unpack(grid, stored, row, n_rows, col, n_cols, codes, ld); break;
    }
}

void tms_grid_pack(const struct tms_grid *grid, const uint8_t *codes, uint64_t row, uint64_t n_rows, uint8_t *stored)
{
    switch (grid->layout) {
    case TMS_GRID_GPTQ: tms_gptq_pack(grid, codes, row, n_rows, stored); break;
    case TMS_GRID_AWQ: tms_awq_pack(grid, codes, row, n_rows, stored); break;
    case TMS_GRID_STREAM:
    case TMS_GRID_PADDED:
    case TMS_GRID_BYTES: tms_ct_pack(grid, codes, row, n_rows, stored); break;
    }
}

/* ---- values ---- */

static const float e2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

/* Bias 1, steps of 1/8 below 1: the OCP format of MXFP6. */
static float e2m3(uint8_t code)
{
    unsigned exponent = code >> 3 & 3, mantissa = code & 7;
    float magnitude = exponent ? (float)(8 + mantissa) * (float)(1u << exponent) / 16 : (float)mantissa / 8;
    return code & 32 ? -magnitude : magnitude;
}

TMS_INLINE void integers_body(const uint8_t *restrict codes, int zero, float scale, float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)((int)codes[i] - zero) * scale;
}
TMS_BY_CPU(static, integers, (const uint8_t *codes, int zero, float scale, float *x, size_t n),
           (codes, zero, scale, x, n))

TMS_INLINE void times_body(float scale, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}
TMS_BY_CPU(static, times, (float scale, float *x, size_t n), (scale, x, n))

static void run_of_values(const struct tms_grid *grid, const uint8_t *codes, int zero, float scale, float *x, size_t n)
{
    switch (grid->values) {
    case TMS_GRID_INT: integers(codes, zero, scale, x, n); break;
    case TMS_GRID_E4M3:
        tms_e4m3_to_f32_n(codes, x, n);
        times(scale, x, n);
        break;
    case TMS_GRID_E2M1:
        for (size_t i = 0; i < n; i++) x[i] = e2m1[codes[i] & 15] * scale;
        break;
    case TMS_GRID_E2M3:
        for (size_t i = 0; i < n; i++) x[i] = e2m3(codes[i]) * scale;
        break;
    }
}

void tms_grid_apply(const struct tms_grid *grid, const float *scales, const uint8_t *zeros, uint64_t row,
                    uint64_t n_rows, uint64_t col, uint64_t n_cols, const uint8_t *codes, size_t ld_codes, float *out,
                    size_t ld)
{
    const uint64_t groups = tms_grid_groups(grid);
    const int middle = tms_grid_middle(grid);
    for (uint64_t r = 0; r < n_rows; r++) {
        const float *scale = scales + (row + r) / grid->scale_rows * groups;
        const uint8_t *zero = zeros ? zeros + (row + r) / grid->scale_rows * groups : NULL;
        const uint8_t *code = codes + r * ld_codes;
        float *x = out + r * ld;
        for (uint64_t c = 0; c < n_cols;) {
            uint64_t g = (col + c) / grid->group, end = (g + 1) * grid->group - col;
            if (grid->group_of) {
                g = grid->group_of[col + c];
                for (end = c + 1; end < n_cols && grid->group_of[col + end] == g;) end++;
            }
            if (end > n_cols) end = n_cols;
            run_of_values(grid, code + c, zero ? zero[g] : middle, scale[g], x + c, (size_t)(end - c));
            c = end;
        }
    }
}

void tms_grid_decode(const struct tms_grid *grid, const uint8_t *stored, const float *scales, const uint8_t *zeros,
                     uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out, size_t ld)
{
    enum { ROWS = 16, COLS = 256 }; /* a tile of codes that stays in the first cache */
    uint8_t codes[ROWS * COLS];
    if (grid->layout == TMS_GRID_BYTES && grid->values != TMS_GRID_INT) { /* they are as they should be */
        tms_grid_apply(grid, scales, zeros, row, n_rows, col, n_cols, stored + row * grid->row_bytes + col,
                       (size_t)grid->row_bytes, out, ld);
        return;
    }
    for (uint64_t r = 0; r < n_rows; r += ROWS) {
        uint64_t some_rows = n_rows - r < ROWS ? n_rows - r : ROWS;
        for (uint64_t c = 0; c < n_cols; c += COLS) {
            uint64_t some_cols = n_cols - c < COLS ? n_cols - c : COLS;
            tms_grid_unpack(grid, stored, row + r, some_rows, col + c, some_cols, codes, COLS);
            tms_grid_apply(grid, scales, zeros, row + r, some_rows, col + c, some_cols, codes, COLS, out + r * ld + c,
                           ld);
        }
    }
}

/* ---- bit streams ---- */

static uint32_t word_at(const void *words, size_t i)
{
    uint32_t word;
    memcpy(&word, (const uint8_t *)words + 4 * i, sizeof word);
    return word;
}

uint32_t tms_bits_get(const void *words, size_t stride, unsigned bits, uint64_t i)
{
    uint64_t bit = i * bits, word = bit / 32;
    unsigned shift = bit % 32;
    uint32_t field = word_at(words, word * stride) >> shift;
    if (shift + bits > 32) field |= word_at(words, (word + 1) * stride) << (32 - shift);
    return field & ((1u << bits) - 1);
}

TMS_INLINE void unpack_two_body(const uint8_t *restrict from, uint8_t *restrict to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 4; k++) to[4 * i + k] = from[i] >> 2 * k & 3;
}
TMS_BY_CPU(static, unpack_two, (const uint8_t *from, uint8_t *to, size_t n), (from, to, n))

static void pairs_scalar(const uint8_t *pairs, bool high_first, uint8_t *codes, size_t n)
{
    for (size_t i = 0; i < n; i++) codes[i] = (i % 2 == 1) != high_first ? pairs[i / 2] >> 4 : pairs[i / 2] & 15;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define AHEAD 4096 /* bytes that are fetched before they are needed; nothing happens past the end of what is mapped */

TMS_TARGET_AVX2 static void pairs_avx2(const uint8_t *pairs, bool high_first, uint8_t *codes, size_t n)
{
    const __m128i four_bits = _mm_set1_epi8(15);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        _mm_prefetch((const char *)pairs + i / 2 + AHEAD, _MM_HINT_T0);
        const __m128i both = _mm_loadu_si128((const __m128i *)(const void *)(pairs + i / 2));
        const __m128i low = _mm_and_si128(both, four_bits), high = _mm_and_si128(_mm_srli_epi16(both, 4), four_bits);
        const __m128i first = high_first ? high : low, second = high_first ? low : high;
        _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm_unpacklo_epi8(first, second));
        _mm_storeu_si128((__m128i *)(void *)(codes + i + 16), _mm_unpackhi_epi8(first, second));
    }
    pairs_scalar(pairs + i / 2, high_first, codes + i, n - i);
}
#endif

void tms_pairs_unpack(const uint8_t *pairs, bool high_first, uint8_t *codes, size_t n)
{
#if defined(__x86_64__)
    if (tms_cpu_level() >= TMS_CPU_AVX2) {
        pairs_avx2(pairs, high_first, codes, n);
        return;
    }
#endif
    pairs_scalar(pairs, high_first, codes, n);
}

void tms_bits_unpack(const uint8_t *stream, unsigned bits, uint8_t *fields, size_t n)
{
    const size_t whole = n / 8 * 8; /* eight fields are as many bytes as one has bits */
    if (bits == 8) {
        memcpy(fields, stream, n);
        return;
    }
    if (bits == 2) {
        unpack_two(stream, fields, whole / 4);
    } else if (bits == 4) {
        tms_pairs_unpack(stream, false, fields, whole);
    } else {
        for (size_t i = 0; i < whole; i += 8) {
            uint64_t eight = 0;
            memcpy(&eight, stream + i / 8 * bits, bits);
            for (size_t k = 0; k < 8; k++) fields[i + k] = (uint8_t)(eight >> k * bits & ((1u << bits) - 1));
        }
    }
    uint64_t last = 0;
    memcpy(&last, stream + whole / 8 * bits, ((n - whole) * bits + 7) / 8);
    for (size_t k = 0; k < n - whole; k++) fields[whole + k] = (uint8_t)(last >> k * bits & ((1u << bits) - 1));
}

void tms_bits_put(void *words, size_t stride, unsigned bits, uint64_t i, uint32_t field)
{
    uint64_t bit = i * bits, word = bit / 32;
    unsigned shift = bit % 32;
    uint8_t *at = (uint8_t *)words + 4 * word * stride;
    uint32_t put = word_at(at, 0) | field << shift;
    memcpy(at, &put, sizeof put);
    if (shift + bits <= 32) return;
    at += 4 * stride;
    put = word_at(at, 0) | field >> (32 - shift);
    memcpy(at, &put, sizeof put);
}

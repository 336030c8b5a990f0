/* See halves.h. */
#include "engine/kernels/halves.h"

#include <string.h>

#include "base/cpu.h"
#include "engine/kernels/dots.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AHEAD 4096 /* bytes that are fetched before they are needed */

/* Eight weights, as floats. `type` is a constant where this is called. */
TMS_TARGET_AVX2 TMS_INLINE __m256 load_8(const enum tms_type type, const uint8_t *from)
{
    if (type == TMS_F32) return _mm256_loadu_ps((const float *)(const void *)from);
    const __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)from);
    if (type == TMS_F16) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

TMS_TARGET_AVX512 TMS_INLINE __m512 load_16(const enum tms_type type, const uint8_t *from)
{
    if (type == TMS_F32) return _mm512_loadu_ps(from);
    const __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)from);
    if (type == TMS_F16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

TMS_TARGET_AVX2 TMS_INLINE float add_lanes(__m256 low, __m256 high)
{
    const __m256 eight = _mm256_add_ps(low, high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* One piece (dots.h) of one row: rows are read as they lie in memory, several at once would be more streams than are
 * fetched ahead well. What is left after the last 16 columns is padded with zeros. */
TMS_TARGET_AVX512 TMS_INLINE float piece_avx512(const enum tms_type type, const uint8_t *row, size_t n, const float *x)
{
    const size_t bytes = type == TMS_F32 ? 4 : 2, left = n % 16;
    __m512 sum = _mm512_setzero_ps();
    for (size_t c = 0; c + 16 <= n; c += 16) {
        _mm_prefetch((const char *)row + c * bytes + AHEAD, _MM_HINT_T0);
        sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + c), load_16(type, row + c * bytes), sum);
    }
    if (left) {
        uint8_t last[64] = {0};
        memcpy(last, row + (n - left) * bytes, left * bytes);
        const __m512 tail = _mm512_maskz_loadu_ps((__mmask16)((1u << left) - 1), x + n - left);
        sum = _mm512_fmadd_ps(tail, load_16(type, last), sum);
    }
    return add_lanes(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
}

TMS_TARGET_AVX2 TMS_INLINE float piece_avx2(const enum tms_type type, const uint8_t *row, size_t n, const float *x)
{
    const size_t bytes = type == TMS_F32 ? 4 : 2, left = n % 16;
    __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t c = 0; c + 16 <= n; c += 16) {
        _mm_prefetch((const char *)row + c * bytes + AHEAD, _MM_HINT_T0);
        for (size_t h = 0; h < 2; h++)
            sums[h] = _mm256_fmadd_ps(_mm256_loadu_ps(x + c + 8 * h), load_8(type, row + (c + 8 * h) * bytes), sums[h]);
    }
    if (left) {
        uint8_t last[64] = {0};
        float tail[16] = {0};
        memcpy(last, row + (n - left) * bytes, left * bytes);
        memcpy(tail, x + n - left, left * sizeof *tail);
        for (size_t h = 0; h < 2; h++)
            sums[h] = _mm256_fmadd_ps(_mm256_loadu_ps(tail + 8 * h), load_8(type, last + 8 * h * bytes), sums[h]);
    }
    return add_lanes(sums[0], sums[1]);
}

#define ROWS_FUNCTION(name, target, piece, type)                                                                       \
    target static void name(const uint8_t *rows, size_t n_rows, size_t n_cols, const float *x, float *y)               \
    {                                                                                                                  \
        const size_t bytes = (type) == TMS_F32 ? 4 : 2;                                                                \
        for (size_t r = 0; r < n_rows; r++, rows += n_cols * bytes)                                                    \
            for (size_t c = 0; c < n_cols; c += TMS_DOT_PIECE) {                                                       \
                const size_t n = n_cols - c < TMS_DOT_PIECE ? n_cols - c : TMS_DOT_PIECE;                              \
                const float sum = piece(type, rows + c * bytes, n, x + c);                                             \
                y[r] = c ? y[r] + sum : sum;                                                                           \
            }                                                                                                          \
    }
ROWS_FUNCTION(f16_avx512, TMS_TARGET_AVX512, piece_avx512, TMS_F16)
ROWS_FUNCTION(bf16_avx512, TMS_TARGET_AVX512, piece_avx512, TMS_BF16)
ROWS_FUNCTION(f32_avx512, TMS_TARGET_AVX512, piece_avx512, TMS_F32)
ROWS_FUNCTION(f16_avx2, TMS_TARGET_AVX2, piece_avx2, TMS_F16)
ROWS_FUNCTION(bf16_avx2, TMS_TARGET_AVX2, piece_avx2, TMS_BF16)
ROWS_FUNCTION(f32_avx2, TMS_TARGET_AVX2, piece_avx2, TMS_F32)

bool tms_halves_fit(enum tms_type type)
{
    return (type == TMS_F16 || type == TMS_BF16 || type == TMS_F32) && tms_cpu_level() >= TMS_CPU_AVX2;
}

void tms_halves_rows(enum tms_type type, const uint8_t *rows, size_t n_rows, size_t n_cols, const float *x, float *y)
{
    const bool wide = tms_cpu_level() == TMS_CPU_AVX512;
    if (type == TMS_F16)
        (wide ? f16_avx512 : f16_avx2)(rows, n_rows, n_cols, x, y);
    else if (type == TMS_BF16)
        (wide ? bf16_avx512 : bf16_avx2)(rows, n_rows, n_cols, x, y);
    else
        (wide ? f32_avx512 : f32_avx2)(rows, n_rows, n_cols, x, y);
}
#else
bool tms_halves_fit(enum tms_type type)
{
    (void)type;
    return false;
}

void tms_halves_rows(enum tms_type type, const uint8_t *rows, size_t n_rows, size_t n_cols, const float *x, float *y)
{
    (void)type, (void)rows, (void)n_rows, (void)n_cols, (void)x, (void)y;
}
#endif

/* See coded.h. The scalar functions are the definition. */
#include "engine/kernels/coded.h"

#include <math.h>

#include "base/cpu.h"

#define LANES TMS_CODED_LANES
#define AHEAD 4096 /* bytes that are fetched before they are needed; nothing happens past the end of what is mapped */

TMS_INLINE void tms_coded_integers_body(const uint8_t *restrict codes, int zero, int16_t *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i++) values[i] = (int16_t)(codes[i] - zero);
}
TMS_BY_CPU(extern, tms_coded_integers, (const uint8_t *codes, int zero, int16_t *values, size_t n),
           (codes, zero, values, n))

TMS_INLINE void tms_coded_signed_body(const uint8_t *restrict codes, int16_t *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i += 64) {
        const size_t end = i + 64 < n ? i + 64 : n;
        __builtin_prefetch((const void *)((uintptr_t)codes + i + AHEAD));
        for (size_t k = i; k < end; k++) values[k] = (int16_t)((codes[k] ^ 128) - 128);
    }
}
TMS_BY_CPU(extern, tms_coded_signed, (const uint8_t *codes, int16_t *values, size_t n), (codes, values, n))

static void lookup_scalar(const int16_t *book, const uint8_t *codes, int16_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++) values[i] = book[codes[i] & 15];
}

static void rows_scalar(const int16_t *values, const float *scales, size_t ld, size_t n_rows,
                        const struct tms_rounded_unit *x, size_t n_units, float *lanes)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t block = 0; block < n_units * 8; block++) {
            const int16_t *w = values + r * ld + 32 * block;
            const float *scale = scales + r * (ld / TMS_CODED_BLOCK) + 2 * block;
            const int8_t *codes = x[block / 8].codes + block % 8 * 32;
            for (size_t l = 0; l < LANES; l++) {
                int32_t sum = w[2 * l] * codes[2 * l] + w[2 * l + 1] * codes[2 * l + 1];
                float *lane = lanes + r * LANES + l;
                *lane = fmaf((float)sum, scale[l / 8] * x[block / 8].scales[block % 8], *lane);
            }
        }
}

float tms_coded_sum(const float *lanes)
{
    float sums[LANES / 2];
    for (size_t l = 0; l < LANES / 2; l++) sums[l] = lanes[l] + lanes[l + LANES / 2];
    for (size_t half = LANES / 4; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) sums[l] += sums[l + half];
    return sums[0];
}

#if defined(__x86_64__)
#include <immintrin.h>

/* A table of 16 numbers of 16 bits as two of bytes. */
TMS_TARGET_AVX2 static void lookup_avx2(const int16_t *book, const uint8_t *codes, int16_t *values, size_t n)
{
    const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)book), ones = _mm256_set1_epi16(255);
    const __m256i lows = _mm256_packus_epi16(_mm256_and_si256(both, ones), _mm256_and_si256(both, ones));
    const __m256i highs = _mm256_packus_epi16(_mm256_srli_epi16(both, 8), _mm256_srli_epi16(both, 8));
    /* packing works in halves: bytes 0 … 7 of a table are in the first half, 8 … 15 in the second */
    const __m128i low = _mm_unpacklo_epi64(_mm256_castsi256_si128(lows), _mm256_extracti128_si256(lows, 1));
    const __m128i high = _mm_unpacklo_epi64(_mm256_castsi256_si128(highs), _mm256_extracti128_si256(highs, 1));
    const __m128i four_bits = _mm_set1_epi8(15);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m128i at = _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)(codes + i)), four_bits);
        const __m128i l = _mm_shuffle_epi8(low, at), h = _mm_shuffle_epi8(high, at);
        _mm_storeu_si128((__m128i *)(void *)(values + i), _mm_unpacklo_epi8(l, h));
        _mm_storeu_si128((__m128i *)(void *)(values + i + 8), _mm_unpackhi_epi8(l, h));
    }
    lookup_scalar(book, codes + i, values + i, n - i);
}

TMS_TARGET_AVX2 static void rows_avx2(const int16_t *values, const float *scales, size_t ld, size_t n_rows,
                                      const struct tms_rounded_unit *x, size_t n_units, float *lanes)
{
    for (size_t r = 0; r < n_rows; r++) {
        float *to = lanes + r * LANES;
        __m256 sums[2] = {_mm256_loadu_ps(to), _mm256_loadu_ps(to + 8)};
        for (size_t block = 0; block < n_units * 8; block++) {
            const int16_t *w = values + r * ld + 32 * block;
            const float *scale = scales + r * (ld / TMS_CODED_BLOCK) + 2 * block;
            const int8_t *codes = x[block / 8].codes + block % 8 * 32;
            for (size_t h = 0; h < 2; h++) {
                const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(w + 16 * h));
                const __m256i b =
                    _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(codes + 16 * h)));
                sums[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(a, b)),
                                          _mm256_set1_ps(scale[h] * x[block / 8].scales[block % 8]), sums[h]);
            }
        }
        _mm256_storeu_ps(to, sums[0]);
        _mm256_storeu_ps(to + 8, sums[1]);
    }
}

TMS_TARGET_AVX512 static void rows_avx512(const int16_t *values, const float *scales, size_t ld, size_t n_rows,
                                          const struct tms_rounded_unit *x, size_t n_units, float *lanes)
{
    const __m512i halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (size_t r = 0; r < n_rows; r++) {
        __m512 sum = _mm512_loadu_ps(lanes + r * LANES);
        for (size_t unit = 0; unit < n_units; unit++) {
            const int16_t *w = values + r * ld + TMS_UNIT * unit;
            const __m512 of_x = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(x[unit].scales)));
            const __m512 both = _mm512_mul_ps(_mm512_loadu_ps(scales + r * (ld / TMS_CODED_BLOCK) + 16 * unit), of_x);
#pragma GCC unroll 8
            for (int block = 0; block < 8; block++) {
                const __m512i a = _mm512_loadu_si512(w + 32 * block);
                const __m512i b = _mm512_cvtepi8_epi16(
                    _mm256_load_si256((const __m256i *)(const void *)(x[unit].codes + 32 * block)));
                const __m512 scale =
                    _mm512_permutexvar_ps(_mm512_add_epi32(halves, _mm512_set1_epi32(2 * block)), both);
                sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(a, b)), scale, sum);
            }
        }
        _mm512_storeu_ps(lanes + r * LANES, sum);
    }
}

void tms_coded_rows(const int16_t *values, const float *scales, size_t ld, size_t n_rows,
                    const struct tms_rounded_unit *x, size_t n_units, float *lanes)
{
    const enum tms_cpu level = tms_cpu_level();
    (level == TMS_CPU_AVX512 ? rows_avx512
     : level == TMS_CPU_AVX2 ? rows_avx2
                             : rows_scalar)(values, scales, ld, n_rows, x, n_units, lanes);
}

void tms_coded_lookup(const int16_t *book, const uint8_t *codes, int16_t *values, size_t n)
{
    (tms_cpu_level() >= TMS_CPU_AVX2 ? lookup_avx2 : lookup_scalar)(book, codes, values, n);
}
#else
/* Loops that the compiler makes vectors of. */
void tms_coded_rows(const int16_t *values, const float *scales, size_t ld, size_t n_rows,
                    const struct tms_rounded_unit *x, size_t n_units, float *lanes)
{
    rows_scalar(values, scales, ld, n_rows, x, n_units, lanes);
}

void tms_coded_lookup(const int16_t *book, const uint8_t *codes, int16_t *values, size_t n)
{
    lookup_scalar(book, codes, values, n);
}
#endif

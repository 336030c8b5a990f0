/* See nibbles.h. */
#include "codec/nibbles.h"

#include "base/cpu.h"

static void decode_scalar(const uint8_t *restrict q, size_t stride, size_t n_groups, const int8_t *restrict table,
                          bool by_halves, const float *restrict scales, float *restrict x)
{
    const int run = by_halves ? 8 : 16;
    for (size_t g = 0; g < n_groups; g++, q += stride, x += 32)
        for (int i = 0; i < 16; i++) {
            int at = i / run * 2 * run + i % run;
            x[at] = scales[2 * g + (size_t)(at / 16)] * (float)table[q[i] & 15];
            x[at + run] = scales[2 * g + (size_t)((at + run) / 16)] * (float)table[q[i] >> 4];
        }
}

#if defined(__x86_64__)
#include <immintrin.h>

/* 16 codes in the low nibbles of `codes` to 16 numbers. */
TMS_TARGET_AVX2 static inline __attribute__((always_inline)) void store_16_avx2(__m128i numbers, float scale, float *x)
{
    __m256 s = _mm256_set1_ps(scale);
    __m256i low = _mm256_cvtepi8_epi32(numbers), high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(numbers, numbers));
    _mm256_storeu_ps(x, _mm256_mul_ps(s, _mm256_cvtepi32_ps(low)));
    _mm256_storeu_ps(x + 8, _mm256_mul_ps(s, _mm256_cvtepi32_ps(high)));
}

TMS_TARGET_AVX512 static inline __attribute__((always_inline)) void store_16_avx512(__m128i numbers, float scale,
                                                                                    float *x)
{
    _mm512_storeu_ps(x, _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(numbers))));
}

#define DECODE(level, target)                                                                                          \
    target static void decode_##level(const uint8_t *restrict q, size_t stride, size_t n_groups,                       \
                                      const int8_t *restrict table, bool by_halves, const float *restrict scales,      \
                                      float *restrict x)                                                               \
    {                                                                                                                  \
        const __m128i numbers = _mm_loadu_si128((const void *)table), nibble = _mm_set1_epi8(15);                      \
        for (size_t g = 0; g < n_groups; g++, q += stride, x += 32) {                                                  \
            __m128i codes = _mm_loadu_si128((const void *)q);                                                          \
            __m128i low = _mm_shuffle_epi8(numbers, _mm_and_si128(codes, nibble));                                     \
            __m128i high = _mm_shuffle_epi8(numbers, _mm_and_si128(_mm_srli_epi16(codes, 4), nibble));                 \
            __m128i first = by_halves ? _mm_unpacklo_epi64(low, high) : low;                                           \
            __m128i last = by_halves ? _mm_unpackhi_epi64(low, high) : high;                                           \
            store_16_##level(first, scales[2 * g], x);                                                                 \
            store_16_##level(last, scales[2 * g + 1], x + 16);                                                         \
        }                                                                                                              \
    }

DECODE(avx2, TMS_TARGET_AVX2)
DECODE(avx512, TMS_TARGET_AVX512)
#endif

void tms_decode_nibbles(const uint8_t *q, size_t stride, size_t n_groups, const int8_t table[16], bool by_halves,
                        const float *scales, float *x)
{
    switch (tms_cpu_level()) {
#if defined(__x86_64__)
    case TMS_CPU_AVX512: decode_avx512(q, stride, n_groups, table, by_halves, scales, x); break;
    case TMS_CPU_AVX2: decode_avx2(q, stride, n_groups, table, by_halves, scales, x); break;
#endif
    default: decode_scalar(q, stride, n_groups, table, by_halves, scales, x); break;
    }
}

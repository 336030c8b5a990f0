/* Eight rows of memory into eight vectors, one row per lane. AVX2; include <immintrin.h> on x86-64 only. */
#ifndef TMS_CODEC_TRANSPOSE_H
#define TMS_CODEC_TRANSPOSE_H

#include <immintrin.h>
#include <stddef.h>

#include "base/cpu.h"

/* v[i] = from[0][i], from[1][i], … from[7][i], rows `stride` floats apart; i = 0 … 7. */
TMS_TARGET_AVX2 static inline __attribute__((always_inline)) void tms_load_transposed_8(const float *from,
                                                                                        size_t stride, __m256 *v)
{
    __m256 half[8], pair[8];
    /* half[k], k < 4: columns 0 … 3 of rows k and k + 4; half[k + 4]: columns 4 … 7 of the same rows. */
    for (size_t k = 0; k < 4; k++) {
        const float *a = from + k * stride, *b = a + 4 * stride;
        half[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a)), _mm_loadu_ps(b), 1);
        half[k + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a + 4)), _mm_loadu_ps(b + 4), 1);
    }
    for (int k = 0; k < 8; k += 4) {
        pair[0] = _mm256_unpacklo_ps(half[k], half[k + 1]);
        pair[1] = _mm256_unpackhi_ps(half[k], half[k + 1]);
        pair[2] = _mm256_unpacklo_ps(half[k + 2], half[k + 3]);
        pair[3] = _mm256_unpackhi_ps(half[k + 2], half[k + 3]);
        v[k] = _mm256_shuffle_ps(pair[0], pair[2], 0x44);
        v[k + 1] = _mm256_shuffle_ps(pair[0], pair[2], 0xee);
        v[k + 2] = _mm256_shuffle_ps(pair[1], pair[3], 0x44);
        v[k + 3] = _mm256_shuffle_ps(pair[1], pair[3], 0xee);
    }
}

#endif

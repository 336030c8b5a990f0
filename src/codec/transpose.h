/* Rows of memory into as many vectors, one row per lane: eight with AVX2, four with NEON. */
#ifndef TMS_CODEC_TRANSPOSE_H
#define TMS_CODEC_TRANSPOSE_H

#include <stddef.h>

#include "base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>

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
#elif defined(__aarch64__)
#include <arm_neon.h>

/* v[i] = from[0][i], … from[3][i], rows `stride` floats apart; i = 0 … 3. */
TMS_INLINE void tms_load_transposed_4(const float *from, size_t stride, float32x4_t *v)
{
    const float32x4_t r0 = vld1q_f32(from), r1 = vld1q_f32(from + stride);
    const float32x4_t r2 = vld1q_f32(from + 2 * stride), r3 = vld1q_f32(from + 3 * stride);
    const float64x2_t even_01 = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1)); /* columns 0 and 2 of rows 0 and 1 */
    const float64x2_t even_23 = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3));
    const float64x2_t odd_01 = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
    const float64x2_t odd_23 = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
    v[0] = vreinterpretq_f32_f64(vtrn1q_f64(even_01, even_23));
    v[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd_01, odd_23));
    v[2] = vreinterpretq_f32_f64(vtrn2q_f64(even_01, even_23));
    v[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd_01, odd_23));
}
#endif

#endif

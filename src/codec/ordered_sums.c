/* See ordered_sums.h. */
#include "codec/ordered_sums.h"

#include <math.h>

#include "base/cpu.h"

enum term { PLAIN, MAGNITUDE, SQUARE };

TMS_INLINE float term_of(enum term kind, float v)
{
    return kind == PLAIN ? v : kind == MAGNITUDE ? fabsf(v) : v * v;
}

#if defined(__x86_64__)
#include <immintrin.h>

#include "codec/transpose.h"

TMS_TARGET_AVX2 static inline __attribute__((always_inline)) __m256 terms_of(enum term kind, __m256 v)
{
    if (kind == SQUARE) return _mm256_mul_ps(v, v);
    return kind == MAGNITUDE ? _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v) : v;
}

/* Eight sequences. */
TMS_TARGET_AVX2 static inline __attribute__((always_inline)) void eight(enum term kind, const float *x, size_t n,
                                                                        float *sums)
{
    __m256 sum = _mm256_setzero_ps(), v[8];
    for (size_t i = 0; i < n; i += 8) {
        tms_load_transposed_8(x + i, n, v);
        for (int k = 0; k < 8; k++) sum = _mm256_add_ps(sum, terms_of(kind, v[k]));
    }
    _mm256_storeu_ps(sums, sum);
}

TMS_TARGET_AVX2 static void eight_plain(const float *x, size_t n, float *sums)
{
    eight(PLAIN, x, n, sums);
}

TMS_TARGET_AVX2 static void eight_magnitudes(const float *x, size_t n, float *sums)
{
    eight(MAGNITUDE, x, n, sums);
}

TMS_TARGET_AVX2 static void eight_squares(const float *x, size_t n, float *sums)
{
    eight(SQUARE, x, n, sums);
}

static size_t in_lanes(enum term kind, const float *x, size_t n, size_t n_sequences, float *sums)
{
    size_t s = 0;
    if (tms_cpu_level() < TMS_CPU_AVX2) return 0;
    for (; s + 8 <= n_sequences; s += 8)
        (kind == PLAIN ? eight_plain : kind == MAGNITUDE ? eight_magnitudes : eight_squares)(x + s * n, n, sums + s);
    return s;
}
#elif defined(__aarch64__)
#include "codec/transpose.h"

TMS_INLINE size_t fours(enum term kind, const float *x, size_t n, size_t n_sequences, float *sums)
{
    size_t s = 0;
    for (; s + 4 <= n_sequences; s += 4) {
        float32x4_t sum = vdupq_n_f32(0), v[4];
        for (size_t i = 0; i < n; i += 4) {
            tms_load_transposed_4(x + s * n + i, n, v);
            for (int k = 0; k < 4; k++)
                sum = vaddq_f32(sum, kind == PLAIN       ? v[k]
                                     : kind == MAGNITUDE ? vabsq_f32(v[k])
                                                         : vmulq_f32(v[k], v[k]));
        }
        vst1q_f32(sums + s, sum);
    }
    return s;
}

static size_t in_lanes(enum term kind, const float *x, size_t n, size_t n_sequences, float *sums)
{
    if (tms_cpu_level() < TMS_CPU_NEON) return 0;
    if (kind == PLAIN) return fours(PLAIN, x, n, n_sequences, sums);
    return kind == MAGNITUDE ? fours(MAGNITUDE, x, n, n_sequences, sums) : fours(SQUARE, x, n, n_sequences, sums);
}
#else
static size_t in_lanes(enum term kind, const float *x, size_t n, size_t n_sequences, float *sums)
{
    (void)kind, (void)x, (void)n, (void)n_sequences, (void)sums;
    return 0;
}
#endif

TMS_INLINE void sum_all(enum term kind, const float *x, size_t n, size_t n_sequences, float *sums)
{
    for (size_t s = in_lanes(kind, x, n, n_sequences, sums); s < n_sequences; s++) {
        float sum = 0;
        for (size_t i = 0; i < n; i++) sum += term_of(kind, x[s * n + i]);
        sums[s] = sum;
    }
}

void tms_ordered_sums(const float *x, size_t n, size_t n_sequences, float *sums)
{
    sum_all(PLAIN, x, n, n_sequences, sums);
}

void tms_ordered_sums_of_magnitudes(const float *x, size_t n, size_t n_sequences, float *sums)
{
    sum_all(MAGNITUDE, x, n, n_sequences, sums);
}

void tms_ordered_sums_of_squares(const float *x, size_t n, size_t n_sequences, float *sums)
{
    sum_all(SQUARE, x, n, n_sequences, sums);
}

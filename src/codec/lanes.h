/* Vectors of LANES (4: NEON, 8: AVX2, 16: AVX-512) floats or integers, for searches that put one block in each lane.
 * Included once per width, with TARGET (the instructions) and NAME(symbol) defined, and ended by lanes_end.h; a vector
 * type cannot be a parameter in C, hence the form. Conditions are I with all bits set or none. */
typedef float NAME(F) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(I) __attribute__((vector_size(4 * LANES)));
#define F      NAME(F)
#define I      NAME(I)
#define INLINE TARGET static inline __attribute__((always_inline))

INLINE F NAME(select)(I condition, F yes, F no)
{
#if LANES == 16
    return (F)((condition & (I)yes) | (~condition & (I)no)); /* one instruction */
#elif LANES == 8
    return (F)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)condition);
#else
    return (F)vbslq_f32((uint32x4_t)condition, (float32x4_t)yes, (float32x4_t)no);
#endif
}

INLINE I NAME(select_int)(I condition, I yes, I no)
{
    return (I)NAME(select)(condition, (F)yes, (F)no);
}

INLINE F NAME(magnitude)(F v)
{
    return (F)((I)v & 0x7fffffff);
}

INLINE F NAME(square_root)(F v)
{
#if LANES == 16
    return (F)_mm512_sqrt_ps((__m512)v);
#elif LANES == 8
    return (F)_mm256_sqrt_ps((__m256)v);
#else
    return (F)vsqrtq_f32((float32x4_t)v);
#endif
}

INLINE bool NAME(any)(I condition)
{
#if LANES == 16
    return _mm512_test_epi32_mask((__m512i)condition, (__m512i)condition) != 0;
#elif LANES == 8
    return _mm256_movemask_ps((__m256)condition) != 0;
#else
    return vmaxvq_u32((uint32x4_t)condition) != 0;
#endif
}

INLINE I NAME(clamp)(I v, int low, int high)
{
#if LANES == 16
    return (I)_mm512_min_epi32(_mm512_max_epi32((__m512i)v, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
#elif LANES == 8
    return (I)_mm256_min_epi32(_mm256_max_epi32((__m256i)v, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
#else
    return (I)vminq_s32(vmaxq_s32((int32x4_t)v, vdupq_n_s32(low)), vdupq_n_s32(high));
#endif
}

INLINE F NAME(load)(const float *from)
{
    F v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* x[LANES][n] -> x[n] of lanes; n is a multiple of 8. */
INLINE void NAME(load_blocks)(const float *from, int n, F *x)
{
#if LANES == 4
    for (int i = 0; i < n; i += 4) {
        float32x4_t v[4];
        tms_load_transposed_4(from + i, (size_t)n, v);
        for (int k = 0; k < 4; k++) x[i + k] = (F)v[k];
    }
#else
    for (int i = 0; i < n; i += 8) {
        __m256 low[8];
        tms_load_transposed_8(from + i, (size_t)n, low);
#if LANES == 16
        __m256 high[8];
        tms_load_transposed_8(from + 8 * n + i, (size_t)n, high);
        for (int k = 0; k < 8; k++) x[i + k] = (F)_mm512_insertf32x8(_mm512_castps256_ps512(low[k]), high[k], 1);
#else
        for (int k = 0; k < 8; k++) x[i + k] = (F)low[k];
#endif
    }
#endif
}

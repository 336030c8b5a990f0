/* Vectors of LANES (8 or 16) floats or integers, for searches that put one block in each lane. Included once per width,
 * with TARGET (the instructions) and NAME(symbol) defined, and ended by lanes_end.h; a vector type cannot be a
 * parameter in C, hence the form. Conditions are I with all bits set or none. */
typedef float NAME(F) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(I) __attribute__((vector_size(4 * LANES)));
#define F      NAME(F)
#define I      NAME(I)
#define INLINE TARGET static inline __attribute__((always_inline))

INLINE F NAME(select)(I condition, F yes, F no)
{
#if LANES == 16
    return (F)((condition & (I)yes) | (~condition & (I)no)); /* one instruction */
#else
    return (F)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)condition);
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
#else
    return (F)_mm256_sqrt_ps((__m256)v);
#endif
}

INLINE bool NAME(any)(I condition)
{
#if LANES == 16
    return _mm512_test_epi32_mask((__m512i)condition, (__m512i)condition) != 0;
#else
    return _mm256_movemask_ps((__m256)condition) != 0;
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
}

/* Codes to weights with vectors of LANES (8 or 16) floats: 32 codes, one per byte, become step * code and the like.
 * Included by decoders once per width, with TARGET (the instructions) and NAME(symbol) defined, and ended by
 * lanes_end.h.
 *
 * Each product and sum is rounded by itself, in the order of the scalar decoder, so that floats are equal; which of two
 * NaNs comes out may differ. */
#define INLINE TARGET static inline __attribute__((always_inline))

/* An f16 wherever it lies. */
INLINE float NAME(load_half)(const uint8_t *from)
{
    uint16_t h;
    memcpy(&h, from, sizeof h);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

INLINE __m128i NAME(load_16_bytes)(const void *from)
{
    return _mm_loadu_si128((const __m128i *)from);
}

INLINE __m256i NAME(load_32_bytes)(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

/* Sixteen codes to floats, which go through `formula` with the name v for LANES of them, to x. */
#if LANES == 16
#define PUT_16(codes, to, formula)                                                                                     \
    do {                                                                                                               \
        __m512 v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));                                                    \
        _mm512_storeu_ps(to, formula);                                                                                 \
    } while (0)
#define SPLAT    _mm512_set1_ps
#define MULTIPLY _mm512_mul_ps
#define ADD      _mm512_add_ps
#define SUBTRACT _mm512_sub_ps
#else
#define PUT_16(codes, to, formula)                                                                                     \
    do {                                                                                                               \
        __m256 v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));                                                    \
        _mm256_storeu_ps(to, formula);                                                                                 \
        v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes)));                                \
        _mm256_storeu_ps((to) + 8, formula);                                                                           \
    } while (0)
#define SPLAT    _mm256_set1_ps
#define MULTIPLY _mm256_mul_ps
#define ADD      _mm256_add_ps
#define SUBTRACT _mm256_sub_ps
#endif

/* x = step * code */
INLINE void NAME(put_16)(__m128i codes, float step, float *x)
{
    PUT_16(codes, x, MULTIPLY(SPLAT(step), v));
}

/* x = step * code - low */
INLINE void NAME(put_16_less)(__m128i codes, float step, float low, float *x)
{
    PUT_16(codes, x, SUBTRACT(MULTIPLY(SPLAT(step), v), SPLAT(low)));
}

/* x = step * code + low */
INLINE void NAME(put_16_plus)(__m128i codes, float step, float low, float *x)
{
    PUT_16(codes, x, ADD(MULTIPLY(SPLAT(step), v), SPLAT(low)));
}

#undef PUT_16
#undef SPLAT
#undef MULTIPLY
#undef ADD
#undef SUBTRACT

/* The same for 32, with a step for each half. */
INLINE void NAME(put_32)(__m256i codes, float first, float last, float *x)
{
    NAME(put_16)(_mm256_castsi256_si128(codes), first, x);
    NAME(put_16)(_mm256_extracti128_si256(codes, 1), last, x + 16);
}

INLINE void NAME(put_32_less)(__m256i codes, float step, float low, float *x)
{
    NAME(put_16_less)(_mm256_castsi256_si128(codes), step, low, x);
    NAME(put_16_less)(_mm256_extracti128_si256(codes, 1), step, low, x + 16);
}

INLINE void NAME(put_32_plus)(__m256i codes, float step, float low, float *x)
{
    NAME(put_16_plus)(_mm256_castsi256_si128(codes), step, low, x);
    NAME(put_16_plus)(_mm256_extracti128_si256(codes, 1), step, low, x + 16);
}

/* The nibbles of 16 bytes, the low ones first. */
INLINE __m256i NAME(nibbles)(const uint8_t *from)
{
    __m128i bytes = NAME(load_16_bytes)(from);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* `value` in byte i where bit i is set, 0 elsewhere. */
INLINE __m256i NAME(where_set)(uint32_t bits, int value)
{
#if LANES == 16
    return _mm256_maskz_set1_epi8(bits, (char)value);
#else
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, /**/
                                            2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i here = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), spread), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(here, bit), _mm256_set1_epi8((char)value));
#endif
}

/* Of every byte the bits from bit `shift` on that `mask` leaves, moved to bit `to`. */
INLINE __m256i NAME(bits)(__m256i bytes, int shift, int to, int mask)
{
    bytes = shift > to ? _mm256_srli_epi16(bytes, shift - to) : _mm256_slli_epi16(bytes, to - shift);
    return _mm256_and_si256(bytes, _mm256_set1_epi8((char)(mask << to)));
}

/* What the decoders of iq2.c and iq3.c share: magnitudes of 32 weights from a codebook, and their signs. Included after
 * decode_lanes.h. */

/* Bytes of 32 weights from four points of eight, or eight points of four. */
INLINE __m256i NAME(four_points)(const uint8_t *values, unsigned a, unsigned b, unsigned c, unsigned d)
{
    uint64_t v[4];
    memcpy(v, values + 8 * a, 8);
    memcpy(v + 1, values + 8 * b, 8);
    memcpy(v + 2, values + 8 * c, 8);
    memcpy(v + 3, values + 8 * d, 8);
    return _mm256_set_epi64x((long long)v[3], (long long)v[2], (long long)v[1], (long long)v[0]);
}

INLINE __m128i NAME(four_short_points)(const uint8_t *values, unsigned a, unsigned b, unsigned c, unsigned d)
{
    int32_t v[4];
    memcpy(v, values + 4 * a, 4);
    memcpy(v + 1, values + 4 * b, 4);
    memcpy(v + 2, values + 4 * c, 4);
    memcpy(v + 3, values + 4 * d, 4);
    return _mm_set_epi32(v[3], v[2], v[1], v[0]);
}

/* Signed bytes: bit i of signs turns byte i over. */
INLINE __m256i NAME(with_signs)(__m256i bytes, uint32_t signs)
{
#if LANES == 16
    return _mm256_mask_sub_epi8(bytes, signs, _mm256_setzero_si256(), bytes);
#else
    __m256i negative = NAME(where_set)(signs, 0xff);
    return _mm256_sub_epi8(_mm256_xor_si256(bytes, negative), negative);
#endif
}

/* Four times eight signs of four bytes with seven each: the eighth makes their number even. */
INLINE uint32_t NAME(even_signs)(uint32_t sevens)
{
    uint32_t odd = sevens ^ sevens >> 4;
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    return sevens | (odd & 0x01010101) << 7;
}

/* The same of the low 28 bits of a word. */
INLINE uint32_t NAME(even_signs_of_28)(uint32_t s)
{
    return NAME(even_signs)((s & 0x7f) | (s << 1 & 0x7f00) | (s << 2 & 0x7f0000) | (s << 3 & 0x7f000000));
}

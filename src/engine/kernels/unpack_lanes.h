/* unpack.h with vectors of 32 bytes, for x86-64; included by rounded.c once per level, after decode_lanes.h and
 * iq_decode_lanes.h. Codes come with an offset that makes them unsigned (where rounded.c says so for the type), or as
 * magnitudes with signs apart. */

struct NAME(unit) {
    __m256i codes[8];
    uint32_t signs[8];
    __m256 scales[2], mins[2];
};

/* Eight halves, `stride` bytes apart. */
INLINE __m256 NAME(load_halves)(const uint8_t *b, size_t stride)
{
    uint16_t h[8];
    for (size_t j = 0; j < 8; j++) memcpy(h + j, b + j * stride, 2);
    return _mm256_cvtph_ps(_mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3], (short)h[4], (short)h[5],
                                          (short)h[6], (short)h[7]));
}

/* d * each of eight unsigned (signed) bytes. */
INLINE __m256 NAME(times_bytes)(float d, __m128i bytes)
{
    return _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
}

INLINE __m256 NAME(times_signed_bytes)(float d, __m128i bytes)
{
    return _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
}

INLINE void NAME(unpack_q8_0)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 34);
    for (int j = 0; j < 8; j++)
        u->codes[j] = _mm256_xor_si256(NAME(load_32_bytes)(b + 34 * j + 2), _mm256_set1_epi8(-128));
}

INLINE void NAME(unpack_q4_0)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 18);
    for (int j = 0; j < 8; j++) u->codes[j] = NAME(nibbles)(b + 18 * j + 2);
}

INLINE void NAME(unpack_q4_1)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 20);
    u->mins[0] = _mm256_sub_ps(_mm256_setzero_ps(), NAME(load_halves)(b + 2, 20));
    for (int j = 0; j < 8; j++) u->codes[j] = NAME(nibbles)(b + 20 * j + 4);
}

INLINE void NAME(unpack_q5_0)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 22);
    for (int j = 0; j < 8; j++)
        u->codes[j] = _mm256_or_si256(NAME(nibbles)(b + 22 * j + 6), NAME(where_set)(word_at(b + 22 * j + 2), 16));
}

INLINE void NAME(unpack_q5_1)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 24);
    u->mins[0] = _mm256_sub_ps(_mm256_setzero_ps(), NAME(load_halves)(b + 2, 24));
    for (int j = 0; j < 8; j++)
        u->codes[j] = _mm256_or_si256(NAME(nibbles)(b + 24 * j + 8), NAME(where_set)(word_at(b + 24 * j + 4), 16));
}

INLINE void NAME(unpack_q2_k)(const uint8_t *b, struct NAME(unit) * u)
{
    const float d = NAME(load_half)(b + 80), dmin = NAME(load_half)(b + 82);
    const __m128i both = NAME(load_16_bytes)(b), nibble = _mm_set1_epi8(15);
    const __m128i scales = _mm_and_si128(both, nibble), mins = _mm_and_si128(_mm_srli_epi16(both, 4), nibble);
    u->scales[0] = NAME(times_bytes)(d, scales);
    u->scales[1] = NAME(times_bytes)(d, _mm_unpackhi_epi64(scales, scales));
    u->mins[0] = NAME(times_bytes)(dmin, mins);
    u->mins[1] = NAME(times_bytes)(dmin, _mm_unpackhi_epi64(mins, mins));
    for (int j = 0; j < 8; j++) u->codes[j] = NAME(bits)(NAME(load_32_bytes)(b + 16 + 32 * (j / 4)), 2 * (j % 4), 0, 3);
}

INLINE void NAME(unpack_q3_k)(const uint8_t *b, struct NAME(unit) * u)
{
    const float d = NAME(load_half)(b + 108);
    uint64_t low;
    memcpy(&low, b + 96, sizeof low);
    const uint32_t high = word_at(b + 104);
    const __m128i nibbles = _mm_and_si128(_mm_set_epi64x((long long)(low >> 4), (long long)low), _mm_set1_epi8(15));
    const __m128i tops = _mm_setr_epi32((int)(high << 4), (int)(high << 2), (int)high, (int)(high >> 2));
    const __m128i scales =
        _mm_sub_epi8(_mm_or_si128(nibbles, _mm_and_si128(tops, _mm_set1_epi8(0x30))), _mm_set1_epi8(32));
    u->scales[0] = NAME(times_signed_bytes)(d, scales);
    u->scales[1] = NAME(times_signed_bytes)(d, _mm_unpackhi_epi64(scales, scales));
    const __m256i third = NAME(load_32_bytes)(b);
    for (int j = 0; j < 8; j++)
        u->codes[j] = _mm256_or_si256(NAME(bits)(NAME(load_32_bytes)(b + 32 + 32 * (j / 4)), 2 * (j % 4), 0, 3),
                                      NAME(bits)(third, j, 2, 1));
}

INLINE void NAME(unpack_k_scales)(const uint8_t *b, struct NAME(unit) * u)
{
    uint32_t scales[2], mins[2];
    unpack_six_bits(b + 4, scales, mins);
    u->scales[0] = NAME(times_bytes)(NAME(load_half)(b), _mm_setr_epi32((int)scales[0], (int)scales[1], 0, 0));
    u->mins[0] = NAME(times_bytes)(NAME(load_half)(b + 2), _mm_setr_epi32((int)mins[0], (int)mins[1], 0, 0));
}

INLINE void NAME(unpack_q4_k)(const uint8_t *b, struct NAME(unit) * u)
{
    NAME(unpack_k_scales)(b, u);
    for (int j = 0; j < 8; j++)
        u->codes[j] = NAME(bits)(NAME(load_32_bytes)(b + 16 + 32 * (j / 2)), 4 * (j % 2), 0, 15);
}

INLINE void NAME(unpack_q5_k)(const uint8_t *b, struct NAME(unit) * u)
{
    NAME(unpack_k_scales)(b, u);
    const __m256i fifth = NAME(load_32_bytes)(b + 16);
    for (int j = 0; j < 8; j++)
        u->codes[j] = _mm256_or_si256(NAME(bits)(NAME(load_32_bytes)(b + 48 + 32 * (j / 2)), 4 * (j % 2), 0, 15),
                                      NAME(bits)(fifth, j, 4, 1));
}

INLINE void NAME(unpack_q6_k)(const uint8_t *b, struct NAME(unit) * u)
{
    const float d = NAME(load_half)(b + 208);
    const __m128i scales = NAME(load_16_bytes)(b + 192);
    u->scales[0] = NAME(times_signed_bytes)(d, scales);
    u->scales[1] = NAME(times_signed_bytes)(d, _mm_unpackhi_epi64(scales, scales));
    for (int j = 0; j < 8; j++) {
        const __m256i low = NAME(load_32_bytes)(b + 64 * (j / 4) + 32 * (j % 2));
        const __m256i high = NAME(load_32_bytes)(b + 128 + 32 * (j / 4));
        u->codes[j] = _mm256_or_si256(NAME(bits)(low, 4 * (j / 2 % 2), 0, 15), NAME(bits)(high, 2 * (j % 4), 4, 3));
    }
}

/* table[code] for 32 nibbles; the table's numbers get the offset 2^shift. */
INLINE __m256i NAME(look_up)(const uint8_t *nibbles, const int8_t *table, int shift)
{
    const __m128i numbers = _mm_add_epi8(NAME(load_16_bytes)(table), _mm_set1_epi8((char)(1 << shift)));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(numbers), NAME(nibbles)(nibbles));
}

INLINE void NAME(unpack_iq4_nl)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 18);
    for (int j = 0; j < 8; j++) u->codes[j] = NAME(look_up)(b + 18 * j + 2, iq4_numbers, 7);
}

INLINE void NAME(unpack_iq4_xs)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m256i fours = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28), twos = _mm256_srli_epi32(fours, 1);
    const uint32_t tops = word_at(b) >> 16;
    __m256i low =
        _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)word_at(b + 4)), fours), _mm256_set1_epi32(15));
    __m256i high =
        _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)(tops << 4)), twos), _mm256_set1_epi32(48));
    __m256i scale = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    u->scales[0] = _mm256_mul_ps(_mm256_set1_ps(NAME(load_half)(b)), _mm256_cvtepi32_ps(scale));
    for (int j = 0; j < 8; j++) u->codes[j] = NAME(look_up)(b + 8 + 16 * j, iq4_numbers, 7);
}

INLINE void NAME(unpack_mxfp4)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m256i e = _mm256_setr_epi32(b[0], b[17], b[34], b[51], b[68], b[85], b[102], b[119]);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    u->scales[0] = _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
    for (int j = 0; j < 8; j++) u->codes[j] = NAME(look_up)(b + 17 * j + 1, fp4_numbers, 4);
}

INLINE void NAME(unpack_iq2_xxs)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ2_XXS);
    /* Words 1, 3, …: signs, and four bits of scale on top. */
    const __m256i first = NAME(load_32_bytes)(b + 2), last = NAME(load_32_bytes)(b + 34);
    __m256i words = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(last), _MM_SHUFFLE(3, 1, 3, 1)));
    words = _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0));
    __m256 steps = _mm256_add_ps(_mm256_set1_ps(0.5f), _mm256_cvtepi32_ps(_mm256_srli_epi32(words, 28)));
    steps = _mm256_mul_ps(_mm256_set1_ps(NAME(load_half)(b)), steps);
    u->scales[0] = _mm256_mul_ps(steps, _mm256_set1_ps(0.25f));
    for (int j = 0; j < 8; j++) {
        const uint8_t *p = b + 2 + 8 * j;
        u->codes[j] = NAME(four_points)(values, p[0], p[1], p[2], p[3]);
        u->signs[j] = NAME(even_signs_of_28)(word_at(p + 4));
    }
}

/* d * (1/2 + scale) / 4 of sixteen nibbles. */
INLINE void NAME(unpack_half_steps)(const uint8_t *scales, float d, struct NAME(unit) * u)
{
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)scales);
    __m128i nibbles = _mm_and_si128(_mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4)), _mm_set1_epi8(15));
    for (int i = 0; i < 2; i++, nibbles = _mm_unpackhi_epi64(nibbles, nibbles)) {
        __m256 scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(nibbles));
        scale = _mm256_mul_ps(_mm256_set1_ps(d), _mm256_add_ps(_mm256_set1_ps(0.5f), scale));
        u->scales[i] = _mm256_mul_ps(scale, _mm256_set1_ps(0.25f));
    }
}

INLINE void NAME(unpack_iq2_xs)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ2_XS);
    NAME(unpack_half_steps)(b + 66, NAME(load_half)(b), u);
    for (int j = 0; j < 8; j++) {
        uint64_t p;
        memcpy(&p, b + 2 + 8 * j, sizeof p);
        u->codes[j] = NAME(four_points)(values, p & 511, p >> 16 & 511, p >> 32 & 511, p >> 48 & 511);
        u->signs[j] = NAME(even_signs)(
            (uint32_t)((p >> 9 & 0x7f) | (p >> 17 & 0x7f00) | (p >> 25 & 0x7f0000) | (p >> 33 & 0x7f000000)));
    }
}

INLINE void NAME(unpack_iq2_s)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ2_S);
    NAME(unpack_half_steps)(b + 74, NAME(load_half)(b), u);
    for (int j = 0; j < 8; j++) {
        const uint8_t *p = b + 2 + 4 * j;
        const unsigned high = b[66 + j];
        u->codes[j] = NAME(four_points)(values, p[0] | (high << 8 & 0x300), p[1] | (high << 6 & 0x300),
                                        p[2] | (high << 4 & 0x300), p[3] | (high << 2 & 0x300));
        u->signs[j] = word_at(b + 34 + 4 * j);
    }
}

INLINE __m256i NAME(eight_points)(const uint8_t *values, const uint8_t *p, unsigned high)
{
    __m128i first = NAME(four_short_points)(values, p[0] | (high << 8 & 256), p[1] | (high << 7 & 256),
                                            p[2] | (high << 6 & 256), p[3] | (high << 5 & 256));
    __m128i last = NAME(four_short_points)(values, p[4] | (high << 4 & 256), p[5] | (high << 3 & 256),
                                           p[6] | (high << 2 & 256), p[7] | (high << 1 & 256));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1);
}

INLINE void NAME(unpack_iq3_xxs)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ3_XXS);
    const __m256i words = NAME(load_32_bytes)(b + 66);
    __m256 steps = _mm256_add_ps(_mm256_set1_ps(0.5f), _mm256_cvtepi32_ps(_mm256_srli_epi32(words, 28)));
    steps = _mm256_mul_ps(_mm256_set1_ps(NAME(load_half)(b)), steps);
    u->scales[0] = _mm256_mul_ps(steps, _mm256_set1_ps(0.5f));
    for (int j = 0; j < 8; j++) {
        u->codes[j] = NAME(eight_points)(values, b + 2 + 8 * j, 0);
        u->signs[j] = NAME(even_signs_of_28)(word_at(b + 66 + 4 * j));
    }
}

INLINE void NAME(unpack_iq3_s)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = tms_iq_values(TMS_BOOK_IQ3_S);
    const __m256i fours = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256i scale = _mm256_srlv_epi32(_mm256_set1_epi32((int)word_at(b + 106)), fours);
    scale =
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_and_si256(scale, _mm256_set1_epi32(15)), 1), _mm256_set1_epi32(1));
    u->scales[0] = _mm256_mul_ps(_mm256_set1_ps(NAME(load_half)(b)), _mm256_cvtepi32_ps(scale));
    for (int j = 0; j < 8; j++) {
        u->codes[j] = NAME(eight_points)(values, b + 2 + 8 * j, b[66 + j]);
        u->signs[j] = word_at(b + 74 + 4 * j);
    }
}

/* Types that few run: by way of unpack.h. */
#define UNPACK_BY_BYTES(name)                                                                                          \
    INLINE void NAME(unpack_##name)(const uint8_t *b, struct NAME(unit) * u)                                           \
    {                                                                                                                  \
        struct unpacked plain;                                                                                         \
        unpack_##name(b, &plain);                                                                                      \
        for (int j = 0; j < 8; j++)                                                                                    \
            u->codes[j] = _mm256_xor_si256(NAME(load_32_bytes)(plain.codes + 32 * j), _mm256_set1_epi8(-128));         \
        for (int i = 0; i < 2; i++) u->scales[i] = _mm256_loadu_ps(plain.scales + 8 * i);                              \
    }
UNPACK_BY_BYTES(q8_k)
UNPACK_BY_BYTES(iq1_s)
UNPACK_BY_BYTES(iq1_m)
UNPACK_BY_BYTES(nvfp4)
UNPACK_BY_BYTES(tq1_0)
UNPACK_BY_BYTES(tq2_0)
UNPACK_BY_BYTES(q1_0)
UNPACK_BY_BYTES(q2_0)

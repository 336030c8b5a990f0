/* unpack.h with vectors of 32 bytes, for x86-64; included by rounded.c once per level, after decode_lanes.h and
 * iq_decode_lanes.h. Codes come with an offset that makes them unsigned (where rounded.c says so for the type), or as
 * magnitudes with signs apart. */

struct NAME(unit) {
#if LANES == 16
    __m512i pairs[4]; /* of blocks of 32 */
#else
    __m256i codes[8];
#endif
    uint32_t signs[8];
    __m256 scales[2], mins[2];
    const uint8_t *values; /* of the type's codebook; set by the caller */
};

/* Blocks 2 p and 2 p + 1. */
INLINE void NAME(set_pair)(struct NAME(unit) * u, int p, __m256i first, __m256i second)
{
#if LANES == 16
    u->pairs[p] = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
#else
    u->codes[2 * p] = first;
    u->codes[2 * p + 1] = second;
#endif
}

/* A pair of blocks from the bits `first` on, and `second` on, of the same 32 bytes, moved to bit `to`. */
#if LANES == 16
typedef __m512i NAME(pair);
INLINE __m512i NAME(fields)(const uint8_t *from, int first, int second, int to, int mask)
{
    const __m512i both = _mm512_broadcast_i64x4(NAME(load_32_bytes)(from));
    const int a = (first - to) & 31, b = (second - to) & 31;
    const __m512i turned = _mm512_rorv_epi32(both, _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b));
    return _mm512_and_si512(turned, _mm512_set1_epi8((char)(mask << to)));
}

INLINE __m512i NAME(either)(__m512i a, __m512i b)
{
    return _mm512_or_si512(a, b);
}

INLINE void NAME(put_pair)(struct NAME(unit) * u, int p, __m512i pair)
{
    u->pairs[p] = pair;
}

/* The nibbles of twice 16 bytes, each time the low ones first. */
INLINE __m512i NAME(nibble_pair)(const uint8_t *first, const uint8_t *second)
{
    const __m512i bytes = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(NAME(load_16_bytes)(first)), 0xff00,
                                                      NAME(load_16_bytes)(second));
    const __m512i turned = _mm512_srlv_epi32(bytes, _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4));
    return _mm512_and_si512(turned, _mm512_set1_epi8(15));
}

INLINE __m512i NAME(where_pair_set)(uint32_t first, uint32_t second, int value)
{
    return _mm512_maskz_set1_epi8((uint64_t)second << 32 | first, (char)value);
}
#else
typedef struct {
    __m256i first, second;
} NAME(pair);

INLINE NAME(pair) NAME(fields)(const uint8_t *from, int first, int second, int to, int mask)
{
    const __m256i bytes = NAME(load_32_bytes)(from);
    return (NAME(pair)){NAME(bits)(bytes, first, to, mask), NAME(bits)(bytes, second, to, mask)};
}

INLINE NAME(pair) NAME(either)(NAME(pair) a, NAME(pair) b)
{
    return (NAME(pair)){_mm256_or_si256(a.first, b.first), _mm256_or_si256(a.second, b.second)};
}

INLINE void NAME(put_pair)(struct NAME(unit) * u, int p, NAME(pair) pair)
{
    NAME(set_pair)(u, p, pair.first, pair.second);
}

INLINE NAME(pair) NAME(nibble_pair)(const uint8_t *first, const uint8_t *second)
{
    return (NAME(pair)){NAME(nibbles)(first), NAME(nibbles)(second)};
}

INLINE NAME(pair) NAME(where_pair_set)(uint32_t first, uint32_t second, int value)
{
    return (NAME(pair)){NAME(where_set)(first, value), NAME(where_set)(second, value)};
}
#endif

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
    const __m256i offset = _mm256_set1_epi8(-128);
    u->scales[0] = NAME(load_halves)(b, 34);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, _mm256_xor_si256(NAME(load_32_bytes)(b + 68 * p + 2), offset),
     _mm256_xor_si256(NAME(load_32_bytes)(b + 68 * p + 36), offset));
}

INLINE void NAME(unpack_q4_0)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 18);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)(u, p, NAME(nibble_pair)(b + 36 * p + 2, b + 36 * p + 20));
}

INLINE void NAME(unpack_q4_1)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 20);
    u->mins[0] = _mm256_sub_ps(_mm256_setzero_ps(), NAME(load_halves)(b + 2, 20));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)(u, p, NAME(nibble_pair)(b + 40 * p + 4, b + 40 * p + 24));
}

INLINE void NAME(unpack_q5_0)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 22);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)
    (u, p,
     NAME(either)(NAME(nibble_pair)(b + 44 * p + 6, b + 44 * p + 28),
                  NAME(where_pair_set)(word_at(b + 44 * p + 2), word_at(b + 44 * p + 24), 16)));
}

INLINE void NAME(unpack_q5_1)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 24);
    u->mins[0] = _mm256_sub_ps(_mm256_setzero_ps(), NAME(load_halves)(b + 2, 24));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)
    (u, p,
     NAME(either)(NAME(nibble_pair)(b + 48 * p + 8, b + 48 * p + 32),
                  NAME(where_pair_set)(word_at(b + 48 * p + 4), word_at(b + 48 * p + 28), 16)));
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
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++)
        NAME(put_pair)(u, p, NAME(fields)(b + 16 + 32 * (p / 2), 4 * (p % 2), 4 * (p % 2) + 2, 0, 3));
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
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)
    (u, p,
     NAME(either)(NAME(fields)(b + 32 + 32 * (p / 2), 4 * (p % 2), 4 * (p % 2) + 2, 0, 3),
                  NAME(fields)(b, 2 * p, 2 * p + 1, 2, 1)));
}

/* d and dmin times what unpack_six_bits (unpack.h) finds, from the first 16 bytes of a block. */
INLINE void NAME(unpack_k_scales)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m128i head = NAME(load_16_bytes)(b); /* words: d and dmin, the three of six bits */
    const __m128i low =
        _mm_and_si128(_mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4)),
                      _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    const __m128i high = _mm_and_si128(_mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1)), 2),
                                       _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    const __m128i bytes = _mm_or_si128(low, high);
    const __m128 d = _mm_cvtph_ps(head);
#if LANES == 16
    const __m512 steps = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                                               _mm512_castps128_ps512(d));
    const __m512 products = _mm512_mul_ps(steps, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
    u->scales[0] = _mm512_castps512_ps256(products);
    u->mins[0] = _mm512_extractf32x8_ps(products, 1);
#else
    u->scales[0] = NAME(times_bytes)(_mm_cvtss_f32(d), bytes);
    u->mins[0] = NAME(times_bytes)(_mm_cvtss_f32(_mm_movehdup_ps(d)), _mm_unpackhi_epi64(bytes, bytes));
#endif
}

INLINE void NAME(unpack_q4_k)(const uint8_t *b, struct NAME(unit) * u)
{
    NAME(unpack_k_scales)(b, u);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)(u, p, NAME(fields)(b + 16 + 32 * p, 0, 4, 0, 15));
}

INLINE void NAME(unpack_q5_k)(const uint8_t *b, struct NAME(unit) * u)
{
    NAME(unpack_k_scales)(b, u);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)
    (u, p, NAME(either)(NAME(fields)(b + 48 + 32 * p, 0, 4, 0, 15), NAME(fields)(b + 16, 2 * p, 2 * p + 1, 4, 1)));
}

INLINE void NAME(unpack_q6_k)(const uint8_t *b, struct NAME(unit) * u)
{
    const float d = NAME(load_half)(b + 208);
    const __m128i scales = NAME(load_16_bytes)(b + 192);
    u->scales[0] = NAME(times_signed_bytes)(d, scales);
    u->scales[1] = NAME(times_signed_bytes)(d, _mm_unpackhi_epi64(scales, scales));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        const uint8_t *low = b + 64 * (p / 2), *high = b + 128 + 32 * (p / 2);
        const int from = 4 * (p % 2);
#if LANES == 16
        const __m512i bytes = _mm512_loadu_si512(low);
        const __m512i nibbles = _mm512_and_si512(from ? _mm512_srli_epi16(bytes, 4) : bytes, _mm512_set1_epi8(15));
#else
        const NAME(pair) nibbles = {NAME(bits)(NAME(load_32_bytes)(low), from, 0, 15),
                                    NAME(bits)(NAME(load_32_bytes)(low + 32), from, 0, 15)};
#endif
        NAME(put_pair)(u, p, NAME(either)(nibbles, NAME(fields)(high, from, from + 2, 4, 3)));
    }
}

/* table[code] for a pair of blocks of nibbles; the table's numbers get the offset 2^shift. */
INLINE NAME(pair) NAME(look_up)(const uint8_t *first, const uint8_t *second, const int8_t *table, int shift)
{
    const __m128i numbers = _mm_add_epi8(NAME(load_16_bytes)(table), _mm_set1_epi8((char)(1 << shift)));
    const NAME(pair) codes = NAME(nibble_pair)(first, second);
#if LANES == 16
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(numbers), codes);
#else
    const __m256i both = _mm256_broadcastsi128_si256(numbers);
    return (NAME(pair)){_mm256_shuffle_epi8(both, codes.first), _mm256_shuffle_epi8(both, codes.second)};
#endif
}

INLINE void NAME(unpack_iq4_nl)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = NAME(load_halves)(b, 18);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)(u, p, NAME(look_up)(b + 36 * p + 2, b + 36 * p + 20, iq4_numbers, 7));
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
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)(u, p, NAME(look_up)(b + 8 + 32 * p, b + 24 + 32 * p, iq4_numbers, 7));
}

INLINE void NAME(unpack_mxfp4)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m256i e = _mm256_setr_epi32(b[0], b[17], b[34], b[51], b[68], b[85], b[102], b[119]);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    u->scales[0] = _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(put_pair)(u, p, NAME(look_up)(b + 34 * p + 1, b + 34 * p + 18, fp4_numbers, 4));
}

/* The same as even_signs_of_28, of eight words. */
INLINE void NAME(even_signs_of_words)(__m256i words, uint32_t *signs)
{
    const __m256i seven = _mm256_set1_epi32(0x7f);
    __m256i s = _mm256_and_si256(words, seven);
    s = _mm256_or_si256(s, _mm256_and_si256(_mm256_slli_epi32(words, 1), _mm256_slli_epi32(seven, 8)));
    s = _mm256_or_si256(s, _mm256_and_si256(_mm256_slli_epi32(words, 2), _mm256_slli_epi32(seven, 16)));
    s = _mm256_or_si256(s, _mm256_and_si256(_mm256_slli_epi32(words, 3), _mm256_slli_epi32(seven, 24)));
    __m256i odd = _mm256_xor_si256(s, _mm256_srli_epi32(s, 4));
    odd = _mm256_xor_si256(odd, _mm256_srli_epi32(odd, 2));
    odd = _mm256_xor_si256(odd, _mm256_srli_epi32(odd, 1));
    odd = _mm256_slli_epi32(_mm256_and_si256(odd, _mm256_set1_epi32(0x01010101)), 7);
    _mm256_storeu_si256((__m256i *)(void *)signs, _mm256_or_si256(s, odd));
}

/* d * (1/2 + the top four bits of a word) * factor, for eight words. */
INLINE __m256 NAME(steps_of_words)(__m256i words, float d, float factor)
{
    const __m256 scale = _mm256_cvtepi32_ps(_mm256_srli_epi32(words, 28));
    return _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(d), _mm256_add_ps(_mm256_set1_ps(0.5f), scale)),
                         _mm256_set1_ps(factor));
}

INLINE void NAME(unpack_iq2_xxs)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = u->values;
    const __m256i first = NAME(load_32_bytes)(b + 2), last = NAME(load_32_bytes)(b + 34);
    __m256i words = _mm256_castps_si256(/* 1, 3, …: signs and scales */
                                        _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(last),
                                                          _MM_SHUFFLE(3, 1, 3, 1)));
    words = _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0));
    u->scales[0] = NAME(steps_of_words)(words, NAME(load_half)(b), 0.25f);
    NAME(even_signs_of_words)(words, u->signs);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        const uint8_t *i = b + 2 + 16 * p;
        NAME(set_pair)
        (u, p, NAME(four_points)(values, i[0], i[1], i[2], i[3]), NAME(four_points)(values, i[8], i[9], i[10], i[11]));
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

/* Seven bits of sign from bit 9 on of sixteen words, and what makes their number even. */
INLINE __m256i NAME(even_signs_above)(const uint8_t *points)
{
    const __m256i s = _mm256_srli_epi16(NAME(load_32_bytes)(points), 9);
    __m256i odd = _mm256_xor_si256(s, _mm256_srli_epi16(s, 4));
    odd = _mm256_xor_si256(odd, _mm256_srli_epi16(odd, 2));
    odd = _mm256_xor_si256(odd, _mm256_srli_epi16(odd, 1));
    return _mm256_or_si256(s, _mm256_slli_epi16(_mm256_and_si256(odd, _mm256_set1_epi16(1)), 7));
}

INLINE __m256i NAME(iq2_xs_block)(const uint8_t *values, const uint8_t *from)
{
    uint64_t p;
    memcpy(&p, from, sizeof p);
    return NAME(four_points)(values, p & 511, p >> 16 & 511, p >> 32 & 511, p >> 48 & 511);
}

INLINE void NAME(unpack_iq2_xs)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m256i signs = _mm256_packus_epi16(NAME(even_signs_above)(b + 2), NAME(even_signs_above)(b + 34));
    _mm256_storeu_si256((__m256i *)(void *)u->signs, _mm256_permute4x64_epi64(signs, _MM_SHUFFLE(3, 1, 2, 0)));
    NAME(unpack_half_steps)(b + 66, NAME(load_half)(b), u);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, NAME(iq2_xs_block)(u->values, b + 2 + 16 * p), NAME(iq2_xs_block)(u->values, b + 10 + 16 * p));
}

INLINE __m256i NAME(iq2_s_block)(const uint8_t *values, const uint8_t *p, unsigned high)
{
    return NAME(four_points)(values, p[0] | (high << 8 & 0x300), p[1] | (high << 6 & 0x300), p[2] | (high << 4 & 0x300),
                             p[3] | (high << 2 & 0x300));
}

INLINE void NAME(unpack_iq2_s)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = u->values;
    NAME(unpack_half_steps)(b + 74, NAME(load_half)(b), u);
    memcpy(u->signs, b + 34, sizeof u->signs);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, NAME(iq2_s_block)(values, b + 2 + 8 * p, b[66 + 2 * p]),
     NAME(iq2_s_block)(values, b + 6 + 8 * p, b[67 + 2 * p]));
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
    const uint8_t *values = u->values;
    const __m256i words = NAME(load_32_bytes)(b + 66);
    u->scales[0] = NAME(steps_of_words)(words, NAME(load_half)(b), 0.5f);
    NAME(even_signs_of_words)(words, u->signs);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, NAME(eight_points)(values, b + 2 + 16 * p, 0), NAME(eight_points)(values, b + 10 + 16 * p, 0));
}

INLINE void NAME(unpack_iq3_s)(const uint8_t *b, struct NAME(unit) * u)
{
    const uint8_t *values = u->values;
    const __m256i fours = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256i scale = _mm256_srlv_epi32(_mm256_set1_epi32((int)word_at(b + 106)), fours);
    scale =
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_and_si256(scale, _mm256_set1_epi32(15)), 1), _mm256_set1_epi32(1));
    u->scales[0] = _mm256_mul_ps(_mm256_set1_ps(NAME(load_half)(b)), _mm256_cvtepi32_ps(scale));
    memcpy(u->signs, b + 74, sizeof u->signs);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, NAME(eight_points)(values, b + 2 + 16 * p, b[66 + 2 * p]),
     NAME(eight_points)(values, b + 10 + 16 * p, b[67 + 2 * p]));
}

INLINE void NAME(unpack_q8_k)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m256i offset = _mm256_set1_epi8(-128);
    float d;
    memcpy(&d, b, sizeof d);
    u->scales[0] = _mm256_set1_ps(d);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, _mm256_xor_si256(NAME(load_32_bytes)(b + 4 + 64 * p), offset),
     _mm256_xor_si256(NAME(load_32_bytes)(b + 36 + 64 * p), offset));
}

INLINE void NAME(unpack_tq2_0)(const uint8_t *b, struct NAME(unit) * u)
{
    u->scales[0] = _mm256_set1_ps(NAME(load_half)(b + 64));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++)
        NAME(put_pair)(u, p, NAME(fields)(b + 32 * (p / 2), 4 * (p % 2), 4 * (p % 2) + 2, 0, 3));
}

INLINE void NAME(unpack_q1_0)(const uint8_t *b, struct NAME(unit) * u)
{
    const float first = NAME(load_half)(b), second = NAME(load_half)(b + 18);
    u->scales[0] = _mm256_setr_ps(first, first, first, first, second, second, second, second);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        const uint8_t *bits = b + 18 * (p / 2) + 2 + 8 * (p % 2);
        NAME(put_pair)(u, p, NAME(where_pair_set)(word_at(bits), word_at(bits + 4), 2));
    }
}

/* Eight bytes of four two-bit codes each. */
INLINE __m256i NAME(quarters)(const uint8_t *from)
{
    __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)from));
    v = _mm256_or_si256(v, _mm256_slli_epi32(v, 12));
    v = _mm256_or_si256(v, _mm256_slli_epi32(v, 6));
    return _mm256_and_si256(v, _mm256_set1_epi8(3));
}

INLINE void NAME(unpack_q2_0)(const uint8_t *b, struct NAME(unit) * u)
{
    const float d[] = {NAME(load_half)(b), NAME(load_half)(b + 18), NAME(load_half)(b + 36), NAME(load_half)(b + 54)};
    u->scales[0] = _mm256_setr_ps(d[0], d[0], d[1], d[1], d[2], d[2], d[3], d[3]);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)(u, p, NAME(quarters)(b + 18 * p + 2), NAME(quarters)(b + 18 * p + 10));
}

/* Digits of base 3: of every byte times its power (16 bits for every two bytes), times 3, what is above eight bits. */
INLINE __m256i NAME(digits)(__m256i bytes, __m256i powers)
{
    const __m256i low = _mm256_set1_epi16(255), three = _mm256_set1_epi16(3);
    __m256i even = _mm256_and_si256(_mm256_mullo_epi16(_mm256_and_si256(bytes, low), powers), low);
    __m256i odd = _mm256_and_si256(_mm256_mullo_epi16(_mm256_srli_epi16(bytes, 8), powers), low);
    even = _mm256_srli_epi16(_mm256_mullo_epi16(even, three), 8);
    odd = _mm256_mullo_epi16(odd, three);
    return _mm256_or_si256(even, _mm256_andnot_si256(low, odd));
}

INLINE __m256i NAME(two_powers)(int first, int second)
{
    return _mm256_inserti128_si256(_mm256_set1_epi16((short)first), _mm_set1_epi16((short)second), 1);
}

INLINE void NAME(unpack_tq1_0)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m256i first = NAME(load_32_bytes)(b), then = _mm256_broadcastsi128_si256(NAME(load_16_bytes)(b + 32));
    const __m256i last = _mm256_inserti128_si256(then, _mm_set1_epi32((int)word_at(b + 48)), 1);
    const __m256i powers = _mm256_inserti128_si256(_mm256_set1_epi16(81), _mm_setr_epi16(1, 1, 3, 3, 9, 9, 27, 27), 1);
    u->scales[0] = _mm256_set1_ps(NAME(load_half)(b + 52));
    NAME(set_pair)(u, 0, NAME(digits)(first, _mm256_set1_epi16(1)), NAME(digits)(first, _mm256_set1_epi16(3)));
    NAME(set_pair)(u, 1, NAME(digits)(first, _mm256_set1_epi16(9)), NAME(digits)(first, _mm256_set1_epi16(27)));
    NAME(set_pair)(u, 2, NAME(digits)(first, _mm256_set1_epi16(81)), NAME(digits)(then, NAME(two_powers)(1, 3)));
    NAME(set_pair)(u, 3, NAME(digits)(then, NAME(two_powers)(9, 27)), NAME(digits)(last, powers));
}

/* Half of unsigned e4m3 numbers: as bits of an f32 they are too small by 2^119, subnormal ones too. */
INLINE __m256 NAME(half_ue4m3)(__m128i bytes)
{
    const __m256i word = _mm256_and_si256(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(255));
    const __m256i bits = _mm256_slli_epi32(_mm256_and_si256(word, _mm256_set1_epi32(127)), 20);
    const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0x1p119f));
    return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(word, _mm256_set1_epi32(127))), value);
}

INLINE void NAME(unpack_nvfp4)(const uint8_t *b, struct NAME(unit) * u)
{
    const __m128i numbers = _mm_add_epi8(NAME(load_16_bytes)(fp4_numbers), _mm_set1_epi8(16));
    const __m128i scales =
        _mm_setr_epi32((int)word_at(b), (int)word_at(b + 36), (int)word_at(b + 72), (int)word_at(b + 108));
    u->scales[0] = NAME(half_ue4m3)(scales);
    u->scales[1] = NAME(half_ue4m3)(_mm_unpackhi_epi64(scales, scales));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        /* Eight bytes have sixteen weights: low nibbles, then high ones. */
        const __m256i q = NAME(load_32_bytes)(b + 36 * p + 4), table = _mm256_broadcastsi128_si256(numbers);
        const __m256i shifts = _mm256_setr_epi64x(0, 4, 0, 4), nibble = _mm256_set1_epi8(15);
        const __m256i low = _mm256_srlv_epi64(_mm256_permute4x64_epi64(q, _MM_SHUFFLE(1, 1, 0, 0)), shifts);
        const __m256i high = _mm256_srlv_epi64(_mm256_permute4x64_epi64(q, _MM_SHUFFLE(3, 3, 2, 2)), shifts);
        NAME(set_pair)
        (u, p, _mm256_shuffle_epi8(table, _mm256_and_si256(low, nibble)),
         _mm256_shuffle_epi8(table, _mm256_and_si256(high, nibble)));
    }
}

/* 16 + 8 * points + 1 or - 1: the sign of delta for each eight weights. */
INLINE __m256i NAME(eighths)(__m256i points, __m256i deltas)
{
    const __m256i times = _mm256_and_si256(_mm256_slli_epi16(points, 3), _mm256_set1_epi8((char)0xf8));
    return _mm256_add_epi8(times, deltas);
}

INLINE __m256i NAME(iq1_s_block)(const uint8_t *values, const uint8_t *p, unsigned high)
{
    return NAME(eighths)(NAME(four_points)(values, p[0] | (high << 8 & 0x700), p[1] | (high << 5 & 0x700),
                                           p[2] | (high << 2 & 0x700), p[3] | (high >> 1 & 0x700)),
                         _mm256_set1_epi8(high >> 15 ? 15 : 17));
}

/* d * (2 * scale + 1) / 8 of the low three bits of eight words. */
INLINE __m256 NAME(odd_steps)(__m256i words, float d)
{
    const __m256i scale = _mm256_and_si256(words, _mm256_set1_epi32(7));
    const __m256 odd = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_add_epi32(scale, scale), _mm256_set1_epi32(1)));
    return _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(d), odd), _mm256_set1_ps(0.125f));
}

INLINE void NAME(unpack_iq1_s)(const uint8_t *b, struct NAME(unit) * u)
{
    uint16_t high[8];
    memcpy(high, b + 34, sizeof high);
    u->scales[0] =
        NAME(odd_steps)(_mm256_srli_epi32(_mm256_cvtepu16_epi32(NAME(load_16_bytes)(high)), 12), NAME(load_half)(b));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, NAME(iq1_s_block)(u->values, b + 2 + 8 * p, high[2 * p]),
     NAME(iq1_s_block)(u->values, b + 6 + 8 * p, high[2 * p + 1]));
}

INLINE __m256i NAME(iq1_m_block)(const uint8_t *values, const uint8_t *p, const uint8_t *high)
{
    const unsigned a = high[0], b = high[1];
    const long long plus = 0x1111111111111111, two = 0x0202020202020202;
    const __m256i deltas = _mm256_setr_epi64x(plus - (a & 8 ? two : 0), plus - (a & 128 ? two : 0),
                                              plus - (b & 8 ? two : 0), plus - (b & 128 ? two : 0));
    return NAME(eighths)(NAME(four_points)(values, p[0] | (a << 8 & 0x700), p[1] | (a << 4 & 0x700),
                                           p[2] | (b << 8 & 0x700), p[3] | (b << 4 & 0x700)),
                         deltas);
}

INLINE void NAME(unpack_iq1_m)(const uint8_t *b, struct NAME(unit) * u)
{
    uint16_t w[4];
    memcpy(w, b + 48, sizeof w);
    const __m256i threes = _mm256_setr_epi32(0, 3, 6, 9, 0, 3, 6, 9);
    const uint16_t half = (uint16_t)(w[0] >> 12 | (w[1] >> 8 & 0xf0) | (w[2] >> 4 & 0xf00) | (w[3] & 0xf000));
    const float d = NAME(load_half)((const uint8_t *)&half);
    for (int i = 0; i < 2; i++)
        u->scales[i] =
            NAME(odd_steps)(_mm256_srlv_epi32(_mm256_setr_epi32(w[2 * i], w[2 * i], w[2 * i], w[2 * i], w[2 * i + 1],
                                                                w[2 * i + 1], w[2 * i + 1], w[2 * i + 1]),
                                              threes),
                            d);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) NAME(set_pair)
    (u, p, NAME(iq1_m_block)(u->values, b + 8 * p, b + 32 + 4 * p),
     NAME(iq1_m_block)(u->values, b + 8 * p + 4, b + 34 + 4 * p));
}

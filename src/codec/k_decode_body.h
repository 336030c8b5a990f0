/* Decoders of k_quants.c for vectors of LANES floats; included once per width (decode_lanes.h). Where a byte holds bits
 * of weights that lie 32 apart, 32 weights are decoded at a time. */

/* scale * each of 16 signed bytes, or of 8. */
INLINE void NAME(times_16)(__m128i bytes, float scale, float *to)
{
    NAME(put_16)(bytes, scale, to);
}

INLINE void NAME(times_8)(uint64_t bytes, float scale, float *to)
{
    __m256i whole = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
    _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(whole)));
}

TARGET static void NAME(q2_k_decode)(const void *blocks, float *x, size_t n)
{
    const struct q2_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++) {
        float steps[16], lows[16];
        const __m128i scales = NAME(load_16_bytes)(b[s].scales), nibble = _mm_set1_epi8(15);
        NAME(times_16)(_mm_and_si128(scales, nibble), NAME(load_half)(b[s].d), steps);
        NAME(times_16)(_mm_and_si128(_mm_srli_epi16(scales, 4), nibble), NAME(load_half)(b[s].dmin), lows);
        for (int half = 0; half < 2; half++) {
            const __m256i q = NAME(load_32_bytes)(b[s].q + 32 * half);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++, x += 32) {
                const __m256i codes = NAME(bits)(q, 2 * k, 0, 3);
                const int j = 8 * half + 2 * k;
                NAME(put_16_less)(_mm256_castsi256_si128(codes), steps[j], lows[j], x);
                NAME(put_16_less)(_mm256_extracti128_si256(codes, 1), steps[j + 1], lows[j + 1], x + 16);
            }
        }
    }
}

/* Sixteen numbers of six bits less 32 (pack_q3_scales). */
INLINE __m128i NAME(q3_scales)(const uint8_t *packed)
{
    uint64_t low;
    uint32_t high;
    memcpy(&low, packed, sizeof low);
    memcpy(&high, packed + 8, sizeof high);
    const __m128i nibbles = _mm_and_si128(_mm_set_epi64x((long long)(low >> 4), (long long)low), _mm_set1_epi8(15));
    const __m128i shifted = _mm_setr_epi32((int)(high << 4), (int)(high << 2), (int)high, (int)(high >> 2));
    const __m128i scales = _mm_or_si128(nibbles, _mm_and_si128(shifted, _mm_set1_epi8(0x30)));
    return _mm_sub_epi8(scales, _mm_set1_epi8(32));
}

TARGET static void NAME(q3_k_decode)(const void *blocks, float *x, size_t n)
{
    const struct q3_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++) {
        float steps[16];
        NAME(times_16)(NAME(q3_scales)(b[s].scales), NAME(load_half)(b[s].d), steps);
        const __m256i high = NAME(load_32_bytes)(b[s].high);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++, x += 32) {
            const __m256i q = NAME(load_32_bytes)(b[s].q + 32 * (j / 4));
            const __m256i codes = _mm256_or_si256(NAME(bits)(q, 2 * (j % 4), 0, 3), NAME(bits)(high, j, 2, 1));
            NAME(put_32)(_mm256_sub_epi8(codes, _mm256_set1_epi8(4)), steps[2 * j], steps[2 * j + 1], x);
        }
    }
}

/* d * each of the eight scales, dmin * each of the minimums (pack_six_bits). */
INLINE void NAME(six_bit_steps)(const uint8_t *d, const uint8_t *dmin, const uint8_t *packed, float *steps, float *lows)
{
    uint32_t low_scales, low_mins, high;
    memcpy(&low_scales, packed, 4);
    memcpy(&low_mins, packed + 4, 4);
    memcpy(&high, packed + 8, 4);
    const uint32_t high_scales = (high & 0x0f0f0f0f) | (low_scales >> 2 & 0x30303030);
    const uint32_t high_mins = (high >> 4 & 0x0f0f0f0f) | (low_mins >> 2 & 0x30303030);
    NAME(times_8)((low_scales & 0x3f3f3f3f) | (uint64_t)high_scales << 32, NAME(load_half)(d), steps);
    NAME(times_8)((low_mins & 0x3f3f3f3f) | (uint64_t)high_mins << 32, NAME(load_half)(dmin), lows);
}

TARGET static void NAME(q4_k_decode)(const void *blocks, float *x, size_t n)
{
    const struct q4_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++) {
        float steps[8], lows[8];
        NAME(six_bit_steps)(b[s].d, b[s].dmin, b[s].scales, steps, lows);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++, x += 32) {
            const __m256i q = NAME(load_32_bytes)(b[s].q + 32 * (j / 2));
            NAME(put_32_less)(NAME(bits)(q, 4 * (j % 2), 0, 15), steps[j], lows[j], x);
        }
    }
}

TARGET static void NAME(q5_k_decode)(const void *blocks, float *x, size_t n)
{
    const struct q5_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++) {
        float steps[8], lows[8];
        NAME(six_bit_steps)(b[s].d, b[s].dmin, b[s].scales, steps, lows);
        const __m256i high = NAME(load_32_bytes)(b[s].high);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++, x += 32) {
            const __m256i q = NAME(load_32_bytes)(b[s].q + 32 * (j / 2));
            const __m256i codes = _mm256_or_si256(NAME(bits)(q, 4 * (j % 2), 0, 15), NAME(bits)(high, j, 4, 1));
            NAME(put_32_less)(codes, steps[j], lows[j], x);
        }
    }
}

TARGET static void NAME(q6_k_decode)(const void *blocks, float *x, size_t n)
{
    const struct q6_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++) {
        float steps[16];
        NAME(times_16)(NAME(load_16_bytes)(b[s].scales), NAME(load_half)(b[s].d), steps);
        for (int half = 0; half < 2; half++) {
            const __m256i high = NAME(load_32_bytes)(b[s].high + 32 * half);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++, x += 32) {
                const __m256i low = NAME(load_32_bytes)(b[s].low + 64 * half + 32 * (k % 2));
                const __m256i codes =
                    _mm256_or_si256(NAME(bits)(low, 4 * (k / 2), 0, 15), NAME(bits)(high, 2 * k, 4, 3));
                const int j = 8 * half + 2 * k;
                NAME(put_32)(_mm256_sub_epi8(codes, _mm256_set1_epi8(32)), steps[j], steps[j + 1], x);
            }
        }
    }
}

TARGET static void NAME(q8_k_decode)(const void *blocks, float *x, size_t n)
{
    const struct q8_k *b = blocks;
    for (size_t s = 0; s < n / SUPER; s++) {
        float d;
        memcpy(&d, b[s].d, sizeof d);
        for (int j = 0; j < 16; j++, x += 16) NAME(put_16)(NAME(load_16_bytes)(b[s].q + 16 * j), d, x);
    }
}

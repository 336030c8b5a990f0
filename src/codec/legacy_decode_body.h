/* Decoders of legacy.c for vectors of LANES floats; included once per width (decode_lanes.h). */

TARGET static void NAME(q4_0_decode)(const void *blocks, float *x, size_t n)
{
    const struct q4_0 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++, x += BLOCK) {
        float d = NAME(load_half)(b[i].d);
        NAME(put_32)(_mm256_sub_epi8(NAME(nibbles)(b[i].low), _mm256_set1_epi8(8)), d, d, x);
    }
}

TARGET static void NAME(q4_1_decode)(const void *blocks, float *x, size_t n)
{
    const struct q4_1 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++, x += BLOCK)
        NAME(put_32_plus)(NAME(nibbles)(b[i].low), NAME(load_half)(b[i].d), NAME(load_half)(b[i].m), x);
}

TARGET static void NAME(q5_0_decode)(const void *blocks, float *x, size_t n)
{
    const struct q5_0 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++, x += BLOCK) {
        uint32_t high;
        memcpy(&high, b[i].high, sizeof high);
        /* q - 16: without its fifth bit a code becomes negative. */
        __m256i codes = _mm256_or_si256(NAME(nibbles)(b[i].low), NAME(where_set)(~high, 0xf0));
        float d = NAME(load_half)(b[i].d);
        NAME(put_32)(codes, d, d, x);
    }
}

TARGET static void NAME(q5_1_decode)(const void *blocks, float *x, size_t n)
{
    const struct q5_1 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++, x += BLOCK) {
        uint32_t high;
        memcpy(&high, b[i].high, sizeof high);
        __m256i codes = _mm256_or_si256(NAME(nibbles)(b[i].low), NAME(where_set)(high, 0x10));
        NAME(put_32_plus)(codes, NAME(load_half)(b[i].d), NAME(load_half)(b[i].m), x);
    }
}

TARGET static void NAME(q8_0_decode)(const void *blocks, float *x, size_t n)
{
    const struct q8_0 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++, x += BLOCK) {
        float d = NAME(load_half)(b[i].d);
        NAME(put_16)(NAME(load_16_bytes)(b[i].q), d, x);
        NAME(put_16)(NAME(load_16_bytes)(b[i].q + 16), d, x + 16);
    }
}

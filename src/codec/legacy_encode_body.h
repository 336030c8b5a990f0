/* Encoders of legacy.c for vectors of LANES floats: a block of 32 is in 32 / LANES of them. The steps are those of the
 * scalar encoders. Included once per width, after lanes.h. */
enum { NAME(N) = BLOCK / LANES };
#define N NAME(N)

INLINE F NAME(splat)(float v)
{
    return v - (F){0};
}

/* Bit i: whether lane i of a equals that of b. */
INLINE uint32_t NAME(equal)(F a, F b)
{
#if LANES == 16
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
#else
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_EQ_OQ));
#endif
}

INLINE uint32_t NAME(all_equal)(const F *v, F to)
{
    uint32_t found = 0;
    for (int k = 0; k < N; k++) found |= NAME(equal)(v[k], to) << LANES * k;
    return found;
}

INLINE I NAME(larger)(I a, I b)
{
#if LANES == 16
    return (I)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
    return (I)_mm256_max_epi32((__m256i)a, (__m256i)b);
#endif
}

INLINE int32_t NAME(largest_lane)(I v)
{
#if LANES == 16
    __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256((__m512i)v), _mm512_extracti32x8_epi32((__m512i)v, 1));
#else
    __m256i eight = (__m256i)v;
#endif
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* `within` and then an integer. */
INLINE I NAME(cut)(F v, float high)
{
#if LANES == 16
    return (I)_mm512_cvttps_epi32(_mm512_min_ps(_mm512_max_ps((__m512)v, _mm512_setzero_ps()), _mm512_set1_ps(high)));
#else
    return (I)_mm256_cvttps_epi32(_mm256_min_ps(_mm256_max_ps((__m256)v, _mm256_setzero_ps()), _mm256_set1_ps(high)));
#endif
}

INLINE void NAME(store_half)(uint8_t *to, float x)
{
    uint32_t h = (uint32_t)_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT));
    if (x != x) h = (tms_f32_bits(x) >> 16 & 0x8000) | 0x7e00;
    memcpy(to, &(uint16_t){(uint16_t)h}, 2);
}

/* symmetric_codes */
INLINE float NAME(symmetric)(const float *x, float half, I *q)
{
    F v[N];
    I magnitudes = {0};
    for (int k = 0; k < N; k++) {
        v[k] = NAME(load)(x + LANES * k);
        magnitudes = NAME(larger)(magnitudes, (I)v[k] & 0x7fffffff);
    }
    float largest = tms_f32_from_bits((uint32_t)NAME(largest_lane)(magnitudes));
    uint32_t at = 0;
    for (int k = 0; k < N; k++) at |= NAME(equal)(NAME(magnitude)(v[k]), NAME(splat)(largest)) << LANES * k;
    if (largest != 0 && at) largest = x[__builtin_ctz(at)];
    float d = largest / -half;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    for (int k = 0; k < N; k++) q[k] = NAME(cut)(v[k] * inverse + (half + 0.5f), 2 * half - 1);
    return d;
}

INLINE I NAME(ordered)(I bits)
{
    return bits ^ (bits >> 31 & 0x7fffffff);
}

/* offset_codes */
INLINE float NAME(offset)(const float *x, float top, float *m, I *q)
{
    F v[N];
    I high, low; /* low: complements, so that their largest is sought */
    for (int k = 0; k < N; k++) {
        v[k] = NAME(load)(x + LANES * k);
        I u = NAME(ordered)((I)v[k]);
        high = k ? NAME(larger)(high, u) : u;
        low = k ? NAME(larger)(low, ~u) : ~u;
    }
    float largest = tms_f32_from_bits((uint32_t)ordered(NAME(largest_lane)(high)));
    float smallest = tms_f32_from_bits((uint32_t)ordered(~NAME(largest_lane)(low)));
    if (smallest == 0) smallest = x[__builtin_ctz(NAME(all_equal)(v, NAME(splat)(0)))];
    float d = (largest - smallest) / top;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    for (int k = 0; k < N; k++) q[k] = NAME(cut)((v[k] - smallest) * inverse + 0.5f, top);
    *m = smallest;
    return d;
}

INLINE void NAME(store_nibbles)(const I *q, uint8_t *low)
{
#if LANES == 16
    I both = (q[0] & 15) | (q[1] & 15) << 4;
    __m128i bytes = _mm512_cvtepi32_epi8((__m512i)both);
#else
    I first = (q[0] & 15) | (q[2] & 15) << 4, last = (q[1] & 15) | (q[3] & 15) << 4;
    __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)first, (__m256i)last), 0xd8);
    __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
#endif
    memcpy(low, &bytes, sizeof bytes);
}

INLINE void NAME(store_fifth_bits)(const I *q, uint8_t *high)
{
    uint32_t bits = 0;
    for (int k = 0; k < N; k++)
#if LANES == 16
        bits |= (uint32_t)_mm512_test_epi32_mask((__m512i)q[k], _mm512_set1_epi32(16)) << LANES * k;
#else
        bits |= (uint32_t)_mm256_movemask_ps((__m256)(q[k] << 27)) << LANES * k;
#endif
    memcpy(high, &bits, sizeof bits);
}

TARGET static void NAME(q4_0_encode)(const float *x, void *blocks, size_t n)
{
    struct q4_0 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++) {
        I q[N];
        NAME(store_half)(b[i].d, NAME(symmetric)(x + i * BLOCK, 8, q));
        NAME(store_nibbles)(q, b[i].low);
    }
}

TARGET static void NAME(q4_1_encode)(const float *x, void *blocks, size_t n)
{
    struct q4_1 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++) {
        I q[N];
        float m;
        NAME(store_half)(b[i].d, NAME(offset)(x + i * BLOCK, 15, &m, q));
        NAME(store_half)(b[i].m, m);
        NAME(store_nibbles)(q, b[i].low);
    }
}

TARGET static void NAME(q5_0_encode)(const float *x, void *blocks, size_t n)
{
    struct q5_0 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++) {
        I q[N];
        NAME(store_half)(b[i].d, NAME(symmetric)(x + i * BLOCK, 16, q));
        NAME(store_nibbles)(q, b[i].low);
        NAME(store_fifth_bits)(q, b[i].high);
    }
}

TARGET static void NAME(q5_1_encode)(const float *x, void *blocks, size_t n)
{
    struct q5_1 *b = blocks;
    for (size_t i = 0; i < n / BLOCK; i++) {
        I q[N];
        float m;
        NAME(store_half)(b[i].d, NAME(offset)(x + i * BLOCK, 31, &m, q));
        NAME(store_half)(b[i].m, m);
        NAME(store_nibbles)(q, b[i].low);
        NAME(store_fifth_bits)(q, b[i].high);
    }
}

#undef N

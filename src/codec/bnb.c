/* See bnb.h.
 *
 * A 4-bit code is the rank of s = x / absmax among the 15 midpoints of the sorted map: the number of midpoints strictly
 * below s. Full blocks multiply by the reciprocal of max(absmax, 1e-38), the last partial block divides, and stores
 * that maximum as its absmax: so does the library. The 8-bit quantizer of the absmax values does the same with 255. */
#include "codec/bnb.h"

#include <math.h>

#include "base/cpu.h"
#include "base/numbers.h"

static const float least_absmax = 1e-38f;

/* Midpoints of neighbours in the sorted maps, in f32. */
static const float nf4_midpoints[15] = {
    -0.8480964f, -0.6106329f, -0.45999527f, -0.33967942f, -0.2346074f, -0.13791174f, -0.045525018f, 0.03979015f,
    0.12025525f, 0.20352125f, 0.29201376f,  0.38931254f,  0.50166345f, 0.6427869f,   0.86147845f,
};
/* The 0 in the middle lies between the codes 0 and 8, both zeros: the smallest positive values become code 8. */
static const float fp4_midpoints[15] = {
    -0.8333334f,   -0.5833334f, -0.4166667f, -0.2916667f, -0.20833334f, -0.0859375f, -0.0026041667f, 0.0f,
    0.0026041667f, 0.0859375f,  0.20833334f, 0.2916667f,  0.4166667f,   0.5833334f,  0.8333334f,
};
static const uint8_t fp4_code_of_rank[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

const float *tms_bnb_map(enum tms_bnb_kind kind)
{
    return kind == TMS_BNB_NF4 ? tms_bnb_nf4_map : tms_bnb_fp4_map;
}

_Bool tms_bnb_block_size_ok(uint64_t block_size)
{
    return block_size >= 32 && block_size <= 4096 && (block_size & (block_size - 1)) == 0;
}

/* Of bits, whose order is that of magnitudes: an integer reduction may be vectorized. */
TMS_INLINE float largest_magnitude(const float *restrict x, size_t n)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = tms_f32_bits(x[i]) & 0x7fffffff;
        largest = u > largest ? u : largest;
    }
    return tms_f32_from_bits(largest);
}

/* ---- four bits ---- */

enum { CHUNK = 32 }; /* divides every block size */

TMS_INLINE void rank(const float *restrict midpoints, const float *restrict s, uint8_t *restrict ranks)
{
    for (int i = 0; i < CHUNK; i++) {
        int below = 0;
#pragma GCC unroll 15
        for (int k = 0; k < 15; k++) below += s[i] > midpoints[k];
        ranks[i] = (uint8_t)below;
    }
}

TMS_INLINE void encode_blocks(const float *restrict midpoints, const uint8_t *restrict code_of_rank, size_t block_size,
                              const float *restrict x, size_t n, uint8_t *restrict packed, float *restrict absmax)
{
    for (size_t begin = 0, b = 0; begin < n; begin += block_size, b++) {
        size_t count = n - begin < block_size ? n - begin : block_size;
        float largest = largest_magnitude(x + begin, count);
        float divisor = largest > least_absmax ? largest : least_absmax;
        absmax[b] = count < block_size ? divisor : largest;
        float inverse = 1.0f / divisor;
        for (size_t at = 0; at < count; at += CHUNK) {
            size_t here = count - at < CHUNK ? count - at : CHUNK;
            float s[CHUNK] = {0};
            uint8_t codes[CHUNK];
            const float *restrict from = x + begin + at;
            if (here == CHUNK && count == block_size)
                for (int i = 0; i < CHUNK; i++) s[i] = from[i] * inverse;
            else if (count == block_size)
                for (size_t i = 0; i < here; i++) s[i] = from[i] * inverse;
            else
                for (size_t i = 0; i < here; i++) s[i] = from[i] / divisor;
            rank(midpoints, s, codes);
            if (code_of_rank)
                for (int i = 0; i < CHUNK; i++) codes[i] = code_of_rank[codes[i]];
            uint8_t *restrict to = packed + (begin + at) / 2;
            if (here == CHUNK)
                for (int i = 0; i < CHUNK / 2; i++) to[i] = (uint8_t)(codes[2 * i] << 4 | codes[2 * i + 1]);
            else /* an odd last value is paired with the code of 0 */
                for (size_t i = 0; i < (here + 1) / 2; i++) to[i] = (uint8_t)(codes[2 * i] << 4 | codes[2 * i + 1]);
        }
    }
}

TMS_INLINE void encode4_body(enum tms_bnb_kind kind, uint32_t block_size, const float *x, size_t n, uint8_t *packed,
                             float *absmax)
{
    if (kind == TMS_BNB_NF4)
        encode_blocks(nf4_midpoints, NULL, block_size, x, n, packed, absmax);
    else
        encode_blocks(fp4_midpoints, fp4_code_of_rank, block_size, x, n, packed, absmax);
}
#define PARAMETERS                                                                                                     \
    (enum tms_bnb_kind kind, uint32_t block_size, const float *x, size_t n, uint8_t *packed, float *absmax)
TMS_BY_CPU(static, encode4, PARAMETERS, (kind, block_size, x, n, packed, absmax))

void tms_bnb_encode4(enum tms_bnb_kind kind, uint32_t block_size, const float *x, size_t n, uint8_t *packed,
                     float *absmax)
{
    encode4(kind, block_size, x, n, packed, absmax);
}

/* x = map[code] * scale; an odd last code is a high nibble. (Inlined into the variants with vectors: gcc 12 forgets to
 * clear the upper halves of registers before a tail call with a float, and all that follows is slow.) */
TMS_INLINE void decode_block_scalar(const float *restrict map, float scale, const uint8_t *restrict packed,
                                    float *restrict x, size_t n)
{
    for (size_t i = 0; i + 1 < n; i += 2) {
        x[i] = map[packed[i / 2] >> 4] * scale;
        x[i + 1] = map[packed[i / 2] & 15] * scale;
    }
    if (n % 2) x[n - 1] = map[packed[n / 2] >> 4] * scale;
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Every code's value times the scale is a table in registers. */
#define DECODE_CHUNKS(TABLES, PUT_16)                                                                                  \
    size_t i = 0;                                                                                                      \
    TABLES;                                                                                                            \
    for (; i + CHUNK <= n; i += CHUNK) {                                                                               \
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(packed + i / 2));                        \
        const __m128i nibble = _mm_set1_epi8(15), low = _mm_and_si128(bytes, nibble);                                  \
        const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);                                          \
        PUT_16(_mm_unpacklo_epi8(high, low), x + i);                                                                   \
        PUT_16(_mm_unpackhi_epi8(high, low), x + i + 16);                                                              \
    }                                                                                                                  \
    decode_block_scalar(map, scale, packed + i / 2, x + i, n - i)

TMS_TARGET_AVX512 static void decode_block_16(const float *restrict map, float scale, const uint8_t *restrict packed,
                                              float *restrict x, size_t n)
{
#define TABLES            const __m512 table = _mm512_mul_ps(_mm512_loadu_ps(map), _mm512_set1_ps(scale))
#define PUT_16(codes, to) _mm512_storeu_ps(to, _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), table))
    DECODE_CHUNKS(TABLES, PUT_16);
#undef TABLES
#undef PUT_16
}

/* The value of a code that is 8 or more comes from the second table: its bit 3 is made the sign that blends. */
TMS_TARGET_AVX2 static inline void look_up_8(__m256 first, __m256 last, __m128i codes, float *x)
{
    const __m256i code = _mm256_cvtepu8_epi32(codes);
    const __m256 choice = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
    _mm256_storeu_ps(
        x, _mm256_blendv_ps(_mm256_permutevar8x32_ps(first, code), _mm256_permutevar8x32_ps(last, code), choice));
}

TMS_TARGET_AVX2 static void decode_block_8(const float *restrict map, float scale, const uint8_t *restrict packed,
                                           float *restrict x, size_t n)
{
#define TABLES                                                                                                         \
    const __m256 first = _mm256_mul_ps(_mm256_loadu_ps(map), _mm256_set1_ps(scale));                                   \
    const __m256 last = _mm256_mul_ps(_mm256_loadu_ps(map + 8), _mm256_set1_ps(scale))
#define PUT_16(codes, to)                                                                                              \
    do {                                                                                                               \
        const __m128i here = codes;                                                                                    \
        look_up_8(first, last, here, to);                                                                              \
        look_up_8(first, last, _mm_unpackhi_epi64(here, here), (to) + 8);                                              \
    } while (0)
    DECODE_CHUNKS(TABLES, PUT_16);
#undef TABLES
#undef PUT_16
}
#endif

void tms_bnb_decode4(const float *map, uint32_t block_size, const uint8_t *packed, const float *absmax, float *x,
                     size_t n)
{
    const enum tms_cpu level = tms_cpu_level();
    for (size_t begin = 0, b = 0; begin < n; begin += block_size, b++) {
        size_t count = n - begin < block_size ? n - begin : block_size;
        switch (level) {
#if defined(__x86_64__)
        case TMS_CPU_AVX512: decode_block_16(map, absmax[b], packed + begin / 2, x + begin, count); break;
        case TMS_CPU_AVX2: decode_block_8(map, absmax[b], packed + begin / 2, x + begin, count); break;
#endif
        default: decode_block_scalar(map, absmax[b], packed + begin / 2, x + begin, count); break;
        }
    }
}

/* ---- eight bits ---- */

/* The number of midpoints of the dynamic map strictly below s. */
static uint8_t dynamic_rank(float s)
{
    unsigned low = 0, high = 255;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        float midpoint = (tms_bnb_dynamic_map[middle] + tms_bnb_dynamic_map[middle + 1]) / 2;
        if (midpoint < s)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)low;
}

/* The library's native CPU code looks the code up in a table of 65536 steps over [-1, 1], entry i for
 * v = -1 + 2 i / 65535; the rank of v is the same without the table. Its steps make it differ from the nearest entry
 * by one in about 0.3 % of cases, harmlessly: neighbours near zero lie closer than a step. */
static uint8_t dynamic_code(float t)
{
    if (isnan(t)) t = 0; /* 0 times the inverse of a subnormal, which is infinite */
    t = t < -1 ? -1 : t > 1 ? 1 : t;
    uint16_t step = (uint16_t)((t + 1) * 0.5f * 65535 + 0.5f);
    return dynamic_rank(-1 + (2.0f * (float)step) / 65535);
}

void tms_bnb_encode_dynamic8(const float *y, size_t n, uint8_t *codes, float *absmax)
{
    for (size_t begin = 0, b = 0; begin < n; begin += TMS_BNB_NESTED_BLOCK, b++) {
        size_t count = n - begin < TMS_BNB_NESTED_BLOCK ? n - begin : TMS_BNB_NESTED_BLOCK;
        float largest = largest_magnitude(y + begin, count);
        absmax[b] = largest;
        float inverse = largest > 0 ? 1.0f / largest : 0;
        for (size_t i = begin; i < begin + count; i++) codes[i] = largest > 0 ? dynamic_code(y[i] * inverse) : 0;
    }
}

void tms_bnb_encode_absmax(const float *absmax, size_t n, uint8_t *codes, float *nested_absmax, float *offset)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += absmax[i];
    float mean = n ? (float)(sum / (double)n) : 0;
    float y[TMS_BNB_NESTED_BLOCK];
    for (size_t begin = 0; begin < n; begin += TMS_BNB_NESTED_BLOCK) {
        size_t count = n - begin < TMS_BNB_NESTED_BLOCK ? n - begin : TMS_BNB_NESTED_BLOCK;
        for (size_t i = 0; i < count; i++) y[i] = absmax[begin + i] - mean;
        tms_bnb_encode_dynamic8(y, count, codes + begin, nested_absmax + begin / TMS_BNB_NESTED_BLOCK);
    }
    *offset = mean;
}

void tms_bnb_decode_absmax(const float *map, uint32_t nested_block, const uint8_t *codes, const float *nested_absmax,
                           float offset, float *absmax, size_t n)
{
    for (size_t begin = 0, b = 0; begin < n; begin += nested_block, b++) {
        size_t end = n - begin < nested_block ? n : begin + nested_block;
        for (size_t i = begin; i < end; i++) absmax[i] = map[codes[i]] * nested_absmax[b] + offset;
    }
}

/* ---- LLM.int8 ---- */

TMS_INLINE void encode_int8_body(const float *restrict x, size_t n, int8_t *restrict codes, float *restrict scb,
                                 size_t *restrict bad)
{
    enum { SOME = 256 };
    uint16_t h[SOME];
    float y[SOME];
    float largest = 0;
    *bad = n;
    for (size_t begin = 0; begin < n; begin += SOME) {
        size_t count = n - begin < SOME ? n - begin : SOME;
        tms_f32_to_f16_n(x + begin, h, count);
        tms_f16_to_f32_n(h, y, count);
        float magnitude = largest_magnitude(y, count);
        largest = magnitude > largest ? magnitude : largest;
        size_t first = tms_first_nonfinite(y, count);
        if (first < count) {
            *bad = begin + first;
            return;
        }
    }
    *scb = largest;
    float factor = largest > 0 ? 127.0f * (1.0f / largest) : 0.0f;
    for (size_t begin = 0; begin < n; begin += SOME) {
        size_t count = n - begin < SOME ? n - begin : SOME;
        tms_f32_to_f16_n(x + begin, h, count);
        tms_f16_to_f32_n(h, y, count);
        /* |y * factor| <= 127.01: adding 1.5 * 2^23 rounds half to even. */
        for (size_t i = 0; i < count; i++) {
            uint32_t u = tms_f32_bits(y[i] * factor + 12582912.0f);
            codes[begin + i] = (int8_t)((int32_t)(u & 0x007fffff) - 0x00400000);
        }
    }
}
TMS_BY_CPU(static, encode_int8, (const float *x, size_t n, int8_t *codes, float *scb, size_t *bad),
           (x, n, codes, scb, bad))

size_t tms_bnb_encode_int8(const float *x, size_t n, int8_t *codes, float *scb)
{
    size_t bad;
    encode_int8(x, n, codes, scb, &bad);
    return bad;
}

TMS_INLINE void tms_bnb_decode_int8_body(const int8_t *restrict codes, float scb, float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)codes[i] * scb * 7.874015718698502e-3f; /* f32 of 1/127 */
}
TMS_BY_CPU(extern, tms_bnb_decode_int8, (const int8_t *codes, float scb, float *x, size_t n), (codes, scb, x, n))

/* See numbers.h for the formats.
 *
 * Each narrowing is done on the bits of |x|. Where the result is normal, half an ulp less one, plus the last kept bit,
 * is added below the cut (round half to even; a carry runs into the exponent as it should). Where it is subnormal, a
 * power of two whose f32 ulp equals the format's smallest step is added, and the FPU rounds. There are no branches, so
 * compilers vectorize the rows. */
#include "base/numbers.h"

#include "base/cpu.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SIGN     0x80000000u
#define INFINITE 0x7f800000u
#define QUIET    0x00400000u

/* With masks: compilers keep a branch where one side of ?: computes with floats, and then do not vectorize. */
TMS_INLINE uint32_t pick(int condition, uint32_t yes, uint32_t no)
{
    uint32_t mask = 0u - (uint32_t)condition;
    return (yes & mask) | (no & ~mask);
}

TMS_INLINE float widen_f16(uint16_t h)
{
    uint32_t magnitude = h & 0x7fffu, sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t subnormal = tms_f32_bits((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t normal = (magnitude << 13) + (112u << 23); /* 112 = 127 - 15, the biases */
    uint32_t special = INFINITE | magnitude << 13 | pick(magnitude > 0x7c00, QUIET, 0);
    uint32_t u = pick(magnitude < 0x400, subnormal, pick(magnitude < 0x7c00, normal, special));
    return tms_f32_from_bits(sign | u);
}

TMS_INLINE uint16_t narrow_f16(float x)
{
    uint32_t u = tms_f32_bits(x), a = u & ~SIGN;
    uint32_t subnormal = tms_f32_bits(tms_f32_from_bits(a) + 0.5f) - (126u << 23); /* ulp of 0.5: 2^-24 */
    uint32_t normal = (a + 0xfff + (a >> 13 & 1) - (112u << 23)) >> 13;
    uint32_t h = pick(a < 113u << 23, subnormal, normal);
    h = pick(a >= 143u << 23, 0x7c00, h); /* 2^16 and more; 65520 … 2^16 carries to infinity by itself */
    h = pick(a > INFINITE, 0x7e00, h);
    return (uint16_t)(u >> 16 & 0x8000) | (uint16_t)h;
}

TMS_INLINE float widen_e4m3(uint8_t b)
{
    uint32_t magnitude = b & 0x7fu, sign = (uint32_t)(b & 0x80) << 24;
    uint32_t subnormal = tms_f32_bits((float)(int32_t)magnitude * 0x1p-9f);
    uint32_t normal = (magnitude << 20) + (120u << 23); /* 120 = 127 - 7 */
    uint32_t u = pick(magnitude < 8, subnormal, normal);
    u = pick(magnitude == 0x7f, INFINITE | QUIET, u);
    return tms_f32_from_bits(sign | u);
}

TMS_INLINE uint8_t narrow_e4m3(float x)
{
    uint32_t u = tms_f32_bits(x), a = u & ~SIGN;
    uint32_t subnormal = tms_f32_bits(tms_f32_from_bits(a) + 0x1p14f) - (141u << 23); /* ulp of 2^14: 2^-9 */
    uint32_t normal = (a + 0x7ffff + (a >> 20 & 1) - (120u << 23)) >> 20;
    uint32_t b = pick(a < 121u << 23, subnormal, normal);
    b = pick(a >= 0x43e00000, 0x7e, b); /* 448 */
    b = pick(a > INFINITE, 0x7f, b);
    return (uint8_t)(u >> 24 & 0x80) | (uint8_t)b;
}

TMS_INLINE float widen_e5m2(uint8_t b)
{
    return widen_f16((uint16_t)(b << 8)); /* the upper byte of an f16 */
}

TMS_INLINE uint8_t narrow_e5m2(float x)
{
    uint32_t u = tms_f32_bits(x), a = u & ~SIGN;
    uint32_t subnormal = tms_f32_bits(tms_f32_from_bits(a) + 0x1p7f) - (134u << 23); /* ulp of 2^7: 2^-16 */
    uint32_t normal = (a + 0xfffff + (a >> 21 & 1) - (112u << 23)) >> 21;
    uint32_t b = pick(a < 113u << 23, subnormal, normal);
    b = pick(a >= 143u << 23, 0x7c, b);
    b = pick(a > INFINITE, 0x7f, b);
    return (uint8_t)(u >> 24 & 0x80) | (uint8_t)b;
}

TMS_INLINE float widen_e8m0(uint8_t b)
{
    uint32_t u = b == 0 ? 0x00400000 : (uint32_t)b << 23; /* 2^-127 is subnormal in f32 */
    return tms_f32_from_bits(b == 255 ? INFINITE | QUIET : u);
}

TMS_INLINE uint8_t narrow_e8m0(float x)
{
    uint32_t a = tms_f32_bits(x) & ~SIGN;
    /* The midpoint of 2^k and 2^(k+1) is 1.5 * 2^k: the bit below the exponent alone. */
    uint32_t e = (a + 0x3fffff + (a >> 23 & 1)) >> 23;
    e = a < 1u << 23 ? a > 0x600000 : e; /* between 2^-127 and 2^-126, both without an implicit one */
    e = e > 254 ? 254 : e;
    return (uint8_t)(a > INFINITE ? 255 : e);
}

float tms_f16_to_f32(uint16_t h)
{
    return widen_f16(h);
}

uint16_t tms_f32_to_f16(float x)
{
    return narrow_f16(x);
}

float tms_e4m3_to_f32(uint8_t b)
{
    return widen_e4m3(b);
}

uint8_t tms_f32_to_e4m3(float x)
{
    return narrow_e4m3(x);
}

float tms_e5m2_to_f32(uint8_t b)
{
    return widen_e5m2(b);
}

uint8_t tms_f32_to_e5m2(float x)
{
    return narrow_e5m2(x);
}

float tms_e8m0_to_f32(uint8_t b)
{
    return widen_e8m0(b);
}

uint8_t tms_f32_to_e8m0(float x)
{
    return narrow_e8m0(x);
}

/* The rows. memcpy because no alignment is assumed of the narrow side; it compiles to plain loads and stores. */
#define ROW_OF(name, narrow_type, widen, narrow)                                                                       \
    TMS_INLINE void tms_##name##_to_f32_n_body(const void *restrict from, float *restrict to, size_t n)                \
    {                                                                                                                  \
        const uint8_t *p = from;                                                                                       \
        for (size_t i = 0; i < n; i++) {                                                                               \
            narrow_type v;                                                                                             \
            memcpy(&v, p + i * sizeof v, sizeof v);                                                                    \
            to[i] = widen(v);                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    TMS_INLINE void tms_f32_to_##name##_n_body(const float *restrict from, void *restrict to, size_t n)                \
    {                                                                                                                  \
        uint8_t *p = to;                                                                                               \
        for (size_t i = 0; i < n; i++) {                                                                               \
            narrow_type v = narrow(from[i]);                                                                           \
            memcpy(p + i * sizeof v, &v, sizeof v);                                                                    \
        }                                                                                                              \
    }

#define ROW_FUNCTIONS(name, narrow_type, widen, narrow)                                                                \
    ROW_OF(name, narrow_type, widen, narrow)                                                                           \
    TMS_BY_CPU(extern, tms_##name##_to_f32_n, (const void *from, float *to, size_t n), (from, to, n))                  \
    TMS_BY_CPU(extern, tms_f32_to_##name##_n, (const float *from, void *to, size_t n), (from, to, n))

ROW_FUNCTIONS(bf16, uint16_t, tms_bf16_to_f32, tms_f32_to_bf16)
ROW_FUNCTIONS(e4m3, uint8_t, widen_e4m3, narrow_e4m3)
ROW_FUNCTIONS(e5m2, uint8_t, widen_e5m2, narrow_e5m2)
ROW_FUNCTIONS(e8m0, uint8_t, widen_e8m0, narrow_e8m0)

/* f16 has instructions of its own. They widen as we do; narrowing keeps a NaN's upper payload bits, so NaNs are
 * replaced by the plain quiet one of the same sign first. */
ROW_OF(f16, uint16_t, widen_f16, narrow_f16)

#if defined(__x86_64__)
TMS_TARGET_AVX2 static void widen_f16_avx2(const void *from, float *to, size_t n)
{
    const uint8_t *p = from;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h;
        memcpy(&h, p + 2 * i, sizeof h);
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(h));
    }
    tms_f16_to_f32_n_body(p + 2 * i, to + i, n - i);
}

TMS_TARGET_AVX2 static void narrow_f16_avx2(const float *from, void *to, size_t n)
{
    const __m256 sign = _mm256_castsi256_ps(_mm256_set1_epi32((int)SIGN));
    const __m256 quiet = _mm256_castsi256_ps(_mm256_set1_epi32((int)(INFINITE | QUIET)));
    uint8_t *p = to;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 x = _mm256_loadu_ps(from + i);
        __m256 plain = _mm256_or_ps(_mm256_and_ps(x, sign), quiet);
        x = _mm256_blendv_ps(x, plain, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        __m128i h = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        memcpy(p + 2 * i, &h, sizeof h);
    }
    tms_f32_to_f16_n_body(from + i, p + 2 * i, n - i);
}

TMS_TARGET_AVX512 static void widen_f16_avx512(const void *from, float *to, size_t n)
{
    const uint8_t *p = from;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i h;
        memcpy(&h, p + 2 * i, sizeof h);
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(h));
    }
    tms_f16_to_f32_n_body(p + 2 * i, to + i, n - i);
}

TMS_TARGET_AVX512 static void narrow_f16_avx512(const float *from, void *to, size_t n)
{
    const __m512 sign = _mm512_castsi512_ps(_mm512_set1_epi32((int)SIGN));
    const __m512 quiet = _mm512_castsi512_ps(_mm512_set1_epi32((int)(INFINITE | QUIET)));
    uint8_t *p = to;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 x = _mm512_loadu_ps(from + i);
        __m512 plain = _mm512_or_ps(_mm512_and_ps(x, sign), quiet);
        x = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), plain);
        __m256i h = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        memcpy(p + 2 * i, &h, sizeof h);
    }
    tms_f32_to_f16_n_body(from + i, p + 2 * i, n - i);
}
#endif

void tms_f16_to_f32_n(const void *from, float *to, size_t n)
{
    switch (tms_cpu_level()) {
#if defined(__x86_64__)
    case TMS_CPU_AVX512: widen_f16_avx512(from, to, n); break;
    case TMS_CPU_AVX2: widen_f16_avx2(from, to, n); break;
#endif
    default: tms_f16_to_f32_n_body(from, to, n); break;
    }
}

void tms_f32_to_f16_n(const float *from, void *to, size_t n)
{
    switch (tms_cpu_level()) {
#if defined(__x86_64__)
    case TMS_CPU_AVX512: narrow_f16_avx512(from, to, n); break;
    case TMS_CPU_AVX2: narrow_f16_avx2(from, to, n); break;
#endif
    default: tms_f32_to_f16_n_body(from, to, n); break;
    }
}

/* Whole chunks are tested without a branch; the chunk that has one is then searched. */
TMS_INLINE void first_nonfinite_body(const float *restrict x, size_t n, size_t *restrict at)
{
    enum { CHUNK = 256 };
    size_t i = 0;
    for (; i + CHUNK <= n; i += CHUNK) {
        uint32_t found = 0;
        for (size_t k = 0; k < CHUNK; k++) found |= (tms_f32_bits(x[i + k]) & INFINITE) == INFINITE;
        if (found) break;
    }
    while (i < n && (tms_f32_bits(x[i]) & INFINITE) != INFINITE) i++;
    *at = i;
}
TMS_BY_CPU(static, first_nonfinite, (const float *x, size_t n, size_t *at), (x, n, at))

size_t tms_first_nonfinite(const float *x, size_t n)
{
    size_t at;
    first_nonfinite(x, n, &at);
    return at;
}

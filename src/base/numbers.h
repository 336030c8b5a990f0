/* Small floating-point formats, to and from f32.
 *
 * Narrowing rounds to nearest, ties to even. Sources: IEEE 754 (f16), bfloat16 as ggml narrows it, and the OCP
 * 8-bit Floating Point Specification 1.0 (e4m3fn, e5m2) and Microscaling Formats 1.0 (e8m0).
 *
 * format  exponent bias  largest          infinity  NaN
 * f16     5        15    65504            7c00      written as sign|7e00 by narrowing
 * bf16    8        127   3.39e38          7f80      quiet: upper half | 0x40
 * e4m3fn  4        7     448 (7e)         none      7f, ff; narrowing saturates to ±448
 * e5m2    5        15    57344 (7b)       7c        7d..7f; narrowing overflows to infinity as f16 does
 * e8m0    8        127   2^127            none      ff; 0 is 2^-127; narrowing takes the nearest power of two
 */
#ifndef TMS_BASE_NUMBERS_H
#define TMS_BASE_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t tms_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float tms_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Exact; subnormals included. NaN keeps its payload, quieted. */
float tms_f16_to_f32(uint16_t h);
/* Overflow gives infinity, NaN gives sign|0x7e00 (as ggml). */
uint16_t tms_f32_to_f16(float x);
static inline float tms_bf16_to_f32(uint16_t h)
{
    return tms_f32_from_bits((uint32_t)h << 16);
}
static inline uint16_t tms_f32_to_bf16(float x)
{
    uint32_t u = tms_f32_bits(x);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)((u >> 16) | 64);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
float tms_e4m3_to_f32(uint8_t b);
uint8_t tms_f32_to_e4m3(float x);
float tms_e5m2_to_f32(uint8_t b);
uint8_t tms_f32_to_e5m2(float x);
float tms_e8m0_to_f32(uint8_t b);
/* Sign is ignored; 0 and what is below 2^-127 give 0, what is above 2^127 and infinity 254, NaN 255; a tie goes to the
 * even exponent byte. */
uint8_t tms_f32_to_e8m0(float x);

/* Rows of n values, no alignment assumed; the fastest variant that the machine has, same results as above. */
void tms_f16_to_f32_n(const void *from, float *to, size_t n);
void tms_f32_to_f16_n(const float *from, void *to, size_t n);
void tms_bf16_to_f32_n(const void *from, float *to, size_t n);
void tms_f32_to_bf16_n(const float *from, void *to, size_t n);
void tms_e4m3_to_f32_n(const void *from, float *to, size_t n);
void tms_f32_to_e4m3_n(const float *from, void *to, size_t n);
void tms_e5m2_to_f32_n(const void *from, float *to, size_t n);
void tms_f32_to_e5m2_n(const float *from, void *to, size_t n);
void tms_e8m0_to_f32_n(const void *from, float *to, size_t n);
void tms_f32_to_e8m0_n(const float *from, void *to, size_t n);

/* Index of the first NaN or infinity, or n. */
size_t tms_first_nonfinite(const float *x, size_t n);

#endif

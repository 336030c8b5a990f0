/* Four-bit floats (E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives) with a small float as scale.
 *
 * type   block  scale                           x = scale * value
 * mxfp4  32     power of two, e8m0              OCP Microscaling Formats 1.0
 * nvfp4  64     four unsigned e4m3, one per 16  as NVIDIA's, without the second scale per tensor
 *
 * As in ggml (0.25), whose bytes the encoders reproduce, tables and thresholds hold doubled values and `d` half of the
 * scale. Every weight takes the nearest value, the smaller magnitude when two are equally near, 0 rather than -0.
 * Nibbles: byte i of a group of n weights holds weight i low and weight i + n / 2 high. */
#include <assert.h>
#include <math.h>

#include "base/cpu.h"
#include "codec/nibbles.h"
#include "codec/rows.h"

struct mxfp4 {
    uint8_t e, q[16];
};
struct nvfp4 {
    uint8_t scales[4], q[32];
};
static_assert(sizeof(struct mxfp4) == 17, "mxfp4");
static_assert(sizeof(struct nvfp4) == 36, "nvfp4");

static const int8_t values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* The largest |x|, of bits (see legacy.c). */
TMS_INLINE float largest_magnitude(const float *restrict x, int n)
{
    uint32_t largest = 0;
    for (int i = 0; i < n; i++) {
        uint32_t u = tms_f32_bits(x[i]) & 0x7fffffff;
        largest = u > largest ? u : largest;
    }
    return tms_f32_from_bits(largest);
}

/* The first of the nearest values, by distances in f32. */
static int nearest_code(float x, float d)
{
    int code = 0;
    for (int i = 1; i < 16; i++)
        if (fabsf((float)values[i] * d - x) < fabsf((float)values[code] * d - x)) code = i;
    return code;
}

/* Codes of n weights, packed. Distances are exact near the middle between two values, so that comparing |x| with the
 * seven middles gives what comparing distances gives; unless weights are so large that all distances round to |x|. */
TMS_INLINE void pack_codes(const float *restrict x, int n, float largest, float d, uint8_t *restrict q)
{
    uint8_t codes[32];
    if (d == 0) {
        memset(codes, 0, sizeof codes); /* all values are 0, the first one is as near as any */
    } else if (largest >= 0x1p23f * d) {
        for (int i = 0; i < n; i++) codes[i] = (uint8_t)nearest_code(x[i], d);
    } else {
        float middle[7];
        /* Halves before the sum: a value that overflows makes the middle infinite, so that it is never taken. */
        for (int k = 0; k < 7; k++) middle[k] = 0.5f * ((float)values[k] * d) + 0.5f * ((float)values[k + 1] * d);
        for (int i = 0; i < n; i++) {
            float m = fabsf(x[i]);
            int code = 0;
            for (int k = 0; k < 7; k++) code += m > middle[k];
            codes[i] = (uint8_t)(x[i] < 0 && code ? code + 8 : code);
        }
    }
    for (int i = 0; i < n / 2; i++) q[i] = (uint8_t)(codes[i] | codes[i + n / 2] << 4);
}

/* ---- mxfp4 ---- */

/* Half of the scale that byte e stands for: 2^(e - 128). */
TMS_INLINE float half_e8m0(uint8_t e)
{
    return tms_f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* floor(log2f(v)) for v >= 2^-125. The logarithm of floats just below 2^k rounds to k, and the more of them, the longer
 * k is: the last 44 for 64 < k <= 128, half as many (rounded down) for every bit less. Compared with glibc's log2f for
 * every positive float. */
TMS_INLINE int floor_log2(float v)
{
    uint32_t u = tms_f32_bits(v);
    int e = (int)(u >> 23) - 127, size = e < 0 ? ~e : e;
    int less = size < 1 ? 7 : __builtin_clz((unsigned)size) - 25; /* 7 - bits in size */
    return (int)((u + (44u >> less)) >> 23) - 127;
}

TMS_INLINE void tms_mxfp4_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct mxfp4 *b = blocks;
    for (size_t s = 0; s < n / 32; s++, x += 32) {
        float largest = largest_magnitude(x, 32);
        /* Below 2^-125 the byte would be negative, which ggml leaves undefined; the smallest scale is meant. */
        b[s].e = largest < 0x1p-125f ? 0 : (uint8_t)(floor_log2(largest) - 2 + 127);
        pack_codes(x, 32, largest, half_e8m0(b[s].e), b[s].q);
    }
}

enum { GROUPS = 64 };

void tms_mxfp4_decode(const void *blocks, float *x, size_t n)
{
    const struct mxfp4 *b = blocks;
    float scales[2 * GROUPS];
    for (size_t s = 0, count; s < n / 32; s += count) {
        count = n / 32 - s < GROUPS ? n / 32 - s : GROUPS;
        for (size_t i = 0; i < count; i++) scales[2 * i] = scales[2 * i + 1] = half_e8m0(b[s + i].e);
        tms_decode_nibbles(b[s].q, sizeof *b, count, values, false, scales, x + 32 * s);
    }
}

/* ---- nvfp4 ---- */

/* Half of the unsigned e4m3 number; 7f counts as zero. The sign bit is ignored. */
TMS_INLINE float half_ue4m3(uint8_t b)
{
    uint32_t e = b >> 3 & 15, m = b & 7;
    if (b == 0x7f) return 0;
    return e == 0 ? (float)m * 0x1p-10f : tms_f32_from_bits((e + 119) << 23 | m << 20);
}

/* To nearest, halves up; 0 for what is not positive. Saturates at 448, and at once from 2^8: exponent 15 is written as
 * 7e whatever its fraction, as in ggml. */
TMS_INLINE uint8_t to_ue4m3(float v)
{
    if (!(v > 0)) return 0;
    if (v >= 256) return 0x7e;
    if (v < 0x1p-6f) {
        int m = (int)(v * 512 + 0.5f);
        return (uint8_t)(m > 7 ? 7 : m);
    }
    uint32_t u = (tms_f32_bits(v) - (120u << 23) + (1u << 19)) >> 20;
    return (uint8_t)(u >= 0x78 ? 0x7e : u);
}

TMS_INLINE void tms_nvfp4_encode_body(const float *restrict x, void *restrict blocks, size_t n)
{
    struct nvfp4 *b = blocks;
    for (size_t s = 0; s < n / 64; s++)
        for (int group = 0; group < 4; group++, x += 16) {
            float largest = largest_magnitude(x, 16);
            b[s].scales[group] = to_ue4m3(largest / 6);
            pack_codes(x, 16, largest, half_ue4m3(b[s].scales[group]), b[s].q + 8 * group);
        }
}

void tms_nvfp4_decode(const void *blocks, float *x, size_t n)
{
    const struct nvfp4 *b = blocks;
    for (size_t s = 0; s < n / 64; s++) {
        float scales[4];
        for (int group = 0; group < 4; group++) scales[group] = half_ue4m3(b[s].scales[group]);
        tms_decode_nibbles(b[s].q, 16, 2, values, true, scales, x + 64 * s);
    }
}

#define ROW_ENCODER(name)                                                                                              \
    TMS_BY_CPU(extern, tms_##name##_encode, (const float *x, void *blocks, size_t n), (x, blocks, n))

ROW_ENCODER(mxfp4)
ROW_ENCODER(nvfp4)

/* See grid_round.h. */
#include "codec/grid_round.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/numbers.h"

enum { SOME = 128 }; /* values at a time */

typedef float narrow_fn(float x);

TMS_INLINE float as_f32(float x)
{
    return x;
}

TMS_INLINE float as_bf16(float x)
{
    return tms_bf16_to_f32(tms_f32_to_bf16(x));
}

static float as_f16(float x)
{
    return tms_f16_to_f32(tms_f32_to_f16(x));
}

TMS_INLINE float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

struct range {
    float low, high; /* of the values and 0 */
};

/* Bits whose order as signed integers is that of the floats; its own inverse. Integer reductions may be vectorized. */
TMS_INLINE int32_t in_order(int32_t bits)
{
    return bits ^ (int32_t)((uint32_t)(bits >> 31) & 0x7fffffff);
}

TMS_INLINE void widen_body(int32_t *least, int32_t *most, const float *restrict x, size_t n)
{
    int32_t low = *least, high = *most;
    for (size_t i = 0; i < n; i++) {
        int32_t v = in_order((int32_t)tms_f32_bits(x[i]));
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    *least = low;
    *most = high;
}
TMS_BY_CPU(static, widen, (int32_t * least, int32_t *most, const float *x, size_t n), (least, most, x, n))

static struct range range_of(const float *x, size_t n)
{
    int32_t low = 0, high = 0; /* that is 0.0f */
    widen(&low, &high, x, n);
    return (struct range){tms_f32_from_bits((uint32_t)in_order(low)) + 0.0f,
                          tms_f32_from_bits((uint32_t)in_order(high))};
}

static float magnitude(struct range range)
{
    return range.high > -range.low ? range.high : -range.low;
}

/* To the nearest integer, ties to even, of what lies within ±2^22. */
TMS_INLINE float nearest(float x)
{
    return (x + 12582912.0f) - 12582912.0f; /* 1.5 * 2^23 */
}

/* ---- GPTQ ---- */

TMS_INLINE void gptq_codes_body(const float *restrict x, size_t n, float s, float z, float most,
                                uint8_t *restrict codes)
{
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(int)clamp(nearest(clamp(x[i] / s, -1024, 1024)) + z, 0, most);
}
TMS_BY_CPU(static, gptq_codes, (const float *x, size_t n, float s, float z, float most, uint8_t *codes),
           (x, n, s, z, most, codes))

/* scale = (high - low) / maxq, zero = rint(-low / scale). The reference's symmetric range of a group without negative
 * weights is only [0, high], which then cuts at half of it: here it is symmetric always. */
static void round_gptq(const struct tms_grid *grid, bool symmetric, const float *x, size_t n, float *scale,
                       uint8_t *zero, uint8_t *codes)
{
    const float most = (float)((1u << grid->bits) - 1);
    struct range range = range_of(x, n);
    if (symmetric) {
        range.high = magnitude(range);
        range.low = -range.high;
    }
    if (range.low == 0 && range.high == 0) {
        range.low = -1;
        range.high = 1;
    }
    float s = (range.high - range.low) / most, stored = as_f16(s);
    *scale = stored;
    if (stored > 0 && isfinite(stored)) s = stored;
    float z = symmetric ? (float)tms_grid_middle(grid) : clamp(rintf(-range.low / s), 0, most);
    if (zero) *zero = (uint8_t)z;
    gptq_codes(x, n, s, z, most, codes);
}

/* ---- AWQ ---- */

/* Rounds n values to f16, in place. */
static void all_as_f16(float *x, size_t n)
{
    uint16_t half[SOME];
    tms_f32_to_f16_n(x, half, n);
    tms_f16_to_f32_n(half, x, n);
}

/* The quantizer makes weights that lie on the grid, and the packer finds their codes again, both in f16. */
static void awq_codes(const float *x, size_t n, float s, float z, uint8_t *codes)
{
    float t[SOME], zs = as_f16(z * s);
    memcpy(t, x, n * sizeof *t);
    all_as_f16(t, n);
    for (size_t i = 0; i < n; i++) t[i] /= s;
    all_as_f16(t, n);
    for (size_t i = 0; i < n; i++) t[i] = nearest(t[i]) + z;
    all_as_f16(t, n); /* the clamped value is a small integer; what is cut off may overflow, which it may */
    for (size_t i = 0; i < n; i++) t[i] = (clamp(t[i], 0, 15) - z) * s;
    all_as_f16(t, n);
    for (size_t i = 0; i < n; i++) t[i] += zs;
    all_as_f16(t, n);
    for (size_t i = 0; i < n; i++) t[i] /= s;
    all_as_f16(t, n);
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(int)clamp(nearest(t[i]), 0, 15);
}

static void round_awq(const float *x, size_t n, float *scale, uint8_t *zero, uint8_t *codes)
{
    float low = as_f16(x[0]), high = low;
    for (size_t i = 1; i < n; i++) { /* rounding keeps the order */
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    low = as_f16(low);
    high = as_f16(high);
    float width = as_f16(high - low), least = as_f16(1e-5f);
    float s = as_f16((width > least ? width : least) / 15);
    float z = clamp(-rintf(as_f16(low / s)), 0, 15);
    *scale = s;
    if (zero) *zero = (uint8_t)z;
    for (size_t i = 0; i < n; i += SOME) awq_codes(x + i, n - i < SOME ? n - i : SOME, s, z, codes + i);
}

/* ---- compressed-tensors ---- */

static float epsilon(enum tms_type dtype)
{
    return dtype == TMS_BF16 ? 0x1p-7f : dtype == TMS_F16 ? 0x1p-10f : 0x1p-23f;
}

TMS_INLINE void int_codes(narrow_fn *as, const float *restrict x, size_t n, float s, float z, float least, float most,
                          int offset, uint8_t *restrict codes)
{
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint8_t)((int)nearest(clamp(as(as(x[i] / s) + z), least, most)) + offset);
}

#define PARAMETERS (const float *x, size_t n, float s, float z, float least, float most, int offset, uint8_t *codes)
#define ARGUMENTS  (x, n, s, z, least, most, offset, codes)
TMS_INLINE void int_codes_bf16_body PARAMETERS
{
    int_codes(as_bf16, x, n, s, z, least, most, offset, codes);
}
TMS_BY_CPU(static, int_codes_bf16, PARAMETERS, ARGUMENTS)
TMS_INLINE void int_codes_f32_body PARAMETERS
{
    int_codes(as_f32, x, n, s, z, least, most, offset, codes);
}
TMS_BY_CPU(static, int_codes_f32, PARAMETERS, ARGUMENTS)
static void int_codes_f16 PARAMETERS
{
    int_codes(as_f16, x, n, s, z, least, most, offset, codes);
}
typedef void int_codes_fn PARAMETERS;

static void ints(const struct tms_grid *grid, bool symmetric, narrow_fn *as, int_codes_fn *make_codes, float eps,
                 const float *x, size_t n, float *scale, uint8_t *zero, uint8_t *codes)
{
    const float least = -(float)(1u << (grid->bits - 1)), most = -least - 1;
    const int offset = tms_grid_middle(grid);
    struct range range = range_of(x, n);
    float s, z = 0;
    if (symmetric) {
        s = as(magnitude(range) / ((most - least) / 2));
    } else {
        s = as(as(range.high - range.low) / (most - least));
        z = rintf(clamp(as(least - as(range.low / s)), least, most));
        if (isnan(z)) z = 0; /* an empty group: 0 / 0 */
    }
    if (s == 0) s = eps;
    *scale = s;
    if (zero) *zero = (uint8_t)((int)z + offset);
    make_codes(x, n, s, z, least, most, offset, codes);
}

static void round_ints(const struct tms_grid *grid, const struct tms_rounding *r, const float *x, size_t n,
                       float *scale, uint8_t *zero, uint8_t *codes)
{
    float eps = epsilon(r->dtype);
    switch (r->dtype) {
    case TMS_BF16: ints(grid, r->symmetric, as_bf16, int_codes_bf16, eps, x, n, scale, zero, codes); break;
    case TMS_F16: ints(grid, r->symmetric, as_f16, int_codes_f16, eps, x, n, scale, zero, codes); break;
    default: ints(grid, r->symmetric, as_f32, int_codes_f32, eps, x, n, scale, zero, codes); break;
    }
}

static float in_dtype(enum tms_type dtype, float x)
{
    return dtype == TMS_BF16 ? as_bf16(x) : dtype == TMS_F16 ? as_f16(x) : x;
}

static void codes_e4m3(enum tms_type dtype, const float *x, size_t n, float s, uint8_t *codes)
{
    float t[SOME];
    for (size_t first = 0; first < n; first += SOME) {
        size_t count = n - first < SOME ? n - first : SOME;
        for (size_t i = 0; i < count; i++) t[i] = x[first + i] / s;
        if (dtype == TMS_BF16)
            for (size_t i = 0; i < count; i++) t[i] = as_bf16(t[i]);
        if (dtype == TMS_F16) all_as_f16(t, count);
        for (size_t i = 0; i < count; i++) t[i] += 0.0f; /* the zero point: -0 becomes 0 */
        tms_f32_to_e4m3_n(t, codes + first, count);
    }
}

/* To half even mantissas; what is negative and becomes zero keeps its sign. Beyond 6 is 6. */
TMS_INLINE void codes_e2m1(narrow_fn *as, const float *restrict x, size_t n, float divisor, uint8_t *restrict codes)
{
    for (size_t i = 0; i < n; i++) {
        float t = as(x[i] / divisor), a = fabsf(t);
        int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) + (a > 5);
        codes[i] = (uint8_t)(code | (t < 0) << 3);
    }
}
TMS_INLINE void codes_e2m1_f32_body(const float *x, size_t n, float divisor, uint8_t *codes)
{
    codes_e2m1(as_f32, x, n, divisor, codes);
}
TMS_BY_CPU(static, codes_e2m1_f32, (const float *x, size_t n, float divisor, uint8_t *codes), (x, n, divisor, codes))
TMS_INLINE void codes_e2m1_bf16_body(const float *x, size_t n, float divisor, uint8_t *codes)
{
    codes_e2m1(as_bf16, x, n, divisor, codes);
}
TMS_BY_CPU(static, codes_e2m1_bf16, (const float *x, size_t n, float divisor, uint8_t *codes), (x, n, divisor, codes))

static void round_nvfp4(const struct tms_rounding *r, const float *x, size_t n, float *scale, uint8_t *codes)
{
    struct range range = range_of(x, n);
    float s = r->global * in_dtype(r->dtype, magnitude(range) / 6);
    s = tms_e4m3_to_f32(tms_f32_to_e4m3(clamp(s, -448, 448)));
    if (s == 0) s = 0.125f;
    *scale = s;
    float divisor = s / r->global;
    codes_e2m1_f32(x, n, divisor, codes);
}

/* The exponent is that of the largest weight, and the next one from a mantissa of 1.75 on, less 2: 4 is the largest
 * power of two that the values have. A group of zeros gets the least scale; in f16 that is 0, which becomes 1, and so
 * do groups of subnormal f16, in whose bits the reference looks for an exponent in vain. */
static void round_mxfp4(enum tms_type dtype, const float *x, size_t n, float *scale, uint8_t *codes)
{
    struct range range = range_of(x, n);
    int exponent = 0;
    float amax = magnitude(range), mantissa = frexpf(amax, &exponent) * 2;
    exponent += (mantissa >= 1.75f) - 1 - 2;
    if (exponent < -127 || amax == 0) exponent = -127;
    float s = ldexpf(1, exponent);
    if (dtype == TMS_F16 && amax < 0.75f * 0x1p-14f) s = 1;
    *scale = s;
    if (dtype == TMS_BF16)
        codes_e2m1_bf16(x, n, s, codes);
    else if (dtype == TMS_F16)
        codes_e2m1(as_f16, x, n, s, codes);
    else
        codes_e2m1_f32(x, n, s, codes);
}

float tms_nvfp4_global(float amax, enum tms_type dtype)
{
    float inverse = in_dtype(dtype, 1.0f / in_dtype(dtype, amax)), global = in_dtype(dtype, 2688 * inverse);
    return isfinite(global) ? global : 1;
}

/* ---- */

static float block_scale(const struct tms_grid *grid, enum tms_type dtype, float amax)
{
    const float divisor = grid->values == TMS_GRID_INT ? (float)((1u << grid->bits) - 1) / 2 : 448;
    float s = in_dtype(dtype, amax / divisor);
    return s == 0 ? epsilon(dtype) : s;
}

float tms_grid_tensor_scale(const struct tms_grid *grid, const struct tms_rounding *rounding)
{
    return block_scale(grid, rounding->dtype, in_dtype(rounding->dtype, rounding->amax));
}

/* Scales that belong to blocks of several rows, or to all: of small floats and 8-bit integers. */
static void round_blocks(const struct tms_grid *grid, const struct tms_rounding *r, const float *x, uint64_t row,
                         uint64_t n_rows, float *scales, uint8_t *zeros, uint8_t *codes)
{
    const uint64_t groups = tms_grid_groups(grid), height = grid->scale_rows ? grid->scale_rows : 1;
    const bool ints = grid->values == TMS_GRID_INT;
    for (uint64_t first = 0; first < n_rows; first += height) {
        uint64_t end = n_rows - first < height ? n_rows : first + height;
        for (uint64_t g = 0; g < groups; g++) {
            uint64_t col = g * grid->group, n = grid->cols - col < grid->group ? grid->cols - col : grid->group;
            float amax = r->amax;
            if (amax == 0) {
                for (uint64_t i = first; i < end; i++)
                    amax = fmaxf(amax, magnitude(range_of(x + i * grid->cols + col, (size_t)n)));
            }
            float s = block_scale(grid, r->dtype, in_dtype(r->dtype, amax));
            scales[(row + first) / height * groups + g] = s;
            for (uint64_t i = first; i < end; i++) {
                const float *from = x + i * grid->cols + col;
                uint8_t *to = codes + i * grid->cols + col;
                if (!ints) codes_e4m3(r->dtype, from, (size_t)n, s, to);
                for (uint64_t k = 0; k < n && ints; k++) {
                    float least = -(float)(1u << (grid->bits - 1));
                    to[k] = (uint8_t)((int)rintf(clamp(in_dtype(r->dtype, from[k] / s), least, -least - 1)) +
                                      tms_grid_middle(grid));
                }
            }
        }
    }
    (void)zeros; /* none of these has any */
}

void tms_grid_round(const struct tms_grid *grid, const struct tms_rounding *rounding, const float *x, uint64_t row,
                    uint64_t n_rows, float *scales, uint8_t *zeros, uint8_t *codes)
{
    const uint64_t groups = tms_grid_groups(grid);
    if (grid->scale_rows != 1 || grid->values == TMS_GRID_E4M3) {
        round_blocks(grid, rounding, x, row, n_rows, scales, zeros, codes);
        return;
    }
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t g = 0; g < groups; g++) {
            uint64_t col = g * grid->group, rest = grid->cols - col, at = r * grid->cols + col;
            size_t n = (size_t)(rest < grid->group ? rest : grid->group);
            float *scale = scales + (row + r) * groups + g;
            uint8_t *zero = zeros ? zeros + (row + r) * groups + g : NULL;
            if (rounding->scales == TMS_SCALES_NVFP4)
                round_nvfp4(rounding, x + at, n, scale, codes + at);
            else if (rounding->scales == TMS_SCALES_MX)
                round_mxfp4(rounding->dtype, x + at, n, scale, codes + at);
            else if (rounding->rule == TMS_RULE_GPTQ)
                round_gptq(grid, rounding->symmetric, x + at, n, scale, zero, codes + at);
            else if (rounding->rule == TMS_RULE_AWQ)
                round_awq(x + at, n, scale, zero, codes + at);
            else
                round_ints(grid, rounding, x + at, n, scale, zero, codes + at);
        }
}

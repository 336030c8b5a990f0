/* See rounded.h. The scalar functions are the definition. */
#include "engine/kernels/rounded.h"

#include <float.h>
#include <math.h>

#include "engine/kernels/rounded_types.h"
#include "engine/kernels/unpack.h"

#define ROWS_AT_ONCE 4

/* ---- activations ---- */

TMS_INLINE void round_unit_body(const float *restrict x, struct tms_rounded_unit *restrict u)
{
    for (int j = 0; j < 8; j++) {
        const float *restrict from = x + 32 * j;
        int8_t *restrict codes = u->codes + 32 * j;
        uint32_t top = 0; /* magnitudes compare as their bits do, and what is not finite is above all */
        for (int i = 0; i < 32; i++) {
            uint32_t magnitude = tms_f32_bits(from[i]) & 0x7fffffff;
            top = magnitude > top ? magnitude : top;
        }
        float largest = tms_f32_from_bits(top), inverse = 127.0f / largest;
        bool rounds = largest <= FLT_MAX && inverse <= FLT_MAX;
        u->scales[j] = rounds || !(largest <= FLT_MAX) ? largest / 127.0f : 0;
        for (int i = 0; i < 32; i++) {
            float v = rounds ? from[i] * inverse : 0;
            /* To nearest, halves to even, as long as |v| < 2^22. */
            codes[i] = (int8_t)((int32_t)(tms_f32_bits(v + 12582912.0f) & 0x7fffff) - 0x400000);
        }
        int32_t whole = 0;
        for (int k = 0; k < 2; k++) {
            int32_t half = 0;
            for (int i = 16 * k; i < 16 * k + 16; i++) half += codes[i];
            u->by_16[2 * j + k] = u->scales[j] * (float)half;
            u->less_16[2 * j + k] = -128 * half;
            whole += half;
        }
        u->by_32[j] = u->scales[j] * (float)whole;
        u->less_32[j] = -128 * whole;
        for (int l = 0; l < 8; l++)
            u->sums[8 * j + l] = -(codes[4 * l] + codes[4 * l + 1] + codes[4 * l + 2] + codes[4 * l + 3]);
    }
}
TMS_BY_CPU(static, round_unit, (const float *x, struct tms_rounded_unit *u), (x, u))

void tms_round_row(const float *x, size_t n, struct tms_rounded_unit *units)
{
    for (; n >= TMS_UNIT; n -= TMS_UNIT, x += TMS_UNIT) round_unit(x, units++);
    if (n == 0) return;
    float last[TMS_UNIT] = {0};
    memcpy(last, x, n * sizeof *x);
    round_unit(last, units);
}

/* ---- sums ---- */

static float add_lanes(float *lanes, int n)
{
    for (int half = n / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

#if defined(__aarch64__)
#include <arm_neon.h>

/* lanes[0 … 3] += scale * sums of four products of 16 codes. */
TMS_INLINE void add_16(const int8_t *w, const int8_t *x, float scale, float *lanes)
{
    int8x16_t a = vld1q_s8(w), b = vld1q_s8(x);
    int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
    vst1q_f32(lanes, vfmaq_n_f32(vld1q_f32(lanes), vcvtq_f32_s32(vpaddlq_s16(pairs)), scale));
}
#else
TMS_INLINE void add_16(const int8_t *w, const int8_t *x, float scale, float *lanes)
{
    for (int l = 0; l < 4; l++) {
        int32_t sum = 0;
        for (int i = 4 * l; i < 4 * l + 4; i++) sum += w[i] * x[i];
        lanes[l] = fmaf((float)sum, scale, lanes[l]);
    }
}
#endif

TMS_INLINE void add_unit(const struct unpacked *u, const struct tms_rounded_unit *x, bool by_16, bool has_mins,
                         float *lanes, float *mins)
{
    for (int j = 0; j < 16; j++) /* half of a unit has all lanes */
        add_16(u->codes + 16 * j, x->codes + 16 * j, u->scales[by_16 ? j : j / 2] * x->scales[j / 2],
               lanes + 4 * (j % 8));
    for (int j = 0; has_mins && j < (by_16 ? 16 : 8); j++)
        mins[j] = fmaf(u->mins[j], by_16 ? x->by_16[j] : x->by_32[j], mins[j]);
}

#define ROW_FUNCTION(name, unit_bytes, by_16, has_mins, shift, has_signs, book)                                        \
    static void rows_##name(const uint8_t *rows, size_t row_bytes, size_t n_rows, size_t n_units,                      \
                            const uint8_t(*tails)[MAX_UNIT_BYTES], const struct tms_rounded_unit *x, float *y)         \
    {                                                                                                                  \
        for (size_t r = 0; r < n_rows; r++) {                                                                          \
            float lanes[32] = {0}, mins[16] = {0};                                                                     \
            for (size_t i = 0; i < n_units + (tails ? 1 : 0); i++) {                                                   \
                struct unpacked u;                                                                                     \
                unpack_##name(i < n_units ? rows + r * row_bytes + i * (unit_bytes) : tails[r], &u);                   \
                add_unit(&u, x + i, by_16, has_mins, lanes, mins);                                                     \
            }                                                                                                          \
            y[r] = add_lanes(lanes, 32);                                                                               \
            if (has_mins) y[r] -= add_lanes(mins, 16);                                                                 \
        }                                                                                                              \
    }
ROUNDED_TYPES(ROW_FUNCTION)
#undef ROW_FUNCTION

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/decode_lanes.h"
#include "codec/iq_decode_lanes.h"
#include "engine/kernels/unpack_lanes.h"
#include "engine/kernels/rounded_lanes.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_VNNI
#define NAME(symbol) symbol##_16
#include "codec/decode_lanes.h"
#include "codec/iq_decode_lanes.h"
#include "engine/kernels/unpack_lanes.h"
#include "engine/kernels/rounded_lanes.h"
#include "codec/lanes_end.h"

#define VECTOR_FUNCTIONS(name) , rows_##name##_8, rows_##name##_16
#else
#define VECTOR_FUNCTIONS(name)
#endif

/* ---- the table ---- */

enum {
#define NUMBER(name, unit_bytes, by_16, has_mins, shift, has_signs, book) NUMBER_##name,
    ROUNDED_TYPES(NUMBER)
#undef NUMBER
};

static const struct tms_rounded_codec codecs[] = {
#define ROW(name, unit_bytes, by_16, has_mins, shift, has_signs, book)                                                 \
    {#name, NUMBER_##name, unit_bytes, by_16, has_mins, rows_##name VECTOR_FUNCTIONS(name)},
    ROUNDED_TYPES(ROW)
#undef ROW
};

const struct tms_rounded_codec *tms_rounded_codec(enum tms_type type)
{
    const struct tms_codec *codec = tms_codec(type);
    for (size_t i = 0; codec && i < sizeof codecs / sizeof *codecs; i++)
        if (strcmp(codecs[i].name, codec->name) == 0) return &codecs[i];
    return NULL;
}

static rows_fn *rows_function(const struct tms_rounded_codec *codec)
{
#if defined(__x86_64__)
    switch (tms_cpu_level()) {
    case TMS_CPU_AVX512: return tms_cpu_has_vnni() ? codec->rows_vnni : codec->rows_avx2;
    case TMS_CPU_AVX2: return codec->rows_avx2;
    default: break;
    }
#endif
    return codec->rows;
}

void tms_rounded_rows(const struct tms_rounded_codec *codec, const uint8_t *rows, size_t row_bytes, size_t n_rows,
                      uint64_t cols, const struct tms_rounded_unit *x, float *y)
{
    rows_fn *run = rows_function(codec);
    const size_t n_units = (size_t)(cols / TMS_UNIT), whole = n_units * codec->unit_bytes;
    uint8_t tails[ROWS_AT_ONCE][MAX_UNIT_BYTES];
    memset(tails, 0, sizeof tails);
    for (size_t r = 0; r < n_rows; r += ROWS_AT_ONCE) {
        size_t n = n_rows - r < ROWS_AT_ONCE ? n_rows - r : ROWS_AT_ONCE;
        const uint8_t *from = rows + r * row_bytes;
        for (size_t i = 0; cols % TMS_UNIT && i < n; i++)
            memcpy(tails[i], from + i * row_bytes + whole, row_bytes - whole);
        run(from, row_bytes, n, n_units, cols % TMS_UNIT ? tails : NULL, x, y + r);
    }
}

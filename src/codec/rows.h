/* The encoders and decoders of whole rows that codec.c lists, and what they share. */
#ifndef TMS_CODEC_ROWS_H
#define TMS_CODEC_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/cpu.h"
#include "base/numbers.h"

#define TMS_ENCODER(name) void tms_##name##_encode(const float *x, void *blocks, size_t n)
#define TMS_WEIGHTED_ENCODER(name)                                                                                     \
    void tms_##name##_encode_weighted(const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols)
#define TMS_DECODER(name) void tms_##name##_decode(const void *blocks, float *x, size_t n)
#define TMS_ROW_CODEC(name)                                                                                            \
    TMS_ENCODER(name);                                                                                                 \
    TMS_DECODER(name)

/* plain.c */
TMS_ROW_CODEC(f32);
TMS_ROW_CODEC(f64);
TMS_ROW_CODEC(f16);
TMS_ROW_CODEC(bf16);
TMS_ROW_CODEC(f8_e4m3);
TMS_ROW_CODEC(f8_e5m2);
TMS_ROW_CODEC(f8_e8m0);
TMS_DECODER(f8_e4m3fnuz);
TMS_DECODER(f8_e5m2fnuz);
TMS_DECODER(i8);
TMS_DECODER(i16);
TMS_DECODER(i32);
TMS_DECODER(i64);
TMS_DECODER(u8);
TMS_DECODER(u16);
TMS_DECODER(u32);
TMS_DECODER(u64);
TMS_DECODER(bool);

/* legacy.c */
TMS_ROW_CODEC(q4_0);
TMS_ROW_CODEC(q4_1);
TMS_ROW_CODEC(q5_0);
TMS_ROW_CODEC(q5_1);
TMS_ROW_CODEC(q8_0);

/* legacy_weighted.c */
TMS_WEIGHTED_ENCODER(q4_0);
TMS_WEIGHTED_ENCODER(q4_1);
TMS_WEIGHTED_ENCODER(q5_0);
TMS_WEIGHTED_ENCODER(q5_1);

/* k_quants.c */
TMS_ROW_CODEC(q2_k);
TMS_ROW_CODEC(q3_k);
TMS_ROW_CODEC(q4_k);
TMS_ROW_CODEC(q5_k);
TMS_ROW_CODEC(q6_k);
TMS_ROW_CODEC(q8_k);

/* k_weighted.c */
TMS_WEIGHTED_ENCODER(q2_k);
TMS_WEIGHTED_ENCODER(q3_k);
TMS_WEIGHTED_ENCODER(q4_k);
TMS_WEIGHTED_ENCODER(q5_k);
TMS_WEIGHTED_ENCODER(q6_k);

/* iq2.c: two of them only with importances */
TMS_WEIGHTED_ENCODER(iq2_xxs);
TMS_DECODER(iq2_xxs);
TMS_WEIGHTED_ENCODER(iq2_xs);
TMS_DECODER(iq2_xs);
TMS_ROW_CODEC(iq2_s);
TMS_WEIGHTED_ENCODER(iq2_s);

/* iq3.c */
TMS_ROW_CODEC(iq3_xxs);
TMS_WEIGHTED_ENCODER(iq3_xxs);
TMS_ROW_CODEC(iq3_s);
TMS_WEIGHTED_ENCODER(iq3_s);

/* ternary.c */
TMS_ROW_CODEC(tq1_0);
TMS_ROW_CODEC(tq2_0);
TMS_ROW_CODEC(q1_0);
TMS_ROW_CODEC(q2_0);

/* fp4.c */
TMS_ROW_CODEC(mxfp4);
TMS_ROW_CODEC(nvfp4);

/* iq1.c */
TMS_WEIGHTED_ENCODER(iq1_s);
TMS_DECODER(iq1_s);
TMS_ROW_CODEC(iq1_m);
TMS_WEIGHTED_ENCODER(iq1_m);

/* iq4.c */
TMS_ROW_CODEC(iq4_nl);
TMS_ROW_CODEC(iq4_xs);
TMS_WEIGHTED_ENCODER(iq4_nl);
TMS_WEIGHTED_ENCODER(iq4_xs);

/* name(parameters) calls variant_scalar, variant_8 or variant_16 (for vectors of 8 or 16 floats, on x86-64 only). */
#if defined(__x86_64__)
#define TMS_BY_LANES(name, variant, parameters, arguments)                                                             \
    void name parameters                                                                                               \
    {                                                                                                                  \
        switch (tms_cpu_level()) {                                                                                     \
        case TMS_CPU_AVX512: variant##_16 arguments; break;                                                            \
        case TMS_CPU_AVX2: variant##_8 arguments; break;                                                               \
        default: variant##_scalar arguments; break;                                                                    \
        }                                                                                                              \
    }
#else
#define TMS_BY_LANES(name, variant, parameters, arguments)                                                             \
    void name parameters                                                                                               \
    {                                                                                                                  \
        variant##_scalar arguments;                                                                                    \
    }
#endif
#define TMS_DECODER_BY_LANES(name)                                                                                     \
    TMS_BY_LANES(tms_##name##_decode, name##_decode, (const void *blocks, float *x, size_t n), (blocks, x, n))

/* Blocks are structs of bytes, so that they may lie anywhere; both of our machines are little-endian, as the files. */
static inline float tms_load_f16(const uint8_t bytes[2])
{
    uint16_t h;
    memcpy(&h, bytes, sizeof h);
    return tms_f16_to_f32(h);
}

static inline void tms_store_f16(uint8_t bytes[2], float x)
{
    uint16_t h = tms_f32_to_f16(x);
    memcpy(bytes, &h, sizeof h);
}

#endif

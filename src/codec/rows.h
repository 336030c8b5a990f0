/* The encoders and decoders of whole rows that codec.c lists, and what they share. */
#ifndef TMS_CODEC_ROWS_H
#define TMS_CODEC_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/numbers.h"

#define TMS_ENCODER(name) void tms_##name##_encode(const float *x, void *blocks, size_t n)
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

/* k_quants.c */
TMS_ROW_CODEC(q2_k);
TMS_ROW_CODEC(q3_k);
TMS_ROW_CODEC(q4_k);
TMS_ROW_CODEC(q5_k);
TMS_ROW_CODEC(q6_k);
TMS_ROW_CODEC(q8_k);

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

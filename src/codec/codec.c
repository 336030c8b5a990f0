/* The table of element types. Ids, block sizes and bytes up to 42 are ggml's (0.25); the others safetensors'. */
#include "tamis/codec.h"

#include <strings.h>

#include "codec/rows.h"

/* What a type can do: encode and decode, encode with importances too, encode only with them, decode,
 * nothing yet. */
#define BOTH(name)          tms_##name##_encode, NULL, tms_##name##_decode
#define WEIGHTED(name)      tms_##name##_encode, tms_##name##_encode_weighted, tms_##name##_decode
#define ONLY_WEIGHTED(name) NULL, tms_##name##_encode_weighted, tms_##name##_decode
#define DECODE(name)        NULL, NULL, tms_##name##_decode
#define NEITHER             NULL, NULL, NULL

static const struct tms_codec codecs[] = {
    /* id, name, elems, bytes, encode, encode_weighted, decode; by id */
    {TMS_F32, "f32", 1, 4, BOTH(f32)},
    {TMS_F16, "f16", 1, 2, BOTH(f16)},
    {TMS_Q4_0, "q4_0", 32, 18, WEIGHTED(q4_0)},
    {TMS_Q4_1, "q4_1", 32, 20, WEIGHTED(q4_1)},
    {TMS_Q5_0, "q5_0", 32, 22, WEIGHTED(q5_0)},
    {TMS_Q5_1, "q5_1", 32, 24, WEIGHTED(q5_1)},
    {TMS_Q8_0, "q8_0", 32, 34, BOTH(q8_0)},
    {TMS_Q8_1, "q8_1", 32, 36, NEITHER}, /* activations only; never in files */
    {TMS_Q2_K, "q2_k", 256, 84, WEIGHTED(q2_k)},
    {TMS_Q3_K, "q3_k", 256, 110, WEIGHTED(q3_k)},
    {TMS_Q4_K, "q4_k", 256, 144, WEIGHTED(q4_k)},
    {TMS_Q5_K, "q5_k", 256, 176, WEIGHTED(q5_k)},
    {TMS_Q6_K, "q6_k", 256, 210, WEIGHTED(q6_k)},
    {TMS_Q8_K, "q8_k", 256, 292, BOTH(q8_k)},
    {TMS_IQ2_XXS, "iq2_xxs", 256, 66, ONLY_WEIGHTED(iq2_xxs)},
    {TMS_IQ2_XS, "iq2_xs", 256, 74, ONLY_WEIGHTED(iq2_xs)},
    {TMS_IQ3_XXS, "iq3_xxs", 256, 98, WEIGHTED(iq3_xxs)},
    {TMS_IQ1_S, "iq1_s", 256, 50, ONLY_WEIGHTED(iq1_s)},
    {TMS_IQ4_NL, "iq4_nl", 32, 18, WEIGHTED(iq4_nl)},
    {TMS_IQ3_S, "iq3_s", 256, 110, WEIGHTED(iq3_s)},
    {TMS_IQ2_S, "iq2_s", 256, 82, WEIGHTED(iq2_s)},
    {TMS_IQ4_XS, "iq4_xs", 256, 136, WEIGHTED(iq4_xs)},
    {TMS_I8, "i8", 1, 1, DECODE(i8)},
    {TMS_I16, "i16", 1, 2, DECODE(i16)},
    {TMS_I32, "i32", 1, 4, DECODE(i32)},
    {TMS_I64, "i64", 1, 8, DECODE(i64)},
    {TMS_F64, "f64", 1, 8, BOTH(f64)},
    {TMS_IQ1_M, "iq1_m", 256, 56, WEIGHTED(iq1_m)},
    {TMS_BF16, "bf16", 1, 2, BOTH(bf16)},
    {TMS_TQ1_0, "tq1_0", 256, 54, BOTH(tq1_0)},
    {TMS_TQ2_0, "tq2_0", 256, 66, BOTH(tq2_0)},
    {TMS_MXFP4, "mxfp4", 32, 17, BOTH(mxfp4)},
    {TMS_NVFP4, "nvfp4", 64, 36, BOTH(nvfp4)},
    {TMS_Q1_0, "q1_0", 128, 18, BOTH(q1_0)},
    {TMS_Q2_0, "q2_0", 64, 18, BOTH(q2_0)},
    {TMS_BOOL, "bool", 1, 1, DECODE(bool)},
    {TMS_U8, "u8", 1, 1, DECODE(u8)},
    {TMS_U16, "u16", 1, 2, DECODE(u16)},
    {TMS_U32, "u32", 1, 4, DECODE(u32)},
    {TMS_U64, "u64", 1, 8, DECODE(u64)},
    {TMS_F8_E4M3, "f8_e4m3", 1, 1, BOTH(f8_e4m3)},
    {TMS_F8_E5M2, "f8_e5m2", 1, 1, BOTH(f8_e5m2)},
    {TMS_F8_E8M0, "f8_e8m0", 1, 1, BOTH(f8_e8m0)},
    {TMS_F8_E4M3FNUZ, "f8_e4m3fnuz", 1, 1, DECODE(f8_e4m3fnuz)},
    {TMS_F8_E5M2FNUZ, "f8_e5m2fnuz", 1, 1, DECODE(f8_e5m2fnuz)},
    {TMS_F6_E2M3, "f6_e2m3", 1, 0, NEITHER},
    {TMS_F6_E3M2, "f6_e3m2", 1, 0, NEITHER},
    {TMS_F4, "f4", 1, 0, NEITHER},
    {TMS_C64, "c64", 1, 8, NEITHER},
};

enum { N_CODECS = sizeof codecs / sizeof codecs[0] };

const struct tms_codec *tms_codec(enum tms_type id)
{
    size_t low = 0, high = N_CODECS;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (codecs[middle].id == id) return &codecs[middle];
        if (codecs[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct tms_codec *tms_codec_by_name(const char *name)
{
    for (size_t i = 0; i < N_CODECS; i++)
        if (strcasecmp(codecs[i].name, name) == 0) return &codecs[i];
    return NULL;
}

uint64_t tms_codec_bytes(const struct tms_codec *codec, uint64_t n)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(n / codec->block_elems, (uint64_t)codec->block_bytes, &bytes)) return UINT64_MAX;
    return bytes;
}

const struct tms_codec *tms_codec_at(size_t i)
{
    return i < N_CODECS ? &codecs[i] : NULL;
}

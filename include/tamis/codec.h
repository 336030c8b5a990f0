/* Element types: every way in which tamis knows numbers to be stored, in one table.
 *
 * A type packs `block_elems` consecutive values of a row into `block_bytes` bytes. Plain types have blocks of one.
 * Types whose scales lie in tensors of their own (bitsandbytes, FP8 with block scales) are built from these in
 * src/codec/bnb.h and src/model. Encoders and decoders give the same bytes on every machine. */
#ifndef TAMIS_CODEC_H
#define TAMIS_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 0 … 42 are ggml's type ids, as GGUF files store them; the others are safetensors dtypes that ggml lacks. */
enum tms_type {
    TMS_F32 = 0,
    TMS_F16 = 1,
    TMS_Q4_0 = 2,
    TMS_Q4_1 = 3,
    TMS_Q5_0 = 6,
    TMS_Q5_1 = 7,
    TMS_Q8_0 = 8,
    TMS_Q8_1 = 9,
    TMS_Q2_K = 10,
    TMS_Q3_K = 11,
    TMS_Q4_K = 12,
    TMS_Q5_K = 13,
    TMS_Q6_K = 14,
    TMS_Q8_K = 15,
    TMS_IQ2_XXS = 16,
    TMS_IQ2_XS = 17,
    TMS_IQ3_XXS = 18,
    TMS_IQ1_S = 19,
    TMS_IQ4_NL = 20,
    TMS_IQ3_S = 21,
    TMS_IQ2_S = 22,
    TMS_IQ4_XS = 23,
    TMS_I8 = 24,
    TMS_I16 = 25,
    TMS_I32 = 26,
    TMS_I64 = 27,
    TMS_F64 = 28,
    TMS_IQ1_M = 29,
    TMS_BF16 = 30,
    TMS_TQ1_0 = 34,
    TMS_TQ2_0 = 35,
    TMS_MXFP4 = 39,
    TMS_NVFP4 = 40,
    TMS_Q1_0 = 41,
    TMS_Q2_0 = 42,
    TMS_GGML_TYPES = 43, /* ids from here on are not ggml's */

    TMS_BOOL = 100,
    TMS_U8,
    TMS_U16,
    TMS_U32,
    TMS_U64,
    TMS_F8_E4M3,
    TMS_F8_E5M2,
    TMS_F8_E8M0,
    TMS_F8_E4M3FNUZ,
    TMS_F8_E5M2FNUZ,
    TMS_F6_E2M3, /* the sub-byte and complex types are recognised, not decoded */
    TMS_F6_E3M2,
    TMS_F4,
    TMS_C64,
    TMS_TYPE_NONE = 255,
};

struct tms_codec {
    enum tms_type id;
    const char *name; /* lower case, as llama.cpp and safetensors spell it: "q4_K" is "q4_k" here */
    uint32_t block_elems;
    uint32_t block_bytes; /* 0 for sub-byte types without a block layout */
    /* n is a multiple of block_elems; in and out do not overlap; no alignment is assumed of `block`s.
     * NULL where tamis cannot do it (yet). */
    void (*encode)(const float *x, void *blocks, size_t n);
    void (*encode_weighted)(const float *x, const float *weights, void *blocks, size_t n_rows, size_t n_cols);
    void (*decode)(const void *blocks, float *x, size_t n);
};

/* The row of the table, or NULL for an id that is no known type. */
const struct tms_codec *tms_codec(enum tms_type id);
/* By name, any case; NULL if there is none. */
const struct tms_codec *tms_codec_by_name(const char *name);
/* Bytes of n values; n must be a multiple of block_elems. UINT64_MAX on overflow. */
uint64_t tms_codec_bytes(const struct tms_codec *codec, uint64_t n);
/* i = 0 … until NULL: every row, in the order of ids. */
const struct tms_codec *tms_codec_at(size_t i);

#ifdef __cplusplus
}
#endif
#endif

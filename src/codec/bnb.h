/* bitsandbytes' formats: NF4 and FP4 in blocks with a scale (absmax) each, optionally with the scales themselves
 * quantized ("double quantization"), and LLM.int8 rows. Results equal those of bitsandbytes 0.50 on a CPU.
 *
 * Blocks run over the flattened tensor, not per row. Two codes share a byte, the first in the high nibble. */
#ifndef TMS_CODEC_BNB_H
#define TMS_CODEC_BNB_H

#include <stddef.h>
#include <stdint.h>

enum tms_bnb_kind { TMS_BNB_NF4, TMS_BNB_FP4 };

#define TMS_BNB_NESTED_BLOCK 256u /* absmax values per nested_absmax */

/* The value of each code, [16]; and the signed dynamic 8-bit map, [256], ascending. */
extern const float tms_bnb_nf4_map[16];
extern const float tms_bnb_fp4_map[16];
extern const float tms_bnb_dynamic_map[256];
const float *tms_bnb_map(enum tms_bnb_kind kind);

/* True for 32, 64, … 4096. */
_Bool tms_bnb_block_size_ok(uint64_t block_size);

/* n values that begin at a block's start; n may be no multiple of block_size only at the end of the tensor.
 * packed: ceil(n/2) bytes. absmax: ceil(n/block_size) values. The values must be finite. */
void tms_bnb_encode4(enum tms_bnb_kind kind, uint32_t block_size, const float *x, size_t n, uint8_t *packed,
                     float *absmax);
/* x[i] = map[code i] * absmax[i / block_size]; map has 16 values (a checkpoint brings its own). */
void tms_bnb_decode4(const float *map, uint32_t block_size, const uint8_t *packed, const float *absmax, float *x,
                     size_t n);

/* The 8-bit quantizer in blocks of 256: absmax[ceil(n/256)], codes[n]. y begins at a block's start. */
void tms_bnb_encode_dynamic8(const float *y, size_t n, uint8_t *codes, float *absmax);

/* Double quantization of all n absmax values of a tensor: *offset = their mean (f64 sum, rounded once),
 * nested_absmax[ceil(n/256)], codes[n]. Codes are those of the library's native CPU code, given the mean. */
void tms_bnb_encode_absmax(const float *absmax, size_t n, uint8_t *codes, float *nested_absmax, float *offset);
/* absmax[i] = map[codes[i]] * nested_absmax[i / nested_block] + offset */
void tms_bnb_decode_absmax(const float *map, uint32_t nested_block, const uint8_t *codes, const float *nested_absmax,
                           float offset, float *absmax, size_t n);

/* LLM.int8, one row: x is rounded to f16 first; *scb = max |x|; codes = round half even of x * (127 * (1/scb)),
 * zeros for a zero row. Returns the index of the first value that is not finite in f16, or n. */
size_t tms_bnb_encode_int8(const float *x, size_t n, int8_t *codes, float *scb);
/* x = code * scb * (1/127) in the order and with the constant that bitsandbytes uses on a CPU. */
void tms_bnb_decode_int8(const int8_t *codes, float scb, float *x, size_t n);

#endif

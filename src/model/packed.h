/* Weights of folders that bitsandbytes wrote: a tensor of bytes, and tensors of scales beside it.
 *
 *   4 bit   P.weight U8 [n/2, 1]; .absmax, .quant_map, .quant_state (JSON), with double quantization also
 *           .nested_absmax and .nested_quant_map: w = quant_map[code] * absmax[index / blocksize]
 *   8 bit   P.weight I8 [rows, cols], P.SCB F32 [rows]: w = code * SCB[row] / 127
 * (bitsandbytes.functional.QuantState and transformers' quantizers, as in src/target/bnb_target.c.) */
#ifndef TMS_MODEL_PACKED_H
#define TMS_MODEL_PACKED_H

#include "codec/bnb.h"
#include "model/source.h"

struct tms_packed {
    bool eight;             /* 8 bit; else 4 bit */
    enum tms_bnb_kind kind; /* 4 bit: what quant_state calls it */
    uint64_t shape[2];
    size_t absmax;       /* index of the tensor of scales: absmax or SCB */
    uint32_t block_size; /* 4 bit: weights per absmax, over the flattened tensor */
    float map[16];       /* 4 bit: the value of each code */
    bool nested;         /* absmax is quantized itself: codes of nested_map */
    uint32_t nested_block;
    size_t nested_absmax;
    float nested_map[256], nested_offset;
    struct tms_packed_grid *grid; /* GPTQ, AWQ, compressed-tensors (packed_grid.h): then only `shape` counts above */
};

/* Marks the tensors of scales, and gives every weight whose parts are all there its `packed`. Parts that contradict
 * each other are TMS_EINPUT. */
tms_status tms_packed_find(struct tms_source *source, struct tms_error *err);

/* tms_source_read for a tensor with `packed`. */
tms_status tms_packed_read(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first, uint64_t n,
                           void *raw, float *out, struct tms_error *err);

/* Scales [first, first + n) as f32: absmax of blocks, double quantization undone, or SCB of rows. Not for grids. */
tms_status tms_packed_scales(const struct tms_source *source, const struct tms_packed *packed, uint64_t first,
                             uint64_t n, float *scales, struct tms_error *err);

#endif

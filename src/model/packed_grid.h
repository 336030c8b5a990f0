/* Weights of folders for GPTQ, AWQ and compressed-tensors: codes on a grid (codec/grid.h), with scales, zero points and
 * the order of groups in tensors beside them.
 *
 *   GPTQ  P.qweight, .qzeros, .scales, .g_idx                 quant_method gptq (checkpoint_format gptq or gptq_v2)
 *   AWQ   P.qweight, .qzeros, .scales                         quant_method awq, version gemm
 *   CT    P.weight_packed or .weight, .weight_scale, .weight_zero_point, .weight_shape, .weight_g_idx,
 *         .weight_global_scale                                quant_method compressed-tensors
 * The tensor of codes takes the name and the shape of the weight that it stands for ("P.weight", [rows, cols]), so that
 * all who look for weights find them; its type, place and bytes stay those of the file. Widths and groups follow from
 * the tensors' shapes, so that layers with settings of their own are read rightly too. */
#ifndef TMS_MODEL_PACKED_GRID_H
#define TMS_MODEL_PACKED_GRID_H

#include "codec/grid.h"
#include "model/source.h"

enum tms_grid_family { TMS_FAMILY_GPTQ, TMS_FAMILY_AWQ, TMS_FAMILY_CT };

struct tms_packed_grid {
    struct tms_grid grid;
    enum tms_grid_family family;
    bool v1;              /* GPTQ: zero points are stored less one */
    bool zero_bytes;      /* CT: zero points are I8 [rows][groups]; else packed */
    size_t scales, zeros; /* indices of tensors; zeros: TMS_NO_SCALE if there are none */
    float global;         /* NVFP4: scales are divided by it; else 0 */
    bool exponents;       /* scales are U8 powers of two */
    const char *stored_name;
    uint32_t stored_dims;
    uint64_t stored_shape[2];
    char type[64]; /* "gptq:4:g128", "w4a16:g128:asym", … */
};

/* Finds them all, if config.json (or quantize_config.json) says that the folder is such. *renamed: names changed and
 * must be sorted anew. Parts that are missing or contradict each other are TMS_EINPUT. */
tms_status tms_packed_grid_find(struct tms_source *source, bool *renamed, struct tms_error *err);

/* Rows that must be read together. */
uint64_t tms_packed_grid_unit_rows(const struct tms_packed_grid *p);
/* Values of whole rows, as tms_source_read. GPTQ's and AWQ's lie in strips across the whole tensor, which are read one
 * by one: so memory is that of the range, not of the tensor. */
tms_status tms_packed_grid_read(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first,
                                uint64_t n, void *raw, float *out, struct tms_error *err);
/* Codes of the same rows, [n_rows][cols]. */
tms_status tms_packed_grid_codes(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t row,
                                 uint64_t n_rows, void *raw, uint8_t *codes, struct tms_error *err);
/* Scales [scale rows][groups] that belong to rows [row, row + n_rows), and zero points where they are stored (zeros may
 * be NULL). row is a multiple of the unit. */
tms_status tms_packed_grid_scales(const struct tms_source *source, const struct tms_packed_grid *p, uint64_t row,
                                  uint64_t n_rows, float *scales, uint8_t *zeros, struct tms_error *err);

/* The tensor as it is called in the file; NULL if there is none. */
const struct tms_tensor *tms_source_find_stored(const struct tms_source *source, const char *stored_name);

#endif

/* Plain rounding onto a grid: scales and zero points from the least and largest weight of each group, every weight to
 * the nearest code. Each family has its reference's rule, and its arithmetic:
 *   GPTQ   GPTQModel 7.7, f32; the scale is rounded to f16, as it is stored, before codes are chosen
 *   AWQ    AutoAWQ 0.2.9, every operation rounded to f16
 *   CT     compressed-tensors 0.20 with llm-compressor's observers, every operation rounded to the weights' own type */
#ifndef TMS_CODEC_GRID_ROUND_H
#define TMS_CODEC_GRID_ROUND_H

#include <tamis/codec.h>
#include "codec/grid.h"

enum tms_grid_rule { TMS_RULE_GPTQ, TMS_RULE_AWQ, TMS_RULE_CT };

enum tms_grid_scales {
    TMS_SCALES_FLOAT, /* CT: the weights' type; GPTQ, AWQ: f16 */
    TMS_SCALES_NVFP4, /* e4m3, divided by one f32 of the tensor */
    TMS_SCALES_MX,    /* powers of two (e8m0) */
};

struct tms_rounding {
    enum tms_grid_rule rule;
    enum tms_grid_scales scales;
    enum tms_type dtype; /* CT: F32, F16 or BF16 */
    bool symmetric;
    float amax;   /* largest |w| of the tensor, if all of it shares one scale; else 0 */
    float global; /* NVFP4: tms_nvfp4_global of the tensor, or of those that share it */
};

/* x [n_rows][cols] of rows [row, row + n_rows), which begin at a group's first row, to codes [n_rows][cols], and their
 * scales [scale rows][groups] and zeros (of all rows; zeros may be NULL if symmetric). Scales are the values that a
 * reader will use; NVFP4's are the stored ones, not yet divided. x is finite. */
void tms_grid_round(const struct tms_grid *grid, const struct tms_rounding *rounding, const float *x, uint64_t row,
                    uint64_t n_rows, float *scales, uint8_t *zeros, uint8_t *codes);
/* The scale of a tensor that has only one. */
float tms_grid_tensor_scale(const struct tms_grid *grid, const struct tms_rounding *rounding);
/* 2688 / amax in the arithmetic of dtype; 1 if that is not finite. */
float tms_nvfp4_global(float amax, enum tms_type dtype);

#endif

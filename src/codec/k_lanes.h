/* The searches of k_search.h with one block per SIMD lane. Each does as many of the first blocks as fill whole vectors
 * and returns how many; the caller does the rest one by one. */
#ifndef TMS_CODEC_K_LANES_H
#define TMS_CODEC_K_LANES_H

#include "codec/k_search.h"
#include "codec/widths.h"

#if TMS_HAS_LANES
size_t tms_k_affine_lanes(const struct tms_affine_rule *rule, const float *x, const float *importances, size_t n_blocks,
                          float *scales, float *mins, uint8_t *codes);
size_t tms_k_symmetric_lanes(int block, int half, const float *x, const float *importances, size_t n_blocks,
                             float *scales, uint8_t *codes);
size_t tms_k_symmetric_by_moves_lanes(const float *x, size_t n_blocks, float *scales, uint8_t *codes);
size_t tms_k_positive_lanes(int block, int top, const float *x, const float *importances, size_t n_blocks,
                            float *scales, uint8_t *codes);
#else
#define tms_k_affine_lanes(rule, x, importances, n_blocks, scales, mins, codes)     ((size_t)0)
#define tms_k_symmetric_lanes(block, half, x, importances, n_blocks, scales, codes) ((size_t)0)
#define tms_k_symmetric_by_moves_lanes(x, n_blocks, scales, codes)                  ((size_t)0)
#define tms_k_positive_lanes(block, top, x, importances, n_blocks, scales, codes)   ((size_t)0)
#endif

#endif

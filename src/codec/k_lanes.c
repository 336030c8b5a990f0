/* See k_lanes.h. */
#include "codec/k_lanes.h"

#if TMS_HAS_LANES
#include <float.h>
#include <limits.h>

#include "codec/transpose.h"

#if defined(__aarch64__)
#define LANES 4
#define TARGET
#define NAME(symbol) symbol##_4
#include "codec/lanes.h"
#include "codec/k_lanes_body.h"
#include "codec/lanes_end.h"
#else
#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/lanes.h"
#include "codec/k_lanes_body.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/lanes.h"
#include "codec/k_lanes_body.h"
#include "codec/lanes_end.h"
#endif

/* Calls the variant of `search` for as many blocks as fill whole vectors; with `b` in its arguments as the first of
 * them. Leaves in b how many are done. */
#define IN_LANES(search, n_blocks, ...)                                                                                \
    size_t b = 0;                                                                                                      \
    enum tms_cpu level = tms_cpu_level();                                                                              \
    for (size_t lanes; (lanes = tms_lanes(level, (n_blocks)-b)) > 0; b += lanes)                                       \
        TMS_WITH_LANES(lanes, search)(__VA_ARGS__);                                                                    \
    return b

size_t tms_k_affine_lanes(const struct tms_affine_rule *rule, const float *x, const float *importances, size_t n_blocks,
                          float *scales, float *mins, uint8_t *codes)
{
    size_t n = (size_t)rule->block;
    IN_LANES(affine, n_blocks, rule, x + b * n, importances ? importances + b * n : NULL, scales + b, mins + b,
             codes + b * n);
}

size_t tms_k_symmetric_lanes(int block, int half, const float *x, const float *importances, size_t n_blocks,
                             float *scales, uint8_t *codes)
{
    size_t n = (size_t)block;
    IN_LANES(symmetric, n_blocks, block, half, x + b * n, importances ? importances + b * n : NULL, scales + b,
             codes + b * n);
}

size_t tms_k_symmetric_by_moves_lanes(const float *x, size_t n_blocks, float *scales, uint8_t *codes)
{
    size_t b = 0;
    enum tms_cpu level = tms_cpu_level();
    for (size_t lanes; (lanes = tms_lanes(level, n_blocks - b)) > 0; b += lanes)
        if (n_blocks - b >= 4 * lanes) {
            TMS_WITH_LANES(lanes, symmetric_by_moves_of_four)(x + 16 * b, scales + b, codes + 16 * b);
            b += 3 * lanes;
        } else {
            TMS_WITH_LANES(lanes, symmetric_by_moves)(x + 16 * b, scales + b, codes + 16 * b);
        }
    return b;
}

size_t tms_k_positive_lanes(int block, int top, const float *x, const float *importances, size_t n_blocks,
                            float *scales, uint8_t *codes)
{
    size_t n = (size_t)block;
    IN_LANES(positive, n_blocks, block, top, x + b * n, importances + b * n, scales + b, codes + b * n);
}
#endif

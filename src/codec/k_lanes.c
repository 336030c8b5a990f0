/* See k_lanes.h. */
#include "codec/k_lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/k_lanes_body.h"
#undef LANES
#undef TARGET
#undef NAME

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/k_lanes_body.h"
#undef LANES
#undef TARGET
#undef NAME

/* How many blocks, of those that are left, the widest vectors of this machine take at once; 0: too few are left. */
static size_t width(enum tms_cpu level, size_t left)
{
    if (level >= TMS_CPU_AVX512 && left >= 16) return 16;
    return level >= TMS_CPU_AVX2 && left >= 8 ? 8 : 0;
}

size_t tms_k_affine_lanes(const struct tms_affine_rule *rule, const float *x, size_t n_blocks, float *scales,
                          float *mins, uint8_t *codes)
{
    size_t b = 0;
    enum tms_cpu level = tms_cpu_level();
    size_t n = (size_t)rule->block;
    for (size_t lanes; (lanes = width(level, n_blocks - b)) > 0; b += lanes)
        (lanes == 16 ? affine_16 : affine_8)(rule, x + b * n, scales + b, mins + b, codes + b * n);
    return b;
}

size_t tms_k_symmetric_lanes(float half, const float *x, size_t n_blocks, float *scales, uint8_t *codes)
{
    size_t b = 0;
    enum tms_cpu level = tms_cpu_level();
    for (size_t lanes; (lanes = width(level, n_blocks - b)) > 0; b += lanes)
        (lanes == 16 ? symmetric_16 : symmetric_8)(half, x + 16 * b, scales + b, codes + 16 * b);
    return b;
}

size_t tms_k_symmetric_by_moves_lanes(const float *x, size_t n_blocks, float *scales, uint8_t *codes)
{
    size_t b = 0;
    enum tms_cpu level = tms_cpu_level();
    for (size_t lanes; (lanes = width(level, n_blocks - b)) > 0; b += lanes)
        (lanes == 16 ? symmetric_by_moves_16 : symmetric_by_moves_8)(x + 16 * b, scales + b, codes + 16 * b);
    return b;
}
#endif

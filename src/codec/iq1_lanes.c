/* The searches of iq1_search.h with vectors. */
#include "codec/iq1_search.h"
#include "codec/widths.h"

#if TMS_HAS_LANES
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "codec/transpose.h"

#if defined(__aarch64__)
#define LANES 4
#define TARGET
#define NAME(symbol) symbol##_4
#include "codec/lanes.h"
#include "codec/iq1_lanes_body.h"
#include "codec/lanes_end.h"
#else
#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/lanes.h"
#include "codec/iq1_lanes_body.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/lanes.h"
#include "codec/iq1_lanes_body.h"
#include "codec/lanes_end.h"
#endif

size_t tms_iq1_split_lanes(int block, const float *x, const float *w, size_t n_blocks, float *scales, uint8_t *signs,
                           uint16_t *places)
{
    size_t b = 0, n = (size_t)block;
    enum tms_cpu level = tms_cpu_level();
    for (size_t lanes; (lanes = tms_lanes(level, n_blocks - b)) > 0; b += lanes)
        TMS_WITH_LANES(lanes, split_blocks)(block, x + n * b, w + n * b, scales + b, signs + b, places + n / 8 * b);
    return b;
}

tms_iq1_least *tms_iq1_least_lanes(void)
{
    switch (tms_cpu_level()) {
#if defined(__aarch64__)
    case TMS_CPU_NEON: return least_4;
#else
    case TMS_CPU_AVX512: return least_16;
    case TMS_CPU_AVX2: return least_8;
#endif
    default: return NULL;
    }
}
#else
size_t tms_iq1_split_lanes(int block, const float *x, const float *w, size_t n_blocks, float *scales, uint8_t *signs,
                           uint16_t *places)
{
    (void)block, (void)x, (void)w, (void)n_blocks, (void)scales, (void)signs, (void)places;
    return 0;
}

tms_iq1_least *tms_iq1_least_lanes(void)
{
    return NULL;
}
#endif

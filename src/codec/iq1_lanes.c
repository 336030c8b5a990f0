/* The searches of iq1_search.h with vectors. */
#include "codec/iq1_search.h"

#if defined(__x86_64__)
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "codec/transpose.h"

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

size_t tms_iq1_split_lanes(int block, const float *x, const float *w, size_t n_blocks, float *scales, uint8_t *signs,
                           uint16_t *places)
{
    size_t b = 0, n = (size_t)block;
    enum tms_cpu level = tms_cpu_level();
    for (size_t lanes; level >= TMS_CPU_AVX2 && n_blocks - b >= 8; b += lanes) {
        lanes = level >= TMS_CPU_AVX512 && n_blocks - b >= 16 ? 16 : 8;
        (lanes == 16 ? split_blocks_16 : split_blocks_8)(block, x + n * b, w + n * b, scales + b, signs + b,
                                                         places + n / 8 * b);
    }
    return b;
}

tms_iq1_least *tms_iq1_least_lanes(void)
{
    switch (tms_cpu_level()) {
    case TMS_CPU_AVX512: return least_16;
    case TMS_CPU_AVX2: return least_8;
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

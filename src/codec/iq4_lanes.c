/* The search of iq4_search.h with one block in each lane. */
#include "codec/iq4_search.h"
#include "codec/widths.h"

#if TMS_HAS_LANES
#include <stdbool.h>
#include <string.h>

#include "codec/transpose.h"

#if defined(__aarch64__)
#define LANES 4
#define TARGET
#define NAME(symbol) symbol##_4
#include "codec/lanes.h"
#include "codec/iq4_lanes_body.h"
#include "codec/lanes_end.h"
#else
#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/lanes.h"
#include "codec/iq4_lanes_body.h"
#include "codec/lanes_end.h"

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/lanes.h"
#include "codec/iq4_lanes_body.h"
#include "codec/lanes_end.h"
#endif

size_t tms_iq4_scales_lanes(const float *x, const float *importance, const float *sigma2, size_t n_blocks,
                            float *scales)
{
    size_t b = 0;
    enum tms_cpu level = tms_cpu_level();
    for (size_t lanes; (lanes = tms_lanes(level, n_blocks - b)) > 0; b += lanes) {
        const float *w = importance ? importance + 32 * b : NULL;
        TMS_WITH_LANES(lanes, scales)(x + 32 * b, w, sigma2 ? sigma2 + b : NULL, scales + b);
    }
    return b;
}
#else
size_t tms_iq4_scales_lanes(const float *x, const float *importance, const float *sigma2, size_t n_blocks,
                            float *scales)
{
    (void)x, (void)importance, (void)sigma2, (void)n_blocks, (void)scales;
    return 0;
}
#endif

/* See iq_lanes.h and, for the steps, iq_search.c.
 *
 * One block at a time. Where a sum must run in order over the weights, the lanes are candidate scales; where a point is
 * chosen, they are the points to choose from. Three things make the choice cheap:
 *
 * - A coordinate of a point has 3 or 8 levels, so the terms w * (scale * q - x)² of a group are a small table. The
 *   distance of a point is the sum of one term per coordinate, taken from the table by a permutation.
 * - Neighbouring candidates mostly round a group to the same levels: a run of candidates with the same list of points.
 * - Within a run, the first and the last candidate decide for those between. The distances of two points a and b differ
 *   by D(s) = s² A - 2 s B, with A and B sums over w q² and w q x; D(s) / s is linear in s. So a point that is nearer
 *   than all others for both ends of the run is it between them, too.
 *
 * For rounding, it must be nearer by a margin. With u = 2^-24 and m = s q + |x|, a distance is computed with an error
 * of at most
 *     E = (6 u for the terms + 7 u for seven additions) sum(w m²) (1 + small) < 13.1 u sum(w m²);
 * the least scale of a run is at least 2/3 of the largest, and (margin - 2 E) * 2/3 > 2 E holds from margin = 6 E on.
 * The margin taken is 1e-5 sum(w m²), for the largest m: 12 E. Blocks where numbers might underflow or overflow, and
 * runs where the margin is not kept, are searched candidate by candidate. */
#include "codec/iq_lanes.h"

#if TMS_HAS_LANES
#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "codec/transpose.h"

/* Candidates that may be searched, and room for two vectors more. */
enum { MAX_CANDIDATES = 32, ROW = MAX_CANDIDATES + 32 };

#if defined(__aarch64__)
#define LANES 4
#define TARGET
#define NAME(symbol) symbol##_4
#include "codec/iq_lanes_body.h"
#undef LANES
#undef TARGET
#undef NAME
#else
#define LANES        8
#define TARGET       TMS_TARGET_AVX2
#define NAME(symbol) symbol##_8
#include "codec/iq_lanes_body.h"
#undef LANES
#undef TARGET
#undef NAME

#define LANES        16
#define TARGET       TMS_TARGET_AVX512
#define NAME(symbol) symbol##_16
#include "codec/iq_lanes_body.h"
#undef LANES
#undef TARGET
#undef NAME
#endif

tms_iq_block_search *tms_iq_block_search_by_lanes(void)
{
    switch (tms_cpu_level()) {
#if defined(__aarch64__)
    case TMS_CPU_NEON: return search_block_4;
#else
    case TMS_CPU_AVX512: return search_block_16;
    case TMS_CPU_AVX2: return search_block_8;
#endif
    default: return NULL;
    }
}
#endif

/* The widths that lanes.h is included for on this kind of machine, and which of them to use. */
#ifndef TMS_CODEC_WIDTHS_H
#define TMS_CODEC_WIDTHS_H

#include <stddef.h>

#include "base/cpu.h"

#if defined(__x86_64__)
#define TMS_HAS_LANES 1

/* How many blocks, of those that are left, the widest vectors of this machine take at once; 0: too few are left. */
TMS_INLINE size_t tms_lanes(enum tms_cpu level, size_t left)
{
    if (level >= TMS_CPU_AVX512 && left >= 16) return 16;
    return level >= TMS_CPU_AVX2 && left >= 8 ? 8 : 0;
}

/* The variant of a function for so many lanes. */
#define TMS_WITH_LANES(lanes, symbol) ((lanes) == 16 ? symbol##_16 : symbol##_8)

#elif defined(__aarch64__)
#define TMS_HAS_LANES 1

TMS_INLINE size_t tms_lanes(enum tms_cpu level, size_t left)
{
    return level >= TMS_CPU_NEON && left >= 4 ? 4 : 0;
}

#define TMS_WITH_LANES(lanes, symbol) ((void)(lanes), symbol##_4)

#else
#define TMS_HAS_LANES 0
#endif

#endif

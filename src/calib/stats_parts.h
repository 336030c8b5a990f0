/* What the tensors of a file of statistics are (stats.h), for those who write and who read them. */
#ifndef TMS_CALIB_STATS_PARTS_H
#define TMS_CALIB_STATS_PARTS_H

#include "calib/stats.h"

enum tms_stats_kind { COUNT, SQUARES, MAGNITUDES, LOWS, HIGHS, DEAD, DAMP, HISTOGRAM, REACH, HESSIAN, KINDS };

struct tms_stats_kind_row {
    const char *ending;
    enum tms_type type;
    uint32_t n_dims;
};
extern const struct tms_stats_kind_row tms_stats_kinds[KINDS];

enum { STRIP = 1 << 18 }; /* numbers of a triangle that are written or read at once, or a row */
/* Rows first … of a triangle that make up a strip: its end. */
size_t tms_stats_strip(size_t first, size_t n);

#endif

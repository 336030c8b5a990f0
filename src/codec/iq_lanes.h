/* The search of iq_search.h with vectors of 8 or 16 floats; equal results. */
#ifndef TMS_CODEC_IQ_LANES_H
#define TMS_CODEC_IQ_LANES_H

#include "codec/iq_search.h"
#include "codec/widths.h"

#if TMS_HAS_LANES
/* The search for the vectors that this machine has; NULL if it has none. */
tms_iq_block_search *tms_iq_block_search_by_lanes(void);
#else
#define tms_iq_block_search_by_lanes() ((tms_iq_block_search *)NULL)
#endif

#endif

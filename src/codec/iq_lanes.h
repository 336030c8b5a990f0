/* The search of iq_search.h with vectors of 8 or 16 floats; equal results. */
#ifndef TMS_CODEC_IQ_LANES_H
#define TMS_CODEC_IQ_LANES_H

#include "codec/iq_search.h"

#if defined(__x86_64__)
/* The search for the vectors that this machine has; NULL if it has none. */
tms_iq_block_search *tms_iq_block_search_by_lanes(void);
#else /* no machine but x86-64 has vectors here yet */
#define tms_iq_block_search_by_lanes() ((tms_iq_block_search *)NULL)
#endif

#endif

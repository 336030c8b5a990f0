/* Codes by HQQ (method/hqq.h), without a text, for grids with zero points: Q4_1 and Q5_1, whose minimum is any number,
 * and the asymmetric integers of folders, whose zero points are integers: of the two on either side of HQQ's that one
 * whose errors are the sparser by HQQ's own measure. Codes are then the nearest for scales as they are stored. */
#ifndef TMS_TARGET_HQQ_CODES_H
#define TMS_TARGET_HQQ_CODES_H

#include "base/threads.h"
#include "target/target.h"

/* Makes the files WORK/codes-NNNNNN of all routes that it is for, and sets `made` of them. TMS_EUSAGE if there are
 * none. */
tms_status tms_hqq_codes_make(struct tms_target *t, const char *work, struct tms_pool *pool,
                              const struct tms_quantize_options *options, struct tms_error *err);

#endif

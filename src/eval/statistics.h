/* Means, errors and percentiles of what was scored. */
#ifndef TMS_EVAL_STATISTICS_H
#define TMS_EVAL_STATISTICS_H

#include <tamis/tamis.h>

#include "base/error.h"
#include "eval/softmax.h"

/* Sums of the first positions, for figures while the work goes on. */
struct tms_running {
    size_t n;
    double nll, kl;
};
void tms_running_add(struct tms_running *running, const struct tms_position *positions, size_t n);

/* Fills in the figures of `result` (perplexities and what comes behind them) from n > 0 positions. Sums go in order,
 * so the result does not depend on how positions were computed. */
tms_status tms_eval_summarize(const struct tms_position *positions, size_t n, bool has_base,
                              struct tms_eval_result *result, struct tms_error *err);

/* Share of n that `hits` is: value and sqrt(p (1 - p) / (n - 1)). */
struct tms_estimate tms_share(size_t hits, size_t n);

#endif

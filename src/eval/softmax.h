/* What a row of logits says: log-probabilities and the divergence of two rows.
 *
 * Logits are f32, everything behind them is double: with m the largest logit and S = sum exp(x - m),
 *     -log p(t) = m + log S - x[t]
 *     KL(base || model) = sum p_b (log p_b - log p_m) = C / S_b - log S_b + log S_m,
 *                         C = sum exp(b - m_b) ((b - m_b) - (x - m_m))
 * so that equal rows diverge by exactly 0. Sums run in 8 lanes that are added in one order, exp and log are our own:
 * the same bits on every machine. */
#ifndef TMS_EVAL_SOFTMAX_H
#define TMS_EVAL_SOFTMAX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is kept of one predicted token. */
struct tms_position {
    double nll;      /* -log of the probability of the token that came */
    double nll_base; /* the same of the base model; this and the others are 0 without one */
    double kl;       /* KL(base || model) over the vocabulary */
    bool same_top;   /* both find the same token most probable (of equal ones the first) */
};

/* x, base [n_vocab]; base may be NULL. Returns false if a logit is NaN or infinite: *bad is then its index, and
 * *of_base tells which row. */
bool tms_score_row(const float *x, const float *base, size_t n_vocab, int32_t token, struct tms_position *out,
                   size_t *bad, bool *of_base);

/* exp for x <= 0 (below -700 as -700), log for positive normal numbers; within 2 units of the last place. */
double tms_exp_negative(double x);
double tms_log_positive(double x);

#endif

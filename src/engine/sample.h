/* From logits to the next token.
 *
 * The order is that of llama.cpp's default chain: repetition penalty, top-k, top-p, min-p, temperature, draw. Top-k,
 * top-p and min-p each keep the first so many of one order (larger logits first, equal ones by lower id), so that the
 * shortest of the three counts, and no more of the vocabulary is sorted than is kept or walked through.
 *
 * The draw is SplitMix64 (Steele, Lea, Flood 2014): state += 0x9e3779b97f4a7c15, its mix z, u = (z >> 11) / 2^53; the
 * first candidate, in the order above, whose cumulated probability is larger than u. exp is our own: the same logits,
 * options and seed give the same token on every machine. */
#ifndef TMS_ENGINE_SAMPLE_H
#define TMS_ENGINE_SAMPLE_H

#include <tamis/tamis.h>

#include "base/error.h"

struct tms_sampler;

/* TMS_EUSAGE for values that make no sense. */
tms_status tms_sampler_create(struct tms_sampler **out, const struct tms_sampling *sampling, size_t n_vocab,
                              struct tms_error *err);
void tms_sampler_free(struct tms_sampler *s); /* NULL is allowed */

/* Tells a token of the text, prompt included: the last repeat_last_n of them are penalized. */
void tms_sampler_accept(struct tms_sampler *s, int32_t id);
/* The next token after logits [n_vocab]. TMS_EINPUT if one of them is NaN or +infinite, or all are -infinite. The
 * choice is not accepted yet. */
tms_status tms_sampler_pick(struct tms_sampler *s, const float *logits, int32_t *out, struct tms_error *err);

struct tms_candidate {
    int32_t id;
    float logit;        /* after the penalty */
    double probability; /* at the temperature, over those that are kept */
};
/* What a pick would draw from, most probable first (n of them; at temperature 0 the one). Borrowed until the next call.
 * Nothing is drawn. */
tms_status tms_sampler_candidates(struct tms_sampler *s, const float *logits, const struct tms_candidate **out,
                                  size_t *n, struct tms_error *err);

#endif

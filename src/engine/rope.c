/* See rope.h. */
#include "engine/rope.h"

#include <math.h>

/* YaRN (Peng et al. 2023), as transformers has it: frequencies that turn often enough within the original context stay,
 * slow ones are divided by the factor, with a linear ramp between. */
static void yarn(const struct tms_config *c, float *frequencies, float *factor)
{
    const struct tms_rope *rope = &c->rope;
    double d = (double)c->head_dim, context = (double)(rope->original_context ? rope->original_context : c->context);
    double fast = rope->beta_fast > 0 ? rope->beta_fast : 32, slow = rope->beta_slow > 0 ? rope->beta_slow : 1;
    double low = floor(d * log(context / (fast * 2 * M_PI)) / (2 * log(rope->theta)));
    double high = ceil(d * log(context / (slow * 2 * M_PI)) / (2 * log(rope->theta)));
    low = low > 0 ? low : 0;
    high = high < d - 1 ? high : d - 1;
    if (low == high) high += 0.001;
    for (uint64_t i = 0; i < c->head_dim / 2; i++) {
        float ramp = (float)(((double)i - low) / (high - low));
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float kept = 1 - ramp, stretched = frequencies[i] / (float)rope->factor;
        frequencies[i] = stretched * (1 - kept) + frequencies[i] * kept;
    }
    *factor = rope->attention_factor > 0 ? (float)rope->attention_factor
              : rope->factor > 1         ? (float)(0.1 * log(rope->factor) + 1)
                                         : 1.0f;
}

tms_status tms_rope_frequencies(const struct tms_config *config, const float *divisors, uint64_t n_positions,
                                float *frequencies, float *factor, struct tms_error *err)
{
    const struct tms_rope *rope = &config->rope;
    uint64_t half = config->head_dim / 2;
    double theta = rope->theta;
    *factor = 1;
    if (rope->kind == TMS_ROPE_OTHER)
        return tms_fail(err, TMS_EINPUT,
                        "rope scaling '%s' is not supported; supported are linear, dynamic, yarn and "
                        "llama3",
                        rope->name);
    if (rope->kind == TMS_ROPE_DYNAMIC && n_positions > config->context && config->head_dim > 2) {
        double s = rope->factor > 0 ? rope->factor : 1, d = (double)config->head_dim;
        theta *= pow(s * (double)n_positions / (double)config->context - (s - 1), d / (d - 2));
    }
    for (uint64_t i = 0; i < half; i++)
        frequencies[i] = 1.0f / (float)pow(theta, (double)((float)(2 * i) / (float)config->head_dim));
    switch (rope->kind) {
    case TMS_ROPE_LINEAR:
        for (uint64_t i = 0; i < half; i++) frequencies[i] /= (float)rope->factor;
        break;
    case TMS_ROPE_YARN: yarn(config, frequencies, factor); break;
    default: break;
    }
    for (uint64_t i = 0; divisors && i < half; i++) frequencies[i] /= divisors[i];
    return TMS_OK;
}

void tms_rope_angles(const float *frequencies, size_t half, float factor, size_t start, size_t n, float *cosines,
                     float *sines)
{
    for (size_t p = 0; p < n; p++)
        for (size_t i = 0; i < half; i++) {
            float angle = (float)(start + p) * frequencies[i];
            cosines[p * half + i] = (float)cos((double)angle) * factor;
            sines[p * half + i] = (float)sin((double)angle) * factor;
        }
}

void tms_rope_turn(float *head, size_t half, enum tms_rope_pairs pairs, const float *cosines, const float *sines)
{
    size_t step = pairs == TMS_ROPE_HALVES ? 1 : 2, partner = pairs == TMS_ROPE_HALVES ? half : 1;
    for (size_t i = 0; i < half; i++) {
        float a = head[i * step], b = head[i * step + partner];
        head[i * step] = a * cosines[i] - b * sines[i];
        head[i * step + partner] = b * cosines[i] + a * sines[i];
    }
}

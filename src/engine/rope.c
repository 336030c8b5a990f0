/* See rope.h. */
#include "engine/rope.h"

#include <math.h>

/* YaRN (Peng et al. 2023), as transformers has it: frequencies that turn often enough within the original context stay,
 * slow ones are divided by the factor, with a linear ramp between. */
static double yarn_scale(double factor, double mscale)
{
    return factor > 1 ? 0.1 * mscale * log(factor) + 1 : 1;
}

static void yarn(const struct tms_config *c, float *frequencies, float *factor)
{
    const struct tms_rope *rope = &c->rope;
    double d = (double)tms_config_rope_dim(c);
    double context = (double)(rope->original_context ? rope->original_context : c->context);
    double fast = rope->beta_fast > 0 ? rope->beta_fast : 32, slow = rope->beta_slow > 0 ? rope->beta_slow : 1;
    double low = floor(d * log(context / (fast * 2 * M_PI)) / (2 * log(rope->theta)));
    double high = ceil(d * log(context / (slow * 2 * M_PI)) / (2 * log(rope->theta)));
    low = low > 0 ? low : 0;
    high = high < d - 1 ? high : d - 1;
    if (low == high) high += 0.001;
    for (uint64_t i = 0; i < tms_config_rope_dim(c) / 2; i++) {
        float ramp = (float)(((double)i - low) / (high - low));
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float kept = 1 - ramp, stretched = frequencies[i] / (float)rope->factor;
        frequencies[i] = stretched * (1 - kept) + frequencies[i] * kept;
    }
    if (rope->attention_factor > 0)
        *factor = (float)rope->attention_factor;
    else if (rope->mscale > 0 && rope->mscale_all_dim > 0)
        *factor = (float)(yarn_scale(rope->factor, rope->mscale) / yarn_scale(rope->factor, rope->mscale_all_dim));
    else
        *factor = (float)yarn_scale(rope->factor, 1);
}

double tms_rope_score_factor(const struct tms_config *config)
{
    const struct tms_rope *rope = &config->rope;
    if (!config->latent.kv_rank || rope->kind != TMS_ROPE_YARN || rope->mscale_all_dim <= 0) return 1;
    double m = yarn_scale(rope->factor, rope->mscale_all_dim);
    return m * m;
}

/* Phi-3's longrope (Ding et al. 2024): divisors of one kind up to the original context, of another beyond it. */
static tms_status longrope(const struct tms_config *c, uint64_t n_positions, float *frequencies, float *factor,
                           struct tms_error *err)
{
    const struct tms_rope *rope = &c->rope;
    uint64_t half = tms_config_rope_dim(c) / 2, original = rope->original_context ? rope->original_context : c->context;
    if (rope->n_factors != half)
        return tms_fail(err, TMS_EINPUT, "longrope has %llu factors, heads have %llu pairs",
                        (unsigned long long)rope->n_factors, (unsigned long long)half);
    const float *divisors = n_positions > original ? rope->long_factors : rope->short_factors;
    for (uint64_t i = 0; i < half; i++) frequencies[i] /= divisors[i];
    double s = (double)c->context / (double)original;
    if (rope->attention_factor > 0)
        *factor = (float)rope->attention_factor;
    else if (s > 1)
        *factor = (float)sqrt(1 + log(s) / log((double)original));
    return TMS_OK;
}

tms_status tms_rope_frequencies(const struct tms_config *config, bool local, const float *divisors,
                                uint64_t n_positions, float *frequencies, float *factor, struct tms_error *err)
{
    const struct tms_rope *rope = &config->rope;
    uint64_t dim = tms_config_rope_dim(config), half = dim / 2;
    double theta = local ? rope->local_theta : rope->theta;
    *factor = 1;
    if (rope->kind == TMS_ROPE_OTHER)
        return tms_fail(err, TMS_EINPUT,
                        "rope scaling '%s' is not supported; supported are linear, dynamic, yarn, llama3 and longrope",
                        rope->name);
    if (rope->kind == TMS_ROPE_DYNAMIC && n_positions > config->context && dim > 2 && !local) {
        double s = rope->factor > 0 ? rope->factor : 1, d = (double)dim;
        theta *= pow(s * (double)n_positions / (double)config->context - (s - 1), d / (d - 2));
    }
    for (uint64_t i = 0; i < half; i++)
        frequencies[i] = 1.0f / (float)pow(theta, (double)((float)(2 * i) / (float)dim));
    if (local) return TMS_OK;
    for (uint64_t i = 0; rope->kind == TMS_ROPE_LINEAR && i < half; i++) frequencies[i] /= (float)rope->factor;
    if (rope->kind == TMS_ROPE_YARN) yarn(config, frequencies, factor);
    for (uint64_t i = 0; divisors && i < half; i++) frequencies[i] /= divisors[i];
    if (rope->kind == TMS_ROPE_LONGROPE) return longrope(config, n_positions, frequencies, factor, err);
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

/* The parameters of Llama 3's rope scaling, found from the table of divisors that a GGUF file has in their place. See
 * restore.h. */
#include <math.h>
#include <stdlib.h>

#include "model/metadata.h"
#include "model/restore.h"

#define MAX_DIM (1u << 28) /* as config.c */

/* Largest relative difference between `table` and the table that the parameters give; infinite if they give none. */
static double distance(const struct tms_config *config, const float *table, uint64_t n, float *scratch)
{
    double worst = 0;
    if (!tms_rope_freqs(config, scratch)) return INFINITY;
    for (uint64_t i = 0; i < n; i++) {
        double d = fabs((double)scratch[i] / (double)table[i] - 1);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

struct band {
    uint64_t first, last; /* of the values between 1 and the factor; first > last if there are none */
    double factor;
};

static double wavelength(const struct tms_config *config, uint64_t i)
{
    return 2 * M_PI * pow(config->rope.theta, (double)(2 * i) / (double)config->head_dim);
}

/* s in 1 / ((1 - s) / factor + s) */
static double smoothness(const struct band *band, float value)
{
    return (1 / (double)value - 1 / band->factor) / (1 - 1 / band->factor);
}

/* The contexts that could have given the table, given low = 1 and high: a few around the estimate. */
static size_t contexts(const struct tms_config *config, const struct band *band, const float *table, double high,
                       uint64_t out[32])
{
    size_t count = 0;
    if (band->first <= band->last) {
        uint64_t i = band->first + (band->last - band->first) / 2;
        double estimate = (smoothness(band, table[i]) * (high - 1) + 1) * wavelength(config, i);
        if (!(estimate > 1 && estimate < MAX_DIM)) return 0;
        out[count++] = (uint64_t)llround(estimate);
        out[count++] = out[0] + 1;
        if (out[0] > 1) out[count++] = out[0] - 1;
        return count;
    }
    out[count++] = 8192; /* Llama 3's own; then any that gives the same table does */
    for (unsigned bit = 0; bit < 28; bit++) out[count++] = UINT64_C(1) << bit;
    return count;
}

/* Two values between 1 and the factor give s = ctx / (high - low) / wavelength - low / (high - low) as a line. */
static double solve_high(const struct tms_config *config, const struct band *band, const float *table)
{
    double x1 = 1 / wavelength(config, band->first), x2 = 1 / wavelength(config, band->last);
    double s1 = smoothness(band, table[band->first]), s2 = smoothness(band, table[band->last]);
    double slope = (s1 - s2) / (x1 - x2), high = 1 + 1 / (slope * x1 - s1);
    return isfinite(high) && high > 1 && high < 1e6 ? round(high * 100) / 100 : 4;
}

/* Only low / high and ctx / high can be told from a table; low is 1, as in all published models. Last bits may differ
 * (pow of another library), the numbers are still the right ones: the next context is 1e-5 away. */
bool tms_restore_llama3(struct tms_config *config, const float *table, uint64_t n, float *scratch)
{
    struct band band = {.first = 0};
    uint64_t candidates[32];
    double best = 1e-6;
    bool found = false;
    if (n == 0 || n != config->head_dim / 2) return false;
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(table[i]) || table[i] <= 0) return false;
    band.factor = tms_shortest(table[n - 1]);
    while (band.first < n && table[band.first] == 1) band.first++;
    if (band.first == n) return true; /* all 1: no scaling */
    uint64_t end = n;                 /* behind the band */
    while (end > band.first && table[end - 1] == table[n - 1]) end--;
    struct tms_config guess = *config, right = *config;
    bool empty = end == band.first;
    band.last = empty ? 0 : end - 1;
    if (empty) band.first = 1;
    const double highs[2] = {4, band.first < band.last ? solve_high(config, &band, table) : 4};
    for (size_t h = 0; h < 2; h++) {
        size_t n_candidates = contexts(config, &band, table, highs[h], candidates);
        for (size_t c = 0; c < n_candidates; c++) {
            guess.rope.kind = TMS_ROPE_LLAMA3;
            guess.rope.factor = band.factor;
            guess.rope.low_freq_factor = 1;
            guess.rope.high_freq_factor = highs[h];
            guess.rope.original_context = candidates[c];
            double d = distance(&guess, table, n, scratch);
            if (d < best || (d == best && !found)) {
                best = d;
                right = guess;
                found = true;
            }
        }
    }
    if (found) *config = right;
    return found;
}

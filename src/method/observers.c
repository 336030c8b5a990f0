/* See observers.h. */
#include "method/observers.h"

#include <math.h>
#include <string.h>

#include "base/numbers.h"
#include "eval/softmax.h"
#include "method/affine.h"

enum { BINS = TMS_HISTOGRAM_BINS, HALF = BINS / 2 };

static float smaller(float a, float b)
{
    return a < b ? a : b;
}

static float larger(float a, float b)
{
    return a > b ? a : b;
}

/* ---- ranges ---- */

static void find_range(const float *x, size_t n, float *low, float *high)
{
    *low = *high = x[0];
    for (size_t i = 1; i < n; i++) {
        *low = smaller(x[i], *low);
        *high = larger(x[i], *high);
    }
}

bool tms_range_add(struct tms_range *range, const float *x, size_t n)
{
    if (tms_first_nonfinite(x, n) < n) return false;
    if (n == 0) return true;
    struct tms_range batch = {.n = n};
    find_range(x, n, &batch.low, &batch.high);
    tms_range_merge(range, &batch);
    return true;
}

void tms_range_merge(struct tms_range *range, const struct tms_range *other)
{
    if (other->n == 0) return;
    range->low = range->n > 0 ? smaller(range->low, other->low) : other->low;
    range->high = range->n > 0 ? larger(range->high, other->high) : other->high;
    range->n += other->n;
}

bool tms_range_average(struct tms_range *range, const float *x, size_t n, float share)
{
    if (tms_first_nonfinite(x, n) < n) return false;
    if (n == 0) return true;
    float low, high;
    find_range(x, n, &low, &high);
    range->low = range->n > 0 ? (1 - share) * range->low + share * low : low;
    range->high = range->n > 0 ? (1 - share) * range->high + share * high : high;
    range->n += n;
    return true;
}

/* ---- histogram ---- */

/* Pairs of bins become one: old bin i lies in new bin HALF / 2 + i / 2. */
static void double_reach(struct tms_histogram *histogram)
{
    uint64_t counts[BINS] = {0};
    for (size_t i = 0; i < BINS; i++) counts[HALF / 2 + i / 2] += histogram->counts[i];
    memcpy(histogram->counts, counts, sizeof counts);
    histogram->reach *= 2;
}

/* To a power of two above magnitude, or more. */
static void extend(struct tms_histogram *histogram, double magnitude)
{
    int exponent;
    frexp(magnitude > 0x1p-100 ? magnitude : 0x1p-100, &exponent);
    const double reach = ldexp(1, exponent);
    if (histogram->reach == 0) histogram->reach = reach;
    while (histogram->reach < reach) double_reach(histogram);
}

bool tms_histogram_add(struct tms_histogram *histogram, const float *x, size_t n)
{
    struct tms_range batch = {0};
    if (!tms_range_add(&batch, x, n)) return false;
    if (n == 0) return true;
    extend(histogram, (double)larger(-batch.low, batch.high));
    const double per_unit = HALF / histogram->reach; /* exact, as are the products: reach is a power of two */
    for (size_t i = 0; i < n; i++) histogram->counts[HALF + (int)floor((double)x[i] * per_unit)]++;
    tms_range_merge(&histogram->range, &batch);
    return true;
}

void tms_histogram_merge(struct tms_histogram *histogram, const struct tms_histogram *other)
{
    if (other->range.n == 0) return;
    struct tms_histogram copy = *other;
    if (histogram->reach == 0) histogram->reach = copy.reach;
    while (histogram->reach < copy.reach) double_reach(histogram);
    while (copy.reach < histogram->reach) double_reach(&copy);
    for (size_t i = 0; i < BINS; i++) histogram->counts[i] += copy.counts[i];
    tms_range_merge(&histogram->range, &copy.range);
}

/* Counts of |x| in HALF bins of width reach / HALF; returns the number up to the last that is not empty. */
static size_t magnitudes(const struct tms_histogram *histogram, uint64_t counts[HALF])
{
    size_t n = 0;
    for (size_t i = 0; i < HALF; i++) {
        counts[i] = histogram->counts[HALF + i] + histogram->counts[HALF - 1 - i];
        if (counts[i] > 0) n = i + 1;
    }
    return n;
}

static float largest_of(const struct tms_range *range)
{
    return larger(-range->low, range->high);
}

float tms_histogram_percentile(const struct tms_histogram *histogram, double share)
{
    uint64_t counts[HALF], below = 0;
    const size_t n = magnitudes(histogram, counts);
    for (size_t i = 0; i < n; i++) {
        below += counts[i];
        if ((double)below >= share * (double)histogram->range.n)
            return smaller((float)((double)(i + 1) * histogram->reach / HALF), largest_of(&histogram->range));
    }
    return largest_of(&histogram->range);
}

/* Divergence of the first n bins from themselves merged to `levels`. */
static double divergence(const uint64_t counts[HALF], size_t n, uint64_t beyond, size_t levels)
{
    double total = (double)beyond, kept = 0, sum = 0;
    for (size_t i = 0; i < n; i++) kept += (double)counts[i];
    total += kept;
    if (kept == 0) return HUGE_VAL;
    for (size_t k = 0; k < levels; k++) {
        const size_t first = k * n / levels, end = (k + 1) * n / levels;
        double mass = 0, occupied = 0;
        for (size_t i = first; i < end; i++) {
            mass += (double)counts[i];
            occupied += counts[i] > 0;
        }
        for (size_t i = first; i < end; i++) {
            const double p = ((double)counts[i] + (i + 1 == n ? (double)beyond : 0)) / total;
            const double q = counts[i] > 0 ? mass / occupied / kept : 1e-4;
            if (p > 0) sum += p * (tms_log_positive(p) - tms_log_positive(q));
        }
    }
    return sum;
}

float tms_histogram_entropy(const struct tms_histogram *histogram, size_t levels)
{
    uint64_t counts[HALF], beyond = 0;
    const size_t n = magnitudes(histogram, counts);
    if (n <= levels || levels == 0) return largest_of(&histogram->range);
    double best = HUGE_VAL;
    size_t chosen = n;
    for (size_t i = n; i >= levels; i--) {
        const double found = divergence(counts, i, beyond, levels);
        if (found <= best) best = found, chosen = i; /* of equals the smallest */
        beyond += counts[i - 1];
    }
    return smaller((float)((double)chosen * histogram->reach / HALF), largest_of(&histogram->range));
}

/* Integral of (x - value)² from a to b. */
static double squares(double a, double b, double value)
{
    const double from = a - value, to = b - value;
    return (to * to * to - from * from * from) / 3;
}

/* Error of values that lie evenly in [a, b], rounded to low + k * step, k = 0 … top. */
static double error_in_bin(double a, double b, double low, double step, double top)
{
    double sum = 0;
    for (double at = a; at < b;) {
        double k = floor((at - low) / step + 0.5);
        k = k < 0 ? 0 : k > top ? top : k;
        double next = k < top ? low + (k + 0.5) * step : b;
        if (next > b || next <= at) next = b;
        sum += squares(at, next, low + k * step);
        at = next;
    }
    return sum / (b - a);
}

static double error_of(const struct tms_histogram *histogram, double low, double high, double top)
{
    const double width = histogram->reach / HALF, step = (high - low) / top;
    double sum = 0;
    for (int i = 0; i < BINS; i++)
        if (histogram->counts[i] > 0)
            sum +=
                (double)histogram->counts[i] * error_in_bin((i - HALF) * width, (i + 1 - HALF) * width, low, step, top);
    return sum;
}

static struct tms_range least_squares_symmetric(const struct tms_histogram *histogram, double top)
{
    uint64_t counts[HALF];
    const size_t n = magnitudes(histogram, counts);
    const double largest = (double)largest_of(&histogram->range);
    double best = HUGE_VAL, chosen = largest;
    /* At most 256 thresholds, from a 32nd of the range on. */
    const size_t step = (n + 255) / 256;
    for (size_t i = n; i > n / 32; i = i > step ? i - step : 0) {
        double threshold = (double)i * histogram->reach / HALF;
        if (threshold > largest) threshold = largest;
        const double error = error_of(histogram, -threshold, threshold, top - 1);
        if (error < best) best = error, chosen = threshold;
    }
    return (struct tms_range){(float)-chosen, (float)chosen, histogram->range.n};
}

struct tms_range tms_histogram_least_squares(const struct tms_histogram *histogram, unsigned bits, bool symmetric)
{
    const double top = (double)((1u << bits) - 1), width = histogram->reach / HALF;
    struct tms_range found = histogram->range;
    if (found.n == 0 || (found.low == 0 && found.high == 0)) return found;
    if (symmetric) return least_squares_symmetric(histogram, top);
    int first = 0, end = BINS;
    while (histogram->counts[first] == 0) first++;
    while (histogram->counts[end - 1] == 0) end--;
    /* 0 is always a value of the grid's range. */
    if (first > HALF) first = HALF;
    if (end < HALF) end = HALF;
    double best = HUGE_VAL;
    const int least = (end - first) / 4, step = (end - first + 255) / 256;
    while (end - first > least && end - first >= 1) {
        const double low = larger((float)((first - HALF) * width), smaller(histogram->range.low, 0));
        const double high = smaller((float)((end - HALF) * width), larger(histogram->range.high, 0));
        const double error = high > low ? error_of(histogram, low, high, top) : HUGE_VAL;
        if (error < best) best = error, found.low = (float)low, found.high = (float)high;
        uint64_t left = 0, right = 0;
        for (int i = 0; i < step; i++) {
            if (first + i < HALF) left += histogram->counts[first + i];
            if (end - 1 - i >= HALF) right += histogram->counts[end - 1 - i];
        }
        const bool can_left = first + step <= HALF, can_right = end - step >= HALF;
        if (!can_left && !can_right) break;
        if (can_left && (left <= right || !can_right))
            first += step;
        else
            end -= step;
    }
    return found;
}

/* ---- grids ---- */

struct tms_int_grid tms_int_grid(float low, float high, unsigned bits, bool symmetric)
{
    struct tms_int_grid grid = {.least = -(1 << (bits - 1)), .most = (1 << (bits - 1)) - 1};
    const float codes = (float)((1u << bits) - 1);
    low = smaller(low, 0), high = larger(high, 0);
    grid.scale = symmetric ? larger(-low, high) / (codes / 2) : (high - low) / codes;
    if (!symmetric && grid.scale > 0) {
        float zero = rintf((float)grid.least - low / grid.scale);
        zero = larger(zero, (float)grid.least);
        grid.zero = (int)smaller(zero, (float)grid.most);
    }
    if (!(grid.scale > 0)) grid.scale = 0x1p-23f;
    return grid;
}

int tms_int_code(const struct tms_int_grid *grid, float x)
{
    float t = x / grid->scale + (float)grid->zero;
    t = larger(t, (float)grid->least); /* NaN: the least */
    return (int)rintf(smaller(t, (float)grid->most));
}

float tms_int_value(const struct tms_int_grid *grid, int code)
{
    return (float)(code - grid->zero) * grid->scale;
}

float tms_float_scale(float low, float high, float largest)
{
    const float scale = larger(larger(-low, high), 0) / largest;
    return scale > 0 ? scale : 0x1p-23f;
}

struct tms_range tms_shrink_search(const float *x, size_t n, unsigned bits, bool symmetric, double p, double step,
                                   int n_steps)
{
    enum { TOGETHER = 256 };
    struct tms_range found = {0};
    if (n == 0) return found;
    float low, high, rounded[TOGETHER];
    find_range(x, n, &low, &high);
    low = smaller(low, 0), high = larger(high, 0);
    double best = HUGE_VAL;
    found = (struct tms_range){low, high, n};
    for (int i = 0; i < n_steps; i++) {
        const float share = (float)(1 - i * step);
        const struct tms_int_grid grid = tms_int_grid(share * low, share * high, bits, symmetric);
        double error = 0;
        for (size_t at = 0; at < n; at += TOGETHER) {
            const size_t count = n - at < TOGETHER ? n - at : TOGETHER;
            for (size_t k = 0; k < count; k++) rounded[k] = tms_int_value(&grid, tms_int_code(&grid, x[at + k]));
            error += tms_distance_to_power(rounded, x + at, count, p);
        }
        if (error < best) best = error, found.low = share * low, found.high = share * high;
    }
    return found;
}

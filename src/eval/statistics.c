/* Means and errors as llama-perplexity has them (its tools/perplexity): the error of a mean is
 *     sqrt((mean(x^2) - mean(x)^2) / (n - 1)),
 * that of a perplexity exp(mean) times the error of the mean, that of a ratio takes the covariance off. Mean squares
 * are taken around the mean, which is the same in exact numbers and safe when the spread is small.
 */
#include "eval/statistics.h"

#include <math.h>
#include <stdlib.h>

void tms_running_add(struct tms_running *running, const struct tms_position *positions, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        running->nll += positions[i].nll;
        running->kl += positions[i].kl;
    }
    running->n += n;
}

/* Mean of the products of deviations, divided by n - 1: the covariance of the means. */
static double covariance(const double *a, double mean_a, const double *b, double mean_b, size_t n)
{
    double sum = 0;
    if (n < 2) return 0;
    for (size_t i = 0; i < n; i++) sum += (a[i] - mean_a) * (b[i] - mean_b);
    return sum / (double)n / (double)(n - 1);
}

static struct tms_estimate mean_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    double mean = sum / (double)n;
    return (struct tms_estimate){mean, sqrt(covariance(x, mean, x, mean, n))};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* x is sorted. */
static double percentile(const double *x, size_t n, double share)
{
    double at = share * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n) return x[n - 1];
    return x[i] + (at - (double)i) * (x[i + 1] - x[i]);
}

/* Sorts x. */
static struct tms_spread spread_of(double *x, size_t n)
{
    struct tms_spread s = {.mean = mean_of(x, n)};
    qsort(x, n, sizeof *x, by_value);
    s.min = x[0];
    s.p0_1 = percentile(x, n, 0.001);
    s.p1 = percentile(x, n, 0.01);
    s.p5 = percentile(x, n, 0.05);
    s.p10 = percentile(x, n, 0.1);
    s.p25 = percentile(x, n, 0.25);
    s.median = percentile(x, n, 0.5);
    s.p75 = percentile(x, n, 0.75);
    s.p90 = percentile(x, n, 0.9);
    s.p95 = percentile(x, n, 0.95);
    s.p99 = percentile(x, n, 0.99);
    s.p99_9 = percentile(x, n, 0.999);
    s.max = x[n - 1];
    return s;
}

struct tms_estimate tms_share(size_t hits, size_t n)
{
    if (n == 0) return (struct tms_estimate){0, 0};
    double p = (double)hits / (double)n;
    return (struct tms_estimate){p, n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : 0};
}

static struct tms_estimate exp_of(struct tms_estimate log_value)
{
    double value = exp(log_value.value);
    return (struct tms_estimate){value, value * log_value.error};
}

/* Of a difference of two means with errors a, b. */
static double error_of_difference(double a, double b, double cov)
{
    double square = a * a + b * b - 2 * cov;
    return square > 0 ? sqrt(square) : 0;
}

/* a, b: room for n values each. */
static void compare(const struct tms_position *p, size_t n, double *a, double *b, struct tms_eval_result *r)
{
    for (size_t i = 0; i < n; i++) {
        a[i] = p[i].nll;
        b[i] = p[i].nll_base;
    }
    struct tms_estimate ours = r->log_perplexity, base = mean_of(b, n);
    double cov = covariance(a, ours.value, b, base.value, n);
    r->base_perplexity = exp_of(base);
    r->correlation = ours.error > 0 && base.error > 0 ? cov / (ours.error * base.error) : 0;
    r->log_ratio.value = ours.value - base.value;
    r->log_ratio.error = error_of_difference(ours.error, base.error, cov);
    r->ratio = exp_of(r->log_ratio);
    r->difference.value = r->perplexity.value - r->base_perplexity.value;
    r->difference.error = error_of_difference(r->perplexity.error, r->base_perplexity.error,
                                              r->perplexity.value * r->base_perplexity.value * cov);
    size_t same = 0;
    for (size_t i = 0; i < n; i++) {
        same += p[i].same_top;
        double change = exp(-p[i].nll) - exp(-p[i].nll_base);
        a[i] = change;
        b[i] = change * change;
    }
    r->same_top = tms_share(same, n);
    struct tms_estimate square = mean_of(b, n);
    double rms = sqrt(square.value);
    r->rms_change = (struct tms_estimate){rms, rms > 0 ? 0.5 / rms * square.error : 0};
    r->change = spread_of(a, n);
    for (size_t i = 0; i < n; i++) a[i] = p[i].kl;
    r->kl = spread_of(a, n);
}

tms_status tms_eval_summarize(const struct tms_position *positions, size_t n, bool has_base,
                              struct tms_eval_result *result, struct tms_error *err)
{
    double *a = calloc(n, 2 * sizeof *a);
    if (!a) return tms_fail_memory(err, 2 * n * sizeof *a);
    for (size_t i = 0; i < n; i++) a[i] = positions[i].nll;
    result->n_predicted = n;
    result->log_perplexity = mean_of(a, n);
    result->perplexity = exp_of(result->log_perplexity);
    result->has_base = has_base;
    if (has_base) compare(positions, n, a, a + n, result);
    free(a);
    return TMS_OK;
}

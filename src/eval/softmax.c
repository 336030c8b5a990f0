/* See softmax.h. */
#include "eval/softmax.h"

#include <string.h>

#include "base/cpu.h"
#include "base/numbers.h"

/* Vectors of the compiler's: it splits them for machines with shorter ones, lane by lane the same. */
enum { LANES = 8 };
typedef double doubles __attribute__((vector_size(8 * LANES)));
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int64_t longs __attribute__((vector_size(8 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

/* exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2 in two parts (fdlibm's constants: the first has 21 zero bits
 * at its end, so that n times it is exact), |r| <= 0.347: Taylor's sum to r^11 leaves 6e-15. */
#define LOG2_E  0x1.71547652b82fep0
#define LN2_HI  0x1.62e42feep-1
#define LN2_LO  0x1.a39ef35793c76p-33
#define ROUNDER 0x1.8p52 /* added: the integer part stands in the low bits */
enum { DEGREE = 11 };
static const double taylor[DEGREE + 1] = {
    1,         1,          1.0 / 2,     1.0 / 6,      1.0 / 24,      1.0 / 120,
    1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800};

double tms_exp_negative(double x)
{
    if (!(x > -700)) x = -700;
    double t = x * LOG2_E + ROUNDER, n = t - ROUNDER;
    double r = (x - n * LN2_HI) - n * LN2_LO;
    double p = taylor[DEGREE];
    for (int k = DEGREE - 1; k >= 0; k--) p = p * r + taylor[k];
    uint64_t shift, bits;
    memcpy(&shift, &t, sizeof shift);
    memcpy(&bits, &p, sizeof bits);
    bits += shift << 52;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* The same in lanes, in place. */
TMS_INLINE void exp_lanes(doubles *x)
{
    longs inside = *x > -700.0;
    doubles least = {-700, -700, -700, -700, -700, -700, -700, -700};
    doubles v = (doubles)(((longs)*x & inside) | ((longs)least & ~inside));
    doubles t = v * LOG2_E + ROUNDER, n = t - ROUNDER;
    doubles r = (v - n * LN2_HI) - n * LN2_LO;
    doubles p = r * taylor[DEGREE] + taylor[DEGREE - 1];
    for (int k = DEGREE - 2; k >= 0; k--) p = p * r + taylor[k];
    *x = (doubles)((longs)p + ((longs)t << 52));
}

/* log(2^e m) = e ln 2 + 2 atanh(s), s = (m - 1) / (m + 1), m in [0.707, 1.414): s^2 <= 0.0295, so that 11 terms are
 * enough. */
double tms_log_positive(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 0x1.6a09e667f3bcdp0) {
        m /= 2;
        e++;
    }
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int k = 23; k >= 3; k -= 2) sum = (sum + 1.0 / k) * z;
    return e * LN2_HI + (2 * s + (2 * s * sum + e * LN2_LO));
}

TMS_INLINE void load(const float *from, floats *to)
{
    memcpy(to, from, sizeof *to);
}

/* Finite values minus max, as doubles. */
TMS_INLINE void load_minus(const float *from, double max, doubles *to)
{
    floats f;
    memcpy(&f, from, sizeof f);
    *to = __builtin_convertvector(f, doubles) - max;
}

/* Tails of rows: lanes that are missing take part with a probability of e^-700. */
TMS_INLINE void load_tail(const float *from, size_t n, double max, doubles *to)
{
    double room[LANES];
    for (size_t i = 0; i < LANES; i++) room[i] = i < n ? (double)from[i] - max : -1e4;
    memcpy(to, room, sizeof *to);
}

TMS_INLINE double sum_of(const doubles *v)
{
    return (((*v)[0] + (*v)[4]) + ((*v)[2] + (*v)[6])) + (((*v)[1] + (*v)[5]) + ((*v)[3] + (*v)[7]));
}

/* Largest of finite values. */
TMS_INLINE void largest_body(const float *x, size_t n, float *out)
{
    float max = x[0];
    size_t i = 0;
    if (n >= 2 * LANES) {
        floats a, b, u, v;
        load(x, &a);
        load(x + LANES, &b);
        for (i = 2 * LANES; i + 2 * LANES <= n; i += 2 * LANES) {
            load(x + i, &u);
            load(x + i + LANES, &v);
            ints up = u > a, vp = v > b;
            a = (floats)(((ints)u & up) | ((ints)a & ~up));
            b = (floats)(((ints)v & vp) | ((ints)b & ~vp));
        }
        for (size_t k = 0; k < LANES; k++) {
            if (a[k] > max) max = a[k];
            if (b[k] > max) max = b[k];
        }
    }
    for (; i < n; i++)
        if (x[i] > max) max = x[i];
    *out = max;
}
TMS_BY_CPU(static, largest, (const float *x, size_t n, float *out), (x, n, out))

TMS_INLINE void sum_exp_body(const float *x, size_t n, double max, double *out)
{
    doubles v, sum = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        load_minus(x + i, max, &v);
        exp_lanes(&v);
        sum += v;
    }
    if (i < n) {
        load_tail(x + i, n - i, max, &v);
        exp_lanes(&v);
        sum += v;
    }
    *out = sum_of(&sum);
}
TMS_BY_CPU(static, sum_exp, (const float *x, size_t n, double max, double *out), (x, n, max, out))

/* sums: S_m, S_b, C. */
TMS_INLINE void compare_body(const float *x, const float *base, size_t n, double max, double base_max, double *sums)
{
    doubles v, b, d, sum = {0}, base_sum = {0}, cross = {0};
    for (size_t i = 0; i < n; i += LANES) {
        if (i + LANES <= n) {
            load_minus(x + i, max, &v);
            load_minus(base + i, base_max, &b);
        } else {
            load_tail(x + i, n - i, max, &v);
            load_tail(base + i, n - i, base_max, &b);
        }
        d = b - v;
        exp_lanes(&v);
        exp_lanes(&b);
        sum += v;
        base_sum += b;
        cross += b * d;
    }
    sums[0] = sum_of(&sum);
    sums[1] = sum_of(&base_sum);
    sums[2] = sum_of(&cross);
}
TMS_BY_CPU(static, compare, (const float *x, const float *base, size_t n, double max, double base_max, double *sums),
           (x, base, n, max, base_max, sums))

static size_t first_equal(const float *x, float value)
{
    size_t i = 0;
    while (x[i] != value) i++;
    return i;
}

bool tms_score_row(const float *x, const float *base, size_t n_vocab, int32_t token, struct tms_position *out,
                   size_t *bad, bool *of_base)
{
    size_t at = tms_first_nonfinite(x, n_vocab), base_at = base ? tms_first_nonfinite(base, n_vocab) : n_vocab;
    if (at < n_vocab || base_at < n_vocab) {
        *of_base = base_at < n_vocab;
        *bad = *of_base ? base_at : at;
        return false;
    }
    float max, base_max;
    double sums[3];
    *out = (struct tms_position){0};
    largest(x, n_vocab, &max);
    if (!base) {
        sum_exp(x, n_vocab, max, sums);
        out->nll = (double)max - (double)x[token] + tms_log_positive(sums[0]);
        return true;
    }
    largest(base, n_vocab, &base_max);
    compare(x, base, n_vocab, max, base_max, sums);
    double log_sum = tms_log_positive(sums[0]), base_log_sum = tms_log_positive(sums[1]);
    out->nll = (double)max - (double)x[token] + log_sum;
    out->nll_base = (double)base_max - (double)base[token] + base_log_sum;
    out->kl = sums[2] / sums[1] + (log_sum - base_log_sum);
    if (out->kl < 0) out->kl = 0; /* by rounding only */
    out->same_top = first_equal(x, max) == first_equal(base, base_max);
    return true;
}

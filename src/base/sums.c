/* See sums.h. */
#include "base/sums.h"

#include "base/mem.h"

static double add_lanes(const double lanes[8])
{
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

double tms_squared_distance(const float *restrict a, const float *restrict b, size_t n)
{
    double lanes[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t l = 0; l < 8; l++) {
            double d = (double)a[i + l] - (double)b[i + l];
            lanes[l] += d * d;
        }
    for (; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        lanes[i % 8] += d * d;
    }
    return add_lanes(lanes);
}

double tms_squared_norm(const float *restrict a, size_t n)
{
    double lanes[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t l = 0; l < 8; l++) lanes[l] += (double)a[i + l] * (double)a[i + l];
    for (; i < n; i++) lanes[i % 8] += (double)a[i] * (double)a[i];
    return add_lanes(lanes);
}

uint64_t tms_common_multiple(uint64_t a, uint64_t b, uint64_t limit)
{
    uint64_t x = a, y = b, multiple;
    while (y) {
        uint64_t rest = x % y;
        x = y;
        y = rest;
    }
    if (!a || !b || !tms_mul_u64(a / x, b, &multiple) || multiple > limit) return limit;
    return multiple;
}

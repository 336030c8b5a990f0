/* See eights.h. With t = |w| / step a point with values v costs, but for what all points share,
 *     sum cost v² - 2 cost t v;     a wrong sign at i costs 4 cost t v more. */
#include "method/eights.h"

#include <math.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "codec/iq1_search.h"
#include "codec/iq1_grid.h"
#include "method/block_grids.h"
#include "method/feedback.h"

enum { LANES = TMS_FEEDBACK_ROWS };

struct tms_eights {
    int dims; /* of a point: 4 or 8 */
    int n_points;
    bool even_signs, ternary;
    float values[]; /* [n_points][dims] */
};

tms_status tms_eights_create(struct tms_eights **out, enum tms_iq_book book, bool even_signs, struct tms_error *err)
{
    const struct tms_iq_grid *grid = tms_iq_grid(book);
    const uint8_t *values = tms_iq_values(book);
    const size_t n = (size_t)grid->n_points * (size_t)grid->group;
    struct tms_eights *made = tms_calloc(1, sizeof *made + n * sizeof *made->values);
    if (!made) return tms_fail_memory(err, sizeof *made + n * sizeof *made->values);
    made->dims = grid->group, made->n_points = grid->n_points, made->even_signs = even_signs;
    for (size_t i = 0; i < n; i++) made->values[i] = (float)values[i];
    *out = made;
    return TMS_OK;
}

tms_status tms_eights_create_ternary(struct tms_eights **out, struct tms_error *err)
{
    const struct tms_iq1_points *points = tms_iq1_points();
    const size_t n = (size_t)TMS_IQ1_POINTS * 8;
    struct tms_eights *made = tms_calloc(1, sizeof *made + n * sizeof *made->values);
    if (!made) return tms_fail_memory(err, sizeof *made + n * sizeof *made->values);
    made->dims = 8, made->n_points = TMS_IQ1_POINTS, made->ternary = true;
    for (size_t p = 0; p < TMS_IQ1_POINTS; p++)
        for (size_t i = 0; i < 8; i++) made->values[8 * p + i] = (float)points->numbers[p][i];
    *out = made;
    return TMS_OK;
}

void tms_eights_free(struct tms_eights *eights)
{
    free(eights);
}

/* The best point for every row; slopes [dims][LANES] are -2 cost t. costs and points [LANES]. With `wrong` (1 or 0 for
 * each row) the cost of the cheapest wrong sign counts too. */
TMS_INLINE void best_points_body(const float *restrict values, int n_points, int dims, const float *restrict cost,
                                 const float *restrict slopes, const float *restrict wrong, float *restrict costs,
                                 int32_t *restrict points)
{
    for (int r = 0; r < LANES; r++) costs[r] = HUGE_VALF, points[r] = 0;
    for (int p = 0; p < n_points; p++) {
        const float *restrict v = values + p * dims;
        float own = 0, total[LANES], cheapest[LANES];
        for (int i = 0; i < dims; i++) own += cost[i] * v[i] * v[i];
        for (int r = 0; r < LANES; r++) {
            const float term = slopes[r] * v[0];
            total[r] = own + term;
            cheapest[r] = term;
        }
        for (int i = 1; i < dims; i++)
            for (int r = 0; r < LANES; r++) {
                const float term = slopes[i * LANES + r] * v[i];
                total[r] += term;
                cheapest[r] = term > cheapest[r] ? term : cheapest[r];
            }
        for (int r = 0; r < LANES; r++) {
            const float all = total[r] - 2 * wrong[r] * cheapest[r];
            points[r] = all < costs[r] ? p : points[r];
            costs[r] = all < costs[r] ? all : costs[r];
        }
    }
}

TMS_INLINE void best_points_of_8_body(const float *restrict values, int n_points, const float *restrict cost,
                                      const float *restrict slopes, const float *restrict wrong, float *restrict costs,
                                      int32_t *restrict points)
{
    best_points_body(values, n_points, 8, cost, slopes, wrong, costs, points);
}
TMS_BY_CPU(static, best_points_of_8,
           (const float *restrict values, int n_points, const float *restrict cost, const float *restrict slopes,
            const float *restrict wrong, float *restrict costs, int32_t *restrict points),
           (values, n_points, cost, slopes, wrong, costs, points))

TMS_INLINE void best_points_of_4_body(const float *restrict values, int n_points, const float *restrict cost,
                                      const float *restrict slopes, const float *restrict wrong, float *restrict costs,
                                      int32_t *restrict points)
{
    best_points_body(values, n_points, 4, cost, slopes, wrong, costs, points);
}
TMS_BY_CPU(static, best_points_of_4,
           (const float *restrict values, int n_points, const float *restrict cost, const float *restrict slopes,
            const float *restrict wrong, float *restrict costs, int32_t *restrict points),
           (values, n_points, cost, slopes, wrong, costs, points))

/* The coordinate whose wrong sign costs least. */
static int cheapest_of(const float *values, int dims, const float *slopes, int r)
{
    int found = 0;
    for (int i = 1; i < dims; i++)
        if (slopes[i * LANES + r] * values[i] > slopes[found * LANES + r] * values[found]) found = i;
    return found;
}

/* The best points of IQ1 with the given offsets, and their costs but for what does not depend on the offset's sign. */
static void nearest_ternary(const struct tms_eights *eights, const float *w, const float *steps, const float *deltas,
                            const float *cost, float *costs, int32_t *points)
{
    float slopes[8 * LANES], shared[LANES] = {0}, none[LANES] = {0};
    for (int i = 0; i < 8; i++)
        for (int r = 0; r < LANES; r++) {
            const float t = steps[r] != 0 ? w[i * LANES + r] / steps[r] : 0;
            slopes[i * LANES + r] = -2 * cost[i] * (t - deltas[r]);
            shared[r] -= 2 * cost[i] * t * deltas[r];
        }
    best_points_of_8(eights->values, eights->n_points, cost, slopes, none, costs, points);
    for (int r = 0; r < LANES; r++) costs[r] += shared[r];
}

static void decide_ternary(const struct tms_eights *eights, const float *w, const float *steps, const float *deltas,
                           const float *cost, uint32_t *words, float *decoded)
{
    float given[2][LANES], costs[2][LANES];
    int32_t points[2][LANES];
    for (int r = 0; r < LANES; r++) {
        given[0][r] = deltas ? deltas[r] : TMS_IQ1_DELTA;
        given[1][r] = -TMS_IQ1_DELTA;
    }
    nearest_ternary(eights, w, steps, given[0], cost, costs[0], points[0]);
    if (!deltas) nearest_ternary(eights, w, steps, given[1], cost, costs[1], points[1]);
    for (int r = 0; r < LANES; r++) {
        const int k = !deltas && costs[1][r] < costs[0][r];
        words[r] = TMS_EIGHT(points[k][r], 0, given[k][r] < 0);
        float x[8];
        tms_eights_decode(eights, words[r], steps[r], x);
        for (int i = 0; i < 8; i++) decoded[i * LANES + r] = x[i];
    }
}

void tms_eights_nearest(const struct tms_eights *eights, const float *w, const float *steps, const float *deltas,
                        const float *cost, uint32_t *words, float *decoded)
{
    if (eights->ternary) {
        decide_ternary(eights, w, steps, deltas, cost, words, decoded);
        return;
    }
    const float *values = eights->values;
    const int dims = eights->dims, n_points = eights->n_points;
    float slopes[8 * LANES], wrong[LANES], none[LANES] = {0}, all[LANES], costs[2][2][LANES];
    int32_t points[2][2][LANES]; /* [half][with a wrong sign] */
    uint32_t signs[LANES] = {0};
    for (int i = 0; i < 8; i++)
        for (int r = 0; r < LANES; r++) {
            const float t = steps[r] != 0 ? w[i * LANES + r] / steps[r] : 0;
            slopes[i * LANES + r] = -2 * cost[i] * fabsf(t);
            signs[r] |= (uint32_t)(t < 0) << i;
        }
    for (int r = 0; r < LANES; r++) {
        wrong[r] = eights->even_signs && __builtin_parity(signs[r]) ? 1 : 0;
        all[r] = 1;
    }
    if (dims == 8) {
        best_points_of_8(values, n_points, cost, slopes, wrong, costs[0][0], points[0][0]);
    } else {
        for (int half = 0; half < 2; half++) {
            best_points_of_4(values, n_points, cost + 4 * half, slopes + 4 * half * LANES, none, costs[half][0],
                             points[half][0]);
            if (eights->even_signs)
                best_points_of_4(values, n_points, cost + 4 * half, slopes + 4 * half * LANES, all, costs[half][1],
                                 points[half][1]);
        }
    }
    for (int r = 0; r < LANES; r++) {
        /* Which half has the wrong sign, if there must be one. */
        int in = 0;
        if (wrong[r] != 0 && dims == 4 && costs[0][0][r] + costs[1][1][r] < costs[0][1][r] + costs[1][0][r]) in = 1;
        int32_t chosen[2] = {points[0][0][r], 0};
        if (dims == 4) {
            chosen[0] = points[0][wrong[r] != 0 && in == 0][r];
            chosen[1] = points[1][wrong[r] != 0 && in == 1][r];
        }
        if (wrong[r] != 0)
            signs[r] ^= 1u << (4 * in + cheapest_of(values + chosen[in] * dims, dims, slopes + 4 * in * LANES, r));
        words[r] = TMS_EIGHT(chosen[0], chosen[1], signs[r]);
        for (int i = 0; i < 8; i++) {
            const float x = steps[r] * (dims == 8 ? values[chosen[0] * 8 + i] : values[chosen[i / 4] * 4 + i % 4]);
            decoded[i * LANES + r] = signs[r] >> i & 1 ? -x : x;
        }
    }
}

void tms_eights_decode(const struct tms_eights *eights, uint32_t word, float step, float *x)
{
    const uint32_t points[2] = {word & 4095, word >> 12 & 4095};
    for (int i = 0; i < 8; i++) {
        const size_t at =
            eights->dims == 8 ? 8 * (size_t)points[0] + (size_t)i : 4 * (size_t)points[i / 4] + (size_t)(i % 4);
        if (eights->ternary) {
            x[i] = step * (eights->values[at] + (word >> 24 & 1 ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA));
            continue;
        }
        const float value = step * eights->values[at];
        x[i] = word >> 24 >> i & 1 ? -value : value;
    }
}

/* See iq1_search.h. */
#include "codec/iq1_search.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "codec/iq1_grid.h"
#include "codec/ordered_sums.h"

enum { MAX_BLOCK = 32 };

/* order[i]: which weight is the i-th smallest; equal ones stay in order. */
static void sort(const float *restrict x, int n, uint8_t *restrict order)
{
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && x[order[j - 1]] > x[i]; j--) order[j] = order[j - 1];
        order[j] = (uint8_t)i;
    }
}

/* The best split so far. */
struct best {
    float score, scale;
    int i1, i2;
    uint8_t signs;
};

static void consider(struct best *best, float sum_qx, float sum_qq, int i1, int i2, uint8_t signs)
{
    if (!(sum_qq > 0 && sum_qx * sum_qx > best->score * sum_qq)) return;
    float scale = sum_qx / sum_qq;
    *best = (struct best){.score = scale * sum_qx, .scale = scale, .i1 = i1, .i2 = i2, .signs = signs};
}

static void split_32(const float *restrict x, const float *restrict w, const uint8_t *restrict order, struct best *best)
{
    enum { N = 32 };
    float sum_x[N + 1] = {0}, sum_w[N + 1] = {0}; /* of w * x and w, over the smallest */
    for (int j = 0; j < N; j++) {
        int i = order[j];
        sum_x[j + 1] = sum_x[j] + w[i] * x[i];
        sum_w[j + 1] = sum_w[j] + w[i];
    }
    for (int i1 = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++)
            for (uint8_t signs = 0; signs < 2; signs++) {
                float delta = signs ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA;
                float q0 = tms_iq1_level(0, delta), q1 = tms_iq1_level(1, delta), q2 = tms_iq1_level(2, delta);
                float sum_qx = sum_x[i1] * q0 + (sum_x[i2] - sum_x[i1]) * q1 + (sum_x[N] - sum_x[i2]) * q2;
                float sum_qq =
                    sum_w[i1] * q0 * q0 + (sum_w[i2] - sum_w[i1]) * q1 * q1 + (sum_w[N] - sum_w[i2]) * q2 * q2;
                consider(best, sum_qx, sum_qq, i1, i2, signs);
            }
}

/* Each half has sums of its own over the sorted order, to which only its weights add. Levels are 1 apart, so that
 * three products become two differences. */
static void split_16(const float *restrict x, const float *restrict w, const uint8_t *restrict order, struct best *best)
{
    enum { N = 16 };
    float sum_x[2][N + 1] = {{0}}, sum_w[2][N + 1] = {{0}};
    for (int j = 0; j < N; j++) {
        int i = order[j], half = i / 8;
        sum_x[half][j + 1] = sum_x[half][j] + w[i] * x[i];
        sum_w[half][j + 1] = sum_w[half][j] + w[i];
        sum_x[1 - half][j + 1] = sum_x[1 - half][j];
        sum_w[1 - half][j + 1] = sum_w[1 - half][j];
    }
    for (int i1 = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++) {
            float qx[2][2], qq[2][2]; /* of half, with delta positive and negative */
            for (int half = 0; half < 2; half++)
                for (int negative = 0; negative < 2; negative++) {
                    float delta = negative ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA;
                    float q0 = tms_iq1_level(0, delta), q1 = tms_iq1_level(1, delta), q2 = tms_iq1_level(2, delta);
                    qx[half][negative] = sum_x[half][N] * q2 - (sum_x[half][i1] + sum_x[half][i2]);
                    qq[half][negative] = sum_w[half][N] * q2 * q2 + sum_w[half][i1] * (q0 * q0 - q1 * q1) +
                                         sum_w[half][i2] * (q1 * q1 - q2 * q2);
                }
            for (uint8_t signs = 0; signs < 4; signs++)
                consider(best, qx[0][signs >> 1] + qx[1][signs & 1], qq[0][signs >> 1] + qq[1][signs & 1], i1, i2,
                         signs);
        }
}

static void split_block(int n, const float *restrict x, const float *restrict w, float *restrict scale,
                        uint8_t *restrict signs, uint16_t *restrict places)
{
    *scale = 0;
    *signs = 0;
    for (int g = 0; g < n / 8; g++) places[g] = TMS_IQ1_NOWHERE;
    float largest = 0;
    for (int i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    if (largest < TMS_IQ1_TINY(n)) return;

    uint8_t order[MAX_BLOCK] = {0}, level[MAX_BLOCK] = {0};
    sort(x, n, order);
    struct best best = {.score = -FLT_MAX, .i1 = -1};
    (n == 32 ? split_32 : split_16)(x, w, order, &best);
    if (best.i1 < 0) return;
    bool turned = best.scale < 0; /* a negative scale turns levels and signs over */
    for (int j = 0; j < n; j++) {
        int l = (j >= best.i1) + (j >= best.i2);
        level[order[j]] = (uint8_t)(turned ? 2 - l : l);
    }
    *scale = turned ? -best.scale : best.scale;
    *signs = (uint8_t)(turned ? (n == 32 ? 1 : 3) - best.signs : best.signs);
    for (int g = 0; g < n / 8; g++) {
        places[g] = 0;
        for (int i = 7; i >= 0; i--) places[g] = (uint16_t)(3 * places[g] + level[8 * g + i]);
    }
}

void tms_iq1_split(int block, const float *x, const float *w, size_t n_blocks, float *scales, uint8_t *signs,
                   uint16_t *places)
{
    size_t n = (size_t)block;
    for (size_t b = tms_iq1_split_lanes(block, x, w, n_blocks, scales, signs, places); b < n_blocks; b++)
        split_block(block, x + b * n, w + b * n, scales + b, signs + b, places + b * (n / 8));
}

static float error_of(uint16_t code, const float *restrict x, const float *restrict w, float scale, float delta)
{
    float error = 0;
    for (int i = 0; i < 8; i++) {
        float rest = scale * tms_iq1_level(code >> 2 * i & 3, delta) - x[i];
        error += w[i] * rest * rest;
    }
    return error;
}

/* The first of n points with the least error; -1 if no error is finite. */
static int least(const uint16_t *restrict codes, int n, const float *restrict x, const float *restrict w, float scale,
                 float delta)
{
    int found = -1;
    float best = FLT_MAX;
    for (int j = 0; j < n; j++) {
        float error = error_of(codes[j], x, w, scale, delta);
        if (error < best) {
            best = error;
            found = j;
        }
    }
    return found;
}

/* The point for one group of 8 weights. */
static uint16_t choose(const struct tms_iq1_places *places, uint16_t place, tms_iq1_least *least_near,
                       const float *restrict x, const float *restrict w, float scale, float delta)
{
    if (place == TMS_IQ1_NOWHERE) return 0;
    if (places->number[place] >= 0) return (uint16_t)places->number[place];
    const uint16_t *near = places->near + places->first[place];
    int found = least_near(near, places->n_near[place], x, w, scale, delta);
    if (found >= 0) return (uint16_t)tms_iq1_number(places, near[found]);
    /* Errors beyond f32: any point at all, as in ggml; which gives up where we then take the nearest. */
    found = least(tms_iq1_points()->codes, TMS_IQ1_POINTS, x, w, scale, delta);
    return (uint16_t)(found >= 0 ? found : tms_iq1_number(places, near[0]));
}

/* qx = w * q * x and qq = w * q * q for what the weights of one group become. */
TMS_INLINE void terms_of_group_body(const int8_t *restrict point, float delta, const float *restrict x,
                                    const float *restrict w, float *restrict qx, float *restrict qq)
{
    for (int i = 0; i < 8; i++) {
        float q = (float)point[i] + delta, wq = w[i] * q;
        qx[i] = wq * x[i];
        qq[i] = wq * q;
    }
}

enum { TOGETHER = 16 }; /* blocks whose sums run side by side */

TMS_INLINE void terms_body(const struct tms_iq1_points *points, int block, size_t n_blocks, const float *restrict x,
                           const float *restrict w, const uint8_t *restrict signs, const uint16_t *restrict numbers,
                           float *restrict qx, float *restrict qq)
{
    size_t groups = (size_t)block / 8;
    for (size_t g = 0; g < n_blocks * groups; g++) {
        float delta = tms_iq1_delta(block, signs[g / groups], (int)(g % groups));
        terms_of_group_body(points->numbers[numbers[g]], delta, x + 8 * g, w + 8 * g, qx + 8 * g, qq + 8 * g);
    }
}
TMS_BY_CPU(static, terms,
           (const struct tms_iq1_points *points, int block, size_t n_blocks, const float *x, const float *w,
            const uint8_t *signs, const uint16_t *numbers, float *qx, float *qq),
           (points, block, n_blocks, x, w, signs, numbers, qx, qq))

void tms_iq1_choose_points(int block, const float *x, const float *w, size_t n_blocks, const uint8_t *signs,
                           const uint16_t *places, float *scales, uint16_t *numbers)
{
    const struct tms_iq1_places *all = tms_iq1_places();
    tms_iq1_least *least_near = tms_iq1_least_lanes();
    if (!least_near) least_near = least;
    size_t n = (size_t)block, groups = n / 8;
    for (size_t b = 0, count; b < n_blocks; b += count) {
        count = n_blocks - b < TOGETHER ? n_blocks - b : TOGETHER;
        bool moved[TOGETHER] = {false};
        for (size_t i = 0; i < count; i++)
            for (size_t g = 0; g < groups; g++) {
                size_t at = (b + i) * groups + g;
                float delta = tms_iq1_delta(block, signs[b + i], (int)g);
                numbers[at] = choose(all, places[at], least_near, x + 8 * at, w + 8 * at, scales[b + i], delta);
                moved[i] |= places[at] != TMS_IQ1_NOWHERE && all->number[places[at]] < 0;
            }
        float qx[TOGETHER * MAX_BLOCK], qq[TOGETHER * MAX_BLOCK], sums_qx[TOGETHER], sums_qq[TOGETHER];
        terms(tms_iq1_points(), block, count, x + b * n, w + b * n, signs + b, numbers + b * groups, qx, qq);
        tms_ordered_sums(qx, n, count, sums_qx);
        tms_ordered_sums(qq, n, count, sums_qq);
        for (size_t i = 0; i < count; i++)
            if (moved[i] && sums_qx[i] > 0 && sums_qq[i] > 0) scales[b + i] = sums_qx[i] / sums_qq[i];
    }
}

/* See iq_search.h. All sums run in order, in f32. */
#include "codec/iq_search.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "codec/iq_lanes.h"
#include "codec/k_search.h"

/* ---- one block ---- */

/* Of the points near the levels of a group: the one with the least weighted squared distance to it, the first of
 * several. inverse is about 1 / scale. Clears its bit of on_grid where the levels themselves are no point. */
static uint32_t choose_point(const struct tms_iq_grid *grid, const float *restrict x, const float *restrict roots,
                             float inverse, float scale, bool *on_grid)
{
    uint32_t place = 0, radix = 1;
    for (int i = 0; i < grid->group; i++, radix *= (uint32_t)grid->levels)
        place += radix * (uint32_t)tms_clamp(tms_nearest(0.5f * (inverse * x[i] - 1)), 0, grid->levels - 1);
    const struct tms_iq_place *at = &grid->places[place];
    const uint32_t *near = grid->near + at->first;
    *on_grid = at->on_grid;
    uint32_t chosen = near[0];
    float least = FLT_MAX;
    for (int j = 0; j < at->count && at->count > 1; j++) {
        float distance = 0;
        for (int i = 0; i < grid->group; i++) {
            float rest = scale * tms_iq_odd(grid, near[j], i) - x[i];
            distance += roots[i] * rest * rest;
        }
        if (distance < least) {
            least = distance;
            chosen = near[j];
        }
    }
    return chosen;
}

/* The sums that give the best scale for given points, and how good it is: scale = qx / qq, gain = qx² / qq. */
struct sums {
    float qx, qq;
};

static struct sums sums_of(const struct tms_iq_grid *grid, int n, const float *restrict x,
                           const float *restrict weights, const uint32_t *restrict points)
{
    struct sums s = {0, 0};
    for (int i = 0; i < n; i++) {
        float q = tms_iq_odd(grid, points[i / grid->group], i % grid->group);
        s.qx += weights[i] * x[i] * q;
        s.qq += weights[i] * q * q;
    }
    return s;
}

/* A scale for x about scale * q with 0 <= q <= top, as ggml fits it: nine candidates, then codes moved one by one while
 * that helps, at most five times around. Codes live in eight bits: where x is negative (a sign that cannot be stored)
 * they wrap to 255 and below once they are stored, and only then. */
static float fitted_scale(int n, int top, float largest, const float *restrict x, const float *restrict weights)
{
    float inverse = 0, least = 0;
    for (int k = -5; k <= 4; k++) {
        /* k = -5 stands for the plain scale, which is tried first and taken in any case. */
        bool plain = k == -5;
        if (k == 0) continue;
        float candidate = plain ? (float)top / largest : (0.1f * (float)k + (float)top) / largest;
        float scale = 1 / candidate, error = 0;
        for (int i = 0; i < n; i++) {
            int q = tms_nearest(candidate * x[i]);
            q = plain ? (uint8_t)q : q < top ? q : top;
            float rest = x[i] - scale * (float)q;
            error += weights[i] * rest * rest;
        }
        if (plain || error < least) {
            least = error;
            inverse = candidate;
        }
    }

    uint8_t codes[TMS_IQ_MAX_BLOCK];
    struct sums s = {0, 0};
    for (int i = 0; i < n; i++) {
        int q = tms_nearest(inverse * x[i]);
        if (q > top) q = top;
        codes[i] = (uint8_t)q;
        s.qx += weights[i] * x[i] * (float)q;
        s.qq += weights[i] * (float)q * (float)q;
    }
    for (int sweep = 0; sweep < 5; sweep++) {
        bool moved = false;
        for (int i = 0; i < n; i++) {
            float w = weights[i], q = (float)codes[i];
            float rest_qx = s.qx - w * x[i] * q, rest_qq = s.qq - w * q * q;
            if (!(rest_qx > 0 && rest_qq > 0)) continue;
            int code = tms_nearest(x[i] * rest_qq / rest_qx);
            if (code > top) code = top;
            if (code == codes[i]) continue;
            rest_qx += w * x[i] * (float)code;
            rest_qq += w * (float)code * (float)code;
            if (rest_qx * rest_qx * s.qq > s.qx * s.qx * rest_qq) {
                codes[i] = (uint8_t)code;
                s = (struct sums){rest_qx, rest_qq};
                moved = true;
            }
        }
        if (!moved) break;
    }
    return s.qq > 0 ? s.qx / s.qq : 0;
}

static bool search_block(const struct tms_iq_rule *rule, const struct tms_iq_grid *grid, const float *values,
                         const float *weights, const float *roots, float *scale_out, uint32_t *points)
{
    const int n = rule->block, group = grid->group, n_groups = n / group;
    const float steps = (float)(2 * rule->top + 1);
    float largest = values[0];
    for (int i = 1; i < n; i++) largest = values[i] > largest ? values[i] : largest;
    if (largest < rule->tiny) return false;

    float reach = largest, scale = largest / steps;
    if (rule->start_by_fit) {
        scale = fitted_scale(n, rule->top + 2, largest, values, weights);
        reach = scale * (float)(rule->top + 1);
        if (reach <= 0) return false;
    }

    /* ggml's IQ3_S takes groups for off the grid until a candidate was accepted. */
    bool on_grid[TMS_IQ_MAX_GROUPS], candidate_on_grid[TMS_IQ_MAX_GROUPS];
    uint32_t candidate[TMS_IQ_MAX_GROUPS] = {0};
    for (int g = 0; g < n_groups; g++) {
        on_grid[g] = rule->refit != TMS_REFIT_ALL_IF_ANY;
        points[g] = 0;
    }
    float best = 0;
    for (int k = -rule->last; k <= rule->last; k++) {
        float inverse = (steps + (float)k * rule->step) / reach;
        for (int g = 0; g < n_groups; g++)
            candidate[g] =
                choose_point(grid, values + g * group, roots + g * group, inverse, 1 / inverse, &candidate_on_grid[g]);
        struct sums s = sums_of(grid, n, values, weights, candidate);
        if (s.qq > 0 && s.qx * s.qx > best * s.qq) {
            scale = s.qx / s.qq;
            best = scale * s.qx;
            memcpy(points, candidate, (size_t)n_groups * sizeof *points);
            memcpy(on_grid, candidate_on_grid, (size_t)n_groups * sizeof *on_grid);
        }
    }

    bool all_on_grid = true;
    for (int g = 0; g < n_groups; g++) all_on_grid = all_on_grid && on_grid[g];
    if (scale > 0 && (rule->refit == TMS_REFIT_ALL || !all_on_grid)) {
        for (int g = 0; g < n_groups; g++) {
            if (rule->refit == TMS_REFIT_OFF_GRID && on_grid[g]) continue;
            points[g] =
                choose_point(grid, values + g * group, roots + g * group, 1 / scale, scale, &candidate_on_grid[g]);
        }
        struct sums s = sums_of(grid, n, values, weights, points);
        if (s.qq > 0) scale = s.qx / s.qq;
    }
    *scale_out = scale;
    return true;
}

/* ---- 256 weights ---- */

/* Magnitudes, signs and weights of 256 weights. */
struct parts {
    float values[TMS_IQ_SUPER], weights[TMS_IQ_SUPER], roots[TMS_IQ_SUPER];
    uint8_t signs[TMS_IQ_SUPER / 8];
};

TMS_INLINE void take_apart_body(const struct tms_iq_rule *rule, const float *restrict x,
                                const float *restrict importance, struct parts *restrict p)
{
    float squares = 0;
    for (int i = 0; i < TMS_IQ_SUPER; i++) squares += x[i] * x[i];
    const float spread = rule->mean_square * squares / TMS_IQ_SUPER;
    if (importance)
        for (int i = 0; i < TMS_IQ_SUPER; i++) p->weights[i] = importance[i] * sqrtf(spread + x[i] * x[i]);
    else if (rule->plain_share > 0)
        for (int i = 0; i < TMS_IQ_SUPER; i++) p->weights[i] = rule->plain_share * spread + x[i] * x[i];
    else
        for (int i = 0; i < TMS_IQ_SUPER; i++) p->weights[i] = x[i] * x[i];
    for (int i = 0; i < TMS_IQ_SUPER; i++) p->roots[i] = sqrtf(p->weights[i]);
    for (int i = 0; i < TMS_IQ_SUPER; i++) p->values[i] = x[i] >= 0 ? x[i] : -x[i];
    for (int g = 0; g < TMS_IQ_SUPER / 8; g++) {
        unsigned signs = 0;
        for (int i = 0; i < 8; i++) signs |= (unsigned)!(x[8 * g + i] >= 0) << i;
        p->signs[g] = (uint8_t)signs;
    }
    if (!rule->even_signs) return;
    for (int g = 0; g < TMS_IQ_SUPER / 8; g++) {
        if (!__builtin_parity(p->signs[g])) continue;
        /* One sign must be wrong: that of the weight that matters least, the first of several. */
        const float *v = x + 8 * g, *w = p->weights + 8 * g;
        int least = 0;
        for (int i = 1; i < 8; i++)
            if (w[i] * v[i] * v[i] < w[least] * v[least] * v[least]) least = i;
        p->values[8 * g + least] = -p->values[8 * g + least];
        p->signs[g] ^= (uint8_t)(1 << least);
    }
}
TMS_BY_CPU(static, take_apart,
           (const struct tms_iq_rule *rule, const float *x, const float *importance, struct parts *p),
           (rule, x, importance, p))

void tms_iq_search(const struct tms_iq_rule *rule, const float *x, const float *importance, struct tms_iq_found *found)
{
    const struct tms_iq_grid *grid = tms_iq_grid(rule->book);
    tms_iq_block_search *search = tms_iq_block_search_by_lanes();
    if (!search) search = search_block;
    struct parts p;
    take_apart(rule, x, importance, &p);
    found->largest_scale = 0;
    const int n_blocks = TMS_IQ_SUPER / rule->block, n_groups = rule->block / grid->group, n_signs = rule->block / 8;
    for (int b = 0; b < n_blocks; b++) {
        const int at = b * rule->block;
        uint32_t *points = found->points + b * n_groups;
        uint8_t *signs = found->signs + b * n_signs;
        float scale = 0;
        found->zero[b] = !search(rule, grid, p.values + at, p.weights + at, p.roots + at, &scale, points);
        if (!found->zero[b]) {
            uint8_t flip = scale < 0 ? 0xff : 0;
            for (int k = 0; k < n_signs; k++) signs[k] = p.signs[b * n_signs + k] ^ flip;
        } else {
            memset(points, 0, (size_t)n_groups * sizeof *points);
            memset(signs, 0, (size_t)n_signs);
        }
        found->scales[b] = fabsf(scale);
        if (found->scales[b] > found->largest_scale) found->largest_scale = found->scales[b];
    }
}

float tms_iq_round_scales(const struct tms_iq_found *found, int n, uint8_t *codes)
{
    const float d = found->largest_scale / 31, inverse = 1 / d;
    for (int b = 0; b < n; b++)
        codes[b] = (uint8_t)tms_clamp(tms_nearest(0.5f * (inverse * found->scales[b] - 1)), 0, 15);
    return d;
}

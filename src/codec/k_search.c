/* See k_search.h. All sums run over the block in order, in f32. */
#include "codec/k_search.h"

#include <limits.h>
#include <math.h>

#include "codec/k_lanes.h"

enum { MAX_BLOCK = 32 };

static void affine_block(const struct tms_affine_rule *rule, const float *restrict x, const float *restrict importances,
                         float *restrict scale_out, float *restrict min_out, uint8_t *restrict codes)
{
    const int n = rule->block == 32 ? 32 : 16;
    const int top = (int)rule->top;
    const bool absolute = rule->absolute && !importances;
    float w[MAX_BLOCK];
    if (importances) {
        memcpy(w, importances, (size_t)n * sizeof w[0]);
    } else if (absolute) {
        for (int i = 0; i < n; i++) w[i] = fabsf(x[i]);
    } else {
        float squares = 0;
        for (int i = 0; i < n; i++) squares += x[i] * x[i];
        float root = sqrtf(squares / (float)n);
        for (int i = 0; i < n; i++) w[i] = root + fabsf(x[i]);
    }

    float low = x[0], high = x[0], sum_w = w[0], sum_wx = w[0] * x[0];
    for (int i = 1; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sum_w += w[i];
        sum_wx += w[i] * x[i];
    }
    if (low > 0) low = 0;
    if (high == low) {
        memset(codes, 0, (size_t)n);
        *scale_out = 0;
        *min_out = -low;
        return;
    }

    /* The starting point is k = -1: the range over `top` codes, scale and minimum not fitted. */
    float best_inverse = rule->top / (high - low), best_low = low;
    float scale = 1 / best_inverse, best_error = 0;
    for (int i = 0; i < n; i++) {
        float q = (float)tms_clamp(tms_nearest(best_inverse * (x[i] - low)), 0, top);
        float rest = scale * q + low - x[i];
        best_error += w[i] * (absolute ? fabsf(rest) : rest * rest);
    }

    for (int k = 0; k <= rule->last; k++) {
        float q[MAX_BLOCK];
        float inverse = (rule->first + rule->step * (float)k + rule->top) / (high - low);
        float sum_q = 0, sum_qq = 0, sum_qx = 0;
        for (int i = 0; i < n; i++) {
            q[i] = (float)tms_clamp(tms_nearest(inverse * (x[i] - low)), 0, top);
            float wq = w[i] * q[i];
            sum_q += wq;
            sum_qq += wq * q[i];
            sum_qx += wq * x[i];
        }
        /* Least squares for scale and minimum given the codes; without a minimum where it would be positive. */
        float determinant = sum_w * sum_qq - sum_q * sum_q;
        if (!(determinant > 0)) continue;
        float new_scale = (sum_w * sum_qx - sum_wx * sum_q) / determinant;
        float new_low = (sum_qq * sum_wx - sum_q * sum_qx) / determinant;
        if (new_low > 0) {
            new_low = 0;
            new_scale = sum_qx / sum_qq;
        }
        float error = 0;
        for (int i = 0; i < n; i++) {
            float rest = new_scale * q[i] + new_low - x[i];
            error += w[i] * (absolute ? fabsf(rest) : rest * rest);
        }
        if (error < best_error) {
            best_error = error;
            best_inverse = inverse;
            best_low = low;
            scale = new_scale;
            low = new_low; /* ggml's later candidates start from the fitted minimum: part of the format's habit */
        }
    }
    for (int i = 0; i < n; i++) codes[i] = (uint8_t)tms_clamp(tms_nearest(best_inverse * (x[i] - best_low)), 0, top);
    *scale_out = scale;
    *min_out = -low;
}

/* The weight of largest magnitude, the first of several. */
static float largest(const float *restrict x, int n)
{
    float found = 0, magnitude = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > magnitude) {
            magnitude = fabsf(x[i]);
            found = x[i];
        }
    return found;
}

static void symmetric_block(int n, int half, const float *restrict x, const float *restrict importances,
                            float *restrict scale_out, uint8_t *restrict codes)
{
    float peak = largest(x, n);
    if (fabsf(peak) < TMS_K_TINY) {
        memset(codes, 0, (size_t)n);
        *scale_out = 0;
        return;
    }
    float scale = 0, best = 0, best_inverse = 0;
    for (int k = -10; k <= 9; k++) {
        /* k = -10 stands for the plain scale, which is tried first and taken in any case. */
        bool plain = k == -10;
        if (k == 0) continue;
        float inverse = plain ? -(float)half / peak : -((float)half + 0.1f * (float)k) / peak;
        float sum_qx = 0, sum_qq = 0;
        for (int i = 0; i < n; i++) {
            float q = (float)tms_clamp(tms_nearest(inverse * x[i]), -half, half - 1);
            float w = importances ? importances[i] : x[i] * x[i];
            sum_qx += w * x[i] * q;
            sum_qq += w * q * q;
        }
        if (plain) {
            scale = sum_qq != 0 ? sum_qx / sum_qq : 0;
        } else {
            if (!(sum_qq > 0 && sum_qx * sum_qx > best * sum_qq)) continue;
            scale = sum_qx / sum_qq;
        }
        best = scale * sum_qx;
        best_inverse = inverse;
    }
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(half + tms_clamp(tms_nearest(best_inverse * x[i]), -half, half - 1));
    *scale_out = scale;
}

static void symmetric_by_moves_block(const float *restrict x, float *restrict scale_out, uint8_t *restrict codes)
{
    enum { N = 16, HALF = 4, SWEEPS = 5 };
    float peak = largest(x, N);
    if (fabsf(peak) < TMS_K_TINY) {
        memset(codes, 0, N);
        *scale_out = 0;
        return;
    }
    float inverse = -(float)HALF / peak;
    float q[N], sum_qx = 0, sum_qq = 0;
    for (int i = 0; i < N; i++) {
        q[i] = (float)tms_clamp(tms_nearest(inverse * x[i]), -HALF, HALF - 1);
        float w = x[i] * x[i];
        sum_qx += w * x[i] * q[i];
        sum_qq += w * q[i] * q[i];
    }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        bool moved = false;
        for (int i = 0; i < N; i++) {
            /* The best code of weight i for the scale that the other weights would choose. */
            float w = x[i] * x[i];
            float rest_qx = sum_qx - w * x[i] * q[i];
            if (!(rest_qx > 0)) continue;
            float rest_qq = sum_qq - w * q[i] * q[i];
            float code = (float)tms_clamp(tms_nearest(x[i] * rest_qq / rest_qx), -HALF, HALF - 1);
            if (code == q[i]) continue;
            rest_qx += w * x[i] * code;
            rest_qq += w * code * code;
            if (rest_qq > 0 && rest_qx * rest_qx * sum_qq > sum_qx * sum_qx * rest_qq) {
                q[i] = code;
                sum_qx = rest_qx;
                sum_qq = rest_qq;
                moved = true;
            }
        }
        if (!moved) break;
    }
    for (int i = 0; i < N; i++) codes[i] = (uint8_t)(HALF + (int)q[i]);
    *scale_out = sum_qq > 0 ? sum_qx / sum_qq : 0;
}

static void positive_block(int n, int top, const float *restrict x, const float *restrict w, float *restrict scale_out,
                           uint8_t *restrict codes)
{
    enum { SWEEPS = 5 };
    float peak = 0;
    for (int i = 0; i < n; i++) peak = peak > x[i] ? peak : x[i];
    if (peak < TMS_K_TINY) {
        memset(codes, 0, (size_t)n);
        *scale_out = 0;
        return;
    }
    /* The plain scale first, with codes as they come; then eight others, whose codes have an upper bound. */
    float best_inverse = (float)top / peak, best_error = 0, scale = 1 / best_inverse;
    for (int i = 0; i < n; i++) {
        float rest = x[i] - scale * (float)(uint8_t)tms_nearest(best_inverse * x[i]);
        best_error += w[i] * rest * rest;
    }
    for (int k = -4; k <= 4; k++) {
        if (k == 0) continue;
        float inverse = (0.1f * (float)k + (float)top) / peak, error = 0;
        scale = 1 / inverse;
        for (int i = 0; i < n; i++) {
            float rest = x[i] - scale * (float)tms_clamp(tms_nearest(inverse * x[i]), INT_MIN, top);
            error += w[i] * rest * rest;
        }
        if (error < best_error) {
            best_error = error;
            best_inverse = inverse;
        }
    }
    float sum_qx = 0, sum_qq = 0;
    for (int i = 0; i < n; i++) {
        int q = tms_clamp(tms_nearest(best_inverse * x[i]), INT_MIN, top);
        codes[i] = (uint8_t)q;
        sum_qx += w[i] * x[i] * (float)q;
        sum_qq += w[i] * (float)q * (float)q;
    }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        bool moved = false;
        for (int i = 0; i < n; i++) {
            float rest_qx = sum_qx - w[i] * x[i] * (float)codes[i];
            float rest_qq = sum_qq - w[i] * (float)codes[i] * (float)codes[i];
            if (!(rest_qx > 0 && rest_qq > 0)) continue;
            int q = tms_clamp(tms_nearest(x[i] * rest_qq / rest_qx), INT_MIN, top);
            if (q == codes[i]) continue;
            rest_qx += w[i] * x[i] * (float)q;
            rest_qq += w[i] * (float)q * (float)q;
            if (rest_qx * rest_qx * sum_qq > sum_qx * sum_qx * rest_qq) {
                codes[i] = (uint8_t)q;
                sum_qx = rest_qx;
                sum_qq = rest_qq;
                moved = true;
            }
        }
        if (!moved) break;
    }
    *scale_out = sum_qq > 0 ? sum_qx / sum_qq : 0;
}

/* Block b of the importances, if there are any. */
static const float *of_block(const float *importances, size_t b, size_t n)
{
    return importances ? importances + b * n : NULL;
}

void tms_k_affine(const struct tms_affine_rule *rule, const float *x, const float *importances, size_t n_blocks,
                  float *scales, float *mins, uint8_t *codes)
{
    size_t n = (size_t)rule->block;
    for (size_t b = tms_k_affine_lanes(rule, x, importances, n_blocks, scales, mins, codes); b < n_blocks; b++)
        affine_block(rule, x + b * n, of_block(importances, b, n), scales + b, mins + b, codes + b * n);
}

void tms_k_symmetric(int block, int half, const float *x, const float *importances, size_t n_blocks, float *scales,
                     uint8_t *codes)
{
    size_t n = (size_t)block;
    for (size_t b = tms_k_symmetric_lanes(block, half, x, importances, n_blocks, scales, codes); b < n_blocks; b++)
        symmetric_block(block, half, x + b * n, of_block(importances, b, n), scales + b, codes + b * n);
}

void tms_k_symmetric_by_moves(const float *x, size_t n_blocks, float *scales, uint8_t *codes)
{
    for (size_t b = tms_k_symmetric_by_moves_lanes(x, n_blocks, scales, codes); b < n_blocks; b++)
        symmetric_by_moves_block(x + b * 16, scales + b, codes + b * 16);
}

void tms_k_positive(int block, int top, const float *x, const float *importances, size_t n_blocks, float *scales,
                    uint8_t *codes)
{
    size_t n = (size_t)block;
    for (size_t b = tms_k_positive_lanes(block, top, x, importances, n_blocks, scales, codes); b < n_blocks; b++)
        positive_block(block, top, x + b * n, importances + b * n, scales + b, codes + b * n);
}

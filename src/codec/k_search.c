/* See k_search.h. All sums run over the block in order, in f32. */
#include "codec/k_search.h"

#include <math.h>

#include "codec/k_lanes.h"

enum { MAX_BLOCK = 32 };

static void affine_block(const struct tms_affine_rule *rule, const float *restrict x, float *restrict scale_out,
                         float *restrict min_out, uint8_t *restrict codes)
{
    const int n = rule->block == 32 ? 32 : 16;
    const int top = (int)rule->top;
    float w[MAX_BLOCK];
    if (rule->absolute) {
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
        best_error += w[i] * (rule->absolute ? fabsf(rest) : rest * rest);
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
            error += w[i] * (rule->absolute ? fabsf(rest) : rest * rest);
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

static void symmetric_block(int half, const float *restrict x, float *restrict scale_out, uint8_t *restrict codes)
{
    enum { N = 16 };
    float peak = largest(x, N);
    if (fabsf(peak) < TMS_K_TINY) {
        memset(codes, 0, N);
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
        for (int i = 0; i < N; i++) {
            float q = (float)tms_clamp(tms_nearest(inverse * x[i]), -half, half - 1);
            float w = x[i] * x[i];
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
    for (int i = 0; i < N; i++)
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

void tms_k_affine(const struct tms_affine_rule *rule, const float *x, size_t n_blocks, float *scales, float *mins,
                  uint8_t *codes)
{
    size_t n = (size_t)rule->block;
    for (size_t b = tms_k_affine_lanes(rule, x, n_blocks, scales, mins, codes); b < n_blocks; b++)
        affine_block(rule, x + b * n, scales + b, mins + b, codes + b * n);
}

void tms_k_symmetric(float half, const float *x, size_t n_blocks, float *scales, uint8_t *codes)
{
    for (size_t b = tms_k_symmetric_lanes(half, x, n_blocks, scales, codes); b < n_blocks; b++)
        symmetric_block((int)half, x + b * 16, scales + b, codes + b * 16);
}

void tms_k_symmetric_by_moves(const float *x, size_t n_blocks, float *scales, uint8_t *codes)
{
    for (size_t b = tms_k_symmetric_by_moves_lanes(x, n_blocks, scales, codes); b < n_blocks; b++)
        symmetric_by_moves_block(x + b * 16, scales + b, codes + b * 16);
}

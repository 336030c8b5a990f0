/* The searches for LANES blocks at once; k_lanes.c includes this once per width, with TARGET and NAME. A vector type
 * cannot be a parameter in C, hence the file. Step by step the same arithmetic as k_search.c: read that one first.
 *
 * F holds one float, I one integer, of each block; x[i] is weight i of all blocks. Conditions are I with all bits set
 * or none. Lanes whose block is done in another way (constant, zero) run along, and their results are replaced. */

typedef float NAME(F) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(I) __attribute__((vector_size(4 * LANES)));
#define F      NAME(F)
#define I      NAME(I)
#define INLINE TARGET static inline __attribute__((always_inline))

INLINE F NAME(splat)(float v)
{
    return v - (F){0};
}

INLINE F NAME(select)(I condition, F yes, F no)
{
    return (F)((condition & (I)yes) | (~condition & (I)no));
}

INLINE F NAME(magnitude)(F v)
{
    return (F)((I)v & 0x7fffffff);
}

/* tms_nearest, clamped to low … high, as a float. */
INLINE F NAME(nearest)(F v, int low, int high)
{
    I n = ((I)(v + 12582912.0f) & 0x007fffff) - 0x00400000;
#if LANES == 16
    n = (I)_mm512_min_epi32(_mm512_max_epi32((__m512i)n, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
#else
    n = (I)_mm256_min_epi32(_mm256_max_epi32((__m256i)n, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
#endif
    return __builtin_convertvector(n, F);
}

INLINE F NAME(square_root)(F v)
{
#if LANES == 16
    return (F)_mm512_sqrt_ps((__m512)v);
#else
    return (F)_mm256_sqrt_ps((__m256)v);
#endif
}

INLINE bool NAME(any)(I condition)
{
#if LANES == 16
    return _mm512_test_epi32_mask((__m512i)condition, (__m512i)condition) != 0;
#else
    return _mm256_movemask_ps((__m256)condition) != 0;
#endif
}

/* x[LANES][n] -> x[n] of lanes */
INLINE void NAME(load_blocks)(const float *restrict from, int n, F *restrict x)
{
    for (int i = 0; i < n; i++)
        for (int lane = 0; lane < LANES; lane++) x[i][lane] = from[lane * n + i];
}

INLINE void NAME(store_codes)(const F *restrict q, int n, uint8_t *restrict codes)
{
    uint8_t bytes[32][LANES];
    for (int i = 0; i < n; i++) {
        I whole = __builtin_convertvector(q[i], I);
        for (int lane = 0; lane < LANES; lane++) bytes[i][lane] = (uint8_t)whole[lane];
    }
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < n; i++) codes[lane * n + i] = bytes[i][lane];
}

INLINE void NAME(affine_of)(const struct tms_affine_rule *rule, int n, bool absolute, const float *restrict from,
                            float *restrict scales, float *restrict mins, uint8_t *restrict codes)
{
    const F zero = {0};
    const int top = (int)rule->top;
    F x[32], w[32], q[32];
    NAME(load_blocks)(from, n, x);
    if (absolute) {
        for (int i = 0; i < n; i++) w[i] = NAME(magnitude)(x[i]);
    } else {
        F squares = zero;
        for (int i = 0; i < n; i++) squares += x[i] * x[i];
        F root = NAME(square_root)(squares / (float)n);
        for (int i = 0; i < n; i++) w[i] = root + NAME(magnitude)(x[i]);
    }

    F low = x[0], high = x[0], sum_w = w[0], sum_wx = w[0] * x[0];
    for (int i = 1; i < n; i++) {
        low = NAME(select)(x[i] < low, x[i], low);
        high = NAME(select)(x[i] > high, x[i], high);
        sum_w += w[i];
        sum_wx += w[i] * x[i];
    }
    low = NAME(select)(low > zero, zero, low);
    const I constant = high == low;
    const F constant_min = -low;

    F best_inverse = rule->top / (high - low), best_low = low;
    F scale = 1.0f / best_inverse, best_error = zero;
    for (int i = 0; i < n; i++) {
        F code = NAME(nearest)(best_inverse * (x[i] - low), 0, top);
        F rest = scale * code + low - x[i];
        best_error += w[i] * (absolute ? NAME(magnitude)(rest) : rest * rest);
    }

    for (int k = 0; k <= rule->last; k++) {
        F inverse = (rule->first + rule->step * (float)k + rule->top) / (high - low);
        F sum_q = zero, sum_qq = zero, sum_qx = zero;
        for (int i = 0; i < n; i++) {
            q[i] = NAME(nearest)(inverse * (x[i] - low), 0, top);
            F wq = w[i] * q[i];
            sum_q += wq;
            sum_qq += wq * q[i];
            sum_qx += wq * x[i];
        }
        F determinant = sum_w * sum_qq - sum_q * sum_q;
        F new_scale = (sum_w * sum_qx - sum_wx * sum_q) / determinant;
        F new_low = (sum_qq * sum_wx - sum_q * sum_qx) / determinant;
        I positive = new_low > zero;
        new_low = NAME(select)(positive, zero, new_low);
        new_scale = NAME(select)(positive, sum_qx / sum_qq, new_scale);
        F error = zero;
        for (int i = 0; i < n; i++) {
            F rest = new_scale * q[i] + new_low - x[i];
            error += w[i] * (absolute ? NAME(magnitude)(rest) : rest * rest);
        }
        I better = (determinant > zero) & (error < best_error);
        if (!NAME(any)(better)) continue;
        best_error = NAME(select)(better, error, best_error);
        best_inverse = NAME(select)(better, inverse, best_inverse);
        best_low = NAME(select)(better, low, best_low);
        scale = NAME(select)(better, new_scale, scale);
        low = NAME(select)(better, new_low, low);
    }
    for (int i = 0; i < n; i++)
        q[i] = NAME(select)(constant, zero, NAME(nearest)(best_inverse * (x[i] - best_low), 0, top));
    scale = NAME(select)(constant, zero, scale);
    F min = NAME(select)(constant, constant_min, -low);
    memcpy(scales, &scale, sizeof scale);
    memcpy(mins, &min, sizeof min);
    NAME(store_codes)(q, n, codes);
}

TARGET static void NAME(affine)(const struct tms_affine_rule *rule, const float *restrict x, float *restrict scales,
                                float *restrict mins, uint8_t *restrict codes)
{
    if (rule->block == 32)
        NAME(affine_of)(rule, 32, false, x, scales, mins, codes);
    else
        NAME(affine_of)(rule, 16, true, x, scales, mins, codes);
}

/* The weight of largest magnitude in each block, the first of several. */
INLINE F NAME(peaks)(const F *restrict x, int n)
{
    F found = {0}, largest = {0};
    for (int i = 0; i < n; i++) {
        F m = NAME(magnitude)(x[i]);
        I more = m > largest;
        largest = NAME(select)(more, m, largest);
        found = NAME(select)(more, x[i], found);
    }
    return found;
}

TARGET static void NAME(symmetric)(float half, const float *restrict from, float *restrict scales,
                                   uint8_t *restrict codes)
{
    enum { N = 16 };
    const F zero = {0};
    const int top = (int)half - 1, bottom = -(int)half;
    F x[N];
    NAME(load_blocks)(from, N, x);
    F peak = NAME(peaks)(x, N);
    const I tiny = NAME(magnitude)(peak) < TMS_K_TINY;

    F scale = zero, best = zero, best_inverse = zero;
    for (int k = -10; k <= 9; k++) {
        if (k == 0) continue;
        F inverse = (k == -10 ? -half : -(half + 0.1f * (float)k)) / peak;
        F sum_qx = zero, sum_qq = zero;
        for (int i = 0; i < N; i++) {
            F q = NAME(nearest)(inverse * x[i], bottom, top);
            F w = x[i] * x[i];
            sum_qx += w * x[i] * q;
            sum_qq += w * q * q;
        }
        F new_scale = sum_qx / sum_qq;
        I better;
        if (k == -10) {
            new_scale = NAME(select)(sum_qq != zero, new_scale, zero);
            better = ~(I){0};
        } else {
            better = (sum_qq > zero) & (sum_qx * sum_qx > best * sum_qq);
            if (!NAME(any)(better)) continue;
        }
        scale = NAME(select)(better, new_scale, scale);
        best = NAME(select)(better, new_scale * sum_qx, best);
        best_inverse = NAME(select)(better, inverse, best_inverse);
    }
    F q[N];
    for (int i = 0; i < N; i++) q[i] = NAME(select)(tiny, zero, half + NAME(nearest)(best_inverse * x[i], bottom, top));
    scale = NAME(select)(tiny, zero, scale);
    memcpy(scales, &scale, sizeof scale);
    NAME(store_codes)(q, N, codes);
}

TARGET static void NAME(symmetric_by_moves)(const float *restrict from, float *restrict scales, uint8_t *restrict codes)
{
    enum { N = 16, HALF = 4, SWEEPS = 5 };
    const F zero = {0};
    F x[N], q[N];
    NAME(load_blocks)(from, N, x);
    F peak = NAME(peaks)(x, N);
    const I tiny = NAME(magnitude)(peak) < TMS_K_TINY;

    F inverse = -(float)HALF / peak;
    F sum_qx = zero, sum_qq = zero;
    for (int i = 0; i < N; i++) {
        q[i] = NAME(nearest)(inverse * x[i], -HALF, HALF - 1);
        F w = x[i] * x[i];
        sum_qx += w * x[i] * q[i];
        sum_qq += w * q[i] * q[i];
    }
    /* A block that moved nothing in a sweep moves nothing in the next, so stopping them together is the same. */
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        I moved = {0};
        for (int i = 0; i < N; i++) {
            F w = x[i] * x[i];
            F rest_qx = sum_qx - w * x[i] * q[i];
            F rest_qq = sum_qq - w * q[i] * q[i];
            F code = NAME(nearest)(x[i] * rest_qq / rest_qx, -HALF, HALF - 1);
            I differs = (rest_qx > zero) & (code != q[i]);
            if (!NAME(any)(differs)) continue;
            rest_qx += w * x[i] * code;
            rest_qq += w * code * code;
            I better = differs & (rest_qq > zero) & (rest_qx * rest_qx * sum_qq > sum_qx * sum_qx * rest_qq);
            q[i] = NAME(select)(better, code, q[i]);
            sum_qx = NAME(select)(better, rest_qx, sum_qx);
            sum_qq = NAME(select)(better, rest_qq, sum_qq);
            moved |= better;
        }
        if (!NAME(any)(moved)) break;
    }
    for (int i = 0; i < N; i++) q[i] = NAME(select)(tiny, zero, (float)HALF + q[i]);
    F scale = NAME(select)((sum_qq > zero) & ~tiny, sum_qx / sum_qq, zero);
    memcpy(scales, &scale, sizeof scale);
    NAME(store_codes)(q, N, codes);
}

#undef F
#undef I
#undef INLINE

/* The searches for LANES blocks at once; k_lanes.c includes this once per width, after lanes.h. Step by step the same
 * arithmetic as k_search.c: read that one first.
 *
 * x[i] is weight i of all blocks. Lanes whose block is done in another way (constant, zero) run along, and their
 * results are replaced. */

/* tms_nearest, clamped to low … high, as a float. */
INLINE F NAME(nearest)(F v, int low, int high)
{
    I n = ((I)(v + 12582912.0f) & 0x007fffff) - 0x00400000;
    return __builtin_convertvector(NAME(clamp)(n, low, high), F);
}

/* The same for v that is known to stay below 2^22. */
INLINE F NAME(nearest_tame)(F v, float low, float high)
{
#if LANES == 16
    __m512 n = _mm512_roundscale_ps((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (F)_mm512_min_ps(_mm512_max_ps(n, _mm512_set1_ps(low)), _mm512_set1_ps(high));
#elif LANES == 8
    __m256 n = _mm256_round_ps((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (F)_mm256_min_ps(_mm256_max_ps(n, _mm256_set1_ps(low)), _mm256_set1_ps(high));
#else
    float32x4_t n = vrndnq_f32((float32x4_t)v);
    return (F)vminnmq_f32(vmaxnmq_f32(n, vdupq_n_f32(low)), vdupq_n_f32(high)); /* NaN becomes low, as above */
#endif
}

/* An integer as eight bits hold it. */
INLINE F NAME(wrapped)(F q)
{
    return __builtin_convertvector(__builtin_convertvector(q, I) & 255, F);
}

/* The same for v of any kind or, where the caller knows that all |v| stay below 2^22, the quicker way. */
INLINE F NAME(code)(F v, bool tame, int low, int high)
{
    return tame ? NAME(nearest_tame)(v, (float)low, (float)high) : NAME(nearest)(v, low, high);
}

/* q[n] of lanes -> codes[LANES][n] */
INLINE void NAME(store_codes)(const F *q, int n, uint8_t *codes)
{
#if LANES == 4
    for (int i = 0; i < n; i += 8) {
        float32x4_t low[4], high[4];
        tms_load_transposed_4((const float *)(q + i), LANES, low);
        tms_load_transposed_4((const float *)(q + i + 4), LANES, high);
        for (int k = 0; k < 4; k++) {
            uint32x4_t first = vcvtq_u32_f32(low[k]), second = vcvtq_u32_f32(high[k]);
            vst1_u8(codes + k * n + i, vmovn_u16(vcombine_u16(vmovn_u32(first), vmovn_u32(second))));
        }
    }
#else
    for (int lane = 0; lane < LANES; lane += 8)
        for (int i = 0; i < n; i += 8) {
            __m256 row[8];
            tms_load_transposed_8((const float *)(q + i) + lane, LANES, row);
            for (int k = 0; k < 8; k++) {
                __m256i whole = _mm256_cvttps_epi32(row[k]);
                __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
                _mm_storel_epi64((__m128i *)(void *)(codes + (lane + k) * n + i), _mm_packus_epi16(words, words));
            }
        }
#endif
}

/* One candidate: codes and their sums. `tame` says that no x[i] * inverse reaches 2^22. */
INLINE void NAME(affine_codes)(const F *x, const F *w, int n, F inverse, F low, float top, bool tame, F *q, F *sum_q,
                               F *sum_qq, F *sum_qx)
{
    F s_q = {0}, s_qq = {0}, s_qx = {0};
    for (int i = 0; i < n; i++) {
        F v = inverse * (x[i] - low);
        q[i] = NAME(code)(v, tame, 0, (int)top);
        F wq = w[i] * q[i];
        s_q += wq;
        s_qq += wq * q[i];
        s_qx += wq * x[i];
    }
    *sum_q = s_q;
    *sum_qq = s_qq;
    *sum_qx = s_qx;
}

INLINE void NAME(affine_of)(const struct tms_affine_rule *rule, int n, bool absolute, const float *from,
                            const float *importances, float *scales, float *mins, uint8_t *codes)
{
    const F zero = {0};
    const int top = (int)rule->top;
    F x[32], w[32], q[32];
    NAME(load_blocks)(from, n, x);
    if (importances) {
        NAME(load_blocks)(importances, n, w);
    } else if (absolute) {
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
    const F lowest = low;
    low = NAME(select)(low > zero, zero, low);
    const I constant = high == low;
    const F constant_min = -low;
    high = NAME(select)(constant, low + 1.0f, high); /* keeps such lanes tame, see below */

    F best_inverse = rule->top / (high - low), best_low = low;
    F scale = 1.0f / best_inverse, best_error = zero;
    for (int i = 0; i < n; i++) {
        F code = NAME(nearest)(best_inverse * (x[i] - low), 0, top);
        F rest = scale * code + low - x[i];
        best_error += w[i] * (absolute ? NAME(magnitude)(rest) : rest * rest);
    }

    for (int k = 0; k <= rule->last; k++) {
        F inverse = (rule->first + rule->step * (float)k + rule->top) / (high - low);
        F sum_q, sum_qq, sum_qx;
        /* Rounding keeps order, so all of the block lies between what its smallest and its largest weight give. */
        F one_end = NAME(magnitude)(inverse * (lowest - low)), other_end = NAME(magnitude)(inverse * (high - low));
        if (!NAME(any)(~((one_end < 4194303.0f) & (other_end < 4194303.0f))))
            NAME(affine_codes)(x, w, n, inverse, low, rule->top, true, q, &sum_q, &sum_qq, &sum_qx);
        else
            NAME(affine_codes)(x, w, n, inverse, low, rule->top, false, q, &sum_q, &sum_qq, &sum_qx);
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

TARGET static void NAME(affine)(const struct tms_affine_rule *rule, const float *x, const float *importances,
                                float *scales, float *mins, uint8_t *codes)
{
    if (rule->block == 32 && importances)
        NAME(affine_of)(rule, 32, false, x, importances, scales, mins, codes);
    else if (rule->block == 32)
        NAME(affine_of)(rule, 32, false, x, NULL, scales, mins, codes);
    else if (importances)
        NAME(affine_of)(rule, 16, false, x, importances, scales, mins, codes);
    else
        NAME(affine_of)(rule, 16, true, x, NULL, scales, mins, codes);
}

/* The weight of largest magnitude in each block, the first of several. */
INLINE F NAME(peaks)(const F *x, int n)
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

/* Codes and their sums for one candidate. Without branches: whether one of many lanes gets better is hard to foresee.
 */
INLINE void NAME(try_symmetric)(const F *x, const F *w, const F *wx, int n, int half, bool tame, bool first, F inverse,
                                F *scale, F *best, F *best_inverse)
{
    F sum_qx = {0}, sum_qq = {0};
    for (int i = 0; i < n; i++) {
        F q = NAME(code)(inverse * x[i], tame, -half, half - 1);
        sum_qx += wx[i] * q;
        sum_qq += w[i] * q * q;
    }
    F new_scale = sum_qx / sum_qq;
    I better;
    if (first) {
        new_scale = NAME(select)(sum_qq != (F){0}, new_scale, (F){0});
        better = ~(I){0};
    } else {
        better = (sum_qq > (F){0}) & (sum_qx * sum_qx > *best * sum_qq);
    }
    *scale = NAME(select)(better, new_scale, *scale);
    *best = NAME(select)(better, new_scale * sum_qx, *best);
    *best_inverse = NAME(select)(better, inverse, *best_inverse);
}

INLINE void NAME(symmetric_of)(int n, int half, const float *from, const float *importances, float *scales,
                               uint8_t *codes)
{
    const F zero = {0};
    F x[32], w[32], wx[32], q[32];
    NAME(load_blocks)(from, n, x);
    if (importances)
        NAME(load_blocks)(importances, n, w);
    else
        for (int i = 0; i < n; i++) w[i] = x[i] * x[i];
    for (int i = 0; i < n; i++) wx[i] = w[i] * x[i];
    F peak = NAME(peaks)(x, n);
    const I tiny = NAME(magnitude)(peak) < TMS_K_TINY;

    /* inverse * x is at most half + 0.9, rounded, except in tiny blocks, whose results are replaced, and in those that
     * are not finite: scales that overflowed can be searched too. */
    I finite = ~(I){0};
    for (int i = 0; i < n; i++) finite &= NAME(magnitude)(x[i]) <= FLT_MAX;
    const bool tame = !NAME(any)(~finite);

    F scale = zero, best = zero, best_inverse = zero;
    for (int k = -10; k <= 9; k++) {
        if (k == 0) continue;
        F inverse = (k == -10 ? -(float)half : -((float)half + 0.1f * (float)k)) / peak;
        if (tame)
            NAME(try_symmetric)(x, w, wx, n, half, true, k == -10, inverse, &scale, &best, &best_inverse);
        else
            NAME(try_symmetric)(x, w, wx, n, half, false, k == -10, inverse, &scale, &best, &best_inverse);
    }
    for (int i = 0; i < n; i++)
        q[i] = NAME(select)(tiny, zero, (float)half + NAME(nearest)(best_inverse * x[i], -half, half - 1));
    scale = NAME(select)(tiny, zero, scale);
    memcpy(scales, &scale, sizeof scale);
    NAME(store_codes)(q, n, codes);
}

TARGET static void NAME(symmetric)(int n, int half, const float *x, const float *importances, float *scales,
                                   uint8_t *codes)
{
    if (n == 32)
        NAME(symmetric_of)(32, half, x, importances, scales, codes);
    else
        NAME(symmetric_of)(16, half, x, importances, scales, codes);
}

/* `vectors` (1 or 4) times LANES blocks. Every step waits for the one before it, so that more vectors cost little. */
INLINE void NAME(moves_of)(int vectors, const float *from, float *scales, uint8_t *codes)
{
    enum { N = 16, HALF = 4, SWEEPS = 5 };
    const F zero = {0};
    F x[4][N], w[4][N], wx[4][N], q[4][N], sum_qx[4], sum_qq[4];
    I tiny[4];
    for (int v = 0; v < vectors; v++) {
        NAME(load_blocks)(from + v * LANES * N, N, x[v]);
        F peak = NAME(peaks)(x[v], N);
        F inverse = -(float)HALF / peak;
        tiny[v] = NAME(magnitude)(peak) < TMS_K_TINY;
        sum_qx[v] = sum_qq[v] = zero;
        for (int i = 0; i < N; i++) {
            w[v][i] = x[v][i] * x[v][i];
            wx[v][i] = w[v][i] * x[v][i];
            q[v][i] = NAME(nearest)(inverse * x[v][i], -HALF, HALF - 1);
            sum_qx[v] += wx[v][i] * q[v][i];
            sum_qq[v] += w[v][i] * q[v][i] * q[v][i];
        }
    }
    /* A block that moved nothing in a sweep moves nothing in the next, so stopping them together is the same. */
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        I moved = {0};
        for (int i = 0; i < N; i++)
            for (int v = 0; v < vectors; v++) {
                F rest_qx = sum_qx[v] - wx[v][i] * q[v][i];
                F rest_qq = sum_qq[v] - w[v][i] * q[v][i] * q[v][i];
                F code = NAME(nearest)(x[v][i] * rest_qq / rest_qx, -HALF, HALF - 1);
                I differs = (rest_qx > zero) & (code != q[v][i]);
                if (sweep > 0 && !NAME(any)(differs)) continue;
                rest_qx += wx[v][i] * code;
                rest_qq += w[v][i] * code * code;
                I better =
                    differs & (rest_qq > zero) & (rest_qx * rest_qx * sum_qq[v] > sum_qx[v] * sum_qx[v] * rest_qq);
                q[v][i] = NAME(select)(better, code, q[v][i]);
                sum_qx[v] = NAME(select)(better, rest_qx, sum_qx[v]);
                sum_qq[v] = NAME(select)(better, rest_qq, sum_qq[v]);
                moved |= better;
            }
        if (!NAME(any)(moved)) break;
    }
    for (int v = 0; v < vectors; v++) {
        for (int i = 0; i < N; i++) q[v][i] = NAME(select)(tiny[v], zero, (float)HALF + q[v][i]);
        F scale = NAME(select)((sum_qq[v] > zero) & ~tiny[v], sum_qx[v] / sum_qq[v], zero);
        memcpy(scales + v * LANES, &scale, sizeof scale);
        NAME(store_codes)(q[v], N, codes + v * LANES * N);
    }
}

TARGET static void NAME(symmetric_by_moves)(const float *x, float *scales, uint8_t *codes)
{
    NAME(moves_of)(1, x, scales, codes);
}

TARGET static void NAME(symmetric_by_moves_of_four)(const float *x, float *scales, uint8_t *codes)
{
    NAME(moves_of)(4, x, scales, codes);
}

INLINE void NAME(positive_of)(int n, int top, const float *from, const float *importances, float *scales,
                              uint8_t *codes)
{
    enum { SWEEPS = 5 };
    const F zero = {0};
    F x[16], w[16], q[16];
    NAME(load_blocks)(from, n, x);
    NAME(load_blocks)(importances, n, w);
    F peak = zero;
    for (int i = 0; i < n; i++) peak = NAME(select)(peak > x[i], peak, x[i]);
    const I tiny = peak < TMS_K_TINY;

    F best_inverse = (float)top / peak, best_error = zero, scale = 1.0f / best_inverse;
    for (int i = 0; i < n; i++) {
        F rest = x[i] - scale * NAME(wrapped)(NAME(nearest)(best_inverse * x[i], INT_MIN, INT_MAX));
        best_error += w[i] * rest * rest;
    }
    for (int k = -4; k <= 4; k++) {
        if (k == 0) continue;
        F inverse = (0.1f * (float)k + (float)top) / peak, error = zero;
        scale = 1.0f / inverse;
        for (int i = 0; i < n; i++) {
            F rest = x[i] - scale * NAME(nearest)(inverse * x[i], INT_MIN, top);
            error += w[i] * rest * rest;
        }
        I better = error < best_error;
        best_error = NAME(select)(better, error, best_error);
        best_inverse = NAME(select)(better, inverse, best_inverse);
    }
    F sum_qx = zero, sum_qq = zero;
    for (int i = 0; i < n; i++) {
        F code = NAME(nearest)(best_inverse * x[i], INT_MIN, top);
        sum_qx += w[i] * x[i] * code;
        sum_qq += w[i] * code * code;
        q[i] = NAME(wrapped)(code);
    }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        I moved = {0};
        for (int i = 0; i < n; i++) {
            F rest_qx = sum_qx - w[i] * x[i] * q[i];
            F rest_qq = sum_qq - w[i] * q[i] * q[i];
            F code = NAME(nearest)(x[i] * rest_qq / rest_qx, INT_MIN, top);
            I differs = (rest_qx > zero) & (rest_qq > zero) & (code != q[i]);
            if (sweep > 0 && !NAME(any)(differs)) continue;
            rest_qx += w[i] * x[i] * code;
            rest_qq += w[i] * code * code;
            I better = differs & (rest_qx * rest_qx * sum_qq > sum_qx * sum_qx * rest_qq);
            q[i] = NAME(select)(better, NAME(wrapped)(code), q[i]);
            sum_qx = NAME(select)(better, rest_qx, sum_qx);
            sum_qq = NAME(select)(better, rest_qq, sum_qq);
            moved |= better;
        }
        if (!NAME(any)(moved)) break;
    }
    for (int i = 0; i < n; i++) q[i] = NAME(select)(tiny, zero, q[i]);
    scale = NAME(select)((sum_qq > zero) & ~tiny, sum_qx / sum_qq, zero);
    memcpy(scales, &scale, sizeof scale);
    NAME(store_codes)(q, n, codes);
}

TARGET static void NAME(positive)(int n, int top, const float *x, const float *importances, float *scales,
                                  uint8_t *codes)
{
    if (n == 8)
        NAME(positive_of)(8, top, x, importances, scales, codes);
    else
        NAME(positive_of)(16, top, x, importances, scales, codes);
}

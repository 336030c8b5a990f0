/* The searches of iq1_search.c with vectors of LANES: the split has one block in each lane, the choice of a point one
 * candidate. Step by step the same arithmetic; read that file first. */

/* Sorts every lane, equal values by their number in `order`, which starts as 0 … n - 1. Batcher's odd-even merge sort
 * (The Art of Computer Programming 3, 5.2.2 M). */
INLINE void NAME(sort)(int n, F *x, I *order)
{
    for (int p = 1; p < n; p *= 2)
        for (int k = p; k >= 1; k /= 2)
            for (int j = k % p; j + k < n; j += 2 * k)
                for (int i = j; i < j + k && i + k < n; i++) {
                    if (i / (2 * p) != (i + k) / (2 * p)) continue;
                    F a = x[i], b = x[i + k];
                    I m = order[i], o = order[i + k];
                    I swap = (a > b) | ((a == b) & (m > o));
                    x[i] = NAME(select)(swap, b, a);
                    x[i + k] = NAME(select)(swap, a, b);
                    order[i] = NAME(select_int)(swap, o, m);
                    order[i + k] = NAME(select_int)(swap, m, o);
                }
}

/* v[lane][index of that lane] */
INLINE F NAME(gather)(const float *v, I index)
{
#if LANES == 16
    return (F)_mm512_i32gather_ps((__m512i)index, v, 4);
#elif LANES == 8
    return (F)_mm256_i32gather_ps(v, (__m256i)index, 4);
#else
    F found;
    for (int i = 0; i < 4; i++) { /* by memcpy, as v may be integers */
        float one;
        memcpy(&one, v + index[i], sizeof one);
        found[i] = one;
    }
    return found;
#endif
}

/* 1 / v, but for a part in 2700 or less. */
INLINE F NAME(rough_inverse)(F v)
{
#if LANES == 16
    return (F)_mm512_rcp14_ps((__m512)v);
#elif LANES == 8
    return (F)_mm256_rcp_ps((__m256)v);
#else
    float32x4_t rough = vrecpeq_f32((float32x4_t)v); /* but for a part in 256; */
    return (F)vmulq_f32(rough, vrecpsq_f32((float32x4_t)v, rough));
#endif
}

/* a > b ? a : b */
INLINE F NAME(larger)(F a, F b)
{
#if LANES == 16
    return (F)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (F)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return NAME(select)(a > b, a, b);
#endif
}

/* The best splits so far; at: i1, i2 and signs, 8 bits each. Scores below `low` can be passed over. */
struct NAME(best) {
    F score, scale, low;
    I at;
};

INLINE void NAME(consider)(struct NAME(best) * best, F sum_qx, F sum_qq, int at)
{
    I better = (sum_qq > (F){0}) & (sum_qx * sum_qx > best->score * sum_qq);
    if (!NAME(any)(better)) return;
    F scale = sum_qx / sum_qq;
    best->scale = NAME(select)(better, scale, best->scale);
    best->score = NAME(select)(better, scale * sum_qx, best->score);
    best->at = NAME(select_int)(better, (I){0} + at, best->at);
}

/* Few of the hundreds of candidates can be the winner, but with a block in every lane some lane nearly always has a new
 * best one, and divides. So all scores are estimated first, to 1/2500, and the search starts from a score a little
 * below the largest, `about`, instead of from none.
 *
 * That changes nothing in the end. Comparisons and scores are off by less than 2^-21. Until the search from none
 * exceeds the score that the other one started from, that one takes nothing; when it does, either both take the same
 * candidate, and are equal from then on, or both scores and the candidate's are that close together, and stay so until
 * a candidate is clear of them. Each of the at most 1122 candidates can widen the range by 2^-20, together by 1/900;
 * the largest is at least 1/650 above the start, so that both take it, or did take a larger one.
 *
 * Where products might overflow or vanish, no start is set. */
INLINE void NAME(start)(struct NAME(best) * best, F about, F sum_w)
{
    I safe = (about > 1e-18f) & (about < 1e18f) & (sum_w > 1e-16f) & (sum_w < 1e16f);
    best->score = NAME(select)(safe, about * 0.998f, (F){0} - FLT_MAX);
    best->low = NAME(select)(safe, about * 0.997f, (F){0} - INFINITY);
    best->scale = (F){0};
    best->at = ~(I){0};
}

INLINE F NAME(estimate)(F sum_qx, F sum_qq)
{
    return sum_qx * sum_qx * NAME(rough_inverse)(sum_qq);
}

struct NAME(sums_32) {
    F x[33], w[33];               /* of w * x and w over the smallest */
    F top_x[2][33], top_w[2][33]; /* the parts of level 2, by sign of delta */
};

/* The sums for one split, by sign of delta. Level 1 is delta: its parts for both signs are opposite, or equal. */
INLINE void NAME(pair_32)(const struct NAME(sums_32) * s, int i1, int i2, F *qx, F *qq)
{
    const float p0 = tms_iq1_level(0, TMS_IQ1_DELTA), m0 = tms_iq1_level(0, -TMS_IQ1_DELTA);
    F middle_x = (s->x[i2] - s->x[i1]) * TMS_IQ1_DELTA;
    F middle_w = (s->w[i2] - s->w[i1]) * TMS_IQ1_DELTA * TMS_IQ1_DELTA;
    qx[0] = s->x[i1] * p0 + middle_x + s->top_x[0][i2];
    qx[1] = s->x[i1] * m0 - middle_x + s->top_x[1][i2];
    qq[0] = s->w[i1] * p0 * p0 + middle_w + s->top_w[0][i2];
    qq[1] = s->w[i1] * m0 * m0 + middle_w + s->top_w[1][i2];
}

/* x and w: in ascending order of x. */
INLINE void NAME(split_block_32)(const F *x, const F *w, struct NAME(best) * best)
{
    enum { N = 32, PAIRS = (N + 1) * (N + 2) / 2 };
    const float p2 = tms_iq1_level(2, TMS_IQ1_DELTA), m2 = tms_iq1_level(2, -TMS_IQ1_DELTA);
    struct NAME(sums_32) s;
    s.x[0] = s.w[0] = (F){0};
    for (int i = 0; i < N; i++) {
        s.x[i + 1] = s.x[i] + w[i] * x[i];
        s.w[i + 1] = s.w[i] + w[i];
    }
    for (int i = 0; i <= N; i++) {
        s.top_x[0][i] = (s.x[N] - s.x[i]) * p2;
        s.top_x[1][i] = (s.x[N] - s.x[i]) * m2;
        s.top_w[0][i] = (s.w[N] - s.w[i]) * p2 * p2;
        s.top_w[1][i] = (s.w[N] - s.w[i]) * m2 * m2;
    }
    F qx[2], qq[2], estimates[PAIRS], about = {0};
    for (int i1 = 0, k = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++, k++) {
            NAME(pair_32)(&s, i1, i2, qx, qq);
            estimates[k] = NAME(larger)(NAME(estimate)(qx[0], qq[0]), NAME(estimate)(qx[1], qq[1]));
            about = NAME(larger)(estimates[k], about);
        }
    NAME(start)(best, about, s.w[N]);
    for (int i1 = 0, k = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++, k++) {
            if (!NAME(any)(~(estimates[k] < best->low))) continue;
            NAME(pair_32)(&s, i1, i2, qx, qq);
            for (int signs = 0; signs < 2; signs++)
                NAME(consider)(best, qx[signs], qq[signs], i1 | i2 << 8 | signs << 16);
        }
}

struct NAME(sums_16) {
    F x[2][17], w[2][17];             /* of w * x and w over the smallest, if they belong to this half */
    F all_x[2][2];                    /* by half and sign of delta: the part of all; */
    F at_1[2][2][17], at_2[2][2][17]; /* of i1, with that of all; of i2 */
};

/* The sums for one split, by signs of both deltas. */
INLINE void NAME(pair_16)(const struct NAME(sums_16) * s, int i1, int i2, F *sum_qx, F *sum_qq)
{
    F qx[2][2], qq[2][2];
    for (int half = 0; half < 2; half++) {
        F both = s->x[half][i1] + s->x[half][i2];
        for (int sign = 0; sign < 2; sign++) {
            qx[half][sign] = s->all_x[half][sign] - both;
            qq[half][sign] = s->at_1[half][sign][i1] + s->at_2[half][sign][i2];
        }
    }
    for (int signs = 0; signs < 4; signs++) {
        sum_qx[signs] = qx[0][signs >> 1] + qx[1][signs & 1];
        sum_qq[signs] = qq[0][signs >> 1] + qq[1][signs & 1];
    }
}

INLINE void NAME(split_block_16)(const F *x, const F *w, const I *order, struct NAME(best) * best)
{
    enum { N = 16, PAIRS = (N + 1) * (N + 2) / 2 };
    struct NAME(sums_16) s;
    for (int half = 0; half < 2; half++) {
        s.x[half][0] = s.w[half][0] = (F){0};
        for (int i = 0; i < N; i++) {
            I mine = half ? order[i] >= 8 : order[i] < 8;
            s.x[half][i + 1] = NAME(select)(mine, s.x[half][i] + w[i] * x[i], s.x[half][i]);
            s.w[half][i + 1] = NAME(select)(mine, s.w[half][i] + w[i], s.w[half][i]);
        }
        for (int sign = 0; sign < 2; sign++) {
            float delta = sign ? -TMS_IQ1_DELTA : TMS_IQ1_DELTA;
            float q0 = tms_iq1_level(0, delta), q1 = tms_iq1_level(1, delta), q2 = tms_iq1_level(2, delta);
            s.all_x[half][sign] = s.x[half][N] * q2;
            F all_w = s.w[half][N] * q2 * q2;
            for (int i = 0; i <= N; i++) {
                s.at_1[half][sign][i] = all_w + s.w[half][i] * (q0 * q0 - q1 * q1);
                s.at_2[half][sign][i] = s.w[half][i] * (q1 * q1 - q2 * q2);
            }
        }
    }
    F qx[4], qq[4], estimates[PAIRS], about = {0};
    for (int i1 = 0, k = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++, k++) {
            NAME(pair_16)(&s, i1, i2, qx, qq);
            estimates[k] = NAME(estimate)(qx[0], qq[0]);
            for (int signs = 1; signs < 4; signs++)
                estimates[k] = NAME(larger)(NAME(estimate)(qx[signs], qq[signs]), estimates[k]);
            about = NAME(larger)(estimates[k], about);
        }
    NAME(start)(best, about, s.w[0][N] + s.w[1][N]);
    for (int i1 = 0, k = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++, k++) {
            if (!NAME(any)(~(estimates[k] < best->low))) continue;
            NAME(pair_16)(&s, i1, i2, qx, qq);
            for (int signs = 0; signs < 4; signs++)
                NAME(consider)(best, qx[signs], qq[signs], i1 | i2 << 8 | signs << 16);
        }
}

INLINE void NAME(split_of)(int n, const float *from, const float *from_w, float *scales, uint8_t *signs,
                           uint16_t *places)
{
    F x[32], sorted[33], w[32], largest = {0};
    I order[33], lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    NAME(load_blocks)(from, n, x);
    for (int i = 0; i < n; i++) {
        F m = NAME(magnitude)(x[i]);
        largest = NAME(select)(m > largest, m, largest);
        sorted[i] = x[i];
        order[i] = (I){0} + i;
    }
    NAME(sort)(n, sorted, order);
    for (int i = 0; i < n; i++) w[i] = NAME(gather)(from_w, lane * n + order[i]);
    struct NAME(best) best;
    if (n == 32)
        NAME(split_block_32)(sorted, w, &best);
    else
        NAME(split_block_16)(sorted, w, order, &best);

    /* Nothing better than nothing leaves `at` negative. */
    const I zero = (largest < TMS_IQ1_TINY(n)) | (best.at < 0), turned = best.scale < (F){0};
    const I first = best.at & 0xff, second = best.at >> 8 & 0xff, last = (I){0} + (n == 32 ? 1 : 3);
    I sign = best.at >> 16;
    F scale = NAME(select)(zero, (F){0}, NAME(select)(turned, -best.scale, best.scale));
    sign = NAME(select_int)(zero, (I){0}, NAME(select_int)(turned, last - sign, sign));

    /* The level of a weight follows from where it stands in the order relative to the two borders; behind the last
     * stands one that is larger than all. */
    sorted[n] = (F){0} + INFINITY;
    order[n] = (I){0} + n;
    const I at_1 = NAME(select_int)(zero, (I){0}, first) * LANES + lane;
    const I at_2 = NAME(select_int)(zero, (I){0}, second) * LANES + lane;
    const F x_1 = NAME(gather)((const float *)sorted, at_1), x_2 = NAME(gather)((const float *)sorted, at_2);
    const I i_1 = (I)NAME(gather)((const float *)order, at_1), i_2 = (I)NAME(gather)((const float *)order, at_2);
    memcpy(scales, &scale, sizeof scale);
    for (int i = 0; i < LANES; i++) signs[i] = (uint8_t)sign[i];
    for (int g = 0; g < n / 8; g++) {
        I place = {0};
        for (int i = 8 * g + 7; i >= 8 * g; i--) {
            I below_1 = (x[i] < x_1) | ((x[i] == x_1) & (i < i_1));
            I below_2 = (x[i] < x_2) | ((x[i] == x_2) & (i < i_2));
            I level = 2 + below_1 + below_2;
            place = place + place + place + NAME(select_int)(turned, 2 - level, level);
        }
        place = NAME(select_int)(zero, (I){0} + TMS_IQ1_NOWHERE, place);
        for (int i = 0; i < LANES; i++) places[i * (n / 8) + g] = (uint16_t)place[i];
    }
}

TARGET static void NAME(split_blocks)(int n, const float *x, const float *w, float *scales, uint8_t *signs,
                                      uint16_t *places)
{
    if (n == 32)
        NAME(split_of)(32, x, w, scales, signs, places);
    else
        NAME(split_of)(16, x, w, scales, signs, places);
}

/* A vector of errors, one per candidate. For every coordinate there are only three, one per level. */
TARGET static int NAME(least)(const uint16_t *codes, int n, const float *x, const float *w, float scale, float delta)
{
#if LANES == 4
    float terms[4][8] = {{0}};
    for (int i = 0; i < 8; i += 4)
        for (int l = 0; l < 3; l++) {
            F rest = scale * tms_iq1_level(l, delta) - NAME(load)(x + i);
            F term = NAME(load)(w + i) * rest * rest;
            memcpy(terms[l] + i, &term, sizeof term);
        }
    /* errors[i]: of the three levels of coordinate i */
    float32x4_t errors[8];
    tms_load_transposed_4(terms[0], 8, errors);
    tms_load_transposed_4(terms[0] + 4, 8, errors + 4);
    const I each_byte = (I){0} + 0x01010101, bytes = (I){0} + 0x03020100; /* of one float among floats */
#else
    __m256 values = _mm256_loadu_ps(x), weights = _mm256_loadu_ps(w), e[3];
    for (int l = 0; l < 3; l++) {
        __m256 rest = _mm256_sub_ps(_mm256_set1_ps(scale * tms_iq1_level(l, delta)), values);
        e[l] = _mm256_mul_ps(_mm256_mul_ps(weights, rest), rest);
    }
    /* errors[i]: of the three levels of coordinate i */
    __m128 errors[8];
    for (int half = 0; half < 2; half++) {
        __m128 a = half ? _mm256_extractf128_ps(e[0], 1) : _mm256_castps256_ps128(e[0]);
        __m128 b = half ? _mm256_extractf128_ps(e[1], 1) : _mm256_castps256_ps128(e[1]);
        __m128 c = half ? _mm256_extractf128_ps(e[2], 1) : _mm256_castps256_ps128(e[2]);
        __m128 ab = _mm_unpacklo_ps(a, b), ab_high = _mm_unpackhi_ps(a, b);
        errors[4 * half] = _mm_shuffle_ps(ab, c, _MM_SHUFFLE(0, 0, 1, 0));
        errors[4 * half + 1] = _mm_shuffle_ps(ab, c, _MM_SHUFFLE(1, 1, 3, 2));
        errors[4 * half + 2] = _mm_shuffle_ps(ab_high, c, _MM_SHUFFLE(2, 2, 1, 0));
        errors[4 * half + 3] = _mm_shuffle_ps(ab_high, c, _MM_SHUFFLE(3, 3, 3, 2));
    }
#endif
    F best = (F){0} + FLT_MAX;
    I at, found = {0};
    for (int i = 0; i < LANES; i++) at[i] = i;
    for (int j = 0; j < n; j += LANES, at += LANES) {
        F error = {0};
#if LANES == 16
        __m512i code = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(codes + j)));
        for (int i = 0; i < 8; i++, code = _mm512_srli_epi32(code, 2))
            error += (F)_mm512_permutevar_ps(_mm512_broadcast_f32x4(errors[i]), code);
#elif LANES == 8
        __m256i code = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(codes + j)));
        for (int i = 0; i < 8; i++, code = _mm256_srli_epi32(code, 2))
            error += (F)_mm256_permutevar_ps(_mm256_set_m128(errors[i], errors[i]), code);
#else
        I code = (I)vmovl_u16(vld1_u16(codes + j));
        for (int i = 0; i < 8; i++, code >>= 2)
            error += (F)vqtbl1q_u8((uint8x16_t)errors[i], (uint8x16_t)(bytes + 4 * each_byte * (code & 3)));
#endif
        I better = error < best;
        best = NAME(select)(better, error, best);
        found = NAME(select_int)(better, at, found);
    }
    /* The first of the lanes' bests. */
#if LANES == 16
    float least = _mm512_reduce_min_ps((__m512)best);
    I first = NAME(select_int)(best == least, found, (I){0} + n);
    int number = _mm512_reduce_min_epi32((__m512i)first);
#elif LANES == 8
    __m128 v = _mm_min_ps(_mm256_castps256_ps128((__m256)best), _mm256_extractf128_ps((__m256)best, 1));
    v = _mm_min_ps(v, _mm_movehl_ps(v, v));
    float least = _mm_cvtss_f32(_mm_min_ss(v, _mm_movehdup_ps(v)));
    I first = NAME(select_int)(best == least, found, (I){0} + n);
    __m128i m = _mm_min_epi32(_mm256_castsi256_si128((__m256i)first), _mm256_extracti128_si256((__m256i)first, 1));
    m = _mm_min_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    int number = _mm_cvtsi128_si32(_mm_min_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1))));
#else
    float least = vminvq_f32((float32x4_t)best);
    int number = vminvq_s32((int32x4_t)NAME(select_int)(best == least, found, (I){0} + n));
#endif
    return least < FLT_MAX ? number : -1;
}

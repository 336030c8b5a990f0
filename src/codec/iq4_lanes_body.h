/* scale_of_block of iq4_search.c for LANES blocks at once, step by step the same arithmetic; read that first. */

/* tms_iq4_code's number, as a float. */
#if LANES == 16
struct NAME(tables) {
    __m512 middle[2], lower[2], upper[2];
};

/* Intervals [8 k - 4, 8 k + 4] hold one middle at most, and none lies on a border; k modulo 32 is the entry. */
INLINE struct NAME(tables) NAME(load_tables)(void)
{
    float middle[32], lower[32], upper[32];
    for (int k = -16; k < 16; k++) {
        int code = 0;
        for (int j = 0; j < 15; j++) code += tms_iq4_middles[j] < (float)(8 * k - 4);
        bool divided = code < 15 && tms_iq4_middles[code] < (float)(8 * k + 4);
        middle[k & 31] = divided ? tms_iq4_middles[code] : 0;
        lower[k & 31] = tms_iq4_numbers[code];
        upper[k & 31] = tms_iq4_numbers[code + divided];
    }
    struct NAME(tables) t;
    memcpy(t.middle, middle, sizeof middle);
    memcpy(t.lower, lower, sizeof lower);
    memcpy(t.upper, upper, sizeof upper);
    return t;
}

INLINE F NAME(number)(const struct NAME(tables) * t, F value)
{
    __m512 v = (__m512)value;
    /* The minimum is its second operand where v is NaN, which ends at the top, as it must. */
    __m512 near = _mm512_max_ps(_mm512_min_ps(v, _mm512_set1_ps(120)), _mm512_set1_ps(-120));
    __m512i k = (__m512i)_mm512_add_ps(near, _mm512_set1_ps(0x1.8p26f)); /* whose floats are 8 apart */
    __m512 middle = _mm512_permutex2var_ps(t->middle[0], k, t->middle[1]);
    __m512 lower = _mm512_permutex2var_ps(t->lower[0], k, t->lower[1]);
    __m512 upper = _mm512_permutex2var_ps(t->upper[0], k, t->upper[1]);
    return (F)_mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, middle, _CMP_NLT_UQ), lower, upper);
}
#elif LANES == 8
struct NAME(tables) {
    __m256 third, fourth, lower, upper;
};

/* A binary search whose first two steps choose among constants and whose last two look up entry -r modulo 8, where r
 * are the bits of the code found so far. */
INLINE struct NAME(tables) NAME(load_tables)(void)
{
    float third[8] = {0}, fourth[8], lower[8], upper[8];
    for (int r = 0; r < 8; r++) {
        if (r < 4) third[-r & 7] = tms_iq4_middles[4 * r + 1];
        fourth[-r & 7] = tms_iq4_middles[2 * r];
        lower[-r & 7] = tms_iq4_numbers[2 * r];
        upper[-r & 7] = tms_iq4_numbers[2 * r + 1];
    }
    struct NAME(tables)
        t = {_mm256_loadu_ps(third), _mm256_loadu_ps(fourth), _mm256_loadu_ps(lower), _mm256_loadu_ps(upper)};
    return t;
}

INLINE F NAME(number)(const struct NAME(tables) * t, F value)
{
    __m256 v = (__m256)value;
    __m256 first = _mm256_cmp_ps(v, _mm256_set1_ps(tms_iq4_middles[7]), _CMP_NLT_UQ);
    __m256 middle = _mm256_blendv_ps(_mm256_set1_ps(tms_iq4_middles[3]), _mm256_set1_ps(tms_iq4_middles[11]), first);
    I r = (I)first + (I)first + (I)_mm256_cmp_ps(v, middle, _CMP_NLT_UQ);
    middle = _mm256_permutevar8x32_ps(t->third, (__m256i)r);
    r = r + r + (I)_mm256_cmp_ps(v, middle, _CMP_NLT_UQ);
    middle = _mm256_permutevar8x32_ps(t->fourth, (__m256i)r);
    __m256 lower = _mm256_permutevar8x32_ps(t->lower, (__m256i)r);
    __m256 upper = _mm256_permutevar8x32_ps(t->upper, (__m256i)r);
    return (F)_mm256_blendv_ps(lower, upper, _mm256_cmp_ps(v, middle, _CMP_NLT_UQ));
}
#else
struct NAME(tables) {
    uint8x16_t third;
    uint8x16x2_t fourth;
    uint8x16_t numbers;
};

/* The same binary search. Bits count from the top here, 1 where v is below a middle, so that NaN ends at the top; the
 * tables of the last steps are in that order. */
INLINE struct NAME(tables) NAME(load_tables)(void)
{
    float third[4], fourth[8];
    uint8_t numbers[16];
    for (int r = 0; r < 4; r++) third[r] = tms_iq4_middles[13 - 4 * r];
    for (int r = 0; r < 8; r++) fourth[r] = tms_iq4_middles[14 - 2 * r];
    for (int r = 0; r < 16; r++) numbers[r] = (uint8_t)tms_iq4_numbers[15 - r];
    struct NAME(tables) t;
    memcpy(&t.third, third, sizeof third);
    memcpy(&t.fourth, fourth, sizeof fourth);
    memcpy(&t.numbers, numbers, sizeof numbers);
    return t;
}

INLINE F NAME(number)(const struct NAME(tables) * t, F v)
{
    const I each_byte = (I){0} + 0x01010101, bytes = (I){0} + 0x03020100; /* of one float among floats */
    I r = v < tms_iq4_middles[7];                                         /* minus the bits so far */
    r = r + r + (v < NAME(select)(r, (F){0} + tms_iq4_middles[3], (F){0} + tms_iq4_middles[11]));
    r = r + r + (v < (F)vqtbl1q_u8(t->third, (uint8x16_t)(bytes - 4 * each_byte * r)));
    r = r + r + (v < (F)vqtbl2q_u8(t->fourth, (uint8x16_t)(bytes - 4 * each_byte * r)));
    /* The number comes to the highest byte, and 0 to the others, as indexes beyond the table give 0. */
    I number = (I)vqtbl1q_u8(t->numbers, (uint8x16_t)(0x00ffffff - (r << 24)));
    return (F)vcvtq_n_f32_s32((int32x4_t)number, 24);
}
#endif

TARGET static void NAME(scales)(const float *from, const float *importance, const float *sigma2, float *scales)
{
    enum { N = 32 };
    const F zero = {0};
    const struct NAME(tables) tables = NAME(load_tables)();
    F x[N], w[N], peak = zero, largest = zero;
    NAME(load_blocks)(from, N, x);
    if (importance && sigma2) {
        NAME(load_blocks)(importance, N, w);
        F sigma = NAME(load)(sigma2);
        for (int i = 0; i < N; i++) w[i] *= NAME(square_root)(sigma + x[i] * x[i]);
    } else {
        for (int i = 0; i < N; i++) w[i] = x[i] * x[i];
    }
    for (int i = 0; i < N; i++) {
        F m = NAME(magnitude)(x[i]);
        I more = m > largest;
        largest = NAME(select)(more, m, largest);
        peak = NAME(select)(more, x[i], peak);
    }
    const I tiny = largest < TMS_IQ4_TINY;

    F scale = zero, best = zero;
    for (int k = -8; k <= 7; k++) {
        F inverse = k == -8 ? 1 / (-peak / -127) : ((float)k - 127) / peak;
        F sum_qx = zero, sum_qq = zero;
        for (int i = 0; i < N; i++) {
            F q = NAME(number)(&tables, inverse * x[i]);
            F wq = w[i] * q;
            sum_qx += wq * x[i];
            sum_qq += wq * q;
        }
        I better = (sum_qq > zero) & (sum_qx * sum_qx > best * sum_qq);
        F fitted = sum_qx / sum_qq;
        if (k == -8) {
            fitted = NAME(select)(sum_qq > zero, fitted, zero);
            better = ~(I){0};
        }
        scale = NAME(select)(better, fitted, scale);
        best = NAME(select)(better, fitted * sum_qx, best);
    }
    scale = NAME(select)(tiny, zero, scale);
    memcpy(scales, &scale, sizeof scale);
}

/* The sums of rounded.h for x86-64; included by rounded.c once per level, after unpack_lanes.h. LANES is 16 where there
 * is VNNI, and 8 with AVX2; eight lanes are blocks of 32, so that two vectors of them are sixteen. */

#define ROWS  4    /* that share the last additions */
#define AHEAD 4096 /* bytes that are fetched before they are needed; past the end of what is mapped nothing happens */

struct NAME(sums) {
#if LANES == 16
    __m512 products[2];
#else
    __m256 products[4];
#endif
    __m256 mins[2];
};

INLINE void NAME(clear)(struct NAME(sums) * s)
{
#if LANES == 16
    s->products[0] = s->products[1] = _mm512_setzero_ps();
#else
    for (int i = 0; i < 4; i++) s->products[i] = _mm256_setzero_ps();
#endif
    s->mins[0] = s->mins[1] = _mm256_setzero_ps();
}

/* Codes of a kind, as rounded.c's table has them: offset by 2^shift, or (shift < 0) not, or with signs apart. */
INLINE void NAME(add_unit)(const struct NAME(unit) * u, const struct tms_rounded_unit *x, const bool by_16,
                           const bool has_mins, const int shift, const bool has_signs, struct NAME(sums) * s)
{
    const __m256 x_scales = _mm256_loadu_ps(x->scales);
#if LANES == 16
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 scales;
    if (by_16)
        scales = _mm512_mul_ps(_mm512_insertf32x8(_mm512_castps256_ps512(u->scales[0]), u->scales[1], 1),
                               _mm512_permutexvar_ps(_mm512_srli_epi32(lane, 1), _mm512_castps256_ps512(x_scales)));
    else
        scales = _mm512_castps256_ps512(_mm256_mul_ps(u->scales[0], x_scales));
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        const __m512i place = by_16 ? _mm512_add_epi32(_mm512_srli_epi32(lane, 2), _mm512_set1_epi32(4 * p))
                                    : _mm512_add_epi32(_mm512_srli_epi32(lane, 3), _mm512_set1_epi32(2 * p));
        __m512i codes = _mm512_loadu_si512(x->codes + 64 * p), sum = _mm512_setzero_si512();
        if (has_signs)
            codes = _mm512_mask_sub_epi8(codes, (uint64_t)u->signs[2 * p + 1] << 32 | u->signs[2 * p], sum, codes);
        if (shift >= 0) sum = _mm512_slli_epi32(_mm512_loadu_si512(x->sums + 16 * p), (unsigned)shift);
        sum = _mm512_dpbusd_epi32(sum, u->pairs[p], codes);
        s->products[p % 2] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_permutexvar_ps(place, scales), s->products[p % 2]);
    }
#else
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i halves = _mm256_srli_epi32(lane, 1), quarters = _mm256_srli_epi32(lane, 2);
    __m256 scales[2];
    scales[0] = _mm256_mul_ps(u->scales[0], by_16 ? _mm256_permutevar8x32_ps(x_scales, halves) : x_scales);
    if (by_16)
        scales[1] = _mm256_mul_ps(u->scales[1],
                                  _mm256_permutevar8x32_ps(x_scales, _mm256_add_epi32(halves, _mm256_set1_epi32(4))));
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        const __m256i place = by_16 ? _mm256_add_epi32(quarters, _mm256_set1_epi32(2 * (j % 4))) : _mm256_set1_epi32(j);
        __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(x->codes + 32 * j)), w = u->codes[j];
        if (has_signs) codes = NAME(with_signs)(codes, u->signs[j]);
        if (shift == 7) { /* products of bytes up to 255 would not fit 16 bits in pairs */
            w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            codes = _mm256_sign_epi8(codes, w);
            w = _mm256_abs_epi8(w);
        }
        __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(w, codes), _mm256_set1_epi16(1));
        if (shift >= 0 && shift < 7)
            sum = _mm256_add_epi32(
                sum, _mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(x->sums + 8 * j)), shift));
        s->products[j % 4] = _mm256_fmadd_ps(
            _mm256_cvtepi32_ps(sum), _mm256_permutevar8x32_ps(scales[by_16 ? j / 4 : 0], place), s->products[j % 4]);
    }
#endif
    if (!has_mins) return;
    s->mins[0] = _mm256_fmadd_ps(u->mins[0], _mm256_loadu_ps(by_16 ? x->by_16 : x->by_32), s->mins[0]);
    if (by_16) s->mins[1] = _mm256_fmadd_ps(u->mins[1], _mm256_loadu_ps(x->by_16 + 8), s->mins[1]);
}

INLINE __m128 NAME(fold)(__m256 v)
{
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

INLINE __m128 NAME(fold_products)(const struct NAME(sums) * s)
{
#if LANES == 16
    const __m512 sum = _mm512_add_ps(s->products[0], s->products[1]);
    return NAME(fold)(_mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1)));
#else
    return NAME(fold)(
        _mm256_add_ps(_mm256_add_ps(s->products[0], s->products[2]), _mm256_add_ps(s->products[1], s->products[3])));
#endif
}

/* The four lanes of each of four vectors, added in halves. */
INLINE __m128 NAME(add_four)(const __m128 v[4])
{
    const __m128 ab = _mm_add_ps(_mm_movelh_ps(v[0], v[1]), _mm_movehl_ps(v[1], v[0]));
    const __m128 cd = _mm_add_ps(_mm_movelh_ps(v[2], v[3]), _mm_movehl_ps(v[3], v[2]));
    return _mm_add_ps(_mm_shuffle_ps(ab, cd, _MM_SHUFFLE(2, 0, 2, 0)), _mm_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 1, 3, 1)));
}

INLINE void NAME(fetch)(const uint8_t *from, int n)
{
#pragma GCC unroll 5
    for (int i = 0; i < n; i += 64) _mm_prefetch((const char *)from + i, _MM_HINT_T0);
}

/* Row after row, as they lie in memory: several at once would be more streams than are fetched ahead well. Only the
 * last additions are shared. */
#define ROW_FUNCTION(name, unit_bytes, by_16, has_mins, shift, has_signs, book)                                        \
    TARGET static void NAME(rows_##name)(const uint8_t *rows, size_t row_bytes, size_t n_rows, size_t n_units,         \
                                         const uint8_t(*tails)[MAX_UNIT_BYTES], const struct tms_rounded_unit *x,      \
                                         float *y)                                                                     \
    {                                                                                                                  \
        const uint8_t *values = book_values(book);                                                                     \
        __m128 products[ROWS], mins[ROWS];                                                                             \
        for (size_t r = 0; r < ROWS; r++) products[r] = mins[r] = _mm_setzero_ps();                                    \
        for (size_t r = 0; r < n_rows; r++) {                                                                          \
            struct NAME(sums) sums;                                                                                    \
            NAME(clear)(&sums);                                                                                        \
            for (size_t i = 0; i < n_units + (tails ? 1 : 0); i++) {                                                   \
                const uint8_t *b = i < n_units ? rows + r * row_bytes + i * (unit_bytes) : tails[r];                   \
                struct NAME(unit) u;                                                                                   \
                u.values = values;                                                                                     \
                NAME(fetch)(b + AHEAD, unit_bytes);                                                                    \
                NAME(unpack_##name)(b, &u);                                                                            \
                NAME(add_unit)(&u, x + i, by_16, has_mins, shift, has_signs, &sums);                                   \
            }                                                                                                          \
            products[r] = NAME(fold_products)(&sums);                                                                  \
            if (has_mins) mins[r] = NAME(fold)(_mm256_add_ps(sums.mins[0], sums.mins[1]));                             \
        }                                                                                                              \
        __m128 result = NAME(add_four)(products);                                                                      \
        if (has_mins) result = _mm_sub_ps(result, NAME(add_four)(mins));                                               \
        float flat[ROWS];                                                                                              \
        _mm_storeu_ps(flat, result);                                                                                   \
        memcpy(y, flat, n_rows * sizeof *y);                                                                           \
    }
ROUNDED_TYPES(ROW_FUNCTION)
#undef ROW_FUNCTION
#undef ROWS
#undef AHEAD

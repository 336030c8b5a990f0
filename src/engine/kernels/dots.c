/* See dots.h. The scalar functions are the definition; the vector ones keep a tile of sums in registers. */
#include "engine/kernels/dots.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"

#define LANES 16
/* Rows of x that stay in the second-level cache (90 of 4 KB, a multiple of all tiles) while all rows of w pass by. */
#define X_BLOCK 90

static float add_lanes(float *lanes)
{
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

static float dot_piece(const float *x, const float *y, size_t n)
{
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) lanes[l] = fmaf(x[i + l], y[i + l], lanes[l]);
    for (size_t l = 0; i + l < n; l++) lanes[l] = fmaf(x[i + l], y[i + l], lanes[l]);
    return add_lanes(lanes);
}

static void dots_scalar(const float *x, size_t ldx, size_t n_x, const float *w, size_t ldw, size_t n_w, size_t k,
                        float *y, size_t ldy, bool add)
{
    for (size_t i = 0; i < n_x; i++)
        for (size_t j = 0; j < n_w; j++) {
            float sum = dot_piece(x + i * ldx, w + j * ldw, k);
            y[i * ldy + j] = add ? y[i * ldy + j] + sum : sum;
        }
}

static void weighted_sums_scalar(const float *p, size_t ldp, size_t n_p, const float *v, size_t ldv, size_t n_v,
                                 size_t n_c, float *acc, size_t lda)
{
    for (size_t i = 0; i < n_p; i++)
        for (size_t j = 0; j < n_v; j++)
            for (size_t c = 0; c < n_c; c++) acc[i * lda + c] = fmaf(p[i * ldp + j], v[j * ldv + c], acc[i * lda + c]);
}

#if defined(__x86_64__)
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Four vectors of four lanes -> their four sums, lanes added in halves. */
TMS_TARGET_AVX2 INLINE __m128 add_four(__m128 a, __m128 b, __m128 c, __m128 d)
{
    __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    __m128 cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    return _mm_add_ps(_mm_shuffle_ps(ab, cd, _MM_SHUFFLE(2, 0, 2, 0)), _mm_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 1, 3, 1)));
}

TMS_TARGET_AVX512 INLINE __m128 fold_512(__m512 a)
{
    __m256 s = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

TMS_TARGET_AVX2 INLINE __m128 fold_256(__m256 low, __m256 high)
{
    __m256 s = _mm256_add_ps(low, high);
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

/* Writes m x n sums, folded to four lanes each. */
TMS_TARGET_AVX2 INLINE void store_tile(__m128 *sums, size_t m, size_t n, float *y, size_t ldy, bool add)
{
    float flat[32];
    size_t count = m * n;
    for (size_t s = count; s % 4 != 0; s++) sums[s] = _mm_setzero_ps();
    for (size_t s = 0; s < count; s += 4)
        _mm_storeu_ps(flat + s, add_four(sums[s], sums[s + 1], sums[s + 2], sums[s + 3]));
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) y[i * ldy + j] = add ? y[i * ldy + j] + flat[i * n + j] : flat[i * n + j];
}

/* m rows of x with n rows of w; m and n are constants where this is called, so that the sums live in registers. */
TMS_TARGET_AVX512 INLINE void tile_512(const float *x, size_t ldx, size_t m, const float *w, size_t ldw, size_t n,
                                       size_t k, float *y, size_t ldy, bool add)
{
    __m512 sum[5][5];
    __m128 folded[28];
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) sum[i][j] = _mm512_setzero_ps();
    for (size_t c = 0; c < k; c += LANES) {
        __m512 b[5];
        for (size_t j = 0; j < n; j++) b[j] = _mm512_loadu_ps(w + j * ldw + c);
        for (size_t i = 0; i < m; i++) {
            __m512 a = _mm512_loadu_ps(x + i * ldx + c);
            for (size_t j = 0; j < n; j++) sum[i][j] = _mm512_fmadd_ps(a, b[j], sum[i][j]);
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) folded[i * n + j] = fold_512(sum[i][j]);
    store_tile(folded, m, n, y, ldy, add);
}

/* Sixteen lanes are two registers here. */
TMS_TARGET_AVX2 INLINE void tile_256(const float *x, size_t ldx, size_t m, const float *w, size_t ldw, size_t n,
                                     size_t k, float *y, size_t ldy, bool add)
{
    __m256 low[3][2], high[3][2];
    __m128 folded[8];
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) low[i][j] = high[i][j] = _mm256_setzero_ps();
    for (size_t c = 0; c < k; c += LANES) {
        for (size_t i = 0; i < m; i++) {
            __m256 a = _mm256_loadu_ps(x + i * ldx + c);
            for (size_t j = 0; j < n; j++) low[i][j] = _mm256_fmadd_ps(a, _mm256_loadu_ps(w + j * ldw + c), low[i][j]);
        }
        for (size_t i = 0; i < m; i++) {
            __m256 a = _mm256_loadu_ps(x + i * ldx + c + 8);
            for (size_t j = 0; j < n; j++)
                high[i][j] = _mm256_fmadd_ps(a, _mm256_loadu_ps(w + j * ldw + c + 8), high[i][j]);
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) folded[i * n + j] = fold_256(low[i][j], high[i][j]);
    store_tile(folded, m, n, y, ldy, add);
}

/* Walks tiles of at most M x N; what is left at the edges goes row by row. */
#define DEFINE_DOTS(name, target, tile, M, N)                                                                          \
    target static void name(const float *x, size_t ldx, size_t n_x, const float *w, size_t ldw, size_t n_w, size_t k,  \
                            float *y, size_t ldy, bool add)                                                            \
    {                                                                                                                  \
        for (size_t block = 0; block < n_x; block += X_BLOCK) {                                                        \
            size_t end = block + X_BLOCK < n_x ? block + X_BLOCK : n_x;                                                \
            for (size_t j = 0; j < n_w;) {                                                                             \
                const float *wj = w + j * ldw;                                                                         \
                size_t n = n_w - j >= (N) ? (N) : 1;                                                                   \
                for (size_t i = block; i < end;) {                                                                     \
                    const float *xi = x + i * ldx;                                                                     \
                    float *to = y + i * ldy + j;                                                                       \
                    size_t m = end - i >= (M) ? (M) : 1;                                                               \
                    if (n == (N) && m == (M))                                                                          \
                        tile(xi, ldx, M, wj, ldw, N, k, to, ldy, add);                                                 \
                    else if (n == (N))                                                                                 \
                        tile(xi, ldx, 1, wj, ldw, N, k, to, ldy, add);                                                 \
                    else if (m == (M))                                                                                 \
                        tile(xi, ldx, M, wj, ldw, 1, k, to, ldy, add);                                                 \
                    else                                                                                               \
                        tile(xi, ldx, 1, wj, ldw, 1, k, to, ldy, add);                                                 \
                    i += m;                                                                                            \
                }                                                                                                      \
                j += n;                                                                                                \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_DOTS(dots_avx512, TMS_TARGET_AVX512, tile_512, 5, 5)
DEFINE_DOTS(dots_avx2, TMS_TARGET_AVX2, tile_256, 3, 2)

/* m rows of p times columns c … c + 16 n of v. */
TMS_TARGET_AVX512 INLINE void sums_512(const float *p, size_t ldp, size_t m, const float *v, size_t ldv, size_t n_v,
                                       size_t n, float *acc, size_t lda)
{
    __m512 sum[6][4];
    for (size_t i = 0; i < m; i++)
        for (size_t c = 0; c < n; c++) sum[i][c] = _mm512_loadu_ps(acc + i * lda + LANES * c);
    for (size_t j = 0; j < n_v; j++) {
        __m512 b[4];
        for (size_t c = 0; c < n; c++) b[c] = _mm512_loadu_ps(v + j * ldv + LANES * c);
        for (size_t i = 0; i < m; i++) {
            __m512 a = _mm512_set1_ps(p[i * ldp + j]);
            for (size_t c = 0; c < n; c++) sum[i][c] = _mm512_fmadd_ps(a, b[c], sum[i][c]);
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t c = 0; c < n; c++) _mm512_storeu_ps(acc + i * lda + LANES * c, sum[i][c]);
}

TMS_TARGET_AVX512 static void weighted_sums_avx512(const float *p, size_t ldp, size_t n_p, const float *v, size_t ldv,
                                                   size_t n_v, size_t n_c, float *acc, size_t lda)
{
    for (size_t c = 0; c < n_c;) {
        size_t n = n_c - c >= 4 * LANES ? 4 : 1;
        for (size_t i = 0; i < n_p;) {
            const float *pi = p + i * ldp;
            float *to = acc + i * lda + c;
            size_t m = n_p - i >= 6 ? 6 : 1;
            if (n == 4 && m == 6)
                sums_512(pi, ldp, 6, v + c, ldv, n_v, 4, to, lda);
            else if (n == 4)
                sums_512(pi, ldp, 1, v + c, ldv, n_v, 4, to, lda);
            else if (m == 6)
                sums_512(pi, ldp, 6, v + c, ldv, n_v, 1, to, lda);
            else
                sums_512(pi, ldp, 1, v + c, ldv, n_v, 1, to, lda);
            i += m;
        }
        c += n * LANES;
    }
}

TMS_TARGET_AVX2 INLINE void sums_256(const float *p, size_t ldp, size_t m, const float *v, size_t ldv, size_t n_v,
                                     float *acc, size_t lda)
{
    __m256 sum[6][2];
    for (size_t i = 0; i < m; i++)
        for (size_t c = 0; c < 2; c++) sum[i][c] = _mm256_loadu_ps(acc + i * lda + 8 * c);
    for (size_t j = 0; j < n_v; j++) {
        __m256 low = _mm256_loadu_ps(v + j * ldv), high = _mm256_loadu_ps(v + j * ldv + 8);
        for (size_t i = 0; i < m; i++) {
            __m256 a = _mm256_set1_ps(p[i * ldp + j]);
            sum[i][0] = _mm256_fmadd_ps(a, low, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(a, high, sum[i][1]);
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t c = 0; c < 2; c++) _mm256_storeu_ps(acc + i * lda + 8 * c, sum[i][c]);
}

TMS_TARGET_AVX2 static void weighted_sums_avx2(const float *p, size_t ldp, size_t n_p, const float *v, size_t ldv,
                                               size_t n_v, size_t n_c, float *acc, size_t lda)
{
    for (size_t c = 0; c < n_c; c += LANES)
        for (size_t i = 0; i < n_p;) {
            size_t m = n_p - i >= 6 ? 6 : 1;
            if (m == 6)
                sums_256(p + i * ldp, ldp, 6, v + c, ldv, n_v, acc + i * lda + c, lda);
            else
                sums_256(p + i * ldp, ldp, 1, v + c, ldv, n_v, acc + i * lda + c, lda);
            i += m;
        }
}
#endif

void tms_dots(const float *x, size_t ldx, size_t n_x, const float *w, size_t ldw, size_t n_w, size_t k, float *y,
              size_t ldy, bool add)
{
    switch (tms_cpu_level()) {
#if defined(__x86_64__)
    case TMS_CPU_AVX512: dots_avx512(x, ldx, n_x, w, ldw, n_w, k, y, ldy, add); break;
    case TMS_CPU_AVX2: dots_avx2(x, ldx, n_x, w, ldw, n_w, k, y, ldy, add); break;
#endif
    default: dots_scalar(x, ldx, n_x, w, ldw, n_w, k, y, ldy, add); break;
    }
}

float tms_dot(const float *x, const float *y, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i += TMS_DOT_PIECE) {
        size_t k = n - i < TMS_DOT_PIECE ? n - i : TMS_DOT_PIECE, whole = k / LANES * LANES;
        float piece;
        if (whole == k)
            tms_dots(x + i, 0, 1, y + i, 0, 1, k, &piece, 0, false);
        else
            piece = dot_piece(x + i, y + i, k);
        sum = i ? sum + piece : piece;
    }
    return sum;
}

void tms_weighted_sums(const float *p, size_t ldp, size_t n_p, const float *v, size_t ldv, size_t n_v, size_t n_c,
                       float *acc, size_t lda)
{
    switch (tms_cpu_level()) {
#if defined(__x86_64__)
    case TMS_CPU_AVX512: weighted_sums_avx512(p, ldp, n_p, v, ldv, n_v, n_c, acc, lda); break;
    case TMS_CPU_AVX2: weighted_sums_avx2(p, ldp, n_p, v, ldv, n_v, n_c, acc, lda); break;
#endif
    default: weighted_sums_scalar(p, ldp, n_p, v, ldv, n_v, n_c, acc, lda); break;
    }
}

/* The search in one block with vectors of LANES floats; iq_lanes.c includes this once per width, with TARGET and NAME,
 * and says how it works. */

typedef float NAME(F) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(I) __attribute__((vector_size(4 * LANES)));
#define F      NAME(F)
#define I      NAME(I)
#define INLINE TARGET static inline __attribute__((always_inline))

#define GROUP struct NAME(group)
#define RUN   struct NAME(run)
#define RUNS  struct NAME(runs)

/* Choices at once: each has eight lanes, with NEON in two vectors. */
#define CHOICES (LANES == 16 ? 2 : 1)

INLINE F NAME(splat)(float v)
{
    return v - (F){0};
}

INLINE F NAME(load)(const float *from)
{
    F v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE F NAME(minimum)(F a, F b)
{
#if LANES == 16
    return (F)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (F)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return (F)vbslq_f32(vcltq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#endif
}

INLINE F NAME(maximum)(F a, F b)
{
#if LANES == 16
    return (F)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (F)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (F)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#endif
}

#if LANES == 4
/* Bit i: whether lane i is all ones, not 0. */
INLINE unsigned NAME(bits_of)(I condition)
{
    return (unsigned)vaddvq_s32((int32x4_t)(condition & (I){1, 2, 4, 8}));
}
#endif

/* Bit i: whether lane i of a is less than, or not above, that of b. */
INLINE unsigned NAME(less)(F a, F b)
{
#if LANES == 16
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
#elif LANES == 8
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ));
#else
    return NAME(bits_of)(a < b);
#endif
}

INLINE unsigned NAME(not_above)(F a, F b)
{
#if LANES == 16
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ);
#elif LANES == 8
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ));
#else
    return NAME(bits_of)(a <= b);
#endif
}

INLINE unsigned NAME(differ)(I a, I b)
{
#if LANES == 16
    return _mm512_cmpneq_epi32_mask((__m512i)a, (__m512i)b);
#elif LANES == 8
    return 0xff & ~(unsigned)_mm256_movemask_ps((__m256)_mm256_cmpeq_epi32((__m256i)a, (__m256i)b));
#else
    return NAME(bits_of)(a != b);
#endif
}

/* tms_nearest, clamped. */
INLINE I NAME(nearest)(F v, int low, int high)
{
    I n = ((I)(v + 12582912.0f) & 0x007fffff) - 0x00400000;
#if LANES == 16
    return (I)_mm512_min_epi32(_mm512_max_epi32((__m512i)n, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
#elif LANES == 8
    return (I)_mm256_min_epi32(_mm256_max_epi32((__m256i)n, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
#else
    return (I)vminq_s32(vmaxq_s32((int32x4_t)n, vdupq_n_s32(low)), vdupq_n_s32(high));
#endif
}

#if LANES > 4
/* For each lane the entry of the table that its level, the lowest of its bits, says: of four entries in every 128 bits,
 * or of eight; with 16 lanes the tables of two choices lie one behind the other, the fourth bit says which. */
INLINE F NAME(look_up)(F table, I points, int bits)
{
#if LANES == 16
    if (bits == 2) return (F)_mm512_permutevar_ps((__m512)table, (__m512i)points);
    return (F)_mm512_permutexvar_ps((__m512i)points, (__m512)table);
#else
    if (bits == 2) return (F)_mm256_permutevar_ps((__m256)table, (__m256i)points);
    return (F)_mm256_permutevar8x32_ps((__m256)table, (__m256i)points);
#endif
}

/* 2 l + 1 for the levels of such a table. */
INLINE F NAME(odd_table)(int bits)
{
    F table;
    for (int lane = 0; lane < LANES; lane++) table[lane] = (float)(2 * (lane & (bits == 2 ? 3 : 7)) + 1);
    return table;
}

/* The least of every eight lanes, in each of them. */
INLINE F NAME(least_of_eight)(F v)
{
#if LANES == 16
    __m512 m = _mm512_min_ps((__m512)v, _mm512_shuffle_f32x4((__m512)v, (__m512)v, 0xb1));
    m = _mm512_min_ps(m, _mm512_permute_ps(m, 0x4e));
    return (F)_mm512_min_ps(m, _mm512_permute_ps(m, 0xb1));
#else
    __m256 m = _mm256_min_ps((__m256)v, _mm256_permute2f128_ps((__m256)v, (__m256)v, 1));
    m = _mm256_min_ps(m, _mm256_permute_ps(m, 0x4e));
    return (F)_mm256_min_ps(m, _mm256_permute_ps(m, 0xb1));
#endif
}

/* 2 l + 1 for levels l, the lowest bits of each lane. */
INLINE F NAME(odd)(I points, int bits)
{
    return NAME(look_up)(NAME(odd_table)(bits), points, bits);
}
#endif

INLINE float NAME(largest_lane)(F v)
{
#if LANES == 16
    return _mm512_reduce_max_ps((__m512)v);
#elif LANES == 8
    return -NAME(least_of_eight)(-v)[0];
#else
    return vmaxvq_f32((float32x4_t)v);
#endif
}

/* A group's magnitudes and roots of weights, each in all lanes, and how much nearer a point must be. */
struct NAME(group) {
    F x[8], roots[8];
    float margin;
};

/* Set in a chosen point that is not nearer than all others by the margin. */
#define CLOSE 0x80000000u

#if LANES == 4
#include "codec/iq_choose_neon.h"
#else
/* Points j … of a list, the same eight for each choice. */
INLINE I NAME(load_points)(const uint32_t *near, int bits)
{
#if LANES == 16
    I points = (I)_mm512_broadcast_i32x8(_mm256_loadu_si256((const __m256i *)near));
    if (bits == 4) points |= (I)_mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(0x8888), 1);
    return points;
#else
    (void)bits;
    return (I)_mm256_loadu_si256((const __m256i *)near);
#endif
}

/* d where it is below FLT_MAX and one of the first `left` of eight lanes; FLT_MAX elsewhere. */
INLINE F NAME(limit)(F d, int left)
{
    const F limit = NAME(splat)(FLT_MAX);
#if LANES == 16
    static const uint16_t first_of_eight[9] = {0x0000, 0x0101, 0x0303, 0x0707, 0x0f0f, 0x1f1f, 0x3f3f, 0x7f7f, 0xffff};
    __mmask16 valid = first_of_eight[left < 8 ? left : 8];
    return (F)_mm512_mask_min_ps((__m512)limit, valid, (__m512)d, (__m512)limit);
#else
    static const int32_t none[16] = {0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1};
    I invalid;
    memcpy(&invalid, none + 8 - (left < 8 ? left : 8), sizeof invalid);
    return NAME(minimum)((F)((I)d | invalid), limit); /* limit, where d is no number */
#endif
}

/* Chooses for CHOICES scales, each in its eight lanes, the best point of one list for a group. `is_short`: the list has
 * at most eight. `marks`: with CLOSE where it is. */
INLINE void NAME(choose)(const GROUP *g, int group, int bits, const uint32_t *restrict near, int count, bool is_short,
                         bool marks, F scales, uint32_t chosen[CHOICES])
{
    F table[8];
    const F q = scales * NAME(odd_table)(bits);
    for (int i = 0; i < group; i++) {
        F rest = q - g->x[i];
        table[i] = g->roots[i] * rest * rest;
    }
    F best = NAME(splat)(FLT_MAX), second = best;
    I from = {0};
    for (int j = 0; j < (is_short ? 1 : count); j += 8) {
        I points = NAME(load_points)(near + j, bits);
        F d = NAME(look_up)(table[0], points, bits);
        for (int i = 1; i < group; i++) d += NAME(look_up)(table[i], points >> bits * i, bits);
        d = NAME(limit)(d, count - j);
        if (is_short) {
            best = d;
            break;
        }
#if LANES == 16
        from = (I)_mm512_mask_mov_epi32((__m512i)from, _mm512_cmp_ps_mask((__m512)d, (__m512)best, _CMP_LT_OQ),
                                        _mm512_set1_epi32(j));
#else
        I less = d < best;
        from = (less & j) | (~less & from);
#endif
        if (marks) second = NAME(minimum)(second, NAME(maximum)(best, d));
        best = NAME(minimum)(best, d);
    }
    /* One bit for each eight lanes: that is the point, and nothing is close to it. */
    const F least = NAME(least_of_eight)(best), near_least = marks ? least + g->margin : least;
    const unsigned close = NAME(not_above)(best, near_least);
    const unsigned close_seconds = marks && !is_short ? NAME(not_above)(second, near_least) : 0;
    for (int k = 0; k < CHOICES; k++) {
        const unsigned lanes = close >> 8 * k & 0xff;
        int lane = __builtin_ctz(lanes), position = is_short ? lane : from[8 * k + lane] + lane;
        uint32_t mark = close_seconds >> 8 * k & 0xff ? CLOSE : 0;
        if (__builtin_expect((lanes & (lanes - 1)) != 0, 0)) {
            /* Of several with the least distance, the first in the list. */
            mark = CLOSE;
            position = INT_MAX;
            for (unsigned equal = NAME(not_above)(best, least) >> 8 * k & 0xff; equal; equal &= equal - 1) {
                lane = __builtin_ctz(equal);
                position = from[8 * k + lane] + lane < position ? from[8 * k + lane] + lane : position;
            }
        }
        chosen[k] = near[position] | (marks ? mark : 0);
    }
}
#endif

/* Candidates first … last that round a group to the same place, and points for the first and the last of them. */
struct NAME(run) {
    uint32_t group, first, last;
    uint32_t count;
    const uint32_t *near; /* [count] to choose from */
    uint32_t left, right;
};

/* Runs, in the order of groups and candidates, and by how many times eight points they have to choose from: loops of
 * equal length run best. Loops over short lists, and hardly a branch in them: most of them would be mispredicted. */
enum { NAME(BUCKETS) = 4, NAME(MAX_RUNS) = TMS_IQ_MAX_GROUPS * MAX_CANDIDATES };
struct NAME(runs) {
    RUN all[NAME(MAX_RUNS)];
    uint16_t buckets[NAME(BUCKETS)][NAME(MAX_RUNS)];
    uint32_t n, n_in[NAME(BUCKETS)];
};

/* places[g][c + 1] is that of candidate c. */
INLINE void NAME(find_runs)(RUNS *runs, const struct tms_iq_grid *grid, int32_t (*places)[ROW + 1], int n_groups,
                            int n_candidates)
{
    memset(runs->n_in, 0, sizeof runs->n_in);
    uint32_t n = 0;
    for (int g = 0; g < n_groups; g++) {
        uint64_t starts = 0;
        for (int c = 0; c < n_candidates; c += LANES) {
            I here, before;
            memcpy(&here, places[g] + c + 1, sizeof here);
            memcpy(&before, places[g] + c, sizeof before);
            starts |= (uint64_t)NAME(differ)(here, before) << c;
        }
        uint64_t lasts = (starts & (((uint64_t)1 << n_candidates) - 1)) >> 1 | (uint64_t)1 << (n_candidates - 1);
        for (uint32_t first = 0; lasts; lasts &= lasts - 1) {
            const struct tms_iq_place *at = &grid->places[places[g][first + 1]];
            RUN *r = &runs->all[n];
            r->group = (uint32_t)g;
            r->first = first;
            r->last = (uint32_t)__builtin_ctzll(lasts);
            r->count = at->count;
            r->near = grid->near + at->first;
            r->left = r->right = r->near[0];
            first = r->last + 1;
            int bucket = (at->count - 1) / 8;
            if (bucket >= NAME(BUCKETS)) bucket = NAME(BUCKETS) - 1;
            runs->buckets[bucket][runs->n_in[bucket]] = (uint16_t)n++;
            runs->n_in[bucket] += at->count > 1;
        }
    }
    runs->n = n;
}

/* The points for CHOICES candidates of a run. */
INLINE void NAME(choose_some)(const GROUP *g, const RUN *r, int group, int bits, bool is_short, bool marks, float first,
                              float second, uint32_t chosen[CHOICES])
{
#if LANES == 16
    F scales = (F)_mm512_insertf32x8(_mm512_set1_ps(first), _mm256_set1_ps(second), 1);
#else
    (void)second;
    F scales = NAME(splat)(first);
#endif
    NAME(choose)(g, group, bits, r->near, (int)r->count, is_short, marks, scales, chosen);
}

/* The points for the ends of the runs of a bucket. */
INLINE void NAME(choose_ends)(RUNS *runs, int bucket, const GROUP *groups, int group, int bits,
                              const float *restrict scales)
{
    for (uint32_t i = 0; i < runs->n_in[bucket]; i++) {
        RUN *r = &runs->all[runs->buckets[bucket][i]];
        uint32_t chosen[2];
        const GROUP *g = &groups[r->group];
        const float first = scales[r->first], last = scales[r->last];
        NAME(choose_some)(g, r, group, bits, bucket == 0, true, first, last, chosen);
        if (CHOICES == 1) NAME(choose_some)(g, r, group, bits, bucket == 0, true, last, last, chosen + 1);
        r->left = chosen[0];
        r->right = chosen[1];
    }
}

/* Points of all candidates. Where the ends of a run have the same point, those between have it; where not, all are
 * searched. (To search for the change instead, by halves or where the ends predict it, takes fewer steps and longer:
 * they wait for each other.) */
INLINE void NAME(fill_runs)(RUNS *runs, const GROUP *groups, int group, int bits, const float *restrict scales,
                            uint32_t (*points)[ROW])
{
    uint16_t open[2][NAME(MAX_RUNS)]; /* with short lists, with long ones */
    uint32_t n_open[2] = {0, 0};
    for (uint32_t i = 0; i < runs->n; i++) {
        const RUN r = runs->all[i];
        uint32_t *row = points[r.group];
        const I left = (I){0} + (int32_t)r.left;
        /* Stores whole vectors; the runs that follow write over what is too much. */
#if LANES == 16
        memcpy(row + r.first, &left, sizeof left); /* no run is longer than two vectors; no branch */
        memcpy(row + r.first + LANES, &left, sizeof left);
#else
        for (uint32_t c = r.first; c <= r.last; c += LANES) memcpy(row + c, &left, sizeof left);
#endif
        row[r.last] = r.right;
        const bool is_long = r.count > 8;
        open[is_long][n_open[is_long]] = (uint16_t)i;
        n_open[is_long] += (r.last - r.first > 1) & !(r.left == r.right && !(r.left & CLOSE));
    }
    for (int is_long = 0; is_long < 2; is_long++)
        for (uint32_t i = 0; i < n_open[is_long]; i++) {
            const RUN r = runs->all[open[is_long][i]];
            uint32_t *row = points[r.group];
            for (uint32_t c = r.first + 1; c < r.last; c += CHOICES) {
                const float first = scales[c], second = scales[c + CHOICES - 1];
                NAME(choose_some)(&groups[r.group], &r, group, bits, !is_long, false, first, second, row + c);
            }
        }
}

/* One scale for one group. */
INLINE uint32_t NAME(choose_one)(const GROUP *g, int group, int bits, const uint32_t *restrict near, int count,
                                 float scale)
{
    uint32_t chosen[CHOICES];
    if (count == 1) return near[0];
    NAME(choose)(g, group, bits, near, count, count <= 8, false, NAME(splat)(scale), chosen);
    return chosen[0];
}

/* place + step in the lanes where p is above, or at least, a limit. */
INLINE I NAME(step_if_above)(I place, F p, float limit, int step)
{
#if LANES == 16
    __mmask16 above = _mm512_cmp_ps_mask((__m512)p, _mm512_set1_ps(limit), _CMP_GT_OQ);
    return (I)_mm512_mask_add_epi32((__m512i)place, above, (__m512i)place, _mm512_set1_epi32(step));
#else
    return place + ((p > limit) & step);
#endif
}

/* Places that all candidates round a group to. `tame`: no inverse * x reaches 2^22. Then, of three levels, the middle
 * one begins above inverse * x = 2, a tie that goes to 0, and the last one at 4, a tie that goes to 2. */
INLINE void NAME(find_places)(const GROUP *g, int group, bool tame, const float *restrict inverses, int n_candidates,
                              int32_t *restrict places)
{
    const int levels = group == 8 ? 3 : 8;
    for (int c = 0; c < n_candidates; c += LANES) {
        F inverse = NAME(load)(inverses + c);
        I place = {0};
        if (levels == 3 && tame)
            for (int i = 0, step = 1; i < group; i++, step *= 3) {
                F p = inverse * g->x[i];
                place = NAME(step_if_above)(place, p, 2, step);
                place = NAME(step_if_above)(place, p, 0x1.fffffep1f, step);
            }
        else
            for (int i = group - 1; i >= 0; i--) {
                I level = NAME(nearest)(0.5f * (inverse * g->x[i] - 1.0f), 0, levels - 1);
                place = (levels == 3 ? place + place + place : place << 3) + level;
            }
        memcpy(places + c, &place, sizeof place);
    }
}

static const float NAME(lane_numbers)[ROW] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                              16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

/* Sums in order over n terms. */
INLINE void NAME(sum_two)(const float *restrict a, const float *restrict b, int n, float *restrict sum_a,
                          float *restrict sum_b)
{
    float s = 0, t = 0;
    for (int i = 0; i < n; i++) {
        s += a[i];
        t += b[i];
    }
    *sum_a = s;
    *sum_b = t;
}

/* The candidate that is left when each, in order, replaces the one before it if qx² / qq is larger; -1: none, all qq
 * are 0 or less. What lies behind n candidates may be anything.
 *
 * As a loop over all it would be a chain of divisions and of branches that are hard to foresee. Only those within 1e-5
 * of the largest qx² / qq count, 80 times what roundings can do: whatever the others do, the first of these replaces
 * it. So the loop is run for these alone; for all where products might underflow or overflow. */
INLINE int NAME(choose_candidate)(const float *qx, const float *qq, int n, float *scale)
{
    F ratios[ROW / LANES], most = {0};
    const F zero = {0};
    for (int k = 0; k * LANES < n; k++) {
        const F x = NAME(load)(qx + LANES * k), q = NAME(load)(qq + LANES * k);
        const I usable = (q > zero) & (NAME(load)(NAME(lane_numbers) + LANES * k) < (float)n);
        ratios[k] = (F)((I)(x / q * x) & usable);
        most = NAME(maximum)(most, ratios[k]);
    }
    const float largest = NAME(largest_lane)(most);
    uint32_t contenders = 0, unsafe = 0;
    for (int k = 0; k * LANES < n; k++) {
        const F x = NAME(load)(qx + LANES * k), q = NAME(load)(qq + LANES * k);
        contenders |= (uint32_t)NAME(less)(NAME(splat)(largest * 0.99999f), ratios[k]) << LANES * k;
        unsafe |= (uint32_t)(NAME(less)(NAME(splat)(1e36f), x * x) | NAME(less)(q * largest, NAME(splat)(1e-35f)))
                  << LANES * k;
    }
    const uint32_t all = (uint32_t)(((uint64_t)1 << n) - 1);
    if ((unsafe & all) || !(largest < 1e36f)) contenders = all;
    int chosen = -1;
    float best = 0;
    for (; contenders; contenders &= contenders - 1) {
        const int c = __builtin_ctz(contenders);
        if (qq[c] > 0 && qx[c] * qx[c] > best * qq[c]) {
            *scale = qx[c] / qq[c];
            best = *scale * qx[c];
            chosen = c;
        }
    }
    return chosen;
}

/* fitted_scale of iq_search.c: lanes are the nine candidates, then weights. */
INLINE float NAME(fitted_scale)(int n, int top, float largest, const float *restrict x, const float *restrict weights)
{
    /* The plain scale first; its codes wrap. */
    static const float ks[16] = {0, -4, -3, -2, -1, 1, 2, 3, 4};
    float inverses[16], errors[16];
    for (int c = 0; c < 16; c += LANES) {
        F inverse = (0.1f * NAME(load)(ks + c) + (float)top) / largest, scale = 1.0f / inverse, error = {0};
        I mask = ~(I){0};
        if (c == 0) mask[0] = 0xff;
        for (int i = 0; i < n; i++) {
            I q = NAME(nearest)(inverse * x[i], INT32_MIN, top) & mask;
            F rest = x[i] - scale * __builtin_convertvector(q, F);
            error += weights[i] * rest * rest;
        }
        memcpy(inverses + c, &inverse, sizeof inverse);
        memcpy(errors + c, &error, sizeof error);
    }
    float inverse = inverses[0], least = errors[0];
    for (int c = 1; c < 9; c++)
        if (errors[c] < least) {
            least = errors[c];
            inverse = inverses[c];
        }

    float q[TMS_IQ_MAX_BLOCK], terms_qx[TMS_IQ_MAX_BLOCK], terms_qq[TMS_IQ_MAX_BLOCK], qx, qq;
    for (int i = 0; i < n; i += LANES) {
        F v = NAME(load)(x + i), w = NAME(load)(weights + i);
        I whole = NAME(nearest)(inverse * v, INT32_MIN, top);
        F code = __builtin_convertvector(whole, F), wrapped = __builtin_convertvector(whole & 0xff, F);
        F term_qx = w * v * code, term_qq = w * code * code;
        memcpy(terms_qx + i, &term_qx, sizeof term_qx);
        memcpy(terms_qq + i, &term_qq, sizeof term_qq);
        memcpy(q + i, &wrapped, sizeof wrapped);
    }
    NAME(sum_two)(terms_qx, terms_qq, n, &qx, &qq);
    for (int sweep = 0; sweep < 5; sweep++) {
        bool moved = false;
        for (int i = 0; i < n; i += LANES) {
            F v = NAME(load)(x + i), w = NAME(load)(weights + i);
            /* Codes seldom move: try all lanes, move the first that would, and try those behind it again. */
            for (unsigned left = (1u << LANES) - 1; left;) {
                F old = NAME(load)(q + i);
                F rest_qx = qx - w * v * old, rest_qq = qq - w * old * old;
                I whole = NAME(nearest)(v * rest_qq / rest_qx, INT32_MIN, top);
                F code = __builtin_convertvector(whole, F);
                F new_qx = rest_qx + w * v * code, new_qq = rest_qq + w * code * code;
                const F zero = {0};
                unsigned better = NAME(less)(zero, rest_qx) & NAME(less)(zero, rest_qq) &
                                  NAME(less)(qx * qx * new_qq, new_qx * new_qx * qq) & NAME(differ)((I)code, (I)old) &
                                  left;
                if (!better) break;
                int lane = __builtin_ctz(better);
                q[i + lane] = (float)(uint8_t)whole[lane];
                qx = new_qx[lane];
                qq = new_qq[lane];
                moved = true;
                left &= ~((2u << lane) - 1);
            }
        }
        if (!moved) break;
    }
    return qq > 0 ? qx / qq : 0;
}

/* The sums of n candidates with their points. */
INLINE void NAME(sum_candidates)(uint32_t (*points)[ROW], int n, int n_groups, int group, const float *x,
                                 const float *weights, float *restrict all_qx, float *restrict all_qq)
{
    const int bits = group == 8 ? 2 : 4;
    for (int c = 0; c < n; c += LANES) {
        F qx = {0}, qq = {0};
        for (int g = 0; g < n_groups; g++) {
            I p;
            memcpy(&p, &points[g][c], sizeof p);
            for (int i = 0; i < group; i++) {
                float w = weights[g * group + i], wx = w * x[g * group + i];
                F q = NAME(odd)(p >> bits * i, bits);
                qx += wx * q;
                qq += w * q * q;
            }
        }
        memcpy(all_qx + c, &qx, sizeof qx);
        memcpy(all_qq + c, &qq, sizeof qq);
    }
}

/* The candidate that is left, for blocks of two groups of eight. Neighbours have mostly the same two points: 19
 * candidates have three or four different pairs, which are tried instead. A pair that was chosen is chosen again by the
 * next candidate that has it, and so by the last one, if roundings have it that qx² > best * qq. */
INLINE int NAME(choose_of_pairs)(uint32_t (*points)[ROW], int n_candidates, const float *x, const float *weights,
                                 float *scale)
{
    uint32_t lasts = (uint32_t)1 << (n_candidates - 1); /* of the candidates with a pair */
    for (int c = 0; c < n_candidates; c += LANES)
        for (int g = 0; g < 2; g++) {
            I here, next;
            memcpy(&here, &points[g][c], sizeof here);
            memcpy(&next, &points[g][c + 1], sizeof next);
            lasts |= (uint32_t)NAME(differ)(here, next) << c & (((uint32_t)1 << (n_candidates - 1)) - 1);
        }
    uint32_t pairs[2][ROW];
    int last[ROW], n = 0;
    for (uint32_t left = lasts; left; left &= left - 1, n++) {
        last[n] = __builtin_ctz(left);
        pairs[0][n] = points[0][last[n]];
        pairs[1][n] = points[1][last[n]];
    }
    for (int g = 0; g < 2; g++) memset(&pairs[g][n], 0, LANES * sizeof pairs[g][n]); /* the rest of the last vector */
    float qx[ROW], qq[ROW];
    NAME(sum_candidates)(pairs, n, 2, 8, x, weights, qx, qq);
    const int pair = NAME(choose_candidate)(qx, qq, n, scale);
    if (pair < 0) return -1;
    if (qx[pair] * qx[pair] > *scale * qx[pair] * qq[pair]) return last[pair];
    return pair > 0 ? last[pair - 1] + 1 : 0;
}

/* x: magnitudes; n and group are constants where this is inlined. */
INLINE bool NAME(search_of)(const struct tms_iq_rule *rule, const struct tms_iq_grid *grid, const float *restrict x,
                            const float *restrict weights, const float *restrict roots, float *restrict scale_out,
                            uint32_t *restrict points_out, int n, int group)
{
    const int n_groups = n / group, bits = group == 8 ? 2 : 4, top = group == 8 ? 2 : 7;
    const float steps = (float)(2 * top + 1);
    const int n_candidates = 2 * rule->last + 1;

    F most = NAME(load)(x), most_magnitude = {0};
    for (int i = 0; i < n; i += LANES) {
        F v = NAME(load)(x + i);
        most = NAME(maximum)(most, v);
        most_magnitude = NAME(maximum)(most_magnitude, (F)((I)v & 0x7fffffff));
    }
    const float largest = NAME(largest_lane)(most), magnitude = NAME(largest_lane)(most_magnitude);
    if (largest < rule->tiny) return false;
    float reach = largest, scale = largest / steps;
    if (rule->start_by_fit) {
        scale = NAME(fitted_scale)(n, top + 2, largest, x, weights);
        reach = scale * (float)(top + 1);
        if (reach <= 0) return false;
    }

    static const float count_up[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float inverses[ROW], scales[ROW];
    for (int c = 0; c < n_candidates; c += LANES) {
        const F k = NAME(load)(count_up) + (float)(c - rule->last);
        F inverse = (steps + k * rule->step) / reach, s = 1.0f / inverse;
        memcpy(inverses + c, &inverse, sizeof inverse);
        memcpy(scales + c, &s, sizeof s);
    }

    GROUP groups[TMS_IQ_MAX_GROUPS];
    int32_t places[TMS_IQ_MAX_GROUPS][ROW + 1]; /* of candidate c in [c + 1] */
    uint32_t points[TMS_IQ_MAX_GROUPS][ROW];
    const float m = scales[0] * steps + magnitude;
    const bool tame =
        inverses[n_candidates - 1] * magnitude < 1e6f; /* the largest of the inverses, if it is a number */
    for (int g = 0; g < n_groups; g++) {
        float sum = 0;
        for (int i = 0; i < group; i++) {
            groups[g].x[i] = NAME(splat)(x[g * group + i]);
            groups[g].roots[i] = NAME(splat)(roots[g * group + i]);
            sum += roots[g * group + i];
        }
        const float sum_wmm = sum * m * m;
        const bool far_from_limits = m > 1e-10f && m < 1e10f && sum_wmm > 1e-20f && sum_wmm < 1e30f;
        groups[g].margin = far_from_limits ? 1e-5f * sum_wmm : INFINITY;
        places[g][0] = -1;
        memset(&points[g][n_candidates], 0, LANES * sizeof points[g][0]); /* what is left of the last vector */
        NAME(find_places)(&groups[g], group, tame, inverses, n_candidates, places[g] + 1);
    }
    RUNS runs;
    NAME(find_runs)(&runs, grid, places, n_groups, n_candidates);
    for (int bucket = 0; bucket < NAME(BUCKETS); bucket++)
        NAME(choose_ends)(&runs, bucket, groups, group, bits, scales);
    NAME(fill_runs)(&runs, groups, group, bits, scales, points);

    int chosen;
    if (n_groups == 2) {
        chosen = NAME(choose_of_pairs)(points, n_candidates, x, weights, &scale);
    } else {
        float qx[ROW], qq[ROW];
        NAME(sum_candidates)(points, n_candidates, n_groups, group, x, weights, qx, qq);
        chosen = NAME(choose_candidate)(qx, qq, n_candidates, &scale);
    }

    bool all_on_grid = true, on_grid[TMS_IQ_MAX_GROUPS];
    for (int g = 0; g < n_groups; g++) {
        points_out[g] = chosen >= 0 ? points[g][chosen] & ~CLOSE : 0;
        on_grid[g] = chosen >= 0 ? grid->places[places[g][chosen + 1]].on_grid : rule->refit != TMS_REFIT_ALL_IF_ANY;
        all_on_grid = all_on_grid && on_grid[g];
    }
    *scale_out = scale;
    if (!(scale > 0 && (rule->refit == TMS_REFIT_ALL || !all_on_grid))) return true;

    int32_t levels[TMS_IQ_MAX_BLOCK];
    for (int i = 0; i < n; i += LANES) {
        I level = NAME(nearest)(0.5f * (1.0f / scale * NAME(load)(x + i) - 1.0f), 0, top);
        memcpy(levels + i, &level, sizeof level);
    }
    float terms_qx[TMS_IQ_MAX_BLOCK], terms_qq[TMS_IQ_MAX_BLOCK], qx, qq;
    for (int g = 0; g < n_groups; g++) {
        if (rule->refit != TMS_REFIT_OFF_GRID || !on_grid[g]) {
            int place = 0;
            for (int i = group - 1; i >= 0; i--) place = place * (top + 1) + levels[g * group + i];
            const struct tms_iq_place *at = &grid->places[place];
            points_out[g] = NAME(choose_one)(&groups[g], group, bits, grid->near + at->first, at->count, scale);
        }
        for (int i = 0; i < group; i++) {
            float w = weights[g * group + i];
            float q = (float)(2 * (points_out[g] >> bits * i & (bits == 2 ? 3 : 7)) + 1);
            terms_qx[g * group + i] = w * x[g * group + i] * q;
            terms_qq[g * group + i] = w * q * q;
        }
    }
    NAME(sum_two)(terms_qx, terms_qq, n, &qx, &qq);
    if (qq > 0) *scale_out = qx / qq;
    return true;
}

TARGET static bool NAME(search_block)(const struct tms_iq_rule *rule, const struct tms_iq_grid *grid, const float *x,
                                      const float *weights, const float *roots, float *scale, uint32_t *points)
{
    if (grid->group == 4) return NAME(search_of)(rule, grid, x, weights, roots, scale, points, 32, 4);
    if (rule->block == 16) return NAME(search_of)(rule, grid, x, weights, roots, scale, points, 16, 8);
    return NAME(search_of)(rule, grid, x, weights, roots, scale, points, 32, 8);
}

#undef F
#undef I
#undef INLINE
#undef GROUP
#undef RUN
#undef RUNS
#undef CHOICES
#undef CLOSE

/* choose of iq_lanes_body.h with NEON: eight points at once, in two vectors of four. */

/* 2 l + 1 for levels l, the lowest bits of each lane. */
INLINE F NAME(odd)(I points, int bits)
{
    return __builtin_convertvector(2 * (points & (bits == 2 ? 3 : 7)) + 1, F);
}

/* For each lane the entry of the table that its level, the lowest of its bits, says: of the first four entries, or of
 * eight. The bytes of entry k are 4 k … 4 k + 3. */
INLINE F NAME(look_up)(const F table[2], I points, int bits)
{
    const uint8x16x2_t t = {{(uint8x16_t)table[0], (uint8x16_t)table[1]}};
    const uint8x16_t at = (uint8x16_t)((points & (bits == 2 ? 3 : 7)) * 0x04040404 + 0x03020100);
    return bits == 2 ? (F)vqtbl1q_u8(t.val[0], at) : (F)vqtbl2q_u8(t, at);
}

/* The best point of one list for a group and a scale. `is_short`: the list has at most eight. `marks`: with CLOSE where
 * it is. */
INLINE void NAME(choose)(const GROUP *g, int group, int bits, const uint32_t *restrict near, int count, bool is_short,
                         bool marks, F scale, uint32_t chosen[CHOICES])
{
    F table[8][2];
    for (int i = 0; i < group; i++)
        for (int half = 0; half < (bits == 2 ? 1 : 2); half++) {
            F rest = scale * ((F){1, 3, 5, 7} + (float)(8 * half)) - g->x[i];
            table[i][half] = g->roots[i] * rest * rest;
        }
    const F limit = NAME(splat)(FLT_MAX);
    F best[2] = {limit, limit}, second[2] = {limit, limit};
    I from[2] = {{0}, {0}};
    for (int j = 0; j < (is_short ? 1 : count); j += 8)
        for (int half = 0; half < 2; half++) {
            I points;
            memcpy(&points, near + j + 4 * half, sizeof points);
            F d = NAME(look_up)(table[0], points, bits);
            for (int i = 1; i < group; i++) d += NAME(look_up)(table[i], points >> bits * i, bits);
            /* FLT_MAX behind the list, and where d is no smaller number. */
            I valid = ((I){0, 1, 2, 3} < count - j - 4 * half) & (d < limit);
            d = (F)vbslq_f32((uint32x4_t)valid, (float32x4_t)d, (float32x4_t)limit);
            from[half] = (I)vbslq_s32((uint32x4_t)(d < best[half]), vdupq_n_s32(j), (int32x4_t)from[half]);
            if (marks) second[half] = NAME(minimum)(second[half], NAME(maximum)(best[half], d));
            best[half] = NAME(minimum)(best[half], d);
        }
    const F least = NAME(splat)(vminvq_f32(vminq_f32((float32x4_t)best[0], (float32x4_t)best[1])));
    const F near_least = marks ? least + g->margin : least;
    const unsigned close = NAME(not_above)(best[0], near_least) | NAME(not_above)(best[1], near_least) << 4;
    int lane = __builtin_ctz(close), position = is_short ? lane : from[lane / 4][lane % 4] + lane;
    uint32_t mark = 0;
    if (marks && !is_short && NAME(bits_of)((second[0] <= near_least) | (second[1] <= near_least))) mark = CLOSE;
    if (__builtin_expect((close & (close - 1)) != 0, 0)) {
        /* Of several with the least distance, the first in the list. */
        mark = CLOSE;
        position = INT_MAX;
        unsigned equal = NAME(not_above)(best[0], least) | NAME(not_above)(best[1], least) << 4;
        for (; equal; equal &= equal - 1) {
            lane = __builtin_ctz(equal);
            int here = from[lane / 4][lane % 4] + lane;
            position = here < position ? here : position;
        }
    }
    chosen[0] = near[position] | (marks ? mark : 0);
}

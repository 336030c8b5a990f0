/* Decoders of iq2.c for vectors of LANES floats; included once per width (decode_lanes.h). */

TARGET static void NAME(decode_iq2_xxs)(const struct iq2_xxs *b, float *x, size_t n, const uint8_t *values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        const float d = NAME(load_half)(b->d);
        for (int j = 0; j < 8; j++, x += 32) {
            uint32_t signs_scale;
            memcpy(&signs_scale, b->blocks[j].signs_scale, 4);
            const float step = d * (0.5f + (float)(int)(signs_scale >> 28)) * 0.25f;
            const uint8_t *p = b->blocks[j].points;
            __m256i bytes = NAME(four_points)(values, p[0], p[1], p[2], p[3]);
            NAME(put_32)(NAME(with_signs)(bytes, NAME(even_signs_of_28)(signs_scale)), step, step, x);
        }
    }
}

/* Steps of sixteen blocks from sixteen nibbles: d * (1/2 + scale) / 4. */
INLINE void NAME(half_steps)(const uint8_t scales[8], float d, float *steps)
{
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)scales);
    __m128i nibbles = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4));
    nibbles = _mm_and_si128(nibbles, _mm_set1_epi8(15));
    for (int j = 0; j < 16; j += 8, nibbles = _mm_unpackhi_epi64(nibbles, nibbles)) {
        __m256 scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(nibbles));
        scale = _mm256_mul_ps(_mm256_set1_ps(d), _mm256_add_ps(_mm256_set1_ps(0.5f), scale));
        _mm256_storeu_ps(steps + j, _mm256_mul_ps(scale, _mm256_set1_ps(0.25f)));
    }
}

TARGET static void NAME(decode_iq2_xs)(const struct iq2_xs *b, float *x, size_t n, const uint8_t *values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        float steps[16];
        NAME(half_steps)(b->scales, NAME(load_half)(b->d), steps);
        for (int j = 0; j < 8; j++, x += 32) {
            uint64_t p;
            memcpy(&p, b->points[4 * j], sizeof p);
            __m256i bytes = NAME(four_points)(values, p & 511, p >> 16 & 511, p >> 32 & 511, p >> 48 & 511);
            uint32_t sevens =
                (uint32_t)((p >> 9 & 0x7f) | (p >> 17 & 0x7f00) | (p >> 25 & 0x7f0000) | (p >> 33 & 0x7f000000));
            bytes = NAME(with_signs)(bytes, NAME(even_signs)(sevens));
            NAME(put_32)(bytes, steps[2 * j], steps[2 * j + 1], x);
        }
    }
}

TARGET static void NAME(decode_iq2_s)(const struct iq2_s *b, float *x, size_t n, const uint8_t *values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        float steps[16];
        NAME(half_steps)(b->scales, NAME(load_half)(b->d), steps);
        for (int j = 0; j < 8; j++, x += 32) {
            const uint8_t *p = b->points + 4 * j;
            const unsigned high = b->high[j];
            uint32_t signs;
            memcpy(&signs, b->signs + 4 * j, sizeof signs);
            __m256i bytes = NAME(four_points)(values, p[0] | (high << 8 & 0x300), p[1] | (high << 6 & 0x300),
                                              p[2] | (high << 4 & 0x300), p[3] | (high << 2 & 0x300));
            NAME(put_32)(NAME(with_signs)(bytes, signs), steps[2 * j], steps[2 * j + 1], x);
        }
    }
}

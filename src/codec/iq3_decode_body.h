/* Decoders of iq3.c for vectors of LANES floats; included once per width (decode_lanes.h). */

INLINE __m256i NAME(eight_points)(const uint8_t *values, const uint8_t p[8], unsigned high)
{
    __m128i first = NAME(four_short_points)(values, p[0] | (high << 8 & 256), p[1] | (high << 7 & 256),
                                            p[2] | (high << 6 & 256), p[3] | (high << 5 & 256));
    __m128i last = NAME(four_short_points)(values, p[4] | (high << 4 & 256), p[5] | (high << 3 & 256),
                                           p[6] | (high << 2 & 256), p[7] | (high << 1 & 256));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1);
}

TARGET static void NAME(decode_iq3_xxs)(const struct iq3_xxs *b, float *x, size_t n, const uint8_t *values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        const float d = NAME(load_half)(b->d);
        for (int j = 0; j < 8; j++, x += 32) {
            uint32_t signs_scale;
            memcpy(&signs_scale, b->signs_scale[j], 4);
            const float step = d * (0.5f + (float)(int)(signs_scale >> 28)) * 0.5f;
            __m256i bytes = NAME(eight_points)(values, b->points + 8 * j, 0);
            NAME(put_32)(NAME(with_signs)(bytes, NAME(even_signs_of_28)(signs_scale)), step, step, x);
        }
    }
}

TARGET static void NAME(decode_iq3_s)(const struct iq3_s *b, float *x, size_t n, const uint8_t *values)
{
    for (size_t s = 0; s < n / TMS_IQ_SUPER; s++, b++) {
        const float d = NAME(load_half)(b->d);
        for (int j = 0; j < 8; j++, x += 32) {
            const float step = d * (float)(1 + 2 * (b->scales[j / 2] >> 4 * (j % 2) & 15));
            uint32_t signs;
            memcpy(&signs, b->signs + 4 * j, sizeof signs);
            __m256i bytes = NAME(eight_points)(values, b->points + 8 * j, b->high[j]);
            NAME(put_32)(NAME(with_signs)(bytes, signs), step, step, x);
        }
    }
}

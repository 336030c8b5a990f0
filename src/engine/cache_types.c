/* The types of a cache: how a row is stored. See cache.h.
 *
 *     f32, f16, bf16   each number by itself
 *     q8_0             ggml's blocks of 32, of turned rows
 *     q5_0, q4_0       ggml's blocks of 32, of turned rows; scales by search
 *     c8               x = s q, q an 8-bit integer, s = max |x| / 127 in f32: one scale per turned row, or one per 128
 *                      numbers of a latent, as DeepSeek's deployments do, which keep the rest of its key in bf16
 *
 * Turning pays at 8 bits, too: SmolLM2-135M's KL divergence falls to 0.38 (q8_0) and 0.26 (c8) of what it is without,
 * because its keys have a few numbers that are large for all tokens.
 */
#include <math.h>
#include <string.h>
#include <strings.h>

#include <tamis/codec.h>

#include "base/cpu.h"
#include "codec/legacy_blocks.h"
#include "codec/rows.h"
#include "engine/cache.h"
#include "engine/kernels/vector.h"

#define LATENT_TILE 128

struct tms_cache_form {
    size_t multiple; /* numbers that a part is made of */
    size_t bits;     /* of a number; c8 has its scales besides */
    enum tms_type codec;
    /* NULL: the codec's. n: all numbers of the part */
    void (*encode)(const float *x, size_t n, size_t tile, uint8_t *to);
    void (*decode)(const uint8_t *from, size_t bytes, size_t n_rows, size_t n, size_t tile, float *to, size_t width);
};

/* ---- blocks of 32 with searched scales ---- */

enum { SUMS = 8, CANDIDATES = 8 };

/* Codes q in [-half, half) of x / d for one candidate d; their sums of q x and q q, in SUMS lanes. */
TMS_INLINE void try_scale(const float *restrict x, float inverse, float half, float *restrict q, float *restrict qx,
                          float *restrict qq)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, ties to even */
    float products[SUMS] = {0}, squares[SUMS] = {0};
    for (int j = 0; j < BLOCK; j++) {
        float v = x[j] * inverse;
        v = v < -half ? -half : v;
        v = v > half - 1 ? half - 1 : v;
        q[j] = (v + magic) - magic;
    }
    for (int j = 0; j < BLOCK; j += SUMS)
        for (int l = 0; l < SUMS; l++) {
            products[l] = fmaf(q[j + l], x[j + l], products[l]);
            squares[l] = fmaf(q[j + l], q[j + l], squares[l]);
        }
    for (int step = SUMS / 2; step > 0; step /= 2)
        for (int l = 0; l < step; l++) products[l] += products[l + step], squares[l] += squares[l + step];
    *qx = products[0];
    *qq = squares[0];
}

/* The scale and codes with the least sum of squared errors among candidates that give the number of largest magnitude
 * the code -0.86 half … -1.14 half (which is clamped): for codes q the best scale is sum q x / sum q q, and the error
 * falls by (sum q x)^2 / sum q q. A turned row has no numbers that matter more than others. */
TMS_INLINE void search_block(const float *restrict x, float half, float *restrict scale, uint8_t *restrict codes)
{
    float top = 0, best = 0, q[BLOCK], kept[BLOCK] = {0};
    for (int j = 0; j < BLOCK; j++) top = fabsf(x[j]) > fabsf(top) ? x[j] : top;
    *scale = 0;
    for (int k = 0; k < CANDIDATES && top != 0; k++) {
        float qx, qq;
        try_scale(x, -half * (0.86f + 0.04f * (float)k) / top, half, q, &qx, &qq);
        if (!(qx * qx > best * qq)) continue; /* so that NaN is no better */
        best = qx * qx / qq;
        *scale = qx / qq;
        memcpy(kept, q, sizeof kept);
    }
    for (int j = 0; j < BLOCK; j++) codes[j] = (uint8_t)(int)(kept[j] + half);
}

TMS_INLINE void encode_q4_body(const float *x, size_t n, size_t tile, uint8_t *to)
{
    uint8_t codes[BLOCK];
    float scale;
    (void)tile;
    for (size_t i = 0; i < n; i += BLOCK, to += sizeof(struct q4_0)) {
        struct q4_0 *b = (struct q4_0 *)to;
        search_block(x + i, 8, &scale, codes);
        tms_store_f16(b->d, scale);
        pack_nibbles(codes, b->low);
    }
}
TMS_BY_CPU(static, encode_q4, (const float *x, size_t n, size_t tile, uint8_t *to), (x, n, tile, to))

TMS_INLINE void encode_q5_body(const float *x, size_t n, size_t tile, uint8_t *to)
{
    uint8_t codes[BLOCK];
    float scale;
    (void)tile;
    for (size_t i = 0; i < n; i += BLOCK, to += sizeof(struct q5_0)) {
        struct q5_0 *b = (struct q5_0 *)to;
        search_block(x + i, 16, &scale, codes);
        tms_store_f16(b->d, scale);
        pack_fifth_bits(codes, b->high);
        pack_nibbles(codes, b->low);
    }
}
TMS_BY_CPU(static, encode_q5, (const float *x, size_t n, size_t tile, uint8_t *to), (x, n, tile, to))

/* ---- c8: the scales of a part, then its integers ---- */

TMS_INLINE void encode_c8_body(const float *x, size_t n, size_t tile, uint8_t *to)
{
    int8_t *q = (int8_t *)(to + (n + tile - 1) / tile * sizeof(float));
    for (size_t i = 0; i < n; i += tile, to += sizeof(float)) {
        size_t end = n - i < tile ? n : i + tile;
        float top = 0;
        for (size_t j = i; j < end; j++) top = fabsf(x[j]) > top ? fabsf(x[j]) : top;
        float scale = top / 127, inverse = scale > 0 ? 1 / scale : 0;
        if (!(inverse <= 3.4e38f)) inverse = 0; /* of numbers near 1e-38 */
        memcpy(to, &scale, sizeof scale);
        for (size_t j = i; j < end; j++) {
            float v = x[j] * inverse;
            v = v <= 127 ? v : 127; /* NaN, too */
            v = v >= -127 ? v : -127;
            q[j] = (int8_t)(int)((v + 12582912.0f) - 12582912.0f);
        }
    }
}
TMS_BY_CPU(static, encode_c8, (const float *x, size_t n, size_t tile, uint8_t *to), (x, n, tile, to))

TMS_INLINE void decode_c8_body(const uint8_t *restrict from, size_t bytes, size_t n_rows, size_t n, size_t tile,
                               float *restrict to, size_t width)
{
    for (size_t row = 0; row < n_rows; row++, from += bytes, to += width) {
        const uint8_t *scales = from;
        const int8_t *restrict q = (const int8_t *)(from + (n + tile - 1) / tile * sizeof(float));
        for (size_t i = 0; i < n; i += tile, scales += sizeof(float)) {
            size_t end = n - i < tile ? n : i + tile;
            float scale;
            memcpy(&scale, scales, sizeof scale);
            for (size_t j = i; j < end; j++) to[j] = (float)q[j] * scale;
        }
    }
}
TMS_BY_CPU(static, decode_c8,
           (const uint8_t *from, size_t bytes, size_t n_rows, size_t n, size_t tile, float *to, size_t width),
           (from, bytes, n_rows, n, tile, to, width))

/* ---- the tables ---- */

static const struct tms_cache_form f32 = {1, 32, TMS_F32, NULL, NULL};
static const struct tms_cache_form f16 = {1, 16, TMS_F16, NULL, NULL};
static const struct tms_cache_form bf16 = {1, 16, TMS_BF16, NULL, NULL};
static const struct tms_cache_form q8_0 = {32, 8, TMS_Q8_0, NULL, NULL};
static const struct tms_cache_form q5_0 = {32, 5, TMS_Q5_0, encode_q5, NULL};
static const struct tms_cache_form q4_0 = {32, 4, TMS_Q4_0, encode_q4, NULL};
static const struct tms_cache_form q5_0_plain = {32, 5, TMS_Q5_0, NULL, NULL};
static const struct tms_cache_form q4_0_plain = {32, 4, TMS_Q4_0, NULL, NULL};
static const struct tms_cache_form c8 = {1, 8, TMS_TYPE_NONE, encode_c8, decode_c8};

static const struct tms_cache_type types[] = {
    {"f32", &f32, &f32, TMS_CACHE_AS_IS, true},
    {"f16", &f16, &f16, TMS_CACHE_AS_IS, true},
    {"bf16", &bf16, &bf16, TMS_CACHE_AS_IS, true},
    {"q8_0", &q8_0, &q8_0, TMS_CACHE_TURNED, false},
    {"q5_0", &q5_0, &q8_0, TMS_CACHE_TURNED, false},
    {"q4_0", &q4_0, &q8_0, TMS_CACHE_TURNED, false},
    {"c8", &c8, &bf16, TMS_CACHE_HEADS_TURNED, false}, /* latents as deployments have them */
    {"q8_0:plain", &q8_0, &q8_0, TMS_CACHE_AS_IS, false},
    {"q5_0:plain", &q5_0_plain, &q8_0, TMS_CACHE_AS_IS, false},
    {"q4_0:plain", &q4_0_plain, &q8_0, TMS_CACHE_AS_IS, false},
    {"c8:plain", &c8, &bf16, TMS_CACHE_AS_IS, false},
};

tms_status tms_cache_type(const char *name, const struct tms_cache_type **out, struct tms_error *err)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcasecmp(name, types[i].name) == 0) {
            *out = &types[i];
            return TMS_OK;
        }
    return tms_fail(err, TMS_EINPUT,
                    "'%s' is no type of cache; there are f32, f16, bf16, q8_0, q5_0, q4_0, c8, and the last four "
                    "with ':plain'",
                    name);
}

struct tms_cache_options tms_cache_exact(void)
{
    return (struct tms_cache_options){.type = &types[0]};
}

static size_t part_bytes(const struct tms_cache_part *p)
{
    if (p->form->codec == TMS_TYPE_NONE) return p->n + (p->n + p->tile - 1) / p->tile * sizeof(float);
    const struct tms_codec *codec = tms_codec(p->form->codec);
    return p->n / codec->block_elems * codec->block_bytes;
}

/* The largest power of two that divides n. */
static size_t power_of_two_in(size_t n)
{
    return n & (~n + 1);
}

struct tms_cache_row tms_cache_row_of(const struct tms_cache_type *type, size_t dim, size_t latent)
{
    struct tms_cache_row row = {.dim = dim, .n_parts = latent && latent < dim ? 2 : 1};
    for (size_t i = 0; i < row.n_parts; i++) {
        struct tms_cache_part *p = &row.parts[i];
        *p = (struct tms_cache_part){.form = i ? type->rope : type->form,
                                     .first = i ? latent : 0,
                                     .n = i        ? dim - latent
                                          : latent ? latent
                                                   : dim,
                                     .offset = row.bytes};
        p->tile = latent ? LATENT_TILE : p->n;
        bool turned = type->turns == TMS_CACHE_TURNED || (type->turns == TMS_CACHE_HEADS_TURNED && !latent);
        p->turn = turned && i == 0 ? power_of_two_in(p->n) : 0;
        row.bytes += part_bytes(p);
    }
    return row;
}

size_t tms_cache_row_misfit(const struct tms_cache_row *row, size_t *multiple)
{
    for (size_t i = 0; i < row->n_parts; i++)
        if (row->parts[i].n % row->parts[i].form->multiple != 0) {
            *multiple = row->parts[i].form->multiple;
            return row->parts[i].n;
        }
    return 0;
}

/* ---- rows ---- */

void tms_cache_encode(const struct tms_cache_row *row, const float *x, uint8_t *to)
{
    for (size_t i = 0; i < row->n_parts; i++) {
        const struct tms_cache_part *p = &row->parts[i];
        if (p->form->encode)
            p->form->encode(x + p->first, p->n, p->tile, to + p->offset);
        else
            tms_codec(p->form->codec)->encode(x + p->first, to + p->offset, p->n);
    }
}

void tms_cache_decode(const struct tms_cache_row *row, const uint8_t *from, size_t n, float *to, size_t width)
{
    for (size_t i = 0; i < row->n_parts; i++) {
        const struct tms_cache_part *p = &row->parts[i];
        if (p->form->decode) {
            p->form->decode(from + p->offset, row->bytes, n, p->n, p->tile, to + p->first, width);
            continue;
        }
        const struct tms_codec *codec = tms_codec(p->form->codec);
        if (p->n == width) {
            codec->decode(from, to, n * width);
            continue;
        }
        for (size_t j = 0; j < n; j++)
            codec->decode(from + j * row->bytes + p->offset, to + j * width + p->first, p->n);
    }
    for (size_t j = 0; j < n && row->dim < width; j++)
        memset(to + j * width + row->dim, 0, (width - row->dim) * sizeof *to);
}

void tms_cache_turn(const struct tms_cache_row *row, float *x)
{
    for (size_t i = 0; i < row->n_parts; i++)
        if (row->parts[i].turn > 1) tms_hadamard(x + row->parts[i].first, row->parts[i].n, row->parts[i].turn);
}

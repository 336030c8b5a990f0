/* Any bytes as blocks of any type that tamis decodes: nothing is read or written outside, all CPU variants give the
 * same values, and so do the blocks one by one. The first byte of the input chooses the type, the second where the
 * blocks begin (no alignment is promised); for bitsandbytes' types the third chooses the block size. */
#include "fuzz.h"

#include <string.h>
#include <tamis/codec.h>

#include "base/cpu.h"
#include "codec/bnb.h"

enum { N_BNB = 3, MOST_BYTES = 4096 };

static size_t n_codecs;
static const struct tms_codec *codecs[128];

static void find_codecs(void)
{
    for (size_t i = 0; tms_codec_at(i); i++)
        if (tms_codec_at(i)->decode) codecs[n_codecs++] = tms_codec_at(i);
}

/* Bit for bit, but one NaN is as good as another. */
static void require_same(const float *a, const float *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        fuzz_require(memcmp(&a[i], &b[i], sizeof *a) == 0 || (a[i] != a[i] && b[i] != b[i]), what);
}

static float *room(size_t n)
{
    float *x = malloc(n ? n * sizeof *x : 1);
    if (!x) abort();
    return x;
}

static void decode_blocks(const struct tms_codec *codec, const uint8_t *blocks, size_t n_blocks)
{
    static const enum tms_cpu levels[] = {TMS_CPU_SCALAR, TMS_CPU_AVX2, TMS_CPU_AVX512};
    size_t n = n_blocks * codec->block_elems;
    float *want = room(n), *got = room(n);
    for (size_t i = 0; i < 3; i++) {
        tms_cpu_force(levels[i]);
        codec->decode(blocks, i ? got : want, n);
        if (i) require_same(got, want, n, "all CPU variants decode alike");
    }
    for (size_t k = 0; k < n_blocks; k++)
        codec->decode(blocks + k * codec->block_bytes, got + k * codec->block_elems, codec->block_elems);
    require_same(got, want, n, "blocks decode alike one by one");
    free(want);
    free(got);
}

/* 4 bits: a map of 16 floats, then scales, then codes. Nested: a map of 256, a scale per 256 codes. */
static void decode_bnb(unsigned form, uint32_t block, const uint8_t *bytes, size_t n)
{
    float map[256];
    if (form == 0 && n >= 64) {
        memcpy(map, bytes, 64);
        bytes += 64, n -= 64;
        size_t n_blocks = n / (4 + block / 2), n_codes = n - 4 * n_blocks;
        if (n_codes > n_blocks * block / 2) n_codes = n_blocks * block / 2;
        float *scales = room(n_blocks), *x = room(2 * n_codes);
        memcpy(scales, bytes, 4 * n_blocks);
        tms_bnb_decode4(map, block, bytes + 4 * n_blocks, scales, x, 2 * n_codes);
        if (n_codes) tms_bnb_decode4(map, block, bytes + 4 * n_blocks, scales, x, 2 * n_codes - 1);
        free(scales);
        free(x);
    } else if (form == 1 && n >= 1028) {
        float offset;
        memcpy(map, bytes, 1024);
        memcpy(&offset, bytes + 1024, 4);
        bytes += 1028, n -= 1028;
        size_t n_nested = n / (4 + block), n_codes = n - 4 * n_nested;
        if (n_codes > n_nested * block) n_codes = n_nested * block;
        float *scales = room(n_nested), *x = room(n_codes);
        memcpy(scales, bytes, 4 * n_nested);
        tms_bnb_decode_absmax(map, block, bytes + 4 * n_nested, scales, offset, x, n_codes);
        free(scales);
        free(x);
    } else if (form == 2 && n >= 4) {
        float scb, *x = room(n - 4);
        memcpy(&scb, bytes, 4);
        tms_bnb_decode_int8((const int8_t *)bytes + 4, scb, x, n - 4);
        free(x);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!n_codecs) find_codecs();
    if (n < 3) return 0;
    if (n > MOST_BYTES) n = MOST_BYTES;
    unsigned type = bytes[0] % (unsigned)(n_codecs + N_BNB), shift = bytes[1] % 4;
    uint32_t block = 32u << bytes[2] % 8;
    /* an own copy, so that one byte too many is seen */
    const struct tms_codec *codec = type < n_codecs ? codecs[type] : NULL;
    size_t used = codec ? 2 : 3, n_bytes = n - used;
    if (codec) n_bytes = n_bytes / codec->block_bytes * codec->block_bytes;
    uint8_t *copy = malloc(shift + n_bytes ? shift + n_bytes : 1);
    if (!copy) abort();
    memcpy(copy + shift, bytes + used, n_bytes);
    if (codec)
        decode_blocks(codec, copy + shift, n_bytes / codec->block_bytes);
    else
        decode_bnb(type - (unsigned)n_codecs, block, copy + shift, n_bytes);
    free(copy);
    return 0;
}

/* Any finite values into any type that tamis encodes, with importance weights and without: no undefined behaviour
 * (a float that does not fit its integer is the usual one), and all CPU variants give the same bytes. The first byte
 * of the input chooses the type, the second whether weights stand behind each row; the rest are floats, of which those
 * that are not finite become 1 (the pipeline refuses them). */
#include "fuzz.h"

#include <math.h>
#include <string.h>
#include <tamis/codec.h>

#include "base/cpu.h"
#include "codec/bnb.h"

enum { MOST_VALUES = 1024, N_BNB = 3 };

static size_t n_codecs;
static const struct tms_codec *codecs[128];

static void find_codecs(void)
{
    for (size_t i = 0; tms_codec_at(i); i++)
        if (tms_codec_at(i)->encode || tms_codec_at(i)->encode_weighted) codecs[n_codecs++] = tms_codec_at(i);
}

static void encode(const struct tms_codec *codec, bool weighted, const float *x, const float *weights, size_t n)
{
    static const enum tms_cpu levels[] = {TMS_CPU_SCALAR, TMS_CPU_AVX2, TMS_CPU_AVX512};
    size_t n_bytes = (size_t)tms_codec_bytes(codec, n);
    uint8_t *want = calloc(n_bytes + 1, 1), *got = calloc(n_bytes + 1, 1);
    if (!want || !got) abort();
    for (size_t i = 0; i < 3 && n; i++) {
        uint8_t *to = i ? got : want;
        tms_cpu_force(levels[i]);
        if (weighted)
            codec->encode_weighted(x, weights, to, 1, n);
        else
            codec->encode(x, to, n);
        fuzz_require(memcmp(to, want, n_bytes + 1) == 0, "all CPU variants encode alike");
    }
    free(want);
    free(got);
}

static void encode_bnb(unsigned form, const float *x, size_t n)
{
    uint8_t *codes = malloc(n + 1);
    float *absmax = malloc((n / 32 + 1) * sizeof *absmax), nested[MOST_VALUES / 256 + 1], offset, scb;
    if (!codes || !absmax) abort();
    if (form < 2)
        tms_bnb_encode4(form ? TMS_BNB_FP4 : TMS_BNB_NF4, 32, x, n, codes, absmax);
    else
        (void)tms_bnb_encode_int8(x, n, (int8_t *)codes, &scb);
    if (n) tms_bnb_encode_absmax(x, n, codes, nested, &offset);
    free(codes);
    free(absmax);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static float x[MOST_VALUES], weights[MOST_VALUES];
    if (!n_codecs) find_codecs();
    if (n_bytes < 2) return 0;
    size_t n = (n_bytes - 2) / sizeof *x;
    unsigned type = bytes[0] % (unsigned)(n_codecs + N_BNB);
    const struct tms_codec *codec = type < n_codecs ? codecs[type] : NULL;
    bool weighted = codec && codec->encode_weighted && (!codec->encode || bytes[1] % 2);
    if (weighted) n /= 2;
    if (n > MOST_VALUES) n = MOST_VALUES;
    if (codec) n = n / codec->block_elems * codec->block_elems;
    memcpy(x, bytes + 2, n * sizeof *x);
    if (weighted) memcpy(weights, bytes + 2 + n * sizeof *x, n * sizeof *weights);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) x[i] = 1;
        weights[i] = isfinite(weights[i]) ? fabsf(weights[i]) : 1; /* means of squares */
    }
    if (codec)
        encode(codec, weighted, x, weights, n);
    else
        encode_bnb(type - (unsigned)n_codecs, x, n);
    return 0;
}

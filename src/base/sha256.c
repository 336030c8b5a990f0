/* See sha256.h. Constants and steps: FIPS 180-4, sections 4.2.2 and 6.2. On x86-64 with the SHA extensions four steps
 * of the schedule and two rounds go per instruction; TAMIS_CPU=scalar takes the plain way. */
#include "base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/threads.h"

#define READ_BYTES (1u << 20)

static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void blocks_scalar(uint32_t state[8], const uint8_t *bytes, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, bytes += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)bytes[4 * i] << 24 | (uint32_t)bytes[4 * i + 1] << 16 | (uint32_t)bytes[4 * i + 2] << 8 |
                   bytes[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
                   (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
        }
        uint32_t v0 = state[0], v1 = state[1], v2 = state[2], v3 = state[3]; /* a … h of the standard */
        uint32_t v4 = state[4], v5 = state[5], v6 = state[6], v7 = state[7];
        for (int i = 0; i < 64; i++) {
            uint32_t sum1 = rotate(v4, 6) ^ rotate(v4, 11) ^ rotate(v4, 25);
            uint32_t sum0 = rotate(v0, 2) ^ rotate(v0, 13) ^ rotate(v0, 22);
            uint32_t t1 = v7 + sum1 + ((v4 & v5) ^ (~v4 & v6)) + k[i] + w[i];
            uint32_t t2 = sum0 + ((v0 & v1) ^ (v0 & v2) ^ (v1 & v2));
            v7 = v6;
            v6 = v5;
            v5 = v4;
            v4 = v3 + t1;
            v3 = v2;
            v2 = v1;
            v1 = v0;
            v0 = t1 + t2;
        }
        const uint32_t v[8] = {v0, v1, v2, v3, v4, v5, v6, v7};
        for (int i = 0; i < 8; i++) state[i] += v[i];
    }
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* The instructions want the state as (a b e f) and (c d g h), from the highest lane down. */
__attribute__((target("sha,sse4.1"))) static void blocks_sha(uint32_t state[8], const uint8_t *bytes, size_t n_blocks)
{
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i abef = _mm_set_epi32((int)state[0], (int)state[1], (int)state[4], (int)state[5]);
    __m128i cdgh = _mm_set_epi32((int)state[2], (int)state[3], (int)state[6], (int)state[7]);
    for (; n_blocks; n_blocks--, bytes += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; /* the last 16 words of the schedule */
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < 4) {
                w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(bytes + 16 * i)), big_endian);
            } else {
                __m128i next = _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4));
                w[i % 4] = _mm_sha256msg2_epu32(next, w[(i + 3) % 4]);
            }
            __m128i sum = _mm_add_epi32(w[i % 4], _mm_loadu_si128((const void *)(k + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    uint32_t first[4], second[4];
    _mm_storeu_si128((void *)first, abef);
    _mm_storeu_si128((void *)second, cdgh);
    const uint32_t after[8] = {first[3], first[2], second[3], second[2], first[1], first[0], second[1], second[0]};
    memcpy(state, after, sizeof after);
}

static bool has_sha(void)
{
    unsigned a, b, c, d;
    return tms_cpu_level() != TMS_CPU_SCALAR && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}

static void add_blocks(uint32_t state[8], const uint8_t *bytes, size_t n_blocks)
{
    (has_sha() ? blocks_sha : blocks_scalar)(state, bytes, n_blocks);
}
#else
static void add_blocks(uint32_t state[8], const uint8_t *bytes, size_t n_blocks)
{
    blocks_scalar(state, bytes, n_blocks);
}
#endif

void tms_sha256_begin(struct tms_sha256 *hash)
{
    *hash = (struct tms_sha256){
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void tms_sha256_add(struct tms_sha256 *hash, const void *bytes, size_t n)
{
    const uint8_t *from = bytes;
    size_t held = hash->n % 64, room = 64 - held;
    hash->n += n;
    if (held) {
        size_t taken = n < room ? n : room;
        memcpy(hash->rest + held, from, taken);
        from += taken;
        n -= taken;
        if (taken < room) return;
        add_blocks(hash->state, hash->rest, 1);
    }
    if (n >= 64) add_blocks(hash->state, from, n / 64);
    if (n % 64) memcpy(hash->rest, from + n / 64 * 64, n % 64);
}

void tms_sha256_end(struct tms_sha256 *hash, char hex[65])
{
    uint8_t padding[72] = {0x80};
    uint64_t bits = hash->n * 8;
    size_t n = 64 - (hash->n + 8) % 64; /* 1 … 64 */
    for (int i = 0; i < 8; i++) padding[n + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    tms_sha256_add(hash, padding, n + 8);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", hash->state[i]);
}

tms_status tms_sha256_file(const char *path, char hex[65], uint64_t *size, struct tms_error *err)
{
    struct tms_file file = {.fd = -1};
    struct tms_sha256 hash;
    tms_status status = tms_file_open(&file, path, err);
    if (status != TMS_OK) return status;
    uint8_t *buffer = malloc(READ_BYTES);
    if (!buffer) status = tms_fail_memory(err, READ_BYTES);
    tms_sha256_begin(&hash);
    for (uint64_t at = 0; at < file.size && status == TMS_OK; at += READ_BYTES) {
        uint64_t n = file.size - at < READ_BYTES ? file.size - at : READ_BYTES;
        status =
            tms_cancelled() ? tms_fail(err, TMS_ECANCELLED, "interrupted") : tms_file_read(&file, buffer, n, at, err);
        if (status == TMS_OK) tms_sha256_add(&hash, buffer, n);
    }
    if (status == TMS_OK) {
        tms_sha256_end(&hash, hex);
        if (size) *size = file.size;
    }
    free(buffer);
    tms_file_close(&file);
    return status;
}

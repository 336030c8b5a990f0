/* See machine.h. */
#include "engine/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"

#define ROUNDS  3      /* at least */
#define SECONDS 0.4    /* of rounds, at least */
#define LIMIT   10000u /* rounds at most */

/* What Linux says of this processor's caches; the C library's numbers are wrong under some hypervisors. */
static uint64_t cache_of_system(int index)
{
    char path[80], unit = 0;
    unsigned long long n = 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    int got = fscanf(f, "%llu%c", &n, &unit);
    fclose(f);
    return got < 1 || n > 1u << 30 ? 0 : unit == 'K' ? n << 10 : unit == 'M' ? n << 20 : n;
}

uint64_t tms_last_cache_bytes(void)
{
    uint64_t largest = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t n = cache_of_system(i);
        if (n > largest) largest = n;
    }
    if (largest) return largest;
    long n = sysconf(_SC_LEVEL3_CACHE_SIZE), m = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return n > 0 ? (uint64_t)n : m > 0 ? (uint64_t)m : 0;
}

/* The shortest of several rounds over n_jobs jobs. */
static tms_status best_round(struct tms_pool *pool, size_t n_jobs, tms_job_fn job, void *ctx, double *seconds,
                             struct tms_error *err)
{
    double best = 0, begin = tms_seconds();
    for (unsigned round = 0; round < LIMIT; round++) {
        double start = tms_seconds();
        if (round >= ROUNDS && start - begin > SECONDS) break;
        tms_status status = tms_pool_run(pool, n_jobs, job, ctx, err);
        double took = tms_seconds() - start;
        if (status != TMS_OK) return status;
        if (round == 0 || took < best) best = took;
    }
    *seconds = best > 0 ? best : 1e-9;
    return TMS_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

#define CHUNK ((size_t)1 << 20) /* bytes of a job */
#define WORDS 64                /* read in one step: eight vectors */

struct reading {
    uint64_t *memory;
    uint64_t *seen; /* [jobs]: what keeps the reads alive */
};

TMS_INLINE void read_words_body(const uint64_t *from, size_t n, uint64_t *seen)
{
    uint64_t words[WORDS] = {0};
    for (size_t i = 0; i < n; i += WORDS)
        for (size_t k = 0; k < WORDS; k++) words[k] ^= from[i + k];
    for (size_t k = 0; k < WORDS; k++) *seen ^= words[k];
}
TMS_BY_CPU(static, read_words, (const uint64_t *from, size_t n, uint64_t *seen), (from, n, seen))

static tms_status fill(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct reading *r = ctx;
    (void)worker, (void)err;
    memset(r->memory + index * (CHUNK / 8), (int)(index % 255) + 1, CHUNK);
    return TMS_OK;
}

static tms_status read_chunk(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct reading *r = ctx;
    (void)worker, (void)err;
    read_words(r->memory + index * (CHUNK / 8), CHUNK / 8, &r->seen[index]);
    return TMS_OK;
}

static size_t size_to_read(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_C(4) << 30;
    uint64_t size = 2 * tms_last_cache_bytes();
    if (size < UINT64_C(256) << 20) size = UINT64_C(256) << 20;
    if (size > UINT64_C(2) << 30) size = UINT64_C(2) << 30;
    if (size > memory / 8) size = memory / 8;
    return size < CHUNK ? CHUNK : (size_t)(size / CHUNK * CHUNK);
}

tms_status tms_measure_reading(struct tms_pool *pool, double *bytes_per_second, uint64_t *size, struct tms_error *err)
{
    size_t n = size_to_read(), n_jobs = n / CHUNK;
    struct reading r = {.memory = malloc(n), .seen = tms_calloc(n_jobs, sizeof *r.seen)};
    double seconds;
    tms_status status = r.memory && r.seen ? TMS_OK : tms_fail_memory(err, n);
    if (status == TMS_OK) status = tms_pool_run(pool, n_jobs, fill, &r, err);
    if (status == TMS_OK) status = best_round(pool, n_jobs, read_chunk, &r, &seconds, err);
    if (status == TMS_OK) {
        *bytes_per_second = (double)n / seconds;
        *size = n;
    }
    free(r.memory);
    free(r.seen);
    return status;
}

/* ---- arithmetic ------------------------------------------------------------------------------------------------ */

#define STEPS  (1u << 16) /* of a job */
#define CHAINS 12 /* sums that do not wait for each other: latency 4 on two ports needs 8; 16 registers hold 12 */

/* Each spins `steps` times through CHAINS vectors of *lanes floats; the sum of all keeps them alive. */
static float spin_scalar(unsigned steps, unsigned *lanes)
{
    float sums[CHAINS] = {0}, all = 0;
    *lanes = 1;
    for (unsigned i = 0; i < steps; i++)
        for (size_t k = 0; k < CHAINS; k++) sums[k] = sums[k] * 0.5f + 1.0f; /* fused only where the machine has it */
    for (size_t k = 0; k < CHAINS; k++) all += sums[k];
    return all;
}

#if defined(__x86_64__)
#include <immintrin.h>

TMS_TARGET_AVX2 static float spin_avx2(unsigned steps, unsigned *lanes)
{
    __m256 sums[CHAINS], half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(1);
    float flat[8], all = 0;
    *lanes = 8;
    for (size_t k = 0; k < CHAINS; k++) sums[k] = _mm256_setzero_ps();
    for (unsigned i = 0; i < steps; i++) {
#pragma GCC unroll 12
        for (size_t k = 0; k < CHAINS; k++) sums[k] = _mm256_fmadd_ps(sums[k], half, one);
    }
    for (size_t k = 0; k < CHAINS; k++) {
        _mm256_storeu_ps(flat, sums[k]);
        all += flat[0];
    }
    return all;
}

TMS_TARGET_AVX512 static float spin_avx512(unsigned steps, unsigned *lanes)
{
    __m512 sums[CHAINS], half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1);
    float flat[16], all = 0;
    *lanes = 16;
    for (size_t k = 0; k < CHAINS; k++) sums[k] = _mm512_setzero_ps();
    for (unsigned i = 0; i < steps; i++) {
#pragma GCC unroll 12
        for (size_t k = 0; k < CHAINS; k++) sums[k] = _mm512_fmadd_ps(sums[k], half, one);
    }
    for (size_t k = 0; k < CHAINS; k++) {
        _mm512_storeu_ps(flat, sums[k]);
        all += flat[0];
    }
    return all;
}
#endif

#if defined(__aarch64__)
#include <arm_neon.h>

static float spin_neon(unsigned steps, unsigned *lanes)
{
    float32x4_t sums[CHAINS], half = vdupq_n_f32(0.5f), one = vdupq_n_f32(1);
    float all = 0;
    *lanes = 4;
    for (size_t k = 0; k < CHAINS; k++) sums[k] = vdupq_n_f32(0);
    for (unsigned i = 0; i < steps; i++) {
#pragma GCC unroll 12
        for (size_t k = 0; k < CHAINS; k++) sums[k] = vfmaq_f32(one, sums[k], half);
    }
    for (size_t k = 0; k < CHAINS; k++) all += vgetq_lane_f32(sums[k], 0);
    return all;
}
#endif

static float spin(unsigned steps, unsigned *lanes)
{
    switch (tms_cpu_level()) {
#if defined(__x86_64__)
    case TMS_CPU_AVX512: return spin_avx512(steps, lanes);
    case TMS_CPU_AVX2: return spin_avx2(steps, lanes);
#elif defined(__aarch64__)
    case TMS_CPU_NEON: return spin_neon(steps, lanes);
#endif
    default: return spin_scalar(steps, lanes);
    }
}

struct spinning {
    float *results; /* [jobs] */
    unsigned steps;
};

static tms_status spin_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct spinning *s = ctx;
    unsigned lanes;
    (void)worker, (void)err;
    s->results[index] = spin(s->steps, &lanes);
    return TMS_OK;
}

tms_status tms_measure_arithmetic(struct tms_pool *pool, double *operations_per_second, struct tms_error *err)
{
    size_t n_jobs = (size_t)tms_pool_threads(pool) * 16;
    struct spinning s = {.results = tms_calloc(n_jobs, sizeof *s.results), .steps = STEPS};
    double seconds;
    unsigned lanes;
    if (!s.results) return tms_fail_memory(err, n_jobs * sizeof *s.results);
    (void)spin(1, &lanes);
    tms_status status = best_round(pool, n_jobs, spin_job, &s, &seconds, err);
    if (status == TMS_OK) *operations_per_second = 2.0 * CHAINS * lanes * STEPS * (double)n_jobs / seconds;
    free(s.results);
    return status;
}

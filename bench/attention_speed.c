/* attention_speed: attention over the cache of keys and values, type by type.
 *
 *     attention_speed [POSITIONS] [HEADS] [KV_HEADS] [DIM]        (8192 32 8 128)
 *
 * One query behind so many positions (a token that is made), with one thread and with two, and 256 queries there (a
 * pass of a prompt); a key and value stored. Wall time, the least of several runs; the speed of memory is what the
 * quantized keys and values come to in that time. Exit: 0 done, 1 wrong usage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/attention.h"

enum { PASS = 256, RUNS = 5 };

static size_t positions = 8192, n_heads = 32, n_kv = 8, dim = 128;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float noise(void)
{
    static unsigned long long state = 1;
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (float)(int)(state >> 40) / (float)(1 << 23) - 1;
}

/* Seconds of n queries at the end; the least of a few. */
static double attend(struct tms_cache *cache, unsigned n_threads, size_t n, float *q, float *out)
{
    struct tms_error err;
    struct tms_pool *pool;
    double best = 1e9;
    if (tms_pool_create(&pool, n_threads, &err) != TMS_OK) exit(1);
    float *memory = calloc(n_threads * tms_attention_scratch(n_heads, n_kv, dim, dim), sizeof *memory);
    const struct tms_attention a = {.cache = cache,
                                    .n_seqs = 1,
                                    .n = n,
                                    .start = positions - n,
                                    .n_heads = n_heads,
                                    .scale = 0.1f,
                                    .q = q,
                                    .q_stride = n_heads * dim,
                                    .q_head = dim,
                                    .out = out,
                                    .out_stride = n_heads * dim,
                                    .out_head = dim,
                                    .scratch = memory};
    for (int i = 0; i < (n > 1 ? RUNS : 20 * RUNS); i++) {
        double start = now();
        if (tms_attention_run(pool, &a, &err) != TMS_OK) exit(1);
        if (now() - start < best) best = now() - start;
    }
    free(memory);
    tms_pool_free(pool);
    return best;
}

int main(int argc, char **argv)
{
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "c8", "q5_0", "q4_0"};
    size_t *const numbers[] = {&positions, &n_heads, &n_kv, &dim};
    struct tms_error err;
    for (int i = 1; i < argc; i++)
        if (i > 4 || (*numbers[i - 1] = strtoul(argv[i], NULL, 10)) == 0) return 1;
    if (positions < PASS) return 1;
    float *q = malloc(PASS * n_heads * dim * sizeof *q), *out = malloc(PASS * n_heads * dim * sizeof *out);
    float *rows = malloc(PASS * 2 * dim * sizeof *rows), *turned = malloc(PASS * 2 * dim * sizeof *turned);
    for (size_t i = 0; i < PASS * n_heads * dim; i++) q[i] = noise();
    for (size_t i = 0; i < PASS * 2 * dim; i++) rows[i] = noise();
    printf("%zu positions, %zu heads, %zu of keys and values, %zu numbers each\n", positions, n_heads, n_kv, dim);
    printf("%-6s %9s %12s %12s %9s %14s %10s\n", "type", "MB", "1 thread ms", "2 threads ms", "GB/s", "256 queries ms",
           "store us");
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct tms_cache_options o = {0};
        const struct tms_cache_shape shape = {1, 1, n_kv, positions, dim, dim, false, PASS};
        struct tms_cache *cache = NULL;
        if (tms_cache_type(types[t], &o.type, &err) != TMS_OK || tms_cache_check(&o, &shape, "rows", &err) != TMS_OK ||
            tms_cache_create(&cache, &o, &shape, &err) != TMS_OK) {
            printf("%s\n", err.message);
            continue;
        }
        double stored = 1e9; /* for PASS of them */
        for (size_t p = 0; p < positions * n_kv; p += PASS) {
            memcpy(turned, rows, PASS * 2 * dim * sizeof *rows);
            double start = now();
            for (size_t i = 0; i < PASS && p + i < positions * n_kv; i++)
                tms_cache_store(cache, (p + i) / positions, (p + i) % positions, turned + 2 * i * dim,
                                turned + (2 * i + 1) * dim);
            if (p + PASS <= positions * n_kv && now() - start < stored) stored = now() - start;
        }
        double one = attend(cache, 1, 1, q, out), two = attend(cache, 2, 1, q, out);
        printf("%-6s %9.2f %12.3f %12.3f %9.2f %14.1f %10.2f\n", types[t], (double)cache->bytes / 1e6, one * 1e3,
               two * 1e3, (double)cache->bytes / one * 1e-9, attend(cache, 2, PASS, q, out) * 1e3, stored * 1e6 / PASS);
        tms_cache_free(cache);
    }
    free(q), free(out), free(rows), free(turned);
    return 0;
}

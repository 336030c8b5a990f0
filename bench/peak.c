/* peak: how many float32 operations the machine can do, with so many threads.
 *
 *     peak THREADS [SECONDS]      writes billions of operations per second (a multiplication with its addition is two)
 *
 * Each thread runs 16 chains of fused multiply-adds in vectors as wide as the machine has, which depend on nothing but
 * themselves: enough to fill the pipelines, nothing read from memory.
 * Compile with -O3 -march=native -ffp-contract=fast. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
enum { CHAINS = 16, STEPS = 1000000, MOST_THREADS = 256 };

typedef float vector __attribute__((vector_size(WIDTH * sizeof(float))));

static float sink[MOST_THREADS];

static void *run(void *out)
{
    vector sums[CHAINS], factor = {0}, term = {0};
    for (int i = 0; i < WIDTH; i++) factor[i] = 0.999999F, term[i] = 1e-6F * (float)i;
    for (int c = 0; c < CHAINS; c++) sums[c] = term * (float)c;
    for (int step = 0; step < STEPS; step++)
        for (int c = 0; c < CHAINS; c++) sums[c] = sums[c] * factor + term;
    float total = 0;
    for (int c = 0; c < CHAINS; c++) total += sums[c][c % WIDTH];
    *(float *)out = total; /* so that nothing is left out */
    return NULL;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    int n_threads = argc > 1 ? atoi(argv[1]) : 0;
    double seconds = argc > 2 ? atof(argv[2]) : 0.5, best = 0, start = now();
    if (n_threads < 1 || n_threads > MOST_THREADS) {
        fprintf(stderr, "usage: peak THREADS [SECONDS]\n");
        return 1;
    }
    do {
        pthread_t threads[MOST_THREADS];
        double from = now();
        for (int i = 0; i < n_threads; i++)
            if (pthread_create(&threads[i], NULL, run, &sink[i])) {
                perror("peak: pthread_create");
                return 1;
            }
        for (int i = 0; i < n_threads; i++) pthread_join(threads[i], NULL);
        double rate = 2.0 * WIDTH * CHAINS * STEPS * n_threads / (now() - from);
        if (rate > best) best = rate;
    } while (now() - start < seconds);
    printf("%.1f\n", best / 1e9);
    return 0;
}

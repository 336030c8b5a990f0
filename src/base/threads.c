/* See threads.h. */
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A decoder makes some hundred runs for every token, each of some microseconds, so waking must not go through the
 * kernel every time: who waits for work looks for it for SPIN microseconds before it sleeps, and so does the caller
 * before it sleeps until the last worker is done. A worker that comes late finds the gate closed, and nobody waits for
 * it. */
#define SPIN 50

/* The gate of a run: bit 31 while it is open, below it how many workers are inside. */
#define OPEN (1u << 31)

struct worker {
    struct tms_pool *pool;
    unsigned number;
    pthread_t thread;
};

struct tms_pool {
    unsigned n_threads;
    struct worker *workers; /* [n_threads]; worker 0 is the calling thread */
    pthread_mutex_t lock;   /* of sleeping, waking, and failures */
    pthread_cond_t start, finished;
    atomic_uint round; /* counts the runs; a worker joins each at most once */
    atomic_uint gate;
    atomic_uint sleepers;      /* workers that wait for `start` */
    atomic_bool caller_sleeps; /* … for `finished` */
    atomic_bool quit;
    /* the present run; written while the gate is closed and nobody is inside */
    tms_job_fn job;
    void *ctx;
    size_t n_jobs;
    atomic_size_t next;
    atomic_size_t failed_job; /* lowest job that failed, SIZE_MAX if none */
    tms_status failed_status;
    struct tms_error failed_error;
};

static volatile sig_atomic_t cancel_flag;

void tms_cancel(void)
{
    cancel_flag = 1;
}

void tms_resume(void)
{
    cancel_flag = 0;
}

bool tms_cancelled(void)
{
    return cancel_flag != 0;
}

/* CPU quota of the control group in whole processors, or 0 if there is none. */
static unsigned group_quota(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return 0;
    long long quota = 0, period = 0;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0) return 0;
    return (unsigned)((quota + period - 1) / period);
}

unsigned tms_n_processors(void)
{
    unsigned n = 1;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        n = (unsigned)CPU_COUNT(&set);
    } else {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        if (online > 1) n = (unsigned)online;
    }
    unsigned quota = group_quota();
    if (quota && quota < n) n = quota;
    return n ? n : 1;
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t microseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Looks at *word for at most SPIN microseconds until it is no longer (changes) or is at last (!changes) `value`. */
static bool spin(atomic_uint *word, unsigned value, bool changes)
{
    for (int64_t end = 0;;) {
        for (int i = 0; i < 64; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) != value) == changes) return true;
            pause_briefly();
        }
        int64_t now = microseconds();
        if (end == 0) end = now + SPIN;
        if (now >= end) return false;
    }
}

static void record_failure(struct tms_pool *pool, size_t index, tms_status status, const struct tms_error *err)
{
    pthread_mutex_lock(&pool->lock);
    if (index < atomic_load(&pool->failed_job)) {
        atomic_store(&pool->failed_job, index);
        pool->failed_status = status;
        pool->failed_error = *err;
    }
    pthread_mutex_unlock(&pool->lock);
}

/* Takes jobs until there are none left or one failed. */
static void work(struct tms_pool *pool, unsigned number)
{
    while (!tms_cancelled() && atomic_load_explicit(&pool->failed_job, memory_order_relaxed) == SIZE_MAX) {
        size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->n_jobs) break;
        struct tms_error err = {""};
        tms_status status = pool->job(pool->ctx, index, number, &err);
        if (status != TMS_OK) record_failure(pool, index, status, &err);
    }
}

/* Waits for a round after `seen`, and returns it. */
static unsigned next_round(struct tms_pool *pool, unsigned seen)
{
    if (!spin(&pool->round, seen, true)) {
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_add(&pool->sleepers,
                         1); /* before the round is looked at: the caller does it the other way round */
        while (atomic_load(&pool->round) == seen) pthread_cond_wait(&pool->start, &pool->lock);
        atomic_fetch_sub(&pool->sleepers, 1);
        pthread_mutex_unlock(&pool->lock);
    }
    return atomic_load_explicit(&pool->round, memory_order_acquire);
}

static bool enter(struct tms_pool *pool)
{
    unsigned gate = atomic_load(&pool->gate);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) return true;
    return false;
}

static void leave(struct tms_pool *pool)
{
    if (atomic_fetch_sub(&pool->gate, 1) != 1 || !atomic_load(&pool->caller_sleeps)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct tms_pool *pool = worker->pool;
    unsigned seen = 0;
    for (;;) {
        seen = next_round(pool, seen);
        if (atomic_load(&pool->quit)) return NULL;
        if (!enter(pool)) continue;
        work(pool, worker->number);
        leave(pool);
    }
}

/* Begins a round, and wakes who sleeps. */
static void announce(struct tms_pool *pool)
{
    atomic_fetch_add(&pool->round, 1);
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
}

/* Closes the gate, and waits until nobody is inside. */
static void close_gate(struct tms_pool *pool)
{
    if (atomic_fetch_and(&pool->gate, ~OPEN) == OPEN || spin(&pool->gate, 0, false)) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->gate) != 0) pthread_cond_wait(&pool->finished, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

tms_status tms_pool_create(struct tms_pool **out, unsigned n_threads, struct tms_error *err)
{
    if (n_threads == 0) n_threads = tms_n_processors();
    if (n_threads > 1024) n_threads = 1024;
    struct tms_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return tms_fail_memory(err, sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->finished, NULL);
    pool->n_threads = 1;
    pool->workers = calloc(n_threads, sizeof *pool->workers);
    if (!pool->workers) {
        tms_pool_free(pool);
        return tms_fail_memory(err, n_threads * sizeof *pool->workers);
    }
    /* Signals go to the caller's threads, not to ours. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 1; i < n_threads; i++) {
        pool->workers[i] = (struct worker){.pool = pool, .number = i};
        if (pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]) != 0) break;
        pool->n_threads = i + 1; /* fewer threads than wanted still do the work */
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    *out = pool;
    return TMS_OK;
}

unsigned tms_pool_threads(const struct tms_pool *pool)
{
    return pool->n_threads;
}

tms_status tms_pool_run(struct tms_pool *pool, size_t n_jobs, tms_job_fn job, void *ctx, struct tms_error *err)
{
    pool->job = job;
    pool->ctx = ctx;
    pool->n_jobs = n_jobs;
    pool->failed_status = TMS_OK;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->failed_job, SIZE_MAX);
    bool together = pool->n_threads > 1 && n_jobs > 1;
    if (together) {
        atomic_store(&pool->gate, OPEN);
        announce(pool);
    }
    work(pool, 0);
    if (together) close_gate(pool);
    tms_status status = pool->failed_status;
    if (status != TMS_OK && err) *err = pool->failed_error;
    if (status == TMS_OK && atomic_load(&pool->next) < n_jobs) return tms_fail(err, TMS_ECANCELLED, "interrupted");
    return status;
}

void tms_pool_free(struct tms_pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->quit, true);
    announce(pool);
    for (unsigned i = 1; i < pool->n_threads; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->start);
    pthread_cond_destroy(&pool->finished);
    free(pool->workers);
    free(pool);
}

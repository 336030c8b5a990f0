/* See threads.h. */
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct worker {
    struct tms_pool *pool;
    unsigned number;
    pthread_t thread;
};

struct tms_pool {
    unsigned n_threads;
    struct worker *workers; /* [n_threads]; worker 0 is the calling thread */
    pthread_mutex_t lock;
    pthread_cond_t start, finished;
    uint64_t round;   /* counts the runs; a worker joins each once */
    unsigned running; /* workers still in the present round */
    bool quit;
    /* the present run */
    tms_job_fn job;
    void *ctx;
    size_t n_jobs, next;
    size_t failed_job; /* lowest job that failed, SIZE_MAX if none */
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

/* Takes jobs until there are none left or one failed. The lock is held on entry and on return. */
static void work(struct tms_pool *pool, unsigned number)
{
    while (pool->next < pool->n_jobs && pool->failed_job == SIZE_MAX && !tms_cancelled()) {
        size_t index = pool->next++;
        pthread_mutex_unlock(&pool->lock);
        struct tms_error err = {""};
        tms_status status = pool->job(pool->ctx, index, number, &err);
        pthread_mutex_lock(&pool->lock);
        if (status != TMS_OK && index < pool->failed_job) {
            pool->failed_job = index;
            pool->failed_status = status;
            pool->failed_error = err;
        }
    }
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct tms_pool *pool = worker->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == seen && !pool->quit) pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->quit) break;
        seen = pool->round;
        work(pool, worker->number);
        if (--pool->running == 0) pthread_cond_signal(&pool->finished);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
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
    pthread_mutex_lock(&pool->lock);
    pool->job = job;
    pool->ctx = ctx;
    pool->n_jobs = n_jobs;
    pool->next = 0;
    pool->failed_job = SIZE_MAX;
    pool->failed_status = TMS_OK;
    pool->running = pool->n_threads - 1;
    pool->round++;
    pthread_cond_broadcast(&pool->start);
    work(pool, 0);
    while (pool->running > 0) pthread_cond_wait(&pool->finished, &pool->lock);
    tms_status status = pool->failed_status;
    if (status != TMS_OK && err) *err = pool->failed_error;
    bool complete = pool->next == n_jobs;
    pthread_mutex_unlock(&pool->lock);
    if (status == TMS_OK && !complete) return tms_fail(err, TMS_ECANCELLED, "interrupted");
    return status;
}

void tms_pool_free(struct tms_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 1; i < pool->n_threads; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->start);
    pthread_cond_destroy(&pool->finished);
    free(pool->workers);
    free(pool);
}

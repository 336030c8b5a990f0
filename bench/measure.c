/* measure: runs a command and says what it took: wall seconds, CPU seconds, peak resident bytes.
 *
 *     measure RESULT COMMAND [ARGUMENT...]      writes "wall cpu peak" into the file RESULT, exits as the command did
 *
 * Linux counts towards a child's peak what its parent held when it started it. So the parent must be small, which
 * Python (15 MB) is not and this is (1.5 MB). */
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: measure RESULT COMMAND [ARGUMENT...]\n");
        return 1;
    }
    double start = now();
    pid_t child;
    int problem = posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ);
    if (problem) {
        fprintf(stderr, "measure: %s: %s\n", argv[2], strerror(problem));
        return 1;
    }
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) < 0) {
        perror("measure: wait4");
        return 1;
    }
    double wall = now() - start;
    FILE *result = fopen(argv[1], "w");
    if (!result ||
        fprintf(result, "%.6f %.6f %ld\n", wall, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime),
                usage.ru_maxrss * 1024L) < 0 ||
        fclose(result) != 0) {
        perror(argv[1]);
        return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

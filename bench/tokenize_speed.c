/* tokenize_speed: how fast tamis's tokenizers read a text.
 *
 *     tokenize_speed MODEL TEXT       once, with a tokenizer just opened, then again and again for each line of input
 *
 * Every answer is one line: seconds of CPU time, ids, and their FNV-1a hash, so that whoever asks can compare them. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/tokenize.h"

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(const struct tms_error *err)
{
    fprintf(stderr, "tokenize_speed: %s\n", err->message);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: tokenize_speed MODEL TEXT\n");
        return 1;
    }
    struct tms_error err;
    struct tms_tokenizer *t;
    FILE *f = fopen(argv[2], "rb");
    char *text = NULL;
    size_t n_bytes = 0, room = 0, part;
    if (!f) {
        perror(argv[2]);
        return 1;
    }
    do {
        if (room - n_bytes < 65536 && !(text = realloc(text, room = 2 * room + 65536))) return 1;
        n_bytes += part = fread(text + n_bytes, 1, 65536, f);
    } while (part > 0);
    fclose(f);
    if (tms_tokenizer_open_path(&t, argv[1], &err) != TMS_OK) return fail(&err);
    do {
        int32_t *ids = NULL;
        size_t n = 0, cap = 0;
        double start = cpu_seconds();
        if (tms_tokenizer_encode(t, text, n_bytes, NULL, &ids, &n, &cap, &err) != TMS_OK) return fail(&err);
        double seconds = cpu_seconds() - start;
        uint64_t hash = 0xcbf29ce484222325;
        for (size_t i = 0; i < n; i++) hash = (hash ^ (uint32_t)ids[i]) * 0x100000001b3;
        printf("%.6f %zu %llu\n", seconds, n, (unsigned long long)hash);
        fflush(stdout);
        free(ids);
    } while (getchar() != EOF);
    tms_tokenizer_close(t);
    free(text);
    return 0;
}

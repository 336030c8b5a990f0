/* codec_speed: tamis's encoders and decoders against ggml's, type by type, in one process.
 *
 *     codec_speed LIBGGML_BASE [--types q4_k,q6_k] [--only decode] [--rows 256] [--repetitions 7]
 *                 [--milliseconds 30] [--json]
 *
 * Both get the same rows (normal, 0.02 wide, as weights are) and importances. First their bytes are compared. Then they
 * run in turns, A B A B, on one thread; each repetition is as many rows as keep ggml busy for the given time (at most
 * --rows of 4096 weights; 12 of them stay in a core's cache when they are decoded). Times are CPU time of the thread,
 * so that other work on the machine counts less; a table entry is the median over the repetitions. The last row copies
 * floats with memcpy: what the memory allows.
 *
 * TAMIS_CPU=scalar|neon|avx2|avx512 lowers what tamis may use. Exit: 0 done, and all bytes are equal; 1 something
 * differs or is missing. */
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cpu.h"
#include "tamis/codec.h"

enum { N_COLS = 4096, MAX_ROWS = 256, MAX_REPETITIONS = 99 };

/* What we need of ggml.h (0.25). */
struct ggml_type_traits {
    const char *type_name;
    int64_t block_elems, interleave;
    size_t block_bytes;
    bool is_quantized;
    void (*to_float)(const void *blocks, float *x, int64_t n);
    void (*from_float)(const float *x, void *blocks, int64_t n);
};
struct ggml_init_params {
    size_t bytes;
    void *buffer;
    bool no_alloc;
};
static struct {
    const char *(*version)(void);
    void *(*init)(struct ggml_init_params params);
    bool (*requires_importances)(int type);
    size_t (*quantize_chunk)(int type, const float *x, void *blocks, int64_t start, int64_t n_rows, int64_t n_cols,
                             const float *importances);
    const struct ggml_type_traits *(*traits)(int type);
} ggml;

/* The input, and what both make of it. */
static float *x, *importances, *decoded[2];
static uint8_t *blocks[2];

enum kind { PLAIN, WEIGHTED, DECODE, N_KINDS };
static const char *const kind_names[N_KINDS] = {"plain", "weighted", "decode"};
enum program { TAMIS, GGML };

struct measured {
    bool possible;   /* both can do it */
    bool equal;      /* and give the same bytes */
    double speed[2]; /* million weights per second, by program */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof values[0], by_size);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static uint64_t random_bits(void)
{
    static uint64_t state = 1;
    uint64_t z = state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Of variance 1, as a sum of twelve uniform ones. */
static float random_normal(void)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += (double)(random_bits() >> 11) * 0x1p-53;
    return (float)sum;
}

static void *take(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p) {
        fprintf(stderr, "codec_speed: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    memset(p, 1, bytes); /* so that no page comes as a surprise later */
    return p;
}

/* One run of one program over n_rows rows. */
static void run_once(const struct tms_codec *codec, enum kind kind, enum program program, size_t n_rows)
{
    size_t n = n_rows * N_COLS;
    void *to = blocks[program];
    if (kind == DECODE) {
        if (program == TAMIS)
            codec->decode(blocks[GGML], decoded[TAMIS], n);
        else
            ggml.traits((int)codec->id)->to_float(blocks[GGML], decoded[GGML], (int64_t)n);
    } else if (program == GGML) {
        ggml.quantize_chunk((int)codec->id, x, to, 0, (int64_t)n_rows, N_COLS, kind == WEIGHTED ? importances : NULL);
    } else if (kind == WEIGHTED && codec->encode_weighted) {
        codec->encode_weighted(x, importances, to, n_rows, N_COLS);
    } else {
        codec->encode(x, to, n);
    }
}

/* The seconds of one of `count` runs. */
static double run(const struct tms_codec *codec, enum kind kind, enum program program, size_t n_rows, int count)
{
    double start = now();
    for (int i = 0; i < count; i++) run_once(codec, kind, program, n_rows);
    return (now() - start) / count;
}

static bool can(const struct tms_codec *codec, enum kind kind)
{
    if (codec->id >= TMS_GGML_TYPES || codec->block_bytes == 0) return false;
    const struct ggml_type_traits *traits = ggml.traits((int)codec->id);
    if (!traits || !traits->to_float || traits->block_elems != codec->block_elems) return false;
    if (kind == DECODE) return codec->decode != NULL;
    if (codec->id == TMS_Q8_K || codec->id == TMS_F64) return false; /* ggml_quantize_chunk stops the program there */
    return kind == WEIGHTED ? codec->encode_weighted != NULL
                            : codec->encode && !ggml.requires_importances((int)codec->id);
}

/* Something to decode: the first rows, again and again. */
static void fill_blocks(const struct tms_codec *codec)
{
    enum { SOME = 8 };
    size_t bytes = tms_codec_bytes(codec, SOME * N_COLS);
    if (codec->encode)
        codec->encode(x, blocks[GGML], SOME * N_COLS);
    else if (codec->encode_weighted)
        codec->encode_weighted(x, importances, blocks[GGML], SOME, N_COLS);
    for (size_t i = SOME; i < MAX_ROWS; i += SOME) memcpy(blocks[GGML] + i / SOME * bytes, blocks[GGML], bytes);
}

static struct measured measure(const struct tms_codec *codec, enum kind kind, size_t max_rows, int repetitions,
                               double seconds)
{
    struct measured m = {.possible = can(codec, kind)};
    if (!m.possible) return m;
    size_t n_rows = 1;
    run_once(codec, kind, GGML, n_rows); /* its tables are made in the first call */
    while (n_rows < max_rows && run(codec, kind, GGML, n_rows, 1) < seconds / 2)
        n_rows = 2 * n_rows < max_rows ? 2 * n_rows : max_rows;

    run_once(codec, kind, GGML, n_rows);
    run_once(codec, kind, TAMIS, n_rows);
    size_t n = n_rows * N_COLS;
    m.equal = kind == DECODE ? memcmp(decoded[TAMIS], decoded[GGML], n * sizeof(float)) == 0
                             : memcmp(blocks[TAMIS], blocks[GGML], tms_codec_bytes(codec, n)) == 0;
    double times[2][MAX_REPETITIONS];
    for (int i = 0; i < repetitions; i++)
        for (int program = TAMIS; program <= GGML; program++) {
            /* Runs that are too short to be timed are repeated. */
            int count = 1;
            double time = run(codec, kind, (enum program)program, n_rows, count);
            while (time * count < seconds / 4 && count < 1 << 20) {
                count *= 2;
                time = run(codec, kind, (enum program)program, n_rows, count);
            }
            times[program][i] = time;
        }
    for (int program = TAMIS; program <= GGML; program++)
        m.speed[program] = 1e-6 * (double)n / median(times[program], repetitions);
    return m;
}

static double memcpy_speed(size_t n_rows, int repetitions)
{
    enum { COUNT = 16 };
    double times[MAX_REPETITIONS];
    size_t n = n_rows * N_COLS;
    for (int i = 0; i < repetitions; i++) {
        double start = now();
        for (int k = 0; k < COUNT; k++) memcpy(decoded[k % 2], x, n * sizeof(float));
        times[i] = (now() - start) / COUNT;
    }
    return 1e-6 * (double)n / median(times, repetitions);
}

static void print_row(const char *name, const struct measured *m)
{
    printf("%-9s", name);
    for (int kind = 0; kind < N_KINDS; kind++) {
        if (m[kind].possible)
            printf(" | %8.1f %8.1f %6.2f %-6s", m[kind].speed[TAMIS], m[kind].speed[GGML],
                   m[kind].speed[TAMIS] / m[kind].speed[GGML], m[kind].equal ? "equal" : "DIFFER");
        else
            printf(" | %8s %8s %6s %-6s", "-", "-", "-", "-");
    }
    printf("\n");
    fflush(stdout);
}

static void print_json_row(const char *name, const struct measured *m, bool first)
{
    printf("%s\n  {\"type\": \"%s\"", first ? "" : ",", name);
    for (int kind = 0; kind < N_KINDS; kind++)
        if (m[kind].possible)
            printf(", \"%s\": {\"tamis_mws\": %.2f, \"ggml_mws\": %.2f, \"ratio\": %.3f, \"equal\": %s}",
                   kind_names[kind], m[kind].speed[TAMIS], m[kind].speed[GGML],
                   m[kind].speed[TAMIS] / m[kind].speed[GGML], m[kind].equal ? "true" : "false");
    printf("}");
}

static bool load_ggml(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "codec_speed: %s\n", dlerror());
        return false;
    }
    const struct {
        const char *name;
        void *at;
    } symbols[] = {
        {"ggml_version", &ggml.version},
        {"ggml_init", &ggml.init},
        {"ggml_quantize_requires_imatrix", &ggml.requires_importances},
        {"ggml_quantize_chunk", &ggml.quantize_chunk},
        {"ggml_get_type_traits", &ggml.traits},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            fprintf(stderr, "codec_speed: %s lacks %s\n", path, symbols[i].name);
            return false;
        }
        memcpy(symbols[i].at, &symbol, sizeof symbol);
    }
    /* Older ones fill their table of f16 numbers here, and without it every scale would decode to zero. */
    return ggml.init((struct ggml_init_params){.bytes = 1 << 20}) != NULL;
}

/* Whether name is in the list "a,b,c", any case; every name is in NULL. */
static bool listed(const char *list, const char *name)
{
    if (!list) return true;
    size_t n = strlen(name);
    for (const char *at = list; *at; at += *at == ',') {
        size_t length = strcspn(at, ",");
        if (length == n && strncasecmp(at, name, n) == 0) return true;
        at += length;
    }
    return false;
}

static int usage(void)
{
    fprintf(stderr, "usage: codec_speed LIBGGML_BASE [--types q4_k,q6_k] [--only decode] [--rows 256] "
                    "[--repetitions 7] [--milliseconds 30] [--json]\n");
    return 1;
}

int main(int argc, char **argv)
{
    const char *types = NULL, *only = NULL, *library = NULL;
    int repetitions = 7;
    long max_rows = MAX_ROWS;
    double seconds = 0.03;
    bool json = false;
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (strcmp(argv[i], "--types") == 0 && has_value)
            types = argv[++i];
        else if (strcmp(argv[i], "--only") == 0 && has_value)
            only = argv[++i];
        else if (strcmp(argv[i], "--rows") == 0 && has_value)
            max_rows = strtol(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--repetitions") == 0 && has_value)
            repetitions = (int)strtol(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--milliseconds") == 0 && has_value)
            seconds = 1e-3 * strtod(argv[++i], NULL);
        else if (argv[i][0] != '-' && !library)
            library = argv[i];
        else
            return usage();
    }
    if (!library || repetitions < 1 || repetitions > MAX_REPETITIONS || !(seconds > 0) || max_rows < 1 ||
        max_rows > MAX_ROWS)
        return usage();
    if (!load_ggml(library)) return 1;

    size_t n = (size_t)MAX_ROWS * N_COLS;
    x = take(n * sizeof *x);
    importances = take(N_COLS * sizeof *importances);
    for (int program = TAMIS; program <= GGML; program++) {
        decoded[program] = take(n * sizeof(float));
        blocks[program] = take(n * sizeof(double));
    }
    for (size_t i = 0; i < n; i++) x[i] = 0.02f * random_normal();
    for (size_t i = 0; i < N_COLS; i++) importances[i] = powf(random_normal(), 2);

    const char *level = tms_cpu_name(tms_cpu_level());
    if (json)
        printf("{\"cpu\": \"%s\", \"ggml\": \"%s\", \"types\": [", level, ggml.version());
    else
        printf("tamis (%s) against ggml %s: million weights per second on one thread, ratio above 1: tamis is faster\n"
               "%-9s | %-31s | %-31s | %s\n%-9s | %8s %8s %6s %-6s | %8s %8s %6s %-6s | %8s %8s %6s %s\n",
               level, ggml.version(), "", "encode", "encode with importances", "decode", "type", "tamis", "ggml",
               "ratio", "bytes", "tamis", "ggml", "ratio", "bytes", "tamis", "ggml", "ratio", "floats");
    bool all_equal = true, first = true;
    for (size_t i = 0; tms_codec_at(i); i++) {
        const struct tms_codec *codec = tms_codec_at(i);
        if (!listed(types, codec->name) || !can(codec, DECODE)) continue;
        struct measured m[N_KINDS] = {0};
        fill_blocks(codec);
        for (int kind = 0; kind < N_KINDS; kind++) {
            if (!listed(only, kind_names[kind])) continue;
            m[kind] = measure(codec, (enum kind)kind, (size_t)max_rows, repetitions, seconds);
            all_equal = all_equal && (m[kind].equal || !m[kind].possible);
        }
        if (json)
            print_json_row(codec->name, m, first);
        else
            print_row(codec->name, m);
        first = false;
    }
    double copied = memcpy_speed((size_t)max_rows, repetitions);
    if (json)
        printf("\n], \"memcpy_f32_mws\": %.1f}\n", copied);
    else
        printf("%-9s | %8.1f (copies of f32: %.1f GB/s read, as much written)\n", "memcpy", copied, copied * 4e-3);
    free(x), free(importances);
    for (int program = TAMIS; program <= GGML; program++) free(decoded[program]), free(blocks[program]);
    return all_equal ? 0 : 1;
}

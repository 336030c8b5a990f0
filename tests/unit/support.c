/* See support.h. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

static char *rotating(void)
{
    static char buffers[16][1024];
    static unsigned next;
    return buffers[next++ % 16];
}

const char *golden(const char *name)
{
    char *path = rotating();
    bool packed = strncmp(name, "ggml/", 5) == 0 || strncmp(name, "hf/", 3) == 0;
    snprintf(path, 1024, packed ? "%s/%s" : "%s/golden/%s", packed ? UNPACKED_DIR : TESTS_DIR, name);
    return path;
}

const char *pebble(void)
{
    char *path = rotating();
    snprintf(path, 1024, "%s/../models/pebble", TESTS_DIR);
    return path;
}

const char *shared_path(const char *name)
{
    char *path = rotating();
    snprintf(path, 1024, "%s/%s", SHARED_DIR, name);
    return access(path, R_OK) == 0 ? path : NULL;
}

static char scratch_dir[256];

static void remove_scratch(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch_dir);
    if (system(command) != 0) fprintf(stderr, "could not remove %s\n", scratch_dir);
}

const char *scratch(const char *name)
{
    if (!scratch_dir[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(scratch_dir, sizeof scratch_dir, "%s/tamis-test-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(scratch_dir)) fail_msg("no scratch folder %s", scratch_dir);
        atexit(remove_scratch);
    }
    char *path = rotating();
    snprintf(path, 1024, "%s/%s", scratch_dir, name);
    return path;
}

uint8_t *read_whole(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    uint8_t *bytes = malloc((size_t)size + 1);
    if (!bytes || fread(bytes, 1, (size_t)size, f) != (size_t)size) fail_msg("cannot read %s", path);
    bytes[size] = 0;
    fclose(f);
    *n = (size_t)size;
    return bytes;
}

void write_whole(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) fail_msg("cannot write %s", path);
}

void sha256_hex(const void *bytes, size_t n, char hex[65])
{
    unsigned char digest[32];
    unsigned length = 0;
    assert_int_equal(EVP_Digest(bytes, n, digest, &length, EVP_sha256(), NULL), 1);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void assert_ok_at(tms_status status, const struct tms_error *err, const char *file, int line)
{
    if (status == TMS_OK) return;
    print_error("status %d: %s\n", (int)status, err->message);
    _fail(file, line);
}

void assert_same_bytes_at(const void *got, const void *want, size_t n, const char *what, const char *file, int line)
{
    const uint8_t *g = got, *w = want;
    size_t differing = 0, first = 0;
    for (size_t i = 0; i < n; i++) {
        if (g[i] == w[i]) continue;
        if (!differing) first = i;
        differing++;
    }
    if (!differing) return;
    print_error("%s: %zu of %zu bytes differ, first at %zu: got %02x, want %02x\n", what, differing, n, first, g[first],
                w[first]);
    _fail(file, line);
}

uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float random_normal(uint64_t *state)
{
    double u = ((double)(next_random(state) >> 11) + 0.5) / 9007199254740992.0;
    double v = ((double)(next_random(state) >> 11) + 0.5) / 9007199254740992.0;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

void fill_strange(float *x, size_t n, int kind, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) {
        float r = random_normal(seed), v = 0;
        switch (kind) {
        case 0: v = i % 2 ? -0.0f : 0.0f; break;
        case 1: v = 1e-42f * r; break;                       /* subnormal */
        case 2: v = FLT_TRUE_MIN; break;                     /* the smallest there is */
        case 3: v = i % 2 ? 1e38f : -1e38f; break;           /* differences near the limit */
        case 4: v = i % 3 ? FLT_MAX : -FLT_MAX; break;       /* differences overflow */
        case 5: v = i % 37 == 5 ? 3e38f : 1e-38f * r; break; /* both at once */
        case 6: v = ldexpf(r, (int)(next_random(seed) % 240) - 130); break;
        case 7: v = i % 64 == 0 ? -1e30f : 0; break;
        case 8: v = 1e-15f * (1 + 1e-3f * r); break; /* about the bound below which a block is zero */
        case 9: v = 1 + 1e-7f * r; break;            /* constant but for the last bit */
        case 10: v = 1e19f * r; break;               /* squares overflow */
        case 11: v = 1e-30f * r; break;              /* squares vanish */
        default: {                                   /* any finite bits */
            uint32_t u = (uint32_t)next_random(seed);
            if ((u & 0x7f800000) == 0x7f800000) u &= 0x807fffff;
            memcpy(&v, &u, sizeof v);
        }
        }
        x[i] = isfinite(v) ? v : 1;
    }
}

void assert_same_files(const char *got, const char *want)
{
    size_t n, m;
    uint8_t *a = read_whole(got, &n), *b = read_whole(want, &m);
    assert_int_equal(n, m);
    assert_same_bytes(a, b, n, want);
    free(a);
    free(b);
}

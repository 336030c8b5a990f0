/* What the fuzz targets of packed weights share: a folder in memory, and that what opens is read alike at once and in
 * ranges. */
#ifndef FUZZ_FOLDER_H
#define FUZZ_FOLDER_H

#include "fuzz.h"

#include <string.h>

#include "file/safetensors.h"
#include "model/source.h"

static char folder[64];

static void path_in(char out[128], const char *name)
{
    snprintf(out, 128, "%s/%s", folder, name);
}

static void write_file(const char *name, const void *bytes, size_t n)
{
    char path[128];
    path_in(path, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) abort();
}

static void remove_folder(void)
{
    char path[128];
    path_in(path, "model.safetensors");
    (void)unlink(path);
    path_in(path, "config.json");
    (void)unlink(path);
    (void)rmdir(folder);
}

/* `quantization`: config.json's quantization_config. */
static void make_folder(const char *quantization)
{
    char config[1024];
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/dev/shm/tamis-fuzz-XXXXXX");
        if (!mkdtemp(folder)) abort();
        atexit(remove_folder);
    }
    snprintf(config, sizeof config, "{\"model_type\":\"strange\",\"quantization_config\":%s}", quantization);
    write_file("config.json", config, strlen(config));
}

static void check_tensor(const struct tms_source *s, const struct tms_tensor *t, uint64_t in_byte)
{
    struct tms_error err;
    uint64_t shape[TMS_ST_MAX_DIMS], n = t->n_weights, unit = tms_source_unit(t), n_shape = 1;
    uint32_t n_dims = tms_source_shape(t, shape);
    for (uint32_t d = 0; d < n_dims; d++) n_shape *= shape[d];
    fuzz_require(n_shape == n, "the shape is that of the weights");
    fuzz_require(n <= in_byte * t->bytes, "no more weights than bits");
    fuzz_require(n == 0 || unit > 0, "a unit");
    void *raw = malloc(tms_source_raw_bytes(t, n) + 1);
    float *whole = malloc(n * sizeof *whole + 1), *part = malloc(n * sizeof *part + 1);
    if (!raw || !whole || !part) abort();
    fuzz_require(tms_source_read(s, t, 0, n, raw, whole, &err) == TMS_OK, "what was found can be read");
    for (uint64_t first = 0, step = unit; first < n; first += step) {
        uint64_t count = n - first < step ? n - first : step;
        fuzz_require(tms_source_read(s, t, first, count, raw, part, &err) == TMS_OK, "ranges can be read");
        fuzz_require(memcmp(part, whole + first, count * sizeof *part) == 0, "ranges are parts of the whole");
        if (first / unit > 8) step = 64 * unit;
    }
    free(raw);
    free(whole);
    free(part);
}

/* Opens the folder: refused with one line, or all that decodes is read. */
static void open_folder(uint64_t in_byte)
{
    struct tms_source *s = NULL;
    struct tms_error err = {{0}};
    if (tms_source_open(&s, folder, NULL, NULL, &err) == TMS_OK) {
        for (size_t i = 0; i < s->n_tensors; i++)
            if (tms_source_decodes(&s->tensors[i])) check_tensor(s, &s->tensors[i], in_byte);
        tms_source_close(s);
    } else {
        fuzz_require(s == NULL, "out-parameters stay untouched");
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    }
}

#endif

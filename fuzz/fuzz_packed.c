/* A folder of bitsandbytes whose parts say anything: types, shapes, the JSON of quant_state, maps and scales. It is
 * refused with one line, or every weight that can be decoded is read alike at once and in ranges.
 *
 * The input: for each of the eight parts a byte (bit 7: it is missing) that chooses its type, and two of its shape;
 * then the text of quant_state with its length in a byte; then the data of the tensors, repeated until all are full. */
#include "fuzz.h"

#include <string.h>

#include "file/safetensors.h"
#include "model/source.h"

#define STATE  ".quant_state.bitsandbytes__nf4"
#define WEIGHT "model.layers.0.mlp.up_proj.weight"

static const char *const names[] = {WEIGHT,
                                    WEIGHT ".absmax",
                                    WEIGHT ".quant_map",
                                    WEIGHT ".nested_absmax",
                                    WEIGHT ".nested_quant_map",
                                    "model.layers.0.mlp.up_proj.SCB",
                                    "model.layers.0.mlp.up_proj.weight_format",
                                    WEIGHT STATE};
enum { N_PARTS = sizeof names / sizeof *names, STATE_PART = N_PARTS - 1, MOST_BYTES = 1 << 16 };
static const enum tms_type types[] = {TMS_U8, TMS_I8, TMS_F32, TMS_F16};

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

static void make_folder(void)
{
    static const char config[] = "{\"model_type\":\"strange\",\"quantization_config\":{\"quant_method\":"
                                 "\"bitsandbytes\",\"load_in_4bit\":true}}";
    snprintf(folder, sizeof folder, "/dev/shm/tamis-fuzz-XXXXXX");
    if (!mkdtemp(folder)) abort();
    atexit(remove_folder);
    write_file("config.json", config, sizeof config - 1);
}

/* The file that the input describes; false if it is none. */
static int write_weights(const uint8_t *bytes, size_t n)
{
    struct tms_st_plan_tensor plan[N_PARTS];
    const uint8_t *text = bytes + 3 * N_PARTS + 1;
    size_t n_plan = 0;
    if (n < 3 * N_PARTS + 2) return 0;
    size_t n_text = bytes[3 * N_PARTS] < n - 3 * N_PARTS - 2 ? bytes[3 * N_PARTS] : n - 3 * N_PARTS - 2;
    const uint8_t *data = text + n_text;
    size_t n_data = n - (size_t)(data - bytes);
    for (size_t i = 0; i < N_PARTS; i++) {
        const uint8_t *at = bytes + 3 * i;
        if (at[0] & 0x80) continue;
        plan[n_plan] = (struct tms_st_plan_tensor){.name = names[i],
                                                   .type = types[at[0] % 4],
                                                   .n_dims = at[0] >> 2 & 1 ? 2 : 1,
                                                   .shape = {at[1] + (at[0] >> 3 & 1 ? 256 : 0), at[2]},
                                                   .tag = i};
        if (i == STATE_PART)
            plan[n_plan] =
                (struct tms_st_plan_tensor){.name = names[i], .tag = i, .type = TMS_U8, .n_dims = 1, .shape = {n_text}};
        n_plan++;
    }
    struct tms_buf file = {0};
    uint64_t size = 0;
    if (tms_st_layout(plan, n_plan, 0, &file, &size, NULL) != TMS_OK) abort();
    int fits = size <= MOST_BYTES;
    while (fits && file.n < size) tms_buf_put(&file, data, n_data < size - file.n ? n_data : (size_t)size - file.n);
    for (size_t i = 0; fits && i < n_plan; i++)
        if (plan[i].tag == STATE_PART && n_text) memcpy(file.data + plan[i].offset, text, n_text);
    if (fits) write_file("model.safetensors", file.data, file.n);
    tms_buf_free(&file);
    return fits;
}

static void check_tensor(const struct tms_source *s, const struct tms_tensor *t)
{
    struct tms_error err;
    uint64_t shape[TMS_ST_MAX_DIMS], n = t->n_weights, unit = tms_source_unit(t), n_shape = 1;
    uint32_t n_dims = tms_source_shape(t, shape);
    for (uint32_t d = 0; d < n_dims; d++) n_shape *= shape[d];
    fuzz_require(n_shape == n, "the shape is that of the weights");
    fuzz_require(n <= 2 * t->bytes, "no more than two weights in a byte");
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tms_source *s = NULL;
    struct tms_error err = {{0}};
    if (!folder[0]) make_folder();
    if (!write_weights(bytes, n)) return 0;
    if (tms_source_open(&s, folder, NULL, NULL, &err) == TMS_OK) {
        for (size_t i = 0; i < s->n_tensors; i++)
            if (tms_source_decodes(&s->tensors[i])) check_tensor(s, &s->tensors[i]);
        tms_source_close(s);
    } else {
        fuzz_require(s == NULL, "out-parameters stay untouched");
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    }
    return 0;
}

/* Any bytes as the model.safetensors.index.json of a folder of two good shards: refused with one line, or the folder
 * is read; with a report, every problem is one line. */
#include "fuzz.h"

#include <string.h>

#include "file/hf_folder.h"

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
    static const char *const names[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                        "model.safetensors.index.json"};
    char path[128];
    for (size_t i = 0; i < 3; i++) {
        path_in(path, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static void write_shard(const char *file, const char *first, const char *second)
{
    struct tms_st_plan_tensor plan[] = {{.name = first, .type = TMS_U8, .n_dims = 1, .shape = {1}},
                                        {.name = second, .type = TMS_U8, .n_dims = 1, .shape = {1}}};
    struct tms_buf buf = {0};
    uint64_t size;
    if (tms_st_layout(plan, 2, 0, &buf, &size, NULL) != TMS_OK) abort();
    tms_buf_zeros(&buf, (size_t)size - buf.n);
    write_file(file, buf.data, buf.n);
    tms_buf_free(&buf);
}

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "/dev/shm/tamis-fuzz-XXXXXX");
    if (!mkdtemp(folder)) abort();
    atexit(remove_folder);
    write_shard("model-00001-of-00002.safetensors", "lm_head.weight", "model.embed_tokens.weight");
    write_shard("model-00002-of-00002.safetensors", "a", "b");
}

static void note(void *ctx, const char *line)
{
    unsigned *n = ctx;
    fuzz_require(line[0] && !strchr(line, '\n'), "a finding is one line");
    ++*n;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tms_hf *hf = NULL;
    struct tms_error err = {{0}};
    unsigned n_findings = 0;
    if (!folder[0]) make_folder();
    write_file("model.safetensors.index.json", bytes, n);
    tms_status strict = tms_hf_open(&hf, folder, NULL, NULL, &err);
    if (strict == TMS_OK) {
        fuzz_require(hf->n_shards >= 1, "the index named a shard");
        tms_hf_close(hf);
    } else {
        fuzz_require(hf == NULL, "out-parameters stay untouched");
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    }
    hf = NULL;
    tms_status lenient = tms_hf_open(&hf, folder, note, &n_findings, &err);
    if (lenient == TMS_OK) {
        fuzz_require((strict == TMS_OK) == (n_findings == 0), "with and without report the same is wrong");
        tms_hf_close(hf);
    } else {
        fuzz_require(strict != TMS_OK, "what is refused with a report is refused without");
    }
    return 0;
}

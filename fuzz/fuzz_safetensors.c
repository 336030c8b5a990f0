/* Any bytes as a safetensors file: refused with one line, or read, and then the file can be planned again. */
#include "fuzz.h"

#include <string.h>

#include "file/safetensors.h"

static void plan_again(const struct tms_safetensors *st)
{
    struct tms_st_plan_tensor *plan = calloc(st->n_tensors + 1, sizeof *plan);
    struct tms_buf header = {0};
    struct tms_error err;
    uint64_t size;
    if (!plan) abort();
    for (size_t i = 0; i < st->n_tensors; i++) {
        plan[i].name = st->tensors[i].name;
        plan[i].type = st->tensors[i].type;
        plan[i].n_dims = st->tensors[i].n_dims;
        memcpy(plan[i].shape, st->tensors[i].shape, sizeof plan[i].shape);
    }
    fuzz_require(tms_st_layout(plan, st->n_tensors, 0, &header, &size, &err) == TMS_OK, "what was read can be planned");
    fuzz_require(size - header.n == st->file.size - st->data_offset, "the data take as much room");
    tms_buf_free(&header);
    free(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_file file = fuzz_file_open(bytes, n);
    struct tms_safetensors *st = NULL;
    struct tms_error err = {{0}};
    tms_status status = tms_safetensors_open(&st, file.path, &err);
    if (status == TMS_OK) {
        for (size_t i = 0; i < st->n_tensors; i++) {
            const struct tms_st_tensor *tensor = &st->tensors[i];
            fuzz_require(tensor->offset + tensor->bytes <= n, "every tensor lies in the file");
            fuzz_require(tms_safetensors_find(st, tensor->name) == tensor, "every tensor is found by name");
        }
        plan_again(st);
        tms_safetensors_close(st);
    } else {
        fuzz_require(st == NULL, "out-parameters stay untouched");
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    }
    fuzz_file_close(&file);
    return 0;
}

/* Any bytes as a GGUF file: refused with one line, or read, and then written and read again to the same. */
#include "fuzz.h"

#include <string.h>

#include "file/gguf.h"

static void plan_again(const struct tms_gguf *gguf)
{
    struct tms_gguf_plan_tensor *plan = calloc(gguf->n_tensors + 1, sizeof *plan);
    struct tms_buf header = {0}, before = {0}, after = {0};
    struct tms_error err;
    struct tms_gguf *again = NULL;
    uint64_t size;
    if (!plan) abort();
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        plan[i].name = gguf->tensors[i].name;
        plan[i].type = gguf->tensors[i].type;
        plan[i].n_dims = gguf->tensors[i].n_dims;
        memcpy(plan[i].ne, gguf->tensors[i].ne, sizeof plan[i].ne);
    }
    fuzz_require(tms_gguf_layout(&gguf->kvs, plan, gguf->n_tensors, &header, &size, &err) == TMS_OK,
                 "what was read can be planned");
    struct fuzz_file file = fuzz_file_open(header.data, header.n);
    if (size < (1u << 24) && ftruncate(file.fd, (off_t)size) == 0) {
        fuzz_require(tms_gguf_open(&again, file.path, &err) == TMS_OK, "what was planned can be read");
        fuzz_require(again->n_tensors == gguf->n_tensors, "as many tensors");
        for (size_t i = 0; i < gguf->n_tensors; i++)
            fuzz_require(strcmp(again->tensors[i].name, gguf->tensors[i].name) == 0 &&
                             again->tensors[i].bytes == gguf->tensors[i].bytes &&
                             again->tensors[i].offset == plan[i].offset,
                         "the same tensors");
        tms_kvs_serialize(&gguf->kvs, &before);
        tms_kvs_serialize(&again->kvs, &after);
        fuzz_require(before.n == after.n && (before.n == 0 || memcmp(before.data, after.data, before.n) == 0),
                     "the same keys");
        tms_gguf_close(again);
    }
    fuzz_file_close(&file);
    tms_buf_free(&before);
    tms_buf_free(&after);
    tms_buf_free(&header);
    free(plan);
}

static void read_values(const struct tms_kvs *kvs)
{
    for (size_t i = 0; i < kvs->n; i++) {
        uint64_t whole;
        double number;
        const struct tms_kv *kv = tms_kvs_find(kvs, kvs->items[i].key);
        fuzz_require(kv == &kvs->items[i], "every key is found");
        (void)tms_kv_as_u64(kv, &whole);
        (void)tms_kv_as_f64(kv, &number);
        fuzz_require(kv->bytes[kv->n_bytes] == 0, "a NUL follows the value");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_file file = fuzz_file_open(bytes, n);
    struct tms_gguf *gguf = NULL;
    struct tms_error err = {{0}};
    tms_status status = tms_gguf_open(&gguf, file.path, &err);
    if (status == TMS_OK) {
        for (size_t i = 0; i < gguf->n_tensors; i++) {
            const struct tms_gguf_tensor *tensor = &gguf->tensors[i];
            fuzz_require(tensor->offset + tensor->bytes <= n, "every tensor lies in the file");
            fuzz_require(tms_gguf_find(gguf, tensor->name) == tensor, "every tensor is found by name");
        }
        if (gguf->kvs.n < 1000) read_values(&gguf->kvs);
        plan_again(gguf);
        tms_gguf_close(gguf);
    } else {
        fuzz_require(gguf == NULL, "out-parameters stay untouched");
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    }
    fuzz_file_close(&file);
    return 0;
}

/* GGUF files, alone and split. */
#include "corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/gguf.h"

static struct tms_buf file;

static void begin(uint32_t version, uint64_t n_tensors, uint64_t n_kvs)
{
    tms_buf_put(&file, "GGUF", 4);
    tms_buf_u32(&file, version);
    tms_buf_u64(&file, n_tensors);
    tms_buf_u64(&file, n_kvs);
}

static void key(const char *name, uint32_t type)
{
    tms_kv_put_string(&file, name, strlen(name));
    tms_buf_u32(&file, type);
}

static void array(const char *name, uint32_t type, uint64_t count)
{
    key(name, TMS_KV_ARRAY);
    tms_buf_u32(&file, type);
    tms_buf_u64(&file, count);
}

static void architecture(void)
{
    key("general.architecture", TMS_KV_STRING);
    tms_kv_put_string(&file, "qwen2", 5);
}

static void tensor(const char *name, uint32_t n_dims, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset)
{
    tms_kv_put_string(&file, name, strlen(name));
    tms_buf_u32(&file, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) tms_buf_u64(&file, i == 0 ? ne0 : i == 1 ? ne1 : 1);
    tms_buf_u32(&file, type);
    tms_buf_u64(&file, offset);
}

static void data(size_t n)
{
    tms_buf_zeros(&file, tms_align_up(file.n, TMS_GGUF_ALIGNMENT) - file.n + n);
}

static void refused(const char *path, const char *fragment)
{
    corpus_write_buf(path, &file);
    corpus_refused(path, fragment);
}

static void beginnings(void)
{
    refused("gguf/empty.gguf", "does not begin with 'GGUF'");
    tms_buf_text(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    refused("gguf/lfs-pointer.gguf", "git lfs pull");
    tms_buf_text(&file, "<html><body>Forbidden</body></html>");
    refused("gguf/html.gguf", "HTML page");
    tms_buf_text(&file, "tjgg\1\2\3\4");
    refused("gguf/ggjt.gguf", "GGJT");
    tms_buf_text(&file, "GGUF\3");
    refused("gguf/five-bytes.gguf", "needs 4 bytes");
    begin(0, 0, 0);
    refused("gguf/version-0.gguf", "version 0");
    begin(1, 0, 0);
    refused("gguf/version-1.gguf", "version 1");
    begin(9, 0, 0);
    refused("gguf/version-9.gguf", "version 9");
    begin(0x03000000, 0, 0);
    refused("gguf/big-endian.gguf", "big-endian");
    begin(3, 0, UINT64_MAX);
    refused("gguf/negative-keys.gguf", "18446744073709551615 keys");
    begin(3, UINT64_C(1) << 62, 1);
    architecture();
    refused("gguf/too-many-tensors.gguf", "4611686018427387904 tensors");
}

static void keys(void)
{
    begin(3, 0, 1);
    key("", TMS_KV_U32);
    tms_buf_u32(&file, 1);
    refused("gguf/empty-key.gguf", "its name has 0 bytes");
    begin(3, 0, 1);
    tms_buf_u64(&file, UINT64_C(1) << 40);
    tms_buf_zeros(&file, 32);
    refused("gguf/endless-key.gguf", "1099511627776 bytes");
    begin(3, 0, 1);
    key("general.\033[31mname", TMS_KV_U32);
    tms_buf_u32(&file, 1);
    refused("gguf/key-control.gguf", "control characters");
    begin(3, 0, 2);
    architecture();
    architecture();
    refused("gguf/key-twice.gguf", "comes twice");
    begin(3, 0, 1);
    key("general.name", 99);
    tms_buf_u64(&file, 0);
    refused("gguf/unknown-value-type.gguf", "unknown type 99");
    begin(3, 0, 1);
    key("general.name", TMS_KV_STRING);
    tms_buf_u64(&file, UINT64_C(1) << 33);
    tms_buf_zeros(&file, 8);
    refused("gguf/endless-string.gguf", "needs 8589934592 bytes");
    begin(3, 0, 1);
    array("tokenizer.ggml.tokens", TMS_KV_STRING, UINT64_C(1) << 29);
    tms_buf_zeros(&file, 64);
    refused("gguf/endless-array.gguf", "needs 4294967296 bytes");
    begin(3, 0, 1);
    array("tokenizer.ggml.scores", TMS_KV_F32, UINT64_C(1) << 62);
    tms_buf_zeros(&file, 64);
    refused("gguf/array-overflow.gguf", "an array of 4611686018427387904 elements");
    begin(3, 0, 1);
    array("nested", TMS_KV_ARRAY, 1);
    tms_buf_u32(&file, TMS_KV_U8);
    tms_buf_u64(&file, 1);
    tms_buf_zeros(&file, 8);
    refused("gguf/nested-array.gguf", "array of arrays");
    begin(3, 0, 1);
    array("tokenizer.ggml.token_type", 77, 1);
    tms_buf_zeros(&file, 64);
    refused("gguf/unknown-element-type.gguf", "elements have the unknown type 77");
    begin(3, 0, 1);
    array("tokenizer.ggml.merges", TMS_KV_STRING, 2);
    tms_kv_put_string(&file, "a b", 3);
    tms_buf_u64(&file, 77777);
    refused("gguf/array-string-past-end.gguf", "needs 77777 bytes");
    begin(3, 0, 1);
    key("general.alignment", TMS_KV_U32);
    tms_buf_u32(&file, 24);
    refused("gguf/alignment-24.gguf", "'general.alignment' is not a u32 power of two");
}

static void tensors(void)
{
    static const struct {
        const char *path;
        uint32_t n_dims;
        uint64_t ne0, ne1;
        uint32_t type;
        uint64_t offset;
        const char *fragment;
    } alone[] = {
        {"gguf/no-dimensions.gguf", 0, 0, 0, TMS_F32, 0, "0 dimensions"},
        {"gguf/five-dimensions.gguf", 5, 1, 1, TMS_F32, 0, "5 dimensions"},
        {"gguf/length-0.gguf", 2, 32, 0, TMS_F32, 0, "dimension of length 0"},
        {"gguf/negative-length.gguf", 2, UINT64_MAX, UINT64_MAX, TMS_F32, 0, "product overflows"},
        {"gguf/size-overflow.gguf", 2, UINT64_C(1) << 31, UINT64_C(1) << 31, TMS_F32, 0, "size that overflows"},
        {"gguf/ragged-block.gguf", 2, 100, 4, TMS_Q4_K, 0, "no multiple of the block"},
        {"gguf/removed-type.gguf", 1, 32, 0, 4, 0, "type 4,"},
        {"gguf/unknown-type.gguf", 1, 32, 0, 4242, 0, "type 4242"},
        {"gguf/misaligned.gguf", 1, 4, 0, TMS_F32, 4, "offset 4 is no multiple"},
        {"gguf/offset-overflow.gguf", 1, 4, 0, TMS_F32, UINT64_MAX - 31, "its offset overflows"},
        {"gguf/past-end.gguf", 1, 1024, 0, TMS_F32, 0, "cut short"},
    };
    for (size_t i = 0; i < sizeof alone / sizeof alone[0]; i++) {
        begin(3, 1, 1);
        architecture();
        tensor("output.weight", alone[i].n_dims, alone[i].ne0, alone[i].ne1, alone[i].type, alone[i].offset);
        data(256);
        refused(alone[i].path, alone[i].fragment);
    }
    begin(3, 1, 1);
    architecture();
    tensor("blk.0.a_name_that_is_longer_than_the_sixty_three_bytes_that_ggml_has_room_for", 1, 1, 0, TMS_F32, 0);
    data(32);
    refused("gguf/long-tensor-name.gguf", "1 to 63 are allowed");
    begin(3, 2, 1);
    architecture();
    tensor("output.weight", 1, 1, 0, TMS_F32, 0);
    tensor("output.weight", 1, 1, 0, TMS_F32, 32);
    data(64);
    refused("gguf/tensor-twice.gguf", "'output.weight' comes twice");
    begin(3, 2, 1);
    architecture();
    tensor("output.weight", 1, 16, 0, TMS_F32, 0);
    tensor("output_norm.weight", 1, 1, 0, TMS_F32, 32);
    data(64);
    refused("gguf/overlap.gguf", "overlap");
    begin(3, 1, 1);
    architecture();
    tensor("output.weight", 1, 16, 0, TMS_F32, 0);
    refused("gguf/no-data.gguf", "ends at byte");
}

/* Files that the reader takes, but that are not good. */
static void contents(void)
{
    begin(3, 1, 1);
    architecture();
    tensor("output_norm.weight", 1, 8, 0, TMS_F32, 0);
    data(32);
    memset(file.data + file.n - 4, 0xff, 4);
    corpus_write_buf("gguf/nan.gguf", &file);
    corpus_expect("gguf/nan.gguf", "check", 2, "column 7 is NaN");
    begin(3, 1, 1);
    architecture();
    tensor("output.weight", 2, 32, 1, TMS_Q8_0, 0);
    data(64);
    memcpy(file.data + file.n - 64, "\0\174\1", 3); /* the scale is infinite, the first code 1 */
    corpus_write_buf("gguf/infinite-scale.gguf", &file);
    corpus_expect("gguf/infinite-scale.gguf", "check", 2, "tensor 'output.weight' row 0 column 0 is infinity");
    begin(3, 2, 1);
    architecture();
    tensor("output.weight", 1, 8, 0, TMS_F32, 0);
    tensor("output_norm.weight", 1, 8, 0, TMS_F32, 64);
    data(96);
    corpus_write_buf("gguf/gap.gguf", &file);
    corpus_expect("gguf/gap.gguf", "check", 2, "llama.cpp demands");
    begin(3, 1, 1);
    architecture();
    tensor("blk.0.mystery.weight", 1, 8, 0, TMS_F32, 0);
    data(32);
    corpus_write_buf("gguf/unexplained.gguf", &file);
    corpus_expect("gguf/unexplained.gguf", "check", 2, "'blk.0.mystery.weight'");
    corpus_expect("gguf/good.gguf", "check", 2, "has no tokenizer");
    corpus_expect("gguf/good.gguf", "quantize", 0, "");
    begin(3, 1, 1);
    architecture();
    tensor("output.weight", 2, 32, 2, TMS_Q4_0, 0);
    data(64);
    corpus_write_buf("gguf/quantized.gguf", &file);
    corpus_expect("gguf/quantized.gguf", "quantize", 2, "quantized already");
}

/* ---- splits ---- */

static void shard(const char *path, const char *name, uint16_t number, uint16_t count, int32_t total)
{
    struct tms_kvs kvs = {0};
    struct tms_gguf_plan_tensor plan = {.name = name, .type = TMS_F32, .n_dims = 1, .ne = {1}};
    uint64_t size;
    tms_kvs_set_string(&kvs, "general.architecture", "qwen2");
    tms_kvs_set_u16(&kvs, "split.no", number);
    tms_kvs_set_u16(&kvs, "split.count", count);
    tms_kvs_set_i32(&kvs, "split.tensors.count", total);
    if (tms_gguf_layout(&kvs, &plan, 1, &file, &size, NULL) != TMS_OK) abort();
    tms_buf_zeros(&file, (size_t)size - file.n);
    corpus_write_buf(path, &file);
    tms_kvs_free(&kvs);
}

static void splits(void)
{
    shard("gguf/good-00001-of-00002.gguf", "a", 0, 2, 2);
    shard("gguf/good-00002-of-00002.gguf", "b", 1, 2, 2);
    corpus_expect("gguf/good-00001-of-00002.gguf", "inspect", 0, "");
    corpus_refused("gguf/good-00002-of-00002.gguf", "give the first one, good-00001-of-00002.gguf");

    shard("gguf/missing-00001-of-00002.gguf", "a", 0, 2, 2);
    corpus_refused("gguf/missing-00001-of-00002.gguf", "shard 2 of 2 is missing");

    shard("gguf/swapped-00001-of-00002.gguf", "a", 0, 2, 2);
    shard("gguf/swapped-00002-of-00002.gguf", "b", 0, 2, 2);
    corpus_refused("gguf/swapped-00001-of-00002.gguf", "says it is shard 1 of 2, not 2 of 2");

    shard("gguf/repeated-00001-of-00002.gguf", "a", 0, 2, 2);
    shard("gguf/repeated-00002-of-00002.gguf", "a", 1, 2, 2);
    corpus_refused("gguf/repeated-00001-of-00002.gguf", "tensor 'a' is in shards 1 and 2");

    shard("gguf/total-00001-of-00002.gguf", "a", 0, 2, 99);
    shard("gguf/total-00002-of-00002.gguf", "b", 1, 2, 99);
    corpus_refused("gguf/total-00001-of-00002.gguf", "split.tensors.count says 99");

    shard("gguf/renamed.gguf", "a", 0, 3, 3);
    corpus_refused("gguf/renamed.gguf", "does not end in -00001-of-00003.gguf");

    shard("gguf/impossible-00001-of-00002.gguf", "a", 5, 2, 2);
    corpus_refused("gguf/impossible-00001-of-00002.gguf", "shard 6 of 2");
}

void corpus_gguf(void)
{
    corpus_mkdir("gguf");
    begin(3, 1, 1);
    architecture();
    tensor("output.weight", 2, 32, 2, TMS_Q8_0, 0);
    data(96);
    corpus_write_buf("gguf/good.gguf", &file);
    corpus_expect("gguf/good.gguf", "inspect", 0, "");
    beginnings();
    keys();
    tensors();
    splits();
    contents();
}

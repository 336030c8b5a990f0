/* GGUF: what the reader accepts and refuses, and that the writer's layout satisfies llama.cpp's rule. */
#include "support.h"

#include <inttypes.h>
#include <sys/resource.h>
#include <unistd.h>

#include "file/gguf.h"

static struct tms_error err;

/* ---- files made byte by byte ---- */

static void begin(struct tms_buf *buf, uint32_t version, uint64_t n_tensors, uint64_t n_kvs)
{
    tms_buf_put(buf, "GGUF", 4);
    tms_buf_u32(buf, version);
    tms_buf_u64(buf, n_tensors);
    tms_buf_u64(buf, n_kvs);
}

/* A key and its type; the value follows by hand. */
static void key(struct tms_buf *buf, const char *name, uint32_t type)
{
    tms_kv_put_string(buf, name, strlen(name));
    tms_buf_u32(buf, type);
}

static void info(struct tms_buf *buf, const char *name, uint32_t n_dims, uint64_t ne0, uint64_t ne1, uint32_t type,
                 uint64_t offset)
{
    tms_kv_put_string(buf, name, strlen(name));
    tms_buf_u32(buf, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) tms_buf_u64(buf, i == 0 ? ne0 : i == 1 ? ne1 : 1);
    tms_buf_u32(buf, type);
    tms_buf_u64(buf, offset);
}

/* Padding up to `alignment`, and that many bytes of data. */
static void data(struct tms_buf *buf, uint64_t alignment, size_t n)
{
    tms_buf_zeros(buf, tms_align_up(buf->n, alignment) - buf->n + n);
}

/* Writes and frees. */
static const char *saved(struct tms_buf *buf)
{
    static unsigned number;
    char name[64];
    snprintf(name, sizeof name, "%u.gguf", number++);
    const char *path = scratch(name);
    assert_false(buf->failed);
    write_whole(path, buf->data ? (const void *)buf->data : "", buf->n);
    tms_buf_free(buf);
    return path;
}

static struct tms_gguf *open_fine(const char *path)
{
    struct tms_gguf *gguf = NULL;
    tms_status status = tms_gguf_open(&gguf, path, &err);
    assert_ok(status, err);
    return gguf;
}

/* The file is refused with `wanted`, *out stays as it was, and the message holds `fragment`. */
#define refuses(path, fragment) refuses_at((path), TMS_EINPUT, (fragment), __LINE__)
static void refuses_at(const char *path, tms_status wanted, const char *fragment, int line)
{
    struct tms_gguf *untouched = (struct tms_gguf *)&err, *gguf = untouched;
    memset(err.message, 0, sizeof err.message);
    tms_status status = tms_gguf_open(&gguf, path, &err);
    if (status != wanted || gguf != untouched || !strstr(err.message, fragment))
        fail_msg("line %d: status %d, message '%s', wanted '%s'", line, (int)status, err.message, fragment);
}

/* ---- reading ---- */

static void gguf_reader_reads_every_value_type(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 0, 14);
    for (uint32_t type = 0; type < TMS_KV_TYPES; type++) {
        if (type == TMS_KV_STRING || type == TMS_KV_ARRAY) continue;
        key(&b, tms_kv_type_name((enum tms_kv_type)type), type);
        tms_buf_put(&b, "\1\0\0\0\0\0\0\0", tms_kv_type_bytes((enum tms_kv_type)type));
    }
    key(&b, "general.architecture", TMS_KV_STRING);
    tms_kv_put_string(&b, "qwen2", 5);
    key(&b, "strings", TMS_KV_ARRAY);
    tms_buf_u32(&b, TMS_KV_STRING);
    tms_buf_u64(&b, 2);
    tms_kv_put_string(&b, "ab", 2);
    tms_kv_put_string(&b, "", 0);
    key(&b, "numbers", TMS_KV_ARRAY);
    tms_buf_u32(&b, TMS_KV_U16);
    tms_buf_u64(&b, 3);
    tms_buf_put(&b, "\1\0\2\0\3\0", 6);
    struct tms_gguf *gguf = open_fine(saved(&b));
    uint64_t v;
    assert_int_equal(gguf->version, 3);
    assert_int_equal(gguf->alignment, 32);
    assert_int_equal(gguf->kvs.n, 14);
    assert_true(tms_kv_as_u64(tms_kvs_find(&gguf->kvs, "i64"), &v) && v == 1);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&gguf->kvs, "general.architecture")), "qwen2");
    const struct tms_kv *strings = tms_kvs_find(&gguf->kvs, "strings");
    assert_int_equal(strings->elem_type, TMS_KV_STRING);
    assert_int_equal(strings->count, 2);
    assert_int_equal(strings->n_bytes, 18);
    assert_memory_equal(strings->bytes, "\2\0\0\0\0\0\0\0ab\0\0\0\0\0\0\0\0", 18);
    assert_int_equal(tms_kvs_find(&gguf->kvs, "numbers")->n_bytes, 6);
    tms_gguf_close(gguf);
}

static void gguf_reader_reads_version_2_and_its_own_alignment(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 2, 2, 1);
    key(&b, "general.alignment", TMS_KV_U32);
    tms_buf_u32(&b, 64);
    info(&b, "second", 1, 5, 0, TMS_F32, 128);
    info(&b, "first", 2, 256, 3, TMS_Q8_0, 1024);
    data(&b, 64, 1024 + 816);
    uint64_t size = b.n;
    struct tms_gguf *gguf = open_fine(saved(&b));
    assert_int_equal(gguf->version, 2);
    assert_int_equal(gguf->alignment, 64);
    assert_int_equal(gguf->n_tensors, 2);
    assert_string_equal(gguf->tensors[0].name, "second");
    assert_int_equal(gguf->tensors[0].ne[0], 5);
    assert_int_equal(gguf->tensors[0].ne[1], 1);
    assert_int_equal(gguf->tensors[0].offset, size - 1024 - 816 + 128);
    const struct tms_gguf_tensor *tensor = tms_gguf_find(gguf, "first");
    assert_ptr_equal(tensor, &gguf->tensors[1]);
    assert_int_equal(tensor->bytes, 3 * 8 * 34);
    assert_int_equal(tensor->offset + tensor->bytes, size);
    assert_null(tms_gguf_find(gguf, "third"));
    tms_gguf_close(gguf);
}

static void gguf_reader_rejects_what_is_no_gguf_file(void **state)
{
    (void)state;
    const char *path = scratch("alien");
#define is(bytes, fragment) (write_whole(path, bytes, sizeof bytes - 1), refuses(path, fragment))
    is("", "does not begin with 'GGUF'");
    is("GGU", "does not begin with 'GGUF'");
    is("GGUG\003\000\000\000", "does not begin with 'GGUF'");
    is("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull");
    is("<!doctype html><title>404</title>", "HTML page");
    is("PK\003\004\024\000\000\000\010\000", "zip archive");
    is("tjgg\003\000\000\000", "GGJT");
    is("GGUF", "needs 4 bytes");
    is("GGUF\000\000\000\000", "version 0");
    is("GGUF\001\000\000\000\000\000\000\000\000\000\000\000", "version 1");
    is("GGUF\004\000\000\000", "version 4");
    is("GGUF\000\000\000\003\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000", "big-endian");
    is("GGUF\003\000\000\000\000\000\000\000\000\000\000\000", "needs 4 bytes");
#undef is
    refuses(scratch("not-there.gguf"), "no such file");
}

static void gguf_reader_rejects_counts_that_cannot_fit(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 0, 1000);
    refuses(saved(&b), "1000 keys cannot fit");
    begin(&b, 3, 0, UINT64_MAX);
    refuses(saved(&b), "18446744073709551615 keys cannot fit");
    begin(&b, 3, UINT64_C(1) << 60, 0);
    tms_buf_zeros(&b, 100);
    refuses(saved(&b), "1152921504606846976 tensors cannot fit");
}

static void gguf_reader_rejects_bad_keys(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 0, 1);
    key(&b, "", TMS_KV_U32);
    tms_buf_u32(&b, 1);
    refuses(saved(&b), "0 bytes");
    begin(&b, 3, 0, 1);
    tms_buf_u64(&b, 65536);
    tms_buf_zeros(&b, 70000);
    refuses(saved(&b), "65536 bytes");
    begin(&b, 3, 0, 1);
    key(&b, "a\nb", TMS_KV_U32);
    tms_buf_u32(&b, 1);
    refuses(saved(&b), "control characters");
    begin(&b, 3, 0, 1);
    key(&b, "a\xff", TMS_KV_U32);
    tms_buf_u32(&b, 1);
    refuses(saved(&b), "not UTF-8");
    begin(&b, 3, 0, 1);
    key(&b, "long name that is cut", TMS_KV_U32);
    b.n -= 10;
    refuses(saved(&b), "needs 21 bytes");
}

static void gguf_reader_rejects_duplicate_keys(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 0, 3);
    for (int i = 0; i < 3; i++) {
        key(&b, i == 1 ? "other" : "general.name", TMS_KV_U32);
        tms_buf_u32(&b, 1);
    }
    refuses(saved(&b), "key 'general.name' comes twice");
}

static void gguf_reader_rejects_bad_values(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 0, 1);
    key(&b, "kkkkkkkkk", 13);
    tms_buf_u64(&b, 1);
    refuses(saved(&b), "unknown type 13");
    begin(&b, 3, 0, 1);
    key(&b, "k", 0xffffffff);
    tms_buf_u64(&b, 1);
    refuses(saved(&b), "unknown type 4294967295");
    begin(&b, 3, 0, 1);
    key(&b, "k", TMS_KV_U64);
    tms_buf_u32(&b, 1);
    refuses(saved(&b), "key 'k' at byte 37 needs 8 bytes, but the file has only 4 more");
    begin(&b, 3, 0, 1);
    key(&b, "k", TMS_KV_STRING);
    tms_buf_u64(&b, UINT64_MAX);
    refuses(saved(&b), "needs 18446744073709551615 bytes");
}

static void gguf_reader_rejects_bad_arrays(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    static const struct {
        uint32_t type;
        uint64_t count;
        const char *fragment;
    } cases[] = {
        {TMS_KV_ARRAY, 1, "array of arrays"},
        {TMS_KV_TYPES, 1, "unknown type 13"},
        {TMS_KV_U8, UINT64_C(1) << 31, "an array of 2147483648 elements"},
        {TMS_KV_U8, 17, "needs 17 bytes"},
        {TMS_KV_U64, 3, "needs 24 bytes"},
        {TMS_KV_STRING, 3, "needs 24 bytes"},
        {TMS_KV_STRING, UINT64_MAX, "an array of 18446744073709551615 elements"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(&b, 3, 0, 1);
        key(&b, "k", TMS_KV_ARRAY);
        tms_buf_u32(&b, cases[i].type);
        tms_buf_u64(&b, cases[i].count);
        tms_buf_zeros(&b, 16);
        refuses(saved(&b), cases[i].fragment);
    }
    begin(&b, 3, 0, 1);
    key(&b, "k", TMS_KV_ARRAY);
    tms_buf_u32(&b, TMS_KV_STRING);
    tms_buf_u64(&b, 2);
    tms_kv_put_string(&b, "x", 1);
    tms_buf_u64(&b, 1000);
    refuses(saved(&b), "needs 1000 bytes");
}

static void gguf_reader_rejects_bad_alignment(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 3, 48, 1u << 22, 1u << 31, 0xffffffff};
    struct tms_buf b = {0};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        begin(&b, 3, 0, 1);
        key(&b, "general.alignment", TMS_KV_U32);
        tms_buf_u32(&b, values[i]);
        refuses(saved(&b), "'general.alignment' is not a u32 power of two");
    }
    begin(&b, 3, 0, 1);
    key(&b, "general.alignment", TMS_KV_U64);
    tms_buf_u64(&b, 32);
    refuses(saved(&b), "'general.alignment' is not a u32 power of two");
}

static void gguf_reader_rejects_bad_tensor_names(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    static const char x64[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    static const struct {
        const char *name;
        const char *fragment;
    } cases[] = {{"", "tensor 1 of 1"}, {x64, "64 bytes"}, {"a\tb", "control characters"}, {"\xc0\x80", "UTF-8"}};
    for (size_t i = 0; i < 4; i++) {
        begin(&b, 3, 1, 0);
        info(&b, cases[i].name, 1, 1, 0, TMS_F32, 0);
        data(&b, 32, 4);
        refuses(saved(&b), cases[i].fragment);
    }
    begin(&b, 3, 1, 0);
    info(&b, x64 + 1, 1, 1, 0, TMS_F32, 0);
    data(&b, 32, 4);
    tms_gguf_close(open_fine(saved(&b)));
}

static void gguf_reader_rejects_duplicate_tensor_names(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 2, 0);
    info(&b, "a", 1, 1, 0, TMS_F32, 0);
    info(&b, "a", 1, 1, 0, TMS_F32, 32);
    data(&b, 32, 64);
    refuses(saved(&b), "tensor 'a' comes twice");
}

static void gguf_reader_rejects_bad_shapes_and_types(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_dims;
        uint64_t ne0, ne1;
        uint32_t type;
        const char *fragment;
    } cases[] = {
        {0, 0, 0, TMS_F32, "0 dimensions"},
        {5, 1, 1, TMS_F32, "5 dimensions"},
        {2, 0, 1, TMS_F32, "dimension of length 0"},
        {2, 1, 0, TMS_F32, "dimension of length 0"},
        {1, UINT64_MAX, 0, TMS_F32, "overflows"},
        {2, UINT64_C(1) << 32, UINT64_C(1) << 32, TMS_F32, "overflows"},
        {2, UINT64_C(1) << 31, UINT64_C(1) << 32, TMS_I8, "overflows"},
        {2, UINT64_C(1) << 30, UINT64_C(1) << 32, TMS_F32, "size that overflows"},
        {2, 255, 2, TMS_Q4_K, "q4_k [255, 2], has rows that are no multiple"},
        {1, 1, 0, 4, "type 4"}, /* Q4_2, removed from ggml */
        {1, 1, 0, 43, "type 43"},
        {1, 1, 0, TMS_U8, "type 101"}, /* tamis's own id, not one of files */
        {1, 1, 0, 0xffffffff, "type 4294967295"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tms_buf b = {0};
        begin(&b, 3, 1, 0);
        info(&b, "a", cases[i].n_dims, cases[i].ne0, cases[i].ne1, cases[i].type, 0);
        data(&b, 32, 1024);
        refuses(saved(&b), cases[i].fragment);
    }
}

static void gguf_reader_rejects_tensor_past_end_of_file(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 1, 0);
    info(&b, "a", 1, 8, 0, TMS_F32, 0);
    data(&b, 32, 31);
    refuses(saved(&b), "tensor 'a' ends at byte 96, but the file has only 95");
    begin(&b, 3, 1, 0);
    info(&b, "a", 1, 8, 0, TMS_F32, 64);
    data(&b, 32, 64);
    refuses(saved(&b), "cut short");
    begin(&b, 3, 1, 0);
    info(&b, "a", 1, 8, 0, TMS_F32, UINT64_C(0xffffffffffffffe0));
    data(&b, 32, 64);
    refuses(saved(&b), "offset overflows");
    begin(&b, 3, 1, 0);
    info(&b, "a", 1, 8, 0, TMS_F32, 0);
    refuses(saved(&b), "cut short");
}

static void gguf_reader_rejects_misaligned_tensor(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 1, 0);
    info(&b, "a", 1, 1, 0, TMS_F32, 16);
    data(&b, 32, 64);
    refuses(saved(&b), "its offset 16 is no multiple of the alignment, 32");
}

static void gguf_reader_rejects_overlapping_tensors(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    begin(&b, 3, 2, 0);
    info(&b, "b", 1, 8, 0, TMS_F32, 32);
    info(&b, "a", 1, 9, 0, TMS_F32, 0);
    data(&b, 32, 64);
    refuses(saved(&b), "tensors 'a' and 'b' overlap");
}

static void gguf_reader_rejects_every_truncation(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    struct tms_buf file = {0}, tokens = {0};
    uint64_t size;
    tms_kvs_set_string(&kvs, "general.architecture", "llama");
    tms_kv_put_string(&tokens, "a", 1);
    tms_kv_put_string(&tokens, "bc", 2);
    tms_kvs_set_array(&kvs, "tokenizer.ggml.tokens", TMS_KV_STRING, 2, tokens.data, tokens.n);
    struct tms_gguf_plan_tensor plan[] = {{.name = "a", .type = TMS_F32, .n_dims = 1, .ne = {8}},
                                          {.name = "b", .type = TMS_Q8_0, .n_dims = 2, .ne = {32, 2}}};
    assert_ok(tms_gguf_layout(&kvs, plan, 2, &file, &size, &err), err);
    tms_buf_zeros(&file, (size_t)size - file.n);
    const char *path = scratch("cut.gguf");
    for (size_t n = 0; n < plan[1].offset + plan[1].bytes; n++) {
        write_whole(path, file.data, n);
        refuses(path, path);
    }
    write_whole(path, file.data, (size_t)(plan[1].offset + plan[1].bytes));
    tms_gguf_close(open_fine(path)); /* without the padding of the last tensor, as older writers left it */
    tms_buf_free(&file);
    tms_buf_free(&tokens);
    tms_kvs_free(&kvs);
}

static void gguf_reader_reads_metadata_longer_than_its_buffer(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    struct tms_buf tokens = {0}, file = {0};
    uint64_t size, random = 7;
    for (int i = 0; i < 30000; i++) {
        char token[64];
        size_t n = next_random(&random) % 40;
        for (size_t c = 0; c < n; c++) token[c] = (char)('a' + (i + (int)c) % 26);
        tms_kv_put_string(&tokens, token, n);
    }
    tms_kvs_set_array(&kvs, "tokenizer.ggml.tokens", TMS_KV_STRING, 30000, tokens.data, tokens.n);
    tms_kvs_set_u32(&kvs, "behind", 4711);
    assert_ok(tms_gguf_layout(&kvs, NULL, 0, &file, &size, &err), err);
    assert_int_equal(size, file.n);
    struct tms_gguf *gguf = open_fine(saved(&file));
    const struct tms_kv *kv = tms_kvs_find(&gguf->kvs, "tokenizer.ggml.tokens");
    uint64_t v;
    assert_int_equal(kv->n_bytes, tokens.n);
    assert_same_bytes(kv->bytes, tokens.data, tokens.n, "tokens");
    assert_true(tms_kv_as_u64(tms_kvs_find(&gguf->kvs, "behind"), &v) && v == 4711);
    tms_gguf_close(gguf);
    tms_buf_free(&tokens);
    tms_kvs_free(&kvs);
}

/* ---- splits ---- */

/* Shard `number` of `count` at PREFIX.gguf with one tensor. */
static void write_shard(const char *prefix, const char *tensor, unsigned number, unsigned count, int total,
                        unsigned says_number)
{
    struct tms_kvs kvs = {0};
    struct tms_buf file = {0};
    uint64_t size;
    if (number == 0) tms_kvs_set_string(&kvs, "general.architecture", "llama");
    tms_kvs_set_u16(&kvs, "split.no", (uint16_t)says_number);
    tms_kvs_set_u16(&kvs, "split.count", (uint16_t)count);
    tms_kvs_set_i32(&kvs, "split.tensors.count", total);
    struct tms_gguf_plan_tensor plan = {.name = tensor, .type = TMS_F32, .n_dims = 1, .ne = {number + 1}};
    assert_ok(tms_gguf_layout(&kvs, &plan, 1, &file, &size, &err), err);
    tms_buf_zeros(&file, (size_t)size - file.n);
    char *path = tms_gguf_shard_path(prefix, number, count);
    write_whole(path, file.data, file.n);
    free(path);
    tms_buf_free(&file);
    tms_kvs_free(&kvs);
}

static const char *shard(const char *prefix, unsigned number, unsigned count)
{
    static char out[1024];
    char *path = tms_gguf_shard_path(prefix, number, count);
    snprintf(out, sizeof out, "%s", path);
    free(path);
    return out;
}

static void gguf_shard_path_counts_from_one(void **state)
{
    (void)state;
    assert_string_equal(shard("dir/m.gguf", 1, 5), "dir/m-00002-of-00005.gguf");
    assert_string_equal(shard("m", 0, 65535), "m-00001-of-65535.gguf");
}

static void gguf_reader_opens_all_shards(void **state)
{
    (void)state;
    const char *prefix = scratch("whole");
    static const char *const names[] = {"a", "b", "c"};
    for (unsigned i = 0; i < 3; i++) write_shard(prefix, names[i], i, 3, 3, i);
    struct tms_gguf *gguf = open_fine(shard(prefix, 0, 3));
    assert_int_equal(gguf->n_files, 3);
    assert_int_equal(gguf->n_tensors, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_string_equal(gguf->tensors[i].name, names[i]);
        assert_int_equal(gguf->tensors[i].file, i);
        assert_int_equal(gguf->tensors[i].ne[0], i + 1);
        assert_int_equal(tms_gguf_find(gguf, names[i])->file, i);
    }
    assert_non_null(tms_kvs_find(&gguf->kvs, "general.architecture"));
    tms_gguf_close(gguf);
}

static void gguf_reader_rejects_shard_that_is_not_the_first(void **state)
{
    (void)state;
    const char *prefix = scratch("second");
    for (unsigned i = 0; i < 2; i++) write_shard(prefix, i ? "b" : "a", i, 2, 2, i);
    refuses(shard(prefix, 1, 2), "give the first one, second-00001-of-00002.gguf");
}

static void gguf_reader_rejects_missing_shard(void **state)
{
    (void)state;
    const char *prefix = scratch("missing");
    write_shard(prefix, "a", 0, 3, 3, 0);
    write_shard(prefix, "b", 1, 3, 3, 1);
    refuses(shard(prefix, 0, 3), "missing-00003-of-00003.gguf: shard 3 of 3 is missing");
}

static void gguf_reader_rejects_shards_that_do_not_belong_together(void **state)
{
    (void)state;
    const char *prefix = scratch("swapped");
    write_shard(prefix, "a", 0, 2, 2, 0);
    write_shard(prefix, "b", 1, 2, 2, 0);
    refuses(shard(prefix, 0, 2), "swapped-00002-of-00002.gguf: says it is shard 1 of 2, not 2 of 2");
    prefix = scratch("twice");
    write_shard(prefix, "a", 0, 2, 2, 0);
    write_shard(prefix, "a", 1, 2, 2, 1);
    refuses(shard(prefix, 0, 2), "tensor 'a' is in shards 1 and 2");
    prefix = scratch("total");
    write_shard(prefix, "a", 0, 2, 5, 0);
    write_shard(prefix, "b", 1, 2, 5, 1);
    refuses(shard(prefix, 0, 2), "hold 2 tensors, but split.tensors.count says 5");
    prefix = scratch("huge");
    write_shard(prefix, "a", 0, 2, 1, 7);
    refuses(shard(prefix, 0, 2), "shard 8 of 2");
}

static void gguf_reader_rejects_first_shard_of_another_name(void **state)
{
    (void)state;
    const char *prefix = scratch("renamed");
    for (unsigned i = 0; i < 2; i++) write_shard(prefix, i ? "b" : "a", i, 2, 2, i);
    const char *path = scratch("renamed.gguf");
    assert_int_equal(rename(shard(prefix, 0, 2), path), 0);
    refuses(path, "does not end in -00001-of-00002.gguf");
}

static void gguf_reader_says_when_shards_are_more_than_open_files(void **state)
{
    (void)state;
    const char *prefix = scratch("many");
    write_shard(prefix, "a", 0, 5000, 1, 0);
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = 1024;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    refuses_at(shard(prefix, 0, 5000), TMS_EIO, "ulimit -n 5032", __LINE__);
    setrlimit(RLIMIT_NOFILE, &old);
}

static void gguf_reader_ignores_split_count_that_merging_left(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    struct tms_buf file = {0};
    uint64_t size;
    tms_kvs_set_u16(&kvs, "split.count", 0);
    tms_kvs_set_i32(&kvs, "split.tensors.count", 300);
    assert_ok(tms_gguf_layout(&kvs, NULL, 0, &file, &size, &err), err);
    tms_gguf_close(open_fine(saved(&file)));
    tms_kvs_free(&kvs);
}

/* ---- layout ---- */

static void gguf_layout_pads_every_tensor_to_the_alignment(void **state)
{
    (void)state;
    static const uint32_t alignments[] = {0, 8, 32, 64, 4096};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        struct tms_kvs kvs = {0};
        struct tms_buf file = {0};
        uint64_t size, alignment = alignments[i] ? alignments[i] : 32;
        if (alignments[i]) tms_kvs_set_u32(&kvs, "general.alignment", alignments[i]);
        struct tms_gguf_plan_tensor plan[] = {{.name = "z", .type = TMS_F32, .n_dims = 1, .ne = {3}},
                                              {.name = "a", .type = TMS_Q4_K, .n_dims = 3, .ne = {512, 2, 3}},
                                              {.name = "m", .type = TMS_F16, .n_dims = 2, .ne = {1, 1}}};
        assert_ok(tms_gguf_layout(&kvs, plan, 3, &file, &size, &err), err);
        assert_int_equal(file.n % alignment, 0);
        assert_int_equal(plan[0].offset, file.n);
        assert_int_equal(plan[0].bytes, 12);
        assert_int_equal(plan[1].offset, plan[0].offset + tms_align_up(12, alignment));
        assert_int_equal(plan[1].bytes, 6 * 288);
        assert_int_equal(plan[2].offset, plan[1].offset + tms_align_up(6 * 288, alignment));
        assert_int_equal(size, plan[2].offset + alignment);
        tms_buf_zeros(&file, (size_t)size - file.n);
        struct tms_gguf *gguf = open_fine(saved(&file));
        assert_int_equal(gguf->alignment, alignment);
        for (size_t t = 0; t < 3; t++) {
            assert_string_equal(gguf->tensors[t].name, plan[t].name);
            assert_int_equal(gguf->tensors[t].offset, plan[t].offset);
            assert_int_equal(gguf->tensors[t].bytes, plan[t].bytes);
            assert_int_equal(gguf->tensors[t].type, plan[t].type);
            assert_int_equal(gguf->tensors[t].n_dims, plan[t].n_dims);
            for (uint32_t d = 0; d < plan[t].n_dims; d++) assert_int_equal(gguf->tensors[t].ne[d], plan[t].ne[d]);
        }
        tms_gguf_close(gguf);
        tms_kvs_free(&kvs);
    }
}

static void gguf_layout_rejects_what_no_file_can_hold(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    struct tms_buf header = {0};
    uint64_t size = 77;
#define rejects(fragment, ...)                                                                                         \
    do {                                                                                                               \
        struct tms_gguf_plan_tensor plan[] = {__VA_ARGS__};                                                            \
        assert_int_equal(tms_gguf_layout(&kvs, plan, sizeof plan / sizeof plan[0], &header, &size, &err), TMS_EUSAGE); \
        assert_non_null(strstr(err.message, fragment));                                                                \
        assert_null(header.data);                                                                                      \
        assert_int_equal(size, 77);                                                                                    \
    } while (0)
    rejects("twice", {.name = "a", .type = TMS_F32, .n_dims = 1, .ne = {1}},
            {.name = "a", .type = TMS_F32, .n_dims = 1, .ne = {1}});
    rejects("name", {.name = "", .type = TMS_F32, .n_dims = 1, .ne = {1}});
    rejects("no multiple", {.name = "a", .type = TMS_Q4_K, .n_dims = 1, .ne = {100}});
    rejects("type", {.name = "a", .type = TMS_U8, .n_dims = 1, .ne = {1}});
    rejects("dimensions", {.name = "a", .type = TMS_F32, .n_dims = 0});
    rejects("length 0", {.name = "a", .type = TMS_F32, .n_dims = 1, .ne = {0}});
    rejects("overflow", {.name = "a", .type = TMS_I8, .n_dims = 1, .ne = {INT64_MAX}},
            {.name = "b", .type = TMS_I8, .n_dims = 1, .ne = {INT64_MAX}});
    tms_kvs_set_u32(&kvs, "general.alignment", 5);
    rejects("alignment", {.name = "a", .type = TMS_F32, .n_dims = 1, .ne = {1}});
    tms_kvs_free(&kvs);
    kvs.failed = true;
    assert_int_equal(tms_gguf_layout(&kvs, NULL, 0, &header, &size, &err), TMS_EIO);
#undef rejects
}

/* ---- real files ---- */

static void gguf_layout_gives_the_metadata_of_real_files(void **state)
{
    (void)state;
    static const char *const names[] = {"deepseek-llm", "gpt-2", "llama-spm", "starcoder"};
    for (size_t i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "tokenizers/%s.gguf", names[i]);
        const char *path = shared_path(name);
        if (!path) skip();
        struct tms_gguf *gguf = open_fine(path);
        struct tms_buf header = {0};
        uint64_t size;
        size_t n;
        const struct tms_kv *tokens = tms_kvs_find(&gguf->kvs, "tokenizer.ggml.tokens");
        assert_non_null(tokens);
        assert_true(tokens->count > 1000);
        assert_int_equal(gguf->n_tensors, 0);
        assert_ok(tms_gguf_layout(&gguf->kvs, NULL, 0, &header, &size, &err), err);
        uint8_t *bytes = read_whole(path, &n);
        assert_true(n <= size && n + gguf->alignment > size);       /* some of them end without the padding */
        assert_same_bytes(header.data + 8, bytes + 8, n - 8, name); /* but for the version */
        free(bytes);
        tms_buf_free(&header);
        tms_gguf_close(gguf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_reader_reads_every_value_type),
        cmocka_unit_test(gguf_reader_reads_version_2_and_its_own_alignment),
        cmocka_unit_test(gguf_reader_rejects_what_is_no_gguf_file),
        cmocka_unit_test(gguf_reader_rejects_counts_that_cannot_fit),
        cmocka_unit_test(gguf_reader_rejects_bad_keys),
        cmocka_unit_test(gguf_reader_rejects_duplicate_keys),
        cmocka_unit_test(gguf_reader_rejects_bad_values),
        cmocka_unit_test(gguf_reader_rejects_bad_arrays),
        cmocka_unit_test(gguf_reader_rejects_bad_alignment),
        cmocka_unit_test(gguf_reader_rejects_bad_tensor_names),
        cmocka_unit_test(gguf_reader_rejects_duplicate_tensor_names),
        cmocka_unit_test(gguf_reader_rejects_bad_shapes_and_types),
        cmocka_unit_test(gguf_reader_rejects_tensor_past_end_of_file),
        cmocka_unit_test(gguf_reader_rejects_misaligned_tensor),
        cmocka_unit_test(gguf_reader_rejects_overlapping_tensors),
        cmocka_unit_test(gguf_reader_rejects_every_truncation),
        cmocka_unit_test(gguf_reader_reads_metadata_longer_than_its_buffer),
        cmocka_unit_test(gguf_shard_path_counts_from_one),
        cmocka_unit_test(gguf_reader_opens_all_shards),
        cmocka_unit_test(gguf_reader_rejects_shard_that_is_not_the_first),
        cmocka_unit_test(gguf_reader_rejects_missing_shard),
        cmocka_unit_test(gguf_reader_rejects_shards_that_do_not_belong_together),
        cmocka_unit_test(gguf_reader_rejects_first_shard_of_another_name),
        cmocka_unit_test(gguf_reader_says_when_shards_are_more_than_open_files),
        cmocka_unit_test(gguf_reader_ignores_split_count_that_merging_left),
        cmocka_unit_test(gguf_layout_pads_every_tensor_to_the_alignment),
        cmocka_unit_test(gguf_layout_rejects_what_no_file_can_hold),
        cmocka_unit_test(gguf_layout_gives_the_metadata_of_real_files),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}

/* safetensors: what the reader accepts and refuses, and that the writer's layout is the reference's. */
#include "support.h"

#include <inttypes.h>

#include "file/safetensors.h"

static struct tms_error err;

/* A file with this header, as it is, and `data_bytes` bytes of data behind it. */
static const char *file_with(const char *header, size_t data_bytes)
{
    static unsigned number;
    char name[64];
    snprintf(name, sizeof name, "%u.safetensors", number++);
    const char *path = scratch(name);
    size_t n = strlen(header);
    uint8_t *bytes = calloc(1, 8 + n + data_bytes);
    for (unsigned i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++) bytes[8 + n + i] = (uint8_t)i;
    write_whole(path, bytes, 8 + n + data_bytes);
    free(bytes);
    return path;
}

static struct tms_safetensors *open_fine(const char *path)
{
    struct tms_safetensors *st = NULL;
    tms_status status = tms_safetensors_open(&st, path, &err);
    assert_ok(status, err);
    return st;
}

/* The file is refused, *out stays as it was, and the message holds its path and `fragment`. */
#define refuses(path, fragment) refuses_at((path), (fragment), __LINE__)
static void refuses_at(const char *path, const char *fragment, int line)
{
    struct tms_safetensors *untouched = (struct tms_safetensors *)&err, *st = untouched;
    memset(err.message, 0, sizeof err.message);
    tms_status status = tms_safetensors_open(&st, path, &err);
    if (status != TMS_EINPUT || st != untouched || !strstr(err.message, fragment) || !strstr(err.message, path))
        fail_msg("line %d: status %d, message '%s', wanted '%s'", line, (int)status, err.message, fragment);
}

static void safetensors_reader_reads_tensors_in_the_order_of_their_data(void **state)
{
    (void)state;
    struct tms_safetensors *st =
        open_fine(file_with("{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                            "\"__metadata__\":{\"z\":\"1\",\"format\":\"pt\"},"
                            "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}  ",
                            20));
    assert_int_equal(st->n_tensors, 2);
    assert_string_equal(st->tensors[0].name, "a");
    assert_int_equal(st->tensors[0].type, TMS_I64);
    assert_int_equal(st->tensors[0].n_dims, 0);
    assert_int_equal(st->tensors[0].n_elems, 1);
    assert_int_equal(st->tensors[0].offset, st->data_offset);
    assert_int_equal(st->tensors[0].bytes, 8);
    assert_string_equal(st->tensors[1].name, "b");
    assert_int_equal(st->tensors[1].shape[0], 2);
    assert_int_equal(st->tensors[1].shape[1], 3);
    assert_int_equal(st->tensors[1].offset, st->data_offset + 8);
    assert_int_equal(st->n_metadata, 2);
    assert_string_equal(st->metadata[0].key, "z");
    assert_string_equal(st->metadata[1].value, "pt");
    tms_safetensors_close(st);
}

static void safetensors_reader_finds_tensors_by_name(void **state)
{
    (void)state;
    struct tms_safetensors *st = open_fine(file_with("{\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                                     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
                                                     "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
                                                     3));
    assert_ptr_equal(tms_safetensors_find(st, "a"), &st->tensors[1]);
    assert_ptr_equal(tms_safetensors_find(st, "b"), &st->tensors[2]);
    assert_ptr_equal(tms_safetensors_find(st, "c"), &st->tensors[0]);
    assert_null(tms_safetensors_find(st, "d"));
    assert_null(tms_safetensors_find(st, ""));
    tms_safetensors_close(st);
}

static void safetensors_reader_reads_escaped_names(void **state)
{
    (void)state;
    struct tms_safetensors *st = open_fine(
        file_with("{\"\\u0061\\u00e9\\ud83d\\ude00\\n\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1));
    assert_string_equal(st->tensors[0].name, "a\xc3\xa9\xf0\x9f\x98\x80\n");
    tms_safetensors_close(st);
}

static void safetensors_reader_reads_every_dtype(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned bits;
    } dtypes[] = {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
                  {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
                  {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
                  {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        char header[200];
        unsigned bytes = 4 * dtypes[i].bits / 8;
        snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%u]}}",
                 dtypes[i].name, bytes);
        struct tms_safetensors *st = open_fine(file_with(header, bytes));
        assert_string_equal(tms_st_dtype_name(st->tensors[0].type), dtypes[i].name);
        assert_int_equal(st->tensors[0].bytes, bytes);
        assert_int_equal(tms_st_dtype_rank(st->tensors[0].type), i);
        tms_safetensors_close(st);
    }
}

static void safetensors_reader_accepts_empty_tensors(void **state)
{
    (void)state;
    struct tms_safetensors *st = open_fine(file_with("{\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                                                     "\"x\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]},"
                                                     "\"z\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}",
                                                     4));
    assert_string_equal(st->tensors[0].name, "x");
    assert_int_equal(st->tensors[0].n_elems, 0);
    assert_string_equal(st->tensors[2].name, "z");
    tms_safetensors_close(st);
}

static void safetensors_reader_accepts_file_without_tensors(void **state)
{
    (void)state;
    struct tms_safetensors *st = open_fine(file_with("{}", 0));
    assert_int_equal(st->n_tensors, 0);
    assert_null(tms_safetensors_find(st, "a"));
    tms_safetensors_close(st);
}

static void safetensors_reader_rejects_what_is_no_safetensors_file(void **state)
{
    (void)state;
    const char *path = scratch("alien");
#define is(bytes, fragment) (write_whole(path, bytes, sizeof bytes - 1), refuses(path, fragment))
    is("", "0 bytes");
    is("1234567", "7 bytes");
    is("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull");
    is("<!DOCTYPE html><html><body>Not found</body></html>", "HTML page");
    is("\n<html><body>Not found</body></html>", "HTML page");
    is("PK\003\004\000\000\000\000\000\000\000\000\000\000", "zip archive");
    is("\200\002ctorch._utils\n_rebuild", "Python pickle");
    is("GGUF\003\000\000\000\000\000\000\000", "a GGUF file");
    is("{\"error\":\"Repository not found\"}", "JSON text");
    is("\037\213\010\000\000\000\000\000\000\003", "gzip");
    is("\377\377\377\377\377\377\377\377{}", "18446744073709551615 bytes");
    is("\001\341\365\005\000\000\000\000{}", "100000001 bytes");
    is("\003\000\000\000\000\000\000\000{}", "the file has only 10");
    is("\000\000\000\000\000\000\000\000", "does not begin with '{'");
    is("\003\000\000\000\000\000\000\000 {}", "does not begin with '{'");
#undef is
    refuses(scratch("not-there"), "no such file");
}

static void safetensors_reader_rejects_broken_json(void **state)
{
    (void)state;
    refuses(file_with("{", 0), "not valid JSON");
    refuses(file_with("{}x", 0), "not valid JSON");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},}", 1), "not valid JSON");
    refuses(file_with("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "not valid JSON");
    refuses(file_with("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "NUL");
}

static void safetensors_reader_rejects_duplicate_names(void **state)
{
    (void)state;
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                      "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                      2),
            "duplicate");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1),
            "duplicate");
}

static void safetensors_reader_rejects_bad_entries(void **state)
{
    (void)state;
    refuses(file_with("{\"a\":5}", 0), "tensor 'a' is not an object");
    refuses(file_with("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "no dtype");
    refuses(file_with("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "no dtype");
    refuses(file_with("{\"a\":{\"dtype\":\"Q9\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "'Q9'");
    refuses(file_with("{\"a\":{\"dtype\":\"u8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "'u8'");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1), "no shape");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1), "dimension 0");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,-1],\"data_offsets\":[0,1]}}", 1), "dimension 1");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1),
            "9 dimensions");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1), "data_offsets");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1), "data_offsets");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1), "data_offsets");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1), "data_offsets");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":\"0\"}}", 1), "data_offsets");
}

static void safetensors_reader_rejects_sizes_that_overflow(void **state)
{
    (void)state;
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0),
            "overflows");
    refuses(file_with("{\"a\":{\"dtype\":\"U64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0),
            "overflows");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775808],\"data_offsets\":[0,0]}}", 0), "JSON");
    refuses(file_with("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1), "whole bytes");
}

static void safetensors_reader_rejects_offsets_that_do_not_match_the_shape(void **state)
{
    (void)state;
    refuses(file_with("{\"a\":{\"dtype\":\"F32\",\"shape\":[3584],\"data_offsets\":[0,7168]}}", 7168),
            "tensor 'a': data_offsets [0, 7168] do not match F32 [3584] (14336 bytes)");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1), "end before they begin");
}

static void safetensors_reader_rejects_hole_between_tensors(void **state)
{
    (void)state;
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                      "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
                      3),
            "tensor 'b' begins at byte 2");
    refuses(file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2), "hole");
}

static void safetensors_reader_rejects_overlapping_tensors(void **state)
{
    (void)state;
    refuses(file_with("{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},"
                      "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
                      3),
            "inside tensor 'a'");
}

static void safetensors_reader_rejects_file_that_does_not_end_with_its_data(void **state)
{
    (void)state;
    const char *header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}";
    refuses(file_with(header, 7), "cut short");
    refuses(file_with(header, 9), "belong to no tensor");
    refuses(file_with("{}", 1), "belong to no tensor");
}

static void safetensors_reader_rejects_bad_metadata(void **state)
{
    (void)state;
    refuses(file_with("{\"__metadata__\":[]}", 0), "__metadata__ is not an object");
    refuses(file_with("{\"__metadata__\":{\"a\":1}}", 0), "'a' is not a string");
    refuses(file_with("{\"__metadata__\":{\"a\":\"x\\u0000\"}}", 0), "holds a NUL");
}

static void safetensors_reader_rejects_long_name(void **state)
{
    (void)state;
    char *header = malloc(6000);
    int n = sprintf(header, "{\"");
    memset(header + n, 'x', 4097);
    strcpy(header + n + 4097, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    refuses(file_with(header, 1), "4097 bytes");
    free(header);
}

/* ---- layout ---- */

static void safetensors_layout_sorts_by_alignment_then_name(void **state)
{
    (void)state;
    struct tms_st_plan_tensor plan[] = {
        {.name = "u8", .type = TMS_U8, .n_dims = 1, .shape = {3}},
        {.name = "b", .type = TMS_F32, .n_dims = 2, .shape = {2, 2}},
        {.name = "state", .type = TMS_U8, .n_dims = 1, .shape = {5}, .last = true},
        {.name = "z", .type = TMS_U8, .n_dims = 1, .shape = {1}},
        {.name = "a", .type = TMS_F32, .n_dims = 0},
        {.name = "i64", .type = TMS_I64, .n_dims = 1, .shape = {1}},
        {.name = "bf16", .type = TMS_BF16, .n_dims = 1, .shape = {2}},
        {.name = "i8", .type = TMS_I8, .n_dims = 1, .shape = {1}},
        {.name = "B", .type = TMS_F32, .n_dims = 1, .shape = {0}},
    };
    static const char *const order[] = {"i64", "B", "a", "b", "bf16", "i8", "u8", "z", "state"};
    static const uint64_t offsets[] = {0, 8, 8, 12, 28, 32, 33, 36, 37};
    struct tms_buf header = {0};
    uint64_t size;
    assert_ok(tms_st_layout(plan, 9, 0, &header, &size, &err), err);
    assert_int_equal(header.n % 8, 0);
    for (unsigned i = 0; i < 9; i++) {
        assert_string_equal(plan[i].name, order[i]);
        assert_int_equal(plan[i].offset, header.n + offsets[i]);
    }
    assert_int_equal(size, header.n + 42);
    tms_buf_free(&header);
}

static void safetensors_layout_spells_json_as_the_reference(void **state)
{
    (void)state;
    struct tms_st_plan_tensor plan[] = {
        {.name = "a\"\\/\b\f\n\r\t\x01\x7f\xc3\xa9", .type = TMS_F32, .n_dims = 2, .shape = {2, 2}},
        {.name = "s", .type = TMS_F32},
    };
    static const char want[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f\xc3\xa9\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
        "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[16,20]}}";
    struct tms_buf header = {0};
    uint64_t size;
    assert_ok(tms_st_layout(plan, 2, 0, &header, &size, &err), err);
    assert_same_bytes(header.data + 8, want, sizeof want - 1, "header");
    for (size_t i = 8 + sizeof want - 1; i < header.n; i++) assert_int_equal(header.data[i], ' ');
    assert_true(header.n - (8 + sizeof want - 1) < 8);
    tms_buf_free(&header);
}

static void safetensors_layout_grows_header_to_the_minimum(void **state)
{
    (void)state;
    struct tms_st_plan_tensor plan[] = {{.name = "a", .type = TMS_U8, .n_dims = 1, .shape = {1}}};
    struct tms_buf header = {0};
    uint64_t size;
    assert_ok(tms_st_layout(plan, 1, 4091, &header, &size, &err), err);
    assert_int_equal(header.n, 4096);
    assert_int_equal(plan[0].offset, 4096);
    assert_int_equal(size, 4097);
    const char *path = scratch("minimum.safetensors");
    tms_buf_zeros(&header, 1);
    write_whole(path, header.data, header.n);
    tms_safetensors_close(open_fine(path));
    tms_buf_free(&header);
}

static void safetensors_layout_rejects_what_no_file_can_hold(void **state)
{
    (void)state;
    struct tms_buf header = {0};
    uint64_t size = 77;
#define rejects(fragment, ...)                                                                                         \
    do {                                                                                                               \
        struct tms_st_plan_tensor plan[] = {__VA_ARGS__};                                                              \
        assert_int_equal(tms_st_layout(plan, sizeof plan / sizeof plan[0], 0, &header, &size, &err), TMS_EUSAGE);      \
        assert_non_null(strstr(err.message, fragment));                                                                \
        assert_null(header.data);                                                                                      \
        assert_int_equal(size, 77);                                                                                    \
    } while (0)
    rejects("twice", {.name = "a", .type = TMS_U8}, {.name = "b", .type = TMS_U8}, {.name = "a", .type = TMS_F32});
    rejects("__metadata__", {.name = "__metadata__", .type = TMS_U8});
    rejects("name", {.name = "\xff", .type = TMS_U8});
    rejects("type 12", {.name = "a", .type = TMS_Q4_K, .n_dims = 1, .shape = {256}});
    rejects("9 dimensions", {.name = "a", .type = TMS_U8, .n_dims = 9});
    rejects("whole bytes", {.name = "a", .type = TMS_F4, .n_dims = 1, .shape = {1}});
    rejects("overflow", {.name = "a", .type = TMS_F32, .n_dims = 2, .shape = {UINT64_C(1) << 40, UINT64_C(1) << 40}});
#undef rejects
}

static void safetensors_layout_rejects_sum_that_overflows(void **state)
{
    (void)state;
    static const char *const names[9] = {"a", "b", "c", "d", "e", "f", "g", "h", "i"};
    struct tms_st_plan_tensor plan[9] = {{0}};
    for (unsigned i = 0; i < 9; i++) /* 9 * 2^60 > 2^63 */
        plan[i] = (struct tms_st_plan_tensor){names[i], TMS_U8, 1, {UINT64_C(1) << 60}, 0, false, 0, 0};
    struct tms_buf header = {0};
    uint64_t size;
    assert_int_equal(tms_st_layout(plan, 9, 0, &header, &size, &err), TMS_EUSAGE);
    assert_non_null(strstr(err.message, "overflow"));
}

/* Plans a file anew from what the reader says of it. */
static tms_status plan_again(const struct tms_safetensors *st, struct tms_buf *header, uint64_t *size)
{
    struct tms_st_plan_tensor *plan = calloc(st->n_tensors, sizeof *plan);
    for (size_t i = 0; i < st->n_tensors; i++) {
        /* From the back, so that nothing is in order by luck. */
        const struct tms_st_tensor *tensor = &st->tensors[st->n_tensors - 1 - i];
        plan[i].name = tensor->name;
        plan[i].type = tensor->type;
        plan[i].n_dims = tensor->n_dims;
        memcpy(plan[i].shape, tensor->shape, sizeof plan[i].shape);
    }
    tms_status status = tms_st_layout(plan, st->n_tensors, 0, header, size, &err);
    free(plan);
    return status;
}

static void replans_to_the_same_header(const char *name)
{
    struct tms_safetensors *st = open_fine(golden(name));
    struct tms_buf header = {0};
    uint64_t size;
    size_t n;
    assert_ok(plan_again(st, &header, &size), err);
    uint8_t *bytes = read_whole(golden(name), &n);
    assert_int_equal(header.n, st->data_offset);
    assert_same_bytes(header.data, bytes, header.n, name);
    assert_int_equal(size, n);
    free(bytes);
    tms_buf_free(&header);
    tms_safetensors_close(st);
}

static void safetensors_layout_gives_the_headers_that_transformers_wrote(void **state)
{
    (void)state;
    static const char *const names[] = {"llama31/model",
                                        "llama2/model",
                                        "llama_bias/model",
                                        "mistral/model",
                                        "qwen2_tied/model",
                                        "qwen2_untied/model",
                                        "qwen2_sharded/model-00001-of-00002",
                                        "qwen2_sharded/model-00002-of-00002",
                                        "qwen3/model",
                                        "qwen3_yarn/model"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[100];
        snprintf(name, sizeof name, "arch/%s.safetensors", names[i]);
        replans_to_the_same_header(name);
    }
}

static void safetensors_layout_gives_the_headers_that_bitsandbytes_models_have(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2-tied-int8", "qwen2-nf4-dq", "qwen2-fp4", "qwen2-int8",
                                        "qwen2-tied",      "qwen2",        "qwen2-nf4", "qwen2-tied-nf4-dq"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[100];
        snprintf(name, sizeof name, "hf/bnb/folders/%s/model.safetensors", names[i]);
        replans_to_the_same_header(name);
    }
}

static void safetensors_random_layouts_read_back(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (int round = 0; round < 50; round++) {
        struct tms_st_plan_tensor plan[20] = {{0}};
        char names[20][32];
        size_t n = next_random(&random) % 20;
        for (size_t i = 0; i < n; i++) {
            snprintf(names[i], sizeof names[i], "t%" PRIu64 ".%zu", next_random(&random) % 100, i);
            plan[i].name = names[i];
            static const enum tms_type types[] = {TMS_U8, TMS_F32, TMS_BF16, TMS_I64, TMS_F8_E4M3, TMS_F16, TMS_BOOL};
            plan[i].type = types[next_random(&random) % 7];
            plan[i].n_dims = (uint32_t)(next_random(&random) % 4);
            for (uint32_t d = 0; d < plan[i].n_dims; d++) plan[i].shape[d] = next_random(&random) % 5;
            plan[i].last = next_random(&random) % 4 == 0;
        }
        struct tms_buf file = {0};
        uint64_t size;
        assert_ok(tms_st_layout(plan, n, next_random(&random) % 2000, &file, &size, &err), err);
        tms_buf_zeros(&file, (size_t)size - file.n);
        const char *path = scratch("random.safetensors");
        write_whole(path, file.data, file.n);
        struct tms_safetensors *st = open_fine(path);
        assert_int_equal(st->n_tensors, n);
        for (size_t i = 0; i < n; i++) {
            const struct tms_st_tensor *tensor = tms_safetensors_find(st, plan[i].name);
            assert_non_null(tensor);
            assert_int_equal(tensor->type, plan[i].type);
            assert_int_equal(tensor->offset, plan[i].offset);
            assert_int_equal(tensor->bytes, plan[i].bytes);
            assert_int_equal(tensor->n_dims, plan[i].n_dims);
            assert_memory_equal(tensor->shape, plan[i].shape, tensor->n_dims * sizeof tensor->shape[0]);
        }
        tms_safetensors_close(st);
        tms_buf_free(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_reader_reads_tensors_in_the_order_of_their_data),
        cmocka_unit_test(safetensors_reader_finds_tensors_by_name),
        cmocka_unit_test(safetensors_reader_reads_escaped_names),
        cmocka_unit_test(safetensors_reader_reads_every_dtype),
        cmocka_unit_test(safetensors_reader_accepts_empty_tensors),
        cmocka_unit_test(safetensors_reader_accepts_file_without_tensors),
        cmocka_unit_test(safetensors_reader_rejects_what_is_no_safetensors_file),
        cmocka_unit_test(safetensors_reader_rejects_broken_json),
        cmocka_unit_test(safetensors_reader_rejects_duplicate_names),
        cmocka_unit_test(safetensors_reader_rejects_bad_entries),
        cmocka_unit_test(safetensors_reader_rejects_sizes_that_overflow),
        cmocka_unit_test(safetensors_reader_rejects_offsets_that_do_not_match_the_shape),
        cmocka_unit_test(safetensors_reader_rejects_hole_between_tensors),
        cmocka_unit_test(safetensors_reader_rejects_overlapping_tensors),
        cmocka_unit_test(safetensors_reader_rejects_file_that_does_not_end_with_its_data),
        cmocka_unit_test(safetensors_reader_rejects_bad_metadata),
        cmocka_unit_test(safetensors_reader_rejects_long_name),
        cmocka_unit_test(safetensors_layout_sorts_by_alignment_then_name),
        cmocka_unit_test(safetensors_layout_spells_json_as_the_reference),
        cmocka_unit_test(safetensors_layout_grows_header_to_the_minimum),
        cmocka_unit_test(safetensors_layout_rejects_what_no_file_can_hold),
        cmocka_unit_test(safetensors_layout_rejects_sum_that_overflows),
        cmocka_unit_test(safetensors_layout_gives_the_headers_that_transformers_wrote),
        cmocka_unit_test(safetensors_layout_gives_the_headers_that_bitsandbytes_models_have),
        cmocka_unit_test(safetensors_random_layouts_read_back),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}

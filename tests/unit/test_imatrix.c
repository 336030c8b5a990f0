/* Importance matrices: both formats give llama-quantize's means, and what is damaged is refused. */
#include "support.h"

#include <math.h>

#include <tamis/tamis.h>

#include "calib/imatrix.h"
#include "file/gguf.h"

static struct tms_error err;

/* ---- files made byte by byte ---- */

static void put_i32(struct tms_buf *buf, int32_t v)
{
    tms_buf_u32(buf, (uint32_t)v);
}

static void put_text(struct tms_buf *buf, const char *text)
{
    put_i32(buf, (int32_t)strlen(text));
    tms_buf_text(buf, text);
}

/* An entry of a .dat file with values first, first + 1, ... */
static void dat_entry(struct tms_buf *buf, const char *name, int32_t n_calls, int32_t n, float first)
{
    put_text(buf, name);
    put_i32(buf, n_calls);
    put_i32(buf, n);
    for (int32_t i = 0; i < n; i++) {
        const float value = first + (float)i;
        tms_buf_put(buf, &value, sizeof value);
    }
}

static void dat_end(struct tms_buf *buf, int32_t n_chunks, const char *dataset)
{
    put_i32(buf, n_chunks);
    put_text(buf, dataset);
}

/* A GGUF file under construction. Names and data are borrowed. */
struct made {
    struct tms_kvs kvs;
    struct tms_gguf_plan_tensor plan[8];
    const void *data[8];
    size_t n;
};

static void with_keys(struct made *made, const char *dataset, uint32_t n_chunks)
{
    struct tms_buf texts = {0};
    tms_kvs_set_string(&made->kvs, "general.type", "imatrix");
    if (dataset) tms_kv_put_string(&texts, dataset, strlen(dataset));
    tms_kvs_set_array(&made->kvs, "imatrix.datasets", TMS_KV_STRING, dataset ? 1 : 0, texts.data, texts.n);
    tms_kvs_set_u32(&made->kvs, "imatrix.chunk_count", n_chunks);
    tms_kvs_set_u32(&made->kvs, "imatrix.chunk_size", 512);
    tms_buf_free(&texts);
}

static void with_tensor(struct made *made, const char *name, enum tms_type type, uint64_t ne0, uint64_t ne1,
                        const void *data)
{
    made->plan[made->n] =
        (struct tms_gguf_plan_tensor){.name = name, .type = type, .n_dims = 2, .ne = {ne0, ne1, 1, 1}};
    made->data[made->n++] = data;
}

static const char *saved(struct tms_buf *buf)
{
    static unsigned number;
    char name[64];
    snprintf(name, sizeof name, "%u.imatrix", number++);
    const char *path = scratch(name);
    assert_false(buf->failed);
    write_whole(path, buf->data ? (const void *)buf->data : "", buf->n);
    tms_buf_free(buf);
    return path;
}

static const char *made_file(struct made *made)
{
    struct tms_buf buf = {0};
    uint64_t size;
    assert_ok(tms_gguf_layout(&made->kvs, made->plan, made->n, &buf, &size, &err), err);
    tms_buf_zeros(&buf, (size_t)size - buf.n);
    assert_false(buf.failed);
    for (size_t i = 0; i < made->n; i++)
        memcpy(buf.data + made->plan[i].offset, made->data[i], (size_t)made->plan[i].bytes);
    tms_kvs_free(&made->kvs);
    *made = (struct made){0};
    return saved(&buf);
}

static struct tms_imatrix *open_with(const char *path, const struct tms_imatrix_options *options)
{
    struct tms_imatrix *imatrix = NULL;
    assert_ok(tms_imatrix_open(&imatrix, path, options, &err), err);
    return imatrix;
}

/* The file is refused with `wanted`, *out stays as it was, and the message holds `fragment`. */
#define refuses(path, fragment) refuses_at((path), NULL, TMS_EINPUT, (fragment), __LINE__)
static void refuses_at(const char *path, const struct tms_imatrix_options *options, tms_status wanted,
                       const char *fragment, int line)
{
    struct tms_imatrix *untouched = (struct tms_imatrix *)&err, *imatrix = untouched;
    memset(err.message, 0, sizeof err.message);
    tms_status status = tms_imatrix_open(&imatrix, path, options, &err);
    if (status != wanted || imatrix != untouched || !strstr(err.message, fragment) || strchr(err.message, '\n'))
        fail_msg("line %d: status %d, message '%s', wanted '%s'", line, (int)status, err.message, fragment);
}

/* Warnings, one after the other. */
static void keep(void *ctx, const char *line)
{
    struct tms_buf *lines = ctx;
    tms_buf_printf(lines, "%s\n", line);
}

static const char *text_of(struct tms_buf *lines)
{
    tms_buf_put(lines, "", 1);
    assert_false(lines->failed);
    return (const char *)lines->data;
}

/* ---- .dat ---- */

static void dat_values_are_divided_by_calls(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    put_i32(&b, 2);
    dat_entry(&b, "blk.1.attn_q.weight", 3, 4, 1);
    dat_entry(&b, "blk.0.attn_q.weight", 7, 2, 10);
    dat_end(&b, 42, "wiki.txt");
    struct tms_imatrix *imatrix = open_with(saved(&b), NULL);
    assert_int_equal(imatrix->n, 2);
    assert_string_equal(imatrix->entries[0].name, "blk.0.attn_q.weight");
    assert_string_equal(imatrix->entries[1].name, "blk.1.attn_q.weight");
    assert_string_equal(imatrix->dataset, "wiki.txt");
    assert_int_equal(imatrix->n_chunks, 42);
    const struct tms_imatrix_entry *entry = tms_imatrix_find(imatrix, "blk.1.attn_q.weight");
    const float wanted[] = {1.0f / 3.0f, 2.0f / 3.0f, 1.0f, 4.0f / 3.0f};
    assert_int_equal(entry->n_values, 4);
    assert_int_equal(entry->n_unseen, 0);
    assert_same_bytes(entry->values, wanted, sizeof wanted, "means");
    assert_null(tms_imatrix_find(imatrix, "blk.1.attn_k.weight"));
    tms_imatrix_close(imatrix);
}

static void dat_values_without_calls_stay_as_they_are(void **state)
{
    (void)state;
    for (int32_t calls = -2; calls <= 0; calls += 2) {
        struct tms_buf b = {0};
        const float wanted[] = {5, 6, 7};
        put_i32(&b, 1);
        dat_entry(&b, "output.weight", calls, 3, 5);
        struct tms_imatrix *imatrix = open_with(saved(&b), NULL);
        assert_same_bytes(imatrix->entries[0].values, wanted, sizeof wanted, "means");
        tms_imatrix_close(imatrix);
    }
}

static void dat_may_end_after_its_entries(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    put_i32(&b, 1);
    dat_entry(&b, "output.weight", 1, 3, 1);
    struct tms_imatrix *imatrix = open_with(saved(&b), NULL);
    assert_null(imatrix->dataset);
    assert_int_equal(imatrix->n_chunks, 0);
    tms_imatrix_close(imatrix);
    put_i32(&b, 1);
    dat_entry(&b, "output.weight", 1, 3, 1);
    dat_end(&b, 8, "");
    imatrix = open_with(saved(&b), NULL);
    assert_null(imatrix->dataset);
    assert_int_equal(imatrix->n_chunks, 8);
    tms_imatrix_close(imatrix);
}

static void dat_that_begins_like_another_format_is_read(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    char name[32];
    put_i32(&b, 0x280); /* as a Python pickle does */
    for (int i = 0; i < 0x280; i++) {
        snprintf(name, sizeof name, "blk.%d.ffn_up.weight", i);
        dat_entry(&b, name, 1, 1, (float)i);
    }
    struct tms_imatrix *imatrix = open_with(saved(&b), NULL);
    assert_int_equal(imatrix->n, 640);
    for (int i = 0; i < 0x280; i++) {
        snprintf(name, sizeof name, "blk.%d.ffn_up.weight", i);
        const struct tms_imatrix_entry *entry = tms_imatrix_find(imatrix, name);
        assert_non_null(entry);
        assert_true(entry->values[0] == (float)i);
    }
    tms_imatrix_close(imatrix);
}

static void dat_with_bytes_behind_its_end_is_reported(void **state)
{
    (void)state;
    struct tms_buf b = {0}, lines = {0};
    put_i32(&b, 1);
    dat_entry(&b, "output.weight", 1, 3, 1);
    dat_end(&b, 8, "x");
    tms_buf_zeros(&b, 5);
    tms_imatrix_close(open_with(saved(&b), &(struct tms_imatrix_options){.warn = keep, .warn_ctx = &lines}));
    assert_non_null(strstr(text_of(&lines), "5 bytes follow"));
    tms_buf_free(&lines);
}

static void dat_reader_rejects_what_is_no_matrix(void **state)
{
    (void)state;
    const char *path = scratch("alien");
#define is(bytes, fragment) (write_whole(path, bytes, sizeof bytes - 1), refuses(path, fragment))
    is("", "needs 4 bytes");
    is("abc", "needs 4 bytes");
    is("\0\0\0\0", "would have 0 entries");
    is("\377\377\377\377", "would have -1 entries");
    is("\1\0\0\0", "would have 1 entries, but there is room for 1 to 0");
    is("\377\377\377\177 and some text that is not enough", "would have 2147483647 entries");
    is("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull");
    is("<!doctype html><title>404</title>", "HTML page");
    is("{\"error\": \"Entry not found\"}", "JSON text");
    is("PK\003\004\024\000\000\000\010\000", "zip archive");
#undef is
    refuses(scratch("not-there.dat"), "no such file");
}

static void dat_reader_rejects_bad_entries(void **state)
{
    (void)state;
    struct tms_buf b = {0};
#define begin_entry(length) (put_i32(&b, 1), put_i32(&b, (length)))
    begin_entry(0);
    tms_buf_zeros(&b, 100);
    refuses(saved(&b), "entry 1 of 1 at byte 4: its name has 0 bytes");
    begin_entry(-5);
    tms_buf_zeros(&b, 100);
    refuses(saved(&b), "its name has -5 bytes");
    begin_entry(INT32_MAX);
    tms_buf_zeros(&b, 100);
    refuses(saved(&b), "its name has 2147483647 bytes");
    begin_entry(200);
    tms_buf_zeros(&b, 100);
    refuses(saved(&b), "needs 200 bytes, but the file has only 100");
    begin_entry(4);
    tms_buf_text(&b, "a\nb!");
    tms_buf_zeros(&b, 100);
    refuses(saved(&b), "control characters");
    begin_entry(4);
    tms_buf_put(&b, "ab\xff!", 4);
    tms_buf_zeros(&b, 100);
    refuses(saved(&b), "not UTF-8");
#undef begin_entry
    static const int32_t lengths[] = {0, -1, 4, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char fragment[64];
        put_i32(&b, 1);
        put_text(&b, "output.weight");
        put_i32(&b, 1);
        put_i32(&b, lengths[i]);
        tms_buf_zeros(&b, 15); /* three values and most of a fourth */
        snprintf(fragment, sizeof fragment, "entry 'output.weight': %d values", (int)lengths[i]);
        refuses(saved(&b), fragment);
    }
    put_i32(&b, 2);
    dat_entry(&b, "output.weight", 1, 8, 1);
    refuses(saved(&b), "entry 2 of 2 at byte 61 needs 4 bytes");
    put_i32(&b, 2);
    dat_entry(&b, "output.weight", 1, 8, 1);
    dat_entry(&b, "output.weight", 1, 8, 1);
    refuses(saved(&b), "entry 'output.weight' comes twice");
}

static void dat_reader_rejects_a_bad_end(void **state)
{
    (void)state;
    struct tms_buf b = {0};
#define entry_and(end) (put_i32(&b, 1), dat_entry(&b, "output.weight", 1, 8, 1), (end), saved(&b))
    refuses(entry_and(tms_buf_zeros(&b, 2)), "the end, after the entries, at byte 61 needs 4 bytes");
    refuses(entry_and(tms_buf_zeros(&b, 6)), "at byte 65 needs 4 bytes");
    refuses(entry_and((put_i32(&b, 1), put_i32(&b, -7))), "has -7 bytes");
    refuses(entry_and((put_i32(&b, 1), put_i32(&b, 9), tms_buf_zeros(&b, 8))), "has 9 bytes");
#undef entry_and
}

/* ---- values ---- */

static void values_that_no_mean_of_squares_has_are_refused(void **state)
{
    (void)state;
    static const struct {
        float value;
        const char *fragment;
    } bad[] = {{NAN, "value 2 of 3, at byte 37, is"},
               {INFINITY, "value 2 of 3, at byte 37, is inf"},
               {-INFINITY, "is -inf"},
               {-1, "is -1"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tms_buf b = {0};
        put_i32(&b, 1);
        dat_entry(&b, "output.weight", 1, 2, 1);
        b.n -= 12;
        put_i32(&b, 3);
        tms_buf_zeros(&b, 8);
        tms_buf_put(&b, &bad[i].value, 4);
        refuses(saved(&b), bad[i].fragment);
    }
}

static void entries_that_are_left_out_may_hold_nan(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    put_i32(&b, 2);
    dat_entry(&b, "blk.0.attn_kv_b.weight", 1, 2, NAN);
    dat_entry(&b, "blk.0.attn_q.weight", 1, 2, 1);
    const char *path = saved(&b), *const exclude[] = {"attn_kv_b"};
    refuses(path, "entry 'blk.0.attn_kv_b.weight': value 0 of 2");
    struct tms_imatrix *imatrix = open_with(path, &(struct tms_imatrix_options){.exclude = exclude, .n_exclude = 1});
    assert_int_equal(imatrix->n, 1);
    tms_imatrix_close(imatrix);
}

/* ---- GGUF ---- */

static void gguf_sums_are_divided_by_their_counts(void **state)
{
    (void)state;
    struct made made = {0};
    const float sums[] = {1, 2, 3, 4, 5, 6}, counts[] = {3, 7}, alone[] = {9, 8, 7}, count[] = {10};
    const float wanted[] = {1.0f / 3.0f, 2.0f / 3.0f, 1.0f, 4.0f / 7.0f, 5.0f / 7.0f, 6.0f / 7.0f};
    const float wanted_alone[] = {9.0f / 10.0f, 8.0f / 10.0f, 7.0f / 10.0f};
    with_keys(&made, "calib.txt", 12);
    with_tensor(&made, "blk.0.ffn_up_exps.weight.in_sum2", TMS_F32, 3, 2, sums);
    with_tensor(&made, "blk.0.ffn_up_exps.weight.in_sum", TMS_F32, 3, 2, sums); /* in newer files; left aside */
    with_tensor(&made, "blk.0.ffn_up_exps.weight.counts", TMS_F32, 1, 2, counts);
    with_tensor(&made, "blk.0.attn_q.weight.counts", TMS_F32, 1, 1, count);
    with_tensor(&made, "blk.0.attn_q.weight.in_sum2", TMS_F32, 3, 1, alone);
    struct tms_imatrix *imatrix = open_with(made_file(&made), NULL);
    assert_int_equal(imatrix->n, 2);
    assert_string_equal(imatrix->dataset, "calib.txt");
    assert_int_equal(imatrix->n_chunks, 12);
    const struct tms_imatrix_entry *entry = &imatrix->entries[1];
    assert_string_equal(entry->name, "blk.0.ffn_up_exps.weight");
    assert_int_equal(entry->n_values, 6);
    assert_int_equal(entry->n_counts, 2);
    assert_same_bytes(entry->values, wanted, sizeof wanted, "means of two experts");
    assert_same_bytes(imatrix->entries[0].values, wanted_alone, sizeof wanted_alone, "means");
    tms_imatrix_close(imatrix);
}

static void gguf_counts_are_rounded_to_whole_tokens(void **state)
{
    (void)state;
    struct made made = {0};
    const float sums[] = {6, 6, 6}, counts[] = {2.5f, 0.4f, 2.4f}, wanted[] = {2, 1, 3};
    with_keys(&made, "x", 1);
    with_tensor(&made, "a.weight.in_sum2", TMS_F32, 1, 3, sums);
    with_tensor(&made, "a.weight.counts", TMS_F32, 1, 3, counts);
    struct tms_imatrix *imatrix = open_with(made_file(&made), NULL);
    assert_same_bytes(imatrix->entries[0].values, wanted, sizeof wanted, "means");
    tms_imatrix_close(imatrix);
}

static void experts_never_seen_get_ones_and_are_reported(void **state)
{
    (void)state;
    struct made made = {0};
    struct tms_buf lines = {0};
    const float sums[] = {0, 0, 4, 8, 0, 0}, counts[] = {0, 4, 0}, wanted[] = {1, 1, 1, 2, 1, 1};
    const float alone[] = {NAN}, none[] = {0}, one = 1;
    with_keys(&made, "x", 1);
    with_tensor(&made, "blk.0.ffn_down_exps.weight.in_sum2", TMS_F32, 2, 3, sums);
    with_tensor(&made, "blk.0.ffn_down_exps.weight.counts", TMS_F32, 1, 3, counts);
    with_tensor(&made, "blk.0.attn_q.weight.in_sum2", TMS_F32, 1, 1, alone);
    with_tensor(&made, "blk.0.attn_q.weight.counts", TMS_F32, 1, 1, none);
    struct tms_imatrix *imatrix =
        open_with(made_file(&made), &(struct tms_imatrix_options){.warn = keep, .warn_ctx = &lines});
    assert_same_bytes(imatrix->entries[0].values, &one, sizeof one, "means without a count");
    assert_same_bytes(imatrix->entries[1].values, wanted, sizeof wanted, "means");
    assert_int_equal(imatrix->entries[1].n_unseen, 2);
    assert_non_null(strstr(text_of(&lines), "entry 'blk.0.ffn_down_exps.weight': 2 of 3 experts were never seen"));
    assert_non_null(strstr(text_of(&lines), "entry 'blk.0.attn_q.weight': no token reached it"));
    tms_buf_free(&lines);
    tms_imatrix_close(imatrix);
}

static void gguf_without_datasets_has_none(void **state)
{
    (void)state;
    struct made made = {0};
    const float one = 1;
    with_keys(&made, NULL, UINT32_MAX);
    with_tensor(&made, "a.weight.in_sum2", TMS_F32, 1, 1, &one);
    with_tensor(&made, "a.weight.counts", TMS_F32, 1, 1, &one);
    struct tms_imatrix *imatrix = open_with(made_file(&made), NULL);
    assert_null(imatrix->dataset);
    assert_true(imatrix->n_chunks <= 0); /* more than llama.cpp's int holds */
    tms_imatrix_close(imatrix);
}

static void gguf_reader_rejects_other_files(void **state)
{
    (void)state;
    struct made made = {0};
    const float one[2] = {1, 1};
    tms_kvs_set_string(&made.kvs, "general.type", "model");
    with_tensor(&made, "output.weight", TMS_F32, 1, 1, one);
    refuses(made_file(&made), "its general.type is 'model'");
    with_tensor(&made, "output.weight", TMS_F32, 1, 1, one);
    refuses(made_file(&made), "its general.type is ''");
    tms_kvs_set_u32(&made.kvs, "general.type", 1);
    with_tensor(&made, "output.weight", TMS_F32, 1, 1, one);
    refuses(made_file(&made), "its general.type is ''");
    with_keys(&made, "x", 1);
    refuses(made_file(&made), "without entries");
    with_keys(&made, "x", 1);
    with_tensor(&made, "output.weight", TMS_F32, 1, 1, one);
    refuses(made_file(&made), "without entries");
}

static void gguf_reader_rejects_missing_or_wrong_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"};
    const float one[2] = {1, 1};
    for (int wrong = 0; wrong < 2; wrong++)
        for (size_t i = 0; i < 3; i++) {
            struct made made = {0};
            with_keys(&made, "x", 1);
            tms_kvs_remove(&made.kvs, keys[i]);
            if (wrong) tms_kvs_set_f32(&made.kvs, keys[i], 1);
            with_tensor(&made, "a.weight.in_sum2", TMS_F32, 1, 1, one);
            with_tensor(&made, "a.weight.counts", TMS_F32, 1, 1, one);
            refuses(made_file(&made), keys[i]);
        }
}

static void gguf_reader_rejects_bad_pairs(void **state)
{
    (void)state;
    struct made made = {0};
    const float many[6] = {1, 1, 1, 1, 1, 1};
    with_keys(&made, "x", 1);
    with_tensor(&made, "a.weight.in_sum2", TMS_F32, 1, 1, many);
    refuses(made_file(&made), "there is no tensor 'a.weight.counts'");
    with_keys(&made, "x", 1);
    with_tensor(&made, "a.weight.counts", TMS_F32, 1, 1, many);
    refuses(made_file(&made), "there is no tensor 'a.weight.in_sum2'");
    with_keys(&made, "x", 1);
    with_tensor(&made, "a.weight.counts", TMS_F16, 1, 1, many);
    with_tensor(&made, "a.weight.in_sum2", TMS_F32, 1, 1, many);
    refuses(made_file(&made), "entry 'a.weight': sums and counts must be f32");
    with_keys(&made, "x", 1);
    with_tensor(&made, "a.weight.in_sum2", TMS_F32, 5, 1, many);
    with_tensor(&made, "a.weight.counts", TMS_F32, 1, 2, many);
    refuses(made_file(&made), "2 counts do not divide 5 sums");
}

static void gguf_reader_rejects_impossible_counts(void **state)
{
    (void)state;
    static const float bad[] = {-1, NAN, INFINITY};
    const float many[6] = {1, 1, 1, 1, 1, 1};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct made made = {0};
        const float counts[] = {1, bad[i]};
        with_keys(&made, "x", 1);
        with_tensor(&made, "a.weight.in_sum2", TMS_F32, 2, 2, many);
        with_tensor(&made, "a.weight.counts", TMS_F32, 1, 2, counts);
        refuses(made_file(&made), "entry 'a.weight': count 1 of 2, at byte");
    }
    struct made made = {0};
    const float sums[] = {1, NAN};
    with_keys(&made, "x", 1);
    with_tensor(&made, "a.weight.in_sum2", TMS_F32, 2, 1, sums);
    with_tensor(&made, "a.weight.counts", TMS_F32, 1, 1, many);
    refuses(made_file(&made), "entry 'a.weight': value 1 of 2, at byte");
}

/* ---- lists ---- */

static const char *three_entries(void)
{
    struct tms_buf b = {0};
    put_i32(&b, 3);
    dat_entry(&b, "blk.0.attn_q.weight", 1, 2, 1);
    dat_entry(&b, "blk.0.attn_k.weight", 1, 2, 1);
    dat_entry(&b, "blk.1.attn_k.weight", 1, 2, 1);
    return saved(&b);
}

static void lists_choose_entries_by_parts_of_their_names(void **state)
{
    (void)state;
    const char *path = three_entries(), *const some[] = {"attn_q", "blk.1."}, *const no[] = {"output"};
    struct tms_imatrix *imatrix = open_with(path, &(struct tms_imatrix_options){.include = some, .n_include = 2});
    assert_int_equal(imatrix->n, 2);
    assert_null(tms_imatrix_find(imatrix, "blk.0.attn_k.weight"));
    tms_imatrix_close(imatrix);
    imatrix = open_with(path, &(struct tms_imatrix_options){.exclude = some, .n_exclude = 2});
    assert_int_equal(imatrix->n, 1);
    assert_string_equal(imatrix->entries[0].name, "blk.0.attn_k.weight");
    tms_imatrix_close(imatrix);
    imatrix = open_with(path, &(struct tms_imatrix_options){.exclude = no, .n_exclude = 1});
    assert_int_equal(imatrix->n, 3);
    tms_imatrix_close(imatrix);
}

static void lists_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    const char *path = three_entries(), *const all[] = {"blk"}, *const no[] = {"output"};
    refuses_at(path, &(struct tms_imatrix_options){.exclude = all, .n_exclude = 1}, TMS_EUSAGE,
               "--exclude-weights leaves none of its 3 entries", __LINE__);
    refuses_at(path, &(struct tms_imatrix_options){.include = no, .n_include = 1}, TMS_EUSAGE,
               "--include-weights leaves none of its 3 entries", __LINE__);
    refuses_at(path, &(struct tms_imatrix_options){.include = all, .n_include = 1, .exclude = no, .n_exclude = 1},
               TMS_EUSAGE, "do not go together", __LINE__);
}

/* ---- use ---- */

static void a_weight_of_another_size_is_refused(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    const float *values = (const float *)&err, *const untouched = values;
    put_i32(&b, 1);
    dat_entry(&b, "blk.0.ffn_up_exps.weight", 1, 12, 1);
    struct tms_imatrix *imatrix = open_with(saved(&b), NULL);
    const char *name = imatrix->entries[0].name;
    assert_int_equal(tms_imatrix_values(imatrix, name, 4, 2, &values, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "has 12 values, but the tensor has 8 (4 columns in 2 matrices)"));
    assert_int_equal(tms_imatrix_values(imatrix, name, UINT64_MAX, UINT64_MAX, &values, &err), TMS_EINPUT);
    assert_ptr_equal(values, untouched);
    assert_ok(tms_imatrix_values(imatrix, name, 4, 3, &values, &err), err);
    assert_ptr_equal(values, imatrix->entries[0].values);
    assert_ok(tms_imatrix_values(imatrix, "blk.0.attn_q.weight", 4, 1, &values, &err), err);
    assert_null(values);
    tms_imatrix_close(imatrix);
}

static void token_embeddings_of_another_size_are_a_warning(void **state)
{
    (void)state;
    struct tms_buf b = {0}, lines = {0};
    const float *values = (const float *)&err;
    put_i32(&b, 1);
    dat_entry(&b, "token_embd.weight", 1, 12, 1);
    struct tms_imatrix *imatrix = open_with(saved(&b), &(struct tms_imatrix_options){.warn = keep, .warn_ctx = &lines});
    assert_ok(tms_imatrix_values(imatrix, "token_embd.weight", 4, 1, &values, &err), err);
    assert_null(values);
    assert_non_null(strstr(text_of(&lines), "'token_embd.weight' has 12 values, the tensor 4 columns"));
    tms_buf_free(&lines);
    tms_imatrix_close(imatrix);
}

static void keys_are_those_of_llama_quantize(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    struct tms_kvs kvs = {0};
    uint64_t number = 0;
    char dataset[200] = {0};
    memset(dataset, 'x', 125);
    memcpy(dataset + 125, "\342\202\254\342\202\254", 7); /* byte 127 is inside of a character */
    put_i32(&b, 1);
    dat_entry(&b, "output.weight", 1, 3, 1);
    dat_end(&b, 12, dataset);
    struct tms_imatrix *imatrix = open_with(saved(&b), NULL);
    tms_kvs_set_string(&kvs, "quantize.imatrix.file", "that of an earlier run");
    tms_kvs_set_string(&kvs, "general.name", "x");
    tms_imatrix_set_keys(imatrix, &kvs);
    assert_false(kvs.failed);
    static const char *const order[] = {"general.name", "quantize.imatrix.file", "quantize.imatrix.dataset",
                                        "quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"};
    assert_int_equal(kvs.n, 5);
    for (size_t i = 0; i < 5; i++) assert_string_equal(kvs.items[i].key, order[i]);
    dataset[125] = 0;
    assert_string_equal(tms_kv_as_string(&kvs.items[1]), imatrix->path);
    assert_string_equal(tms_kv_as_string(&kvs.items[2]), dataset);
    assert_int_equal(kvs.items[3].type, TMS_KV_U32);
    assert_true(tms_kv_as_u64(&kvs.items[3], &number) && number == 1);
    assert_int_equal(kvs.items[4].type, TMS_KV_U32);
    assert_true(tms_kv_as_u64(&kvs.items[4], &number) && number == 12);
    tms_kvs_free(&kvs);
    tms_imatrix_close(imatrix);
}

static void keys_of_what_is_not_known_are_left_out(void **state)
{
    (void)state;
    struct tms_buf b = {0};
    struct tms_kvs kvs = {0};
    put_i32(&b, 1);
    dat_entry(&b, "output.weight", 1, 3, 1);
    struct tms_imatrix *imatrix = open_with(saved(&b), NULL);
    tms_imatrix_set_keys(imatrix, &kvs);
    assert_int_equal(kvs.n, 2);
    assert_string_equal(kvs.items[1].key, "quantize.imatrix.entries_count");
    tms_kvs_free(&kvs);
    tms_imatrix_close(imatrix);
}

/* ---- what llama-imatrix wrote ---- */

/* Lines "file <TAB> entry <TAB> values <TAB> SHA-256 of the means", computed with numpy from the same files. */
static void files_of_llama_imatrix_give_the_golden_means(void **state)
{
    (void)state;
    static const char *const files[] = {"imatrix/pebble.dat", "imatrix/pebble.gguf"};
    size_t n_bytes;
    char *text = (char *)read_whole(golden("imatrix/means.tsv"), &n_bytes), *rest = NULL;
    struct tms_imatrix *imatrix[2] = {open_with(golden(files[0]), NULL), open_with(golden(files[1]), NULL)};
    size_t n_checked[2] = {0};
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char file[64], name[64], wanted[65], got[65];
        size_t n_values;
        assert_int_equal(sscanf(line, "%63s\t%63s\t%zu\t%64s", file, name, &n_values, wanted), 4);
        const int which = strcmp(file, "pebble.gguf") == 0;
        const struct tms_imatrix_entry *entry = tms_imatrix_find(imatrix[which], name);
        if (!entry) fail_msg("%s: no entry '%s'", file, name);
        assert_int_equal(entry->n_values, n_values);
        sha256_hex(entry->values, n_values * sizeof entry->values[0], got);
        if (strcmp(got, wanted) != 0) fail_msg("%s: entry '%s': other means than numpy's", file, name);
        n_checked[which]++;
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(n_checked[i], imatrix[i]->n);
        assert_int_equal(imatrix[i]->n, 42); /* 6 layers of 7 */
        assert_string_equal(imatrix[i]->dataset, "calib.txt");
        assert_int_equal(imatrix[i]->n_chunks, 146);
        tms_imatrix_close(imatrix[i]);
    }
    free(text);
}

/* The .dat file went through (sum / count) * calls, which rounds twice. */
static void both_formats_tell_the_same(void **state)
{
    (void)state;
    struct tms_imatrix *dat = open_with(golden("imatrix/pebble.dat"), NULL);
    struct tms_imatrix *gguf = open_with(golden("imatrix/pebble.gguf"), NULL);
    assert_int_equal(dat->n, gguf->n);
    for (size_t e = 0; e < dat->n; e++) {
        assert_string_equal(dat->entries[e].name, gguf->entries[e].name);
        assert_int_equal(dat->entries[e].n_values, gguf->entries[e].n_values);
        for (size_t i = 0; i < dat->entries[e].n_values; i++) {
            const float a = dat->entries[e].values[i], b = gguf->entries[e].values[i];
            if (!(fabsf(a - b) <= 4e-7f * b))
                fail_msg("%s [%zu]: %g and %g", dat->entries[e].name, i, (double)a, (double)b);
        }
    }
    tms_imatrix_close(dat);
    tms_imatrix_close(gguf);
}

static void files_cut_anywhere_are_refused_or_read_in_one_piece(void **state)
{
    (void)state;
    size_t n;
    uint8_t *bytes = read_whole(golden("imatrix/pebble.dat"), &n);
    const char *path = scratch("cut.dat");
    for (size_t cut = 0; cut < n; cut += cut < 600 || cut + 600 > n ? 1 : 997) {
        struct tms_imatrix *imatrix = NULL;
        write_whole(path, bytes, cut);
        if (tms_imatrix_open(&imatrix, path, NULL, &err) != TMS_OK) continue;
        assert_int_equal(imatrix->n, 42); /* cut where files of before April 2024 end */
        assert_null(imatrix->dataset);
        tms_imatrix_close(imatrix);
    }
    free(bytes);
}

/* Tensors are cut into ranges of 2^18 values, of which rows of 768 are no part. */
static void importances_meet_whole_rows_of_any_length(void **state)
{
    (void)state;
    enum { COLS = 768, ROWS = 400 };
    const char *name = "blk.0.ffn_up.weight", *type = "q4_k_m";
    char model[1100], out[1100];
    uint64_t seed = 1;
    float *x = malloc(COLS * ROWS * sizeof *x), weights[COLS];
    for (size_t i = 0; i < COLS * ROWS; i++) x[i] = random_normal(&seed);
    for (int i = 0; i < COLS; i++) weights[i] = 1 + (float)i;
    struct made made = {0};
    tms_kvs_set_string(&made.kvs, "general.architecture", "anything");
    with_tensor(&made, name, TMS_F32, COLS, ROWS, x);
    snprintf(model, sizeof model, "%s", made_file(&made));
    snprintf(out, sizeof out, "%s", scratch("whole_rows.gguf"));
    struct tms_buf b = {0};
    put_i32(&b, 1);
    dat_entry(&b, name, 1, COLS, 1);
    const struct tms_quantize_options options = {.types = &type, .n_types = 1, .imatrix = saved(&b)};
    struct tms_result *results;
    assert_ok(tms_quantize(model, out, &options, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);

    struct tms_gguf *g;
    size_t n;
    assert_ok(tms_gguf_open(&g, out, &err), err);
    const struct tms_codec *codec = tms_codec(g->tensors[0].type);
    const size_t bytes = (size_t)tms_codec_bytes(codec, COLS * ROWS);
    uint8_t *want = malloc(bytes), *got = read_whole(out, &n);
    assert_non_null(codec->encode_weighted);
    codec->encode_weighted(x, weights, want, ROWS, COLS);
    assert_same_bytes(got + g->tensors[0].offset, want, bytes, "rows with importances");
    tms_gguf_close(g);
    free(x), free(want), free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dat_values_are_divided_by_calls),
        cmocka_unit_test(dat_values_without_calls_stay_as_they_are),
        cmocka_unit_test(dat_may_end_after_its_entries),
        cmocka_unit_test(dat_that_begins_like_another_format_is_read),
        cmocka_unit_test(dat_with_bytes_behind_its_end_is_reported),
        cmocka_unit_test(dat_reader_rejects_what_is_no_matrix),
        cmocka_unit_test(dat_reader_rejects_bad_entries),
        cmocka_unit_test(dat_reader_rejects_a_bad_end),
        cmocka_unit_test(values_that_no_mean_of_squares_has_are_refused),
        cmocka_unit_test(entries_that_are_left_out_may_hold_nan),
        cmocka_unit_test(gguf_sums_are_divided_by_their_counts),
        cmocka_unit_test(gguf_counts_are_rounded_to_whole_tokens),
        cmocka_unit_test(experts_never_seen_get_ones_and_are_reported),
        cmocka_unit_test(gguf_without_datasets_has_none),
        cmocka_unit_test(gguf_reader_rejects_other_files),
        cmocka_unit_test(gguf_reader_rejects_missing_or_wrong_keys),
        cmocka_unit_test(gguf_reader_rejects_bad_pairs),
        cmocka_unit_test(gguf_reader_rejects_impossible_counts),
        cmocka_unit_test(lists_choose_entries_by_parts_of_their_names),
        cmocka_unit_test(lists_that_make_no_sense_are_refused),
        cmocka_unit_test(a_weight_of_another_size_is_refused),
        cmocka_unit_test(token_embeddings_of_another_size_are_a_warning),
        cmocka_unit_test(keys_are_those_of_llama_quantize),
        cmocka_unit_test(keys_of_what_is_not_known_are_left_out),
        cmocka_unit_test(files_of_llama_imatrix_give_the_golden_means),
        cmocka_unit_test(both_formats_tell_the_same),
        cmocka_unit_test(importances_meet_whole_rows_of_any_length),
        cmocka_unit_test(files_cut_anywhere_are_refused_or_read_in_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

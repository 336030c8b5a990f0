/* Importance matrices, of both formats, for the model pebble: blk.0.attn_q.weight has 256 columns. */
#include "corpus.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file/gguf.h"

#define WEIGHT  "blk.0.attn_q.weight"
#define COLUMNS 256

static struct tms_buf file;

static void put_i32(int32_t v)
{
    tms_buf_u32(&file, (uint32_t)v);
}

static void put_f32(float v)
{
    tms_buf_put(&file, &v, sizeof v);
}

static void refused(const char *path, const char *fragment)
{
    corpus_write_buf(path, &file);
    corpus_expect(path, "imatrix", 2, fragment);
}

/* ---- .dat ---- */

/* An entry up to its first value. */
static void entry(const char *name, int32_t length, int32_t n_values)
{
    put_i32(length);
    tms_buf_text(&file, name);
    put_i32(1);
    put_i32(n_values);
}

static void good_entry(void)
{
    entry(WEIGHT, (int32_t)strlen(WEIGHT), COLUMNS);
    for (int i = 0; i < COLUMNS; i++) put_f32((float)i);
}

static void beginnings(void)
{
    refused("imatrix/empty.dat", "needs 4 bytes, but the file has only 0");
    tms_buf_text(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    refused("imatrix/lfs-pointer.dat", "git lfs pull");
    tms_buf_text(&file, "<html><body>Forbidden</body></html>");
    refused("imatrix/html.dat", "HTML page");
    tms_buf_text(&file, "The emperor was the only person of the emperor.");
    refused("imatrix/text.dat", "does not begin with 'GGUF'");
    put_i32(0);
    refused("imatrix/no-entries.dat", "0 entries");
    put_i32(-2);
    good_entry();
    refused("imatrix/negative-entries.dat", "-2 entries");
    put_i32(INT32_MAX);
    good_entry();
    refused("imatrix/endless-entries.dat", "2147483647 entries");
}

static void entries(void)
{
    put_i32(1);
    entry("", 0, COLUMNS);
    tms_buf_zeros(&file, 1024);
    refused("imatrix/no-name.dat", "its name has 0 bytes");
    put_i32(1);
    entry(WEIGHT, -19, COLUMNS);
    refused("imatrix/negative-name.dat", "its name has -19 bytes");
    put_i32(1);
    entry(WEIGHT, 200, COLUMNS);
    refused("imatrix/name-past-end.dat", "needs 200 bytes");
    put_i32(1);
    entry("blk.0.\033[31mattn_q", 17, 1);
    put_f32(1);
    refused("imatrix/name-control.dat", "control characters");
    put_i32(1);
    entry(WEIGHT, 19, 0);
    refused("imatrix/no-values.dat", "0 values");
    put_i32(1);
    entry(WEIGHT, 19, -256);
    tms_buf_zeros(&file, 1024);
    refused("imatrix/negative-values.dat", "-256 values");
    put_i32(1);
    entry(WEIGHT, 19, INT32_MAX);
    tms_buf_zeros(&file, 1024);
    refused("imatrix/endless-values.dat", "2147483647 values");
    put_i32(1);
    good_entry();
    file.n -= 2;
    refused("imatrix/cut.dat", "256 values, says byte 31, but there is room for 1 to 255");
    put_i32(2);
    good_entry();
    refused("imatrix/entry-missing.dat", "entry 2 of 2");
    put_i32(2);
    good_entry();
    good_entry();
    refused("imatrix/entry-twice.dat", "comes twice");
}

static void values(void)
{
    put_i32(1);
    good_entry();
    file.n -= 4;
    put_f32(NAN);
    refused("imatrix/nan.dat", "value 255 of 256, at byte 1055, is nan");
    put_i32(1);
    good_entry();
    file.n -= 4;
    put_f32(-1);
    refused("imatrix/negative.dat", "is -1, but must be a mean of squares");
    put_i32(1);
    entry(WEIGHT, 19, 3);
    for (int i = 0; i < 3; i++) put_f32(1);
    refused("imatrix/other-model.dat", "entry '" WEIGHT "' has 3 values, but the tensor has 256");
}

static void ends(void)
{
    put_i32(1);
    good_entry();
    put_i32(10);
    refused("imatrix/cut-end.dat", "the end, after the entries,");
    put_i32(1);
    good_entry();
    put_i32(10);
    put_i32(-3);
    refused("imatrix/negative-dataset.dat", "has -3 bytes");
    put_i32(1);
    good_entry();
    put_i32(10);
    put_i32(1 << 30);
    refused("imatrix/endless-dataset.dat", "has 1073741824 bytes");
}

/* ---- GGUF ---- */

/* What differs from a good file. */
struct gguf_case {
    const char *path, *fragment;
    const char *general_type; /* NULL: imatrix */
    const char *missing_key, *wrong_key;
    const char *sums, *counts; /* names; NULL: those of the weight */
    enum tms_type type;        /* of the sums; 0, which is F32 */
    uint64_t n_sums, n_counts; /* 0: 256 and 1 */
    float sum, count;          /* 0: 1 */
    size_t cut;                /* bytes at the end */
};

static void gguf_case(const struct gguf_case *c)
{
    struct tms_kvs kvs = {0};
    struct tms_buf texts = {0};
    uint64_t size = 0;
    struct tms_gguf_plan_tensor plan[] = {
        {.name = c->sums ? c->sums : WEIGHT ".in_sum2", .type = c->type, .n_dims = 2, .ne = {COLUMNS, 1}},
        {.name = c->counts ? c->counts : WEIGHT ".counts", .type = TMS_F32, .n_dims = 2, .ne = {1, 1}}};
    if (c->n_sums) plan[0].ne[0] = c->n_sums;
    if (c->n_counts) plan[1].ne[1] = c->n_counts;
    tms_kvs_set_string(&kvs, "general.type", c->general_type ? c->general_type : "imatrix");
    tms_kv_put_string(&texts, "calib.txt", 9);
    tms_kvs_set_array(&kvs, "imatrix.datasets", TMS_KV_STRING, 1, texts.data, texts.n);
    tms_kvs_set_u32(&kvs, "imatrix.chunk_count", 10);
    tms_kvs_set_u32(&kvs, "imatrix.chunk_size", 512);
    if (c->missing_key) tms_kvs_remove(&kvs, c->missing_key);
    if (c->wrong_key) tms_kvs_set_f32(&kvs, c->wrong_key, 1);
    if (tms_gguf_layout(&kvs, plan, 2, &file, &size, NULL) != TMS_OK) abort();
    tms_buf_zeros(&file, (size_t)size - file.n);
    if (file.failed) abort();
    for (uint64_t i = 0; i < plan[0].bytes / sizeof(float); i++)
        memcpy(file.data + plan[0].offset + 4 * i, &(float){c->sum != 0 ? c->sum : 1}, 4);
    for (uint64_t i = 0; i < plan[1].bytes / sizeof(float); i++)
        memcpy(file.data + plan[1].offset + 4 * i, &(float){c->count != 0 ? c->count : 1}, 4);
    file.n -= c->cut;
    corpus_write_buf(c->path, &file);
    corpus_expect(c->path, "imatrix", c->fragment[0] ? 2 : 0, c->fragment);
    tms_buf_free(&texts);
    tms_kvs_free(&kvs);
}

static void gguf_files(void)
{
    static const struct gguf_case cases[] = {
        {.path = "imatrix/good.gguf", .fragment = ""},
        {.path = "imatrix/never-seen.gguf", .fragment = "", .count = 0.25f},
        {.path = "imatrix/model.gguf", .fragment = "general.type is 'model'", .general_type = "model"},
        {.path = "imatrix/no-datasets.gguf", .fragment = "'imatrix.datasets'", .missing_key = "imatrix.datasets"},
        {.path = "imatrix/no-chunk-size.gguf", .fragment = "'imatrix.chunk_size'", .missing_key = "imatrix.chunk_size"},
        {.path = "imatrix/wrong-chunks.gguf", .fragment = "'imatrix.chunk_count'", .wrong_key = "imatrix.chunk_count"},
        {.path = "imatrix/no-counts.gguf", .fragment = "no tensor '" WEIGHT ".counts'", .counts = "other"},
        {.path = "imatrix/no-sums.gguf", .fragment = "no tensor '" WEIGHT ".in_sum2'", .sums = "other"},
        {.path = "imatrix/nothing.gguf", .fragment = "without entries", .sums = "a", .counts = "b"},
        {.path = "imatrix/f16.gguf", .fragment = "must be f32", .type = TMS_F16},
        {.path = "imatrix/uneven.gguf", .fragment = "3 counts do not divide 256 sums", .n_counts = 3},
        {.path = "imatrix/negative-count.gguf", .fragment = "is -2, which is no number of tokens", .count = -2},
        {.path = "imatrix/nan.gguf", .fragment = "value 0 of 256", .sum = NAN},
        {.path = "imatrix/other-model.gguf", .fragment = "has 64 values, but the tensor has 256", .n_sums = 64},
        {.path = "imatrix/cut.gguf", .fragment = "cut short", .cut = 32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) gguf_case(&cases[i]);
}

void corpus_imatrix(void)
{
    corpus_mkdir("imatrix");
    put_i32(1);
    good_entry();
    corpus_write_buf("imatrix/good.dat", &file);
    corpus_expect("imatrix/good.dat", "imatrix", 0, "");
    beginnings();
    entries();
    values();
    ends();
    gguf_files();
}

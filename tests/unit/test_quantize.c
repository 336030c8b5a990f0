/* The whole path: one read into several targets, from folders and GGUF files, with FP8 sources, whatever the
 * number of threads; and what happens when it cannot be done. */
#include "support.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <tamis/tamis.h>
#include <unistd.h>

#include "base/numbers.h"
#include "codec/bnb.h"
#include "file/safetensors.h"
#include "model/source.h"
#include "plan/filetype.h"

static struct tms_result *run(const char *from, const char *to, const char *const *types, size_t n,
                              const struct tms_quantize_options *more)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results;
    struct tms_error err;
    options.types = types;
    options.n_types = n;
    options.force = true;
    assert_ok(tms_quantize(from, to, &options, &results, NULL, NULL, &err), err);
    return results;
}

static void run_one(const char *from, const char *to, const char *type, const struct tms_quantize_options *more)
{
    tms_results_free(run(from, to, &type, 1, more), 1);
}

static tms_status fail_one(const char *from, const char *to, const char *type, const struct tms_quantize_options *more,
                           struct tms_error *err)
{
    struct tms_quantize_options options = more ? *more : (struct tms_quantize_options){0};
    struct tms_result *results;
    options.types = &type;
    options.n_types = 1;
    return tms_quantize(from, to, &options, &results, NULL, NULL, err);
}

static void several_targets_from_one_read_equal_each_alone(void **state)
{
    (void)state;
    const char *const types[] = {"q8_0", "q4_k_m", "nf4:dq", "q2_k", "int8", "fp4:b128"};
    char dir[1100], a[1300], b[1100];
    snprintf(dir, sizeof dir, "%s", scratch("together"));
    struct tms_result *results = run(pebble(), dir, types, 6, NULL);
    for (size_t i = 0; i < 6; i++) {
        assert_true(results[i].verified);
        snprintf(b, sizeof b, "%s", scratch("alone"));
        run_one(pebble(), b, types[i], NULL);
        snprintf(a, sizeof a, "%s", results[i].path);
        if (tms_path_is_dir(a)) {
            strcat(a, "/model.safetensors");
            strcat(b, "/model.safetensors");
        }
        assert_same_files(a, b);
        char remove[1400];
        snprintf(remove, sizeof remove, "rm -rf '%s'", scratch("alone"));
        assert_int_equal(system(remove), 0);
    }
    tms_results_free(results, 6);
}

static void bytes_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    const char *const types[] = {"q4_k_m", "nf4:dq"};
    char dirs[2][1100], a[1300], b[1300];
    double errors[2] = {0};
    for (unsigned i = 0; i < 2; i++) {
        const struct tms_quantize_options options = {.n_threads = i ? 7 : 1};
        snprintf(dirs[i], sizeof dirs[i], "%s", scratch(i ? "seven" : "one"));
        struct tms_result *results = run(pebble(), dirs[i], types, 2, &options);
        errors[i] = results[0].rms_error;
        tms_results_free(results, 2);
    }
    assert_true(errors[0] == errors[1]); /* to the last bit */
    snprintf(a, sizeof a, "%s/pebble-q4_k_m.gguf", dirs[0]);
    snprintf(b, sizeof b, "%s/pebble-q4_k_m.gguf", dirs[1]);
    assert_same_files(a, b);
    snprintf(a, sizeof a, "%s/pebble-nf4-dq/model.safetensors", dirs[0]);
    snprintf(b, sizeof b, "%s/pebble-nf4-dq/model.safetensors", dirs[1]);
    assert_same_files(a, b);
}

static void gguf_source_gives_the_data_that_the_folder_gives(void **state)
{
    (void)state;
    const char *type = "f32";
    const struct tms_quantize_options convert = {.types = &type, .n_types = 1};
    struct tms_result *results;
    struct tms_error err;
    struct tms_source *x, *y;
    char middle[1100], direct[1100], through[1100];
    snprintf(middle, sizeof middle, "%s", scratch("middle.gguf"));
    snprintf(direct, sizeof direct, "%s", scratch("direct.gguf"));
    snprintf(through, sizeof through, "%s", scratch("through.gguf"));
    assert_ok(tms_convert(pebble(), middle, &convert, &results, NULL, NULL, &err), err);
    tms_results_free(results, 1);
    run_one(pebble(), direct, "q4_k_m", NULL);
    run_one(middle, through, "q4_k_m", NULL);
    assert_ok(tms_source_open(&x, direct, NULL, NULL, &err), err);
    assert_ok(tms_source_open(&y, through, NULL, NULL, &err), err);
    assert_int_equal(x->n_tensors, y->n_tensors);
    for (size_t i = 0; i < x->n_tensors; i++) {
        const struct tms_tensor *a = &x->tensors[i], *b = &y->tensors[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->type, b->type);
        uint8_t *p = malloc(a->bytes), *q = malloc(b->bytes);
        assert_ok(tms_file_read(x->files[0], p, a->bytes, a->offset, &err), err);
        assert_ok(tms_file_read(y->files[0], q, b->bytes, b->offset, &err), err);
        assert_same_bytes(p, q, a->bytes, a->name);
        free(p);
        free(q);
    }
    uint64_t version = 0, type_id = 0;
    assert_true(tms_kv_as_u64(tms_kvs_find(&y->gguf->kvs, "general.quantization_version"), &version));
    assert_true(tms_kv_as_u64(tms_kvs_find(&y->gguf->kvs, "general.file_type"), &type_id));
    assert_int_equal(version, 2);
    assert_int_equal(type_id, TMS_FTYPE_Q4_K_M);
    tms_source_close(x);
    tms_source_close(y);
}

/* Every file type, with and without importance weights: the data section of the whole file, by its hash. */
static void data_of_every_file_type_are_those_of_llama_quantize(void **state)
{
    (void)state;
    char line[256];
    size_t n_equal = 0, n_refused = 0;
    FILE *f = fopen(golden("imatrix/llama_quantize.tsv"), "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    while (fgets(line, sizeof line, f)) {
        const char *type = strtok(line, "\t"), *weights = strtok(NULL, "\t"), *want = strtok(NULL, "\n");
        struct tms_quantize_options options = {.imatrix = weights[0] == '1' ? golden("imatrix/pebble.gguf") : NULL};
        struct tms_error err;
        struct tms_gguf *g;
        size_t n;
        char hex[65];
        const char *out = scratch("every.gguf");
        if (strcmp(want, "REFUSED") == 0) {
            assert_int_equal(fail_one(pebble(), out, type, &options, &err), TMS_EINPUT);
            n_refused++;
            continue;
        }
        run_one(pebble(), out, type, &options);
        assert_ok(tms_gguf_open(&g, out, &err), err);
        uint8_t *bytes = read_whole(out, &n);
        sha256_hex(bytes + g->tensors[0].offset, n - g->tensors[0].offset, hex);
        if (strcmp(hex, want) != 0) fail_msg("%s with weights %s: data differ", type, weights);
        free(bytes);
        tms_gguf_close(g);
        n_equal++;
    }
    fclose(f);
    print_message("%zu files equal, %zu refused\n", n_equal, n_refused);
    assert_true(n_equal >= 50 && n_refused >= 5);
}

static void quantized_gguf_needs_leave_to_be_quantized_again(void **state)
{
    (void)state;
    struct tms_error err;
    char first[1100];
    const struct tms_quantize_options allow = {.allow_requantize = true};
    snprintf(first, sizeof first, "%s", scratch("first.gguf"));
    run_one(pebble(), first, "q8_0", NULL);
    assert_int_equal(fail_one(first, scratch("second.gguf"), "q4_0", NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "--allow-requantize"));
    run_one(first, scratch("second.gguf"), "q4_0", &allow);
    run_one(first, scratch("wide.gguf"), "f16", NULL); /* widening needs no leave */
    run_one(first, scratch("copy.gguf"), "copy", NULL);
    assert_same_files(first, scratch("copy.gguf"));
}

static void unknown_architecture_is_refused_by_name_for_gguf_and_taken_for_nf4(void **state)
{
    (void)state;
    struct tms_error err;
    char dir[1100], path[1300];
    snprintf(dir, sizeof dir, "%s", scratch("unknown"));
    char command[4000];
    snprintf(
        command, sizeof command,
        "cp -r '%s' '%s' && sed -i 's/Qwen2ForCausalLM/StrangeForCausalLM/; s/\"qwen2\"/\"strange\"/' '%s/config.json'",
        golden("hf/bnb/folders/qwen2"), dir, dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(fail_one(dir, scratch("no.gguf"), "q8_0", NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "StrangeForCausalLM"));
    assert_non_null(strstr(err.message, "LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM, Qwen2ForCausalLM"));
    run_one(dir, scratch("strange"), "nf4", NULL);
    snprintf(path, sizeof path, "%s/model.safetensors", scratch("strange"));
    assert_true(tms_path_exists(path));
}

static void unknown_architecture_in_gguf_is_requantized_by_names(void **state)
{
    (void)state;
    char from[1100], to[1100];
    size_t n;
    snprintf(from, sizeof from, "%s", scratch("qwen.gguf"));
    snprintf(to, sizeof to, "%s", scratch("qwex.gguf"));
    run_one(pebble(), from, "f16", NULL);
    uint8_t *bytes = read_whole(from, &n);
    for (size_t i = 0; i + 5 < n && i < 100000; i++)
        if (memcmp(bytes + i, "qwen2", 5) == 0) bytes[i + 4] = '9'; /* qwen9: general.architecture and its keys */
    write_whole(from, bytes, n);
    free(bytes);
    run_one(from, to, "q4_k_m", NULL);
    assert_true(tms_path_exists(to));
}

/* ---- FP8 with block scales ---- */

struct part {
    const char *name;
    enum tms_type type;
    uint64_t rows, cols;
    void *data;
};

static void write_safetensors(const char *path, struct part *parts, size_t n)
{
    struct tms_st_plan_tensor plan[8];
    struct tms_buf header = {0};
    struct tms_error err;
    uint64_t size;
    for (size_t i = 0; i < n; i++)
        plan[i] = (struct tms_st_plan_tensor){.name = parts[i].name,
                                              .type = parts[i].type,
                                              .n_dims = 2,
                                              .tag = i,
                                              .shape = {parts[i].rows, parts[i].cols}};
    assert_ok(tms_st_layout(plan, n, 0, &header, &size, &err), err);
    uint8_t *bytes = calloc(size, 1);
    memcpy(bytes, header.data, header.n);
    for (size_t i = 0; i < n; i++) memcpy(bytes + plan[i].offset, parts[plan[i].tag].data, plan[i].bytes);
    write_whole(path, bytes, size);
    free(bytes);
    tms_buf_free(&header);
}

/* 300 x 200: ragged in both directions; weight and scale in different shards. */
static void fp8_weights_are_multiplied_by_their_block_scales_across_shards(void **state)
{
    (void)state;
    enum { ROWS = 300, COLS = 200 };
    static uint8_t codes[ROWS * COLS];
    static float scales[3 * 2], want[ROWS * COLS], decoded[ROWS * COLS];
    uint64_t seed = 5;
    char dir[1100], path[1300];
    struct tms_error err;
    for (size_t i = 0; i < ROWS * COLS; i++) {
        codes[i] = (uint8_t)(next_random(&seed) & 0xff);
        if ((codes[i] & 0x7f) == 0x7f) codes[i] = 0; /* no NaN */
    }
    for (int i = 0; i < 6; i++) scales[i] = 0.001f * (float)(i + 1);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            want[r * COLS + c] = tms_e4m3_to_f32(codes[r * COLS + c]) * scales[r / 128 * 2 + c / 128];
    snprintf(dir, sizeof dir, "%s", scratch("fp8"));
    assert_int_equal(mkdir(dir, 0777), 0);
    struct part first = {"model.x.weight_scale_inv", TMS_F32, 3, 2, scales},
                second = {"model.x.weight", TMS_F8_E4M3, ROWS, COLS, codes};
    snprintf(path, sizeof path, "%s/model-00001-of-00002.safetensors", dir);
    write_safetensors(path, &first, 1);
    snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", dir);
    write_safetensors(path, &second, 1);
    static const char index[] =
        "{\"metadata\":{},\"weight_map\":{\"model.x.weight_scale_inv\":\"model-00001-of-00002.safetensors\","
        "\"model.x.weight\":\"model-00002-of-00002.safetensors\"}}";
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    write_whole(path, index, sizeof index - 1);
    static const char config[] = "{\"model_type\":\"strange\",\"torch_dtype\":\"bfloat16\",\"quantization_config\":{"
                                 "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}}";
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_whole(path, config, sizeof config - 1);

    struct tms_source *s;
    assert_ok(tms_source_open(&s, dir, NULL, NULL, &err), err);
    const struct tms_tensor *t = tms_source_find(s, "model.x.weight");
    uint8_t *raw = malloc(ROWS * COLS);
    assert_ok(tms_source_read(s, t, 0, ROWS * COLS, raw, decoded, &err), err);
    assert_memory_equal(decoded, want, sizeof want);
    assert_ok(tms_source_read(s, t, 130 * COLS, 7 * COLS, raw, decoded, &err), err); /* from the middle of a block */
    assert_memory_equal(decoded, want + 130 * COLS, 7 * COLS * sizeof(float));
    assert_int_equal(tms_source_parameters(s), ROWS * COLS);
    tms_source_close(s);
    free(raw);

    /* and through a target: the codes of nf4 are those of the products */
    static uint8_t packed[ROWS * COLS / 2], got[ROWS * COLS / 2];
    static float absmax[ROWS * COLS / 64 + 1];
    tms_bnb_encode4(TMS_BNB_NF4, 64, want, ROWS * COLS, packed, absmax);
    run_one(dir, scratch("fp8-nf4"), "nf4", NULL);
    assert_ok(tms_source_open(&s, scratch("fp8-nf4"), NULL, NULL, &err), err);
    t = tms_source_find(s, "model.x.weight");
    assert_ok(tms_file_read(s->files[t->file], got, sizeof got, t->offset, &err), err);
    assert_same_bytes(got, packed, sizeof got, "nf4 codes");
    tms_source_close(s);
}

/* ---- what goes wrong ---- */

/* A copy of pebble with one bfloat16 of layer 3's up_proj replaced. */
static void copy_with_weight(const char *dir, uint64_t row, uint64_t column, uint16_t value)
{
    struct tms_error err;
    struct tms_source *s;
    char command[3000];
    snprintf(command, sizeof command, "cp -r '%s' '%s'", pebble(), dir);
    assert_int_equal(system(command), 0);
    assert_ok(tms_source_open(&s, dir, NULL, NULL, &err), err);
    const struct tms_tensor *t = tms_source_find(s, "model.layers.3.mlp.up_proj.weight");
    FILE *f = fopen(s->files[0]->path, "r+b");
    fseek(f, (long)(t->offset + 2 * (row * t->cols + column)), SEEK_SET);
    fwrite(&value, 1, 2, f);
    fclose(f);
    tms_source_close(s);
}

static void not_a_number_stops_the_work_with_tensor_row_and_column(void **state)
{
    (void)state;
    struct tms_error err;
    char dir[1100];
    snprintf(dir, sizeof dir, "%s", scratch("nan"));
    copy_with_weight(dir, 700, 13, 0x7fc0);
    assert_int_equal(fail_one(dir, scratch("nan.gguf"), "q4_k_m", NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "tensor 'model.layers.3.mlp.up_proj.weight' row 700 column 13: nan"));
    assert_false(tms_path_exists(scratch("nan.gguf")));
    assert_false(tms_path_exists(scratch("nan.gguf.tamis-partial")));
}

static void weight_too_large_for_the_type_is_named(void **state)
{
    (void)state;
    static const char *const types[] = {"q8_0", "f16", "q4_k_m", "int8"};
    struct tms_error err;
    char dir[1100];
    snprintf(dir, sizeof dir, "%s", scratch("huge"));
    copy_with_weight(dir, 3, 7, 0x7f61); /* 3e38 */
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(fail_one(dir, scratch("huge.gguf"), types[i], NULL, &err), TMS_EINPUT);
        if (!strstr(err.message, "up_proj.weight' row 3 column 7: ")) fail_msg("%s: %s", types[i], err.message);
    }
}

static void the_model_itself_is_never_overwritten(void **state)
{
    (void)state;
    struct tms_error err;
    char file[1100];
    const struct tms_quantize_options force = {.force = true, .allow_requantize = true};
    snprintf(file, sizeof file, "%s", scratch("self.gguf"));
    run_one(pebble(), file, "f16", NULL);
    assert_int_equal(fail_one(file, file, "q8_0", &force, &err), TMS_EUSAGE);
    assert_non_null(strstr(err.message, "is the model itself"));
    assert_int_equal(fail_one(golden("hf/bnb/folders/qwen2"), golden("hf/bnb/folders/qwen2"), "nf4", &force, &err),
                     TMS_EUSAGE);
}

static void existing_folder_is_kept_unless_forced(void **state)
{
    (void)state;
    struct tms_error err;
    char dir[1100], keep[1300];
    snprintf(dir, sizeof dir, "%s", scratch("exists"));
    assert_int_equal(mkdir(dir, 0777), 0);
    snprintf(keep, sizeof keep, "%s/precious", dir);
    write_whole(keep, "x", 1);
    assert_int_equal(fail_one(pebble(), dir, "nf4", NULL, &err), TMS_EUSAGE);
    assert_true(tms_path_exists(keep));
}

static void cancel_in_progress(void *ctx, const struct tms_progress *p)
{
    (void)ctx;
    (void)p;
    tms_cancel();
}

static void interrupted_work_leaves_nothing_behind(void **state)
{
    (void)state;
    char dir[1100], check[1300];
    snprintf(dir, sizeof dir, "%s", scratch("cancelled"));
    pid_t child = fork();
    if (child == 0) {
        const char *const types[] = {"q4_k_m", "nf4:dq", "f32"};
        struct tms_quantize_options options = {
            .types = types, .n_types = 3, .n_threads = 1, .progress = cancel_in_progress};
        struct tms_result *results;
        struct tms_error err;
        _exit(tms_quantize(pebble(), dir, &options, &results, NULL, NULL, &err) == TMS_ECANCELLED ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_false(tms_path_exists(dir)); /* not even the folder it made */
    snprintf(check, sizeof check, "%s.tamis-partial", dir);
    assert_false(tms_path_exists(check));
}

static void disk_that_fills_up_leaves_nothing_behind(void **state)
{
    (void)state;
    char dir[1100];
    snprintf(dir, sizeof dir, "%s", scratch("toofull"));
    pid_t child = fork();
    if (child == 0) {
        const char *const types[] = {"q8_0", "nf4"};
        struct tms_quantize_options options = {.types = types, .n_types = 2};
        struct tms_result *results;
        struct tms_error err;
        struct rlimit limit = {4 << 20, 4 << 20};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        tms_status status = tms_quantize(pebble(), dir, &options, &results, NULL, NULL, &err);
        _exit(status == TMS_EIO && strstr(err.message, "no room for") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_false(tms_path_exists(dir));
}

static void truncated_source_is_an_input_error(void **state)
{
    (void)state;
    struct tms_error err;
    char dir[1100], command[3000];
    snprintf(dir, sizeof dir, "%s", scratch("short"));
    snprintf(command, sizeof command, "cp -r '%s' '%s' && truncate -s 5000000 '%s/model.safetensors'", pebble(), dir,
             dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(fail_one(dir, scratch("short.gguf"), "q8_0", NULL, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "model.safetensors"));
}

static void peak_memory_stays_small(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#endif
    pid_t child = fork();
    if (child == 0) {
        const char *const types[] = {"q8_0", "q4_k_m", "nf4:dq"};
        struct tms_quantize_options options = {.types = types, .n_types = 3, .n_threads = 2, .force = true};
        struct tms_result *results;
        struct tms_error err;
        struct rusage usage;
        if (tms_quantize(pebble(), scratch("memory"), &options, &results, NULL, NULL, &err) != TMS_OK) _exit(1);
        getrusage(RUSAGE_SELF, &usage);
        _exit(usage.ru_maxrss < 40 * 1024 ? 0 : 2); /* KiB; the model alone has 11.5 MB */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_targets_from_one_read_equal_each_alone),
        cmocka_unit_test(bytes_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(gguf_source_gives_the_data_that_the_folder_gives),
        cmocka_unit_test(data_of_every_file_type_are_those_of_llama_quantize),
        cmocka_unit_test(quantized_gguf_needs_leave_to_be_quantized_again),
        cmocka_unit_test(unknown_architecture_is_refused_by_name_for_gguf_and_taken_for_nf4),
        cmocka_unit_test(unknown_architecture_in_gguf_is_requantized_by_names),
        cmocka_unit_test(fp8_weights_are_multiplied_by_their_block_scales_across_shards),
        cmocka_unit_test(not_a_number_stops_the_work_with_tensor_row_and_column),
        cmocka_unit_test(weight_too_large_for_the_type_is_named),
        cmocka_unit_test(the_model_itself_is_never_overwritten),
        cmocka_unit_test(existing_folder_is_kept_unless_forced),
        cmocka_unit_test(interrupted_work_leaves_nothing_behind),
        cmocka_unit_test(disk_that_fills_up_leaves_nothing_behind),
        cmocka_unit_test(truncated_source_is_an_input_error),
        cmocka_unit_test(peak_memory_stays_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

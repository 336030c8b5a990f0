/* The base room: errors, memory, outputs that appear whole or not at all, threads, JSON numbers. */
#include "support.h"

#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/threads.h"

static void error_messages_are_one_line_without_control_characters(void **state)
{
    (void)state;
    struct tms_error err;
    assert_int_equal(tms_fail(&err, TMS_EINPUT, "tensor '%s'", "a\nb\x1b[31m\x7f"), TMS_EINPUT);
    assert_string_equal(err.message, "tensor 'a?b?[31m?'");
    (void)tms_fail(&err, TMS_EINPUT, "%s",
                   "\xc3\xa9 \xe9 \xc2\x9b[1m \xf0\x9f\x98\x80 \xf0\x9f"); /* Latin-1, a C1 control, a half */
    assert_string_equal(err.message, "\xc3\xa9 ? ??[1m \xf0\x9f\x98\x80 ??");
    char *longer = malloc(5000);
    memset(longer, 'x', 4999);
    longer[4999] = '\0';
    (void)tms_fail(&err, TMS_EIO, "%s", longer);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    free(longer);
}

static void sizes_that_overflow_are_noticed(void **state)
{
    (void)state;
    uint64_t n = 7;
    assert_false(tms_mul_u64(UINT64_C(1) << 33, UINT64_C(1) << 31, &n));
    assert_false(tms_add_u64(UINT64_MAX, 1, &n));
    assert_int_equal(n, 7);
    assert_null(tms_calloc(UINT64_C(1) << 40, UINT64_C(1) << 40));
    assert_int_equal(tms_align_up(33, 32), 64);
    assert_int_equal(tms_align_up(64, 32), 64);
}

static void arena_texts_live_until_the_arena_is_freed(void **state)
{
    (void)state;
    struct tms_arena arena = {0};
    char *texts[2000];
    for (int i = 0; i < 2000; i++) texts[i] = tms_arena_printf(&arena, "text %d", i);
    for (int i = 0; i < 2000; i++) {
        char want[32];
        snprintf(want, sizeof want, "text %d", i);
        assert_string_equal(texts[i], want);
    }
    assert_non_null(tms_arena_alloc(&arena, 5u << 20));
    tms_arena_free(&arena);
    assert_null(arena.chunks);
}

static bool anything_in(const char *dir)
{
    DIR *d = opendir(dir);
    bool any = false;
    for (struct dirent *e; (e = readdir(d));) any |= e->d_name[0] != '.';
    closedir(d);
    return any;
}

static void output_appears_only_when_committed(void **state)
{
    (void)state;
    struct tms_output *o;
    struct tms_error err;
    const char *dir = scratch("appears");
    char path[1100];
    size_t n;
    assert_int_equal(mkdir(dir, 0777), 0);
    snprintf(path, sizeof path, "%s/file", dir);
    assert_ok(tms_output_create(&o, path, 100, &err), err);
    assert_ok(tms_output_write(o, "hello", 5, 3, &err), err);
    assert_false(tms_path_exists(path));
    assert_ok(tms_output_truncate(o, 8, &err), err);
    assert_ok(tms_output_commit(o, &err), err);
    uint8_t *bytes = read_whole(path, &n);
    assert_int_equal(n, 8);
    assert_memory_equal(bytes, "\0\0\0hello", 8);
    free(bytes);
    assert_ok(tms_output_create(&o, path, 0, &err), err);
    tms_output_discard(o);
    bytes = read_whole(path, &n); /* the old one is still there */
    assert_int_equal(n, 8);
    free(bytes);
    unlink(path);
    assert_false(anything_in(dir));
}

static void partial_file_of_a_killed_run_is_taken_over(void **state)
{
    (void)state;
    struct tms_output *o;
    struct tms_error err;
    char path[1100], partial[1200];
    size_t n;
    snprintf(path, sizeof path, "%s", scratch("killed"));
    snprintf(partial, sizeof partial, "%s.tamis-partial", path);
    write_whole(partial, "half of an old file", 19);
    assert_ok(tms_output_create(&o, path, 0, &err), err);
    assert_ok(tms_output_write(o, "new", 3, 0, &err), err);
    assert_ok(tms_output_commit(o, &err), err);
    uint8_t *bytes = read_whole(path, &n);
    assert_int_equal(n, 3);
    free(bytes);
    assert_false(tms_path_exists(partial));
}

static void two_runs_cannot_write_the_same_output(void **state)
{
    (void)state;
    struct tms_output *first, *second;
    struct tms_error err;
    const char *path = scratch("contested");
    assert_ok(tms_output_create(&first, path, 0, &err), err);
    assert_int_equal(tms_output_create(&second, path, 0, &err), TMS_EIO);
    assert_non_null(strstr(err.message, "another tamis is writing it"));
    assert_ok(tms_output_commit(first, &err), err); /* not harmed */
    assert_true(tms_path_exists(path));
}

static void output_in_a_missing_folder_is_an_error_with_its_name(void **state)
{
    (void)state;
    struct tms_output *o;
    struct tms_error err;
    assert_int_equal(tms_output_create(&o, scratch("no/such/folder/file"), 0, &err), TMS_EIO);
    assert_non_null(strstr(err.message, "no/such/folder/file"));
}

/* A limit on the size of files stands in for a full disk: the same calls fail. */
static void full_disk_is_told_before_any_work(void **state)
{
    (void)state;
    char path[1100];
    snprintf(path, sizeof path, "%s", scratch("full"));
    pid_t child = fork();
    if (child == 0) {
        struct tms_output *o;
        struct tms_error err;
        struct rlimit limit = {1 << 20, 1 << 20};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        tms_status status = tms_output_create(&o, path, 10 << 20, &err);
        _exit(status == TMS_EIO && strstr(err.message, "no room for 10485760 bytes") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_false(tms_path_exists(path));
    strcat(path, ".tamis-partial");
    assert_false(tms_path_exists(path));
}

static void output_folder_replaces_an_old_one_only_when_told(void **state)
{
    (void)state;
    struct tms_output_dir *d;
    struct tms_error err;
    char dir[1100], old_file[1200], new_file[1200], partial[1200];
    snprintf(dir, sizeof dir, "%s", scratch("folder"));
    snprintf(old_file, sizeof old_file, "%s/old", dir);
    snprintf(new_file, sizeof new_file, "%s/new", dir);
    assert_int_equal(mkdir(dir, 0777), 0);
    write_whole(old_file, "x", 1);
    assert_int_equal(tms_output_dir_create(&d, dir, false, &err), TMS_EUSAGE);
    assert_true(tms_path_exists(old_file));
    assert_ok(tms_output_dir_create(&d, dir, true, &err), err);
    snprintf(partial, sizeof partial, "%s/new", tms_output_dir_partial(d));
    write_whole(partial, "y", 1);
    assert_true(tms_path_exists(old_file));
    assert_ok(tms_output_dir_commit(d, &err), err);
    assert_true(tms_path_exists(new_file));
    assert_false(tms_path_exists(old_file));
    assert_ok(tms_output_dir_create(&d, dir, true, &err), err);
    tms_output_dir_discard(d);
    assert_true(tms_path_exists(new_file));
}

static void text_files_larger_than_the_limit_are_refused(void **state)
{
    (void)state;
    const char *path = scratch("text");
    char *text;
    size_t n;
    struct tms_error err;
    write_whole(path, "0123456789", 10);
    assert_int_equal(tms_file_text(path, 9, &text, &n, &err), TMS_EINPUT);
    assert_ok(tms_file_text(path, 10, &text, &n, &err), err);
    assert_string_equal(text, "0123456789");
    free(text);
}

struct count {
    atomic_size_t done;
    size_t fail_at;
    unsigned char seen[1000];
};

static tms_status count_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct count *c = ctx;
    (void)worker;
    atomic_fetch_add(&c->done, 1);
    c->seen[index]++;
    if (index >= c->fail_at) return tms_fail(err, TMS_EINPUT, "job %zu", index);
    return TMS_OK;
}

static void every_job_runs_once_whatever_the_number_of_threads(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 9; n += 4) {
        struct tms_pool *pool;
        struct tms_error err;
        assert_ok(tms_pool_create(&pool, n, &err), err);
        for (int round = 0; round < 50; round++) {
            struct count c = {.fail_at = SIZE_MAX};
            assert_ok(tms_pool_run(pool, 1000, count_job, &c, &err), err);
            for (int i = 0; i < 1000; i++) assert_int_equal(c.seen[i], 1);
        }
        tms_pool_free(pool);
    }
}

static void the_first_failing_job_is_the_one_told(void **state)
{
    (void)state;
    struct tms_pool *pool;
    struct tms_error err;
    assert_ok(tms_pool_create(&pool, 4, &err), err);
    for (int round = 0; round < 200; round++) {
        struct count c = {.fail_at = 10};
        assert_int_equal(tms_pool_run(pool, 1000, count_job, &c, &err), TMS_EINPUT);
        assert_string_equal(err.message, "job 10");
        assert_true(atomic_load(&c.done) < 1000);
    }
    tms_pool_free(pool);
}

static void numbers_are_spelled_as_python_spells_them(void **state)
{
    (void)state;
    static const struct {
        double x;
        const char *text;
    } cases[] = {{0.1, "0.1"},
                 {1e-05, "1e-05"},
                 {2, "2.0"},
                 {0.24563312530517578, "0.24563312530517578"},
                 {1e16, "1e+16"},
                 {123456789012345680.0, "1.2345678901234568e+17"},
                 {1e15, "1000000000000000.0"},
                 {-0.0001, "-0.0001"},
                 {0.00012345, "0.00012345"},
                 {5e-324, "5e-324"},
                 {0, "0.0"},
                 {100, "100.0"},
                 {1.7976931348623157e308, "1.7976931348623157e+308"},
                 {1.25e-7, "1.25e-07"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        tms_json_repr(text, cases[i].x);
        assert_string_equal(text, cases[i].text);
    }
}

static void json_errors_name_file_line_and_column(void **state)
{
    (void)state;
    json_t *json;
    struct tms_error err;
    assert_int_equal(tms_json_parse(&json, "{\"a\": 1,\n \"a\": 2}", 17, "x.json", &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "x.json: is not valid JSON"));
    assert_non_null(strstr(err.message, "line 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_messages_are_one_line_without_control_characters),
        cmocka_unit_test(sizes_that_overflow_are_noticed),
        cmocka_unit_test(arena_texts_live_until_the_arena_is_freed),
        cmocka_unit_test(output_appears_only_when_committed),
        cmocka_unit_test(partial_file_of_a_killed_run_is_taken_over),
        cmocka_unit_test(two_runs_cannot_write_the_same_output),
        cmocka_unit_test(output_in_a_missing_folder_is_an_error_with_its_name),
        cmocka_unit_test(full_disk_is_told_before_any_work),
        cmocka_unit_test(output_folder_replaces_an_old_one_only_when_told),
        cmocka_unit_test(text_files_larger_than_the_limit_are_refused),
        cmocka_unit_test(every_job_runs_once_whatever_the_number_of_threads),
        cmocka_unit_test(the_first_failing_job_is_the_one_told),
        cmocka_unit_test(numbers_are_spelled_as_python_spells_them),
        cmocka_unit_test(json_errors_name_file_line_and_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

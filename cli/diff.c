/* tamis diff: what differs between two models of any formats. */
#include "cli.h"

#include <math.h>
#include <string.h>

static const char *const states[] = {"equal", "differs", "shape differs", "not decoded", "only in A", "only in B"};

/* "6.48 %" of four digits, "∞" where one side is zero or no number. */
static void relative_cell(struct table *t, double x)
{
    if (isfinite(x))
        table_cell(t, "%.4g %%", 100 * x);
    else
        table_cell(t, "∞");
}

static void print_keys(const struct tms_diff *diff, const struct tms_diff_info *info)
{
    struct table t;
    if (info->n_keys == 0) return;
    table_begin(&t, "lll");
    table_cell(&t, "key");
    table_cell(&t, "A");
    table_cell(&t, "B");
    for (size_t i = 0; i < info->n_keys; i++) {
        struct tms_diff_key key;
        tms_diff_key_at(diff, i, &key);
        table_cell(&t, "%s", key.key);
        table_cell(&t, "%s", key.a ? key.a : "-");
        table_cell(&t, "%s", key.b ? key.b : "-");
    }
    table_end(&t, stdout);
    putchar('\n');
}

static void print_tensors(const struct tms_diff *diff, const struct tms_diff_info *info, bool all)
{
    struct table t;
    size_t n_shown = 0;
    table_begin(&t, "lllrrr");
    table_cell(&t, "tensor");
    table_cell(&t, "A");
    table_cell(&t, "B");
    table_cell(&t, "relative error");
    table_cell(&t, "max |a - b|");
    table_cell(&t, "at row, column");
    for (size_t i = 0; i < info->n_tensors; i++) {
        struct tms_diff_tensor d;
        tms_diff_tensor_at(diff, i, &d);
        if (d.state == TMS_DIFF_EQUAL && !all) continue;
        n_shown++;
        table_cell(&t, "%s", d.name);
        table_cell(&t, "%s", d.type_a ? d.type_a : "-");
        table_cell(&t, "%s", d.type_b ? d.type_b : "-");
        if (d.state == TMS_DIFF_VALUES) {
            relative_cell(&t, d.relative_error);
            table_cell(&t, "%.4g", d.max_error);
            table_cell(&t, "%llu, %llu", (unsigned long long)d.max_row, (unsigned long long)d.max_column);
        } else {
            table_cell(&t, "%s", states[d.state]);
            table_cell(&t, "%s", "");
            table_cell(&t, "%s", "");
        }
    }
    if (n_shown) {
        table_end(&t, stdout);
        putchar('\n');
    } else {
        table_drop(&t);
    }
}

static void print_summary(const struct tms_diff_info *info)
{
    if (info->equal) {
        printf("equal: %zu tensors, %s values", info->n_tensors, grouped(info->n_values));
    } else {
        printf("%zu of %zu tensors differ", info->n_tensors - info->n_equal, info->n_tensors);
        if (info->n_only_a) printf(", %zu only in A", info->n_only_a);
        if (info->n_only_b) printf(", %zu only in B", info->n_only_b);
        if (info->n_undecoded) printf(", %zu that tamis cannot decode", info->n_undecoded);
        if (info->n_values)
            printf("; relative error %.4g %%, rms %.4e, max %.4g", 100 * info->relative_error, info->rms_error,
                   info->max_error);
    }
    printf("; %zu of other type", info->n_types);
    if (info->keys_compared) printf("; %zu key%s of other value", info->n_keys, info->n_keys == 1 ? "" : "s");
    putchar('\n');
}

/* JSON has no infinity. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *document(const struct tms_diff *diff, const struct tms_diff_info *info, const char *const paths[2])
{
    json_t *tensors = json_array(), *keys = json_array();
    for (size_t i = 0; i < info->n_tensors; i++) {
        struct tms_diff_tensor d;
        tms_diff_tensor_at(diff, i, &d);
        json_array_append_new(tensors, json_pack("{s:s, s:s?, s:s?, s:s, s:I, s:I, s:o, s:o, s:o, s:[I,I]}", "name",
                                                 d.name, "type_a", d.type_a, "type_b", d.type_b, "state",
                                                 states[d.state], "values", (json_int_t)d.n_values, "values_differing",
                                                 (json_int_t)d.n_differing, "relative_error", number(d.relative_error),
                                                 "rms_error", number(d.rms_error), "max_error", number(d.max_error),
                                                 "max_at", (json_int_t)d.max_row, (json_int_t)d.max_column));
    }
    for (size_t i = 0; i < info->n_keys; i++) {
        struct tms_diff_key key;
        tms_diff_key_at(diff, i, &key);
        json_array_append_new(keys, json_pack("{s:s, s:s?, s:s?}", "key", key.key, "a", key.a, "b", key.b));
    }
    return json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "a", paths[0], "b", paths[1],
                     "equal", info->equal, "tensors_equal", (json_int_t)info->n_equal, "tensors_differing",
                     (json_int_t)info->n_differing, "tensors_only_a", (json_int_t)info->n_only_a, "tensors_only_b",
                     (json_int_t)info->n_only_b, "types_differing", (json_int_t)info->n_types, "relative_error",
                     number(info->relative_error), "rms_error", number(info->rms_error), "max_error",
                     number(info->max_error), "keys", keys, "tensors", tensors);
}

int run_diff(const struct command *self, int argc, char **argv)
{
    struct common common;
    const char *paths[2];
    bool all = false;
    struct tms_error err;
    struct tms_diff *diff;
    struct tms_diff_info info;
    struct progress_bar bar;
    const struct option options[] = {
        {"all", 'a', OPTION_FLAG, &all, NULL, "list the tensors that are equal, too"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &common, paths, 2);
    if (code >= 0) return code;
    const struct tms_diff_options o = {
        .n_threads = (unsigned)common.threads, .progress = progress_show, .progress_ctx = &bar};
    progress_begin(&bar, &common);
    tms_status status = tms_diff_models(&diff, paths[0], paths[1], &o, &err);
    progress_end(&bar);
    if (status != TMS_OK) return fail_with(status, &err);
    tms_diff_describe(diff, &info);
    code = info.equal ? 0 : 4;
    if (common.json) {
        int printed = print_json(document(diff, &info, paths));
        if (printed) code = printed;
    } else if (!common.quiet) {
        print_keys(diff, &info);
        print_tensors(diff, &info, all || common.verbose);
        print_summary(&info);
    }
    tms_diff_free(diff);
    return code;
}

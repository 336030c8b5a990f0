/* tamis explain: one screen about a type: its block, its formula, who reads it, what it does to real weights. */
#include "cli.h"

#include <string.h>
#include <sys/stat.h>

enum { WIDTH = 98 }; /* columns of a drawing */

static int largest_of(int a, int b)
{
    return a > b ? a : b;
}

static void repeat(const char *text, int n)
{
    for (int i = 0; i < n; i++) fputs(text, stdout);
}

/* Columns of every field: as many per byte as the screen has room for, at least its name and byte count. Returns false
 * if that is not to scale. */
static bool choose_widths(const struct tms_explanation *e, int *widths)
{
    int room = WIDTH - (int)e->n_fields - 1;
    for (int per_byte = 8; per_byte >= 1; per_byte--) {
        int sum = 0;
        bool fits = true;
        for (size_t i = 0; i < e->n_fields; i++) {
            widths[i] = (int)e->fields[i].bytes * per_byte;
            fits &= widths[i] >= (int)strlen(e->fields[i].name) + 2;
            sum += widths[i];
        }
        if (fits && sum <= room) return true;
    }
    /* the largest field gives what the others need */
    int sum = 0;
    size_t largest = 0;
    for (size_t i = 0; i < e->n_fields; i++) {
        widths[i] = largest_of((int)strlen(e->fields[i].name) + 2, (int)(e->fields[i].bytes * 60 / e->block_bytes));
        sum += widths[i];
        if (e->fields[i].bytes > e->fields[largest].bytes) largest = i;
    }
    if (sum < 60) widths[largest] += 60 - sum;
    return false;
}

static void border(const struct tms_explanation *e, const int *widths, const char *left, const char *middle,
                   const char *right)
{
    for (size_t i = 0; i < e->n_fields; i++) {
        fputs(i == 0 ? left : middle, stdout);
        repeat("─", widths[i]);
    }
    puts(right);
}

static void draw(const struct tms_explanation *e)
{
    int widths[8] = {0};
    if (e->n_fields == 0 || e->n_fields > 8) return;
    bool to_scale = choose_widths(e, widths);
    unsigned at = 0;
    for (size_t i = 0; i < e->n_fields; i++) {
        printf("%-*u", widths[i] + 1, at);
        at += e->fields[i].bytes;
    }
    printf("%u byte%s%s\n", at, at == 1 ? "" : "s", to_scale ? "" : ", not to scale");
    border(e, widths, "┌", "┬", "┐");
    for (size_t i = 0; i < e->n_fields; i++) {
        int n = (int)strlen(e->fields[i].name), before = (widths[i] - n) / 2;
        printf("│%*s%s%*s", before, "", e->fields[i].name, widths[i] - n - before, "");
    }
    puts("│");
    border(e, widths, "└", "┴", "┘");
    struct table t;
    table_begin(&t, "lrl");
    for (size_t i = 0; i < e->n_fields; i++) {
        table_cell(&t, "  %s", e->fields[i].name);
        table_cell(&t, "%u", e->fields[i].bytes);
        table_cell(&t, "%s", e->fields[i].holds);
    }
    table_end(&t, stdout);
}

static const char *ability(const struct tms_explanation *e)
{
    if (e->wants_importance) return "reads and writes it, with importance weights only";
    if (e->encodes) return "reads and writes it";
    return e->decodes ? "reads it, no encoder yet" : "recognises it in headers, no decoder and no encoder yet";
}

static void print_type(const struct tms_explanation *e)
{
    if (e->file_type)
        printf("%s is a file type: %s.\nMost of its tensors are %s; `tamis inspect MODEL --to %s` shows which are "
               "not.\n\n",
               e->file_type, e->file_type_says, e->name, e->file_type);
    printf("%s: %s\n\n", e->name, e->what);
    draw(e);
    printf("\n%s\n\n", e->formula);
    if (e->block_elems > 1)
        printf("block    %u weights in %u bytes, %.4g bits per weight\n", e->block_elems, e->block_bytes,
               e->bits_per_weight);
    else
        printf("size     %.4g bits per weight\n", e->bits_per_weight);
    if (e->id >= 0) printf("id       %d in GGUF files\n", e->id);
    printf("read by  %s\ntamis    %s\n", e->readers, ability(e));
}

static void print_errors(const struct tms_explanation *e, const struct tms_explain_errors *r, const char *model,
                         const char *tensor)
{
    struct table t;
    if (!r->has_type && !r->bits) return;
    printf("\nrelative error |decoded - x| / |x| on %s of %s, %s x %s\n", tensor, model, grouped(r->rows),
           grouped(r->cols));
    table_begin(&t, "lrr");
    table_cell(&t, "  as");
    table_cell(&t, "bits/weight");
    table_cell(&t, "error");
    if (r->has_type) {
        table_cell(&t, "  %s%s", e->name, e->wants_importance ? ", all weights equally important" : "");
        table_cell(&t, "%.3f", e->bits_per_weight);
        table_cell(&t, "%.3g %%", 100 * r->type);
    }
    const struct {
        const char *name;
        double values, error;
    } plain[] = {{"the tensor", (double)r->rows * (double)r->cols, r->per_tensor},
                 {"a row", (double)r->cols, r->per_row},
                 {"a group", r->group, r->per_group}};
    for (size_t i = 0; r->bits && i < 3; i++) {
        if (i == 2 && r->group >= r->cols) break; /* a group is a row */
        if (i == 2)
            table_cell(&t, "  integers of %u bits, a scale for a group of %u", r->bits, r->group);
        else
            table_cell(&t, "  integers of %u bits, a scale for %s", r->bits, plain[i].name);
        table_cell(&t, "%.3f", r->bits + (16.0 + r->bits) / plain[i].values);
        table_cell(&t, "%.3g %%", 100 * plain[i].error);
    }
    table_end(&t, stdout);
    if (r->bits)
        puts("integers: q = round(x / scale) + zero point, scale = (max - min) / (2^bits - 1) as f16, a zero point of "
             "as many bits");
    if (!r->has_type && e->encodes)
        printf("%s itself: rows of %s do not fit its blocks of %u\n", e->name, grouped(r->cols), e->block_elems);
}

static json_t *document(const struct tms_explanation *e, const struct tms_explain_errors *r, const char *model,
                        const char *tensor)
{
    json_t *fields = json_array(), *errors = json_null();
    for (size_t i = 0; i < e->n_fields; i++)
        json_array_append_new(fields, json_pack("{s:s, s:I, s:s}", "name", e->fields[i].name, "bytes",
                                                (json_int_t)e->fields[i].bytes, "holds", e->fields[i].holds));
    if (r)
        errors =
            json_pack("{s:s, s:s, s:[I,I], s:o, s:I, s:I, s:f, s:f, s:f}", "model", model, "tensor", tensor, "shape",
                      (json_int_t)r->rows, (json_int_t)r->cols, "type", r->has_type ? json_real(r->type) : json_null(),
                      "bits", (json_int_t)r->bits, "group", (json_int_t)r->group, "per_tensor", r->per_tensor,
                      "per_row", r->per_row, "per_group", r->per_group);
    return json_pack("{s:s, s:s?, s:I, s:s, s:s, s:s, s:I, s:I, s:f, s:o, s:b, s:b, s:b, s:o}", "name", e->name,
                     "file_type", e->file_type, "id", (json_int_t)e->id, "what", e->what, "formula", e->formula,
                     "read_by", e->readers, "block_elements", (json_int_t)e->block_elems, "block_bytes",
                     (json_int_t)e->block_bytes, "bits_per_weight", e->bits_per_weight, "fields", fields, "decodes",
                     e->decodes, "encodes", e->encodes, "wants_importance", e->wants_importance, "errors", errors);
}

int run_explain(const struct command *self, int argc, char **argv)
{
    struct common common;
    const char *type, *model = NULL, *tensor = "model.layers.0.mlp.up_proj.weight";
    struct tms_explanation e;
    struct tms_explain_errors errors;
    struct tms_error err;
    struct stat st;
    const struct option options[] = {
        {"model", 'm', OPTION_TEXT, &model, "MODEL",
         "measure the type on this model (default: models/pebble, if there)"},
        {"tensor", 0, OPTION_TEXT, &tensor, "NAME", "and on this tensor (default: model.layers.0.mlp.up_proj.weight)"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &common, &type, 1);
    if (code >= 0) return code;
    if (!tms_explain(type, &e))
        return wrong_usage(self, "'%s' is no type that tamis knows; `tamis types` lists them", type);
    if (!model && stat("models/pebble/config.json", &st) == 0) model = "models/pebble";
    tms_status status = model ? tms_explain_measure(&errors, type, model, tensor, &err) : TMS_OK;
    if (status != TMS_OK) return fail_with(status, &err);
    if (common.json) return print_json(document(&e, model ? &errors : NULL, model, tensor));
    print_type(&e);
    if (model) print_errors(&e, &errors, model, tensor);
    return 0;
}

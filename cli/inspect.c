/* tamis inspect: every tensor, totals per type, parameters, size; with --to, as it would be after quantizing. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* Tensors of a model or of a preview, behind one shape. */
struct view {
    const struct tms_model *model;
    const struct tms_preview *preview; /* NULL: the model as it is */
    size_t n_tensors;
};

static void tensor_at(const struct view *view, size_t i, struct tms_tensor_info *info)
{
    if (view->preview)
        tms_preview_tensor(view->preview, i, info);
    else
        tms_model_tensor(view->model, i, info);
}

/* Sums over tensors that share a label. */
struct sum {
    char label[48];
    uint64_t n_tensors, n_elems, bytes;
};
struct sums {
    struct sum items[64];
    size_t n;
};

static void add_to(struct sums *sums, const char *label, const struct tms_tensor_info *t)
{
    size_t i = 0;
    while (i < sums->n && strcmp(sums->items[i].label, label) != 0) i++;
    if (i == sums->n) {
        if (sums->n == 63)
            i = 62; /* more kinds than anyone has: the last takes the rest */
        else
            sums->n++;
        snprintf(sums->items[i].label, sizeof sums->items[i].label, "%s", label);
    }
    sums->items[i].n_tensors++;
    sums->items[i].n_elems += t->n_elems;
    sums->items[i].bytes += t->bytes;
}

/* What a tensor of scales is: the part of its name behind the weight's or the module's. */
static const char *scale_label(const char *name)
{
    const char *weight = strstr(name, ".weight.");
    if (weight) return weight + strlen(".weight.");
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static int compare_sums(const void *a, const void *b)
{
    const struct sum *sa = a, *sb = b;
    return sa->n_elems < sb->n_elems ? 1 : sa->n_elems > sb->n_elems ? -1 : strcmp(sa->label, sb->label);
}

static void print_sums(const struct sums *sums, const char *heading)
{
    uint64_t n_elems = 0, n_tensors = 0, bytes = 0;
    struct table table;
    for (size_t i = 0; i < sums->n; i++) {
        n_elems += sums->items[i].n_elems;
        n_tensors += sums->items[i].n_tensors;
        bytes += sums->items[i].bytes;
    }
    table_begin(&table, "lrrrr");
    table_cell(&table, "%s", heading);
    table_cell(&table, "tensors");
    table_cell(&table, "stored elements");
    table_cell(&table, "share");
    table_cell(&table, "bytes");
    for (size_t i = 0; i < sums->n; i++) {
        const struct sum *s = &sums->items[i];
        table_cell(&table, "%s", s->label);
        table_cell(&table, "%s", grouped(s->n_tensors));
        table_cell(&table, "%s", grouped(s->n_elems));
        table_cell(&table, "(%.2f %%)", percent(s->n_elems, n_elems));
        table_cell(&table, "%s", grouped(s->bytes));
    }
    table_cell(&table, "all");
    table_cell(&table, "%s", grouped(n_tensors));
    table_cell(&table, "%s", grouped(n_elems));
    table_cell(&table, "%s", "");
    table_cell(&table, "%s", grouped(bytes));
    table_end(&table, stdout);
}

/* transformers counts a 4-bit or 8-bit model after loading it in float16, unless told otherwise. */
static void print_as_loaded(const struct sums *types)
{
    uint64_t floats = 0, all = 0;
    const char *packed = NULL;
    uint64_t n_packed = 0;
    for (size_t i = 0; i < types->n; i++) {
        const struct sum *s = &types->items[i];
        all += s->n_elems;
        if (strstr(s->label, "float")) floats += s->n_elems;
        if (strcmp(s->label, "uint8") == 0 || strcmp(s->label, "int8") == 0) {
            packed = s->label;
            n_packed = s->n_elems;
        }
    }
    if (!packed) return;
    printf("as transformers counts it, loaded in its default float16: %s stored elements, float16 %s (%.2f %%), %s %s "
           "(%.2f %%)\n",
           grouped(all), grouped(floats), percent(floats, all), packed, grouped(n_packed), percent(n_packed, all));
}

static void print_text(const struct view *view, const struct tms_model_info *model,
                       const struct tms_preview_info *preview, bool show_scales, const struct sums *types,
                       const struct sums *scales)
{
    struct table table;
    bool any_fallback = false;
    printf("%s: %s, %s%s%s\n\n", model->name, model->format,
           *model->architecture ? model->architecture : "no architecture named", preview ? ", as it would be in " : "",
           preview ? preview->type : "");
    table_begin(&table, "lllrr");
    table_cell(&table, "name");
    table_cell(&table, "shape");
    table_cell(&table, "type");
    table_cell(&table, "elements");
    table_cell(&table, "bytes");
    for (size_t i = 0; i < view->n_tensors; i++) {
        struct tms_tensor_info t;
        tensor_at(view, i, &t);
        if (t.is_scale && !show_scales) continue;
        any_fallback |= t.fallback;
        table_cell(&table, "%s", t.name);
        table_cell(&table, "%s", shape_text(&t));
        table_cell(&table, "%s%s", t.type, t.fallback ? " *" : "");
        table_cell(&table, "%s", grouped(t.n_elems));
        table_cell(&table, "%s", grouped(t.bytes));
    }
    table_end(&table, stdout);
    if (any_fallback && preview)
        printf("* %zu tensor%s: rows are no multiple of the block that the rule gave, this type stands in\n",
               preview->n_fallbacks, preview->n_fallbacks == 1 ? "" : "s");
    putchar('\n');
    print_sums(types, "type");
    if (scales->n) {
        putchar('\n');
        print_sums(scales, "scales, not counted above");
    }
    putchar('\n');
    uint64_t n = model->n_parameters, tensor_bytes = preview ? preview->tensor_bytes : model->tensor_bytes;
    uint64_t file_bytes = preview ? preview->file_bytes : model->file_bytes;
    if (preview && scales->n) print_as_loaded(types);
    printf("parameters: %s (%.2fB)\n", grouped(n), (double)n / 1e9);
    printf("all tensors: %s bytes (%s), %.4f bits per weight\n", grouped(tensor_bytes), human_bytes(tensor_bytes),
           n ? 8.0 * (double)tensor_bytes / (double)n : 0);
    if (file_bytes)
        printf("size on disk: %s bytes (%s)%s\n", grouped(file_bytes), human_bytes(file_bytes),
               !preview                       ? ""
               : strstr(preview->type, ":dq") ? " of weight files, at most"
                                              : " of weight files");
}

static json_t *sums_json(const struct sums *sums)
{
    json_t *list = json_array();
    uint64_t all = 0;
    for (size_t i = 0; i < sums->n; i++) all += sums->items[i].n_elems;
    for (size_t i = 0; i < sums->n; i++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:f, s:I}", "type", sums->items[i].label, "tensors",
                                              (json_int_t)sums->items[i].n_tensors, "elements",
                                              (json_int_t)sums->items[i].n_elems, "percent",
                                              percent(sums->items[i].n_elems, all), "bytes",
                                              (json_int_t)sums->items[i].bytes));
    return list;
}

static int print_document(const struct view *view, const struct tms_model_info *model,
                          const struct tms_preview_info *preview, const struct sums *types, const struct sums *scales)
{
    json_t *tensors = json_array();
    for (size_t i = 0; i < view->n_tensors; i++) {
        struct tms_tensor_info t;
        tensor_at(view, i, &t);
        json_t *shape = json_array();
        for (uint32_t d = 0; d < t.n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)t.shape[d]));
        json_array_append_new(tensors, json_pack("{s:s, s:o, s:s, s:I, s:I, s:b, s:b}", "name", t.name, "shape", shape,
                                                 "type", t.type, "elements", (json_int_t)t.n_elems, "bytes",
                                                 (json_int_t)t.bytes, "scales", t.is_scale, "fallback", t.fallback));
    }
    uint64_t bytes = preview ? preview->tensor_bytes : model->tensor_bytes;
    uint64_t file_bytes = preview ? preview->file_bytes : model->file_bytes;
    json_t *document =
        json_pack("{s:s, s:s, s:s, s:s?, s:I, s:I, s:f, s:I, s:o, s:o, s:o}", "name", model->name, "format",
                  model->format, "architecture", model->architecture, "to", preview ? preview->type : NULL,
                  "parameters", (json_int_t)model->n_parameters, "tensor_bytes", (json_int_t)bytes, "bits_per_weight",
                  model->n_parameters ? 8.0 * (double)bytes / (double)model->n_parameters : 0.0, "file_bytes",
                  (json_int_t)file_bytes, "types", sums_json(types), "scales", sums_json(scales), "tensors", tensors);
    return print_json(document);
}

int run_inspect(const struct command *self, int argc, char **argv)
{
    struct common common;
    const char *path, *to = NULL;
    bool all = false;
    struct tms_error err;
    struct tms_model *model = NULL;
    struct tms_preview *preview = NULL;
    struct tms_model_info info;
    struct tms_preview_info preview_info;
    const struct option options[] = {
        {"to", 0, OPTION_TEXT, &to, "TYPE", "the table as it would be after quantizing; weights are not read"},
        {"tensors", 0, OPTION_FLAG, &all, NULL, "list the tensors of scales, too"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &common, &path, 1);
    if (code >= 0) return code;
    tms_status status = tms_model_open(&model, path, &err);
    if (status == TMS_OK && to) status = tms_preview(&preview, model, to, &err);
    if (status != TMS_OK) {
        tms_model_close(model);
        return fail_with(status, &err);
    }
    tms_model_describe(model, &info);
    if (preview) tms_preview_describe(preview, &preview_info);
    struct view view = {model, preview, preview ? preview_info.n_tensors : info.n_tensors};
    struct sums types = {.n = 0}, scales = {.n = 0};
    for (size_t i = 0; i < view.n_tensors; i++) {
        struct tms_tensor_info t;
        tensor_at(&view, i, &t);
        if (t.is_scale)
            add_to(&scales, scale_label(t.name), &t);
        else
            add_to(&types, t.type, &t);
    }
    qsort(types.items, types.n, sizeof *types.items, compare_sums);
    qsort(scales.items, scales.n, sizeof *scales.items, compare_sums);
    code = 0;
    if (common.json)
        code = print_document(&view, &info, preview ? &preview_info : NULL, &types, &scales);
    else
        print_text(&view, &info, preview ? &preview_info : NULL, all || common.verbose, &types, &scales);
    tms_preview_free(preview);
    tms_model_close(model);
    return code;
}

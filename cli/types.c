/* tamis types: what can be written. */
#include "cli.h"

#include <string.h>

static void lower(char *to, size_t size, const char *from)
{
    size_t i = 0;
    for (; from[i] && i + 1 < size; i++) to[i] = from[i] >= 'A' && from[i] <= 'Z' ? (char)(from[i] + 32) : from[i];
    to[i] = '\0';
}

static json_t *print_file_types(bool print)
{
    struct tms_type_info info;
    struct table table;
    json_t *list = json_array();
    table_begin(&table, "lll");
    table_cell(&table, "type");
    table_cell(&table, "written as");
    table_cell(&table, "what it is");
    for (size_t i = 0; tms_type_at(i, &info); i++) {
        char name[32];
        lower(name, sizeof name, info.name);
        table_cell(&table, "%s", name);
        table_cell(&table, "%s", info.container);
        table_cell(&table, "%s", info.explanation);
        json_array_append_new(list, json_pack("{s:s, s:s?, s:s, s:s}", "name", name, "alias", info.alias, "container",
                                              info.container, "explanation", info.explanation));
    }
    if (print)
        table_end(&table, stdout);
    else
        table_drop(&table);
    return list;
}

/* What tensors are stored as; a file type gives each of its tensors one. */
static json_t *print_tensor_types(bool print)
{
    struct tms_explanation e;
    struct table table;
    json_t *list = json_array();
    table_begin(&table, "lrrrrll");
    const char *const headings[] = {"tensor type", "id", "block", "bytes", "bits/weight", "tamis", "read by"};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) table_cell(&table, "%s", headings[i]);
    for (size_t i = 0; tms_explain_at(i, &e); i++) {
        char id[16] = "-";
        if (e.id >= 0) snprintf(id, sizeof id, "%d", e.id);
        table_cell(&table, "%s", e.name);
        table_cell(&table, "%s", id);
        table_cell(&table, "%u", e.block_elems);
        table_cell(&table, "%u", e.block_bytes);
        table_cell(&table, "%.4g", e.bits_per_weight);
        table_cell(&table, "%s", e.encodes ? "reads, writes" : e.decodes ? "reads" : "-");
        table_cell(&table, "%s", e.readers);
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:I, s:I, s:f, s:b, s:b, s:s}", "name", e.name, "id",
                                        (json_int_t)e.id, "block_elements", (json_int_t)e.block_elems, "block_bytes",
                                        (json_int_t)e.block_bytes, "bits_per_weight", e.bits_per_weight, "decodes",
                                        e.decodes, "encodes", e.encodes, "read_by", e.readers));
    }
    if (print)
        table_end(&table, stdout);
    else
        table_drop(&table);
    return list;
}

int run_types(const struct command *self, int argc, char **argv)
{
    struct common common;
    int code = parse_options(self, argc, argv, NULL, 0, &common, NULL, 0);
    if (code >= 0) return code;
    json_t *files = print_file_types(!common.json);
    if (!common.json)
        puts(
            "\nnf4 and fp4 take :b32 … :b4096 for another block size than 64 and :dq for double quantization, in any "
            "order.\ngptq takes :2 :3 :4 :8 bits, gptq, awq and wNa16 :g32 … :g4096 or :channel for another group than "
            "128,\ngptq and wNa16 :asym for zero points, gptq :act for groups in the order of activations, fp8 :tensor "
            "or :block for other scales than those of rows.\n");
    json_t *tensors = print_tensor_types(!common.json);
    json_t *document = json_pack("{s:o, s:o}", "file_types", files, "tensor_types", tensors);
    if (common.json) return print_json(document);
    json_decref(document);
    puts("\n`tamis explain TYPE` shows how a type works and what it does to real weights.");
    return 0;
}

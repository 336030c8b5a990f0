/* tamis types: what can be written. */
#include "cli.h"

#include <string.h>

static void lower(char *to, size_t size, const char *from)
{
    size_t i = 0;
    for (; from[i] && i + 1 < size; i++) to[i] = from[i] >= 'A' && from[i] <= 'Z' ? (char)(from[i] + 32) : from[i];
    to[i] = '\0';
}

int run_types(const struct command *self, int argc, char **argv)
{
    struct common common;
    struct tms_type_info info;
    int code = parse_options(self, argc, argv, NULL, 0, &common, NULL, 0);
    if (code >= 0) return code;
    json_t *list = json_array();
    struct table table;
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
    if (common.json) {
        for (size_t i = 0; i < table.n_cells; i++) table.cells[i][0] = '\0';
        FILE *nowhere = fopen("/dev/null", "w");
        if (nowhere) {
            table_end(&table, nowhere);
            fclose(nowhere);
        }
        return print_json(list);
    }
    json_decref(list);
    table_end(&table, stdout);
    puts("\nnf4 and fp4 take :b32 … :b4096 for another block size than 64 and :dq for double quantization, in any "
         "order.");
    return 0;
}

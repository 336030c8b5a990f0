/* The options of quantize, llama-quantize and verify that tell how a file is made. See cli.h. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

void recipe_option_rows(struct option *rows, struct recipe_options *r, struct tms_quantize_options *o)
{
    const struct option all[N_RECIPE_OPTIONS] = {
        {"imatrix", 0, OPTION_TEXT, &o->imatrix, "FILE", "GGUF: importance weights that llama-imatrix made"},
        {"include-weights", 0, OPTION_LIST, &r->include, "NAME",
         "only importance weights with this in their name; repeatable"},
        {"exclude-weights", 0, OPTION_LIST, &r->exclude, "NAME",
         "no importance weights with this in their name; repeatable"},
        {"tensor-type", 0, OPTION_LIST, &r->tensor_types, "REGEX=TYPE",
         "GGUF: the type of tensors whose name matches; repeatable"},
        {"tensor-type-file", 0, OPTION_TEXT, &r->tensor_types_file, "FILE", "GGUF: the same, from the words of a file"},
        {"output-tensor-type", 0, OPTION_TEXT, &o->output_tensor_type, "TYPE", "GGUF: the type of output.weight"},
        {"token-embedding-type", 0, OPTION_TEXT, &o->token_embedding_type, "TYPE",
         "GGUF: the type of token_embd.weight"},
        {"leave-output-tensor", 0, OPTION_FLAG, &o->leave_output_tensor, NULL, "GGUF: output.weight stays as it is"},
        {"pure", 0, OPTION_FLAG, &o->pure, NULL, "GGUF: the same type for every matrix"},
        {"keep-split", 0, OPTION_FLAG, &o->keep_split, NULL, "GGUF: as many files as the source has"},
        {"override-kv", 0, OPTION_LIST, &r->override_kv, "KEY=TYPE:VALUE",
         "GGUF: set a key (int, float, bool, str); repeatable"},
        {"prune-layers", 0, OPTION_TEXT, &o->prune_layers, "L,L,...", "GGUF: leave these layers out"},
    };
    memcpy(rows, all, sizeof all);
}

int finish_recipe_options(const struct command *command, struct recipe_options *r, struct tms_quantize_options *o)
{
    if (r->include.n && r->exclude.n)
        return wrong_usage(command, "--include-weights and --exclude-weights exclude each other");
    if (r->tensor_types_file) {
        FILE *f = fopen(r->tensor_types_file, "r");
        size_t cap = 0, size = f ? 1 << 20 : 0;
        r->file_text = f ? calloc(size + 1, 1) : NULL;
        if (r->file_text) cap = fread(r->file_text, 1, size, f);
        if (f) fclose(f);
        if (!r->file_text || cap == size) {
            fprintf(stderr, "tamis: %s: cannot be read as a list of tensor types\n", r->tensor_types_file);
            return f ? 2 : 3;
        }
        for (char *word = strtok(r->file_text, " \t\r\n"); word; word = strtok(NULL, " \t\r\n")) {
            if (r->tensor_types.n == sizeof r->tensor_types.items / sizeof *r->tensor_types.items)
                return wrong_usage(command, "--tensor-type-file: more than 256 types");
            r->tensor_types.items[r->tensor_types.n++] = word;
        }
    }
    o->rules_of_2025 = r->compat && strcmp(r->compat, "2025") == 0;
    if (r->compat && !o->rules_of_2025 && strcmp(r->compat, "2026") != 0)
        return wrong_usage(command, "--compat '%s': expected 2025 or 2026", r->compat);
    o->include_weights = r->include.items;
    o->n_include_weights = r->include.n;
    o->exclude_weights = r->exclude.items;
    o->n_exclude_weights = r->exclude.n;
    o->tensor_types = r->tensor_types.items;
    o->n_tensor_types = r->tensor_types.n;
    o->override_kv = r->override_kv.items;
    o->n_override_kv = r->override_kv.n;
    return -1;
}

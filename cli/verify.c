/* tamis verify: does this file come from that source? The options are those that quantize and convert had. */
#include "cli.h"

#include <stdlib.h>

static json_t *document(const char *file, const char *source, const struct tms_verify_result *r, json_t *lines)
{
    json_t *first = r->n_differing ? json_pack("{s:s, s:I, s:I}", "tensor", r->tensor, "row", (json_int_t)r->row,
                                               "block", (json_int_t)r->block)
                                   : json_null();
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:o, s:o}", "file", file, "source", source, "type",
                     r->type, "verified", r->n_findings == 0, "identical", r->identical, "bytes", (json_int_t)r->bytes,
                     "tensors", (json_int_t)r->n_tensors, "tensors_differing", (json_int_t)r->n_differing,
                     "tensors_of_other_types", (json_int_t)r->n_other_types, "first_difference", first, "findings",
                     lines);
}

static void print_summary(const char *file, const char *source, const struct tms_verify_result *r)
{
    if (r->n_findings)
        printf("%s: is not what tamis makes of %s as %s: %zu difference%s, in %zu of %zu tensors\n", file, source,
               r->type, r->n_findings, r->n_findings == 1 ? "" : "s", r->n_differing, r->n_tensors);
    else
        printf("%s: verified: %s of %s, %zu tensors, %s rebuilt and compared; %s\n", file, r->type, source,
               r->n_tensors, human_bytes(r->bytes),
               r->identical ? "the file is the same in every byte"
                            : "all keys and tensors are the same, laid out in another way");
    if (r->n_other_types)
        printf("%zu tensors have other types than %s's rules give; they were rebuilt in the types they have\n",
               r->n_other_types, r->type);
}

int run_verify(const struct command *self, int argc, char **argv)
{
    struct common common;
    const char *file, *source = NULL, *to = NULL;
    struct tms_error err;
    struct progress_bar bar;
    struct tms_verify_options o = {.recipe = {.n_types = 0}};
    struct tms_verify_result result;
    struct recipe_options recipe = {.compat = NULL};
    struct option options[9 + N_RECIPE_OPTIONS] = {
        {"source", 's', OPTION_TEXT, &source, "MODEL", "the model that it was made from"},
        {"to", 0, OPTION_TEXT, &to, "TYPE", "the type it should be (default: what it says itself)"},
        {"model-name", 0, OPTION_TEXT, &o.recipe.model_name, "NAME",
         "the general.name it should have (default: the one it has)"},
        {"pre", 0, OPTION_TEXT, &o.recipe.pre, "NAME", "name of the pre-tokenizer (default: recognised)"},
        {"compat", 0, OPTION_TEXT, &recipe.compat, "YEAR",
         "GGUF: rules of types as llama.cpp had them in 2025 (February) or 2026"},
        {"split-max-size", 0, OPTION_SIZE, &o.recipe.split_max_bytes, "SIZE",
         "GGUF: how it should be split (default: as it is)"},
        {"split-max-tensors", 0, OPTION_COUNT, &o.recipe.split_max_tensors, "N",
         "GGUF: how it should be split (default: as it is)"},
        {"max-shard-size", 0, OPTION_SIZE, &o.recipe.max_shard_bytes, "SIZE",
         "folders: how it should be split (default: as it is)"},
        {"vocab-only", 0, OPTION_FLAG, &o.recipe.vocab_only, NULL, "GGUF: it should have no weights"},
    };
    recipe_option_rows(options + 9, &recipe, &o.recipe);
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &common, &file, 1);
    if (code >= 0) return code;
    if (!source) return wrong_usage(self, "--source is missing: from which model was it made?");
    code = finish_recipe_options(self, &recipe, &o.recipe);
    if (code >= 0) {
        free(recipe.file_text);
        return code;
    }
    struct findings findings = {.json = common.json, .lines = json_array(), .bar = &bar};
    o.recipe.types = &to;
    o.recipe.n_types = to != NULL;
    o.recipe.n_threads = (unsigned)common.threads;
    o.recipe.progress = progress_show;
    o.recipe.progress_ctx = &bar;
    o.finding = show_finding;
    o.finding_ctx = &findings;
    progress_begin(&bar, &common);
    tms_status status = tms_verify(file, source, &o, &result, &err);
    progress_end(&bar);
    free(recipe.file_text);
    if (status != TMS_OK) {
        json_decref(findings.lines);
        return fail_with(status, &err);
    }
    code = result.n_findings ? 4 : 0;
    if (common.json) {
        int printed = print_json(document(file, source, &result, findings.lines));
        return printed ? printed : code;
    }
    json_decref(findings.lines);
    if (!common.quiet) print_summary(file, source, &result);
    return code;
}

/* tamis quantize and tamis convert: write a model, then one table that says what came out. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct job {
    const struct command *command;
    struct common common;
    const char *model, *out;
    struct tms_quantize_options options;
    bool convert;
};

static json_t *result_json(const struct tms_result *r)
{
    json_t *json = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:b}", "type", r->type, "path", r->path, "files",
        (json_int_t)r->n_files, "file_bytes", (json_int_t)r->file_bytes, "tensor_bytes", (json_int_t)r->tensor_bytes,
        "bits_per_weight", r->n_parameters ? 8.0 * (double)r->tensor_bytes / (double)r->n_parameters : 0.0, "rms_error",
        r->rms_error, "rms_weight", r->rms_weight, "thread_seconds", r->thread_seconds, "tensors_quantized",
        (json_int_t)r->n_quantized, "tensors_kept", (json_int_t)r->n_kept, "tensors_fallback",
        (json_int_t)r->n_fallbacks, "verified", r->verified);
    if (r->n_seen + r->n_unseen)
        json_object_set_new(json, "calibrated",
                            json_pack("{s:I, s:I, s:I, s:f}", "matrices", (json_int_t)r->n_seen,
                                      "matrices_too_rarely_seen", (json_int_t)r->n_unseen, "damping_raised",
                                      (json_int_t)r->n_raised, "largest_damping", r->most_damp));
    return json;
}

static void print_table(const struct job *job, const struct tms_result *results, double seconds, uint64_t source_bytes)
{
    struct table t;
    uint64_t total = 0;
    size_t n = job->options.n_types;
    bool dry = job->options.dry_run;
    const char *const headings[] = {"type",     "written to", "size", "bits/weight", "rms error",
                                    "relative", "seconds",    "MB/s", "peak memory"};
    table_begin(&t, "llrrrrrrr");
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) table_cell(&t, "%s", headings[i]);
    for (size_t i = 0; i < n; i++) {
        const struct tms_result *r = &results[i];
        total += r->file_bytes;
        table_cell(&t, "%s", r->type);
        table_cell(&t, "%s%s", r->path, r->n_files > 1 ? " …" : "");
        table_cell(&t, "%s", human_bytes(r->file_bytes));
        table_cell(&t, "%.3f", r->n_parameters ? 8.0 * (double)r->tensor_bytes / (double)r->n_parameters : 0.0);
        if (dry) {
            for (int k = 0; k < 5; k++) table_cell(&t, "-");
            continue;
        }
        table_cell(&t, "%.3e", r->rms_error);
        table_cell(&t, "%.2f %%", r->rms_weight > 0 ? 100 * r->rms_error / r->rms_weight : 0);
        table_cell(&t, "%.2f", r->thread_seconds);
        table_cell(&t, "%.0f", r->thread_seconds > 0 ? (double)source_bytes / 1e6 / r->thread_seconds : 0);
        table_cell(&t, "%s", "");
    }
    if (!dry) {
        table_cell(&t, "all");
        table_cell(&t, "from one read of %s", human_bytes(source_bytes));
        table_cell(&t, "%s", human_bytes(total));
        for (int k = 0; k < 3; k++) table_cell(&t, "%s", "");
        table_cell(&t, "%.2f", seconds);
        table_cell(&t, "%.0f", seconds > 0 ? (double)source_bytes / 1e6 / seconds : 0);
        table_cell(&t, "%s", human_bytes(peak_memory()));
    }
    table_end(&t, stdout);
    if (!dry) puts("seconds of a type: work on it, summed over threads; of all: by the clock, reading back included");
    bool nested = false;
    for (size_t i = 0; i < n; i++) nested |= strstr(results[i].type, ":dq") != NULL;
    if (nested && !dry)
        puts("rms error of :dq is told before the scales are quantized, too; `tamis diff` shows the whole");
    for (size_t i = 0; i < n; i++) {
        const struct tms_result *r = &results[i];
        if (r->n_fallbacks)
            printf("%s: %zu of %zu tensors have rows that do not fit the type's block; the next larger type stands in "
                   "(`tamis inspect --to` shows which)\n",
                   r->type, r->n_fallbacks, r->n_tensors);
    }
    if (!dry && !job->options.no_verify) puts("every output was read back: headers valid, all bytes as encoded");
    if (dry) puts("dry run: nothing was written");
}

static int write_out(struct job *job)
{
    struct tms_result *results = NULL;
    struct tms_error err;
    struct progress_bar bar;
    double seconds = 0;
    uint64_t source_bytes = 0;
    job->options.n_threads = (unsigned)job->common.threads;
    job->options.warning = show_warning;
    job->options.warning_ctx = &job->common;
    job->options.progress = progress_show;
    job->options.progress_ctx = &bar;
    progress_begin(&bar, &job->common);
    tms_status status = (job->convert ? tms_convert : tms_quantize)(job->model, job->out, &job->options, &results,
                                                                    &seconds, &source_bytes, &err);
    progress_end(&bar);
    if (status != TMS_OK) return fail_with(status, &err);
    int code = 0;
    if (job->common.json) {
        json_t *list = json_array();
        for (size_t i = 0; i < job->options.n_types; i++) json_array_append_new(list, result_json(&results[i]));
        code = print_json(json_pack("{s:s, s:b, s:f, s:I, s:I, s:o}", "model", job->model, "dry_run",
                                    job->options.dry_run, "seconds", seconds, "source_bytes", (json_int_t)source_bytes,
                                    "peak_memory_bytes", (json_int_t)peak_memory(), "outputs", list));
    } else if (!job->common.quiet) {
        print_table(job, results, seconds, source_bytes);
    }
    tms_results_free(results, job->options.n_types);
    return code;
}

/* "a,b,c" to a list; `copy` is cut into pieces and owns them. */
static size_t split_types(char *copy, const char **types, size_t max)
{
    size_t n = 0;
    for (char *part = strtok(copy, ","); part; part = strtok(NULL, ",")) {
        if (n == max) return 0;
        types[n++] = part;
    }
    return n;
}

int run_quantize(const struct command *self, int argc, char **argv)
{
    struct job job = {.command = self};
    struct tms_quantize_options *o = &job.options;
    struct recipe_options recipe = {.tensor_types_file = NULL};
    const char *to = NULL, *types[64];
    struct option options[21 + N_RECIPE_OPTIONS] = {
        {"to", 0, OPTION_TEXT, &to, "TYPE[,TYPE...]", "what to write; `tamis types` lists them"},
        {"output", 'o', OPTION_TEXT, &job.out, "OUT", "file or folder to write; with several types a folder for all"},
        {"dry-run", 0, OPTION_FLAG, &o->dry_run, NULL, "say how large it would be, write nothing"},
        {"force", 0, OPTION_FLAG, &o->force, NULL, "replace a folder that exists"},
        {"no-verify", 0, OPTION_FLAG, &o->no_verify, NULL, "do not read the outputs back"},
        {"provenance", 0, OPTION_FLAG, &o->provenance, NULL,
         "GGUF: tell version, recipe and the source's hash in keys tamis.*"},
        {"manifest", 0, OPTION_TEXT, &o->manifest, "FILE.json", "write sources, recipe and outputs with hashes"},
        {"compat", 0, OPTION_TEXT, &recipe.compat, "YEAR",
         "GGUF: rules of types as llama.cpp had them in 2025 (February) or 2026"},
        {"allow-requantize", 0, OPTION_FLAG, &o->allow_requantize, NULL,
         "also change tensors that are quantized already (loses more)"},
        {"method", 0, OPTION_TEXT, &o->method, "NAME",
         "how codes are found: rtn (default), search (by --imatrix); over --data gptq (error feedback), awq, "
         "smooth (scales of inputs), awq+gptq, smooth+gptq; hqq (zero points, needs no text)"},
        {"data", 0, OPTION_TEXT, &o->data, "TEXT",
         "the text of such a method, or FILE.jsonl with one {\"text\": …} or {\"messages\": […]} a line"},
        {"stats", 0, OPTION_TEXT, &o->stats, "STATS",
         "instead of a text: the Hessians of `tamis calibrate --keep-hessian`, for all types"},
        {"sequential", 0, OPTION_FLAG, &o->sequential, NULL,
         "with --data: matrices see what the codes before them make (a walk for each type)"},
        {"damp", 0, OPTION_REAL, &o->damp, "SHARE",
         "gptq: how much each entry of a Hessian's diagonal is raised (default: 0.3, below 4 bits 1)"},
        {"samples", 0, OPTION_COUNT, &o->n_samples, "N",
         "with --data: at most so many sequences of the text (default: all)"},
        {"seqlen", 0, OPTION_COUNT, &o->sample_length, "N", "with --data: tokens of a sequence (default: 512)"},
        {"template", 0, OPTION_TEXT, &o->template_name, "NAME",
         "with --data: write messages in FILE.jsonl like this (default: as the model's own chat template)"},
        {"ram", 0, OPTION_SIZE, &o->ram, "SIZE", "with --data or --stats: most memory to use (8G, 300M)"},
        {"max-shard-size", 0, OPTION_SIZE, &o->max_shard_bytes, "SIZE",
         "folders: bytes per safetensors file (default 50G)"},
        {"model-name", 0, OPTION_TEXT, &o->model_name, "NAME", "GGUF: general.name (default: from the folder's name)"},
        {"pre", 0, OPTION_TEXT, &o->pre, "NAME", "GGUF: name of the pre-tokenizer (default: recognised)"},
        {"split-max-size", 0, OPTION_SIZE, &o->split_max_bytes, "SIZE",
         "GGUF: split into files of at most so many bytes (2G, 500M)"},
        {"split-max-tensors", 0, OPTION_COUNT, &o->split_max_tensors, "N",
         "GGUF: split into files of at most so many tensors"},
    };
    recipe_option_rows(options + 21, &recipe, o);
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &job.common, &job.model, 1);
    if (code >= 0) return code;
    if (!to) return wrong_usage(self, "--to is missing: which type?");
    if (!job.out) return wrong_usage(self, "-o is missing: where to write?");
    code = finish_recipe_options(self, &recipe, o);
    char *copy = strdup(to);
    if (!copy) code = 3;
    if (code < 0) {
        o->types = types;
        o->n_types = split_types(copy, types, sizeof types / sizeof *types);
        code = o->n_types ? write_out(&job) : wrong_usage(self, "--to '%s': no list of types", to);
    }
    free(copy);
    free(recipe.file_text);
    return code;
}

static bool is_gguf_type(const char *name)
{
    struct tms_type_info info;
    char *end;
    (void)strtoul(name, &end, 10);
    if (*name && !*end) return true; /* a number; the library knows which ones there are */
    for (size_t i = 0; tms_type_at(i, &info); i++)
        if (strcmp(info.container, "GGUF") == 0 &&
            (strcasecmp(info.name, name) == 0 || (info.alias && strcasecmp(info.alias, name) == 0)))
            return true;
    return false;
}

/* "DIR/ggml-model-TYPE.gguf" beside the input, as llama-quantize names it. To be freed. */
static char *default_output(const char *model, const char *type)
{
    const char *slash = strrchr(model, '/');
    char *path = NULL;
    int n = slash ? (int)(slash + 1 - model) : 0;
    return asprintf(&path, "%.*sggml-model-%s.gguf", n, model, type) < 0 ? NULL : path;
}

/* llama-quantize's own order: [options] IN [OUT] TYPE [THREADS]. */
int run_llama_quantize(const struct command *self, int argc, char **argv)
{
    struct job job = {.command = self};
    struct tms_quantize_options *o = &job.options;
    struct recipe_options recipe = {.tensor_types_file = NULL};
    const char *words[4] = {NULL}, *type, *threads;
    uint64_t buffer = 0;
    struct option options[3 + N_RECIPE_OPTIONS] = {
        {"dry-run", 0, OPTION_FLAG, &o->dry_run, NULL, "say how large it would be, write nothing"},
        {"allow-requantize", 0, OPTION_FLAG, &o->allow_requantize, NULL,
         "also change tensors that are quantized already (loses more)"},
        {"max-buffer-size", 0, OPTION_COUNT, &buffer, "MiB", "accepted, has no meaning here: memory is small anyway"},
    };
    recipe_option_rows(options + 3, &recipe, o);
    int code =
        parse_options_between(self, argc, argv, options, sizeof options / sizeof *options, &job.common, words, 2, 4);
    if (code >= 0) return code;
    bool named = !is_gguf_type(words[1]); /* IN OUT TYPE */
    type = named ? words[2] : words[1];
    threads = named ? words[3] : words[2];
    if (!type) return wrong_usage(self, "the type is missing");
    if (!named && words[3]) return wrong_usage(self, "'%s' is one argument too many", words[3]);
    char *out = named ? strdup(words[1]) : default_output(words[0], type);
    code = out ? finish_recipe_options(self, &recipe, o) : 3;
    if (code < 0 && threads) {
        char *end;
        job.common.threads = strtoul(threads, &end, 10);
        if (*end || job.common.threads > 1024) code = wrong_usage(self, "'%s' is no number of threads", threads);
    }
    if (code < 0) {
        job.model = words[0];
        job.out = out;
        o->types = &type;
        o->n_types = 1;
        code = write_out(&job);
    }
    free(out);
    free(recipe.file_text);
    return code;
}

int run_convert(const struct command *self, int argc, char **argv)
{
    struct job job = {.command = self, .convert = true};
    struct tms_quantize_options *o = &job.options;
    const char *type = "auto";
    const struct option options[] = {
        {"output", 'o', OPTION_TEXT, &job.out, "OUT.gguf", "file to write"},
        {"outtype", 0, OPTION_TEXT, &type, "TYPE",
         "f32, f16, bf16, q8_0 or auto (bf16 or f16, as the source; default)"},
        {"split-max-size", 0, OPTION_SIZE, &o->split_max_bytes, "SIZE",
         "split into files of at most so many bytes (2G, 500M)"},
        {"split-max-tensors", 0, OPTION_COUNT, &o->split_max_tensors, "N",
         "split into files of at most so many tensors"},
        {"vocab-only", 0, OPTION_FLAG, &o->vocab_only, NULL, "key-values and tokenizer, no weights"},
        {"dry-run", 0, OPTION_FLAG, &o->dry_run, NULL, "say how large it would be, write nothing"},
        {"model-name", 0, OPTION_TEXT, &o->model_name, "NAME", "general.name (default: from the folder's name)"},
        {"pre", 0, OPTION_TEXT, &o->pre, "NAME", "name of the pre-tokenizer (default: recognised)"},
        {"no-verify", 0, OPTION_FLAG, &o->no_verify, NULL, "do not read the output back"},
        {"provenance", 0, OPTION_FLAG, &o->provenance, NULL,
         "tell version, recipe and the source's hash in keys tamis.*"},
        {"manifest", 0, OPTION_TEXT, &o->manifest, "FILE.json", "write source, recipe and output with hashes"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &job.common, &job.model, 1);
    if (code >= 0) return code;
    if (!job.out) return wrong_usage(self, "-o is missing: where to write?");
    o->types = &type;
    o->n_types = 1;
    return write_out(&job);
}

/* tamis quantize and tamis convert: write a model, then one table that says what came out. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

struct job {
    const struct command *command;
    struct common common;
    const char *model, *out;
    struct tms_quantize_options options;
    bool convert;
};

static json_t *result_json(const struct tms_result *r)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:b}", "type", r->type, "path",
                     r->path, "files", (json_int_t)r->n_files, "file_bytes", (json_int_t)r->file_bytes, "tensor_bytes",
                     (json_int_t)r->tensor_bytes, "bits_per_weight",
                     r->n_parameters ? 8.0 * (double)r->tensor_bytes / (double)r->n_parameters : 0.0, "rms_error",
                     r->rms_error, "rms_weight", r->rms_weight, "thread_seconds", r->thread_seconds,
                     "tensors_quantized", (json_int_t)r->n_quantized, "tensors_kept", (json_int_t)r->n_kept,
                     "tensors_fallback", (json_int_t)r->n_fallbacks, "verified", r->verified);
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
    const char *to = NULL, *types[64];
    const struct option options[] = {
        {"to", 0, OPTION_TEXT, &to, "TYPE[,TYPE...]", "what to write; `tamis types` lists them"},
        {"output", 'o', OPTION_TEXT, &job.out, "OUT", "file or folder to write; with several types a folder for all"},
        {"pure", 0, OPTION_FLAG, &o->pure, NULL, "GGUF: the same type for every matrix"},
        {"allow-requantize", 0, OPTION_FLAG, &o->allow_requantize, NULL,
         "GGUF: also change tensors that are quantized already (loses more)"},
        {"dry-run", 0, OPTION_FLAG, &o->dry_run, NULL, "say how large it would be, write nothing"},
        {"force", 0, OPTION_FLAG, &o->force, NULL, "replace a folder that exists"},
        {"no-verify", 0, OPTION_FLAG, &o->no_verify, NULL, "do not read the outputs back"},
        {"model-name", 0, OPTION_TEXT, &o->model_name, "NAME", "GGUF: general.name (default: from the folder's name)"},
        {"pre", 0, OPTION_TEXT, &o->pre, "NAME", "GGUF: name of the pre-tokenizer (default: recognised)"},
        {"split-max-size", 0, OPTION_SIZE, &o->split_max_bytes, "SIZE",
         "GGUF: split into files of at most so many bytes (2G, 500M)"},
        {"split-max-tensors", 0, OPTION_COUNT, &o->split_max_tensors, "N",
         "GGUF: split into files of at most so many tensors"},
        {"max-shard-size", 0, OPTION_SIZE, &o->max_shard_bytes, "SIZE",
         "folders: bytes per safetensors file (default 50G)"},
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &job.common, &job.model, 1);
    if (code >= 0) return code;
    if (!to) return wrong_usage(self, "--to is missing: which type?");
    if (!job.out) return wrong_usage(self, "-o is missing: where to write?");
    char *copy = strdup(to);
    if (!copy) return 3;
    o->types = types;
    o->n_types = split_types(copy, types, sizeof types / sizeof *types);
    code = o->n_types ? write_out(&job) : wrong_usage(self, "--to '%s': no list of types", to);
    free(copy);
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
    };
    int code = parse_options(self, argc, argv, options, sizeof options / sizeof *options, &job.common, &job.model, 1);
    if (code >= 0) return code;
    if (!job.out) return wrong_usage(self, "-o is missing: where to write?");
    o->types = &type;
    o->n_types = 1;
    return write_out(&job);
}

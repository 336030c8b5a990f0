/* What the subcommands share: options, tables, numbers with separators, progress. The command line uses the
 * library through <tamis/…> only. */
#ifndef TAMIS_CLI_H
#define TAMIS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>
#include <tamis/tamis.h>

struct command {
    const char *name;
    const char *arguments; /* "MODEL --to TYPE[,TYPE…] -o OUT" */
    const char *summary;   /* one line for `tamis --help` */
    const char *example;   /* a line that works */
    int (*run)(const struct command *self, int argc, char **argv);
};

/* The subcommands; each is defined in the file of its name. */
int run_inspect(const struct command *self, int argc, char **argv);
int run_check(const struct command *self, int argc, char **argv);
int run_convert(const struct command *self, int argc, char **argv);
int run_quantize(const struct command *self, int argc, char **argv);
int run_llama_quantize(const struct command *self, int argc, char **argv);
int run_diff(const struct command *self, int argc, char **argv);
int run_verify(const struct command *self, int argc, char **argv);
int run_explain(const struct command *self, int argc, char **argv);
int run_run(const struct command *self, int argc, char **argv);
int run_tokenize(const struct command *self, int argc, char **argv);
int run_types(const struct command *self, int argc, char **argv);
int run_calibrate(const struct command *self, int argc, char **argv);
int run_eval(const struct command *self, int argc, char **argv);
int run_chat(const struct command *self, int argc, char **argv);
int run_bench(const struct command *self, int argc, char **argv);

/* ---- options ---- */

enum option_kind {
    OPTION_FLAG,  /* bool * */
    OPTION_TEXT,  /* const char ** */
    OPTION_ANY,   /* const char **: a text that may be empty */
    OPTION_COUNT, /* uint64_t *: a whole number */
    OPTION_LIMIT, /* uint64_t *: a whole number, or -1: UINT64_MAX */
    OPTION_REAL,  /* double * */
    OPTION_SIZE,  /* uint64_t *: a number of bytes, 2G or 500M (powers of 1000) */
    OPTION_LIST,  /* struct texts *: may be given several times */
    OPTION_MAYBE, /* struct number *: a number behind '=', or nothing */
};

struct number {
    bool given;
    double value; /* stays what it was if there is no number */
};

struct texts {
    size_t n;
    const char *items[256]; /* borrowed */
};

struct option {
    const char *name; /* without the dashes */
    char letter;      /* or 0 */
    enum option_kind kind;
    void *to;
    const char *value; /* what it takes, for the help: "FILE" */
    const char *help;
};

/* Every subcommand has these. */
struct common {
    bool json, quiet, verbose;
    uint64_t threads;
};

/* Fills options, `common` and the positional arguments (exactly n of them). An option of the command's own stands in
 * for a common one of the same name. Returns -1 to go on, or an exit code
 * (--help printed: 0; wrong usage: 1, told on standard error). */
int parse_options(const struct command *command, int argc, char **argv, const struct option *options, size_t n_options,
                  struct common *common, const char **positional, size_t n_positional);

/* The same with at least `least` and at most `most` positional arguments; the others stay NULL. */
int parse_options_between(const struct command *command, int argc, char **argv, const struct option *options,
                          size_t n_options, struct common *common, const char **positional, size_t least, size_t most);

/* What quantize, llama-quantize and verify share: the options that tell how a file is made, most of them
 * llama-quantize's. Zero-initialize. */
struct recipe_options {
    struct texts include, exclude, tensor_types, override_kv;
    const char *tensor_types_file, *compat;
    char *file_text; /* the words of that file; free with free */
};
enum { N_RECIPE_OPTIONS = 12 };
/* Fills `rows` with them. */
void recipe_option_rows(struct option *rows, struct recipe_options *r, struct tms_quantize_options *o);
/* After parsing: adds the words of --tensor-type-file and hands everything over. -1 to go on, or an exit code. */
int finish_recipe_options(const struct command *command, struct recipe_options *r, struct tms_quantize_options *o);

/* Rows of options that run and chat share. o: struct tms_sampling *; struct tms_session_options *. */
#define SAMPLING_ROWS(o)                                                                                                \
    {"temp", 0, OPTION_REAL, &(o)->temperature, "X", "temperature (default 0.8); 0: always the most probable token"},   \
        {"top-k", 0, OPTION_COUNT, &(o)->top_k, "K", "choose among the K most probable (default 40); 0: all"},          \
        {"top-p", 0, OPTION_REAL, &(o)->top_p, "P", "among the fewest that have probability P (default 0.95); 1: all"}, \
        {"min-p", 0, OPTION_REAL, &(o)->min_p, "P", "with at least P times the best one's (default 0.05); 0: all"},     \
        {"repeat-penalty",     0,   OPTION_REAL,                                                                        \
         &(o)->repeat_penalty, "X", "against tokens that came lately (default 1: off)"},                                \
    {                                                                                                                   \
        "repeat-last-n", 0, OPTION_LIMIT, &(o)->repeat_last_n, "N", "which are the last N (default 64); -1: all"        \
    }
#define CACHE_ROWS(o)                                                                                                  \
    {"kv",     0,      OPTION_TEXT,                                                                                    \
     &(o)->kv, "TYPE", "cache of keys and values: f32 (default), f16, bf16, q8_0, q5_0, q4_0, c8"},                    \
        {"kv-keep-first",     0,   OPTION_COUNT,                                                                       \
         &(o)->kv_keep_first, "N", "quantized caches: the first N tokens stay at 16 bits"},                            \
    {                                                                                                                  \
        "kv-keep-last", 0, OPTION_COUNT, &(o)->kv_keep_last, "N", "… and the newest N"                               \
    }
/* UINT64_MAX: one by chance, that is easily typed again. */
uint64_t seed_or_chance(uint64_t seed);

/* "tamis: MESSAGE" on standard error; returns the exit code for the status. */
int fail_with(tms_status status, const struct tms_error *err);
/* "tamis COMMAND: MESSAGE (see …)"; returns 1. */
int wrong_usage(const struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- what people look at ---- */

/* 1,234,567; rotating buffers. */
const char *grouped(uint64_t n);
/* "11.6 MB", powers of 1000; rotating buffers. */
const char *human_bytes(uint64_t n);
/* "(4096, 1)"; rotating buffers. */
const char *shape_text(const struct tms_tensor_info *tensor);

/* A table whose columns are as wide as their widest cell. */
struct table {
    size_t n_columns, n_cells, cap;
    char **cells;   /* row after row; the first row is the heading */
    bool right[16]; /* aligned to the right */
    bool failed;
};
/* `alignment`: a letter for each column, 'l' or 'r'. */
void table_begin(struct table *table, const char *alignment);
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints and frees. */
void table_end(struct table *table, FILE *to);
/* The same as a table of Markdown. */
void table_end_markdown(struct table *table, FILE *to);
/* Frees without printing. */
void table_drop(struct table *table);

/* A bar with rate and time left on standard error, only if that is a terminal and not quiet. */
struct progress_bar {
    bool shown;
    double start;
    const char *what;
};
void progress_begin(struct progress_bar *bar, const struct common *common);
void progress_show(void *bar, const struct tms_progress *progress);
/* Clears the line. */
void progress_end(struct progress_bar *bar);

/* Findings of a check: lines on standard output, or, for --json, gathered. ctx: struct findings. */
struct findings {
    bool json;
    json_t *lines;
    struct progress_bar *bar; /* cleared before a line is printed */
};
void show_finding(void *findings, const char *line);

/* Warnings: "tamis: warning: …" on standard error. ctx: struct common. */
void show_warning(void *common, const char *line);

/* Most memory this process had, in bytes. */
uint64_t peak_memory(void);
/* Prints and frees one JSON document. */
int print_json(json_t *document);

#endif

/* tamis: the table of subcommands and what is common to all of them. */
#include "cli.h"

#include <signal.h>
#include <string.h>

static const struct command commands[] = {
    {"inspect", "MODEL [--to TYPE]", "show every tensor, totals per type, parameters, size",
     "tamis inspect models/pebble --to q4_k_m", run_inspect},
    {"check", "MODEL", "find what is broken before hours of work", "tamis check models/pebble", run_check},
    {"convert", "DIR -o OUT.gguf [--outtype TYPE]", "Hugging Face folder to GGUF, as llama.cpp reads it",
     "tamis convert models/pebble -o pebble-bf16.gguf --outtype auto", run_convert},
    {"quantize", "MODEL --to TYPE[,TYPE...] -o OUT", "write a model quantized, in one or many types from one read",
     "tamis quantize models/pebble --to q8_0,q4_k_m,nf4:dq -o out", run_quantize},
    {"llama-quantize", "[OPTIONS] IN.gguf [OUT.gguf] TYPE [THREADS]", "quantize with llama-quantize's own arguments",
     "tamis llama-quantize pebble-f16.gguf pebble-q4_k_m.gguf q4_k_m 2", run_llama_quantize},
    {"calibrate", "MODEL --data TEXT -o STATS", "read a text with a model and keep what quantizing it well needs",
     "tamis calibrate models/pebble --data models/pebble/calib.txt -o pebble.stats", run_calibrate},
    {"eval", "MODEL --data TEXT [--base MODEL]", "measure perplexity, and what quantizing lost against a base",
     "tamis eval out/pebble-q4_k_m.gguf --data models/pebble/eval.txt --base models/pebble", run_eval},
    {"diff", "A B", "compare two models of any formats: keys, types, values",
     "tamis diff models/pebble out/pebble-q4_k_m.gguf", run_diff},
    {"verify", "FILE --source MODEL", "rebuild a quantized file from its source and compare, writing nothing",
     "tamis verify out/pebble-q4_k_m.gguf --source models/pebble", run_verify},
    {"explain", "TYPE [--model MODEL] [--tensor NAME]", "show how a type works and what it does to real weights",
     "tamis explain q4_k", run_explain},
    {"run", "MODEL -p TEXT [-n N] | --ids IDS --logits OUT", "continue a text, or write the logits of token ids",
     "tamis run models/pebble -p 'The emperor' -n 48 --temp 0", run_run},
    {"chat", "MODEL [--system TEXT] [--template NAME]", "talk with a model, in a terminal or through a pipe",
     "tamis chat qwen-q4_k_m.gguf", run_chat},
    {"bench", "MODEL [-p N] [-n N] [-d DEPTH]", "measure tokens per second, beside what the machine does at most",
     "tamis bench models/pebble -p 256 -n 64 -r 3", run_bench},
    {"tokenize", "MODEL [--special] [--jsonl]", "show how a model reads a text: pieces and token ids",
     "echo 'Hello, world!' | tamis tokenize models/pebble", run_tokenize},
    {"types", "", "list the types of files and of tensors", "tamis types", run_types},
};

static void stop(int signal_number)
{
    (void)signal_number;
    tms_cancel();
}

static void print_help(FILE *to)
{
    fputs("tamis makes large language models small, in every format that people run.\n\n"
          "  tamis quantize models/pebble --to q8_0,q4_k_m,nf4:dq -o out\n\n"
          "usage: tamis COMMAND [options]; `tamis COMMAND --help` tells more\n\n",
          to);
    struct table table;
    table_begin(&table, "ll");
    table_cell(&table, "  command");
    table_cell(&table, "does");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        table_cell(&table, "  %s %s", commands[i].name, commands[i].arguments);
        table_cell(&table, "%s", commands[i].summary);
    }
    table_end(&table, to);
    fputs(
        "\nMODEL is a Hugging Face folder, a .safetensors or .gguf file (first of a split), or a config.json.\n"
        "Every command takes --json, --threads N, -q (quiet), -v (more), --help; `tamis --version` tells the version.\n"
        "Exit codes: 0 done, 1 wrong usage, 2 invalid or unsupported input, 3 reading or writing failed,\n"
        "4 a check did not hold, 130 interrupted.\n",
        to);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    /* a link of that name stands in for llama-quantize itself */
    const char *slash = strrchr(argv[0], '/');
    bool as_llama = strcmp(slash ? slash + 1 : argv[0], "llama-quantize") == 0;
    for (size_t i = 0; as_llama && i < sizeof commands / sizeof *commands; i++)
        if (commands[i].run == run_llama_quantize) return commands[i].run(&commands[i], argc - 1, argv + 1);
    if (argc < 2) {
        print_help(stderr);
        return 1;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("tamis %s\n", tms_version());
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        int code = commands[i].run(&commands[i], argc - 2, argv + 2);
        if (fflush(stdout) != 0 && code == 0) {
            fputs("tamis: standard output could not be written\n", stderr);
            return 3;
        }
        return code;
    }
    fprintf(stderr, "tamis: '%s' is no command; `tamis --help` lists them\n", argv[1]);
    return 1;
}

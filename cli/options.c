/* Options of subcommands, from tables. See cli.h. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static bool parse_count(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno) return false;
    *out = n;
    return true;
}

static bool parse_real(const char *text, double *out)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !isfinite(x)) return false;
    *out = x;
    return true;
}

/* 500M, 2G, 1.5GB, 4096: powers of 1000 as llama.cpp's splitting options have them. */
static bool parse_size(const char *text, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)text[0])) return false;
    double n = strtod(text, &end);
    switch (toupper((unsigned char)*end)) {
    case 'K':
        n *= 1e3;
        end++;
        break;
    case 'M':
        n *= 1e6;
        end++;
        break;
    case 'G':
        n *= 1e9;
        end++;
        break;
    case 'T':
        n *= 1e12;
        end++;
        break;
    default: break;
    }
    if (toupper((unsigned char)*end) == 'B') end++;
    if (*end || n < 1 || n > 1e18) return false;
    *out = (uint64_t)(n + 0.5);
    return true;
}

static const struct option *find_option(const struct option *options, size_t n, const char *name, size_t length)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0) return &options[i];
    return NULL;
}

static void print_options(struct table *t, const struct option *options, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char letter[8] = "    ";
        if (options[i].letter) snprintf(letter, sizeof letter, "-%c, ", options[i].letter);
        bool spaced = options[i].value && options[i].kind != OPTION_MAYBE;
        table_cell(t, "  %s--%s%s%s", letter, options[i].name, spaced ? " " : "",
                   options[i].value ? options[i].value : "");
        table_cell(t, "%s", options[i].help);
    }
}

static void print_command_help(const struct command *c, const struct option *options, size_t n,
                               const struct option *common, size_t n_common)
{
    printf("  %s\n\nusage: tamis %s %s\n\n%c%s.\n\n", c->example, c->name, c->arguments,
           toupper((unsigned char)c->summary[0]), c->summary + 1);
    struct table t;
    table_begin(&t, "ll");
    table_cell(&t, "options");
    table_cell(&t, "%s", "");
    print_options(&t, options, n);
    for (size_t i = 0; i < n_common; i++)
        if (!find_option(options, n, common[i].name, strlen(common[i].name))) print_options(&t, &common[i], 1);
    table_end(&t, stdout);
}

int wrong_usage(const struct command *command, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "tamis %s: ", command->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (usage: tamis %s %s)\n", command->name, command->arguments);
    return 1;
}

int fail_with(tms_status status, const struct tms_error *err)
{
    if (status == TMS_ECANCELLED) {
        fputs("tamis: interrupted; nothing was left behind\n", stderr);
        return 130; /* 128 + SIGINT, as shells have it */
    }
    fprintf(stderr, "tamis: %s\n", err->message);
    return (int)status;
}

static bool take_value(const struct option *o, const char *value)
{
    switch (o->kind) {
    case OPTION_FLAG: *(bool *)o->to = true; return true;
    case OPTION_TEXT: *(const char **)o->to = value; return *value != '\0';
    case OPTION_ANY: *(const char **)o->to = value; return true;
    case OPTION_COUNT: return parse_count(value, o->to);
    case OPTION_LIMIT:
        if (strcmp(value, "-1") != 0) return parse_count(value, o->to);
        *(uint64_t *)o->to = UINT64_MAX;
        return true;
    case OPTION_REAL: return parse_real(value, o->to);
    case OPTION_SIZE: return parse_size(value, o->to);
    case OPTION_LIST: {
        struct texts *list = o->to;
        if (list->n == sizeof list->items / sizeof *list->items) return false;
        list->items[list->n++] = value;
        return *value != '\0';
    }
    case OPTION_MAYBE: {
        struct number *number = o->to;
        char *end = NULL;
        number->given = true;
        if (!value) return true;
        number->value = strtod(value, &end);
        return (isdigit((unsigned char)*value) || *value == '.') && *end == '\0';
    }
    }
    return false;
}

int parse_options(const struct command *command, int argc, char **argv, const struct option *options, size_t n_options,
                  struct common *common, const char **positional, size_t n_positional)
{
    return parse_options_between(command, argc, argv, options, n_options, common, positional, n_positional,
                                 n_positional);
}

int parse_options_between(const struct command *command, int argc, char **argv, const struct option *options,
                          size_t n_options, struct common *common, const char **positional, size_t least, size_t most)
{
    bool help = false;
    const struct option shared[] = {
        {"json", 0, OPTION_FLAG, &common->json, NULL, "one JSON document on standard output"},
        {"threads", 't', OPTION_COUNT, &common->threads, "N", "threads to work with (default: all processors)"},
        {"quiet", 'q', OPTION_FLAG, &common->quiet, NULL, "no progress, no warnings"},
        {"verbose", 'v', OPTION_FLAG, &common->verbose, NULL, "say more"},
        {"help", 'h', OPTION_FLAG, &help, NULL, "this text"},
    };
    size_t n_shared = sizeof shared / sizeof *shared, n = 0;
    bool only_positional = false;
    *common = (struct common){0};
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i], *value = NULL;
        if (only_positional || arg[0] != '-' || arg[1] == '\0') {
            if (n == most) return wrong_usage(command, "'%s' is one argument too many", arg);
            positional[n++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_positional = true;
            continue;
        }
        const struct option *o = NULL;
        if (arg[1] == '-') {
            size_t length = strcspn(arg + 2, "=");
            o = find_option(options, n_options, arg + 2, length);
            if (!o) o = find_option(shared, n_shared, arg + 2, length);
            if (arg[2 + length] == '=') value = arg + 2 + length + 1;
        } else {
            for (size_t k = 0; k < n_options && !o; k++)
                if (options[k].letter == arg[1]) o = &options[k];
            for (size_t k = 0; k < n_shared && !o; k++)
                if (shared[k].letter == arg[1]) o = &shared[k];
            if (arg[2]) value = arg + 2;
        }
        if (!o) return wrong_usage(command, "'%s' is no option of it", arg);
        if (o->kind == OPTION_FLAG && value) return wrong_usage(command, "--%s takes no value", o->name);
        if (o->kind != OPTION_FLAG && o->kind != OPTION_MAYBE && !value) {
            if (i + 1 >= argc) return wrong_usage(command, "--%s wants %s", o->name, o->value);
            value = argv[++i];
        }
        if (!take_value(o, value)) return wrong_usage(command, "--%s '%s' is not understood", o->name, value);
    }
    if (help) {
        print_command_help(command, options, n_options, shared, n_shared);
        return 0;
    }
    if (n < least) return wrong_usage(command, n ? "an argument is missing" : "MODEL is missing");
    if (common->threads > 1024) return wrong_usage(command, "--threads: at most 1024");
    return -1;
}

uint64_t seed_or_chance(uint64_t seed)
{
    if (seed != UINT64_MAX) return seed;
    uint32_t chance = (uint32_t)getpid();
    if (getrandom(&chance, sizeof chance, 0) < 0) chance *= 2654435761u;
    return chance;
}

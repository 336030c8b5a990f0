/* Tables, numbers and progress. See cli.h. */
#include "cli.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static char *rotating(void)
{
    static char buffers[16][192];
    static unsigned next;
    return buffers[next++ % 16];
}

const char *grouped(uint64_t n)
{
    char digits[32], *out = rotating(), *to = out;
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

const char *human_bytes(uint64_t n)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    char *out = rotating();
    double x = (double)n;
    size_t unit = 0;
    while (x >= 999.5 && unit < 5) {
        x /= 1000;
        unit++;
    }
    if (unit == 0)
        snprintf(out, 192, "%llu B", (unsigned long long)n);
    else
        snprintf(out, 192, "%.*f %s", x < 9.995 ? 2 : x < 99.95 ? 1 : 0, x, units[unit]);
    return out;
}

const char *shape_text(const struct tms_tensor_info *tensor)
{
    char *out = rotating();
    size_t used = (size_t)snprintf(out, 192, "(");
    for (uint32_t d = 0; d < tensor->n_dims && used < 160; d++)
        used += (size_t)snprintf(out + used, 192 - used, "%s%llu", d ? ", " : "", (unsigned long long)tensor->shape[d]);
    snprintf(out + used, 192 - used, ")");
    return out;
}

void table_begin(struct table *table, const char *alignment)
{
    *table = (struct table){.n_columns = strlen(alignment)};
    for (size_t i = 0; i < table->n_columns; i++) table->right[i] = alignment[i] == 'r';
}

void table_cell(struct table *table, const char *format, ...)
{
    va_list args;
    char *text = NULL;
    if (table->n_cells == table->cap) {
        size_t cap = table->cap ? table->cap * 2 : 64;
        char **cells = realloc(table->cells, cap * sizeof *cells);
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->cap = cap;
    }
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) text = NULL;
    va_end(args);
    if (!text)
        table->failed = true;
    else
        table->cells[table->n_cells++] = text;
}

/* Characters, not bytes: UTF-8 continuation bytes take no room. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void find_widths(const struct table *table, int *widths)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        int w = width_of(table->cells[i]), *widest = &widths[i % table->n_columns];
        if (w > *widest) *widest = w;
    }
}

void table_end(struct table *table, FILE *to)
{
    int widths[16] = {0};
    size_t n_columns = table->n_columns;
    find_widths(table, widths);
    for (size_t i = 0; i < table->n_cells && !table->failed; i++) {
        size_t column = i % n_columns;
        bool last = column + 1 == n_columns;
        int pad = widths[column] - width_of(table->cells[i]);
        if (table->right[column])
            fprintf(to, "%*s%s", pad, "", table->cells[i]);
        else
            fprintf(to, "%s%*s", table->cells[i], last ? 0 : pad, "");
        fputs(last ? "\n" : "  ", to);
    }
    if (table->failed) fputs("(no memory for the table)\n", to);
    table_drop(table);
}

void table_end_markdown(struct table *table, FILE *to)
{
    int widths[16] = {0};
    size_t n_columns = table->n_columns;
    find_widths(table, widths);
    for (size_t i = 0; i < table->n_cells && !table->failed; i++) {
        size_t column = i % n_columns;
        int pad = widths[column] - width_of(table->cells[i]);
        fprintf(to, "| %*s%s%*s ", table->right[column] ? pad : 0, "", table->cells[i], table->right[column] ? 0 : pad,
                "");
        if (column + 1 < n_columns) continue;
        fputs("|\n", to);
        for (size_t k = 0; i + 1 == n_columns && k < n_columns; k++) { /* below the heading */
            fputs(table->right[k] ? "| " : "| :", to);
            for (int dash = 1; dash < widths[k]; dash++) fputc('-', to);
            fputs(table->right[k] ? ": " : " ", to);
            if (k + 1 == n_columns) fputs("|\n", to);
        }
    }
    if (table->failed) fputs("(no memory for the table)\n", to);
    table_drop(table);
}

void table_drop(struct table *table)
{
    for (size_t i = 0; i < table->n_cells; i++) free(table->cells[i]);
    free(table->cells);
    *table = (struct table){0};
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_begin(struct progress_bar *bar, const struct common *common)
{
    *bar = (struct progress_bar){.shown = !common->quiet && isatty(STDERR_FILENO), .start = now()};
}

void progress_show(void *ctx, const struct tms_progress *p)
{
    struct progress_bar *bar = ctx;
    if (!bar->shown || p->total == 0) return;
    if (bar->what != p->what) { /* a new phase has its own clock */
        bar->what = p->what;
        bar->start = now();
    }
    double share = (double)p->done / (double)p->total, seconds = now() - bar->start;
    double rate = seconds > 0 ? (double)p->done / seconds : 0;
    double left = rate > 0 ? (double)(p->total - p->done) / rate : 0;
    char cells[30 * 3 + 1], *cell = cells;
    int full = (int)(share * 30);
    for (int i = 0; i < 30; i++) cell = stpcpy(cell, i < full ? "\u2588" : "\u2591");
    fprintf(stderr, "\r\033[K%-12s %s %3.0f %%  %s of %s  %s/s  %d:%02d left", p->what, cells, share * 100,
            human_bytes(p->done), human_bytes(p->total), human_bytes((uint64_t)rate), (int)left / 60, (int)left % 60);
    fflush(stderr);
}

void progress_end(struct progress_bar *bar)
{
    if (!bar->shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    bar->shown = false;
}

void show_finding(void *ctx, const char *line)
{
    struct findings *f = ctx;
    progress_end(f->bar);
    if (f->json)
        json_array_append_new(f->lines, json_string(line));
    else
        puts(line);
}

void show_warning(void *ctx, const char *line)
{
    const struct common *common = ctx;
    if (!common->quiet) fprintf(stderr, "tamis: warning: %s\n", line);
}

uint64_t peak_memory(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

int print_json(json_t *document)
{
    if (!document || json_dumpf(document, stdout, JSON_INDENT(2)) != 0) {
        fputs("tamis: out of memory for the JSON document\n", stderr);
        json_decref(document);
        return 3;
    }
    putchar('\n');
    json_decref(document);
    return 0;
}

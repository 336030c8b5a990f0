/* Lines that a person types, with editing and history where there is a terminal, or plain lines of a pipe. */
#ifndef TAMIS_CLI_LINE_H
#define TAMIS_CLI_LINE_H

#include <stdbool.h>
#include <stddef.h>

struct line_reader;

enum line_kind {
    LINE_TEXT,
    LINE_END,         /* no more: Ctrl-D, or the end of the file */
    LINE_INTERRUPTED, /* Ctrl-C while something was typed, which is dropped */
    LINE_LEFT,        /* Ctrl-C at an empty prompt */
    LINE_FAILED,
};

/* True if standard input is a terminal. NULL if memory is short. */
struct line_reader *line_reader_open(bool *terminal);
void line_reader_close(struct line_reader *r); /* NULL is allowed */
/* The next line without its end, borrowed until the next call. A line that ends with \ goes on in the next one. */
enum line_kind line_read(struct line_reader *r, char **text, size_t *n);

#endif

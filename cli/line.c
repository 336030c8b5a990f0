/* See line.h. libedit edits; without it (TAMIS_LINE_EDITING) the terminal's own line discipline has to do. */
#include "line.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef TAMIS_LINE_EDITING
#include <histedit.h>
#endif

#define HISTORY_LINES 1000

struct line_reader {
    bool terminal;
    bool goes_on; /* the line before ended with a backslash */
    char *plain;  /* of getline */
    size_t plain_cap;
    char *whole; /* lines put together */
    size_t whole_n;
#ifdef TAMIS_LINE_EDITING
    EditLine *edit;
    History *history;
#endif
};

#ifdef TAMIS_LINE_EDITING

static char *prompt(EditLine *edit)
{
    static char first[] = "> ", next[] = ". ";
    struct line_reader *r = NULL;
    el_get(edit, EL_CLIENTDATA, &r);
    return r && r->goes_on ? next : first;
}

static bool begin_editing(struct line_reader *r)
{
    HistEvent event;
    /* libedit reads characters: what is typed is UTF-8, also where the locale does not say so */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    /* the prompt belongs to the person, not to a file that the answers may go to */
    r->edit = el_init("tamis", stdin, isatty(STDOUT_FILENO) ? stdout : stderr, stderr);
    r->history = history_init();
    if (!r->edit || !r->history) return false;
    history(r->history, &event, H_SETSIZE, HISTORY_LINES);
    history(r->history, &event, H_SETUNIQUE, 1);
    el_set(r->edit, EL_CLIENTDATA, r);
    el_set(r->edit, EL_PROMPT, prompt);
    el_set(r->edit, EL_EDITOR, "emacs");
    el_set(r->edit, EL_HIST, history, r->history);
    el_set(r->edit, EL_SIGNAL, 1);
    el_set(r->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(r->edit, NULL);
    return true;
}

static enum line_kind read_edited(struct line_reader *r, const char **text, size_t *n)
{
    int count = 0;
    HistEvent event;
    const char *line = el_gets(r->edit, &count);
    if (!line || count <= 0) {
        bool interrupted = count < 0 && errno == EINTR;
        const LineInfo *typed = el_line(r->edit);
        fputc('\n', isatty(STDOUT_FILENO) ? stdout : stderr);
        if (!interrupted) return LINE_END;
        return typed->lastchar != typed->buffer || r->goes_on ? LINE_INTERRUPTED : LINE_LEFT;
    }
    if (line[0] != '\n') history(r->history, &event, H_ENTER, line);
    *text = line;
    *n = (size_t)count;
    return LINE_TEXT;
}

#endif

static enum line_kind read_plain(struct line_reader *r, const char **text, size_t *n)
{
#ifndef TAMIS_LINE_EDITING
    if (r->terminal) fputs(r->goes_on ? ". " : "> ", stderr);
#endif
    errno = 0;
    ssize_t got = getline(&r->plain, &r->plain_cap, stdin);
    if (got < 0) return feof(stdin) ? LINE_END : errno == EINTR ? LINE_LEFT : LINE_FAILED;
    *text = r->plain;
    *n = (size_t)got;
    return LINE_TEXT;
}

struct line_reader *line_reader_open(bool *terminal)
{
    struct line_reader *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->terminal = *terminal = isatty(STDIN_FILENO);
#ifdef TAMIS_LINE_EDITING
    if (r->terminal && !begin_editing(r)) {
        line_reader_close(r);
        return NULL;
    }
#endif
    return r;
}

void line_reader_close(struct line_reader *r)
{
    if (!r) return;
#ifdef TAMIS_LINE_EDITING
    if (r->history) history_end(r->history);
    if (r->edit) el_end(r->edit);
#endif
    free(r->plain);
    free(r->whole);
    free(r);
}

enum line_kind line_read(struct line_reader *r, char **text, size_t *n)
{
    r->whole_n = 0;
    for (r->goes_on = false;; r->goes_on = true) {
        const char *line = NULL;
        size_t length = 0;
#ifdef TAMIS_LINE_EDITING
        enum line_kind kind = r->terminal ? read_edited(r, &line, &length) : read_plain(r, &line, &length);
#else
        enum line_kind kind = read_plain(r, &line, &length);
#endif
        if (kind == LINE_END && r->goes_on) break;
        if (kind != LINE_TEXT) return kind;
        while (length && (line[length - 1] == '\n' || line[length - 1] == '\r')) length--;
        bool more = length && line[length - 1] == '\\';
        char *larger = realloc(r->whole, r->whole_n + length + 2);
        if (!larger) return LINE_FAILED;
        r->whole = larger;
        if (r->goes_on) r->whole[r->whole_n++] = '\n';
        memcpy(r->whole + r->whole_n, line, length - more);
        r->whole_n += length - more;
        if (!more) break;
    }
    r->whole[r->whole_n] = '\0';
    *text = r->whole;
    *n = r->whole_n;
    return LINE_TEXT;
}

/* tamis tokenize: a text as the model sees it. */
#include "cli.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum { WIDTH = 100 }; /* columns of a line of pieces */

/* Bytes that grow; the command line has only what a user of the library has. */
struct bytes {
    char *data;
    size_t n, cap;
};

static bool put(struct bytes *b, const char *text, size_t n)
{
    if (!b->data || n >= b->cap - b->n) {
        size_t cap = (b->n + n) * 2 + 256;
        char *grown = realloc(b->data, cap);
        if (!grown) return false;
        b->data = grown;
        b->cap = cap;
    }
    if (n) memcpy(b->data + b->n, text, n);
    b->n += n;
    b->data[b->n] = '\0';
    return true;
}

static int out_of_memory(void)
{
    struct tms_error err = {"out of memory"};
    return fail_with(TMS_EIO, &err);
}

static int read_input(struct bytes *in)
{
    char part[65536];
    size_t n;
    if (!put(in, "", 0)) return out_of_memory();
    while ((n = fread(part, 1, sizeof part, stdin)) > 0)
        if (!put(in, part, n)) return out_of_memory();
    if (!ferror(stdin)) return 0;
    struct tms_error err = {"standard input could not be read"};
    return fail_with(TMS_EIO, &err);
}

/* ---- for people: pieces above their ids ---- */

/* A piece with what cannot be seen made visible: "·" a space, "↵" a line end, "⇥" a tab, "<E2>" a byte that is no
 * character by itself. *width: columns. */
static bool make_visible(struct bytes *out, const char *piece, size_t n, size_t *width)
{
    mbstate_t state = {0};
    out->n = 0;
    *width = 0;
    if (!put(out, "", 0)) return false;
    for (size_t i = 0; i < n;) {
        wchar_t wide = 0;
        size_t length = mbrtowc(&wide, piece + i, n - i, &state);
        char own[16];
        int columns = 1;
        const char *shown = piece + i;
        if (length == (size_t)-1 || length == (size_t)-2) {
            memset(&state, 0, sizeof state);
            length = 1;
            columns = snprintf(own, sizeof own, "<%02X>", (unsigned char)piece[i]);
            shown = own;
        } else if (wide == L' ' || wide == L'\n' || wide == L'\t') {
            shown = wide == L' ' ? "·" : wide == L'\n' ? "↵" : "⇥";
        } else if ((columns = wcwidth(wide)) < 0 || wide == 0) {
            columns = snprintf(own, sizeof own, "<U+%04X>", (unsigned)wide);
            shown = own;
        }
        if (length == 0) length = 1; /* NUL */
        if (!put(out, shown, shown == piece + i ? length : strlen(shown))) return false;
        *width += (size_t)columns;
        i += length;
    }
    return true;
}

struct line {
    struct bytes pieces, ids;
    size_t width;
};

static bool pad(struct bytes *b, size_t n)
{
    while (n--)
        if (!put(b, " ", 1)) return false;
    return true;
}

/* Prints without the blanks at the end. */
static void print_line(struct line *line)
{
    struct bytes *both[] = {&line->pieces, &line->ids};
    for (size_t i = 0; i < 2 && line->width; i++) {
        while (both[i]->n && both[i]->data[both[i]->n - 1] == ' ') both[i]->n--;
        printf("%.*s\n", (int)both[i]->n, both[i]->data);
    }
    if (line->width) putchar('\n');
    line->pieces.n = line->ids.n = line->width = 0;
}

static int show(const struct tms_text *text, const int32_t *ids, size_t n_ids, size_t n_bytes)
{
    struct line line = {0};
    struct bytes visible = {0};
    struct tms_error err;
    int code = 0;
    (void)(setlocale(LC_CTYPE, "") && wcwidth(L'·') == 1 ? NULL : setlocale(LC_CTYPE, "C.UTF-8"));
    for (size_t i = 0; i < n_ids && code == 0; i++) {
        char *piece = NULL, number[16];
        size_t n = 0, width = 0;
        tms_status status = tms_text_piece(text, ids[i], &piece, &n, &err);
        if (status != TMS_OK) {
            code = fail_with(status, &err);
            break;
        }
        size_t n_number = (size_t)snprintf(number, sizeof number, "%d", ids[i]);
        bool done = make_visible(&visible, piece, n, &width);
        size_t column = width > n_number ? width : n_number;
        if (line.width && line.width + column > WIDTH) print_line(&line);
        done = done && put(&line.pieces, visible.data, visible.n) && pad(&line.pieces, column - width + 1) &&
               put(&line.ids, number, n_number) && pad(&line.ids, column - n_number + 1);
        line.width += column + 1;
        if (n && piece[n - 1] == '\n') print_line(&line);
        free(piece);
        if (!done) code = out_of_memory();
    }
    print_line(&line);
    if (code == 0) {
        printf("%s token%s, %s bytes", grouped(n_ids), n_ids == 1 ? "" : "s", grouped(n_bytes));
        if (n_ids) printf(", %.2f bytes per token", (double)n_bytes / (double)n_ids);
        putchar('\n');
    }
    free(line.pieces.data);
    free(line.ids.data);
    free(visible.data);
    return code;
}

/* ---- for programs ---- */

/* {"ids": […], "pieces": […]}; bytes that are no character by themselves are U+FFFD in a piece. NULL: `status`. */
static json_t *tokens_json(const struct tms_text *text, const int32_t *ids, size_t n_ids, tms_status *status,
                           struct tms_error *err)
{
    json_t *all = json_array(), *pieces = json_array();
    *status = TMS_OK;
    for (size_t i = 0; i < n_ids && *status == TMS_OK; i++) {
        char *piece = NULL;
        size_t n = 0;
        *status = tms_text_piece(text, ids[i], &piece, &n, err);
        json_t *string = *status == TMS_OK ? json_stringn(piece, n) : NULL;
        if (*status == TMS_OK && !string) { /* a part of a character */
            free(piece);
            *status = tms_text_decode(text, &ids[i], 1, true, &piece, &n, err);
            if (*status == TMS_OK) string = json_stringn(piece, n);
        }
        if (*status == TMS_OK) {
            json_array_append_new(all, json_integer(ids[i]));
            json_array_append_new(pieces, string);
        }
        free(piece);
    }
    if (*status == TMS_OK) return json_pack("{s:o, s:o}", "ids", all, "pieces", pieces);
    json_decref(all);
    json_decref(pieces);
    return NULL;
}

static int bad_line(size_t number, const char *problem)
{
    struct tms_error err;
    snprintf(err.message, sizeof err.message, "standard input, line %zu: %.900s", number, problem);
    return fail_with(TMS_EINPUT, &err);
}

/* {"text": …} to ids, {"ids": […]} to text. */
static int answer(struct tms_text *text, const json_t *question, const struct tms_text_options *options, size_t number)
{
    const json_t *string = json_object_get(question, "text"), *list = json_object_get(question, "ids");
    struct tms_error err;
    json_t *reply = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    tms_status status;
    if (json_is_string(string)) {
        status = tms_text_encode(text, json_string_value(string), json_string_length(string), options, &ids, &n, &err);
        if (status == TMS_OK) reply = tokens_json(text, ids, n, &status, &err);
    } else if (json_is_array(list)) {
        char *decoded = NULL;
        ids = calloc(json_array_size(list) + 1, sizeof *ids);
        if (!ids) return out_of_memory();
        for (; n < json_array_size(list); n++) {
            json_int_t id = json_integer_value(json_array_get(list, n));
            if (!json_is_integer(json_array_get(list, n)) || id < 0 || (uint64_t)id >= tms_text_n_vocab(text)) {
                free(ids);
                return bad_line(number, "\"ids\" holds what is no token id");
            }
            ids[n] = (int32_t)id;
        }
        status = tms_text_decode(text, ids, n, true, &decoded, &n, &err);
        if (status == TMS_OK) reply = json_pack("{s:s%}", "text", decoded, n);
        free(decoded);
    } else {
        return bad_line(number, "is no object with a \"text\" or \"ids\"");
    }
    free(ids);
    if (status != TMS_OK) return fail_with(status, &err);
    char *line = json_dumps(reply, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(reply);
    if (!line) return out_of_memory();
    puts(line);
    free(line);
    fflush(stdout); /* a program may wait for it */
    return 0;
}

static int answer_lines(struct tms_text *text, const struct tms_text_options *options)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    int code = 0;
    ssize_t n;
    while (code == 0 && (n = getline(&line, &cap, stdin)) >= 0) {
        json_error_t problem;
        number++;
        if (strspn(line, " \t\r\n") == (size_t)n) continue;
        json_t *question = json_loadb(line, (size_t)n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &problem);
        code = question ? answer(text, question, options, number) : bad_line(number, problem.text);
        json_decref(question);
    }
    free(line);
    if (code == 0 && ferror(stdin)) {
        struct tms_error err = {"standard input could not be read"};
        return fail_with(TMS_EIO, &err);
    }
    return code;
}

int run_tokenize(const struct command *self, int argc, char **argv)
{
    bool jsonl = false;
    struct tms_text_options options = {0};
    const struct option known[] = {
        {.name = "special",
         .kind = OPTION_FLAG,
         .to = &options.special,
         .help = "with the tokens that go around a text"},
        {.name = "no-parse-special",
         .kind = OPTION_FLAG,
         .to = &options.no_parse_special,
         .help = "\"<|im_end|>\" in the text is plain text"},
        {.name = "jsonl",
         .kind = OPTION_FLAG,
         .to = &jsonl,
         .help = "lines {\"text\": ...} in, {\"ids\": [...], \"pieces\": [...]} out; {\"ids\"} gives {\"text\"}"},
    };
    struct common common;
    const char *path;
    int code = parse_options(self, argc, argv, known, sizeof known / sizeof *known, &common, &path, 1);
    if (code >= 0) return code;
    struct tms_error err;
    struct tms_text *text = NULL;
    tms_status status = tms_text_open(&text, path, &err);
    if (status != TMS_OK) return fail_with(status, &err);
    struct bytes in = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (jsonl) {
        code = answer_lines(text, &options);
        goto done;
    }
    code = read_input(&in);
    if (code) goto done;
    status = tms_text_encode(text, in.data, in.n, &options, &ids, &n_ids, &err);
    json_t *document = NULL;
    if (status == TMS_OK && common.json) document = tokens_json(text, ids, n_ids, &status, &err);
    if (status != TMS_OK)
        code = fail_with(status, &err);
    else
        code = document ? print_json(document) : show(text, ids, n_ids, in.n);
done:
    free(ids);
    free(in.data);
    tms_text_close(text);
    return code;
}

/* make_corpus DIR: writes files that tamis must refuse, and DIR/corpus.tsv, which says with what message.
 *
 *     path <TAB> command <TAB> exit code <TAB> fragment of the message
 *
 * A few good ones are among them (exit code 0), so that a program that refuses everything does not pass. The
 * script beside this file runs them all; the fuzz targets take them as seeds. */
#include "corpus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *root;
static FILE *manifest;

static void die(const char *what, const char *path)
{
    fprintf(stderr, "make_corpus: %s %s: %s\n", what, path, strerror(errno));
    exit(3);
}

static const char *full(const char *path)
{
    static char out[4096];
    snprintf(out, sizeof out, "%s/%s", root, path);
    return out;
}

void corpus_begin(const char *dir)
{
    root = dir;
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) die("cannot make", dir);
    manifest = fopen(full("corpus.tsv"), "w");
    if (!manifest) die("cannot write", full("corpus.tsv"));
}

void corpus_end(void)
{
    if (fclose(manifest) != 0) die("cannot write", full("corpus.tsv"));
}

void corpus_expect(const char *path, const char *command, int exit_code, const char *fragment)
{
    fprintf(manifest, "%s\t%s\t%d\t%s\n", path, command, exit_code, fragment);
}

void corpus_refused(const char *path, const char *fragment)
{
    corpus_expect(path, "inspect", 2, fragment);
    corpus_expect(path, "check", 2, fragment);
}

void corpus_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(full(path), "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) die("cannot write", full(path));
}

void corpus_write_text(const char *path, const char *text)
{
    corpus_write(path, text, strlen(text));
}

void corpus_write_buf(const char *path, struct tms_buf *buf)
{
    if (buf->failed) die("no memory for", path);
    corpus_write(path, buf->data ? (const void *)buf->data : "", buf->n);
    tms_buf_free(buf);
}

void corpus_mkdir(const char *path)
{
    if (mkdir(full(path), 0777) != 0 && errno != EEXIST) die("cannot make", full(path));
}

void corpus_remove(const char *path)
{
    if (unlink(full(path)) != 0) die("cannot remove", full(path));
}

void corpus_write_safetensors(const char *path, const char *header, size_t n)
{
    struct tms_buf file = {0};
    tms_buf_u64(&file, strlen(header));
    tms_buf_text(&file, header);
    tms_buf_zeros(&file, n);
    corpus_write_buf(path, &file);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_corpus DIR\n");
        return 1;
    }
    corpus_begin(argv[1]);
    corpus_safetensors();
    corpus_gguf();
    corpus_folders();
    corpus_imatrix();
    corpus_end();
    return 0;
}

/* What the parts of make_corpus share. This is a test program: whatever fails ends it. */
#ifndef TESTS_CORPUS_H
#define TESTS_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

/* Makes DIR, and corpus.tsv in it. */
void corpus_begin(const char *dir);
void corpus_end(void);

/* One line of corpus.tsv: `tamis COMMAND DIR/PATH` must end with this exit code and, if it is not 0, with a message
 * that holds `fragment`. The command "imatrix" stands for quantizing pebble with that file as --imatrix. */
void corpus_expect(const char *path, const char *command, int exit_code, const char *fragment);
/* The same for `inspect` and `check`: for what already the readers refuse. */
void corpus_refused(const char *path, const char *fragment);

/* Files and folders under DIR. */
void corpus_write(const char *path, const void *bytes, size_t n);
void corpus_write_text(const char *path, const char *text);
void corpus_write_buf(const char *path, struct tms_buf *buf); /* and frees it */
void corpus_mkdir(const char *path);
void corpus_remove(const char *path);

/* A safetensors file with this header, as it is, and n bytes of data. */
void corpus_write_safetensors(const char *path, const char *header, size_t n);

void corpus_safetensors(void);
void corpus_gguf(void);
void corpus_folders(void);
void corpus_imatrix(void);

#endif

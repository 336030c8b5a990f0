/* Small files of a folder that are made in memory before anything is written: config.json, tokenizer.json, … */
#ifndef TMS_FILE_MADE_FILES_H
#define TMS_FILE_MADE_FILES_H

#include "base/error.h"
#include "base/mem.h"

#define TMS_MADE_FILES_MAX 8u

/* Zero-initialize. */
struct tms_made_files {
    size_t n;
    struct tms_made_file {
        const char *name; /* borrowed: a constant */
        struct tms_buf bytes;
    } items[TMS_MADE_FILES_MAX];
};

/* An empty buffer for one more file; the caller adds at most TMS_MADE_FILES_MAX. */
struct tms_buf *tms_made_files_add(struct tms_made_files *files, const char *name);
void tms_made_files_free(struct tms_made_files *files);
/* Writes them all into `dir`. */
tms_status tms_made_files_write(const struct tms_made_files *files, const char *dir, struct tms_error *err);
/* One file of n bytes; it appears when it is complete. */
tms_status tms_write_file(const char *dir, const char *name, const void *bytes, size_t n, struct tms_error *err);

#endif

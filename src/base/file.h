/* Files: exact reads at offsets, and outputs that appear complete under their name or not at all. */
#ifndef TMS_BASE_FILE_H
#define TMS_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A file opened for reading; its size is the one at opening. */
struct tms_file {
    int fd;
    uint64_t size;
    char *path; /* as given; owned */
};

/* TMS_EINPUT if there is no such file or it is not a regular file, TMS_EIO if it cannot be read. */
tms_status tms_file_open(struct tms_file *out, const char *path, struct tms_error *err);
/* Reads exactly n bytes at `offset`; a short file is TMS_EINPUT ("PATH: ends at byte …"). */
tms_status tms_file_read(const struct tms_file *file, void *to, uint64_t n, uint64_t offset, struct tms_error *err);
void tms_file_close(struct tms_file *file);

/* The whole of a text file of at most `limit` bytes, with a NUL behind it; free with free. */
tms_status tms_file_text(const char *path, uint64_t limit, char **out, size_t *n, struct tms_error *err);

bool tms_path_exists(const char *path);
bool tms_path_is_dir(const char *path);
/* "dir/name", to be freed; NULL if memory is short. */
char *tms_path_join(const char *dir, const char *name);
/* The part after the last '/', borrowed. */
const char *tms_path_base(const char *path);
/* True if both exist and are the same file or directory. */
bool tms_same_file(const char *a, const char *b);

/* A file being written. Until tms_output_commit it has the name PATH.tamis-partial, which the next run writes
 * over; a lock on it keeps two runs apart. Not for use by several threads at once except tms_output_write. */
struct tms_output;

/* `size` bytes are reserved on disk if it is not 0 (TMS_EIO at once when the disk is too full). */
tms_status tms_output_create(struct tms_output **out, const char *path, uint64_t size, struct tms_error *err);
/* The same over the file `old` of the same folder, which is gone then: its memory and its place on the disk are taken
 * over, so that writing is nothing but copying. The caller writes all `size` bytes. No matter if there is no such file.
 */
tms_status tms_output_take(struct tms_output **out, const char *path, const char *old, uint64_t size,
                           struct tms_error *err);
tms_status tms_output_write(struct tms_output *output, const void *from, uint64_t n, uint64_t offset,
                            struct tms_error *err);
/* Cuts the file to exactly `size` bytes. */
tms_status tms_output_truncate(struct tms_output *output, uint64_t size, struct tms_error *err);
const char *tms_output_partial_path(const struct tms_output *output);
/* fsync and rename to the final name; the output is freed in any case, and removed if this fails. */
tms_status tms_output_commit(struct tms_output *output, struct tms_error *err);
/* Removes the partial file and frees. NULL is allowed. */
void tms_output_discard(struct tms_output *output);

/* The same for a directory: write into tms_output_dir_partial, then commit. An existing directory of the final
 * name is replaced only with `replace`, else it is TMS_EUSAGE. */
struct tms_output_dir;
tms_status tms_output_dir_create(struct tms_output_dir **out, const char *path, bool replace, struct tms_error *err);
const char *tms_output_dir_partial(const struct tms_output_dir *dir);
tms_status tms_output_dir_commit(struct tms_output_dir *dir, struct tms_error *err);
/* Moves every file into the folder that holds the directory, under the names they have, and removes the directory:
 * for several files that belong together. The dir is freed in any case. */
tms_status tms_output_dir_scatter(struct tms_output_dir *dir, struct tms_error *err);
void tms_output_dir_discard(struct tms_output_dir *dir);

/* Copies a file byte for byte to `to` (which gets its name when complete). */
tms_status tms_file_copy(const char *from, const char *to, struct tms_error *err);

#endif

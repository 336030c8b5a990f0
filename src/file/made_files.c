/* See made_files.h. */
#include "file/made_files.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

struct tms_buf *tms_made_files_add(struct tms_made_files *files, const char *name)
{
    struct tms_made_file *file = &files->items[files->n++];
    file->name = name;
    return &file->bytes;
}

void tms_made_files_free(struct tms_made_files *files)
{
    for (size_t i = 0; i < files->n; i++) tms_buf_free(&files->items[i].bytes);
    files->n = 0;
}

tms_status tms_write_file(const char *dir, const char *name, const void *bytes, size_t n, struct tms_error *err)
{
    struct tms_output *output = NULL;
    char *path = tms_path_join(dir, name);
    if (!path) return tms_fail_memory(err, strlen(dir));
    tms_status status = tms_output_create(&output, path, 0, err);
    if (status == TMS_OK) status = tms_output_write(output, bytes, n, 0, err);
    if (status == TMS_OK)
        status = tms_output_commit(output, err);
    else
        tms_output_discard(output);
    free(path);
    return status;
}

tms_status tms_made_files_write(const struct tms_made_files *files, const char *dir, struct tms_error *err)
{
    tms_status status = TMS_OK;
    for (size_t i = 0; i < files->n && status == TMS_OK; i++) {
        const struct tms_buf *bytes = &files->items[i].bytes;
        status = bytes->failed ? tms_fail_memory(err, bytes->n)
                               : tms_write_file(dir, files->items[i].name, bytes->data, bytes->n, err);
    }
    return status;
}

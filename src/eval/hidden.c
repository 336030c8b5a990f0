/* See hidden.h. */
#include "eval/hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

static tms_status open_nameless(int *fd, struct tms_error *err)
{
    const char *dir = getenv("TMPDIR");
    if (!dir || !*dir) dir = "/tmp";
    *fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd >= 0) return TMS_OK;
    char *path = tms_path_join(dir, "tamis-hidden-XXXXXX"); /* file systems without nameless files */
    if (!path) return tms_fail_memory(err, strlen(dir) + 32);
    *fd = mkostemp(path, O_CLOEXEC);
    if (*fd >= 0) (void)unlink(path);
    free(path);
    return *fd >= 0 ? TMS_OK
                    : tms_fail(err, TMS_EIO,
                               "%s: no file for hidden states can be made there: %s (TMPDIR chooses "
                               "another folder)",
                               dir, strerror(errno));
}

tms_status tms_hidden_create(struct tms_hidden *out, size_t n_rows, size_t group_rows, size_t stride, bool on_disk,
                             struct tms_error *err)
{
    struct tms_hidden h = {.stride = stride, .fd = -1};
    uint64_t rows = on_disk ? group_rows : n_rows, n;
    tms_status status = TMS_OK;
    h.rows = tms_mul_u64(rows, stride, &n) ? tms_calloc(n, sizeof(float)) : NULL;
    if (!h.rows) return tms_fail(err, TMS_EIO, "out of memory (wanted %llu hidden states)", (unsigned long long)rows);
    if (on_disk) status = open_nameless(&h.fd, err);
    if (status != TMS_OK)
        free(h.rows);
    else
        *out = h;
    return status;
}

/* Reads or writes n rows at `row` of the file. */
static tms_status transfer(const struct tms_hidden *h, bool writes, size_t row, size_t n, float *rows,
                           struct tms_error *err)
{
    size_t left = n * h->stride * sizeof(float);
    off_t at = (off_t)(row * h->stride * sizeof(float));
    for (char *c = (char *)rows; left > 0;) {
        ssize_t got = writes ? pwrite(h->fd, c, left, at) : pread(h->fd, c, left, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return tms_fail(err, TMS_EIO, "hidden states cannot be %s the file for them: %s",
                            writes ? "written to" : "read from", got < 0 ? strerror(errno) : "it is too short");
        c += got;
        at += got;
        left -= (size_t)got;
    }
    return TMS_OK;
}

tms_status tms_hidden_take(struct tms_hidden *h, size_t row, size_t n, bool load, float **out, struct tms_error *err)
{
    if (h->fd < 0) {
        *out = h->rows + row * h->stride;
        return TMS_OK;
    }
    tms_status status = load ? transfer(h, false, row, n, h->rows, err) : TMS_OK;
    if (status == TMS_OK) *out = h->rows;
    return status;
}

tms_status tms_hidden_put(struct tms_hidden *h, size_t row, size_t n, struct tms_error *err)
{
    return h->fd < 0 ? TMS_OK : transfer(h, true, row, n, h->rows, err);
}

tms_status tms_hidden_copy(struct tms_hidden *h, size_t row, size_t n, float *to, struct tms_error *err)
{
    if (h->fd >= 0) return transfer(h, false, row, n, to, err);
    memmove(to, h->rows + row * h->stride, n * h->stride * sizeof(float));
    return TMS_OK;
}

void tms_hidden_free(struct tms_hidden *h)
{
    if (h->fd >= 0) close(h->fd);
    free(h->rows);
    *h = (struct tms_hidden){.fd = -1};
}

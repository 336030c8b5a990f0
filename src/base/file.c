/* Reading: exact ranges of files, small text files, paths. See file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

tms_status tms_file_open(struct tms_file *out, const char *path, struct tms_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up */
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR) return tms_fail(err, TMS_EINPUT, "%s: no such file", path);
        return tms_fail(err, TMS_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    }
    struct stat st;
    tms_status status = TMS_OK;
    if (fstat(fd, &st) != 0)
        status = tms_fail(err, TMS_EIO, "%s: cannot be examined: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        status = tms_fail(err, TMS_EINPUT, "%s: is not a regular file", path);
    char *copy = status == TMS_OK ? strdup(path) : NULL;
    if (status == TMS_OK && !copy) status = tms_fail_memory(err, strlen(path));
    if (status != TMS_OK) {
        close(fd);
        return status;
    }
    *out = (struct tms_file){.fd = fd, .size = (uint64_t)st.st_size, .path = copy};
    return TMS_OK;
}

tms_status tms_file_read(const struct tms_file *file, void *to, uint64_t n, uint64_t offset, struct tms_error *err)
{
    unsigned char *p = to;
    while (n > 0) {
        size_t part = n > (1u << 30) ? 1u << 30 : (size_t)n;
        ssize_t got = pread(file->fd, p, part, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return tms_fail(err, TMS_EIO, "%s: reading at byte %llu failed: %s", file->path, (unsigned long long)offset,
                            strerror(errno));
        if (got == 0)
            return tms_fail(err, TMS_EINPUT, "%s: ends at byte %llu, %llu more were expected", file->path,
                            (unsigned long long)offset, (unsigned long long)n);
        p += got;
        n -= (uint64_t)got;
        offset += (uint64_t)got;
    }
    return TMS_OK;
}

void tms_file_close(struct tms_file *file)
{
    if (!file->path) return;
    close(file->fd);
    free(file->path);
    *file = (struct tms_file){.fd = -1};
}

tms_status tms_file_text(const char *path, uint64_t limit, char **out, size_t *n, struct tms_error *err)
{
    struct tms_file file = {.fd = -1};
    char *text = NULL;
    tms_status status = tms_file_open(&file, path, err);
    if (status != TMS_OK) return status;
    if (file.size > limit) {
        status = tms_fail(err, TMS_EINPUT, "%s: has %llu bytes, at most %llu are read", path,
                          (unsigned long long)file.size, (unsigned long long)limit);
        goto done;
    }
    text = tms_calloc(file.size + 1, 1);
    if (!text) {
        status = tms_fail_memory(err, file.size + 1);
        goto done;
    }
    status = tms_file_read(&file, text, file.size, 0, err);
    if (status != TMS_OK) goto done;
    *out = text;
    *n = (size_t)file.size;
    text = NULL;
done:
    free(text);
    tms_file_close(&file);
    return status;
}

bool tms_path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool tms_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *tms_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    while (n > 1 && dir[n - 1] == '/') n--;
    char *path = malloc(n + m + 2);
    if (!path) return NULL;
    memcpy(path, dir, n);
    path[n] = '/';
    memcpy(path + n + 1, name, m + 1);
    return path;
}

const char *tms_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool tms_same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

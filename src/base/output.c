/* Outputs that appear complete or not at all. See file.h.
 *
 * The bytes go to NAME.tamis-partial beside the final name. The name is fixed, so that a run that was killed
 * leaves at most one such file, which the next run takes over; an exclusive lock tells it from one in use. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define PARTIAL ".tamis-partial"

struct tms_output {
    int fd;
    char *path, *partial;
};

struct tms_output_dir {
    int lock; /* the partial directory itself, locked */
    bool replace;
    char *path, *partial;
};

static char *partial_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *name = malloc(n + sizeof PARTIAL);
    if (!name) return NULL;
    memcpy(name, path, n);
    memcpy(name + n, PARTIAL, sizeof PARTIAL);
    return name;
}

static char *without_slashes(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return strndup(path, n);
}

static tms_status fail_errno(struct tms_error *err, const char *path, const char *what)
{
    int e = errno;
    return tms_fail(err, TMS_EIO, "%s: %s: %s", path, what, strerror(e));
}

/* fsync of the directory that holds `path`, so that a rename in it survives a power cut. */
static void sync_parent(const char *path)
{
    char *copy = strdup(path);
    if (!copy) return;
    char *slash = strrchr(copy, '/');
    if (slash) slash[slash == copy ? 1 : 0] = '\0';
    int fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(copy);
}

tms_status tms_output_take(struct tms_output **out, const char *path, const char *old, uint64_t size,
                           struct tms_error *err)
{
    struct stat st;
    struct tms_output *o = calloc(1, sizeof *o);
    tms_status status = TMS_OK;
    if (!o) return tms_fail_memory(err, sizeof *o);
    o->fd = -1;
    o->path = strdup(path);
    o->partial = partial_name(path);
    if (!o->path || !o->partial) {
        status = tms_fail_memory(err, strlen(path));
        goto done;
    }
    if (tms_path_is_dir(path)) {
        status = tms_fail(err, TMS_EUSAGE, "%s: is a directory, a file is to be written there", path);
        goto done;
    }
    if (old) (void)rename(old, o->partial);
    o->fd = open(o->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (o->fd < 0) {
        status = fail_errno(err, o->path, "cannot be created");
        goto done;
    }
    if (flock(o->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        status = tms_fail(err, TMS_EIO, "%s: another tamis is writing it", o->partial);
        close(o->fd);
        o->fd = -1; /* not ours to remove */
        goto done;
    }
    if (old && fstat(o->fd, &st) == 0 && (uint64_t)st.st_size == size) goto done;
    if (ftruncate(o->fd, 0) != 0) {
        status = fail_errno(err, o->partial, "cannot be emptied");
        goto done;
    }
    if (size > 0) {
        int e = posix_fallocate(o->fd, 0, (off_t)size);
        if (e == ENOSPC || e == EFBIG || e == EDQUOT) {
            status = tms_fail(err, TMS_EIO, "%s: no room for %llu bytes on the disk (%s); nothing was written", path,
                              (unsigned long long)size, strerror(e));
            goto done;
        }
    }
done:
    if (status == TMS_OK) {
        *out = o;
        return TMS_OK;
    }
    tms_output_discard(o);
    return status;
}

tms_status tms_output_write(struct tms_output *output, const void *from, uint64_t n, uint64_t offset,
                            struct tms_error *err)
{
    const unsigned char *p = from;
    while (n > 0) {
        size_t part = n > (1u << 30) ? 1u << 30 : (size_t)n;
        ssize_t put = pwrite(output->fd, p, part, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_errno(err, output->path, "writing failed");
        p += put;
        n -= (uint64_t)put;
        offset += (uint64_t)put;
    }
    return TMS_OK;
}

tms_status tms_output_truncate(struct tms_output *output, uint64_t size, struct tms_error *err)
{
    if (ftruncate(output->fd, (off_t)size) != 0) return fail_errno(err, output->path, "cannot be cut to its size");
    return TMS_OK;
}

const char *tms_output_partial_path(const struct tms_output *output)
{
    return output->partial;
}

tms_status tms_output_create(struct tms_output **out, const char *path, uint64_t size, struct tms_error *err)
{
    return tms_output_take(out, path, NULL, size, err);
}

static void output_free(struct tms_output *o)
{
    if (o->fd >= 0) close(o->fd);
    free(o->path);
    free(o->partial);
    free(o);
}

tms_status tms_output_commit(struct tms_output *output, struct tms_error *err)
{
    tms_status status = TMS_OK;
    if (fsync(output->fd) != 0) status = fail_errno(err, output->path, "could not be brought to the disk");
    if (status == TMS_OK && rename(output->partial, output->path) != 0)
        status = fail_errno(err, output->path, "could not be given its name");
    if (status != TMS_OK) {
        tms_output_discard(output);
        return status;
    }
    sync_parent(output->path);
    output_free(output);
    return TMS_OK;
}

void tms_output_discard(struct tms_output *output)
{
    if (!output) return;
    if (output->fd >= 0) (void)unlink(output->partial);
    output_free(output);
}

/* ---- directories ---- */

/* Removes a directory with everything in it; symbolic links are removed, not followed. */
static bool remove_tree(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return unlinkat(parent, name, 0) == 0;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return false;
    }
    bool ok = true;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (!remove_tree(fd, entry->d_name)) ok = false;
    }
    closedir(dir);
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 && ok;
}

tms_status tms_output_dir_create(struct tms_output_dir **out, const char *path, bool replace, struct tms_error *err)
{
    struct tms_output_dir *d = calloc(1, sizeof *d);
    tms_status status = TMS_OK;
    if (!d) return tms_fail_memory(err, sizeof *d);
    d->lock = -1;
    d->replace = replace;
    d->path = without_slashes(path);
    d->partial = partial_name(path);
    if (!d->path || !d->partial) {
        status = tms_fail_memory(err, strlen(path));
        goto done;
    }
    if (tms_path_exists(d->path) && !replace) {
        status =
            tms_fail(err, TMS_EUSAGE, "%s: exists already; choose another name, remove it, or use --force", d->path);
        goto done;
    }
    if (tms_path_exists(d->path) && !tms_path_is_dir(d->path)) {
        status = tms_fail(err, TMS_EUSAGE, "%s: is a file, a folder is to be written there", d->path);
        goto done;
    }
    if (mkdir(d->partial, 0777) != 0 && errno != EEXIST) {
        status = fail_errno(err, d->path, "cannot be created");
        goto done;
    }
    d->lock = open(d->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->lock < 0) {
        status = fail_errno(err, d->partial, "cannot be opened");
        goto done;
    }
    if (flock(d->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        status = tms_fail(err, TMS_EIO, "%s: another tamis is writing it", d->partial);
        close(d->lock);
        d->lock = -1;
        goto done;
    }
    /* What a killed run left. */
    DIR *dir = opendir(d->partial);
    if (dir) {
        for (struct dirent *entry; (entry = readdir(dir));)
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                (void)remove_tree(d->lock, entry->d_name);
        closedir(dir);
    }
done:
    if (status == TMS_OK) {
        *out = d;
        return TMS_OK;
    }
    tms_output_dir_discard(d);
    return status;
}

const char *tms_output_dir_partial(const struct tms_output_dir *dir)
{
    return dir->partial;
}

static void output_dir_free(struct tms_output_dir *d)
{
    if (d->lock >= 0) close(d->lock);
    free(d->path);
    free(d->partial);
    free(d);
}

tms_status tms_output_dir_commit(struct tms_output_dir *d, struct tms_error *err)
{
    tms_status status = TMS_OK;
    char *old = NULL;
    (void)fsync(d->lock);
    if (tms_path_exists(d->path)) {
        /* Set the old one aside first: at no time is there a half-written folder under the final name. */
        size_t n = strlen(d->path) + sizeof ".tamis-old";
        old = malloc(n);
        if (!old) {
            tms_output_dir_discard(d);
            return tms_fail_memory(err, n);
        }
        snprintf(old, n, "%s.tamis-old", d->path);
        (void)remove_tree(AT_FDCWD, old);
        if (rename(d->path, old) != 0) status = fail_errno(err, d->path, "could not be set aside");
    }
    if (status == TMS_OK && rename(d->partial, d->path) != 0) {
        status = fail_errno(err, d->path, "could not be given its name");
        if (old) (void)rename(old, d->path);
    }
    if (status != TMS_OK) {
        free(old);
        tms_output_dir_discard(d);
        return status;
    }
    if (old) (void)remove_tree(AT_FDCWD, old);
    free(old);
    sync_parent(d->path);
    output_dir_free(d);
    return TMS_OK;
}

tms_status tms_output_dir_scatter(struct tms_output_dir *d, struct tms_error *err)
{
    tms_status status = TMS_OK;
    char *parent = strdup(d->path);
    char *slash = parent ? strrchr(parent, '/') : NULL;
    DIR *dir = parent ? opendir(d->partial) : NULL;
    if (slash) slash[slash == parent ? 1 : 0] = '\0';
    if (!dir) status = parent ? fail_errno(err, d->partial, "cannot be listed") : tms_fail_memory(err, 256);
    for (struct dirent *entry; status == TMS_OK && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *to = tms_path_join(slash ? parent : ".", entry->d_name);
        if (!to)
            status = tms_fail_memory(err, 256);
        else if (renameat(d->lock, entry->d_name, AT_FDCWD, to) != 0)
            status = fail_errno(err, to, "could not be given its name");
        free(to);
    }
    if (dir) closedir(dir);
    free(parent);
    if (status == TMS_OK) sync_parent(d->path);
    tms_output_dir_discard(d);
    return status;
}

void tms_output_dir_discard(struct tms_output_dir *d)
{
    if (!d) return;
    if (d->lock >= 0) (void)remove_tree(AT_FDCWD, d->partial);
    output_dir_free(d);
}

tms_status tms_file_copy(const char *from, const char *to, struct tms_error *err)
{
    enum { STEP = 1 << 20 };
    struct tms_file source = {.fd = -1};
    struct tms_output *output = NULL;
    unsigned char *buffer = NULL;
    tms_status status = tms_file_open(&source, from, err);
    if (status != TMS_OK) return status;
    buffer = malloc(STEP);
    status = buffer ? tms_output_create(&output, to, source.size, err) : tms_fail_memory(err, STEP);
    for (uint64_t at = 0; status == TMS_OK && at < source.size; at += STEP) {
        uint64_t n = source.size - at < STEP ? source.size - at : STEP;
        status = tms_file_read(&source, buffer, n, at, err);
        if (status == TMS_OK) status = tms_output_write(output, buffer, n, at, err);
    }
    free(buffer);
    tms_file_close(&source);
    if (status == TMS_OK) return tms_output_commit(output, err);
    tms_output_discard(output);
    return status;
}

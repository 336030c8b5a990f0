/* What the fuzz targets share: the readers take paths, libFuzzer gives bytes. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* A file in memory with this content. Its path is good until fuzz_file_close. */
struct fuzz_file {
    int fd;
    char path[64];
};

static inline struct fuzz_file fuzz_file_open(const uint8_t *bytes, size_t n)
{
    struct fuzz_file file = {.fd = memfd_create("fuzz", MFD_CLOEXEC)};
    if (file.fd < 0) abort();
    for (size_t done = 0; done < n;) {
        ssize_t part = write(file.fd, bytes + done, n - done);
        if (part <= 0) abort();
        done += (size_t)part;
    }
    snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
    return file;
}

static inline void fuzz_file_close(struct fuzz_file *file)
{
    close(file->fd);
}

/* Ends the run with a finding. */
static inline void fuzz_require(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

#endif

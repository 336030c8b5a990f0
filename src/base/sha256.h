/* SHA-256 (FIPS 180-4): the hash by which model hubs and `sha256sum` name files, and one that nobody can forge. */
#ifndef TMS_BASE_SHA256_H
#define TMS_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tms_sha256 {
    uint32_t state[8];
    uint64_t n; /* bytes so far */
    uint8_t rest[64];
};

void tms_sha256_begin(struct tms_sha256 *hash);
void tms_sha256_add(struct tms_sha256 *hash, const void *bytes, size_t n);
/* Lower-case digits. */
void tms_sha256_end(struct tms_sha256 *hash, char hex[65]);

/* Of a whole file; *size, if not NULL, becomes its length. */
tms_status tms_sha256_file(const char *path, char hex[65], uint64_t *size, struct tms_error *err);

#endif

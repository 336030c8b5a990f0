/* GGUF files, versions 2 and 3: key-values, tensor infos, data. Specification: ggml/docs/gguf.md; the checks are
 * those of ggml/src/gguf.cpp and more. Nothing here knows about models. */
#ifndef TMS_FILE_GGUF_H
#define TMS_FILE_GGUF_H

#include <tamis/codec.h>

#include "base/error.h"
#include "base/file.h"
#include "file/kvs.h"

#define TMS_GGUF_MAX_DIMS      4u
#define TMS_GGUF_MAX_NAME      63u        /* bytes: ggml's GGML_MAX_NAME less the NUL */
#define TMS_GGUF_ALIGNMENT     32u        /* where general.alignment does not say otherwise */
#define TMS_GGUF_MAX_ALIGNMENT (1u << 21) /* 2 MiB, a large page: a hostile 2^31 would pad each tensor to 2 GiB */

struct tms_gguf_tensor {
    const char *name;
    enum tms_type type;
    uint32_t n_dims;
    uint64_t ne[TMS_GGUF_MAX_DIMS]; /* fastest dimension first (ne[0] is the row length); 1 beyond n_dims */
    uint64_t offset;                /* of the first byte, from the start of its file */
    uint64_t bytes;
    uint32_t file; /* index into files */
};

struct tms_gguf {
    size_t n_files; /* 1, or the number of shards */
    struct tms_file *files;
    uint32_t version;
    uint32_t alignment;
    struct tms_kvs kvs; /* of the first shard, split.* included */
    size_t n_tensors;
    struct tms_gguf_tensor *tensors;        /* shard after shard, in the order of the infos */
    const struct tms_gguf_tensor **by_name; /* the same, sorted by name */
    struct tms_arena arena;                 /* owns names */
};

/* Opens a file, or, given the first shard of a split, all its shards (names PREFIX-00001-of-00005.gguf). Checks
 * everything that can be known without tensor data; TMS_EINPUT names file, key or tensor, and offset. A big-endian
 * file is recognised and refused. */
tms_status tms_gguf_open(struct tms_gguf **out, const char *path, struct tms_error *err);
void tms_gguf_close(struct tms_gguf *gguf);
const struct tms_gguf_tensor *tms_gguf_find(const struct tms_gguf *gguf, const char *name);

/* general.alignment of a file with these keys, or the default; 0 if its value is none: not a u32, not a power
 * of two, or above the maximum. */
uint32_t tms_gguf_alignment(const struct tms_kvs *kvs);
/* Bytes of a tensor without padding. NULL if type and shape make sense, else the end of a sentence that begins with
 * "tensor … " and says why not. */
const char *tms_gguf_tensor_bytes(enum tms_type type, uint32_t n_dims, const uint64_t *ne, uint64_t *bytes);
/* "q4_k [256, 2]" for messages, cut when it does not fit. */
const char *tms_gguf_shape_text(char out[128], enum tms_type type, uint32_t n_dims, const uint64_t *ne);

/* Writing: a layout is planned from key-values, names, types and shapes alone. */
struct tms_gguf_plan_tensor {
    const char *name; /* borrowed */
    enum tms_type type;
    uint32_t n_dims;
    uint64_t ne[TMS_GGUF_MAX_DIMS];
    uint64_t offset; /* set by tms_gguf_layout: first byte, from the start of the file */
    uint64_t bytes;  /* set by tms_gguf_layout; the padding behind it is not counted */
};

/* Lays out one GGUF v3 file with the tensors in the given order, each padded to the alignment that kvs names in
 * general.alignment (default 32), as llama.cpp demands: offset = padded sum of those before. *header gets the
 * whole beginning of the file up to the first tensor (what it held before is freed); *file_size the size of the
 * complete file, padding of the last tensor included. TMS_EUSAGE if names, types or shapes are none that a GGUF
 * file can hold. */
tms_status tms_gguf_layout(const struct tms_kvs *kvs, struct tms_gguf_plan_tensor *tensors, size_t n,
                           struct tms_buf *header, uint64_t *file_size, struct tms_error *err);

/* "PREFIX-00002-of-00005.gguf" for `path` "PREFIX.gguf" (the ending ".gguf" is taken off if it is there), number
 * counted from 0; to be freed. */
char *tms_gguf_shard_path(const char *path, unsigned number, unsigned count);

#endif

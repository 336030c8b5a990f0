/* safetensors files: u64 header length, JSON header, tensors end to end.
 *
 * Format and the order in which the reference writes tensors: huggingface/safetensors, README and
 * safetensors/src/tensor.rs (version 0.6). Nothing here knows about models. */
#ifndef TMS_FILE_SAFETENSORS_H
#define TMS_FILE_SAFETENSORS_H

#include <tamis/codec.h>

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#define TMS_ST_MAX_HEADER 100000000u /* bytes; the limit of the reference */
#define TMS_ST_MAX_DIMS   8u
#define TMS_ST_MAX_NAME   4096u /* bytes of a tensor's name */

struct tms_st_tensor {
    const char *name;
    enum tms_type type;
    uint32_t n_dims;                 /* 0: a scalar */
    uint64_t shape[TMS_ST_MAX_DIMS]; /* slowest dimension first */
    uint64_t n_elems;
    uint64_t offset; /* of the first byte, from the start of the file */
    uint64_t bytes;
};

struct tms_safetensors {
    struct tms_file file;
    uint64_t data_offset; /* 8 + header length */
    size_t n_tensors;
    struct tms_st_tensor *tensors;        /* in the order of their data */
    const struct tms_st_tensor **by_name; /* the same, sorted by name */
    size_t n_metadata;
    struct {
        const char *key, *value;
    } * metadata;           /* __metadata__, in the order of the file */
    struct tms_arena arena; /* owns names, metadata and tensors */
};

/* Opens and checks everything that can be known without reading tensor data: header length, UTF-8, JSON, the
 * fields of each tensor, its size against its dtype and shape, that the tensors fill the data section without
 * overlap or hole, and that the file ends where they do. TMS_EINPUT names file and tensor and offsets; a Git LFS
 * pointer is recognised as such. */
tms_status tms_safetensors_open(struct tms_safetensors **out, const char *path, struct tms_error *err);
void tms_safetensors_close(struct tms_safetensors *st);
/* Binary search by name; NULL if there is none. */
const struct tms_st_tensor *tms_safetensors_find(const struct tms_safetensors *st, const char *name);

/* The spelling in headers ("BF16", "F8_E4M3"), NULL for types that safetensors has no name for. */
const char *tms_st_dtype_name(enum tms_type type);
/* TMS_TYPE_NONE if unknown. */
enum tms_type tms_st_dtype_from_name(const char *name);
/* Bits of one element, 0 for types that safetensors has no name for. */
unsigned tms_st_dtype_bits(enum tms_type type);
/* Place in the reference's order of types, which is that of widening alignment; -1 if it has no name for it. */
int tms_st_dtype_rank(enum tms_type type);

/* Writing: a layout is planned from names, types and shapes alone, then the header is one buffer and every tensor
 * has its place. */
struct tms_st_plan_tensor {
    const char *name; /* borrowed */
    enum tms_type type;
    uint32_t n_dims;
    uint64_t shape[TMS_ST_MAX_DIMS];
    size_t tag;      /* the caller's own; moves with the tensor when they are sorted */
    bool last;       /* place behind all others of its type: for tensors whose length is known late */
    uint64_t offset; /* set by tms_st_layout: first byte, from the start of the file */
    uint64_t bytes;  /* set by tms_st_layout */
};

/* Sorts `tensors` into the reference's order (types from the widest alignment to the narrowest, then names, but
 * `last` ones behind the others of their type) and sets offset and bytes; *header gets the whole beginning of
 * the file, length field included, padded with spaces to a multiple of 8 and to at least `min_header` bytes,
 * with "__metadata__":{"format":"pt"} (what *header held before is freed). *file_size gets the size of the complete
 * file. TMS_EUSAGE if a name comes twice, is no UTF-8 or is "__metadata__", or a shape has no whole number of bytes.
 * After a failure the tensors may stand in another order, otherwise untouched. */
tms_status tms_st_layout(struct tms_st_plan_tensor *tensors, size_t n, uint64_t min_header, struct tms_buf *header,
                         uint64_t *file_size, struct tms_error *err);

#endif

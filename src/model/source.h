/* A model as a list of logical tensors, whatever it is stored as. Each can hand out any of its values as f32. */
#ifndef TMS_MODEL_SOURCE_H
#define TMS_MODEL_SOURCE_H

#include <jansson.h>

#include "file/gguf.h"
#include "file/hf_folder.h"
#include "model/arch.h"
#include "model/config.h"

enum tms_source_kind {
    TMS_SOURCE_HF, /* a folder, or one .safetensors file (then has_config is false) */
    TMS_SOURCE_GGUF,
    TMS_SOURCE_CONFIG, /* a lone config.json: names and shapes by the architecture, no data */
};

#define TMS_NO_SCALE SIZE_MAX

struct tms_tensor {
    const char *name;
    enum tms_type type;
    uint32_t n_dims;
    uint64_t shape[TMS_ST_MAX_DIMS]; /* slowest dimension first */
    uint64_t rows, cols;             /* cols = last dimension, rows = all others together; 1 for what is missing */
    uint64_t n_elems;
    uint64_t n_weights; /* that it stands for: n_elems, or more where several share a byte */
    uint32_t file;
    uint64_t offset, bytes;
    size_t scale;                    /* FP8: index of the tensor of block scales, else TMS_NO_SCALE */
    bool is_scale;                   /* belongs to another tensor and is no weight of its own */
    const struct tms_packed *packed; /* how the bytes stand for n_weights values (packed.h), else NULL */
};

struct tms_source {
    enum tms_source_kind kind;
    char *path;
    size_t n_files;
    const struct tms_file **files; /* borrowed from hf or gguf */
    size_t n_tensors;
    struct tms_tensor *tensors; /* file after file; within a file by name (HF) or in file order (GGUF) */
    size_t *by_name;            /* indices, sorted by name */
    struct tms_hf *hf;
    struct tms_gguf *gguf;
    json_t *config_json;
    bool has_config;
    struct tms_config config;
    const struct tms_arch *arch; /* NULL if unknown */
    struct tms_arena arena;
};

/* Opens a folder, a .safetensors or .gguf file, or a config.json. `report` as in tms_hf_open. */
tms_status tms_source_open(struct tms_source **out, const char *path, tms_report_fn report, void *report_ctx,
                           struct tms_error *err);
void tms_source_close(struct tms_source *source);
const struct tms_tensor *tms_source_find(const struct tms_source *source, const char *name);

/* What general.architecture or config.json calls it; "" if nothing does. */
const char *tms_source_arch_name(const struct tms_source *source);
/* Weights: values of all tensors but scales and tables. */
uint64_t tms_source_parameters(const struct tms_source *source);

/* True if the weights are not quantized, or by a method (config.json's quant_method) that tamis reads. */
bool tms_source_method_known(const struct tms_source *source);
/* True if tamis can turn the stored type into numbers. */
bool tms_source_decodes(const struct tms_tensor *tensor);
/* Values that can only be read together: whole blocks, and whole rows where scales belong to rows. */
uint64_t tms_source_unit(const struct tms_tensor *tensor);
/* Room that the stored bytes of n values take. */
uint64_t tms_source_raw_bytes(const struct tms_tensor *tensor, uint64_t n);
/* The shape of the values: that of the tensor, or of the weights that packed bytes stand for. Returns n_dims. */
uint32_t tms_source_shape(const struct tms_tensor *tensor, uint64_t shape[TMS_ST_MAX_DIMS]);
/* n of the n_weights values from value `first` on, as f32. `first` and n are multiples of tms_source_unit (the last
 * range may end with the tensor). raw: room for the stored bytes. */
tms_status tms_source_read(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first, uint64_t n,
                           void *raw, float *out, struct tms_error *err);
/* Stored bytes of a range of stored elements. */
tms_status tms_source_read_raw(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first,
                               uint64_t n, void *raw, struct tms_error *err);

#endif

/* A target: one model in one output type. It is planned whole (every tensor, every byte's place) before the first
 * weight is read; then src/target/pipeline.c fills it in. */
#ifndef TMS_TARGET_TARGET_H
#define TMS_TARGET_TARGET_H

#include <tamis/tamis.h>

#include "base/file.h"
#include "calib/imatrix.h"
#include "file/made_files.h"
#include "model/source.h"
#include "model/turn.h"
#include "plan/spec.h"

/* One stored tensor of the output. */
struct tms_out_tensor {
    const char *name;
    enum tms_type type;
    uint32_t n_dims;
    uint64_t shape[TMS_ST_MAX_DIMS]; /* slowest first */
    uint64_t n_elems, bytes;
    uint32_t file;
    uint64_t offset; /* from the start of its file */
    bool is_scale;   /* belongs to the weights of another tensor */
    bool fallback;
    bool late;            /* its length is known only at the end (quant_state with nested offset) */
    const void *contents; /* fixed bytes, or NULL if a route fills it */
};

#define TMS_NO_OUT SIZE_MAX

enum tms_route_kind {
    TMS_ROUTE_COPY,  /* the stored bytes as they are */
    TMS_ROUTE_CODEC, /* decode, transform, encode with a codec of the table */
    TMS_ROUTE_BNB4,
    TMS_ROUTE_INT8,
    TMS_ROUTE_GRID, /* GPTQ, AWQ, compressed-tensors */
};

struct tms_fold; /* fold.h */

/* How one source tensor, or a part of it, gets into the output. Several may fill one output tensor (experts). */
struct tms_route {
    size_t source; /* index of the tensor */
    enum tms_route_kind kind;
    size_t out; /* index of the tensor that gets the codes */
    const struct tms_codec *codec;
    const float *weights;   /* CODEC: importance of the output's columns, [matrices][cols], or NULL; borrowed from the
                             * imatrix */
    const char *made;       /* CODEC: a file with the codes, in the order of the output; NULL: they are encoded */
    struct tms_fold *fold;  /* scales that the values get before all else, or NULL; in the target's arena */
    struct tms_turn turn;   /* what is done to the values, and where they stand in the output tensor */
    uint64_t part, n_parts; /* part of the source tensor, cut into so many equal ones, that is taken; n_parts 1: all */
    bool moves;             /* CODEC: blocks are made of the source's own codes (grid_blocks.h) */
    enum tms_type through;  /* BNB4, INT8: the values are rounded to it first; TMS_TYPE_NONE: as they are */
    /* BNB4: absmax, and with double quantization nested_absmax and quant_state; INT8: SCB in `absmax` */
    size_t absmax, nested_absmax, quant_state;
    float *absmax_values;        /* [blocks] or [rows], from the tensor's first job to its last */
    struct tms_grid_route *grid; /* GRID; in the target's arena */
    double squared_error;        /* set by the pipeline: sum of (decoded - source)^2 over n_values */
    uint64_t n_values;
};

struct tms_out_file {
    char *name;            /* "" for a single file: then the target's path is the file */
    struct tms_kvs kvs;    /* GGUF */
    struct tms_buf header; /* the beginning of the file */
    uint64_t size;         /* of the whole file */
    struct tms_output *output;
};

struct tms_target {
    const struct tms_source *source;
    struct tms_spec spec;
    bool folder;                /* a Hugging Face folder */
    char *path;                 /* where it goes: a file, a folder, or for split GGUFs the pattern's "PREFIX.gguf" */
    struct tms_output_dir *dir; /* folders and splits are written in one */
    size_t n_outs, cap_outs;
    struct tms_out_tensor *outs;
    size_t n_routes, cap_routes;
    struct tms_route *routes;
    size_t n_files;
    struct tms_out_file *files;
    struct tms_kvs kvs;               /* GGUF: the model's key-values; bitsandbytes: none */
    struct tms_made_files side_files; /* folders: config.json, and what else does not come from the source's folder */
    size_t n_quantized, n_kept, n_fallbacks;
    size_t n_seen, n_unseen, n_raised; /* of method gptq, as in struct tms_result */
    double most_damp;
    size_t n_again; /* tensors that were quantized before and are quantized anew */
    uint64_t n_parameters;
    struct tms_arena arena; /* owns names and contents */
};

struct tms_target_options {
    const struct tms_quantize_options *user; /* what the caller asked for */
    bool converter;              /* GGUF: the converter's order and rule of types, ftype gives the type of matrices */
    bool convert_auto;           /* the matrices' type is that of the source (bf16 or f16) */
    bool weights_come;           /* instead of an imatrix: a run that writes would make one first */
    bool preview;                /* types and sizes only: no key-values, no tokenizer, no layout of GGUF files */
    const struct tms_kvs *extra; /* GGUF: keys that go behind all others, or NULL */
    const struct tms_source *split_like; /* every tensor in the file that it has there, if that can be; or NULL */
    const struct tms_imatrix *imatrix;   /* importance weights, or NULL; lives as long as the target */
    tms_report_fn warn;
    void *warn_ctx;
};

/* Plans a target; TMS_EINPUT or TMS_EUSAGE if the source cannot be written so. */
tms_status tms_target_plan(struct tms_target **out, const struct tms_source *source, const struct tms_spec *spec,
                           const struct tms_target_options *options, struct tms_error *err);
void tms_target_free(struct tms_target *target);

/* The dialects; called by tms_target_plan. */
tms_status tms_target_plan_gguf(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err);
tms_status tms_target_plan_bnb(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err);
tms_status tms_target_plan_grid(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err);
tms_status tms_target_plan_hf(struct tms_target *t, const struct tms_target_options *options, struct tms_error *err);

/* The file that options->imatrix names, with the entries that the options choose. TMS_EINPUT for statistics of another
 * model than the source. */
tms_status tms_open_imatrix(struct tms_imatrix **out, const struct tms_quantize_options *options,
                            const struct tms_source *source, struct tms_error *err);

/* Folders: lays the files out again with the lengths that are known now; places before late tensors do not
 * change. */
tms_status tms_target_relayout(struct tms_target *t, struct tms_error *err);
/* Folders: the text of config.json. */
tms_status tms_target_config_text(const struct tms_target *t, struct tms_buf *out, struct tms_error *err);
/* Folders of several shards: the text of model.safetensors.index.json. */
tms_status tms_target_index_text(const struct tms_target *t, struct tms_buf *out, struct tms_error *err);
/* True for files of the source's folder that are copied into the output's: all but weights and config.json. */
bool tms_target_goes_along(const char *name);
/* Folders: config.json, index and the other files of the folder, into `dir`. */
tms_status tms_target_write_side_files(const struct tms_target *t, const char *dir, struct tms_error *err);
/* The quant_state JSON of a 4-bit tensor, one of n_parts equal ones of a source tensor. dtype: what the weights were
 * before, TMS_TYPE_NONE: as the tensor's type. offset NULL: no double quantization. */
void tms_bnb_quant_state(struct tms_buf *out, const struct tms_spec *spec, const struct tms_tensor *tensor,
                         uint64_t n_parts, enum tms_type dtype, const float *offset);

/* F16, BF16, F32, F64: a number by itself, without scales. */
static inline bool tms_is_plain_float(enum tms_type type)
{
    return type == TMS_F32 || type == TMS_F16 || type == TMS_BF16 || type == TMS_F64;
}

/* Gives every output tensor the file that it has in `like`. The number of files; 0 if they do not come one after the
 * other (then nothing changes). */
size_t tms_target_split_like(struct tms_target *t, const struct tms_source *like);

/* For a source tensor that is quantized and would be quantized anew: counts it, or refuses without leave. */
tms_status tms_target_quantize_again(struct tms_target *t, const struct tms_tensor *tensor,
                                     const struct tms_target_options *options, struct tms_error *err);
/* After planning: warns if there are such. */
void tms_target_warn_of_again(const struct tms_target *t, const struct tms_target_options *options);

/* Appends; NULL if memory is short. */
struct tms_out_tensor *tms_target_add_out(struct tms_target *t, const char *name, enum tms_type type, uint32_t n_dims,
                                          const uint64_t *shape);
struct tms_route *tms_target_add_route(struct tms_target *t, size_t source, enum tms_route_kind kind, size_t out);

#endif

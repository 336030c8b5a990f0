/* tamis: quantize large language models, from any format to any format.
 *
 * The whole of the library's interface; the command line uses nothing else. A model is opened, looked at, and
 * written in one or several target types. Nothing here prints or exits; every failure is a status and one line.
 *
 *     struct tms_error err;
 *     struct tms_quantize_options options = {.types = (const char *const[]){"q4_k_m", "nf4:dq"}, .n_types = 2};
 *     struct tms_result *results;
 *     if (tms_quantize("Qwen2.5-7B", "out", &options, &results, &err) != TMS_OK) puts(err.message);
 *     tms_results_free(results, 2);
 */
#ifndef TAMIS_TAMIS_H
#define TAMIS_TAMIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tamis/codec.h>
#include <tamis/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0" */
const char *tms_version(void);

/* Asks all running work of this process to stop soon with TMS_ECANCELLED, leaving nothing half written. Safe in a
 * signal handler. */
void tms_cancel(void);

/* Processors this process may use. */
unsigned tms_n_processors(void);

/* ---- telling the caller -------------------------------------------------------------------------------------- */

/* One line of a finding or a warning, without newline. */
typedef void (*tms_line_fn)(void *ctx, const char *line);

struct tms_progress {
    const char *what;     /* "reading", "checking what was written", … */
    uint64_t done, total; /* bytes of the source */
};
/* Called from the calling thread, at most about ten times a second, and once at the end of each phase. */
typedef void (*tms_progress_fn)(void *ctx, const struct tms_progress *progress);

/* ---- looking at a model -------------------------------------------------------------------------------------- */

struct tms_model;

/* path: a Hugging Face folder, a .safetensors or .gguf file (the first shard of a split), or a config.json. Reads
 * headers only. */
tms_status tms_model_open(struct tms_model **out, const char *path, struct tms_error *err);
void tms_model_close(struct tms_model *model);

struct tms_model_info {
    const char *format;       /* "Hugging Face folder", "safetensors file", "GGUF", "config.json" */
    const char *architecture; /* "Qwen2ForCausalLM", "qwen2"; "" if the model does not say */
    const char *name;         /* general.name of a GGUF, else the last part of the path */
    bool architecture_known;
    bool has_data; /* false for a lone config.json */
    size_t n_tensors, n_files;
    uint64_t n_parameters; /* weights; scales and tables are not counted */
    uint64_t tensor_bytes; /* of all tensors */
    uint64_t file_bytes;   /* of all files, headers included; 0 for a lone config.json */
};
/* Strings are borrowed from the model. */
void tms_model_describe(const struct tms_model *model, struct tms_model_info *info);

struct tms_tensor_info {
    const char *name;
    const char *type; /* as its format calls it: "q4_k" in GGUF, "bfloat16" in safetensors */
    uint32_t n_dims;
    uint64_t shape[8]; /* slowest dimension first, as torch has it */
    uint64_t n_elems;  /* as stored: a byte that holds two codes counts once */
    uint64_t bytes;
    bool is_scale; /* absmax, block scales, maps, …: belongs to the weights of another tensor */
    bool fallback; /* previews: its rows do not fit the type that the rule gave, another stands in */
};
/* i < n_tensors; by name, numbers in numeric order. */
void tms_model_tensor(const struct tms_model *model, size_t i, struct tms_tensor_info *info);

/* ---- target types -------------------------------------------------------------------------------------------- */

struct tms_type_info {
    const char *name;      /* as --to takes it, lower case */
    const char *alias;     /* or NULL */
    const char *container; /* "GGUF", "Hugging Face folder" */
    const char *explanation;
};
/* i = 0 … while it returns true. */
bool tms_type_at(size_t i, struct tms_type_info *info);

/* ---- what would be written ----------------------------------------------------------------------------------- */

struct tms_preview;

/* The tensors of `model` as `type` would store them; weights are not read. */
tms_status tms_preview(struct tms_preview **out, const struct tms_model *model, const char *type,
                       struct tms_error *err);
void tms_preview_free(struct tms_preview *preview);

struct tms_preview_info {
    const char *type; /* canonical: "Q4_K_M", "nf4:dq" */
    const char *container;
    size_t n_tensors;
    uint64_t n_parameters; /* weights that it stands for */
    uint64_t tensor_bytes; /* of all tensors, scales included */
    uint64_t scale_bytes;  /* of those, in tensors of scales (GGUF blocks carry theirs inside) */
    uint64_t file_bytes;   /* size on disk of the weight files, headers included; 0 if it cannot be known */
    size_t n_fallbacks;
};
void tms_preview_describe(const struct tms_preview *preview, struct tms_preview_info *info);
void tms_preview_tensor(const struct tms_preview *preview, size_t i, struct tms_tensor_info *info);

/* ---- checking ------------------------------------------------------------------------------------------------ */

struct tms_check_options {
    unsigned n_threads;  /* 0: all processors */
    tms_line_fn finding; /* one line per problem, in a fixed order */
    void *finding_ctx;
    tms_progress_fn progress;
    void *progress_ctx;
};

struct tms_check_result {
    size_t n_findings; /* problems */
    size_t n_tensors;
    size_t n_unread; /* tensors of types that tamis cannot decode: their values were not looked at */
    uint64_t bytes;  /* of tensors, read and looked at */
};

/* Reads the whole model. TMS_OK even if there are findings, TMS_EINPUT only if it cannot be opened at all. */
tms_status tms_check(const char *path, const struct tms_check_options *options, struct tms_check_result *result,
                     struct tms_error *err);

/* ---- writing ------------------------------------------------------------------------------------------------- */

struct tms_quantize_options {
    const char *const *types; /* target types; with tms_convert: one of f32 f16 bf16 q8_0 auto */
    size_t n_types;
    unsigned n_threads;         /* 0: all processors */
    bool pure;                  /* GGUF: one type for all tensors */
    bool allow_requantize;      /* GGUF sources: quantized tensors may be quantized anew */
    bool force;                 /* replace an output folder that exists */
    bool dry_run;               /* plan everything, write nothing */
    bool vocab_only;            /* GGUF: key-values and tokenizer, no tensors */
    bool no_verify;             /* do not read the outputs back */
    const char *model_name;     /* GGUF: general.name; NULL: from the folder's name */
    const char *pre;            /* GGUF: name of the pre-tokenizer; NULL: recognised */
    uint64_t split_max_bytes;   /* GGUF: bytes of tensors per file; 0: one file */
    uint64_t split_max_tensors; /* GGUF: tensors per file; 0: no limit */
    uint64_t max_shard_bytes;   /* Hugging Face folders: bytes per shard; 0: 50 GB, as transformers 5 */
    /* GGUF, as llama-quantize has them: */
    const char *imatrix; /* importance weights: a file of llama-imatrix, either format; or NULL */
    const char *const *include_weights, *const *exclude_weights; /* entries of it, by parts of their names */
    size_t n_include_weights, n_exclude_weights;
    bool leave_output_tensor;                              /* output.weight stays as it is */
    const char *output_tensor_type, *token_embedding_type; /* "q8_0"; or NULL */
    const char *const *tensor_types; /* "REGEX=TYPE"; the first that matches a tensor's name counts */
    size_t n_tensor_types;
    bool keep_split;                /* as many files as the source has */
    const char *const *override_kv; /* "KEY=int|float|bool|str:VALUE" */
    size_t n_override_kv;
    const char *prune_layers; /* "3,4,11": layers to leave out; or NULL */
    bool rules_of_2025;       /* mixtures and fallbacks as llama.cpp had them in February 2025 */
    bool provenance;          /* GGUF: the keys tamis.version, tamis.recipe, tamis.source.hash */
    const char *manifest;     /* a file that gets sources, recipe and outputs with SHA-256 hashes as JSON; or NULL */
    tms_line_fn warning;
    void *warning_ctx;
    tms_progress_fn progress;
    void *progress_ctx;
};

struct tms_result {
    char *type;          /* canonical name */
    char *path;          /* file or folder written (first file of a split) */
    size_t n_files;      /* weight files */
    uint64_t file_bytes; /* of the weight files */
    uint64_t tensor_bytes;
    uint64_t n_parameters;
    size_t n_tensors;
    size_t n_quantized, n_kept, n_fallbacks; /* tensors */
    double rms_error;      /* sqrt(mean (decoded - source)^2) over all weights; with :dq before absmax is quantized */
    double rms_weight;     /* sqrt(mean source^2) */
    double thread_seconds; /* encoding, comparing, writing, summed over threads */
    bool verified;         /* read back: headers parse, every byte is the one encoded */
};

/* Writes `model` in every one of the types from one read. One type: `out` is the file (GGUF) or folder to write.
 * Several: `out` is a folder that gets NAME-TYPE.gguf files and NAME-TYPE folders. *results gets n_types entries
 * (tms_results_free); *seconds and *source_bytes, if not NULL, the wall time and the bytes read. */
tms_status tms_quantize(const char *model, const char *out, const struct tms_quantize_options *options,
                        struct tms_result **results, double *seconds, uint64_t *source_bytes, struct tms_error *err);

/* Hugging Face folder to GGUF as llama.cpp's converter writes it: its order of tensors and keys, and one of the
 * types f32 f16 bf16 q8_0 auto for all matrices. */
tms_status tms_convert(const char *model, const char *out, const struct tms_quantize_options *options,
                       struct tms_result **results, double *seconds, uint64_t *source_bytes, struct tms_error *err);

void tms_results_free(struct tms_result *results, size_t n);

/* ---- comparing two models ------------------------------------------------------------------------------------ */

struct tms_diff;

struct tms_diff_options {
    unsigned n_threads; /* 0: all processors */
    tms_progress_fn progress;
    void *progress_ctx;
};

/* Decodes all weights of two models, of whatever formats, and compares. Names of a folder and of a GGUF file are
 * matched by the architecture, and rows that its conversion permutes are put back. TMS_OK also if they differ;
 * TMS_EINPUT if one cannot be opened or names cannot be matched. */
tms_status tms_diff_models(struct tms_diff **out, const char *a, const char *b, const struct tms_diff_options *options,
                           struct tms_error *err);
void tms_diff_free(struct tms_diff *diff);

struct tms_diff_info {
    bool equal; /* the same tensors with the same values; types and keys may differ */
    size_t n_tensors, n_equal, n_differing, n_only_a, n_only_b;
    size_t n_undecoded;    /* differing bytes of a type that tamis cannot decode (counted as differing, too) */
    size_t n_types;        /* tensors whose type differs */
    bool keys_compared;    /* both are GGUF or both have a config.json */
    size_t n_keys;         /* that differ */
    uint64_t n_values;     /* compared */
    double rms_error;      /* sqrt(mean (a - b)^2) over all tensors that both have */
    double relative_error; /* |a - b| / |a|, Euclidean norms */
    double max_error;      /* largest |a - b| */
};
void tms_diff_describe(const struct tms_diff *diff, struct tms_diff_info *info);

enum tms_diff_state {
    TMS_DIFF_EQUAL,
    TMS_DIFF_VALUES,
    TMS_DIFF_SHAPE,
    TMS_DIFF_UNDECODED, /* the bytes differ, and tamis cannot decode one of the types */
    TMS_DIFF_ONLY_A,
    TMS_DIFF_ONLY_B,
};
struct tms_diff_tensor {
    const char *name;
    const char *type_a, *type_b; /* NULL on the side that lacks it */
    enum tms_diff_state state;
    uint64_t n_values, n_differing;
    double rms_error, relative_error, max_error; /* as above; infinite if only one side is a number */
    uint64_t max_row, max_column;                /* where max_error is */
};
/* i < n_tensors; in the order of a, then those that only b has. Strings are borrowed from the diff. */
void tms_diff_tensor_at(const struct tms_diff *diff, size_t i, struct tms_diff_tensor *tensor);

/* A key of GGUF files, or of config.json as "outer.inner", with its values as texts; NULL on the side that lacks it. */
struct tms_diff_key {
    const char *key, *a, *b;
};
/* i < n_keys */
void tms_diff_key_at(const struct tms_diff *diff, size_t i, struct tms_diff_key *key);

/* ---- verifying ----------------------------------------------------------------------------------------------- */

struct tms_verify_options {
    /* How the file was made, as far as it does not tell itself: with n_types 0 the type comes from the file
     * (general.file_type, quantization_config or dtype), as do the types of tensors, where they are not those of the
     * file type's rules, unless an option here asks for types; and the way it is split, unless an option here does.
     * Threads and progress are taken from here, too. */
    struct tms_quantize_options recipe;
    tms_line_fn finding; /* one line per difference, in the order of the file */
    void *finding_ctx;
};

struct tms_verify_result {
    char type[32]; /* what was rebuilt: "Q4_K_M", "nf4:dq" */
    size_t n_findings;
    size_t n_tensors, n_differing; /* stored tensors, scales included */
    size_t n_other_types; /* tensors whose types are not those of the file type's rules; rebuilt with the file's own */
    uint64_t bytes;       /* compared */
    bool identical;       /* headers, padding and config.json, too: tamis would write the very same bytes */
    /* the first difference in tensor data, if n_differing */
    char tensor[256];
    uint64_t row, block; /* block within its row; of 4-bit codes of bitsandbytes, within the tensor */
};

/* Rebuilds in memory what tms_quantize or tms_convert would write from `source`, and compares with `file`: a GGUF file
 * (the first of a split) or a folder, for bitsandbytes or plain. Nothing is written. TMS_OK even if there are findings.
 */
tms_status tms_verify(const char *file, const char *source, const struct tms_verify_options *options,
                      struct tms_verify_result *result, struct tms_error *err);

/* ---- how types work ------------------------------------------------------------------------------------------ */

/* Consecutive bytes of a block. */
struct tms_layout_field {
    const char *name;
    uint32_t bytes;
    const char *holds;
};

struct tms_explanation {
    const char *name; /* of a tensor type: "q4_k", "nf4:dq" */
    int id;           /* ggml's, -1 if it has none */
    const char *what, *formula, *readers;
    const char *file_type, *file_type_says; /* if a file type was asked for: its name and what it is; else NULL */
    uint32_t block_elems, block_bytes;      /* 0 bytes: no whole number */
    double bits_per_weight;
    uint32_t code_bits;                    /* of the integer that stands for a weight; 0: it is no quantized type */
    uint32_t group;                        /* weights that share the finest scale; 0: a row, or none */
    const struct tms_layout_field *fields; /* in the order of their bytes */
    size_t n_fields;
    bool decodes, encodes, wants_importance; /* what tamis can; the last: encodes only with importance weights */
};

/* By name of a tensor type or, if there is none, of a file type ("q4_k_m": explains what most tensors get). False if
 * tamis knows neither. */
bool tms_explain(const char *type, struct tms_explanation *out);
/* i = 0 … while it returns true: all tensor types, bitsandbytes' last. */
bool tms_explain_at(size_t i, struct tms_explanation *out);

/* Relative errors |decoded - x| / |x| of one tensor. */
struct tms_explain_errors {
    uint64_t rows, cols;
    bool has_type; /* tamis encodes the type, and the rows fit its blocks */
    double type;
    /* q = round(x / scale) + zero point, 0 <= q < 2^bits, with one scale and zero point for the tensor, for each row,
     * for each group of a row: scale = (max - min) / (2^bits - 1), where 0 lies between min and max */
    uint32_t bits, group; /* of the type; bits 0: no comparison */
    double per_tensor, per_row, per_group;
};
/* Encodes a tensor of a model in the type and in plain integers and measures. Types that want importance weights get
 * equal ones. */
tms_status tms_explain_measure(struct tms_explain_errors *out, const char *type, const char *model, const char *tensor,
                               struct tms_error *err);

#ifdef __cplusplus
}
#endif
#endif

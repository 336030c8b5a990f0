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
/* After tms_cancel: work may begin again. */
void tms_resume(void);

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

/* ---- texts and token ids ------------------------------------------------------------------------------------- */

/* A model's tokenizer. Used by one thread at a time. */
struct tms_text;

/* path: a Hugging Face folder (tokenizer files are enough) or a GGUF file (a vocabulary is enough). */
tms_status tms_text_open(struct tms_text **out, const char *path, struct tms_error *err);
void tms_text_close(struct tms_text *text); /* NULL is allowed */
/* One more than the largest id. */
uint64_t tms_text_n_vocab(const struct tms_text *text);

struct tms_text_options {
    bool special;          /* with what the tokenizer puts around a text (begin of sequence, …) */
    bool no_parse_special; /* texts of special tokens are plain text: for input that is not trusted */
};
/* The ids of n bytes of text; bytes that are no UTF-8 are read as U+FFFD. The caller frees *ids. options may be
 * NULL. */
tms_status tms_text_encode(struct tms_text *text, const char *bytes, size_t n, const struct tms_text_options *options,
                           int32_t **ids, size_t *n_ids, struct tms_error *err);
/* The text of ids, always UTF-8, with a NUL behind its *n bytes. The caller frees *out. */
tms_status tms_text_decode(const struct tms_text *text, const int32_t *ids, size_t n_ids, bool special, char **out,
                           size_t *n, struct tms_error *err);
/* The bytes of one token, special ones too; they may be a part of a character. The caller frees *out. */
tms_status tms_text_piece(const struct tms_text *text, int32_t id, char **out, size_t *n, struct tms_error *err);
/* Special tokens (begin of sequence, end of turn, …), which are no text. */
bool tms_text_is_special(const struct tms_text *text, int32_t id);

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

/* Whether a program will load the folder: reader is "vllm", "transformers", "gptqmodel" or "autoawq". One line per rule
 * of its loader that does not hold; values are not read (tms_check does that). */
tms_status tms_check_reader(const char *path, const char *reader, tms_line_fn finding, void *finding_ctx,
                            size_t *n_findings, struct tms_error *err);

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
    /* Methods that read a text: */
    const char *method; /* "rtn" or NULL: plain rounding, with an imatrix weighted; "search": weighted by the imatrix;
                         * "gptq": with error feedback over `data`; "awq", "smooth": with scales of inputs
                         * found over it; "awq+gptq", "smooth+gptq": both; "hqq": zero points, without
                         * a text (man page) */
    const char *data;   /* a text, or .jsonl, as in tms_calibrate_options */
    const char *stats;  /* or what tms_calibrate made of one, with Hessians: no text, no walk */
    bool sequential; /* the model is walked for each type: layers see the inputs that the new codes before them make */
    double damp;     /* gptq: of each entry of a Hessian's diagonal, added to it; 0: 0.3, with codes below 4 bits 1 */
    uint64_t n_samples, sample_length;
    const char *template_name; /* of conversations in .jsonl */
    uint64_t ram;              /* most memory of the walk over the text, in bytes; 0: no limit */
    bool leave_output_tensor;  /* output.weight stays as it is */
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
    /* of methods that know the inputs: matrices that are rounded by them, and those that too few tokens reached;
     * Hessians whose damping was raised to make them positive definite, and the most that one needed */
    size_t n_seen, n_unseen, n_raised;
    double most_damp;
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
    char type[64]; /* what was rebuilt: "Q4_K_M", "nf4:dq" */
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

/* ---- running a model ------------------------------------------------------------------------------------------- */

/* A model that is ready to run. Weights stay in their files, mapped, and are decoded as they are used; activations are
 * f32, or rounded to 8 bits where that is fast. Results are the same bits for any number of threads. One call at a
 * time. */
struct tms_session;

struct tms_session_options {
    unsigned n_threads; /* 0: all processors */
    uint64_t context;   /* positions at most; 0: those that the model was made for */
    bool fast;          /* the inputs of linear layers are rounded to 8 bits in blocks of 32, if weights are of a type
                         * with blocks; two to eight times as fast, and about half a percent of noise in every product.
                         * The last bits of results then depend on how tokens are cut into passes */
    const char *kv;     /* type of the cache of keys and values: "f32" (also if NULL), "f16", "bf16", "q8_0", "q5_0",
                         * "q4_0", "c8"; the manual says what they are */
    uint64_t kv_keep_first, kv_keep_last; /* quantized caches: so many tokens of the beginning, and the newest ones as
                                           * seen from each token, are kept in f16 */
    bool llm_int8; /* int8 weights of bitsandbytes meet activations in 8 bits, but for columns in which a token of
                    * the pass reaches 6.0; results then depend on how tokens are cut into passes */
    tms_line_fn warning;
    void *warning_ctx;
};

/* `model` as in tms_model_open. TMS_EINPUT if it has no weights, lacks a tensor or is of an architecture or a type that
 * tamis cannot run. */
tms_status tms_session_open(struct tms_session **out, const char *model, const struct tms_session_options *options,
                            struct tms_error *err);
void tms_session_close(struct tms_session *session); /* NULL is allowed */

struct tms_session_info {
    uint64_t context, model_context; /* as in the options; what the model was made for, 0 if it does not say */
    uint64_t n_vocab, n_layers, hidden;
    uint64_t weight_bytes; /* as stored */
    uint64_t cache_bytes;  /* if the whole context is used */
    uint64_t cache_now_bytes;
};
void tms_session_describe(const struct tms_session *session, struct tms_session_info *info);

/* A text, or token ids (if `ids` is not NULL). Texts need a model with a tokenizer. */
struct tms_prompt {
    const char *text; /* UTF-8 */
    size_t text_bytes;
    const int32_t *ids;
    size_t n_ids;
    bool no_special;       /* without the tokens that the tokenizer puts before a text */
    bool no_parse_special; /* the texts of special tokens in it are plain text: for input that is not trusted */
};

/* Writes the logits of every token of a prompt into a safetensors file: "logits", F32 [tokens, vocabulary]; with
 * hidden_states also "hidden_states", F32 [layers + 1, tokens, hidden]: embeddings, then the state after each layer,
 * the last one after the final norm, as transformers gives them. The file appears complete or not at all. TMS_EINPUT if
 * something in it is not finite. */
struct tms_logits_options {
    bool hidden_states;
    tms_progress_fn progress; /* bytes of weights */
    void *progress_ctx;
};
tms_status tms_session_logits(struct tms_session *session, const struct tms_prompt *prompt, const char *path,
                              const struct tms_logits_options *options, uint64_t *n_tokens, struct tms_error *err);

/* How the next token is chosen, in this order. All zero: always the most probable one. */
struct tms_sampling {
    double repeat_penalty;  /* logits of recent tokens are divided by it (multiplied if negative); 0 or 1: off */
    uint64_t repeat_last_n; /* how many tokens are recent, those of the prompt included */
    uint64_t top_k;         /* only the k most probable; 0: all */
    double top_p;           /* of those the fewest whose probabilities reach p together; 0 or 1: all */
    double min_p;           /* of those the ones with at least this share of the best one's probability; 0: all */
    double temperature;     /* logits are divided by it; 0: the most probable one */
    uint64_t seed;          /* the same seed gives the same text, on every machine */
};
/* What llama.cpp's users are used to: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalty (over 64). */
extern const struct tms_sampling tms_sampling_usual;

enum tms_stop {
    TMS_STOP_LENGTH,    /* max_tokens were made */
    TMS_STOP_END,       /* the model ended its text */
    TMS_STOP_TEXT,      /* one of the stop texts came */
    TMS_STOP_CONTEXT,   /* no room for another token */
    TMS_STOP_CALLER,    /* the caller's function wanted no more */
    TMS_STOP_CANCELLED, /* tms_cancel */
};
/* "length", "end", "stop text", "context", "caller", "interrupted" */
const char *tms_stop_name(enum tms_stop stop);

/* Gets text as it comes, whole UTF-8 characters, n > 0; false ends the text. */
typedef bool (*tms_text_fn)(void *ctx, const char *text, size_t n);

struct tms_generate_options {
    uint64_t max_tokens; /* UINT64_MAX: until something else ends it */
    struct tms_sampling sampling;
    const char *const *stops; /* texts that end the answer and are not part of it */
    size_t n_stops;
    bool ignore_end;     /* tokens that end a text are as any other */
    const int32_t *ends; /* tokens that end it in any case */
    size_t n_ends;
    bool show_special; /* the texts of special tokens are shown */
    tms_text_fn text;  /* or NULL */
    void *text_ctx;
};

struct tms_generation {
    char *text; /* UTF-8 with a NUL behind it; NULL if the prompt was ids and the model has no tokenizer */
    size_t text_bytes;
    int32_t *ids; /* without the token that ended the text */
    size_t n_ids;
    size_t n_prompt; /* tokens of it */
    size_t n_reused; /* of those, known from the session's last text */
    enum tms_stop stop;
    size_t stop_index;                    /* which of the stop texts, for TMS_STOP_TEXT */
    double prompt_seconds, token_seconds; /* reading the prompt, up to the first logits; everything after that */
};
/* Continues a prompt. Keys and values of the beginning that it shares with the session's last text are used again: an
 * answer to a longer conversation starts where the last one ended. */
tms_status tms_session_generate(struct tms_session *session, const struct tms_prompt *prompt,
                                const struct tms_generate_options *options, struct tms_generation *out,
                                struct tms_error *err);
void tms_generation_free(struct tms_generation *generation);

/* ---- chatting -------------------------------------------------------------------------------------------------- */

/* role: "system" (at most once, first), "user", "assistant". Nothing in a text is read as a special token. */
struct tms_message {
    const char *role;
    const char *text; /* UTF-8 */
    size_t text_bytes;
};

/* Families of chat templates that tamis writes as transformers' apply_chat_template does. */
struct tms_chat_template_info {
    const char *name;   /* "chatml" */
    const char *models; /* "Qwen2, Qwen2.5, SmolLM, …" */
};
/* i = 0 … while it returns true. */
bool tms_chat_template_at(size_t i, struct tms_chat_template_info *info);

struct tms_rendered {
    const char *template_name;
    char *default_system; /* the system text that the model's template holds itself, or NULL */
    char *text;           /* with a NUL behind it */
    size_t text_bytes;
    int32_t *ids;
    size_t n_ids;
};
/* Writes a conversation as the model's own template does, or that of this name, up to where the next answer begins.
 * `model`: a folder or a GGUF file; its tokenizer is enough. */
tms_status tms_chat_render(struct tms_rendered *out, const char *model, const char *template_name,
                           const struct tms_message *messages, size_t n, struct tms_error *err);
void tms_rendered_free(struct tms_rendered *rendered);

/* A conversation with a session, which must outlive it and is used for nothing else meanwhile. */
struct tms_chat;

struct tms_chat_options {
    const char *template_name; /* NULL: recognised from the model's own; TMS_EINPUT if that cannot be */
    const char *system;        /* NULL: the template's own, if it has one; "": none */
};
tms_status tms_chat_open(struct tms_chat **out, struct tms_session *session, const struct tms_chat_options *options,
                         struct tms_error *err);
void tms_chat_close(struct tms_chat *chat); /* NULL is allowed */
/* Borrowed from the chat. */
const char *tms_chat_template_name(const struct tms_chat *chat);
/* Forgets what was said; with another system text, as in the options. */
tms_status tms_chat_restart(struct tms_chat *chat, const char *system, struct tms_error *err);

/* As tms_text_fn; `thinking`: it is not the answer yet. */
typedef bool (*tms_chat_text_fn)(void *ctx, const char *text, size_t n, bool thinking);

/* Says something and hears the answer (options->text is not called, `hear` is; it may be NULL). Keys and values of what
 * was said before are in the cache: only what is new is computed. TMS_EINPUT if the context has no room for what is
 * said; nothing is then changed. An answer that was cut is remembered as far as it came. */
tms_status tms_chat_say(struct tms_chat *chat, const char *text, size_t n, const struct tms_generate_options *options,
                        tms_chat_text_fn hear, void *hear_ctx, struct tms_generation *out, struct tms_error *err);

/* ---- measuring speed ------------------------------------------------------------------------------------------- */

/* Mean and standard deviation over the repetitions; the latter is 0 for one. */
struct tms_figure {
    double mean, deviation;
};

struct tms_bench_progress {
    const char *what;   /* "warm-up", "prompt", "text", at last "machine" */
    size_t done, total; /* repetitions */
};
typedef void (*tms_bench_progress_fn)(void *ctx, const struct tms_bench_progress *progress);

struct tms_bench_options {
    size_t n_prompt; /* tokens read at once; 0: not measured */
    size_t n_text;   /* tokens made one after the other; 0: not measured */
    size_t depth;    /* tokens that are in the cache before either */
    size_t n_repetitions;
    tms_bench_progress_fn progress; /* from the calling thread */
    void *progress_ctx;
};

struct tms_bench_result {
    unsigned n_threads;
    struct tms_figure prompt;      /* tokens a second while reading a prompt */
    struct tms_figure first_token; /* seconds from a prompt to its first token */
    struct tms_figure text;        /* tokens a second while making text */
    /* Multiplications and additions in a second, of linear layers and attention */
    double prompt_operations, text_operations;
    double text_bytes;     /* of weights that making text reads in a second */
    uint64_t weight_bytes; /* of the model */
    uint64_t token_bytes;  /* that one token reads: of experts those that it gets */
    uint64_t cache_bytes;  /* keys and values of the positions that were used */
    /* What the machine does at most with as many threads, measured just after */
    const char *cpu;           /* vector instructions in use: "avx512" */
    double peak_operations;    /* f32 fused multiply-adds in registers, counted as two */
    double peak_bytes;         /* read from memory in a second */
    uint64_t peak_read_bytes;  /* size of what was read for that: larger than the last cache, if memory allows it */
    uint64_t last_cache_bytes; /* 0: unknown */
};
/* Reads made-up prompts and makes text, greedily, never ending early. TMS_EUSAGE if nothing is to be measured,
 * TMS_EINPUT if depth and tokens do not fit into the session's context. What the session had read is forgotten. */
tms_status tms_session_bench(struct tms_session *session, const struct tms_bench_options *options,
                             struct tms_bench_result *out, struct tms_error *err);

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

/* ---- evaluating ---------------------------------------------------------------------------------------------- */

/* A mean with its standard error. */
struct tms_estimate {
    double value, error;
};

/* How a quantity is spread over the predicted tokens; percentiles between two values are interpolated. */
struct tms_spread {
    struct tms_estimate mean;
    double min, p0_1, p1, p5, p10, p25, median, p75, p90, p95, p99, p99_9, max;
};

struct tms_eval_progress {
    double share;             /* of the whole work, 0 … 1 */
    double seconds;           /* since it began */
    size_t n_done, n_total;   /* windows (with tasks: choices) that are scored */
    double mean_nll, mean_kl; /* so far, per token: the perplexity is exp(mean_nll); 0 while there is nothing */
};
/* Called from the calling thread, after every few windows. */
typedef void (*tms_eval_progress_fn)(void *ctx, const struct tms_eval_progress *progress);

struct tms_eval_options {
    const char *data;  /* a text in UTF-8, else it is refused; special tokens in it are plain text */
    const char *ids;   /* instead: a file of token ids between white space or commas, taken as they are */
    const char *base;  /* the model to compare with, or NULL */
    const char *style; /* "llama" (NULL is this): the second half of every window is predicted, its first token is
                        * replaced by BOS if the vocabulary wants one, as llama-perplexity does; "full": every
                        * prediction of every window counts, as papers have it */
    uint64_t context;  /* tokens of a window; 0: 512 for "llama", 2048 for "full" */
    uint64_t n_chunks; /* at most so many windows; 0: all */
    bool no_bos;       /* no BOS, whatever the vocabulary says */
    const char *cache; /* type of keys and values, as `kv` of a session; the base's are f32 in any case */
    uint64_t cache_keep_first, cache_keep_last; /* as those of a session */
    bool fast;                                  /* the model runs as with `fast` of a session; the base never does */
    double int8_outlier; /* LLM.int8 layers: activations below it in 8 bits (6.0 is usual); 0: as all other types */
    uint64_t ram; /* most memory in bytes, 0: no limit. What does not fit is walked layer by layer; the same result */
    unsigned n_threads; /* 0: all processors; the same result */
    tms_line_fn warning;
    void *warning_ctx;
    tms_eval_progress_fn progress;
    void *progress_ctx;
};

struct tms_eval_result {
    size_t n_tokens; /* of the text */
    size_t n_windows, context;
    size_t n_predicted;     /* tokens that the figures are about */
    bool bos;               /* windows (style "full": the text) begin with BOS */
    bool weights_alone;     /* activations and cache were f32: what differs from the base comes from the weights */
    uint64_t cache_bytes;   /* that the model needs for one window */
    bool by_layer;          /* did not fit into options.ram at once */
    uint64_t planned_bytes; /* with options.ram: memory that the plan counts with */
    double seconds;         /* all of it */
    double run_seconds;     /* without reading and tokenizing the text */
    struct tms_estimate log_perplexity; /* mean of -log p(token that came) */
    struct tms_estimate perplexity;
    /* with a base */
    bool has_base;
    struct tms_estimate base_perplexity;
    struct tms_estimate log_ratio, ratio, difference; /* of the perplexities: model to base; errors with covariance */
    double correlation;                               /* of -log p of the two */
    struct tms_spread kl;                             /* KL(base || model), in nats */
    struct tms_estimate same_top;                     /* share of tokens whose most probable successor is the same */
    struct tms_spread change;                         /* p - p of the base, of the token that came */
    struct tms_estimate rms_change;
};

/* Perplexity of a text, and with a base what quantizing changed: both models in lockstep, nothing stored. TMS_EINPUT
 * for what cannot be evaluated: too short a text, another vocabulary than the base's, logits that are no numbers. */
tms_status tms_evaluate(const char *model, const struct tms_eval_options *options, struct tms_eval_result *result,
                        struct tms_error *err);

/* One multiple-choice question. */
struct tms_task_answer {
    size_t line; /* of the file, from 1 */
    size_t n_choices, right;
    size_t chosen;                              /* of the largest log p */
    size_t chosen_normalized;                   /* of the largest log p per byte */
    size_t base_chosen, base_chosen_normalized; /* with a base */
    const double *log_p;                        /* [n_choices] */
};

struct tms_tasks_result {
    size_t n_questions;
    struct tms_task_answer *answers; /* [n_questions] */
    struct tms_estimate accuracy, accuracy_normalized;
    bool has_base;
    struct tms_estimate base_accuracy, base_accuracy_normalized;
    struct tms_estimate same_answer; /* share of questions where both choose the same */
    bool weights_alone, by_layer;
    uint64_t cache_bytes; /* that the model needs for the longest question with a choice */
    uint64_t planned_bytes;
    double seconds;
};

/* Answers the questions of a file, one JSON object in a line:
 *     {"question": "…", "choices": ["…", "…"], "answer": 0}            (MMLU; or "answer": "A")
 *     {"question": "…", "A": "…", "B": "…", "C": "…", "D": "…", "answer": "A"}   (C-Eval)
 * A choice is scored by the log-probability of its tokens as the continuation of the question:
 *     Question: {question}\nAnswer: {choice}
 * where the tokens that are the same as those of "Question: {question}\nAnswer:" alone are given. The accuracy counts
 * the largest sum; the normalized one divides the sum by the bytes of the choice. options.data, ids, style, context and
 * n_chunks have no meaning (n_chunks: at most so many questions). Freed with tms_tasks_free. */
tms_status tms_evaluate_tasks(const char *model, const char *tasks, const struct tms_eval_options *options,
                              struct tms_tasks_result **out, struct tms_error *err);
void tms_tasks_free(struct tms_tasks_result *result);

/* ---- calibrating ---------------------------------------------------------------------------------------------- */

struct tms_calibrate_progress {
    double share, seconds;
    uint64_t layer, n_layers; /* that is being walked */
};

struct tms_calibrate_options {
    /* a text in UTF-8, or (a name that ends in .jsonl) one {"text": "…"} or {"messages": [{"role": "…", "content":
     * "…"}, …]} a line */
    const char *data;
    const char *template_name; /* family of chat templates for messages (tms_chat_template_at); NULL: the model's */
    uint64_t n_samples;        /* at most so many sequences; 0: all */
    uint64_t length; /* tokens of a sequence; 0: 512. A line of JSONL that is longer is cut, a shorter one stays */
    bool draw;       /* the samples are drawn by `seed`; else they are the first ones */
    uint64_t seed;
    bool no_bos;         /* no BOS in front of a sequence, whatever the vocabulary says */
    bool parse_special;  /* the texts of special tokens are special tokens */
    const char *imatrix; /* also write an importance matrix here: .dat in the old format, else GGUF; or NULL */
    bool process_output; /* the importance matrix has an entry of the output layer, too */
    bool hessian;        /* Hessians of the layer in work: dead channels and damping are told */
    bool keep_hessian;   /* they stay in the file (method gptq with `stats`) */
    bool histogram;      /* a histogram of each input */
    bool reuse;          /* a file that this very run made before stays, and nothing is walked */
    uint64_t ram;        /* most memory in bytes; 0: what 2048 tokens at a time and one layer need */
    unsigned n_threads;  /* 0: all processors; the same result */
    void (*progress)(void *ctx, const struct tms_calibrate_progress *progress);
    void *progress_ctx;
};

/* How often each expert of a layer was chosen. */
struct tms_coverage {
    uint64_t layer;
    size_t n_experts;
    uint64_t *tokens; /* [n_experts] */
    uint64_t least;   /* fewer tokens than this are too few for method gptq, which then rounds plainly */
};

struct tms_calibrate_result {
    size_t n_sequences, n_tokens, n_inputs;
    uint64_t resumed_at; /* layers that an earlier run had finished */
    size_t n_coverage;
    struct tms_coverage *coverage; /* layers with experts */
    /* with options.hessian */
    size_t n_hessians;
    size_t n_dead;          /* channels that were 0 for all tokens */
    size_t n_raised;        /* Hessians that needed more damping than 0.01 */
    double most_damp;       /* that any of them needed, as a share of the mean of its diagonal */
    uint64_t planned_bytes; /* with options.ram: memory that the plan counts with */
    double seconds;
};

/* Runs a model over a text, layer by layer, and writes what the inputs of its linear layers look like to `path`, a
 * safetensors file (man page, STATISTICS). Hidden states wait in the folder PATH.work, where a killed run goes on; it
 * is removed at the end. Freed with tms_calibrate_free. */
tms_status tms_calibrate(const char *model, const char *path, const struct tms_calibrate_options *options,
                         struct tms_calibrate_result *result, struct tms_error *err);
void tms_calibrate_free(struct tms_calibrate_result *result);

#ifdef __cplusplus
}
#endif
#endif

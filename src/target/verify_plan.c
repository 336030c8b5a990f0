/* How a file was made, as it tells itself and the caller tells, and the plan of what should be there. See verify.c. */
#include "target/verifying.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/calibrated.h"
#include "target/provenance.h"

/* ---- how the file was made ---- */

static tms_status gguf_type(struct tms_verifying *v, char type[32], struct tms_error *err)
{
    uint64_t id = 0;
    const struct tms_kvs *kvs = &v->file->gguf->kvs;
    const struct tms_file_type *ftype =
        tms_kv_as_u64(tms_kvs_find(kvs, "general.file_type"), &id) && id < 1024 ? tms_file_type_by_id((int)id) : NULL;
    if (!ftype)
        return tms_fail(err, TMS_EINPUT, "%s: does not say of which type it is (general.file_type); give --to TYPE",
                        v->file->path);
    snprintf(type, 32, "%s", ftype->name);
    return TMS_OK;
}

/* The blocks of bitsandbytes tell; a plain folder is what config.json says. */
static tms_status folder_type(struct tms_verifying *v, char type[32], struct tms_error *err)
{
    static const enum tms_type plain[] = {TMS_BF16, TMS_F16, TMS_F32};
    enum tms_type dtype = v->file->config.dtype;
    for (size_t i = 0; i < v->file->n_tensors; i++) {
        const struct tms_packed *p = v->file->tensors[i].packed;
        if (dtype == TMS_TYPE_NONE && tms_is_plain_float(v->file->tensors[i].type)) dtype = v->file->tensors[i].type;
        if (!p) continue;
        if (p->grid)
            snprintf(type, 32, "%.31s", p->grid->type);
        else if (p->eight)
            snprintf(type, 32, "int8");
        else
            snprintf(type, 32, "%s:b%u%s", p->kind == TMS_BNB_NF4 ? "nf4" : "fp4", p->block_size,
                     p->nested ? ":dq" : "");
        return TMS_OK;
    }
    bool is_plain = v->file->has_config && !v->file->config.quant_method[0];
    for (size_t i = 0; i < sizeof plain / sizeof *plain && is_plain; i++) {
        if (dtype != plain[i]) continue;
        snprintf(type, 32, "hf:%s", tms_codec(dtype)->name);
        return TMS_OK;
    }
    return tms_fail(err, TMS_EINPUT,
                    "%s: is neither a GGUF file nor a folder for bitsandbytes, nor one of bfloat16, float16 or float32",
                    v->file->path);
}

/* The keys tamis.*: the recipe fills in what the caller left open, and the source must have the hash. The path of the
 * importance weights is one on the machine that made the file. */
static tms_status read_provenance(struct tms_verifying *v, const char **type, struct tms_error *err)
{
    const struct tms_kvs *kvs = &v->file->gguf->kvs;
    const char *text = tms_kv_as_string(tms_kvs_find(kvs, "tamis.recipe")), *imatrix = NULL;
    const char *told = tms_kv_as_string(tms_kvs_find(kvs, "tamis.source.hash"));
    tms_status status = TMS_OK;
    for (size_t i = 0; i < kvs->n; i++)
        if (kvs->items[i].type == TMS_KV_STRING &&
            (strncmp(kvs->items[i].key, "tamis.", 6) == 0 || strcmp(kvs->items[i].key, "quantize.imatrix.file") == 0))
            tms_kvs_set(&v->own, kvs->items[i].key, kvs->items[i].type, kvs->items[i].bytes, kvs->items[i].n_bytes);
    if (v->own.failed) return tms_fail_memory(err, 256);
    if (text) status = tms_json_parse(&v->told, text, strlen(text), "tamis.recipe", err);
    if (text && status == TMS_OK)
        status = tms_recipe_read(&v->recipe, type, &v->converter, &imatrix, v->told, &v->arena, err);
    if (status == TMS_OK && told) {
        struct tms_hashed_files files = {0};
        char hash[72];
        status = tms_hash_source(&files, v->source, false, v->pool, err);
        if (status != TMS_OK) return status;
        tms_source_hash(hash, &files, v->source);
        tms_hashed_files_free(&files);
        if (strcmp(hash, told) != 0) tms_verify_found(v, "tamis.source.hash is %s, the source has %s", told, hash);
    }
    if (status == TMS_OK && imatrix && v->recipe.imatrix) {
        char hex[65];
        status = tms_sha256_file(v->recipe.imatrix, hex, NULL, err);
        if (status == TMS_OK && strcmp(hex, imatrix) != 0)
            tms_verify_found(v, "the importance weights that were used have SHA-256 %s, these %s", imatrix, hex);
    }
    return status;
}

/* general.name is free to choose, and weights of importance must be at hand. */
static tms_status complete_recipe(struct tms_verifying *v, struct tms_error *err)
{
    if (v->file->kind != TMS_SOURCE_GGUF) return TMS_OK;
    const struct tms_kvs *kvs = &v->file->gguf->kvs;
    const char *imatrix = tms_kv_as_string(tms_kvs_find(kvs, "quantize.imatrix.file"));
    if (tms_method_reads_text(v->recipe.method))
        return tms_fail(
            err, TMS_EUSAGE,
            "%s: was made with method %s over a text; verify cannot rebuild such files, `tamis eval --base` "
            "measures them",
            v->file->path, v->recipe.method);
    if (!v->recipe.model_name) v->recipe.model_name = tms_kv_as_string(tms_kvs_find(kvs, "general.name"));
    if (imatrix && !v->recipe.imatrix)
        return tms_fail(err, TMS_EUSAGE, "%s: was made with importance weights (%s); give them with --imatrix FILE",
                        v->file->path, imatrix);
    return TMS_OK;
}

/* ---- planning ---- */

static tms_status plan(struct tms_verifying *v, const struct tms_spec *spec, const struct tms_quantize_options *user,
                       bool converter, struct tms_target **out, struct tms_error *err)
{
    bool asked = user->keep_split || user->split_max_bytes || user->split_max_tensors || user->max_shard_bytes;
    const struct tms_target_options options = {.user = user,
                                               .converter = converter,
                                               .imatrix = v->imatrix,
                                               .extra = &v->own,
                                               .split_like = asked ? NULL : v->file};
    return tms_target_plan(out, v->source, spec, &options, err);
}

static const struct tms_tensor *stored(const struct tms_verifying *v, const struct tms_out_tensor *out)
{
    return tms_source_find(v->file, out->name);
}

static size_t count_other_types(const struct tms_verifying *v, const struct tms_target *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_outs; i++) {
        const struct tms_tensor *is = stored(v, &t->outs[i]);
        n += is && is->type != t->outs[i].type;
    }
    return n;
}

static bool same_order_of_tensors(const struct tms_verifying *v, const struct tms_target *t)
{
    if (t->n_outs != v->file->n_tensors) return false;
    for (size_t i = 0; i < t->n_outs; i++)
        if (strcmp(t->outs[i].name, v->file->tensors[i].name) != 0) return false;
    return true;
}

/* The next key that is not about splitting; NULL behind the last. */
static const char *next_key(const struct tms_kvs *kvs, size_t *i)
{
    while (*i < kvs->n && strncmp(kvs->items[*i].key, "split.", 6) == 0) ++*i;
    return *i < kvs->n ? kvs->items[(*i)++].key : NULL;
}

static bool same_order_of_keys(const struct tms_verifying *v, const struct tms_target *t)
{
    size_t i = 0, k = 0;
    for (;;) {
        const char *a = next_key(&v->file->gguf->kvs, &i), *b = next_key(&t->kvs, &k);
        if (!a || !b) return a == b;
        if (strcmp(a, b) != 0) return false;
    }
}

/* 3: tensors and keys come in the file's order. */
static int order(const struct tms_verifying *v, const struct tms_target *t)
{
    return 2 * same_order_of_tensors(v, t) + same_order_of_keys(v, t);
}

static bool is_converter_type(const struct tms_spec *spec)
{
    if (spec->dialect != TMS_DIALECT_GGUF) return false;
    enum tms_ftype id = spec->ftype->id;
    return id == TMS_FTYPE_F32 || id == TMS_FTYPE_F16 || id == TMS_FTYPE_BF16 || id == TMS_FTYPE_Q8_0;
}

/* "^blk\.0\.attn_q\.weight$=q4_k" for every tensor of the file: its own types in place of the rules. */
static tms_status own_types(struct tms_verifying *v, struct tms_quantize_options *user, struct tms_error *err)
{
    size_t n = v->file->n_tensors;
    const char **texts = tms_arena_alloc(&v->arena, (n + 1) * sizeof *texts);
    if (!texts) return tms_fail_memory(err, n * sizeof *texts);
    for (size_t i = 0; i < n; i++) {
        const struct tms_tensor *t = &v->file->tensors[i];
        struct tms_buf text = {0};
        tms_buf_text(&text, "^");
        for (const char *c = t->name; *c; c++) {
            bool plain = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '_';
            if (!plain) tms_buf_text(&text, "\\");
            tms_buf_put(&text, c, 1);
        }
        tms_buf_printf(&text, "$=%s", tms_codec(t->type)->name);
        texts[i] = text.failed ? NULL : tms_arena_strndup(&v->arena, (const char *)text.data, text.n);
        tms_buf_free(&text);
        if (!texts[i]) return tms_fail_memory(err, 256);
    }
    user->tensor_types = texts;
    user->n_tensor_types = n;
    return TMS_OK;
}

/* True if the caller named types: then the file must have them. */
static bool asked_for_types(const struct tms_quantize_options *asked)
{
    return asked->n_types > 0 || asked->pure || asked->n_tensor_types > 0 || asked->output_tensor_type ||
           asked->token_embedding_type || asked->leave_output_tensor || asked->rules_of_2025;
}

/* Plans in another way and takes that if `better` says so. A way that is not possible is no failure; memory that runs
 * out is. */
static tms_status try_plan(struct tms_verifying *v, const struct tms_spec *spec,
                           const struct tms_quantize_options *user, bool converter,
                           bool (*better)(const struct tms_verifying *v, const struct tms_target *other), bool *taken,
                           struct tms_error *err)
{
    struct tms_target *other = NULL;
    struct tms_error problem;
    *taken = false;
    tms_status status = plan(v, spec, user, converter, &other, &problem);
    if (status == TMS_EIO) return tms_fail(err, TMS_EIO, "%s", problem.message);
    if (status != TMS_OK) return TMS_OK;
    *taken = better(v, other);
    tms_target_free(*taken ? v->target : other);
    if (*taken) v->target = other;
    return TMS_OK;
}

static bool has_fewer_other_types(const struct tms_verifying *v, const struct tms_target *t)
{
    return count_other_types(v, t) < count_other_types(v, v->target);
}

static bool fits_better(const struct tms_verifying *v, const struct tms_target *t)
{
    int is = order(v, t), was = order(v, v->target);
    return is > was || (is == was && has_fewer_other_types(v, t));
}

/* The plan that fits the file best: by the file type's rules; as the converter writes it, or in the source's order
 * (--keep-split), if that is the file's; with the file's own types, if none were asked for. */
static tms_status choose_plan(struct tms_verifying *v, const struct tms_spec *spec, struct tms_error *err)
{
    bool taken = false, gguf = spec->dialect == TMS_DIALECT_GGUF;
    struct tms_quantize_options user = v->recipe;
    tms_status status = plan(v, spec, &v->recipe, v->converter, &v->target, err);
    if (status != TMS_OK || v->told || !gguf) return status;
    bool fits = order(v, v->target) == 3 && count_other_types(v, v->target) == 0;
    if (!fits && is_converter_type(spec) && v->source->kind != TMS_SOURCE_GGUF)
        status = try_plan(v, spec, &v->recipe, true, fits_better, &taken, err);
    if (status == TMS_OK && !taken && !same_order_of_tensors(v, v->target)) {
        user.keep_split = true;
        status = try_plan(v, spec, &user, false, fits_better, &taken, err);
        if (!taken) user.keep_split = v->recipe.keep_split;
    }
    size_t n_other = count_other_types(v, v->target);
    if (status != TMS_OK || n_other == 0 || asked_for_types(&v->options->recipe)) return status;
    status = own_types(v, &user, err);
    if (status == TMS_OK) status = try_plan(v, spec, &user, false, has_fewer_other_types, &taken, err);
    if (taken && status == TMS_OK) v->result.n_other_types = n_other;
    return status;
}

tms_status tms_verify_plan(struct tms_verifying *v, struct tms_error *err)
{
    struct tms_spec spec;
    char type[64];
    const char *told = NULL;
    const struct tms_quantize_options *asked = &v->options->recipe;
    tms_status status = TMS_OK;
    if (v->file->kind == TMS_SOURCE_GGUF) status = read_provenance(v, &told, err);
    if (status == TMS_OK) status = complete_recipe(v, err);
    if (told && strcmp(told, "auto") != 0)
        snprintf(type, sizeof type, "%s", told);
    else if (status == TMS_OK && asked->n_types == 0)
        status = v->file->kind == TMS_SOURCE_GGUF ? gguf_type(v, type, err) : folder_type(v, type, err);
    if (status == TMS_OK) status = tms_spec_parse(&spec, asked->n_types ? asked->types[0] : type, err);
    if (status != TMS_OK) return status;
    if ((spec.dialect == TMS_DIALECT_GGUF) != (v->file->kind == TMS_SOURCE_GGUF))
        return tms_fail(err, TMS_EINPUT, "%s: is no file of type %s", v->file->path, spec.name);
    if (v->recipe.imatrix) status = tms_open_imatrix(&v->imatrix, &v->recipe, v->source, err);
    return status == TMS_OK ? choose_plan(v, &spec, err) : status;
}

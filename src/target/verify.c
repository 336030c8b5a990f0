/* A file rebuilt from its source and compared: tms_verify of <tamis/tamis.h>.
 *
 * The target is planned as for writing; the pipeline then hands every encoded range to a sink that reads the same range
 * of the file and compares. Order and place of tensors may differ (another program may have written the file): tensors
 * go by their names, keys by theirs, and only `identical` speaks about the rest. */
#include <tamis/tamis.h>

#include <dirent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"
#include "model/keys.h"
#include "model/packed.h"
#include "target/pipeline.h"
#include "target/provenance.h"

/* What is known of one output tensor. */
struct compared {
    const struct tms_tensor *found; /* in the file; NULL if it is not there or has another type or shape */
    uint64_t first, n_bytes;        /* differing bytes: the first, and how many */
};

struct verify {
    const struct tms_verify_options *options;
    struct tms_quantize_options recipe; /* options->recipe, completed from the file */
    struct tms_source *file, *source;
    struct tms_imatrix *imatrix;
    struct tms_pool *pool;
    json_t *told;       /* tamis.recipe of the file, or NULL */
    bool converter;     /* as it tells */
    struct tms_kvs own; /* the file's keys tamis.* */
    struct tms_target *target;
    struct compared *compared; /* [target->n_outs] */
    struct tms_verify_result result;
    pthread_mutex_t lock;
    struct tms_arena arena;
};

static void found(struct verify *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void found(struct verify *v, const char *format, ...)
{
    struct tms_error line;
    char text[sizeof line.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tms_set_message(&line, "%s", text); /* cleans control characters */
    v->result.n_findings++;
    if (v->options->finding) v->options->finding(v->options->finding_ctx, line.message);
}

/* ---- how the file was made ---- */

static tms_status gguf_type(struct verify *v, char type[32], struct tms_error *err)
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
static tms_status folder_type(struct verify *v, char type[32], struct tms_error *err)
{
    static const enum tms_type plain[] = {TMS_BF16, TMS_F16, TMS_F32};
    enum tms_type dtype = v->file->config.dtype;
    for (size_t i = 0; i < v->file->n_tensors; i++) {
        const struct tms_packed *p = v->file->tensors[i].packed;
        if (dtype == TMS_TYPE_NONE && tms_is_plain_float(v->file->tensors[i].type)) dtype = v->file->tensors[i].type;
        if (!p) continue;
        if (p->eight)
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
static tms_status read_provenance(struct verify *v, const char **type, struct tms_error *err)
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
        if (strcmp(hash, told) != 0) found(v, "tamis.source.hash is %s, the source has %s", told, hash);
    }
    if (status == TMS_OK && imatrix && v->recipe.imatrix) {
        char hex[65];
        status = tms_sha256_file(v->recipe.imatrix, hex, NULL, err);
        if (status == TMS_OK && strcmp(hex, imatrix) != 0)
            found(v, "the importance weights that were used have SHA-256 %s, these %s", imatrix, hex);
    }
    return status;
}

/* general.name is free to choose, and weights of importance must be at hand. */
static tms_status complete_recipe(struct verify *v, struct tms_error *err)
{
    if (v->file->kind != TMS_SOURCE_GGUF) return TMS_OK;
    const struct tms_kvs *kvs = &v->file->gguf->kvs;
    const char *imatrix = tms_kv_as_string(tms_kvs_find(kvs, "quantize.imatrix.file"));
    if (!v->recipe.model_name) v->recipe.model_name = tms_kv_as_string(tms_kvs_find(kvs, "general.name"));
    if (imatrix && !v->recipe.imatrix)
        return tms_fail(err, TMS_EUSAGE, "%s: was made with importance weights (%s); give them with --imatrix FILE",
                        v->file->path, imatrix);
    return TMS_OK;
}

/* ---- planning ---- */

static tms_status plan(struct verify *v, const struct tms_spec *spec, const struct tms_quantize_options *user,
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

static const struct tms_tensor *stored(const struct verify *v, const struct tms_out_tensor *out)
{
    return tms_source_find(v->file, out->name);
}

static size_t count_other_types(const struct verify *v, const struct tms_target *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_outs; i++) {
        const struct tms_tensor *is = stored(v, &t->outs[i]);
        n += is && is->type != t->outs[i].type;
    }
    return n;
}

static bool same_order_of_tensors(const struct verify *v, const struct tms_target *t)
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

static bool same_order_of_keys(const struct verify *v, const struct tms_target *t)
{
    size_t i = 0, k = 0;
    for (;;) {
        const char *a = next_key(&v->file->gguf->kvs, &i), *b = next_key(&t->kvs, &k);
        if (!a || !b) return a == b;
        if (strcmp(a, b) != 0) return false;
    }
}

/* 3: tensors and keys come in the file's order. */
static int order(const struct verify *v, const struct tms_target *t)
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
static tms_status own_types(struct verify *v, struct tms_quantize_options *user, struct tms_error *err)
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
static tms_status try_plan(struct verify *v, const struct tms_spec *spec, const struct tms_quantize_options *user,
                           bool converter, bool (*better)(const struct verify *v, const struct tms_target *other),
                           bool *taken, struct tms_error *err)
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

static bool has_fewer_other_types(const struct verify *v, const struct tms_target *t)
{
    return count_other_types(v, t) < count_other_types(v, v->target);
}

static bool fits_better(const struct verify *v, const struct tms_target *t)
{
    int is = order(v, t), was = order(v, v->target);
    return is > was || (is == was && has_fewer_other_types(v, t));
}

/* The plan that fits the file best: by the file type's rules; as the converter writes it, or in the source's order
 * (--keep-split), if that is the file's; with the file's own types, if none were asked for. */
static tms_status choose_plan(struct verify *v, const struct tms_spec *spec, struct tms_error *err)
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

/* ---- names, types, shapes ---- */

static tms_status match_tensors(struct verify *v, struct tms_error *err)
{
    const struct tms_target *t = v->target;
    char shape[128];
    bool *known = tms_calloc(v->file->n_tensors, sizeof *known);
    if (!known) return tms_fail_memory(err, v->file->n_tensors);
    for (size_t i = 0; i < t->n_outs; i++) {
        const struct tms_out_tensor *out = &t->outs[i];
        const struct tms_tensor *is = stored(v, out);
        if (!is) {
            found(v, "tensor '%s' is missing", out->name);
            continue;
        }
        known[is - v->file->tensors] = true;
        uint64_t ne[TMS_GGUF_MAX_DIMS] = {0};
        bool same = is->n_dims == out->n_dims || (out->n_dims == 0 && is->n_elems == 1);
        for (uint32_t d = 0; d < out->n_dims && same; d++) same = out->late || is->shape[d] == out->shape[d];
        for (uint32_t d = 0; d < out->n_dims && d < TMS_GGUF_MAX_DIMS; d++) ne[d] = out->shape[out->n_dims - 1 - d];
        if (is->type != out->type || !same)
            found(v, "tensor '%s' is %s of %llu bytes, rebuilt it is %s", is->name, tms_codec(is->type)->name,
                  (unsigned long long)is->bytes,
                  tms_gguf_shape_text(shape, out->type, out->n_dims < TMS_GGUF_MAX_DIMS ? out->n_dims : 0, ne));
        else
            v->compared[i].found = is;
    }
    for (size_t i = 0; i < v->file->n_tensors; i++)
        if (!known[i]) found(v, "tensor '%s' has no source", v->file->tensors[i].name);
    free(known);
    return TMS_OK;
}

/* ---- keys, config.json and what goes along ---- */

static void report_keys(struct verify *v, const struct tms_key_list *keys)
{
    for (size_t i = 0; i < keys->n; i++) {
        const struct tms_diff_key *k = &keys->items[i];
        if (!k->a)
            found(v, "key '%s' is missing, rebuilt it is %s", k->key, k->b);
        else if (!k->b)
            found(v, "key '%s' (%s) would not be written", k->key, k->a);
        else
            found(v, "key '%s' is %s, rebuilt it is %s", k->key, k->a, k->b);
    }
}

static tms_status compare_config(struct verify *v, struct tms_key_list *keys, struct tms_error *err)
{
    struct tms_buf text = {0};
    json_t *json = NULL;
    tms_status status = tms_target_config_text(v->target, &text, err);
    if (status == TMS_OK) status = tms_json_parse(&json, (const char *)text.data, text.n, "config.json", err);
    if (status == TMS_OK) tms_keys_compare_json(keys, v->file->config_json, json);
    json_decref(json);
    tms_buf_free(&text);
    return status;
}

/* Is this what the file holds? One that is not there holds nothing. */
static tms_status holds(bool *same, const char *path, const struct tms_buf *bytes, struct tms_error *err)
{
    char *text = NULL;
    size_t n = 0;
    *same = false;
    if (!tms_path_exists(path) || tms_path_is_dir(path)) return TMS_OK;
    tms_status status = tms_file_text(path, 1u << 30, &text, &n, err);
    *same = status == TMS_OK && n == bytes->n && (n == 0 || memcmp(text, bytes->data, n) == 0);
    free(text);
    return status;
}

static tms_status file_holds(struct verify *v, bool *same, const char *name, const struct tms_buf *bytes,
                             struct tms_error *err)
{
    char *path = tms_path_join(v->file->path, name);
    tms_status status = path ? holds(same, path, bytes, err) : tms_fail_memory(err, strlen(name));
    free(path);
    return status;
}

static tms_status same_contents(bool *same, const char *a, const char *b, struct tms_error *err)
{
    enum { PIECE = 1 << 16 };
    struct tms_file files[2] = {{.fd = -1}, {.fd = -1}};
    uint8_t *pieces = malloc(2 * PIECE);
    tms_status status = pieces ? TMS_OK : tms_fail_memory(err, 2 * PIECE);
    if (status == TMS_OK) status = tms_file_open(&files[0], a, err);
    if (status == TMS_OK) status = tms_file_open(&files[1], b, err);
    *same = status == TMS_OK && files[0].size == files[1].size;
    for (uint64_t at = 0; *same && status == TMS_OK && at < files[0].size; at += PIECE) {
        uint64_t n = files[0].size - at < PIECE ? files[0].size - at : PIECE;
        for (int i = 0; i < 2 && status == TMS_OK; i++)
            status = tms_file_read(&files[i], pieces + i * PIECE, n, at, err);
        *same = status == TMS_OK && memcmp(pieces, pieces + PIECE, n) == 0;
    }
    for (int i = 0; i < 2; i++) tms_file_close(&files[i]);
    free(pieces);
    return status;
}

/* Files that are made, not copied: of a folder that comes from GGUF. */
static tms_status compare_made_files(struct verify *v, struct tms_error *err)
{
    const struct tms_made_files *files = &v->target->side_files;
    tms_status status = TMS_OK;
    for (size_t i = 0; i < files->n && status == TMS_OK; i++) {
        const struct tms_made_file *made = &files->items[i];
        bool same = true;
        if (made->bytes.failed) return tms_fail_memory(err, made->bytes.n);
        if (strcmp(made->name, "config.json") != 0) status = file_holds(v, &same, made->name, &made->bytes, err);
        if (!same && status == TMS_OK) found(v, "file '%s' is not what the source gives", made->name);
    }
    return status;
}

/* Tokenizer and the other files of the folder are copies. */
static tms_status compare_side_files(struct verify *v, struct tms_error *err)
{
    tms_status status = compare_made_files(v, err);
    if (status != TMS_OK || v->source->kind != TMS_SOURCE_HF) return status;
    DIR *d = opendir(v->source->path);
    if (!d) return tms_fail(err, TMS_EIO, "%s: cannot be listed", v->source->path);
    for (struct dirent *entry; status == TMS_OK && (entry = readdir(d));) {
        bool same = true;
        if (!tms_target_goes_along(entry->d_name)) continue;
        char *a = tms_path_join(v->source->path, entry->d_name), *b = tms_path_join(v->file->path, entry->d_name);
        if (!a || !b)
            status = tms_fail_memory(err, 256);
        else if (!tms_path_is_dir(a) && !tms_path_exists(b))
            found(v, "file '%s' is missing", entry->d_name);
        else if (!tms_path_is_dir(a))
            status = same_contents(&same, a, b, err);
        if (!same && status == TMS_OK) found(v, "file '%s' is not the source's", entry->d_name);
        free(a);
        free(b);
    }
    closedir(d);
    return status;
}

static tms_status compare_keys(struct verify *v, struct tms_error *err)
{
    struct tms_key_list keys = {0};
    tms_status status = TMS_OK;
    if (v->target->folder)
        status = compare_config(v, &keys, err);
    else
        tms_keys_compare_kvs(&keys, &v->file->gguf->kvs, &v->target->kvs);
    if (status == TMS_OK && keys.failed) status = tms_fail_memory(err, 256);
    if (status == TMS_OK) report_keys(v, &keys);
    if (status == TMS_OK && v->target->folder) status = compare_side_files(v, err);
    tms_keys_free(&keys);
    return status;
}

/* ---- data ---- */

static tms_status compare_bytes(void *ctx, const struct tms_target *target, size_t out, uint64_t offset,
                                const void *bytes, uint64_t n, struct tms_error *err)
{
    struct verify *v = ctx;
    struct compared *c = &v->compared[out];
    (void)target;
    if (!c->found || n == 0) return TMS_OK;
    uint64_t there = offset < c->found->bytes ? c->found->bytes - offset : 0, first = n, n_bytes = 0;
    if (there > n) there = n;
    uint8_t *is = malloc(there ? there : 1);
    if (!is) return tms_fail_memory(err, there);
    tms_status status = tms_file_read(v->file->files[c->found->file], is, there, c->found->offset + offset, err);
    if (status == TMS_OK && (there < n || memcmp(is, bytes, n) != 0)) {
        const uint8_t *want = bytes;
        n_bytes = n - there;
        for (uint64_t i = 0; i < there; i++) {
            if (is[i] == want[i]) continue;
            n_bytes++;
            if (i < first) first = i;
        }
        if (first > there) first = there;
    }
    free(is);
    if (status != TMS_OK) return status;
    pthread_mutex_lock(&v->lock);
    v->result.bytes += n;
    if (n_bytes && (c->n_bytes == 0 || offset + first < c->first)) c->first = offset + first;
    c->n_bytes += n_bytes;
    pthread_mutex_unlock(&v->lock);
    return TMS_OK;
}

/* The row and the block, within it, of a byte of an output tensor; returns what a block is called. */
static const char *locate(const struct verify *v, size_t out, uint64_t byte, uint64_t *row, uint64_t *block)
{
    const struct tms_target *t = v->target;
    const struct tms_out_tensor *o = &t->outs[out];
    const struct tms_codec *codec = tms_codec(o->type);
    for (size_t i = 0; i < t->n_routes; i++) {
        if (t->routes[i].out != out || t->routes[i].kind != TMS_ROUTE_BNB4) continue;
        const struct tms_tensor *source = &t->source->tensors[t->routes[i].source];
        *row = source->cols ? 2 * byte / source->cols : 0;
        *block = 2 * byte / t->spec.block_size;
        return "block";
    }
    uint64_t cols = o->n_dims ? o->shape[o->n_dims - 1] : 1;
    uint64_t index = codec->block_bytes ? byte / codec->block_bytes * codec->block_elems : 0;
    *row = cols ? index / cols : 0;
    *block = cols ? index % cols / codec->block_elems : 0;
    return codec->block_elems > 1 ? "block" : "column";
}

static void report_tensors(struct verify *v)
{
    const struct tms_target *t = v->target;
    struct tms_verify_result *r = &v->result;
    for (size_t i = 0; i < t->n_outs; i++) {
        const struct compared *c = &v->compared[i];
        uint64_t row, block;
        if (!c->n_bytes) continue;
        uint64_t at = c->found->offset + c->first;
        const char *unit = locate(v, i, c->first, &row, &block);
        found(v,
              "tensor '%s' (%s) row %llu %s %llu: differs at byte %llu of %s; %llu of the tensor's %llu bytes differ",
              t->outs[i].name, tms_codec(t->outs[i].type)->name, (unsigned long long)row, unit,
              (unsigned long long)block, (unsigned long long)at, tms_path_base(v->file->files[c->found->file]->path),
              (unsigned long long)c->n_bytes, (unsigned long long)c->found->bytes);
        if (r->n_differing++ == 0) {
            snprintf(r->tensor, sizeof r->tensor, "%s", t->outs[i].name);
            r->row = row;
            r->block = block;
        }
    }
}

/* Folders: config.json and the index to the letter, and the shards' names. */
static tms_status compare_texts(struct verify *v, bool *same, struct tms_error *err)
{
    const struct tms_target *t = v->target;
    struct tms_buf config = {0}, index = {0};
    tms_status status = tms_target_config_text(t, &config, err);
    for (size_t f = 0; f < t->n_files; f++)
        *same &= strcmp(tms_path_base(v->file->files[f]->path), t->files[f].name) == 0;
    if (status == TMS_OK && *same) status = file_holds(v, same, "config.json", &config, err);
    if (status == TMS_OK && *same && t->n_files > 1) {
        status = tms_target_index_text(t, &index, err);
        if (status == TMS_OK) status = file_holds(v, same, "model.safetensors.index.json", &index, err);
    }
    tms_buf_free(&config);
    tms_buf_free(&index);
    return status;
}

/* Headers, places and padding: is every byte what would be written? Only asked when there are no findings. */
static tms_status compare_files(struct verify *v, struct tms_error *err)
{
    const struct tms_target *t = v->target;
    bool same = t->n_files == v->file->n_files;
    tms_status status = same && t->folder ? compare_texts(v, &same, err) : TMS_OK;
    for (size_t f = 0; f < t->n_files && same && status == TMS_OK; f++) {
        const struct tms_out_file *file = &t->files[f];
        same = file->size == v->file->files[f]->size;
        uint8_t *is = same ? malloc(file->header.n + 1) : NULL;
        if (same && !is) return tms_fail_memory(err, file->header.n);
        if (same) status = tms_file_read(v->file->files[f], is, file->header.n, 0, err);
        if (same && status == TMS_OK) same = memcmp(is, file->header.data, file->header.n) == 0;
        free(is);
    }
    for (size_t i = 0; i < t->n_outs && same && status == TMS_OK && !t->folder; i++) {
        const struct tms_out_tensor *out = &t->outs[i];
        uint64_t end = out->offset + out->bytes, n = tms_align_up(end, v->file->gguf->alignment) - end;
        uint8_t *padding = tms_calloc(n, 1);
        if (!padding) return tms_fail_memory(err, n);
        status = tms_file_read(v->file->files[out->file], padding, n, end, err);
        for (uint64_t k = 0; k < n; k++) same &= padding[k] == 0;
        free(padding);
    }
    v->result.identical = same && status == TMS_OK;
    return status;
}

/* ---- the whole ---- */

static tms_status rebuild(struct verify *v, struct tms_error *err)
{
    struct tms_target_stats stats = {0};
    struct tms_pipeline p = {.source = v->source,
                             .targets = &v->target,
                             .n_targets = 1,
                             .pool = v->pool,
                             .progress = v->options->recipe.progress,
                             .progress_ctx = v->options->recipe.progress_ctx,
                             .sink = compare_bytes,
                             .sink_ctx = v,
                             .stats = &stats};
    tms_status status = tms_pipeline_run(&p, err);
    tms_pipeline_done(&p);
    return status;
}

static tms_status verify(struct verify *v, const char *file, const char *source, struct tms_error *err)
{
    struct tms_spec spec;
    char type[32];
    const char *told = NULL;
    const struct tms_quantize_options *asked = &v->options->recipe;
    tms_status status = tms_source_open(&v->file, file, NULL, NULL, err);
    if (status == TMS_OK) status = tms_source_open(&v->source, source, NULL, NULL, err);
    if (status != TMS_OK) return status;
    if (v->file->kind == TMS_SOURCE_CONFIG || v->source->kind == TMS_SOURCE_CONFIG)
        return tms_fail(err, TMS_EINPUT, "%s: holds no weights",
                        v->file->kind == TMS_SOURCE_CONFIG ? v->file->path : v->source->path);
    status = tms_pool_create(&v->pool, asked->n_threads, err);
    if (status == TMS_OK && v->file->kind == TMS_SOURCE_GGUF) status = read_provenance(v, &told, err);
    if (status == TMS_OK) status = complete_recipe(v, err);
    if (told && strcmp(told, "auto") != 0)
        snprintf(type, sizeof type, "%s", told);
    else if (status == TMS_OK && asked->n_types == 0)
        status = v->file->kind == TMS_SOURCE_GGUF ? gguf_type(v, type, err) : folder_type(v, type, err);
    if (status == TMS_OK) status = tms_spec_parse(&spec, asked->n_types ? asked->types[0] : type, err);
    if (status != TMS_OK) return status;
    if ((spec.dialect == TMS_DIALECT_GGUF) != (v->file->kind == TMS_SOURCE_GGUF))
        return tms_fail(err, TMS_EINPUT, "%s: is no file of type %s", v->file->path, spec.name);
    if (v->recipe.imatrix) status = tms_open_imatrix(&v->imatrix, &v->recipe, err);
    if (status == TMS_OK) status = choose_plan(v, &spec, err);
    if (status != TMS_OK) return status;
    snprintf(v->result.type, sizeof v->result.type, "%s", v->target->spec.name);
    v->result.n_tensors = v->target->n_outs;
    v->compared = tms_calloc(v->target->n_outs, sizeof *v->compared);
    if (!v->compared) return tms_fail_memory(err, v->target->n_outs * sizeof *v->compared);
    status = compare_keys(v, err);
    if (status == TMS_OK) status = match_tensors(v, err);
    if (status == TMS_OK) status = rebuild(v, err);
    if (status == TMS_OK) report_tensors(v);
    if (status == TMS_OK && v->result.n_findings == 0) status = compare_files(v, err);
    return status;
}

tms_status tms_verify(const char *file, const char *source, const struct tms_verify_options *options,
                      struct tms_verify_result *result, struct tms_error *err)
{
    struct verify v = {.options = options, .recipe = options->recipe};
    v.recipe.allow_requantize = true; /* it was done already */
    pthread_mutex_init(&v.lock, NULL);
    tms_status status = verify(&v, file, source, err);
    if (status == TMS_OK) *result = v.result;
    pthread_mutex_destroy(&v.lock);
    tms_target_free(v.target);
    tms_imatrix_close(v.imatrix);
    tms_pool_free(v.pool);
    tms_kvs_free(&v.own);
    json_decref(v.told);
    tms_source_close(v.file);
    tms_source_close(v.source);
    tms_arena_free(&v.arena);
    free(v.compared);
    return status;
}

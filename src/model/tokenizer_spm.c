/* SentencePiece: tokenizer.model, a protobuf message (sentencepiece_model.proto), read by hand.
 *
 *     ModelProto    1: SentencePiece, repeated   2: TrainerSpec (3: model_type, an enum: 1 unigram, 2 BPE, 3 word, 4
 * char) SentencePiece 1: piece, a string           2: score, a float          3: type, an enum (as tms_token_type)
 *
 * In protobuf's wire format a field is a varint number·8 + kind, then a varint (kind 0), 8 bytes (1), a length
 * and as many bytes (2), or 4 bytes (5). Unknown fields are skipped.
 *
 * Three files may add tokens, each overriding those before it, as llama.cpp's converter has it: added_tokens.json,
 * added_tokens_decoder in tokenizer_config.json and, for Phi-3, added_tokens in tokenizer.json. Their scores are
 * -1000, those of holes -10000. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "file/utf8.h"
#include "model/vocab.h"

#define ADDED_SCORE (-1000.0f)
#define HOLE_SCORE  (-10000.0f)
#define NOT_SENTENCEPIECE                                                                                              \
    "%s: is not a SentencePiece model (tiktoken's files have the same name: transformers saves such a tokenizer as "   \
    "tokenizer.json)"

struct reader {
    const uint8_t *at, *end;
};

struct field {
    uint64_t number;
    unsigned kind;
    uint64_t value;       /* of kinds 0, 1, 5 */
    struct reader inside; /* of kind 2 */
};

static bool read_varint(struct reader *r, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        uint8_t byte = *r->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool read_bytes(struct reader *r, unsigned n, uint64_t *out)
{
    if ((size_t)(r->end - r->at) < n) return false;
    *out = 0;
    for (unsigned i = 0; i < n; i++) *out |= (uint64_t)r->at[i] << (8 * i);
    r->at += n;
    return true;
}

/* The next field; false if the bytes are not one. */
static bool read_field(struct reader *r, struct field *out)
{
    uint64_t tag, n;
    if (!read_varint(r, &tag)) return false;
    *out = (struct field){.number = tag >> 3, .kind = tag & 7};
    if (out->number == 0) return false;
    switch (out->kind) {
    case 0: return read_varint(r, &out->value);
    case 1: return read_bytes(r, 8, &out->value);
    case 5: return read_bytes(r, 4, &out->value);
    case 2:
        if (!read_varint(r, &n) || n > (uint64_t)(r->end - r->at)) return false;
        out->inside = (struct reader){r->at, r->at + n};
        r->at += n;
        return true;
    default: return false; /* groups: not used by this message */
    }
}

/* The fields of one SentencePiece. */
static tms_status read_piece(struct tms_token *out, struct reader r, size_t id, const char *path, struct tms_error *err)
{
    *out = (struct tms_token){.type = TMS_TOKEN_NORMAL};
    struct field f;
    uint64_t type = TMS_TOKEN_NORMAL;
    while (r.at < r.end) {
        if (!read_field(&r, &f)) return tms_fail(err, TMS_EINPUT, "%s: piece %zu is damaged", path, id);
        if (f.number == 1 && f.kind == 2) {
            out->text = (const char *)f.inside.at;
            out->n = (size_t)(f.inside.end - f.inside.at);
        } else if (f.number == 2 && f.kind == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&out->score, &bits, 4);
        } else if (f.number == 3 && f.kind == 0) {
            type = f.value;
        }
    }
    if (!out->n) return tms_fail(err, TMS_EINPUT, "%s: piece %zu is empty", path, id);
    if (!tms_is_utf8(out->text, out->n)) return tms_fail(err, TMS_EINPUT, "%s: piece %zu is not UTF-8", path, id);
    if (!isfinite(out->score)) return tms_fail(err, TMS_EINPUT, "%s: the score of piece %zu is not finite", path, id);
    if (type < TMS_TOKEN_NORMAL || type > TMS_TOKEN_BYTE)
        return tms_fail(err, TMS_EINPUT, "%s: piece %zu has the unknown type %llu", path, id, (unsigned long long)type);
    out->type = (int32_t)type;
    return TMS_OK;
}

struct pieces {
    struct tms_token *items; /* their texts are inside the file's bytes */
    size_t n, cap;
    uint64_t model_type;
};

static tms_status read_model(struct pieces *out, const uint8_t *bytes, size_t n, const char *path,
                             struct tms_error *err)
{
    struct reader r = {bytes, bytes + n};
    struct field f, inner;
    out->model_type = 1; /* the default in the .proto file */
    while (r.at < r.end) {
        if (!read_field(&r, &f)) return tms_fail(err, TMS_EINPUT, NOT_SENTENCEPIECE, path);
        if (f.number == 1 && f.kind == 2) {
            if (out->n >= TMS_VOCAB_MAX)
                return tms_fail(err, TMS_EINPUT, "%s: has more than %llu pieces", path,
                                (unsigned long long)TMS_VOCAB_MAX);
            if (!tms_grow(&out->items, &out->cap, out->n + 1, sizeof *out->items))
                return tms_fail_memory(err, (out->n + 1) * sizeof *out->items);
            tms_status status = read_piece(&out->items[out->n], f.inside, out->n, path, err);
            if (status != TMS_OK) return status;
            out->n++;
        } else if (f.number == 2 && f.kind == 2) {
            while (f.inside.at < f.inside.end) {
                if (!read_field(&f.inside, &inner))
                    return tms_fail(err, TMS_EINPUT, "%s: its trainer_spec is damaged", path);
                if (inner.number == 3 && inner.kind == 0) out->model_type = inner.value;
            }
        }
    }
    if (!out->n) return tms_fail(err, TMS_EINPUT, NOT_SENTENCEPIECE, path);
    if (out->model_type != 1 && out->model_type != 2)
        return tms_fail(err, TMS_EINPUT, "%s: SentencePiece models of type %llu (word, char) have no place in GGUF",
                        path, (unsigned long long)out->model_type);
    return TMS_OK;
}

/* Says what an added token does to the one that has its id; false if the vocabulary ends before it. */
static bool fits(const struct tms_vocab *vocab, const struct tms_tokenizer_files *files, uint64_t id, const char *text,
                 size_t n, const char *path)
{
    if (id >= vocab->n) {
        tms_tokenizer_warn(files->options, "%s: token '%.200s' is left out: its id %llu is past the %llu embeddings",
                           path, text, (unsigned long long)id, (unsigned long long)vocab->n);
        return false;
    }
    const struct tms_token *old = &vocab->tokens[id];
    if (old->text && old->type != TMS_TOKEN_UNUSED && (old->n != n || memcmp(old->text, text, n) != 0))
        tms_tokenizer_warn(files->options, "%s: token %llu becomes '%.200s', it was '%.*s'", path,
                           (unsigned long long)id, text, (int)(old->n < 200 ? old->n : 200), old->text);
    return true;
}

/* One token of added_tokens_decoder or of tokenizer.json's added_tokens. */
static tms_status add_described(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, const json_t *token,
                                uint64_t id, const char *path, bool verbatim, struct tms_error *err)
{
    const json_t *content = json_object_get(token, "content");
    if (!json_is_string(content))
        return tms_fail(err, TMS_EINPUT, "%s: added token %llu has no content", path, (unsigned long long)id);
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    bool special = json_is_true(json_object_get(token, "special"));
    if (!fits(vocab, files, id, text, n, path)) return TMS_OK;
    if (verbatim)
        tms_vocab_set(vocab, id, text, n, special ? TMS_TOKEN_CONTROL : TMS_TOKEN_USER_DEFINED);
    else if (!tms_vocab_set_added(vocab, id, text, n, special))
        return tms_fail_memory(err, n);
    vocab->tokens[id].score = ADDED_SCORE;
    return TMS_OK;
}

/* added_tokens.json: {text: id}. The texts are copied, for the JSON goes. */
static tms_status add_listed(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    tms_status status = TMS_OK;
    json_t *list = NULL, *value;
    const char *text;
    size_t n;
    uint64_t id;
    char *path = tms_path_join(files->dir, "added_tokens.json");
    if (!path) return tms_fail_memory(err, strlen(files->dir) + 20);
    if (!tms_path_exists(path)) goto done;
    status = tms_json_load(&list, path, UINT64_C(1) << 26, err);
    if (status != TMS_OK) goto done;
    if (!json_is_object(list)) {
        status = tms_fail(err, TMS_EINPUT, "%s: is not an object of texts and ids", path);
        goto done;
    }
    json_object_keylen_foreach(list, text, n, value)
    {
        status = tms_token_id(&id, value, text, path, err);
        if (status != TMS_OK) goto done;
        if (!fits(vocab, files, id, text, n, path)) continue;
        const char *copy = tms_arena_strndup(&vocab->texts, text, n);
        if (!copy) {
            status = tms_fail_memory(err, n);
            goto done;
        }
        tms_vocab_set(vocab, id, copy, n, TMS_TOKEN_USER_DEFINED);
        vocab->tokens[id].score = ADDED_SCORE;
    }
done:
    json_decref(list);
    free(path);
    return status;
}

static tms_status read_added(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, bool verbatim,
                             struct tms_error *err)
{
    tms_status status = add_listed(vocab, files, err);
    const char *key;
    json_t *token;
    uint64_t id;
    if (status != TMS_OK) return status;
    json_object_foreach(json_object_get(files->settings, "added_tokens_decoder"), key, token)
    {
        if (!tms_token_id_from_text(&id, key))
            return tms_fail(err, TMS_EINPUT, "%s: added_tokens_decoder: '%.100s' is no id", files->settings_path, key);
        status = add_described(vocab, files, token, id, files->settings_path, verbatim, err);
        if (status != TMS_OK) return status;
    }
    if (!verbatim) return TMS_OK;
    size_t i;
    json_array_foreach(json_object_get(files->tokenizer, "added_tokens"), i, token)
    {
        const char *text = json_string_value(json_object_get(token, "content"));
        status = tms_token_id(&id, json_object_get(token, "id"), text ? text : "", files->tokenizer_path, err);
        if (status == TMS_OK) status = add_described(vocab, files, token, id, files->tokenizer_path, verbatim, err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}

tms_status tms_spm_read(struct tms_vocab *vocab, const struct tms_tokenizer_files *files, bool verbatim,
                        struct tms_error *err)
{
    const char *path = files->model_path;
    uint64_t wanted = files->options->vocab_size;
    struct pieces pieces = {0};
    char *bytes = NULL;
    size_t n = 0;
    tms_status status = tms_file_text(path, UINT64_C(1) << 28, &bytes, &n, err);
    if (status != TMS_OK) return status;
    status = read_model(&pieces, (const uint8_t *)bytes, n, path, err);
    if (status != TMS_OK) goto done;
    if (pieces.model_type == 1)
        tms_tokenizer_warn(files->options,
                           "%s: a unigram model; llama.cpp merges pairs by score instead of searching "
                           "the most probable pieces, and may read texts differently",
                           path);
    if (wanted && pieces.n > wanted)
        tms_tokenizer_warn(files->options, "%s: pieces %llu to %zu are left out: the model has only %llu embeddings",
                           path, (unsigned long long)wanted, pieces.n - 1, (unsigned long long)wanted);
    status = tms_vocab_init(vocab, wanted ? wanted : pieces.n, path, err);
    if (status != TMS_OK) goto done;
    for (size_t id = 0; id < pieces.n && id < vocab->n; id++) {
        vocab->tokens[id] = pieces.items[id];
        /* The converter knows no user-defined pieces, and llama.cpp finds them as it finds normal ones. */
        if (pieces.items[id].type == TMS_TOKEN_USER_DEFINED && !files->keep_user_defined)
            vocab->tokens[id].type = TMS_TOKEN_NORMAL;
        vocab->tokens[id].text = tms_arena_strndup(&vocab->texts, pieces.items[id].text, pieces.items[id].n);
        if (!vocab->tokens[id].text) {
            status = tms_fail_memory(err, pieces.items[id].n);
            goto done;
        }
    }
    status = read_added(vocab, files, verbatim, err);
    if (status == TMS_OK) status = tms_vocab_finish(vocab, HOLE_SCORE, path, err);
done:
    free(pieces.items);
    free(bytes);
    return status;
}

/* NormalizerSpec, field 3 of ModelProto: 2: charsmap, 3: add_dummy_prefix, 4: remove_extra_whitespaces, 5:
 * escape_whitespaces. TrainerSpec, field 2: 3: model_type, 24: treat_whitespace_as_suffix, 35: byte_fallback. */
tms_status tms_spm_read_spec(struct tms_spm_spec *out, const struct tms_tokenizer_files *files, struct tms_error *err)
{
    const char *path = files->model_path;
    struct tms_spm_spec spec = {.space_first = true, .join_spaces = true, .escape_spaces = true, .unigram = true};
    struct field f, inner;
    char *bytes = NULL;
    size_t n = 0;
    tms_status status = tms_file_text(path, UINT64_C(1) << 28, &bytes, &n, err);
    if (status != TMS_OK) return status;
    struct reader r = {(const uint8_t *)bytes, (const uint8_t *)bytes + n};
    while (r.at < r.end && status == TMS_OK) {
        if (!read_field(&r, &f)) {
            status = tms_fail(err, TMS_EINPUT, NOT_SENTENCEPIECE, path);
            break;
        }
        while ((f.number == 2 || f.number == 3) && f.kind == 2 && f.inside.at < f.inside.end && status == TMS_OK) {
            if (!read_field(&f.inside, &inner)) {
                status = tms_fail(err, TMS_EINPUT, "%s: its %s is damaged", path,
                                  f.number == 2 ? "trainer_spec" : "normalizer_spec");
            } else if (f.number == 2 && inner.kind == 0) {
                if (inner.number == 3) spec.unigram = inner.value == 1;
                if (inner.number == 24) spec.space_last = inner.value != 0;
                if (inner.number == 35) spec.byte_fallback = inner.value != 0;
            } else if (f.number == 3 && inner.kind == 0) {
                if (inner.number == 3) spec.space_first = inner.value != 0;
                if (inner.number == 4) spec.join_spaces = inner.value != 0;
                if (inner.number == 5) spec.escape_spaces = inner.value != 0;
            } else if (f.number == 3 && inner.number == 2 && inner.kind == 2 && inner.inside.at < inner.inside.end) {
                free(spec.charsmap);
                spec.n_charsmap = (size_t)(inner.inside.end - inner.inside.at);
                spec.charsmap = malloc(spec.n_charsmap);
                if (spec.charsmap)
                    memcpy(spec.charsmap, inner.inside.at, spec.n_charsmap);
                else
                    status = tms_fail_memory(err, spec.n_charsmap);
            }
        }
    }
    free(bytes);
    if (status == TMS_OK)
        *out = spec;
    else
        free(spec.charsmap);
    return status;
}

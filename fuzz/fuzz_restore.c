/* The keys of a small model, each of which the input may replace by any bytes of any type, on their way into a Hugging
 * Face folder: refused with one line, or config.json and tokenizer.json are JSON. The input is a list of key (a byte,
 * an index), type (a byte), length (a byte) and so many bytes; its first byte chooses the tokenizer. */
#include "fuzz.h"

#include <jansson.h>
#include <string.h>

#include "model/restore.h"

static const char *const keys[] = {
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.freq_base",
    "llama.rope.dimension_count",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "llama.rope.scaling.original_context_length",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.chat_template",
    "tokenizer.chat_template.tools",
};
enum { N_KEYS = sizeof keys / sizeof *keys, N_TOKENS = 8 };

static void put_model(struct tms_kvs *kvs, bool bpe)
{
    static const char *const texts[N_TOKENS] = {"<unk>", "<s>", "a", "b", "ab", "<0x41>", "[PAD6]", "<x>"};
    static const int32_t types[N_TOKENS] = {2, 3, 1, 1, 1, 6, 5, 4};
    static const float scores[N_TOKENS] = {0, 0, -1, -2, 0, 0, -1000, -1000};
    struct tms_buf tokens = {0}, merges = {0};
    for (size_t i = 0; i < N_TOKENS; i++) tms_kv_put_string(&tokens, texts[i], strlen(texts[i]));
    tms_kv_put_string(&merges, "a b", 3);
    for (size_t i = 0; i < 6; i++) tms_kvs_set_u32(kvs, keys[i], i == 0 || i > 3 ? 1 : 8);
    tms_kvs_set_f32(kvs, keys[7], 1e-5f);
    tms_kvs_set_string(kvs, "tokenizer.ggml.model", bpe ? "gpt2" : "llama");
    tms_kvs_set_string(kvs, "tokenizer.ggml.pre", "llama-bpe");
    tms_kvs_set_array(kvs, "tokenizer.ggml.tokens", TMS_KV_STRING, N_TOKENS, tokens.data, tokens.n);
    tms_kvs_set_array(kvs, "tokenizer.ggml.scores", TMS_KV_F32, N_TOKENS, scores, sizeof scores);
    tms_kvs_set_array(kvs, "tokenizer.ggml.token_type", TMS_KV_I32, N_TOKENS, types, sizeof types);
    tms_kvs_set_array(kvs, "tokenizer.ggml.merges", TMS_KV_STRING, 1, merges.data, merges.n);
    tms_kvs_set_u32(kvs, "tokenizer.ggml.bos_token_id", 1);
    tms_buf_free(&tokens);
    tms_buf_free(&merges);
}

/* As a GGUF reader could have read it: scalars have their size, arrays whole elements. */
static void put_any(struct tms_kvs *kvs, const char *key, unsigned type, const uint8_t *bytes, size_t n)
{
    bool array = (type & 0x10) != 0;
    type = type % TMS_KV_TYPES == TMS_KV_ARRAY ? TMS_KV_STRING : type % TMS_KV_TYPES;
    size_t size = tms_kv_type_bytes((enum tms_kv_type)type);
    if (array) {
        uint64_t count = size ? n / size : bytes[0] % 16;
        tms_kvs_set_array(kvs, key, (enum tms_kv_type)type, count, bytes, size ? count * size : n);
    } else if (size <= n) {
        tms_kvs_set(kvs, key, (enum tms_kv_type)type, bytes, size ? size : n);
    }
}

static void check_files(const struct tms_made_files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        const struct tms_made_file *file = &files->items[i];
        json_error_t problem;
        if (strstr(file->name, ".json") == NULL) continue;
        json_t *json = json_loadb((const char *)file->bytes.data, file->bytes.n, JSON_ALLOW_NUL, &problem);
        fuzz_require(json != NULL, "what was made is JSON");
        json_decref(json);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[] = "fuzz", name[] = "token_embd.weight";
    struct tms_gguf gguf = {.version = 3};
    struct tms_tensor embedding = {
        .name = name, .type = TMS_F32, .n_dims = 2, .shape = {N_TOKENS, 8}, .rows = N_TOKENS};
    size_t first = 0;
    struct tms_source source = {.kind = TMS_SOURCE_GGUF,
                                .path = path,
                                .gguf = &gguf,
                                .n_tensors = 1,
                                .tensors = &embedding,
                                .by_name = &first,
                                .arch = tms_arch_find_gguf("llama", false, false)};
    struct tms_restore_options options = {.dtype = TMS_BF16};
    struct tms_made_files files = {0};
    struct tms_config config;
    struct tms_error err = {{0}};
    put_model(&gguf.kvs, n > 0 && bytes[0] % 2);
    for (size_t at = 1; at + 4 <= n;) {
        size_t length = bytes[at + 2] < n - at - 3 ? bytes[at + 2] : n - at - 3;
        if (length) put_any(&gguf.kvs, keys[bytes[at] % N_KEYS], bytes[at + 1], bytes + at + 3, length);
        at += 3 + length;
    }
    tms_status status = tms_restore_numbers(&config, &source, &options, &err);
    if (status == TMS_OK) status = tms_restore_config(&files, &source, &config, &options, &err);
    if (status == TMS_OK) status = tms_restore_tokenizer(&files, &source, &config, &options, &err);
    if (status == TMS_OK)
        check_files(&files);
    else
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    tms_made_files_free(&files);
    tms_kvs_free(&gguf.kvs);
    return 0;
}

/* The keys of a small model, each of which the input may replace by any bytes of any type, on their way into a Hugging
 * Face folder: refused with one line, or config.json and tokenizer.json are JSON. The input is a list of key (a byte,
 * an index), type (a byte), length (a byte) and so many bytes; its first byte chooses tokenizer and architecture. */
#include "fuzz.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "model/restore.h"

static const char *const keys[] = {
    ".block_count",
    ".context_length",
    ".embedding_length",
    ".feed_forward_length",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.layer_norm_rms_epsilon",
    ".rope.freq_base",
    ".rope.dimension_count",
    ".rope.scaling.type",
    ".rope.scaling.factor",
    ".rope.scaling.original_context_length",
    ".rope.scaling.attn_factor",
    ".rope.scaling.yarn_log_multiplier",
    ".rope.freq_base_swa",
    ".attn_logit_softcapping",
    ".attention.sliding_window",
    ".attention.q_lora_rank",
    ".attention.kv_lora_rank",
    ".attention.key_length_mla",
    ".attention.value_length_mla",
    ".leading_dense_block_count",
    ".expert_count",
    ".expert_used_count",
    ".expert_group_count",
    ".expert_group_used_count",
    ".expert_gating_func",
    ".expert_feed_forward_length",
    ".expert_shared_count",
    ".expert_weights_scale",
    ".expert_weights_norm",
    "tamis.attention.sliding_window",
    "tamis.attention.sliding_window_layers",
    "tamis.attention.query_pre_attn_scalar",
    "tamis.expert_layer_step",
    "tamis.expert_weights_norm",
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

/* What the input can be a model of. */
static const struct {
    const char *name;
    bool has_experts, has_sigmoid;
} archs[] = {{"llama", false, false},    {"llama", true, false},    {"qwen2", false, false},
             {"qwen2moe", true, false},  {"qwen3moe", true, false}, {"gemma", false, false},
             {"gemma2", false, false},   {"gemma3", false, false},  {"phi3", false, false},
             {"deepseek2", true, false}, {"deepseek2", true, true}, {"qwen3", false, false}};
enum { N_ARCHS = sizeof archs / sizeof *archs };

/* ".block_count" is the architecture's own. */
static const char *full_key(const char *arch, const char *key, char out[128])
{
    snprintf(out, 128, "%s%s", key[0] == '.' ? arch : "", key);
    return out;
}

static void put_number(struct tms_kvs *kvs, const char *arch, const char *key, uint32_t n)
{
    char text[128];
    tms_kvs_set_u32(kvs, full_key(arch, key, text), n);
}

static void put_model(struct tms_kvs *kvs, const char *arch, bool bpe)
{
    static const struct {
        const char *key;
        uint32_t n;
    } numbers[] = {{".expert_count", 4},           {".expert_used_count", 2},        {".expert_feed_forward_length", 8},
                   {".attention.kv_lora_rank", 4}, {".attention.key_length_mla", 6}, {".attention.value_length_mla", 4},
                   {".rope.dimension_count", 2},   {".expert_gating_func", 1}};
    char text[128];
    static const char *const texts[N_TOKENS] = {"<unk>", "<s>", "a", "b", "ab", "<0x41>", "[PAD6]", "<x>"};
    static const int32_t types[N_TOKENS] = {2, 3, 1, 1, 1, 6, 5, 4};
    static const float scores[N_TOKENS] = {0, 0, -1, -2, 0, 0, -1000, -1000};
    struct tms_buf tokens = {0}, merges = {0};
    for (size_t i = 0; i < N_TOKENS; i++) tms_kv_put_string(&tokens, texts[i], strlen(texts[i]));
    tms_kv_put_string(&merges, "a b", 3);
    for (size_t i = 0; i < 6; i++) put_number(kvs, arch, keys[i], i == 0 || i > 3 ? 1 : 8);
    tms_kvs_set_f32(kvs, full_key(arch, keys[7], text), 1e-5f);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && strcmp(arch, "deepseek2") == 0; i++)
        put_number(kvs, arch, numbers[i].key, numbers[i].n);
    for (size_t i = 0; i < 3 && strstr(arch, "moe"); i++) put_number(kvs, arch, numbers[i].key, numbers[i].n);
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
    char text[128], path[] = "fuzz", name[] = "token_embd.weight";
    struct tms_gguf gguf = {.version = 3};
    struct tms_tensor embedding = {
        .name = name, .type = TMS_F32, .n_dims = 2, .shape = {N_TOKENS, 8}, .rows = N_TOKENS};
    size_t first = 0, which = n > 0 ? bytes[0] / 2 % N_ARCHS : 0;
    const char *arch = archs[which].name;
    struct tms_source source = {.kind = TMS_SOURCE_GGUF,
                                .path = path,
                                .gguf = &gguf,
                                .n_tensors = 1,
                                .tensors = &embedding,
                                .by_name = &first,
                                .arch = tms_arch_find_gguf(arch, archs[which].has_experts, archs[which].has_sigmoid)};
    struct tms_restore_options options = {.dtype = TMS_BF16};
    struct tms_made_files files = {0};
    struct tms_config config;
    struct tms_error err = {{0}};
    put_model(&gguf.kvs, arch, n > 0 && bytes[0] % 2);
    bool mixtral = archs[which].has_experts && strcmp(arch, "llama") == 0;
    if (mixtral) put_number(&gguf.kvs, arch, ".expert_count", 4);
    if (mixtral) put_number(&gguf.kvs, arch, ".expert_used_count", 2);
    for (size_t at = 1; at + 4 <= n;) {
        size_t length = bytes[at + 2] < n - at - 3 ? bytes[at + 2] : n - at - 3;
        if (length)
            put_any(&gguf.kvs, full_key(arch, keys[bytes[at] % N_KEYS], text), bytes[at + 1], bytes + at + 3, length);
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

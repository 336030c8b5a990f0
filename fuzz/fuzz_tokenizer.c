/* Any bytes as a folder's tokenizer: refused with one line, or exported with arrays that fit each other.
 *
 * The first byte chooses: bit 0 whether the text is tokenizer.json or tokenizer.model, bits 1 to 3 the architecture,
 * bit 4 whether the model has a number of embeddings. What follows the first SEPARATOR is tokenizer_config.json. */
#include "fuzz.h"

#include <string.h>
#include <sys/stat.h>

#include "file/kvs.h"
#include "model/tokenizer.h"

#define SEPARATOR "\xff\xfe\xfd\n"

static char dir[64];

static void remove_dir(void)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json"};
    char path[128];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

static void put(const char *name, const uint8_t *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) abort();
}

static void drop(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)unlink(path);
}

static uint64_t count_of(const struct tms_kvs *kvs, const char *key)
{
    const struct tms_kv *kv = tms_kvs_find(kvs, key);
    return kv ? kv->count : 0;
}

/* The strings of an array fill its bytes exactly. */
static void check_strings(const struct tms_kv *kv)
{
    size_t at = 0;
    for (uint64_t i = 0; kv && i < kv->count; i++) {
        uint64_t n;
        fuzz_require(kv->n_bytes - at >= 8, "a string has a length");
        memcpy(&n, kv->bytes + at, 8);
        fuzz_require(n <= kv->n_bytes - at - 8, "a string lies in its array");
        at += 8 + n;
    }
    fuzz_require(!kv || at == kv->n_bytes, "strings fill their array");
}

static void check(const struct tms_kvs *kvs)
{
    static const char *const ids[] = {"bos", "eos", "unknown", "seperator", "padding", "mask", "eot", "eom"};
    uint64_t n = count_of(kvs, "tokenizer.ggml.tokens"), id;
    const char *model = tms_kv_as_string(tms_kvs_find(kvs, "tokenizer.ggml.model"));
    int sentencepiece = model && strcmp(model, "llama") == 0;
    fuzz_require(!kvs->failed && model && n > 0, "a vocabulary has a kind and tokens");
    fuzz_require(count_of(kvs, "tokenizer.ggml.token_type") == n, "a type for every token");
    fuzz_require(count_of(kvs, "tokenizer.ggml.scores") == (sentencepiece ? n : 0), "a score for every piece");
    fuzz_require(tms_kv_as_string(tms_kvs_find(kvs, "tokenizer.ggml.pre")) != NULL, "a pre-tokenizer");
    check_strings(tms_kvs_find(kvs, "tokenizer.ggml.tokens"));
    check_strings(tms_kvs_find(kvs, "tokenizer.ggml.merges"));
    check_strings(tms_kvs_find(kvs, "tokenizer.chat_templates"));
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
        if (tms_kv_as_u64(tms_kvs_find(kvs, key), &id)) fuzz_require(id < n, "special ids are in the vocabulary");
    }
}

static void warn(void *ctx, const char *line)
{
    (void)ctx;
    fuzz_require(line[0] && !strchr(line, '\n'), "a warning is one line");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const archs[8] = {"llama", "gemma", "gemma3", "phi3", "qwen3", "deepseek2", "", NULL};
    if (n < 1) return 0;
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/dev/shm/tamis-fuzz-XXXXXX");
        if (!mkdtemp(dir)) abort();
        atexit(remove_dir);
    }
    int choice = bytes[0];
    bytes++, n--;
    const uint8_t *cut = memmem(bytes, n, SEPARATOR, 4);
    size_t text = cut ? (size_t)(cut - bytes) : n;
    put(choice & 1 ? "tokenizer.json" : "tokenizer.model", bytes, text);
    drop(choice & 1 ? "tokenizer.model" : "tokenizer.json");
    if (cut)
        put("tokenizer_config.json", cut + 4, n - text - 4);
    else
        drop("tokenizer_config.json");

    json_t *config = json_pack("{s:i, s:i}", "bos_token_id", 1, "eos_token_id", 399);
    struct tms_tokenizer_options options = {
        .arch = archs[choice >> 1 & 7], .config = config, .vocab_size = choice & 16 ? 400 : 0, .warn = warn};
    struct tms_kvs kvs = {0};
    struct tms_error err = {{0}};
    if (tms_tokenizer_export(&kvs, dir, &options, &err) == TMS_OK)
        check(&kvs);
    else
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    tms_kvs_free(&kvs);
    json_decref(config);
    return 0;
}

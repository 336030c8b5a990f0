/* Hugging Face folders: a good one of one layer, shaped as Qwen2, and copies that have one thing wrong each. */
#include "corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "file/safetensors.h"

enum { VOCAB = 264, HIDDEN = 32, FFN = 64, HEADS = 2, KV = 16 /* one head of 16 */ };

static const struct weight {
    const char *name;
    uint64_t rows, cols; /* cols 0: one dimension */
} weights[] = {
    {"model.embed_tokens.weight", VOCAB, HIDDEN},
    {"model.layers.0.input_layernorm.weight", HIDDEN, 0},
    {"model.layers.0.mlp.down_proj.weight", HIDDEN, FFN},
    {"model.layers.0.mlp.gate_proj.weight", FFN, HIDDEN},
    {"model.layers.0.mlp.up_proj.weight", FFN, HIDDEN},
    {"model.layers.0.post_attention_layernorm.weight", HIDDEN, 0},
    {"model.layers.0.self_attn.k_proj.bias", KV, 0},
    {"model.layers.0.self_attn.k_proj.weight", KV, HIDDEN},
    {"model.layers.0.self_attn.o_proj.weight", HIDDEN, HIDDEN},
    {"model.layers.0.self_attn.q_proj.bias", HIDDEN, 0},
    {"model.layers.0.self_attn.q_proj.weight", HIDDEN, HIDDEN},
    {"model.layers.0.self_attn.v_proj.bias", KV, 0},
    {"model.layers.0.self_attn.v_proj.weight", KV, HIDDEN},
    {"model.norm.weight", HIDDEN, 0},
};
enum { N_WEIGHTS = sizeof weights / sizeof weights[0], SPLIT = 6 /* weights in the first of two shards */ };

/* ---- the good folder ---- */

/* BF16 weights; the first value of the tensor `odd` (if any) is `value`. */
static void write_weights(const char *path, const struct weight *list, size_t n, const char *odd, float value)
{
    struct tms_st_plan_tensor *plan = calloc(n + 1, sizeof *plan);
    struct tms_buf buf = {0};
    uint64_t size;
    if (!plan) abort();
    for (size_t i = 0; i < n; i++) {
        plan[i].name = list[i].name;
        plan[i].type = TMS_BF16;
        plan[i].n_dims = list[i].cols ? 2 : 1;
        plan[i].shape[0] = list[i].rows;
        plan[i].shape[1] = list[i].cols;
    }
    if (tms_st_layout(plan, n, 0, &buf, &size, NULL) != TMS_OK) abort();
    tms_buf_zeros(&buf, (size_t)size - buf.n);
    for (size_t i = 0; i < n; i++) {
        for (size_t e = 0; e < plan[i].bytes / 2; e++) {
            float x = (float)((int)(e * 37 % 64) - 31) / 256;
            if (e == 0 && odd && strcmp(plan[i].name, odd) == 0) x = value;
            uint16_t h = tms_f32_to_bf16(x);
            buf.data[plan[i].offset + 2 * e] = (uint8_t)h;
            buf.data[plan[i].offset + 2 * e + 1] = (uint8_t)(h >> 8);
        }
    }
    free(plan);
    corpus_write_buf(path, &buf);
}

/* Entries of config.json; a case replaces one or drops it (value ""). */
static const struct entry {
    const char *key, *value;
} entries[] = {
    {"architectures", "[\"Qwen2ForCausalLM\"]"},
    {"model_type", "\"qwen2\""},
    {"hidden_act", "\"silu\""},
    {"hidden_size", "32"},
    {"intermediate_size", "64"},
    {"max_position_embeddings", "128"},
    {"num_attention_heads", "2"},
    {"num_hidden_layers", "1"},
    {"num_key_value_heads", "1"},
    {"rms_norm_eps", "1e-06"},
    {"rope_scaling", "null"},
    {"rope_theta", "10000.0"},
    {"tie_word_embeddings", "true"},
    {"torch_dtype", "\"bfloat16\""},
    {"vocab_size", "264"},
    {"quantization_config", ""},
};

static void write_config(const char *folder, const char *key, const char *value)
{
    struct tms_buf buf = {0};
    char path[256];
    const char *comma = "{\n";
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        const char *text = key && strcmp(entries[i].key, key) == 0 ? value : entries[i].value;
        if (!*text) continue;
        tms_buf_printf(&buf, "%s \"%s\": %s", comma, entries[i].key, text);
        comma = ",\n";
    }
    tms_buf_text(&buf, "\n}\n");
    snprintf(path, sizeof path, "%s/config.json", folder);
    corpus_write_buf(path, &buf);
}

/* The character that byte-level BPE writes for a byte: itself if it is printable in Latin-1, else the next free one
 * from U+0100 on (openai/gpt-2, encoder.py, bytes_to_unicode). As UTF-8 in JSON. */
static void byte_symbol(char out[8], unsigned byte)
{
    unsigned code = byte, next = 0x100;
    for (unsigned b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        if (printable) continue;
        if (b == byte) code = next;
        next++;
    }
    if (code == '"' || code == '\\')
        snprintf(out, 8, "\\%c", code);
    else if (code < 0x80)
        snprintf(out, 8, "%c", code);
    else
        snprintf(out, 8, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 0x3f));
}

/* 256 bytes, some merges, one special token; `merge` is a further merge, `id` the id of the special token. */
static void write_tokenizer(const char *folder, const char *merge, unsigned id)
{
    static const struct {
        const char *token, *merge;
    } merged[] = {{"\304\240t", "\304\240 t"}, {"he", "h e"}, {"\304\240the", "\304\240t he"}, {"in", "i n"}};
    struct tms_buf buf = {0};
    char path[256], symbol[8];
    tms_buf_printf(&buf,
                   "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [{\"id\": %u, "
                   "\"content\": \"<|endoftext|>\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                   "\"normalized\": false, \"special\": true}], \"normalizer\": {\"type\": \"NFC\"}, ",
                   id);
    tms_buf_text(&buf,
                 "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
                 "{\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
                 "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, "
                 "\"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", \"add_prefix_space\": "
                 "false, \"trim_offsets\": false, \"use_regex\": false}]}, \"post_processor\": null, \"decoder\": "
                 "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": "
                 "true}, \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                 "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false, "
                 "\"byte_fallback\": false, \"ignore_merges\": false, \"vocab\": {");
    for (unsigned i = 0; i < 256; i++) {
        byte_symbol(symbol, i);
        tms_buf_printf(&buf, "\"%s\": %u, ", symbol, i);
    }
    for (unsigned i = 0; i < 4; i++) tms_buf_printf(&buf, "%s\"%s\": %u", i ? ", " : "", merged[i].token, 256 + i);
    tms_buf_text(&buf, "}, \"merges\": [");
    for (unsigned i = 0; i < 4; i++) tms_buf_printf(&buf, "%s\"%s\"", i ? ", " : "", merged[i].merge);
    if (merge) tms_buf_printf(&buf, ", \"%s\"", merge);
    tms_buf_text(&buf, "]}}\n");
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    corpus_write_buf(path, &buf);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    corpus_write_text(path, "{\"add_bos_token\": false, \"eos_token\": \"<|endoftext|>\", \"model_max_length\": 128, "
                            "\"tokenizer_class\": \"Qwen2Tokenizer\"}\n");
}

static char folder[128];

/* The path of a file in the folder of the case at hand. */
static const char *in(const char *name)
{
    static char out[256];
    snprintf(out, sizeof out, "%s/%s", folder, name);
    return out;
}

/* A good folder of one weight file. */
static const char *good(const char *name)
{
    snprintf(folder, sizeof folder, "hf/%s", name);
    corpus_mkdir(folder);
    write_config(folder, NULL, NULL);
    write_tokenizer(folder, NULL, 260);
    write_weights(in("model.safetensors"), weights, N_WEIGHTS, NULL, 0);
    return folder;
}

/* index.json of two shards; tensor `moved` (if any) is said to be in `file`. */
static void write_index(const char *moved, const char *file)
{
    struct tms_buf buf = {0};
    const char *comma = "";
    tms_buf_text(&buf, "{\"metadata\": {\"total_size\": 48000}, \"weight_map\": {");
    for (size_t i = 0; i < N_WEIGHTS; i++) {
        const char *shard = i < SPLIT ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
        if (moved && strcmp(weights[i].name, moved) == 0) shard = file;
        if (!shard) continue;
        tms_buf_printf(&buf, "%s\"%s\": \"%s\"", comma, weights[i].name, shard);
        comma = ", ";
    }
    tms_buf_text(&buf, "}}\n");
    corpus_write_buf(in("model.safetensors.index.json"), &buf);
}

/* A good folder of two shards and an index. */
static const char *good_sharded(const char *name)
{
    good(name);
    corpus_remove(in("model.safetensors"));
    write_weights(in("model-00001-of-00002.safetensors"), weights, SPLIT, NULL, 0);
    write_weights(in("model-00002-of-00002.safetensors"), weights + SPLIT, N_WEIGHTS - SPLIT, NULL, 0);
    write_index(NULL, NULL);
    return folder;
}

/* ---- config.json ---- */

static void configs(void)
{
    static const struct {
        const char *name, *key, *value, *command, *fragment;
    } cases[] = {
        {"hf/negative-layers", "num_hidden_layers", "-3", "inspect", "\"num_hidden_layers\" is -3"},
        {"hf/no-heads", "num_attention_heads", "0", "inspect", "\"num_attention_heads\" is 0"},
        {"hf/endless-heads", "num_attention_heads", "1099511627776", "inspect", "is 1099511627776"},
        {"hf/endless-layers", "num_hidden_layers", "2147483647", "inspect", "is 2147483647"},
        {"hf/endless-hidden", "hidden_size", "9223372036854775807", "inspect", "is 9223372036854775807"},
        {"hf/number-too-big", "vocab_size", "18446744073709551616", "inspect", "too big"},
        {"hf/hidden-as-text", "hidden_size", "\"32\"", "inspect", "\"hidden_size\" is not a whole number"},
        {"hf/fractional-vocab", "vocab_size", "264.5", "inspect", "\"vocab_size\" is not a whole number"},
        {"hf/tied-as-text", "tie_word_embeddings", "\"yes\"", "inspect", "\"tie_word_embeddings\""},
        {"hf/theta-0", "rope_theta", "0", "inspect", "\"rope_theta\" is not positive"},
        {"hf/rope-list", "rope_scaling", "[1]", "inspect", "\"rope_scaling\" is not an object"},
        {"hf/rope-without-factor", "rope_scaling", "{\"type\": \"linear\"}", "inspect", "factor"},
        {"hf/heads-no-multiple", "num_key_value_heads", "3", "inspect", "no multiple of num_key_value_heads"},
        {"hf/hidden-no-multiple", "hidden_size", "33", "inspect", "no multiple of num_attention_heads"},
        {"hf/nan-in-config", "rms_norm_eps", "NaN", "inspect", "not valid JSON"},
        {"hf/architectures-text", "architectures", "\"Qwen2ForCausalLM\"", "inspect", "\"architectures\""},
        {"hf/quantized-already", "quantization_config", "{\"quant_method\": \"hqq\", \"bits\": 4}", "convert", "hqq"},
        {"hf/unknown-architecture", "architectures", "[\"MysteryForCausalLM\"]", "convert", "MysteryForCausalLM"},
        {"hf/wrong-ffn", "intermediate_size", "96", "convert", "is not [32, 96]"},
        {"hf/wrong-heads", "num_key_value_heads", "2", "convert", "k_proj.bias"},
        {"hf/vocab-too-small", "vocab_size", "128", "convert", "128"},
        {"hf/untied-without-head", "tie_word_embeddings", "false", "convert", "'lm_head.weight' is missing"},
        {"hf/layer-missing", "num_hidden_layers", "2", "convert", "layers.1."},
        {"hf/no-shape", "intermediate_size", "", "convert", "lacks numbers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        good(cases[i].name + 3);
        write_config(folder, cases[i].key, cases[i].value);
        corpus_expect(cases[i].name, cases[i].command, 2, cases[i].fragment);
    }
    corpus_expect("hf/wrong-ffn", "check", 2, "config.json says [32, 96]");

    good("no-config");
    corpus_remove(in("config.json"));
    corpus_refused(folder, "config.json");
    good("config-cut");
    corpus_write_text(in("config.json"), "{\"model_type\": \"qwen2\",");
    corpus_refused(folder, "not valid JSON");
    good("config-list");
    corpus_write_text(in("config.json"), "[]");
    corpus_refused(folder, "not a JSON object");
    good("config-nameless");
    corpus_write_text(in("config.json"), "{\"hidden_size\": 32}");
    corpus_refused(folder, "\"model_type\"");
    good("config-key-twice");
    corpus_write_text(in("config.json"), "{\"model_type\": \"qwen2\", \"model_type\": \"llama\"}");
    corpus_refused(folder, "duplicate");
}

/* ---- weights ---- */

static void shards(void)
{
    corpus_expect(good_sharded("good-sharded"), "check", 0, "");

    good_sharded("missing-shard");
    corpus_remove(in("model-00002-of-00002.safetensors"));
    corpus_refused(folder, "missing");
    good_sharded("shard-unknown-to-index");
    write_weights(in("model-00003-of-00003.safetensors"), NULL, 0, NULL, 0);
    corpus_refused(folder, "the index does not know this shard");
    good_sharded("index-tensor-not-in-shard");
    write_index("model.norm.weight", "model-00001-of-00002.safetensors");
    corpus_refused(folder, "'model.norm.weight'");
    good_sharded("tensor-not-in-index");
    write_index("model.norm.weight", NULL);
    corpus_refused(folder, "is not in the index");
    good_sharded("tensor-in-two-shards");
    write_weights(in("model-00002-of-00002.safetensors"), weights + SPLIT - 1, N_WEIGHTS - SPLIT + 1, NULL, 0);
    corpus_refused(folder, "is also in");
    good_sharded("index-leads-out");
    write_index("model.norm.weight", "../good/model.safetensors");
    corpus_refused(folder, "not a plain file name");
    good_sharded("index-cut");
    corpus_write_text(in("model.safetensors.index.json"), "{\"weight_map\": {");
    corpus_refused(folder, "not valid JSON");
    good_sharded("index-without-map");
    corpus_write_text(in("model.safetensors.index.json"), "{\"metadata\": {}}");
    corpus_refused(folder, "\"weight_map\"");
    good_sharded("index-empty");
    corpus_write_text(in("model.safetensors.index.json"), "{\"weight_map\": {}}");
    corpus_refused(folder, "is empty");
    good_sharded("lfs-pointer-shard");
    corpus_write_text(in("model-00002-of-00002.safetensors"),
                      "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n");
    corpus_refused(folder, "git lfs pull");
}

/* The weight file of a good folder, cut to `part` of its length. */
static void cut_weights(const char *path, double part)
{
    struct tms_st_plan_tensor plan[N_WEIGHTS];
    struct tms_buf buf = {0};
    uint64_t size;
    for (size_t i = 0; i < N_WEIGHTS; i++)
        plan[i] = (struct tms_st_plan_tensor){.name = weights[i].name,
                                              .type = TMS_BF16,
                                              .n_dims = weights[i].cols ? 2 : 1,
                                              .shape = {weights[i].rows, weights[i].cols}};
    if (tms_st_layout(plan, N_WEIGHTS, 0, &buf, &size, NULL) != TMS_OK) abort();
    tms_buf_zeros(&buf, (size_t)(part * (double)(size - buf.n)));
    corpus_write_buf(path, &buf);
}

static void weight_files(void)
{
    const struct weight strange[] = {{"model.layers.0.mlp.secret_proj.weight", 4, 32}};
    struct weight all[N_WEIGHTS + 1];
    memcpy(all, weights, sizeof weights);
    all[N_WEIGHTS] = strange[0];

    good("truncated-shard");
    cut_weights(in("model.safetensors"), 0.6);
    corpus_refused(folder, "cut short");
    good("nan-weight");
    write_weights(in("model.safetensors"), weights, N_WEIGHTS, "model.layers.0.mlp.up_proj.weight",
                  tms_f32_from_bits(0x7fc00000));
    corpus_expect(folder, "check", 2, "'model.layers.0.mlp.up_proj.weight'");
    corpus_expect(folder, "convert", 2, "'model.layers.0.mlp.up_proj.weight'");
    good("inf-weight");
    write_weights(in("model.safetensors"), weights, N_WEIGHTS, "model.norm.weight", tms_f32_from_bits(0xff800000));
    corpus_expect(folder, "check", 2, "'model.norm.weight'");
    corpus_expect(folder, "quantize", 2, "'model.norm.weight'");
    good("unexplained-tensor");
    write_weights(in("model.safetensors"), all, N_WEIGHTS + 1, NULL, 0);
    corpus_expect(folder, "check", 2, "'model.layers.0.mlp.secret_proj.weight'");
    corpus_expect(folder, "convert", 2, "'model.layers.0.mlp.secret_proj.weight'");
    good("missing-tensor");
    write_weights(in("model.safetensors"), weights, N_WEIGHTS - 1, NULL, 0);
    corpus_expect(folder, "check", 2, "'model.norm.weight'");
    corpus_expect(folder, "convert", 2, "'model.norm.weight' is missing");
    good("fp8-without-scales");
    write_config(folder, "quantization_config", "{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}");
    corpus_write_safetensors(in("model.safetensors"),
                             "{\"model.layers.0.mlp.up_proj.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[64,32],"
                             "\"data_offsets\":[0,2048]}}",
                             2048);
    corpus_refused(folder, "its scales 'model.layers.0.mlp.up_proj.weight_scale_inv' are missing");
    good("only-pickles");
    corpus_remove(in("model.safetensors"));
    corpus_write_text(in("pytorch_model.bin"), "PK\003\004");
    corpus_refused(folder, "no *.safetensors");
    good("pickle-under-our-name");
    corpus_write(in("model.safetensors"), "PK\003\004\024\000\000\000\010\000\000\000", 12);
    corpus_refused(folder, "zip archive");
}

/* ---- tokenizers ---- */

static void tokenizers(void)
{
    good("no-tokenizer");
    corpus_remove(in("tokenizer.json"));
    corpus_expect(folder, "check", 2, "tokenizer");
    corpus_expect(folder, "convert", 2, "no tokenizer");
    good("tokenizer-cut");
    corpus_write_text(in("tokenizer.json"),
                      "{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0,");
    corpus_expect(folder, "check", 2, "tokenizer.json");
    corpus_expect(folder, "convert", 2, "not valid JSON");
    good("tokenizer-wordpiece");
    corpus_write_text(in("tokenizer.json"), "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}}");
    corpus_expect(folder, "convert", 2, "WordPiece");
    good("tokenizer-merge-of-nothing");
    write_tokenizer(folder, "zz qq", 260);
    corpus_expect(folder, "convert", 2, "merge 4");
    good("tokenizer-id-past-vocabulary");
    write_tokenizer(folder, NULL, 4000);
    corpus_expect(folder, "convert", 2, "id 4000");
    good("tokenizer-id-twice");
    write_tokenizer(folder, NULL, 17);
    corpus_expect(folder, "convert", 2, "id 17");
    good("sentencepiece-broken");
    corpus_remove(in("tokenizer.json"));
    corpus_write(in("tokenizer.model"), "\012\200\200\200\200\200\200\200\200\200\200\200\001x", 14);
    corpus_expect(folder, "convert", 2, "tokenizer.model");
}

void corpus_folders(void)
{
    corpus_mkdir("hf");
    corpus_refused("hf/not-there", "no such file or folder");
    corpus_write_text("hf/notes.txt", "buy milk\n");
    corpus_refused("hf/notes.txt", "is no model");
    good("good");
    corpus_expect(folder, "check", 0, "");
    corpus_expect(folder, "inspect", 0, "");
    corpus_expect(folder, "convert", 0, "");
    corpus_expect(folder, "quantize", 0, "");
    configs();
    shards();
    weight_files();
    tokenizers();
}

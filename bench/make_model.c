/* make_model: writes a float32 GGUF file of Llama's shape with random weights, for timing quantizers.
 *
 *     cc -O2 -o make_model make_model.c && ./make_model model.gguf
 *
 * 20 layers, hidden 1024, feed-forward 2816, 16 query and 8 key/value heads of 64, vocabulary 32000, untied:
 * 301 million weights, 1.2 GB. It is plain C on purpose: the file that is measured must not depend on what is measured.
 *
 * The weights are normal enough (0.02 times a sum of twelve uniform numbers, less six) and made of integers, so every
 * machine writes the same bytes. The norms are 1. There is no vocabulary: quantizers need none. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 20, HIDDEN = 1024, FFN = 2816, HEADS = 16, KV_HEADS = 8, HEAD = 64, VOCAB = 32000, ALIGN = 32 };
enum { GGUF_U32 = 4, GGUF_F32 = 6, GGUF_STRING = 8 };
enum { CHUNK = 1 << 20 };

struct tensor {
    char name[64];
    int n_dims;
    uint64_t dims[2]; /* fastest first */
    uint64_t offset;  /* from the start of the data */
};

static struct tensor tensors[LAYERS * 9 + 3];
static int n_tensors;
static FILE *out;

static void put(const void *bytes, size_t n)
{
    if (fwrite(bytes, 1, n, out) != n) {
        perror("make_model: write");
        exit(3);
    }
}

static void put_u32(uint32_t v)
{
    put(&v, sizeof v);
}
static void put_u64(uint64_t v)
{
    put(&v, sizeof v);
}

static void put_string(const char *text)
{
    put_u64(strlen(text));
    put(text, strlen(text));
}

static void key_u32(const char *name, uint32_t value)
{
    put_string(name);
    put_u32(GGUF_U32);
    put_u32(value);
}

static void key_f32(const char *name, float value)
{
    put_string(name);
    put_u32(GGUF_F32);
    put(&value, sizeof value);
}

static void key_string(const char *name, const char *value)
{
    put_string(name);
    put_u32(GGUF_STRING);
    put_string(value);
}

static uint64_t n_elements(const struct tensor *t)
{
    return t->dims[0] * (t->n_dims == 2 ? t->dims[1] : 1);
}

static void add(const char *name, uint64_t columns, uint64_t rows)
{
    struct tensor *t = &tensors[n_tensors];
    snprintf(t->name, sizeof t->name, "%s.weight", name);
    t->n_dims = rows ? 2 : 1;
    t->dims[0] = columns;
    t->dims[1] = rows;
    if (n_tensors) {
        const struct tensor *before = t - 1;
        uint64_t end = before->offset + 4 * n_elements(before);
        t->offset = (end + ALIGN - 1) / ALIGN * ALIGN;
    }
    n_tensors++;
}

static void add_layer(int layer, const char *part, uint64_t columns, uint64_t rows)
{
    char name[48];
    snprintf(name, sizeof name, "blk.%d.%s", layer, part);
    add(name, columns, rows);
}

static void list_tensors(void)
{
    add("token_embd", HIDDEN, VOCAB);
    for (int l = 0; l < LAYERS; l++) {
        add_layer(l, "attn_norm", HIDDEN, 0);
        add_layer(l, "attn_q", HIDDEN, HEADS * HEAD);
        add_layer(l, "attn_k", HIDDEN, KV_HEADS * HEAD);
        add_layer(l, "attn_v", HIDDEN, KV_HEADS * HEAD);
        add_layer(l, "attn_output", HEADS * HEAD, HIDDEN);
        add_layer(l, "ffn_norm", HIDDEN, 0);
        add_layer(l, "ffn_gate", HIDDEN, FFN);
        add_layer(l, "ffn_up", HIDDEN, FFN);
        add_layer(l, "ffn_down", FFN, HIDDEN);
    }
    add("output_norm", HIDDEN, 0);
    add("output", HIDDEN, VOCAB);
}

static void write_header(void)
{
    put("GGUF", 4);
    put_u32(3);
    put_u64((uint64_t)n_tensors);
    put_u64(13);
    key_string("general.architecture", "llama");
    key_string("general.name", "random");
    key_u32("general.file_type", 0);
    key_u32("llama.block_count", LAYERS);
    key_u32("llama.context_length", 2048);
    key_u32("llama.embedding_length", HIDDEN);
    key_u32("llama.feed_forward_length", FFN);
    key_u32("llama.attention.head_count", HEADS);
    key_u32("llama.attention.head_count_kv", KV_HEADS);
    key_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    key_u32("llama.vocab_size", VOCAB);
    key_u32("llama.rope.dimension_count", HEAD);
    key_string("tokenizer.ggml.model", "no_vocab");
    for (int i = 0; i < n_tensors; i++) {
        const struct tensor *t = &tensors[i];
        put_string(t->name);
        put_u32((uint32_t)t->n_dims);
        for (int d = 0; d < t->n_dims; d++) put_u64(t->dims[d]);
        put_u32(0); /* F32 */
        put_u64(t->offset);
    }
}

/* splitmix64, public domain (Sebastiano Vigna, 2015) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The sum of twelve 16-bit uniform numbers has mean 6 and deviation 1 in units of 65536. */
static float random_weight(uint64_t *state)
{
    int64_t sum = 0;
    for (int draw = 0; draw < 3; draw++) {
        uint64_t bits = next_random(state);
        sum += (int64_t)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    }
    return (float)(sum - 6 * 65536) * (0.02f / 65536.0f);
}

static void pad_to(uint64_t position)
{
    static const char zeros[ALIGN];
    uint64_t now = (uint64_t)ftell(out);
    put(zeros, (size_t)(position - now));
}

static void write_data(void)
{
    static float chunk[CHUNK];
    uint64_t start = ((uint64_t)ftell(out) + ALIGN - 1) / ALIGN * ALIGN;
    uint64_t state = 1;
    for (int i = 0; i < n_tensors; i++) {
        pad_to(start + tensors[i].offset);
        uint64_t left = n_elements(&tensors[i]);
        while (left > 0) {
            size_t n = left < CHUNK ? (size_t)left : CHUNK;
            for (size_t k = 0; k < n; k++) chunk[k] = tensors[i].n_dims == 1 ? 1.0f : random_weight(&state);
            put(chunk, 4 * n);
            left -= n;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_model FILE.gguf\n");
        return 1;
    }
    out = fopen(argv[1], "wb");
    if (!out) {
        perror(argv[1]);
        return 3;
    }
    list_tensors();
    write_header();
    write_data();
    if (fclose(out) != 0) {
        perror(argv[1]);
        return 3;
    }
    return 0;
}

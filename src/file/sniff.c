/* See sniff.h. */
#include "file/sniff.h"

#include <string.h>
#include <strings.h>

struct kind {
    const char *magic;
    size_t n;
    const char *what;
};

/* Longest magic first where one begins another. Sources: the Git LFS specification (docs/spec.md), the ZIP
 * application note (local file header), Python's pickletools (PROTO opcode), ggml's history of file formats. */
static const struct kind kinds[] = {
#define KIND(magic, what)                                                                                              \
    {                                                                                                                  \
        (magic), sizeof(magic) - 1, (what)                                                                             \
    }
    KIND("version https://git-lfs.github.com/spec/",
         "a Git LFS pointer that stands in for the real one: run `git lfs pull` in its repository"),
    KIND("<?xml", "an XML page, perhaps an error message of the server: download it again"),
    KIND("GGUF", "a GGUF file: give it the ending .gguf"),
    KIND("tjgg", "a GGJT file from before GGUF, which tamis does not read: convert the original model again"),
    KIND("fmgg", "a GGMF file from before GGUF, which tamis does not read: convert the original model again"),
    KIND("lmgg", "a GGML file from before GGUF, which tamis does not read: convert the original model again"),
    KIND("PK\003\004", "a zip archive, perhaps a PyTorch checkpoint: convert it to safetensors first"),
    KIND("\200\002", "a Python pickle, perhaps a PyTorch checkpoint: convert it to safetensors first"),
    KIND("\200\003", "a Python pickle, perhaps a PyTorch checkpoint: convert it to safetensors first"),
    KIND("\200\004", "a Python pickle, perhaps a PyTorch checkpoint: convert it to safetensors first"),
    KIND("\200\005", "a Python pickle, perhaps a PyTorch checkpoint: convert it to safetensors first"),
    KIND("\037\213", "gzip-compressed: unpack it first"),
    KIND("\050\265\057\375", "zstd-compressed: unpack it first"),
#undef KIND
};

static const char html[] = "an HTML page, perhaps an error message of the server: download it again";

static int begins_with_any_case(const uint8_t *text, size_t n, const char *word)
{
    size_t length = strlen(word);
    return n >= length && strncasecmp((const char *)text, word, length) == 0;
}

const char *tms_sniff(const uint8_t *head, size_t n)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (n >= kinds[i].n && memcmp(head, kinds[i].magic, kinds[i].n) == 0) return kinds[i].what;
    while (n && (*head == ' ' || *head == '\t' || *head == '\r' || *head == '\n')) head++, n--;
    if (begins_with_any_case(head, n, "<!doctype html") || begins_with_any_case(head, n, "<html")) return html;
    if (n > 1 && head[0] == '{') {
        for (size_t i = 1; i < n; i++)
            if (head[i] < ' ' && head[i] != '\n' && head[i] != '\r' && head[i] != '\t') return NULL;
        return "JSON text, perhaps an error message of the server: download it again";
    }
    return NULL;
}

const char *tms_sniff_file(const struct tms_file *file)
{
    uint8_t head[512];
    size_t n = file->size < sizeof head ? (size_t)file->size : sizeof head;
    if (tms_file_read(file, head, n, 0, NULL) != TMS_OK) return NULL;
    return tms_sniff(head, n);
}

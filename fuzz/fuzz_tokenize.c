/* Any bytes as a tokenizer and a text: refused with one line, or ids that are tokens and go back to whole UTF-8.
 *
 * The first byte chooses: bit 0 whether the file is tokenizer.json or tokenizer.model, bit 1 whether it is the embedded
 * model's instead (then all bytes are text), bits 2 and 3 the options, bit 4 whether it is a GGUF file. What follows
 * the first SEPARATOR is the text. */
#include "fuzz.h"

#include <string.h>
#include <sys/stat.h>

#include "file/utf8.h"
#include "model/tokenize.h"

#define SEPARATOR "\xff\xfe\xfd\n"

static char dir[64];

static void remove_dir(void)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "x.gguf"};
    char path[128];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

static void put(const char *name, const char *other, const uint8_t *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, other);
    (void)unlink(path);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) abort();
}

static void one_line(const struct tms_error *err)
{
    fuzz_require(err->message[0] && !strchr(err->message, '\n'), "the message is one line");
}

static void run(struct tms_tokenizer *t, const uint8_t *text, size_t n, int choice)
{
    struct tms_tokenize_options options = {.special = choice >> 2 & 1, .no_parse_special = choice >> 3 & 1};
    struct tms_error err = {{0}};
    struct tms_detokenizer d;
    struct tms_buf out = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0, cap = 0;
    if (tms_tokenizer_encode(t, (const char *)text, n, &options, &ids, &n_ids, &cap, &err) != TMS_OK) {
        one_line(&err);
        fuzz_require(n_ids == 0, "a failure leaves no ids");
    }
    tms_detokenizer_init(&d, t, true);
    for (size_t i = 0; i < n_ids; i++) {
        fuzz_require(ids[i] >= 0 && (uint64_t)ids[i] < tms_tokenizer_n_vocab(t), "ids are tokens");
        fuzz_require(tms_detokenizer_push(&d, ids[i], &out, &err) == TMS_OK, "tokens are shown");
    }
    fuzz_require(tms_detokenizer_finish(&d, &out, &err) == TMS_OK, "texts end");
    fuzz_require(out.n == 0 || tms_is_utf8((const char *)out.data, out.n), "what is shown is UTF-8");
    tms_buf_free(&out);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct tms_tokenizer *embedded;
    struct tms_tokenizer *t = NULL;
    struct tms_error err = {{0}};
    if (n < 1) return 0;
    int choice = bytes[0];
    bytes++, n--;
    if (choice & 2) { /* FUZZ_MODEL: a folder with a sound tokenizer */
        const char *path = getenv("FUZZ_MODEL");
        if (!embedded && tms_tokenizer_open_path(&embedded, path ? path : "models/pebble", &err) != TMS_OK) return 0;
        run(embedded, bytes, n, choice);
        return 0;
    }
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/dev/shm/tamis-fuzz-XXXXXX");
        if (!mkdtemp(dir)) abort();
        atexit(remove_dir);
    }
    const uint8_t *cut = memmem(bytes, n, SEPARATOR, 4);
    size_t file = cut ? (size_t)(cut - bytes) : n;
    char path[128];
    snprintf(path, sizeof path, "%s%s", dir, choice & 16 ? "/x.gguf" : "");
    if (choice & 16)
        put("x.gguf", "x.gguf", bytes, file);
    else
        put(choice & 1 ? "tokenizer.json" : "tokenizer.model", choice & 1 ? "tokenizer.model" : "tokenizer.json", bytes,
            file);
    static const uint8_t sample[] = "The \xe4\xbd\xa0 a1<s>'s  \xcc\x81\n";
    if (tms_tokenizer_open_path(&t, path, &err) == TMS_OK)
        run(t, cut ? cut + 4 : sample, cut ? n - file - 4 : sizeof sample - 1, choice);
    else
        one_line(&err);
    tms_tokenizer_close(t);
    return 0;
}

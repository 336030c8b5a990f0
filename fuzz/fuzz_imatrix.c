/* Any bytes as an importance matrix, of either format: refused with one line, or read, and then every value is the mean
 * of squares that an encoder may rely on. */
#include "fuzz.h"

#include <math.h>
#include <string.h>

#include "calib/imatrix.h"

static void warn(void *ctx, const char *line)
{
    (void)ctx;
    fuzz_require(line[0] && !strchr(line, '\n'), "a warning is one line");
}

static void check_entry(const struct tms_imatrix *imatrix, const struct tms_imatrix_entry *entry)
{
    const float *values = NULL;
    struct tms_error err;
    fuzz_require(tms_imatrix_find(imatrix, entry->name) == entry, "every entry is found by name");
    fuzz_require(entry->n_counts > 0 && entry->n_values > 0 && entry->n_values % entry->n_counts == 0,
                 "parts have equal length");
    fuzz_require(entry->n_unseen <= entry->n_counts, "no more parts unseen than there are");
    for (size_t i = 0; i < entry->n_values; i++)
        fuzz_require(isfinite(entry->values[i]) && entry->values[i] >= 0, "means of squares");
    fuzz_require(tms_imatrix_values(imatrix, entry->name, entry->n_values, 1, &values, &err) == TMS_OK &&
                     values == entry->values,
                 "a weight of the right size gets them");
}

static void check(const struct tms_imatrix *imatrix, size_t n)
{
    struct tms_kvs kvs = {0};
    size_t n_values = 0;
    fuzz_require(imatrix->n > 0, "there are entries");
    for (size_t i = 0; i < imatrix->n; i++) {
        check_entry(imatrix, &imatrix->entries[i]);
        n_values += imatrix->entries[i].n_values;
        if (i) fuzz_require(strcmp(imatrix->entries[i - 1].name, imatrix->entries[i].name) < 0, "entries are sorted");
    }
    fuzz_require(n_values <= n / sizeof(float), "no more values than the file has");
    tms_imatrix_set_keys(imatrix, &kvs);
    fuzz_require(!kvs.failed && kvs.n >= 2 && kvs.n <= 4, "two to four keys");
    tms_kvs_free(&kvs);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const parts[] = {"attn"};
    struct tms_imatrix_options options = {.warn = warn};
    struct fuzz_file file = fuzz_file_open(bytes, n);
    struct tms_imatrix *imatrix = NULL;
    struct tms_error err = {{0}};
    for (int list = 0; list < 2; list++) {
        if (list) options.exclude = parts, options.n_exclude = 1;
        if (tms_imatrix_open(&imatrix, file.path, &options, &err) == TMS_OK) {
            check(imatrix, n);
            tms_imatrix_close(imatrix);
            imatrix = NULL;
        } else {
            fuzz_require(imatrix == NULL, "out-parameters stay untouched");
            fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
        }
    }
    fuzz_file_close(&file);
    return 0;
}

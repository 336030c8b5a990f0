/* Differences of what stands beside the weights: key-values of GGUF files, config.json of folders. */
#ifndef TMS_MODEL_KEYS_H
#define TMS_MODEL_KEYS_H

#include <jansson.h>
#include <tamis/tamis.h>

#include "file/kvs.h"

struct tms_key_list {
    size_t n, cap;
    struct tms_diff_key *items; /* texts live in the arena */
    struct tms_arena arena;
    bool failed; /* memory ran out; to be checked once */
};

/* Appends the keys whose values differ or that only one side has: all of `a` in its order, then those of b alone.
 * `split.*` says how a file is cut, not what is in it, and is left out. */
void tms_keys_compare_kvs(struct tms_key_list *list, const struct tms_kvs *a, const struct tms_kvs *b);
/* The same for JSON objects; members of objects get the names "outer.inner". */
void tms_keys_compare_json(struct tms_key_list *list, const json_t *a, const json_t *b);
void tms_keys_free(struct tms_key_list *list);

#endif

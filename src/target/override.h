/* --override-kv: key-values that the user sets. */
#ifndef TMS_TARGET_OVERRIDE_H
#define TMS_TARGET_OVERRIDE_H

#include "base/error.h"
#include "file/kvs.h"

/* Each text is "KEY=TYPE:VALUE" with TYPE int, float, bool or str, as llama-quantize takes them: int is stored as u32
 * without its sign, float as f32, texts have at most 127 bytes. A key that is there moves to the end. */
tms_status tms_override_kvs(struct tms_kvs *kvs, const char *const *texts, size_t n, struct tms_error *err);

#endif

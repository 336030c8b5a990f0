/* A model that is ready to run, with what it has read so far: the inside of struct tms_session (tamis.h). */
#ifndef TMS_ENGINE_SESSION_H
#define TMS_ENGINE_SESSION_H

#include <tamis/tamis.h>

#include "engine/net.h"
#include "model/tokenize.h"

/* Tokens of one pass: so many share a decoded tile of weights. */
#define TMS_SESSION_PASS 256u

struct tms_session {
    struct tms_source *source;
    struct tms_pool *pool;
    struct tms_net *net;
    struct tms_net_info info;
    struct tms_session_info about;
    struct tms_cache_options kv;
    /* the text that was read: its ids; keys and values of the first n_held of them are in the cache */
    struct tms_cache *cache; /* NULL at first; grows with the text */
    int32_t *ids;
    size_t n_held, ids_cap;
    float *hidden; /* [TMS_SESSION_PASS][stride] */
    float *logits; /* [vocab] */
    /* opened when it is first needed: many models can run without */
    struct tms_tokenizer *tokenizer;
    bool tokenizer_tried; /* the status below is the answer for good */
    tms_status tokenizer_status;
    struct tms_error tokenizer_error;
};

/* The session's tokenizer, or why there is none. */
tms_status tms_session_tokenizer(struct tms_session *s, struct tms_tokenizer **out, struct tms_error *err);

/* The ids of a prompt, checked to lie in the vocabulary; to be freed. TMS_EINPUT if there are none or they are more
 * than the context holds. to_continue: without an end token that the tokenizer puts behind texts. */
tms_status tms_session_prompt(struct tms_session *s, const struct tms_prompt *prompt, bool to_continue, int32_t **ids,
                              size_t *n, struct tms_error *err);

/* Keeps the first `keep` of the tokens held, reads ids [n] behind them (n > 0, together no more than the context), and
 * leaves in s->logits the logits after the last one. `expected`: tokens that the text may come to, so that the cache
 * need not grow often. After a failure the session holds what it had read until then. */
tms_status tms_session_read(struct tms_session *s, size_t keep, const int32_t *ids, size_t n, size_t expected,
                            struct tms_error *err);

#endif

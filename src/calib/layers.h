/* Walking a model over samples layer by layer, with one layer in memory.
 *
 * Hidden states of all sequences before layer i lie in WORK/hidden-i; layer i reads them in groups of sequences and
 * writes WORK/hidden-i+1, which gets its name when it is complete. The net's tap sees what goes on. */
#ifndef TMS_CALIB_LAYERS_H
#define TMS_CALIB_LAYERS_H

#include "calib/samples.h"
#include "engine/net.h"

struct tms_layers {
    const char *model; /* for messages */
    const char *work;  /* a folder that exists */
    struct tms_net *net;
    const struct tms_samples *samples;
    uint64_t ram;   /* most memory; 0: no limit */
    uint64_t more;  /* bytes that the caller needs beside the walk */
    tms_tap_fn tap; /* of the net; told of the output layer's input, too */
    void *tap_ctx;
    void (*progress)(void *ctx, uint64_t layer, double share); /* share of the layer that is done */
    void *progress_ctx;
    /* the walk's own */
    struct tms_net_info info;
    struct tms_cache *cache;
    float *hidden;
    size_t group_tokens;
    uint64_t planned_bytes; /* all memory of the process */
};

/* After the fields above are set. TMS_EINPUT if the limit is too low, with the least that would do. */
tms_status tms_layers_open(struct tms_layers *l, struct tms_error *err);
void tms_layers_close(struct tms_layers *l);
/* True if WORK/hidden-LAYER is there and complete. */
bool tms_layers_done(const struct tms_layers *l, uint64_t layer);
/* Runs a layer, which must be held (tms_net_hold), over all sequences. keep: hidden states behind it are written, else
 * forgotten. layer = n_layers: the final norm, told to the tap as the input of the output layer. TMS_ECANCELLED when
 * tms_cancel was called; TMS_EINPUT if a hidden state is no finite number. */
tms_status tms_layers_run(struct tms_layers *l, uint64_t layer, bool keep, struct tms_error *err);
/* Gives up the hidden states before a layer. */
void tms_layers_forget(const struct tms_layers *l, uint64_t layer);

/* Makes the folder, or finds that it belongs to the same run (`about`, JSON text): *same. What a removal that was cut
 * short left is cleared away. TMS_EUSAGE if another run left it, or if it holds files that no run made. */
tms_status tms_work_open(const char *work, const char *about, bool *same, struct tms_error *err);
/* Removes a folder that tms_work_open made, with all files in it; killed on the way, it leaves nothing to go on with.
 */
void tms_work_remove(const char *work);

#endif

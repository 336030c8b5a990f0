/* A folder of bitsandbytes whose parts say anything: types, shapes, the JSON of quant_state, maps and scales. It is
 * refused with one line, or every weight that can be decoded is read alike at once and in ranges.
 *
 * The input: for each of the eight parts a byte (bit 7: it is missing) that chooses its type, and two of its shape;
 * then the text of quant_state with its length in a byte; then the data of the tensors, repeated until all are full. */
#include "fuzz_folder.h"

#define STATE  ".quant_state.bitsandbytes__nf4"
#define WEIGHT "model.layers.0.mlp.up_proj.weight"

static const char *const names[] = {WEIGHT,
                                    WEIGHT ".absmax",
                                    WEIGHT ".quant_map",
                                    WEIGHT ".nested_absmax",
                                    WEIGHT ".nested_quant_map",
                                    "model.layers.0.mlp.up_proj.SCB",
                                    "model.layers.0.mlp.up_proj.weight_format",
                                    WEIGHT STATE};
enum { N_PARTS = sizeof names / sizeof *names, STATE_PART = N_PARTS - 1, MOST_BYTES = 1 << 16 };
static const enum tms_type types[] = {TMS_U8, TMS_I8, TMS_F32, TMS_F16};

/* The file that the input describes; false if it is none. */
static int write_weights(const uint8_t *bytes, size_t n)
{
    struct tms_st_plan_tensor plan[N_PARTS];
    const uint8_t *text = bytes + 3 * N_PARTS + 1;
    size_t n_plan = 0;
    if (n < 3 * N_PARTS + 2) return 0;
    size_t n_text = bytes[3 * N_PARTS] < n - 3 * N_PARTS - 2 ? bytes[3 * N_PARTS] : n - 3 * N_PARTS - 2;
    const uint8_t *data = text + n_text;
    size_t n_data = n - (size_t)(data - bytes);
    for (size_t i = 0; i < N_PARTS; i++) {
        const uint8_t *at = bytes + 3 * i;
        if (at[0] & 0x80) continue;
        plan[n_plan] = (struct tms_st_plan_tensor){.name = names[i],
                                                   .type = types[at[0] % 4],
                                                   .n_dims = at[0] >> 2 & 1 ? 2 : 1,
                                                   .shape = {at[1] + (at[0] >> 3 & 1 ? 256 : 0), at[2]},
                                                   .tag = i};
        if (i == STATE_PART)
            plan[n_plan] =
                (struct tms_st_plan_tensor){.name = names[i], .tag = i, .type = TMS_U8, .n_dims = 1, .shape = {n_text}};
        n_plan++;
    }
    struct tms_buf file = {0};
    uint64_t size = 0;
    if (tms_st_layout(plan, n_plan, 0, &file, &size, NULL) != TMS_OK) abort();
    int fits = size <= MOST_BYTES;
    while (fits && file.n < size) tms_buf_put(&file, data, n_data < size - file.n ? n_data : (size_t)size - file.n);
    for (size_t i = 0; fits && i < n_plan; i++)
        if (plan[i].tag == STATE_PART && n_text) memcpy(file.data + plan[i].offset, text, n_text);
    if (fits) write_file("model.safetensors", file.data, file.n);
    tms_buf_free(&file);
    return fits;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!folder[0]) make_folder("{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}");
    if (write_weights(bytes, n)) open_folder(2);
    return 0;
}

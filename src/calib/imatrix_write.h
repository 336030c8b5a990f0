/* Writing an importance matrix from the statistics of a calibration run, in either format of llama-imatrix. */
#ifndef TMS_CALIB_IMATRIX_WRITE_H
#define TMS_CALIB_IMATRIX_WRITE_H

#include <stdbool.h>

#include "base/error.h"

/* `path` that ends in ".dat": the old format, else GGUF. output: with an entry of the output layer. */
tms_status tms_imatrix_write(const char *path, const char *stats, bool output, struct tms_error *err);

#endif

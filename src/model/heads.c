/* See heads.h. */
#include "model/heads.h"

#include <string.h>

void tms_heads_to_neighbours(const float *x, float *out, uint64_t n, uint64_t rows, uint64_t cols)
{
    for (uint64_t head = 0; head * rows * cols < n; head++)
        for (uint64_t row = 0; row < rows; row++) {
            uint64_t from = row / 2 + (row % 2) * (rows / 2);
            memcpy(out + (head * rows + row) * cols, x + (head * rows + from) * cols, cols * sizeof *x);
        }
}

void tms_heads_to_halves(const float *x, float *out, uint64_t n, uint64_t rows, uint64_t cols)
{
    for (uint64_t head = 0; head * rows * cols < n; head++)
        for (uint64_t row = 0; row < rows; row++) {
            uint64_t to = row / 2 + (row % 2) * (rows / 2);
            memcpy(out + (head * rows + to) * cols, x + (head * rows + row) * cols, cols * sizeof *x);
        }
}

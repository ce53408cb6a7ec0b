/* Rows of int8 inputs times rows of int8 weights: what is common to the kernels of the layout "rows". */
#ifndef EMB_ROWS_H
#define EMB_ROWS_H

#include "emb_convolution.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every row of `count` inputs gives one row of `channels` outputs. */
typedef struct {
    const emb_requant_t *to;
    const int8_t *weights; /* [channels][count] */
    size_t first;          /* channel of `to` that the first row of weights belongs to */
    size_t channels, count;
    size_t in_pitch, out_pitch; /* bytes from one row to the next */
    size_t behind;              /* bytes that may be read behind the last row */
    int8_t *beside;             /* scratch of EMB_BESIDE(count) bytes that several rows are faster with, or NULL */
} emb_rows_t;

/* Four rows of weights side by side, in steps of a vector. */
#define EMB_BESIDE(count) (((size_t)(count) + 15u) / 16u * 64u)

void emb_rows_s8(const emb_rows_t *p, const int8_t *in, size_t rows, int8_t *out);

#ifdef __cplusplus
}
#endif

#endif

/* TRANSPOSE_CONV, NHWC: output (y, x) collects the inputs (i, j) with y = i × stride_h − pad_top + ky, x likewise. */
#ifndef EMB_TRANSPOSE_CONV_H
#define EMB_TRANSPOSE_CONV_H

#include "emb_wide.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where the kernel falls. Weights [out_c][kernel_h][kernel_w][in_c], as in the model. */
typedef struct {
    const int8_t *weights;
    uint16_t batches, in_h, in_w, in_c, out_h, out_w, out_c;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
} emb_transposed_t;

typedef struct {
    emb_requant_t out; /* the bias as in the model: which weights an output sees depends on where it lies */
    emb_transposed_t at;
    const int32_t *zero_terms; /* −zero point × Σ weights of each place of the kernel, [out_c][kernel_h][kernel_w] */
} emb_transpose_conv_t;

void emb_transpose_conv_s8(const emb_transpose_conv_t *p, const int8_t *in, int8_t *out);

typedef struct {
    emb_requant16_t out;
    emb_transposed_t at;
} emb_transpose_conv16_t;

void emb_transpose_conv_s16(const emb_transpose_conv16_t *p, const int16_t *in, int16_t *out);

/* Input row or column that reaches an output's through this row or column of the kernel, or −1. */
EMB_INLINE int emb_transposed_source(int out, int kernel, int stride, int pad, int length)
{
    const int distance = out + pad - kernel;
    const int source = distance / stride;
    return distance >= 0 && source * stride == distance && source < length ? source : -1;
}

#ifdef __cplusplus
}
#endif

#endif

/* Convolutions and matrix products of int8 activations with int8 weights.
 *
 * The input's zero point never appears in an inner loop: the generator has added −zero × Σ weights to the bias, and what
 * lies outside the input counts as the zero point. Activations are stored with the channel as the fastest axis (NHWC).
 *
 * Two layouts of weights, written by the generator:
 *   rows   [out_c][kernel_h][kernel_w][in_c], int8, as in the model
 *   pairs  Two output channels a, b share 16-bit halves 256 × a + b. The K = kernel_h × kernel_w × in_c inputs are padded with
 *          zeros to a multiple of four; for each pair of channels and each four inputs k there are two words: the halves of
 *          k and k + 2 (k in the lower half), then those of k + 1 and k + 3. An odd last channel has b = 0. Σ of a whole
 *          half × input is 256 × Σ a·x + Σ b·x, and the lower byte, sign-extended, gives Σ b·x alone: widening takes one
 *          instruction for four products instead of two. Modulo 2^32 it is exact where |Σ a·x| < 2^23 for every input; the
 *          generator uses it only there.
 */
#ifndef EMB_CONVOLUTION_H
#define EMB_CONVOLUTION_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* FULLY_CONNECTED and CONV_2D with a kernel and a stride of one: each row of the input times the weights.
 * The output may take the input's memory where out_c <= in_c. */
typedef struct {
    emb_requant_t out;
    const void *weights;
    uint32_t rows; /* batches × height × width */
    uint16_t in_c, out_c;
    uint32_t scratch_bytes; /* at `scratch`, aligned to eight; kernels of vectors are faster with more than the least */
} emb_pointwise_t;

/* rows: scratch of at least in_c bytes where the output takes the input's memory; else none is needed and NULL will do. */
void emb_pointwise_rows_s8(const emb_pointwise_t *p, const int8_t *in, int8_t *out, void *scratch);
/* pairs: scratch of 6 × (in_c rounded up to four) bytes, aligned to four; a third of it where rows < 3 or once is 1. */
void emb_pointwise_pairs_s8(const emb_pointwise_t *p, const int8_t *in, int8_t *out, void *scratch);

/* CONV_2D. With groups > 1 an output channel o sees the in_c / groups channels of its group. */
typedef struct {
    emb_requant_t out;
    const void *weights;
    uint16_t batches, in_h, in_w, in_c, out_h, out_w, out_c;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left, groups;
    int16_t in_zero;
    uint32_t scratch_bytes; /* as in emb_pointwise_t */
} emb_conv_t;

/* rows: scratch of at least K bytes. */
void emb_conv_rows_s8(const emb_conv_t *p, const int8_t *in, int8_t *out, void *scratch);
/* pairs (groups = 1): scratch of 7 × (K rounded up to four) bytes, aligned to four. */
void emb_conv_pairs_s8(const emb_conv_t *p, const int8_t *in, int8_t *out, void *scratch);

/* DEPTHWISE_CONV_2D: output channel c × depth + m is input channel c with its own kernel. */
typedef struct {
    emb_requant_t out;
    const int8_t *weights;
    uint16_t batches, in_h, in_w, in_c, out_h, out_w, depth;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left;
    int16_t in_zero;
    uint32_t scratch_bytes; /* as in emb_pointwise_t */
} emb_depthwise_t;

/* Weights [kernel_h][kernel_w][in_c × depth] as in the model; scratch of at least in_c bytes. */
void emb_depthwise_rows_s8(const emb_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch);
/* Weights [in_c × depth][kernel_h][kernel_w]; dilation_w = 1. One channel's plane is copied into scratch with its padding, so
 * the output may take the input's memory where depth is 1 and out_h × out_w <= in_h × in_w. Scratch: plane_h × plane_w + 8
 * bytes, aligned to four, with plane_h = (out_h − 1) × stride_h + (kernel_h − 1) × dilation_h + 1 and plane_w likewise. */
void emb_depthwise_planes_s8(const emb_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch);

#ifdef __cplusplus
}
#endif

#endif

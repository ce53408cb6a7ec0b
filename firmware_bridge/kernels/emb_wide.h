/* Activations of 16 bits with weights of 8. Zero points are 0, so that what lies outside the input adds nothing. */
#ifndef EMB_WIDE_H
#define EMB_WIDE_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* From int64 accumulators to int16 outputs, one entry per output channel. TFLite scales them in three ways, all of
 * which the generator writes as accumulator × multiplier / 2^right: with a multiplier of 15 bits (biases of 64
 * bits), of 31 bits (LiteRT's reference for FULLY_CONNECTED), both rounded once, halves up; or of 31 bits and
 * rounded twice (biases of 32). */
typedef struct {
    const int64_t *bias; /* what the accumulator starts from */
    const int32_t *multiplier;
    const uint8_t *right; /* 1 … 62 */
    int16_t min, max;     /* the activation function included */
    uint8_t twice;        /* as emb_scale_twice does with a shift of 31 − right */
} emb_requant16_t;

/* The output for an accumulator of this channel. */
EMB_INLINE int16_t emb_requantize16(const emb_requant16_t *to, size_t channel, int64_t accumulator)
{
    const int32_t multiplier = to->multiplier[channel];
    const int right = to->right[channel];
    const int64_t half = (int64_t)1 << (right - 1);
    const int64_t scaled = to->twice ? emb_scale_twice((int32_t)accumulator, multiplier, 31 - right)
                                     : (accumulator * multiplier + half) >> right;
    return (int16_t)(scaled < to->min ? to->min : scaled > to->max ? to->max : scaled);
}

/* CONV_2D, and FULLY_CONNECTED as a kernel of one over a line of rows. Weights [out_c][kernel_h][kernel_w][in_c /
 * groups]. */
typedef struct {
    emb_requant16_t out;
    const int8_t *weights;
    uint16_t batches, in_h, in_w, in_c, out_h, out_w, out_c;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left, groups;
} emb_conv16_t;

void emb_conv_s16(const emb_conv16_t *p, const int16_t *in, int16_t *out);

/* DEPTHWISE_CONV_2D. Weights [kernel_h][kernel_w][in_c × depth]; output channel c × depth + m is of input channel c. */
typedef struct {
    emb_requant16_t out;
    const int8_t *weights;
    uint16_t batches, in_h, in_w, in_c, out_h, out_w, depth;
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left;
} emb_depthwise16_t;

void emb_depthwise_s16(const emb_depthwise16_t *p, const int16_t *in, int16_t *out);

#ifdef __cplusplus
}
#endif

#endif

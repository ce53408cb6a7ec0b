#include "emb_dot.h"
#include "emb_transpose_conv.h"

static int32_t position(const emb_transpose_conv_t *p, const int8_t *in, size_t channel, int y, int x)
{
    const emb_transposed_t *at = &p->at;
    const size_t places = (size_t)at->kernel_h * at->kernel_w;
    const int8_t *weights = at->weights + channel * places * at->in_c;
    const int32_t *zero_terms = p->zero_terms + channel * places;
    int32_t sum = p->out.bias[channel];
    for (int ky = 0; ky < at->kernel_h; ++ky) {
        const int row = emb_transposed_source(y, ky, at->stride_h, at->pad_top, at->in_h);
        for (int kx = 0; kx < at->kernel_w; ++kx, ++zero_terms, weights += at->in_c) {
            const int column = row < 0 ? -1 : emb_transposed_source(x, kx, at->stride_w, at->pad_left, at->in_w);
            if (column >= 0) {
                const int8_t *pixel = in + ((size_t)row * at->in_w + (size_t)column) * at->in_c;
                sum = emb_dot_s8(pixel, weights, at->in_c, sum + *zero_terms);
            }
        }
    }
    return sum;
}

void emb_transpose_conv_s8(const emb_transpose_conv_t *p, const int8_t *in, int8_t *out)
{
    const emb_transposed_t *at = &p->at;
    for (uint16_t batch = 0; batch < at->batches; ++batch) {
        for (int y = 0; y < at->out_h; ++y) {
            for (int x = 0; x < at->out_w; ++x) {
                for (size_t o = 0; o < at->out_c; ++o) {
                    *out++ = emb_requantize(&p->out, o, position(p, in, o, y, x));
                }
            }
        }
        in += (size_t)at->in_h * at->in_w * at->in_c;
    }
}

#include "emb_dot.h"
#include "emb_transpose_conv.h"

static int64_t position(const emb_transposed_t *at, const int16_t *in, const int8_t *weights, int y, int x, int64_t sum)
{
    for (int ky = 0; ky < at->kernel_h; ++ky) {
        const int row = emb_transposed_source(y, ky, at->stride_h, at->pad_top, at->in_h);
        for (int kx = 0; kx < at->kernel_w; ++kx, weights += at->in_c) {
            const int column = row < 0 ? -1 : emb_transposed_source(x, kx, at->stride_w, at->pad_left, at->in_w);
            if (column >= 0) {
                const int16_t *pixel = in + ((size_t)row * at->in_w + (size_t)column) * at->in_c;
                sum = emb_dot_s16(pixel, weights, at->in_c, sum);
            }
        }
    }
    return sum;
}

void emb_transpose_conv_s16(const emb_transpose_conv16_t *p, const int16_t *in, int16_t *out)
{
    const emb_transposed_t *at = &p->at;
    const size_t taps = (size_t)at->kernel_h * at->kernel_w * at->in_c;
    for (uint16_t batch = 0; batch < at->batches; ++batch) {
        for (int y = 0; y < at->out_h; ++y) {
            for (int x = 0; x < at->out_w; ++x) {
                for (size_t o = 0; o < at->out_c; ++o) {
                    const int64_t sum = position(at, in, at->weights + o * taps, y, x, p->out.bias[o]);
                    *out++ = emb_requantize16(&p->out, o, sum);
                }
            }
        }
        in += (size_t)at->in_h * at->in_w * at->in_c;
    }
}

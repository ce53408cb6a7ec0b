#include "emb_wide.h"

void emb_depthwise_s16(const emb_depthwise16_t *p, const int16_t *in, int16_t *out)
{
    const size_t channels = (size_t)p->in_c * p->depth;
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (int y = 0; y < p->out_h; ++y) {
            for (int x = 0; x < p->out_w; ++x) {
                for (size_t o = 0; o < channels; ++o) {
                    int64_t sum = p->out.bias[o];
                    const int8_t *weights = p->weights + o;
                    for (int ky = 0; ky < p->kernel_h; ++ky) {
                        const int row = y * p->stride_h - p->pad_top + ky * p->dilation_h;
                        for (int kx = 0; kx < p->kernel_w; ++kx, weights += channels) {
                            const int column = x * p->stride_w - p->pad_left + kx * p->dilation_w;
                            if (row >= 0 && row < p->in_h && column >= 0 && column < p->in_w) {
                                const size_t pixel = (size_t)row * p->in_w + (size_t)column;
                                sum += (int32_t)in[pixel * p->in_c + o / p->depth] * *weights;
                            }
                        }
                    }
                    *out++ = emb_requantize16(&p->out, o, sum);
                }
            }
        }
        in += (size_t)p->in_h * p->in_w * p->in_c;
    }
}

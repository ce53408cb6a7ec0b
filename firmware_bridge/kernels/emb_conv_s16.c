#include "emb_dot.h"
#include "emb_wide.h"

/* Sum of one output channel over the part of its kernel that lies inside the input. */
static int64_t position(const emb_conv16_t *p, const int16_t *in, const int8_t *weights, int top, int left, int64_t sum)
{
    const size_t depth = (size_t)(p->in_c / p->groups);
    for (int ky = 0; ky < p->kernel_h; ++ky) {
        const int y = top + ky * p->dilation_h;
        for (int kx = 0; kx < p->kernel_w; ++kx, weights += depth) {
            const int x = left + kx * p->dilation_w;
            if (y >= 0 && y < p->in_h && x >= 0 && x < p->in_w) {
                sum = emb_dot_s16(in + ((size_t)y * p->in_w + (size_t)x) * p->in_c, weights, depth, sum);
            }
        }
    }
    return sum;
}

void emb_conv_s16(const emb_conv16_t *p, const int16_t *in, int16_t *out)
{
    const size_t in_depth = (size_t)(p->in_c / p->groups);
    const size_t out_depth = (size_t)(p->out_c / p->groups);
    const size_t taps = (size_t)p->kernel_h * p->kernel_w * in_depth;
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (int y = 0; y < p->out_h; ++y) {
            for (int x = 0; x < p->out_w; ++x) {
                const int top = y * p->stride_h - p->pad_top;
                const int left = x * p->stride_w - p->pad_left;
                for (size_t o = 0; o < p->out_c; ++o) {
                    const int16_t *group = in + o / out_depth * in_depth;
                    const int64_t sum = position(p, group, p->weights + o * taps, top, left, p->out.bias[o]);
                    *out++ = emb_requantize16(&p->out, o, sum);
                }
            }
        }
        in += (size_t)p->in_h * p->in_w * p->in_c;
    }
}

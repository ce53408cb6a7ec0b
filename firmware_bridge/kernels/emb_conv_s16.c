#include "emb_dot.h"
#include "emb_wide.h"

/* Sum of one row of the kernel over its places that lie inside the input's row. */
static int64_t row_sum(const emb_conv16_t *p, const int16_t *row, const int8_t *weights, int left, int64_t sum)
{
    const int depth = p->in_c / p->groups;
    if (p->groups == 1 && p->dilation_w == 1) { /* they lie together: one product */
        const int first = left < 0 ? -left : 0;
        const int end = left + p->kernel_w > p->in_w ? p->in_w - left : p->kernel_w;
        if (end <= first) {
            return sum;
        }
        return emb_dot_s16(row + (size_t)((left + first) * depth), weights + first * depth,
                           (size_t)((end - first) * depth), sum);
    }
    for (int kx = 0; kx < p->kernel_w; ++kx, weights += depth) {
        const int x = left + kx * p->dilation_w;
        if (x >= 0 && x < p->in_w) {
            sum = emb_dot_s16(row + (size_t)x * p->in_c, weights, (size_t)depth, sum);
        }
    }
    return sum;
}

void emb_conv_s16(const emb_conv16_t *p, const int16_t *in, int16_t *out)
{
    const size_t in_depth = (size_t)(p->in_c / p->groups);
    const size_t out_depth = (size_t)(p->out_c / p->groups);
    const size_t pitch = (size_t)p->in_w * p->in_c;
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (int y = 0; y < p->out_h; ++y) {
            for (int x = 0; x < p->out_w; ++x) {
                const int8_t *weights = p->weights;
                for (size_t o = 0; o < p->out_c; ++o) {
                    int64_t sum = p->out.bias[o];
                    for (int ky = 0; ky < p->kernel_h; ++ky, weights += p->kernel_w * in_depth) {
                        const int row = y * p->stride_h - p->pad_top + ky * p->dilation_h;
                        if (row >= 0 && row < p->in_h) {
                            const int16_t *begin = in + (size_t)row * pitch + o / out_depth * in_depth;
                            sum = row_sum(p, begin, weights, x * p->stride_w - p->pad_left, sum);
                        }
                    }
                    *out++ = emb_requantize16(&p->out, o, sum);
                }
            }
        }
        in += p->in_h * pitch;
    }
}

#include "emb_depthwise_patches.h"

#ifdef EMB_MVE
#include "emb_requantize_mve.h"

typedef int32x4_t four_t;
#else
typedef struct {
    int32_t of[4];
} four_t;
#endif

static void requantize(const emb_requant_t *to, size_t channel, int32_t sum, int8_t *out)
{
    *out = emb_requantize(to, channel, sum);
}

static void requantize_four(const emb_requant_t *to, size_t o, four_t sums, int8_t *out)
{
    int32_t values[4];
#ifdef EMB_MVE
    const int32x4_t shift = vldrbq_s32(to->shift + o);
    if (!to->once && vmaxvq_s32(INT32_MIN, shift) < 0) { /* as EMB_SCALE_TWICE */
        int32x4_t value = vqrdmulhq_s32(sums, vld1q_s32(to->multiplier + o));
        value = vrshlq_s32(vaddq_s32(value, vshrq_n_s32(value, 31)), shift);
        value = vaddq_n_s32(value, to->zero);
        vstrbq_s32(out, vminq_s32(vmaxq_s32(value, vdupq_n_s32(to->min)), vdupq_n_s32(to->max)));
        return;
    }
#endif
    memcpy(values, &sums, sizeof values);
    for (size_t c = 0; c < 4; ++c) {
        requantize(to, o + c, values[c], out + c);
    }
}

/* Adds taps that are neighbours in the kernel, for four channels. */
static void add_four(four_t *sums, const int8_t *x, size_t x_step, const int8_t *weights, size_t weights_step, int taps)
{
    four_t sum = *sums;
    for (; taps > 0; --taps) {
#ifdef EMB_MVE
        sum = vaddq_s32(sum, vmulq_s32(vldrbq_s32(x), vldrbq_s32(weights)));
#else
        sum.of[0] += x[0] * weights[0];
        sum.of[1] += x[1] * weights[1];
        sum.of[2] += x[2] * weights[2];
        sum.of[3] += x[3] * weights[3];
#endif
        x += x_step;
        weights += weights_step;
    }
    *sums = sum;
}

/* The kernel at one position: which of its columns lie in the input. */
typedef struct {
    const emb_depthwise_t *p;
    const int8_t *in, *outside; /* the input, and a pixel of zero points */
    int top, left, begin, end;
} position_t;

/* A row of the kernel's pixels: the input's, or those outside. */
static const int8_t *row_of(const position_t *at, int ky)
{
    const emb_depthwise_t *p = at->p;
    const int y = at->top + ky * p->dilation_h;
    return y < 0 || y >= p->in_h ? NULL : at->in + (y * p->in_w + at->left + at->begin * p->dilation_w) * p->in_c;
}

/* Channels o to o + 3 of one output where depth is 1. */
static void four_channels(const position_t *at, size_t o, int8_t *out)
{
    const emb_depthwise_t *p = at->p;
    const size_t in_c = p->in_c, pixel = (size_t)p->dilation_w * in_c;
    const int8_t *weights = p->weights + o, *outside = at->outside + o;
    four_t sums;
    memcpy(&sums, p->out.bias + o, sizeof sums);
    for (int ky = 0; ky < p->kernel_h; ++ky) {
        const int8_t *row = row_of(at, ky);
        const int begin = row == NULL ? p->kernel_w : at->begin;
        const int end = row == NULL ? p->kernel_w : at->end;
        if (begin > 0) {
            add_four(&sums, outside, 0, weights, in_c, begin);
        }
        if (end > begin) {
            add_four(&sums, row + o, pixel, weights + (size_t)begin * in_c, in_c, end - begin);
        }
        if (end < p->kernel_w) {
            add_four(&sums, outside, 0, weights + (size_t)end * in_c, in_c, p->kernel_w - end);
        }
        weights += p->kernel_w * in_c;
    }
    requantize_four(&p->out, o, sums, out + o);
}

static void one_channel(const position_t *at, size_t o, int8_t *out)
{
    const emb_depthwise_t *p = at->p;
    const size_t channels = (size_t)p->in_c * p->depth, channel = o / p->depth;
    const int8_t *weights = p->weights + o;
    int32_t sum = p->out.bias[o];
    for (int ky = 0; ky < p->kernel_h; ++ky) {
        const int8_t *row = row_of(at, ky);
        for (int kx = 0; kx < p->kernel_w; ++kx) {
            const int is_inside = row != NULL && kx >= at->begin && kx < at->end;
            const int x = is_inside ? row[(size_t)((kx - at->begin) * p->dilation_w) * p->in_c + channel] : p->in_zero;
            sum += x * *weights;
            weights += channels;
        }
    }
    requantize(&p->out, o, sum, out + o);
}

/* Any kernel, output by output; scratch of in_c bytes. */
static void by_outputs(const emb_depthwise_t *p, const int8_t *in, int8_t *out, int8_t *outside)
{
    const size_t channels = (size_t)p->in_c * p->depth;
    const size_t in_fours = p->depth == 1 ? channels / 4 * 4 : 0;
    memset(outside, p->in_zero, p->in_c);
    for (int y = 0; y < p->out_h; ++y) {
        for (int x = 0; x < p->out_w; ++x) {
            const int top = y * p->stride_h - p->pad_top, left = x * p->stride_w - p->pad_left;
            position_t at = {p, in, outside, top, left, 0, p->kernel_w};
            while (at.begin < at.end && at.left + at.begin * p->dilation_w < 0) {
                ++at.begin;
            }
            while (at.end > at.begin && at.left + (at.end - 1) * p->dilation_w >= p->in_w) {
                --at.end;
            }
            for (size_t o = 0; o < in_fours; o += 4) {
                four_channels(&at, o, out);
            }
            for (size_t o = in_fours; o < channels; ++o) {
                one_channel(&at, o, out);
            }
            out += channels;
        }
    }
}

void emb_depthwise_rows_s8(const emb_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        if (!emb_depthwise_patches(p, in, out, scratch)) {
            by_outputs(p, in, out, (int8_t *)scratch);
        }
        in += (size_t)p->in_h * p->in_w * p->in_c;
        out += (size_t)p->out_h * p->out_w * p->in_c * p->depth;
    }
}

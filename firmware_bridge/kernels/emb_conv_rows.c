#include "emb_rows.h"

#ifdef EMB_MVE
#include <arm_mve.h>
#endif

#define BLOCK 64u /* patches that are gathered at a time; more no longer pays */

/* Copies `count` rows of `bytes` bytes. */
static void copy_rows(int8_t *to, size_t to_step, const int8_t *from, size_t from_step, size_t bytes, int count)
{
#ifdef EMB_MVE
    for (size_t at = 0; at < bytes; at += 16) {
        const mve_pred16_t inside = vctp8q((uint32_t)(bytes - at));
        int8_t *t = to + at;
        const int8_t *f = from + at;
        __asm volatile("vmsr p0, %[inside]\n\t"
                       "wls lr, %[count], 2f\n"
                       "1:\n\t"
                       "vpstt\n\t"
                       "vldrbt.8 q0, [%[from]]\n\t"
                       "vstrbt.8 q0, [%[to]]\n\t"
                       "add %[from], %[from_step]\n\t"
                       "add %[to], %[to_step]\n\t"
                       "le lr, 1b\n"
                       "2:"
                       : [to] "+&r"(t), [from] "+&r"(f)
                       : [to_step] "r"(to_step), [from_step] "r"(from_step), [count] "r"(count),
                         [inside] "r"((uint32_t)inside)
                       : "q0", "lr", "memory");
    }
#else
    for (; count > 0; --count) {
        memcpy(to, from, bytes);
        to += to_step;
        from += from_step;
    }
#endif
}

static void fill(int8_t *to, int8_t value, size_t bytes)
{
#ifdef EMB_MVE
    const int8x16_t values = vdupq_n_s8(value);
    for (size_t at = 0; at < bytes; at += 16) {
        vstrbq_p_s8(to + at, values, vctp8q((uint32_t)(bytes - at)));
    }
#else
    memset(to, value, bytes);
#endif
}

/* The first of the taps 0 … taps - 1 that does not lie before `edge`. */
static int first_behind(int edge, int start, int dilation, int taps)
{
    return emb_clamp((edge - start + dilation - 1) / dilation, 0, taps);
}

/* The inputs under the kernel whose corner lies at (top, left), outside the input its zero point. */
static void gather(const emb_conv_t *p, const int8_t *in, int top, int left, int8_t *patch)
{
    const size_t depth = (size_t)(p->in_c / p->groups), taps = (size_t)p->kernel_h * p->kernel_w;
    const int is_joined = p->groups == 1 && p->dilation_w == 1; /* a row of the kernel is one run of bytes */
    const int run = is_joined ? p->kernel_w : 1;
    const int above = first_behind(0, top, p->dilation_h, p->kernel_h);
    const int below = first_behind(p->in_h, top, p->dilation_h, p->kernel_h);
    const size_t in_step = (size_t)p->dilation_h * p->in_w * p->in_c, patch_step = p->kernel_w * depth;
    const int right = left + (p->kernel_w - 1) * p->dilation_w;
    if (above > 0 || below < p->kernel_h || left < 0 || right >= p->in_w) {
        fill(patch, (int8_t)p->in_zero, taps * depth);
    }
    for (int kx = 0; kx < p->kernel_w; kx += run) {
        const int x = left + kx * p->dilation_w;
        const int begin = emb_clamp(-x, 0, run), end = emb_clamp(p->in_w - x, begin, run);
        if (end > begin && below > above) {
            copy_rows(patch + (size_t)above * patch_step + (size_t)(kx + begin) * depth, patch_step,
                      in + ((top + above * p->dilation_h) * p->in_w + x + begin) * p->in_c, in_step,
                      (size_t)(end - begin) * depth, below - above);
        }
    }
}

/* Whether what the kernel sees inside the input is one run of bytes. */
static int is_contiguous(const emb_conv_t *p)
{
    return p->kernel_h == 1 && p->groups == 1 && (p->kernel_w == 1 || p->dilation_w == 1);
}

/* Patches that wait for being multiplied. */
typedef struct {
    int8_t *bytes;
    size_t waiting, room; /* patches */
    size_t behind;        /* bytes of scratch behind the last of them when all room is used */
} patches_t;

/* Outputs of the patches that wait; where the next outputs belong. */
static int8_t *multiply(emb_rows_t *rows, patches_t *patches, int8_t *out)
{
    int8_t *const next = out + patches->waiting * rows->out_pitch;
    rows->in_pitch = rows->count;
    rows->behind = patches->behind;
    emb_rows_s8(rows, patches->bytes, patches->waiting, out);
    patches->waiting = 0;
    return next;
}

/* One group of channels of one picture. Patches are gathered, some at a time, where the input is not read directly. */
static void convolve(const emb_conv_t *p, emb_rows_t *rows, const int8_t *in, int8_t *out, patches_t patches)
{
    const size_t patch_bytes = rows->count, pixel = p->in_c, line = p->in_w * pixel;
    const size_t run = p->kernel_w * (pixel / p->groups);
    const int reach_h = (p->kernel_h - 1) * p->dilation_h + 1, reach_w = (p->kernel_w - 1) * p->dilation_w + 1;
    const int is_direct = is_contiguous(p), is_joined = p->groups == 1 && p->dilation_w == 1;
    /* Positions begin … end - 1 of a row of outputs do not touch the padding on the left and right. */
    const int begin = first_behind(0, -p->pad_left, p->stride_w, p->out_w);
    const int end = first_behind(p->in_w - reach_w + 1, -p->pad_left, p->stride_w, p->out_w);
    for (int y = 0; y < p->out_h; ++y) {
        const int top = y * p->stride_h - p->pad_top;
        const int is_inside = top >= 0 && top + reach_h <= p->in_h;
        for (int x = 0; x < p->out_w; ++x) {
            const int left = x * p->stride_w - p->pad_left;
            const int is_whole = is_inside && x >= begin && x < end;
            const int corner = (top * p->in_w + left) * p->in_c;
            int8_t *patch = patches.bytes + patches.waiting * patch_bytes;
            if (is_whole && is_direct) {
                const size_t count = (size_t)(end - x);
                out = multiply(rows, &patches, out);
                rows->in_pitch = p->stride_w * pixel;
                rows->behind = (size_t)(p->in_h - 1 - top) * line + (size_t)(p->in_w - reach_w - left) * pixel -
                               (count - 1) * rows->in_pitch;
                emb_rows_s8(rows, in + corner, count, out);
                out += count * rows->out_pitch;
                x = end - 1;
                continue;
            }
            if (is_whole && is_joined) {
                copy_rows(patch, run, in + corner, p->dilation_h * line, run, p->kernel_h);
            } else {
                gather(p, in, top, left, patch);
            }
            if (++patches.waiting == patches.room) {
                out = multiply(rows, &patches, out);
            }
        }
    }
    multiply(rows, &patches, out);
}

/* A picture of one column as one of one row. */
static emb_conv_t lying(const emb_conv_t *p)
{
    emb_conv_t q = *p;
    q.in_h = 1;
    q.in_w = p->in_h;
    q.out_h = 1;
    q.out_w = p->out_h;
    q.kernel_h = 1;
    q.kernel_w = p->kernel_h;
    q.stride_w = p->stride_h;
    q.dilation_w = p->dilation_h;
    q.pad_top = 0;
    q.pad_left = p->pad_top;
    return q;
}

void emb_conv_rows_s8(const emb_conv_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const int is_column = p->in_w == 1 && p->kernel_w == 1 && p->out_w == 1 && p->pad_left == 0;
    const emb_conv_t window = is_column ? lying(p) : *p;
    const size_t in_depth = (size_t)(p->in_c / p->groups), out_depth = (size_t)(p->out_c / p->groups);
    const size_t taps = (size_t)p->kernel_h * p->kernel_w * in_depth;
    const size_t given = p->scratch_bytes > taps ? p->scratch_bytes : taps;
    const size_t beside = given >= EMB_BESIDE(taps) + taps ? EMB_BESIDE(taps) : 0;
    const size_t room = (given - beside) / taps < BLOCK ? (given - beside) / taps : BLOCK;
    const patches_t patches = {(int8_t *)scratch + beside, 0, room, given - beside - room * taps};
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (uint16_t group = 0; group < p->groups; ++group) {
            const size_t first = group * out_depth;
            const int8_t *weights = (const int8_t *)p->weights + first * taps;
            emb_rows_t rows = {&p->out, weights, first, out_depth, taps, taps, p->out_c, 0,
                               beside > 0 ? (int8_t *)scratch : NULL};
            convolve(&window, &rows, in + group * in_depth, out + first, patches);
        }
        in += (size_t)p->in_h * p->in_w * p->in_c;
        out += (size_t)p->out_h * p->out_w * p->out_c;
    }
}

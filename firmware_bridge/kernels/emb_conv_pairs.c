#include "emb_dsp.h"
#include "emb_pairs.h"

/* Rows of `count` bytes that lie `step` apart, brought together; returns where they end. By words, because runs are
 * short and a small C library's memcpy goes byte by byte. */
static EMB_NOINLINE int8_t *copy(int8_t *to, const int8_t *from, size_t count, size_t step, size_t rows)
{
    for (; rows > 0; --rows) {
        const int8_t *in = from;
        for (size_t words = count / 4; words > 0; --words) {
            const uint32_t word = emb_opaque(emb_load32(in));
            memcpy(to, &word, 4);
            to += 4;
            in += 4;
        }
        if (count & 2u) {
            memcpy(to, in, 2);
            to += 2;
            in += 2;
        }
        if (count & 1u) {
            *to++ = *in;
        }
        from += step;
    }
    return to;
}

static int8_t *repeat(int8_t *to, int8_t value, size_t count)
{
    if (count > 0) {
        memset(to, value, count);
    }
    return to + count;
}

/* `width` pixels of a row of the input from column x on, outside the input its zero point. */
static int8_t *clip(const emb_conv_t *p, const int8_t *row, int x, int width, int8_t *to)
{
    const int before = emb_clamp(-x, 0, width);
    const int behind = emb_clamp(x + width - p->in_w, 0, width);
    const size_t inside = (size_t)(width - before - behind);
    to = repeat(to, (int8_t)p->in_zero, (size_t)before * p->in_c);
    if (inside > 0) {
        to = copy(to, row + (size_t)(x + before) * p->in_c, inside * p->in_c, 0, 1);
    }
    return repeat(to, (int8_t)p->in_zero, (size_t)behind * p->in_c);
}

/* The K inputs under one position of the kernel, outside the input its zero point: where they follow each other in the
 * input they stay there, otherwise they are brought together in `patch`. */
static EMB_NOINLINE const int8_t *gather(const emb_conv_t *p, const int8_t *in, int top, int left, int8_t *patch)
{
    const size_t run = (size_t)p->kernel_w * p->in_c;
    const size_t row_bytes = (size_t)p->in_w * p->in_c;
    const int width = p->dilation_w == 1 ? p->kernel_w : 1; /* pixels that follow each other */
    const int bottom = top + (p->kernel_h - 1) * p->dilation_h;
    int8_t *to = patch;
    if (width == p->kernel_w && left >= 0 && left + width <= p->in_w && top >= 0 && bottom < p->in_h) {
        const int8_t *from = in + (size_t)top * row_bytes + (size_t)left * p->in_c;
        if (p->kernel_h == 1) {
            return from;
        }
        (void)copy(patch, from, run, p->dilation_h * row_bytes, p->kernel_h);
        return patch;
    }
    for (int y = top; y <= bottom; y += p->dilation_h) {
        if (y < 0 || y >= p->in_h) {
            to = repeat(to, (int8_t)p->in_zero, run);
            continue;
        }
        for (int kx = 0; kx < p->kernel_w; kx += width) {
            to = clip(p, in + (size_t)y * row_bytes, left + kx * p->dilation_w, width, to);
        }
    }
    return patch;
}

void emb_conv_pairs_s8(const emb_conv_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const size_t taps = (size_t)p->kernel_h * p->kernel_w * p->in_c;
    const size_t quads = (taps + 3u) / 4u;
    const uint32_t *weights = (const uint32_t *)p->weights;
    int16_t *wide = (int16_t *)scratch;
    int8_t *patch = (int8_t *)(wide + 4 * EMB_PAIRS_ROWS * quads);
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        size_t positions = (size_t)p->out_h * p->out_w;
        size_t x = 0;
        int top = -p->pad_top, left = -p->pad_left;
        while (positions > 0) {
            const size_t rows = positions >= EMB_PAIRS_ROWS ? EMB_PAIRS_ROWS : 1u;
            for (size_t row = 0; row < rows; ++row) {
                emb_pairs_widen(gather(p, in, top, left, patch), taps, wide + 2 * row, rows);
                left += p->stride_w;
                if (++x == p->out_w) {
                    x = 0;
                    top += p->stride_h;
                    left = -p->pad_left;
                }
            }
            if (rows == 1) {
                emb_pairs_one_row(&p->out, weights, quads, p->out_c, wide, out);
            } else {
                emb_pairs_three_rows(&p->out, weights, quads, p->out_c, wide, out);
            }
            out += rows * p->out_c;
            positions -= rows;
        }
        in += (size_t)p->in_h * p->in_w * p->in_c;
    }
}

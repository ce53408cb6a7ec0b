#include "emb_pool.h"

#include "emb_sums.h"

#if defined(__ARM_FEATURE_SIMD32) && !defined(EMB_PORTABLE)
#include <arm_acle.h>
#endif

/* The part of a window that lies inside the input. */
typedef struct {
    size_t offset; /* of its first pixel's first channel in its batch */
    size_t rows, columns;
} window_t;

static window_t inside(const emb_pool_t *p, int y, int x)
{
    const int top = y * p->stride_h - p->pad_top;
    const int left = x * p->stride_w - p->pad_left;
    const int first_row = top < 0 ? 0 : top;
    const int first_column = left < 0 ? 0 : left;
    const int end_row = top + p->pool_h > p->in_h ? p->in_h : top + p->pool_h;
    const int end_column = left + p->pool_w > p->in_w ? p->in_w : left + p->pool_w;
    const window_t window = {((size_t)first_row * p->in_w + (size_t)first_column) * p->channels,
                             (size_t)(end_row - first_row), (size_t)(end_column - first_column)};
    return window;
}

static int32_t mean_of(int32_t sum, int32_t count)
{
    return sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
}

/* All channels of one output pixel. */
static void average_s8(const emb_pool_t *p, const window_t *w, const int8_t *in, int8_t *out)
{
    const int whole = w->columns == p->in_w; /* rows of the window follow each other */
    const size_t rows = whole ? 1 : w->rows;
    const size_t columns = whole ? w->rows * w->columns : w->columns;
    const size_t row_step = (size_t)p->in_w * p->channels;
    const int32_t count = (int32_t)(w->rows * w->columns);
    size_t c = 0;
    for (; c + 4 <= p->channels; c += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        for (size_t y = 0; y < rows; ++y) {
            emb_sum_quads(in + y * row_step + c, columns, p->channels, sums);
        }
        for (size_t i = 0; i < 4; ++i) {
            out[c + i] = (int8_t)emb_clamp(mean_of(sums[i], count), p->min, p->max);
        }
    }
    for (; c < p->channels; ++c) {
        int32_t sum = 0;
        for (size_t y = 0; y < rows; ++y) {
            sum += emb_sum_each(in + y * row_step + c, columns, p->channels);
        }
        out[c] = (int8_t)emb_clamp(mean_of(sum, count), p->min, p->max);
    }
}

void emb_average_pool_s8(const emb_pool_t *p, const int8_t *in, int8_t *out)
{
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (int y = 0; y < p->out_h; ++y) {
            for (int x = 0; x < p->out_w; ++x) {
                const window_t w = inside(p, y, x);
                average_s8(p, &w, in + w.offset, out);
                out += p->channels;
            }
        }
        in += (size_t)p->in_h * p->in_w * p->channels;
    }
}

void emb_average_pool_s16(const emb_pool_t *p, const int16_t *in, int16_t *out)
{
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (int y = 0; y < p->out_h; ++y) {
            for (int x = 0; x < p->out_w; ++x) {
                const window_t w = inside(p, y, x);
                for (size_t c = 0; c < p->channels; ++c) {
                    int32_t sum = 0;
                    for (size_t row = 0; row < w.rows; ++row) {
                        const int16_t *from = in + w.offset + row * p->in_w * p->channels + c;
                        for (size_t column = 0; column < w.columns; ++column) {
                            sum += from[column * p->channels];
                        }
                    }
                    *out++ = (int16_t)emb_clamp(mean_of(sum, (int32_t)(w.rows * w.columns)), p->min, p->max);
                }
            }
        }
        in += (size_t)p->in_h * p->in_w * p->channels;
    }
}

/* The larger of both, element by element. */
static void keep_larger(int8_t *best, const int8_t *other, size_t count)
{
    size_t i = 0;
#if defined(__ARM_FEATURE_SIMD32) && !defined(EMB_PORTABLE)
    for (; i + 4 <= count; i += 4) {
        const int8x4_t one = (int8x4_t)emb_load32(best + i);
        const int8x4_t two = (int8x4_t)emb_load32(other + i);
        (void)__ssub8(one, two); /* leaves in the flags which byte of `one` is not smaller */
        const uint32_t larger = (uint32_t)__sel((uint8x4_t)one, (uint8x4_t)two);
        memcpy(best + i, &larger, sizeof larger);
    }
#endif
    for (; i < count; ++i) {
        best[i] = other[i] > best[i] ? other[i] : best[i];
    }
}

void emb_max_pool_s8(const emb_pool_t *p, const int8_t *in, int8_t *out)
{
    const size_t channels = p->channels;
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (int y = 0; y < p->out_h; ++y) {
            for (int x = 0; x < p->out_w; ++x) {
                const window_t w = inside(p, y, x);
                const int8_t *first = in + w.offset;
                memcpy(out, first, channels);
                for (size_t row = 0; row < w.rows; ++row) {
                    for (size_t column = row == 0 ? 1 : 0; column < w.columns; ++column) {
                        keep_larger(out, first + (row * p->in_w + column) * channels, channels);
                    }
                }
                for (size_t c = 0; c < channels; ++c) {
                    out[c] = (int8_t)emb_clamp(out[c], p->min, p->max);
                }
                out += channels;
            }
        }
        in += (size_t)p->in_h * p->in_w * channels;
    }
}

void emb_max_pool_s16(const emb_pool_t *p, const int16_t *in, int16_t *out)
{
    for (uint16_t batch = 0; batch < p->batches; ++batch) {
        for (int y = 0; y < p->out_h; ++y) {
            for (int x = 0; x < p->out_w; ++x) {
                const window_t w = inside(p, y, x);
                for (size_t c = 0; c < p->channels; ++c) {
                    int32_t most = INT16_MIN;
                    for (size_t row = 0; row < w.rows; ++row) {
                        const int16_t *from = in + w.offset + row * p->in_w * p->channels + c;
                        for (size_t column = 0; column < w.columns; ++column) {
                            most = *from > most ? *from : most;
                            from += p->channels;
                        }
                    }
                    *out++ = (int16_t)emb_clamp(most, p->min, p->max);
                }
            }
        }
        in += (size_t)p->in_h * p->in_w * p->channels;
    }
}

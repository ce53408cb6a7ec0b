/* Runs convolutions that the host describes, for the tests and the benchmark: on an emulated board or on the host.
 *
 * A case is a row of 32-bit words (`Case.packed` in Python) and its tables, a multiple of eight bytes in all. */
#include "emb_convolution.h"

enum { POINTWISE, CONV, DEPTHWISE };

typedef struct {
    int32_t bytes;   /* of the whole case, this header included; 0 ends the list */
    int32_t kernel, in_bytes, out_bytes, scratch_bytes, says_scratch, in_place;
    int32_t channels, weight_bytes, zero, min, max, once;
    int32_t rows, batches, in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w, stride_h, stride_w;
    int32_t dilation_h, dilation_w, pad_top, pad_left, groups, depth, in_zero;
} case_t;

/* A case's call: in, out and scratch are where the caller wants them. */
static void call(const case_t *c, const int32_t *bias, const int32_t *multiplier, const int8_t *shift,
                 const int8_t *weights, const int8_t *in, int8_t *out, void *scratch)
{
    const emb_requant_t to = {bias, multiplier, shift, (int16_t)c->zero,
                              (int8_t)c->min, (int8_t)c->max, (uint8_t)c->once};
    const uint32_t says = (uint32_t)c->says_scratch;
    if (c->kernel == POINTWISE) {
        const emb_pointwise_t p = {to, weights, (uint32_t)c->rows, (uint16_t)c->in_c, (uint16_t)c->out_c, says};
        emb_pointwise_rows_s8(&p, in, out, scratch);
    } else if (c->kernel == CONV) {
        const emb_conv_t p = {to, weights, (uint16_t)c->batches, (uint16_t)c->in_h, (uint16_t)c->in_w,
                              (uint16_t)c->in_c, (uint16_t)c->out_h, (uint16_t)c->out_w, (uint16_t)c->out_c,
                              (uint16_t)c->kernel_h, (uint16_t)c->kernel_w, (uint16_t)c->stride_h,
                              (uint16_t)c->stride_w, (uint16_t)c->dilation_h, (uint16_t)c->dilation_w,
                              (uint16_t)c->pad_top, (uint16_t)c->pad_left, (uint16_t)c->groups, (int16_t)c->in_zero,
                              says};
        emb_conv_rows_s8(&p, in, out, scratch);
    } else {
        const emb_depthwise_t p = {to, weights, (uint16_t)c->batches, (uint16_t)c->in_h, (uint16_t)c->in_w,
                                   (uint16_t)c->in_c, (uint16_t)c->out_h, (uint16_t)c->out_w, (uint16_t)c->depth,
                                   (uint16_t)c->kernel_h, (uint16_t)c->kernel_w, (uint16_t)c->stride_h,
                                   (uint16_t)c->stride_w, (uint16_t)c->dilation_h, (uint16_t)c->dilation_w,
                                   (uint16_t)c->pad_top, (uint16_t)c->pad_left, (int16_t)c->in_zero, says};
        emb_depthwise_rows_s8(&p, in, out, scratch);
    }
}

#ifdef ON_BOARD
#include "emb_board.h"

/* The input, or in a second run the weights, ends where memory ends: whoever reads behind it faults. */
#define RAM_END ((int8_t *)RAM_END_ADDRESS)
#define CANARY 0x5a
static int8_t buffer[BUFFER_BYTES];

static size_t up_to_8(size_t bytes)
{
    return (bytes + 7u) / 8u * 8u;
}

static void check(const int8_t *bytes, size_t count, const char *what)
{
    while (count-- > 0) {
        if (*bytes++ != CANARY) {
            emb_board_print(what);
            emb_board_exit(2);
        }
    }
}

static void run(const case_t *c, const int8_t *tables, int weights_last)
{
    const size_t channels = (size_t)c->channels;
    const int32_t *bias = (const int32_t *)(const void *)tables;
    const int32_t *multiplier = bias + channels;
    const int8_t *shift = (const int8_t *)(multiplier + channels);
    const int8_t *weights = shift + channels;
    const int8_t *given = weights + c->weight_bytes;
    int8_t *scratch = buffer + 64;
    int8_t *out = scratch + up_to_8((size_t)c->scratch_bytes) + 64;
    int8_t *last = RAM_END - (weights_last ? c->weight_bytes : c->in_bytes);
    int8_t *in = weights_last ? out + c->out_bytes + 64 : last;
    uint32_t ticks;
    memset(buffer, CANARY, (size_t)(out - buffer) + (size_t)c->out_bytes + 64);
    if (weights_last) {
        memcpy(last, weights, (size_t)c->weight_bytes);
        weights = last;
    }
    memcpy(in, given, (size_t)c->in_bytes);
    out = c->in_place ? in : out;
    emb_board_window_open();
    call(c, bias, multiplier, shift, weights, in, out, c->scratch_bytes > 0 ? scratch : NULL);
    ticks = emb_board_window_close();
    check(buffer, 64, "before scratch");
    check(scratch + c->scratch_bytes, 64, "behind scratch");
    if (!c->in_place) {
        check(out - 32, 32, "before output");
        check(out + c->out_bytes, 64, "behind output");
    }
    emb_board_output(&ticks, sizeof ticks);
    emb_board_output(out, (size_t)c->out_bytes);
}

int main(void)
{
    const int8_t *at = emb_board_input();
    for (const case_t *c = (const case_t *)(const void *)at; c->bytes > 0; c = (const case_t *)(const void *)at) {
        run(c, at + sizeof *c, 0);
        run(c, at + sizeof *c, 1);
        at += c->bytes;
    }
    return 0;
}
#else
void run_case(const int8_t *at, int8_t *in_and_out, int8_t *out, void *scratch);

/* The same on the host; in place, `out` is the input's memory. */
void run_case(const int8_t *at, int8_t *in, int8_t *out, void *scratch)
{
    const case_t *c = (const case_t *)(const void *)at;
    const int32_t *bias = (const int32_t *)(const void *)(at + sizeof *c);
    const int32_t *multiplier = bias + c->channels;
    const int8_t *shift = (const int8_t *)(multiplier + c->channels);
    const int8_t *weights = shift + c->channels;
    memcpy(in, weights + c->weight_bytes, (size_t)c->in_bytes);
    call(c, bias, multiplier, shift, weights, in, out, scratch);
}
#endif

/* Runs convolution kernels on cases that the host wrote; see dsp_cases.py for the format. The same file is built for a
 * board and for the host. */
#include "emb_convolution.h"

#if defined(ON_HOST)
#include <stdio.h>
#include <stdlib.h>

static const void *cases(void)
{
    const size_t capacity = (size_t)1 << 26;
    void *bytes = malloc(capacity);
    if (bytes == NULL || fread(bytes, 1, capacity, stdin) == 0) {
        exit(1);
    }
    return bytes;
}

static void put(const void *bytes, size_t count)
{
    (void)fwrite(bytes, 1, count, stdout);
}
#define WINDOW_OPEN()
#define WINDOW_CLOSE() 0u
#else
#include "emb_board.h"

static const void *cases(void)
{
    return emb_board_input();
}

static void put(const void *bytes, size_t count)
{
    emb_board_output(bytes, count);
}
#define WINDOW_OPEN() emb_board_window_open()
#define WINDOW_CLOSE() emb_board_window_close()
#endif

enum { POINTWISE_PAIRS, CONV_PAIRS, DEPTHWISE_PLANES };
enum { FIELDS = 34, GUARD = 16, GUARD_BYTE = 0x5A, LARGEST = 1 << 20 };

/* Alignment that the arena gives: eight. */
static uint64_t activations[LARGEST / 8], result[LARGEST / 8], working[LARGEST / 8];

static size_t padded(size_t count)
{
    return (count + 7u) & ~(size_t)7;
}

static int damaged(const uint8_t *guard)
{
    for (size_t i = 0; i < GUARD; ++i) {
        if (guard[i] != GUARD_BYTE) {
            return 1;
        }
    }
    return 0;
}

static void call(const int32_t *f, const emb_requant_t *to, const void *weights, const int8_t *in, int8_t *out,
                 void *scratch)
{
    if (f[0] == POINTWISE_PAIRS) {
        const emb_pointwise_t p = {*to, weights, (uint32_t)f[12], (uint16_t)f[13], (uint16_t)f[14], (uint32_t)f[10]};
        emb_pointwise_pairs_s8(&p, in, out, scratch);
    } else if (f[0] == CONV_PAIRS) {
        const emb_conv_t p = {*to, weights, (uint16_t)f[12], (uint16_t)f[13], (uint16_t)f[14], (uint16_t)f[15],
                              (uint16_t)f[16], (uint16_t)f[17], (uint16_t)f[18], (uint16_t)f[19], (uint16_t)f[20],
                              (uint16_t)f[21], (uint16_t)f[22], (uint16_t)f[23], (uint16_t)f[24], (uint16_t)f[25],
                              (uint16_t)f[26], 1, (int16_t)f[27], (uint32_t)f[10]};
        emb_conv_pairs_s8(&p, in, out, scratch);
    } else {
        const emb_depthwise_t p = {*to, weights, (uint16_t)f[12], (uint16_t)f[13], (uint16_t)f[14], (uint16_t)f[15],
                                   (uint16_t)f[16], (uint16_t)f[17], (uint16_t)f[18], (uint16_t)f[19], (uint16_t)f[20],
                                   (uint16_t)f[21], (uint16_t)f[22], (uint16_t)f[23], (uint16_t)f[24], (uint16_t)f[25],
                                   (uint16_t)f[26], (int16_t)f[27], (uint32_t)f[10]};
        emb_depthwise_planes_s8(&p, in, out, scratch);
    }
}

int main(void)
{
    const uint8_t *at = (const uint8_t *)cases();
    uint32_t count;
    memcpy(&count, at, sizeof count);
    at += 8;
    for (; count > 0; --count) {
        const int32_t *f = (const int32_t *)(const void *)at;
        const size_t channels = ((size_t)f[6] + 1u) & ~(size_t)1, in_bytes = (size_t)f[7], weight_bytes = (size_t)f[8];
        const size_t out_bytes = (size_t)f[9], scratch_bytes = (size_t)f[10];
        at += FIELDS * sizeof(int32_t);
        const int32_t *bias = (const int32_t *)(const void *)at;
        at += padded(channels * sizeof(int32_t));
        const int32_t *multiplier = (const int32_t *)(const void *)at;
        at += padded(channels * sizeof(int32_t));
        const int8_t *shift = (const int8_t *)at;
        at += padded(channels);
        const void *weights = at;
        at += padded(weight_bytes);
        memset(activations, GUARD_BYTE, in_bytes + out_bytes + GUARD);
        memcpy(activations, at, in_bytes);
        at += padded(in_bytes);
        const emb_requant_t to = {bias, multiplier, shift, (int16_t)f[1], (int8_t)f[2], (int8_t)f[3], (uint8_t)f[4]};
        int8_t *out = f[5] ? (int8_t *)activations : (int8_t *)result;
        const size_t kept = f[5] && in_bytes > out_bytes ? in_bytes : out_bytes;
        if (!f[5]) {
            memset(result, GUARD_BYTE, out_bytes + GUARD);
        }
        memset(working, GUARD_BYTE, scratch_bytes + GUARD);
        WINDOW_OPEN();
        call(f, &to, weights, (const int8_t *)activations, out, working);
        const uint32_t ticks = WINDOW_CLOSE();
        const uint32_t head[2] = {ticks, (uint32_t)(damaged((const uint8_t *)out + kept) ||
                                                    damaged((const uint8_t *)working + scratch_bytes))};
        put(head, sizeof head);
        put(out, out_bytes);
    }
    return 0;
}

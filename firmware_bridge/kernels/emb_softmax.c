#include "emb_softmax.h"

#include "emb_factor.h"

/* gemmlowp's fixed-point functions; Qi.f has i bits above the point and f below. */

/* SaturatingRoundingDoublingHighMul of two numbers that are not both INT32_MIN. */
EMB_INLINE int32_t product(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* value / 2^right rounded to the nearest, halves up, of what is not negative. */
EMB_INLINE int32_t shifted_right(int32_t value, int right)
{
    return (int32_t)(((uint32_t)value + (((uint32_t)1 << right) >> 1)) >> right);
}

/* exp(a) in Q0.31 of a <= 0 in Q5.26: a polynomial for the last quarter, then a factor for each further bit. */
static int32_t exponential(int32_t a)
{
    const int32_t quarter = (int32_t)1 << 24;
    const int32_t in_quarter = (a & (quarter - 1)) - quarter;
    const int32_t x = in_quarter * 32 + ((int32_t)1 << 28); /* −1/8 … 1/8 around −1/8 */
    const int32_t x2 = emb_high_multiply(x * 2, x);
    const int32_t x3 = emb_high_multiply(x2 * 2, x);
    const int32_t x4 = emb_high_multiply(x2 * 2, x2);
    const int32_t third = 715827883;
    const int32_t upper = emb_shift_rounded(emb_high_multiply((emb_shift_rounded(x4, 2) + x3) * 2, third) + x2, 1);
    const int32_t at_eighth = 1895147668; /* exp(−1/8) */
    int32_t result = at_eighth + emb_high_multiply((x + upper) * 2, at_eighth);
    const int32_t rest = in_quarter - a;
    if (rest & ((int32_t)1 << 24)) {
        result = product(result, 1672461947); /* exp(−1/4) */
    }
    if (rest & ((int32_t)1 << 25)) {
        result = product(result, 1302514674);
    }
    if (rest & ((int32_t)1 << 26)) {
        result = emb_high_multiply(result, 2 * 790015084);
    }
    if (rest & ((int32_t)1 << 27)) {
        result = emb_high_multiply(result, 2 * 290630308);
    }
    if (rest & ((int32_t)1 << 28)) {
        result = emb_high_multiply(result, 2 * 39332535);
    }
    if (rest & ((int32_t)1 << 29)) {
        result = emb_high_multiply(result, 2 * 720401);
    }
    if (rest & ((int32_t)1 << 30)) {
        result = emb_high_multiply(result, 2 * 242); /* exp(−16) */
    }
    return a == 0 ? INT32_MAX : result;
}

/* 1 / (1 + a) of a >= 0, both in Q0.31: three steps of Newton's method, in Q2.29. */
static int32_t inverse(int32_t a)
{
    const int32_t half = (int32_t)(((uint32_t)a >> 1) + ((uint32_t)1 << 30));
    int32_t x = 1515870810 + product(half, -1010580540); /* 48/17 − 32/17 × half */
    for (int step = 0; step < 3; ++step) {
        const int32_t error = ((int32_t)1 << 29) - product(half, x);
        x += product(x, error) * 4;
    }
    return x >= ((int32_t)1 << 30) ? INT32_MAX : x * 2;
}

/* What one row of exponentials is multiplied by, and the shift after it for outputs of this many bits. */
typedef struct {
    int32_t scale;
    int right;
} share_t;

static share_t share_of(int32_t sum, int bits)
{
    int headroom = 0;
    uint32_t shifted = (uint32_t)sum;
    while (!(shifted >> 31)) {
        shifted <<= 1;
        ++headroom;
    }
    share_t share = {inverse((int32_t)(shifted - ((uint32_t)1 << 31))), 12 - headroom + 31 - bits};
    if (share.right > 31) { /* so many equal inputs that each share rounds to 0; the references stop here */
        share.scale = 0;
        share.right = 31;
    }
    return share;
}

/* The exponentials of a row in Q0.31, and their sum in Q12.19. */
static int32_t exponentials(const emb_softmax_t *p, const int8_t *in, int32_t *out)
{
    int32_t most = INT8_MIN;
    for (uint32_t i = 0; i < p->length; ++i) {
        most = in[i] > most ? in[i] : most;
    }
    int32_t sum = 0;
    for (uint32_t i = 0; i < p->length; ++i) {
        const int32_t difference = in[i] - most;
        out[i] = 0;
        if (difference >= p->least) {
            const int32_t shifted = (int32_t)((uint32_t)difference << p->shift);
            out[i] = exponential(product(shifted, p->multiplier));
            sum += shifted_right(out[i], 12);
        }
    }
    return sum;
}

void emb_softmax_s8(const emb_softmax_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    int32_t *row = (int32_t *)scratch;
    for (uint32_t r = 0; r < p->rows; ++r) {
        const share_t share = share_of(exponentials(p, in, row), 8);
        for (uint32_t i = 0; i < p->length; ++i) {
            out[i] = emb_saturate8(shifted_right(product(share.scale, row[i]), share.right) + INT8_MIN);
        }
        in += p->length;
        out += p->length;
    }
}

void emb_softmax_s8_s16(const emb_softmax_t *p, const int8_t *in, int16_t *out, void *scratch)
{
    int32_t *row = (int32_t *)scratch;
    for (uint32_t r = 0; r < p->rows; ++r) {
        const share_t share = share_of(exponentials(p, in, row), 16);
        for (uint32_t i = 0; i < p->length; ++i) {
            const int32_t value = shifted_right(product(share.scale, row[i]), share.right) + INT16_MIN;
            out[i] = (int16_t)emb_clamp(value, INT16_MIN, INT16_MAX);
        }
        in += p->length;
        out += p->length;
    }
}

/* TFLite's LUTLookup: straight lines between 513 points. */
static int16_t interpolate(const int16_t *table, int32_t value)
{
    const int16_t *at = table + 256 + (value >> 7);
    return (int16_t)(at[0] + (((at[1] - at[0]) * (value & 127) + 64) >> 7));
}

void emb_softmax_s16(const emb_softmax16_t *p, const int16_t *in, int16_t *out)
{
    for (uint32_t r = 0; r < p->rows; ++r) {
        int32_t most = INT16_MIN;
        for (uint32_t i = 0; i < p->length; ++i) {
            most = in[i] > most ? in[i] : most;
        }
        int32_t sum = 0; /* Q16.15 */
        for (uint32_t i = 0; i < p->length; ++i) {
            const int32_t scaled = emb_scale_twice(in[i] - most, p->multiplier, p->shift) + INT16_MAX;
            out[i] = interpolate(p->exponentials, emb_clamp(scaled, INT16_MIN, INT16_MAX));
            sum += out[i];
        }
        int headroom = 0;
        while (!((uint32_t)sum << headroom >> 30)) {
            ++headroom;
        }
        const int32_t shifted = (int32_t)((((int64_t)sum << headroom) + (1 << 13)) >> 14) - (1 << 15) - (1 << 16);
        const int32_t inverse_sum = interpolate(p->inverses, emb_clamp(shifted, INT16_MIN, INT16_MAX));
        const int right = 30 - headroom;
        for (uint32_t i = 0; i < p->length; ++i) {
            const int64_t share = ((int64_t)out[i] * inverse_sum + ((int64_t)1 << (right - 1))) >> right;
            out[i] = (int16_t)emb_clamp((int32_t)share, 0, INT16_MAX);
        }
        in += p->length;
        out += p->length;
    }
}

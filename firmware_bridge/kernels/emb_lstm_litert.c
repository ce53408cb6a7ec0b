#include "emb_dot.h"
#include "emb_lstm.h"

/* gemmlowp's fixed-point functions on 16 bits: a number of k integer bits is raw × 2^(k − 15). */

enum { ONE = INT16_MAX, QUARTER_BITS = 2 };

/* Rounds a × b / 2^15, halves up; −1 × −1 saturates. */
static int32_t multiply(int32_t a, int32_t b)
{
    return a == INT16_MIN && b == INT16_MIN ? INT16_MAX : (a * b + (1 << 14)) >> 15;
}

/* Saturating value × 2^exponent. */
static int32_t shifted(int32_t value, int exponent)
{
    return emb_clamp((int32_t)((uint32_t)value << exponent), INT16_MIN, INT16_MAX);
}

/* exp(x) for −1/4 <= x < 0, no integer bits: a Taylor series at −1/8. */
static int32_t exp_of_quarter(int32_t x)
{
    const int32_t at_eighth = 28918; /* exp(−1/8) */
    const int32_t third = 10923;
    const int32_t from_eighth = x + (1 << 12);
    const int32_t squared = multiply(from_eighth, from_eighth);
    const int32_t cubed = multiply(squared, from_eighth);
    const int32_t fourth = emb_divide_by_power(multiply(squared, squared), 2);
    const int32_t rest = emb_divide_by_power(multiply(fourth + cubed, third) + squared, 1);
    return emb_saturate16(at_eighth + multiply(at_eighth, from_eighth + rest));
}

/* exp(x) for x <= 0 of `bits` integer bits; the result has none. */
static int32_t exp_of_negative(int32_t x, int bits)
{
    static const int16_t powers[] = {25520, 19875, 12055, 4435, 600, 11, 0}; /* exp(−1/4), exp(−1/2), … exp(−16) */
    const int fraction = 15 - bits;
    const int32_t quarter = 1 << (fraction - QUARTER_BITS);
    const int32_t within = (x & (quarter - 1)) - quarter;
    const int32_t remainder = within - x;
    int32_t result = exp_of_quarter(shifted(within, bits));
    for (int i = 0; i < bits + QUARTER_BITS; ++i) {
        if (remainder & (quarter << i)) {
            result = multiply(result, powers[i]);
        }
    }
    return x == 0 ? ONE : result;
}

/* 2 / (1 + x) for 0 <= x < 1 by Newton's iteration; the result has two integer bits. */
static int32_t reciprocal(int32_t x)
{
    const int32_t half = (x + ONE + 1) / 2;
    int32_t guess = 23130 + multiply(half, -15420); /* 48/17 − 32/17 × half */
    for (int i = 0; i < 3; ++i) {
        const int32_t error = (1 << 13) - multiply(half, guess);
        guess += shifted(multiply(guess, error), 2);
    }
    return guess;
}

/* 1 / (1 + exp(−x)) of three integer bits; the result has none. */
static int16_t logistic(int16_t x)
{
    const int32_t positive = shifted(reciprocal(exp_of_negative(x > 0 ? -x : x, 3)), 1);
    return (int16_t)(x == 0 ? 1 << 14 : x > 0 ? positive : ONE - positive);
}

/* tanh(x) of `bits` integer bits; the result has none. */
static int16_t hyperbolic_tangent(int16_t x, int bits)
{
    const int32_t power = exp_of_negative(x > 0 ? -x : x, bits + 1);
    const int32_t magnitude = shifted(reciprocal(power) - (1 << 13), 2);
    return (int16_t)(x == 0 ? 0 : x > 0 ? magnitude : -magnitude);
}

/* A gate's sum; the recurrent side is added before it saturates. */
static int16_t gate(const emb_lstm_t *p, const emb_lstm_gate_t *g, const int8_t *in, const int8_t *hidden, size_t i)
{
    const size_t inputs = p->each.inputs;
    const size_t count = p->each.cells;
    const int32_t x = emb_dot_s8(g->input_weights + i * inputs, in, inputs, g->input_bias[i]);
    const int32_t h = emb_dot_s8(g->recurrent_weights + i * count, hidden, count, g->recurrent_bias[i]);
    const int16_t scaled_x = emb_saturate16(emb_scale_twice(x, g->input_multiplier, g->input_shift));
    return emb_saturate16(emb_scale_twice(h, g->recurrent_multiplier, g->recurrent_shift) + scaled_x);
}

/* One time step: the output gates wait in `output` until all cells have seen the old hidden values. */
static void step(const emb_lstm_t *p, const int8_t *in, int16_t *cells, int8_t *hidden, int16_t *output)
{
    const emb_lstm_cells_t *each = &p->each;
    for (size_t i = 0; i < each->cells; ++i) {
        const int32_t forget = logistic(gate(p, &p->forget, in, hidden, i));
        const int32_t input = logistic(gate(p, &p->input, in, hidden, i));
        const int32_t cell = hyperbolic_tangent(gate(p, &p->cell, in, hidden, i), 3);
        const int32_t kept = emb_divide_by_power(forget * cells[i], 15);
        const int32_t added = (int16_t)emb_divide_by_power(input * cell, -each->cell_shift);
        output[i] = logistic(gate(p, &p->output, in, hidden, i));
        cells[i] = emb_saturate16(kept + added);
        if (each->cell_clip > 0) {
            cells[i] = (int16_t)emb_clamp(cells[i], -each->cell_clip, each->cell_clip);
        }
    }
    for (size_t i = 0; i < each->cells; ++i) {
        const int32_t active = hyperbolic_tangent(cells[i], each->cell_bits) * output[i];
        const int32_t scaled = emb_scale_twice(active, each->hidden_multiplier, each->hidden_shift);
        hidden[i] = (int8_t)emb_clamp(scaled + each->hidden_zero, INT8_MIN, INT8_MAX);
    }
}

void emb_lstm_litert_s8(const emb_lstm_t *p, const int8_t *in, int8_t *out, void *state, void *scratch)
{
    const emb_lstm_cells_t *each = &p->each;
    int16_t *cells = (int16_t *)state;
    int8_t *hidden = (int8_t *)(cells + (size_t)each->batches * each->cells);
    for (size_t batch = 0; batch < each->batches; ++batch) {
        for (size_t time = 0; time < each->steps; ++time) {
            step(p, in + (batch * each->in_batch + time * each->in_step), cells, hidden, (int16_t *)scratch);
            memcpy(out + (batch * each->out_batch + time * each->out_step), hidden, each->cells);
        }
        cells += each->cells;
        hidden += each->cells;
    }
}

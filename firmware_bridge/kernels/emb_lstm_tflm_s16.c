#include "emb_dot.h"
#include "emb_lstm_tflm_cells.h"

/* Weights times values, scaled to steps of a gate's sum, saturated. */
static int16_t side(const int8_t *weights, const int16_t *values, size_t count, int64_t sum, int32_t multiplier,
                    int right)
{
    const int64_t products = emb_dot_s16(values, weights, count, sum);
    const int64_t scaled = (products * multiplier + ((int64_t)1 << (right - 1))) >> right;
    return (int16_t)(scaled < INT16_MIN ? INT16_MIN : scaled > INT16_MAX ? INT16_MAX : scaled);
}

static void gate(const emb_lstm16_t *p, const emb_lstm_gate16_t *g, const int16_t *in, const int16_t *hidden,
                 int16_t *sums)
{
    const size_t inputs = p->each.inputs;
    const size_t n = p->each.cells;
    for (size_t i = 0; i < n; ++i) {
        const int16_t x =
            side(g->input_weights + i * inputs, in, inputs, g->input_bias[i], g->input_multiplier, g->input_right);
        const int16_t h =
            side(g->recurrent_weights + i * n, hidden, n, 0, g->recurrent_multiplier, g->recurrent_right);
        sums[i] = emb_saturate16(x + h);
    }
}

static void step(const emb_lstm16_t *p, const int16_t *in, int16_t *cells, int16_t *hidden, int16_t *gates)
{
    const emb_lstm_cells_t *each = &p->each;
    const size_t n = each->cells;
    gate(p, &p->forget, in, hidden, gates);
    gate(p, &p->input, in, hidden, gates + n);
    gate(p, &p->cell, in, hidden, gates + 2 * n);
    gate(p, &p->output, in, hidden, gates + 3 * n);
    emb_lstm_tflm_cells(each, gates, cells);
    for (size_t i = 0; i < n; ++i) {
        const int32_t active = gates[2 * n + i] * gates[3 * n + i];
        hidden[i] = emb_saturate16(emb_scale_twice(active, each->hidden_multiplier, each->hidden_shift));
    }
}

void emb_lstm_tflm_s16(const emb_lstm16_t *p, const int16_t *in, int16_t *out, void *state, void *scratch)
{
    const emb_lstm_cells_t *each = &p->each;
    int16_t *cells = (int16_t *)state;
    int16_t *hidden = cells + (size_t)each->batches * each->cells;
    for (size_t batch = 0; batch < each->batches; ++batch) {
        for (size_t time = 0; time < each->steps; ++time) {
            step(p, in + (batch * each->in_batch + time * each->in_step), cells, hidden, (int16_t *)scratch);
            memcpy(out + (batch * each->out_batch + time * each->out_step), hidden, 2u * each->cells);
        }
        cells += each->cells;
        hidden += each->cells;
    }
}

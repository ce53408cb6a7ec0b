#include "emb_dot.h"
#include "emb_lstm_tflm_cells.h"

/* A gate's sums: both sides saturate by themselves, then their sum does. */
static void gate(const emb_lstm_t *p, const emb_lstm_gate_t *g, const int8_t *in, const int8_t *hidden, int16_t *sums)
{
    const size_t inputs = p->each.inputs;
    const size_t count = p->each.cells;
    for (size_t i = 0; i < count; ++i) {
        const int32_t x = emb_dot_s8(g->input_weights + i * inputs, in, inputs, g->input_bias[i]);
        const int32_t h = emb_dot_s8(g->recurrent_weights + i * count, hidden, count, g->recurrent_bias[i]);
        const int16_t scaled_x = emb_saturate16(emb_scale_twice(x, g->input_multiplier, g->input_shift));
        const int16_t scaled_h = emb_saturate16(emb_scale_twice(h, g->recurrent_multiplier, g->recurrent_shift));
        sums[i] = emb_saturate16(scaled_x + scaled_h);
    }
}

static void step(const emb_lstm_t *p, const int8_t *in, int16_t *cells, int8_t *hidden, int16_t *gates)
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
        const int32_t scaled = emb_scale_twice(active, each->hidden_multiplier, each->hidden_shift);
        hidden[i] = (int8_t)emb_clamp(scaled + each->hidden_zero, INT8_MIN, INT8_MAX);
    }
}

void emb_lstm_tflm_s8(const emb_lstm_t *p, const int8_t *in, int8_t *out, void *state, void *scratch)
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

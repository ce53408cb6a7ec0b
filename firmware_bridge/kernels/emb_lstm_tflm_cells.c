#include "emb_lstm_tflm_cells.h"

void emb_lstm_tflm_cells(const emb_lstm_cells_t *p, int16_t *gates, int16_t *cells)
{
    const size_t n = p->cells;
    int16_t *const forget = gates;
    int16_t *const input = gates + n;
    int16_t *const cell = gates + 2 * n;
    int16_t *const output = gates + 3 * n;
    emb_logistic_s16(&p->gates, forget, forget);
    emb_logistic_s16(&p->gates, input, input);
    emb_tanh_s16(&p->gates, cell, cell);
    emb_logistic_s16(&p->gates, output, output);
    for (size_t i = 0; i < n; ++i) {
        const int32_t kept = emb_saturate16(emb_scale_twice(forget[i] * cells[i], 1 << 30, -14));
        const int32_t added = emb_saturate16(emb_scale_twice(input[i] * cell[i], p->cell_multiplier, p->cell_shift));
        cells[i] = emb_saturate16(kept + added);
        if (p->cell_clip > 0) {
            cells[i] = (int16_t)emb_clamp(cells[i], -p->cell_clip, p->cell_clip);
        }
    }
    emb_tanh_s16(&p->tanh, cells, cell);
}

#include "emb_lstm.h"

void emb_lstm_reset(const emb_lstm_t *p, void *state)
{
    const size_t count = (size_t)p->each.batches * p->each.cells;
    memset(state, 0, 2 * count);
    memset((int16_t *)state + count, p->each.hidden_zero, count);
}

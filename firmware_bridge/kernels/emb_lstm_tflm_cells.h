/* What TFLM's LSTM does alike for activations of 8 and of 16 bits. */
#ifndef EMB_LSTM_TFLM_CELLS_H
#define EMB_LSTM_TFLM_CELLS_H

#include "emb_lstm.h"

/* Activation functions of the four gates' sums, [4][cells] in the order forget, input, cell, output, and the new
 * cell state; leaves the tanh of it in the third. */
void emb_lstm_tflm_cells(const emb_lstm_cells_t *p, int16_t *gates, int16_t *cells);

#endif

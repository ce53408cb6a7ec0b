/* UNIDIRECTIONAL_SEQUENCE_LSTM with cells of int16, as a Keras layer has it: tanh, no peepholes, no projection.
 *
 * The two runtimes that it can follow differ in how the activation functions are computed and where products are
 * rounded, hence one function for each. The state lives from one inference to the next: int16 cells
 * [batches][cells], then the last outputs [batches][cells].
 */
#ifndef EMB_LSTM_H
#define EMB_LSTM_H

#include "emb_unary.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How much there is of everything, and how the cells are computed. */
typedef struct {
    uint16_t batches, steps, inputs, cells;
    uint32_t in_batch, in_step, out_batch, out_step; /* elements from one batch or step to the next */
    int32_t cell_multiplier;   /* input gate × cell gate to steps of the cell state */
    int32_t hidden_multiplier; /* output gate × tanh of the cell to steps of the output */
    int8_t cell_shift, hidden_shift;
    int16_t hidden_zero;
    int16_t cell_clip;         /* 0 where the cell state is not clipped */
    uint8_t cell_bits;         /* bits of the cell state before the point, 0 … 4 */
    emb_sigmoid_t gates, tanh; /* TFLM's activation functions, of the gates and of the cell state */
} emb_lstm_cells_t;

/* What a gate adds up, in steps of 2^−12, before its activation function. */
typedef struct {
    const int8_t *input_weights;     /* [cells][inputs] */
    const int8_t *recurrent_weights; /* [cells][cells] */
    const int32_t *input_bias;       /* the zero points are in the biases */
    const int32_t *recurrent_bias;
    int32_t input_multiplier, recurrent_multiplier;
    int8_t input_shift, recurrent_shift;
} emb_lstm_gate_t;

typedef struct {
    emb_lstm_gate_t input, forget, cell, output;
    emb_lstm_cells_t each;
} emb_lstm_t;

/* The state before the first inference: cells of 0, outputs of real 0. */
void emb_lstm_reset(const emb_lstm_t *p, void *state);

/* Scratch: 8 bytes for each cell, aligned to two. */
void emb_lstm_litert_s8(const emb_lstm_t *p, const int8_t *in, int8_t *out, void *state, void *scratch);
void emb_lstm_tflm_s8(const emb_lstm_t *p, const int8_t *in, int8_t *out, void *state, void *scratch);

/* The same for activations of 16 bits, as TFLM has it: sums of 64 bits, scaled by multipliers of 15 bits. */
typedef struct {
    const int8_t *input_weights;
    const int8_t *recurrent_weights;
    const int64_t *input_bias;
    int32_t input_multiplier, recurrent_multiplier;
    uint8_t input_right, recurrent_right; /* rounding shifts */
} emb_lstm_gate16_t;

typedef struct {
    emb_lstm_gate16_t input, forget, cell, output;
    emb_lstm_cells_t each;
} emb_lstm16_t;

/* The state begins with zeros. Scratch: 8 bytes for each cell, aligned to two. */
void emb_lstm_tflm_s16(const emb_lstm16_t *p, const int16_t *in, int16_t *out, void *state, void *scratch);

EMB_INLINE int16_t emb_saturate16(int32_t value)
{
    return (int16_t)emb_clamp(value, INT16_MIN, INT16_MAX);
}

#ifdef __cplusplus
}
#endif

#endif

/* BATCH_MATMUL: matrix products whose operands are both computed at run time, or one of which is a constant.
 *
 * Steps along every axis make transposed operands, broadcast batches and a constant left operand (which changes
 * sides) the same loop.
 */
#ifndef EMB_BATCH_MATMUL_H
#define EMB_BATCH_MATMUL_H

#include "emb_factor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EMB_MATMUL_BATCHES 3

/* out[row][column] = Σ over depth of left[row][k] × right[k][column]; steps in elements. */
typedef struct {
    uint32_t batches[EMB_MATMUL_BATCHES];
    uint32_t left_batch[EMB_MATMUL_BATCHES], right_batch[EMB_MATMUL_BATCHES]; /* 0 where the batch is broadcast */
    uint32_t out_batch[EMB_MATMUL_BATCHES];
    uint32_t rows, columns, depth;
    uint32_t left_row, left_depth;
    uint32_t right_column, right_depth;
    uint32_t out_row, out_column;
    emb_factor_t factor; /* sums to steps of the output */
    int16_t left_zero, right_zero, out_zero;
} emb_matmul_t;

/* Scratch: four bytes for each row, then `depth` bytes; aligned to four. Fastest where left_depth is 1. */
void emb_batch_matmul_s8(const emb_matmul_t *p, const int8_t *left, const int8_t *right, int8_t *out, void *scratch);
/* 16 bits: all zero points are 0, sums have 64 bits, the multiplier has 15 and `right` rounds once, halves up. */
void emb_batch_matmul_s16(const emb_matmul_t *p, const int16_t *left, const int16_t *right, int16_t *out);

/* The same with a constant to the right. */
typedef struct {
    emb_matmul_t product;
    const int8_t *right;
} emb_matmul_table_t;

void emb_batch_matmul_table_s8(const emb_matmul_table_t *p, const int8_t *left, int8_t *out, void *scratch);

typedef struct {
    emb_matmul_t product;
    const int16_t *right;
} emb_matmul_table16_t;

void emb_batch_matmul_table_s16(const emb_matmul_table16_t *p, const int16_t *left, int16_t *out);

#ifdef __cplusplus
}
#endif

#endif

#include "emb_batch_matmul.h"
#include "emb_dot.h"

/* What the zero point of the right side adds to each row: −right_zero × Σ left. */
static void sum_rows(const emb_matmul_t *p, const int8_t *left, int32_t *terms)
{
    for (size_t row = 0; row < p->rows; ++row) {
        const int8_t *l = left + row * p->left_row;
        int32_t sum = 0;
        for (uint32_t k = 0; k < p->depth; ++k, l += p->left_depth) {
            sum += *l;
        }
        terms[row] = -p->right_zero * sum;
    }
}

/* Copies a column so that it lies together; what the zero point of the left side adds to it:
 * left_zero × (depth × right_zero − Σ right). */
static int32_t pack(const emb_matmul_t *p, const int8_t *right, int8_t *column)
{
    int32_t sum = 0;
    for (uint32_t k = 0; k < p->depth; ++k, right += p->right_depth) {
        column[k] = *right;
        sum += *right;
    }
    return p->left_zero * ((int32_t)p->depth * p->right_zero - sum);
}

static int32_t dot(const emb_matmul_t *p, const int8_t *left, const int8_t *column, int32_t sum)
{
    if (p->left_depth == 1) {
        return emb_dot_s8(left, column, p->depth, sum);
    }
    for (uint32_t k = 0; k < p->depth; ++k, left += p->left_depth) {
        sum += *left * column[k];
    }
    return sum;
}

/* One matrix product, column by column. */
static void product(const emb_matmul_t *p, const int8_t *left, const int8_t *right, int8_t *out, void *scratch)
{
    int32_t *const row_terms = (int32_t *)scratch;
    int8_t *const column = (int8_t *)(row_terms + p->rows);
    sum_rows(p, left, row_terms);
    for (size_t x = 0; x < p->columns; ++x) {
        const int32_t column_term = pack(p, right + x * p->right_column, column);
        for (size_t y = 0; y < p->rows; ++y) {
            const int32_t sum = dot(p, left + y * p->left_row, column, row_terms[y] + column_term);
            out[y * p->out_row + x * p->out_column] = emb_saturate8(emb_times(sum, &p->factor) + p->out_zero);
        }
    }
}

void emb_batch_matmul_s8(const emb_matmul_t *p, const int8_t *left, const int8_t *right, int8_t *out, void *scratch)
{
    for (size_t a = 0; a < p->batches[0]; ++a) {
        for (size_t b = 0; b < p->batches[1]; ++b) {
            for (size_t c = 0; c < p->batches[2]; ++c) {
                product(p, left + (a * p->left_batch[0] + b * p->left_batch[1] + c * p->left_batch[2]),
                        right + (a * p->right_batch[0] + b * p->right_batch[1] + c * p->right_batch[2]),
                        out + (a * p->out_batch[0] + b * p->out_batch[1] + c * p->out_batch[2]), scratch);
            }
        }
    }
}

void emb_batch_matmul_table_s8(const emb_matmul_table_t *p, const int8_t *left, int8_t *out, void *scratch)
{
    emb_batch_matmul_s8(&p->product, left, p->right, out, scratch);
}

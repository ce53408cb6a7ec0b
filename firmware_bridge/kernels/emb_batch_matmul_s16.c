#include "emb_batch_matmul.h"

/* One matrix product. */
static void product(const emb_matmul_t *p, const int16_t *left, const int16_t *right, int16_t *out)
{
    const int right_shift = p->factor.right;
    const int64_t half = (int64_t)1 << (right_shift - 1);
    for (size_t row = 0; row < p->rows; ++row) {
        for (size_t column = 0; column < p->columns; ++column) {
            const int16_t *l = left + row * p->left_row;
            const int16_t *r = right + column * p->right_column;
            int64_t sum = 0;
            for (uint32_t k = 0; k < p->depth; ++k) {
                sum += (int32_t)*l * *r;
                l += p->left_depth;
                r += p->right_depth;
            }
            const int64_t scaled = (sum * p->factor.multiplier + half) >> right_shift;
            out[row * p->out_row + column * p->out_column] =
                (int16_t)(scaled < INT16_MIN ? INT16_MIN : scaled > INT16_MAX ? INT16_MAX : scaled);
        }
    }
}

void emb_batch_matmul_s16(const emb_matmul_t *p, const int16_t *left, const int16_t *right, int16_t *out)
{
    for (size_t a = 0; a < p->batches[0]; ++a) {
        for (size_t b = 0; b < p->batches[1]; ++b) {
            for (size_t c = 0; c < p->batches[2]; ++c) {
                product(p, left + (a * p->left_batch[0] + b * p->left_batch[1] + c * p->left_batch[2]),
                        right + (a * p->right_batch[0] + b * p->right_batch[1] + c * p->right_batch[2]),
                        out + (a * p->out_batch[0] + b * p->out_batch[1] + c * p->out_batch[2]));
            }
        }
    }
}

void emb_batch_matmul_table_s16(const emb_matmul_table16_t *p, const int16_t *left, int16_t *out)
{
    emb_batch_matmul_s16(&p->product, left, p->right, out);
}

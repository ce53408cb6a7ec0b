#include "emb_batch_matmul.h"

/* What the zero points add to each column: left_zero × (depth × right_zero − Σ right). */
static void column_terms(const emb_matmul_t *p, const int8_t *right, int32_t *terms)
{
    for (size_t column = 0; column < p->columns; ++column) {
        const int8_t *r = right + column * p->right_column;
        int32_t sum = 0;
        for (uint32_t k = 0; k < p->depth; ++k, r += p->right_depth) {
            sum += *r;
        }
        terms[column] = p->left_zero * ((int32_t)p->depth * p->right_zero - sum);
    }
}

/* What they add to a row: −right_zero × Σ left. */
static int32_t row_term(const emb_matmul_t *p, const int8_t *l)
{
    int32_t sum = 0;
    for (uint32_t k = 0; k < p->depth; ++k, l += p->left_depth) {
        sum += *l;
    }
    return -p->right_zero * sum;
}

/* Four products at once, so that each value is loaded for two of them. */
static void square(const emb_matmul_t *p, const int8_t *const l[2], const int8_t *const r[2], int32_t sums[4])
{
    const size_t left = p->left_depth;
    const size_t right = p->right_depth;
    const int8_t *l0 = l[0];
    const int8_t *l1 = l[1];
    const int8_t *r0 = r[0];
    const int8_t *r1 = r[1];
    int32_t s00 = 0;
    int32_t s01 = 0;
    int32_t s10 = 0;
    int32_t s11 = 0;
    for (uint32_t k = 0; k < p->depth; ++k) {
        s00 += *l0 * *r0;
        s01 += *l0 * *r1;
        s10 += *l1 * *r0;
        s11 += *l1 * *r1;
        l0 += left;
        l1 += left;
        r0 += right;
        r1 += right;
    }
    sums[0] = s00;
    sums[1] = s01;
    sums[2] = s10;
    sums[3] = s11;
}

/* One matrix product. A last odd row or column is computed twice and written once. */
static void product(const emb_matmul_t *p, const int8_t *left, const int8_t *right, int8_t *out, int32_t *terms)
{
    column_terms(p, right, terms);
    for (uint32_t row = 0; row < p->rows; row += 2) {
        const uint32_t height = p->rows - row > 1 ? 2 : 1;
        const int8_t *const first = left + (size_t)row * p->left_row;
        const int8_t *const l[2] = {first, first + (height - 1) * (size_t)p->left_row};
        const int32_t row_terms[2] = {row_term(p, l[0]), row_term(p, l[1])};
        for (uint32_t column = 0; column < p->columns; column += 2) {
            const uint32_t width = p->columns - column > 1 ? 2 : 1;
            const int8_t *const begin = right + (size_t)column * p->right_column;
            const int8_t *const r[2] = {begin, begin + (width - 1) * (size_t)p->right_column};
            int32_t sums[4];
            square(p, l, r, sums);
            for (uint32_t y = 0; y < height; ++y) {
                for (uint32_t x = 0; x < width; ++x) {
                    const int32_t sum = sums[2 * y + x] + row_terms[y] + terms[column + x];
                    const int32_t scaled = emb_scale_twice(sum, p->multiplier, p->shift) + p->out_zero;
                    out[(size_t)(row + y) * p->out_row + (size_t)(column + x) * p->out_column] =
                        (int8_t)emb_clamp(scaled, INT8_MIN, INT8_MAX);
                }
            }
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
                        out + (a * p->out_batch[0] + b * p->out_batch[1] + c * p->out_batch[2]), (int32_t *)scratch);
            }
        }
    }
}

void emb_batch_matmul_table_s8(const emb_matmul_table_t *p, const int8_t *left, int8_t *out, void *scratch)
{
    emb_batch_matmul_s8(&p->product, left, p->right, out, scratch);
}

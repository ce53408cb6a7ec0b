#include "emb_elementwise.h"

void emb_squared_difference_s8(const emb_squared_difference_t *p, const int8_t *first, const int8_t *second, int8_t *out)
{
    const emb_squared_difference_t by = *p; /* a copy that no store to `out` can change */
    uint16_t at[3] = {0, 0, 0};
    size_t a = 0;
    size_t b = 0;
    do {
        const int8_t *x = first + a;
        const int8_t *y = second + b;
        for (size_t i = 0; i < by.over.row; ++i) {
            /* Half of 7 bits: the first operand has half of twice its own scale. */
            const int32_t difference = (*x - by.first_zero) * 64 - emb_times(*y - by.second_zero, &by.second);
            const int32_t scaled = emb_scale_twice(difference * difference, by.multiplier, by.shift);
            out[i] = emb_saturate8(scaled + by.zero);
            x += by.over.first_step;
            y += by.over.second_step;
        }
        out += by.over.row;
    } while (emb_next_row(&by.over, at, &a, &b));
}

void emb_squared_difference_constant_s8(const emb_squared_difference_t *p, const int8_t *in, int8_t *out)
{
    const int8_t *constant = (const int8_t *)p->over.constant;
    emb_squared_difference_s8(p, p->over.constant_first ? constant : in, p->over.constant_first ? in : constant, out);
}

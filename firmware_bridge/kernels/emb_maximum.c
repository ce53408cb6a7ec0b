#include "emb_elementwise.h"

/* The larger of both; with `sign` −1 the smaller. */
EMB_INLINE void pick_s8(const emb_operands_t *p, const int8_t *first, const int8_t *second, int8_t *out, int sign)
{
    const emb_operands_t over = *p; /* a copy that no store to `out` can change */
    uint16_t at[3] = {0, 0, 0};
    size_t a = 0;
    size_t b = 0;
    do {
        const int8_t *x = first + a;
        const int8_t *y = second + b;
        for (size_t i = 0; i < over.row; ++i) {
            out[i] = sign * *x > sign * *y ? *x : *y;
            x += over.first_step;
            y += over.second_step;
        }
        out += over.row;
    } while (emb_next_row(&over, at, &a, &b));
}

EMB_INLINE void pick_s16(const emb_operands_t *p, const int16_t *first, const int16_t *second, int16_t *out, int sign)
{
    const emb_operands_t over = *p;
    uint16_t at[3] = {0, 0, 0};
    size_t a = 0;
    size_t b = 0;
    do {
        const int16_t *x = first + a;
        const int16_t *y = second + b;
        for (size_t i = 0; i < over.row; ++i) {
            out[i] = sign * *x > sign * *y ? *x : *y;
            x += over.first_step;
            y += over.second_step;
        }
        out += over.row;
    } while (emb_next_row(&over, at, &a, &b));
}

void emb_maximum_s8(const emb_operands_t *p, const int8_t *first, const int8_t *second, int8_t *out)
{
    pick_s8(p, first, second, out, 1);
}

void emb_minimum_s8(const emb_operands_t *p, const int8_t *first, const int8_t *second, int8_t *out)
{
    pick_s8(p, first, second, out, -1);
}

void emb_maximum_s16(const emb_operands_t *p, const int16_t *first, const int16_t *second, int16_t *out)
{
    pick_s16(p, first, second, out, 1);
}

void emb_minimum_s16(const emb_operands_t *p, const int16_t *first, const int16_t *second, int16_t *out)
{
    pick_s16(p, first, second, out, -1);
}

/* The order does not matter here. */
void emb_maximum_constant_s8(const emb_operands_t *p, const int8_t *in, int8_t *out)
{
    emb_maximum_s8(p, in, (const int8_t *)p->constant, out);
}

void emb_minimum_constant_s8(const emb_operands_t *p, const int8_t *in, int8_t *out)
{
    emb_minimum_s8(p, in, (const int8_t *)p->constant, out);
}

void emb_maximum_constant_s16(const emb_operands_t *p, const int16_t *in, int16_t *out)
{
    emb_maximum_s16(p, in, (const int16_t *)p->constant, out);
}

void emb_minimum_constant_s16(const emb_operands_t *p, const int16_t *in, int16_t *out)
{
    emb_minimum_s16(p, in, (const int16_t *)p->constant, out);
}

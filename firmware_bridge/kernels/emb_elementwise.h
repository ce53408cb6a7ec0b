/* Operations on pairs of elements: ADD, SUB, MUL, SQUARED_DIFFERENCE, MAXIMUM, MINIMUM, PRELU.
 *
 * The output may take the memory of an operand of its own shape. An operand of another shape is broadcast: the generator
 * merges axes until each row of the output meets one element or a row of each operand.
 */
#ifndef EMB_ELEMENTWISE_H
#define EMB_ELEMENTWISE_H

#include "emb_factor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which elements meet. */
typedef struct {
    uint32_t row;                            /* elements of a row of the output */
    uint16_t rows[3];                        /* rows along three axes, the slowest first; 1 where there is no such axis */
    uint32_t first_rows[3], second_rows[3];  /* elements from one row to the next along each axis, 0 where broadcast */
    uint8_t first_step, second_step;         /* elements from one to the next in a row: 1, or 0 where broadcast */
    uint8_t constant_first;                  /* for the kernels *_constant: which operand the model stores */
    const void *constant;                    /* its values, NULL where both are activations */
} emb_operands_t;

/* The next row: adds to the offsets of both operands; 0 after the last one. `at` starts as zeros. */
EMB_INLINE int emb_next_row(const emb_operands_t *over, uint16_t *at, size_t *first, size_t *second)
{
    for (int axis = 2; axis >= 0; --axis) {
        if (++at[axis] < over->rows[axis]) {
            *first += over->first_rows[axis];
            *second += over->second_rows[axis];
            return 1;
        }
        *first -= (size_t)(over->rows[axis] - 1u) * over->first_rows[axis];
        *second -= (size_t)(over->rows[axis] - 1u) * over->second_rows[axis];
        at[axis] = 0;
    }
    return 0;
}

/* Clamps a row to an activation function that is narrower than int8: rare, since ReLU has its zero point at −128. */
EMB_INLINE void emb_narrow_row(int8_t *out, size_t count, int8_t least, int8_t most)
{
    if (least > INT8_MIN || most < INT8_MAX) {
        for (size_t i = 0; i < count; ++i) {
            out[i] = (int8_t)emb_clamp(out[i], least, most);
        }
    }
}

/* ADD and SUB: signs × (first and second, each minus its zero point). The references bring both to twice the larger scale, with
 * 20 bits below the point. For the operand of the larger scale that is a shift: it comes first. For the other it is, before a
 * shift of 20, the factor second_multiplier × 2^(−31 − second_right); equal scales are the multiplier 2^31 − 1 and the shift 1,
 * which gives exactly the half. The sum is multiplied by out_multiplier × 2^(−31 − out_right). */
typedef struct {
    emb_operands_t over;
    int32_t second_multiplier, out_multiplier;
    uint8_t second_right, out_right; /* 1 … 31 */
    int8_t first_sign, second_sign;  /* emb_sub_* alone */
    int8_t first_zero, second_zero, zero, min, max;
} emb_add_t;

void emb_add_s8(const emb_add_t *p, const int8_t *first, const int8_t *second, int8_t *out);
void emb_add_constant_s8(const emb_add_t *p, const int8_t *in, int8_t *out);
void emb_sub_s8(const emb_add_t *p, const int8_t *first, const int8_t *second, int8_t *out);
void emb_sub_constant_s8(const emb_add_t *p, const int8_t *in, int8_t *out);

/* The same for int16, zero points 0, with 15 bits below the point. */
typedef struct {
    emb_operands_t over;
    emb_factor_t second, out;
    int8_t first_sign, second_sign;
    int16_t min, max;
} emb_add16_t;

void emb_add_s16(const emb_add16_t *p, const int16_t *first, const int16_t *second, int16_t *out);
void emb_add_constant_s16(const emb_add16_t *p, const int16_t *in, int16_t *out);

/* MUL: the product of both minus their zero points, scaled. */
typedef struct {
    emb_operands_t over;
    emb_factor_t out;
    int8_t first_zero, second_zero, zero, min, max;
} emb_mul_t;

void emb_mul_s8(const emb_mul_t *p, const int8_t *first, const int8_t *second, int8_t *out);
void emb_mul_constant_s8(const emb_mul_t *p, const int8_t *in, int8_t *out);

/* The same for int16, whose products need 31 bits, so that a shift to the left may wrap around as in the references. */
typedef struct {
    emb_operands_t over;
    int32_t multiplier;
    int8_t shift; /* positive to the left */
    int16_t min, max;
} emb_mul16_t;

void emb_mul_s16(const emb_mul16_t *p, const int16_t *first, const int16_t *second, int16_t *out);
void emb_mul_constant_s16(const emb_mul16_t *p, const int16_t *in, int16_t *out);

/* SQUARED_DIFFERENCE: both at twice the larger scale with 7 bits below the point; the operand of the larger scale comes first. */
typedef struct {
    emb_operands_t over;
    emb_factor_t second;
    int32_t multiplier; /* of the square */
    int8_t shift;
    int8_t first_zero, second_zero, zero;
} emb_squared_difference_t;

void emb_squared_difference_s8(const emb_squared_difference_t *p, const int8_t *first, const int8_t *second, int8_t *out);
void emb_squared_difference_constant_s8(const emb_squared_difference_t *p, const int8_t *in, int8_t *out);

/* MAXIMUM and MINIMUM: all of one scale. */
void emb_maximum_s8(const emb_operands_t *p, const int8_t *first, const int8_t *second, int8_t *out);
void emb_maximum_constant_s8(const emb_operands_t *p, const int8_t *in, int8_t *out);
void emb_maximum_s16(const emb_operands_t *p, const int16_t *first, const int16_t *second, int16_t *out);
void emb_maximum_constant_s16(const emb_operands_t *p, const int16_t *in, int16_t *out);
void emb_minimum_s8(const emb_operands_t *p, const int8_t *first, const int8_t *second, int8_t *out);
void emb_minimum_constant_s8(const emb_operands_t *p, const int8_t *in, int8_t *out);
void emb_minimum_s16(const emb_operands_t *p, const int16_t *first, const int16_t *second, int16_t *out);
void emb_minimum_constant_s16(const emb_operands_t *p, const int16_t *in, int16_t *out);

/* PRELU: what is negative is multiplied by the second operand. */
typedef struct {
    emb_operands_t over;
    emb_factor_t positive, negative;
    int8_t first_zero, second_zero, zero;
} emb_prelu_t;

void emb_prelu_s8(const emb_prelu_t *p, const int8_t *first, const int8_t *second, int8_t *out);
void emb_prelu_constant_s8(const emb_prelu_t *p, const int8_t *in, int8_t *out);

#ifdef __cplusplus
}
#endif

#endif

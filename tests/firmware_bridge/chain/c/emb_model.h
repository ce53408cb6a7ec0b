/* Stands in for a generated network: each output is a sum of inputs with small weights, so that all of them matter. */
#ifndef EMB_MODEL_H
#define EMB_MODEL_H

#include <stdint.h>
#include <string.h>

#include "emb_config.h"

typedef struct {
    int8_t input[EMB_STEPS * EMB_COLUMNS];
    int8_t output[EMB_EMBEDDING];
} emb_model_t;

static inline void emb_model_init(emb_model_t *model)
{
    memset(model, 0, sizeof *model);
}

static inline int8_t *emb_model_input(emb_model_t *model)
{
    return model->input;
}

static inline void emb_model_invoke(emb_model_t *model)
{
    int32_t i, j;
    for (i = 0; i < EMB_EMBEDDING; i++) {
        int32_t sum = 0;
        for (j = 0; j < EMB_STEPS * EMB_COLUMNS; j++) {
            sum += model->input[j] * ((7 * j + 13 * i) % 11 - 5);
        }
        sum = (sum / 8) % 256;
        model->output[i] = (int8_t)(sum > 127 ? sum - 256 : sum < -128 ? sum + 256 : sum);
    }
}

static inline const int8_t *emb_model_output(const emb_model_t *model)
{
    return model->output;
}

#endif

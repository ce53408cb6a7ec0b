/* What the tests call: a run over many samples in one call, and the sizes of what they allocate. */
#include <stddef.h>

#include "emb_internal.h"

size_t harness_size(void);
size_t harness_run(emb_t *emb, const emb_sample_t *samples, const uint32_t *chunks, size_t count, int8_t *inputs,
                   int8_t *outputs, emb_decision_t *decisions, float *columns);

size_t harness_size(void)
{
    return sizeof(emb_t);
}

/* Push chunk after chunk, each time polling until nothing comes; returns the number of decisions. */
size_t harness_run(emb_t *emb, const emb_sample_t *samples, const uint32_t *chunks, size_t count, int8_t *inputs,
                   int8_t *outputs, emb_decision_t *decisions, float *columns)
{
    size_t chunk, found = 0;
    for (chunk = 0; chunk < count; chunk++) {
        if (emb_push(emb, samples, chunks[chunk]) != chunks[chunk]) {
            return (size_t)-1;
        }
        samples += chunks[chunk] * EMB_FRAME_CHANNELS;
        while (emb_poll(emb, decisions + found)) {
            memcpy(inputs + found * sizeof emb->model.input, emb->model.input, sizeof emb->model.input);
            memcpy(outputs + found * sizeof emb->model.output, emb->model.output, sizeof emb->model.output);
#if EMB_FEATURES
            memcpy(columns + found * EMB_FEATURES, emb->features.columns, sizeof emb->features.columns);
#else
            (void)columns;
#endif
            found++;
        }
    }
    return found;
}

/* The chain, the network and the head on samples of which the Python chain has said what comes of them. */
#include "emb_golden.h"
#include "emb_internal.h"

/* Scores are float32 here and were float64 there. */
#define EMB_SCORE_TOLERANCE 1e-5f

static int emb_close(const float *scores, const float *expected)
{
    float largest = 1.0f, distance = 0.0f;
    uint32_t i;
    for (i = 0; i < EMB_SCORES; i++) {
        largest = emb_most(largest, emb_abs(expected[i]));
        distance = emb_most(distance, emb_abs(scores[i] - expected[i]));
    }
    return distance <= EMB_SCORE_TOLERANCE * largest;
}

/* What is wrong with window number `window`, of which the network's input is ready. */
static int emb_check(emb_t *emb, uint32_t window)
{
    emb_decision_t decision;
    const int8_t *rows = emb_golden_rows[window * EMB_GOLDEN_ADVANCE];
    if (memcmp(emb_model_input(&emb->model), rows, EMB_STEPS * EMB_COLUMNS) != 0) {
        return EMB_SELFTEST_INPUT;
    }
    emb_model_invoke(&emb->model);
    if (memcmp(emb_model_output(&emb->model), emb_golden_outputs[window], EMB_EMBEDDING) != 0) {
        return EMB_SELFTEST_OUTPUT;
    }
    emb_decide(emb_model_output(&emb->model), &decision);
    if (decision.index != emb_golden_indices[window] || !emb_close(decision.scores, emb_golden_scores[window])) {
        return EMB_SELFTEST_DECISION;
    }
    return EMB_SELFTEST_PASSED;
}

int emb_selftest(emb_t *emb)
{
    uint32_t frame = 0, window = 0;
    int wrong = EMB_SELFTEST_PASSED;
    emb_init(emb);
    while (frame < EMB_GOLDEN_FRAMES && wrong == EMB_SELFTEST_PASSED) {
        /* The ring is empty here; what does not fit would be lost. */
        const uint32_t left = EMB_GOLDEN_FRAMES - frame;
        frame += (uint32_t)emb_push(emb, emb_golden_samples[frame], left < EMB_RING ? left : EMB_RING);
        while (wrong == EMB_SELFTEST_PASSED && emb_next_input(emb)) {
            wrong = window < EMB_GOLDEN_WINDOWS ? emb_check(emb, window) : EMB_SELFTEST_COUNT;
            window++;
        }
    }
    if (wrong == EMB_SELFTEST_PASSED && window != EMB_GOLDEN_WINDOWS) {
        wrong = EMB_SELFTEST_COUNT;
    }
    emb_init(emb);
    return wrong;
}

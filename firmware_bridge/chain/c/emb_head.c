/* The head: a table of int16 rows over the int8 embedding, one for each gesture or joint. */
#include "emb_internal.h"

/*
 * score = scale * sum of row * (embedding - zero point) + bias. The sum is exact: 512 products of 15 and 7 bits fit an
 * int32, and what the zero point takes off an int64. Scale and product are pairs, so that only the last addition
 * rounds: a discriminant on a correlated embedding has large terms that cancel.
 */
static emb_pair_t emb_score(const int8_t *embedding, uint32_t which)
{
    const int16_t *row = emb_head_rows[which];
    int32_t sum = 0;
    int64_t exact;
    int32_t high;
    uint32_t i;
    emb_pair_t whole;
    for (i = 0; i < EMB_EMBEDDING; i++) {
        sum += (int32_t)row[i] * embedding[i];
    }
    exact = (int64_t)sum - (int64_t)emb_head_sums[which] * EMB_OUTPUT_ZERO_POINT;
    /* At most 33 bits: 17 and 16 are whole float32 numbers both. */
    high = (int32_t)(exact / 65536);
    whole = emb_two_sum((float)high * 65536.0f, (float)(int32_t)(exact - (int64_t)high * 65536));
    return emb_pair_plus(emb_pair_multiply(whole, emb_head_scale[which]), emb_head_bias[which]);
}

void emb_decide(const int8_t *embedding, emb_decision_t *decision)
{
    emb_pair_t best = emb_score(embedding, 0);
    uint32_t i;
    decision->scores[0] = best.hi;
    decision->index = EMB_REGRESSION ? -1 : 0;
    decision->score = best.hi;
    decision->margin = 0.0f;
    for (i = 1; i < EMB_SCORES; i++) {
        const emb_pair_t score = emb_score(embedding, i);
        const float lead = emb_pair_subtract(score, best).hi;
        decision->scores[i] = score.hi;
        if (EMB_REGRESSION) {
            continue;
        }
        if (lead > 0.0f) {
            best = score;
            decision->index = (int)i;
            decision->score = score.hi;
            decision->margin = lead;
        } else if (i == 1 || -lead < decision->margin) {
            decision->margin = -lead;
        }
    }
}

const char *emb_label(int index)
{
    return index >= 0 && index < EMB_SCORES ? emb_labels[index] : NULL;
}

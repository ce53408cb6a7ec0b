// The header is C++ too, with every warning that the C files pass.
#include "emb.h"

int main()
{
    static emb_t emb;
    emb_decision_t decision;
    emb_init(&emb);
    return emb_poll(&emb, &decision);
}

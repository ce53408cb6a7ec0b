"""The signal chain as C: from raw samples to a decision, around a network that is called through `emb_model.h`.

`emit_chain` gives the files of a self-contained C99 library: the hand-written ones that stand in `c/`, and two that it
writes, `emb_config.h` with sizes and `emb_tables.c` with coefficients, normalisation, head and labels. `emit_golden` adds
samples with what must come of them, for a self-test at boot. What the C equals, and within which bounds, says
docs/firmware-chain.md.
"""

from embridge_edge.firmware_bridge.chain.emission import Network, Quantization, RawSamples, emit_chain
from embridge_edge.firmware_bridge.chain.features import C_FEATURES
from embridge_edge.firmware_bridge.chain.golden import Golden, emit_golden, make_golden

__all__ = [
    "C_FEATURES",
    "Golden",
    "Network",
    "Quantization",
    "RawSamples",
    "emit_chain",
    "emit_golden",
    "make_golden",
]

"""A signal chain run on samples as they arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features import filters
from embridge_edge.features.chain import SignalChain


class Stream:
    """Feeds a chain sample by sample: the inputs it gives are bit for bit those of the offline pass.

    The first window is complete after `chain.window` samples, then one each `chain.hop` samples. `interrupted` tells it
    that the clock has jumped: the filters and the window start afresh.
    """

    def __init__(self, chain: SignalChain) -> None:
        self._chain = chain
        self.interrupted()

    def interrupted(self) -> None:
        """Forget everything: the next sample does not follow the last one."""
        self._state: npt.NDArray[np.float32] | None = None
        self._held = np.zeros((0, len(self._chain.channels)), np.float32)

    def push(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take float32 `[samples, recording channels]`, any number of them; give the inputs that they complete.

        Returns: float32 `[n, steps, columns]`, n may be 0.

        Raises:
            EdgeError: the samples have fewer channels than the chain wants.
        """
        chain = self._chain
        if samples.ndim != 2 or samples.shape[1] <= max(chain.channels):
            raise EdgeError(f"The chain takes {len(chain.channels)} channels, the samples are {list(samples.shape)}.")
        if len(samples):
            ordered = np.ascontiguousarray(samples[:, list(chain.channels)], np.float32)
            if self._state is None:
                self._state = filters.state_for(chain.sections, ordered[0])
            self._held = np.concatenate([self._held, filters.run(chain.sections, ordered, self._state)])
        count = max(0, (len(self._held) - chain.window) // chain.hop + 1)
        starts = np.arange(count, dtype=np.int64) * chain.hop
        inputs = chain.inputs(self._held, starts)
        self._held = self._held[count * chain.hop :]
        return inputs

"""A signal chain run on samples as they arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features import filters
from embridge_edge.features.chain import Samples, SignalChain
from embridge_edge.features.checks import as_numbers
from embridge_edge.features.sliding import FeatureStream


class Stream:
    """Feeds a chain sample by sample: the inputs it gives are bit for bit those of `SignalChain.offline`.

    The first window is complete after `chain.window` samples, then one each `chain.hop` samples. `interrupted` tells it
    that the clock has jumped: the filters and the window start afresh.

    What a hop costs grows with the hop and not with the window for features of sums, where a window is one frame or the hop a
    whole number of frames: then each frame is computed once. Where the hop is no whole number of frames, every frame of a
    window is computed anew.
    """

    def __init__(self, chain: SignalChain) -> None:
        self._chain = chain
        self._frames = _Frames(chain) if chain.features and (chain.steps == 1 or chain.hop % chain.frame == 0) else None
        self.interrupted()

    def interrupted(self) -> None:
        """Forget everything: the next sample does not follow the last one."""
        self._state: Samples | None = None
        self._held = np.zeros((0, len(self._chain.channels)), np.float32)
        if self._frames is not None:
            self._frames.interrupted()

    def push(self, samples: npt.ArrayLike) -> Samples:
        """Take `[samples, recording channels]`, any number of them; give the inputs that they complete.

        Returns: float32 `[n, steps, columns]`, n may be 0.

        Raises:
            EdgeError: the samples are no numbers, or have fewer channels than the chain wants.
        """
        chain = self._chain
        given = as_numbers("Samples", samples, "[samples, channels]")
        if given.shape[1] <= max(chain.channels):
            raise EdgeError(
                f"The chain takes {len(chain.channels)} channels, the samples are {list(given.shape)}; give all of the band's."
            )
        filtered = np.ascontiguousarray(given[:, list(chain.channels)], np.float32)
        if len(given):
            if self._state is None:
                self._state = filters.state_for(chain.sections, filtered[0])
            filtered = filters.run(chain.sections, filtered, self._state)
        if self._frames is not None:
            return chain.normalised(self._frames.push(filtered))
        self._held = np.concatenate([self._held, filtered])
        count = max(0, (len(self._held) - chain.window) // chain.hop + 1)
        starts = np.arange(count, dtype=np.int64) * chain.hop
        inputs = chain.inputs(self._held, starts)
        self._held = self._held[count * chain.hop :]
        return inputs


class _Frames:
    """The feature frames of successive windows, each computed once."""

    def __init__(self, chain: SignalChain) -> None:
        self._chain = chain
        self._hop = chain.hop if chain.steps == 1 else chain.frame
        self._stream = FeatureStream(
            chain.features, chain.rate_hz, chain.frame, self._hop, len(chain.channels), warm=False
        )
        self.interrupted()

    def interrupted(self) -> None:
        self._stream.interrupted()
        self._held = np.zeros((0, self._chain.columns), np.float32)
        self._count = 0  # samples so far
        self._windows = 0  # so far

    def push(self, samples: Samples) -> Samples:
        """Take filtered samples `[samples, channels]`; give the columns `[n, steps, columns]` of windows that are complete."""
        chain = self._chain
        found = self._stream.push(samples)
        columns = np.stack([found[name] for name in chain.features], axis=-1).reshape(-1, chain.columns)
        self._held = np.concatenate([self._held, columns])
        self._count += len(samples)
        windows = max(0, (self._count - chain.window) // chain.hop + 1)
        fresh = windows - self._windows
        self._windows = windows
        per_hop = chain.hop // self._hop
        frames = np.arange(fresh)[:, None] * per_hop + np.arange(chain.steps)
        given: Samples = self._held[frames]
        self._held = self._held[fresh * per_hop :]
        return given

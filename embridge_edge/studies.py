"""Optuna studies that several workers share: where they are kept, who trains which trial, and what becomes of a lost one.

A worker is a process that knows the study's storage and nothing of the others. Whatever decides who does what (creating the
study, taking a trial, finishing one) happens while it is alone with the study, under a lock that lies beside the storage; so
the number of trials is exact and no two workers train the same values. While it trains, a worker leaves signs of life in its
trial. Optuna's own heartbeat knows databases only, not journals, hence this one, which is the same for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.stores import StorageFailed, Store, answering
from embridge_edge.sweeping import Choices, SweepPlan

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

LOST_AFTER_BEATS = 6
"""A trial without a sign of life for so many of its beats has lost its worker."""

MOST_LOST = 3
"""A trial that lost so many workers has probably ended them itself, by its hunger for memory say, and is given up."""

MOST_FAILURES = 3
"""After so many failed trials in a row a worker stops: the next ones would fail as well."""

LONGEST_NAP_S = 5.0
"""How often a worker without work looks whether there is some."""

BEAT, RETRY_OF, SAME_AS, LOST, SCORES, ERROR = "beat", "retry_of", "same_as", "lost", "scores", "error"
"""What is known of a trial beside its values: a counting sign of life; the trial that it repeats because that one lost its
worker; the trial whose result it takes over because the values are the same; how many workers it lost; the score of each
seed so far; why it failed."""


def distributions(plan: SweepPlan, kinds: Mapping[str, type]) -> dict[str, BaseDistribution]:
    """What Optuna draws each parameter from.

    Args:
        kinds: int or float for each range of the plan.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, BaseDistribution] = {}
    for key, allowed in plan.parameters.items():
        if isinstance(allowed, Choices):
            space[key] = CategoricalDistribution([allowed.label(value) for value in allowed.values])
        elif kinds[key] is int:
            space[key] = IntDistribution(int(allowed.low), int(allowed.high), allowed.log, int(allowed.step or 1))
        else:
            space[key] = FloatDistribution(allowed.low, allowed.high, allowed.log, allowed.step)
    return space


@dataclass
class SharedStudy:
    """One worker's view of a study.

    Attributes:
        name, study, store, plan: which, and by what plan. space: what its values are drawn from.
    """

    name: str
    study: optuna.Study
    store: Store
    plan: SweepPlan
    space: Mapping[str, BaseDistribution]
    _beats: dict[int, tuple[object, float]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        store: Store,
        name: str,
        plan: SweepPlan,
        space: Mapping[str, BaseDistribution],
        belongs_to: Mapping[str, Any],
        first: Mapping[str, Any] | None,
    ) -> SharedStudy:
        """Open the study of a name, or make it.

        Args:
            belongs_to: what its trials depend on, key by key; a study of something else is refused.
            first: values that a new study begins with.

        Raises:
            EdgeError: the study belongs to something else, or the storage does not answer.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with answering(store.shown), store.alone():
            names = optuna.get_all_study_names(store.storage)
            study = optuna.create_study(
                storage=store.storage,
                sampler=_sampler(plan, 0),
                pruner=_pruner(plan),
                study_name=name,
                direction=plan.direction,
                load_if_exists=True,
            )
            known = study.user_attrs
            if name not in names or not (known or study.trials):  # new, or its maker was killed just here
                for key, value in belongs_to.items():
                    study.set_user_attr(key, value)
                known = dict(belongs_to)
            for key, value in belongs_to.items():
                if known.get(key) != value:
                    what = f"belongs to another {key}" if key in known else "was not made by sweep"
                    raise EdgeError(f"Study {name!r} in {store.shown} {what}; choose another --study or --storage.")
            if first is not None and not study.trials:
                study.enqueue_trial(dict(first))
        return cls(name, study, store, plan, space)

    def claim(self, most: int) -> optuna.Trial | None:
        """Take the next trial: one that lost its worker, or a new one while there are fewer than `most`.

        A trial whose values have a result already gets that result and is not handed out; one whose values another worker
        is training waits for it. None: there is nothing to begin at the moment.

        Raises:
            StorageFailed: the storage does not answer.
        """
        from optuna.trial import TrialState

        with self._alone():
            self._look_after_others()
            while True:
                trials = self.trials()
                begun = sum(RETRY_OF not in trial.user_attrs for trial in trials)
                if begun >= most and not any(trial.state == TrialState.WAITING for trial in trials):
                    return None
                self.study.sampler = _sampler(self.plan, begun)
                trial = self.study.ask(dict(self.space))
                twin = _twin(trial.params, self.trials(), trial.number)
                if twin is None:
                    return trial
                trial.set_user_attr(SAME_AS, twin.number)
                if twin.state.is_finished():
                    self._take_over(trial.number, twin)

    def finish(self, trial: optuna.Trial, score: float | None) -> bool:
        """Give a trial its score; None where it was pruned. Returns whether it still was this worker's.

        Raises:
            StorageFailed: the storage does not answer.
        """
        from optuna.trial import TrialState

        with self._alone():
            if not self._is_running(trial.number):
                return False
            self.study.tell(trial, score, TrialState.PRUNED if score is None else TrialState.COMPLETE)
            return True

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """End a trial whose values cannot be trained: it counts as done.

        Raises:
            StorageFailed: the storage does not answer.
        """
        from optuna.trial import TrialState

        with self._alone():
            if self._is_running(trial.number):
                trial.set_user_attr(ERROR, reason)
                self.study.tell(trial, state=TrialState.FAIL)

    def give_back(self, trial: optuna.Trial, *, lost: bool) -> None:
        """End a trial that was not finished, and leave its values to whoever comes next.

        Args:
            lost: whether it may itself be the reason, which it may be `MOST_LOST` times.

        Raises:
            StorageFailed: the storage does not answer.
        """
        with self._alone():
            if self._is_running(trial.number):
                self._begin_again(self.study.trials[trial.number], lost=lost)

    @contextlib.contextmanager
    def beating(self, trial: optuna.Trial) -> Iterator[None]:
        """Leave signs of life in a trial while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(trial, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def trials(self) -> list[FrozenTrial]:
        """All trials as they are now, in order."""
        return self.study.get_trials(deepcopy=False)

    def others_at_work(self) -> int:
        """How many trials other workers are training or have yet to."""
        with answering(self.store.shown):
            return sum(not trial.state.is_finished() for trial in self.trials())

    def importances(self) -> dict[str, float]:
        """Share of each parameter in what makes the best trials (PED-ANOVA, Watanabe 2023); empty where too few trials say."""
        import warnings

        from optuna.importance import get_param_importances
        from optuna.trial import TrialState

        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        if len({trial.value for trial in done}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {name: float(share) for name, share in get_param_importances(self.study).items()}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with answering(self.store.shown), self.store.alone():
            yield

    def _is_running(self, number: int) -> bool:
        from optuna.trial import TrialState

        return self.trials()[number].state == TrialState.RUNNING

    def _beat(self, trial: optuna.Trial, stop: threading.Event) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        beats = 0
        while True:
            try:
                trial.set_user_attr(BEAT, beats := beats + 1)
            except UpdateFinishedTrialError:  # others took this worker for lost; `finish` will tell it
                break
            except Exception:  # noqa: S110  (a storage that fails for a moment; for longer, and `finish` says so)
                pass
            if stop.wait(self.plan.heartbeat_s):
                break
        self.store.storage.remove_session()

    def _look_after_others(self) -> None:
        """Settle trials that wait for another one's result, and begin again those whose worker is lost."""
        from optuna.trial import TrialState

        trials = self.trials()
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            if SAME_AS in trial.user_attrs:
                self._settle(trial, trials)
            elif self._is_silent(trial):
                self._begin_again(trial, lost=True)

    def _settle(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> None:
        """Give a trial the result for which it waits; begin it itself where that never comes."""
        from optuna.trial import TrialState

        twin = _twin(trial.params, trials, trial.number)
        if twin is not None and twin.state.is_finished():
            self._take_over(trial.number, twin)
        elif twin is None and not any(
            other.state == TrialState.WAITING and asked(other) == trial.params for other in trials
        ):
            self._begin_again(trial, lost=False)

    def _is_silent(self, trial: FrozenTrial) -> bool:
        """Whether a trial's sign of life has been the same for too long, by this worker's own clock: others' may be wrong."""
        beat = trial.user_attrs.get(BEAT)
        known, since = self._beats.get(trial.number, (None, 0.0))
        if trial.number not in self._beats or beat != known:
            self._beats[trial.number] = (beat, time.monotonic())
            return False
        return time.monotonic() - since > LOST_AFTER_BEATS * self.plan.heartbeat_s

    def _begin_again(self, trial: FrozenTrial, *, lost: bool) -> None:
        """Put a trial's values back into the queue, then end it: in this order, a worker that is killed between loses none."""
        from optuna.trial import TrialState

        origin = trial.user_attrs.get(RETRY_OF, trial.number)
        workers = trial.user_attrs.get(LOST, 0) + lost
        queued = any(
            other.number > trial.number and other.user_attrs.get(RETRY_OF) == origin for other in self.trials()
        )
        if not queued and workers < MOST_LOST:
            kept = {SCORES: trial.user_attrs.get(SCORES, []), RETRY_OF: origin, LOST: workers}
            self.study.enqueue_trial(asked(trial), user_attrs=kept)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _take_over(self, number: int, twin: FrozenTrial) -> None:
        self.study.tell(number, twin.value if twin.state.name == "COMPLETE" else None, twin.state)


def _twin(params: Mapping[str, Any], trials: list[FrozenTrial], number: int) -> FrozenTrial | None:
    """Another trial of the same values that has a result, or else one that is being trained."""
    from optuna.trial import TrialState

    same = [trial for trial in trials if trial.number != number and trial.params == params]
    done = [trial for trial in same if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    trained = [trial for trial in same if trial.state == TrialState.RUNNING and SAME_AS not in trial.user_attrs]
    return next(iter([*done, *trained]), None)


def asked(trial: FrozenTrial) -> dict[str, Any]:
    """The values that a trial has, or will have when it begins."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _sampler(plan: SweepPlan, place: int) -> BaseSampler:
    """The sampler of the trial at a place of the study, seeded by both: a study that was interrupted goes on as it would have,
    and workers that start together draw different values."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int.from_bytes(hashlib.sha256(f"{plan.seed} {place}".encode()).digest()[:4])
    return TPESampler(seed=seed) if plan.sampler == "tpe" else RandomSampler(seed=seed)


def _pruner(plan: SweepPlan) -> optuna.pruners.BasePruner:
    from optuna.pruners import MedianPruner, NopPruner

    return MedianPruner() if plan.pruner == "median" else NopPruner()


def work(
    shared: SharedStudy,
    score: Callable[[optuna.Trial], float | None],
    most: int,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> None:
    """Train trials until the study has `most`, also those that others began and lost.

    Args:
        score: trains a trial; None prunes it. deadline: of `time.monotonic()`; no trial is begun after it.

    Raises:
        StorageFailed: the storage does not answer.
        EdgeError: several trials in a row could not be trained.
        KeyboardInterrupt: Ctrl-C; the trial's values wait for whoever comes next.
    """
    failures = 0
    waiting = False
    while deadline is None or time.monotonic() < deadline:
        trial = shared.claim(most)
        if trial is None:
            others = shared.others_at_work()
            if not others:
                return
            if not waiting:
                progress.say(f"waiting for {others} trials of other workers; Ctrl-C leaves them alone")
            waiting = True
            time.sleep(min(shared.plan.heartbeat_s, LONGEST_NAP_S))
            continue
        waiting = False
        began = time.monotonic()
        try:
            with shared.beating(trial):
                result = score(trial)
        except StorageFailed:
            raise
        except EdgeError as error:
            shared.fail(trial, str(error))
            progress.say(f"trial {trial.number} failed: {error}")
            failures += 1
            if failures == MOST_FAILURES:
                raise EdgeError(
                    f"{failures} trials in a row failed, the last with: {error} Mend that or narrow the ranges, then run the "
                    "same command again."
                ) from None
            continue
        except BaseException as error:
            with contextlib.suppress(StorageFailed):  # its silence then tells the others
                shared.give_back(trial, lost=not isinstance(error, KeyboardInterrupt))
            raise
        failures = 0
        said = "pruned" if result is None else f"{result:.4f}"
        if not shared.finish(trial, result):
            said = "another worker took it over, after this one had given no sign of life"
        progress.say(f"trial {trial.number}: {said} ({(time.monotonic() - began) / 60.0:.1f} min)")

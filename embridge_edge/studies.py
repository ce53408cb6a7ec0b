"""Optuna studies that several workers share: where they are kept, who trains which trial, and what becomes of a lost one.

A worker is a process that knows the study's storage and nothing of the others. Whatever decides who does what (creating the
study, taking a trial, finishing one) happens while it is alone with the study, under a lock that lies beside the storage; so
the number of trials is exact and no two workers train the same values. While it trains, a worker leaves signs of life in its
trial. Optuna's own heartbeat knows databases only, not journals, hence this one, which is the same for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.progress import SILENT, Progress
from embridge_edge.sweeping import Choices, SweepPlan

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy.engine import URL

STORAGES = "journal:FILE or a path, sqlite:///FILE, postgresql+psycopg://USER@HOST/DATABASE"
"""What a storage may be called."""

LOST_AFTER_BEATS = 6
"""A trial without a sign of life for so many of its beats has lost its worker."""

MOST_LOST = 3
"""A trial that lost so many workers has probably ended them itself, by its hunger for memory say, and is given up."""

MOST_FAILURES = 3
"""After so many failed trials in a row a worker stops: the next ones would fail as well."""

LONGEST_NAP_S = 5.0
"""How often a worker without work looks whether there is some."""

DATABASE_WAIT_S = 60
"""How long a database file may be locked by another worker, and a server may take to answer."""

BEAT, RETRY_OF, SAME_AS, LOST, SCORES, ERROR = "beat", "retry_of", "same_as", "lost", "scores", "error"
"""What is known of a trial beside its values: a counting sign of life; the trial that it repeats because that one lost its
worker; the trial whose result it takes over because the values are the same; how many workers it lost; the score of each
seed so far; why it failed."""


class StorageFailed(EdgeError):
    """The storage of a study cannot be used: no fault of the trial that is under way."""


@dataclass(frozen=True)
class Store:
    """Where studies are kept.

    Attributes:
        shown: its name without a password.
        storage: Optuna's view of it.
        alone: a context in which no other worker is in it.
    """

    shown: str
    storage: BaseStorage
    alone: Callable[[], AbstractContextManager[None]]


def file_of(where: str) -> Path | None:
    """The file of a storage; None for a server's.

    Raises:
        EdgeError: no kind of storage that is known.
    """
    kind, separator, rest = where.partition(":")
    if kind == "journal" and separator:
        return Path(rest)
    if "://" not in where:
        return Path(where)
    url = _url(where)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def open_store(where: str) -> Store:
    """Open a storage, or make it where there is none yet.

    Args:
        where: a file (a journal), `journal:FILE`, `sqlite:///FILE` or `postgresql+psycopg://…`.

    Raises:
        EdgeError: another kind, something else in the file, a damaged journal, or a database that does not answer.
    """
    file = file_of(where)
    return _journal(file) if file is not None and not where.startswith("sqlite:") else _database(where, file)


@contextlib.contextmanager
def answering(shown: str) -> Iterator[None]:
    """Turn what a storage says when it cannot be used into one line.

    Raises:
        StorageFailed: the storage failed in the block.
    """
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = one_line(getattr(cause, "orig", None) or cause).rstrip(".")
        raise StorageFailed(
            f"Cannot use the study storage {shown}: {reason}; mend that and run the same command again, finished trials are kept."
        ) from None
    except json.JSONDecodeError as error:  # a journal that was damaged while in use
        raise _damaged(shown, one_line(error)) from None


def _damaged(shown: object, where: str) -> StorageFailed:
    return StorageFailed(
        f"The journal {shown} is damaged ({where}); restore it from a copy, or choose another --storage."
    )


def _journal(file: Path) -> Store:
    """A journal: one file to which all workers append; works on file systems of several machines too."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path = file.resolve()  # Optuna's lock is a link to the file, and a relative one would point nowhere
    if path.is_dir():
        raise EdgeError(f"{file} is a folder; give a file for the journal in --storage.")
    path.parent.mkdir(parents=True, exist_ok=True)
    alone = file_lock(path)
    with alone():
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()
        try:
            _check_journal(path, file)
        finally:
            lock.release()
        try:
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        except (
            ValueError,
            TypeError,
            KeyError,
            AssertionError,
        ) as error:  # lines that are JSON, but say nothing sensible
            raise _damaged(file, one_line(error)) from None
    return Store(f"journal:{file}", storage, alone)


def _check_journal(path: Path, file: Path) -> None:
    """Refuse a file that is no journal, and cut off a last line that a full disk left incomplete.

    Optuna would append to either, and find the line that cannot be read only later.
    """
    if not path.exists() or not path.stat().st_size:
        path.touch()
        return
    with path.open("rb+") as journal:
        place = 0
        for number, line in enumerate(journal, start=1):
            if not line.endswith(b"\n") and number > 1:
                journal.truncate(place)
                return
            place += len(line)
            try:
                known = type(json.loads(line)["op_code"]) is int
            except (ValueError, TypeError, KeyError):
                known = False
            if not known and number == 1:
                raise EdgeError(
                    f"{file} is no journal of a study; choose another --storage: {STORAGES}."
                    if not line.startswith(b"SQLite format 3\0")
                    else f"{file} is a SQLite database; write --storage sqlite:///{file}."
                )
            if not known:
                raise _damaged(file, f"line {number}")


def _database(where: str, file: Path | None) -> Store:
    import sqlalchemy
    from optuna.storages import RDBStorage

    url = _url(where)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        alone = file_lock(file)
        options: dict[str, Any] = {"connect_args": {"timeout": DATABASE_WAIT_S}}
    else:
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": DATABASE_WAIT_S}}
        alone = _server_lock(sqlalchemy.create_engine(url, **options))
    shown = url.render_as_string(hide_password=True)
    address = url.render_as_string(hide_password=False)
    with answering(shown), alone():  # two workers that make the same tables at once would fail
        storage = RDBStorage(address.replace("{", "{{").replace("}", "}}"), engine_kwargs=options)
    return Store(shown, storage, alone)


def _url(where: str) -> URL:
    import sqlalchemy.engine
    import sqlalchemy.exc

    try:
        url = sqlalchemy.engine.make_url(where)
        kind = url.get_backend_name()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise EdgeError(f"--storage is no address of a study; choose one of {STORAGES}.") from None
    if kind == "postgresql" and url.drivername in ("postgresql", "postgresql+psycopg"):
        import psycopg  # noqa: F401  (its absence is to be named as such)

        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.drivername == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise EdgeError(
                "A database in memory can be neither shared nor kept; give a file: --storage sqlite:///FILE."
            )
        return url
    raise EdgeError(f"--storage {url.drivername}://… is no kind of storage that sweep knows; choose one of {STORAGES}.")


def file_lock(beside: Path) -> Callable[[], AbstractContextManager[None]]:
    """A lock beside a file, on which one waits; the system frees it when its holder ends, however it ends."""

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        import fcntl

        with beside.with_name(f"{beside.name}.turn").open("a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield

    return alone


def _server_lock(engine: Any) -> Callable[[], AbstractContextManager[None]]:
    """A lock of the database server; it ends with its transaction, and that with its connection."""
    import sqlalchemy

    key = int.from_bytes(hashlib.sha256(b"embridge-edge sweep").digest()[:8], signed=True)

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield

    return alone


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

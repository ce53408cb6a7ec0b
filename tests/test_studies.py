"""Workers that share a study, as processes of their own on real storages: who trains what, and what becomes of the lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from embridge_edge.errors import EdgeError
from embridge_edge.stores import StorageFailed, open_store
from embridge_edge.studies import (
    ERROR,
    MOST_LOST,
    RETRY_OF,
    SAME_AS,
    SharedStudy,
    distributions,
    work,
)
from embridge_edge.sweeping import Choices, Range, SweepPlan
from tests.tools import hear_ctrl_c

BELONGS_TO = {"recipe": "r", "data": "d"}
NUMBERS = SweepPlan({"x": Range(0.0, 1.0)}, objective="lp_seen", heartbeat_s=0.5)
THREE = SweepPlan({"x": Choices((1, 2, 3))}, objective="lp_seen", heartbeat_s=0.5)

# A worker that writes down what it trains: process, trial, value.
WORKER = """
import os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.test_studies import NUMBERS, THREE, joined
from embridge_edge.studies import work
where, log, plan, most, seconds = sys.argv[1:]
def score(trial):
    with open(log, "a") as file:
        file.write(f"{{os.getpid()}} {{trial.number}} {{trial.params['x']}}\\n")
    time.sleep(float(seconds))
    return float(trial.params["x"])
work(joined(where, THREE if plan == "three" else NUMBERS), score, int(most))
"""
ROOT = Path(__file__).resolve().parent.parent


def joined(
    where: str, plan: SweepPlan = NUMBERS, first: dict[str, Any] | None = None, **belongs_to: Any
) -> SharedStudy:
    """A worker's view of the study "s"."""
    kinds = {key: float for key, allowed in plan.parameters.items() if isinstance(allowed, Range)}
    store = open_store(where)
    return SharedStudy.open(store, "s", plan, distributions(plan, kinds), {**BELONGS_TO, **belongs_to}, first)


def worker(where: str, log: Path, most: int, seconds: float = 0.05, plan: str = "numbers") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER.format(root=str(ROOT)), where, str(log), plan, str(most), str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)  # noqa: PLW1509


def ended(process: subprocess.Popen[str]) -> str:
    """What a worker said on stderr; it must have ended well."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def trained(log: Path) -> list[tuple[str, str]]:
    """Process and value of everything that was trained, in order."""
    return [(line.split()[0], line.split()[2]) for line in log.read_text().splitlines()]


def wait_for(log: Path, lines: int) -> None:
    until = time.monotonic() + 300
    while not (log.exists() and len(log.read_text().splitlines()) >= lines):
        assert time.monotonic() < until, "no worker began"
        time.sleep(0.02)


def programs_of_postgresql() -> Path:
    """The folder of initdb and postgres, which Debian keeps out of PATH."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if on_path is None and not found:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    return Path(on_path).parent if on_path else found[-1].parent


@contextlib.contextmanager
def postgresql_server() -> Iterator[str]:
    """A private server on a Unix socket; its user may not be root."""
    programs = programs_of_postgresql()
    with tempfile.TemporaryDirectory(prefix="pg") as name:  # short: a socket's path has at most 107 bytes
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres" if "postgres" in Path("/etc/passwd").read_text() else "nobody")
        in_folder(folder, programs / "initdb", "-D", "db", "-U", "sweep", "-A", "trust", "-N")
        start_server(folder)
        try:
            yield f"postgresql+psycopg://sweep:secret@/postgres?host={folder}"
        finally:
            in_folder(folder, programs / "pg_ctl", "-D", "db", "-w", "-m", "immediate", "stop")


def start_server(folder: Path) -> None:
    settings = f"-k {folder} -c listen_addresses='' -c fsync=off"
    in_folder(folder, programs_of_postgresql() / "pg_ctl", "-D", "db", "-w", "-l", "log", "-o", settings, "start")


def in_folder(folder: Path, *command: Path | str) -> None:
    """Run a command in a folder as its owner."""
    owner: dict[str, Any] = {"user": folder.owner(), "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, **owner)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty storage of each kind."""
    if request.param == "postgresql":
        url = request.getfixturevalue("server")
        yield url
        store = open_store(url)
        with store.alone():
            for name in optuna.get_all_study_names(store.storage):
                optuna.delete_study(study_name=name, storage=store.storage)
    else:
        yield f"sqlite:///{tmp_path / 'study.db'}" if request.param == "sqlite" else str(tmp_path / "study.journal")


@pytest.mark.slow
def test_two_workers_make_the_asked_number_of_trials_and_train_each_once(where: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for process in [worker(where, log, 10, 0.3), worker(where, log, 10, 0.3)]:
        assert ended(process) == ""
    trials = joined(where).trials()
    values = [value for _, value in trained(log)]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 10
    assert sorted(values) == sorted(str(trial.params["x"]) for trial in trials)
    assert len(set(values)) == 10
    assert len({pid for pid, _ in trained(log)}) == 2, "one of them had nothing to do"


@pytest.mark.slow
def test_values_that_have_a_result_or_are_being_trained_are_not_trained_again(where: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for process in [worker(where, log, 9, 0.4, "three"), worker(where, log, 9, 0.4, "three")]:
        assert ended(process) == ""
    trials = joined(where, THREE).trials()
    assert sorted(value for _, value in trained(log)) == ["1", "2", "3"]
    assert len(trials) == 9 and {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trial.value == trial.params["x"] for trial in trials)
    assert sum(SAME_AS in trial.user_attrs for trial in trials) == 6


@pytest.mark.slow
def test_a_killed_workers_trial_is_taken_up_by_the_next(where: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = worker(where, log, 3, 100.0)
    wait_for(log, 1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    ended(worker(where, log, 3))
    trials = joined(where).trials()
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: 3, TrialState.FAIL: 1}
    assert trials[0].state == TrialState.FAIL
    again = next(trial for trial in trials if trial.user_attrs.get(RETRY_OF) == 0)
    assert again.params == trials[0].params and again.state == TrialState.COMPLETE
    times = Counter(value for _, value in trained(log))
    assert times.pop(str(trials[0].params["x"])) == 2 and set(times.values()) == {1}


@pytest.mark.slow
def test_ctrl_c_leaves_a_trial_to_the_next_worker_at_once(where: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    stopped = worker(where, log, 2, 100.0)
    wait_for(log, 1)
    stopped.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in stopped.communicate(timeout=300)[1]
    first, queued = joined(where).trials()
    assert (first.state, queued.state) == (TrialState.FAIL, TrialState.WAITING)
    ended(worker(where, log, 2))
    assert [value for _, value in trained(log)][:2] == [str(first.params["x"])] * 2
    assert Counter(t.state for t in joined(where).trials()) == {TrialState.COMPLETE: 2, TrialState.FAIL: 1}


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return str(tmp_path / "study.journal")


def of_x(trial: optuna.Trial) -> float:
    return float(trial.params["x"])


@pytest.mark.slow
def test_a_study_in_two_parts_draws_what_it_draws_in_one(tmp_path: Path) -> None:
    whole, parts = (str(tmp_path / name) for name in ("whole", "parts"))
    work(joined(whole), of_x, 14)
    work(joined(parts), of_x, 5)
    shared = joined(parts)

    def interrupted(trial: optuna.Trial) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(shared, interrupted, 14)
    work(joined(parts), of_x, 14)
    drawn = [t.params for t in joined(parts).trials() if t.state == TrialState.COMPLETE]
    assert drawn == [t.params for t in joined(whole).trials()]


def test_a_finished_study_begins_nothing(journal: str) -> None:
    work(joined(journal), of_x, 3)
    work(joined(journal), lambda trial: pytest.fail("trained"), 3)
    assert len(joined(journal).trials()) == 3


def test_more_trials_go_on(journal: str) -> None:
    work(joined(journal), of_x, 2)
    work(joined(journal), of_x, 5)
    assert [trial.value for trial in joined(journal).trials()] == [t.params["x"] for t in joined(journal).trials()]
    assert len(joined(journal).trials()) == 5


def test_the_recipes_own_values_come_first(journal: str) -> None:
    work(joined(journal, first={"x": 0.5}), of_x, 3)
    work(joined(journal, first={"x": 0.5}), of_x, 4)
    values = [trial.params["x"] for trial in joined(journal).trials()]
    assert values[0] == 0.5 and values.count(0.5) == 1 and len(values) == 4


def test_no_trial_begins_after_the_deadline(journal: str) -> None:
    work(joined(journal), of_x, 3, deadline=time.monotonic())
    assert joined(journal).trials() == []


def test_a_trial_that_ends_its_workers_is_given_up(journal: str) -> None:
    def crash(trial: optuna.Trial) -> float:
        raise MemoryError

    for _ in range(MOST_LOST):
        with pytest.raises(MemoryError):
            work(joined(journal), crash, 1)
    assert [trial.state for trial in joined(journal).trials()] == [TrialState.FAIL] * MOST_LOST
    assert len({trial.params["x"] for trial in joined(journal).trials()}) == 1
    work(joined(journal), lambda trial: pytest.fail("trained again"), 1)


def test_interruptions_never_give_a_trial_up(journal: str) -> None:
    def stop(trial: optuna.Trial) -> float:
        raise KeyboardInterrupt

    for _ in range(MOST_LOST + 2):
        with pytest.raises(KeyboardInterrupt):
            work(joined(journal), stop, 1)
    work(joined(journal), of_x, 1)
    assert joined(journal).trials()[-1].state == TrialState.COMPLETE


def test_values_that_cannot_be_trained_count_and_three_in_a_row_stop(journal: str) -> None:
    def fail(trial: optuna.Trial) -> float:
        raise EdgeError("The loss is no longer finite.")

    with pytest.raises(EdgeError, match=r"3 trials in a row failed, the last with: The loss is no longer finite\."):
        work(joined(journal), fail, 5)
    work(joined(journal), of_x, 5)
    trials = joined(journal).trials()
    assert [trial.state.name for trial in trials] == ["FAIL"] * 3 + ["COMPLETE"] * 2
    assert trials[0].user_attrs[ERROR] == "The loss is no longer finite."


@pytest.mark.slow
def test_a_silent_workers_result_is_not_taken_once_others_began_again(journal: str) -> None:
    silent, other = joined(journal), joined(journal)
    trial = silent.claim(1)
    assert trial is not None
    assert other.claim(1) is None  # it has just begun, for all that one can see
    until = time.monotonic() + 100
    while (again := other.claim(1)) is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert again.params == trial.params
    assert not silent.finish(trial, 1.0)
    silent.give_back(trial, lost=False)
    assert other.finish(again, 2.0)
    assert [t.value for t in joined(journal).trials()] == [None, 2.0]


@pytest.mark.slow
def test_a_worker_that_gives_signs_of_life_keeps_its_trial(journal: str) -> None:
    busy, other = joined(journal), joined(journal)
    trial = busy.claim(1)
    assert trial is not None
    with busy.beating(trial):
        until = time.monotonic() + 12 * NUMBERS.heartbeat_s
        while time.monotonic() < until:
            assert other.claim(1) is None
            time.sleep(0.1)
    assert busy.finish(trial, 1.0)


def test_a_trial_whose_twin_failed_is_begun_itself(journal: str) -> None:
    one, two = joined(journal, THREE), joined(journal, THREE)
    first = one.claim(9)
    assert first is not None
    handed = []
    while (trial := two.claim(9)) is not None:
        handed.append(trial)
    assert len({t.params["x"] for t in (first, *handed)}) == 3 == 1 + len(handed)
    one.fail(first, "diverged")
    again = two.claim(9)
    assert again is not None and again.params == first.params
    two.finish(again, 5.0)
    for trial in handed:
        two.finish(trial, 1.0)
    assert two.claim(9) is None
    states = Counter(trial.state.name for trial in two.trials() if RETRY_OF not in trial.user_attrs)
    assert states["RUNNING"] == states["WAITING"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("key", ["recipe", "data"])
def test_a_study_of_something_else_is_refused(where: str, key: str) -> None:
    work(joined(where), of_x, 1)
    with pytest.raises(EdgeError, match=f"belongs to another {key}; choose another --study or --storage") as caught:
        joined(where, **{key: "x"})
    assert "secret" not in str(caught.value)
    assert len(joined(where).trials()) == 1


def test_a_study_that_somebody_else_made_is_refused(journal: str) -> None:
    study = optuna.create_study(storage=open_store(journal).storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    with pytest.raises(EdgeError, match="was not made by sweep"):
        joined(journal)


@pytest.mark.slow
def test_two_studies_live_in_one_storage(where: str) -> None:
    store = open_store(where)
    space = distributions(NUMBERS, {"x": float})
    for name in ("a", "b"):
        work(SharedStudy.open(store, name, NUMBERS, space, BELONGS_TO, None), of_x, 2)
    assert sorted(optuna.get_all_study_names(store.storage)) == ["a", "b"]


def test_a_journal_whose_last_line_is_cut_off_goes_on(journal: str) -> None:
    work(joined(journal), of_x, 2)
    with Path(journal).open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","st')
    work(joined(journal), of_x, 3)
    assert [trial.state for trial in joined(journal).trials()] == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize("line", ["garbage", '{"op_code": 99}', '{"op_code": 4}', "[1]", '{"op_code": "x"}'])
def test_a_damaged_journal_is_one_line_and_left_as_it_is(journal: str, line: str) -> None:
    work(joined(journal), of_x, 1)
    file = Path(journal)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], line, *lines[3:]]) + "\n")
    before = file.read_bytes()
    with pytest.raises(StorageFailed, match=r"journal .* is damaged \(.*restore it from a copy, or choose another"):
        joined(journal)
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["name = 1", "name = 1\nx = 2\n", "{}\n", "1\n", "[]"])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(EdgeError, match="is no journal of a study; choose another --storage: journal:FILE"):
        open_store(str(file))
    assert file.read_text() == text


def test_a_database_given_as_a_journal_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    joined(f"sqlite:///{file}")
    with pytest.raises(EdgeError, match="is a SQLite database; write --storage sqlite:///"):
        open_store(str(file))


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("redis://localhost", "choose one of journal:FILE or a path, sqlite:///FILE, postgresql+psycopg"),
        ("mysql://u:secret@h/d", "mysql://… is no kind of storage that sweep knows"),
        ("postgresql+asyncpg://u:secret@h/d", "no kind of storage that sweep knows"),
        ("sqlite://", "in memory can be neither shared nor kept"),
        (
            "postgresql+psycopg://u:secret@127.0.0.1:{port}/d",
            "Cannot use the study storage postgresql+psycopg://u:***@127",
        ),
        ("postgresql://u:sec{{ret@127.0.0.1:{port}/d", "Cannot use the study storage postgresql+psycopg://u:***@127"),
        ("://", "is no address of a study"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_without_password(where: str, says: str) -> None:
    with pytest.raises(EdgeError) as caught:
        open_store(where.format(port=closed_port()))
    assert says in str(caught.value)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database at all, but longer than a header of a hundred bytes" * 9)
    with pytest.raises(StorageFailed, match=r"Cannot use the study storage sqlite:///.*file is not a database"):
        open_store(f"sqlite:///{tmp_path / 'x.db'}")


@pytest.mark.slow
def test_a_server_that_goes_away_is_one_line_and_what_is_finished_stays() -> None:
    with postgresql_server() as url:
        shared = joined(url)
        work(shared, of_x, 2)
        folder = Path(url.partition("host=")[2])
        pid = int((folder / "db" / "postmaster.pid").read_text().splitlines()[0])

        def score(trial: optuna.Trial) -> float:
            os.kill(pid, signal.SIGQUIT)
            time.sleep(1.0)
            return 1.0

        with pytest.raises(StorageFailed, match=r"Cannot use the study storage .*finished trials are kept"):
            work(shared, score, 4)
        start_server(folder)
        work(joined(url), of_x, 4)
        done = [trial for trial in joined(url).trials() if trial.state == TrialState.COMPLETE]
        assert len(done) == 4

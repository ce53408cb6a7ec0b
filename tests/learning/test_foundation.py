"""Pre-training over several sources: what is drawn, hidden, scaled and learned, and that an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.learning import foundation, loop
from embridge_edge.learning.foundation import (
    Source,
    SourceSampler,
    draw_hidden,
    embed_windows,
    fit_head,
    foretold_share,
    load_sources,
    pretrain_encoder,
    running_level,
    scaled,
    sources_of,
)
from embridge_edge.learning.foundation_recipe import (
    FoundationRecipe,
    HeadPlan,
    PretrainPlan,
    SignalPlan,
    find_foundation_recipe,
    foundation_recipe_from_dict,
    shipped_foundation_recipes,
)
from embridge_edge.learning.loop import Run
from embridge_edge.model.foundation import FoundationEncoder
from embridge_edge.model.foundation_shape import FoundationShape
from embridge_edge.recordings.recording import Recording

SIGNAL = SignalPlan(guard_ms=0.0)
SHAPE = FoundationShape(width=16, blocks=1, heads=2)
PLAN = PretrainPlan(steps=6, batch=8, learning_rate=3e-3)
MakeRecording = Callable[..., Recording]


@pytest.fixture(scope="module")
def sources(recording: MakeRecording) -> list[Source]:
    """Four channels at 200 Hz with three gestures, and six channels at 500 Hz without labels."""
    slow = [recording(wearer, session) for wearer in "ab" for session in "12"]
    quick = [replace(recording("c", labelled=False, channels=6), rate_hz=500.0, unit="V")]
    return sources_of("slow", lambda: iter(slow), SIGNAL) + sources_of("quick", lambda: iter(quick), SIGNAL)


def all_of(sources: list[Source]) -> list[np.ndarray]:
    return [np.arange(len(source.windows)) for source in sources]


def train(sources: list[Source], run: Run, plan: PretrainPlan = PLAN) -> FoundationEncoder:
    return pretrain_encoder(sources, all_of(sources), SHAPE, plan, run)


def assert_equal(one: FoundationEncoder, two: FoundationEncoder) -> None:
    for (name, mine), (_, its) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(mine, its), name


def test_bands_of_one_set_become_sources_of_their_own(recording: MakeRecording, tmp_path: Path) -> None:
    mixed = [
        recording("a"),
        replace(recording("b", channels=6), rate_hz=500.0),
        recording("c"),
        recording("d", "1", ((0, 900), (1, 900))),
    ]
    found = sources_of("set", lambda: iter(mixed), SIGNAL, tmp_path)
    assert [(one.channels, one.rate_hz, len(one.windows.wearer_names)) for one in found] == [
        (4, 200.0, 3),
        (6, 500.0, 1),
    ]
    assert [one.name for one in found] == ["set, 4 × 200 Hz in myo", "set, 6 × 500 Hz in myo"]
    for kept, made in zip(load_sources("set", tmp_path, SIGNAL), found, strict=True):
        assert kept.name == made.name
        assert np.array_equal(kept.gains, made.gains)
        assert torch.equal(kept.inputs(np.arange(3)), made.inputs(np.arange(3)))


def test_set_without_a_recording_is_one_line() -> None:
    with pytest.raises(EdgeError, match="nothing holds no recording; give a folder with recordings in --data"):
        sources_of("nothing", lambda: iter(()), SIGNAL)


def test_scale_of_a_recording_does_not_matter(recording: MakeRecording) -> None:
    one = recording()
    for plan in (SIGNAL, replace(SIGNAL, scale_s=5.0)):
        mine, its = (
            sources_of("set", lambda emg=emg: iter([replace(one, emg=emg)]), plan)[0]
            for emg in (one.emg, one.emg * np.float32(1e-5))
        )
        every = np.arange(len(mine.windows))
        torch.testing.assert_close(its.inputs(every), mine.inputs(every), rtol=1e-3, atol=1e-3)


@given(
    levels=st.lists(st.floats(-9, 9), min_size=60, max_size=90),
    later=st.integers(0, 89),
    scale_s=st.floats(1.0, 100.0),
)
@settings(max_examples=50, deadline=None)
def test_running_level_knows_the_past_alone(levels: list[float], later: int, scale_s: float) -> None:
    now, settle = np.array(levels), round(foundation.SETTLE_S / 0.05)
    later = min(later, len(now) - 1)
    sessions = np.zeros(len(now), np.int64)
    before = running_level(now, sessions, 0.05, scale_s)
    changed = np.where(np.arange(len(now)) >= later, 100.0, now)
    after = running_level(changed, sessions, 0.05, scale_s)
    if later >= settle:
        assert np.array_equal(after[: later + 1], before[: later + 1])
    share = 1.0 - np.exp(-0.05 / scale_s)
    weights = share * (1.0 - share) ** np.arange(len(now))[::-1]
    assert before[-1] == pytest.approx(np.average(now[:-1], weights=weights[1:]), abs=1e-6)
    assert np.ptp(before[:settle]) == 0.0


def test_running_level_begins_anew_with_each_donning() -> None:
    levels, sessions = np.concatenate([np.zeros(80), np.full(80, 4.0)]), np.repeat([0, 1], 80)
    found = running_level(levels, sessions, 0.05, 60.0)
    np.testing.assert_allclose(found, levels, atol=1e-9)


def test_one_level_comes_from_the_windows_that_may_be_seen(sources: list[Source]) -> None:
    seen = np.arange(20)
    quiet = scaled(sources[0], None, seen)
    loud = sources[0].windows.signal.copy()
    loud[sources[0].windows.starts[40] :] *= 10.0
    other = replace(sources[0], windows=replace(sources[0].windows, signal=loud))
    assert np.array_equal(scaled(other, None, seen).gains, quiet.gains)
    assert not np.array_equal(scaled(other, None).gains, scaled(sources[0], None).gains)


@pytest.mark.parametrize(("power", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 0.9)])
def test_sources_are_drawn_by_a_power_of_their_hours(sources: list[Source], power: float, share: float) -> None:
    long, short = sources[0], replace(sources[0], name="short")
    which = [np.arange(180), np.arange(20)]
    sampler = SourceSampler([long, short], which, power, 3)
    assert sampler.shares == pytest.approx([share, 1.0 - share])
    drawn = [sampler.draw(step, 5) for step in range(2000)]
    assert np.mean([number == 0 for number, _ in drawn]) == pytest.approx(share, abs=0.03)
    assert all(np.isin(own, which[number]).all() for number, own in drawn)
    assert np.array_equal(sampler.draw(7, 5)[1], drawn[7][1])


def test_source_without_a_window_to_see_is_one_line(sources: list[Source]) -> None:
    with pytest.raises(EdgeError, match="quick has no window to train on; leave this source out"):
        SourceSampler(sources, [np.arange(9), np.zeros(0, np.int64)], 0.5, 0)


def test_tokens_are_hidden_one_by_one_and_channels_whole() -> None:
    torch.manual_seed(0)
    hidden = draw_hidden(500, 8, 8, PretrainPlan(mask_share=0.4, channel_share=0.0))
    assert float(hidden.float().mean()) == pytest.approx(0.4, abs=0.01)
    assert float(hidden.all(dim=2).float().mean()) < 0.01
    whole = draw_hidden(500, 8, 8, PretrainPlan(mask_share=0.0, channel_share=0.2))
    assert torch.equal(whole.any(dim=2), whole.all(dim=2))
    assert float(whole.float().mean()) == pytest.approx(0.2, abs=0.02)


def test_interrupted_pre_training_that_goes_on_equals_an_uninterrupted_one(
    sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(sources, Run(1))
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    inner = SourceSampler.draw

    def stopping(self: SourceSampler, step: int, count: int) -> tuple[int, np.ndarray]:
        if step == 4:
            raise KeyboardInterrupt
        return inner(self, step, count)

    monkeypatch.setattr(SourceSampler, "draw", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(sources, Run(1, state=tmp_path))
    assert (tmp_path / "masked.safetensors").is_file()
    drawn: list[int] = []

    def noting(self: SourceSampler, step: int, count: int) -> tuple[int, np.ndarray]:
        drawn.append(step)
        return inner(self, step, count)

    monkeypatch.setattr(SourceSampler, "draw", noting)
    assert_equal(train(sources, Run(1, state=tmp_path)), whole)
    assert drawn == [4, 5]


def test_labels_take_no_part_in_pre_training(sources: list[Source]) -> None:
    blank = [replace(one, windows=replace(one.windows, labels=np.full_like(one.windows.labels, -1))) for one in sources]
    assert_equal(train(blank, Run(2)), train(sources, Run(2)))


@pytest.mark.slow
def test_pre_training_learns_to_foretell(recording: MakeRecording) -> None:
    """Loud and quiet stretches: what is hidden is as loud as what is seen, on both bands."""
    loudness = np.repeat([0.05, 1.0, 5.0], 300).astype(np.float32)[:, None]
    slow = recording("a")
    quick = replace(recording("c", channels=6), rate_hz=500.0)
    sources = [
        source
        for name, one in (("slow", slow), ("quick", quick))
        for source in sources_of(name, lambda one=one: iter([replace(one, emg=one.emg * loudness)]), SIGNAL)
    ]
    plan = PretrainPlan(steps=150, batch=16, learning_rate=5e-3)
    trained = train(sources, Run(0), plan)
    for source, own in zip(sources, all_of(sources), strict=True):
        assert foretold_share(trained, source, own, plan, 0) > 0.5


def test_head_decides_and_fine_tuning_changes_the_encoder_alone_where_asked(sources: list[Source]) -> None:
    source = sources[0]
    torch.manual_seed(0)
    network = FoundationEncoder(SHAPE).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    every = np.arange(len(source.windows))
    labelled = every[source.windows.labels >= 0]
    same, head = fit_head(network, source, every, HeadPlan(), Run())
    assert same is network
    assert np.mean(head.decide(embed_windows(network, source, labelled)) == source.windows.labels[labelled]) > 0.9
    tuned, head = fit_head(network, source, every, HeadPlan(finetune_steps=60, batch=16, learning_rate=3e-3), Run())
    assert np.mean(head.decide(embed_windows(tuned, source, labelled)) == source.windows.labels[labelled]) > 0.9
    assert not torch.equal(tuned.embed.weight, network.embed.weight)
    assert torch.equal(tuned.decoder.weight, network.decoder.weight)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_head_without_labels_is_one_line(sources: list[Source]) -> None:
    with pytest.raises(EdgeError, match="quick has fewer than two labelled gestures"):
        fit_head(FoundationEncoder(SHAPE).eval(), sources[1], np.arange(9), HeadPlan(), Run())


@pytest.mark.parametrize("name", shipped_foundation_recipes())
def test_shipped_recipe_loads_and_survives_its_table(name: str) -> None:
    recipe = find_foundation_recipe(name)
    assert recipe.name == name
    again = foundation_recipe_from_dict(recipe.to_dict())
    assert again == recipe
    assert again.sha256 == recipe.sha256


def test_paper_size_has_between_three_and_four_million_parameters() -> None:
    network = FoundationEncoder(find_foundation_recipe("paper-size").encoder)
    assert 3e6 < sum(parameter.numel() for parameter in network.parameters()) < 4e6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "x"\nwidth = 3', "unknown key 'width'; choose from name, signal, encoder, pretrain, head"),
        ('name = "x"\n[encoder]\ndepth = 3', "encoder: unknown key 'depth'; choose from patch_ms,"),
        ('name = "x"\n[pretrain]\nsteps = "many"', "'many' is not of type int"),
        ('name = "x"\n[pretrain]\nloss = "l2"', "Unknown loss 'l2'; choose from mse, smooth_l1"),
        ('name = "x"\n[pretrain]\nmask_share = 0.0\nchannel_share = 0', "nothing would be hidden"),
        ('name = "x"\n[pretrain]\nmask_share = 1.0', "Recipe .*, pretrain: mask_share is 1;"),
        ('name = "x"\n[encoder]\nwidth = 10', "width 10 is no multiple of heads 4"),
        ('name = "x"\n[encoder]\npatch_ms = 60.0', "window_ms 400 is no multiple of patch_ms 60"),
        ('name = "x"\n[signal]\nwindow_ms = 40.0\nhop_ms = 40.0', "patch_ms 50 is longer than window_ms 40"),
        ("name = ", "is not valid TOML"),
        ("", "name is missing"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(EdgeError, match=says) as caught:
        find_foundation_recipe(str(file))
    assert "\n" not in str(caught.value)


def test_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(
        EdgeError, match="Unknown foundation recipe 'huge'; choose one of paper-size, small, or give a file"
    ):
        find_foundation_recipe("huge")


def test_recipe_is_checked_however_it_is_made() -> None:
    with pytest.raises(EdgeError, match="no multiple of patch_ms"):
        FoundationRecipe("x", signal=SignalPlan(window_ms=170.0))

"""Models that torch.onnx writes: read with a description, run by ONNX Runtime, taken to torch and to int8; and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from embridge_edge.errors import EdgeError
from embridge_edge.export.foreign import ForeignModel, open_foreign, read_onnx, teaching
from embridge_edge.export.foreign_student import refuse_other_numbers, score_rows, student_module, student_values
from embridge_edge.export.quantizing import quantize_tflite
from embridge_edge.export.running import run_tflite
from embridge_edge.export.tflite import to_tflite
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.learning.scores import mean_removed_error

Floats = npt.NDArray[np.float32]

CHANNELS, STEPS, GESTURES = 4, 40, ("rest", "fist", "flexion")
TEXT = """
[input]
name = "{input}"
layout = [{layout}]
[outputs]
{outputs}
[signal]
rate_hz = 200.0
channels = {channels}
unit = "V"
[chain]
window_ms = {window_ms}
hop_ms = 50.0
bandpass_hz = false
"""
SCORES = 'scores = "scores"\ngestures = ["rest", "fist", "flexion"]'


def chain(window_ms: float = 200.0) -> SignalChain:
    return resolve(ChainPlan(window_ms=window_ms, hop_ms=50.0, bandpass_hz=None), 200.0, CHANNELS, "V")


def windows(count: int = 32, seed: int = 1) -> Floats:
    """Muscles of another strength on each channel in each window: what tells them apart outlives int8."""
    rng = np.random.default_rng(seed)
    strength = np.exp(0.7 * rng.standard_normal((count, 1, CHANNELS)))
    return (0.5 * strength * rng.standard_normal((count, STEPS, CHANNELS))).astype(np.float32)


class OfImages(nn.Sequential):
    """Takes `[batch, 1, channels, time]`."""


class OfSteps(nn.Module):
    """A small Transformer on ten patches of four samples; takes `[batch, time, channels]`."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(4 * CHANNELS, 16)
        self.places = nn.Parameter(0.1 * torch.randn(10, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.scores = nn.Linear(16, len(GESTURES))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x.reshape(-1, 10, 4 * CHANNELS)) + self.places
        return self.scores(self.blocks(tokens).mean(dim=1))


class ByHand(OfSteps):
    """Attention as people write it themselves: one product for query, key and value, cut in three."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.three, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x.reshape(-1, 10, 4 * CHANNELS)) + self.places
        query, key, value = self.three(self.norm(tokens)).reshape(-1, 10, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(query @ key.transpose(-2, -1) / 8**0.5, dim=-1) @ value
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(-1, 10, 16))
        return self.scores(tokens.mean(dim=1))


class Residual(nn.Module):
    """Depthwise and pointwise convolutions over time with a bypass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(CHANNELS, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8), nn.ReLU6())
        self.separable = nn.Sequential(
            nn.Conv1d(8, 8, 5, padding=4, dilation=2, groups=8, bias=False), nn.BatchNorm1d(8), nn.ReLU6(),
            nn.Conv1d(8, 8, 1, bias=False), nn.BatchNorm1d(8),
        )  # fmt: skip
        self.scores = nn.Linear(8, len(GESTURES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.scores((x + self.separable(x)).mean(dim=2))


def over_time() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(CHANNELS, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(3, 2, 1),
        nn.Conv1d(8, 16, 3, stride=2), nn.BatchNorm1d(16), nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, len(GESTURES)),
    )  # fmt: skip


def over_images() -> nn.Module:
    return OfImages(
        nn.Conv2d(1, 8, (3, 5), padding=(1, 2)), nn.BatchNorm2d(8), nn.Hardswish(), nn.AvgPool2d((1, 2)),
        nn.Conv2d(8, 16, 3, stride=(1, 2), padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, len(GESTURES)),
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "over time": over_time,
    "over images": over_images,
    "separable": Residual,
    "transformer": OfSteps,
    "attention by hand": ByHand,
}


def layout_of(net: nn.Module) -> tuple[str, ...]:
    if isinstance(net, OfImages):
        return ("batch", "one", "channels", "time")
    return ("batch", "time", "channels") if isinstance(net, OfSteps) else ("batch", "channels", "time")


def laid_out(x: Floats, layout: Sequence[str]) -> Tensor:
    """Windows `[n, steps, channels]` as a layout names their axes."""
    named = torch.from_numpy(x).permute([("batch", "time", "channels").index(axis) for axis in layout if axis != "one"])
    for at, axis in enumerate(layout):
        named = named.unsqueeze(at) if axis == "one" else named
    return named


def lived(family: str) -> nn.Module:
    """A net whose BatchNorms have seen data: fresh ones do nothing, and folding them wrongly would not show."""
    torch.manual_seed(0)
    net = FAMILIES[family]()
    with torch.no_grad():
        for seed in range(4):
            net(3.0 * laid_out(windows(16, seed), layout_of(net)) + 0.5)
        for part in net.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 2.0)
                nn.init.uniform_(part.bias, -0.5, 0.5)
    return net.eval()


def write(
    net: nn.Module,
    folder: Path,
    layout: Sequence[str] | None = None,
    *,
    opset: int = 17,
    dynamo: bool = False,
    folded: bool = True,
    batch: int | None = None,
    outputs: str = SCORES,
    window_ms: float = 200.0,
    channels: int = CHANNELS,
) -> tuple[Path, Path]:
    """A model and its description.

    Args:
        folded: whether the exporter folds BatchNorms. batch: of a model that takes so many windows and no other number.
    """
    layout = layout or layout_of(net)
    file, description = folder / "net.onnx", folder / "net.toml"
    example = laid_out(windows(batch or 2), layout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["emg"], "output_names": ["scores"], "opset_version": opset}
        if dynamo:
            free = None if batch else ({0: torch.export.Dim("batch", min=1)},)
            torch.onnx.export(net, (example,), file, dynamo=True, verbose=False, dynamic_shapes=free, **names)  # type: ignore[arg-type]
        else:
            training = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
            axes = None if batch else {"emg": {0: "batch"}}
            torch.onnx.export(net, (example,), file, dynamo=False, dynamic_axes=axes, training=training, **names)  # type: ignore[arg-type]
    named = ", ".join(f'"{axis}"' for axis in layout)
    description.write_text(
        TEXT.format(input="emg", layout=named, outputs=outputs, channels=channels, window_ms=window_ms)
    )
    return file, description


def ops_of(file: Path) -> set[str]:
    return {node.op_type for node in onnx.load(file, load_external_data=False).graph.node}


def assert_same_everywhere(net: nn.Module, model: ForeignModel) -> None:
    """torch, ONNX Runtime, and ONNX brought back to torch."""
    given = windows()
    with torch.no_grad():
        expected = net(laid_out(given, model.plan.input.layout)).numpy()
        # One window at a time, as in TFLite: where the graph fixes its batch, it is one there.
        module = student_module(model, chain())
        back = np.concatenate([module(one[None]).numpy() for one in torch.from_numpy(given)])
    scale = np.abs(expected).max()
    assert scale > 0.05
    assert np.abs(student_values(model, chain(), given) - expected).max() < 1e-5 * scale
    assert np.abs(back - expected).max() < 1e-5 * scale


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch", [None, 1])
def test_onnx_runtime_and_torch_compute_what_was_exported(family: str, batch: int | None, tmp_path: Path) -> None:
    net = lived(family)
    file, description = write(net, tmp_path, batch=batch)
    model = open_foreign(file, description)
    assert model.batch == batch
    assert_same_everywhere(net, model)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch", [None, 1])
def test_models_of_the_newer_exporter_are_the_same(family: str, batch: int | None, tmp_path: Path) -> None:
    net = lived(family)
    assert_same_everywhere(net, open_foreign(*write(net, tmp_path, dynamo=True, opset=18, batch=batch)))


@pytest.mark.parametrize("folded", [False, True])
def test_batch_norms_may_be_folded_or_not(folded: bool, tmp_path: Path) -> None:
    net = lived("separable")
    file, description = write(net, tmp_path, folded=folded)
    assert ("BatchNormalization" in ops_of(file)) == (not folded)
    model = open_foreign(file, description)
    assert_same_everywhere(net, model)
    assert "BatchNormalization" not in {node.op for node in student_module(model, chain()).nodes}


@pytest.mark.parametrize("opset", [9, 11, 13, 20])
@pytest.mark.parametrize("family", ["over time", "over images"])
def test_opsets_old_and_new_give_the_same(family: str, opset: int, tmp_path: Path) -> None:
    net = lived(family)
    if family == "over images" and opset < 14:
        net[2] = nn.ReLU()  # HardSwish came with opset 14
    assert_same_everywhere(net, open_foreign(*write(net, tmp_path, opset=opset)))


class InOrder(nn.Module):
    """Weighs each sample of each channel on its own, so that every mistake in the order of axes shows."""

    def __init__(self, layout: Sequence[str]) -> None:
        super().__init__()
        self.back = [layout.index(axis) for axis in ("batch", "time", "channels")]
        self.ones = [at for at, axis in enumerate(layout) if axis == "one"]
        self.scores = nn.Linear(STEPS * CHANNELS, len(GESTURES))

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x.permute(*self.back, *self.ones).flatten(1))


@pytest.mark.parametrize(
    "layout",
    [
        ("batch", "time", "channels"),
        ("batch", "channels", "time"),
        ("batch", "one", "channels", "time"),
        ("batch", "one", "time", "channels"),
        ("batch", "time", "channels", "one"),
        ("batch", "channels", "one", "time"),
    ],
)
def test_every_order_of_axes_reaches_the_model_as_it_is_named(layout: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = InOrder(layout).eval()
    assert_same_everywhere(net, open_foreign(*write(net, tmp_path, layout)))


class LaidOut(nn.Module):
    """A net behind the order of axes that its description names, as it would be taken to TFLite without ONNX."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.layout = net, layout_of(net)

    def forward(self, x: Tensor) -> Tensor:
        axes = [("batch", "time", "channels").index(axis) for axis in self.layout if axis != "one"]
        ordered = x.permute(axes)
        return self.net(ordered.unsqueeze(1) if "one" in self.layout else ordered)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_int8_through_onnx_is_as_near_to_float_as_int8_of_the_torch_module(family: str, tmp_path: Path) -> None:
    """How near that is hangs on the net: one that has learnt nothing, with large and small windows, loses a quarter of its variance."""
    net = lived(family)
    model = open_foreign(*write(net, tmp_path))
    calibration, judged = windows(64, 2), windows(128, 3)
    expected = student_values(model, chain(), judged)

    def error(bare: bytes) -> float:
        assert refuse_other_numbers(model, expected, bare, judged) < 1e-5
        int8 = quantize_tflite(bare, calibration, most_transposes=1000)
        return mean_removed_error(expected, run_tflite(int8, judged, "litert-ref"))

    through_onnx = error(to_tflite(student_module(model, chain()), (1, STEPS, CHANNELS)))
    assert through_onnx < 0.5
    bare = to_tflite(LaidOut(net).eval(), (1, STEPS, CHANNELS))
    if family == "over time":  # torch's own leaky ReLU has no int8 kernel; through ONNX it is made of ops that have one
        with pytest.raises(EdgeError, match=r"stayed float .*LEAKY_RELU"):
            error(bare)
    else:
        assert through_onnx < 1.3 * error(bare) + 0.01


def test_scores_behind_an_embedding_become_rows_of_the_head(tmp_path: Path) -> None:
    net = lived("over time")
    file, _ = write(net, tmp_path)
    (head,) = (node for node in onnx.load(file).graph.node if node.op_type == "Gemm")
    file, description = write(net, tmp_path, outputs=f'embedding = "{head.input[0]}"\n{SCORES}')
    model = open_foreign(file, description)
    found = score_rows(model, chain())
    assert found is not None
    np.testing.assert_allclose(found[0], net[-1].weight.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], net[-1].bias.detach().numpy(), atol=1e-5)
    assert student_values(model, chain(), windows(5)).shape == (5, 16)


def test_scores_that_are_no_linear_layer_of_the_embedding_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(STEPS * CHANNELS, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    file, _ = write(net, tmp_path)
    first = next(node for node in onnx.load(file).graph.node if node.op_type == "Gemm")
    file, description = write(net, tmp_path, outputs=f'embedding = "{first.output[0]}"\n{SCORES}')
    with pytest.raises(EdgeError, match="scores is no linear layer on"):
        score_rows(open_foreign(file, description), chain())


@pytest.mark.parametrize("count", [1, 7, 8, 20])
def test_a_batch_that_the_graph_fixes_is_filled_up(count: int, tmp_path: Path) -> None:
    net = lived("separable")
    model = open_foreign(*write(net, tmp_path, batch=8))
    given = windows(count)
    with torch.no_grad():
        expected = net(laid_out(given, layout_of(net))).numpy()
    np.testing.assert_allclose(student_values(model, chain(), given), expected, atol=1e-5)


def test_a_batch_of_minus_one_is_free(tmp_path: Path) -> None:
    """As some exporters write it, and ONNX Runtime takes it."""
    net = lived("separable")
    file, description = write(net, tmp_path)
    proto = onnx.load(file)
    for end in (*proto.graph.input, *proto.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(proto, file)
    assert_same_everywhere(net, open_foreign(file, description))


def test_a_conversion_of_another_shape_is_refused_in_one_line(tmp_path: Path) -> None:
    model, given = open_foreign(*write(lived("separable"), tmp_path)), windows(4)
    other = to_tflite(nn.Sequential(nn.Flatten(), nn.Linear(STEPS * CHANNELS, 2)).eval(), (1, STEPS, CHANNELS))
    with pytest.raises(EdgeError, match=r"by inf of its largest output"):
        refuse_other_numbers(model, student_values(model, chain(), given), other, given)


def test_softmax_at_the_end_is_left_out_of_the_student(tmp_path: Path) -> None:
    net = lived("separable")
    model = open_foreign(*write(nn.Sequential(net, nn.Softmax(dim=1)).eval(), tmp_path, ("batch", "channels", "time")))
    with torch.no_grad():
        expected = net(laid_out(windows(), layout_of(net))).numpy()
    np.testing.assert_allclose(student_values(model, chain(), windows()), expected, atol=1e-5)


# Refusals.


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_models_teach_and_are_refused_as_students(kind: type[nn.GRU | nn.LSTM], tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.scores = kind(CHANNELS, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.scores(self.cell(x)[0][:, -1])

    torch.manual_seed(0)
    net = Recurrent().eval()
    model = open_foreign(*write(net, tmp_path, ("batch", "time", "channels"), batch=1))
    with torch.no_grad():
        expected = net(torch.from_numpy(windows(9))).numpy()
    np.testing.assert_allclose(teaching(model, chain(), ("scores",))(windows(9))["scores"], expected, atol=1e-5)
    with pytest.raises(EdgeError, match=rf"\({kind.__name__}\) cannot be converted to TFLite here; use convolutions"):
        student_module(model, chain())


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    file, description = write(lived("over time"), tmp_path)
    whole = file.read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in [*range(0, len(whole), len(whole) // 60), *range(len(whole) - 40, len(whole))]:
        cut.write_bytes(whole[:length])
        with pytest.raises(EdgeError) as caught:
            student_module(open_foreign(cut, description), chain())
        assert "\n" not in str(caught.value)
    file.write_bytes(b"no model at all")
    with pytest.raises(EdgeError, match=r"net\.onnx is no ONNX model, or is truncated; export it again"):
        read_onnx(file)
    with pytest.raises(EdgeError, match=r"Cannot read .*none\.onnx: No such file or directory; name an \.onnx file"):
        read_onnx(tmp_path / "none.onnx")


def with_weights_beside(folder: Path) -> tuple[Path, Path]:
    """A model whose weights lie in net.data."""
    file, description = write(lived("over time"), folder)
    onnx.save_model(
        onnx.load(file),
        file,
        save_as_external_data=True,
        location="net.data",
        size_threshold=0,
        convert_attribute=False,
    )
    assert (folder / "net.data").stat().st_size > 1000
    return file, description


def test_weights_beside_the_model_are_read_and_belong_to_its_hash(tmp_path: Path) -> None:
    model = open_foreign(*with_weights_beside(tmp_path))
    assert_same_everywhere(lived("over time"), model)
    weights = tmp_path / "net.data"
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(bytes(content))
    assert read_onnx(tmp_path / "net.onnx").sha256 != model.file.sha256


def test_weights_that_are_missing_or_cut_are_refused(tmp_path: Path) -> None:
    file, _ = with_weights_beside(tmp_path)
    weights = tmp_path / "net.data"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(EdgeError, match=r"net\.onnx (keeps|holds) .*again"):
        read_onnx(file)
    weights.unlink()
    with pytest.raises(
        EdgeError, match=r"net\.onnx keeps weights in net\.data, which is not beside it; copy both files"
    ):
        read_onnx(file)


def test_nan_in_weights_is_refused_with_their_name(tmp_path: Path) -> None:
    file, _ = write(lived("over time"), tmp_path)
    proto = onnx.load(file)
    last = proto.graph.initializer[-1]
    values = numpy_helper.to_array(last).copy()
    values.reshape(-1)[0] = np.nan
    last.CopyFrom(numpy_helper.from_array(values, last.name))
    onnx.save(proto, file)
    with pytest.raises(EdgeError, match=f"has NaN in its weights {last.name!r}; export a checkpoint from before"):
        read_onnx(file)


def test_a_model_that_overflows_is_refused_with_the_range_of_its_windows(tmp_path: Path) -> None:
    class Overflows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x.flatten(1)[:, :3] * 1e4)

    model = open_foreign(*write(Overflows(), tmp_path, ("batch", "time", "channels")))
    with pytest.raises(EdgeError, match=r"NaN or infinity in scores for windows between .* check \[normalisation\]"):
        student_values(model, chain(), windows())
    with pytest.raises(EdgeError, match=r"\(Exp\) has no int8 kernel; use Softmax or Sigmoid in its place"):
        student_module(model, chain())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "emg"', 'name = "egm"', r"has no input 'egm'; name one of emg in \[input\]"),
        (
            'scores = "scores"',
            'scores = "score"',
            r"no tensor 'score', .* names as scores; its outputs are scores; perhaps scores\.",
        ),
        (
            'scores = "scores"',
            'scores = "zzz"',
            r"no tensor 'zzz', .* embridge-edge describe lists the tensors inside\.",
        ),
        ("[signal]", "[signal]\nrate = 1", r"signal: unknown key 'rate'; choose from rate_hz, channels, unit\."),
        ("[signal]", "[singal]\na = 1\n[signal]", r"unknown key 'singal'; choose from input, outputs, signal, chain"),
        ('unit = "V"', "", r"signal: unit is missing"),
        ('"time"', '"samples"', r"Unknown axis 'samples' in layout; choose from batch, time, channels, one"),
        ('"batch", "channels"', '"channels", "batch"', r'layout must begin with "batch"'),
        (
            '"channels", "time"',
            '"time", "channels"',
            r"takes emg \[free, 4, 40\], but layout .* give \[1, 40, 4\]; correct",
        ),
        (
            '"channels", "time"',
            '"one", "channels", "time"',
            r"takes emg \[free, 4, 40\], but layout .* give \[1, 1, 4, 40\]",
        ),
        ('"channels", "time"', '"time"', r"layout leaves out 'channels', of which the chain gives 4; name it"),
        ("window_ms = 200.0", "window_ms = 250.0", r"takes emg \[free, 4, 40\], .* \(50 steps of 4 columns\)"),
        ("channels = 4", "channels = 8", r"takes emg \[free, 4, 40\], .* \(40 steps of 8 columns\)"),
        (', "flexion"', "", r"scores gives 3 scores, \[outputs\] names 2 gestures; name each once"),
        ('"flexion"', '"fist"', r"names a gesture twice"),
        ('gestures = ["rest", "fist", "flexion"]', "", r"needs scores and gestures together"),
        ("[chain]", "[chain", r"is not valid TOML"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_in_one_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    file, description = write(lived("over time"), tmp_path)
    text = description.read_text()
    assert old in text
    description.write_text(text.replace(old, new, 1))
    with pytest.raises(EdgeError, match=said) as caught:
        model = open_foreign(file, description)
        signal = model.plan.signal
        own = resolve(model.plan.chain, signal.rate_hz, signal.channels, signal.unit)
        student_values(model, own, np.zeros((2, *own.input_shape), np.float32))
    assert "\n" not in str(caught.value)


def test_a_model_that_fixes_its_batch_inside_is_refused_as_a_student_with_what_to_do(tmp_path: Path) -> None:
    class Eight(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(8, -1)[:, :3]

    file, description = write(Eight(), tmp_path, ("batch", "time", "channels"), batch=8)
    model = open_foreign(file, description)
    assert student_values(model, chain(), windows(11)).shape == (11, 3)
    with pytest.raises(EdgeError, match=r"takes 8 windows at once, a student one, .* free batch axis"):
        student_module(model, chain())

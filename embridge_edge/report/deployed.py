"""Sections about what runs on the device: float to int8, runtimes, sizes, latency, calibration set."""

from __future__ import annotations

from embridge_edge.report import pictures, reading, words
from embridge_edge.report.blocks import (
    Block,
    Cell,
    Facts,
    Picture,
    Section,
    Table,
    measured,
    named,
    numeric,
    said,
    table,
)
from embridge_edge.report.pictures import Axis, Bar, Curve, Range
from embridge_edge.report.reading import Report, Row

DRAWN_LAYERS = 10
DRAWN_CHANNELS = 32
HURTING_LAYERS = 5

_INT8_LEAD = (
    "Accuracy alone hides what int8 changes. Flips count the windows whose decided gesture changes; the mean-removed"
    " error is the relative RMS difference of the embeddings once what all windows share is taken away."
)
_PARITY_LEAD = (
    "Reference kernels are what others are held against; XNNPACK, which phones use, may round some sums the other way."
    " The int8 ONNX file is quantized by itself on the same ranges; for x86 its weights have seven bits."
)
_ARENA_LEAD = (
    "The arena was measured with TensorFlow Lite Micro on the host;"
    " kernels of another library may need more on the board."
)


def quantization(report: Report) -> Section:
    """What int8 costs: flips, error, and where it comes from."""
    record = reading.record(report, "quantization")
    flips, errors = reading.results(report, "class_flips"), reading.results(report, "mean_removed_error")
    layers = sorted(
        reading.rows(record, "layers"), key=lambda row: -(words.number(row.get("mean_removed_error")) or 0.0)
    )
    blocks: list[Block] = []
    if flips or errors:
        blocks.append(_cost_table(report, flips, errors))
    if forms := reading.rows(record, "forms"):
        blocks.append(_forms_table(forms))
    ends = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
    if any(words.number(record.get(key)) is not None for key in ends):
        pairs = tuple((words.capital(key.replace("_", " ")), _exactly(record.get(key))) for key in ends)
        blocks.append(Facts("Real value = scale × (integer − zero point)", pairs))
    if known := [layer for layer in layers if words.number(layer.get("mean_removed_error")) is not None]:
        blocks.append(_layers_picture(known))
    if layers:
        blocks.append(_layers_table(layers))
    hurt = reading.record(record, "sensitivity")
    if words.number(_error_at_output(hurt, "whole")) is not None:
        blocks.append(_sensitivity_table(hurt))
    if len(mixes := reading.rows(record, "mixing")) > 1:
        blocks += [_mixing_picture(mixes), _mixing_table(mixes)]
    title = "Float to int8"
    if not blocks:
        return Section("int8", title, missing="no int8 model was compared with its float twin.")
    return Section("int8", title, _INT8_LEAD, tuple(blocks))


def _cost_table(report: Report, flips: list[Row], errors: list[Row]) -> Table:
    metric = reading.main_metric(report)
    main = reading.results(report, metric)
    rows = []
    for group in reading.groups([*flips, *errors]):
        for model in reading.models(reading.in_group([*flips, *errors], group)):
            flip, error = (reading.of_model(reading.in_group(found, group), model) for found in (flips, errors))
            twin = model.removesuffix("_int8")
            pair = [reading.of_model(reading.in_group(main, group), name) for name in (twin, model)]
            change = Cell(words.NOT_MEASURED, "missing")
            if pair[0] is not None and pair[1] is not None:
                change = Cell(_change(metric, float(pair[1]["value"]) - float(pair[0]["value"])))
            judged = flip or error or {}
            rows.append(
                [
                    Cell(words.split_name(group[1]), note=words.model_name(model)),
                    _with_interval("class_flips", flip),
                    _with_interval("mean_removed_error", error),
                    change,
                    Cell(words.count(judged.get("n_groups"), "wearer"), note=words.count(judged.get("n"), "window")),
                ]
            )
    columns = [
        named("split"),
        numeric("class flips"),
        numeric("mean-removed error"),
        numeric(f"change of {words.metric_name(metric)}"),
        numeric("n"),
    ]
    return table("int8 against the same model in float, 95 % interval below", columns, rows)


def _forms_table(forms: list[Row]) -> Table:
    rows = [
        [
            Cell(words.form_name(form.get("name")), note=words.count(form.get("windows"), "window")),
            measured("class_flips", form.get("class_flips")),
            measured("mean_removed_error", form.get("mean_removed_error")),
            measured("balanced_accuracy", form.get("balanced_accuracy")),
        ]
        for form in forms
    ]
    columns = [
        named("student"),
        numeric("class flips"),
        numeric("mean-removed error"),
        numeric(words.metric_name("balanced_accuracy")),
    ]
    return table(
        "Trained with the rounding of int8 in it, each against the float student on the same windows", columns, rows
    )


def _with_interval(metric: str, row: Row | None) -> Cell:
    if row is None:
        return measured(metric, None)
    return measured(metric, row.get("value"), note=words.interval(metric, row.get("ci_low"), row.get("ci_high")))


def _change(metric: str, change: float) -> str:
    sign = "+" if change >= 0 else "−"
    return (
        f"{sign}{100 * abs(change):.2f}{words.SPACE}points" if words.is_fraction(metric) else f"{sign}{abs(change):.3f}"
    )


def _layers_picture(layers: list[Row]) -> Picture:
    shown = layers[:DRAWN_LAYERS]
    bars = [
        Bar(
            str(layer.get("name") or layer.get("op") or "layer"),
            value,
            f"{value:.3f}",
            role="bad" if index == 0 else "accent",
        )
        for index, layer in enumerate(shown)
        for value in [float(layer["mean_removed_error"])]
    ]
    alt = f"Mean-removed error per layer, worst first: {'; '.join(f'{bar.label} {bar.text}' for bar in bars[:5])}."
    caption = f"Mean-removed error of the {len(shown)} worst of {len(layers)} layers (no unit: 0 is equal to float)."
    return Picture(pictures.bars("layers", alt, bars), caption, pictures.WIDTH)


def _layers_table(layers: list[Row]) -> Table:
    rows = [
        [
            Cell(words.shortened(str(layer.get("name") or "no name"), 60)),
            said(layer.get("op")),
            measured("mean_removed_error", layer.get("mean_removed_error")),
            measured("snr_db", layer.get("snr_db")),
            Cell(f"{cosine:.5f}")
            if (cosine := words.number(layer.get("cosine"))) is not None
            else measured("cosine", None),
        ]
        for layer in layers[:20]
    ]
    note = f"{len(layers) - 20} better layers are in report.json." if len(layers) > 20 else ""
    columns = [named("layer"), named("op"), numeric("mean-removed error"), numeric("SNR"), numeric("cosine")]
    return table("Each int8 activation against its float twin, worst first", columns, rows, note)


def _error_at_output(found: Row, how: str) -> object:
    return reading.record(found, how).get("mean_removed_error")


def _sensitivity_table(found: Row) -> Table:
    layers = sorted(
        reading.rows(found, "layers"), key=lambda layer: -(words.number(_error_at_output(layer, "alone")) or 0.0)
    )
    rows = [
        [
            Cell(words.shortened(str(layer.get("name") or "no name"), 60)),
            said(layer.get("op")),
            *(measured("mean_removed_error", _error_at_output(layer, how)) for how in ("alone", "without")),
            measured("mean_removed_error", _error_at_output(layer, "wide"))
            if layer.get("wide")
            else said("stays int8"),
        ]
        for layer in layers[:HURTING_LAYERS]
    ]
    columns = [
        named("layer"),
        named("op"),
        numeric("it alone in int8"),
        numeric("all but it in int8"),
        numeric("its output in 16 bits"),
    ]
    whole = words.quantity("mean_removed_error", _error_at_output(found, "whole"))
    advice = found.get("advice")
    mends = f"The recipe line that mends most: {advice}." if advice else "No layer's 16 bits mend a tenth of it."
    caption = "The layers that int8 hurts most: mean-removed error at the model's output"
    return table(caption, columns, rows, f"All layers in int8: {whole}. {mends}")


def _mixing_picture(mixes: list[Row]) -> Picture:
    kib = tuple((words.number(mix.get("size_bytes")) or 0.0) / 1024 for mix in mixes)
    shares = tuple(_wide_share(mix) for mix in mixes)
    found = {
        label: tuple(words.number(reading.record(mix, "damage").get(key)) for mix in mixes)
        for key, label in (("mean_removed_error", "mean-removed error"), ("class_flips", "class flips"))
    }
    lines = [
        Curve(label, tuple(value for value in values if value is not None), (kib, shares), role)
        for (label, values), role in zip(found.items(), ("accent", "base"), strict=True)
        if None not in values
    ]
    margin = 0.05 * (max(kib) - min(kib)) or 1.0
    below = (
        Axis(min(kib) - margin, max(kib) + margin, "KiB of the int8 graph"),
        Axis(-0.03, 1.03, "multiply-accumulates with a 16-bit operand, %", 100.0),
    )
    alt = "; ".join(f"{_taken(mix, first=mix is mixes[0])}: {_damage_text(mix)}" for mix in mixes)
    caption = (
        "Layers taken to 16 bits, one after the other, against bytes and operations (windows of the training side)"
    )
    return Picture(pictures.curves("mixing", alt, lines, below), caption, pictures.WIDTH)


def _taken(mix: Row, *, first: bool) -> str:
    """What a point of the curve added; the first has what the recipe's `wide` asks for."""
    wide = reading.texts(mix.get("wide"))
    if not wide:
        return "all int8"
    return f"start: {', '.join(wide)}" if first else wide[-1]


def _wide_share(mix: Row) -> float:
    return (words.number(mix.get("wide_macs")) or 0.0) / max(1.0, words.number(mix.get("macs")) or 1.0)


def _damage_text(mix: Row) -> str:
    return words.quantity("mean_removed_error", reading.record(mix, "damage").get("mean_removed_error"))


def _mixing_table(mixes: list[Row]) -> Table:
    rows = [
        [
            Cell(words.shortened(_taken(mix, first=mix is mixes[0]), 60)),
            *(measured(key, reading.record(mix, "damage").get(key)) for key in ("mean_removed_error", "class_flips")),
            measured("bytes", mix.get("size_bytes")),
            measured("bytes", mix.get("peak_bytes")),
            Cell(words.percent(_wide_share(mix), 0)),
        ]
        for mix in mixes
    ]
    columns = [
        named("taken to 16 bits"),
        numeric("mean-removed error"),
        numeric("class flips"),
        numeric("bytes of the graph"),
        numeric("peak activations"),
        numeric("16-bit operations"),
    ]
    caption = "Mixed precision: what each further layer with 16 bits mends and costs"
    return table(caption, columns, rows, "The last row is the model that ships.")


def _exactly(value: object) -> str:
    real = words.number(value)
    return words.NOT_MEASURED if real is None else f"{real:.9g}".replace("-", "−")


def parity(report: Report) -> Section:
    """Whether the runtimes that people use give what the reference gives."""
    found = reading.rows(report, "parity")
    title = "Runtimes: the same int8 model, the same windows"
    if not found:
        return Section("parity", title, missing="no runtime was compared with another.")
    rows = [
        [
            Cell(words.runtime_name(row.get("other")), note=f"against {words.runtime_name(row.get('reference'))}"),
            _exact(row.get("exact")),
            _share(row.get("within_one_step")),
            measured("max_steps", row.get("max_steps")),
            _share(row.get("class_flips")),
            Cell(words.count(row.get("windows"), "window")),
        ]
        for row in found
    ]
    columns = [
        named("runtime"),
        numeric("outputs equal"),
        numeric("within one int8 step"),
        numeric("largest difference"),
        numeric("class flips"),
        numeric("n"),
    ]
    shown = table("Raw int8 outputs, in steps of the output's scale", columns, rows)
    return Section("parity", title, _PARITY_LEAD, (shown,))


def _exact(value: object) -> Cell:
    if isinstance(value, bool):
        return Cell("✓ all", "good") if value else Cell("not all")
    return _share(value)


def _share(value: object) -> Cell:
    real = words.number(value)
    return measured("share", None) if real is None else Cell(_share_text(real))


def _share_text(share: float) -> str:
    return f"{share:.0%}".replace("%", f"{words.SPACE}%") if share in (0.0, 1.0) else words.percent(share)


def sizes(report: Report) -> Section:
    """Files, what they compute and need, and what of the target's budget they take."""
    artifacts = reading.rows(report, "artifacts")
    target = reading.record(report, "target")
    blocks: list[Block] = []
    if bars := _budget(target):
        alt = f"Budget of {reading.target_name(report)}: {'; '.join(f'{bar.label} {bar.text}' for bar in bars)}."
        caption = f"What the model takes of {reading.target_name(report)}; the pale track is all that the target gives."
        blocks.append(Picture(pictures.bars("budget", alt, bars), caption, pictures.WIDTH))
    if target:
        blocks.append(_target_facts(target))
    if artifacts:
        blocks.append(_artifact_table(artifacts))
    if not blocks:
        return Section("sizes", "Size and budget", missing="nothing was exported.")
    ok = target.get("ok")
    lead = f"The model fits {reading.target_name(report)}. " if ok is True else ""
    if any(words.number(row.get("arena_bytes")) is not None for row in artifacts):
        lead += _ARENA_LEAD
    warnings = () if ok is not False else (f"The model does not fit {reading.target_name(report)}.",)
    return Section("sizes", "Size and budget", lead, tuple(blocks), warnings)


def _budget(target: Row) -> list[Bar]:
    bars = []
    for label, key in (("Flash: model", "flash"), ("RAM: arena", "ram")):
        used, limit = words.number(target.get(f"{key}_used_bytes")), words.number(target.get(f"{key}_kib"))
        if used is None:
            continue
        if limit is None:
            bars.append(Bar(label, used, f"{words.kib(used)}, budget not stated"))
            continue
        share = used / (limit * 1024) if limit else 1.0
        text = f"{used / 1024:,.1f} of {limit:,g}{words.SPACE}KiB, {_whole(share)}"
        bars.append(Bar(label, used, text, max(limit, 0.001) * 1024, "accent" if share <= 1 else "bad"))
    return bars


def _whole(share: float) -> str:
    return f"{100 * share:.0f}{words.SPACE}%" if share >= 0.095 else words.percent(share)


def _target_facts(target: Row) -> Facts:
    pairs = [("Target", str(target.get("name") or "not stated")), ("Core", str(target.get("core") or "not stated"))]
    for key, title in (
        ("clock_mhz", "Clock, highest"),
        ("flash_kib", "Flash"),
        ("ram_kib", "RAM"),
    ):
        pairs.append(
            (title, words.quantity(key, target.get(key)) if words.number(target.get(key)) is not None else "not stated")
        )
    pairs += [("Note", note) for note in reading.texts(target.get("notes"))]
    return Facts("Target", tuple(pairs))


def _artifact_table(artifacts: list[Row]) -> Table:
    rows = []
    for row in artifacts:
        parts = row.get("float_ops")
        floats = (
            f"{len(parts)}: {words.listed(reading.texts(parts))}" if isinstance(parts, list | tuple) and parts else None
        )
        if isinstance(parts, list | tuple) and not parts:
            floats = "0"
        rows.append(
            [
                Cell(str(row.get("path") or "no name"), note=str(row.get("kind") or "")),
                measured("bytes", row.get("bytes")),
                measured("parameters", row.get("parameters")),
                measured("macs", row.get("macs")),
                measured("arena_bytes", row.get("arena_bytes")),
                measured("peak_activation_bytes", row.get("peak_activation_bytes")),
                Cell(floats) if floats is not None else measured("float_ops", parts),
            ]
        )
    columns = [
        named("file"),
        numeric("size"),
        numeric("parameters"),
        numeric("MACs per window"),
        numeric("tensor arena, TFLM on the host"),
        numeric("peak of activations, planned"),
        named("float ops"),
    ]
    caption = "MACs: multiply-accumulates for one window. Float ops: ops that int8 does not cover."
    if any(row.get("path") == "token_int8.tflite" for row in artifacts):
        caption += " The token is computed once for each hop, the reader for each decision: together they do what the whole does."
    return table("Files", columns, rows, caption)


def latency(report: Report) -> Section:
    """Times on this host, and the plain statement that they are not the target's."""
    found = reading.rows(report, "latency")
    cpu = reading.record(report, "host").get("cpu")
    elsewhere = [row for row in found if not reading.on_host(row)]
    title = "Latency" if elsewhere else "Latency on this host, not on the target"
    if not found:
        return Section("latency", title, missing="no latency was measured, neither on this host nor on the target.")
    rows = [
        [
            Cell(str(row.get("artifact") or "no name"), note=words.runtime_name(row.get("runtime"))),
            Cell(words.count(row.get("threads")))
            if words.number(row.get("threads")) is not None
            else Cell("not stated", "missing"),
            measured("p50_ms", row.get("p50_ms")),
            measured("p99_ms", row.get("p99_ms")),
            Cell(words.count(row.get("n"), "run")),
            said(row.get("source")),
        ]
        for row in found
    ]
    columns = [
        named("file and runtime"),
        numeric("threads"),
        numeric("median (p50)"),
        numeric("p99"),
        numeric("n"),
        named("measured by"),
    ]
    where = f" ({cpu})" if cpu else ""
    hop = words.number(reading.record(report, "chain").get("hop_ms"))
    lead = f"One window after another{where}." + (
        f" A decision is due every {hop:g}{words.SPACE}ms." if hop is not None else ""
    )
    target = reading.target_name(report)
    warning = f"Host wall clock{where}: says nothing about {target}, whose latency was not measured."
    shown = table("Time for one window", columns, rows)
    return Section("latency", title, lead, (shown,), () if elsewhere else (warning,))


def calibration(report: Report) -> Section:
    """What the quantizer saw, and where test data go beyond it."""
    record = reading.record(report, "calibration")
    title = "Calibration windows of the quantizer"
    if not record:
        return Section("calibration", title, missing="no calibration set was described.")
    channels = reading.rows(record, "channels")
    blocks: list[Block] = []
    known = [line for line in map(_range, channels) if line is not None]
    if known:
        blocks.append(_ranges_picture(known))
    if channels:
        blocks.append(_channel_table(channels))
    blocks.append(_calibration_facts(record))
    if shares := reading.record(record, "gesture_shares"):
        blocks.append(_gesture_table(shares))
    saturated = [value for row in channels if (value := words.number(row.get("saturated_share"))) is not None]
    outside = sum(_beyond(line) for line in known)
    lead = ""
    if known:
        lead = f"Test data leave the channel's own range on {outside} of {words.count(len(known), 'channel')}. "
    if saturated:
        lead += f"At most {_share_text(max(saturated))} of a channel's test samples lie outside the range of the whole input."
    return Section("calibration", title, lead, tuple(blocks))


def _range(row: Row) -> Range | None:
    ends = [words.number(row.get(key)) for key in ("calibration_low", "calibration_high", "test_low", "test_high")]
    if ends[0] is None or ends[1] is None:
        return None
    test = (ends[2], ends[3]) if ends[2] is not None and ends[3] is not None else None
    return Range(_channel(row), (ends[0], ends[1]), test)


def _channel(row: Row) -> str:
    return f"ch {row.get('channel')}" if row.get("channel") is not None else "channel"


def _beyond(line: Range) -> bool:
    return line.test is not None and (line.test[0] < line.calibration[0] or line.test[1] > line.calibration[1])


def _ranges_picture(known: list[Range]) -> Picture:
    shown = known[:DRAWN_CHANNELS]
    beyond = [line.label for line in known if _beyond(line)]
    alt = f"Range of {words.count(len(known), 'channel')} in calibration windows and in test data."
    alt += f" Test data go beyond on {words.listed(beyond) or 'none'}."
    caption = "Pale: calibration windows. Line: test data. Red: test data beyond this channel's calibration range."
    if len(known) > len(shown):
        caption += f" The first {len(shown)} of {len(known)} channels."
    return Picture(
        pictures.ranges("calibration", alt, shown, "network input, after normalisation"), caption, pictures.WIDTH
    )


def _channel_table(channels: list[Row]) -> Table:
    rows = []
    for row in channels:
        line = _range(row)
        beyond = line is not None and _beyond(line)
        share = words.number(row.get("saturated_share"))
        rows.append(
            [
                Cell(_channel(row)),
                _pair(row, "calibration"),
                _pair(row, "test", "bad" if beyond else ""),
                _share(share) if share is not None else measured("share", None),
            ]
        )
    columns = [
        named("channel"),
        numeric("calibration windows"),
        numeric("test data"),
        numeric("test samples outside calibration"),
    ]
    return table(
        "Range per channel, lowest to highest network input",
        columns,
        rows[:DRAWN_CHANNELS],
        f"{len(rows) - DRAWN_CHANNELS} more channels are in report.json." if len(rows) > DRAWN_CHANNELS else "",
    )


def _pair(row: Row, which: str, kind: str = "") -> Cell:
    low, high = words.number(row.get(f"{which}_low")), words.number(row.get(f"{which}_high"))
    if low is None or high is None:
        return measured("range", None)
    text = f"{words.significant(low, 3)} to {words.significant(high, 3)}".replace("-", "−")
    return Cell(text, "bad" if kind == "bad" else "", note="goes beyond" if kind == "bad" else "")


def _calibration_facts(record: Row) -> Facts:
    share = words.number(record.get("rest_share"))
    pairs = [
        (words.capital(key), words.count(record.get(key), "").strip()) for key in ("windows", "wearers", "sessions")
    ]
    return Facts(
        "What the set holds", (*pairs, ("Share of rest", words.NOT_MEASURED if share is None else words.percent(share)))
    )


def _gesture_table(shares: Row) -> Table:
    ordered = sorted(shares.items(), key=lambda item: -(words.number(item[1]) or 0.0))
    rows = [
        [
            Cell(words.gesture_name(name)),
            Cell(words.percent(share), share=share) if share is not None else measured("share", None),
        ]
        for name, value in ordered
        for share in [words.number(value)]
    ]
    return table("Share of each gesture", [named("gesture"), numeric("share of windows")], rows)

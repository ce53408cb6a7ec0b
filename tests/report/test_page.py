"""The page stands alone, says what is missing, takes hostile names, and opens in a browser without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.report import write_page
from embridge_edge.report.page import SECTIONS, render

VOID = {"meta", "link", "br", "wbr", "hr", "img", "input"}
HOSTILE = "<script>alert(1)</script>\"'&$\\frac{$ http://evil.example/x \x00\x1b[31m\u202e\ud800"
SECTION_NAMES = (
    "recipe",
    "data",
    "chain",
    "results",
    "confusions",
    "per_wearer",
    "quantization",
    "parity",
    "artifacts",
    "target",
    "latency",
    "calibration",
    "gates",
    "minutes",
    "host",
    "versions",
)


class Page(HTMLParser):
    """Checks that elements nest, and keeps what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute of <{tag}> is there twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words).replace("\u2060", ""))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def pictures(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg .*?</svg>", text, re.DOTALL)]  # noqa: S314


@pytest.fixture(scope="module")
def rendered(full_report: dict[str, Any]) -> str:
    """The page of the example; drawing it takes a second or two."""
    return render(full_report)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, for tests of words."""
    monkeypatch.setattr("embridge_edge.report.pictures._svg", lambda *_: "<svg></svg>")


def nulled(value: Any) -> Any:
    """The same structure with None for every value."""
    if isinstance(value, dict):
        return {key: nulled(item) for key, item in value.items()}
    return [nulled(item) for item in value] if isinstance(value, list) else None


def test_page_is_well_formed_and_small(report: dict[str, Any], tmp_path: Path) -> None:
    write_page(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert len(text.encode()) < 500_000
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {str(attributes["href"]).removeprefix("#") for attributes in page.named("a")}
    assert links <= set(ids) and len(links) == len(SECTIONS)


def test_every_picture_is_there_and_says_what_it_shows(rendered: str) -> None:
    drawn = pictures(rendered)
    # Two splits: accuracy, confusion and wearers each; layers, budget, calibration.
    assert len(drawn) == 9
    for svg in drawn:
        assert svg.get("role") == "img"
        assert len(svg.get("aria-label") or "") > 20
        assert svg.get("viewBox")
    assert "Confusion matrix" in " ".join(svg.get("aria-label") or "" for svg in drawn)


def test_pictures_take_their_colours_from_the_page(rendered: str) -> None:
    text = rendered
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    defined = set(re.findall(r"--([\w-]+):", text))
    assert used <= defined
    assert not re.findall(
        r"(?:fill|stroke): #(?!000000|ffffff)[0-9a-f]{6}", "".join(re.findall(r"<svg .*?</svg>", text, re.DOTALL))
    )


def test_every_table_has_a_caption_and_every_row_its_name(rendered: str) -> None:
    text = rendered
    page = Page(text)
    assert len(page.named("table")) == len(page.named("caption")) > 8
    body_rows = sum(len(re.findall("<tr>\n", body)) for body in re.findall(r"<tbody>.*?</tbody>", text, re.DOTALL))
    assert sum(attributes.get("scope") == "row" for attributes in page.named("th")) == body_rows


def test_page_asks_for_nothing_from_outside(rendered: str) -> None:
    page = Page(rendered)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "img", "object", "embed", "base")
        for name, value in attributes.items():
            if name != "xmlns":
                assert "://" not in (value or ""), (tag, name, value)
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert (value or "").startswith(("#", "data:,")), (tag, value)
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")


def test_same_report_gives_the_same_bytes(report: dict[str, Any], rendered: str) -> None:
    assert render(report) == rendered


def test_a_missed_gate_comes_first(rendered: str) -> None:
    text = Page(rendered).text
    assert "1 of 7 gates missed, 1 not measured" in text
    assert text.index("✗ missed") < text.index("✓ passed")
    # As many decimals as it takes to see that the limit is missed.
    assert "3.04 %" in text and "≤ 3.00 %" in text


@pytest.mark.usefixtures("undrawn")
def test_passed_gates_do_not_hide_that_the_model_does_not_fit(report: dict[str, Any]) -> None:
    report["gates"] = [gate | {"ok": True} for gate in report["gates"]]
    assert "All 7 gates passed" in Page(render(report)).text
    report["target"]["ok"] = False
    assert "All 7 gates passed, but the model does not fit nrf52840" in Page(render(report)).text


def test_worst_gesture_is_flagged(rendered: str) -> None:
    text = Page(rendered).text
    assert re.search(r"Worst gesture of the distilled student, int8, .*unseen wearers: pronation with recall \d", text)


@pytest.mark.usefixtures("undrawn")
def test_layers_that_int8_hurts_most_come_with_the_line_that_mends_most(report: dict[str, Any]) -> None:
    text = Page(render(report)).text
    shown = text[text.index("The layers that int8 hurts most") :]
    assert shown.index("student/embedding") < shown.index("student/pool/matmul") < shown.index("student/block3/relu")
    assert "student/block0" not in shown[: shown.index("All layers in int8")]
    assert 'The recipe line that mends most: [quantize] wide = ["student/embedding"].' in shown
    report["quantization"]["sensitivity"]["advice"] = None
    assert "No layer's 16 bits mend a tenth of it." in Page(render(report)).text


def test_a_search_for_16_bit_layers_is_drawn_from_its_start_on(report: dict[str, Any]) -> None:
    def mix(*wide: str) -> dict[str, Any]:
        damage = {"mean_removed_error": 0.04 / (1 + len(wide)), "class_flips": 0.01}
        costs = {"size_bytes": 90_000 + 600 * len(wide), "peak_bytes": 9000, "wide_macs": 100 * len(wide), "macs": 1000}
        return {"wide": list(wide), "damage": damage, **costs}

    report["quantization"]["mixing"] = [mix("pool", "stem"), mix("pool", "stem", "block1"), {}]
    page = render(report)
    shown = Page(page).text[Page(page).text.index("Mixed precision: what each further layer") :]
    assert (
        shown.index("start: pool, stem") < shown.index("block1") < shown.index("The last row is the model that ships")
    )
    assert "start: pool, stem: " in page and "block1: " in page
    report["quantization"]["mixing"] = [mix(), mix("pool")]
    assert "all int8" in Page(render(report)).text


@pytest.mark.usefixtures("undrawn")
def test_latency_is_said_to_be_the_hosts(report: dict[str, Any]) -> None:
    text = Page(render(report)).text
    assert "Host wall clock (Example CPU @ 2.00GHz): says nothing about nrf52840" in text
    report["latency"] = [row | {"source": "board over UART"} for row in report["latency"]]
    assert "Host wall clock (" not in Page(render(report)).text


@pytest.mark.parametrize("name", SECTION_NAMES)
@pytest.mark.parametrize("empty", ["missing", "none", "empty"])
@pytest.mark.usefixtures("undrawn")
def test_a_missing_section_is_said(report: dict[str, Any], name: str, empty: str) -> None:
    if empty == "missing":
        del report[name]
    else:
        report[name] = None if empty == "none" else type(report[name])()
    page = Page(render(report))
    if name in ("data", "chain", "results", "confusions", "per_wearer", "parity", "latency", "calibration", "minutes"):
        assert "Not measured:" in page.text
    assert "None" not in page.text and "nan" not in page.text.split()


def test_a_report_of_nothing_is_still_a_page() -> None:
    page = Page(render({}))
    assert "No gate was set" in page.text
    assert page.text.count("Not measured:") == len(SECTIONS) - 1
    assert not page.named("svg")


@pytest.mark.usefixtures("undrawn")
def test_values_that_are_none_are_not_blank(report: dict[str, Any]) -> None:
    page = Page(render(nulled(report)))
    assert "not measured" in page.text and "not stated" in page.text
    assert "None" not in page.text.split()


@pytest.mark.usefixtures("undrawn")
def test_poses_of_one_wearer_have_no_interval_and_no_confusion(poses: dict[str, Any]) -> None:
    text = Page(render(poses)).text
    assert "R² of the joint angles by split" in text
    assert "none: fewer than 3 wearers" in text
    assert "the data have no gesture classes" in text
    assert "chance" not in text


def test_hostile_names_stay_text(report: dict[str, Any]) -> None:
    names = [f"{HOSTILE} {index}" for index in range(8)]
    report["title"] = report["data"]["name"] = HOSTILE
    report["data"]["problems"] = [HOSTILE]
    report["data"]["gestures"] = names
    for table in report["confusions"]:
        table["gestures"] = names
    for row in [*report["results"], *report["per_wearer"]]:
        row["model"] = HOSTILE if row["model"] == "teacher" else row["model"]
    report["quantization"]["layers"][0]["name"] = HOSTILE
    report["quantization"]["sensitivity"]["layers"][-1]["name"] = HOSTILE
    report["quantization"]["sensitivity"]["advice"] = HOSTILE
    report["artifacts"][0]["path"] = HOSTILE
    report["versions"][HOSTILE] = HOSTILE
    report["recipe"][HOSTILE] = {HOSTILE: HOSTILE}
    text = render(report)
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "alert(1)" in page.text
    assert not re.search("[\x00\x1b\u202e\ud800]", text)
    assert len(pictures(text)) == 9
    text.encode("utf-8")


def test_many_gestures_and_many_wearers_fit(report: dict[str, Any]) -> None:
    many = 22
    names = [f"gesture_number_{index}" for index in range(many)]
    counts = [[90 if row == column else 1 for column in range(many)] for row in range(many)]
    report["confusions"] = [{"model": "student_int8", "split": "wearer", "gestures": names, "counts": counts}]
    report["per_wearer"] = [
        row | {"wearer": f"w{copy}{row['wearer']}"} for row in report["per_wearer"] for copy in range(5)
    ]
    assert len(render(report).encode()) < 500_000


def test_page_that_cannot_be_written_is_one_line(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeError, match="choose another --out"):
        write_page({}, tmp_path / "file" / "report.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[str]:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            yield found
            return
    pytest.skip("chromium is not installed: apt-get install chromium")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_opens_the_page_without_a_complaint(
    report: dict[str, Any], tmp_path: Path, chromium: str, scheme: str
) -> None:
    write_page(report, tmp_path / "report.html")
    picture = tmp_path / "page.png"
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--enable-logging=stderr",
        "--hide-scrollbars",
        "--window-size=1240,2000",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}",
    )
    page = (tmp_path / "report.html").as_uri()
    done = subprocess.run([chromium, *flags, page], capture_output=True, text=True, timeout=120, check=False)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 50_000
    corner = _first_pixel(picture)
    assert max(corner) < 60 if scheme == "dark" else min(corner) == 255


def _first_pixel(path: Path) -> tuple[int, ...]:
    from matplotlib.image import imread

    return tuple(int(255 * value) for value in imread(path)[0, 0, :3])


def test_page_has_both_int8_models_where_one_was_trained_with_rounding(report: dict[str, Any]) -> None:
    assert "trained with rounding" not in render(report)
    report["quantization"]["forms"] = [
        {"name": "ptq", "windows": 1000, "class_flips": 0.021, "mean_removed_error": 0.052, "balanced_accuracy": None},
        {"name": "qat", "windows": 1000, "class_flips": None, "mean_removed_error": 0.031, "balanced_accuracy": 0.7},
    ]
    text = Page(render(report)).text
    assert "int8, quantized as it is" in text and "int8, trained with rounding" in text
    assert text.count("not measured") > 1

"""The examples in the documentation give what stands there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "features.md"
EXAMPLES = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL) if ">>>" in block]


def test_each_part_that_no_chain_uses_has_an_example() -> None:
    whole = "\n".join(EXAMPLES)
    for part in ("mains.canceller(", "mains.comb(", "Resampler(", "fixed_point.quantise("):
        assert part in whole


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_gives_what_stands_there(number: int) -> None:
    test = doctest.DocTestParser().get_doctest(EXAMPLES[number], {}, f"example {number + 1}", str(PAGE), None)
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)

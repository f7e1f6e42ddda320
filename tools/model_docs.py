"""Write the generated tables of docs/models.md: the networks, and the words of a one-line network.

python tools/model_docs.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

from convolve.draw.models import model_markdown  # noqa: E402
from convolve.jobs.models import models  # noqa: E402
from convolve.models.spec import LAYERS  # noqa: E402

PAGE = ROOT / "docs" / "models.md"


def tables() -> dict[str, str]:
    """The generated tables by the name in their marks."""
    words = [f"| `{word}` | `{(word + ' ' + layer.usage).strip()}` |" for word, layer in LAYERS.items()]
    return {
        "networks": model_markdown(models(variants=True)),
        "words": "\n".join(["| word | written |", "|---|---|", *words]),
    }


def filled(page: str) -> str:
    """The page with each table between its marks `<!-- NAME -->` and `<!-- end -->`."""
    for name, table in tables().items():
        before, mark, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert mark, f"no mark for {name}"
        assert end, f"no end mark for {name}"
        page = before + mark + table + "\n" + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

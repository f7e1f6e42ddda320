"""`convolve claims`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json


def claims(
    *ids: str,
    slow: Annotated[bool, Parameter(negative=())] = False,
    data: Annotated[list[str] | None, Parameter(negative=())] = None,
    markdown: Path | None = None,
    json: Json = False,
) -> None:
    """Recompute what introductions say about convolution; exit code 4 if a number disagrees.

    Parameters
    ----------
    ids
        Ids such as S000-3, or a text such as S003. [default: all]
    slow
        Also repeat the measurements, which take seconds, and those by training, which take minutes.
    data
        What networks are trained on, as `convolve train` takes it; again for more. [default: digits]
    markdown
        Write the results as a Markdown page to this file.
    """
    from convolve.draw.claims import as_markdown, as_text
    from convolve.errors import CheckFailedError
    from convolve.files import atomic_write
    from convolve.jobs.claims import check_claims

    found = check_claims(ids, slow=slow, data=tuple(data or ("digits",)))
    wrong = [row.claim.id for row in found if not row.agrees]
    if markdown is not None:
        with atomic_write(markdown) as file:
            file.write(as_markdown(found))
        output.message(f"wrote {markdown}")
    if json:
        output.document("claims", {"claims": [row.to_json() for row in found], "mismatches": wrong})
        if wrong:
            raise SystemExit(CheckFailedError.exit_code)
        return
    for row in found:
        output.result(as_text(row))
    counts = {
        verdict: sum(row.verdict == verdict for row in found) for verdict in dict.fromkeys(row.verdict for row in found)
    }
    output.result(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if wrong:
        raise CheckFailedError(
            "a claim came out otherwise than its row says", ", ".join(wrong), "see the facts marked with a cross"
        )

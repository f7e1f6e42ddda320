"""Every claim of the texts under its id; the page that is written from them; the verb's exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import convolve
from convolve.cli import main
from convolve.draw.claims import as_markdown
from convolve.errors import UnknownNameError
from convolve.jobs import claims
from convolve.jobs.claims.record import Claim, Fact, near, same, true

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
# Written out, not counted: an id that falls out of the table must be missed.
IDS = [
    *(f"S000-{n}" for n in range(1, 11)),
    *(f"S001-{n}" for n in range(1, 16)),
    *(f"S002-{n}" for n in range(1, 7)),
    *(f"S003-{n}" for n in range(1, 10)),
    *(f"S004-{n}" for n in range(1, 11)),
]
BY_TRAINING = ["S001-13", "S001-14", "S003-7", "S003-9"]
ELSEWHERE = ["S001-8"]


def test_the_table_has_every_id_in_order_and_says_what_waits_for_training() -> None:
    assert [claim.id for claim in claims.CLAIMS] == IDS
    assert [claim.id for claim in claims.CLAIMS if claim.facts is None] == [*ELSEWHERE, *BY_TRAINING]
    for claim in claims.CLAIMS:
        assert bool(claim.pending) == (claim.facts is None) == (claim.verdict is None), claim.id
        if claim.verdict in ("holds as corrected", "false"):
            assert claim.correct, claim.id


@pytest.mark.parametrize("claim_id", [claim.id for claim in claims.CLAIMS if claim.facts is not None])
def test_claim(claim_id: str) -> None:
    (row,) = convolve.check_claims([claim_id])
    assert row.facts, "a claim is decided by facts"
    for fact in row.facts:
        assert fact.agrees, f"{fact.what}: got {fact.got}, expected {fact.want}"
    assert row.verdict == row.claim.verdict


def test_the_claims_leave_the_callers_generator_alone() -> None:
    state = torch.get_rng_state()
    convolve.check_claims(["S000"])
    assert torch.get_rng_state().equal(state)


def test_a_text_selects_its_claims_and_measurements_run_when_named() -> None:
    assert [row.claim.id for row in convolve.check_claims(["s002"])] == [f"S002-{n}" for n in range(1, 7)]
    (skipped,) = [row for row in convolve.check_claims(["S001"]) if row.claim.id == "S001-12"]
    assert skipped.verdict == "not recomputed"
    assert "--slow" in skipped.skipped
    with pytest.raises(UnknownNameError, match="unknown claim; got 'S000-99'; use S000"):
        convolve.check_claims(["S000-99"])


def test_facts_compare_by_value() -> None:
    assert same("", torch.tensor([[1.0, 2.0]]), [[1, 2]]).agrees
    assert not same("", torch.tensor([1.0, 2.5]), [1, 2]).agrees
    assert near("", 0.5004, 0.5, 1e-3).agrees
    assert not near("", 0.502, 0.5, 1e-3).agrees
    assert not near("", float("nan"), 0.5, 1e-3).agrees
    assert not true("", False).agrees


def test_the_page_is_the_one_that_the_table_writes() -> None:
    """Every line but the measured values, which may differ in the last digit from machine to machine."""
    page = PAGE.read_text(encoding="utf-8")
    fresh = as_markdown(convolve.check_claims(slow=True))
    words = lambda text: [line.partition(": ")[0] for line in text.splitlines()]  # noqa: E731
    assert words(page) == words(fresh), "run `make docs`"


def test_the_verb_prints_statement_value_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "S003-6", "S000-1"]) == 0
    printed = capsys.readouterr().out
    assert "S003-6   false" in printed
    assert "Convolution is translation invariant." in printed
    assert "It is equivariant" in printed
    assert "[[19, 25], [37, 43]]" in printed
    assert "1 holds, 1 false" in printed


def test_the_verb_gives_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "S002-2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"], document["mismatches"]) == ("convolve.claims", 1, [])
    (row,) = document["claims"]
    assert row["facts"][0] == {
        "what": "(3, 6, 6) with 64 filters (3, 3, 3), stride 2",
        "got": [64, 2, 2],
        "want": [64, 2, 2],
        "agrees": True,
    }


def test_a_mismatch_is_shown_and_ends_with_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Claim("S009-1", "two and two is five", "holds", lambda: [same("2 + 2", 2 + 2, 5)])
    monkeypatch.setattr(claims, "CLAIMS", (wrong,))
    assert main(["claims"]) == 4
    captured = capsys.readouterr()
    assert "S009-1   mismatch" in captured.out
    assert "✗        2 + 2: 4 (expected 5)" in captured.out
    assert "S009-1" in captured.err
    with pytest.raises(SystemExit) as stopped:
        main(["claims", "--json"])
    assert stopped.value.code == 4
    assert json.loads(capsys.readouterr().out)["mismatches"] == ["S009-1"]


def test_a_page_is_written_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fact = Fact("2 + 2", 4, 4, True)
    monkeypatch.setattr(claims, "CLAIMS", (Claim("S009-1", "two and two is four", "holds", lambda: [fact]),))
    assert main(["claims", "--markdown", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| [S009-1](#s009-1) | two and two is four | holds |" in page
    assert "- 2 + 2: 4" in page

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
from convolve.jobs.claims import trained
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


def test_the_table_has_every_id_in_order_and_names_what_training_decides() -> None:
    assert [claim.id for claim in claims.CLAIMS] == IDS
    assert [claim.id for claim in claims.CLAIMS if claim.trained is not None] == BY_TRAINING
    for claim in claims.CLAIMS:
        assert (claim.trained is None) == (claim.facts is not None), claim.id
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


def words(text: str) -> list[str]:
    """Every line without its measured value, which may differ in the last digit from machine to machine."""
    return [line.rpartition(": ")[0] or line for line in text.splitlines()]


def sections(page: str) -> dict[str, list[str]]:
    head, *parts = page.split("\n## ")
    return {"head": words(head)} | {part.partition("\n")[0]: words(part) for part in parts}


def test_the_page_is_the_one_that_the_table_writes() -> None:
    """Without what takes minutes of training: `test_training_decides` holds that."""
    quick = [claim.id for claim in claims.CLAIMS if claim.trained is None]
    written = sections(PAGE.read_text(encoding="utf-8"))
    fresh = sections(as_markdown(convolve.check_claims(quick, slow=True)))
    assert list(written) == ["head", *IDS]
    assert [line for line in written["head"] if not any(f"[{name}]" in line for name in BY_TRAINING)] == fresh["head"]
    for name in quick:
        assert written[name] == fresh[name], f"{name}: run `make docs`"


def test_what_training_decides_is_measured_on_the_data_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole measurement, made small: one seed less, few images."""
    monkeypatch.setattr(trained, "SEEDS", 2)
    monkeypatch.setattr(trained, "MORE_SEEDS", 2)
    monkeypatch.setattr(trained, "FEW", 200)
    monkeypatch.setattr(trained, "MANY", 200)
    monkeypatch.setattr(trained, "SEEN", 1_000)
    state = torch.get_rng_state()
    for name in BY_TRAINING:
        (row,) = convolve.check_claims([name])
        assert len(row.facts) >= 5
        assert all(fact.what.startswith("digits: ") for fact in row.facts)
        shares = [float(fact.got.partition(" ±")[0]) for fact in row.facts if fact.what.endswith(", %")]
        assert len(shares) >= 4
        assert all(-30 < share <= 100 for share in shares)
    assert torch.equal(state, torch.get_rng_state())
    (skipped,) = [row for row in convolve.check_claims(["S003"]) if row.claim.id == "S003-7"]
    assert skipped.skipped == "decided by training: name its id, or use --slow"


def test_the_designed_filters_are_the_ones_they_are_called() -> None:
    bank = trained.hand_designed(3)
    assert bank.shape == (12, 3, 5, 5)
    assert torch.equal(bank[:6], -bank[6:])
    torch.testing.assert_close(bank.sum(1).flatten(1).norm(dim=1), torch.full((12,), 2**0.5), rtol=1e-3, atol=0)
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    torch.testing.assert_close(bank[0].sum(0)[1:4, 1:4], sobel * 2**0.5 / sobel.norm(), rtol=1e-3, atol=1e-6)
    assert bank.sum((1, 2, 3)).abs().max() < 1e-5  # none of them answers to a plain area
    assert trained.hand_designed(1).shape == (12, 1, 5, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_TRAINING)
def test_training_decides(name: str) -> None:
    (row,) = convolve.check_claims([name])
    assert row.agrees
    assert row.verdict == row.claim.verdict
    page = sections(PAGE.read_text(encoding="utf-8"))
    assert page[name] == sections(as_markdown([row]))[name], "run `make docs`"


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

"""The command ``repro``: known laws, looked for through the deployed shard in virtual time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from paramserver.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from paramserver.repro import Claim, Findings


def repro(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Which claim; without it they are listed.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Examine every claim.")] = False,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", help="How many seeds, from 0 on; at least 5. (default: 5)", show_default=False
        ),
    ] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print the findings as one JSON document.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", metavar="", help="Print the findings as a page, as docs/laws.md.")
    ] = False,
) -> int:
    """Examine a known law of distributed training, and say whether it holds here.

    Exits with 1 if a claim does not hold. Each takes less than a minute.
    """
    from paramserver.repro import CLAIMS, SEEDS_LEAST

    if name is not None and everything:
        raise RequestError(f"Both --all and the name '{name}' are given. Give one of them.")
    if as_json and as_markdown:
        raise RequestError("Both --json and --markdown are given. Give one of them.")
    if name is None and not everything:
        if as_json or as_markdown:
            raise RequestError("No claim is named. Name one, or give --all.")
        _list(list(CLAIMS.values()))
        return 0
    if name is not None and name not in CLAIMS:
        raise RequestError(
            f"Unknown claim '{name}': expected one of {', '.join(CLAIMS)}.{did_you_mean(name, CLAIMS)}"
        )
    if seeds < SEEDS_LEAST:
        raise RequestError(
            f"The bands are for means over at least {SEEDS_LEAST} seeds, but --seeds is {seeds}. Give "
            f"{SEEDS_LEAST} or more."
        )
    return _examine(
        [CLAIMS[name]] if name is not None else list(CLAIMS.values()), seeds, as_json, as_markdown
    )


def _list(claims: list[Claim]) -> None:
    width = max(len(claim.name) for claim in claims)
    print("Claims that paramserver repro NAME examines:")
    for claim in claims:
        print(f"  {claim.name:{width}}  {claim.title}")


def _examine(claims: list[Claim], seeds: int, as_json: bool, as_markdown: bool) -> int:
    from rich.console import Console

    from paramserver.repro import as_mapping, examine, markdown
    from paramserver.storage import json_text

    with Console(file=sys.stderr).status("", spinner="line") as status:  # shows nothing where no terminal is

        def found_by(claim: Claim) -> Findings:
            return examine(claim, range(seeds), on_case=lambda case: status.update(f"{claim.name}: {case}"))

        found = [found_by(claim) for claim in claims]
    if as_json:
        mappings = [as_mapping(one) for one in found]
        print(json_text(mappings[0] if len(claims) == 1 else {"claims": mappings}, indent=2))
    elif as_markdown:
        print(markdown(found), end="")
    else:
        console = Console(file=sys.stdout, force_terminal=None if sys.stdout.isatty() else False)
        for one in found:
            with console.capture() as captured:
                _show(console, one)
            for line in captured.get().splitlines():
                console.out(line.rstrip(), highlight=False)  # without the filling at the right
    return 0 if all(one.holds for one in found) else 1


def _show(console: Console, findings: Findings) -> None:
    from rich.table import Table

    from paramserver.repro import seeds_text, tables
    from paramserver.repro.pages import VERDICTS

    claim = findings.claim
    console.print(claim.title, style="bold", markup=False, highlight=False)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for head, text in (
        ("claim", claim.says),
        ("source", f"{claim.source}."),
        ("setting", f"{claim.setting} {seeds_text(findings.seeds).capitalize()}."),
        ("band", claim.band),
    ):
        facts.add_row(head, text)
    console.print(facts, markup=False, highlight=False)
    for heads, rows in tables(findings):
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("")
        for head in heads[1:]:
            table.add_column(head, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print()
        console.print(table, markup=False, highlight=False)
    console.print()
    for says, holds in findings.checks:
        console.print(f"{says} This {VERDICTS[holds]}.", markup=False, highlight=False)
    for sentence in findings.report:
        console.print(sentence, markup=False, highlight=False)
    console.print(
        f"{claim.name}: the claim {VERDICTS[findings.holds]}.", style="bold", markup=False, highlight=False
    )
    console.print()

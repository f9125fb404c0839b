"""What a claim is made of, and how it is examined."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from paramserver.sim import World, parse_compute, parse_network


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured quantity, a column of the table.

    Attributes:
        name: heads the column, with its unit if it has one.
        digits: after the point.
    """

    name: str
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Band:
    """Where the mean of a quantity over the seeds must be, both ends included.

    Attributes:
        expected: what the claim says.
        low: least.
        high: most.
    """

    expected: float
    low: float
    high: float

    @classmethod
    def around(cls, expected: float, share: float) -> Band:
        """Return the band that reaches a share of what is expected to either side."""
        return cls(expected, expected * (1 - share), expected * (1 + share))


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        name: heads the row.
        measure: takes a seed, and returns some quantities by name.
        bands: of those quantities of which the claim says what they are.
    """

    name: str
    measure: Callable[[int], Mapping[str, float]]
    bands: Mapping[str, Band]


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the table.

    Attributes:
        values: one for each seed.
        band: where their mean must be; None where the claim does not say.
    """

    values: tuple[float, ...]
    band: Band | None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return fmean(self.values)

    @property
    def holds(self) -> bool:
        """Say whether the mean is in its band; it is where there is none."""
        return self.band is None or self.band.low <= self.mean <= self.band.high


Figures = Mapping[str, Mapping[str, Figure]]
"""Figures by case and quantity."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a claim says of several figures together.

    Attributes:
        says: as a sentence.
        holds: whether it is so.
    """

    says: str
    holds: Callable[[Figures], bool]


@dataclass(frozen=True, slots=True)
class Claim:
    """Something known, and how it is looked for here.

    Attributes:
        name: of the command line.
        title: in a few words.
        says: the claim, in sentences.
        source: author, year, section.
        setting: exactly what is run, in sentences.
        band: how the bands were fixed, in sentences.
        quantities: what is measured, in the order of the columns.
        cases: the rows.
        checks: what is said of several rows together.
        report: returns further sentences about what was found, which decide nothing.
    """

    name: str
    title: str
    says: str
    source: str
    setting: str
    band: str
    quantities: tuple[Quantity, ...]
    cases: tuple[Case, ...]
    checks: tuple[Check, ...] = ()
    report: Callable[[Figures], list[str]] = lambda figures: []


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of a claim.

    Attributes:
        claim: which.
        seeds: over which.
        figures: by case and quantity.
        checks: what is said of several rows, and whether it is so.
        report: further sentences.
    """

    claim: Claim
    seeds: tuple[int, ...]
    figures: Figures
    checks: tuple[tuple[str, bool], ...]
    report: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Say whether every mean is in its band and every check holds."""
        figures = (figure for row in self.figures.values() for figure in row.values())
        return all(figure.holds for figure in figures) and all(holds for _, holds in self.checks)


def examine(
    claim: Claim,
    seeds: Sequence[int],
    cases: Collection[str] | None = None,
    on_case: Callable[[str], object] = lambda name: None,
) -> Findings:
    """Run every case of a claim with every seed.

    Args:
        claim: which.
        seeds: of the worlds; the same seeds for every case.
        cases: names of those to run; None for all.
        on_case: called with the name of each case before it runs.
    """
    figures: dict[str, dict[str, Figure]] = {}
    for case in claim.cases:
        if cases is not None and case.name not in cases:
            continue
        on_case(case.name)
        measured = [case.measure(seed) for seed in seeds]
        figures[case.name] = {
            name: Figure(tuple(one[name] for one in measured), case.bands.get(name)) for name in measured[0]
        }
    checks = tuple((check.says, check.holds(figures)) for check in claim.checks)
    return Findings(claim, tuple(seeds), figures, checks, tuple(claim.report(figures)))


def ideal_world(compute: str, seed: int) -> World:
    """Return a world in which only gradients take time: that is what the laws are about."""
    return World(parse_compute(compute), parse_network("ideal"), seed=seed)

"""docs/cli.md is the help of the program: a command or an option that is not in it fails a test.

``pytest tests/unit/test_cli_reference.py --rewrite`` writes it anew.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import server.options
import worker.options
from paramserver.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
MARK = "<!-- What follows is made from the program's own help; the tests tell how. -->\n"
PROGRAMS = {"server": server.options._parser, "worker": worker.options._parser}
OPENING = "# The command line\n\n"


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, by the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    for name, each in (inner or {}).items():
        if not each.hidden:
            yield from commands(each, (*path, name))


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of options or arguments."""
    lines = [f"| {title} | |", "| --- | --- |"]
    for name, text in rows:
        in_code = name.replace("|", "\\|")
        in_text = re.sub(r"([|<])", r"\\\1", text)  # else the one ends the cell, and the other begins a tag
        lines.append(f"| `{in_code}` | {in_text} |")
    return "\n".join(lines) + "\n"


def told(text: str | None, default: object) -> str:
    """Return the help of an option in one line, with its default where the help does not name it."""
    line = " ".join((text or "").split())
    if "default:" in line or default in (None, "", False) or callable(default):
        return line
    return f"{line} (default: {default})"


def section_of_command(path: tuple[str, ...], command: Any) -> str:
    """Describe a command by its parameters."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = [*path, *(["[OPTIONS]"] if options else []), *(name_of_argument(each) for each in arguments)]
    parts = [f"## `{' '.join(path)}`\n", f"`{' '.join(usage)}`\n", paragraphs(command.help)]
    if arguments:
        parts.append(
            table("Argument", ((name_of_argument(each), told(each.help, each.default)) for each in arguments))
        )
    panels = list(dict.fromkeys(each.rich_help_panel for each in options))
    for panel in panels:
        rows = [
            (names_of_option(each), told(each.help, each.default))
            for each in options
            if each.rich_help_panel == panel
        ]
        parts.append(table(panel or "Option", rows))
    return "\n".join(parts)


def section_of_program(path: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    """Describe a program by its parser."""
    rows = []
    for action in parser._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            metavar = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else "")
            name = " ".join([", ".join(action.option_strings), str(metavar)]).strip()
            needed = " (needed)" if action.required else ""
            rows.append((name, told(action.help, action.default) + needed))
    return "\n".join(
        [
            f"## `{' '.join(path)}`\n",
            f"`{' '.join(path)} [OPTIONS]`\n",
            f"{parser.description}\n",
            table("Option", rows),
        ]
    )


def name_of_argument(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def names_of_option(option: Any) -> str:
    metavar = "" if option.is_flag else option.metavar or option.type.name.upper()
    return f"{', '.join([*option.opts, *option.secondary_opts])} {metavar}".strip()


def paragraphs(text: str | None) -> str:
    """Return a docstring, each paragraph in one line."""
    return "".join(f"{' '.join(part.split())}\n\n" for part in (text or "").split("\n\n")).removesuffix("\n")


def reference() -> str:
    """Return the whole reference as the program would have it."""
    sections = []
    for path, command in commands(typer.main.get_command(app), ("paramserver",)):
        parser = PROGRAMS.get(path[-1]) if len(path) == 2 else None
        sections.append(
            section_of_program(path, parser()) if parser is not None else section_of_command(path, command)
        )
    return "\n".join(sections)


def test_the_page_is_the_help_of_the_program(request: pytest.FixtureRequest) -> None:
    found = PAGE.read_text(encoding="utf-8") if PAGE.exists() else OPENING
    opening, _, _ = found.partition(MARK)
    expected = f"{opening}{MARK}\n{reference()}"
    if found != expected and request.config.getoption("rewrite"):
        PAGE.write_text(expected, encoding="utf-8")
    assert found == expected, "Run this file with --rewrite, and read what has changed in docs/cli.md."


def test_every_command_and_option_is_in_the_page() -> None:
    """Look at the page in another way than it is made, so that a hole in that shows."""
    headings = re.findall(r"^## `paramserver (.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    sections = re.split(r"^## .*$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    told_of = dict(zip(headings, sections, strict=True))
    for path, command in commands(typer.main.get_command(app), ()):
        section = told_of.pop(" ".join(path))
        parser = PROGRAMS.get(" ".join(path))
        options = [name for each in command.params for name in each.opts if name.startswith("-")]
        if parser is not None:
            options = [name for name in parser()._option_string_actions if name not in ("-h", "--help")]
            assert options
        for option in options:
            assert re.search(rf"^\| `([^`]*, )?{option}[ ,`]", section, re.MULTILINE), option
    assert told_of == {}


def test_every_command_and_option_says_what_it_is() -> None:
    for line in reference().splitlines():
        if line.startswith("| `"):
            assert not line.endswith("| |"), line

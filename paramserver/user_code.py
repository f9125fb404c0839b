"""A user's own Python file: a model, data, or both, and the options of its job.

    def data():                    # a name or path as --data takes it, (inputs, labels), a Dataset or Splits
    def model(features, classes):  # a text such as "mlp:32", a Network's model, or an object as in models/own
    JOB = {"epochs": 5}            # options of ``paramserver train``, by name

To the next editor: this is the one place that runs code which is not ours. It runs only when a person has
named the file on a command line: never because some job file or run folder names it. The bytes that are run
are the bytes that were hashed. The file's folder comes last on the import path, so that nothing in it can
stand in for a module of ours.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from paramserver.errors import RequestError

MODULE: Final = "paramserver_user_code"
"""The module's name while it runs, so that a file may be called anything, even ``numpy.py``."""

BYTES_MAX: Final = 1 << 20
MESSAGE_CHARACTERS_MAX: Final = 500


@dataclass(frozen=True, eq=False)
class UserCode:
    """A user's file that has been run.

    Attributes:
        path: absolute.
        sha256: of the file, in hexadecimal.
        options: what it has in ``JOB``.
    """

    path: Path
    sha256: str
    options: Mapping[str, Any]
    _functions: Mapping[str, Callable[..., Any]] = field(repr=False)

    @property
    def spec(self) -> str:
        """What a model of this file is called, such as ``code:my_job.py``."""
        return f"code:{self.path.name}"

    def defines(self, name: str) -> bool:
        """Say whether the file has the function ``model`` or ``data``."""
        return name in self._functions

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one of its functions with as many of the arguments as it takes: all or none.

        Raises:
            RequestError: it raises; the sentence shows the user's own line.
        """
        function = self._functions[name]
        try:
            takes = len(inspect.signature(function).parameters) > 0
        except (TypeError, ValueError):
            takes = True
        return self.guarded(name, function)(*(arguments if takes else ()))

    def guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function of the user's, so that what it raises names the user's own line.

        Args:
            name: what it is called in a sentence.
            function: the user's.
        """

        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except (Exception, SystemExit) as error:
                raise RequestError(_sentence(error, self.path, name)) from error

        return call


def load_code(path: Path, sha256: str = "") -> UserCode:
    """Run a user's file, and take what it defines.

    Args:
        path: the file.
        sha256: what it has to be; empty where that is not known yet.

    Raises:
        RequestError: it cannot be read, is another file than expected (then it is not run), raises, or
            defines neither ``model`` nor ``data``.
    """
    path = path.expanduser().absolute()
    content = _read(path)
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise RequestError(
            f"{path} is not the file that this job was made with: expected SHA-256 {sha256[:12]}..., found "
            f"{found[:12]}... To train with the file as it is now, begin a new job: "
            f"paramserver train {path.name}."
        )
    lines = content.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[str(path)] = (len(content), None, lines, str(path))
    module = ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        raise RequestError(_sentence(error, path, path.name)) from error
    functions = {name: getattr(module, name) for name in ("model", "data") if hasattr(module, name)}
    for name, function in functions.items():
        if not callable(function):
            raise RequestError(
                f"{path}: '{name}' should be a function, but it is a {type(function).__name__}."
            )
    if not functions:
        raise RequestError(f"{path} defines neither a function 'model' nor a function 'data'. Define one.")
    options = getattr(module, "JOB", {})
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise RequestError(f"{path}: 'JOB' should be a dictionary of options, such as {{'epochs': 5}}.")
    return UserCode(path, found, dict(options), functions)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise RequestError(f"The file {path} cannot be read: {error.strerror or error}.") from None
    if len(content) > BYTES_MAX:
        raise RequestError(f"The file {path} has more than {BYTES_MAX} bytes. Is it Python?")
    return content


def _sentence(error: BaseException, path: Path, where: str) -> str:
    """Say what the user's code has raised, at which line of theirs."""
    kind = "" if isinstance(error, RequestError) else f"{type(error).__name__}: "
    if isinstance(error, SyntaxError) and error.filename == str(path):
        what, line, text = error.msg, error.lineno, error.text or ""
    else:
        what, (line, text, where) = str(error), _place(error, path, where)
    message = " ".join(f"{kind}{what}".split())[:MESSAGE_CHARACTERS_MAX].removesuffix(".").removesuffix(":")
    at = f", line {line}" if line else ""
    inside = "" if where in ("<module>", path.name) else f", in {where}"
    shown = f" The line: {text.strip()}" if text.strip() else ""
    return f"{path.name}{at}{inside}: {message}.{shown}"


def _place(error: BaseException, path: Path, where: str) -> tuple[int, str, str]:
    """Find the last line of the user's file on the way to an error; line 0 where there is none."""
    found = (0, "", where)
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == str(path):
            found = (trace.tb_lineno, linecache.getline(str(path), trace.tb_lineno), code.co_name)
        trace = trace.tb_next
    return found

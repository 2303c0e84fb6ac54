"""What all commands share: errors as one sentence, JSON on stdout, progress on stderr, and small parsers."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from spectra.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, for scripts.")]
Progress = Callable[[str, int, int], None]
"""Called as `progress(phase, done, total)`."""


class StoppedError(Exception):
    """A signal ended a command where it is known what was kept, which the message says."""

    def __init__(self, words: str, code: int = 130) -> None:
        super().__init__(words)
        self.code = code


PHASES = {
    "encode": "reading the pictures",
    "train": "training",
    "validate": "measuring on held-out pictures",
    "sample": "generating pictures",
    "draw": "drawing pictures of the class",
    "features": "looking at the pictures",
}

BAD_INPUT, BUG, INTERRUPTED = 2, 1, 130
MOST_SEEDS = 1_000_000
DISTRIBUTION = "spectra-adapt"
# Libraries whose warnings speak of their own future and not of what the user asked for.
TALKATIVE = r"(accelerate|diffusers|huggingface_hub|peft|torch|transformers|xarray|zarr)(\..*)?"


def application(help_text: str) -> typer.Typer:
    """A typer application that leaves errors to `run` and shows its help when it is called bare."""
    app = typer.Typer(help=help_text, add_completion=False, pretty_exceptions_enable=False)

    @app.callback(invoke_without_command=True)
    def bare(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    ) -> None:
        if version:
            from importlib.metadata import version as installed

            typer.echo(f"{context.info_name} {installed(DISTRIBUTION)}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    bare.__doc__ = help_text
    return app


def run(app: typer.Typer, name: str, argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for bad input, 130 for ctrl-C, 1 for a fault of this program.

    Every failure is one sentence on stderr; SPECTRA_DEBUG=1 shows where it came from.
    """
    debug = os.environ.get("SPECTRA_DEBUG") == "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if argv is None:
        sys.argv[0] = name  # runs record how they were called: by the command's name, not by where it is installed
    with warnings.catch_warnings():
        if not debug:
            warnings.filterwarnings("ignore", module=TALKATIVE)
            warnings.showwarning = partial(_warn, name)
        try:
            code = typer.main.get_command(app).main(argv, prog_name=name, standalone_mode=False)
        except (Exception, KeyboardInterrupt) as error:
            if debug and not isinstance(error, typer.TyperException):
                raise
            return _fail(name, error)
    if code == INTERRUPTED:
        return _fail(name, KeyboardInterrupt())
    return code if isinstance(code, int) else 0


def _warn(name: str, message: Warning | str, *where: object) -> None:
    """Show a warning as one sentence on stderr, without the place in the code."""
    print(f"{name}: {sentence(str(message))}", file=sys.stderr)


def _fail(name: str, error: BaseException) -> int:
    code, text = explain(name, error)
    print(f"{name}: {sentence(text)}", file=sys.stderr)
    return code


def explain(name: str, error: BaseException) -> tuple[int, str]:
    """Exit code and words for an error."""
    match error:
        case UserError():
            return BAD_INPUT, str(error)
        case StoppedError():
            return error.code, str(error)
        case KeyboardInterrupt() | typer.Abort():
            return INTERRUPTED, "stopped by the keyboard"
        case typer.TyperException():
            return BAD_INPUT, _usage(name, error)
        case OSError(filename=str() as path):
            return BAD_INPUT, f"cannot use {path}: {error.strerror or error}"
    return BUG, (
        f"a fault of this program, not of your input ({type(error).__name__}: {error}); "
        "set SPECTRA_DEBUG=1 to see where it happened"
    )


@contextmanager
def kept(words: Callable[[], str]) -> Iterator[None]:
    """Turn ctrl-C inside the block into a StoppedError; `words()` say what was kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(f"stopped by the keyboard; {words()}") from None


def _usage(name: str, error: typer.TyperException) -> str:
    """Typer's words as a clause, and where to look."""
    context = getattr(error, "ctx", None)
    message = re.sub(r"^Invalid value for '(--[a-z-]+)': Input should", r"\1 should", error.format_message())
    if found := re.search(r"\.? \(?(?:Did you mean|Possible options:) ([^)?]*)[)?]*$", message):
        message = f"{message[: found.start()]} (perhaps {', '.join(_nearest(message, found[1].split(', ')))})"
    return f"{message.rstrip('.')}; `{context.command_path if context else name} --help` shows what there is"


def _nearest(message: str, known: Sequence[str]) -> list[str]:
    """The known names, the one most like the name that the message quotes first."""
    found = re.match(r"No such \w+:? '?([^\s'.]+)", message)
    wrong = found[1] if found else ""
    return sorted(known, key=lambda name: -difflib.SequenceMatcher(None, wrong, name.strip("'")).ratio())


def sentence(text: str) -> str:
    """One line that ends in a full stop and holds no control characters, whatever names it quotes."""
    line = " ".join(printable(text).split())
    return line if line.endswith((".", "?", "!")) else f"{line}."


def printable(text: str) -> str:
    """Untrusted text for a terminal: control characters (escape sequences too) become spaces."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", " ", text)


def count(number: int, thing: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines as wide as the terminal, those after the first one indented."""
    width = max(40, shutil.get_terminal_size().columns - 1)
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def emit(document: Any) -> None:
    """Print one JSON document; numbers that JSON cannot say become null."""
    print(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse_seeds(text: str) -> list[int]:
    """`0:8`, `3`, `1,4,7` or a mixture -> seeds. The end of a range is not in it, as in Python."""
    seeds = [seed for part in text.split(",") for seed in _seed_range(part.strip(), text)]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text!r} names a seed twice")
    return seeds


def _seed_range(part: str, text: str) -> range:
    found = re.fullmatch(r"(\d{1,18})(?::(\d{1,18}))?", part)
    if not found:
        raise UserError(f"--seeds {text!r} is not understood; write 0:8 for eight seeds, or 1,4,7")
    start = int(found[1])
    seeds = range(start, int(found[2]) if found[2] else start + 1)
    if not seeds:
        raise UserError(f"--seeds {text!r} holds no seed; write START:END with END above START")
    if len(seeds) > MOST_SEEDS:
        raise UserError(f"--seeds {text!r} holds more than {MOST_SEEDS} seeds; probe in several commands")
    return seeds


def collect_prompts(given: Sequence[str] | None, file: Path | None) -> list[str]:
    """Prompts from options and from a file with one prompt a line (empty ones, and # comments, are left out)."""
    prompts = [*(given or []), *(_lines(file) if file else [])]
    if not all(prompt.strip() for prompt in prompts):
        raise UserError("a prompt is empty; give --prompt some words")
    if unreadable := [prompt for prompt in prompts if not _is_unicode(prompt)]:
        raise UserError(f"the prompt {unreadable[0][:40]!r} is not UTF-8 text; give it in UTF-8, or in a file")
    if not prompts:
        raise UserError("there is no prompt; give --prompt TEXT (as often as you like) or --prompts FILE")
    return prompts


def _is_unicode(text: str) -> bool:
    """False for words of a command line that the terminal encoded otherwise."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        lines = [line for line in lines if not line.startswith("#")]
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text; save it as UTF-8, one prompt a line") from error
    except OSError as error:
        raise UserError(f"cannot read the prompts in {file}: {error.strerror}") from error
    if not any(lines):
        raise UserError(f"{file} holds no prompt; write one a line")
    return [line for line in lines if line]


@contextmanager
def progress_bar(what: str, first: str = "loading the model", show: bool = True) -> Iterator[Progress]:
    """A progress bar on stderr, if that is a terminal; `first` is what is being done before the first call.

    With SPECTRA_PROGRESS=lines each step is one JSON line instead, for programs that show their own bar.
    """
    if os.environ.get("SPECTRA_PROGRESS") == "lines":
        yield json_line
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), *bar_columns())
    with Bars(*columns, console=console, disable=not (show and console.is_terminal), transient=True) as bars:
        task = bars.add_task(what, total=None, now=first)
        yield lambda phase, done, total: bars.update(task, completed=done, total=total, now=PHASES.get(phase, phase))


def bar_columns() -> tuple[Any, ...]:
    """Columns of every bar here: how far, for how long, and what is being done in words (the field `now`)."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Task as Bar
    from rich.text import Text

    class Counted(MofNCompleteColumn):
        """`3/8`, and nothing while nobody knows of how many."""

        def render(self, task: Bar) -> Text:
            return Text() if task.total is None else super().render(task)

    return BarColumn(), Counted(), TimeElapsedColumn(), TextColumn("{task.fields[now]}", markup=False)


def note(words: str) -> None:
    """One sentence on stderr beside the progress there: a JSON line where that is lines of JSON."""
    said = sentence(words)
    lines = os.environ.get("SPECTRA_PROGRESS") == "lines"
    print(json.dumps({"note": said}, ensure_ascii=False) if lines else said, file=sys.stderr, flush=True)


def json_line(phase: str, done: int, total: int) -> None:
    """Progress for programs that show their own bar: one JSON object on stderr."""
    print(json.dumps({"phase": phase, "done": done, "total": total}), file=sys.stderr, flush=True)

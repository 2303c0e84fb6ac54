"""Pages of the site that are made from the code: the commands from the typer applications, the settings from the model.

mkdocs calls the functions whose names begin with `on_`.  What is generated cannot go stale, and is not kept in the
repository.  In the API pages `::: spectra.record` stands for the object of that public name, wherever it lives; the
lists of names on top of them are for who reads them in a clone, and `python docs/hooks.py` renews them.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import inspect
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ENTRY = re.compile(r"^::: ([\w.]+)\n( +options: .*\n)?", re.MULTILINE)
LISTED = re.compile(r"(<!-- names -->\n).*?(<!-- /names -->)", re.DOTALL)
CLONE = re.compile(r"^> In a clone .*\n(> .*\n)*\n", re.MULTILINE)
FIGURE = re.compile(r'(<img [^>]*src="([^"]*images/[^"]+)"[^>]*>)')
LATER = "results.md"
"""A page that is in the menu as soon as it exists."""
SUBJECTS = {
    "RunSettings": "The run",
    "DataSettings": "Data",
    "MethodSettings": "The adapter",
    "ObjectiveSettings": "The objective",
    "OptimiseSettings": "The optimizer",
    "MeasureSettings": "Measuring",
}
"""Parts of a configuration, in the order in which they are shown, and their titles."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave the page that is written later out of the menu while it is not there."""
    if not (Path(config.docs_dir) / LATER).is_file():
        config.nav = [entry for entry in config.nav or [] if LATER not in entry.values()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for place, content in (("commands", commands_page()), ("settings", settings_page())):
        files.append(File.generated(config, f"reference/{place}.md", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Public names of the API pages -> where mkdocstrings finds the objects."""
    return ENTRY.sub(_entry, CLONE.sub("", markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Every figure leads to itself, so that it can be enlarged on a phone."""
    return FIGURE.sub(r'<a class="figure" href="\2">\1</a>', html)


def _entry(found: re.Match[str]) -> str:
    name, options = found[1], found[2] or ""
    heading = "" if "heading:" in options else f"heading: {name}, "
    given = options.replace("{ ", f"{{ {heading}") if options else f"    options: {{ heading: {name} }}\n"
    return f'<a id="{name}"></a>\n\n::: {home_of(name)}\n{given}'


def home_of(name: str) -> str:
    """Where the object of a public name is defined: `spectra.record` -> `spectra.record.record`."""
    thing = _object(name)
    return f"{thing.__module__}.{thing.__qualname__}"


def _object(name: str) -> Any:
    place, _, last = name.rpartition(".")
    return getattr(importlib.import_module(place), last)


def listed(text: str) -> str:
    """An API page with its list of names renewed: the first line of each docstring."""
    names = [found[1] for found in ENTRY.finditer(text)]
    first = {name: (inspect.getdoc(_object(name)) or "").partition("\n")[0] for name in names}
    made = "".join(f"- [`{name}`](#{name}): {line}\n" for name, line in first.items())
    return LISTED.sub(lambda found: f"{found[1]}\n{made}\n{found[2]}", text)


def applications() -> dict[str, Any]:
    """The commands `spectra` and `adapt` as typer builds them, by name."""
    import typer

    from cli import adapt_app, spectra_app

    return {"spectra": typer.main.get_command(spectra_app.app), "adapt": typer.main.get_command(adapt_app.app)}


def commands_page() -> str:
    """The command reference, as Markdown."""
    parts = [
        "# Commands",
        "Every command of `spectra` and `adapt`, its arguments and its options, made from the programs themselves. "
        "`COMMAND --help` says the same. All take `--json`; a bad input ends with one sentence on stderr and exit "
        "code 2, an interruption with 130.",
    ]
    for name, app in applications().items():
        parts += [f"## {name} {{ #{name} }}", _words(app.help or "")]
        for sub, command in app.commands.items():
            parts += _command(f"{name} {sub}", command)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    with contextlib.redirect_stdout(io.StringIO()):  # asked for its help, `adapt train` adds its settings' defaults
        command.get_help(context)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"### {name} {{ #{name.replace(' ', '-')} }}"
    yield f"    {name} {usage}"
    yield _words(inspect.cleandoc(command.help or ""))
    records = (param.get_help_record(context) for param in command.params)
    rows = [
        f"| <code>{html.escape(_cell(left))}</code> | {_words(_cell(right))} |" for left, right in filter(None, records)
    ]
    if rows:
        yield "\n".join(["| option | means |", "| --- | --- |", *rows])


def settings_page() -> str:
    """Every setting of a training, by subject, as Markdown."""
    from adapt import settings

    parts = [
        "# Settings of a training",
        "For TOML files (`adapt train style.toml`), for `--set NAME=VALUE`, and for `adapt.TrainConfig` in Python. "
        "A name that does not exist is an error that says which one you meant. `adapt settings` prints the same list.",
    ]
    for name, title in SUBJECTS.items():
        part = getattr(settings, name)
        rows = [_setting(known, field) for known, field in part.model_fields.items()]
        parts += [f"## {title}", _words(inspect.getdoc(part) or "")]
        parts.append("\n".join(["| setting | means | default |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _setting(name: str, field: Any) -> str:
    from cli.training import choices

    listed = ", ".join(f"`{word}`" for word in choices(field.annotation))
    means = "; ".join(part for part in (_words(_cell(str(field.description))), listed and f"one of {listed}") if part)
    default = field.get_default()
    shown = "*required*" if field.is_required() else "" if default is None else f"`{_toml(default)}`"
    return f"| `{name}` | {means} | {shown} |"


def _toml(value: Any) -> str:
    return json.dumps(value)  # of such simple values TOML and JSON write the same


def _cell(text: str) -> str:
    """One line that can stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _words(text: str) -> str:
    """Help texts as Markdown: what is not in backquotes is shown as it is, and options do not break."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    escaped = html.escape(text, quote=False)
    for sign in "*_[]":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return re.sub(r"(?<!\w)--[a-z][a-z-]*(=\w+)?", lambda found: f'<code class="option">{found[0]}</code>', escaped)


if __name__ == "__main__":
    for page in (Path(__file__).parent / "reference").glob("*.md"):
        page.write_text(listed(page.read_text(encoding="utf-8")), encoding="utf-8")

"""Prompts and captions that a model reads only the beginning of, and how that is said."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from spectra.errors import UserError

PARTS = ("", "_2", "_3", "_4")
"""Endings of the names of a pipeline's tokenizers and text encoders."""
LONGEST = 40
"""Letters of a prompt that a sentence quotes."""
LIBRARY_LINES = re.compile(
    r"^(Token indices sequence length is longer than|The following part of your input was truncated)"
)


class Cut(NamedTuple):
    """What a model does not read to the end."""

    limit: int
    """Tokens that it reads, the marks of beginning and end included."""
    rows: list[int]
    """Places of the longer texts among those that were asked about."""


def cut(pipe: Any, texts: Sequence[str]) -> Cut:
    """Which texts are longer than the pipeline reads.

    Of several CLIP tokenizers the shortest limit counts. Where another kind reads along (T5 in SD3 and FLUX) the
    longest counts: a text is cut only if every tokenizer cuts it. Words that a pipeline puts around a prompt do not
    count, and a tokenizer without its encoder does not read.
    """
    readers = _readers(pipe)
    if not readers or not texts:
        return Cut(0, [])
    clip_only = all(_is_clip(tokenizer) for tokenizer, _ in readers)
    long = {text: _is_long(readers, text, any if clip_only else all) for text in texts}
    limits = [limit for _, limit in readers]
    return Cut(min(limits) if clip_only else max(limits), [row for row, text in enumerate(texts) if long[text]])


def warn_cut(pipe: Any, texts: Sequence[str], thing: str, places: Sequence[object] | None = None) -> None:
    """Warn once if a model cuts some texts.

    Args:
        pipe: the pipeline.
        texts: what it is to read.
        thing: what a text is called, such as `caption`.
        places: where each text is from, for the sentence; default: the text itself.
    """
    found = cut(pipe, texts)
    if found.rows:
        number, first = len(found.rows), found.rows[0]
        where = _quoted(texts[first]) if places is None else str(places[first])
        warnings.warn(
            f"{plural(number, thing)} longer than the {found.limit} tokens this model reads and "
            f"{'is' if number == 1 else 'are'} cut (first: {where})",
            UserWarning,
            stacklevel=2,
        )


def check_readers(pipe: Any) -> None:
    """Raise UserError if a model cannot read prompts because tokenizers are missing from it.

    A slot may be empty together with that of its text encoder, as T5's often is.
    """
    slots = [part for part in PARTS if hasattr(pipe, f"tokenizer{part}")]
    empty = [part for part in slots if getattr(pipe, f"tokenizer{part}") is None]
    lost = [part for part in empty if getattr(pipe, f"text_encoder{part}", None) is not None]
    if lost or (slots and empty == slots):
        raise UserError(
            f"this {type(pipe).__name__} has no tokenizer{(lost or empty)[0]}, so it cannot read prompts; "
            "give a model folder that holds one"
        )


def plural(number: int, thing: str) -> str:
    """`1 caption is`, `3 captions are`."""
    return f"{number} {thing} is" if number == 1 else f"{number} {thing}s are"


@contextmanager
def quiet_cuts() -> Iterator[None]:
    """Keep back what transformers and diffusers log about texts that are cut: `warn_cut` says it."""
    handlers = [handler for name in ("diffusers", "transformers", None) for handler in logging.getLogger(name).handlers]

    def wanted(record: logging.LogRecord) -> bool:
        return not LIBRARY_LINES.match(record.getMessage())

    for handler in handlers:
        handler.addFilter(wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(wanted)


def _readers(pipe: Any) -> list[tuple[Any, int]]:
    """The tokenizers whose encoder is there, and how many tokens each may give."""
    from spectra.models import call_defaults

    known = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    most = call_defaults(pipe).get("max_sequence_length") or (known.default if known else None)
    found = []
    for part in PARTS:
        tokenizer = getattr(pipe, f"tokenizer{part}", None)
        limit = getattr(tokenizer, "model_max_length", None)
        if isinstance(limit, int) and getattr(pipe, f"text_encoder{part}", None) is not None:
            # The argument of the call is about the tokenizers beside CLIP's.
            limit = min(limit, most) if isinstance(most, int) and not _is_clip(tokenizer) else limit
            found.append((tokenizer, limit))
    return found


def _is_clip(tokenizer: Any) -> bool:
    return type(tokenizer).__name__.startswith("CLIP")


def _is_long(readers: list[tuple[Any, int]], text: str, decide: Any) -> bool:
    return bool(decide(len(tokenizer(text, verbose=False)["input_ids"]) > limit for tokenizer, limit in readers))


def _quoted(text: str) -> str:
    return repr(text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()}...")

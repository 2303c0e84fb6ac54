"""Listen to one method of one object, by wrapping the method on its class.

An attribute set on an instance travels with `copy.deepcopy` and stays bound to the original, so a pipeline that copies
its scheduler would step the wrong one. Here the class carries the wrapper, and only the instance that was asked for is
listened to: copies and other instances pass straight through.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_lock = threading.RLock()
_taps: dict[tuple[type, str], _Tap] = {}


@dataclass
class _Tap:
    """One wrapped method: what it was, what it is, and who is listened to (held, so that ids stay theirs)."""

    original: Callable[..., Any]
    inherited: bool
    wrapper: Callable[..., Any] = field(init=False)
    listeners: dict[int, tuple[Any, Around]] = field(default_factory=dict)


@contextmanager
def tap(instance: Any, method: str, around: Around) -> Iterator[None]:
    """Route `instance.method(*args, **kwargs)` through `around(original, args, kwargs)` for the length of a `with`.

    `original` is bound to the instance. Raises LookupError if the instance is being listened to already.
    """
    key = (type(instance), method)
    with _lock:
        entry = _taps.get(key) or _install(*key)
        if id(instance) in entry.listeners:
            raise LookupError(f"{type(instance).__name__}.{method} of this object is being listened to")
        entry.listeners[id(instance)] = (instance, around)
    try:
        yield
    finally:
        with _lock:
            del entry.listeners[id(instance)]
            if not entry.listeners:
                _remove(*key)


def _install(cls: type, method: str) -> _Tap:
    entry = _Tap(getattr(cls, method), inherited=method not in vars(cls))

    @functools.wraps(entry.original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        heard = entry.listeners.get(id(self))
        if heard is None:
            return entry.original(self, *args, **kwargs)
        return heard[1](functools.partial(entry.original, self), args, kwargs)

    entry.wrapper = wrapper
    setattr(cls, method, wrapper)
    _taps[cls, method] = entry
    return entry


def _remove(cls: type, method: str) -> None:
    """Put the class back as it was, unless somebody wrapped it after us: then our wrapper stays and passes through."""
    entry = _taps.pop((cls, method))
    if vars(cls).get(method) is not entry.wrapper:
        return
    if entry.inherited:
        delattr(cls, method)
    else:
        setattr(cls, method, entry.original)

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


@dataclass(eq=False)
class _Listener:
    """Who is listened to (held, so that its id stays its own), and by what."""

    instance: Any
    around: Around


@dataclass
class _Tap:
    """One wrapped method: what it was, what it is, and the listeners of each instance, the newest last."""

    original: Callable[..., Any]
    inherited: bool
    wrapper: Callable[..., Any] = field(init=False)
    listeners: dict[int, tuple[_Listener, ...]] = field(default_factory=dict)


@contextmanager
def tap(instance: Any, method: str, around: Around) -> Iterator[None]:
    """Route `instance.method(*args, **kwargs)` through `around(original, args, kwargs)` for the length of a `with`.

    `original` is bound to the instance and keeps its signature. Several listeners of one instance nest, the newest
    outermost, and may leave in any order.
    """
    key, listener = (type(instance), method), _Listener(instance, around)
    with _lock:
        entry = _taps.get(key) or _install(*key)
        entry.listeners[id(instance)] = (*entry.listeners.get(id(instance), ()), listener)
    try:
        yield
    finally:
        with _lock:
            _forget(entry, listener)
            if not entry.listeners:
                _remove(*key)


def _forget(entry: _Tap, listener: _Listener) -> None:
    """Tuples are replaced, never changed, so that calls in other threads see one state or the other."""
    key = id(listener.instance)
    left = tuple(other for other in entry.listeners[key] if other is not listener)
    if left:
        entry.listeners[key] = left
    else:
        del entry.listeners[key]


def _install(cls: type, method: str) -> _Tap:
    entry = _Tap(getattr(cls, method), inherited=method not in vars(cls))

    @functools.wraps(entry.original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        heard = entry.listeners.get(id(self))
        if heard is None:
            return entry.original(self, *args, **kwargs)
        call: Callable[..., Any] = functools.partial(entry.original, self)
        for listener in heard[:-1]:
            call = functools.update_wrapper(functools.partial(_through, listener.around, call), call)
        return heard[-1].around(call, args, kwargs)

    entry.wrapper = wrapper
    setattr(cls, method, wrapper)
    _taps[cls, method] = entry
    return entry


def _through(around: Around, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(original, args, kwargs)


def _remove(cls: type, method: str) -> None:
    """Put the class back as it was, unless somebody wrapped it after us: then our wrapper stays and passes through."""
    entry = _taps.pop((cls, method))
    if vars(cls).get(method) is not entry.wrapper:
        return
    if entry.inherited:
        delattr(cls, method)
    else:
        setattr(cls, method, entry.original)

from __future__ import annotations

import copy
import inspect
import threading
from typing import Any

import pytest

from spectra.recording.tap import tap


class Base:
    def __init__(self) -> None:
        self.count = 0

    def step(self, by: int = 1) -> int:
        self.count += by
        return self.count


class Child(Base): ...


def listener(heard: list[Any]) -> Any:
    def around(original: Any, args: Any, kwargs: Any) -> Any:
        heard.append((args, kwargs))
        return original(*args, **kwargs)

    return around


def test_only_the_instance_is_heard_and_copies_step_themselves() -> None:
    one, other, heard = Base(), Base(), []
    with tap(one, "step", listener(heard)):
        twin = copy.deepcopy(one)
        assert (one.step(2), other.step(), twin.step(by=5)) == (2, 1, 5)
    assert heard == [((2,), {})]


@pytest.mark.parametrize("cls", [Base, Child])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_class_is_as_it_was_whatever_happens(cls: type[Base], error: type[BaseException]) -> None:
    before = dict(vars(cls))

    def fail() -> None:
        with tap(cls(), "step", listener([])):
            assert dict(vars(cls)) != before
            raise error

    with pytest.raises(error):
        fail()
    assert dict(vars(cls)) == before


def test_two_instances_of_one_class_end_in_any_order() -> None:
    original = Base.step
    a, b = Base(), Base()
    heard_a: list[Any] = []
    heard_b: list[Any] = []
    first, second = tap(a, "step", listener(heard_a)), tap(b, "step", listener(heard_b))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    a.step()
    b.step()
    second.__exit__(None, None, None)
    assert (len(heard_a), len(heard_b)) == (0, 1)
    assert Base.step is original


def test_listeners_of_one_instance_nest_and_leave_in_any_order() -> None:
    one, heard = Base(), []

    def named(name: str) -> Any:
        def around(original: Any, args: Any, kwargs: Any) -> Any:
            heard.append((name, list(inspect.signature(original).parameters)))
            return original(*args, **kwargs)

        return around

    first, second = tap(one, "step", named("first")), tap(one, "step", named("second"))
    first.__enter__()
    second.__enter__()
    assert one.step(by=3) == 3
    first.__exit__(None, None, None)
    assert one.step() == 4
    second.__exit__(None, None, None)
    assert one.step() == 5
    assert heard == [("second", ["by"]), ("first", ["by"]), ("second", ["by"])]


def test_threads_that_come_and_go_are_each_heard_exactly() -> None:
    original, counts = Base.step, []

    def work() -> None:
        for _ in range(50):
            one, heard = Base(), []
            with tap(one, "step", listener(heard)):
                for _ in range(4):
                    one.step()
            one.step()
            counts.append((len(heard), one.count))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [(4, 5)] * 200
    assert Base.step is original


def test_somebody_elses_later_wrapper_survives() -> None:
    original = Base.step
    with tap(Base(), "step", listener([])):
        ours = Base.step
        Base.step = lambda self, by=1: 10 * ours(self, by)  # type: ignore[method-assign]
    try:
        assert Base().step(3) == 30
    finally:
        Base.step = original  # type: ignore[method-assign]

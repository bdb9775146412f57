"""Method caches that do not keep the object alive."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakMethod

__all__ = ["method_cache"]

R = TypeVar("R")


def method_cache(method: Callable[..., R], size: int) -> Callable[..., R]:
    """An LRU cache of `size` results of a bound method, to be stored on the method's own object.

    A cache of the bound method itself would form a cycle with the object: each chunk's constraint would have to wait
    for the cyclic garbage collector.
    """
    weak = WeakMethod(method)

    @lru_cache(maxsize=size)
    def answer(*arguments: Any) -> R:
        alive = weak()
        assert alive is not None  # the object itself is the caller
        return alive(*arguments)

    return answer

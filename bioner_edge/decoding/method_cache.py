"""Caches of methods that do not keep their objects alive."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakMethod

__all__ = ["method_cache"]

R = TypeVar("R")


def method_cache(method: Callable[..., R], size: int) -> Callable[..., R]:
    """A method that keeps its last `size` answers, to be kept by the method's own object.

    A cache of the bound method would hold the object, which holds the cache: each chunk's constraint would wait for
    the cyclic collector.
    """
    weak = WeakMethod(method)

    @lru_cache(maxsize=size)
    def answer(*arguments: Any) -> R:
        alive = weak()
        assert alive is not None  # its object is who asks
        return alive(*arguments)

    return answer

"""Is the host harmed?"""

from typing import Any


def measure(host: Any, *, seed: int, told: Any) -> Any:
    raise NotImplementedError

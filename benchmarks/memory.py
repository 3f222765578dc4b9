"""The most memory that something holds at once, beyond what was held before it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch


def peak_bytes(run: Callable[[], object]) -> int:
    """Bytes as torch's allocator reports them: that of the GPU where there is one, else that of the CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())), default=0)

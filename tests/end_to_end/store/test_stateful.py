from __future__ import annotations

from hypothesis import Phase, settings
from store_machine import StoreMachine

TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    # Making a failure smaller takes minutes; tests/slow/test_store_machine.py does.
    phases=(Phase.reuse, Phase.generate),
)

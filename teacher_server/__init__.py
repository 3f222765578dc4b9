"""Teachers: whoever writes sequences and says what it believes about them.

`FakeTeacher` needs numpy alone. `teacher_server.vllm_engine.VllmEngine` is the real one and has to be imported from
its module, inside a process that was started with `engine_environment`; `teacher_server.startup_check` (torch,
transformers) compares an engine with a plain forward pass before anything that it says is kept.
"""

from __future__ import annotations

from teacher_server.environment import engine_environment
from teacher_server.fake import FakeTeacher

__all__ = ["FakeTeacher", "engine_environment"]

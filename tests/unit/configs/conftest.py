from experiment_files import written, written_task

__all__ = ["written", "written_task"]

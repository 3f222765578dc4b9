from experiment_files import written

__all__ = ["written"]

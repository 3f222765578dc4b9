from unsynced import unsynced

__all__ = ["unsynced"]

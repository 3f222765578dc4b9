from segment_builders import stored
from unsynced import unsynced

__all__ = ["stored", "unsynced"]

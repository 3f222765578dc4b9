"""What keeps a cache small, sound and movable: collecting garbage, merging, forgetting, archives, counts, quotas."""

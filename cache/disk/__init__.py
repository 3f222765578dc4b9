"""How the bytes of a cache lie: places, segments, chunks and keys, each written once and checked when read."""

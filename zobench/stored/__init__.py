"""The runs on disk: list them, remove them. Nothing here imports torch."""

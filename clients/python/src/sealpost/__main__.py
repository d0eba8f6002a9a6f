"""``python -m sealpost``."""

from .cli import script

script()

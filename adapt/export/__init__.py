"""Adapters for people without this package: PEFT folders, LoRA files of diffusers and kohya, schedules of gates."""

from __future__ import annotations

from adapt.export.exporting import FORMATS, export
from adapt.export.files import FACTS_FILE
from adapt.export.scheduled import ScheduledLoras

__all__ = ["FACTS_FILE", "FORMATS", "ScheduledLoras", "export"]

"""The one exception that users see."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that a person can mend: one sentence that says what, where and what to do."""

"""The journey: plan, then run. The one place that knows the order."""

from __future__ import annotations

"""Nothing is believed until it ran: outputs against their reference, and what an artifact's operators say of it."""

from __future__ import annotations

from edgekit.verify.requests import VerifyRequest, VerifyResult

VERIFY_ENTRY = "edgekit.verify.run:verify_artifact"
"""Entry of the child process: ``VerifyRequest -> VerifyResult``."""

__all__ = ["VERIFY_ENTRY", "VerifyRequest", "VerifyResult"]

"""Fixtures: tiny random-weight models in diffusers' layout, written once per session."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

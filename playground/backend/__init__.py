"""The GPU backend: device and precision, the worker that owns the device, and the queue before it."""

from playground.backend.events import FINAL, Event, Failed, Note, Preview, Queued, Result, Stopped
from playground.backend.worker import Backend
from playground.devices import Device, choose_device

__all__ = [
    "FINAL",
    "Backend",
    "Device",
    "Event",
    "Failed",
    "Note",
    "Preview",
    "Queued",
    "Result",
    "Stopped",
    "choose_device",
]

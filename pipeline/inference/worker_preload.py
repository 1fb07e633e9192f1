"""Imported once, by the process that workers are forked from: they start with libraries loaded.

That process and the workers outlive signals to the whole process group, as a terminal or a service
manager sends them: requests that were accepted are still answered, and the end of the connection
to the server ends all of them.
"""

from __future__ import annotations

import signal

import timm.data  # noqa: F401
import torch  # noqa: F401

from pipeline.inference import requests  # noqa: F401

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)

"""Imported once by the process that workers are forked from, so that they start with libraries.

A module of its own, since multiprocessing preloads by importing. That process and the workers
ignore signals to the whole process group, which a terminal or a service manager sends: requests
that were accepted are still answered, and the end of the connection to the server ends them.
"""

from __future__ import annotations

import signal

import timm.data  # noqa: F401
import torch  # noqa: F401

from pipeline.inference import requests  # noqa: F401

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)

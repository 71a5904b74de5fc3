"""Hostile programs, as data: `PROGRAMS` holds them by name. Nothing here is run by being imported."""

from hostile import channel, crossing, escapes, files, memory, network, privilege, processes, resources, writes
from hostile.table import PROGRAMS, Program

__all__ = ["PROGRAMS", "Program"]
ROOMS = (files, writes, network, processes, memory, privilege, resources, channel, crossing, escapes)

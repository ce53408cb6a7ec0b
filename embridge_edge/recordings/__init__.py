"""Recordings: the value that everything starts from, its readers, and what its signals are worth.

`read_recordings` reads a file, a folder or an archive in any known format. Delimited text is read as a description in
TOML says (`formats/*.toml`, docs/formats.md); emg2pose and NinaPro have a module each.
"""

from embridge_edge.recordings.loading import Found, ReadingLog, find_recordings, format_names, read_recordings
from embridge_edge.recordings.recording import UNLABELLED, Problem, Recording

__all__ = [
    "UNLABELLED",
    "Found",
    "Problem",
    "ReadingLog",
    "Recording",
    "find_recordings",
    "format_names",
    "read_recordings",
]

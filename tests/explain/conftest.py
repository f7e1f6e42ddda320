"""The fixtures of jobs_support, for this folder."""

from jobs_support import photos, run

__all__ = ["photos", "run"]

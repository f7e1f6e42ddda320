"""The pictures and the finished run that tests of faults break."""

from data.conftest import make_noise, tree, two_classes, zipped
from jobs_support import photos, run

__all__ = ["make_noise", "photos", "run", "tree", "two_classes", "zipped"]

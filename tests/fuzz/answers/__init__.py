"""What reads the answers of hosts, each fed with what a host may say.

A target takes plain values, as a case has them, and hands them to our code as if hosts had
said so.  It ends well, or with one of our own errors; what it prints is judged, too.
"""

from tests.fuzz.answers import cloud, links, load, platforms
from tests.fuzz.answers.common import TARGETS
from tests.fuzz.answers.planted import PLANTED

__all__ = ["PLANTED", "TARGETS", "cloud", "links", "load", "platforms"]

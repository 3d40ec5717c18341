"""The box's pages: plain HTML that works without scripts, templates and files beside the code.

A viewer's node has the films, a player and what it has sent (``viewerpage.py``); other boxes have one
sheet of what they say of themselves (``sheet.py``).
"""

from .assets import Assets
from .sheet import Sheet
from .viewerpage import Page

__all__ = ["Assets", "Page", "Sheet"]

"""Pictures that a learner plays with: each is a live experiment, and a still picture on paper."""

from chatlab.lab.pictures.foreign_page import foreign_page
from chatlab.lab.pictures.frame_editor import frame_editor
from chatlab.lab.pictures.handshake_form import handshake_form
from chatlab.lab.pictures.header_bits import header_bits
from chatlab.lab.pictures.poll_curve import poll_curve
from chatlab.lab.pictures.tank_rooms import tank_rooms
from chatlab.lab.pictures.two_lanes import two_lanes

__all__ = [
    "foreign_page",
    "frame_editor",
    "handshake_form",
    "header_bits",
    "poll_curve",
    "tank_rooms",
    "two_lanes",
]

"""The chat room at /room, in two versions: the article's, and a robust one.

`article.start()` sends to one session after another and waits for each, so one member that stops reading stops the
room. `start()` sends everything through `net/fanout.py`, which waits for no member. Members receive plain text; the
start of a line says what kind of line it is:

    Server received: hello             a member's text, sent to every member and its sender: the article's form
    Server received from Ana: hello    the same from a member with a name: ws://host:port/room?name=Ana
    * Ana joined (3 here)              a notice: a member with a name joined or left (others are not announced)
    ! not sent: ...                    an error, sent only to the member that caused it
    ! not confirmed: ...               the same, when the text may still arrive (in a shared room)
    (an empty message)                 a heart-beat, for members that requested them: ws://host:port/room?beats=yes

Each message is shown on one line. A name cannot contain the characters that separate the parts of a line, and no two
members have names that look alike. So no text can pass for a notice, an error or another member's text (`lines.py`).
A member that requests it with ws://host:port/room?parts=yes, as the page does, receives each line as JSON.

All members receive the same lines in the same order. GET / returns a small page from which to join (`classroom.py`).
A room with a room code admits only clients that send it.

Left out: history, private messages, several rooms. `shared.py` has the room that several instances share.
"""

from chatlab.limits import RateLimit
from chatlab.room.article import start as start_as_in_the_article
from chatlab.room.room import Member, Room
from chatlab.room.server import RoomServer, start

__all__ = ["Member", "RateLimit", "Room", "RoomServer", "start", "start_as_in_the_article"]

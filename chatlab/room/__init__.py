"""The chat room at /room, twice: as the article has it, and one that holds.

`article.start()` sends to one session after another and waits for each, so one member who stops reading stops
the room. `start()` hands everything to `net/fanout.py`, which waits for nobody. What a member sees is plain text, and
how a line begins says what it is:

    Server received: hello             a member's text, to everybody, its sender too: the article's form
    Server received from Ana: hello    the same from a member with a name: ws://host:port/room?name=Ana
    * Ana joined (3 here)              a notice: somebody with a name came or left; who has no name comes unannounced
    ! not sent: ...                    an error, to the one who caused it
    ! not confirmed: ...               the same, if the text may still arrive (a shared room)
    (an empty message)                 a heart-beat, to a member that asked for them: ws://host:port/room?beats=yes

Whatever a member sends is one line, and a name has nothing in it that separates the parts of a line and is taken once,
however it is written: nobody's text can pass for a notice, an error or somebody else's (`lines.py`). A member that
asks for it (ws://host:port/room?parts=yes), as the page does, receives each line as JSON, with its parts apart.

Everybody who is in sees the same lines in the same order. A GET for / answers with a small page to come in by
(`classroom.py`); with a room code, nobody comes in without it.

Left out: history, private messages, several rooms. A room that several instances share is `shared.py`.
"""

from chatlab.room.article import start as start_as_in_the_article
from chatlab.room.room import Member, RateLimit, Room
from chatlab.room.server import RoomServer, start

__all__ = ["Member", "RateLimit", "Room", "RoomServer", "start", "start_as_in_the_article"]

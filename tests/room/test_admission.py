"""Which requests may become members of a room: by path, room code and name."""

import pytest

from chatlab.classroom import CodeGuard
from chatlab.errors import HandshakeError
from chatlab.room.admission import Admission, peer_address
from chatlab.websocket.handshake import Request, make_request


def asking_for(target: str) -> Request:
    return make_request(f"ws://127.0.0.1:8080{target}")


def refusal(admission: Admission, target: str) -> HandshakeError:
    with pytest.raises(HandshakeError) as refused:
        admission(asking_for(target))
    return refused.value


def test_a_request_for_the_room_is_answered_with_101() -> None:
    response, _ = Admission()(asking_for("/room?name=Ana"))
    assert response.status == 101


def test_another_path_is_not_found() -> None:
    assert refusal(Admission(), "/rooms").status == 404


def test_a_room_with_a_code_refuses_a_request_without_it() -> None:
    admission = Admission(guard=CodeGuard("secret-code"))
    assert refusal(admission, "/room").status in (401, 403)
    assert admission(asking_for("/room?code=secret-code"))[0].status == 101


def test_a_name_that_could_end_a_line_is_refused() -> None:
    assert refusal(Admission(), "/room?name=Ana%0A*%20Ben%20joined").status == 400


@pytest.mark.parametrize(("peer", "shown"), [(("127.0.0.1", 50123), "127.0.0.1:50123"), (None, "?:0")])
def test_an_address_is_shown_with_its_port(peer: tuple[str, int] | None, shown: str) -> None:
    assert peer_address(peer) == shown

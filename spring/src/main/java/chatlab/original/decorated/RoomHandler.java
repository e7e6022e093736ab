package chatlab.original.decorated;

import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.web.socket.CloseStatus;
import org.springframework.web.socket.TextMessage;
import org.springframework.web.socket.WebSocketSession;
import org.springframework.web.socket.handler.ConcurrentWebSocketSessionDecorator;
import org.springframework.web.socket.handler.TextWebSocketHandler;

/**
 * The article's handler with Spring's own remedy, one line at a time: what does each cure?
 *
 * <p>F14: a decorator around each session, which lets one thread send at a time and keeps what the others have to send.
 * F17, with {@code room.catches}: a session that fails is closed, and nobody else. F13, with {@code room.ordered}:
 * one text after another.
 */
public class RoomHandler extends TextWebSocketHandler {

  private static final Logger log = LoggerFactory.getLogger(RoomHandler.class);
  private static final int SEND_MILLISECONDS = 5_000;
  private static final int BUFFER_OCTETS = 512 * 1024;

  private final Map<String, WebSocketSession> sessions = new ConcurrentHashMap<>();
  private final ReentrantLock turn = new ReentrantLock();
  private final boolean catches;
  private final boolean ordered;

  RoomHandler(boolean catches, boolean ordered) {
    this.catches = catches;
    this.ordered = ordered;
  }

  @Override
  public void afterConnectionEstablished(WebSocketSession session) {
    sessions.put(
        session.getId(), new ConcurrentWebSocketSessionDecorator(session, SEND_MILLISECONDS, BUFFER_OCTETS));
  }

  @Override
  protected void handleTextMessage(WebSocketSession session, TextMessage message) throws Exception {
    if (ordered) {
      turn.lock();
    }
    try {
      broadcast(new TextMessage("Server received: " + message.getPayload()));
    } finally {
      if (ordered) {
        turn.unlock();
      }
    }
  }

  private void broadcast(TextMessage text) throws IOException {
    for (WebSocketSession each : sessions.values()) {
      try {
        each.sendMessage(text);
      } catch (IOException | RuntimeException failed) {
        if (!catches) {
          throw failed;
        }
        log.warn("cannot send to {}: {}", each.getId(), failed.toString());
        close(each);
      }
    }
  }

  private static void close(WebSocketSession session) {
    try {
      session.close(CloseStatus.SESSION_NOT_RELIABLE);
    } catch (IOException | RuntimeException gone) {
      // It is closed.
    }
  }

  @Override
  public void afterConnectionClosed(WebSocketSession session, CloseStatus status) {
    sessions.remove(session.getId());
    log.info("closed {}: {}", session.getId(), status);
  }
}

package chatlab.original.fixed;

import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.web.socket.CloseStatus;
import org.springframework.web.socket.TextMessage;
import org.springframework.web.socket.WebSocketSession;
import org.springframework.web.socket.handler.ConcurrentWebSocketSessionDecorator;
import org.springframework.web.socket.handler.TextWebSocketHandler;

/**
 * The raw handler, and: many may send at once (F14), a slow session is closed by itself (F8), and a session that fails
 * leaves, at its own cost alone (F17).
 */
public class RoomHandler extends TextWebSocketHandler {

  private static final Logger log = LoggerFactory.getLogger(RoomHandler.class);
  private static final int SEND_MILLISECONDS = 2_000;
  private static final int BUFFERED_OCTETS = 512 * 1024;

  private final Map<String, WebSocketSession> sessions = new ConcurrentHashMap<>();

  @Override
  public void afterConnectionEstablished(WebSocketSession session) {
    sessions.put(
        session.getId(),
        new ConcurrentWebSocketSessionDecorator(session, SEND_MILLISECONDS, BUFFERED_OCTETS));
  }

  @Override
  protected void handleTextMessage(WebSocketSession session, TextMessage message) {
    TextMessage text = new TextMessage("Server received: " + message.getPayload());
    sessions.values().forEach(each -> send(each, text));
  }

  private void send(WebSocketSession session, TextMessage text) {
    try {
      session.sendMessage(text);
    } catch (IOException | RuntimeException error) {
      log.warn("{} leaves: {}", session.getId(), error.getMessage());
      sessions.remove(session.getId());
      close(session);
    }
  }

  private void close(WebSocketSession session) {
    try {
      session.close(CloseStatus.SESSION_NOT_RELIABLE);
    } catch (IOException | RuntimeException error) {
      log.debug("{} was closed already", session.getId(), error);
    }
  }

  @Override
  public void afterConnectionClosed(WebSocketSession session, CloseStatus status) {
    sessions.remove(session.getId());
  }
}

package chatlab.original.raw;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.web.socket.CloseStatus;
import org.springframework.web.socket.TextMessage;
import org.springframework.web.socket.WebSocketSession;
import org.springframework.web.socket.handler.TextWebSocketHandler;

/** 「ChatSocketHandler 클래스 생성」: a registry of sessions, and a loop that sends each text to all of them. */
public class RoomHandler extends TextWebSocketHandler {

  private static final Logger log = LoggerFactory.getLogger(RoomHandler.class);

  private final Map<String, WebSocketSession> sessions = new ConcurrentHashMap<>();

  @Override
  public void afterConnectionEstablished(WebSocketSession session) {
    sessions.put(session.getId(), session);
    log.info("established {}", session.getId());
  }

  @Override
  protected void handleTextMessage(WebSocketSession session, TextMessage message) throws Exception {
    for (WebSocketSession each : sessions.values()) {
      each.sendMessage(new TextMessage("Server received: " + message.getPayload()));
    }
  }

  @Override
  public void handleTransportError(WebSocketSession session, Throwable error) {
    log.error("transport error {}: {}", session.getId(), error.getMessage());
  }

  @Override
  public void afterConnectionClosed(WebSocketSession session, CloseStatus status) {
    sessions.remove(session.getId());
    log.info("closed {}: {}", session.getId(), status);
  }
}

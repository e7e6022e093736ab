package chatlab.original.fixed;

import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.springframework.web.socket.CloseStatus;
import org.springframework.web.socket.TextMessage;
import org.springframework.web.socket.WebSocketSession;
import org.springframework.web.socket.handler.TextWebSocketHandler;

/**
 * F8: each member has a queue and a thread, so nobody waits for anybody, and only one thread sends to a session.
 *
 * <p>A text is put into all queues under one lock: all members see the same order. A member whose queue is full, or
 * whose session fails, is closed, and nobody else.
 */
public class RoomHandler extends TextWebSocketHandler {

  private static final int WAITING = 1000;

  private final Map<String, Member> members = new LinkedHashMap<>();

  @Override
  public synchronized void afterConnectionEstablished(WebSocketSession session) {
    members.put(session.getId(), new Member(session));
  }

  @Override
  protected synchronized void handleTextMessage(WebSocketSession session, TextMessage message) {
    TextMessage text = new TextMessage("Server received: " + message.getPayload());
    members.values().forEach(member -> member.send(text));
  }

  @Override
  public synchronized void afterConnectionClosed(WebSocketSession session, CloseStatus status) {
    Member member = members.remove(session.getId());
    if (member != null) {
      member.outbox.shutdownNow();
    }
  }

  private static final class Member {

    private final WebSocketSession session;
    private final ThreadPoolExecutor outbox =
        new ThreadPoolExecutor(0, 1, 10, TimeUnit.SECONDS, new ArrayBlockingQueue<>(WAITING));

    Member(WebSocketSession session) {
      this.session = session;
    }

    void send(TextMessage text) {
      try {
        outbox.execute(() -> sendNow(text));
      } catch (RejectedExecutionException full) {
        outbox.shutdownNow();
        new Thread(() -> close(CloseStatus.SESSION_NOT_RELIABLE)).start();
      }
    }

    private void sendNow(TextMessage text) {
      try {
        session.sendMessage(text);
      } catch (IOException | RuntimeException failed) {
        close(CloseStatus.SERVER_ERROR);
      }
    }

    private void close(CloseStatus status) {
      try {
        session.close(status);
      } catch (IOException | RuntimeException gone) {
        // It is closed.
      }
    }
  }
}

package chatlab.original.fixed;

import java.util.List;
import org.springframework.context.annotation.Profile;
import org.springframework.messaging.handler.annotation.DestinationVariable;
import org.springframework.messaging.handler.annotation.MessageMapping;
import org.springframework.messaging.handler.annotation.Payload;
import org.springframework.messaging.simp.annotation.SubscribeMapping;

/** Stores what is sent, and answers nobody: the stream is the one path to the topic (F2). */
@org.springframework.stereotype.Controller("fixedController")
@Profile("fixed")
public class Controller {

  private final Store store;

  Controller(Store store) {
    this.store = store;
  }

  @MessageMapping("/chat.sendMessage")
  public void sendMessage(@Payload Message message) {
    store.add(message.clientId(), message.content());
  }

  /** What a client missed: it subscribes to the topic first, and then here with the last id it saw (F10). */
  @SubscribeMapping("/chat.after.{id}")
  public List<Message> after(@DestinationVariable String id) {
    return store.after(id);
  }
}

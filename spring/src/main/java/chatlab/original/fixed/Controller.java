package chatlab.original.fixed;

import java.util.List;
import org.springframework.context.annotation.Profile;
import org.springframework.messaging.handler.annotation.DestinationVariable;
import org.springframework.messaging.handler.annotation.MessageExceptionHandler;
import org.springframework.messaging.handler.annotation.MessageMapping;
import org.springframework.messaging.handler.annotation.Payload;
import org.springframework.messaging.simp.annotation.SubscribeMapping;

/** F2: a message goes into the stream, and to the topic only from there. */
@org.springframework.stereotype.Controller("fixedController")
@Profile("fixed")
class Controller {

  static final String SEND = "/app/chat.sendMessage";

  private final ChatStream stream;
  private final Receipts receipts;
  private final Mistakes mistakes;

  Controller(ChatStream stream, Receipts receipts, Mistakes mistakes) {
    this.stream = stream;
    this.receipts = receipts;
    this.mistakes = mistakes;
  }

  @MessageMapping("/chat.sendMessage")
  void sendMessage(@Payload Message message, org.springframework.messaging.Message<?> frame) {
    stream.add(message);
    receipts.confirm(frame);
  }

  /** Answer a client that returns with what it has missed. */
  @SubscribeMapping("/chat.after.{id}")
  List<Message> after(@DestinationVariable String id) {
    return stream.after(id);
  }

  /** F19: a body that is no message, or a handler that fails. */
  @MessageExceptionHandler
  void refuse(Exception error, org.springframework.messaging.Message<?> frame) {
    mistakes.refuse(frame, "the message was not stored: " + error.getClass().getSimpleName());
  }
}

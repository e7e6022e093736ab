package chatlab.original.fixed;

import java.util.Set;
import org.springframework.beans.factory.annotation.Qualifier;
import org.springframework.context.annotation.Lazy;
import org.springframework.context.annotation.Profile;
import org.springframework.messaging.Message;
import org.springframework.messaging.MessageChannel;
import org.springframework.messaging.simp.stomp.StompCommand;
import org.springframework.messaging.simp.stomp.StompHeaderAccessor;
import org.springframework.messaging.support.ChannelInterceptor;
import org.springframework.messaging.support.MessageBuilder;
import org.springframework.stereotype.Component;

/**
 * F19: a mistake is answered with an ERROR, which closes the session, instead of a line in the log.
 *
 * <p>An exception here would be logged and swallowed under setPreserveReceiveOrder, so the ERROR is sent.
 */
@Component
@Profile("fixed")
class Mistakes implements ChannelInterceptor {

  private static final Set<String> VERSIONS = Set.of("1.0", "1.1", "1.2");

  private final MessageChannel toClients;

  Mistakes(@Lazy @Qualifier("clientOutboundChannel") MessageChannel toClients) {
    this.toClients = toClients;
  }

  @Override
  public Message<?> preSend(Message<?> frame, MessageChannel channel) {
    StompHeaderAccessor headers = StompHeaderAccessor.wrap(frame);
    String mistake = headers.getCommand() == null ? null : mistake(headers);
    if (mistake == null) {
      return frame;
    }
    refuse(frame, mistake);
    return null;
  }

  private static String mistake(StompHeaderAccessor headers) {
    String destination = headers.getDestination();
    boolean wrong =
        switch (headers.getCommand()) {
          case CONNECT, STOMP -> headers.getAcceptVersion().stream().noneMatch(VERSIONS::contains);
          case SEND -> !Controller.SEND.equals(destination);
          case SUBSCRIBE -> headers.getSubscriptionId() == null || destination == null;
          default -> false;
        };
    return wrong ? headers.getCommand() + ": a header is missing, or its value is unknown" : null;
  }

  /** Answer a frame with an ERROR that says why. */
  void refuse(Message<?> frame, String why) {
    StompHeaderAccessor asked = StompHeaderAccessor.wrap(frame);
    StompHeaderAccessor error = StompHeaderAccessor.create(StompCommand.ERROR);
    error.setMessage(why);
    error.setSessionId(asked.getSessionId());
    if (asked.getReceipt() != null) {
      error.setReceiptId(asked.getReceipt());
    }
    toClients.send(MessageBuilder.createMessage(new byte[0], error.getMessageHeaders()));
  }
}

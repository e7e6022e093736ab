package chatlab.original.fixed;

import org.springframework.beans.factory.annotation.Qualifier;
import org.springframework.context.annotation.Lazy;
import org.springframework.context.annotation.Profile;
import org.springframework.messaging.Message;
import org.springframework.messaging.MessageChannel;
import org.springframework.messaging.MessageHandler;
import org.springframework.messaging.simp.SimpMessageType;
import org.springframework.messaging.simp.broker.SimpleBrokerMessageHandler;
import org.springframework.messaging.simp.stomp.StompCommand;
import org.springframework.messaging.simp.stomp.StompHeaderAccessor;
import org.springframework.messaging.support.ExecutorChannelInterceptor;
import org.springframework.messaging.support.MessageBuilder;
import org.springframework.stereotype.Component;

/** F10: RECEIPT frames, which the simple broker sends for DISCONNECT only. */
@Component
@Profile("fixed")
class Receipts implements ExecutorChannelInterceptor {

  private final MessageChannel toClients;

  Receipts(@Lazy @Qualifier("clientOutboundChannel") MessageChannel toClients) {
    this.toClients = toClients;
  }

  /** Send the RECEIPT that a frame asks for; its handler calls this once the work is done. */
  void confirm(Message<?> frame) {
    StompHeaderAccessor asked = StompHeaderAccessor.wrap(frame);
    if (asked.getReceipt() != null) {
      StompHeaderAccessor receipt = StompHeaderAccessor.create(StompCommand.RECEIPT);
      receipt.setReceiptId(asked.getReceipt());
      receipt.setSessionId(asked.getSessionId());
      toClients.send(MessageBuilder.createMessage(new byte[0], receipt.getMessageHeaders()));
    }
  }

  @Override
  public void afterMessageHandled(Message<?> frame, MessageChannel from, MessageHandler handler, Exception error) {
    boolean subscribed = StompHeaderAccessor.wrap(frame).getMessageType() == SimpMessageType.SUBSCRIBE;
    if (subscribed && error == null && handler instanceof SimpleBrokerMessageHandler) {
      confirm(frame);
    }
  }
}

package chatlab.original.fixed;

import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Profile;
import org.springframework.messaging.simp.config.ChannelRegistration;
import org.springframework.messaging.simp.config.MessageBrokerRegistry;
import org.springframework.web.socket.config.annotation.EnableWebSocketMessageBroker;
import org.springframework.web.socket.config.annotation.StompEndpointRegistry;
import org.springframework.web.socket.config.annotation.WebSocketMessageBrokerConfigurer;

/** The article's endpoint, with the order of messages kept both ways, receipts, and an ERROR for a mistake. */
@Configuration("fixedStompConfig")
@EnableWebSocketMessageBroker
@Profile("fixed")
public class StompConfig implements WebSocketMessageBrokerConfigurer {

  private final Receipts receipts;
  private final Mistakes mistakes;

  StompConfig(Receipts receipts, Mistakes mistakes) {
    this.receipts = receipts;
    this.mistakes = mistakes;
  }

  @Override
  public void configureMessageBroker(MessageBrokerRegistry registry) {
    registry.enableSimpleBroker("/topic");
    registry.setApplicationDestinationPrefixes("/app");
    registry.setPreservePublishOrder(true);
  }

  @Override
  public void registerStompEndpoints(StompEndpointRegistry registry) {
    registry.addEndpoint("/ws").withSockJS();
    registry.setPreserveReceiveOrder(true);
  }

  @Override
  public void configureClientInboundChannel(ChannelRegistration registration) {
    registration.interceptors(mistakes, receipts);
  }
}

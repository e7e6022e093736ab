package chatlab.original.fixed;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Profile;
import org.springframework.messaging.simp.config.MessageBrokerRegistry;
import org.springframework.web.socket.config.annotation.EnableWebSocketMessageBroker;
import org.springframework.web.socket.config.annotation.StompEndpointRegistry;
import org.springframework.web.socket.config.annotation.WebSocketMessageBrokerConfigurer;

/** The article's, and: messages in their order both ways (F13), and pages of named origins only (F9). */
@Configuration("fixedStompConfig")
@EnableWebSocketMessageBroker
@Profile("fixed")
public class StompConfig implements WebSocketMessageBrokerConfigurer {

  @Value("${chat.allowed-origins:}")
  private String[] origins;

  @Override
  public void configureMessageBroker(MessageBrokerRegistry registry) {
    registry.enableSimpleBroker("/topic");
    registry.setApplicationDestinationPrefixes("/app");
    registry.setPreservePublishOrder(true);
  }

  @Override
  public void registerStompEndpoints(StompEndpointRegistry registry) {
    registry.setPreserveReceiveOrder(true);
    registry.addEndpoint("/ws").setAllowedOrigins(origins).withSockJS();
  }
}

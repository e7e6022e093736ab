package chatlab.original.fixed;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Profile;
import org.springframework.web.socket.config.annotation.EnableWebSocket;
import org.springframework.web.socket.config.annotation.WebSocketConfigurer;
import org.springframework.web.socket.config.annotation.WebSocketHandlerRegistry;

/** The raw handler at /room, to pages of named origins only (F9). */
@Configuration("fixedRoomConfig")
@EnableWebSocket
@Profile("fixed")
public class RoomConfig implements WebSocketConfigurer {

  @Value("${chat.allowed-origins:}")
  private String[] origins;

  @Override
  public void registerWebSocketHandlers(WebSocketHandlerRegistry registry) {
    registry.addHandler(fixedRoomHandler(), "/room").setAllowedOrigins(origins);
  }

  @Bean
  public RoomHandler fixedRoomHandler() {
    return new RoomHandler();
  }
}

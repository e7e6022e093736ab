package chatlab.original.fixed;

import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Profile;
import org.springframework.web.socket.config.annotation.EnableWebSocket;
import org.springframework.web.socket.config.annotation.WebSocketConfigurer;
import org.springframework.web.socket.config.annotation.WebSocketHandlerRegistry;

/** F9: without setAllowedOrigins, Spring admits pages of its own origin only. */
@Configuration("fixedRoomConfig")
@EnableWebSocket
@Profile("fixed")
public class RoomConfig implements WebSocketConfigurer {

  @Override
  public void registerWebSocketHandlers(WebSocketHandlerRegistry registry) {
    registry.addHandler(fixedRoomHandler(), "/room");
  }

  @Bean
  public RoomHandler fixedRoomHandler() {
    return new RoomHandler();
  }
}

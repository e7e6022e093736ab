package chatlab.original.decorated;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Profile;
import org.springframework.web.socket.config.annotation.EnableWebSocket;
import org.springframework.web.socket.config.annotation.WebSocketConfigurer;
import org.springframework.web.socket.config.annotation.WebSocketHandlerRegistry;

/** The article's room with decorated sessions, to try which line cures which fault. */
@Configuration("decoratedRoomConfig")
@EnableWebSocket
@Profile("decorated")
public class RoomConfig implements WebSocketConfigurer {

  @Value("${room.catches:true}")
  private boolean catches;

  @Value("${room.ordered:false}")
  private boolean ordered;

  @Override
  public void registerWebSocketHandlers(WebSocketHandlerRegistry registry) {
    registry.addHandler(decoratedRoomHandler(), "/room").setAllowedOriginPatterns("*");
  }

  @Bean
  public RoomHandler decoratedRoomHandler() {
    return new RoomHandler(catches, ordered);
  }
}

package chatlab.original.raw;

import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Profile;
import org.springframework.web.socket.config.annotation.EnableWebSocket;
import org.springframework.web.socket.config.annotation.WebSocketConfigurer;
import org.springframework.web.socket.config.annotation.WebSocketHandlerRegistry;

/** 「WebSocketConfig 클래스 생성」: the handler answers at /room, to pages of any origin. */
@Configuration
@EnableWebSocket
@Profile("raw")
public class RawConfig implements WebSocketConfigurer {

  @Override
  public void registerWebSocketHandlers(WebSocketHandlerRegistry registry) {
    registry.addHandler(roomHandler(), "/room").setAllowedOriginPatterns("*");
  }

  @Bean
  public RoomHandler roomHandler() {
    return new RoomHandler();
  }
}

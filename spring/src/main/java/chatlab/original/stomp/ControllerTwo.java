package chatlab.original.stomp;

import chatlab.original.ChatMessage;
import java.util.List;
import java.util.Map;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.context.annotation.Profile;
import org.springframework.data.redis.connection.stream.Consumer;
import org.springframework.data.redis.connection.stream.MapRecord;
import org.springframework.data.redis.connection.stream.ReadOffset;
import org.springframework.data.redis.connection.stream.StreamOffset;
import org.springframework.data.redis.connection.stream.StreamReadOptions;
import org.springframework.data.redis.core.RedisTemplate;
import org.springframework.messaging.handler.annotation.MessageMapping;
import org.springframework.messaging.handler.annotation.Payload;
import org.springframework.messaging.handler.annotation.SendTo;
import org.springframework.messaging.simp.SimpMessagingTemplate;
import org.springframework.scheduling.annotation.EnableScheduling;
import org.springframework.scheduling.annotation.Scheduled;
import org.springframework.stereotype.Controller;

/**
 * 「7. 메시지 처리 컨트롤러」: adds the field message, and looks every 100 ms for ten records at most.
 *
 * <p>The article does not show {@code @EnableScheduling}; without it the method never runs.
 */
@Controller
@EnableScheduling
@Profile("two")
public class ControllerTwo {

  @Autowired private SimpMessagingTemplate messaging;
  @Autowired private RedisTemplate<String, Object> redis;

  @MessageMapping("/chat.sendMessage")
  @SendTo("/topic/public")
  public ChatMessage sendMessage(@Payload ChatMessage message) {
    redis.opsForStream().add("chat-stream", Map.of("message", message.getContent()));
    return message;
  }

  @Scheduled(fixedRate = 100)
  public void consumeRedisStream() {
    List<MapRecord<String, Object, Object>> records =
        redis
            .opsForStream()
            .read(
                Consumer.from("group", "consumer"),
                StreamReadOptions.empty().count(10),
                StreamOffset.create("chat-stream", ReadOffset.lastConsumed()));
    for (MapRecord<String, Object, Object> record : records) {
      String content = (String) record.getValue().get("message");
      messaging.convertAndSend("/topic/public", new ChatMessage(content));
    }
  }
}

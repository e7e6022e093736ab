package chatlab.original.stomp;

import chatlab.original.ChatMessage;
import java.util.Collections;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.context.annotation.Profile;
import org.springframework.data.redis.core.RedisTemplate;
import org.springframework.messaging.handler.annotation.MessageMapping;
import org.springframework.messaging.handler.annotation.Payload;
import org.springframework.messaging.handler.annotation.SendTo;
import org.springframework.stereotype.Controller;

/** 「6. 메시지 처리 컨트롤러」: adds the field content to the stream, and also answers on the topic. */
@Controller
@Profile("one")
public class ControllerOne {

  @Autowired private RedisTemplate<String, Object> redis;

  @MessageMapping("/chat.sendMessage")
  @SendTo("/topic/public")
  public ChatMessage sendMessage(@Payload ChatMessage message) {
    redis.opsForStream().add("chat-stream", Collections.singletonMap("content", message.getContent()));
    return message;
  }
}

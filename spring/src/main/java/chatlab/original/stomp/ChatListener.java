package chatlab.original.stomp;

import chatlab.original.ChatMessage;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.context.annotation.Profile;
import org.springframework.data.redis.connection.stream.MapRecord;
import org.springframework.data.redis.stream.StreamListener;
import org.springframework.messaging.simp.SimpMessagingTemplate;
import org.springframework.stereotype.Component;

/** 「4. Stream 리스너 설정」: each record's content goes to /topic/public. */
@Component
@Profile("one")
public class ChatListener implements StreamListener<String, MapRecord<String, String, String>> {

  @Autowired private SimpMessagingTemplate messaging;

  @Override
  public void onMessage(MapRecord<String, String, String> record) {
    messaging.convertAndSend("/topic/public", new ChatMessage(record.getValue().get("content")));
  }
}

package chatlab.original.stomp;

import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.ApplicationArguments;
import org.springframework.boot.ApplicationRunner;
import org.springframework.context.annotation.Profile;
import org.springframework.data.redis.connection.stream.Consumer;
import org.springframework.data.redis.connection.stream.MapRecord;
import org.springframework.data.redis.connection.stream.ReadOffset;
import org.springframework.data.redis.connection.stream.StreamOffset;
import org.springframework.data.redis.stream.StreamMessageListenerContainer;
import org.springframework.stereotype.Component;

/** 「5. Stream 구독 설정」: consumer-1 of chat-group reads chat-stream. Nothing creates the group. */
@Component
@Profile("one")
public class StreamSubscription implements ApplicationRunner {

  @Autowired private StreamMessageListenerContainer<String, MapRecord<String, String, String>> container;
  @Autowired private ChatListener listener;

  @Override
  public void run(ApplicationArguments arguments) {
    container.receive(
        Consumer.from("chat-group", "consumer-1"),
        StreamOffset.create("chat-stream", ReadOffset.lastConsumed()),
        listener);
    container.start();
  }
}

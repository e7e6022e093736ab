package chatlab.original.fixed;

import java.time.Duration;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.boot.ApplicationArguments;
import org.springframework.boot.ApplicationRunner;
import org.springframework.context.annotation.Profile;
import org.springframework.data.redis.connection.RedisConnectionFactory;
import org.springframework.data.redis.connection.stream.MapRecord;
import org.springframework.data.redis.connection.stream.ReadOffset;
import org.springframework.data.redis.connection.stream.StreamOffset;
import org.springframework.data.redis.stream.StreamMessageListenerContainer;
import org.springframework.data.redis.stream.StreamMessageListenerContainer.StreamMessageListenerContainerOptions;
import org.springframework.data.redis.stream.StreamMessageListenerContainer.StreamReadRequest;
import org.springframework.messaging.simp.SimpMessagingTemplate;
import org.springframework.stereotype.Component;

/**
 * Each instance reads every record, without a group (F1, F3, F4), and waits for them in Redis (F7).
 *
 * <p>An error does not end the reading: it goes on after the last record it has seen.
 */
@Component
@Profile("fixed")
class Relay implements ApplicationRunner {

  private static final Logger log = LoggerFactory.getLogger(Relay.class);

  private final RedisConnectionFactory connections;
  private final ChatStream stream;
  private final SimpMessagingTemplate messaging;

  Relay(RedisConnectionFactory connections, ChatStream stream, SimpMessagingTemplate messaging) {
    this.connections = connections;
    this.stream = stream;
    this.messaging = messaging;
  }

  @Override
  public void run(ApplicationArguments arguments) {
    StreamMessageListenerContainerOptions<String, MapRecord<String, String, String>> options =
        StreamMessageListenerContainerOptions.builder().pollTimeout(Duration.ofSeconds(1)).build();
    var container = StreamMessageListenerContainer.create(connections, options);
    var afterNewest = StreamOffset.create(ChatStream.NAME, ReadOffset.from(stream.newest()));
    var request =
        StreamReadRequest.builder(afterNewest).cancelOnError(error -> false).errorHandler(this::pause).build();
    container.register(request, this::show);
    container.start();
  }

  /** F18: pass over a record of another program, and only that one: a String is read from any octets. */
  private void show(MapRecord<String, String, String> record) {
    Message message = ChatStream.message(record);
    if (message.content() == null) {
      log.warn("record {} is not a message of this chat", record.getId());
    } else {
      messaging.convertAndSend("/topic/public", message);
    }
  }

  private void pause(Throwable error) {
    log.warn("the stream cannot be read, next attempt in 0.2 s: {}", error.toString());
    try {
      Thread.sleep(200);
    } catch (InterruptedException stopping) {
      Thread.currentThread().interrupt();
    }
  }
}

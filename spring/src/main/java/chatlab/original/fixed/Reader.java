package chatlab.original.fixed;

import java.time.Duration;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.DisposableBean;
import org.springframework.beans.factory.SmartInitializingSingleton;
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
 * Every instance reads every record, from a place of its own, without a group (F1, F3, F4), and goes on after an error
 * (F15). It waits in Redis instead of looking every 100 ms (F7), and begins before the first client can subscribe.
 */
@Component
@Profile("fixed")
class Reader implements SmartInitializingSingleton, DisposableBean {

  private static final Logger log = LoggerFactory.getLogger(Reader.class);

  private final StreamMessageListenerContainer<String, MapRecord<String, String, String>> container;
  private final SimpMessagingTemplate messaging;
  private final Store store;

  Reader(RedisConnectionFactory connections, SimpMessagingTemplate messaging, Store store) {
    this.container =
        StreamMessageListenerContainer.create(
            connections,
            StreamMessageListenerContainerOptions.builder()
                .pollTimeout(Duration.ofSeconds(1))
                .build());
    this.messaging = messaging;
    this.store = store;
  }

  @Override
  public void afterSingletonsInstantiated() {
    container.register(
        StreamReadRequest.builder(StreamOffset.create(Store.STREAM, ReadOffset.from(store.lastId())))
            .cancelOnError(error -> false)
            .errorHandler(error -> log.warn("reading again after: {}", error.getMessage()))
            .build(),
        record -> messaging.convertAndSend("/topic/public", Message.of(record)));
    container.start();
  }

  @Override
  public void destroy() {
    container.stop();
  }
}

package chatlab.original.fixed;

import java.util.List;
import org.springframework.context.annotation.Profile;
import org.springframework.data.domain.Range;
import org.springframework.data.domain.Range.Bound;
import org.springframework.data.redis.connection.Limit;
import org.springframework.data.redis.connection.stream.MapRecord;
import org.springframework.data.redis.core.StreamOperations;
import org.springframework.data.redis.core.StringRedisTemplate;
import org.springframework.data.redis.core.script.DefaultRedisScript;
import org.springframework.stereotype.Component;

/** The stream. {@code StringRedisTemplate} has string serializers for hashes too (F11). */
@Component
@Profile("fixed")
class Store {

  static final String STREAM = "chat-stream";

  /** Adds a message once, however often it is sent (F10), and trims the stream (F5). */
  private static final DefaultRedisScript<String> ADD =
      new DefaultRedisScript<>(
          """
          if redis.call('SET', KEYS[2], '', 'NX', 'EX', 86400) then
            return redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'clientId', ARGV[1], 'content', ARGV[2])
          end
          """,
          String.class);

  private final StringRedisTemplate redis;
  private final StreamOperations<String, String, String> stream;

  Store(StringRedisTemplate redis) {
    this.redis = redis;
    this.stream = redis.opsForStream();
  }

  void add(String clientId, String content) {
    redis.execute(ADD, List.of(STREAM, "chat-once:" + clientId), clientId, content);
  }

  List<Message> after(String id) {
    return stream.range(STREAM, Range.rightUnbounded(Bound.exclusive(id))).stream()
        .map(Message::of)
        .toList();
  }

  String lastId() {
    List<MapRecord<String, String, String>> last =
        stream.reverseRange(STREAM, Range.unbounded(), Limit.limit().count(1));
    return last.isEmpty() ? "0-0" : last.get(0).getId().getValue();
  }
}
